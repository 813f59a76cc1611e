//! What there is to decide about: the schema as it is, as it was when last compared, and what was captured then.
//! Reads only.

use rusqlite::Connection;

use super::accounting::ObjectNote;
use super::change_log::LogWidth;
use super::generation::{self, Generation};
use super::{CaptureOptions, Error, Images, SkippedTable, change_log, trial::Trial, trigger_sql};
use crate::model::{KeyShape, TableId, TableSchema};
use crate::sqlite::authorizer::names_ours;
use crate::sqlite::catalog::{self, TableKind};
use crate::sqlite::store::{self, meta_key};

/// The schema when the triggers were last compared with it.
pub(super) struct Before {
    pub version: i64,
    pub objects: Vec<ObjectNote>,
}

/// Everything that a decision is made from.
pub(super) struct Situation {
    /// `PRAGMA schema_version`.
    pub version: i64,
    /// Every object with SQL, oldest first.
    pub objects: Vec<ObjectNote>,
    /// `None` where nothing was ever captured.
    pub before: Option<Before>,
    /// What is captured.
    pub generations: Vec<Generation>,
    /// The id of the next generation.
    pub next_id: i64,
    /// The tables that are wanted and can be captured.
    pub wanted: Vec<TableSchema>,
    /// The tables that are wanted and cannot be captured.
    pub skipped: Vec<SkippedTable>,
    /// The log's name.
    pub log: String,
    /// Columns that the log has; `None` where there is no log.
    pub log_width: Option<LogWidth>,
    /// What entries are to carry.
    pub images: Images,
}

impl Situation {
    /// Reads it. Inside one transaction, or `version` is compared again later.
    pub fn read(connection: &Connection, options: &CaptureOptions) -> Result<Self, Error> {
        let installed = store::exists(connection)? && store::table_exists(connection, "__cdc_tables")?;
        let generations = if installed { generation::tables(connection)? } else { Vec::new() };
        let log = options.log_table.clone();
        let mut situation = Self {
            version: catalog::schema_version(connection)?,
            objects: objects(connection)?,
            before: if installed { before(connection)? } else { None },
            generations,
            next_id: generation::next_id(connection)?,
            wanted: Vec::new(),
            skipped: Vec::new(),
            log_width: change_log::width(connection, &log)?,
            images: options.effective_images(connection)?,
            log,
        };
        situation.read_tables(connection, options)?;
        Ok(situation)
    }

    fn read_tables(&mut self, connection: &Connection, options: &CaptureOptions) -> Result<(), Error> {
        let mut trial = None;
        for entry in catalog::table_list(connection)? {
            if !options.selection.has(&entry.name) {
                continue;
            }
            let reason = match entry.kind {
                TableKind::Virtual => "a virtual table, on which no trigger can be put".to_owned(),
                TableKind::Shadow => "it belongs to a virtual table, which alone may write it".to_owned(),
                TableKind::Ordinary => {
                    let Some(table) = catalog::table(connection, &entry.name)? else { continue };
                    match self.refusal(&table, &mut trial)? {
                        Some(reason) => reason,
                        None => {
                            self.wanted.push(table);
                            continue;
                        }
                    }
                }
            };
            self.skipped.push(SkippedTable { name: entry.name, reason });
        }
        Ok(())
    }

    /// Why a table cannot be captured, if it cannot.
    fn refusal(&self, table: &TableSchema, trial: &mut Option<Trial>) -> Result<Option<String>, Error> {
        if let Some(needs) = &table.foreign_needs {
            return Ok(Some(needs.clone()));
        }
        let indexes = table.indexes.iter().filter_map(|index| index.sql.as_deref());
        if let Some(name) = indexes.chain([table.ddl.as_str()]).find_map(names_ours) {
            return Ok(Some(format!(
                "it uses the name {name:?}, and what begins with {} is Twinlite's own",
                catalog::OURS
            )));
        }
        if table.key == KeyShape::None {
            return Ok(Some("it has no primary key, and its columns hide every name of the rowid".to_owned()));
        }
        let triggers = match trigger_sql::triggers(table, TableId(0), &self.log, self.images) {
            Ok(triggers) => triggers,
            Err(reason) => return Ok(Some(reason)),
        };
        let notes = generation::index_notes(table);
        let proven =
            |known: &Generation| known.ddl == table.ddl && known.indexes == notes && known.images == self.images;
        if self.generations.iter().any(proven) {
            return Ok(None);
        }
        if trial.is_none() {
            *trial = Some(Trial::new(&self.log)?);
        }
        Ok(trial.as_ref().expect("it was just made").refusal(table, &triggers)?)
    }
}

/// Every object of the schema that has SQL, oldest first: of two triggers the later one fires first.
pub(super) fn objects(connection: &Connection) -> rusqlite::Result<Vec<ObjectNote>> {
    let mut statement = connection
        .prepare("SELECT type, name, tbl_name, sql FROM main.sqlite_schema WHERE sql IS NOT NULL ORDER BY rowid")?;
    let read = |row: &rusqlite::Row<'_>| {
        Ok(ObjectNote { kind: row.get(0)?, name: row.get(1)?, table: row.get(2)?, sql: row.get(3)? })
    };
    statement.query_map([], read)?.collect()
}

fn before(connection: &Connection) -> Result<Option<Before>, Error> {
    let version: Option<i64> = store::meta(connection, meta_key::SCHEMA_VERSION)?;
    let objects: Option<String> = store::meta(connection, meta_key::SCHEMA_OBJECTS)?;
    Ok(match (version, objects) {
        (Some(version), Some(objects)) => Some(Before { version, objects: serde_json::from_str(&objects)? }),
        _ => None,
    })
}

/// Whether the globs, or what entries carry, differ from what was last put into effect.
pub(super) fn is_reselected(connection: &Connection, options: &CaptureOptions) -> Result<bool, Error> {
    let stored: Option<String> = store::meta(connection, meta_key::SELECTION)?;
    let images = Images::stored(connection)?;
    Ok(stored != Some(options.selection_json()?) || images != Some(options.effective_images(connection)?))
}
