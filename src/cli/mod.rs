//! The command line: one file a command.
//!
//! Results go to stdout, everything else to stderr. Exit codes: 0 done; 1 failed; 2 usage or configuration; 3 ran and
//! found something. A failure is one line, `what: where: why`; a configuration's faults are a line each.

pub mod args;
pub mod cdc;
mod conflicts;
pub mod consumers;
mod ddl;
mod doctor;
mod failure;
pub mod output;
mod progress;
mod replicate;
mod run;
pub mod sample;
mod serve;
mod setup;
mod signal;
pub mod status;
mod status_events;
mod sync;
mod target;
mod two_way;

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use thiserror::Error;

use crate::config::{LogConfig, LogFormat};
use crate::telemetry::logging;
use args::{Cli, Command};
use failure::{exit_code, message};

/// How a command ended that did not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing to say.
    Done,
    /// It ran, and found something that somebody should look at.
    Found,
}

/// A command was called in a way that cannot be meant.
#[derive(Debug, Error)]
#[error("{0}")]
pub struct Usage(pub String);

/// Parses, runs, and says how it ended.
pub fn run() -> ExitCode {
    let cli = Cli::parse();
    match execute(cli) {
        Ok(Outcome::Done) => ExitCode::SUCCESS,
        Ok(Outcome::Found) => ExitCode::from(3),
        Err(error) => {
            // Nothing is left to do where stderr is gone, too.
            let _ = writeln!(std::io::stderr(), "{}", message(&error));
            ExitCode::from(exit_code(&error))
        }
    }
}

fn execute(cli: Cli) -> anyhow::Result<Outcome> {
    let log = match &cli.command {
        Command::Run(run) => args::config(&run.config)?.log,
        Command::Serve(serve) => {
            serve::log(serve, cli.log_level.as_deref())?;
            LogConfig::default()
        }
        _ => LogConfig::default(),
    };
    let level = cli.log_level.as_deref().unwrap_or(&log.level);
    let format = match log.format {
        LogFormat::Text => logging::Format::Text,
        LogFormat::Json => logging::Format::Json,
    };
    logging::init(level, format)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(dispatch(cli))
}

async fn dispatch(cli: Cli) -> anyhow::Result<Outcome> {
    let form = cli.form();
    match cli.command {
        Command::Replicate(args) => replicate::run(&args).await,
        Command::Run(args) => run::run(&args).await,
        Command::Plan(args) => setup::plan(&args),
        Command::Setup(args) => setup::setup(&args).await,
        Command::Teardown(args) => setup::teardown(&args).await,
        Command::Ddl(args) => ddl::ddl(&args).await,
        Command::Resync(args) => ddl::resync(&args).await,
        Command::Conflicts(args) => conflicts::run(&args, form).await,
        Command::Sample(args) => sample::run(&args),
        Command::Serve(args) => serve::run(&args).await,
        Command::Status(args) => status::run(&args, form).await,
        Command::Doctor(args) => doctor::run(&args, form),
        Command::Cdc(args) => cdc::run(&args).await,
        Command::Consumers(args) => consumers::run(&args, form).await,
        Command::Sync(args) => sync::run(&args, form, cli.log_level.as_deref()).await,
    }
}
