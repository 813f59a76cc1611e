//! What SQLite says of a database, read once.

use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode};

use super::facts::{FileFacts, Subject};
use crate::capture::{self, CaptureOptions, Examined};
use crate::model::{KeyShape, NodeId, ObjectKind, SchemaObject, TableSchema};
use crate::sqlite::store::{self, FORMAT, meta_key};
use crate::sqlite::{self, catalog, ident};

/// Bytes of a database whose rows are looked at without being asked: some seconds of reading from a slow disk.
const BYTES_MAX: u64 = 512 << 20;

/// How long one look at rows may take without being asked. A reader keeps the application's WAL from being reused.
const LOOK_MAX: Duration = Duration::from_secs(5);

/// Instructions of SQLite's between two looks at the clock: a fraction of a millisecond.
const INSTRUCTIONS: i32 = 10_000;

/// Faults that `quick_check` reports at most: the first ones tell what the others are.
const FAULTS_MAX: u32 = 5;

/// Broken rows of a table that are counted; beyond, there are "at least" so many.
pub(super) const ROWS_COUNTED_MAX: i64 = 1_000;

/// What may be read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Whether rows are looked at.
    rows: bool,
    /// How long one look may take.
    time: Option<Duration>,
}

impl Bounds {
    pub(super) fn of(files: &FileFacts, deep: bool) -> Self {
        Self { rows: deep || files.bytes <= BYTES_MAX, time: (!deep).then_some(LOOK_MAX) }
    }
}

/// What SQLite says.
#[derive(Clone, Debug, Default)]
pub struct Content {
    /// `PRAGMA encoding`.
    pub encoding: String,
    /// What `quick_check` reports, but for "ok".
    pub damage: Vec<String>,
    /// What was not looked at, for it would take long.
    pub unexamined: Vec<String>,
    /// The node's id.
    pub node_id: Option<NodeId>,
    /// The format, where it is newer than ours; nothing of ours is read then.
    pub newer_format: Option<i64>,
    /// What of ours makes no sense.
    pub nonsense: Option<String>,
    /// How capture stands.
    pub capture: Examined,
    /// Consumers of the log that were cut off.
    pub cut_off: Vec<String>,
    /// Conflicts recorded, by table.
    pub conflicts: Vec<(String, i64)>,
    /// Tables whose copy into this database is unfinished.
    pub copying: Vec<String>,
    /// Columns of keys that hold a NULL somewhere: table, column.
    pub null_keys: Vec<(String, String)>,
    /// Foreign keys of the tables that can be captured.
    pub foreign_keys: Vec<ForeignKey>,
    /// Tables with rows whose parent is not there: child, how many, at most [`ROWS_COUNTED_MAX`].
    pub orphans: Vec<(String, i64)>,
    /// Tables with a foreign key that SQLite cannot check: child, SQLite's words.
    pub mismatched: Vec<(String, String)>,
    /// Views that cannot be read: name, SQLite's words.
    pub broken_views: Vec<(String, String)>,
    /// Indexes made by CREATE INDEX, views, triggers; not ours.
    pub objects: Vec<SchemaObject>,
}

/// One foreign key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ForeignKey {
    /// The table that has it.
    pub child: String,
    /// The table that it names.
    pub parent: String,
    /// The child's columns.
    pub columns: Vec<String>,
}

impl Content {
    /// Reads it.
    ///
    /// # Errors
    /// SQLite's, where the schema itself cannot be read. What of ours cannot be read is noted instead.
    pub(super) fn read(mut connection: Connection, subject: &Subject, bounds: Bounds) -> rusqlite::Result<Self> {
        let mut content = Self {
            encoding: connection.query_row("PRAGMA encoding", [], |row| row.get(0))?,
            objects: catalog::objects(&connection)?,
            ..Self::default()
        };
        if let Err(error) = content.read_ours(&mut connection, subject) {
            let said = sqlite::said(error.as_ref());
            if let Some(cause) = about_the_file(error.as_ref()) {
                return Err(rusqlite::Error::SqliteFailure(cause, Some(said)));
            }
            content.nonsense = Some(said);
        }
        for table in &content.capture.wanted {
            content.foreign_keys.extend(foreign_keys(&connection, &table.name)?);
        }
        content.read_views(&connection);
        content.read_rows(&mut connection, bounds)?;
        Ok(content)
    }

    fn read_ours(&mut self, connection: &mut Connection, subject: &Subject) -> Result<(), Box<dyn std::error::Error>> {
        let transaction = connection.transaction()?;
        if store::exists(&transaction)? {
            self.node_id = store::node_id(&transaction)?;
            self.newer_format = store::meta::<i64>(&transaction, meta_key::FORMAT)?.filter(|found| *found > FORMAT);
        }
        if self.newer_format.is_some() {
            return Ok(());
        }
        let stored = if subject.options.is_none() { CaptureOptions::stored(&transaction) } else { Ok(None) };
        let options = subject.options.clone().or(stored?).unwrap_or_default();
        self.capture = capture::examine(&transaction, &options)?;
        let is_fed = store::exists(&transaction)? && store::epoch(&transaction)?.is_none();
        if (subject.only_receives || is_fed) && !subject.two_way {
            // Nothing is captured here, and nothing is to be: what stands in its way is of no interest.
            self.capture = Examined { wanted: std::mem::take(&mut self.capture.wanted), ..Examined::default() };
        }
        if store::table_exists(&transaction, "__cdc_consumers")? {
            let consumers = capture::consumers::list(&transaction)?;
            self.cut_off =
                consumers.into_iter().filter(|consumer| consumer.cut_off).map(|consumer| consumer.name).collect();
        }
        if store::exists(&transaction)? {
            let sql = "SELECT tbl, count(*) FROM main.__cdc_conflicts GROUP BY tbl ORDER BY tbl";
            let read = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?));
            self.conflicts = transaction.prepare(sql)?.query_map([], read)?.collect::<rusqlite::Result<_>>()?;
            let sql = "SELECT DISTINCT name FROM main.__cdc_copies WHERE state IN ('pending', 'copying') ORDER BY name";
            self.copying =
                transaction.prepare(sql)?.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
        }
        Ok(())
    }

    /// Compiles every view. What only the application has is no fault of the view's.
    fn read_views(&mut self, connection: &Connection) {
        for view in self.objects.iter().filter(|object| object.kind == ObjectKind::View) {
            let Err(error) = connection.prepare(&format!("SELECT * FROM main.{}", ident(&view.name))) else { continue };
            let said = sqlite::said(&error);
            if said.contains("no such table") || said.contains("no such column") {
                self.broken_views.push((view.name.clone(), said));
            }
        }
    }

    /// Looks at rows, within bounds.
    fn read_rows(&mut self, connection: &mut Connection, bounds: Bounds) -> rusqlite::Result<()> {
        let looks: [(&str, Look); 3] = [
            ("whether its pages are sound", Self::look_for_damage),
            ("NULLs in keys", Self::look_for_nulls),
            ("rows without parents", Self::look_for_orphans),
        ];
        for (what, look) in looks {
            let begun = Instant::now();
            let is_late = move || bounds.time.is_some_and(|time| begun.elapsed() > time);
            connection.progress_handler(INSTRUCTIONS, Some(is_late))?;
            let outcome = if bounds.rows { look(self, connection) } else { Ok(()) };
            let interrupted = outcome.as_ref().err().and_then(rusqlite::Error::sqlite_error_code)
                == Some(ErrorCode::OperationInterrupted);
            if interrupted || !bounds.rows {
                self.unexamined.push(what.to_owned());
            } else {
                outcome?;
            }
        }
        connection.progress_handler(0, None::<fn() -> bool>)
    }

    fn look_for_damage(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        let mut statement = connection.prepare(&format!("PRAGMA main.quick_check({FAULTS_MAX})"))?;
        let said = statement.query_map([], |row| row.get::<_, String>(0))?.collect::<rusqlite::Result<Vec<_>>>()?;
        self.damage = said.into_iter().filter(|line| line != "ok").collect();
        Ok(())
    }

    fn look_for_nulls(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        for table in &self.capture.wanted {
            for column in nullable_key(table) {
                let sql = format!("SELECT 1 FROM main.{} WHERE {} IS NULL LIMIT 1", ident(&table.name), ident(column));
                if connection.prepare(&sql)?.exists([])? {
                    self.null_keys.push((table.name.clone(), column.to_owned()));
                }
            }
        }
        Ok(())
    }

    fn look_for_orphans(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        let mut children: Vec<&str> = self.foreign_keys.iter().map(|key| key.child.as_str()).collect();
        children.dedup();
        let sql = "SELECT count(*) FROM (SELECT 1 FROM pragma_foreign_key_check(?1, 'main') LIMIT ?2)";
        let mut statement = connection.prepare(sql)?;
        for child in children {
            match statement.query_row((child, ROWS_COUNTED_MAX), |row| row.get::<_, i64>(0)) {
                Ok(0) => {}
                Ok(rows) => self.orphans.push((child.to_owned(), rows)),
                Err(error) if error.to_string().contains("foreign key mismatch") => {
                    self.mismatched.push((child.to_owned(), sqlite::said(&error)));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

type Look = fn(&mut Content, &Connection) -> rusqlite::Result<()>;

/// SQLite's failure, where it is one of the file as a whole and not of what we keep in it.
fn about_the_file(error: &(dyn std::error::Error + 'static)) -> Option<rusqlite::ffi::Error> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(failure) = error.downcast_ref::<rusqlite::ffi::Error>() {
            let ours = matches!(failure.code, ErrorCode::Unknown | ErrorCode::TypeMismatch | ErrorCode::SchemaChanged);
            return (!ours).then_some(*failure);
        }
        cause = error.source();
    }
    None
}

/// The columns of a table's key that may hold a NULL: what SQLite allows in a rowid table by an old mistake.
fn nullable_key(table: &TableSchema) -> Vec<&str> {
    match &table.key {
        KeyShape::Columns { columns } if !table.without_rowid => {
            let nullable = columns.iter().map(|(place, _)| &table.columns[*place]).filter(|column| !column.not_null);
            nullable.map(|column| column.name.as_str()).collect()
        }
        KeyShape::Columns { .. } | KeyShape::Rowid { .. } | KeyShape::RowidAlias { .. } | KeyShape::None => Vec::new(),
    }
}

fn foreign_keys(connection: &Connection, table: &str) -> rusqlite::Result<Vec<ForeignKey>> {
    let mut statement = connection.prepare(&format!("PRAGMA main.foreign_key_list({})", ident(table)))?;
    let mut rows = statement.query([])?;
    let (mut keys, mut newest): (Vec<ForeignKey>, Option<i64>) = (Vec::new(), None);
    while let Some(row) = rows.next()? {
        let id: i64 = row.get("id")?;
        if newest != Some(id) {
            newest = Some(id);
            keys.push(ForeignKey { child: table.to_owned(), parent: row.get("table")?, columns: Vec::new() });
        }
        let key = keys.last_mut().expect("one was just pushed");
        key.columns.push(row.get("from")?);
    }
    Ok(keys)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROWS: &str = "CREATE TABLE t(k TEXT PRIMARY KEY, a);
        WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 20000) INSERT INTO t SELECT n, n FROM n;
        INSERT INTO t VALUES (NULL, 1)";

    fn read(bounds: Bounds) -> Content {
        let connection = sqlite::in_memory().expect("memory");
        connection.execute_batch(ROWS).expect("rows");
        let subject = Subject {
            database: "a.db".into(),
            options: None,
            only_receives: false,
            two_way: false,
            user_triggers: false,
        };
        Content::read(connection, &subject, bounds).expect("read")
    }

    #[test]
    fn what_would_take_long_is_not_read_and_said() {
        let all = read(Bounds { rows: true, time: None });
        assert_eq!((all.unexamined.len(), all.null_keys.len()), (0, 1));
        let none = read(Bounds { rows: false, time: None });
        assert_eq!((none.unexamined.len(), none.null_keys.len()), (3, 0));
        let begun = read(Bounds { rows: true, time: Some(Duration::ZERO) });
        assert_eq!(begun.unexamined, ["whether its pages are sound"], "what is found at once is found");
    }

    #[test]
    fn rows_are_looked_at_unless_they_are_many() {
        let bounds = |bytes, deep| {
            let Bounds { rows, time } = Bounds::of(&FileFacts { bytes, ..FileFacts::default() }, deep);
            (rows, time.is_some())
        };
        assert_eq!([bounds(BYTES_MAX, false), bounds(BYTES_MAX + 1, false)], [(true, true), (false, true)]);
        assert_eq!(bounds(u64::MAX, true), (true, false));
    }
}
