//! What keeps an output from taking a batch.

use std::io;
use std::time::Duration;

use http::StatusCode;
use thiserror::Error;

use crate::config::HttpUrl;
use crate::model::{Fault, Trouble};
use crate::sqlite::said;

/// Why an output did not take a batch, or cannot be opened. No value of a row is in it, nor what a server answered, which
/// may repeat what it was sent.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// The system gives no thread.
    #[error("start the thread that writes events")]
    Thread {
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It cannot be written. Some of the batch may have been.
    #[error("write events to {to}")]
    Write {
        /// What is written to.
        to: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The writer panicked in an earlier batch.
    #[error("write events to {to}: the writer panicked; see the log, and report it")]
    WriterGone {
        /// What was written to.
        to: String,
    },
    /// No certificate is trusted here, so none of a server could be.
    #[error(
        "post to {url}: this machine has no root certificates; install ca-certificates, or name a file in SSL_CERT_FILE"
    )]
    Roots {
        /// Where to.
        url: HttpUrl,
    },
    /// The id of a batch cannot be sent.
    #[error("post to {url}: the batch's id cannot be a header's value; make it of visible ASCII")]
    Id {
        /// Where to.
        url: HttpUrl,
    },
    /// There is no connection.
    #[error("connect to {url}")]
    Connect {
        /// Where to.
        url: HttpUrl,
        /// Why.
        #[source]
        source: hyper_util::client::legacy::Error,
    },
    /// The connection ended before the answer began.
    #[error("post to {url}: the connection ended before the answer")]
    Broken {
        /// Where to.
        url: HttpUrl,
        /// Why.
        #[source]
        source: hyper_util::client::legacy::Error,
    },
    /// The server said 200, and the connection ended before the answer did.
    #[error("post to {url}: the answer ended in the middle")]
    Cut {
        /// Where to.
        url: HttpUrl,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// There was no whole answer in time.
    #[error("post to {url}: no answer within {after:?}")]
    Late {
        /// Where to.
        url: HttpUrl,
        /// The time-out.
        after: Duration,
    },
    /// The server answered with something else than 200.
    #[error("post to {url}: answered {status}; 200 alone is success{}", redirect_hint(*status))]
    Status {
        /// Where to.
        url: HttpUrl,
        /// What it answered.
        status: StatusCode,
    },
    /// It is to stop, and the batch was not taken yet.
    #[error("stopped before the batch was taken; it is posted again at the next start")]
    Stopped {
        /// What the last try met.
        #[source]
        source: Box<Error>,
    },
    /// It was tried for as long as was said.
    #[error("gave up after {tries} tries in {after:?}")]
    GaveUp {
        /// How often.
        tries: u32,
        /// How long.
        after: Duration,
        /// What the last try met.
        #[source]
        source: Box<Error>,
    },
}

fn redirect_hint(status: StatusCode) -> &'static str {
    if status.is_redirection() { ", and redirects are not followed" } else { "" }
}

impl Error {
    /// What this failure asks of the caller. Exhaustive on purpose: a new variant must choose.
    pub fn fault(&self) -> Fault {
        match self {
            Self::Thread { .. } => Fault::Retry,
            Self::Write { source, .. } => match source.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Fault::Retry,
                // A closed pipe stays closed; of anything else nobody knows that it passes.
                _ => Fault::Halt,
            },
            Self::WriterGone { .. } | Self::Roots { .. } | Self::Id { .. } => Fault::Halt,
            // A server that refuses may be mended without us, and what it is sent is still in the log.
            Self::Connect { .. }
            | Self::Broken { .. }
            | Self::Cut { .. }
            | Self::Late { .. }
            | Self::Status { .. }
            | Self::Stopped { .. } => Fault::Retry,
            Self::GaveUp { .. } => Fault::Halt,
        }
    }

    /// A short stable word for it.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Thread { .. } => "thread",
            Self::Write { .. } | Self::WriterGone { .. } => "output",
            Self::Roots { .. } => "root_certificates",
            Self::Id { .. } => "batch_id",
            Self::Connect { .. } => "webhook_connect",
            Self::Broken { .. } | Self::Cut { .. } => "webhook_broken",
            Self::Late { .. } => "webhook_timeout",
            Self::Status { .. } => "webhook_status",
            Self::GaveUp { source, .. } | Self::Stopped { source } => source.code(),
        }
    }

    /// What a person can do about it; empty where nothing needs doing.
    fn hint(&self) -> &'static str {
        match self {
            Self::Thread { .. } => "raise the limit of threads of this user or container",
            Self::Write { source, .. } => match source.kind() {
                io::ErrorKind::BrokenPipe => "who read the events has gone; start it again, and this after it",
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "make room where the output is",
                _ => "",
            },
            Self::Status { status, .. } => match *status {
                StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => "check the headers that authorize the request",
                status if status.is_redirection() => "give the URL that it redirects to",
                status if status.is_success() => "have the server answer 200 once it has handled the batch",
                _ => "see the server's log",
            },
            Self::Late { .. } => "have the server answer sooner, give a longer time-out, or a smaller batch size",
            Self::Connect { .. } => "check the URL, and that the server runs",
            Self::GaveUp { source, .. } | Self::Stopped { source } => source.hint(),
            Self::WriterGone { .. } | Self::Roots { .. } | Self::Id { .. } | Self::Broken { .. } | Self::Cut { .. } => {
                ""
            }
        }
    }

    /// As `status` shows it.
    pub fn trouble(&self) -> Trouble {
        Trouble { code: self.code().to_owned(), message: said(self), hint: self.hint().to_owned() }
    }
}
