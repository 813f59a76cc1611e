//! `twinlite ddl FILE.sql`: a schema change that capture sees whole. `twinlite resync`: a copy made again.

use std::path::Path;

use anyhow::{Context as _, Result};

use super::Outcome;
use super::args::TargetArgs;
use super::target::{owner_or_here, targets};
use crate::admin::control::Request;
use crate::node::reconciled_lines;

/// Runs the script in one transaction with the triggers made anew.
///
/// # Errors
/// The file cannot be read, or a statement fails; nothing is changed then.
pub async fn ddl(target: &TargetArgs, script: &Path) -> Result<Outcome> {
    let sql = std::fs::read_to_string(script).with_context(|| format!("{}: read the script", script.display()))?;
    for target in targets(target)? {
        let here = sql.clone();
        owner_or_here(&target, Request::Ddl { sql: sql.clone() }, move |maintainer| {
            Ok(reconciled_lines(&maintainer.ddl(&here)?))
        })
        .await?;
    }
    Ok(Outcome::Done)
}

/// Copies tables again, by digest; every captured one where none is named.
///
/// # Errors
/// A table is not captured, or the database cannot be written.
pub async fn resync(target: &TargetArgs, tables: &[String]) -> Result<Outcome> {
    for target in targets(target)? {
        let here = tables.to_vec();
        owner_or_here(&target, Request::Resync { tables: tables.to_vec() }, move |maintainer| {
            let tables = maintainer.request_copy(&here)?;
            Ok(tables.into_iter().map(|table| format!("{table}: will be copied again, by digest")).collect())
        })
        .await?;
    }
    Ok(Outcome::Done)
}
