//! Rows into a table: one transaction a batch, one prepared statement a schema.
//!
//! A record's columns are those of the table by name, in any order, and need not be all of them. Where one of them has
//! the key's flag, rows replace what they collide with, so that of two in one batch the later one stays.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{Field, Schema, SchemaRef};
use rusqlite::Connection;
use rusqlite::types::{ToSqlOutput, Value as Stored, ValueRef};

use super::Error;
use super::store::{self, Store, check_columns};
use crate::cloudquery::Column;
use crate::cloudquery::types::{Class, type_name};
use crate::cloudquery::value::{Converter, cell};
use crate::model::{Affinity, KeyShape, TableSchema, Value};
use crate::sqlite::{ident, quote};

/// Writes a batch: all of it, or nothing.
pub(super) fn insert(store: &mut Store, table: &str, records: &[RecordBatch]) -> Result<(), Error> {
    let transaction = store.begin()?;
    let mut plan: Option<(SchemaRef, Plan)> = None;
    for record in records {
        let schema = record.schema();
        let plan = match &mut plan {
            Some((known, plan)) if Arc::ptr_eq(known, &schema) => plan,
            other => &mut other.insert((Arc::clone(&schema), Plan::of(&transaction, table, &schema)?)).1,
        };
        plan.write(&transaction, record)?;
    }
    transaction.commit().map_err(Error::doing("insert into", table))
}

/// Fails where records of this schema could not be inserted, whatever is in them.
pub(super) fn check(store: &mut Store, table: &str, schema: &Schema) -> Result<(), Error> {
    let plan = Plan::of(&store.connection, table, schema)?;
    store.connection.prepare_cached(&plan.sql).map_err(Error::doing("insert into", table))?;
    Ok(())
}

/// Fails where two names are one to SQLite, which knows no case.
pub(super) fn check_distinct<'a>(table: &str, names: impl Iterator<Item = &'a str>) -> Result<(), Error> {
    let mut seen = BTreeSet::new();
    for name in names {
        if !seen.insert(name.to_ascii_lowercase()) {
            let why = format!("it has the column \"{name}\" twice, for SQLite does not tell upper case from lower");
            return Err(Error::Unfit { table: table.to_owned(), why });
        }
    }
    Ok(())
}

/// Fails where a column's type has no form in SQLite.
pub(super) fn check_type(table: &str, field: &Field) -> Result<(), Error> {
    Converter::new(field).map(drop).map_err(Error::value(table))
}

/// One value, as a column of the table stores it.
pub(super) fn single(here: &TableSchema, column: &str, field: &Field, array: &ArrayRef) -> Result<Value, Error> {
    // The field's own name is the sender's; a fault should name the column.
    let field = field.clone().with_name(column);
    Ok(match cell(array, &field, 0).map_err(Error::value(&here.name))? {
        Stored::Null => Value::Null,
        Stored::Integer(integer) => Value::Integer(integer),
        Stored::Real(real) => Value::Real(real),
        Stored::Text(text) => Value::Text(text.into_bytes()),
        Stored::Blob(blob) => Value::Blob(blob),
    })
}

/// How records of one schema are written.
struct Plan {
    table: String,
    sql: String,
    converters: Vec<Converter>,
    /// Where among the columns the rowid's other name is, and what it is called.
    rowid_alias: Option<(usize, String)>,
}

impl Plan {
    fn of(connection: &Connection, table: &str, schema: &Schema) -> Result<Self, Error> {
        let here = store::existing(connection, table)?;
        let names = || schema.fields().iter().map(|field| field.name().as_str());
        check_distinct(table, names())?;
        check_columns(&here, names())?;
        schema.fields().iter().try_for_each(|field| check_kept(&here, field))?;
        let converters = schema.fields().iter().map(|field| Converter::new(field));
        let alias = match here.key {
            KeyShape::RowidAlias { column } => {
                let alias = &here.columns[column].name;
                names().position(|name| name.eq_ignore_ascii_case(alias)).map(|place| (place, alias.clone()))
            }
            KeyShape::Rowid { .. } | KeyShape::Columns { .. } | KeyShape::None => None,
        };
        Ok(Self {
            table: table.to_owned(),
            sql: statement(&here.name, schema),
            converters: converters.collect::<Result<_, _>>().map_err(Error::value(table))?,
            rowid_alias: alias,
        })
    }

    fn write(&self, connection: &Connection, record: &RecordBatch) -> Result<(), Error> {
        let mut statement = connection.prepare_cached(&self.sql).map_err(Error::doing("insert into", &self.table))?;
        for row in 0..record.num_rows() {
            for (place, (converter, array)) in self.converters.iter().zip(record.columns()).enumerate() {
                let value = converter.value(array, row).map_err(Error::value(&self.table))?;
                self.check_key(place, &value)?;
                let bound = statement.raw_bind_parameter(place + 1, value);
                bound.map_err(Error::doing("insert into", &self.table))?;
            }
            statement.raw_execute().map_err(Error::doing("insert into", &self.table))?;
        }
        Ok(())
    }

    /// SQLite would make a key up where the rowid's other name is NULL, and names no column where it is no integer.
    fn check_key(&self, place: usize, value: &ToSqlOutput<'_>) -> Result<(), Error> {
        let Some((_, column)) = self.rowid_alias.as_ref().filter(|(key, _)| *key == place) else { return Ok(()) };
        let what = match value {
            ToSqlOutput::Borrowed(ValueRef::Null) | ToSqlOutput::Owned(Stored::Null) => "is NULL",
            ToSqlOutput::Owned(Stored::Blob(_)) => "is above 2^63 - 1",
            _ => return Ok(()),
        };
        let why = format!("its key \"{column}\" {what} in a row, which an integer key cannot be");
        Err(Error::Unfit { table: self.table.clone(), why })
    }
}

fn statement(table: &str, schema: &Schema) -> String {
    let fields = schema.fields();
    let replaces = fields.iter().any(|field| Column::from_field(field).primary_key());
    let verb = if replaces { "INSERT OR REPLACE" } else { "INSERT" };
    if fields.is_empty() {
        return format!("{verb} INTO main.{} DEFAULT VALUES", ident(table));
    }
    let names = quote::idents(fields.iter().map(|field| field.name().as_str()));
    let places: Vec<String> = (1..=fields.len()).map(|place| format!("?{place}")).collect();
    format!("{verb} INTO main.{}({names}) VALUES ({})", ident(table), places.join(", "))
}

/// Fails where the column's affinity would make something else of a value: text that looks like a number, an integer
/// beyond what a float holds. A migrated table has none such.
fn check_kept(here: &TableSchema, field: &Field) -> Result<(), Error> {
    let Some(column) = here.column(field.name()) else { return Ok(()) };
    let affinity = Affinity::of_declared_type(&column.declared_type);
    let is_kept = match (affinity, Class::of(field)) {
        (Affinity::Blob, _) | (_, Class::Timestamp) => true,
        (Affinity::Text, Class::Text | Class::Blob) => true,
        (Affinity::Integer | Affinity::Numeric, Class::Integer | Class::Boolean | Class::Real) => true,
        (Affinity::Real, Class::Real) => true,
        (Affinity::Text, Class::Integer | Class::Real | Class::Boolean)
        | (Affinity::Integer | Affinity::Numeric, Class::Text | Class::Blob)
        | (Affinity::Real, Class::Integer | Class::Text | Class::Boolean | Class::Blob) => false,
    };
    if is_kept {
        return Ok(());
    }
    let why = format!(
        "its column \"{}\" is declared {}, which does not keep values of type {} as they are; migrate it first",
        column.name,
        column.declared_type,
        type_name(field)
    );
    Err(Error::Unfit { table: here.name.clone(), why })
}
