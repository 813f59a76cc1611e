//! The triggers of one table, as SQL. Pure: a table's schema, its id and the log's name in, statements out.
//!
//! What is promised to the application: bodies are plain DML that SQLite 3.24 runs, append rows that cannot conflict,
//! carry no OR clause (the outer statement's would override it), and call no function but `julianday`, `max`, `coalesce`
//! and what a unique index or a default of the table itself calls.

use super::touch_sql::{Event, Slot, slots};
use super::{Images, image_sql};
use crate::model::{KeyShape, TableId, TableSchema};
pub use crate::sqlite::LogOp as Op;
use crate::sqlite::catalog::OURS;
use crate::sqlite::ident;

/// What a rowid can be called, besides the name of a column that is it.
pub(super) const ROWID_NAMES: [&str; 3] = ["rowid", "oid", "_rowid_"];

/// One trigger of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trigger {
    /// Its name.
    pub name: String,
    /// Its CREATE TRIGGER, as `sqlite_schema` will have it.
    pub sql: String,
}

/// The table id in the name of a trigger that captures, if it is one.
pub fn table_of_trigger(name: &str) -> Option<TableId> {
    let (id, kind) = name.strip_prefix(OURS)?.rsplit_once('_')?;
    matches!(kind, "ai" | "au" | "ak" | "ad" | "bi" | "bu").then(|| id.parse().ok().map(TableId)).flatten()
}

/// Every trigger of a table.
///
/// # Errors
/// Why the table cannot be captured.
pub fn triggers(table: &TableSchema, id: TableId, log: &str, images: Images) -> Result<Vec<Trigger>, String> {
    let body = Body { id, log: ident(log), keys: keys(table), table };
    let before_insert = slots(table, Event::Insert, images)?;
    let before_update = slots(table, Event::Update, images)?;
    if images == Images::Full {
        return Ok(image_sql::triggers(&body, &before_insert, &before_update));
    }
    let mut made = vec![
        body.after("ai", "INSERT", &[body.append(Op::Insert, "NEW")]),
        body.after("au", "UPDATE", &[body.after_update()]),
        body.after_key_change(),
        body.after("ad", "DELETE", &[body.append(Op::Delete, "OLD")]),
    ];
    if !before_insert.is_empty() {
        let touches: Vec<String> = before_insert.iter().map(|slot| body.touch(&slot.holds)).collect();
        made.push(body.trigger("bi", "BEFORE INSERT", &body.guard(), &touches));
    }
    if !before_update.is_empty() {
        made.push(body.before_update(&before_update));
    }
    Ok(made)
}

/// The key's columns as SQL names: the rowid bare, for in quotes it may become a string.
fn keys(table: &TableSchema) -> Vec<String> {
    match &table.key {
        KeyShape::Rowid { name } => vec![(*name).to_owned()],
        KeyShape::RowidAlias { .. } | KeyShape::Columns { .. } | KeyShape::None => {
            table.key_columns().iter().map(|(name, _)| ident(name)).collect()
        }
    }
}

/// What all triggers of a table have in common.
pub(super) struct Body<'t> {
    pub table: &'t TableSchema,
    pub id: TableId,
    /// The log, as an SQL identifier.
    pub log: String,
    /// The key's columns, as SQL names.
    pub keys: Vec<String>,
}

impl Body<'_> {
    pub fn after(&self, kind: &str, event: &str, statements: &[String]) -> Trigger {
        self.trigger(kind, &format!("AFTER {event}"), &self.guard(), statements)
    }

    pub fn trigger(&self, kind: &str, moment: &str, when: &str, statements: &[String]) -> Trigger {
        let name = format!("{OURS}{}_{kind}", self.id.0);
        let statements: String = statements.iter().map(|statement| format!("\n  {statement};")).collect();
        let sql = format!(
            "CREATE TRIGGER {} {moment} ON {}\nWHEN {when}\nBEGIN{statements}\nEND",
            ident(&name),
            ident(&self.table.name)
        );
        Trigger { name, sql }
    }

    /// True while the log's end is below the limit: false while a peer's changes are applied, and once the log is full.
    /// A missing limit or an empty log captures. The end is read by its order, for `max(seq)` is an aggregate, which is
    /// set up and torn down for each row.
    pub fn guard(&self) -> String {
        format!(
            "coalesce((SELECT seq FROM {} ORDER BY seq DESC LIMIT 1), 0) < coalesce((SELECT value FROM __cdc_meta WHERE \
             key = 'capture_limit'), 9223372036854775807)",
            self.log
        )
    }

    /// The time of an entry: never earlier than the entry before it, nor than anything applied from a peer.
    pub fn time(&self) -> String {
        format!(
            "max(CAST((julianday('now') - 2440587.5) * 86400000.0 AS INTEGER), coalesce((SELECT value FROM __cdc_meta \
             WHERE key = 'hlc'), 0), coalesce((SELECT ts FROM {} ORDER BY seq DESC LIMIT 1), 0))",
            self.log
        )
    }

    /// The time of the newest entry.
    pub fn time_of_last(&self) -> String {
        format!("(SELECT ts FROM {} ORDER BY seq DESC LIMIT 1)", self.log)
    }

    fn head(&self) -> String {
        let places: Vec<String> = (0..self.keys.len()).map(|place| format!("k{place}")).collect();
        format!("INSERT INTO {}(ts, tbl, op, {})", self.log, places.join(", "))
    }

    fn key_of(&self, row: &str) -> String {
        self.keys.iter().map(|key| format!("{row}.{key}")).collect::<Vec<_>>().join(", ")
    }

    fn append(&self, op: Op, row: &str) -> String {
        format!("{} VALUES ({}, {}, {}, {})", self.head(), self.time(), self.id.0, op.code(), self.key_of(row))
    }

    /// The key that an updated row has now: its own, or one that it got.
    fn after_update(&self) -> String {
        let op = format!("{} - ({})", Op::Update.code(), changed(&self.keys));
        format!("{} VALUES ({}, {}, {op}, {})", self.head(), self.time(), self.id.0, self.key_of("NEW"))
    }

    /// The key that an updated row had, where it has another one now. A trigger of its own, for as a condition of a
    /// statement this cost every update a third more: SQLite gathers what it selects before it writes it.
    ///
    /// It is for updates that name a column of the key, so that others do not even start it (a fifth less again). SQLite
    /// compares the names as they are written, and a rowid can be written in three more ways than its column's name.
    fn after_key_change(&self) -> Trigger {
        let mut names: Vec<&str> = self.keys.iter().map(String::as_str).collect();
        match &self.table.key {
            KeyShape::Rowid { .. } | KeyShape::RowidAlias { .. } => names.extend(ROWID_NAMES),
            KeyShape::Columns { .. } | KeyShape::None => {}
        }
        let moment = format!("AFTER UPDATE OF {}", names.join(", "));
        let when = format!("({}) AND {}", changed(&self.keys), self.guard());
        self.trigger("ak", &moment, &when, &[self.append(Op::Delete, "OLD")])
    }

    fn touch(&self, holds: &str) -> String {
        let (time, key) = (self.time(), self.key_of("x"));
        let (id, op, table) = (self.id.0, Op::Touch.code(), ident(&self.table.name));
        format!("{} SELECT {time}, {id}, {op}, {key} FROM {table} AS x WHERE {holds}", self.head())
    }

    fn before_update(&self, slots: &[Slot]) -> Trigger {
        let itself = self.is_itself();
        let mut depends_on: Vec<String> = slots.iter().flat_map(|slot| slot.depends_on.iter().cloned()).collect();
        depends_on.sort();
        depends_on.dedup();
        let touches: Vec<String> = slots
            .iter()
            .map(|slot| match slots.len() {
                1 => self.touch(&format!("{} AND {itself}", slot.holds)),
                _ => self.touch(&format!("({}) AND {} AND {itself}", changed(&slot.depends_on), slot.holds)),
            })
            .collect();
        let when = format!("({}) AND {}", changed(&depends_on), self.guard());
        self.trigger("bu", "BEFORE UPDATE", &when, &touches)
    }

    /// That a row is another one than the one that is updated.
    pub fn is_itself(&self) -> String {
        let rowid = match &self.table.key {
            KeyShape::RowidAlias { .. } => Some(self.keys[0].clone()),
            KeyShape::Rowid { .. } | KeyShape::Columns { .. } | KeyShape::None => {
                super::index_sql::rowid_name(self.table).map(str::to_owned)
            }
        };
        match rowid {
            Some(rowid) => format!("x.{rowid} IS NOT OLD.{rowid}"),
            None => {
                let differs = |key: &String| format!("x.{key} COLLATE BINARY IS NOT OLD.{key}");
                format!("({})", self.keys.iter().map(differs).collect::<Vec<_>>().join(" OR "))
            }
        }
    }
}

/// That one of these columns changes. `COLLATE BINARY`, or the column's own would hide 'a' → 'A'.
pub(super) fn changed(columns: &[String]) -> String {
    let differs = |column: &String| format!("OLD.{column} IS NOT NEW.{column} COLLATE BINARY");
    columns.iter().map(differs).collect::<Vec<_>>().join(" OR ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sqlite::{catalog, in_memory};

    fn made(ddl: &str) -> Vec<Trigger> {
        let connection = in_memory().expect("memory");
        connection.execute_batch(ddl).expect("ddl");
        let table = catalog::table(&connection, "t").expect("catalog").expect("table");
        triggers(&table, TableId(7), "__cdc_log", Images::Key).expect("triggers")
    }

    #[test]
    fn four_triggers_are_enough_without_a_unique_index_besides_the_key() {
        let names: Vec<String> =
            made("CREATE TABLE t(id INTEGER PRIMARY KEY, a)").into_iter().map(|trigger| trigger.name).collect();
        assert_eq!(names, ["__cdc_7_ai", "__cdc_7_au", "__cdc_7_ak", "__cdc_7_ad"]);
        assert_eq!(made("CREATE TABLE t(id INTEGER PRIMARY KEY, a UNIQUE)").len(), 6);
    }

    #[test]
    fn every_way_to_write_a_key_logs_the_key_that_the_row_had() {
        for (ddl, updates) in [
            (
                "CREATE TABLE t(id INTEGER PRIMARY KEY, a)",
                &["SET id = 9", "SET \"ID\" = 9", "SET rowid = 9", "SET OID = 9", "SET (a, [_rowid_]) = (1, 9)"][..],
            ),
            ("CREATE TABLE t(a, b)", &["SET rowid = 9", "SET \"oid\" = 9", "SET _ROWID_ = 9"][..]),
            ("CREATE TABLE t(\"the key\" PRIMARY KEY, a)", &["SET \"THE key\" = 9"][..]),
            ("CREATE TABLE t(k, a, PRIMARY KEY(a, k)) WITHOUT ROWID", &["SET k = 9", "SET a = 9"][..]),
        ] {
            for update in updates {
                let connection = in_memory().expect("memory");
                connection.execute_batch(ddl).expect("ddl");
                let log = "CREATE TABLE __cdc_log(seq INTEGER PRIMARY KEY, ts, tbl, op, origin, oseq, via, k0, k1);
                    CREATE TABLE __cdc_meta(key TEXT PRIMARY KEY, value) WITHOUT ROWID;
                    INSERT INTO t VALUES (1, 1)";
                connection.execute_batch(log).expect("log");
                connection
                    .set_db_config(rusqlite::config::DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, true)
                    .expect("triggers on");
                for trigger in made(ddl) {
                    connection.execute_batch(&trigger.sql).expect("trigger");
                }
                connection.execute_batch(&format!("UPDATE t {update}")).expect("update");
                let ops: String = connection
                    .query_row("SELECT group_concat(op || ':' || k0, ' ' ORDER BY op) FROM __cdc_log", [], |row| {
                        row.get(0)
                    })
                    .expect("log");
                let new = if *update == "SET k = 9" { "1:1 3:1" } else { "1:9 3:1" };
                assert_eq!(ops, new, "{ddl}: {update}");
            }
        }
    }

    #[test]
    fn no_trigger_has_an_or_clause_or_a_new_function() {
        for trigger in made("CREATE TABLE t(k TEXT PRIMARY KEY, a UNIQUE, b NOT NULL DEFAULT 1 UNIQUE)") {
            for word in ["INSERT OR", "OR REPLACE", "json", "subsec", "pragma_", "iif(", "unixepoch"] {
                assert!(!trigger.sql.contains(word), "{}", trigger.sql);
            }
        }
    }

    #[test]
    fn the_id_is_read_from_a_triggers_name() {
        assert_eq!(table_of_trigger("__cdc_12_au"), Some(TableId(12)));
        for other in ["__cdc_12_xx", "__cdc_protect_ai", "users__cdc_insert", "__cdc_12"] {
            assert_eq!(table_of_trigger(other), None, "{other}");
        }
    }
}
