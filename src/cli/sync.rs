//! `twinlite sync SPEC.yaml`: sources into destinations, once, without another binary.

use std::io::IsTerminal as _;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use futures_util::future::BoxFuture;
use indicatif::{ProgressBar, ProgressStyle};
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::Outcome;
use super::args::{Output, Sync};
use super::output::{json, print, thousands};
use super::signal::Stop;
use crate::cloudquery::client::Address;
use crate::cloudquery::destination;
use crate::cloudquery::engine::{self, BoxError, Embedded, Options, Progress, Running, Seen};
use crate::cloudquery::server::{self, Network, Served};
use crate::model::SystemClock;
use crate::replicate::cq_source::Sources;

/// How often the screen is drawn anew: smooth to the eye, and no load.
const DRAW_EVERY: Duration = Duration::from_millis(200);
/// How often a log says how far it is: a line a person is glad to see, and a day makes few of.
const LOG_EVERY: Duration = Duration::from_secs(10);
/// What local plugins log where our own level is a filter.
const LOG_LEVEL: &str = "info";

/// Syncs, shows how far it is, and says what was done.
///
/// # Errors
/// What is wrong with the specification, or the first failure; also a sync that came to its end but could not read or
/// write everything.
pub async fn run(args: &Sync, output: Output, log_level: Option<&str>) -> Result<Outcome> {
    let mut signal = Stop::listen()?;
    let spec = engine::load(&args.spec)?;
    let own = Own::new()?;
    let (progress, stop) = (Progress::default(), CancellationToken::new());
    let options = Options {
        invocation_id: args.invocation_id.clone().unwrap_or_else(|| Uuid::new_v4().to_string()),
        shard: args.shard,
        no_migrate: args.no_migrate,
        summary_location: args.summary_location.clone(),
        columns_not_null: args.cq_columns_not_null,
        log_level: plugin_level(log_level).to_owned(),
        embedded: Some(&own),
        clock: &SystemClock,
        progress: progress.clone(),
        stop: stop.clone(),
    };
    let display = Display::start(progress);
    let mut running = Box::pin(engine::run(&spec, &options));
    let done = tokio::select! {
        done = &mut running => done,
        () = signal.wait() => {
            // Plugins are stopped in order; a second Ctrl-C is for the impatient.
            stop.cancel();
            tokio::select! {
                done = &mut running => done,
                () = signal.wait() => Err(engine::Error::Stopped),
            }
        }
    };
    display.finish().await;
    let summary = done?;
    match output {
        Output::Table => print(&summary.to_string())?,
        Output::Json => json(&summary)?,
    }
    if summary.errors > 0 {
        bail!("{} errors on the way: not everything was read or written; the log says what", summary.errors);
    }
    Ok(Outcome::Done)
}

/// Twinlite's own plugin, for `registry: embedded`: the one that `twinlite serve` serves, on a socket of this process's.
struct Own {
    folder: tempfile::TempDir,
}

impl Own {
    fn new() -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("twinlite-").tempdir();
        Ok(Self { folder: folder.context("make a private folder for sockets")? })
    }
}

impl Embedded for Own {
    fn start<'a>(&'a self, _name: &'a str) -> BoxFuture<'a, Result<Running, BoxError>> {
        Box::pin(async move {
            // A specification's name may be anything, and a socket's may not.
            let socket = self.folder.path().join(format!("{}.sock", Uuid::new_v4().simple()));
            let listener = server::bind(Network::Unix, &socket.to_string_lossy()).await?;
            let stop = CancellationToken::new();
            let sources = Sources::new(destination::Options::default());
            let served = Served { sources: Some(Arc::new(sources)), ..Served::default() };
            let serving = server::serve(listener, served, stop.clone());
            let ended = tokio::spawn(async move {
                if let Err(error) = serving.await {
                    tracing::error!(error = %error, "the embedded plugin ended");
                }
            });
            Ok(Running { address: Address::Unix(socket), guard: stop.drop_guard(), ended })
        })
    }
}

/// What plugins know as a level.
fn plugin_level(ours: Option<&str>) -> &str {
    let known = ["trace", "debug", "info", "warn", "error"];
    ours.filter(|level| known.contains(level)).unwrap_or(LOG_LEVEL)
}

/// A line that says how far it is; the same in the log where there is no terminal.
struct Display {
    task: JoinHandle<()>,
    done: CancellationToken,
}

impl Display {
    fn start(progress: Progress) -> Self {
        let done = CancellationToken::new();
        let task = match std::io::stderr().is_terminal() {
            true => tokio::spawn(draw(progress, done.clone())),
            false => tokio::spawn(log(progress, done.clone())),
        };
        Self { task, done }
    }

    async fn finish(self) {
        self.done.cancel();
        // It shows, and nothing hangs on it.
        let _ = self.task.await;
    }
}

async fn draw(progress: Progress, done: CancellationToken) {
    let line = ProgressBar::new_spinner();
    line.set_style(ProgressStyle::with_template("{spinner} {msg}").expect("the template is ours"));
    let began = Instant::now();
    let mut every = interval(DRAW_EVERY);
    every.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        tokio::select! {
            () = done.cancelled() => return line.finish_and_clear(),
            _ = every.tick() => {}
        }
        line.set_message(said(&progress.seen(), began.elapsed()));
        line.tick();
    }
}

async fn log(progress: Progress, done: CancellationToken) {
    let mut every = interval(LOG_EVERY);
    every.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The first tick is at once, and there is nothing to say yet.
    every.tick().await;
    loop {
        tokio::select! {
            () = done.cancelled() => return,
            _ = every.tick() => {}
        }
        let Seen { doing, resources, tables, errors } = progress.seen();
        tracing::info!(resources, tables = tables.len(), errors, "{doing}");
    }
}

fn said(seen: &Seen, passed: Duration) -> String {
    let Seen { doing, resources, tables, errors } = seen;
    let most = tables.iter().max_by_key(|(_, rows)| **rows);
    let most = most.map_or_else(String::new, |(table, rows)| format!(", most in {table}: {}", thousands(*rows)));
    let errors = if *errors == 0 { String::new() } else { format!(", {} errors", thousands(*errors)) };
    let seconds = passed.as_secs();
    format!("{doing}: {} resources, {} tables{most}{errors} ({seconds} s)", thousands(*resources), tables.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_says_how_far_it_is() {
        let mut seen = Seen { doing: "sync source \"a\"".to_owned(), ..Seen::default() };
        assert_eq!(said(&seen, Duration::ZERO), "sync source \"a\": 0 resources, 0 tables (0 s)");
        seen.tables = [("t".to_owned(), 1_000), ("u".to_owned(), 34)].into();
        (seen.resources, seen.errors) = (1_034, 1);
        let text = "sync source \"a\": 1,034 resources, 2 tables, most in t: 1,000, 1 errors (61 s)";
        assert_eq!(said(&seen, Duration::from_secs(61)), text);
    }

    #[test]
    fn plugins_get_a_level_that_they_know() {
        assert_eq!(plugin_level(Some("debug")), "debug");
        assert_eq!(plugin_level(Some("info,twinlite::link=debug")), "info");
        assert_eq!(plugin_level(None), "info");
    }
}
