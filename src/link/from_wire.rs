//! The messages of `link.proto` as our nouns: what is missing or unknown is an error, never a default.
//!
//! What a batch holds is looked at where it is opened, by `codec::DecodedBatch`.

use super::proto::{self, frame::Kind, value};
use super::{Ack, Begin, Commit, Error, Frame, Heartbeat, Held, HeldTable, Hello, LogHello, Need, Verdict};
use crate::model::{
    Checkpoint, CopyState, Digest, EncodedBatch, Epoch, Key, NodeId, ObjectKind, Position, Range, RangeMode, Rows,
    RowsOp, SchemaKinds, SchemaObject, TableDef, TableId, TableProgress, Trouble, Value, WindowEnd, WindowItem,
};

/// What is absent though it must be there.
fn missing(what: &'static str) -> impl FnOnce() -> Error {
    move || Error::Malformed(what)
}

impl TryFrom<proto::Frame> for Frame {
    type Error = Error;

    fn try_from(frame: proto::Frame) -> Result<Self, Error> {
        Ok(match frame.kind.ok_or_else(missing("it is of an unknown kind"))? {
            Kind::Hello(hello) => Self::Hello(hello.try_into()?),
            Kind::Verdict(proto::Verdict { known, diverged, head }) => {
                let diverged = (!diverged.is_empty()).then_some(diverged);
                Self::Verdict(Verdict { known, diverged, head: checkpoint(head)? })
            }
            Kind::Kept(proto::Kept {}) => Self::Kept,
            Kind::Begin(begin) => Self::Begin(Begin {
                number: begin.number,
                from: position(begin.from)?,
                lost_history: begin.lost_history,
                catalog: begin.catalog,
            }),
            Kind::Catalog(proto::Catalog {}) => Self::Item(WindowItem::Catalog),
            Kind::Table(table) => Self::Item(WindowItem::Table(table.try_into()?)),
            Kind::Object(object) => Self::Item(WindowItem::Object(object.try_into()?)),
            Kind::Rows(rows) => Self::Item(WindowItem::Rows(rows.try_into()?)),
            Kind::Range(range) => Self::Item(WindowItem::Range(range.try_into()?)),
            Kind::Digest(digest) => Self::Item(WindowItem::Digest(digest.try_into()?)),
            Kind::Commit(commit) => Self::Commit(commit.try_into()?),
            Kind::Ack(ack) => Self::Ack(Ack { number: ack.number, position: position(ack.position)? }),
            Kind::Need(proto::Need { table, low, high }) => {
                Self::Need(Need { table: TableId(table), low: open_key(low)?, high: open_key(high)? })
            }
            Kind::Heartbeat(proto::Heartbeat { head, seen, now_ms, behind_since_ms }) => {
                Self::Heartbeat(Heartbeat { head, seen, now_ms, behind_since_ms })
            }
            Kind::Part(_) => return Err(Error::Malformed("a part holds a part")),
            Kind::Fault(proto::Fault { code, message, hint }) => Self::Fault(Trouble { code, message, hint }),
        })
    }
}

impl TryFrom<proto::Hello> for Hello {
    type Error = Error;

    fn try_from(hello: proto::Hello) -> Result<Self, Error> {
        let kinds = hello.kinds.ok_or_else(missing("a Hello without kinds of schema objects"))?;
        Ok(Self {
            versions: hello.versions,
            node: NodeId(hello.node),
            name: hello.name,
            to_name: hello.to_name,
            sends: hello.sends,
            receives: hello.receives,
            tables: (hello.tables, hello.skip_tables),
            kinds: SchemaKinds { indexes: kinds.indexes, views: kinds.views, triggers: kinds.triggers },
            policies: hello.policies,
            seed: hello.seed,
            empty: hello.empty,
            compressions: hello.compressions,
            held: hello.held.map(TryInto::try_into).transpose()?,
            log: hello.log.map(|log| LogHello { epoch: Epoch(log.epoch), head: log.head, oldest: log.oldest }),
            on_divergence_resnapshot: hello.on_divergence_resnapshot,
        })
    }
}

impl TryFrom<proto::Held> for Held {
    type Error = Error;

    fn try_from(held: proto::Held) -> Result<Self, Error> {
        Ok(Self {
            checkpoint: held.checkpoint.map(|found| checkpoint(Some(found))).transpose()?,
            tables: all(held.tables)?,
            lost_history: held.lost_history,
            union: held.union,
        })
    }
}

impl TryFrom<proto::HeldTable> for HeldTable {
    type Error = Error;

    fn try_from(table: proto::HeldTable) -> Result<Self, Error> {
        let state = match (table.state(), open_key(table.after.clone())?) {
            (proto::CopyState::Pending, None) => CopyState::Pending,
            (proto::CopyState::Copying, Some(after)) => CopyState::Copying { after },
            (proto::CopyState::Done, None) => CopyState::Done,
            (proto::CopyState::Pending | proto::CopyState::Done, Some(_))
            | (proto::CopyState::Copying, None)
            | (proto::CopyState::Unspecified, _) => return Err(Error::Malformed("how far a table is copied")),
        };
        Ok(Self {
            progress: TableProgress { table: TableId(table.table), state, lost_history: table.lost_history },
            name: table.name,
            rows: table.rows,
        })
    }
}

impl TryFrom<proto::Commit> for Commit {
    type Error = Error;

    fn try_from(commit: proto::Commit) -> Result<Self, Error> {
        let end = WindowEnd {
            to: checkpoint(commit.to)?,
            head: commit.head,
            seen: commit.seen,
            applied: commit.applied,
            whole: commit.whole,
            last_part: commit.last_part,
            markers: ids(commit.markers),
            repairs: ids(commit.repairs),
            sequences: commit.sequences.into_iter().map(|sequence| (sequence.name, sequence.value)).collect(),
            user_version: commit.user_version,
            application_id: commit.application_id,
        };
        Ok(Self { number: commit.number, end })
    }
}

impl TryFrom<proto::Table> for TableDef {
    type Error = Error;

    fn try_from(table: proto::Table) -> Result<Self, Error> {
        Ok(Self {
            id: TableId(table.id),
            ancestors: ids(table.ancestors),
            name: table.name,
            ddl: table.ddl,
            indexes: all(table.indexes)?,
            arrow_schema: table.arrow_schema,
            rows_estimate: table.rows_estimate,
        })
    }
}

impl TryFrom<proto::Object> for SchemaObject {
    type Error = Error;

    fn try_from(object: proto::Object) -> Result<Self, Error> {
        let kind = match object.kind() {
            proto::ObjectKind::Index => ObjectKind::Index,
            proto::ObjectKind::View => ObjectKind::View,
            proto::ObjectKind::Trigger => ObjectKind::Trigger,
            proto::ObjectKind::Unspecified => return Err(Error::Malformed("an unknown kind of schema object")),
        };
        Ok(Self { kind, name: object.name, table: object.table, sql: object.sql })
    }
}

impl TryFrom<proto::Rows> for Rows {
    type Error = Error;

    fn try_from(rows: proto::Rows) -> Result<Self, Error> {
        let op = match rows.op() {
            proto::RowsOp::Upsert => RowsOp::Upsert,
            proto::RowsOp::Delete => RowsOp::Delete,
            proto::RowsOp::Exactly => RowsOp::Exactly,
            proto::RowsOp::Unspecified => return Err(Error::Malformed("rows of an unknown operation")),
        };
        let batch = rows.batch.ok_or_else(missing("rows without a batch"))?;
        Ok(Self { table: TableId(rows.table), op, batch: batch.try_into()? })
    }
}

impl TryFrom<proto::Batch> for EncodedBatch {
    type Error = Error;

    fn try_from(batch: proto::Batch) -> Result<Self, Error> {
        let rows = usize::try_from(batch.rows).map_err(|_| Error::Malformed("a batch of impossibly many rows"))?;
        Ok(Self { rows, codes: batch.codes.into(), data: batch.data })
    }
}

impl TryFrom<proto::Range> for Range {
    type Error = Error;

    fn try_from(range: proto::Range) -> Result<Self, Error> {
        let piece = range.piece.ok_or_else(missing("a range without its bounds"))?;
        Ok(Self {
            table: TableId(piece.table),
            mode: mode(piece.mode())?,
            last: piece.last,
            lost_history: piece.lost_history,
            low: open_key(piece.low)?,
            high: open_key(piece.high)?,
            batches: all(range.batches)?,
        })
    }
}

impl TryFrom<proto::Digest> for Digest {
    type Error = Error;

    fn try_from(digest: proto::Digest) -> Result<Self, Error> {
        let piece = digest.piece.ok_or_else(missing("a digest without its bounds"))?;
        let bytes = <[u8; 16]>::try_from(&digest.digest[..]).map_err(|_| Error::Malformed("a digest's length"))?;
        Ok(Self {
            table: TableId(piece.table),
            mode: mode(piece.mode())?,
            last: piece.last,
            lost_history: piece.lost_history,
            low: open_key(piece.low)?,
            high: open_key(piece.high)?,
            rows: digest.rows,
            digest: u128::from_le_bytes(bytes),
        })
    }
}

fn all<T: TryFrom<P, Error = Error>, P>(list: Vec<P>) -> Result<Vec<T>, Error> {
    list.into_iter().map(TryInto::try_into).collect()
}

fn position(found: Option<proto::Position>) -> Result<Position, Error> {
    let found = found.ok_or_else(missing("a position is missing"))?;
    Ok(Position { epoch: Epoch(found.epoch), seq: found.seq })
}

fn checkpoint(found: Option<proto::Checkpoint>) -> Result<Checkpoint, Error> {
    let found = found.ok_or_else(missing("a checkpoint is missing"))?;
    Ok(Checkpoint { position: position(found.position)?, ts_ms: found.ts_ms, fingerprint: found.fingerprint })
}

fn open_key(key: Option<proto::Key>) -> Result<Option<Key>, Error> {
    key.map(|key| key.values.into_iter().map(key_value).collect::<Result<_, _>>().map(Key)).transpose()
}

fn key_value(value: proto::Value) -> Result<Value, Error> {
    Ok(match value.kind.ok_or_else(missing("a key's value is of an unknown class"))? {
        value::Kind::Null(_) => Value::Null,
        value::Kind::Integer(integer) => Value::Integer(integer),
        value::Kind::Real(real) => Value::Real(real),
        value::Kind::Text(text) => Value::Text(text.into()),
        value::Kind::Blob(blob) => Value::Blob(blob.into()),
    })
}

fn mode(mode: proto::RangeMode) -> Result<RangeMode, Error> {
    match mode {
        proto::RangeMode::Exact => Ok(RangeMode::Exact),
        proto::RangeMode::Union => Ok(RangeMode::Union),
        proto::RangeMode::Unspecified => Err(Error::Malformed("a range of an unknown mode")),
    }
}

fn ids(tables: Vec<i64>) -> Vec<TableId> {
    tables.into_iter().map(TableId).collect()
}
