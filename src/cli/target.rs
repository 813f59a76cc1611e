//! Which database a command works on, and how it is captured there: from `--db` or from `--config`.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::args;
use super::{Usage, output};
use crate::admin::{self, Request};
use crate::capture::{self, CaptureOptions, Maintainer};
use crate::model::SystemClock;
use crate::node::{capture_options, torn_down};
use crate::sqlite::{self, Role};

/// One database that a command works on.
#[derive(Clone, Debug)]
pub struct Target {
    /// Its file.
    pub database: PathBuf,
    /// How it is captured, where that is known from the config or from the database itself.
    pub options: CaptureOptions,
    /// Whether its node only receives, so that nothing is to be captured there.
    pub only_receives: bool,
}

/// The databases that the arguments name: one by `--db`, every node's by `--config`.
///
/// # Errors
/// The config is wrong, or the database cannot be read.
pub fn targets(args: &args::Target) -> Result<Vec<Target>> {
    if let Some(config) = &args.config {
        let config = args::config(config)?;
        let target = |node: &crate::config::NodeConfig| Target {
            database: node.database.clone(),
            options: capture_options(node),
            only_receives: !node.links.is_empty() && !node.captures(),
        };
        return Ok(config.nodes.iter().map(target).collect());
    }
    let Some(database) = &args.db else {
        return Err(Usage("name the database: --db FILE or --config FILE".to_owned()).into());
    };
    Ok(vec![Target { database: database.clone(), options: stored_options(database)?, only_receives: false }])
}

/// Whether each glob of the command line means a table of this database. One that is a typing error would capture or copy
/// nothing, and call that a success.
///
/// # Errors
/// [`Usage`], where one does not; the database cannot be read.
pub fn check_globs(database: &Path, globs: &[String]) -> Result<()> {
    let tables = sqlite::catalog::table_list(&sqlite::open(database, Role::Reader, false)?)?;
    for glob in globs {
        let selection = args::selection(std::slice::from_ref(glob), &[])?;
        if !tables.iter().any(|table| selection.has(&table.name)) {
            return Err(Usage(format!("--tables {glob}: no table of {} matches", database.display())).into());
        }
    }
    Ok(())
}

/// Removes everything of ours from the database, and beside it what processes that were killed have left.
///
/// # Errors
/// Whatever the process that owns the database says, or the database.
pub async fn tear_down(target: &Target) -> Result<()> {
    let readers = {
        let connection = sqlite::open(&target.database, Role::Reader, false)?;
        // Nothing may be installed, and that is no failure.
        capture::consumers::list(&connection).unwrap_or_default()
    };
    owner_or_here(target, Request::Teardown, torn_down).await?;
    admin::sweep(&target.database, readers.iter().map(|reader| reader.name.as_str()));
    Ok(())
}

fn stored_options(database: &Path) -> Result<CaptureOptions> {
    let connection = sqlite::open(database, Role::Reader, false)?;
    let stored = CaptureOptions::stored(&connection).with_context(|| database.display().to_string())?;
    Ok(stored.unwrap_or_default())
}

/// Asks the process that owns the database to do it; without one, does it here.
///
/// # Errors
/// Whatever either of them says.
pub async fn owner_or_here(
    target: &Target,
    request: Request,
    here: impl FnOnce(&mut Maintainer) -> Result<Vec<String>> + Send + 'static,
) -> Result<()> {
    if let Some(response) = admin::ask(&target.database, &request).await? {
        let failure = || format!("{}: {}", target.database.display(), response.lines.join("; "));
        if response.usage {
            return Err(Usage(failure()).into());
        }
        anyhow::ensure!(response.ok, failure());
        return output::print(&response.lines.join("\n"));
    }
    let (database, options) = (target.database.clone(), target.options.clone());
    let work = move || -> Result<Vec<String>> {
        let mut maintainer = Maintainer::open(&database, options, std::sync::Arc::new(SystemClock))?;
        here(&mut maintainer)
    };
    let place = || target.database.display().to_string();
    let lines = tokio::task::spawn_blocking(work).await.context("the command's thread ended")?.with_context(place)?;
    output::print(&lines.join("\n"))
}
