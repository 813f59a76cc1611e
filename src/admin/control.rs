//! The owner's control socket: one line of JSON asks, one line answers.
//!
//! Whoever may write beside the database may ask; the socket's mode is the database's (user and group), and what can be
//! asked is no more than a command could do with the file itself.
//!
//! Not promised: that a request that was begun is undone when the asker goes away. It is finished.

use std::future::Future;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::{Error, Owner, find_owner};
use crate::telemetry::StatusReport;

/// A request is a line of at most this: a schema change's script is the longest thing asked.
const REQUEST_BYTES_MAX: u64 = 64 << 20;

/// An answer is a line of at most this: the status of a database with many thousands of tables.
const RESPONSE_BYTES_MAX: u64 = 256 << 20;

/// For how long an owner may not listen before it counts as one that hangs: starting takes an install at most.
const LISTENS_WAIT: Duration = Duration::from_secs(5);

/// How often it is looked whether the owner listens by now.
const LISTENS_LOOK_EVERY: Duration = Duration::from_millis(20);

/// Conversations at once at most; beyond, askers wait in the socket's queue.
const CONVERSATIONS_MAX: usize = 32;

/// What the owner of a database can be asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case")]
pub enum Request {
    /// How it is doing.
    Status,
    /// `twinlite setup`.
    Setup(SetupRequest),
    /// `twinlite teardown`.
    Teardown,
    /// `twinlite resync`: copy these tables again, all where none is named.
    Resync {
        /// Their names.
        tables: Vec<String>,
    },
    /// `twinlite conflicts apply` and `drop`.
    Conflicts(Settlement),
    /// `twinlite ddl`: run a schema change and keep capturing.
    Ddl {
        /// The script.
        sql: String,
    },
    /// `twinlite consumers drop`: keep the log for these no longer.
    DropConsumers {
        /// Their names.
        names: Vec<String>,
    },
    /// Give the database up, if you own it only for want of anybody better: an event consumer makes room for a node.
    MakeRoom,
}

/// What becomes of recorded conflicts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "settle", rename_all = "snake_case")]
pub enum Settlement {
    /// What lost is to win.
    Apply {
        /// The record.
        id: i64,
    },
    /// They are to be forgotten.
    Drop {
        /// The records.
        ids: Vec<i64>,
    },
    /// All are to be forgotten.
    DropAll,
}

/// What `twinlite setup` wants otherwise than it is; `None` leaves it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetupRequest {
    /// Globs of what is captured.
    pub tables: Option<Vec<String>>,
    /// Globs of what is not.
    pub skip_tables: Option<Vec<String>>,
    /// `key` or `full`.
    pub images: Option<String>,
    /// Whether a log that carries something else is changed: an operator has said so.
    #[serde(default)]
    pub change_images: bool,
    /// The log's name.
    pub log_table: Option<String>,
    /// Whether to take the place of sqlite-cdc.
    pub take_over: bool,
}

/// What the owner answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Response {
    /// Whether it was done.
    pub ok: bool,
    /// What was done, or why not: lines for a person.
    pub lines: Vec<String>,
    /// Whether it was not done because of what was asked for, such as a table that is not there.
    #[serde(default)]
    pub usage: bool,
    /// For [`Request::Status`].
    pub report: Option<StatusReport>,
}

impl Response {
    /// It was done.
    pub fn done(lines: Vec<String>) -> Self {
        Self { ok: true, lines, usage: false, report: None }
    }

    /// It was not, and why.
    pub fn failed(lines: Vec<String>) -> Self {
        Self { ok: false, lines, usage: false, report: None }
    }

    /// How the node is doing.
    pub fn status(report: StatusReport) -> Self {
        Self { ok: true, lines: Vec::new(), usage: false, report: Some(report) }
    }
}

/// Answers at the owner's socket until `shutdown`, then finishes the conversations at hand.
///
/// # Errors
/// [`Error::File`] if the socket cannot be made.
pub async fn serve_control<H, F>(socket: &Path, handler: H, shutdown: CancellationToken) -> Result<(), Error>
where
    H: Fn(Request) -> F + Clone + Send + 'static,
    F: Future<Output = Response> + Send + 'static,
{
    let made = |doing| move |source| Error::File { path: socket.to_owned(), doing, source };
    let listener = UnixListener::bind(socket).map_err(made("make the control socket"))?;
    let mode = std::fs::Permissions::from_mode(0o660);
    std::fs::set_permissions(socket, mode).map_err(made("set the control socket's mode"))?;
    let mut conversations = JoinSet::new();
    loop {
        let has_room = conversations.len() < CONVERSATIONS_MAX;
        tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = listener.accept(), if has_room => match accepted {
                Ok((stream, _)) => {
                    conversations.spawn(converse(stream, handler.clone(), shutdown.clone()));
                }
                // Out of file descriptors, most likely: whoever asks next may find one.
                Err(error) => tracing::warn!(error = %error, "accept on the control socket"),
            },
            Some(_) = conversations.join_next() => {}
        }
    }
    while conversations.join_next().await.is_some() {}
    Ok(())
}

async fn converse<H, F>(stream: UnixStream, handler: H, shutdown: CancellationToken)
where
    H: Fn(Request) -> F,
    F: Future<Output = Response>,
{
    let (read, mut write) = stream.into_split();
    let mut lines = BufReader::new(read);
    loop {
        let mut line = Vec::new();
        let read = async { (&mut lines).take(REQUEST_BYTES_MAX).read_until(b'\n', &mut line).await };
        let read = tokio::select! {
            () = shutdown.cancelled() => return,
            read = read => read,
        };
        // The asker is done, gone, or wrote no line within the bound.
        if !matches!(read, Ok(count) if count > 0) || line.last() != Some(&b'\n') {
            return;
        }
        let response = match serde_json::from_slice(&line) {
            Ok(request) => handler(request).await,
            Err(error) => Response::failed(vec![format!(
                "the request is not understood ({error}); run the same Twinlite version as the process that owns the database"
            )]),
        };
        if send(&mut write, &response).await.is_err() {
            return;
        }
    }
}

async fn send(write: &mut (impl AsyncWriteExt + Unpin), message: &impl Serialize) -> std::io::Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    write.write_all(&line).await
}

/// Asks the process that owns the database; `None` where nobody does. An owner that does not listen yet, because it is
/// just starting, is waited for; one that is just leaving, too.
///
/// # Errors
/// [`Error::Ask`] where there is an owner that does not answer, [`Error::Malformed`], [`Error::File`].
pub async fn ask(database: &Path, request: &Request) -> Result<Option<Response>, Error> {
    let deadline = Instant::now() + LISTENS_WAIT;
    let (owner, stream) = loop {
        let Some(owner) = find_owner(database)? else { return Ok(None) };
        match UnixStream::connect(&owner.socket).await {
            Ok(stream) => break (owner, stream),
            Err(_) if Instant::now() < deadline => sleep(LISTENS_LOOK_EVERY).await,
            Err(source) => return Err(Error::Ask { path: owner.socket, pid: owner.pid, source }),
        }
    };
    let failed = |source| Error::Ask { path: owner.socket.clone(), pid: owner.pid, source };
    let (read, mut write) = stream.into_split();
    send(&mut write, request).await.map_err(failed)?;
    let mut line = Vec::new();
    BufReader::new(read).take(RESPONSE_BYTES_MAX).read_until(b'\n', &mut line).await.map_err(failed)?;
    if line.last() != Some(&b'\n') {
        return Err(failed(std::io::ErrorKind::UnexpectedEof.into()));
    }
    serde_json::from_slice(&line).map(Some).map_err(Error::Malformed)
}

/// Becomes the owner of a database, also where an event consumer owns it: that one makes room, and goes on beside us.
///
/// # Errors
/// [`Owner::acquire`]'s; [`Error::Owned`] by whoever stays.
pub async fn own(database: &Path) -> Result<Owner, Error> {
    let owned = match Owner::acquire(database) {
        Err(error @ Error::Owned { .. }) => error,
        acquired => return acquired,
    };
    // Whoever does not understand, or does not answer, stays; so does a node.
    match ask(database, &Request::MakeRoom).await {
        Ok(Some(response)) if !response.ok => Err(owned),
        Ok(_) => Owner::acquire(database),
        Err(_) => Err(owned),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Owner;
    use super::*;

    async fn answer(request: Request) -> Response {
        match request {
            Request::Resync { tables } => Response::done(tables),
            Request::Ddl { sql } => Response::failed(vec![format!("{} bytes", sql.len())]),
            Request::DropConsumers { .. } | Request::MakeRoom => Response::done(Vec::new()),
            Request::Status | Request::Setup(_) | Request::Teardown | Request::Conflicts(_) => {
                Response::done(Vec::new())
            }
        }
    }

    struct Served {
        folder: tempfile::TempDir,
        shutdown: CancellationToken,
        task: tokio::task::JoinHandle<Result<(), Error>>,
        _owner: Owner,
    }

    /// A served socket; the listener is bound when this returns.
    async fn served() -> Served {
        let folder = tempfile::tempdir().expect("folder");
        let owner = Owner::acquire(&folder.path().join("app.db")).expect("owner");
        let shutdown = CancellationToken::new();
        let (socket, token) = (owner.socket().to_owned(), shutdown.clone());
        let task = tokio::spawn(async move { serve_control(&socket, answer, token).await });
        while !owner.socket().exists() {
            tokio::task::yield_now().await;
        }
        Served { folder, shutdown, task, _owner: owner }
    }

    #[tokio::test]
    async fn the_owner_answers_what_it_is_asked() {
        let served = served().await;
        let database = served.folder.path().join("app.db");
        let request = Request::Resync { tables: vec!["a".into(), "b\nc".into()] };
        let response = ask(&database, &request).await.expect("asked").expect("owned");
        assert_eq!(response, Response::done(vec!["a".into(), "b\nc".into()]));
        let long = Request::Ddl { sql: "x".repeat(3 << 20) };
        let response = ask(&database, &long).await.expect("asked").expect("owned");
        assert_eq!((response.ok, response.lines), (false, vec![format!("{} bytes", 3 << 20)]));
        served.shutdown.cancel();
        served.task.await.expect("joins").expect("ends well");
    }

    #[tokio::test]
    async fn what_is_no_request_gets_an_answer_all_the_same() {
        let served = served().await;
        let socket =
            super::super::find_owner(&served.folder.path().join("app.db")).expect("found").expect("owned").socket;
        let (read, mut write) = UnixStream::connect(socket).await.expect("connects").into_split();
        write.write_all(b"{\"ask\":\"fly\"}\n{\"ask\":\"teardown\"}\n").await.expect("writes");
        let mut lines = BufReader::new(read).lines();
        let first = lines.next_line().await.expect("reads").expect("a line");
        assert!(first.contains("same Twinlite version"), "{first}");
        let second = lines.next_line().await.expect("reads").expect("a line");
        assert!(second.contains("\"ok\":true"), "{second}");
    }

    /// The lock comes first, and the socket a moment later.
    #[tokio::test(start_paused = true)]
    async fn an_owner_that_is_just_starting_is_waited_for() {
        let folder = tempfile::tempdir().expect("folder");
        let database = folder.path().join("app.db");
        let owner = Owner::acquire(&database).expect("owner");
        let shutdown = CancellationToken::new();
        let (socket, stop) = (owner.socket().to_owned(), shutdown.clone());
        let serving = tokio::spawn(async move {
            sleep(LISTENS_WAIT / 2).await;
            serve_control(&socket, answer, stop).await
        });
        let answered = ask(&database, &Request::Teardown).await.expect("asked").expect("owned");
        assert!(answered.ok);
        shutdown.cancel();
        serving.await.expect("no panic").expect("served");
    }

    #[tokio::test]
    async fn a_database_without_owner_has_nobody_to_ask() {
        let folder = tempfile::tempdir().expect("folder");
        let answer = ask(&folder.path().join("app.db"), &Request::Status).await.expect("looked");
        assert_eq!(answer, None);
    }

    #[tokio::test(start_paused = true)]
    async fn an_owner_that_does_not_listen_is_named() {
        let folder = tempfile::tempdir().expect("folder");
        let database = folder.path().join("app.db");
        let _owner = Owner::acquire(&database).expect("owner");
        let error = ask(&database, &Request::Status).await.expect_err("nobody listens");
        assert!(error.to_string().contains(&std::process::id().to_string()), "{error}");
    }
}
