//! The beginning of a window where both ends write: whether capture missed something, and who knew what.

use rusqlite::Connection;

use super::super::mirror::Frame;
use super::super::{Error, Recapture, checkpoint};
use super::index::LogIndex;
use super::meet::{self, FOREVER};
use super::mutant::{Mutant, left_out};
use super::session::{Merge, Session};
use crate::model::NodeId;
use crate::sqlite::store::{self, meta_key};

/// Puts the capture of this database right, inside the caller's transaction.
pub(in super::super) struct Watch<'a>(pub(in super::super) Option<&'a mut (dyn Recapture + 'static)>);

impl Watch<'_> {
    /// Notices what capture may have missed: the schema is another one than the triggers were last compared with, or
    /// copies that waited can begin.
    ///
    /// # Errors
    /// [`Error::Recapture`], or SQLite's.
    pub(in super::super) fn notice_drift(&mut self, conn: &Connection) -> Result<(), Error> {
        let waits = store::meta::<String>(conn, meta_key::MISSED)?.is_some() && !store::any_copy_unfinished(conn)?;
        if left_out(Mutant::ReaderDrift) {
            return Ok(());
        }
        if waits || has_moved(conn)? { self.recapture(conn, false) } else { Ok(()) }
    }

    /// The same before the transaction, so that what takes long is not done under the write lock.
    ///
    /// # Errors
    /// [`Error::Recapture`], or SQLite's.
    pub(in super::super) fn notice_ahead(&mut self, conn: &mut Connection) -> Result<(), Error> {
        if left_out(Mutant::ReaderDrift) || !has_moved(conn)? {
            return Ok(());
        }
        match &mut self.0 {
            Some(recapture) => recapture.recapture_ahead(conn).map_err(Error::Recapture),
            None => Ok(()),
        }
    }

    /// Captures what our own changes of the schema have made, where there were any.
    ///
    /// # Errors
    /// [`Error::Recapture`], or SQLite's.
    pub(in super::super) fn follow(&mut self, conn: &Connection) -> Result<(), Error> {
        if has_moved(conn)? { self.recapture(conn, true) } else { Ok(()) }
    }

    fn recapture(&mut self, conn: &Connection, ours: bool) -> Result<(), Error> {
        match &mut self.0 {
            Some(recapture) => recapture.recapture(conn, ours).map_err(Error::Recapture),
            None => Ok(()),
        }
    }
}

/// Whether the schema is another one than the triggers were last compared with, where there are any.
pub(in super::super) fn has_moved(conn: &Connection) -> Result<bool, Error> {
    let compared: Option<i64> = store::meta(conn, meta_key::SCHEMA_VERSION)?;
    Ok(compared.is_some() && compared != Some(crate::sqlite::catalog::schema_version(conn)?))
}

/// What the applier keeps for merging, lent for one window.
pub(in super::super) struct Both<'a> {
    pub(in super::super) us: NodeId,
    /// Made at the first window, and anew when the schema moved.
    pub(in super::super) index: &'a mut Option<LogIndex>,
}

impl<'a> Both<'a> {
    /// Begins to merge a window.
    ///
    /// # Errors
    /// SQLite's.
    pub(in super::super) fn begin(self, conn: &'a Connection, frame: &Frame<'a>) -> Result<Merge<'a>, Error> {
        let rules = frame.rules.merge.as_ref().ok_or(Error::Malformed("it is merged by a link that mirrors"))?;
        let current = match &self.index {
            Some(index) => index.is_current(conn)?,
            None => false,
        };
        if !current {
            *self.index = Some(LogIndex::open(conn, self.us)?);
        }
        let index = self.index.as_mut().expect("it was just made");
        let gives_up_to = meet::seed_lost(conn, frame.peer)?;
        let seed_lost = gives_up_to.is_some();
        let blind = is_blind(conn, (frame, &*index), seed_lost)?;
        let is_union = meet::is_union(conn, frame.peer)?;
        let session = Session {
            peer: frame.peer,
            peer_name: frame.peer_name,
            us: self.us,
            rules,
            seen: if rules.one_way { gives_up_to.unwrap_or(0) } else { frame.end.seen },
            blind,
            blind_since: meet::standing(conn, frame.peer)?.copy_start,
            seed_lost,
            is_union,
            copying_back: frame.copying_back,
            now_ms: frame.now_ms,
        };
        Merge::begin(conn, index, session)
    }
}

/// Whether nobody can tell what the sender of this window knew. Ends it where the sender has all that was copied.
fn is_blind(conn: &Connection, (frame, index): (&Frame<'_>, &LogIndex), seed_lost: bool) -> Result<bool, Error> {
    let standing = meet::standing(conn, frame.peer)?;
    let stored = checkpoint::by_peer(conn, frame.peer)?;
    let applied = stored.and_then(|stored| stored.checkpoint).map_or(0, |checkpoint| checkpoint.position.seq);
    let mut until = standing.blind_until;
    let end = frame.end;
    // A peer that only sends never has what we copy. As long as the log is kept for, somebody may be surprised.
    let is_over = match frame.is_one_way() {
        true => index.oldest_now(conn)? > standing.copy_start,
        false => end.whole && end.seen >= standing.copy_start,
    };
    if until == FOREVER && is_over && !seed_lost {
        meet::set_blind_until(conn, frame.peer, applied)?;
        until = applied;
    }
    let missed = store::meta::<String>(conn, meta_key::MISSED)?.is_some() && !left_out(Mutant::ReaderDrift);
    Ok((applied < until || seed_lost || missed || frame.log_is_full) && !left_out(Mutant::BlindQuiet))
}
