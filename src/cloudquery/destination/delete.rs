//! Deletions: rows that a sync did not see again, and rows by value with those that belong to them.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::{Connection, params_from_iter};

use super::store::{self, Store, check_columns};
use super::{Error, insert, instant};
use crate::cloudquery::DeleteRecord;
use crate::cloudquery::delete::{Group, Predicate, Relation};
use crate::cloudquery::table::columns::{CQ_ID, CQ_PARENT_ID, CQ_SOURCE_NAME, CQ_SYNC_TIME};
use crate::model::{TableSchema, Value};
use crate::sqlite::{Bind, ident};

/// The ids of the rows that a deletion by value has taken so far, by table; only while it runs.
const DELETED: &str = "temp.cq_deleted";

/// A point in time: seconds since 1970, and nanoseconds.
pub(super) type Instant = (i64, u32);

/// Deletes the rows of `source` that were written by a sync before `before`. Rows without a time stay.
pub(super) fn stale(store: &mut Store, table: &str, source: &str, before: Instant) -> Result<(), Error> {
    let transaction = store.begin()?;
    let here = store::existing(&transaction, table)?;
    check_columns(&here, [CQ_SOURCE_NAME, CQ_SYNC_TIME])?;
    let name = ident(&here.name);
    let sql = format!(
        "DELETE FROM main.{name} WHERE {name}.{CQ_SOURCE_NAME} = ?1 AND {}({name}.{CQ_SYNC_TIME}, ?2, ?3)",
        instant::IS_BEFORE
    );
    let mut statement = transaction.prepare_cached(&sql).map_err(Error::doing("delete from", table))?;
    statement.execute((source, before.0, before.1)).map_err(Error::doing("delete from", table))?;
    drop(statement);
    transaction.commit().map_err(Error::doing("delete from", table))
}

/// Deletes rows by value, and with them the rows of other tables that belong to them.
pub(super) fn record(store: &mut Store, delete: &DeleteRecord) -> Result<(), Error> {
    let transaction = store.begin()?;
    let here = store::existing(&transaction, &delete.table)?;
    let condition = Condition::of(&here, &delete.groups)?;
    if delete.relations.is_empty() {
        condition.delete(&transaction, &here)?;
    } else {
        let made = "CREATE TABLE temp.cq_deleted(of TEXT, id, PRIMARY KEY (of, id)) WITHOUT ROWID";
        transaction.execute_batch(made)?;
        condition.note(&transaction, &here)?;
        condition.delete(&transaction, &here)?;
        let mut seen = BTreeSet::from([here.name.to_ascii_lowercase()]);
        for relation in &delete.relations {
            children(&transaction, relation, &mut seen)?;
        }
        transaction.execute_batch(&format!("DROP TABLE {DELETED}"))?;
    }
    transaction.commit().map_err(Error::doing("delete from", &here.name))
}

/// Deletes the rows whose parents are gone, and notes their ids for those whose parents they are.
fn children(connection: &Connection, relation: &Relation, seen: &mut BTreeSet<String>) -> Result<(), Error> {
    let parent = relation.parent.to_ascii_lowercase();
    if !seen.contains(&parent) {
        let why = format!(
            "its parent in this deletion, \"{}\", is neither the table deleted from nor one listed before",
            relation.parent
        );
        return Err(Error::Unfit { table: relation.table.clone(), why });
    }
    let here = store::existing(connection, &relation.table)?;
    check_columns(&here, [CQ_PARENT_ID])?;
    let sql = format!("{}.{CQ_PARENT_ID} IN (SELECT id FROM {DELETED} WHERE of = ?1)", ident(&here.name));
    let condition = Condition { sql, values: vec![Value::Text(parent.into_bytes())] };
    condition.note(connection, &here)?;
    condition.delete(connection, &here)?;
    seen.insert(here.name.to_ascii_lowercase());
    Ok(())
}

/// A column in a condition: with its table before it, so that it is never taken for a string.
fn operand(here: &TableSchema, column: &str) -> String {
    format!("{}.{}", ident(&here.name), ident(column))
}

/// Conditions as one. SQLite bounds how deep an expression may be, and takes a chain for as deep as it is long; so many
/// are put together in parentheses.
fn joined(mut conditions: Vec<String>, word: &str) -> String {
    const CHAIN: usize = 100;
    loop {
        conditions = conditions.chunks(CHAIN).map(|chunk| format!("({})", chunk.join(word))).collect();
        if let [one] = conditions.as_mut_slice() {
            return std::mem::take(one);
        }
    }
}

/// Which rows, as SQL with parameters.
struct Condition {
    sql: String,
    values: Vec<Value>,
}

impl Condition {
    fn of(here: &TableSchema, groups: &[Group]) -> Result<Self, Error> {
        let mut condition = Self { sql: "1".to_owned(), values: Vec::new() };
        let mut groups_sql = Vec::new();
        for group in groups.iter().filter(|group| !group.predicates.is_empty()) {
            check_columns(here, group.predicates.iter().map(|predicate| predicate.column.as_str()))?;
            let terms = if group.or { condition.any(here, group)? } else { condition.all(here, group)? };
            groups_sql.push(joined(terms, if group.or { " OR " } else { " AND " }));
        }
        if !groups_sql.is_empty() {
            condition.sql = joined(groups_sql, " AND ");
        }
        Ok(condition)
    }

    /// The terms of a group of which all must be true.
    fn all(&mut self, here: &TableSchema, group: &Group) -> Result<Vec<String>, Error> {
        let mut terms = Vec::with_capacity(group.predicates.len());
        for predicate in &group.predicates {
            let column = operand(here, &predicate.column);
            let place = self.bind(here, predicate)?;
            // IS is equality, and NULL is NULL.
            terms.push(format!("{column} IS {place}"));
        }
        Ok(terms)
    }

    /// The terms of a group of which one must be true: one or two a column, for SQLite is quick with a list of values and
    /// takes for ever over thousands of ORs.
    fn any(&mut self, here: &TableSchema, group: &Group) -> Result<Vec<String>, Error> {
        let mut columns: BTreeMap<String, (Vec<String>, bool)> = BTreeMap::new();
        for predicate in &group.predicates {
            let (places, or_null) = columns.entry(predicate.column.to_ascii_lowercase()).or_default();
            if predicate.is_null() {
                *or_null = true;
            } else {
                places.push(self.bind(here, predicate)?);
            }
        }
        let mut terms = Vec::with_capacity(columns.len());
        for (column, (places, or_null)) in columns {
            let column = operand(here, &column);
            if !places.is_empty() {
                terms.push(format!("{column} IN ({})", places.join(", ")));
            }
            if or_null {
                terms.push(format!("{column} IS NULL"));
            }
        }
        Ok(terms)
    }

    /// Keeps a predicate's value as a parameter, and says which.
    fn bind(&mut self, here: &TableSchema, predicate: &Predicate) -> Result<String, Error> {
        self.values.push(insert::single(here, &predicate.column, predicate.field(), predicate.value())?);
        Ok(format!("?{}", self.values.len()))
    }

    fn run(&self, connection: &Connection, here: &TableSchema, sql: &str) -> Result<(), Error> {
        let values = self.values.iter().map(Bind);
        // Not kept: conditions differ, and may be long.
        let mut statement = connection.prepare(sql).map_err(Error::doing("delete from", &here.name))?;
        statement.execute(params_from_iter(values)).map_err(Error::doing("delete from", &here.name))?;
        Ok(())
    }

    fn delete(&self, connection: &Connection, here: &TableSchema) -> Result<(), Error> {
        self.run(connection, here, &format!("DELETE FROM main.{} WHERE {}", ident(&here.name), self.sql))
    }

    /// Keeps the ids of the rows, if they have any.
    fn note(&self, connection: &Connection, here: &TableSchema) -> Result<(), Error> {
        if here.column(CQ_ID).is_none() {
            return Ok(());
        }
        let name = ident(&here.name);
        let of = crate::sqlite::literal(&here.name.to_ascii_lowercase());
        let sql = format!(
            "INSERT OR IGNORE INTO {DELETED} SELECT {of}, {name}.{CQ_ID} FROM main.{name}
             WHERE {name}.{CQ_ID} IS NOT NULL AND ({})",
            self.sql
        );
        self.run(connection, here, &sql)
    }
}
