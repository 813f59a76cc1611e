//! What has to change for a table to become another one, and whether that can be done without losing a row.
//!
//! [`get_changes`] and [`summary`] say the same as the SDK's functions of these names. [`changes_in_database`] is the one
//! for a table that exists in SQLite, where a column only tells its declared type and names differ by more than case.

use std::collections::BTreeMap;
use std::fmt;

use super::table::columns::CQ_ID;
use super::types::{Class, same_type, type_name};
use super::{Column, Table};

/// One difference between a wanted table and what there is.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// A column that is missing.
    Add(Column),
    /// A column of another type, or with other constraints.
    Update {
        /// As it should be.
        current: Column,
        /// As it is.
        previous: Column,
        /// Whether the type differs; where it does not, a constraint does.
        retyped: bool,
    },
    /// A column that is no longer asked for.
    Remove(Column),
    /// A column, as it is, that need no longer be unique.
    RemoveUniqueConstraint(Column),
    /// The primary key becomes `_cq_id` alone. The [`Change::Update`]s of the columns concerned follow.
    MoveToCqOnly,
}

/// Whether changes can be made without being asked to lose anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Automatic {
    /// They can, and every row stays.
    Yes,
    /// Only where the table holds no row: a key would be added that existing rows have no value for.
    IfEmpty,
    /// They cannot.
    No,
}

/// The changes that make `old` into `new`, in the SDK's order. Not changes: uniqueness added, incremental keys, key
/// components, descriptions, the order of columns.
pub fn get_changes(new: &Table, old: &Table) -> Vec<Change> {
    let differ = |new: &Column, old: &Column| !same_type(new.field(), old.field());
    compare(new, old, differ, |a, b| a == b)
}

/// The changes that make `existing`, whose columns are of [`Class::existing_column`], into `new`.
///
/// Types differ where their classes do, and names are compared as SQLite compares them: without regard to ASCII case.
pub fn changes_in_database(new: &Table, existing: &Table) -> Vec<Change> {
    let differ = |new: &Column, old: &Column| Class::of(new.field()).data_type() != *old.data_type();
    compare(new, existing, differ, str::eq_ignore_ascii_case)
}

fn compare(
    new: &Table,
    old: &Table,
    differ: impl Fn(&Column, &Column) -> bool,
    same_name: impl Fn(&str, &str) -> bool,
) -> Vec<Change> {
    let mut changes = Vec::new();
    if moves_to_cq_id(new, old, &same_name) {
        changes.push(Change::MoveToCqOnly);
    }
    for current in &new.columns {
        let Some(previous) = old.columns.iter().find(|column| same_name(column.name(), current.name())) else {
            changes.push(Change::Add(current.clone()));
            continue;
        };
        let retyped = differ(current, previous);
        let constrained = current.not_null() != previous.not_null() || current.primary_key() != previous.primary_key();
        if retyped || constrained {
            changes.push(Change::Update { current: current.clone(), previous: previous.clone(), retyped });
        }
        if previous.unique() && !current.unique() {
            changes.push(Change::RemoveUniqueConstraint(previous.clone()));
        }
    }
    let kept = |column: &Column| new.columns.iter().any(|wanted| same_name(wanted.name(), column.name()));
    changes.extend(old.columns.iter().filter(|column| !kept(column)).cloned().map(Change::Remove));
    changes
}

fn moves_to_cq_id(new: &Table, old: &Table, same_name: impl Fn(&str, &str) -> bool) -> bool {
    let old_key = old.primary_key();
    let to = matches!(new.primary_key().as_slice(), [name] if same_name(name, CQ_ID));
    to && !old_key.is_empty() && !old_key.iter().any(|name| same_name(name, CQ_ID))
}

/// Whether these changes may be made in safe mode: what keeps every row and asks nothing of a row that it may not have.
/// Everything else is refused there, and makes the table anew in forced mode.
pub fn automatic(changes: &[Change]) -> Automatic {
    let moving = changes.contains(&Change::MoveToCqOnly);
    changes.iter().map(|change| change.automatic(moving)).max().unwrap_or(Automatic::Yes)
}

impl Change {
    fn automatic(&self, moving: bool) -> Automatic {
        let yes_if = |condition| if condition { Automatic::Yes } else { Automatic::No };
        match self {
            Self::Add(column) if moving && column.primary_key() => Automatic::IfEmpty,
            Self::Add(column) | Self::Remove(column) => yes_if(!column.primary_key() && !column.not_null()),
            Self::RemoveUniqueConstraint(_) | Self::MoveToCqOnly => Automatic::Yes,
            Self::Update { current, previous, retyped } => {
                let rekeyed = current.primary_key() != previous.primary_key();
                let tightened = current.not_null() && !previous.not_null();
                yes_if(!retyped && !tightened && (!rekeyed || moving))
            }
        }
    }
}

/// What the changes of each table are, for people: tables by name, the lines of each in order.
pub fn summary<'a>(tables: impl IntoIterator<Item = (&'a str, &'a [Change])>) -> String {
    let tables: BTreeMap<&str, &[Change]> = tables.into_iter().collect();
    let blocks = tables.into_iter().map(|(name, changes)| {
        let mut lines: Vec<String> = changes.iter().map(|change| format!("  - {}", sentence(change))).collect();
        lines.sort_unstable();
        format!("{name}:\n{}", lines.join("\n"))
    });
    blocks.collect::<Vec<_>>().join("\n\n")
}

fn sentence(change: &Change) -> String {
    match change {
        Change::Add(column) => added(column),
        Change::Update { current, previous, retyped } => updated(current, previous, *retyped),
        Change::Remove(column) => removed(column),
        Change::RemoveUniqueConstraint(column) => format!("Unique constraint removed from column {:?}", column.name()),
        Change::MoveToCqOnly => format!("Primary key columns removed and replaced with a single column {CQ_ID:?}"),
    }
}

fn added(column: &Column) -> String {
    let constraint = if column.primary_key() {
        " and primary key constraint"
    } else if column.unique() {
        " and unique constraint"
    } else if column.not_null() {
        " and not null constraint"
    } else if column.incremental_key() {
        " and as an incremental key"
    } else {
        ""
    };
    format!("Column {:?} added with type {:?}{constraint}", column.name(), type_name(column.field()))
}

fn updated(current: &Column, previous: &Column, retyped: bool) -> String {
    let name = current.name();
    if retyped {
        let (from, to) = (type_name(previous.field()), type_name(current.field()));
        return format!("Type changed from {from:?} to {to:?} for column {name:?}");
    }
    let flags = [
        ("Primary key constraint", previous.primary_key(), current.primary_key()),
        ("Unique constraint", previous.unique(), current.unique()),
        ("Not null constraint", previous.not_null(), current.not_null()),
    ];
    for (what, before, now) in flags {
        match (before, now) {
            (false, true) => return format!("{what} added to column {name:?}"),
            (true, false) => return format!("{what} removed from column {name:?}"),
            (true, true) | (false, false) => {}
        }
    }
    // No other difference makes an update.
    format!("Column {name:?} updated. Previous: {}, Current: {}", describe(previous), describe(current))
}

fn removed(column: &Column) -> String {
    let name = column.name();
    if column.primary_key() {
        format!("Primary key column {name:?} removed")
    } else if column.unique() {
        format!("Unique column {name:?} removed")
    } else if column.not_null() {
        format!("Not null column {name:?} removed")
    } else if column.incremental_key() {
        format!("Incremental key column {name:?} removed")
    } else {
        format!("Column {name:?} with type {:?} removed", type_name(column.field()))
    }
}

/// A column as `name:type` and its flags.
fn describe(column: &Column) -> String {
    let flags = [
        (column.primary_key(), ":PK"),
        (column.not_null(), ":NotNull"),
        (column.unique(), ":Unique"),
        (column.incremental_key(), ":IncrementalKey"),
        (column.primary_key_component(), ":PrimaryKeyComponent"),
    ];
    let flags: String = flags.iter().filter(|(has, _)| *has).map(|(_, flag)| *flag).collect();
    format!("{}:{}{flags}", column.name(), type_name(column.field()))
}

/// What kind of change it is, and of which column.
impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Add(column) => write!(f, "add {}", describe(column)),
            Self::Update { current, previous, .. } => {
                write!(f, "update {} to {}", describe(previous), describe(current))
            }
            Self::Remove(column) => write!(f, "remove {}", describe(column)),
            Self::RemoveUniqueConstraint(column) => write!(f, "remove unique constraint of {}", describe(column)),
            Self::MoveToCqOnly => write!(f, "move the primary key to {CQ_ID}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{DataType, Field};

    use super::super::{Extension, Table};
    use super::*;

    fn int(name: &str) -> Column {
        Column::new(name, DataType::Int64)
    }

    fn text(name: &str) -> Column {
        Column::new(name, DataType::Utf8)
    }

    fn id() -> Column {
        Column::extension(CQ_ID, Extension::Uuid).with_not_null(true)
    }

    fn list(name: &str) -> Column {
        Column::new(name, DataType::List(Field::new("item", DataType::Utf8, true).into()))
    }

    fn changes(new: Vec<Column>, old: Vec<Column>) -> Vec<Change> {
        get_changes(&Table::new("t", new), &Table::new("t", old))
    }

    /// The case that `probe.txt` has, in the order that the SDK gives. Our words differ where the SDK's are wrong: its
    /// lists are never the same type, and its move to `_cq_id` prints an empty column.
    #[test]
    fn changes_come_in_the_order_and_the_words_of_the_sdk() {
        let old = vec![id().with_unique(true), text("name").with_primary_key(true), list("l"), int("x")];
        let y = Column::new("y", DataType::Float64).with_not_null(true);
        let new = vec![id().with_primary_key(true), text("name"), list("l").with_not_null(true), y];
        let changes = changes(new, old);
        let said: Vec<String> = changes.iter().map(Change::to_string).collect();
        assert_eq!(
            said,
            [
                "move the primary key to _cq_id",
                "update _cq_id:uuid:NotNull:Unique to _cq_id:uuid:PK:NotNull",
                "remove unique constraint of _cq_id:uuid:NotNull:Unique",
                "update name:utf8:PK to name:utf8",
                "update l:list<item: utf8, nullable> to l:list<item: utf8, nullable>:NotNull",
                "add y:float64:NotNull",
                "remove x:int64",
            ]
        );
        assert_eq!(
            summary([("t1", &changes[..]), ("a0", &[Change::MoveToCqOnly])]),
            "a0:\n  - Primary key columns removed and replaced with a single column \"_cq_id\"\n\n\
             t1:\n  - Column \"x\" with type \"int64\" removed\n  \
             - Column \"y\" added with type \"float64\" and not null constraint\n  \
             - Not null constraint added to column \"l\"\n  \
             - Primary key columns removed and replaced with a single column \"_cq_id\"\n  \
             - Primary key constraint added to column \"_cq_id\"\n  \
             - Primary key constraint removed from column \"name\"\n  \
             - Unique constraint removed from column \"_cq_id\""
        );
    }

    #[test]
    fn equal_tables_and_what_is_no_change_have_none() {
        let columns = || vec![int("a"), text("b"), list("c")];
        assert_eq!(changes(columns(), columns()), []);
        let reordered = vec![list("c"), text("b").with_unique(true), int("a").with("cq:extension:incremental", "true")];
        assert_eq!(changes(reordered, columns()), []);
    }

    /// Name, wanted columns, existing columns, sentences, and whether they may be made in safe mode.
    type Case = (&'static str, Vec<Column>, Vec<Column>, &'static [&'static str], Automatic);

    fn cases() -> Vec<Case> {
        use Automatic::{IfEmpty, No, Yes};
        let key = |column: Column| column.with_primary_key(true);
        let needed = |column: Column| column.with_not_null(true);
        vec![
            ("none", vec![int("a")], vec![int("a")], &[], Yes),
            ("added", vec![int("a"), text("b")], vec![int("a")], &["Column \"b\" added with type \"utf8\""], Yes),
            (
                "added with a flag",
                vec![text("b").with_unique(true), text("c").with("cq:extension:incremental", "true")],
                vec![],
                &[
                    "Column \"b\" added with type \"utf8\" and unique constraint",
                    "Column \"c\" added with type \"utf8\" and as an incremental key",
                ],
                Yes,
            ),
            (
                "added NOT NULL",
                vec![needed(int("a"))],
                vec![],
                &["Column \"a\" added with type \"int64\" and not null constraint"],
                No,
            ),
            (
                "added to the key",
                vec![needed(key(int("a")))],
                vec![],
                &["Column \"a\" added with type \"int64\" and primary key constraint"],
                No,
            ),
            ("removed", vec![], vec![int("a")], &["Column \"a\" with type \"int64\" removed"], Yes),
            ("removed NOT NULL", vec![], vec![needed(int("a"))], &["Not null column \"a\" removed"], No),
            ("removed from the key", vec![], vec![key(int("a"))], &["Primary key column \"a\" removed"], No),
            ("removed unique", vec![], vec![int("a").with_unique(true)], &["Unique column \"a\" removed"], Yes),
            (
                "retyped",
                vec![text("a")],
                vec![int("a")],
                &["Type changed from \"int64\" to \"utf8\" for column \"a\""],
                No,
            ),
            ("tightened", vec![needed(int("a"))], vec![int("a")], &["Not null constraint added to column \"a\""], No),
            (
                "relaxed",
                vec![int("a")],
                vec![needed(int("a"))],
                &["Not null constraint removed from column \"a\""],
                Yes,
            ),
            ("keyed", vec![key(int("a"))], vec![int("a")], &["Primary key constraint added to column \"a\""], No),
            ("unkeyed", vec![int("a")], vec![key(int("a"))], &["Primary key constraint removed from column \"a\""], No),
            (
                "no longer unique",
                vec![int("a")],
                vec![int("a").with_unique(true)],
                &["Unique constraint removed from column \"a\""],
                Yes,
            ),
            (
                "moved to _cq_id",
                vec![key(id()), needed(int("a"))],
                vec![id(), needed(key(int("a")))],
                &[
                    "Primary key columns removed and replaced with a single column \"_cq_id\"",
                    "Primary key constraint added to column \"_cq_id\"",
                    "Primary key constraint removed from column \"a\"",
                ],
                Yes,
            ),
            (
                "moved to a new _cq_id",
                vec![key(id()), int("a")],
                vec![key(int("a"))],
                &[
                    "Column \"_cq_id\" added with type \"uuid\" and primary key constraint",
                    "Primary key columns removed and replaced with a single column \"_cq_id\"",
                    "Primary key constraint removed from column \"a\"",
                ],
                IfEmpty,
            ),
            (
                "moved to an _cq_id that may be NULL",
                vec![key(id())],
                vec![id().with_not_null(false), key(int("a"))],
                &[
                    "Primary key column \"a\" removed",
                    "Primary key columns removed and replaced with a single column \"_cq_id\"",
                    "Primary key constraint added to column \"_cq_id\"",
                ],
                No,
            ),
        ]
    }

    #[test]
    fn each_change_has_its_sentence_and_its_answer() {
        for (name, new, old, sentences, expected) in cases() {
            let changes = changes(new, old);
            let mut lines: Vec<String> = changes.iter().map(sentence).collect();
            lines.sort();
            assert_eq!(lines, sentences, "{name}");
            assert_eq!(automatic(&changes), expected, "{name}");
        }
    }

    #[test]
    fn an_existing_table_tells_only_classes() {
        let existing = |columns: &[(&str, &str)]| {
            let columns = columns.iter().map(|(name, declared)| Class::existing_column(name, declared)).collect();
            Table::new("t", columns)
        };
        let wanted = Table::new("t", vec![Column::new("A", DataType::Int8), id().with_not_null(false), list("l")]);
        let found = existing(&[("a", "BIGINT"), (CQ_ID, "VARCHAR(36)"), ("l", "text")]);
        assert_eq!(changes_in_database(&wanted, &found), []);
        let found = existing(&[("a", "text"), (CQ_ID, ""), ("l", "blob")]);
        let changes = changes_in_database(&wanted, &found);
        assert_eq!(changes.len(), 3);
        assert_eq!(automatic(&changes), Automatic::No);
    }
}
