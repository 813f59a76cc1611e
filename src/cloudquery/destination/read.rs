//! Rows of a table as Arrow, exactly as a peer asks for them.
//!
//! The answer's schema is the request's, metadata and all, whatever the table is declared as; a value that is none of the
//! type asked for is an error that names its column. All batches of one answer are of one moment.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, SchemaRef};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, Row};
use tokio::sync::mpsc;

use super::store::{self, check_columns};
use super::{Error, insert};
use crate::cloudquery::parse::ArrayReader;
use crate::cloudquery::{Column, Table};
use crate::sqlite::ident;

/// Rows of one batch. Peers of a state backend take only the first batch of a message, and a message is one of these.
const ROWS_MAX: usize = 1_000;

/// Bytes of text and blobs in one batch, after which it is sent: far below what a message may have.
const BYTES_MAX: usize = 4 << 20;

/// Reads a table and keeps it.
pub(super) fn collect(connection: &mut Connection, table: &Table) -> Result<Vec<RecordBatch>, Error> {
    let mut batches = Vec::new();
    scan(connection, table, |batch| {
        batches.push(batch);
        true
    })?;
    Ok(batches)
}

/// Reads a table and sends it on, until it ends or nobody listens. Blocks where the listener is slow.
pub(super) fn send(
    connection: &mut Connection,
    table: &Table,
    rows: &mpsc::Sender<Result<RecordBatch, Error>>,
) -> Result<(), Error> {
    scan(connection, table, |batch| rows.blocking_send(Ok(batch)).is_ok())
}

/// Hands out the table's rows while `take` says that it wants more.
fn scan(connection: &mut Connection, table: &Table, mut take: impl FnMut(RecordBatch) -> bool) -> Result<(), Error> {
    let transaction = connection.transaction()?;
    let here = store::existing(&transaction, &table.name)?;
    let names = || table.columns.iter().map(Column::name);
    check_columns(&here, names())?;
    insert::check_distinct(&table.name, names())?;
    if table.columns.is_empty() {
        return Ok(());
    }
    let name = ident(&here.name);
    let columns: Vec<String> = table.columns.iter().map(|column| format!("{name}.{}", ident(column.name()))).collect();
    let sql = format!("SELECT {} FROM main.{name}", columns.join(", "));
    let doing = || Error::doing("read", &table.name);
    let mut statement = transaction.prepare(&sql).map_err(doing())?;
    let mut found = statement.query([]).map_err(doing())?;
    let schema = Arc::new(table.to_schema());
    let row_bytes =
        schema.fields().iter().fold(0, |sum: usize, field| sum.saturating_add(fixed_bytes(field.data_type())));
    if row_bytes > BYTES_MAX {
        let why = "a row of the types that are asked for is too large, whatever is in it".to_owned();
        return Err(Error::Unfit { table: table.name.clone(), why });
    }
    let mut batch = Batch::new(table, &schema)?;
    while let Some(row) = found.next().map_err(doing())? {
        batch.push(table, row)?;
        batch.bytes += row_bytes;
        if batch.rows >= ROWS_MAX || batch.bytes >= BYTES_MAX {
            let full = std::mem::replace(&mut batch, Batch::new(table, &schema)?);
            if !take(full.finish(table)?) {
                return Ok(());
            }
        }
    }
    if batch.rows > 0 {
        take(batch.finish(table)?);
    }
    Ok(())
}

/// What a value of a type occupies even where it is NULL, for types of a fixed size: that is for the peer to choose.
fn fixed_bytes(data_type: &DataType) -> usize {
    let times = |size: &i32, bytes: usize| usize::try_from(*size).unwrap_or(0).saturating_mul(bytes);
    match data_type {
        DataType::FixedSizeBinary(width) => times(width, 1),
        DataType::FixedSizeList(item, size) => times(size, fixed_bytes(item.data_type()).max(1)),
        DataType::Struct(fields) => {
            fields.iter().fold(0, |sum: usize, field| sum.saturating_add(fixed_bytes(field.data_type())))
        }
        _ => 0,
    }
}

/// A batch that grows.
struct Batch {
    schema: SchemaRef,
    columns: Vec<ArrayReader>,
    rows: usize,
    bytes: usize,
}

impl Batch {
    fn new(table: &Table, schema: &SchemaRef) -> Result<Self, Error> {
        let columns = schema.fields().iter().map(|field| ArrayReader::new(field));
        let columns = columns.collect::<Result<_, _>>().map_err(Error::value(&table.name))?;
        Ok(Self { schema: Arc::clone(schema), columns, rows: 0, bytes: 0 })
    }

    fn push(&mut self, table: &Table, row: &Row<'_>) -> Result<(), Error> {
        for (place, column) in self.columns.iter_mut().enumerate() {
            let value = row.get_ref(place)?;
            self.bytes += match value {
                ValueRef::Null | ValueRef::Integer(_) | ValueRef::Real(_) => 0,
                ValueRef::Text(bytes) | ValueRef::Blob(bytes) => bytes.len(),
            };
            column.push(value).map_err(Error::value(&table.name))?;
        }
        self.rows += 1;
        Ok(())
    }

    fn finish(self, table: &Table) -> Result<RecordBatch, Error> {
        let arrays = self.columns.into_iter().map(ArrayReader::finish).collect::<Result<_, _>>();
        let arrays = arrays.map_err(Error::value(&table.name))?;
        RecordBatch::try_new(self.schema, arrays).map_err(|error| Error::value(&table.name)(error.into()))
    }
}
