//! Our nouns as the messages of `link.proto`. [`super::from_wire`] is the way back.

use super::proto::{self, frame::Kind, value};
use super::{Ack, Begin, Commit, Frame, Heartbeat, Held, HeldTable, Hello, Need, Verdict};
use crate::model::{
    Checkpoint, CopyState, Digest, EncodedBatch, Key, ObjectKind, Position, Range, RangeMode, Rows, RowsOp,
    SchemaObject, TableDef, TableId, Value, WindowItem,
};

impl From<&Frame> for Kind {
    fn from(frame: &Frame) -> Self {
        match frame {
            Frame::Hello(hello) => Self::Hello(hello.into()),
            Frame::Verdict(Verdict { known, diverged, head }) => Self::Verdict(proto::Verdict {
                known: *known,
                diverged: diverged.clone().unwrap_or_default(),
                head: Some((*head).into()),
            }),
            Frame::Kept => Self::Kept(proto::Kept {}),
            Frame::Begin(begin) => Self::Begin(begin.into()),
            Frame::Item(item) => item.into(),
            Frame::Commit(commit) => Self::Commit(commit.into()),
            Frame::Ack(Ack { number, position }) => {
                Self::Ack(proto::Ack { number: *number, position: Some((*position).into()) })
            }
            Frame::Need(Need { table, low, high }) => {
                Self::Need(proto::Need { table: table.0, low: key(low.as_ref()), high: key(high.as_ref()) })
            }
            Frame::Heartbeat(Heartbeat { head, seen, now_ms, behind_since_ms }) => {
                let (head, seen, now_ms, behind_since_ms) = (*head, *seen, *now_ms, *behind_since_ms);
                Self::Heartbeat(proto::Heartbeat { head, seen, now_ms, behind_since_ms })
            }
            Frame::Fault(trouble) => Self::Fault(proto::Fault {
                code: trouble.code.clone(),
                message: trouble.message.clone(),
                hint: trouble.hint.clone(),
            }),
        }
    }
}

impl From<&WindowItem> for Kind {
    fn from(item: &WindowItem) -> Self {
        match item {
            WindowItem::Catalog => Self::Catalog(proto::Catalog {}),
            WindowItem::Table(table) => Self::Table(table.into()),
            WindowItem::Object(object) => Self::Object(object.into()),
            WindowItem::Rows(rows) => Self::Rows(rows.into()),
            WindowItem::Range(range) => Self::Range(range.into()),
            WindowItem::Digest(digest) => Self::Digest(digest.into()),
        }
    }
}

impl From<&Hello> for proto::Hello {
    fn from(hello: &Hello) -> Self {
        Self {
            versions: hello.versions.clone(),
            node: hello.node.0,
            name: hello.name.clone(),
            to_name: hello.to_name.clone(),
            sends: hello.sends,
            receives: hello.receives,
            tables: hello.tables.0.clone(),
            skip_tables: hello.tables.1.clone(),
            kinds: Some(proto::SchemaKinds {
                indexes: hello.kinds.indexes,
                views: hello.kinds.views,
                triggers: hello.kinds.triggers,
            }),
            policies: hello.policies.clone(),
            seed: hello.seed.clone(),
            empty: hello.empty,
            compressions: hello.compressions.clone(),
            held: hello.held.as_ref().map(Into::into),
            log: hello.log.map(|log| proto::LogEnds { epoch: log.epoch.0, head: log.head, oldest: log.oldest }),
            on_divergence_resnapshot: hello.on_divergence_resnapshot,
        }
    }
}

impl From<&Held> for proto::Held {
    fn from(held: &Held) -> Self {
        Self {
            checkpoint: held.checkpoint.map(Into::into),
            tables: held.tables.iter().map(Into::into).collect(),
            lost_history: held.lost_history,
            union: held.union,
        }
    }
}

impl From<&HeldTable> for proto::HeldTable {
    fn from(table: &HeldTable) -> Self {
        let (state, after) = match &table.progress.state {
            CopyState::Pending => (proto::CopyState::Pending, None),
            CopyState::Copying { after } => (proto::CopyState::Copying, Some(after)),
            CopyState::Done => (proto::CopyState::Done, None),
        };
        Self {
            table: table.progress.table.0,
            name: table.name.clone(),
            rows: table.rows,
            lost_history: table.progress.lost_history,
            state: state.into(),
            after: key(after),
        }
    }
}

impl From<&Begin> for proto::Begin {
    fn from(begin: &Begin) -> Self {
        let Begin { number, from, lost_history, catalog } = *begin;
        Self { number, from: Some(from.into()), lost_history, catalog }
    }
}

impl From<&Commit> for proto::Commit {
    fn from(commit: &Commit) -> Self {
        let end = &commit.end;
        let sequence = |(name, value): &(String, i64)| proto::Sequence { name: name.clone(), value: *value };
        Self {
            number: commit.number,
            to: Some(end.to.into()),
            head: end.head,
            seen: end.seen,
            applied: end.applied,
            whole: end.whole,
            last_part: end.last_part,
            markers: ids(&end.markers),
            repairs: ids(&end.repairs),
            sequences: end.sequences.iter().map(sequence).collect(),
            user_version: end.user_version,
            application_id: end.application_id,
        }
    }
}

impl From<&TableDef> for proto::Table {
    fn from(table: &TableDef) -> Self {
        Self {
            id: table.id.0,
            ancestors: ids(&table.ancestors),
            name: table.name.clone(),
            ddl: table.ddl.clone(),
            indexes: table.indexes.iter().map(Into::into).collect(),
            arrow_schema: table.arrow_schema.clone(),
            rows_estimate: table.rows_estimate,
        }
    }
}

impl From<&SchemaObject> for proto::Object {
    fn from(object: &SchemaObject) -> Self {
        let kind = match object.kind {
            ObjectKind::Index => proto::ObjectKind::Index,
            ObjectKind::View => proto::ObjectKind::View,
            ObjectKind::Trigger => proto::ObjectKind::Trigger,
        };
        let SchemaObject { kind: _, name, table, sql } = object.clone();
        Self { kind: kind.into(), name, table, sql }
    }
}

impl From<&Rows> for proto::Rows {
    fn from(rows: &Rows) -> Self {
        let op = match rows.op {
            RowsOp::Upsert => proto::RowsOp::Upsert,
            RowsOp::Delete => proto::RowsOp::Delete,
            RowsOp::Exactly => proto::RowsOp::Exactly,
        };
        Self { table: rows.table.0, op: op.into(), batch: Some((&rows.batch).into()) }
    }
}

impl From<&EncodedBatch> for proto::Batch {
    fn from(batch: &EncodedBatch) -> Self {
        Self { rows: batch.rows as u64, codes: batch.codes.clone().into(), data: batch.data.clone() }
    }
}

impl From<&Range> for proto::Range {
    fn from(range: &Range) -> Self {
        let piece = proto::Piece {
            table: range.table.0,
            low: key(range.low.as_ref()),
            high: key(range.high.as_ref()),
            mode: mode(range.mode),
            last: range.last,
            lost_history: range.lost_history,
        };
        Self { piece: Some(piece), batches: range.batches.iter().map(Into::into).collect() }
    }
}

impl From<&Digest> for proto::Digest {
    fn from(digest: &Digest) -> Self {
        let piece = proto::Piece {
            table: digest.table.0,
            low: key(digest.low.as_ref()),
            high: key(digest.high.as_ref()),
            mode: mode(digest.mode),
            last: digest.last,
            lost_history: digest.lost_history,
        };
        Self { piece: Some(piece), rows: digest.rows, digest: digest.digest.to_le_bytes().to_vec().into() }
    }
}

impl From<Position> for proto::Position {
    fn from(position: Position) -> Self {
        Self { epoch: position.epoch.0, seq: position.seq }
    }
}

impl From<Checkpoint> for proto::Checkpoint {
    fn from(checkpoint: Checkpoint) -> Self {
        let Checkpoint { position, ts_ms, fingerprint } = checkpoint;
        Self { position: Some(position.into()), ts_ms, fingerprint }
    }
}

fn key(key: Option<&Key>) -> Option<proto::Key> {
    key.map(|key| proto::Key { values: key.0.iter().map(Into::into).collect() })
}

impl From<&Value> for proto::Value {
    fn from(value: &Value) -> Self {
        let kind = match value {
            Value::Null => value::Kind::Null(true),
            Value::Integer(integer) => value::Kind::Integer(*integer),
            Value::Real(real) => value::Kind::Real(*real),
            Value::Text(text) => value::Kind::Text(text.clone().into()),
            Value::Blob(blob) => value::Kind::Blob(blob.clone().into()),
        };
        Self { kind: Some(kind) }
    }
}

fn mode(mode: RangeMode) -> i32 {
    match mode {
        RangeMode::Exact => proto::RangeMode::Exact.into(),
        RangeMode::Union => proto::RangeMode::Union.into(),
    }
}

fn ids(tables: &[TableId]) -> Vec<i64> {
    tables.iter().map(|table| table.0).collect()
}
