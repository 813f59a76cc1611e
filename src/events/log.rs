//! Reads what is next for a consumer, on a thread of its own: in one read transaction the log up to its end, and then the
//! next rows of a table that is being given.

use std::path::Path;
use std::sync::Arc;

use rusqlite::Connection;

use super::Error;
use super::batch::{Batch, Standing, batches, log_steps, row_steps};
use super::bootstrap::Copies;
use crate::capture::events::{EventCatalog, EventRequest, RowsRequest, clip, read_events, read_rows};
use crate::capture::{self, ReadError, change_log};
use crate::model::{Clock, Epoch, Event, Operation, Selection, TableId};
use crate::sqlite::generations::Generations;
use crate::sqlite::{self, Role, store};

/// Events that one read of the log gives at most, and rows of a table, so that what is in memory is bounded. A read goes on
/// to the log's end where what it meets is left out.
const EVENTS_MAX: usize = 8_192;

/// Bytes of them at most, unless one event has more.
const BYTES_MAX: usize = 8 << 20;

/// What is asked for.
#[derive(Clone)]
pub(super) struct Ask {
    /// How far the consumer is.
    pub standing: Standing,
    /// Which log that is.
    pub epoch: Epoch,
    /// `ts` and fingerprint of the entry there, if there is one.
    pub mark: Option<(i64, i64)>,
    pub selection: Arc<Selection>,
    pub batch_size: usize,
    /// Whether a table that is unsure ends it.
    pub stop_at_gap: bool,
}

/// What is next.
pub(super) struct Next {
    pub batches: Vec<Batch>,
    /// How far the consumer is once it has taken all of them.
    pub standing: Standing,
    pub mark: Option<(i64, i64)>,
    /// Whether the log was read to its end.
    pub at_end: bool,
    pub head: i64,
    /// A table that is unsure, where that ends it.
    pub gap: Option<String>,
}

/// What a read came to.
pub(super) enum Outcome {
    /// The schema is not the one that the triggers were last compared with: whoever owns the database compares first.
    SchemaMoved,
    /// What was to be read is gone.
    Lost,
    /// Another log was put in place of this one.
    Restored,
    Next(Next),
}

/// A connection that reads for one consumer.
pub(super) struct Log {
    connection: Connection,
    catalog: EventCatalog,
    clock: Arc<dyn Clock>,
    seen: Option<i64>,
    /// The latest time that was told. A row of a table is told as of now, and a change that was made before that, and
    /// committed after it was read, is no earlier for who takes them in order.
    told_ms: i64,
}

impl Log {
    pub fn open(path: &Path, clock: Arc<dyn Clock>) -> Result<Self, Error> {
        let connection = sqlite::open(path, Role::Reader, false)?;
        Ok(Self { connection, catalog: EventCatalog::default(), clock, seen: None, told_ms: 0 })
    }

    /// Whether somebody committed something since this was last called. The first time: yes.
    pub fn changed(&mut self) -> Result<bool, Error> {
        let sql = "PRAGMA main.data_version";
        let version: i64 = self.connection.prepare_cached(sql)?.query_row([], |row| row.get(0))?;
        Ok(self.seen.replace(version) != Some(version))
    }

    pub fn next(&mut self, ask: &Ask) -> Result<Outcome, Error> {
        self.connection.execute_batch("BEGIN")?;
        let outcome = self.next_inside(ask);
        // Some failures have ended it already. There is nothing to commit in either case.
        if !self.connection.is_autocommit() {
            self.connection.execute_batch("ROLLBACK")?;
        }
        match outcome {
            Err(Error::Read(ReadError::EventsLost { .. })) => Ok(Outcome::Lost),
            outcome => outcome,
        }
    }

    fn next_inside(&mut self, ask: &Ask) -> Result<Outcome, Error> {
        if !store::exists(&self.connection)? {
            return Err(ReadError::NotCaptured.into());
        }
        if store::epoch(&self.connection)? != Some(ask.epoch) {
            return Ok(Outcome::Lost);
        }
        let log: String = store::meta(&self.connection, store::meta_key::LOG_TABLE)?.ok_or(ReadError::NotCaptured)?;
        let mark = |seq| change_log::entry_mark(&self.connection, &log, seq);
        // An entry that is gone is judged by whether the log goes on behind it.
        if mark(ask.standing.seq)?.is_some_and(|found| ask.mark.is_some_and(|known| known != found)) {
            return Ok(Outcome::Restored);
        }
        let mut standing = ask.standing.clone();
        self.follow(&mut standing, &ask.selection)?;
        let Some(mut next) = self.read_log(ask, standing)? else { return Ok(Outcome::SchemaMoved) };
        if next.at_end && next.gap.is_none() {
            self.read_tables(ask, &mut next)?;
        }
        next.mark = change_log::entry_mark(&self.connection, &log, next.standing.seq)?;
        Ok(Outcome::Next(next))
    }

    /// Has the tables that are being given under the ids that they have now, as far as they are still wanted.
    fn follow(&mut self, standing: &mut Standing, selection: &Selection) -> Result<(), Error> {
        if standing.copies.are_done() {
            return Ok(());
        }
        let generations = Generations::read(&self.connection)?;
        let is_wanted = |id: &TableId| generations.newest.get(id).is_some_and(|table| selection.has(&table.name));
        Arc::make_mut(&mut standing.copies).follow(|id| generations.became.get(&id).copied().filter(is_wanted));
        Ok(())
    }

    /// The log's events that are the consumer's; `None` where the schema moved.
    fn read_log(&mut self, ask: &Ask, mut standing: Standing) -> Result<Option<Next>, Error> {
        let (mut events, mut gap, mut at_end, mut head) = (Vec::new(), None, false, 0);
        while !at_end && events.len() < EVENTS_MAX && gap.is_none() {
            let request = EventRequest {
                after: standing.seq,
                events_max: EVENTS_MAX - events.len(),
                bytes_max: BYTES_MAX,
                selection: &ask.selection,
            };
            let read = read_events(&self.connection, &mut self.catalog, &request)?;
            if read.schema_moved {
                return Ok(None);
            }
            let passed_before = events.len();
            (standing.seq, at_end, head) = (read.to, read.at_end, read.head);
            for (event, keys) in read.events.into_iter().zip(read.keys) {
                let catalog = &self.catalog;
                let (seq, is_resync) = (event.seq, event.operation == Operation::Resync);
                let cut = |event, keys: &_, copied: Option<&_>| clip(catalog, event, keys, copied);
                let before = is_resync.then(|| Arc::clone(&standing.copies));
                if let Some(event) = pass(&mut standing.copies, event, &keys, cut) {
                    if let Some(before) = before.filter(|_| ask.stop_at_gap) {
                        // Whoever starts it again meets the gap again.
                        (gap, standing.seq, standing.copies) = (Some(event.table.name.clone()), seq - 1, before);
                        break;
                    }
                    self.told_ms = self.told_ms.max(event.ts_ms);
                    events.push((Event { ts_ms: self.told_ms, ..event }, Arc::clone(&standing.copies)));
                }
            }
            // One read's worth of bytes is enough to hand over.
            if events.len() > passed_before && !at_end {
                break;
            }
        }
        let batches = batches(ask.epoch, log_steps(events, standing.seq), ask.batch_size);
        Ok(Some(Next { batches, standing, mark: None, at_end, head, gap }))
    }

    /// The next rows of the tables that are being given, as of the log's end.
    fn read_tables(&mut self, ask: &Ask, next: &mut Next) -> Result<(), Error> {
        let (mut rows_left, mut bytes_left) = (EVENTS_MAX, BYTES_MAX);
        while rows_left > 0 && bytes_left > 0 {
            let Some((table, after, wipe)) = next.standing.copies.next() else { return Ok(()) };
            let request = RowsRequest {
                table,
                after,
                rows_max: ask.batch_size.saturating_sub(usize::from(wipe)).max(1),
                bytes_max: bytes_left,
            };
            let read = read_rows(&self.connection, &mut self.catalog, &request)?;
            let (before, mut then) = (next.standing.clone(), next.standing.clone());
            let copies = Arc::make_mut(&mut then.copies);
            let Some(read) = read else {
                // It is not captured any more.
                copies.whole(table);
                next.standing = then;
                continue;
            };
            copies.wiped(table);
            match read.last {
                Some(last) if !read.done => copies.given_up_to(table, last),
                _ => copies.whole(table),
            }
            let ts_ms = self.clock.now_ms().max(read.ts_ms).max(self.told_ms);
            self.told_ms = ts_ms;
            let event = |operation, after| Event {
                table: Arc::clone(&read.table),
                seq: read.head,
                ts_ms,
                operation,
                before: None,
                after,
            };
            rows_left = rows_left.saturating_sub(read.rows.len().max(1));
            bytes_left = bytes_left.saturating_sub(read.rows.iter().flatten().map(|value| value.size_bytes()).sum());
            let resync = wipe.then(|| event(Operation::Resync, None));
            let rows = read.rows.into_iter().map(|row| event(Operation::Insert, Some(row)));
            let steps = row_steps(resync.into_iter().chain(rows).collect(), &before, &then);
            next.batches.extend(batches(ask.epoch, steps, ask.batch_size));
            next.standing = then;
        }
        Ok(())
    }
}

/// [`Copies::pass`], which changes the tables only where a table begins anew.
fn pass(
    copies: &mut Arc<Copies>,
    event: Event,
    keys: &capture::events::EventKeys,
    cut: impl FnOnce(Event, &capture::events::EventKeys, Option<&crate::model::Key>) -> Option<Event>,
) -> Option<Event> {
    if copies.are_done() && event.operation != Operation::Resync {
        return Some(event);
    }
    Arc::make_mut(copies).pass(event, keys, cut)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::{CaptureOptions, Images, Maintainer};
    use crate::model::{ManualClock, SystemClock};

    /// A change that was made while rows were read is committed after them, and was said to be older.
    #[test]
    fn a_change_is_no_earlier_than_the_rows_that_were_told_before() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("app.db");
        let app = sqlite::open(&path, Role::Application, true).expect("opens");
        app.execute_batch("CREATE TABLE t(id INTEGER PRIMARY KEY); INSERT INTO t VALUES (1)").expect("writes");
        let options = CaptureOptions { images: Images::Full, ..CaptureOptions::default() };
        let mut maintainer = Maintainer::open(&path, options, Arc::new(SystemClock)).expect("opens");
        maintainer.install().expect("installs");
        let tables = maintainer.tables().expect("tables").into_iter().map(|table| (table.id, table.schema_name));
        let state = maintainer.log_state().expect("state");
        let mut ask = Ask {
            standing: Standing { seq: state.head.position.seq, copies: Arc::new(Copies::of(tables, false)) },
            epoch: state.epoch,
            mark: None,
            selection: Arc::new(Selection::all()),
            batch_size: 10,
            stop_at_gap: false,
        };
        let ahead = Arc::new(ManualClock::at(SystemClock.now_ms() + 60_000));
        let mut log = Log::open(&path, ahead).expect("opens");
        let mut told = Vec::new();
        for _ in 0..2 {
            let Outcome::Next(next) = log.next(&ask).expect("reads") else { panic!("there is more") };
            told.extend(next.batches.iter().flat_map(|batch| batch.changes.events.iter().map(|event| event.ts_ms)));
            ask.standing = next.standing;
            app.execute_batch("INSERT INTO t DEFAULT VALUES").expect("writes");
        }
        assert_eq!(told.len(), 2, "a row, and a change");
        assert!(told.is_sorted(), "{told:?}");
    }
}
