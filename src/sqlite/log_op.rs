//! What an entry of the change log says: the numbers of its column `op`, as triggers write them and all readers mean them.
//!
//! One change is one entry in image mode `key`. In mode `full` it is a *head* and the entries behind it that *continue*
//! it, up to the next head:
//!
//! ```text
//!   insert        Insert(NEW)  Image*
//!   delete        Delete(OLD)  Image*
//!   touch         Touch(row)   Image*                    or KeyTouch
//!   update        Update(OLD)  Image*  Image(NEW)   Image*
//!   key changed   Leave(OLD)   Image*  Arrive(NEW)  Image*
//! ```
//!
//! Each has one image, or 64 columns of one; `Image*` are the rest of an image wider than that.

/// What an entry says. The numbers are in the log, for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogOp {
    /// A row was inserted, or got this key.
    Insert = 1,
    /// A row was updated.
    Update = 2,
    /// A row was deleted, or lost this key.
    Delete = 3,
    /// A row may have been displaced by REPLACE.
    Touch = 4,
    /// The schema changed; `tbl` is the table's new generation, or 0.
    Schema = 5,
    /// A copy of the table begins anew, for capture may have missed something.
    Copy = 6,
    /// A copy of the table begins anew, for somebody asked for it.
    Repair = 7,
    /// More of the change before it: the other image of an update, or the rest of a wide one.
    Image = 8,
    /// A row was updated and lost this key; an [`LogOp::Arrive`] follows.
    Leave = 9,
    /// Continues the [`LogOp::Leave`] before it: the key that the row has now.
    Arrive = 10,
    /// Rows of the table hold what no entry told: whoever reads events begins with it anew. Replication knows the rows.
    Unsure = 11,
    /// A [`LogOp::Touch`] of the row that has the new row's own key. Where it was displaced, the new row's entry names that
    /// key too; where it was not, nothing became of it. So it says something to whoever reads images alone.
    KeyTouch = 12,
}

impl LogOp {
    /// Its number in the log.
    pub fn code(self) -> i64 {
        self as i64
    }

    /// What a number means; `None` for one that a newer Twinlite wrote.
    pub fn of_code(code: i64) -> Option<Self> {
        Some(match code {
            1 => Self::Insert,
            2 => Self::Update,
            3 => Self::Delete,
            4 => Self::Touch,
            5 => Self::Schema,
            6 => Self::Copy,
            7 => Self::Repair,
            8 => Self::Image,
            9 => Self::Leave,
            10 => Self::Arrive,
            11 => Self::Unsure,
            12 => Self::KeyTouch,
            _ => return None,
        })
    }

    /// Whether the entry says something of a key, so that whoever wants rows as they are now looks at it.
    pub fn names_a_key(self) -> bool {
        match self {
            Self::Insert | Self::Update | Self::Delete | Self::Touch | Self::Leave | Self::Arrive => true,
            Self::Schema | Self::Copy | Self::Repair | Self::Image | Self::Unsure | Self::KeyTouch => false,
        }
    }

    /// Whether the entry says that a row may have been displaced by REPLACE.
    pub fn touches(self) -> bool {
        matches!(self, Self::Touch | Self::KeyTouch)
    }

    /// Whether the entry belongs to the change that an earlier one began.
    pub fn continues(self) -> bool {
        matches!(self, Self::Image | Self::Arrive)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_means_itself() {
        let known: Vec<i64> = (-5..50).filter_map(LogOp::of_code).map(LogOp::code).collect();
        assert_eq!(known, (1..=12).collect::<Vec<_>>());
        let of = |wanted: fn(LogOp) -> bool| (1..=12).filter_map(LogOp::of_code).filter(|op| wanted(*op)).count();
        assert_eq!((of(LogOp::names_a_key), of(LogOp::continues)), (6, 2));
    }
}
