//! Reads entries of the log and puts the events together that they are.

use std::sync::Arc;

use rusqlite::{Connection, Row};

use super::catalog::{EventCatalog, Known, Line};
use super::{EventKeys, EventRequest, EventsRead};
use crate::capture::Images;
use crate::capture::image_sql::VALUES_MAX;
use crate::capture::read_error::Error;
use crate::model::{Event, EventTable, Key, Operation, TableId, Value};
use crate::sqlite::{self, LogOp, value_of};

/// The log's columns before the key's: seq, ts, tbl, op, origin, oseq, via.
const COLUMNS_BEFORE_KEY: usize = 7;

/// Entries that one call looks at, at most: a read transaction must not last while millions of entries of tables that
/// nobody asked for are passed over.
const ENTRIES_MAX: usize = 100_000;

pub(super) fn read(
    connection: &Connection,
    catalog: &mut EventCatalog,
    request: &EventRequest<'_>,
) -> Result<EventsRead, Error> {
    let mut read = EventsRead { to: request.after, ..EventsRead::default() };
    if !catalog.refresh(connection)? {
        read.schema_moved = true;
        return Ok(read);
    }
    let end = |which: &str| -> rusqlite::Result<i64> {
        let sql = format!("SELECT coalesce({which}(seq), 0) FROM main.{}", catalog.log);
        connection.prepare_cached(&sql)?.query_row([], |row| row.get(0))
    };
    let (head, oldest) = (end("max")?, end("min")?);
    if oldest > request.after + 1 || request.after > head {
        return Err(Error::EventsLost { after: request.after, oldest, head });
    }
    read.head = head;
    let mut touches = std::mem::take(&mut catalog.touches);
    touches.forget_up_to(request.after);
    let mut reader = Reader { connection, catalog, request, touches, read, bytes: 0, open: None };
    let outcome = reader.run();
    let Reader { touches, read, .. } = reader;
    catalog.touches = touches;
    outcome?;
    Ok(EventsRead { at_end: read.to >= head, ..read })
}

struct Reader<'a> {
    connection: &'a Connection,
    catalog: &'a EventCatalog,
    request: &'a EventRequest<'a>,
    touches: super::touches::Touches,
    read: EventsRead,
    bytes: usize,
    open: Option<Change>,
}

/// A change with images, while its entries are read.
struct Change {
    known: Known,
    seq: i64,
    ts_ms: i64,
    op: LogOp,
    key: Key,
    /// The key that the row has after the change, where that is another one.
    arrived: Option<Key>,
    images: Vec<Vec<Value>>,
}

impl Reader<'_> {
    fn run(&mut self) -> Result<(), Error> {
        let layout = self.catalog.layout;
        let mut statement = self.connection.prepare_cached(&layout.entries_sql(&self.catalog.log))?;
        let mut rows = statement.query([self.request.after])?;
        let (mut seen, mut last) = (0_usize, self.request.after);
        while let Some(row) = rows.next()? {
            let op = LogOp::of_code(row.get(3)?);
            if op.is_some_and(LogOp::continues) {
                if let Some(change) = &mut self.open {
                    change.goes_on(row, layout)?;
                }
            } else {
                self.close(last)?;
                if self.is_full() || seen >= ENTRIES_MAX {
                    return Ok(());
                }
                self.begin(row, layout, op)?;
            }
            last = row.get(0)?;
            seen += 1;
        }
        self.close(last)
    }

    fn is_full(&self) -> bool {
        let events = self.read.events.len();
        events > 0 && (events >= self.request.events_max || self.bytes >= self.request.bytes_max)
    }

    /// Takes in the first entry of a change.
    fn begin(&mut self, row: &Row<'_>, layout: Layout, op: Option<LogOp>) -> Result<(), Error> {
        let id = TableId(row.get::<_, Option<i64>>(2)?.unwrap_or(0));
        // What a newer Twinlite logs is told by that one.
        let (Some(op), Some(known)) = (op, self.catalog.known(id)) else { return Ok(()) };
        if !self.request.selection.has(&known.table.name) {
            return Ok(());
        }
        let (seq, ts_ms): (i64, i64) = (row.get(0)?, row.get(1)?);
        match op {
            LogOp::Schema | LogOp::Image | LogOp::Arrive => return Ok(()),
            LogOp::Copy | LogOp::Repair => {
                self.resync(known, seq, ts_ms);
                return Ok(());
            }
            LogOp::Insert | LogOp::Update | LogOp::Delete | LogOp::Touch | LogOp::Leave => {}
        }
        // A peer's change, or what followed from it.
        if row.get::<_, Option<i64>>(4)?.is_some() {
            return Ok(());
        }
        let key = layout.key(row, known.keys)?;
        match known.images {
            Images::Key => self.say_key((seq, ts_ms, op), known, &key),
            Images::Full => {
                let mut change =
                    Change { known: known.clone(), seq, ts_ms, op, key, arrived: None, images: vec![Vec::new()] };
                change.read_image(row, layout)?;
                self.open = Some(change);
                Ok(())
            }
        }
    }

    fn resync(&mut self, known: &Known, seq: i64, ts_ms: i64) {
        let Some((id, line)) = known.newest.and_then(|id| Some((id, self.catalog.line(id)?))) else { return };
        let event = (Operation::Resync, None, None);
        let keys = EventKeys { table: Some(id), before: None, after: None };
        self.push((seq, ts_ms), Arc::clone(&line.table), event, keys);
    }

    /// Ends the change that is open, whose last entry is the one at `last`.
    fn close(&mut self, last: i64) -> Result<(), Error> {
        self.read.to = last;
        let Some(change) = self.open.take() else { return Ok(()) };
        let (key, line) = (change.key.clone(), change.known.line);
        let keys = |before: Option<Key>, after: Option<Key>| EventKeys { table: line, before, after };
        let (event, keys) = match change.op {
            LogOp::Insert => ((Operation::Insert, None, Some(change.image(0)?)), keys(None, Some(key))),
            LogOp::Delete => ((Operation::Delete, Some(change.image(0)?), None), keys(Some(key), None)),
            LogOp::Touch => {
                if !self.touches.was_a_delete(self.connection, self.catalog, change.seq)? {
                    return Ok(());
                }
                ((Operation::Delete, Some(change.image(0)?), None), keys(Some(key), None))
            }
            LogOp::Update | LogOp::Leave => {
                let after = change.arrived.clone().unwrap_or_else(|| key.clone());
                let images = (Some(change.image(0)?), Some(change.image(1)?));
                ((Operation::Update, images.0, images.1), keys(Some(key), Some(after)))
            }
            LogOp::Schema | LogOp::Copy | LogOp::Repair | LogOp::Image | LogOp::Arrive => return Ok(()),
        };
        self.push((change.seq, change.ts_ms), change.known.table, event, keys);
        Ok(())
    }

    /// Says an entry that has no image: by the row as it is now.
    fn say_key(&mut self, entry: (i64, i64, LogOp), known: &Known, key: &Key) -> Result<(), Error> {
        let (seq, ts_ms, op) = entry;
        // The table is gone, or has another key now and is copied anew.
        let Some((id, line)) = known.line.and_then(|id| Some((id, self.catalog.line(id)?))) else { return Ok(()) };
        let row = self.row_now(line, key)?;
        let keys = |before, after| EventKeys { table: Some(id), before, after };
        let (event, keys) = match (op, row) {
            (LogOp::Touch, Some(_)) => return Ok(()),
            (LogOp::Insert, Some(row)) => ((Operation::Insert, None, Some(row)), keys(None, Some(key.clone()))),
            (LogOp::Update, Some(row)) => {
                ((Operation::Update, None, Some(row)), keys(Some(key.clone()), Some(key.clone())))
            }
            _ => ((Operation::Delete, Some(line.only_key(key)), None), keys(Some(key.clone()), None)),
        };
        self.push((seq, ts_ms), Arc::clone(&line.table), event, keys);
        Ok(())
    }

    fn row_now(&self, line: &Line, key: &Key) -> Result<Option<Vec<Value>>, Error> {
        let mut found = None;
        line.by_key.prepare(self.connection)?.each(key, |row| {
            found = Some(row.values().skip(line.cells_before()).map(value_of).collect());
            Ok::<_, Error>(())
        })?;
        Ok(found)
    }

    fn push(&mut self, at: (i64, i64), table: Arc<EventTable>, event: Said, keys: EventKeys) {
        let (seq, ts_ms) = at;
        let (operation, before, after) = event;
        self.bytes += before.iter().chain(&after).flatten().map(Value::size_bytes).sum::<usize>();
        self.read.events.push(Event { table, seq, ts_ms, operation, before, after });
        self.read.keys.push(keys);
    }
}

/// Operation, before, after.
type Said = (Operation, Option<Vec<Value>>, Option<Vec<Value>>);

impl Change {
    /// Takes in a further entry of the change.
    fn goes_on(&mut self, row: &Row<'_>, layout: Layout) -> Result<(), Error> {
        let width = self.known.table.columns.len();
        if self.images.last().is_some_and(|image| image.len() >= width) {
            self.images.push(Vec::with_capacity(width));
        }
        if LogOp::of_code(row.get(3)?) == Some(LogOp::Arrive) {
            self.arrived = Some(layout.key(row, self.known.keys)?);
        }
        self.read_image(row, layout)
    }

    fn read_image(&mut self, row: &Row<'_>, layout: Layout) -> Result<(), Error> {
        let width = self.known.table.columns.len();
        let image = self.images.last_mut().expect("an image is begun");
        let here = (width - image.len()).min(VALUES_MAX);
        if here > layout.values {
            let what = format!("it has {} value columns, an image needs {here}", layout.values);
            return Err(damaged(what));
        }
        let first = COLUMNS_BEFORE_KEY + layout.keys;
        for place in first..first + here {
            image.push(value_of(row.get_ref(place)?));
        }
        Ok(())
    }

    fn image(&self, number: usize) -> Result<Vec<Value>, Error> {
        let width = self.known.table.columns.len();
        let image = self.images.get(number).filter(|image| image.len() == width);
        image.cloned().ok_or_else(|| damaged(format!("the change at entry {} is not whole", self.seq)))
    }
}

fn damaged(what: String) -> Error {
    sqlite::Error::Damaged { table: "the change log", what }.into()
}

/// How many columns of each kind the log has.
#[derive(Clone, Copy, Default)]
pub(super) struct Layout {
    pub keys: usize,
    pub values: usize,
}

impl Layout {
    /// The statement that reads entries after a position. It names its columns, so that it is another one for a log that
    /// was made wider meanwhile.
    fn entries_sql(self, log: &str) -> String {
        let keys = (0..self.keys).map(|place| format!(", k{place}"));
        let columns: String = keys.chain((0..self.values).map(|place| format!(", v{place}"))).collect();
        format!("SELECT seq, ts, tbl, op, origin, oseq, via{columns} FROM main.{log} WHERE seq > ?1 ORDER BY seq")
    }

    fn key(self, row: &Row<'_>, columns: usize) -> Result<Key, Error> {
        if columns > self.keys {
            let what = format!("it has {} key columns, a captured table needs {columns}", self.keys);
            return Err(damaged(what));
        }
        let values = (0..columns).map(|place| Ok(value_of(row.get_ref(COLUMNS_BEFORE_KEY + place)?)));
        Ok(Key(values.collect::<rusqlite::Result<_>>()?))
    }
}
