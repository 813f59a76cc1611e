//! `twinlite consumers`: who reads a database's change log, and until where.
//!
//! Looking reads the database itself. Dropping is asked of the process that owns it, or done here without one.

use std::path::Path;

use anyhow::{Context as _, Result};
use clap::{Args, Subcommand};
use serde_json::json;

use super::args::{self, Output};
use super::target::{owner_or_here, targets};
use super::{Outcome, output};
use crate::admin::{self, ConsumerLock, Request};
use crate::capture::consumers::{self, Consumer, EVENTS};
use crate::capture::{self, change_log};
use crate::model::{Epoch, LogTail};
use crate::sqlite::{self, Role, store};

/// `twinlite consumers`.
#[derive(Clone, Debug, Args)]
pub struct Consumers {
    /// What to do.
    #[command(subcommand)]
    pub what: ConsumersCommand,
}

/// `twinlite consumers …`.
#[derive(Clone, Debug, Subcommand)]
pub enum ConsumersCommand {
    /// Print all of them.
    List(ConsumersList),
    /// Forget some: the log is kept for them no longer.
    Drop(ConsumersDrop),
}

/// `twinlite consumers list`.
#[derive(Clone, Debug, Args)]
pub struct ConsumersList {
    /// The database.
    #[command(flatten)]
    pub target: args::Target,
}

/// `twinlite consumers drop`.
#[derive(Clone, Debug, Args)]
pub struct ConsumersDrop {
    /// Their names, as `list` prints them.
    #[arg(value_name = "NAME", required = true)]
    pub names: Vec<String>,
    /// The database.
    #[command(flatten)]
    pub target: args::Target,
}

/// Runs the command.
///
/// # Errors
/// No such consumer, one that runs, or a database that cannot be read.
pub async fn run(args: &Consumers, form: Output) -> Result<Outcome> {
    match &args.what {
        ConsumersCommand::List(args) => list(&args.target, form)?,
        ConsumersCommand::Drop(args) => drop_these(args).await?,
    }
    Ok(Outcome::Done)
}

fn list(target: &args::Target, form: Output) -> Result<()> {
    let mut found = Vec::new();
    for target in targets(target)? {
        let read = || -> Result<(Log, Vec<Consumer>)> {
            let connection = sqlite::open(&target.database, Role::Reader, false)?;
            let consumers = consumers::list(&connection)?;
            let epoch = store::epoch(&connection)?.ok_or(capture::Error::NotInstalled)?;
            Ok(((epoch, change_log::tail(&connection)?), consumers))
        };
        let (log, consumers) = read().with_context(|| target.database.display().to_string())?;
        found.extend(consumers.into_iter().map(|consumer| (log.clone(), consumer)));
    }
    match form {
        Output::Json => output::json(&found.iter().map(whole).collect::<Vec<_>>()),
        Output::Table if found.is_empty() => output::print("nobody reads the change log"),
        Output::Table => {
            let head = ["name", "kind", "position", "behind", "state"].map(str::to_owned).to_vec();
            let rows: Vec<Vec<String>> = std::iter::once(head).chain(found.iter().map(line)).collect();
            output::print(&output::columns(&rows))
        }
    }
}

/// Which log, and its newest entries.
type Log = (Epoch, LogTail);

fn line((log, consumer): &(Log, Consumer)) -> Vec<String> {
    let shown = |number: Option<String>| number.unwrap_or_else(|| "-".to_owned());
    vec![
        consumer.name.clone(),
        consumer.kind.clone(),
        shown(consumer.position.map(|position| position.seq.to_string())),
        shown(consumer.changes_behind(log.0, &log.1).map(|changes| changes.to_string())),
        if consumer.cut_off { "cut off".to_owned() } else { "kept for".to_owned() },
    ]
}

fn whole((log, consumer): &(Log, Consumer)) -> serde_json::Value {
    let position =
        |position: crate::model::Position| json!({ "epoch": position.epoch.to_string(), "seq": position.seq });
    json!({
        "name": consumer.name,
        "kind": consumer.kind,
        "position": consumer.position.map(position),
        "head": log.1.head(),
        "behind": consumer.changes_behind(log.0, &log.1),
        "cut_off": consumer.cut_off,
    })
}

async fn drop_these(args: &ConsumersDrop) -> Result<()> {
    for target in targets(&args.target)? {
        let known = {
            let connection = sqlite::open(&target.database, Role::Reader, false)?;
            consumers::list(&connection).with_context(|| target.database.display().to_string())?
        };
        // One that runs would note itself again. Held until they are dropped, so that none begins meanwhile.
        let is_events = |name: &&String| known.iter().any(|one| one.name == **name && one.kind == EVENTS);
        let names = args.names.iter().filter(is_events);
        let _locks = names.map(|name| lock(&target.database, name)).collect::<Result<Vec<_>>>()?;
        let here = args.names.clone();
        let request = Request::DropConsumers { names: args.names.clone() };
        owner_or_here(&target, request, move |maintainer| Ok(maintainer.drop_consumers(&here)?)).await?;
    }
    Ok(())
}

/// Keeps a consumer from running.
fn lock(database: &Path, name: &str) -> Result<ConsumerLock> {
    match ConsumerLock::acquire(database, name) {
        Err(admin::Error::ConsumerRuns { database, consumer, pid }) => anyhow::bail!(
            "{}: event consumer \"{consumer}\" runs (pid {pid}), and would note itself again: stop it, then drop it",
            database.display()
        ),
        acquired => Ok(acquired?),
    }
}
