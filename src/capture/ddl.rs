//! `twinlite ddl`: a schema change of the operator's, under our eyes, in one transaction.
//!
//! Because every statement is seen, nothing is hidden, and a table is copied again only where its rows may have changed
//! while no trigger stood on it. The script's own BEGIN and COMMIT are dropped, and foreign keys are off from before the
//! transaction to its end, or SQLite's procedure for rebuilding a table would cascade its children away.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::config::DbConfig;
use rusqlite::fallible_iterator::FallibleIterator;
use rusqlite::{Batch, Connection, Transaction, TransactionBehavior};

use super::accounting::ObjectNote;
use super::decide::{Script, Witness, decide};
use super::drift::{self, Reconciled, execute};
use super::situation::{self, Situation};
use super::trigger_sql::table_of_trigger;
use super::{CaptureOptions, Error, Images, change_log};
use crate::model::Clock;
use crate::sqlite::ident;
use crate::sqlite::lexer::{Token, tokens};

/// Runs a script and puts the triggers right, in one transaction.
///
/// # Errors
/// [`Error::Script`], [`Error::ScriptRollsBack`], [`Error::ForeignKeys`]: nothing was changed. Also those of
/// [`super::reconcile`].
pub fn run_ddl(
    connection: &mut Connection,
    script: &str,
    options: &CaptureOptions,
    clock: &dyn Clock,
) -> Result<Reconciled, Error> {
    options.check()?;
    change_log::name(connection)?;
    let before = drift::reconcile(connection, options, clock)?;
    // In force before the transaction begins, for inside it the setting does nothing.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_FKEY, false)?;
    run(connection, script, (options, before), clock)
}

/// How the connection was set before the script.
struct Settings {
    trusted: bool,
}

impl Settings {
    /// Triggers are on, as they would be for the application. Only while the script runs: what we look up ourselves must
    /// not depend on what the user's triggers need.
    fn for_a_script(connection: &Connection) -> Result<Self, Error> {
        let trusted = connection.db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA)?;
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, true)?;
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, true)?;
        Ok(Self { trusted })
    }

    fn restore(self, connection: &Connection) -> Result<(), Error> {
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false)?;
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, self.trusted)?;
        Ok(())
    }
}

fn run(
    connection: &mut Connection,
    script: &str,
    (options, before): (&CaptureOptions, Reconciled),
    clock: &dyn Clock,
) -> Result<Reconciled, Error> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let mut reconciled = before;
    if drift::is_stale(&transaction, options)? {
        // It moved between the two transactions; what the script does is then told apart from that only by a copy.
        let situation = Situation::read(&transaction, options)?;
        let filled: BTreeSet<_> = situation.generations.iter().map(|generation| generation.id).collect();
        let witness = Witness { filled, ..Witness::default() };
        absorb(&mut reconciled, &transaction, options, (&situation, &witness), clock)?;
    }
    let orphans = Orphans::count(&transaction);
    let settings = Settings::for_a_script(&transaction)?;
    let seen = Runner { transaction: &transaction, script: Script::default() }.run(script);
    settings.restore(&transaction)?;
    let seen = seen?;
    orphans.refuse_new(Orphans::count(&transaction))?;
    let situation = Situation::read(&transaction, options)?;
    let mut witness = Witness { script: Some(seen), ..Witness::default() };
    if situation.images == Images::Full {
        // What the script wrote into a column that it appended, it wrote under triggers that did not know the column.
        witness.untold = drift::filled(&transaction, &decide(&situation, &witness), None)?;
    }
    absorb(&mut reconciled, &transaction, options, (&situation, &witness), clock)?;
    transaction.commit()?;
    Ok(reconciled)
}

fn absorb(
    reconciled: &mut Reconciled,
    transaction: &Transaction<'_>,
    options: &CaptureOptions,
    (situation, witness): (&Situation, &Witness),
    clock: &dyn Clock,
) -> Result<(), Error> {
    let decision = decide(situation, witness);
    execute(transaction, options, &decision, clock)?;
    let mut now = Reconciled::of(decision);
    now.copied_again.splice(0..0, reconciled.copied_again.drain(..));
    now.notes.splice(0..0, reconciled.notes.drain(..));
    *reconciled = now;
    Ok(())
}

struct Runner<'t> {
    transaction: &'t Transaction<'t>,
    script: Script,
}

impl Runner<'_> {
    fn run(mut self, script: &str) -> Result<Script, Error> {
        let mut number = 0;
        let mut batch = Batch::new(self.transaction, script);
        loop {
            number += 1;
            let failed = |source| Error::Script { number, source };
            // Preparing fails too where a trigger of ours names what is not there any more.
            let Some(statement) = batch.next().map_err(failed)? else { return Ok(self.script) };
            let sql = statement.expanded_sql().unwrap_or_default();
            match kind(&tokens(&sql)) {
                Kind::Ours => {}
                Kind::RollBack => return Err(Error::ScriptRollsBack { number }),
                Kind::Schema => self.change_schema(&sql).map_err(failed)?,
                Kind::Other { writes } => {
                    self.script.wrote |= writes && !statement.readonly();
                    step(statement).map_err(failed)?;
                }
            }
        }
    }

    /// Runs one statement that changes the schema, without our triggers where they stand in its way, and notes the tables
    /// that it may have rewritten unseen.
    fn change_schema(&mut self, sql: &str) -> rusqlite::Result<()> {
        let before = situation::objects(self.transaction)?;
        if let Err(error) = self.transaction.execute_batch(sql) {
            if !error.to_string().contains("__cdc_") {
                return Err(error);
            }
            self.without_our_triggers(sql, &before)?;
        }
        let after = situation::objects(self.transaction)?;
        self.note_rewritten(&before, &after);
        Ok(())
    }

    /// Our triggers name columns of keys and unique indexes; dropping such a column needs them out of the way. They are
    /// made anew when the script is done.
    fn without_our_triggers(&mut self, sql: &str, objects: &[ObjectNote]) -> rusqlite::Result<()> {
        let named: Vec<String> = tokens(sql).iter().filter_map(Token::name).collect();
        for trigger in objects.iter().filter(|object| object.kind == "trigger") {
            let Some(id) = table_of_trigger(&trigger.name) else { continue };
            if named.iter().any(|name| name.eq_ignore_ascii_case(&trigger.table)) {
                self.transaction.execute_batch(&format!("DROP TRIGGER {}", ident(&trigger.name)))?;
                self.script.unseen.insert(id);
            }
        }
        self.transaction.execute_batch(sql)
    }

    /// A table that our triggers stand on and whose definition changed by more than SQLite's own ALTER TABLE leaves to
    /// see: appended columns and new names change no row.
    fn note_rewritten(&mut self, before: &[ObjectNote], after: &[ObjectNote]) {
        let table = |objects: &[ObjectNote], name: &str| {
            let found = objects.iter().find(|object| object.kind == "table" && object.name.eq_ignore_ascii_case(name));
            found.map(|object| object.sql.clone())
        };
        for trigger in after.iter().filter(|object| object.kind == "trigger") {
            let Some(id) = table_of_trigger(&trigger.name) else { continue };
            let was_on = before.iter().find(|object| object.kind == "trigger" && object.name == trigger.name);
            let sizes = was_on.and_then(|was| {
                let (old, new) = (table(before, &was.table)?, table(after, &trigger.table)?);
                Some((tokens(&old).len(), tokens(&new).len()))
            });
            // DROP COLUMN is the one ALTER that takes something away.
            if sizes.is_none_or(|(old, new)| new < old) {
                self.script.unseen.insert(id);
            }
        }
    }
}

fn step(mut statement: rusqlite::Statement<'_>) -> rusqlite::Result<()> {
    let mut rows = statement.raw_query();
    while rows.next()?.is_some() {}
    Ok(())
}

/// What a statement of a script is to us.
enum Kind {
    /// Its transaction, or the pragma of foreign keys: ours to decide.
    Ours,
    /// It would undo our transaction.
    RollBack,
    /// It changes the schema.
    Schema,
    /// Anything else; whether it may write rows.
    Other { writes: bool },
}

fn kind(all: &[Token<'_>]) -> Kind {
    let is = |place: usize, word: &str| all.get(place).is_some_and(|token| token.is(word));
    let names = |word: &str| all.iter().any(|token| token.is(word));
    match () {
        () if is(0, "BEGIN") || is(0, "COMMIT") || is(0, "END") => Kind::Ours,
        () if is(0, "PRAGMA") && (names("foreign_keys") || names("defer_foreign_keys")) => Kind::Ours,
        () if is(0, "ROLLBACK") && !names("TO") => Kind::RollBack,
        // CREATE TABLE … AS SELECT writes into a table that is new and so copied whole.
        () if is(0, "CREATE") || is(0, "DROP") || is(0, "ALTER") => Kind::Schema,
        () => Kind::Other { writes: !is(0, "PRAGMA") },
    }
}

/// Rows without the parent that a foreign key names, by table in lower case; or why they cannot be counted.
struct Orphans(Result<BTreeMap<String, i64>, rusqlite::Error>);

impl Orphans {
    fn count(transaction: &Transaction<'_>) -> Self {
        let count = || {
            let mut statement = transaction.prepare(
                "SELECT lower(\"table\"), count(*) FROM pragma_foreign_key_check
                 WHERE \"table\" NOT LIKE '\\_\\_cdc\\_%' ESCAPE '\\' GROUP BY 1",
            )?;
            statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
        };
        Self(count())
    }

    /// Refuses what the script made: those that were there before are not its doing. A table of a new name may be an old
    /// one, so it counts only where there are more in all.
    fn refuse_new(self, now: Self) -> Result<(), Error> {
        let (before, now) = match (self.0, now.0) {
            (before, Ok(now)) => (before.unwrap_or_default(), now),
            (Err(before), Err(now)) if before.to_string() == now.to_string() => return Ok(()),
            (_, Err(now)) => return Err(now.into()),
        };
        let is_more = now.values().sum::<i64>() > before.values().sum();
        for (table, count) in &now {
            let had = before.get(table).copied();
            if *count > had.unwrap_or(0) && (had.is_some() || is_more) {
                let rows = (count - had.unwrap_or(0)).unsigned_abs();
                return Err(Error::ForeignKeys { table: table.clone(), rows });
            }
        }
        Ok(())
    }
}
