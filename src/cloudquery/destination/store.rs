//! The destination's handle, and the state of its thread: one connection that writes as an application does.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arrow::array::RecordBatch;
use rusqlite::{Connection, ErrorCode, Transaction, TransactionBehavior};
use tokio::sync::{Semaphore, mpsc};

use super::place::Place;
use super::{Error, Options, Spec, Writer, instant, read};
use crate::cloudquery::Table;
use crate::model::TableSchema;
use crate::sqlite::catalog::{self, OURS};
use crate::sqlite::{self, Db, Role, lexer};

/// Reads of one destination that run at once, each with a connection and a thread of its own. Sources read their state at
/// their start, one each.
const READS_MAX: usize = 8;

/// Times that a transaction is begun while others hold the database's lock, each waiting [`sqlite::BUSY_TIMEOUT`]: a
/// sync should outlive another writer's long transaction.
const BEGINS_MAX: u32 = 5;

/// What a batch may hold.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) rows: usize,
    pub(super) bytes: usize,
    pub(super) wait: Option<Duration>,
}

/// One database that is written into and read. Clones are handles to the same.
#[derive(Clone)]
pub struct Destination {
    /// The thread, without a connection once it is closed; none where there was to be no connection.
    db: Option<Db<Option<Store>>>,
    /// The file; none for a database in memory.
    file: Option<PathBuf>,
    is_closed: Arc<AtomicBool>,
    reads: Arc<Semaphore>,
    limits: Limits,
}

impl Destination {
    /// Opens the database of a spec, and makes it where it is not there.
    ///
    /// # Errors
    /// [`Error::Spec`], [`Error::NotPermitted`], [`Error::MissingFolder`], and SQLite's.
    pub async fn open(spec: &Spec, options: &Options) -> Result<Self, Error> {
        let place = Place::of(&spec.connection_string, options)?;
        let limits =
            Limits { rows: spec.batch_size.get(), bytes: spec.batch_size_bytes.get(), wait: spec.batch_timeout.get() };
        let file = match &place {
            Place::Memory => None,
            Place::File { path, .. } => Some(path.clone()),
        };
        let db = if options.no_connection { None } else { Some(spawn(place).await?) };
        let (is_closed, reads) = (Arc::default(), Arc::new(Semaphore::new(READS_MAX)));
        Ok(Self { db, file, is_closed, reads, limits })
    }

    /// A stream of messages into the database. There may be several at once.
    pub fn writer(&self) -> Writer {
        Writer::new(self.clone(), self.limits)
    }

    /// Sends the rows of a table, in batches of exactly the schema that is asked for, to `rows`. What no [`Writer`] has
    /// flushed is not among them. Where `rows` is closed it ends early.
    ///
    /// # Errors
    /// [`Error::UnknownTable`], [`Error::UnknownColumns`], [`Error::Value`] where a value is not of the type that is
    /// asked for, and SQLite's. They are returned, never sent.
    pub async fn read(&self, table: Table, rows: mpsc::Sender<Result<RecordBatch, Error>>) -> Result<(), Error> {
        let Some(file) = &self.file else {
            // Nobody else can open it, and while it is read nothing can be written: so what is sent is collected first.
            let batches = self.call(move |store| read::collect(&mut store.connection, &table)).await??;
            for batch in batches {
                if rows.send(Ok(batch)).await.is_err() {
                    break;
                }
            }
            return Ok(());
        };
        self.check_open()?;
        let _turn = self.reads.acquire().await.map_err(|_| Error::Closed)?;
        let file = file.clone();
        let open = move || Db::spawn("cloudquery-read", move || sqlite::open(&file, Role::Reader, false));
        let reader = tokio::task::spawn_blocking(open).await.map_err(|_| Error::Closed)??;
        let outcome = reader.call(move |connection| read::send(connection, &table, &rows)).await;
        reader.close().await;
        outcome?
    }

    /// Closes the database. Batches that wait in writers are lost, as their streams have not ended.
    ///
    /// # Errors
    /// [`Error::Closed`] where it was closed before.
    pub async fn close(&self) -> Result<(), Error> {
        if self.is_closed.swap(true, Ordering::AcqRel) {
            return Err(Error::Closed);
        }
        match &self.db {
            None => Ok(()),
            Some(db) => Ok(db.call(|store| drop(store.take())).await?),
        }
    }

    fn check_open(&self) -> Result<&Db<Option<Store>>, Error> {
        if self.is_closed.load(Ordering::Acquire) {
            return Err(Error::Closed);
        }
        self.db.as_ref().ok_or(Error::NoConnection)
    }

    /// Runs a job on the connection's thread.
    pub(super) async fn call<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Store) -> T + Send + 'static,
    ) -> Result<T, Error> {
        let db = self.check_open()?;
        let guarded = |store: &mut Option<Store>| {
            // On its way out a panic drops, and so rolls back, the job's transaction: the connection is as it was before.
            catch_unwind(AssertUnwindSafe(|| store.as_mut().map(job)))
        };
        db.call(guarded).await?.map_err(|_| Error::Panicked)?.ok_or(Error::Closed)
    }
}

async fn spawn(place: Place) -> Result<Db<Option<Store>>, Error> {
    let open = move || Db::spawn("cloudquery", move || Store::open(&place).map(Some));
    tokio::task::spawn_blocking(open).await.map_err(|_| Error::Closed)?
}

/// The connection that writes.
pub(super) struct Store {
    pub(super) connection: Connection,
}

impl Store {
    fn open(place: &Place) -> Result<Self, Error> {
        let connection = match place {
            Place::Memory => sqlite::in_memory_as(Role::Application)?,
            Place::File { path, create } => {
                let connection = sqlite::open(path, Role::Application, *create)?;
                // Readers and the writer do not wait for each other then. Where another process is just using it
                // without, it stays without, and works all the same.
                match connection.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(())) {
                    Err(error) if !is_busy(&error) => return Err(error.into()),
                    Ok(()) | Err(_) => {}
                }
                connection
            }
        };
        instant::register(&connection)?;
        Ok(Self { connection })
    }

    /// Begins a transaction that writes; dropped, it is rolled back.
    pub(super) fn begin(&mut self) -> Result<Transaction<'_>, Error> {
        let mut attempt = 1;
        loop {
            // The borrow of the transaction that is returned would last through the loop.
            match Transaction::new_unchecked(&self.connection, TransactionBehavior::Immediate) {
                Err(error) if is_busy(&error) && attempt < BEGINS_MAX => attempt += 1,
                begun => return Ok(begun?),
            }
        }
    }
}

fn is_busy(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseBusy))
}

/// Refuses names of tables that are SQLite's or ours.
pub(super) fn check_name(table: &str) -> Result<(), Error> {
    let begins = |prefix: &str| table.get(..prefix.len()).is_some_and(|head| head.eq_ignore_ascii_case(prefix));
    if begins("sqlite_") || begins(OURS) {
        return Err(Error::Reserved { table: table.to_owned() });
    }
    Ok(())
}

/// The table of that name, in any case, which is one that rows can be written into; `None` where there is none.
pub(super) fn find(connection: &Connection, name: &str) -> Result<Option<TableSchema>, Error> {
    check_name(name)?;
    let Some(found) = catalog::table(connection, name)? else { return Ok(None) };
    if lexer::tokens(&found.ddl).get(1).is_some_and(|second| second.is("VIRTUAL")) {
        return Err(Error::Virtual { table: name.to_owned() });
    }
    Ok(Some(found))
}

/// The same, where it must be there.
pub(super) fn existing(connection: &Connection, name: &str) -> Result<TableSchema, Error> {
    find(connection, name)?.ok_or_else(|| Error::UnknownTable { table: name.to_owned() })
}

/// Fails where the table lacks one of these columns. Asked before any SQL names them, for SQLite takes a name in quotes
/// that it does not know for a string.
pub(super) fn check_columns<'a>(table: &TableSchema, names: impl IntoIterator<Item = &'a str>) -> Result<(), Error> {
    let lacking: Vec<String> =
        names.into_iter().filter(|name| table.column(name).is_none()).map(|name| format!("\"{name}\"")).collect();
    if lacking.is_empty() {
        return Ok(());
    }
    Err(Error::UnknownColumns { table: table.name.clone(), columns: lacking.join(", ") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_fails_its_call_and_takes_its_rows_back() {
        let spec = Spec { connection_string: ":memory:".to_owned(), ..Spec::default() };
        let destination = Destination::open(&spec, &Options::default()).await.expect("opened");
        let made = destination.call(|store| store.connection.execute_batch("CREATE TABLE t(a)")).await;
        made.expect("called").expect("made");
        let panicked = destination
            .call(|store| {
                let transaction = store.begin().expect("begun");
                transaction.execute_batch("INSERT INTO t VALUES (1)").expect("inserted");
                assert!(std::hint::black_box(false), "on purpose");
            })
            .await;
        assert!(matches!(panicked, Err(Error::Panicked)), "{panicked:?}");
        let count =
            |store: &mut Store| store.connection.query_row("SELECT count(*) FROM t", [], |row| row.get::<_, i64>(0));
        assert_eq!(destination.call(count).await.expect("the next call works").expect("counted"), 0);
        destination.call(|store| store.begin().map(drop)).await.expect("called").expect("and so does a transaction");
    }
}
