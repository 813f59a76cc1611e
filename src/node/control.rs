//! What a running node does for commands of other processes on its database.

use std::path::PathBuf;
use std::sync::Arc;

use super::{Ended, Parts};
use crate::admin::{Request, Response, SetupRequest, serve_control};
use crate::capture::{Maintainer, Reconciled};

/// Answers requests on the owner's socket until the node stops.
pub(super) async fn serve(socket: PathBuf, parts: Parts) {
    let stop = parts.stop.clone();
    let parts = Arc::new(parts);
    let handler = move |request| {
        let parts = Arc::clone(&parts);
        async move { answer(&parts, request).await }
    };
    if let Err(error) = serve_control(&socket, handler, stop).await {
        tracing::error!(error = &error as &dyn std::error::Error, "answering commands on the database ended");
    }
}

async fn answer(parts: &Parts, request: Request) -> Response {
    match request {
        Request::Status => Response::status(parts.board.report()),
        Request::Setup(wanted) if wanted != SetupRequest::default() => Response::failed(vec![
            "the process that owns this database sets what is captured: change its config, or stop it first".to_owned(),
        ]),
        Request::Setup(_) => with_maintainer(parts, |maintainer| Ok(maintainer.install()?.did)).await,
        Request::Teardown => {
            let response = with_maintainer(parts, |maintainer| Ok(maintainer.teardown()?)).await;
            if response.ok {
                parts.ended.end(Ended::TornDown);
            }
            response
        }
        Request::Resync { tables } => {
            with_maintainer(parts, move |maintainer| {
                let tables = maintainer.request_copy(&tables)?;
                Ok(tables.into_iter().map(|table| format!("{table}: will be copied again, by digest")).collect())
            })
            .await
        }
        Request::Ddl { sql } => {
            with_maintainer(parts, move |maintainer| Ok(reconciled_lines(&maintainer.run_ddl(&sql)?))).await
        }
    }
}

async fn with_maintainer(
    parts: &Parts,
    work: impl FnOnce(&mut Maintainer) -> anyhow::Result<Vec<String>> + Send + 'static,
) -> Response {
    let Some(feed) = &parts.feed else {
        return Response::failed(vec!["this database only receives; run the command at its source".to_owned()]);
    };
    match feed.maintainer().call(work).await {
        Ok(Ok(lines)) => Response::done(lines),
        Ok(Err(error)) => Response::failed(vec![format!("{error:#}")]),
        Err(error) => Response::failed(vec![error.to_string()]),
    }
}

/// What a schema change meant, for a person.
pub fn reconciled_lines(reconciled: &Reconciled) -> Vec<String> {
    let mut lines = reconciled.notes.clone();
    let copied = reconciled.copied_again.iter();
    lines.extend(copied.map(|(_, table)| format!("{table}: will be copied again, by digest")));
    let skipped = reconciled.skipped.iter();
    lines.extend(skipped.map(|table| format!("skipped {}: {}", table.name, table.reason)));
    lines
}
