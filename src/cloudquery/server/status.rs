//! What a failed call says: codes and words as CloudQuery's own server has them, for clients go by both.

use tonic::{Code, Status};

use crate::cloudquery::destination;
use crate::sqlite;

/// Why a call failed, by what was being done.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("failed to init plugin: plugin already in use")]
    InitBusy,
    #[error("failed to init plugin: failed to initialize client: {0}")]
    Init(String),
    #[error("failed to get tables: plugin not initialized")]
    TablesBeforeInit,
    #[error("failed to get tables: failed to get tables: {0}")]
    Tables(String),
    #[error("failed to sync records: plugin already in use")]
    SyncBusy,
    #[error("failed to sync records: plugin not initialized. call Init() first")]
    SyncBeforeInit,
    #[error("failed to sync records: {0}")]
    SyncRequest(String),
    #[error("failed to sync records: failed to sync unmanaged client: {0}")]
    Sync(String),
    #[error("failed to read records: plugin already in use")]
    ReadBusy,
    #[error("failed to read records: plugin not initialized. call Init() first")]
    ReadBeforeInit,
    #[error("failed to read records: failed to read: {0}")]
    Read(String),
    /// Before any message: the client has closed its side without one.
    #[error("write failed: plugin is not initialized. call Init first")]
    WriteNothingBeforeInit,
    #[error("plugin returned error: plugin is not initialized. call Init first")]
    WriteBeforeInit,
    /// While the client may still write.
    #[error("plugin returned error: {0}")]
    Write(String),
    /// When the client has closed its side.
    #[error("write failed: {0}")]
    WriteEnd(String),
    #[error("failed to create schema from bytes: {0}")]
    Schema(String),
    #[error("failed to create table from schema: missing table name")]
    NoTableName,
    #[error("failed to create record: {0}")]
    Record(String),
    #[error("write failed: failed to write: table name not found in metadata")]
    RecordWithoutTable,
    /// What was sent is none, and what came before it could not be written either.
    #[error("failed to convert message: {0} and write failed: {1}")]
    ConvertAndWrite(String, String),
    #[error("failed to receive msg: {0}")]
    Receive(String),
    #[error("failed to receive msg: {0} and write failed: {1}")]
    ReceiveAndWrite(String, String),
    #[error("plugin already in use")]
    CloseBusy,
    #[error("client already closed or not initialized")]
    CloseTwice,
    #[error("{0}")]
    Close(String),
    #[error("the plugin is closed; call Init again")]
    Closed,
    #[error("{0}: not implemented")]
    NotImplemented(&'static str),
    /// An old client's JSON.
    #[error("{0}")]
    Argument(String),
    #[error("the server is stopping")]
    Stopping,
    /// The call's own task panicked; the log has the place.
    #[error("the call failed for a reason of the server's own; see its log")]
    Panic,
}

impl Failure {
    fn code(&self) -> Code {
        match self {
            Self::InitBusy
            | Self::Init(_)
            | Self::TablesBeforeInit
            | Self::Tables(_)
            | Self::WriteNothingBeforeInit
            | Self::WriteEnd(_)
            | Self::RecordWithoutTable
            | Self::ConvertAndWrite(..)
            | Self::Receive(_)
            | Self::ReceiveAndWrite(..)
            | Self::NotImplemented(_)
            | Self::Panic => Code::Internal,
            Self::SyncBusy
            | Self::SyncBeforeInit
            | Self::Sync(_)
            | Self::ReadBusy
            | Self::ReadBeforeInit
            | Self::Read(_)
            | Self::CloseBusy
            | Self::CloseTwice
            | Self::Close(_) => Code::Unknown,
            Self::WriteBeforeInit | Self::Write(_) => Code::Cancelled,
            Self::SyncRequest(_) | Self::Schema(_) | Self::NoTableName | Self::Record(_) | Self::Argument(_) => {
                Code::InvalidArgument
            }
            Self::Closed => Code::FailedPrecondition,
            Self::Stopping => Code::Unavailable,
        }
    }
}

/// How long a status' words may be as they travel: in a header, where a blank, a quote or a byte of a letter that is not
/// ASCII is three. Some clients drop answers whose headers together are above 8 KiB.
const MESSAGE_BYTES_MAX: usize = 6 << 10;

impl From<Failure> for Status {
    fn from(failure: Failure) -> Self {
        Self::new(failure.code(), short(failure.to_string()))
    }
}

/// Words for a client, cut where they would be too long for a header.
pub(super) fn short(mut message: String) -> String {
    let is_plain = |c: char| c.is_ascii_graphic() && !matches!(c, '"' | '#' | '%' | '<' | '>' | '`' | '?' | '{' | '}');
    let mut bytes = 0;
    let end = message.char_indices().find(|(_, c)| {
        bytes += if is_plain(*c) { 1 } else { 3 * c.len_utf8() };
        bytes > MESSAGE_BYTES_MAX
    });
    if let Some((end, _)) = end {
        message.truncate(end);
        message.push('…');
    }
    message
}

/// An error and its causes. A summary of several lines stays as it is: people read it.
pub(super) fn said(error: &(dyn std::error::Error + 'static)) -> String {
    let text = error.to_string();
    if text.contains('\n') { text } else { sqlite::said(error) }
}

/// What a failed TestConnection is called: by what somebody has to change.
pub(super) fn failure_code(error: &destination::Error) -> &'static str {
    match error.fault() {
        crate::model::Fault::Usage => "INVALID_SPEC",
        crate::model::Fault::Retry | crate::model::Fault::Halt | crate::model::Fault::CopyAgain => "UNREACHABLE",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_cut_where_no_client_would_take_it() {
        for text in ["é", " ", "\"c\" is {}\n", "a"] {
            let status = Status::from(Failure::Close(text.repeat(2 * MESSAGE_BYTES_MAX)));
            assert!(status.message().ends_with('…'), "{text:?}");
            let headers = status.into_http::<()>().headers().clone();
            let words = headers["grpc-message"].len();
            assert!((MESSAGE_BYTES_MAX - 30..=MESSAGE_BYTES_MAX + 9).contains(&words), "{text:?}: {words}");
        }
        assert_eq!(short("as it is".to_owned()), "as it is");
    }
}
