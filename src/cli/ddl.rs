//! `twinlite ddl FILE.sql`: a schema change that capture sees whole. `twinlite resync`: a copy made again.

use anyhow::{Context as _, Result};

use super::Outcome;
use super::args::{Ddl, Resync};
use super::target::{owner_or_here, targets};
use crate::admin::Request;
use crate::node::COPIED_AGAIN;

/// Runs the script in one transaction with the triggers made anew.
///
/// # Errors
/// The file cannot be read, or a statement fails; nothing is changed then.
pub async fn ddl(args: &Ddl) -> Result<Outcome> {
    let sql = if args.script.as_os_str() == "-" {
        std::io::read_to_string(std::io::stdin()).context("read the script from stdin")?
    } else {
        std::fs::read_to_string(&args.script).with_context(|| format!("{}: read the script", args.script.display()))?
    };
    for target in targets(&args.target)? {
        let here = sql.clone();
        owner_or_here(&target, Request::Ddl { sql: sql.clone() }, move |maintainer| {
            Ok(maintainer.run_ddl(&here)?.lines(COPIED_AGAIN))
        })
        .await?;
    }
    Ok(Outcome::Done)
}

/// Copies tables again, by digest; every captured one where none is named.
///
/// # Errors
/// A table is not captured, or the database cannot be written.
pub async fn resync(args: &Resync) -> Result<Outcome> {
    for target in targets(&args.target)? {
        let here = args.tables.clone();
        owner_or_here(&target, Request::Resync { tables: args.tables.clone() }, move |maintainer| {
            let tables = maintainer.request_copy(&here)?;
            Ok(tables.into_iter().map(|table| format!("{table}: will be copied again, by digest")).collect())
        })
        .await?;
    }
    Ok(Outcome::Done)
}
