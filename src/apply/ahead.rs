//! What takes long is done before the write lock is taken, where both ends write: capture is put right where somebody changed
//! the schema, and the log is read. Under the lock only that neither has moved is looked at, and what came since is read.

use rusqlite::{Connection, Transaction, TransactionBehavior};

use super::Error;
use super::merge::{LogIndex, Watch, has_moved};
use crate::model::NodeId;

/// How often this is done for one window. Where the schema moves, or thousands of changes come, each time that the log is
/// read, somebody does it without a pause, and the window would never be applied: it is read under the lock then.
pub(super) const TRIES_MAX: u32 = 3;

/// Does it.
///
/// # Errors
/// [`Error::Recapture`], SQLite's, or a log that is damaged.
pub(super) fn look(
    conn: &mut Connection,
    us: NodeId,
    index: &mut Option<LogIndex>,
    mut watch: Watch<'_>,
) -> Result<(), Error> {
    watch.notice_ahead(conn)?;
    let transaction = Transaction::new_unchecked(conn, TransactionBehavior::Deferred)?;
    // Where it moved again, capture is put right once more before the index is needed, which moves it, too.
    if has_moved(&transaction)? || is_near(&transaction, index.as_ref())? {
        return Ok(());
    }
    // A failure takes back the temporary tables that it is in.
    let read = LogIndex::ahead(&transaction, us, index.take())?;
    transaction.commit()?;
    *index = Some(read);
    Ok(())
}

/// Whether there is an index, and little of the log is left to be read into it.
///
/// # Errors
/// SQLite's.
pub(super) fn is_near(conn: &Connection, index: Option<&LogIndex>) -> Result<bool, Error> {
    index.map_or(Ok(false), |index| index.is_near(conn))
}
