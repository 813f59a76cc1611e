//! Keeps one link connected: dials or waits, runs the session, waits a while, and begins again.
//!
//! A failure that may pass is tried again with backoff. One that needs a person halts the link: `status` says what and
//! where, and the link looks again every few seconds, so that it goes on by itself once the person has acted.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::Error;
use super::session::End;
use super::tries::Tries;
use crate::capture::source::ChangeSource;
use crate::link::{self, Address, Connection, DialOptions, Frame, Hello};
use crate::model::Trouble;
use crate::telemetry::{Direction, LinkState};

/// A session that lasted this long was a good one: the next failure is a new one.
const STABLE_AFTER: Duration = Duration::from_secs(10);

/// Nodes of a name that is taken which are told so at one time; more are just left.
const REFUSED_MAX: usize = 4;
/// How long such a node has to read why.
const REFUSED_WAIT: Duration = Duration::from_secs(2);

/// How the two ends of a link come together.
pub enum Meeting {
    /// We dial.
    Dial(Address),
    /// The peer dials; the node's listener hands over what came, with its Hello.
    Await(mpsc::Receiver<(Connection, Hello)>),
}

/// One link of a node, for as long as the node runs.
pub struct Runner<S: ChangeSource> {
    /// Our end.
    pub end: End<S>,
    /// How it meets the peer.
    pub meeting: Meeting,
    /// Ends it, after the transaction at hand.
    pub stop: CancellationToken,
    /// Cancelled where a database's thread has ended, which only a node that starts anew can mend.
    pub broken: CancellationToken,
}

impl<S: ChangeSource> Runner<S> {
    /// Runs until `stop` is cancelled.
    pub async fn run(mut self) {
        let mut tries = Tries::default();
        let mut next = None;
        while !self.stop.is_cancelled() {
            let met = match next.take() {
                Some(met) => Ok(Some(met)),
                None => self.meet().await,
            };
            let outcome = match met {
                Ok(None) => return,
                Ok(Some((connection, greeting))) => {
                    let begun = Instant::now();
                    let (outcome, interrupted_by) = self.session(connection, greeting, tries.failed_before()).await;
                    next = interrupted_by;
                    if begun.elapsed() >= STABLE_AFTER {
                        tries.was_good();
                    }
                    outcome
                }
                Err(error) => Err(error),
            };
            let mut flowed = false;
            for status in self.end.statuses() {
                flowed |= status.connected(false);
            }
            let Err(error) = outcome else {
                tries.ended();
                continue;
            };
            // What ends while this end is stopping too was stopped.
            if next.is_none() && !self.stop.is_cancelled() {
                self.pause((&error, flowed), &mut tries).await;
            }
        }
    }

    async fn meet(&mut self) -> Result<Option<(Connection, Option<Hello>)>, Error> {
        tokio::select! {
            () = self.stop.cancelled() => Ok(None),
            met = async {
                match &mut self.meeting {
                    Meeting::Dial(address) => Ok(Some((link::dial(address, DialOptions::default()).await?, None))),
                    Meeting::Await(waiting) => {
                        Ok(waiting.recv().await.map(|(connection, hello)| (connection, Some(hello))))
                    }
                }
            } => met,
        }
    }

    /// Runs one session. A peer that dials again while one runs has lost it, so the new connection takes over. Another node
    /// of the same name is refused: the two would take the link from each other for ever, and each would let the log be
    /// pruned that the other needs.
    async fn session(
        &mut self,
        connection: Connection,
        greeting: Option<Hello>,
        again: bool,
    ) -> (Result<(), Error>, Option<(Connection, Option<Hello>)>) {
        let stop = self.stop.child_token();
        let peer = connection.peer.clone();
        let link = self.end.settings.peer_name.as_str();
        // A halted link connects every few seconds; that it goes on is told by its being live.
        match again || self.end.settings.peers_log_here {
            true => tracing::debug!(link, peer, "connected"),
            false => tracing::info!(link, peer, "connected"),
        }
        if matches!(self.meeting, Meeting::Await(_)) {
            self.end.statuses().for_each(|status| status.peer(&peer));
        }
        let node = greeting.as_ref().map(|hello| hello.node);
        let session = self.end.run(connection, greeting, &stop);
        tokio::pin!(session);
        let Meeting::Await(waiting) = &mut self.meeting else { return (session.await, None) };
        let mut refused = JoinSet::new();
        loop {
            tokio::select! {
                outcome = &mut session => return (outcome, None),
                Some(_) = refused.join_next() => {}
                Some((connection, hello)) = waiting.recv() => {
                    if node.is_some_and(|node| node != hello.node) {
                        if refused.len() < REFUSED_MAX {
                            refused.spawn(refuse(connection, hello));
                        }
                        continue;
                    }
                    stop.cancel();
                    return (session.await, Some((connection, Some(hello))));
                }
            }
        }
    }

    /// Says what is wrong, once, and waits as it asks. `flowed`: whether the two had met, so that windows could flow.
    async fn pause(&self, (error, flowed): (&Error, bool), tries: &mut Tries) {
        let trouble = self.end.trouble(error);
        if matches!(error, Error::Sqlite(crate::sqlite::Error::Closed(_))) {
            self.broken.cancel();
        }
        let said_by_peer = self.end.settings.peers_log_here && matches!(error, Error::Peer(_));
        let wait = tries.failed(&self.end.settings.peer_name, error, (&trouble, said_by_peer));
        let state = error.link_state();
        let has = |direction: &Direction| match direction {
            Direction::Send => self.end.sends(),
            Direction::Receive => self.end.receives(),
        };
        let stays = flowed && state != LinkState::Connecting;
        let failed = error.direction().filter(|direction| stays && has(direction));
        for status in self.end.statuses() {
            status.trouble(&trouble, state, failed);
        }
        if let Some(status) = self.end.statuses().next() {
            status.board().metrics().reconnects_total.one();
        }
        tokio::select! {
            () = self.stop.cancelled() => {}
            () = sleep(wait) => {}
        }
    }
}

/// Tells a node that another one has its name.
async fn refuse(connection: Connection, hello: Hello) {
    tracing::warn!(
        link = hello.name,
        peer = connection.peer,
        node = %hello.node,
        "another node of that name is connected; this one was refused"
    );
    let trouble = Trouble {
        code: "name_taken".to_owned(),
        message: format!("another node named \"{}\" is connected; this one is {}", hello.name, hello.node),
        hint: "give each replica a name of its own, and a link of that name at the other end".to_owned(),
    };
    let _ = connection.sink.control(Frame::Fault(trouble));
    connection.finish(REFUSED_WAIT).await;
}
