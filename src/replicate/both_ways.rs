//! How the two ends of a link that both send begin: each tells what it makes of the other's checkpoint, both decide alike
//! from that, and keep what they decided, one after the other ([`Order`]), each before it sends or takes a window.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use super::meeting::{self, Decided, Order, Seed, Side};
use super::sender::Start;
use super::session::{End, Told};
use super::{Error, feed::Feed};
use crate::apply::{Applier, FromPeer, Held, How, Meeting};
use crate::capture::source::{ChangeSource, TwoWay};
use crate::capture::{self, CheckpointVerdict, Maintainer};
use crate::link::{self, Connection, Frame, FrameStream, Hello, Verdict};
use crate::model::{CopyState, Trouble};
use crate::telemetry::failpoint;

/// How long an end waits for the other's verdict: it may be installing, or copying a database's worth of progress.
const VERDICT_WAIT: Duration = Duration::from_secs(30);

impl<S: ChangeSource> End<S> {
    /// What windows to this peer say besides, where both ends send. How many of its windows were here before, whoever begins
    /// to send fills in.
    pub(super) fn two_way(&self, theirs: &Hello) -> Option<TwoWay> {
        let both = self.sends() && self.receives() && theirs.sends && theirs.receives;
        let (peer, yields) = (theirs.node, self.settings.our_id > theirs.node);
        both.then_some(TwoWay { peer, yields, windows_before: 0 })
    }

    /// Whether no row of the link's tables is here.
    pub(super) async fn is_empty(&self) -> Result<bool, Error> {
        let Some(feed) = &self.feed else { return Ok(true) };
        let selection = std::sync::Arc::clone(&self.settings.shape.selection);
        let look = move |maintainer: &mut Maintainer| capture::holds_rows(maintainer.connection(), &selection);
        Ok(!feed.maintainer().call(look).await??)
    }

    /// Agrees with the peer on where sending begins, where this end sends.
    ///
    /// # Errors
    /// What stands between the two, or the connection's.
    pub(super) async fn agree(
        &self,
        connection: &mut Connection,
        theirs: &Hello,
        told: Told,
    ) -> Result<Option<Start>, Error> {
        let Some(feed) = &self.feed else {
            self.meet_sender(theirs).await?;
            return Ok(None);
        };
        if self.two_way(theirs).is_none() {
            return self.start_one_way(feed, theirs).await.map(Some);
        }
        if theirs.policies != self.settings.policies {
            return Err(Error::Mismatch(Trouble {
                code: "policies".to_owned(),
                message: format!(
                    "conflicts would be decided differently: here by {}, at \"{}\" by {}",
                    self.settings.policies, theirs.name, theirs.policies
                ),
                hint: "let `policy` and `policy_tables` be the same at both ends of the link".to_owned(),
            }));
        }
        // Before anything is kept at the other end: that it is who it was.
        let held = self.held_of(theirs).await?;
        let ours = self.verdict(feed, theirs, &told).await?;
        connection.sink.data(Frame::Verdict(ours.clone())).await?;
        let verdict = read_verdict(&mut connection.stream).await?;
        self.keep(connection, (theirs, told.empty, &held), (&ours, &verdict)).await.map(Some)
    }

    /// Where the peer only sends, into a database that others get what is in: its first contact is decided here alone, for
    /// nothing of ours goes there.
    async fn meet_sender(&self, theirs: &Hello) -> Result<(), Error> {
        let Some(applier) = self.applier.as_ref().filter(|_| self.settings.rules.merge.is_some()) else {
            return Ok(());
        };
        let (name, id, rules) = (theirs.name.clone(), theirs.node, Arc::clone(&self.settings.rules));
        let look = move |applier: &mut Applier| {
            let is_first = applier.held(&name, Some(id))?.checkpoint.is_none();
            Ok::<_, crate::apply::Error>(is_first && applier.holds_rows(&rules.selection)?)
        };
        if !applier.call(look).await?? {
            return Ok(());
        }
        let (us, them) = (self.settings.our_name.as_str(), (theirs.name.as_str(), theirs.empty));
        let (wins, how) = meeting::with_sender(us, them, self.settings.seed.as_ref()).map_err(Error::Mismatch)?;
        Ok(applier.call(move |applier| applier.meet_sender(id, wins, how)).await??)
    }

    async fn verdict(&self, feed: &Feed<S>, theirs: &Hello, told: &Told) -> Result<Verdict, Error> {
        let (known, diverged) = match theirs.held.as_ref().and_then(|held| held.checkpoint) {
            None => (false, None),
            Some(checkpoint) => match feed.judge(checkpoint).await? {
                CheckpointVerdict::Known => (true, None),
                CheckpointVerdict::CutOff => (false, None),
                CheckpointVerdict::Diverged { why } => (false, Some(why)),
            },
        };
        // Not the end that the log has by now: what was written since this end called itself empty would count as seen.
        let head = match &told.log {
            Some(log) => log.head,
            None => feed.log_state().await?.head,
        };
        Ok(Verdict { known, diverged, head })
    }

    /// Decides as the peer does, and keeps it.
    async fn keep(
        &self,
        connection: &mut Connection,
        (theirs, empty, held): (&Hello, bool, &Held),
        (our, their): (&Verdict, &Verdict),
    ) -> Result<Start, Error> {
        let Some(applier) = &self.applier else { return Err(Error::Protocol { what: "a verdict one way" }) };
        let (us, them) = self.sides((theirs, empty, held), (our, their));
        let ours = meeting::decide(&us, &them).map_err(Error::Mismatch)?;
        let at_them = meeting::decide(&them, &us).map_err(Error::Mismatch)?;
        let order = Order::of(&ours, &at_them);
        if order == Order::Second {
            read_kept(&mut connection.stream).await?;
        }
        self.tell(&them.name, &ours);
        let Decided { from_peer, to_peer } = ours;
        let (peer, peer_name, our_head) = (theirs.node, theirs.name.clone(), our.head.position.seq);
        let is_first = order == Order::First;
        let meeting = Meeting { peer, peer_name, from_peer, to_peer, our_head, is_first };
        applier.call(move |applier| applier.meet(&meeting)).await??;
        if is_first {
            failpoint::hit(failpoint::MEETING_KEPT_FIRST);
            connection.sink.data(Frame::Kept).await?;
        }
        start(at_them, our, theirs.held.as_ref())
    }

    /// What is held of this very peer.
    async fn held_of(&self, theirs: &Hello) -> Result<Held, Error> {
        let Some(applier) = &self.applier else { return Ok(Held::default()) };
        let (name, id) = (theirs.name.clone(), theirs.node);
        Ok(applier.call(move |applier| applier.held(&name, Some(id))).await??)
    }

    /// Both ends, as both know them.
    fn sides(&self, (theirs, empty, held): (&Hello, bool, &Held), (our, their): (&Verdict, &Verdict)) -> (Side, Side) {
        let unfinished = |due: bool, mut states: Box<dyn Iterator<Item = &CopyState> + '_>| {
            due || states.any(|state| *state != CopyState::Done)
        };
        let at_theirs = theirs.held.as_ref();
        let theirs_of_ours = at_theirs.is_some_and(|held| {
            unfinished(held.lost_history, Box::new(held.tables.iter().map(|table| &table.progress.state)))
        });
        let ours_of_theirs = unfinished(held.copy_due, Box::new(held.tables.iter().map(|table| &table.progress.state)));
        let us = Side {
            node: self.settings.our_id,
            name: self.settings.our_name.clone(),
            lost: !our.known,
            restored: our.diverged.is_some(),
            unfinished: theirs_of_ours,
            head: our.head,
            empty,
            met: held.checkpoint.is_some() && !ours_of_theirs,
            seed: self.settings.seed.clone(),
        };
        let them = Side {
            node: theirs.node,
            name: theirs.name.clone(),
            lost: !their.known,
            restored: their.diverged.is_some(),
            unfinished: ours_of_theirs,
            head: their.head,
            empty: theirs.empty,
            met: at_theirs.is_some_and(|held| held.checkpoint.is_some()) && !theirs_of_ours,
            seed: theirs.seed.as_deref().map(Seed::of_word),
        };
        (us, them)
    }

    fn tell(&self, peer: &str, decided: &Decided) {
        match decided.from_peer {
            FromPeer::GoesOn => {}
            FromPeer::CopiedAgain { .. } => {
                tracing::info!(peer, "the peer's log does not reach back to what is here: its tables are copied");
            }
            FromPeer::SeedLost { how: How::Replace, .. } => {
                tracing::warn!(peer, "first contact: the peer's rows win; what they overwrite is kept as conflicts");
            }
            FromPeer::SeedWon { how: How::Replace, .. } => tracing::info!(peer, "first contact: our rows win"),
            FromPeer::SeedLost { how: How::Union, .. } | FromPeer::SeedWon { how: How::Union, .. } => {
                tracing::info!(peer, "first contact: the rows of both are merged");
            }
        }
    }
}

/// Where sending begins, by what the receiver decided.
fn start(at_them: Decided, our: &Verdict, held: Option<&link::Held>) -> Result<Start, Error> {
    let head = our.head.position.seq;
    let at_head = |lost_history, how| {
        Ok(Start { from: our.head, lost_history, union: how == How::Union, held_counts: false, head })
    };
    match at_them.from_peer {
        FromPeer::CopiedAgain { .. } => at_head(true, How::Replace),
        FromPeer::SeedLost { how, .. } => at_head(true, how),
        FromPeer::SeedWon { how, .. } => at_head(how == How::Union, how),
        FromPeer::GoesOn => {
            let held = held.ok_or(Error::Protocol { what: "a two-way peer that holds nothing" })?;
            let from = held.checkpoint.ok_or(Error::Protocol { what: "a two-way peer without a checkpoint" })?;
            Ok(Start { from, lost_history: held.lost_history, union: held.union, held_counts: true, head })
        }
    }
}

async fn read_verdict(stream: &mut FrameStream) -> Result<Verdict, Error> {
    match read_frame(stream, "verdict").await? {
        Frame::Verdict(verdict) => Ok(verdict),
        _ => Err(Error::Protocol { what: "something else before the verdict" }),
    }
}

/// Waits until the other end has kept what both decided.
async fn read_kept(stream: &mut FrameStream) -> Result<(), Error> {
    match read_frame(stream, "word that it keeps what was agreed on").await? {
        Frame::Kept => Ok(()),
        _ => Err(Error::Protocol { what: "something else before it kept what was agreed on" }),
    }
}

async fn read_frame(stream: &mut FrameStream, what: &'static str) -> Result<Frame, Error> {
    let silent = Error::Silent { what, seconds: VERDICT_WAIT.as_secs() };
    match timeout(VERDICT_WAIT, stream.next()).await.map_err(|_| silent)?? {
        Some(Frame::Fault(trouble)) => Err(Error::Peer(trouble)),
        Some(frame) => Ok(frame),
        None => Err(Error::Link(link::Error::Closed { peer: "the peer".to_owned() })),
    }
}
