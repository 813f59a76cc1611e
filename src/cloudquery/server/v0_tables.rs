//! Tables as JSON, as sources of protocol version 1 describe them.

use arrow::datatypes::{DataType, Field, TimeUnit};
use serde::Deserialize;

use crate::cloudquery::table::{columns, field_keys, schema_keys};
use crate::cloudquery::{Column, Extension, Table};

#[derive(Default, Deserialize)]
#[serde(default)]
struct TableJson {
    name: String,
    title: Option<String>,
    description: Option<String>,
    columns: Option<Vec<ColumnJson>>,
    relations: Option<Vec<TableJson>>,
    #[serde(rename = "IsIncremental")]
    is_incremental: bool,
    pk_constraint_name: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ColumnJson {
    name: String,
    #[serde(rename = "type")]
    kind: i64,
    creation_options: Options,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Options {
    primary_key: bool,
    not_null: bool,
    incremental_key: bool,
    unique: bool,
}

/// The tables of a JSON array, flattened, each with the columns that a destination manages: `_cq_source_name` and
/// `_cq_sync_time` at the front, and a `_cq_id` that is unique and not null.
///
/// # Errors
/// What is wrong, and in which table and column.
pub(super) fn parse(json: &[u8]) -> Result<Vec<Table>, String> {
    let roots: Option<Vec<TableJson>> = serde_json::from_slice(json).map_err(|error| format!("tables: {error}"))?;
    let mut tables = Vec::new();
    for root in roots.unwrap_or_default() {
        flatten(root, None, &mut tables)?;
    }
    Ok(tables)
}

/// How deep the JSON may nest is bounded by its parser.
fn flatten(json: TableJson, parent: Option<&str>, tables: &mut Vec<Table>) -> Result<(), String> {
    if json.name.is_empty() {
        return Err("tables: one has no name".to_owned());
    }
    let name = json.name.as_str();
    let columns = json.columns.unwrap_or_default().into_iter().map(|json_column| column(name, &json_column));
    let mut table = Table::new(&json.name, managed(columns.collect::<Result<_, _>>()?));
    let keys = [
        (schema_keys::TITLE, json.title),
        (schema_keys::DESCRIPTION, json.description),
        (schema_keys::CONSTRAINT_NAME, json.pk_constraint_name),
        (schema_keys::DEPENDS_ON, parent.map(str::to_owned)),
        (schema_keys::INCREMENTAL, json.is_incremental.then(|| "true".to_owned())),
    ];
    for (key, value) in keys.into_iter().filter_map(|(key, value)| Some((key, value?))) {
        table.metadata.insert(key, value);
    }
    tables.push(table);
    json.relations.unwrap_or_default().into_iter().try_for_each(|child| flatten(child, Some(&json.name), tables))
}

fn column(table: &str, json: &ColumnJson) -> Result<Column, String> {
    let wrong = || format!("table {table:?}: column {:?} is of type {}, which is none", json.name, json.kind);
    let column = typed(&json.name, json.kind).ok_or_else(wrong)?;
    let options = &json.creation_options;
    let incremental = if options.incremental_key { "true" } else { "false" };
    Ok(column
        .with(field_keys::INCREMENTAL, incremental)
        .with_primary_key(options.primary_key)
        .with_unique(options.unique)
        .with_not_null(options.not_null))
}

/// The column of a type's number.
fn typed(name: &str, kind: i64) -> Option<Column> {
    let list = |item: Column| {
        let item = item.field().clone().with_nullable(true);
        Column::new(
            name,
            DataType::List(
                Field::new("item", item.data_type().clone(), true).with_metadata(item.metadata().clone()).into(),
            ),
        )
    };
    Some(match kind {
        1 => Column::new(name, DataType::Boolean),
        2 => Column::new(name, DataType::Int64),
        3 => Column::new(name, DataType::Float64),
        4 => Column::extension(name, Extension::Uuid),
        5 => Column::new(name, DataType::Utf8),
        6 => Column::new(name, DataType::Binary),
        7 => list(Column::new("item", DataType::Utf8)),
        8 => list(Column::new("item", DataType::Int64)),
        9 => timestamp(name),
        10 => Column::extension(name, Extension::Json),
        11 => list(Column::extension("item", Extension::Uuid)),
        12 | 14 => Column::extension(name, Extension::Inet),
        13 | 15 => list(Column::extension("item", Extension::Inet)),
        16 => Column::extension(name, Extension::Mac),
        17 => list(Column::extension("item", Extension::Mac)),
        // 0 is invalid, 18 was a time interval and never written.
        _ => return None,
    })
}

fn timestamp(name: &str) -> Column {
    Column::new(name, DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())))
}

fn managed(own: Vec<Column>) -> Vec<Column> {
    let mut front = vec![Column::new(columns::CQ_SOURCE_NAME, DataType::Utf8), timestamp(columns::CQ_SYNC_TIME)];
    let mut all: Vec<Column> = own
        .into_iter()
        .map(|column| match front.iter().position(|ours| ours.name() == column.name()) {
            Some(ours) => front.remove(ours),
            None if column.name() == columns::CQ_ID => column.with_unique(true).with_not_null(true),
            None => column,
        })
        .collect();
    all.splice(0..0, front);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_flattened_and_get_the_managed_columns() {
        let json = br#"[{"name": "orders", "title": "Orders", "columns": [
            {"name": "_cq_id", "type": 4},
            {"name": "id", "type": 2, "creation_options": {"primary_key": true, "not_null": true}},
            {"name": "tags", "type": 7, "creation_options": {"unique": true, "incremental_key": true}}],
          "relations": [{"name": "lines", "columns": [{"name": "_cq_sync_time", "type": 5}], "relations": null}],
          "IsIncremental": true}]"#;
        let tables = parse(json).expect("tables");
        let names = |table: &Table| table.columns.iter().map(|column| column.name().to_owned()).collect::<Vec<_>>();
        assert_eq!(names(&tables[0]), ["_cq_source_name", "_cq_sync_time", "_cq_id", "id", "tags"]);
        assert_eq!(names(&tables[1]), ["_cq_source_name", "_cq_sync_time"], "ours takes its place");
        assert_eq!(tables[1].columns[1].data_type(), timestamp("x").data_type());
        assert_eq!((tables[0].parent(), tables[1].parent()), (None, Some("orders")));
        assert!(tables[0].incremental() && tables[0].primary_key() == ["id"]);
        let id = &tables[0].columns[2];
        assert!(id.unique() && id.not_null() && Extension::of(id.field()) == Some(Extension::Uuid));
        assert!(tables[0].columns[4].unique() && tables[0].columns[4].incremental_key());
        assert!(parse(b"null").expect("none").is_empty());
    }

    #[test]
    fn what_is_no_table_is_refused_by_name() {
        for (json, word) in [
            ("{", "tables"),
            (r#"[{"columns": []}]"#, "no name"),
            (r#"[{"name": "t", "columns": [{"name": "c", "type": 18}]}]"#, "\"c\""),
            (r#"[{"name": "t", "columns": [{"name": "c"}]}]"#, "\"c\""),
        ] {
            assert!(parse(json.as_bytes()).expect_err(json).contains(word), "{json}");
        }
        let deep = format!("{}{}", r#"[{"name": "t", "relations": "#.repeat(5000), "null");
        assert!(parse(deep.as_bytes()).is_err());
    }
}
