//! A scratch database in which a peer's DDL is tried before it touches anything.
//!
//! What a peer sends is data. Its statements run here first, in memory, under an authorizer that permits creating the
//! one object which they are said to create; afterwards views and triggers, whose bodies SQLite does not look into at
//! CREATE, are compiled under one that knows which names the peer may use. Only a text that passed is run on a real
//! connection, and it is a single CREATE statement then, so it can do nothing else there.
//!
//! Fed by [`crate::migrate`]. Not promised: that the text works in the real database, only that it is harmless.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::config::DbConfig;
use rusqlite::hooks::{AuthAction, AuthContext, Authorization};
use rusqlite::{Connection, ErrorCode};

use super::{Error, catalog::OURS};

/// The kinds of objects that a peer's statement may create.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "SQLite's own words")]
pub enum Kind {
    Table,
    Index,
    View,
    Trigger,
}

/// The one object that a statement may create.
#[derive(Clone, Debug)]
pub struct Creation<'a> {
    /// What it is.
    pub kind: Kind,
    /// Its name.
    pub name: &'a str,
    /// The table (or view) that it is on; a table's or view's own name.
    pub table: &'a str,
}

/// The names that a peer's views and triggers may use, in lower case.
#[derive(Clone, Debug, Default)]
pub struct Names {
    /// What the peer itself has declared: tables and views.
    pub declared: HashSet<String>,
    /// What the real database holds, the peer's or not. A name that is in neither is a broken view's: harmless.
    pub existing: HashSet<String>,
}

/// Why a statement did not run.
#[derive(Debug)]
pub enum Refusal {
    /// It tried this, which it may not.
    Denied(String),
    /// SQLite itself refuses it.
    Failed(rusqlite::Error),
}

#[derive(Debug)]
enum Permit {
    Everything,
    Create { kind: Kind, name: String, table: String },
    Compile(Names),
}

#[derive(Debug)]
struct Gate {
    permit: Permit,
    denied: Option<String>,
}

/// A database in memory with an authorizer.
#[derive(Debug)]
pub struct Scratch {
    connection: Connection,
    gate: Arc<Mutex<Gate>>,
}

impl Scratch {
    /// An empty one.
    ///
    /// # Errors
    /// SQLite's, where memory is short.
    pub fn new() -> Result<Self, Error> {
        let mut connection = super::in_memory()?;
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, true)?;
        let gate = Arc::new(Mutex::new(Gate { permit: Permit::Everything, denied: None }));
        let judge = Arc::clone(&gate);
        connection.authorizer(Some(move |context: AuthContext<'_>| {
            judge.lock().unwrap_or_else(PoisonError::into_inner).judge(&context)
        }))?;
        Ok(Self { connection, gate })
    }

    /// One with the tables and views of `real`, ours too, without rows, and without triggers and virtual tables.
    ///
    /// # Errors
    /// SQLite's, where the catalog cannot be read.
    pub fn like(real: &Connection) -> Result<(Self, HashSet<String>), Error> {
        let scratch = Self::new()?;
        let mut statement = real.prepare(
            "SELECT name, sql FROM main.sqlite_schema WHERE type IN ('table', 'view') AND sql IS NOT NULL
             AND sql NOT LIKE 'CREATE VIRTUAL%' ORDER BY type, rowid",
        )?;
        let mut rows = statement.query([])?;
        let mut names = HashSet::new();
        while let Some(row) = rows.next()? {
            let (name, sql): (String, String) = (row.get(0)?, row.get(1)?);
            // A table that does not work here (a collation of the application's) is missing here: nothing is judged by
            // it but by its name.
            if scratch.connection.execute_batch(&sql).is_ok() {
                names.insert(name.to_ascii_lowercase());
            }
        }
        Ok((scratch, names))
    }

    /// The database, for reading its catalog.
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Runs `sql`, which may create this object and do nothing else.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn create(&self, what: &Creation<'_>, sql: &str) -> Result<(), Refusal> {
        if let Some(reserved) = [OURS, "sqlite_"].iter().find(|prefix| has_prefix(what.name, prefix)) {
            return Err(Refusal::Denied(format!("use a name that begins with {reserved}")));
        }
        if !begins_as(what.kind, what.name, sql) {
            return Err(Refusal::Denied("be another statement than the one it is said to be".to_owned()));
        }
        if let Some(call) = loads_code(sql) {
            return Err(Refusal::Denied(format!("call {call}()")));
        }
        if let Some(name) = names_ours(sql) {
            return Err(Refusal::Denied(format!("use \"{name}\"")));
        }
        let (name, table) = (what.name.to_ascii_lowercase(), what.table.to_ascii_lowercase());
        self.under(Permit::Create { kind: what.kind, name, table }, |connection| {
            connection.execute(sql, []).map(|_| ())
        })
    }

    /// Compiles `sql`, of ours, which makes SQLite compile the bodies of views and triggers.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn compile(&self, names: &Names, sql: &str) -> Result<(), Refusal> {
        self.under(Permit::Compile(names.clone()), |connection| connection.prepare(sql).map(|_| ()))
    }

    fn under(&self, permit: Permit, work: impl FnOnce(&Connection) -> rusqlite::Result<()>) -> Result<(), Refusal> {
        let set = |permit| {
            let mut gate = self.gate.lock().unwrap_or_else(PoisonError::into_inner);
            gate.permit = permit;
            gate.denied.take()
        };
        set(permit);
        let done = work(&self.connection);
        let denied = set(Permit::Everything);
        match (done, denied) {
            (Err(_), Some(action)) => Err(Refusal::Denied(action)),
            (Err(error), None) if error.sqlite_error_code() == Some(ErrorCode::AuthorizationForStatementDenied) => {
                Err(Refusal::Denied("do what it may not".to_owned()))
            }
            // Two statements, of which the second would never be looked at.
            (Err(rusqlite::Error::MultipleStatement), None) => {
                Err(Refusal::Denied("run a second statement".to_owned()))
            }
            (Err(error), None) => Err(Refusal::Failed(error)),
            (Ok(()), Some(action)) => Err(Refusal::Denied(action)),
            (Ok(()), None) => Ok(()),
        }
    }
}

impl Gate {
    fn judge(&mut self, context: &AuthContext<'_>) -> Authorization {
        let permitted = match &self.permit {
            Permit::Everything => true,
            Permit::Create { kind, name, table } => may_create(*kind, (name, table), context),
            Permit::Compile(names) => may_compile(names, &context.action),
        };
        if permitted {
            return Authorization::Allow;
        }
        self.denied.get_or_insert_with(|| described(&context.action));
        Authorization::Deny
    }
}

fn may_create(kind: Kind, (name, table): (&str, &str), context: &AuthContext<'_>) -> bool {
    if context.database_name.is_some_and(|database| !database.eq_ignore_ascii_case("main")) {
        return false;
    }
    let is = |found: &str, wanted: &str| found.eq_ignore_ascii_case(wanted);
    let catalog = |found: &str| is(found, "sqlite_master") || is(found, "sqlite_schema");
    match &context.action {
        AuthAction::CreateTable { table_name } => {
            kind == Kind::Table && (is(table_name, name) || is(table_name, "sqlite_sequence"))
        }
        AuthAction::CreateIndex { index_name, table_name } => match kind {
            Kind::Table => has_prefix(index_name, "sqlite_autoindex_") && is(table_name, table),
            Kind::Index => is(index_name, name) && is(table_name, table),
            Kind::View | Kind::Trigger => false,
        },
        AuthAction::CreateView { view_name } => kind == Kind::View && is(view_name, name),
        AuthAction::CreateTrigger { trigger_name, table_name } => {
            kind == Kind::Trigger && is(trigger_name, name) && is(table_name, table)
        }
        AuthAction::Insert { table_name } => catalog(table_name),
        AuthAction::Update { table_name, .. } => catalog(table_name),
        AuthAction::Read { table_name, .. } => catalog(table_name) || is(table_name, table),
        AuthAction::Function { function_name } => harmless(function_name),
        AuthAction::Reindex { index_name } => kind == Kind::Index && is(index_name, name),
        // A table made from a SELECT would run it.
        AuthAction::Select => kind != Kind::Table,
        _ => false,
    }
}

fn may_compile(names: &Names, action: &AuthAction<'_>) -> bool {
    match action {
        AuthAction::Select | AuthAction::Recursive => true,
        AuthAction::Function { function_name } => harmless(function_name),
        AuthAction::Read { table_name, .. } => has_prefix(table_name, "sqlite_") || names.permit(table_name),
        AuthAction::Insert { table_name }
        | AuthAction::Update { table_name, .. }
        | AuthAction::Delete { table_name } => {
            table_name.eq_ignore_ascii_case("sqlite_sequence")
                || (!has_prefix(table_name, "sqlite_") && names.permit(table_name))
        }
        _ => false,
    }
}

impl Names {
    fn permit(&self, table: &str) -> bool {
        let table = table.to_ascii_lowercase();
        self.declared.contains(&table) || !self.existing.contains(&table)
    }
}

/// Functions that reach outside the database are refused even where they are compiled in.
fn harmless(function: &str) -> bool {
    const REACH_OUT: [&str; 7] =
        ["load_extension", "fts3_tokenizer", "readfile", "writefile", "edit", "eval", "sqlite_dbpage"];
    !REACH_OUT.iter().any(|name| function.eq_ignore_ascii_case(name))
}

/// SQLite refuses this one in schemas that are not trusted, before it asks anybody; an application may trust its own.
fn loads_code(sql: &str) -> Option<&'static str> {
    const LOADS: &str = "load_extension";
    let tokens = super::lexer::tokens(sql);
    let calls = |pair: &[super::lexer::Token<'_>]| {
        pair[1].is_symbol("(") && pair[0].name().is_some_and(|name| name.eq_ignore_ascii_case(LOADS))
    };
    tokens.windows(2).any(calls).then_some(LOADS)
}

/// A name of ours in a statement, which need not be there yet: a view of it would begin to work some day. No other node
/// takes such an object.
pub fn names_ours(sql: &str) -> Option<String> {
    let tokens = super::lexer::tokens(sql).into_iter();
    let names = tokens.filter(|token| token.kind != super::lexer::TokenKind::String);
    names.filter_map(|token| token.name()).find(|name| has_prefix(name, OURS))
}

fn has_prefix(name: &str, prefix: &str) -> bool {
    name.as_bytes().get(..prefix.len()).is_some_and(|head| head.eq_ignore_ascii_case(prefix.as_bytes()))
}

/// Whether the text begins as `sqlite_schema` has it for such an object: no TEMP, no other database, no IF NOT EXISTS.
fn begins_as(kind: Kind, name: &str, sql: &str) -> bool {
    let tokens = super::lexer::tokens(sql);
    let words: &[&str] = match kind {
        Kind::Table => &["CREATE", "TABLE"],
        Kind::Index => &["CREATE", "INDEX"],
        Kind::View => &["CREATE", "VIEW"],
        Kind::Trigger => &["CREATE", "TRIGGER"],
    };
    let unique = usize::from(kind == Kind::Index && tokens.get(1).is_some_and(|token| token.is("UNIQUE")));
    let head = tokens.first().is_some_and(|token| token.is(words[0]))
        && tokens.get(1 + unique).is_some_and(|token| token.is(words[1]));
    let named = tokens.get(2 + unique).and_then(super::lexer::Token::name);
    head && named.is_some_and(|found| found.eq_ignore_ascii_case(name))
        && !tokens.get(3 + unique).is_some_and(|token| token.is_symbol("."))
}

fn described(action: &AuthAction<'_>) -> String {
    match action {
        AuthAction::Read { table_name, .. } => format!("read \"{table_name}\""),
        AuthAction::Insert { table_name }
        | AuthAction::Update { table_name, .. }
        | AuthAction::Delete { table_name } => format!("write \"{table_name}\""),
        AuthAction::Function { function_name } => format!("call {function_name}()"),
        AuthAction::Pragma { pragma_name, .. } => format!("run PRAGMA {pragma_name}"),
        AuthAction::Attach { .. } | AuthAction::Detach { .. } => "attach or detach a database".to_owned(),
        AuthAction::Select => "run a SELECT".to_owned(),
        AuthAction::CreateTable { table_name } | AuthAction::DropTable { table_name } => {
            format!("create or drop table \"{table_name}\"")
        }
        _ => "do something else than create that one object".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn try_table(sql: &str) -> Result<(), Refusal> {
        let scratch = Scratch::new().expect("memory");
        scratch.create(&Creation { kind: Kind::Table, name: "t", table: "t" }, sql)
    }

    #[test]
    fn every_table_that_sqlite_knows_can_be_created() {
        for sql in [
            "CREATE TABLE t(a)",
            "CREATE TABLE \"t\"(id INTEGER PRIMARY KEY AUTOINCREMENT, a UNIQUE)",
            "CREATE TABLE T(a TEXT NOT NULL COLLATE NOCASE, b TEXT AS (lower(a)) STORED, CHECK(length(a) < 9),
             PRIMARY KEY(a)) STRICT, WITHOUT ROWID",
            "CREATE TABLE t(a REFERENCES t(a), b DEFAULT (random()), c DEFAULT CURRENT_TIMESTAMP)",
        ] {
            assert!(try_table(sql).is_ok(), "{sql}: {:?}", try_table(sql));
        }
    }

    #[test]
    fn anything_but_the_one_table_is_denied() {
        for sql in [
            "CREATE TABLE u(a)",
            "CREATE TABLE t(a); DROP TABLE t",
            "CREATE TABLE t AS SELECT 1 AS a",
            "CREATE TEMP TABLE t(a)",
            "CREATE TABLE temp.t(a)",
            "CREATE TABLE IF NOT EXISTS t(a)",
            "ATTACH 'x' AS y",
            "PRAGMA writable_schema = ON",
            "DROP TABLE t",
            "CREATE VIRTUAL TABLE t USING fts5(a)",
            "SELECT load_extension('x')",
            "CREATE TABLE t(a CHECK(load_extension(a)))",
        ] {
            assert!(try_table(sql).is_err(), "{sql}");
        }
        assert!(matches!(try_table("CREATE TABLE t AS SELECT 1 AS a"), Err(Refusal::Denied(_))));
    }

    #[test]
    fn bodies_may_use_what_is_declared_and_what_is_nowhere() {
        let scratch = Scratch::new().expect("memory");
        let ddl = "CREATE TABLE mine(a); CREATE TABLE theirs(a); CREATE TABLE __cdc_meta(a);
                   CREATE VIEW good AS SELECT a FROM mine; CREATE VIEW bad AS SELECT a FROM theirs;
                   CREATE VIEW nosy AS SELECT a FROM __cdc_meta; CREATE VIEW broken AS SELECT a FROM nowhere";
        scratch.connection().execute_batch(ddl).expect("ddl");
        let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<HashSet<_>>();
        let names = Names {
            declared: set(&["mine", "good", "bad", "nosy", "broken"]),
            existing: set(&["mine", "theirs", "__cdc_meta"]),
        };
        let read = |view: &str| scratch.compile(&names, &format!("SELECT * FROM {view}"));
        assert!(read("good").is_ok());
        assert!(matches!(read("bad"), Err(Refusal::Denied(_))));
        assert!(matches!(read("nosy"), Err(Refusal::Denied(_))));
        assert!(matches!(read("broken"), Err(Refusal::Failed(_))));
    }
}
