//! Decides, from a [`Situation`], what makes capture right again: which triggers are made anew, which tables get a new
//! generation, and which must be copied again because something may have slipped through. Pure.
//!
//! Only what is provably harmless is excused from a copy: a non-unique index, a view, a table that is not captured, a new
//! or dropped table, a table's new name, and columns appended while our triggers stood, whose default every row holds.
//! And that only if the differences account for every increment of the schema's version.

use std::collections::{BTreeMap, BTreeSet};

use super::accounting::{ObjectNote, statements_seen};
use super::change_log::LogWidth;
use super::generation::{Generation, IndexNote, index_notes};
use super::image_sql::{keys_for, values_for};
use super::lineage::{self, Change, renamed_tokens};
use super::situation::Situation;
use super::trigger_sql::{Op, Trigger, table_of_trigger, triggers};
use super::{Images, SkippedTable, change_log};
use crate::model::{KeyShape, TableId, TableSchema};
use crate::sqlite::{ident, store};

/// What else is known than what the schema shows.
#[derive(Clone, Debug, Default)]
pub(super) struct Witness {
    /// Tables with appended columns that do not hold their default in every row.
    pub filled: BTreeSet<TableId>,
    /// Tables with appended columns that do not, but whose rows the log names: no image has what is in them.
    pub untold: BTreeSet<TableId>,
    /// Set while a script of the operator's runs under our eyes: nothing is hidden then.
    pub script: Option<Script>,
}

/// What a script did.
#[derive(Clone, Debug, Default)]
pub(super) struct Script {
    /// Whether it wrote rows.
    pub wrote: bool,
    /// Tables whose rows it may have changed while no trigger looked.
    pub unseen: BTreeSet<TableId>,
}

/// What is to be done, in this order.
#[derive(Clone, Debug, Default)]
pub(super) struct Decision {
    /// Whether the log is made by these statements.
    pub makes_log: bool,
    /// DDL.
    pub statements: Vec<String>,
    /// Generations to write down.
    pub generations: Vec<Generation>,
    /// Generations whose non-unique indexes are others now.
    pub reindexed: Vec<(TableId, Vec<IndexNote>)>,
    /// Generations that end.
    pub dropped: Vec<TableId>,
    /// Entries of our own for the log.
    pub entries: Vec<(Op, i64)>,
    /// Tables with appended columns, whose rows are to be looked at: the generation before, the table, the columns.
    pub appended: Vec<(TableId, String, Vec<String>)>,
    /// Tables that are captured.
    pub captured: Vec<String>,
    /// New tables: rows that are there already, no entry tells.
    pub unsure_if_filled: Vec<(TableId, String)>,
    /// Tables that are wanted and are not captured.
    pub skipped: Vec<SkippedTable>,
    /// Tables that are copied again, by their newest id.
    pub copied_again: Vec<(TableId, String)>,
    /// What was found and done, for a person.
    pub notes: Vec<String>,
}

/// Decides.
pub(super) fn decide(situation: &Situation, witness: &Witness) -> Decision {
    let mut decider = Decider {
        situation,
        now: triggers_by_table(&situation.objects),
        before: situation.before.as_ref().map(|before| triggers_by_table(&before.objects)).unwrap_or_default(),
        witness,
        accounted: accounted(situation, witness),
        next_id: situation.next_id,
        decision: Decision { skipped: situation.skipped.clone(), ..Decision::default() },
    };
    decider.log();
    let lines = lineage::continued(situation);
    let kept: BTreeSet<TableId> = lines.iter().flatten().map(|generation| generation.id).collect();
    decider.drop_strays(&kept);
    for (table, known) in situation.wanted.iter().zip(lines) {
        match known {
            Some(known) => decider.known_table(table, known),
            None => decider.new_table(table),
        }
        decider.decision.captured.push(table.name.clone());
    }
    decider.finish()
}

type ByTable<'s> = BTreeMap<TableId, Vec<&'s ObjectNote>>;

fn triggers_by_table(objects: &[ObjectNote]) -> ByTable<'_> {
    let mut all = ByTable::new();
    for object in objects.iter().filter(|object| object.kind == "trigger") {
        if let Some(id) = table_of_trigger(&object.name) {
            all.entry(id).or_default().push(object);
        }
    }
    all
}

/// Whether the differences that are seen account for every increment of the version.
fn accounted(situation: &Situation, witness: &Witness) -> bool {
    match &situation.before {
        None => true,
        Some(_) if witness.script.is_some() => true,
        Some(before) => situation.version - before.version == statements_seen(&before.objects, &situation.objects),
    }
}

struct Decider<'s> {
    situation: &'s Situation,
    /// The triggers of each generation that stand, and those that stood when last compared.
    now: ByTable<'s>,
    before: ByTable<'s>,
    witness: &'s Witness,
    accounted: bool,
    next_id: i64,
    decision: Decision,
}

impl Decider<'_> {
    /// Makes the log, or makes it as wide as the widest key.
    fn log(&mut self) {
        let widest = |width: fn(&TableSchema) -> usize| self.situation.wanted.iter().map(width).max().unwrap_or(0);
        let (keys, values) = match self.situation.images {
            Images::Key => (widest(|table| table.key_columns().len()), 0),
            Images::Full => (widest(keys_for), values_for(widest(|table| table.columns.len()))),
        };
        let want = LogWidth { keys: keys.max(1), values };
        let log = &self.situation.log;
        self.decision.makes_log = self.situation.log_width.is_none();
        self.decision.statements.extend(match self.situation.log_width {
            None => vec![change_log::create_sql(log, want)],
            Some(have) => change_log::widen_sql(log, have, want),
        });
    }

    /// Ends the generations of tables that are gone or no longer wanted, and drops triggers that belong to nothing.
    fn drop_strays(&mut self, kept: &BTreeSet<TableId>) {
        for generation in self.situation.generations.iter().filter(|generation| !kept.contains(&generation.id)) {
            self.decision.dropped.push(generation.id);
            self.decision.entries.push((Op::Schema, generation.id.0));
            self.decision.notes.push(format!("table {:?} is no longer captured", generation.schema_name));
        }
        let objects = self.situation.objects.iter().filter(|object| object.kind == "trigger");
        for object in objects {
            if table_of_trigger(&object.name).is_some_and(|id| !kept.contains(&id)) {
                self.drop_trigger(&object.name);
            }
        }
    }

    fn drop_trigger(&mut self, name: &str) {
        self.decision.statements.push(format!("DROP TRIGGER {}", ident(name)));
    }

    fn new_table(&mut self, table: &TableSchema) {
        let id = self.begin_generation(table, Vec::new());
        self.make_triggers(table, id);
        if self.situation.before.is_some() {
            self.decision.notes.push(format!("table {:?} is captured from here on", table.name));
            self.decision.unsure_if_filled.push((id, table.name.clone()));
        }
    }

    fn begin_generation(&mut self, table: &TableSchema, ancestors: Vec<TableId>) -> TableId {
        let id = TableId(self.next_id);
        self.next_id += 1;
        self.decision.generations.push(Generation::of(table, id, ancestors, self.situation.images));
        self.decision.entries.push((Op::Schema, id.0));
        id
    }

    fn make_triggers(&mut self, table: &TableSchema, id: TableId) {
        let made = wanted_triggers(table, id, (&self.situation.log, self.situation.images));
        self.decision.statements.extend(made.into_iter().map(|trigger| trigger.sql));
    }

    fn known_table(&mut self, table: &TableSchema, known: &Generation) {
        let change = lineage::change(known, table);
        let standing = self.standing(table, known, &change);
        let harm = self.harm(known, &change, &standing);
        let mut id = known.id;
        let other_images = known.images != self.situation.images;
        if change.is_new_generation() || other_images {
            let mut ancestors = vec![known.id];
            ancestors.extend(&known.ancestors);
            id = self.begin_generation(table, ancestors);
        } else if change == Change::PlainIndexes {
            self.decision.reindexed.push((id, index_notes(table)));
            self.decision.entries.push((Op::Schema, id.0));
        }
        if id != known.id || !standing.as_wanted || standing.overtaken {
            let standing: Vec<String> =
                self.now.get(&known.id).into_iter().flatten().map(|object| object.name.clone()).collect();
            for name in standing {
                self.drop_trigger(&name);
            }
            self.make_triggers(table, id);
        }
        if let Change::Appended(columns) = change {
            self.decision.appended.push((known.id, table.name.clone(), columns));
        }
        // Without a key a row is told with its rowid from a log of keys, and without it from images.
        let other_form = other_images && matches!(table.key, KeyShape::Rowid { .. });
        if harm.is_none() && (other_form || self.witness.untold.contains(&known.id)) {
            self.decision.entries.push((Op::Unsure, id.0));
        }
        if let Some(reason) = harm {
            self.decision.entries.push((Op::Copy, id.0));
            self.decision.copied_again.push((id, table.name.clone()));
            self.decision.notes.push(format!("table {:?} is copied again: {reason}", table.name));
        }
    }

    fn standing(&self, table: &TableSchema, known: &Generation, change: &Change) -> Standing {
        let actual = self.now.get(&known.id).map_or(&[][..], Vec::as_slice);
        let overtaken = overtaking(&self.situation.objects, table, known.id).is_some();
        let on_it = actual.iter().all(|object| object.table.eq_ignore_ascii_case(&table.name));
        let wanted = wanted_triggers(table, known.id, (&self.situation.log, known.images));
        let is_there = |trigger: &Trigger| actual.iter().any(|object| object.sql == trigger.sql);
        if on_it && actual.len() == wanted.len() && wanted.iter().all(is_there) {
            return Standing { as_wanted: true, untouched: true, overtaken };
        }
        let names = [table.name.clone(), known.schema_name.clone()];
        let sorted = |all: &mut dyn Iterator<Item = &str>| {
            let mut all: Vec<Vec<String>> =
                all.map(|sql| renamed_tokens(sql, &names, &known.schema_name, &table.name)).collect();
            all.sort();
            all
        };
        let now = sorted(&mut actual.iter().map(|object| object.sql.as_str()));
        let as_wanted = on_it && now == sorted(&mut wanted.iter().map(|trigger| trigger.sql.as_str()));
        let stored = self.before.get(&known.id).map_or(&[][..], Vec::as_slice);
        let as_stored = on_it && now == sorted(&mut stored.iter().map(|object| object.sql.as_str()));
        // SQLite itself rewrites the names of columns in them.
        let rewritten = on_it && *change == Change::ColumnsRenamed && actual.len() == wanted.len();
        let untouched = as_wanted || as_stored && !now.is_empty() || rewritten;
        Standing { as_wanted, untouched, overtaken }
    }

    /// Why changes of the table's rows may have slipped through, if they may.
    fn harm(&self, known: &Generation, change: &Change, standing: &Standing) -> Option<&'static str> {
        let script = self.witness.script.as_ref();
        let seen = script.is_some_and(|script| !script.wrote);
        let of_change = match change {
            Change::None | Change::PlainIndexes | Change::Renamed => None,
            Change::Appended(_) if self.witness.filled.contains(&known.id) => {
                Some("a column was appended, and rows hold something else than its default")
            }
            Change::Appended(_) => None,
            Change::ColumnsRenamed if script.is_some() => None,
            Change::ColumnsRenamed => Some("a column has another name"),
            Change::UniqueIndexes if seen => None,
            Change::UniqueIndexes => Some("a unique index came or went"),
            Change::Other => Some("its definition changed"),
        };
        let unseen = script.is_some_and(|script| script.unseen.contains(&known.id));
        if unseen {
            Some("the script rewrote it while no trigger stood on it")
        } else if of_change.is_some() {
            of_change
        } else if !standing.untouched {
            Some("its triggers were dropped or made anew by somebody else")
        } else if standing.overtaken && !seen {
            Some("a younger trigger could keep ours from firing")
        } else if !self.accounted {
            Some("the schema changed in ways that leave nothing to see, or VACUUM ran")
        } else {
            None
        }
    }

    fn finish(mut self) -> Decision {
        let moved = self.situation.before.as_ref().is_none_or(|before| before.version != self.situation.version);
        if self.decision.entries.is_empty() && moved {
            // So that what changed (a view, a trigger of the user's) has a place in the order of changes.
            self.decision.entries.push((Op::Schema, 0));
        }
        self.decision
    }
}

/// The youngest trigger of the user's on a table, where it is younger than one of ours there, and so fires first.
pub(super) fn overtaking<'o>(objects: &'o [ObjectNote], table: &TableSchema, id: TableId) -> Option<&'o ObjectNote> {
    let is_on_it = |object: &ObjectNote| object.kind == "trigger" && object.table.eq_ignore_ascii_case(&table.name);
    let is_ours = |object: &ObjectNote| table_of_trigger(&object.name) == Some(id);
    let ours = objects.iter().position(|object| is_on_it(object) && is_ours(object))?;
    objects[ours..].iter().rfind(|object| is_on_it(object) && !is_ours(object))
}

/// How the triggers of a generation stand.
struct Standing {
    /// They are what this binary would make.
    as_wanted: bool,
    /// Nobody touched them since they were made.
    untouched: bool,
    /// A trigger of the user's fires before them.
    overtaken: bool,
}

pub(super) fn wanted_triggers(table: &TableSchema, id: TableId, (log, images): (&str, Images)) -> Vec<Trigger> {
    triggers(table, id, log, images).expect("a table is wanted only where its triggers can be written")
}

/// The statements that make our own tables, as far as they are missing.
pub(super) fn own_tables(node_missing: bool, capture_missing: bool) -> Vec<String> {
    let every_node = if node_missing { store::NODE_TABLES } else { "" };
    let capturing = if capture_missing { store::CAPTURE_TABLES } else { "" };
    let all = every_node.split(';').chain(capturing.split(';'));
    all.map(|sql| sql.trim().to_owned()).filter(|sql| !sql.is_empty()).collect()
}
