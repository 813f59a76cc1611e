//! Handlers that are built in: lines and JSON lines into a writer, POSTs to a URL.
//!
//! [`open`] makes the one that a configuration or a command line names. Each keeps the handler's promise: it says that it
//! took a batch only once the batch was written and flushed, or answered with 200.

mod envelope;
mod error;
pub mod json;
mod lines;
mod retry;
mod webhook;
#[cfg(test)]
mod webhook_tests;

use tokio_util::sync::CancellationToken;

use crate::config::{EventOutput, EventsConfig, Header};
use crate::telemetry::EventsHandle;

use super::ChangesHandler;

pub use error::Error;
pub use json::Form;
pub use lines::{JsonLines, Lines};
pub use webhook::{Webhook, WebhookOptions};

/// The handler that a configuration names. `status`: where it says how it is doing; the board of a node has one for each
/// output.
///
/// # Errors
/// [`Error::Roots`] or [`Error::Thread`].
pub fn open(config: &EventsConfig, status: Option<EventsHandle>) -> Result<Box<dyn ChangesHandler>, Error> {
    open_until(config, status, CancellationToken::new())
}

/// Like [`open`]; a batch that was not taken is not tried again once `stop` is cancelled ([`Error::Stopped`]), so that an
/// outage does not hold up a shutdown.
///
/// # Errors
/// As for [`open`].
pub fn open_until(
    config: &EventsConfig,
    status: Option<EventsHandle>,
    stop: CancellationToken,
) -> Result<Box<dyn ChangesHandler>, Error> {
    let form = Form { blobs: config.blob_encoding, subseconds: config.subseconds };
    Ok(match &config.output {
        EventOutput::Lines => Box::new(Lines::new("stdout", std::io::stdout(), form)?),
        EventOutput::Json => Box::new(JsonLines::new("stdout", std::io::stdout(), form)?),
        EventOutput::Http(url) => {
            let options = WebhookOptions {
                headers: config.headers.iter().map(|Header { name, value }| (name.clone(), value.clone())).collect(),
                timeout: config.timeout,
                retry_for: config.retry_for,
                form,
                stop,
                ..WebhookOptions::new(url.clone())
            };
            Box::new(Webhook::new(options, status)?)
        }
    })
}
