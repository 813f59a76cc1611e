//! One connection from Hello to its end: both halves of a link, as far as its directions ask for them.
//!
//! The end that dials says Hello first; the other needs its name to know which link this is, and then answers.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::Error;
use super::feed::Feed;
use super::halves::Halves;
use super::meeting::Seed;
use super::receiver::held_table;
use super::sender::{Start, WindowShape};
use crate::apply::{Applier, LinkRules};
use crate::capture::source::ChangeSource;
use crate::capture::{CheckpointVerdict, LogState};
use crate::codec::Compression;
use crate::link::{self, Connection, Frame, FrameStream, Held, HeldTable, Hello, LogHello};
use crate::model::{Clock, NodeId, Trouble};
use crate::sqlite::Db;
use crate::telemetry::LinkHandle;

/// How long an end waits for the other's Hello.
const HELLO_WAIT: Duration = Duration::from_secs(10);
/// How long to wait until the peer has read our fault and closes.
const FAREWELL_WAIT: Duration = Duration::from_secs(2);

/// What a node makes of one link of its config.
pub struct LinkSettings {
    /// This node's name.
    pub our_name: String,
    /// This node's id.
    pub our_id: NodeId,
    /// This node's file, for messages.
    pub database: String,
    /// The peer's name.
    pub peer_name: String,
    /// How windows to the peer are cut, where we send.
    pub shape: WindowShape,
    /// Compression that the config asks for; `None` is `auto`.
    pub compression: Option<Compression>,
    /// What we let the peer do, where we receive.
    pub rules: Arc<LinkRules>,
    /// Whether a checkpoint that the peer's log did not produce is answered by copying everything again.
    pub resnapshot_on_divergence: bool,
    /// Where windows are spooled.
    pub spool_dir: PathBuf,
    /// Two-way: who wins which table's conflicts, in words that both ends must have alike.
    pub policies: String,
    /// Two-way: how a first contact of two full databases goes.
    pub seed: Option<Seed>,
    /// Whether the peer logs into the same place, so that a failure which it tells of is there already.
    pub peers_log_here: bool,
}

/// One end of a link, ready for connections.
pub struct End<S: ChangeSource> {
    /// What the config says.
    pub settings: LinkSettings,
    /// The reader, where this end sends.
    pub feed: Option<Arc<Feed<S>>>,
    /// The applier, where this end receives.
    pub applier: Option<Db<Applier>>,
    /// Where `status` reads what we send.
    pub send_status: Option<LinkHandle>,
    /// Where `status` reads what we receive.
    pub receive_status: Option<LinkHandle>,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
}

/// What an end has said of its database in this session, and decides by.
pub(super) struct Told {
    /// Its log, where it sends.
    pub(super) log: Option<LogState>,
    /// Whether no row of the link's tables was there then.
    pub(super) empty: bool,
}

/// Reads the peer's Hello.
///
/// # Errors
/// [`Error::Silent`], [`Error::Protocol`], the peer's own fault, or the connection's.
pub async fn read_hello(stream: &mut FrameStream) -> Result<Hello, Error> {
    let silent = Error::Silent { what: "Hello", seconds: HELLO_WAIT.as_secs() };
    match timeout(HELLO_WAIT, stream.next()).await.map_err(|_| silent)?? {
        Some(Frame::Hello(hello)) => Ok(hello),
        Some(Frame::Fault(trouble)) => Err(Error::Peer(trouble)),
        Some(_) => Err(Error::Protocol { what: "something else before Hello" }),
        None => Err(Error::Link(link::Error::Closed { peer: "the peer".to_owned() })),
    }
}

impl<S: ChangeSource> End<S> {
    /// Whether this end sends.
    pub fn sends(&self) -> bool {
        self.feed.is_some()
    }

    /// Whether this end receives.
    pub fn receives(&self) -> bool {
        self.applier.is_some()
    }

    /// A failure as `status` and the peer see it: with the file that it is about, or the node that told of it.
    pub fn trouble(&self, error: &Error) -> Trouble {
        let trouble = error.trouble();
        let message = match error {
            Error::Peer(_) => format!("at \"{}\": {}", self.settings.peer_name, trouble.message),
            Error::Read(_) | Error::Capture(_) | Error::Apply(_) | Error::Sqlite(_)
                if !trouble.message.contains(&self.settings.database) =>
            {
                format!("{}: {}", self.settings.database, trouble.message)
            }
            _ => return trouble,
        };
        Trouble { message, ..trouble }
    }

    /// The status handles of this end's directions.
    pub fn statuses(&self) -> impl Iterator<Item = &LinkHandle> {
        self.send_status.iter().chain(&self.receive_status)
    }

    /// Runs one connection to its end. `greeting` is the peer's Hello where it dialled.
    ///
    /// # Errors
    /// Why it ended, if not because of `stop`. The peer was told.
    pub async fn run(
        &self,
        connection: Connection,
        greeting: Option<Hello>,
        stop: &CancellationToken,
    ) -> Result<(), Error> {
        let mut connection = connection;
        let outcome = self.greet_and_run(&mut connection, greeting, stop).await;
        if let Err(error) = &outcome
            && !matches!(error, Error::Peer(_) | Error::Link(_))
        {
            let _ = connection.sink.control(Frame::Fault(self.trouble(error)));
        }
        connection.finish(FAREWELL_WAIT).await;
        outcome
    }

    async fn greet_and_run(
        &self,
        connection: &mut Connection,
        greeting: Option<Hello>,
        stop: &CancellationToken,
    ) -> Result<(), Error> {
        let Connection { sink, stream, local, .. } = &mut *connection;
        let held = self.held().await?;
        let told = self.told().await?;
        sink.data(Frame::Hello(self.hello(&held, &told, *local))).await?;
        let theirs = match greeting {
            Some(hello) => hello,
            None => read_hello(stream).await?,
        };
        self.check(&theirs)?;
        let start = self.agree(connection, &theirs, told).await?;
        let Connection { sink, stream, .. } = connection;
        let held = match &self.applier {
            Some(applier) => {
                let (name, id) = (theirs.name.clone(), theirs.node);
                applier.call(move |applier| applier.held(&name, Some(id))).await??
            }
            None => crate::apply::Held::default(),
        };
        self.show_held(&held);
        for status in self.statuses() {
            status.connected(true);
        }
        let halves = Halves::start(self, sink, (&theirs, &held, start), stop).await?;
        halves.run(stream, stop).await
    }

    /// Tells `status` what is here of the peer before anything comes.
    fn show_held(&self, held: &crate::apply::Held) {
        let Some(status) = &self.receive_status else { return };
        status.tables(held.tables.iter().map(held_table));
        if let Some(checkpoint) = held.checkpoint {
            status.applied(checkpoint.position, checkpoint.ts_ms);
        }
    }

    async fn held(&self) -> Result<Option<crate::apply::Held>, Error> {
        let Some(applier) = &self.applier else { return Ok(None) };
        let name = self.settings.peer_name.clone();
        Ok(Some(applier.call(move |applier| applier.held(&name, None)).await??))
    }

    /// What this end says of its database. The log's end is looked at first: what is written after that is beyond it.
    async fn told(&self) -> Result<Told, Error> {
        let log = match &self.feed {
            Some(feed) => Some(feed.log_state().await?),
            None => None,
        };
        Ok(Told { log, empty: self.is_empty().await? })
    }

    fn hello(&self, held: &Option<crate::apply::Held>, told: &Told, local: bool) -> Hello {
        let log =
            |state: &LogState| LogHello { epoch: state.epoch, head: state.head.position.seq, oldest: state.oldest };
        let globs = self.settings.shape.selection.globs();
        Hello {
            versions: link::VERSIONS.to_vec(),
            node: self.settings.our_id,
            name: self.settings.our_name.clone(),
            to_name: self.settings.peer_name.clone(),
            sends: self.sends(),
            receives: self.receives(),
            tables: (globs.0.to_vec(), globs.1.to_vec()),
            kinds: self.settings.rules.kinds,
            policies: self.settings.policies.clone(),
            seed: self.settings.seed.as_ref().map(Seed::word),
            empty: told.empty,
            compressions: compressions(self.settings.compression, local),
            held: held.as_ref().map(hello_held),
            log: told.log.as_ref().map(log),
            on_divergence_resnapshot: self.settings.resnapshot_on_divergence,
        }
    }

    /// Whether the two ends fit together.
    fn check(&self, theirs: &Hello) -> Result<(), Error> {
        let ours = &self.settings;
        let mismatch = |code: &str, message: String, hint: &str| {
            Err(Error::Mismatch(Trouble { code: code.to_owned(), message, hint: hint.to_owned() }))
        };
        if link::common_version(&theirs.versions).is_err() {
            let message = format!(
                "node \"{}\" speaks versions {:?} of the link's protocol, \"{}\" speaks {:?}",
                theirs.name,
                theirs.versions,
                ours.our_name,
                link::VERSIONS
            );
            return mismatch("protocol_version", message, "upgrade the older Twinlite");
        }
        if theirs.name != ours.peer_name || theirs.to_name != ours.our_name {
            let message = format!(
                "node \"{}\" looks for \"{}\", this is \"{}\", whose link is to \"{}\"",
                theirs.name, theirs.to_name, ours.our_name, ours.peer_name
            );
            return mismatch("name", message, "make the two configs name each other");
        }
        if theirs.node == ours.our_id {
            let message = format!("both databases carry node id {}: one is a copy of the other's file", ours.our_id);
            return mismatch("same_node", message, "run `twinlite teardown` on the copy");
        }
        if (self.sends() && !theirs.receives)
            || (self.receives() && !theirs.sends)
            || !(self.sends() || self.receives())
        {
            let message = format!(
                "directions do not meet: here {}, at \"{}\" {}",
                directions(self.sends(), self.receives()),
                theirs.name,
                directions(theirs.sends, theirs.receives)
            );
            return mismatch("directions", message, "let one end say send where the other says receive, or both both");
        }
        Ok(())
    }

    /// Where sending one way begins, by what the receiver holds.
    pub(super) async fn start_one_way(&self, feed: &Feed<S>, theirs: &Hello) -> Result<Start, Error> {
        let state = feed.log_state().await?;
        let head = state.head.position.seq;
        let anew = Start { from: state.head, lost_history: true, union: false, head, held_counts: true };
        let Some(checkpoint) = theirs.held.as_ref().and_then(|held| held.checkpoint) else { return Ok(anew) };
        match feed.judge(checkpoint).await? {
            CheckpointVerdict::Known => {
                Ok(Start { from: checkpoint, lost_history: false, union: false, head, held_counts: true })
            }
            CheckpointVerdict::CutOff => {
                tracing::info!(
                    peer = theirs.name,
                    "the log no longer reaches back to the peer's checkpoint: copy by digest"
                );
                Ok(anew)
            }
            CheckpointVerdict::Diverged { why } if theirs.on_divergence_resnapshot => {
                tracing::warn!(peer = theirs.name, why, "the logs diverged: copy by digest, as the peer's config says");
                Ok(anew)
            }
            CheckpointVerdict::Diverged { why } => Err(Error::Mismatch(Trouble {
                code: "divergence".to_owned(),
                message: format!(
                    "\"{}\" holds changes up to {} of \"{}\", which this log did not produce: {why}",
                    theirs.name, checkpoint.position, self.settings.our_name
                ),
                hint: "the source was restored from a backup or lost its last commits; set \
                       `on_divergence: resnapshot` on the receiving link to make the replica equal again"
                    .to_owned(),
            })),
        }
    }
}

fn hello_held(held: &crate::apply::Held) -> Held {
    Held {
        checkpoint: held.checkpoint,
        tables: held.tables.iter().map(for_hello).collect(),
        lost_history: held.copy_due,
        union: held.union,
    }
}

fn for_hello(table: &crate::apply::HeldTable) -> HeldTable {
    HeldTable { progress: table.progress.clone(), name: table.name.clone(), rows: table.rows }
}

fn directions(sends: bool, receives: bool) -> &'static str {
    match (sends, receives) {
        (true, true) => "both",
        (true, false) => "send",
        (false, true) => "receive",
        (false, false) => "neither",
    }
}

fn compressions(asked: Option<Compression>, local: bool) -> Vec<String> {
    let word = match asked {
        Some(Compression::None) => "none",
        Some(Compression::Lz4) => "lz4",
        Some(Compression::Zstd) => "zstd",
        None if local => "none",
        None => "lz4",
    };
    vec![word.to_owned()]
}

/// What this end asks for, if it asks for one; otherwise what the peer does.
pub(super) fn agree(asked: Option<Compression>, theirs: &[String]) -> Compression {
    let by_word = |word: &String| match word.as_str() {
        "lz4" => Some(Compression::Lz4),
        "zstd" => Some(Compression::Zstd),
        "none" => Some(Compression::None),
        _ => None,
    };
    asked.or_else(|| theirs.iter().find_map(by_word)).unwrap_or(Compression::None)
}
