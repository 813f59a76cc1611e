//! The type table toward CloudQuery: declared type → affinity → Arrow type, with the `cq:` metadata that its SDK writes.
//!
//! It is for readers that know no SQLite DDL. Between two nodes the DDL itself travels, and each batch says its types.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use arrow::ipc::writer::{DictionaryTracker, IpcDataGenerator, IpcWriteOptions};
use bytes::Bytes;

use crate::model::{Affinity, Column, IndexOrigin, TableSchema};

/// The table's Arrow schema with CloudQuery's metadata, as an IPC message (the flatbuffer alone, without a length).
///
/// Columns are [`TableSchema::wire_columns`]; a rowid that is the key stands first, as an integer that is NOT NULL.
pub fn arrow_schema(table: &TableSchema) -> Bytes {
    let schema = cloudquery_schema(table);
    let mut dictionaries = DictionaryTracker::new(false);
    IpcDataGenerator::default()
        .schema_to_bytes_with_dictionary_tracker(&schema, &mut dictionaries, &IpcWriteOptions::default())
        .ipc_message
        .into()
}

fn cloudquery_schema(table: &TableSchema) -> Schema {
    let fields: Vec<Arc<Field>> = table.wire_columns().into_iter().map(|name| Arc::new(field(table, name))).collect();
    let metadata = [
        ("cq:table_name", table.name.as_str()),
        // Python's reader fails where the description is missing.
        ("cq:table_description", ""),
        ("cq:table_title", ""),
        ("cq:extension:constraint_name", ""),
        ("cq:table_permissions_needed", "null"),
        ("cq:table_sensitive_columns", "null"),
    ];
    Schema::new_with_metadata(fields, owned(metadata))
}

fn field(table: &TableSchema, name: &str) -> Field {
    let in_key = table.key_columns().iter().any(|(key, _)| *key == name);
    let column = table.columns.iter().position(|column| column.name == name);
    let unique = column.is_some_and(|place| has_unique_constraint(table, place));
    let column = column.map(|place| &table.columns[place]);
    let data_type = column.map_or(DataType::Int64, arrow_type);
    let not_null = column.is_none_or(|column| column.not_null) || table.without_rowid && in_key;
    let word = |flag: bool| if flag { "true" } else { "false" };
    Field::new(name, data_type, !not_null).with_metadata(owned([
        ("cq:extension:primary_key", word(in_key)),
        ("cq:extension:unique", word(unique)),
        ("cq:extension:incremental", "false"),
        ("cq:extension:primary_key_component", "false"),
        ("cq:extension:type_schema", ""),
    ]))
}

/// Whether a unique index is on that column alone and on every row.
fn has_unique_constraint(table: &TableSchema, place: usize) -> bool {
    table.indexes.iter().any(|index| {
        let alone = index.columns.len() == 1 && index.columns[0].column == Some(place);
        alone && index.unique && !index.partial && index.origin != IndexOrigin::PrimaryKey
    })
}

/// The inverse of the table by which CloudQuery's SQLite destination declares columns; other names go by affinity.
fn arrow_type(column: &Column) -> DataType {
    match column.declared_type.to_ascii_lowercase().as_str() {
        "boolean" | "bool" => return DataType::Boolean,
        "timestamp" | "datetime" => return DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        _ => {}
    }
    match Affinity::of_declared_type(&column.declared_type) {
        Affinity::Integer => DataType::Int64,
        Affinity::Real => DataType::Float64,
        Affinity::Blob => DataType::Binary,
        // NUMERIC holds decimals as they were written: only text keeps all of them.
        Affinity::Text | Affinity::Numeric => DataType::Utf8,
    }
}

fn owned<const N: usize>(pairs: [(&str, &str); N]) -> HashMap<String, String> {
    pairs.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use arrow::ipc::convert::try_schema_from_flatbuffer_bytes;

    use super::*;
    use crate::model::{Generated, KeyShape};

    fn column(name: &str, declared: &str, not_null: bool) -> Column {
        Column {
            name: name.to_owned(),
            declared_type: declared.to_owned(),
            not_null,
            default: None,
            key_part: None,
            generated: Generated::No,
        }
    }

    #[test]
    fn a_schema_says_types_keys_and_nullability_the_way_cloudquery_reads_them() {
        let table = TableSchema {
            name: "t".to_owned(),
            columns: vec![column("n", "DECIMAL(10,2)", true), column("at", "timestamp", false), column("b", "", false)],
            key: KeyShape::Rowid { name: "rowid" },
            without_rowid: false,
            strict: false,
            ddl: String::new(),
            indexes: Vec::new(),
            foreign_needs: None,
        };
        let message = arrow_schema(&table);
        let schema = try_schema_from_flatbuffer_bytes(&message).expect("own schema");
        assert_eq!(schema.metadata()["cq:table_name"], "t");
        let said: Vec<_> = schema
            .fields()
            .iter()
            .map(|field| (field.name().as_str(), field.data_type().clone(), field.is_nullable()))
            .collect();
        let utc = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
        let expected = [
            ("rowid", DataType::Int64, false),
            ("n", DataType::Utf8, false),
            ("at", utc, true),
            ("b", DataType::Binary, true),
        ];
        assert_eq!(said, expected);
        let key = |place: usize| schema.field(place).metadata()["cq:extension:primary_key"].as_str();
        assert_eq!((key(0), key(1)), ("true", "false"));
    }
}
