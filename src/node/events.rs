//! Outputs of a node's events: an engine for each, run beside the links.
//!
//! The node owns the database and looks after its log; an engine reads it and notes its own position, which keeps the log
//! from being pruned. What an engine ends with decides what comes: it is started again, begins anew, or stays stopped, which
//! `status` shows.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context as _, Result};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::Parts;
use crate::capture::{self, CaptureOptions, Images, Maintainer};
use crate::config::EventsConfig;
use crate::events::{ChangesHandler, Engine, Error, Progress, State, keys_only, outputs};
use crate::model::Fault;
use crate::replicate::backoff::Backoff;
use crate::sqlite::said;
use crate::telemetry::{EventsHandle, EventsState};

/// An engine that ran for this long began well: what fails then is a new failure.
const WELL_AFTER: std::time::Duration = std::time::Duration::from_secs(60);

/// Says once what the outputs are not told, where the log keeps keys only.
async fn say_what_is_left_out(parts: Parts) {
    let Some(feed) = &parts.feed else { return };
    let read = |maintainer: &mut Maintainer| CaptureOptions::stored(maintainer.connection());
    // What cannot be read, the engines say.
    if let Ok(Ok(Some(CaptureOptions { images: Images::Key, .. }))) = feed.maintainer().call(read).await {
        tracing::warn!("events: {}", keys_only(&parts.config.database));
    }
}

/// Starts every output of the node.
///
/// # Errors
/// An output that cannot be opened.
pub(super) fn start(parts: &Parts, tasks: &mut JoinSet<()>) -> Result<()> {
    if !parts.config.events.is_empty() {
        tasks.spawn(say_what_is_left_out(parts.clone()));
    }
    for config in &parts.config.events {
        let status = parts.board.events(&config.name, &config.output.to_string());
        let handler = outputs::open_until(config, Some(status.clone()), parts.stop.clone())
            .with_context(|| format!("events \"{}\"", config.name))?;
        tasks.spawn(keep_running(Output { parts: parts.clone(), config: config.clone(), status }, handler));
    }
    Ok(())
}

/// One output.
struct Output {
    parts: Parts,
    config: EventsConfig,
    status: EventsHandle,
}

/// What becomes of an output whose engine ended with an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    /// It may pass by itself: after a while, again.
    Again,
    /// At once, with every row from the beginning.
    Bootstrap,
    /// A person has to act first.
    Stop,
}

fn then(error: &Error, config: &EventsConfig) -> Then {
    let fault = match error {
        Error::EventsLost { .. } if config.bootstrap => return Then::Bootstrap,
        // The output knows what its failure asks for.
        Error::Handler { source, .. } => {
            source.downcast_ref::<outputs::Error>().map_or(Fault::Halt, outputs::Error::fault)
        }
        error => error.fault(),
    };
    match fault {
        Fault::Retry => Then::Again,
        Fault::Halt | Fault::CopyAgain | Fault::Usage => Then::Stop,
    }
}

async fn keep_running(output: Output, mut handler: Box<dyn ChangesHandler>) {
    let (stop, name) = (output.parts.stop.clone(), output.config.name.clone());
    let mut backoff = Backoff::default();
    output.status.state(EventsState::Starting);
    loop {
        let began = Instant::now();
        let Err(error) = output.run(&mut *handler).await else { return };
        if stop.is_cancelled() {
            return;
        }
        if began.elapsed() >= WELL_AFTER {
            backoff.reset();
        }
        match then(&error, &output.config) {
            Then::Bootstrap => tracing::warn!(events = name, error = said(&error), "begin anew, with every row"),
            Then::Again => {
                tracing::warn!(events = name, error = said(&error), "events stopped: start again");
                output.status.failed(trouble(&error));
            }
            Then::Stop => {
                tracing::error!(events = name, error = said(&error), "events stopped");
                return output.status.stopped(trouble(&error));
            }
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = sleep(backoff.next_wait()) => {}
        }
    }
}

/// As `status` shows it: a failure of the output is told in the output's own words.
fn trouble(error: &Error) -> crate::model::Trouble {
    let told = error.trouble();
    match error {
        Error::Handler { source, .. } => match source.downcast_ref::<outputs::Error>() {
            Some(output) => crate::model::Trouble { message: told.message, ..output.trouble() },
            None => told,
        },
        _ => told,
    }
}

impl Output {
    /// Runs an engine until it ends; well only when the node stops.
    async fn run(&self, handler: &mut dyn ChangesHandler) -> Result<(), Error> {
        let Self { parts, config, status } = self;
        let bootstrap = config.bootstrap && self.begins_anew().await?;
        let (told, status) = (AtomicU64::new(0), status.clone());
        let observer = move |progress: Progress| {
            let more = progress.events - told.swap(progress.events, Ordering::Relaxed);
            let state = match progress.state {
                State::Bootstrap => EventsState::Bootstrap,
                State::Live => EventsState::Live,
            };
            status.progress((state, more), progress.position, progress.head);
        };
        let engine = Engine::new(&parts.config.database)
            .beside_owner(true)
            .consumer(&config.name)
            .selection(config.selection())
            .batch_size(config.batch_size)
            .log_table(&parts.config.capture.log_table)
            .bootstrap(bootstrap)
            .cdc(true)
            .on_gap(config.on_gap)
            .observer(Arc::new(observer))
            .clock(Arc::clone(&parts.clock));
        engine.run(handler, parts.stop.clone()).await.map(drop)
    }

    /// Whether the consumer is new, or lost its place in the log. One that has a place goes on there, however often the
    /// node is started with `bootstrap: true`.
    async fn begins_anew(&self) -> Result<bool, Error> {
        let feed = self.parts.feed.as_ref().expect("a node with events captures");
        let name = self.config.name.clone();
        let known = feed.maintainer().call(move |maintainer| capture::read_progress(maintainer.connection(), &name));
        Ok(known.await??.is_none_or(|known| known.checkpoint.is_none()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::EventOutput;

    #[test]
    fn what_an_engine_ends_with_decides_what_comes() {
        let plain = EventsConfig::defaults("e", EventOutput::Json);
        let bootstraps = EventsConfig { bootstrap: true, ..plain.clone() };
        let lost = || Error::EventsLost { consumer: "e".into() };
        assert_eq!((then(&lost(), &plain), then(&lost(), &bootstraps)), (Then::Stop, Then::Bootstrap));
        assert_eq!(then(&Error::Gap { table: "t".into() }, &bootstraps), Then::Stop);
        assert_eq!(then(&Error::Restored { consumer: "e".into(), seq: 1 }, &plain), Then::Again);
        let write = |kind: std::io::ErrorKind| Error::Handler {
            id: "1".into(),
            source: Box::new(outputs::Error::Write { to: "stdout".into(), source: kind.into() }),
        };
        assert_eq!(then(&write(std::io::ErrorKind::BrokenPipe), &plain), Then::Stop);
        assert_eq!(then(&write(std::io::ErrorKind::StorageFull), &plain), Then::Again);
        let told = trouble(&write(std::io::ErrorKind::BrokenPipe));
        assert!(told.code == "output" && told.hint.contains("start it again"), "{told:?}");
    }
}
