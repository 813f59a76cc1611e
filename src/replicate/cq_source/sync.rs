//! A sync of everything: tables page by page, each page from a short read transaction of its own.
//!
//! Nothing is installed, and nothing is written. No read transaction outlives a page, so a sync of a database that is
//! written meanwhile has rows of several moments; `cdc` has what makes up for that.

use std::path::PathBuf;

use rusqlite::Connection;
use tokio::sync::mpsc;

use super::rows::{RowRules, RowsBuilder};
use super::tables::{SourceTable, TableOptions};
use crate::cloudquery::source::SyncMessage;
use crate::model::Key;
use crate::replicate::Error;
use crate::sqlite::catalog::{self, TableKind};
use crate::sqlite::range_sql::{Cells, RangeQuery};
use crate::sqlite::row_sql::RowRef;
use crate::sqlite::{self, Db, Role};

/// How a page is cut.
#[derive(Clone, Copy, Debug)]
pub(super) struct PageLimits {
    pub rows: usize,
    pub bytes: usize,
}

/// The connection that pages are read on.
pub(super) struct Pages {
    connection: Connection,
}

/// A page: its rows, and the key of the last one where there is more.
struct Page {
    message: Option<SyncMessage>,
    high: Option<Key>,
}

impl Pages {
    pub fn open(path: PathBuf) -> Result<Db<Self>, Error> {
        Db::spawn("cloudquery-reader", move || {
            Ok::<_, sqlite::Error>(Self { connection: sqlite::open(&path, Role::Reader, false)? })
        })
        .map_err(Error::from)
    }

    /// Every table that can be a source, by name. The others are told in the log.
    pub fn tables(&self, options: TableOptions) -> Result<Vec<SourceTable>, Error> {
        let begun = self.begin()?;
        let mut tables = Vec::new();
        for entry in catalog::table_list(&self.connection).map_err(sqlite::Error::from)? {
            if entry.kind != TableKind::Ordinary {
                tracing::debug!(table = entry.name, "no source: a virtual table, or a part of one");
                continue;
            }
            let Some(schema) = catalog::table(&self.connection, &entry.name)? else { continue };
            match SourceTable::new(schema, options) {
                Ok(table) => tables.push(table),
                Err(why) => tracing::warn!(table = entry.name, "table is left out: {why}"),
            }
        }
        drop(begun);
        Ok(tables)
    }

    fn begin(&self) -> Result<rusqlite::Transaction<'_>, Error> {
        Ok(self.connection.unchecked_transaction().map_err(sqlite::Error::from)?)
    }

    fn page(
        &self,
        table: &SourceTable,
        rules: RowRules,
        (low, limits): (Option<&Key>, PageLimits),
    ) -> Result<Page, Error> {
        let begun = self.begin()?;
        if catalog::table(&self.connection, &table.schema.name)?.as_ref() != Some(&table.schema) {
            return Err(Error::Sync(format!(
                "table {:?} was changed or dropped while it was read; sync again",
                table.schema.name
            )));
        }
        let mut builder = RowsBuilder::new(table, rules);
        let query = RangeQuery::new(&table.schema, Cells::Wire, low, None);
        let (mut last, mut bytes, mut more) = (None::<Key>, 0_usize, false);
        query.each(&self.connection, |row: &RowRef<'_, '_>| {
            let size = row.size_bytes();
            let full = builder.rows() >= limits.rows || bytes.saturating_add(size) > limits.bytes;
            let same_key = last.as_ref().is_some_and(|key| query.compare(row, key).is_eq());
            if full && builder.rows() > 0 && !same_key {
                more = true;
                return Ok::<_, PageError>(false);
            }
            bytes = bytes.saturating_add(size);
            last = Some(row.key(query.key_places()));
            builder.push(|place| row.value(place)).map_err(Box::new)?;
            Ok(true)
        })?;
        drop(begun);
        Ok(Page { message: builder.finish()?.map(SyncMessage::Insert), high: last.filter(|_| more) })
    }
}

/// SQLite's failure, or ours.
enum PageError {
    Sqlite(rusqlite::Error),
    Ours(Box<Error>),
}

impl From<rusqlite::Error> for PageError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

impl From<Box<Error>> for PageError {
    fn from(error: Box<Error>) -> Self {
        Self::Ours(error)
    }
}

impl From<PageError> for Error {
    fn from(error: PageError) -> Self {
        match error {
            PageError::Sqlite(error) => sqlite::Error::from(error).into(),
            PageError::Ours(error) => *error,
        }
    }
}

/// Sends every row of these tables; the tables themselves first.
pub(super) async fn everything(
    pages: &Db<Pages>,
    tables: Vec<SourceTable>,
    (rules, limits): (RowRules, PageLimits),
    messages: &mpsc::Sender<SyncMessage>,
) -> Result<(), Error> {
    for table in &tables {
        if messages.send(SyncMessage::MigrateTable(table.table.clone())).await.is_err() {
            return Ok(());
        }
    }
    for table in tables {
        let table = std::sync::Arc::new(table);
        let mut low = None;
        loop {
            let (from, shared) = (low.take(), std::sync::Arc::clone(&table));
            let page = pages.call(move |pages| pages.page(&shared, rules, (from.as_ref(), limits))).await??;
            if let Some(message) = page.message
                && messages.send(message).await.is_err()
            {
                return Ok(());
            }
            low = page.high;
            if low.is_none() {
                break;
            }
        }
    }
    Ok(())
}
