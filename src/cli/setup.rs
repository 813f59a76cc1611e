//! `twinlite setup`, `plan` and `teardown`: what capture puts into a database, and takes out again.

use anyhow::{Context as _, Result};

use super::args::{Setup, Teardown};
use super::output;
use super::target::{Target, check_globs, owner_or_here, targets, tear_down};
use super::{Outcome, Usage};
use crate::admin::Request;
use crate::capture::{self, CaptureOptions, Images};
use crate::sqlite::{self, Role};

/// Installs the capture.
///
/// # Errors
/// What stands in the way; nothing is changed then.
pub async fn setup(args: &Setup) -> Result<Outcome> {
    for target in wanted(args)? {
        let request = Request::Setup(args.request());
        let take_over = args.take_over;
        owner_or_here(&target, request, move |maintainer| {
            let (taken, installed) = match take_over {
                true => maintainer.take_over()?,
                false => (Vec::new(), maintainer.install()?),
            };
            Ok(taken.into_iter().chain(installed.lines()).collect())
        })
        .await?;
    }
    Ok(Outcome::Done)
}

/// Prints what `setup` would run, and changes nothing.
///
/// # Errors
/// The database cannot be read, or what would stand in `setup`'s way.
pub fn plan(args: &Setup) -> Result<Outcome> {
    for target in wanted(args)? {
        let connection = sqlite::open(&target.database, Role::Reader, false)?;
        let plan =
            capture::plan(&connection, &target.options).with_context(|| target.database.display().to_string())?;
        let mut lines: Vec<String> =
            plan.statements.iter().map(|sql| format!("{};", sql.trim_end().trim_end_matches(';'))).collect();
        if lines.is_empty() {
            lines.push("-- nothing to do: the capture is in place".to_owned());
        }
        lines.extend(plan.skipped.iter().map(|table| format!("-- skipped {}: {}", table.name, table.reason)));
        output::print(&lines.join("\n"))?;
    }
    Ok(Outcome::Done)
}

/// Removes everything of ours.
///
/// # Errors
/// The database cannot be written.
pub async fn teardown(args: &Teardown) -> Result<Outcome> {
    for target in targets(&args.target)? {
        tear_down(&target).await?;
    }
    Ok(Outcome::Done)
}

/// The targets, with what the command line says of capture on top.
fn wanted(args: &Setup) -> Result<Vec<Target>> {
    let mut targets = targets(&args.target)?;
    if let Some(target) = targets.iter().find(|target| target.only_receives) {
        let database = target.database.display();
        return Err(Usage(format!(
            "{database}: its node only receives, so there is nothing to capture; name the source, or say --db {database}"
        ))
        .into());
    }
    for target in &mut targets {
        check_globs(&target.database, &args.tables)?;
        let CaptureOptions { selection, images, change_images, log_table, .. } = &mut target.options;
        if !args.tables.is_empty() || !args.skip_tables.is_empty() {
            *selection = super::args::selection(&args.tables, &args.skip_tables)?;
        }
        if let Some(wanted) = args.images.as_deref().and_then(Images::by_word) {
            (*images, *change_images) = (wanted, true);
        }
        if let Some(name) = &args.log_table {
            log_table.clone_from(name);
        }
    }
    Ok(targets)
}
