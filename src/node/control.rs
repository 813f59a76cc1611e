//! What a running node does for commands of other processes on its database.

use std::path::PathBuf;
use std::sync::Arc;

use super::conflicts::settle;
use super::{Ended, Parts, capture_options};
use crate::admin::{Health, Request, Response, SetupRequest, serve_control};
use crate::apply::conflicts;
use crate::capture::{self, CaptureOptions, Images, Maintainer};
use crate::events::reports;
use crate::model::Fault;
use crate::sqlite;
use crate::telemetry::StatusReport;

/// What becomes of a table of which changes may have been missed.
pub const COPIED_AGAIN: &str = "will be copied again, by digest";

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

/// What health checks are answered with: the same report that commands get.
pub(super) fn health(parts: &Parts) -> Health {
    let (board, parts) = (parts.board.clone(), parts.clone());
    Health { board, report: Arc::new(move || Box::pin(report(&parts))) }
}

fn report(parts: &Parts) -> impl Future<Output = StatusReport> + Send + use<> {
    reports::complete(parts.board.report(), parts.config.database.clone())
}

async fn answer(parts: &Parts, request: Request) -> Response {
    match request {
        Request::Status => Response::status(report(parts).await),
        Request::Setup(wanted) => set_up(parts, wanted).await,
        Request::Teardown => {
            let response = match &parts.feed {
                Some(_) => with_maintainer(parts, torn_down).await,
                None => tear_down_replica(parts).await,
            };
            if response.ok {
                parts.ended.end(Ended::TornDown);
            }
            response
        }
        Request::Resync { tables } => {
            with_maintainer(parts, move |maintainer| {
                let tables = maintainer.request_copy(&tables)?;
                Ok(tables.into_iter().map(|table| format!("{table}: {COPIED_AGAIN}")).collect())
            })
            .await
        }
        Request::Conflicts(settlement) => {
            let (database, board) = (parts.config.database.clone(), parts.board.clone());
            let work = move || settle(&database, &settlement);
            match tokio::task::spawn_blocking(work).await {
                Ok(Ok(settled)) => {
                    board.settle_conflicts(settled.records);
                    Response::done(settled.lines)
                }
                Ok(Err(error)) => {
                    let conflict = error.chain().find_map(|cause| cause.downcast_ref::<conflicts::Error>());
                    let usage = conflict.is_some_and(|error| error.fault() == Fault::Usage);
                    Response { usage, ..Response::failed(vec![sqlite::said_with_advice(error.as_ref())]) }
                }
                Err(error) => Response::failed(vec![error.to_string()]),
            }
        }
        Request::Ddl { sql } => {
            with_maintainer(parts, move |maintainer| Ok(maintainer.run_ddl(&sql)?.lines(COPIED_AGAIN))).await
        }
        Request::DropConsumers { names } => {
            let dropped = names.clone();
            let work = move |maintainer: &mut Maintainer| Ok(maintainer.drop_consumers(&dropped)?);
            let response = with_maintainer(parts, work).await;
            if let Some(feed) = parts.feed.as_ref().filter(|_| response.ok) {
                feed.acknowledger().forget(&names);
            }
            response
        }
        Request::MakeRoom => Response::failed(vec!["a node owns this database, and stays".to_owned()]),
    }
}

/// What is captured is the configuration's business. What an entry carries may change while the node runs: entries are
/// read with the generation that they were written under.
async fn set_up(parts: &Parts, wanted: SetupRequest) -> Response {
    let SetupRequest { images, change_images, .. } = wanted.clone();
    if (SetupRequest { images: None, change_images: false, ..wanted }) != SetupRequest::default() {
        return Response::failed(vec![
            "the process that owns this database sets what is captured: change its config, or stop it first".to_owned(),
        ]);
    }
    let images = images.as_deref().and_then(Images::by_word);
    let configured = capture_options(&parts.config);
    let insists = configured.images == Images::Full && !configured.images_if_new;
    if insists && images == Some(Images::Key) {
        return Response::failed(vec![
            "the configuration of the process that owns this database has capture.images: full: change that, and start it \
             again; then run this"
                .to_owned(),
        ]);
    }
    let install = move |maintainer: &mut Maintainer| {
        let before = maintainer.options().clone();
        let images = images.unwrap_or(before.images);
        maintainer.set_options(CaptureOptions { images, change_images, ..before.clone() });
        let installed = maintainer.install();
        // A log of images satisfies who asks for keys: from here on the configuration agrees with either.
        maintainer.set_options(before);
        Ok(installed?.lines())
    };
    with_maintainer(parts, install).await
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
        Ok(Err(error)) => {
            let capture = error.chain().find_map(|cause| cause.downcast_ref::<capture::Error>());
            let usage = capture.is_some_and(|error| error.fault() == Fault::Usage);
            Response { usage, ..Response::failed(vec![sqlite::said_with_advice(error.as_ref())]) }
        }
        Err(error) => Response::failed(vec![error.to_string()]),
    }
}

/// A node that only receives has no maintainer; its applier ends with the node.
async fn tear_down_replica(parts: &Parts) -> Response {
    let (database, clock) = (parts.config.database.clone(), Arc::clone(&parts.clock));
    let work = move || torn_down(&mut Maintainer::open(&database, CaptureOptions::default(), clock)?);
    match tokio::task::spawn_blocking(work).await {
        Ok(Ok(lines)) => Response::done(lines),
        Ok(Err(error)) => Response::failed(vec![sqlite::said_with_advice(error.as_ref())]),
        Err(error) => Response::failed(vec![error.to_string()]),
    }
}

/// Removes everything of ours, and says so for a person.
///
/// # Errors
/// The database cannot be written.
pub fn torn_down(maintainer: &mut Maintainer) -> anyhow::Result<Vec<String>> {
    Ok(capture::removed_lines(&maintainer.teardown()?))
}
