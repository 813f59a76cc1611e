//! The command line: one file a command.
//!
//! Results go to stdout, everything else to stderr. Exit codes: 0 done; 1 failed; 2 usage or configuration; 3 ran and
//! found something. A failure is one line, `what: where: why`; a configuration's faults are a line each.

pub mod args;
mod ddl;
pub mod output;
mod progress;
mod replicate;
mod run;
pub mod sample;
mod setup;
mod signal;
pub mod status;
mod target;

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use thiserror::Error;

use crate::config::{self, LogConfig, LogFormat};
use crate::telemetry::logging;
use args::{Cli, Command};

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
    match cli.command {
        Command::Replicate(args) => replicate::run(&args).await,
        Command::Run(args) => run::run(&args).await,
        Command::Plan(args) => setup::plan(&args),
        Command::Setup(args) => setup::setup(&args).await,
        Command::Teardown(args) => setup::teardown(&args).await,
        Command::Ddl(args) => ddl::ddl(&args).await,
        Command::Resync(args) => ddl::resync(&args).await,
        Command::Sample(args) => sample::run(&args),
        Command::Status(args) => status::run(&args, cli.output).await,
    }
}

/// The chain of causes as one line; a cause that repeats what is before it is left out.
fn message(error: &anyhow::Error) -> String {
    let mut message = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if message.ends_with(&cause) {
            continue;
        }
        if !message.is_empty() {
            message.push_str(": ");
        }
        message.push_str(&cause);
    }
    message
}

fn exit_code(error: &anyhow::Error) -> u8 {
    let is_usage = |cause: &(dyn std::error::Error + 'static)| {
        cause.is::<Usage>() || cause.is::<config::Error>() || cause.is::<logging::Error>()
    };
    if error.chain().any(is_usage) { 2 } else { 1 }
}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    use super::*;

    #[test]
    fn a_failure_is_one_line_and_says_everything_once() {
        let error = anyhow::Error::from(std::io::Error::other("disk on fire"));
        let error = error.context("write to /data/b.db").context("apply batch");
        assert_eq!(message(&error), "apply batch: write to /data/b.db: disk on fire");
        let repeated = anyhow::anyhow!("read: no such file").context("read: no such file");
        assert_eq!(message(&repeated), "read: no such file");
    }

    #[test]
    fn wrong_usage_and_configuration_have_their_own_exit_code() {
        assert_eq!(exit_code(&Usage("no".into()).into()), 2);
        let missing = args::config(std::path::Path::new("/does/not/exist.yaml")).context("run");
        assert_eq!(exit_code(&missing.expect_err("missing")), 2);
        assert_eq!(exit_code(&anyhow::anyhow!("else")), 1);
    }
}
