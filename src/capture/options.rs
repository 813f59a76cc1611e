//! What capture is told: which tables, what of a change, and how much of the past.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Error;
use super::install::name_of;
use crate::model::{Selection, is_log_name};
use crate::sqlite::store::{self, meta_key};

/// What a log entry carries besides the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Images {
    /// Nothing: whoever reads it looks the row up.
    Key,
    /// The row before and after, every column of it.
    Full,
}

impl Images {
    /// As `__cdc_meta` and the configuration have it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Key => "key",
            Self::Full => "full",
        }
    }

    /// What [`Self::word`] says.
    pub fn by_word(word: &str) -> Option<Self> {
        [Self::Key, Self::Full].into_iter().find(|images| images.word() == word)
    }

    /// What entries of this database's log carry; `None` where nothing is captured.
    pub(super) fn stored(connection: &rusqlite::Connection) -> rusqlite::Result<Option<Self>> {
        if !store::exists(connection)? {
            return Ok(None);
        }
        let word: Option<String> = store::meta(connection, meta_key::IMAGES)?;
        Ok(word.and_then(|word| Self::by_word(&word)))
    }
}

/// How much of the log is kept for a consumer that is away. Past any of them it is cut off, and copied anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// The oldest entry's age.
    pub age: Duration,
    /// Entries.
    pub rows: u64,
    /// Bytes, estimated from recent entries.
    pub size_bytes: u64,
}

impl Default for Retention {
    fn default() -> Self {
        Self { age: Duration::from_secs(7 * 24 * 3600), rows: 10_000_000, size_bytes: 1 << 30 }
    }
}

/// How a database is captured.
#[derive(Clone, Debug)]
pub struct CaptureOptions {
    /// Which tables.
    pub selection: Selection,
    /// What an entry carries. A log that carries more than is asked for stays as it is.
    pub images: Images,
    /// Whether a log that carries something else is changed to carry [`Self::images`]: an operator has said so.
    pub change_images: bool,
    /// Whether [`Self::images`] are for a log that is yet to be made, and nobody asked for them: one that is there is
    /// good enough.
    pub images_if_new: bool,
    /// The log's name; begins with `__cdc_`.
    pub log_table: String,
    /// What bounds the log.
    pub retention: Retention,
    /// Whether changes of peers are applied here too: then what capture may have missed is copied to all of them under
    /// the rules for both ways.
    pub two_way: bool,
    /// Whether a peer changes rows here that never sees ours. Only the log tells then what it had not seen, so entries are
    /// kept for as long as the retention allows.
    pub keep_all: bool,
}

impl Default for CaptureOptions {
    fn default() -> Self {
        Self {
            selection: Selection::all(),
            images: Images::Key,
            change_images: false,
            images_if_new: false,
            log_table: "__cdc_log".to_owned(),
            retention: Retention::default(),
            two_way: false,
            keep_all: false,
        }
    }
}

impl CaptureOptions {
    /// How the database is captured now, as it says itself; `None` where it is not.
    ///
    /// # Errors
    /// SQLite's, or what is stored makes no sense.
    pub fn stored(connection: &rusqlite::Connection) -> Result<Option<Self>, Error> {
        if !store::exists(connection)? {
            return Ok(None);
        }
        let Some(selection) = store::meta::<String>(connection, meta_key::SELECTION)? else { return Ok(None) };
        let globs: StoredSelection = serde_json::from_str(&selection)?;
        let mut options = Self::default();
        if let Ok(selection) = Selection::new(&globs.tables, &globs.skip_tables) {
            options.selection = selection;
        }
        if let Some(name) = store::meta(connection, meta_key::LOG_TABLE)? {
            options.log_table = name;
        }
        options.images = Images::stored(connection)?.unwrap_or(Images::Key);
        if let Some(retention) = store::meta::<String>(connection, meta_key::RETENTION)? {
            let StoredRetention { age_ms, rows, size_bytes } = serde_json::from_str(&retention)?;
            options.retention = Retention { age: Duration::from_millis(age_ms), rows, size_bytes };
        }
        Ok(Some(options))
    }

    /// Refuses what can never work.
    pub(super) fn check(&self) -> Result<(), Error> {
        match is_log_name(&self.log_table) {
            true => Ok(()),
            false => Err(Error::LogName { name: self.log_table.clone() }),
        }
    }

    /// What entries are to carry from here on, with what they carry now.
    ///
    /// # Errors
    /// [`Error::OtherImages`]: more is asked for than the log has, and nobody has said that it is to be changed.
    pub(super) fn effective_images(&self, connection: &rusqlite::Connection) -> Result<Images, Error> {
        match (Images::stored(connection)?, self.images) {
            (None, wanted) => Ok(wanted),
            (Some(_), wanted) if self.change_images => Ok(wanted),
            (Some(Images::Key), Images::Full) if !self.images_if_new => {
                Err(Error::OtherImages { database: name_of(connection) })
            }
            (Some(stored), _) => Ok(stored),
        }
    }

    /// The selection as `__cdc_meta` has it.
    pub(super) fn selection_json(&self) -> Result<String, Error> {
        let (tables, skip_tables) = self.selection.globs();
        Ok(serde_json::to_string(&StoredSelection { tables: tables.to_vec(), skip_tables: skip_tables.to_vec() })?)
    }
}

impl Retention {
    /// As `__cdc_meta` has it, so that whoever looks after the log next keeps as much of it.
    pub(super) fn json(&self) -> Result<String, Error> {
        let age_ms = u64::try_from(self.age.as_millis()).unwrap_or(u64::MAX);
        Ok(serde_json::to_string(&StoredRetention { age_ms, rows: self.rows, size_bytes: self.size_bytes })?)
    }
}

#[derive(Serialize, Deserialize)]
struct StoredRetention {
    age_ms: u64,
    rows: u64,
    size_bytes: u64,
}

#[derive(Serialize, Deserialize)]
struct StoredSelection {
    tables: Vec<String>,
    skip_tables: Vec<String>,
}

/// A table that is wanted and not captured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SkippedTable {
    /// Its name.
    pub name: String,
    /// Why, for a person.
    pub reason: String,
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::TAKEN_OVER;
    use super::*;
    use crate::model::OWN_NAMES;

    #[test]
    fn the_log_cannot_have_the_name_of_anything_else_of_ours() {
        let connection = crate::sqlite::in_memory().expect("memory");
        for tables in [store::NODE_TABLES, store::CAPTURE_TABLES] {
            connection.execute_batch(tables).expect("tables");
        }
        let sql = "SELECT name FROM sqlite_schema WHERE name NOT LIKE 'sqlite%'";
        let mut statement = connection.prepare(sql).expect("names");
        let names = statement.query_map([], |row| row.get(0)).expect("names").map(|name| name.expect("name"));
        let names: BTreeSet<String> = names.chain([TAKEN_OVER.to_owned()]).collect();
        assert_eq!(names, OWN_NAMES.map(str::to_owned).into());
        for (name, fine) in names.iter().map(|name| (name.as_str(), false)).chain([("log", false), ("__cdc_log", true)])
        {
            let options = CaptureOptions { log_table: name.to_owned(), ..CaptureOptions::default() };
            assert_eq!(options.check().is_ok(), fine, "{name}");
        }
    }

    #[test]
    fn a_log_is_changed_only_by_whoever_says_so() {
        let connection = crate::sqlite::in_memory().expect("memory");
        let effective = |images, change_images| {
            CaptureOptions { images, change_images, ..CaptureOptions::default() }.effective_images(&connection)
        };
        assert!(matches!(effective(Images::Full, false), Ok(Images::Full)), "nothing is captured yet");
        connection.execute_batch(store::NODE_TABLES).expect("tables");
        store::set_meta(&connection, meta_key::IMAGES, "key").expect("meta");
        assert!(matches!(effective(Images::Full, false), Err(Error::OtherImages { .. })));
        assert!(matches!(effective(Images::Full, true), Ok(Images::Full)));
        let unasked = CaptureOptions { images: Images::Full, images_if_new: true, ..CaptureOptions::default() };
        assert!(matches!(unasked.effective_images(&connection), Ok(Images::Key)), "it stays what it is");
        store::set_meta(&connection, meta_key::IMAGES, "full").expect("meta");
        assert!(matches!(effective(Images::Key, false), Ok(Images::Full)), "full has all that key has");
        assert!(matches!(effective(Images::Key, true), Ok(Images::Key)));
    }
}
