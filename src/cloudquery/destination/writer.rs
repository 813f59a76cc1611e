//! One stream of messages into a destination.
//!
//! Rows wait, table by table, until a batch is full, has waited long enough, or something looks at their table; each batch
//! is one transaction. Everything else is done when it comes.
//!
//! Invariants:
//! * A table's rows are written in the order in which they came, and before any later message about that table is done.
//! * What waits is bounded: a table's rows by [`Limits`], all tables' together by [`WAITING_BYTES_MAX`].
//! * After an error nothing waits.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{Array, RecordBatch};
use arrow::datatypes::{DataType, Field, SchemaRef};
use tokio::time::Instant;

use super::store::Limits;
use super::{Destination, Error, delete, insert, migrate};
use crate::cloudquery::table::schema_keys;
use crate::cloudquery::{DeleteRecord, Table};

/// Bytes that wait in one writer at most, whatever the number of its tables: more than that, and all are written. A few
/// large batches, so that tables written in turn still have batches worth the name.
const WAITING_BYTES_MAX: usize = 64 << 20;

/// What a column of a record costs in memory beside its values: the array, its buffers' padding, and its type where that
/// is nested. It bounds how many small records may wait.
const COLUMN_BYTES: usize = 512;

/// What a name in a set costs beside its letters.
const NAME_BYTES: usize = 64;

/// The rows of one table that wait.
#[derive(Default)]
struct Waiting {
    /// The table, as the peer calls it.
    table: String,
    records: Vec<RecordBatch>,
    rows: usize,
    bytes: usize,
    since: Option<Instant>,
    /// The schema that was found to fit last.
    fits: Option<SchemaRef>,
}

/// One stream. Dropped, it forgets what waits.
pub struct Writer {
    destination: Destination,
    limits: Limits,
    /// By the table's name in lower case, for so SQLite knows them.
    waiting: BTreeMap<String, Waiting>,
    bytes: usize,
    failed: BTreeSet<String>,
    failed_bytes: usize,
}

impl Writer {
    pub(super) fn new(destination: Destination, limits: Limits) -> Self {
        Self { destination, limits, waiting: BTreeMap::new(), bytes: 0, failed: BTreeSet::new(), failed_bytes: 0 }
    }

    /// Makes the table what it is said to be. Forced, it is made anew where that cannot be done with its rows.
    ///
    /// # Errors
    /// [`Error::Refused`] where it is not forced and its rows would be lost; others where it cannot be at all. Nothing
    /// has changed then.
    pub async fn migrate(&mut self, table: Table, force: bool) -> Result<(), Error> {
        self.flush_table(&table.name).await?;
        // What fits may be another now.
        self.waiting.remove(&table.name.to_ascii_lowercase());
        let name = table.name.clone();
        let done = self.destination.call(move |store| migrate::migrate(store, &table, force)).await;
        self.settle(&name, done)
    }

    /// Takes rows; the table's name is in the schema's metadata. Full batches are written at once.
    ///
    /// # Errors
    /// Where the rows, or those that waited with them, cannot be written: see [`Error`].
    pub async fn insert(&mut self, record: RecordBatch) -> Result<(), Error> {
        let named = record.schema_ref().metadata().get(schema_keys::NAME).filter(|name| !name.is_empty());
        let table = named.cloned().ok_or(crate::cloudquery::Error::NoTableName)?;
        self.check_fit(&table, &record).await?;
        if record.num_rows() == 0 {
            return Ok(());
        }
        let row_bytes = (footprint(&record) / record.num_rows()).max(1);
        let mut next = 0;
        while next < record.num_rows() {
            let rows = self.room(&table, row_bytes).min(record.num_rows() - next);
            self.wait(&table, record.slice(next, rows), row_bytes);
            next += rows;
            if self.is_full(&table) {
                self.flush_table(&table).await?;
            }
        }
        if self.bytes >= WAITING_BYTES_MAX {
            self.flush().await?;
        }
        Ok(())
    }

    /// Deletes the rows of `source` that a sync before `before` wrote; none where `before` is not said.
    ///
    /// # Errors
    /// [`Error::UnknownTable`], [`Error::UnknownColumns`], and SQLite's.
    pub async fn delete_stale(
        &mut self,
        table: &str,
        source: &str,
        before: Option<prost_types::Timestamp>,
    ) -> Result<(), Error> {
        self.flush_table(table).await?;
        // A time that is not said is the beginning of 1970, as for every message of protobuf.
        let before = before.unwrap_or_default();
        let before = (before.seconds, u32::try_from(before.nanos).unwrap_or(0));
        let (name, source) = (table.to_owned(), source.to_owned());
        let done = self.destination.call(move |store| delete::stale(store, &name, &source, before)).await;
        self.settle(table, done)
    }

    /// Deletes rows by value, and with them the rows of other tables that belong to them.
    ///
    /// # Errors
    /// [`Error::UnknownTable`], [`Error::UnknownColumns`], [`Error::Unfit`] where relations are out of order, and
    /// SQLite's.
    pub async fn delete_record(&mut self, delete: DeleteRecord) -> Result<(), Error> {
        let tables = std::iter::once(&delete.table).chain(delete.relations.iter().map(|relation| &relation.table));
        for table in tables {
            self.flush_table(table).await?;
        }
        let name = delete.table.clone();
        let done = self.destination.call(move |store| delete::record(store, &delete)).await;
        self.settle(&name, done)
    }

    /// Writes everything that waits.
    ///
    /// # Errors
    /// The first table's that fails; what still waited is dropped, and [`Self::failed_tables`] names it.
    pub async fn flush(&mut self) -> Result<(), Error> {
        let tables: Vec<String> = self.waiting.values().map(|waiting| waiting.table.clone()).collect();
        for table in tables {
            self.flush_table(&table).await?;
        }
        Ok(())
    }

    /// When something that waits is due, if it ever is; then call [`Self::tick`].
    pub fn deadline(&self) -> Option<Instant> {
        let wait = self.limits.wait?;
        self.waiting.values().filter_map(|waiting| waiting.since).min().map(|since| since + wait)
    }

    /// Writes what has waited long enough.
    ///
    /// # Errors
    /// As [`Self::flush`].
    pub async fn tick(&mut self) -> Result<(), Error> {
        let (Some(wait), now) = (self.limits.wait, Instant::now()) else { return Ok(()) };
        let is_due = |waiting: &&Waiting| waiting.since.is_some_and(|since| since + wait <= now);
        let due: Vec<String> = self.waiting.values().filter(is_due).map(|waiting| waiting.table.clone()).collect();
        for table in due {
            self.flush_table(&table).await?;
        }
        Ok(())
    }

    /// The tables that something may be missing from since [`Self::forget_failures`]: those that failed, and those whose
    /// rows waited then.
    pub fn failed_tables(&self) -> Vec<String> {
        self.failed.iter().cloned().collect()
    }

    /// What the names of [`Self::failed_tables`] occupy.
    pub fn failed_bytes(&self) -> usize {
        self.failed_bytes
    }

    /// Begins anew to note which tables fail: a peer has been told.
    pub fn forget_failures(&mut self) {
        self.failed.clear();
        self.failed_bytes = 0;
    }

    /// Fails where the record's schema does not fit the table. Schemas are mostly those of the record before.
    async fn check_fit(&mut self, table: &str, record: &RecordBatch) -> Result<(), Error> {
        let schema = record.schema();
        let known = self.waiting.get(&table.to_ascii_lowercase()).and_then(|waiting| waiting.fits.as_ref());
        if known.is_some_and(|known| Arc::ptr_eq(known, &schema) || *known == schema) {
            return Ok(());
        }
        let (name, asked) = (table.to_owned(), Arc::clone(&schema));
        let done = self.destination.call(move |store| insert::check(store, &name, &asked)).await;
        self.settle(table, done)?;
        self.of(table).fits = Some(schema);
        Ok(())
    }

    fn of(&mut self, table: &str) -> &mut Waiting {
        let new = || Waiting { table: table.to_owned(), ..Waiting::default() };
        self.waiting.entry(table.to_ascii_lowercase()).or_insert_with(new)
    }

    /// Rows of that size that the table's batch has room for; at least one.
    fn room(&mut self, table: &str, row_bytes: usize) -> usize {
        let limits = self.limits;
        let waiting = self.of(table);
        let by_bytes = limits.bytes.saturating_sub(waiting.bytes).div_ceil(row_bytes);
        limits.rows.saturating_sub(waiting.rows).min(by_bytes).max(1)
    }

    fn wait(&mut self, table: &str, record: RecordBatch, row_bytes: usize) {
        let (rows, bytes) = (record.num_rows(), row_bytes * record.num_rows());
        let waiting = self.of(table);
        // Records share one schema, whose metadata may be larger than they are.
        let shared = waiting.fits.as_ref().and_then(|fits| record.clone().with_schema(Arc::clone(fits)).ok());
        let record = shared.unwrap_or(record);
        waiting.records.push(record);
        waiting.rows += rows;
        waiting.bytes += bytes;
        waiting.since.get_or_insert_with(Instant::now);
        self.bytes += bytes;
    }

    fn is_full(&mut self, table: &str) -> bool {
        let limits = self.limits;
        let waiting = self.of(table);
        waiting.rows >= limits.rows || waiting.bytes >= limits.bytes
    }

    async fn flush_table(&mut self, table: &str) -> Result<(), Error> {
        let Some(waiting) = self.waiting.get_mut(&table.to_ascii_lowercase()) else { return Ok(()) };
        let records = std::mem::take(&mut waiting.records);
        if records.is_empty() {
            return Ok(());
        }
        let name = waiting.table.clone();
        self.bytes -= std::mem::take(&mut waiting.bytes);
        (waiting.rows, waiting.since) = (0, None);
        let job_name = name.clone();
        let done = self.destination.call(move |store| insert::insert(store, &job_name, &records)).await;
        self.settle(&name, done)
    }

    /// After an error nothing waits any more, and what is missing is noted.
    fn settle(&mut self, table: &str, done: Result<Result<(), Error>, Error>) -> Result<(), Error> {
        let done = done.and_then(|done| done);
        if done.is_err() {
            self.note_failed(table.to_owned());
            for waiting in std::mem::take(&mut self.waiting).into_values().filter(|waiting| waiting.rows > 0) {
                self.note_failed(waiting.table);
            }
            self.bytes = 0;
        }
        done
    }

    fn note_failed(&mut self, table: String) {
        let bytes = table.len() + NAME_BYTES;
        if self.failed.insert(table) {
            self.failed_bytes += bytes;
        }
    }
}

/// What a record occupies while it waits.
fn footprint(record: &RecordBatch) -> usize {
    let values =
        |array: &dyn Array| array.to_data().get_slice_memory_size().unwrap_or_else(|_| array.get_array_memory_size());
    let columns = record.columns().iter().zip(record.schema_ref().fields());
    columns.map(|(array, field)| values(array) + COLUMN_BYTES * arrays(field)).sum()
}

/// The arrays that a column consists of.
fn arrays(field: &Field) -> usize {
    1 + match field.data_type() {
        DataType::List(child)
        | DataType::LargeList(child)
        | DataType::ListView(child)
        | DataType::LargeListView(child)
        | DataType::FixedSizeList(child, _)
        | DataType::Map(child, _) => arrays(child),
        DataType::Struct(children) => children.iter().map(|child| arrays(child)).sum(),
        _ => 0,
    }
}
