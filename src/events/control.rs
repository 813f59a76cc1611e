//! What an engine that owns a database does for commands of other processes on it.

use super::keeper::Shared;
use super::{reports, start};
use crate::admin::{Request, Response};
use crate::capture::{self, Maintainer, Reconciled};
use crate::model::Fault;
use crate::sqlite;

/// Answers a request. [`Request::MakeRoom`] is the keeper's own.
pub(super) async fn answer(shared: &Shared, request: Request) -> Response {
    match request {
        Request::Status => {
            Response::status(reports::complete(shared.board.report(), shared.keeping.database.clone()).await)
        }
        Request::Setup(wanted) => with(shared, move |maintainer| start::install_as_asked(maintainer, &wanted)).await,
        Request::Teardown => {
            let response = with(shared, |maintainer| Ok(removed_lines(&maintainer.teardown()?))).await;
            if response.ok {
                shared.torn_down.cancel();
            }
            response
        }
        Request::Resync { tables } => {
            let again = move |maintainer: &mut Maintainer| {
                let tables = maintainer.request_copy(&tables)?;
                Ok(tables.into_iter().map(|table| format!("{table}: will be given again, from RESYNC on")).collect())
            };
            with(shared, again).await
        }
        Request::Ddl { sql } => with(shared, move |maintainer| Ok(ddl_lines(&maintainer.run_ddl(&sql)?))).await,
        Request::DropConsumers { names } => with(shared, move |maintainer| maintainer.drop_consumers(&names)).await,
        Request::Conflicts(_) => Response::failed(vec![
            "an event consumer owns this database: start its node, or stop the consumer".to_owned(),
        ]),
        Request::MakeRoom => Response::failed(Vec::new()),
    }
}

async fn with(
    shared: &Shared,
    work: impl FnOnce(&mut Maintainer) -> Result<Vec<String>, capture::Error> + Send + 'static,
) -> Response {
    let response = match shared.maintainer.call(work).await {
        Ok(Ok(lines)) => Response::done(lines),
        Ok(Err(error)) => {
            let said = sqlite::said(&error);
            let said = sqlite::advice(&error).map_or_else(|| said.clone(), |advice| format!("{said}; {advice}"));
            Response { usage: error.fault() == Fault::Usage, ..Response::failed(vec![said]) }
        }
        Err(error) => Response::failed(vec![error.to_string()]),
    };
    shared.tick();
    response
}

fn removed_lines(removed: &[String]) -> Vec<String> {
    let lines = removed.iter().map(|object| format!("removed {object}"));
    lines.chain(["the journal mode stays WAL".to_owned()]).collect()
}

fn ddl_lines(reconciled: &Reconciled) -> Vec<String> {
    let mut lines = vec!["done".to_owned()];
    lines.extend(reconciled.notes.iter().cloned());
    let again = reconciled.copied_again.iter();
    lines.extend(again.map(|(_, table)| format!("{table}: will be given again, from RESYNC on")));
    let skipped = reconciled.skipped.iter();
    lines.extend(skipped.map(|table| format!("skipped {}: {}", table.name, table.reason)));
    lines
}
