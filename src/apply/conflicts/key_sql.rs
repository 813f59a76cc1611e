//! The SQL that finds a row by its key, with the rowid bare: in quotes it may become a string.

use crate::model::{KeyShape, TableSchema};
use crate::sqlite::ident;

/// The key's columns, each with `alias` (as `c.`) before it.
pub(in super::super) fn key_columns(schema: &TableSchema, alias: &str) -> Vec<String> {
    let column = |name: &str| match &schema.key {
        KeyShape::Rowid { .. } | KeyShape::None => format!("{alias}{name}"),
        KeyShape::RowidAlias { .. } | KeyShape::Columns { .. } => format!("{alias}{}", ident(name)),
    };
    schema.key_columns().iter().map(|(name, _)| column(name)).collect()
}

/// That a row `IS` the key whose parameters begin after `before` others: under the collation of the key, not of the column.
pub(in super::super) fn is_key(schema: &TableSchema, alias: &str, before: usize) -> String {
    let compare = |(place, name): (usize, String)| {
        let param = before + place + 1;
        match &schema.key {
            KeyShape::Columns { columns } => format!("{name} IS ?{param} COLLATE {}", columns[place].1.sql()),
            KeyShape::Rowid { .. } | KeyShape::RowidAlias { .. } | KeyShape::None => format!("{name} IS ?{param}"),
        }
    };
    let names = key_columns(schema, alias).into_iter().enumerate();
    names.map(compare).collect::<Vec<_>>().join(" AND ")
}
