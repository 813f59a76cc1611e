//! What a running node does for commands of other processes on its database.

use std::sync::Arc;

use super::{Ended, Parts};
use crate::admin::control::{Request, Response};
use crate::capture::{Maintainer, Reconciled};

/// Answers requests on the owner's socket.
pub(super) fn handler(parts: Parts) -> impl Fn(Request) -> futures_util::future::BoxFuture<'static, Response> + Send + Sync {
    let parts = Arc::new(parts);
    move |request| {
        let parts = Arc::clone(&parts);
        Box::pin(async move { answer(&parts, request).await })
    }
}

async fn answer(parts: &Parts, request: Request) -> Response {
    match request {
        Request::Status => Response { report: Some(parts.board.report()), ..Response::done(Vec::new()) },
        Request::Setup { .. } => with_maintainer(parts, |maintainer| Ok(maintainer.install()?.did)).await,
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
            with_maintainer(parts, move |maintainer| Ok(reconciled_lines(&maintainer.ddl(&sql)?))).await
        }
    }
}

async fn with_maintainer(
    parts: &Parts,
    work: impl FnOnce(&mut Maintainer) -> anyhow::Result<Vec<String>> + Send + 'static,
) -> Response {
    let Some(feed) = &parts.feed else {
        return Response::failed("this database only receives; run the command at its source".to_owned());
    };
    match feed.maintainer().call(work).await {
        Ok(Ok(lines)) => Response::done(lines),
        Ok(Err(error)) => Response::failed(format!("{error:#}")),
        Err(error) => Response::failed(error.to_string()),
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
