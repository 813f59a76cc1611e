//! Rows as record batches, and keys as deletions, of one table.
//!
//! `_cq_id` is random, or made of the key where it has to be the same each time that a row is said. Where the key is
//! NULL in part, several rows may have it; they are told apart by their place among themselves, in which they always come.

use std::sync::Arc;

use arrow::array::{ArrayRef, FixedSizeBinaryBuilder, RecordBatch, RecordBatchOptions, new_null_array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use rusqlite::types::ValueRef;
use uuid::Uuid;

use super::tables::SourceTable;
use super::values::{Values, class};
use crate::cloudquery::delete::{Group, Predicate};
use crate::cloudquery::table::columns::CQ_ID;
use crate::cloudquery::text::Formatter;
use crate::cloudquery::{self, DeleteRecord, ids};
use crate::config::OnTypeMismatch;
use crate::model::{Collation, Key, Value};
use crate::replicate::Error;
use crate::sqlite::{borrowed, value_of};

/// How rows are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowRules {
    /// What becomes of a value that does not fit its column.
    pub on_type_mismatch: OnTypeMismatch,
    /// Whether `_cq_id` is made of the key.
    pub deterministic_cq_id: bool,
}

/// Makes batches of one table's rows.
pub struct RowsBuilder<'t> {
    table: &'t SourceTable,
    rules: RowRules,
    schema: SchemaRef,
    key: KeyColumns,
    values: Vec<Values>,
    normal: Vec<Vec<u8>>,
    rows: usize,
    last: Option<(Vec<String>, u64)>,
}

/// Where the key's columns are, in the key's order.
struct KeyColumns {
    places: Vec<usize>,
    collations: Vec<Collation>,
}

impl<'t> RowsBuilder<'t> {
    /// For rows of this table, in the order of its wire columns.
    pub fn new(table: &'t SourceTable, rules: RowRules) -> Self {
        let key = KeyColumns { places: table.schema.key_in_wire(), collations: table.schema.key_collations() };
        let values = table.columns.iter().map(|column| Values::new(column.kind)).collect();
        let schema = Arc::new(table.table.to_schema());
        Self { table, rules, schema, key, values, normal: Vec::new(), rows: 0, last: None }
    }

    /// Adds a row.
    ///
    /// # Errors
    /// [`Error::Value`]. What was added before is worth nothing then.
    pub fn push<'v>(&mut self, row: impl Fn(usize) -> ValueRef<'v>) -> Result<(), Error> {
        for (place, column) in self.table.columns.iter().enumerate() {
            let policy = policy_of(self.rules.on_type_mismatch, column.in_key, column.not_null);
            if !self.values[place].push(column.kind, row(place), policy) {
                let key = self.key_of(&row);
                return Err(mismatch(self.table, (place, row(place)), &key));
            }
        }
        if self.table.is_collated() {
            let normal = self.key_of(&row).normal(&self.key.collations);
            self.normal.push(normal.as_bytes().to_vec());
        }
        self.rows += 1;
        Ok(())
    }

    fn key_of<'v>(&self, row: &impl Fn(usize) -> ValueRef<'v>) -> Key {
        Key(self.key.places.iter().map(|place| value_of(row(*place))).collect())
    }

    /// How many rows wait to be a batch.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The rows as a batch; `None` where there are none. More may be added after.
    ///
    /// # Errors
    /// Arrow's.
    pub fn finish(&mut self) -> Result<Option<RecordBatch>, Error> {
        let rows = std::mem::take(&mut self.rows);
        if rows == 0 {
            return Ok(None);
        }
        let mut arrays: Vec<ArrayRef> = self.values.iter_mut().map(Values::finish).collect();
        if self.table.adds_cq_id {
            let ids = self.ids(&arrays, rows)?;
            arrays.insert(0, ids);
        }
        if self.table.adds_source_name {
            arrays.push(new_null_array(&DataType::Utf8, rows));
        }
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let batch = RecordBatch::try_new_with_options(Arc::clone(&self.schema), arrays, &options);
        Ok(Some(batch.map_err(cloudquery::Error::from)?))
    }

    fn ids(&mut self, arrays: &[ArrayRef], rows: usize) -> Result<ArrayRef, Error> {
        let mut ids = FixedSizeBinaryBuilder::with_capacity(rows, 16);
        let normal = std::mem::take(&mut self.normal);
        let fields: Vec<&Field> =
            self.key.places.iter().map(|place| self.schema.field(place + usize::from(self.table.adds_cq_id))).collect();
        let formatters = fields.iter().map(|field| Formatter::new(field)).collect::<Result<Vec<_>, _>>()?;
        for row in 0..rows {
            let id = if !(self.rules.deterministic_cq_id || self.table.keyed_by_cq_id) {
                ids::random()
            } else {
                let mut texts = Vec::with_capacity(fields.len());
                let mut has_null = false;
                for (place, formatter) in self.key.places.iter().zip(&formatters) {
                    let mut text = String::new();
                    has_null |= !formatter.write(&arrays[*place], row, &mut text)?;
                    texts.push(text);
                }
                let place = place_among_equals(&mut self.last, &texts, has_null);
                let names = fields.iter().map(|field| field.name().as_str());
                match normal.get(row) {
                    Some(normal) => id_of_normal(normal, place),
                    None => id_of(names, &texts, has_null.then_some(place)),
                }
            };
            ids.append_value(id.as_bytes()).map_err(cloudquery::Error::from)?;
        }
        Ok(Arc::new(ids.finish()))
    }
}

/// How many rows with just this key came directly before; always 0 for keys that name one row.
fn place_among_equals(last: &mut Option<(Vec<String>, u64)>, texts: &[String], has_null: bool) -> u64 {
    if !has_null {
        *last = None;
        return 0;
    }
    let place = match last {
        Some((before, place)) if before == texts => *place + 1,
        Some(_) | None => 0,
    };
    *last = Some((texts.to_vec(), place));
    place
}

fn id_of<'a>(names: impl Iterator<Item = &'a str>, texts: &'a [String], place: Option<u64>) -> Uuid {
    let place = place.map(|place| place.to_string());
    let mut columns: Vec<(&str, &str)> = names.zip(texts.iter().map(String::as_str)).collect();
    if let Some(place) = &place {
        columns.push(("", place));
    }
    ids::deterministic(columns)
}

fn id_of_normal(normal: &[u8], place: u64) -> Uuid {
    let key: String = normal.iter().map(|byte| format!("{byte:02x}")).collect();
    ids::deterministic([("key", key.as_str()), ("place", &place.to_string())])
}

/// A key must not become NULL nor text that another key is too, and a column that may not be NULL must not either.
fn policy_of(policy: OnTypeMismatch, in_key: bool, not_null: bool) -> OnTypeMismatch {
    match policy {
        _ if in_key => OnTypeMismatch::Error,
        OnTypeMismatch::Null if not_null => OnTypeMismatch::Error,
        OnTypeMismatch::Error | OnTypeMismatch::Text | OnTypeMismatch::Null => policy,
    }
}

fn mismatch(table: &SourceTable, (place, value): (usize, ValueRef<'_>), key: &Key) -> Error {
    let column = &table.columns[place];
    Error::Value {
        table: table.table.name.clone(),
        key: key.shown(),
        column: column.name.clone(),
        found: class(value),
        wanted: column.kind.word(),
    }
}

/// The deletion of the rows that are this key.
///
/// # Errors
/// [`Error::Value`] where a part of the key does not fit its column, or Arrow's.
pub fn delete_of(table: &SourceTable, key: &Key) -> Result<DeleteRecord, Error> {
    let predicates = if table.is_collated() && !key.has_null() {
        let id = id_of_normal(key.normal(&table.schema.key_collations()).as_bytes(), 0);
        let mut ids = FixedSizeBinaryBuilder::new(16);
        ids.append_value(id.as_bytes()).map_err(cloudquery::Error::from)?;
        let field = table.table.column(CQ_ID).expect("a collated table has the column").field();
        vec![predicate(field, Arc::new(ids.finish()))?]
    } else {
        let parts = table.schema.key_in_wire().into_iter().zip(&key.0);
        let part = |(place, value): (usize, &Value)| {
            let column = &table.columns[place];
            let mut values = Values::new(column.kind);
            if !values.push(column.kind, borrowed(value), OnTypeMismatch::Error) {
                return Err(mismatch(table, (place, borrowed(value)), key));
            }
            let field = column.kind.column(&column.name);
            predicate(field.field(), values.finish())
        };
        parts.map(part).collect::<Result<Vec<_>, _>>()?
    };
    let groups = vec![Group { or: false, predicates }];
    Ok(DeleteRecord { table: table.table.name.clone(), groups, relations: Vec::new() })
}

/// The deletion of every row.
pub fn delete_all(table: &SourceTable) -> DeleteRecord {
    DeleteRecord { table: table.table.name.clone(), groups: Vec::new(), relations: Vec::new() }
}

fn predicate(field: &Field, value: ArrayRef) -> Result<Predicate, Error> {
    let schema = Arc::new(Schema::new(vec![field.clone().with_nullable(true)]));
    let record = RecordBatch::try_new(schema, vec![value]).map_err(cloudquery::Error::from)?;
    Ok(Predicate::new(field.name(), record)?)
}

#[cfg(test)]
mod tests {
    use arrow::array::{Array, AsArray};

    use super::*;
    use crate::model::TableSchema;
    use crate::replicate::cq_source::tables::TableOptions;
    use crate::sqlite::{catalog, in_memory};

    const RULES: RowRules = RowRules { on_type_mismatch: OnTypeMismatch::Error, deterministic_cq_id: true };

    fn table(ddl: &str) -> SourceTable {
        let connection = in_memory().expect("memory");
        connection.execute_batch(ddl).expect("ddl");
        let schema: TableSchema = catalog::table(&connection, "t").expect("catalog").expect("table");
        SourceTable::new(schema, TableOptions::default()).expect("fits")
    }

    fn batch(table: &SourceTable, rules: RowRules, rows: &[&[Value]]) -> Result<RecordBatch, Error> {
        let mut builder = RowsBuilder::new(table, rules);
        for row in rows {
            builder.push(|place| borrowed(&row[place]))?;
        }
        Ok(builder.finish()?.expect("rows"))
    }

    fn ids(batch: &RecordBatch) -> Vec<Vec<u8>> {
        batch.column(0).as_fixed_size_binary().iter().map(|id| id.expect("an id").to_vec()).collect()
    }

    #[test]
    fn an_id_made_of_the_key_is_the_sdks_and_other_ids_are_random() {
        let table = table("CREATE TABLE t(id INTEGER PRIMARY KEY, v TEXT)");
        let row: &[Value] = &[Value::Integer(7), Value::text("x")];
        let made = batch(&table, RULES, &[row, row]).expect("fits");
        let expected = ids::deterministic([("id", "7")]).as_bytes().to_vec();
        assert_eq!(ids(&made), [expected.clone(), expected]);
        assert_eq!(made.schema().metadata()["cq:table_name"], "t");
        let random = ids(&batch(&table, RowRules { deterministic_cq_id: false, ..RULES }, &[row, row]).expect("fits"));
        assert_ne!(random[0], random[1]);
    }

    #[test]
    fn rows_that_share_a_null_key_have_ids_of_their_own_each_time_the_same() {
        let table = table("CREATE TABLE t(k TEXT PRIMARY KEY, v)");
        let row: &[Value] = &[Value::Null, Value::Null];
        let other: &[Value] = &[Value::text("a"), Value::Null];
        let first = ids(&batch(&table, RULES, &[row, row, row, other]).expect("fits"));
        let unique: std::collections::BTreeSet<_> = first.iter().collect();
        assert_eq!(unique.len(), 4);
        assert_eq!(ids(&batch(&table, RULES, &[row, row, row, other]).expect("fits")), first);
    }

    #[test]
    fn spellings_of_one_key_are_one_id_and_one_deletion() {
        let table = table("CREATE TABLE t(k TEXT COLLATE NOCASE PRIMARY KEY, v)");
        let rules = RowRules { deterministic_cq_id: false, ..RULES };
        let rows: [&[Value]; 2] = [&[Value::text("ann"), Value::Null], &[Value::text("ANN"), Value::Null]];
        let found = ids(&batch(&table, rules, &rows).expect("fits"));
        assert_eq!(found[0], found[1]);
        let delete = delete_of(&table, &Key(vec![Value::text("Ann")])).expect("fits");
        let predicate = &delete.groups[0].predicates[0];
        assert_eq!(
            (predicate.column.as_str(), predicate.value().as_fixed_size_binary().value(0)),
            ("_cq_id", &found[0][..])
        );
    }

    #[test]
    fn what_does_not_fit_is_named_by_table_key_and_column_and_not_shown() {
        let table = table("CREATE TABLE t(id INTEGER PRIMARY KEY, v INTEGER, w INTEGER NOT NULL)");
        let row: &[Value] = &[Value::Integer(7), Value::text("secret"), Value::Integer(1)];
        let error = batch(&table, RULES, &[row]).expect_err("a mismatch").to_string();
        for word in ["\"t\"", "(7)", "\"v\"", "text", "an integer", "on_type_mismatch"] {
            assert!(error.contains(word), "{error}");
        }
        assert!(!error.contains("secret"));
        let null = RowRules { on_type_mismatch: OnTypeMismatch::Null, ..RULES };
        assert!(batch(&table, null, &[row]).expect("NULL").column(2).is_null(0));
        let refused: &[Value] = &[Value::Integer(7), Value::Null, Value::text("x")];
        assert!(batch(&table, null, &[refused]).is_err(), "NOT NULL");
    }

    #[test]
    fn a_key_never_becomes_null_or_text() {
        let table = table("CREATE TABLE t(k PRIMARY KEY, v)");
        for on_type_mismatch in [OnTypeMismatch::Null, OnTypeMismatch::Text] {
            let row: &[Value] = &[Value::Integer(1), Value::Null];
            assert!(batch(&table, RowRules { on_type_mismatch, ..RULES }, &[row]).is_err());
        }
        assert!(delete_of(&table, &Key(vec![Value::Integer(1)])).is_err());
    }

    #[test]
    fn a_deletion_names_every_part_of_the_key() {
        let table = table("CREATE TABLE t(a TEXT, b INTEGER, PRIMARY KEY(b, a))");
        let delete = delete_of(&table, &Key(vec![Value::Integer(2), Value::Null])).expect("fits");
        let said: Vec<(&str, bool)> =
            delete.groups[0].predicates.iter().map(|one| (one.column.as_str(), one.is_null())).collect();
        assert_eq!(said, [("b", false), ("a", true)]);
        assert!(!delete.groups[0].or && delete_all(&table).groups.is_empty());
    }
}
