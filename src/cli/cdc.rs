//! `twinlite cdc`: the change log of one database as a stream of events. Its flags are those of sqlite-cdc, and some more.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use clap::Args;
use tokio_util::sync::CancellationToken;

use super::signal::Stop;
use super::target::{Target, tear_down};
use super::{Outcome, Usage};
use crate::capture::CaptureOptions;
use crate::config::{self, BlobEncoding, EVENT_BATCH_SIZE, EventOutput, EventsConfig, Header, OnGap};
use crate::events::{CONSUMER, Ended, Engine, outputs};

/// What sqlite-cdc opens a database with.
const DB_PARAMS: &str = "_pragma=journal_mode(wal)&_pragma=busy_timeout(5000)";

/// How long a statement may wait for a lock at most: beyond, whoever waits has gone.
const BUSY_TIMEOUT_MAX_MS: u64 = 3_600_000;

/// What means nothing to a teardown: nobody is to believe that it did.
const NOT_WITH_TEARDOWN: [&str; 14] = [
    "tables",
    "batch_size",
    "setup",
    "take_over",
    "bootstrap",
    "cdc",
    "output",
    "disable_subsec",
    "blobs",
    "consumer",
    "on_gap",
    "blob_encoding",
    "headers",
    "retry_for",
];

/// `twinlite cdc`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "At least one of --setup, --bootstrap, --cdc and --teardown.")]
pub struct Cdc {
    /// The database.
    #[arg(long, value_name = "FILE")]
    pub db: PathBuf,
    /// A table (may be repeated); all that are captured where none is named.
    #[arg(long = "table", value_name = "TABLE")]
    pub tables: Vec<String>,
    /// The change log's name; begins with __cdc_.
    #[arg(long, value_name = "NAME")]
    pub log_table: Option<String>,
    /// Events in a batch at most.
    #[arg(long, value_name = "N", default_value_t = EVENT_BATCH_SIZE, value_parser = batch_size)]
    pub batch_size: usize,
    /// Install capture first.
    #[arg(long)]
    pub setup: bool,
    /// With --setup: hand over what is in a change log of sqlite-cdc, and go on in ours.
    #[arg(long, requires = "setup")]
    pub take_over: bool,
    /// Say every row that is there as an INSERT; then end, or go on with --cdc.
    #[arg(long)]
    pub bootstrap: bool,
    /// Say every change as it comes, until it is stopped.
    #[arg(long)]
    pub cdc: bool,
    /// Remove everything of Twinlite's from the database, of every table; goes with --db, --db-params and --log-table alone.
    #[arg(long, conflicts_with_all = NOT_WITH_TEARDOWN)]
    pub teardown: bool,
    /// Where events go: - for a line each, json for JSON lines, or a URL that takes a POST of each batch.
    #[arg(short, long, value_name = "-|json|URL", default_value = "-", allow_hyphen_values = true)]
    pub output: String,
    /// Say times in whole seconds.
    #[arg(long)]
    pub disable_subsec: bool,
    /// Accepted and ignored: values are always complete.
    #[arg(long)]
    pub blobs: bool,
    /// As sqlite-cdc has it: _pragma=journal_mode(wal) and _pragma=busy_timeout(MS), joined by &.
    #[arg(long, value_name = "PARAMS", default_value = DB_PARAMS)]
    pub db_params: String,
    /// The consumer's name: it goes on where the last one of that name stopped.
    #[arg(long, value_name = "NAME", default_value = CONSUMER)]
    pub consumer: String,
    /// What to do where a schema change made a table unsure: give it again from RESYNC on, or stop.
    #[arg(long, value_name = "WHAT", value_parser = ["resync", "stop"], default_value = "resync")]
    pub on_gap: String,
    /// How BLOBs are said in JSON.
    #[arg(long, value_name = "ENCODING", value_parser = ["hex", "base64"], default_value = "hex")]
    pub blob_encoding: String,
    /// A header of each POST (may be repeated); ${VAR} and ${file:PATH} stand for a variable and a file's content.
    #[arg(long = "header", value_name = "NAME=VALUE")]
    pub headers: Vec<String>,
    /// How long a batch is tried that a URL does not take; for ever unless said.
    #[arg(long, value_name = "DURATION")]
    pub retry_for: Option<String>,
}

fn batch_size(text: &str) -> Result<usize, String> {
    let size: usize = text.parse().map_err(|_| "wants a number".to_owned())?;
    if size == 0 { Err("wants at least 1".to_owned()) } else { Ok(size) }
}

/// Does what was asked for.
///
/// # Errors
/// What stands in the way, or stops it; nothing is lost by any of them.
pub async fn run(args: &Cdc) -> Result<Outcome> {
    let mut signal = Stop::listen()?;
    let busy_timeout = db_params(&args.db_params)?;
    let output = output_of(args)?;
    if args.teardown {
        let target = Target { database: args.db.clone(), options: CaptureOptions::default(), only_receives: false };
        tear_down(&target).await?;
        return Ok(Outcome::Done);
    }
    if !(args.setup || args.bootstrap || args.cdc) {
        return Err(
            Usage("nothing to do: say at least one of --setup, --bootstrap, --cdc and --teardown".to_owned()).into()
        );
    }
    let mut engine = Engine::new(&args.db)
        .tables(args.tables.clone())
        .batch_size(args.batch_size)
        .consumer(&args.consumer)
        .setup(args.setup)
        .take_over(args.take_over)
        .bootstrap(args.bootstrap)
        .cdc(args.cdc)
        .output(output.output.to_string())
        .on_gap(output.on_gap);
    if let Some(timeout) = busy_timeout {
        engine = engine.busy_timeout(timeout);
    }
    if let Some(name) = &args.log_table {
        engine = engine.log_table(name);
    }
    let mut handler = outputs::open(&output, None)?;
    let cancel = CancellationToken::new();
    let stop = cancel.clone();
    let mut running = Box::pin(engine.run(&mut *handler, cancel));
    let ended = tokio::select! {
        ended = &mut running => ended,
        () = signal.wait() => {
            stop.cancel();
            running.await
        }
    }?;
    match ended {
        Ended::Done | Ended::Cancelled => Ok(Outcome::Done),
    }
}

/// The handler that the flags mean.
fn output_of(args: &Cdc) -> Result<EventsConfig> {
    let usage = |flag: &str, what: String| anyhow::Error::from(Usage(format!("{flag}: {what}")));
    let output = EventOutput::parse(&args.output).map_err(|what| usage("--output", what))?;
    let is_url = matches!(output, EventOutput::Http(_));
    if !is_url && (!args.headers.is_empty() || args.retry_for.is_some()) {
        return Err(usage("--header, --retry-for", "belong to an --output that is a URL".to_owned()));
    }
    let mut config = EventsConfig::defaults(&args.consumer, output);
    for header in &args.headers {
        config.headers.push(Header::from_argument(header).map_err(|what| usage("--header", what))?);
    }
    if let Some(text) = &args.retry_for {
        config.retry_for = Some(config::duration(text).ok_or_else(|| {
            usage("--retry-for", format!("{text}: wants a duration such as 250ms, 10s, 5m, 2h or 7d"))
        })?);
    }
    config.batch_size = args.batch_size;
    config.on_gap = if args.on_gap == "stop" { OnGap::Stop } else { OnGap::Resync };
    config.blob_encoding = if args.blob_encoding == "base64" { BlobEncoding::Base64 } else { BlobEncoding::Hex };
    config.subseconds = !args.disable_subsec;
    Ok(config)
}

/// The lock's timeout that a connection string of sqlite-cdc asks for. Everything else in it is refused by name, but the
/// journal mode that capture needs anyway.
fn db_params(params: &str) -> Result<Option<Duration>, Usage> {
    let mut timeout = None;
    for param in params.split('&').filter(|param| !param.is_empty()) {
        let refused = || Usage(format!("--db-params: {param} is not taken; what is: {DB_PARAMS}"));
        let pragma = param.strip_prefix("_pragma=").ok_or_else(refused)?;
        let (name, value) = pragma.strip_suffix(')').and_then(|pragma| pragma.split_once('(')).ok_or_else(refused)?;
        match (name.to_ascii_lowercase().as_str(), value) {
            ("journal_mode", mode) if mode.eq_ignore_ascii_case("wal") => {}
            ("busy_timeout", ms) => {
                let ms: u64 = ms.trim().parse().map_err(|_| refused())?;
                timeout = Some(Duration::from_millis(ms.min(BUSY_TIMEOUT_MAX_MS)));
            }
            _ => return Err(refused()),
        }
    }
    Ok(timeout)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn db_params_take_what_sqlite_cdc_has_by_default_and_name_what_they_refuse() {
        let taken = |params| db_params(params).expect(params);
        assert_eq!(taken(DB_PARAMS), Some(Duration::from_secs(5)));
        assert_eq!(taken(""), None);
        assert_eq!(taken("_pragma=JOURNAL_MODE(WAL)"), None);
        for (params, named) in [
            ("_pragma=journal_mode(delete)", "_pragma=journal_mode(delete)"),
            ("_pragma=busy_timeout(5)&_pragma=foreign_keys(1)", "_pragma=foreign_keys(1)"),
            ("_txlock=immediate", "_txlock=immediate"),
            ("_pragma=busy_timeout(soon)", "_pragma=busy_timeout(soon)"),
            ("_pragma=busy_timeout", "_pragma=busy_timeout"),
        ] {
            let refused = db_params(params).expect_err(params).to_string();
            assert!(refused.starts_with(&format!("--db-params: {named} is")), "{refused}");
        }
    }
}
