//! A node that runs: started from its config, stopped by one token.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::admin::{self, Owner};
use crate::apply::Applier;
use crate::capture::reader::LogReader;
use crate::config::{LinkConfig, NodeConfig};
use crate::link::{self, Address, Listener};
use crate::model::{Clock, SystemClock};
use crate::replicate::feed::Feed;
use crate::replicate::runner::{Meeting, Runner};
use crate::replicate::session::{End, LinkSettings};
use crate::sqlite::Db;
use crate::telemetry::{Board, Direction, LinkHandle};

use super::{Opened, cloudquery, control, events, foreign_keys, listener, open, upkeep};

/// What a node needs besides its config.
#[derive(Clone)]
pub struct Surroundings {
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
    /// Whether its peers run in this process, so that what one of them says of a failure is in the log already.
    pub peers_log_here: bool,
    /// What stops it, where it is to stop at the same instant as others that have the same. `None`: one of its own.
    pub stop: Option<CancellationToken>,
}

impl Default for Surroundings {
    fn default() -> Self {
        Self { clock: Arc::new(SystemClock), peers_log_here: false, stop: None }
    }
}

/// Why a node stopped by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Its database file was replaced by another; start it again to open that one.
    FileReplaced,
    /// Its change log was full; start it again to begin a new one.
    LogFull,
    /// A thread of its database panicked; start it again.
    ThreadEnded,
    /// Its capture was removed by `teardown`; there is nothing left to do.
    TornDown,
}

/// A node that runs.
pub struct Node {
    /// How it is doing.
    pub board: Board,
    /// What setup did and which tables it skipped, where the node captures.
    pub installed: Option<crate::capture::Installed>,
    parts: Parts,
    tasks: JoinSet<()>,
    grace: Duration,
    // Dropped last: while it is held, no other process owns the database.
    _owner: Owner,
}

/// What the tasks of a node share.
#[derive(Clone)]
pub(crate) struct Parts {
    pub(crate) config: Arc<NodeConfig>,
    pub(crate) board: Board,
    pub(crate) feed: Option<Arc<Feed<LogReader>>>,
    pub(crate) applier: Option<Db<Applier>>,
    pub(crate) stop: CancellationToken,
    pub(crate) ended: Arc<Ending>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) peers_log_here: bool,
}

/// Where a node's tasks say that it should end.
#[derive(Default)]
pub(crate) struct Ending {
    why: std::sync::OnceLock<Ended>,
    told: Notify,
}

impl Ending {
    pub(crate) fn end(&self, why: Ended) {
        let _ = self.why.set(why);
        self.told.notify_one();
    }
}

impl Node {
    /// Opens the database, installs the capture where a link sends, and starts everything.
    ///
    /// # Errors
    /// Whatever stands in the way: another owner, a file that cannot be used, a port that is taken.
    pub async fn start(config: NodeConfig, surroundings: &Surroundings) -> Result<Self> {
        let config = Arc::new(config);
        let board = Board::new(&config.name, &config.database.display().to_string(), Arc::clone(&surroundings.clock));
        let owner = admin::own(&config.database).await?;
        // Before anything is put into the database: a port that is taken leaves nothing behind.
        let sockets = Sockets::bind(&config).await?;
        let opened =
            open::open(&config, &board, surroundings).await.with_context(|| config.database.display().to_string())?;
        let stop = surroundings.stop.clone().unwrap_or_default();
        let parts = Parts {
            config: Arc::clone(&config),
            board: board.clone(),
            feed: opened.feed.clone(),
            applier: opened.applier.clone(),
            stop: stop.clone(),
            ended: Arc::default(),
            clock: Arc::clone(&surroundings.clock),
            peers_log_here: surroundings.peers_log_here,
        };
        let mut tasks = JoinSet::new();
        tasks.spawn(control::serve(owner.socket().to_owned(), parts.clone()));
        start_links(&parts, &opened, sockets.link, &mut tasks)?;
        if let Some(listener) = sockets.cloudquery {
            cloudquery::serve(&parts, listener, &mut tasks);
        }
        if let Some(listener) = sockets.admin {
            let serving = admin::serve_http(listener, control::health(&parts), stop.clone());
            tasks.spawn(async move {
                if let Err(error) = serving.await {
                    tracing::error!(error = &error as &dyn std::error::Error, "serving /status.json ended");
                }
            });
        }
        events::start(&parts, &mut tasks)?;
        foreign_keys::start(&parts, &mut tasks);
        if let Some(feed) = &parts.feed {
            upkeep::start(&parts, feed, opened.wake, &mut tasks);
        } else {
            tasks.spawn(upkeep::watch_file(parts.clone()));
        }
        Ok(Self { board, installed: opened.installed, parts, tasks, grace: config.grace, _owner: owner })
    }

    /// Why it should end by itself, if it should.
    pub fn ended_because(&self) -> Option<Ended> {
        self.parts.ended.why.get().copied()
    }

    /// Waits until the node should end by itself.
    pub async fn ended(&self) -> Ended {
        loop {
            let told = self.parts.ended.told.notified();
            if let Some(why) = self.parts.ended.why.get() {
                return *why;
            }
            told.await;
        }
    }

    /// The reader of its database, where it captures.
    pub fn feed(&self) -> Option<&Arc<Feed<LogReader>>> {
        self.parts.feed.as_ref()
    }

    /// The names of the tables that it captures.
    ///
    /// # Errors
    /// SQLite's, or nothing is captured.
    pub async fn captured(&self) -> Result<Vec<String>> {
        let feed = self.feed().context("nothing is captured here")?;
        let generations =
            feed.maintainer().call(|maintainer| crate::capture::tables(maintainer.connection())).await??;
        Ok(generations.into_iter().map(|generation| generation.schema_name).collect())
    }

    /// The node's database thread for what it receives.
    pub fn applier(&self) -> Option<&Db<Applier>> {
        self.parts.applier.as_ref()
    }

    /// Stops after the transaction at hand. Returns whether everything ended within the grace period; what did not is
    /// cut off, which loses nothing: it is as if the process had been killed.
    pub async fn stop(mut self) -> bool {
        self.parts.stop.cancel();
        let all = async { while self.tasks.join_next().await.is_some() {} };
        let in_time = tokio::time::timeout(self.grace, all).await.is_ok();
        self.tasks.abort_all();
        while self.tasks.join_next().await.is_some() {}
        let Parts { feed, applier, .. } = self.parts;
        if let Some(feed) = feed.and_then(Arc::into_inner) {
            feed.close().await;
        }
        if let Some(applier) = applier {
            applier.close().await;
        }
        in_time
    }
}

/// Where a node listens.
struct Sockets {
    link: Option<Listener>,
    admin: Option<TcpListener>,
    cloudquery: Option<crate::cloudquery::server::Listener>,
}

impl Sockets {
    async fn bind(config: &NodeConfig) -> Result<Self> {
        let link = match &config.listen {
            Some(address) => Some(link::bind(&address.parse::<Address>().context("listen")?).await?),
            None => None,
        };
        let admin = match &config.admin_listen {
            Some(address) => Some(admin::http::bind(address).await?),
            None => None,
        };
        let cloudquery = match &config.cloudquery_listen {
            Some(address) => Some(cloudquery::bind(address).await?),
            None => None,
        };
        Ok(Self { link, admin, cloudquery })
    }
}

fn start_links(parts: &Parts, opened: &Opened, socket: Option<Listener>, tasks: &mut JoinSet<()>) -> Result<()> {
    let mut waiting = listener::Waiting::new();
    for link in &parts.config.links {
        let (stop, broken) = (parts.stop.clone(), parts.stop.child_token());
        tasks.spawn(end_with(parts.clone(), broken.clone()));
        if let Some(address) = &link.cloudquery {
            tasks.spawn(cloudquery::link(parts, opened, (link, address), broken)?.run());
            continue;
        }
        let meeting = match &link.peer {
            Some(peer) => {
                Meeting::Dial(peer.parse::<Address>().with_context(|| format!("link \"{}\": peer", link.name))?)
            }
            None => Meeting::Await(listener::expect(&mut waiting, &link.name)),
        };
        tasks.spawn(Runner { end: end(parts, opened, link), meeting, stop, broken }.run());
    }
    if let Some(socket) = socket {
        if !parts.peers_log_here {
            tracing::info!(address = %socket.local_address(), "listening");
        }
        listener::start(socket, waiting, &parts.config.name, (&parts.stop, tasks));
    }
    Ok(())
}

/// Ends the node when a database's thread has ended: nothing of it would ever work again.
async fn end_with(parts: Parts, broken: CancellationToken) {
    broken.cancelled().await;
    if !parts.stop.is_cancelled() {
        parts.ended.end(Ended::ThreadEnded);
    }
}

fn end(parts: &Parts, opened: &Opened, link: &LinkConfig) -> End<LogReader> {
    let status =
        |wanted: bool, direction| wanted.then(|| parts.board.link(&link.name, direction, link.peer.as_deref()));
    // Where both ends are here, the one that receives tells how it goes.
    let sending = |status: LinkHandle| if parts.peers_log_here { status.quietly() } else { status };
    let (sends, receives) = (link.directions.sends(), link.directions.receives());
    End {
        settings: LinkSettings {
            peers_log_here: parts.peers_log_here,
            ..open::link_settings(&parts.config, link, opened.id)
        },
        feed: opened.feed.clone().filter(|_| sends),
        applier: opened.applier.clone().filter(|_| receives),
        send_status: status(sends, Direction::Send).map(sending),
        receive_status: status(receives, Direction::Receive),
        clock: Arc::clone(&parts.clock),
    }
}
