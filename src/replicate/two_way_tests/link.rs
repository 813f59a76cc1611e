//! One direction of a link of a history: the sender's side of it, and encoded windows on their way.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::capture::source::ReadWindow;
use crate::link::{Begin, Commit, Frame};
use crate::model::{Checkpoint, CopyingBack, WindowItem};
use crate::replicate::copies::{Copies, Manner};
use crate::replicate::sender::SenderState;

/// What a node keeps in memory of sending to one peer, for one connection.
pub(super) struct Link {
    pub(super) up: bool,
    pub(super) windows: VecDeque<Vec<Bytes>>,
    pub(super) sent: Checkpoint,
    pub(super) catalog: Option<i64>,
    pub(super) copies: Copies,
    pub(super) number: u64,
    /// The newest window with a piece of a copy.
    pub(super) served: u64,
    /// How many windows of the peer were applied here when the connection began.
    pub(super) windows_before: u64,
    /// Our log, as far as the newest window applied from the peer had seen it.
    pub(super) seen: i64,
}

impl Link {
    pub(super) fn at(sent: Checkpoint, windows_before: u64) -> Self {
        let (copies, windows) = (Copies::new(&[], false, Manner::Merged), VecDeque::new());
        Self { up: true, windows, sent, catalog: None, copies, number: 0, served: 0, windows_before, seen: 0 }
    }

    /// As the sender says it to the receiver at its side.
    pub(super) fn copying_back(&self, applied: u64) -> CopyingBack {
        let (back, served) = (self.copies.back(), self.served);
        SenderState { back, served, ..SenderState::default() }.copying_back(applied)
    }

    pub(super) fn cut(&mut self) {
        self.up = false;
        self.windows.clear();
    }

    /// Sends a window: as frames, encoded as on the wire.
    pub(super) fn send(&mut self, read: &ReadWindow, items: Vec<WindowItem>) {
        self.number += 1;
        let (number, from) = (self.number, self.sent.position);
        let begin = Begin { number, from, lost_history: false, catalog: read.tables.is_some() };
        let mut frames = vec![Frame::Begin(begin).encode()];
        frames.extend(ordered(items).into_iter().map(|item| Frame::Item(item).encode()));
        frames.push(Frame::Commit(Commit { number, end: read.end.clone() }).encode());
        self.windows.push_back(frames);
        self.sent = read.end.to;
        self.catalog = Some(read.catalog);
    }
}

/// In the order of a window: the catalog, deletions, rows, the piece of a copy.
fn ordered(mut items: Vec<WindowItem>) -> Vec<WindowItem> {
    use crate::model::RowsOp;
    items.sort_by_key(|item| match item {
        WindowItem::Catalog => 0,
        WindowItem::Table(_) => 1,
        WindowItem::Object(_) => 2,
        WindowItem::Rows(rows) if rows.op == RowsOp::Delete => 3,
        WindowItem::Rows(_) => 4,
        WindowItem::Range(_) | WindowItem::Digest(_) => 5,
    });
    items
}
