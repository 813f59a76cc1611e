//! Where a window waits until it is whole.
//!
//! The sender reads a window out of its database into a spool, ends the read transaction, and only then sends; the
//! receiver gathers a window here until Commit, and only then begins its transaction. What is small stays in memory,
//! what is more goes into one temporary file that has no name, so that nothing is left behind by a crash.
//!
//! Items come out by segment, in their order within each: catalog, deletes, rows as they are now, a piece of a copy.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::{Error, Frame};
use crate::model::{EncodedBatch, RowsOp, SchemaObject, TableDef, WindowItem};

/// How much of a window is kept in memory. Most windows are smaller, and a database that catches up has many of them.
pub const SPOOL_MEMORY_BYTES_MAX: u64 = 4 << 20;

/// A window that is being gathered.
pub struct Spool {
    folder: PathBuf,
    slots: Vec<(Segment, Slot)>,
    file: Option<File>,
    file_bytes: u64,
    memory_bytes: u64,
    memory_bytes_max: u64,
}

/// The order of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Segment {
    Catalog,
    Deletes,
    Rows,
    Copy,
}

enum Slot {
    Memory(WindowItem),
    /// A frame in the file.
    File {
        offset: u64,
        length: usize,
    },
}

impl Spool {
    /// An empty spool, whose file will be in that folder if it needs one.
    pub fn new(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
            slots: Vec::new(),
            file: None,
            file_bytes: 0,
            memory_bytes: 0,
            memory_bytes_max: SPOOL_MEMORY_BYTES_MAX,
        }
    }

    /// The same, with so much kept in memory.
    #[must_use]
    pub fn with_memory(self, bytes_max: u64) -> Self {
        Self { memory_bytes_max: bytes_max, ..self }
    }

    /// Adds an item.
    ///
    /// # Errors
    /// The file's.
    pub fn push(&mut self, item: WindowItem) -> io::Result<()> {
        let segment = segment(&item);
        let bytes = size_bytes(&item);
        if self.memory_bytes + bytes <= self.memory_bytes_max {
            self.memory_bytes += bytes;
            self.slots.push((segment, Slot::Memory(item)));
            return Ok(());
        }
        let frame = Frame::Item(item).encode();
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(tempfile::tempfile_in(&self.folder)?),
        };
        file.write_all_at(&frame, self.file_bytes)?;
        self.slots.push((segment, Slot::File { offset: self.file_bytes, length: frame.len() }));
        self.file_bytes += frame.len() as u64;
        Ok(())
    }

    /// Bytes gathered, roughly.
    pub fn bytes(&self) -> u64 {
        self.memory_bytes + self.file_bytes
    }

    /// Whether nothing was added.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// The window, to be read as often as need be.
    pub fn finish(mut self) -> Spooled {
        self.slots.sort_by_key(|(segment, _)| *segment);
        let bytes = self.bytes();
        Spooled { slots: self.slots.into_iter().map(|(_, slot)| slot).collect(), file: self.file, bytes }
    }
}

/// A window that is whole. Reading from its file blocks, if only for as long as the page cache takes.
pub struct Spooled {
    slots: Vec<Slot>,
    file: Option<File>,
    bytes: u64,
}

impl Spooled {
    /// Bytes in it, roughly.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// How many items.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// The items, in the window's order.
    pub fn items(&self) -> impl Iterator<Item = Result<WindowItem, Error>> + '_ {
        self.slots.iter().map(|slot| match slot {
            Slot::Memory(item) => Ok(item.clone()),
            Slot::File { offset, length } => match Frame::decode(self.read(*offset, *length)?)? {
                Frame::Item(item) => Ok(item),
                Frame::Hello(_)
                | Frame::Verdict(_)
                | Frame::Kept
                | Frame::Begin(_)
                | Frame::Commit(_)
                | Frame::Ack(_)
                | Frame::Need(_)
                | Frame::Heartbeat(_)
                | Frame::Fault(_) => Err(Error::Malformed("a spool holds what is no item")),
            },
        })
    }

    /// The items as encoded frames, for [`super::FrameSink::encoded`].
    pub fn frames(&self) -> impl Iterator<Item = Result<Bytes, Error>> + '_ {
        self.slots.iter().map(|slot| match slot {
            Slot::Memory(item) => Ok(Frame::Item(item.clone()).encode()),
            Slot::File { offset, length } => self.read(*offset, *length),
        })
    }

    fn read(&self, offset: u64, length: usize) -> Result<Bytes, Error> {
        let file = self.file.as_ref().expect("a slot in the file was written to it");
        let mut frame = vec![0; length];
        file.read_exact_at(&mut frame, offset).map_err(Error::Spool)?;
        Ok(frame.into())
    }
}

fn segment(item: &WindowItem) -> Segment {
    match item {
        WindowItem::Catalog | WindowItem::Table(_) | WindowItem::Object(_) => Segment::Catalog,
        WindowItem::Rows(rows) => match rows.op {
            RowsOp::Delete => Segment::Deletes,
            RowsOp::Upsert | RowsOp::Exactly => Segment::Rows,
        },
        WindowItem::Range(_) | WindowItem::Digest(_) => Segment::Copy,
    }
}

/// What an item takes in memory, but for what is small.
fn size_bytes(item: &WindowItem) -> u64 {
    let object = |object: &SchemaObject| object.name.len() + object.table.len() + object.sql.len();
    let table =
        |table: &TableDef| table.ddl.len() + table.arrow_schema.len() + table.indexes.iter().map(object).sum::<usize>();
    let batch = |batch: &EncodedBatch| batch.codes.len() + batch.data.len();
    let bytes = match item {
        WindowItem::Catalog | WindowItem::Digest(_) => 0,
        WindowItem::Table(found) => table(found),
        WindowItem::Object(found) => object(found),
        WindowItem::Rows(rows) => batch(&rows.batch),
        WindowItem::Range(range) => range.batches.iter().map(batch).sum(),
    };
    (bytes + size_of::<WindowItem>()) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Digest, RangeMode, Rows, TableId};

    fn rows(op: RowsOp, table: i64, bytes: usize) -> WindowItem {
        let batch = EncodedBatch { rows: 1, codes: vec![1], data: vec![0x55; bytes].into() };
        WindowItem::Rows(Rows { table: TableId(table), op, batch })
    }

    fn window() -> Vec<WindowItem> {
        let digest = Digest {
            table: TableId(1),
            low: None,
            high: None,
            mode: RangeMode::Exact,
            last: true,
            lost_history: false,
            rows: 3,
            digest: u128::MAX,
        };
        vec![
            WindowItem::Digest(digest),
            rows(RowsOp::Upsert, 1, 700),
            rows(RowsOp::Delete, 2, 300),
            rows(RowsOp::Exactly, 3, 500),
            rows(RowsOp::Delete, 1, 900),
            WindowItem::Catalog,
        ]
    }

    #[test]
    fn a_window_comes_out_by_segment_wherever_it_was_kept() {
        let folder = tempfile::tempdir().expect("a folder");
        let given = window();
        let expected: Vec<_> = [5, 2, 4, 1, 3, 0].map(|place| given[place].clone()).into();
        for memory in [0, 1000, 2000, SPOOL_MEMORY_BYTES_MAX] {
            let mut spool = Spool::new(folder.path()).with_memory(memory);
            assert!(spool.is_empty());
            for item in given.clone() {
                spool.push(item).expect("room");
            }
            let spooled = spool.finish();
            assert_eq!(spooled.len(), given.len());
            assert!(spooled.bytes() > 2400);
            for _ in 0..2 {
                let items: Vec<_> = spooled.items().collect::<Result<_, _>>().expect("own items");
                assert_eq!(items, expected, "{memory} bytes in memory");
                let frames: Vec<_> = spooled.frames().collect::<Result<_, _>>().expect("own frames");
                let decoded: Vec<_> = frames.into_iter().map(|frame| Frame::decode(frame).expect("a frame")).collect();
                assert_eq!(decoded, expected.iter().cloned().map(Frame::Item).collect::<Vec<_>>());
            }
            assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 0, "the file has no name");
        }
    }

    #[test]
    fn a_spool_in_a_folder_that_is_not_there_fails_only_when_it_needs_the_file() {
        let mut spool = Spool::new(Path::new("/nonexistent/folder")).with_memory(2000);
        spool.push(rows(RowsOp::Upsert, 1, 100)).expect("in memory");
        assert!(spool.push(rows(RowsOp::Upsert, 1, 10_000)).is_err());
        assert_eq!(spool.finish().len(), 1);
    }
}
