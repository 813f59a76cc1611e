//! Who looks after the database while events are read: the process that owns it, and without one, an engine.
//!
//! The first engine at a database owns it, with the lock file and the control socket that a node has, and does what a node
//! does besides sending: keeps capture right when the schema drifts, prunes, and answers commands. Further engines, and one
//! beside a node, only read the log and note their own positions, each in a transaction of its own: SQLite's write lock
//! keeps them apart, and a consumer's row is its own. When the owner leaves, one of them takes over; when a node starts, the
//! engine that owns makes room for it, and goes on beside it.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::control::answer;
use super::{Error, start};
use crate::admin::{self, Owner, Request, Response, SetupRequest, serve_control};
use crate::capture::{self, Maintainer, Retention, change_log, is_large};
use crate::model::Clock;
use crate::sqlite::Db;
use crate::telemetry::Board;

/// How often the log is looked after, and whether the owner has left. A prune needs a second of quiet.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// For how long an engine that made room for a node does not try to own the database again: the node is starting.
const ROOM_FOR: Duration = Duration::from_secs(10);

/// What a keeper needs to know.
#[derive(Clone)]
pub(super) struct Keeping {
    pub database: PathBuf,
    /// Whether this process owns the database otherwise.
    pub beside: bool,
    /// What bounds the log, where that was said.
    pub retention: Option<Retention>,
    pub clock: Arc<dyn Clock>,
}

/// Owns the database where nobody else does.
pub(super) struct Keeper {
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

/// Whether the schema was compared with what is captured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Compared {
    /// By the owner.
    Done,
    /// Nobody else will.
    OursToDo,
    /// The owner will.
    NotYet,
}

pub(super) struct Shared {
    pub keeping: Keeping,
    pub maintainer: Db<Maintainer>,
    pub board: Board,
    owner: Mutex<Option<Owner>>,
    /// Stops the task.
    stop: CancellationToken,
    /// Capture was removed at our hands.
    pub torn_down: CancellationToken,
    /// Whether there is something to look after.
    installed: AtomicBool,
    /// Ticks when the database may have changed.
    changed: watch::Sender<u64>,
    /// Ticks when this engine comes to own the database, or no longer does.
    moved: Notify,
}

impl Keeper {
    /// Tries to own the database, and goes on trying.
    ///
    /// # Errors
    /// Files beside the database cannot be written.
    pub fn start(keeping: Keeping, maintainer: Db<Maintainer>) -> Result<Self, Error> {
        let database = keeping.database.display().to_string();
        let board = Board::new("events", &database, Arc::clone(&keeping.clock));
        let shared = Arc::new(Shared {
            owner: Mutex::new(None),
            stop: CancellationToken::new(),
            torn_down: CancellationToken::new(),
            installed: AtomicBool::new(false),
            changed: watch::channel(0).0,
            moved: Notify::new(),
            keeping,
            maintainer,
            board,
        });
        shared.acquire()?;
        let task = tokio::spawn(keep(Arc::clone(&shared)));
        Ok(Self { shared, task })
    }

    /// Whether this engine owns the database.
    pub fn owns(&self) -> bool {
        self.shared.owns()
    }

    /// Where `status` reads, for as long as this engine owns the database.
    pub fn board(&self) -> &Board {
        &self.shared.board
    }

    /// Capture is in place: from here on it is looked after.
    pub fn installed(&self) {
        self.shared.installed.store(true, Ordering::Release);
        self.shared.tick();
    }

    /// The database may have changed.
    pub fn changed(&self) {
        self.shared.tick();
    }

    /// Has whoever owns the database compare the schema, which moved, with what is captured.
    pub async fn compare(&self) -> Result<Compared, Error> {
        if self.owns() {
            return Ok(Compared::OursToDo);
        }
        let Keeping { database, retention, .. } = self.shared.keeping.clone();
        match admin::ask(&database, &Request::Setup(SetupRequest::default())).await {
            Ok(Some(response)) if response.ok => return Ok(Compared::Done),
            Ok(Some(_)) => {}
            // It left, or hangs: whoever owns the database next compares.
            Ok(None) | Err(_) => return Ok(Compared::NotYet),
        }
        // A node that only receives captures nothing, and what is captured is as whoever set it up last left it.
        self.shared.maintainer.call(move |maintainer| start::read_options(maintainer, retention)).await??;
        Ok(Compared::OursToDo)
    }

    /// Cancelled when capture was removed at our hands.
    pub fn torn_down(&self) -> &CancellationToken {
        &self.shared.torn_down
    }

    /// Leaves the database to whoever comes next.
    pub async fn stop(self) {
        self.shared.stop.cancel();
        // A panic in it was told on stderr already.
        let _ = self.task.await;
        self.shared.release();
    }
}

impl Shared {
    fn owner(&self) -> std::sync::MutexGuard<'_, Option<Owner>> {
        self.owner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn owns(&self) -> bool {
        self.owner().is_some()
    }

    pub fn tick(&self) {
        self.changed.send_modify(|ticks| *ticks = ticks.wrapping_add(1));
    }

    fn acquire(&self) -> Result<(), Error> {
        if self.keeping.beside || self.owns() {
            return Ok(());
        }
        match Owner::acquire(&self.keeping.database) {
            Ok(owner) => *self.owner() = Some(owner),
            Err(admin::Error::Owned { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// Owns the database where its owner has left, captured as that one left it.
    async fn take_over(&self) -> Result<(), Error> {
        self.acquire()?;
        if self.owns() {
            let retention = self.keeping.retention;
            self.maintainer.call(move |maintainer| start::read_options(maintainer, retention)).await??;
        }
        Ok(())
    }

    fn release(&self) {
        drop(self.owner().take());
        self.moved.notify_one();
    }
}

/// Owns, looks after and answers, or waits for the owner to leave; until it is stopped.
async fn keep(shared: Arc<Shared>) {
    let mut room_until: Option<Instant> = None;
    loop {
        let socket = shared.owner().as_ref().map(|owner| owner.socket().to_owned());
        if let Some(socket) = socket {
            tracing::debug!("own the database: look after its log");
            let leave = shared.stop.child_token();
            let handler = {
                let shared = Arc::clone(&shared);
                move |request| respond(Arc::clone(&shared), request)
            };
            let serving = async {
                if let Err(error) = serve_control(&socket, handler, leave.clone()).await {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "answering commands on the database ended"
                    );
                }
            };
            let looking = async {
                look_after(&shared).await;
                leave.cancel();
            };
            tokio::join!(serving, looking);
            room_until = Some(Instant::now() + ROOM_FOR);
        }
        tokio::select! {
            () = shared.stop.cancelled() => return,
            () = sleep(shared.keeping.clock.until_beat(LOOK_EVERY)) => {}
        }
        if room_until.is_some_and(|until| Instant::now() < until) {
            continue;
        }
        if let Err(error) = shared.take_over().await {
            tracing::debug!(error = &error as &dyn std::error::Error, "own the database");
        }
    }
}

async fn respond(shared: Arc<Shared>, request: Request) -> Response {
    if request != Request::MakeRoom {
        return answer(&shared, request).await;
    }
    // What is being written is finished first.
    if shared.maintainer.call(|_| ()).await.is_err() {
        return Response::failed(vec!["the database's thread has ended".to_owned()]);
    }
    shared.release();
    Response::done(vec!["the database is free".to_owned()])
}

/// Looks after the log for as long as this engine owns it.
async fn look_after(shared: &Shared) {
    let mut changed = shared.changed.subscribe();
    let mut looked_at = None;
    loop {
        tokio::select! {
            () = shared.stop.cancelled() => return,
            () = shared.moved.notified() => if !shared.owns() { return },
            () = sleep(shared.keeping.clock.until_beat(LOOK_EVERY)) => {}
        }
        if !shared.installed.load(Ordering::Acquire) || !shared.owns() {
            continue;
        }
        let ticks = *changed.borrow_and_update();
        let quiet = looked_at.replace(ticks) == Some(ticks);
        if let Err(error) = look(shared, quiet).await {
            tracing::debug!(error = &error as &dyn std::error::Error, "look after the log");
        }
        if !quiet {
            continue;
        }
        // Nothing changes while nobody writes: an idle engine does no work.
        tokio::select! {
            () = shared.stop.cancelled() => return,
            () = shared.moved.notified() => if !shared.owns() { return },
            _ = changed.changed() => changed.mark_changed(),
        }
    }
}

async fn look(shared: &Shared, quiet: bool) -> Result<(), Error> {
    let reconciled = shared.maintainer.call(Maintainer::reconcile).await??;
    for note in &reconciled.notes {
        tracing::info!("{note}");
    }
    let read = |maintainer: &mut Maintainer| {
        let tail = change_log::tail(maintainer.connection())?;
        Ok::<_, capture::Error>((maintainer.log_state()?, tail, maintainer.options().retention))
    };
    let (state, tail, retention) = shared.maintainer.call(read).await??;
    shared.board.set_node(state.node);
    shared.board.set_log(state.rows, state.bytes);
    shared.board.set_log_tail(tail);
    if !(quiet || is_large(&state, &retention)) {
        return Ok(());
    }
    loop {
        let pruned = shared.maintainer.call(|maintainer| maintainer.prune(Vec::new())).await??;
        for consumer in &pruned.cut_off {
            tracing::warn!(consumer, "away for longer than the log is kept: what it has not read is gone");
        }
        if pruned.limit_reached {
            tracing::warn!("the log is full, so the triggers stopped: begin a new one");
            shared.maintainer.call(Maintainer::install).await??;
            return Ok(());
        }
        if !pruned.more || shared.stop.is_cancelled() || !shared.owns() {
            return Ok(());
        }
    }
}
