//! stub
use crate::model::TableSchema;
use bytes::Bytes;

/// The table's Arrow schema with CloudQuery's metadata, as an IPC message.
pub fn arrow_schema(_table: &TableSchema) -> Bytes {
    todo!()
}
