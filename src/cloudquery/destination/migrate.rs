//! Makes a table what a message says it is: created, extended, rebuilt with its rows, made anew, or refused.
//!
//! Compared is what SQLite knows: names, declared types by their [`Class`], NOT NULL, the key, and UNIQUE constraints.
//! Safe mode refuses what would lose rows or what rows of old cannot answer for, and has changed nothing then; forced mode
//! makes the table anew in exactly these cases. Columns that nobody asks for any more stay.

use rusqlite::{Connection, Transaction};

use super::rebuild::{self, Edits};
use super::store::{self, Store};
use super::{Error, insert};
use crate::cloudquery::changes::{Automatic, Change, automatic, changes_in_database, summary};
use crate::cloudquery::table::columns::CQ_ID;
use crate::cloudquery::types::Class;
use crate::cloudquery::{Column, Table};
use crate::model::{Generated, IndexOrigin, KeyShape, TableSchema};
use crate::sqlite::catalog::OURS;
use crate::sqlite::{ident, quote};

/// Migrates one table, in one transaction.
pub(super) fn migrate(store: &mut Store, wanted: &Table, is_forced: bool) -> Result<(), Error> {
    check(wanted)?;
    if wanted.columns.is_empty() {
        tracing::info!(table = %wanted.name, "a table without columns is not made");
        return Ok(());
    }
    // Mostly nothing differs, and then nobody needs to wait for a lock.
    if let Some(here) = store::find(&store.connection, &wanted.name)?
        && changes(wanted, &here).is_empty()
    {
        return Ok(());
    }
    let transaction = store.begin()?;
    match store::find(&transaction, &wanted.name)? {
        None => create(&transaction, wanted)?,
        Some(here) => change(&transaction, wanted, &here, is_forced)?,
    }
    transaction.commit().map_err(Error::doing("migrate", &wanted.name))
}

/// Refuses a table that cannot be made, whatever is there.
fn check(wanted: &Table) -> Result<(), Error> {
    store::check_name(&wanted.name)?;
    insert::check_distinct(&wanted.name, wanted.columns.iter().map(Column::name))?;
    wanted.columns.iter().try_for_each(|column| insert::check_type(&wanted.name, column.field()))
}

fn changes(wanted: &Table, here: &TableSchema) -> Vec<Change> {
    changes_in_database(wanted, &as_table(here, wanted))
}

fn change(transaction: &Transaction<'_>, wanted: &Table, here: &TableSchema, is_forced: bool) -> Result<(), Error> {
    let changes = changes(wanted, here);
    let can = match automatic(&changes) {
        Automatic::Yes => true,
        Automatic::IfEmpty if is_empty(transaction, here)? => return recreate(transaction, wanted, here),
        Automatic::IfEmpty | Automatic::No => false,
    };
    match (can, is_forced) {
        (true, _) => {
            transaction.execute_batch("SAVEPOINT cq_adapt")?;
            match adapt(transaction, wanted, here, &changes) {
                // Rows that do not fit a key: no column says so, only they do.
                Err(Error::Unfit { .. }) if is_forced => {
                    transaction.execute_batch("ROLLBACK TO cq_adapt")?;
                    recreate(transaction, wanted, here)
                }
                outcome => outcome,
            }
        }
        (false, true) => recreate(transaction, wanted, here),
        (false, false) => Err(Error::Refused { summary: summary([(wanted.name.as_str(), changes.as_slice())]) }),
    }
}

fn is_empty(connection: &Connection, here: &TableSchema) -> Result<bool, Error> {
    let sql = format!("SELECT NOT EXISTS (SELECT 1 FROM main.{})", ident(&here.name));
    connection.query_row(&sql, [], |row| row.get(0)).map_err(Error::doing("read", &here.name))
}

/// The table that is there, in CloudQuery's terms.
fn as_table(here: &TableSchema, wanted: &Table) -> Table {
    let unique = |place: usize| {
        here.indexes.iter().any(|index| {
            index.origin == IndexOrigin::Unique
                && matches!(index.columns.as_slice(), [one] if one.column == Some(place))
        })
    };
    let column = |(place, column): (usize, &crate::model::Column)| {
        let asked = wanted.columns.iter().find(|asked| asked.name().eq_ignore_ascii_case(&column.name));
        let is_key = column.key_part.is_some();
        // SQLite lets no NULL into these, whatever is declared.
        let never_null = here.without_rowid || here.key == KeyShape::RowidAlias { column: place };
        let not_null = match asked {
            Some(asked) if is_key && never_null && asked.primary_key() => asked.not_null(),
            Some(_) => column.not_null,
            // It need not be written if it has a value of its own.
            None => column.not_null && column.default.is_none() && column.generated == Generated::No,
        };
        Class::existing_column(&column.name, &column.declared_type)
            .with_not_null(not_null)
            .with_primary_key(is_key)
            .with_unique(unique(place))
    };
    Table::new(&here.name, here.columns.iter().enumerate().map(column).collect())
}

/// Makes the table, which is not there.
fn create(connection: &Connection, wanted: &Table) -> Result<(), Error> {
    let mut items: Vec<String> = wanted.columns.iter().map(definition).collect();
    let key = wanted.primary_key();
    if !key.is_empty() {
        let name = ident(&constraint_name(&wanted.name));
        items.push(format!("CONSTRAINT {name} PRIMARY KEY ({})", quote::idents(key)));
    }
    let sql = format!("CREATE TABLE main.{} ({})", ident(&wanted.name), items.join(", "));
    connection.execute_batch(&sql).map_err(Error::doing("create", &wanted.name))
}

fn definition(column: &Column) -> String {
    let not_null = if column.not_null() { " NOT NULL" } else { "" };
    format!("{} {}{not_null}", ident(column.name()), Class::of(column.field()).declared_type())
}

/// What a table's primary key is called, as in CloudQuery's own destination.
pub(super) fn constraint_name(table: &str) -> String {
    format!("{table}_cqpk")
}

/// Makes changes that keep every row.
fn adapt(connection: &Connection, wanted: &Table, here: &TableSchema, changes: &[Change]) -> Result<(), Error> {
    let mut edits = Edits::default();
    for change in changes {
        match change {
            Change::Add(column) => {
                let sql = format!("ALTER TABLE main.{} ADD COLUMN {}", ident(&here.name), definition(column));
                connection.execute_batch(&sql).map_err(Error::doing("add a column to", &here.name))?;
            }
            Change::Update { current, previous, .. } if previous.not_null() && !current.not_null() => {
                edits.relaxed.push(previous.name().to_owned());
            }
            // What else may differ goes with the key.
            Change::Update { .. } => {}
            Change::RemoveUniqueConstraint(column) => edits.not_unique.push(column.name().to_owned()),
            Change::MoveToCqOnly => edits.key = here.column(CQ_ID).map(|column| column.name.clone()),
            // Nothing needs it, and views may.
            Change::Remove(_) => {}
        }
    }
    if edits == Edits::default() {
        return Ok(());
    }
    let grown = store::existing(connection, &here.name)?;
    rebuild::rebuild(connection, &grown, &edits)?;
    // What the text of the definition hid is found here, before anything is committed.
    let rebuilt = store::existing(connection, &here.name)?;
    let left = self::changes(wanted, &rebuilt).into_iter().any(|change| !matches!(change, Change::Remove(_)));
    if left {
        let why = "its definition is written in a way that cannot be changed here; change it by hand".to_owned();
        return Err(Error::Unfit { table: here.name.clone(), why });
    }
    Ok(())
}

/// Drops the table and makes it as it is wanted. Indexes and triggers come back where they work on the new one; those of
/// ours do not, for whoever made them makes them anew, and copies the table again.
fn recreate(connection: &Connection, wanted: &Table, here: &TableSchema) -> Result<(), Error> {
    let mut parts = rebuild::parts(connection, here)?;
    parts.retain(|part| !part.name.get(..OURS.len()).is_some_and(|head| head.eq_ignore_ascii_case(OURS)));
    let sql = format!("DROP TABLE main.{}", ident(&here.name));
    connection.execute_batch(&sql).map_err(Error::doing("drop", &here.name))?;
    create(connection, wanted)?;
    for part in parts {
        if let Err(error) = rebuild::try_part(connection, &wanted.name, &part)? {
            tracing::warn!(
                table = %wanted.name, name = %part.name, %error, "an index or trigger does not fit the table made anew"
            );
        }
    }
    Ok(())
}
