//! Where both ends write: which tables of the peer's are copied, by what was agreed on when the two met.

use super::super::{Error, merge};
use super::Work;
use crate::model::TableId;

impl Work<'_> {
    /// Where both ends write: tables whose copy was agreed on begin it. A table that is new between the two is compared, for
    /// each end may have rows of it that were written before its triggers stood; but at a first contact that this end wins
    /// only one that only the peer has.
    pub(super) fn settle_both(&mut self, begins_session: bool) -> Result<(), Error> {
        if begins_session && merge::take_due(self.conn, self.frame.peer)? {
            self.received.copies.begin_all_anew();
            self.ask.clear();
        } else if begins_session {
            let fresh = self.received.copies.take_new();
            if merge::take_won(self.conn, self.frame.peer)? {
                self.received.copies.end_all();
                for table in std::mem::take(&mut self.created) {
                    self.received.copies.begin_asked(table, true);
                    if !self.ask.contains(&table) {
                        self.ask.push(table);
                    }
                }
            } else {
                self.ask_for_fresh(fresh)?;
            }
        }
        Ok(())
    }

    /// Where the peer only sends: what was agreed on while both did holds no more, or it would be due for ever.
    pub(super) fn forget_meeting(&self) -> Result<(), Error> {
        merge::take_due(self.conn, self.frame.peer)?;
        merge::take_won(self.conn, self.frame.peer)?;
        Ok(())
    }

    /// Asks for tables that are new between the two, but for those of which the peer asks for ours.
    fn ask_for_fresh(&mut self, fresh: Vec<TableId>) -> Result<(), Error> {
        for table in fresh {
            let name = &self.target(table)?.name;
            if merge::knew_our_table(self.conn, name, self.frame.end.seen)? {
                self.received.copies.end(table);
                self.ask.retain(|asked| *asked != table);
            } else if !self.ask.contains(&table) {
                self.ask.push(table);
            }
        }
        Ok(())
    }
}
