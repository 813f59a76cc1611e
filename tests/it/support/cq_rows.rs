//! Columns, small tables and rows of CloudQuery's, made by hand: for tests that name what they write.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, TimeUnit};
use twinlite::cloudquery::{Column, Extension, Table};

/// A column of 64-bit integers.
pub fn int(name: &str) -> Column {
    Column::new(name, DataType::Int64)
}

/// A column of strings.
pub fn text(name: &str) -> Column {
    Column::new(name, DataType::Utf8)
}

/// A column of booleans.
pub fn boolean(name: &str) -> Column {
    Column::new(name, DataType::Boolean)
}

/// A column of UUIDs.
pub fn uuid(name: &str) -> Column {
    Column::extension(name, Extension::Uuid)
}

/// A column of times in µs.
pub fn time(name: &str) -> Column {
    Column::new(name, DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())))
}

/// A table `t` whose rows say which source wrote them and when.
pub fn synced() -> Table {
    let id = int("id").with_not_null(true).with_primary_key(true);
    Table::new("t", vec![id, text("_cq_source_name"), time("_cq_sync_time")])
}

/// A row of it; the time in µs since 1970.
pub fn synced_row(id: i64, source: &str, micros: i64) -> RecordBatch {
    record(&synced(), vec![ints([id]), texts([source]), times([micros])])
}

/// Rows of a table, by its columns.
#[track_caller]
pub fn record(table: &Table, columns: Vec<ArrayRef>) -> RecordBatch {
    RecordBatch::try_new(Arc::new(table.to_schema()), columns).unwrap()
}

/// Values for [`int`].
pub fn ints(values: impl IntoIterator<Item = i64>) -> ArrayRef {
    Arc::new(Int64Array::from_iter_values(values))
}

/// Values for [`text`].
pub fn texts(values: impl IntoIterator<Item = impl AsRef<str>>) -> ArrayRef {
    Arc::new(StringArray::from_iter_values(values))
}

/// Values for [`time`], in µs since 1970.
pub fn times(values: impl IntoIterator<Item = i64>) -> ArrayRef {
    Arc::new(TimestampMicrosecondArray::from_iter_values(values).with_timezone("UTC"))
}
