//! Reads entries of the log and puts the events together that they are.

use std::sync::Arc;

use rusqlite::{Connection, Row};

use super::catalog::{EventCatalog, Known};
use super::marks::{At, Entry, Marks};
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
    let marks = Marks::default();
    let mut reader = Reader { connection, catalog, request, touches, read, marks, bytes: 0, open: None };
    let outcome = reader.run();
    let Reader { touches, mut read, marks, .. } = reader;
    let marked = marks.into_events(catalog);
    catalog.touches = touches;
    outcome?;
    if !marked.is_empty() {
        let mut all: Vec<_> =
            std::mem::take(&mut read.events).into_iter().zip(std::mem::take(&mut read.keys)).collect();
        all.extend(marked);
        // Those of one place keep their order.
        all.sort_by_key(|(event, _)| event.seq);
        (read.events, read.keys) = all.into_iter().unzip();
    }
    Ok(EventsRead { at_end: read.to >= head, ..read })
}

struct Reader<'a> {
    connection: &'a Connection,
    catalog: &'a EventCatalog,
    request: &'a EventRequest<'a>,
    touches: super::touches::Touches,
    /// What was read, but for what is in `marks`.
    read: EventsRead,
    marks: Marks,
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
                if seen >= ENTRIES_MAX || !self.begin(row, layout, op)? {
                    return Ok(());
                }
            }
            last = row.get(0)?;
            seen += 1;
        }
        self.close(last)
    }

    fn is_full(&self) -> bool {
        let events = self.read.events.len() + self.marks.len();
        events > 0 && (events >= self.request.events_max || self.bytes >= self.request.bytes_max)
    }

    /// Takes in an entry that is its own change, or the first of one; `false` where there is no room for it.
    fn begin(&mut self, row: &Row<'_>, layout: Layout, op: Option<LogOp>) -> Result<bool, Error> {
        let id = TableId(row.get::<_, Option<i64>>(2)?.unwrap_or(0));
        // What a newer Twinlite logs is told by that one.
        let (Some(op), Some(known)) = (op, self.catalog.known(id)) else { return Ok(true) };
        let at = At { seq: row.get(0)?, ts_ms: row.get(1)? };
        match op {
            LogOp::Schema | LogOp::Image | LogOp::Arrive => return Ok(true),
            LogOp::Copy | LogOp::Repair | LogOp::Unsure => return Ok(self.resync(known, at)),
            LogOp::Insert | LogOp::Update | LogOp::Delete | LogOp::Touch | LogOp::KeyTouch | LogOp::Leave => {}
        }
        // A peer's change, or what followed from it.
        if row.get::<_, Option<i64>>(4)?.is_some() {
            return Ok(true);
        }
        let key = layout.key(row, known.keys)?;
        match known.images {
            Images::Key => self.mark(known, Entry { at, op, key }),
            Images::Full => {
                if !self.request.selection.has(&known.table.name) {
                    return Ok(true);
                }
                if self.is_full() {
                    return Ok(false);
                }
                let At { seq, ts_ms } = at;
                let mut change =
                    Change { known: known.clone(), seq, ts_ms, op, key, arrived: None, images: vec![Vec::new()] };
                change.read_image(row, layout)?;
                self.open = Some(change);
                Ok(true)
            }
        }
    }

    /// Says that a table is unsure; `false` where there is no room.
    fn resync(&mut self, known: &Known, at: At) -> bool {
        let newest = known.newest.filter(|_| self.request.selection.has(&known.table.name));
        let Some((id, line)) = newest.and_then(|id| Some((id, self.catalog.line(id)?))) else { return true };
        if self.is_full() {
            return false;
        }
        let event = (Operation::Resync, None, None);
        let keys = EventKeys { table: Some(id), before: None, after: None };
        self.push((at.seq, at.ts_ms), Arc::clone(line.table()), event, keys);
        true
    }

    /// Notes an entry that has no image; `false` where there is no room for its key.
    fn mark(&mut self, known: &Known, entry: Entry) -> Result<bool, Error> {
        // Without a line the table is gone, or has another key now and is copied anew.
        let line = known.line.and_then(|id| Some((id, self.catalog.line(id)?)));
        let Some(line) = line.filter(|(_, line)| self.request.selection.has(&line.schema.name)) else {
            return Ok(true);
        };
        let has_room = !self.is_full();
        let held = self.marks.add(self.connection, line, entry, has_room)?;
        self.bytes += held.unwrap_or(0);
        Ok(held.is_some())
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
            LogOp::Touch | LogOp::KeyTouch => {
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
            LogOp::Schema | LogOp::Copy | LogOp::Repair | LogOp::Unsure | LogOp::Image | LogOp::Arrive => return Ok(()),
        };
        self.push((change.seq, change.ts_ms), change.known.table, event, keys);
        Ok(())
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
