//! A database's changes in CloudQuery's words: windows of the feed, with the copies of tables, message by message.
//!
//! A window becomes, in this order: the tables as they are to be, the removal of what is copied anew, deletions, rows as
//! they are now, a piece of a copy. Said again after a failure it has the same effect: rows are named by their keys.
//!
//! Rows whose key is NULL in part may be several, and a destination does not replace them: they are deleted and written
//! again, all that there are.

use std::collections::BTreeMap;
use std::sync::Arc;

use rusqlite::types::ValueRef;

use super::book::{Book, Moved};
use super::rows::{RowRules, RowsBuilder, delete_all, delete_of};
use super::tables::{SourceTable, TableOptions};
use crate::capture::GivenTable;
use crate::capture::source::{ChangeSource, CopyStep, ReadRequest};
use crate::cloudquery::Table;
use crate::cloudquery::source::SyncMessage;
use crate::codec::{Compression, DecodedBatch};
use crate::model::{Checkpoint, EncodedBatch, Key, RowsOp, SchemaKinds, Selection, TableDef, TableId, WindowItem};
use crate::replicate::Error;
use crate::replicate::copies::RangeBounds;
use crate::replicate::feed::{Feed, Next, SharedWindow};
use crate::sqlite::{self, catalog, value_of};

/// Columns before a table's own in a batch of changes: seq, ts, origin.
const COLUMNS_OF_VERSION: usize = 3;

/// How an outflow is cut, and how rows are made.
#[derive(Clone, Debug)]
pub struct OutflowOptions {
    /// Which tables.
    pub selection: Arc<Selection>,
    /// How they are described.
    pub tables: TableOptions,
    /// How their rows are made.
    pub rows: RowRules,
    /// Rows above which a window may be split.
    pub window_rows: usize,
    /// Rows in a batch at most.
    pub batch_rows: usize,
    /// Bytes in a batch at most, unless one row has more.
    pub batch_bytes: usize,
    /// Bounds of a piece of a copy.
    pub bounds: RangeBounds,
}

/// Where an outflow begins.
#[derive(Clone, Debug)]
pub struct OutflowStart {
    /// The log up to here is known.
    pub from: Checkpoint,
    /// The tables that were given.
    pub given: Vec<GivenTable>,
    /// Whether everything is to be copied again.
    pub anew: bool,
}

/// Where messages go.
pub trait Outlet: Send {
    /// Takes one, and waits while it is full.
    fn put(&mut self, message: SyncMessage) -> impl Future<Output = Result<(), Error>> + Send;

    /// Takes a table as it is to be. `whole`: every row of it follows, so that nothing is lost where it is made anew.
    fn table(&mut self, table: Table, _whole: bool) -> impl Future<Output = Result<(), Error>> + Send {
        self.put(SyncMessage::MigrateTable(table))
    }
}

/// What a window said.
#[derive(Clone, Copy, Debug)]
pub struct Said {
    /// Up to where the log is told now.
    pub to: Checkpoint,
    /// The log's end when it was read.
    pub head: i64,
    /// Whether that is all that the log had.
    pub last_part: bool,
    /// `ts` of its first change.
    pub first_ts_ms: Option<i64>,
    /// Changed rows in it.
    pub changes: u64,
}

/// Says what happens in a database to one consumer.
pub struct Outflow<S: ChangeSource> {
    feed: Arc<Feed<S>>,
    options: OutflowOptions,
    book: Book,
    tables: BTreeMap<TableId, SourceTable>,
    /// Tables that cannot be said, each with the note that says so.
    refused: BTreeMap<String, String>,
    sent: Checkpoint,
    catalog: Option<i64>,
}

impl<S: ChangeSource> Outflow<S> {
    /// From there on.
    pub fn new(feed: Arc<Feed<S>>, options: OutflowOptions, start: &OutflowStart) -> Self {
        let book = Book::new(&start.given, start.anew);
        Self { feed, options, book, tables: BTreeMap::new(), refused: BTreeMap::new(), sent: start.from, catalog: None }
    }

    /// Up to where everything was said.
    pub fn position(&self) -> Checkpoint {
        self.sent
    }

    /// The tables, and how far each was said.
    pub fn book(&self) -> &Book {
        &self.book
    }

    /// Says the next window; `None` where there is nothing to say.
    ///
    /// # Errors
    /// Reading, or the outlet. What was said of the window then has to be said again, from a new outflow.
    pub async fn next(&mut self, outlet: &mut impl Outlet) -> Result<Option<Said>, Error> {
        let step = self.book.step(self.options.bounds);
        let (low, table) = (step.as_ref().and_then(|step| step.low.clone()), step.as_ref().map(|step| step.table));
        let wiping = step.as_ref().is_some_and(|step| step.lost_history);
        match self.feed.next(self.request(step)).await? {
            Next::Window { window, .. } => self.say(&window, (low.as_ref(), wiping), outlet).await.map(Some),
            Next::Nothing { .. } => {
                if let Some(table) = table {
                    self.book.vanished(table);
                }
                Ok(None)
            }
        }
    }

    fn request(&self, copy: Option<CopyStep>) -> ReadRequest {
        ReadRequest {
            after: self.sent.position.seq,
            mark: (self.sent.position.seq > 0).then_some((self.sent.ts_ms, self.sent.fingerprint)),
            catalog_known: self.catalog,
            selection: Arc::clone(&self.options.selection),
            kinds: SchemaKinds { indexes: false, views: false, triggers: false },
            copy,
            window_rows: Some(self.options.window_rows),
            two_way: None,
            batch_rows: self.options.batch_rows,
            batch_bytes: self.options.batch_bytes,
            compression: Compression::None,
        }
    }

    async fn say(
        &mut self,
        window: &SharedWindow,
        (low, wiping): (Option<&Key>, bool),
        outlet: &mut impl Outlet,
    ) -> Result<Said, Error> {
        if window.read.tables.is_some() {
            // Before the tables are said, too: one that is to be copied again may be made anew.
            self.book.mark(window.read.end.begun_anew());
            self.take_catalog(window, outlet).await?;
        }
        self.book.mark(window.read.end.begun_anew());
        let copied = window.read.copied.as_ref();
        let piece = copied.and_then(|copied| Some((copied, self.book.accepts(copied.table, low, wiping)?)));
        if let Some((copied, true)) = piece
            && let Some(table) = self.tables.get(&copied.table)
        {
            outlet.put(SyncMessage::DeleteRecord(delete_all(table))).await?;
        }
        for item in window.spooled.items() {
            match item? {
                WindowItem::Rows(rows) => self.say_rows((rows.table, rows.op), &rows.batch, outlet).await?,
                WindowItem::Range(range) if piece.is_some() => {
                    self.say_range(range.table, &range.batches, outlet).await?;
                }
                WindowItem::Range(_)
                | WindowItem::Digest(_)
                | WindowItem::Catalog
                | WindowItem::Table(_)
                | WindowItem::Object(_) => {}
            }
        }
        if let Some((copied, _)) = piece {
            self.book.copied(copied);
        }
        let end = &window.read.end;
        (self.sent, self.catalog) = (end.to, Some(window.read.catalog));
        let (first_ts_ms, changes) = (window.read.first_ts_ms, window.read.changes);
        Ok(Said { to: end.to, head: end.head, last_part: end.last_part, first_ts_ms, changes })
    }

    /// Takes in the tables as they are now, and says those that the consumer has not seen so.
    async fn take_catalog(&mut self, window: &SharedWindow, outlet: &mut impl Outlet) -> Result<(), Error> {
        let about = |table: &String| format!("{table} to CloudQuery");
        let (mut tables, mut refused) = (BTreeMap::new(), BTreeMap::new());
        for item in window.spooled.items() {
            let WindowItem::Table(definition) = item? else { continue };
            let schema = schema_of(&definition)?;
            match SourceTable::new(schema, self.options.tables) {
                Ok(table) => drop(tables.insert(definition.id, table)),
                Err(why) => {
                    let note = format!("table {:?} is not sent to CloudQuery: {why}", definition.name);
                    tracing::warn!("{note}");
                    refused.insert(definition.name, note);
                }
            }
        }
        for table in self.refused.keys().filter(|table| !refused.contains_key(*table)) {
            self.feed.board().stands(&about(table), None);
        }
        for (table, note) in &refused {
            self.feed.board().stands(&about(table), Some(note.clone()));
        }
        self.refused = refused;
        let listed = window.read.tables.iter().flatten().filter(|table| tables.contains_key(&table.id));
        let listed: Vec<_> = listed.cloned().collect();
        self.book.catalog(&listed, |new, old| match (tables.get(&new), self.tables.get(&old)) {
            (Some(new), Some(old)) if new.keeps_rows_of(old) => Moved::Kept,
            // What it was when it was said is not known any more.
            (_, _) => Moved::Resent,
        });
        let said: Vec<SourceTable> = std::mem::replace(&mut self.tables, tables).into_values().collect();
        for (id, table) in &self.tables {
            if !said.iter().any(|before| before.table == table.table) {
                outlet.table(table.table.clone(), self.book.is_pending(*id)).await?;
            }
        }
        Ok(())
    }

    async fn say_rows(
        &self,
        (id, op): (TableId, RowsOp),
        batch: &EncodedBatch,
        outlet: &mut impl Outlet,
    ) -> Result<(), Error> {
        let Some(table) = self.tables.get(&id) else { return Ok(()) };
        let messages = match op {
            RowsOp::Delete => deletions(table, batch)?,
            RowsOp::Upsert | RowsOp::Exactly => {
                Insertions::new(table, self.options.rows).of(batch, COLUMNS_OF_VERSION)?
            }
        };
        for message in messages {
            outlet.put(message).await?;
        }
        Ok(())
    }

    async fn say_range(&self, id: TableId, batches: &[EncodedBatch], outlet: &mut impl Outlet) -> Result<(), Error> {
        let Some(table) = self.tables.get(&id) else { return Ok(()) };
        // Over all batches, for rows of one key may be in two.
        let mut insertions = Insertions::new(table, self.options.rows);
        for batch in batches {
            for message in insertions.of(batch, 0)? {
                outlet.put(message).await?;
            }
        }
        Ok(())
    }
}

fn deletions(table: &SourceTable, batch: &EncodedBatch) -> Result<Vec<SyncMessage>, Error> {
    let key_columns = table.schema.key_columns().len();
    let batch = DecodedBatch::new(batch, COLUMNS_OF_VERSION + key_columns).map_err(from_spool)?;
    let key = |row| {
        let values = (0..key_columns).map(|place| value_of(batch.value(COLUMNS_OF_VERSION + place, row)));
        Key(values.collect())
    };
    (0..batch.rows()).map(|row| Ok(SyncMessage::DeleteRecord(delete_of(table, &key(row))?))).collect()
}

/// Rows as inserts, after the deletion of what has just their key where a part of it is NULL.
struct Insertions<'t> {
    builder: RowsBuilder<'t>,
    table: &'t SourceTable,
    key_places: Vec<usize>,
    last_null_key: Option<Key>,
}

impl<'t> Insertions<'t> {
    fn new(table: &'t SourceTable, rules: RowRules) -> Self {
        let key_places = table.schema.key_in_wire();
        Self { builder: RowsBuilder::new(table, rules), table, key_places, last_null_key: None }
    }

    /// The messages of a batch whose rows begin at column `first`.
    fn of(&mut self, batch: &EncodedBatch, first: usize) -> Result<Vec<SyncMessage>, Error> {
        let batch = DecodedBatch::new(batch, first + self.table.columns.len()).map_err(from_spool)?;
        let mut messages = Vec::new();
        for row in 0..batch.rows() {
            let cell = |place: usize| batch.value(first + place, row);
            if self.key_places.iter().any(|place| matches!(cell(*place), ValueRef::Null)) {
                let key = Key(self.key_places.iter().map(|place| value_of(cell(*place))).collect());
                if self.last_null_key.as_ref() != Some(&key) {
                    messages.push(SyncMessage::DeleteRecord(delete_of(self.table, &key)?));
                    self.last_null_key = Some(key);
                }
            }
            self.builder.push(cell)?;
        }
        messages.extend(self.builder.finish()?.map(SyncMessage::Insert));
        Ok(messages)
    }
}

fn from_spool(error: crate::codec::Error) -> Error {
    Error::Read(crate::capture::ReadError::Codec(error))
}

/// The table that a definition describes, as SQLite itself reads it.
fn schema_of(definition: &TableDef) -> Result<crate::model::TableSchema, Error> {
    let scratch = sqlite::in_memory()?;
    scratch
        .execute_batch(&definition.ddl)
        .map_err(sqlite::Error::doing(format!("read table {:?}", definition.name)))?;
    let schema = catalog::table(&scratch, &definition.name)?;
    schema.ok_or_else(|| Error::Sync(format!("table {:?} is not what its definition says", definition.name)))
}
