//! What an engine that owns a database does for commands of other processes on it.

use super::keeper::Shared;
use super::{reports, start};
use crate::admin::{Request, Response};
use crate::capture::{self, Maintainer};
use crate::model::Fault;
use crate::sqlite;

/// What becomes of a table of which changes may have been missed.
const GIVEN_AGAIN: &str = "will be given again, from RESYNC on";

/// Answers a request. [`Request::MakeRoom`] is the keeper's own.
pub(super) async fn answer(shared: &Shared, request: Request) -> Response {
    match request {
        Request::Status => {
            Response::status(reports::complete(shared.board.report(), shared.keeping.database.clone()).await)
        }
        Request::Setup(wanted) => {
            let install = move |maintainer: &mut Maintainer| {
                let (taken, installed) = start::install_as_asked(maintainer, &wanted)?;
                Ok(taken.into_iter().chain(installed.lines()).collect())
            };
            with(shared, install).await
        }
        Request::Teardown => {
            let response = with(shared, |maintainer| Ok(capture::removed_lines(&maintainer.teardown()?))).await;
            if response.ok {
                shared.torn_down.cancel();
            }
            response
        }
        Request::Resync { tables } => {
            let again = move |maintainer: &mut Maintainer| {
                let tables = maintainer.request_copy(&tables)?;
                Ok(tables.into_iter().map(|table| format!("{table}: {GIVEN_AGAIN}")).collect())
            };
            with(shared, again).await
        }
        Request::Ddl { sql } => with(shared, move |maintainer| Ok(maintainer.run_ddl(&sql)?.lines(GIVEN_AGAIN))).await,
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
            let said = sqlite::said_with_advice(&error);
            Response { usage: error.fault() == Fault::Usage, ..Response::failed(vec![said]) }
        }
        Err(error) => Response::failed(vec![error.to_string()]),
    };
    shared.tick();
    response
}
