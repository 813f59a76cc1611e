//! Which rows an INSERT or UPDATE might displace by REPLACE, as SQL conditions. Pure.
//!
//! REPLACE does not fire DELETE triggers, so BEFORE triggers name ("touch") every row that holds a unique slot which the
//! new row wants. A condition compares as its index does: its collations, its WHERE, its expressions. It may name too
//! many rows (a touched row that still exists was not displaced), never too few.

use std::collections::BTreeSet;

use super::index_sql::{ColumnNotes, Reference, column_notes, index_parts, rewrite, rowid_name};
use super::{Images, image_sql};
use crate::model::{Generated, Index, IndexOrigin, KeyShape, TableSchema};
use crate::sqlite::ident;
use crate::sqlite::lexer::{Token, TokenKind, tokens};

/// When a touch is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Before a row is inserted. An auto-assigned key is -1 here, so nothing may be computed from it.
    Insert,
    /// Before a row is updated.
    Update,
}

/// One unique slot besides the key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slot {
    /// The condition on a row `x` and on `NEW` under which the row holds what the new one wants.
    pub holds: String,
    /// What the slot depends on, each as it is said of `OLD` and `NEW`: where none of it changes, nothing is displaced.
    pub depends_on: Vec<String>,
}

/// The slots of a table, for one event: every unique one besides the key, and the key's too where images are logged.
///
/// # Errors
/// Why what the table's REPLACE displaces cannot be known: the table cannot be captured.
pub fn slots(table: &TableSchema, event: Event, images: Images) -> Result<Vec<Slot>, String> {
    let notes = column_notes(table);
    let view = View { table, notes: &notes, event };
    // Where images are logged, the row that has the key itself is named too: its image is told by nothing else.
    let mut slots: Vec<Slot> = image_sql::rowid_slot(table).filter(|_| images == Images::Full).into_iter().collect();
    for index in table.indexes.iter().filter(|index| index.unique) {
        let wanted = match index.origin {
            IndexOrigin::PrimaryKey => images == Images::Full,
            IndexOrigin::Created | IndexOrigin::Unique => !names_the_key(table, index),
        };
        if wanted {
            view.index_slots(index, &mut slots)?;
        }
    }
    if let (KeyShape::Columns { .. }, Some(rowid)) = (&table.key, rowid_name(table)) {
        slots.push(Slot { holds: format!("x.{rowid} = NEW.{rowid}"), depends_on: vec![rowid.to_owned()] });
    }
    Ok(slots)
}

/// Whether a row that holds the index's slot has the key of the new row, which the AFTER triggers log in any case.
fn names_the_key(table: &TableSchema, index: &Index) -> bool {
    let has = |place: usize, collation: Option<&str>| {
        index.columns.iter().any(|part| {
            part.column == Some(place) && collation.is_none_or(|name| part.collation.eq_ignore_ascii_case(name))
        })
    };
    match &table.key {
        KeyShape::RowidAlias { column } => has(*column, None),
        KeyShape::Columns { columns } => columns.iter().all(|(place, collation)| has(*place, Some(collation.sql()))),
        KeyShape::Rowid { .. } | KeyShape::None => false,
    }
}

/// How `NEW` is read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reading {
    /// As it is.
    Plain,
    /// With the defaults that REPLACE stores for NULL in a NOT NULL column.
    Defaulted,
}

struct View<'t> {
    table: &'t TableSchema,
    notes: &'t [ColumnNotes<'t>],
    event: Event,
}

/// One indexed column or expression.
enum Term<'t> {
    Column(usize),
    Expression(Vec<Token<'t>>),
}

impl View<'_> {
    fn index_slots(&self, index: &Index, slots: &mut Vec<Slot>) -> Result<(), String> {
        let parts = index.sql.as_deref().map(|sql| index_parts(sql).ok_or_else(|| unreadable(index))).transpose()?;
        let (columns, condition) = parts.map_or((Vec::new(), None), |parts| (parts.columns, parts.condition));
        let mut terms = Vec::new();
        for (place, part) in index.columns.iter().enumerate() {
            let term = match part.column {
                Some(column) => Term::Column(column),
                None => Term::Expression(columns.get(place).cloned().ok_or_else(|| unreadable(index))?),
            };
            terms.push((term, part.collation.as_str()));
        }
        let inputs = self.inputs(&terms, condition.as_deref())?;
        self.refuse_unknown_key(index, &terms)?;
        slots.push(self.slot(&terms, condition.as_deref(), &inputs, Reading::Plain)?);
        let defaulted: Vec<usize> =
            inputs.deep.iter().copied().filter(|place| self.default(*place).is_some()).collect();
        if !defaulted.is_empty() {
            let mut slot = self.slot(&terms, condition.as_deref(), &inputs, Reading::Defaulted)?;
            let null = |place: &usize| format!("NEW.{} IS NULL", ident(&self.table.columns[*place].name));
            let nulls: Vec<String> = defaulted.iter().map(null).collect();
            slot.holds = format!("({}) AND {}", nulls.join(" OR "), slot.holds);
            slots.push(slot);
        }
        Ok(())
    }

    fn slot(
        &self,
        terms: &[(Term<'_>, &str)],
        condition: Option<&[Token<'_>]>,
        inputs: &Inputs,
        reading: Reading,
    ) -> Result<Slot, String> {
        let mut all = Vec::new();
        for (term, collation) in terms {
            let (row, new) = match term {
                Term::Column(place) => (self.of_row(Reference::Column(*place)), self.of_new_column(*place, reading)?),
                Term::Expression(tokens) => {
                    (format!("({})", self.row_text(tokens)?), format!("({})", self.new_text(tokens, reading)?))
                }
            };
            all.push(format!("{row} COLLATE {} = {new}", ident(collation)));
        }
        if let Some(condition) = condition {
            all.push(format!("({})", self.row_text(condition)?));
            if !(self.event == Event::Insert && self.reads_unknown_key(condition)?) {
                all.push(format!("({})", self.new_text(condition, reading)?));
            }
        }
        if inputs.generated {
            // SQLite computes NEW's generated columns only from those columns that the trigger reads itself.
            let read: Vec<String> = inputs.columns.iter().map(|column| format!("NEW.{column} IS NULL")).collect();
            all.push(format!("(1 OR {})", read.join(" OR ")));
        }
        Ok(Slot { holds: all.join(" AND "), depends_on: inputs.columns.clone() })
    }

    fn of_row(&self, reference: Reference) -> String {
        match reference {
            Reference::Column(place) => format!("x.{}", ident(&self.table.columns[place].name)),
            Reference::Rowid => format!("x.{}", rowid_name(self.table).unwrap_or("rowid")),
        }
    }

    fn row_text(&self, expression: &[Token<'_>]) -> Result<String, String> {
        rewrite(expression, self.table, &mut |reference| Ok(self.of_row(reference)))
    }

    fn new_text(&self, expression: &[Token<'_>], reading: Reading) -> Result<String, String> {
        rewrite(expression, self.table, &mut |reference| match reference {
            Reference::Rowid => Ok(format!("NEW.{}", rowid_name(self.table).unwrap_or("rowid"))),
            Reference::Column(place) => self.of_new(place, reading),
        })
    }

    /// A column of NEW inside an expression, where its affinity and collation count.
    fn of_new(&self, place: usize, reading: Reading) -> Result<String, String> {
        let column = &self.table.columns[place];
        let plain = format!("NEW.{}", ident(&column.name));
        if reading == Reading::Plain {
            return Ok(plain);
        }
        if let Some(expression) = &self.notes[place].generated_as {
            return Ok(format!("({})", self.new_text(expression, reading)?));
        }
        let Some(default) = self.default(place) else { return Ok(plain) };
        let cast = match column.declared_type.is_empty() {
            true => format!("({default})"),
            false => format!("CAST(({default}) AS {})", ident(&column.declared_type)),
        };
        let filled = format!("coalesce({plain}, {cast})");
        Ok(match &self.notes[place].collation {
            Some(collation) => format!("({filled} COLLATE {})", ident(collation)),
            None => filled,
        })
    }

    /// A column of NEW that is compared with the same column of a row, which lends it affinity and collation.
    fn of_new_column(&self, place: usize, reading: Reading) -> Result<String, String> {
        let column = &self.table.columns[place];
        match (self.default(place), column.generated) {
            (Some(default), Generated::No) => Ok(format!("coalesce(NEW.{}, ({default}))", ident(&column.name))),
            (_, Generated::Virtual | Generated::Stored) => self.of_new(place, reading),
            (None, Generated::No) => Ok(format!("NEW.{}", ident(&column.name))),
        }
    }

    /// What REPLACE stores where NULL is given, if it stores anything.
    fn default(&self, place: usize) -> Option<String> {
        let column = &self.table.columns[place];
        let default = column.default.as_deref().filter(|_| column.not_null && column.generated == Generated::No)?;
        Some(default_sql(default))
    }

    /// A unique expression that is computed from a key which SQLite assigns only after BEFORE triggers ran.
    fn refuse_unknown_key(&self, index: &Index, terms: &[(Term<'_>, &str)]) -> Result<(), String> {
        for (term, _) in terms {
            let reads = match term {
                Term::Column(place) => self.deep_inputs(*place)?.iter().any(|input| self.is_unknown(*input)),
                Term::Expression(tokens) => self.reads_unknown_key(tokens)?,
            };
            if reads {
                return Err(format!(
                    "its unique index {} is over an expression of the key that SQLite assigns, which no trigger can \
                     know in time",
                    index.name
                ));
            }
        }
        Ok(())
    }

    fn is_unknown(&self, place: usize) -> bool {
        self.table.key == KeyShape::RowidAlias { column: place }
    }

    fn reads_unknown_key(&self, expression: &[Token<'_>]) -> Result<bool, String> {
        let (columns, rowid) = self.names(expression)?;
        let mut reads = rowid;
        for place in columns {
            reads |= self.deep_inputs(place)?.iter().any(|input| self.is_unknown(*input));
        }
        Ok(reads)
    }

    /// The columns, and whether the rowid, that an expression names.
    fn names(&self, expression: &[Token<'_>]) -> Result<(BTreeSet<usize>, bool), String> {
        let (mut columns, mut rowid) = (BTreeSet::new(), false);
        rewrite(expression, self.table, &mut |reference| {
            match reference {
                Reference::Column(place) => drop(columns.insert(place)),
                Reference::Rowid => rowid = true,
            }
            Ok(String::new())
        })?;
        Ok((columns, rowid))
    }

    /// The written columns that a column comes from: itself, or what it is generated from.
    fn deep_inputs(&self, place: usize) -> Result<BTreeSet<usize>, String> {
        let column = &self.table.columns[place];
        if column.generated == Generated::No {
            return Ok(BTreeSet::from([place]));
        }
        let unread = || format!("the expression of generated column {:?} could not be read", column.name);
        let expression = self.notes[place].generated_as.as_ref().ok_or_else(unread)?;
        let mut inputs = BTreeSet::new();
        for source in self.names(expression)?.0 {
            inputs.append(&mut self.deep_inputs(source)?);
        }
        Ok(inputs)
    }

    fn inputs(&self, terms: &[(Term<'_>, &str)], condition: Option<&[Token<'_>]>) -> Result<Inputs, String> {
        let (mut named, mut in_expressions, mut rowid) = (BTreeSet::new(), BTreeSet::new(), false);
        let mut read = |expression: &[Token<'_>]| -> Result<(), String> {
            let (columns, reads_rowid) = self.names(expression)?;
            rowid |= reads_rowid;
            in_expressions.extend(columns);
            Ok(())
        };
        for (term, _) in terms {
            match term {
                Term::Column(place) => drop(named.insert(*place)),
                Term::Expression(tokens) => read(tokens)?,
            }
        }
        condition.map(&mut read).transpose()?;
        let is_generated = |place: &usize| self.table.columns[*place].generated != Generated::No;
        in_expressions.extend(named.iter().copied().filter(is_generated));
        named.extend(&in_expressions);
        let generated = named.iter().any(is_generated);
        let (mut all, mut deep) = (BTreeSet::new(), BTreeSet::new());
        for place in named {
            all.append(&mut self.deep_inputs(place)?);
        }
        for place in in_expressions {
            deep.append(&mut self.deep_inputs(place)?);
        }
        let mut columns: Vec<String> = all.into_iter().map(|place| ident(&self.table.columns[place].name)).collect();
        columns.extend(rowid_name(self.table).filter(|_| rowid).map(str::to_owned));
        Ok(Inputs { columns, deep, generated })
    }
}

/// What a slot is computed from.
struct Inputs {
    /// Every written column, and the rowid, as SQL names.
    columns: Vec<String>,
    /// The written columns that are read inside expressions.
    deep: BTreeSet<usize>,
    /// Whether a generated column is among what it names.
    generated: bool,
}

fn unreadable(index: &Index) -> String {
    format!("the definition of its unique index {} could not be read", index.name)
}

/// A default as `table_xinfo` has it, as an expression that a trigger may contain. A bare word is a string there.
pub(super) fn default_sql(default: &str) -> String {
    const VALUES: [&str; 6] = ["NULL", "TRUE", "FALSE", "CURRENT_TIME", "CURRENT_DATE", "CURRENT_TIMESTAMP"];
    let all = tokens(default);
    if let [only] = all.as_slice() {
        let bare = only.kind == TokenKind::Word && !VALUES.iter().any(|value| only.is(value));
        if bare || matches!(only.kind, TokenKind::DoubleQuoted | TokenKind::Quoted) {
            return crate::sqlite::literal(&only.name().unwrap_or_default());
        }
    }
    let text = |token: &Token<'_>| match token.kind {
        TokenKind::DoubleQuoted => crate::sqlite::literal(&token.name().unwrap_or_default()),
        TokenKind::Word
        | TokenKind::Quoted
        | TokenKind::String
        | TokenKind::Blob
        | TokenKind::Number
        | TokenKind::Parameter
        | TokenKind::Symbol => token.text.to_owned(),
    };
    all.iter().map(text).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sqlite::{catalog, in_memory};

    fn schema(ddl: &str) -> TableSchema {
        let connection = in_memory().expect("memory");
        connection.execute_batch(ddl).expect("ddl");
        catalog::table(&connection, "t").expect("catalog").expect("table")
    }

    fn holds(ddl: &str) -> Vec<String> {
        slots(&schema(ddl), Event::Insert, Images::Key).expect("slots").into_iter().map(|slot| slot.holds).collect()
    }

    #[test]
    fn a_table_without_unique_indexes_needs_no_touch() {
        assert!(holds("CREATE TABLE t(id INTEGER PRIMARY KEY, a); CREATE INDEX i ON t(a)").is_empty());
        assert!(holds("CREATE TABLE t(k TEXT PRIMARY KEY, a) WITHOUT ROWID").is_empty());
        let covers_the_key = "CREATE TABLE t(k TEXT PRIMARY KEY, a) WITHOUT ROWID; CREATE UNIQUE INDEX i ON t(a, k)";
        assert!(holds(covers_the_key).is_empty());
    }

    #[test]
    fn each_slot_compares_as_its_index_does() {
        assert_eq!(
            holds("CREATE TABLE t(id INTEGER PRIMARY KEY, a UNIQUE COLLATE NOCASE)"),
            ["x.\"a\" COLLATE \"NOCASE\" = NEW.\"a\""]
        );
        assert_eq!(holds("CREATE TABLE t(k TEXT PRIMARY KEY)"), ["x.rowid = NEW.rowid"]);
        let another_collation = "CREATE TABLE t(k TEXT PRIMARY KEY, rowid, oid, _rowid_);
            CREATE UNIQUE INDEX i ON t(k COLLATE NOCASE)";
        assert_eq!(holds(another_collation), ["x.\"k\" COLLATE \"NOCASE\" = NEW.\"k\""]);
        assert_eq!(
            holds("CREATE TABLE t(id INTEGER PRIMARY KEY, s); CREATE UNIQUE INDEX i ON t(lower(s)) WHERE s <> \"no\""),
            [
                "(lower ( x.\"s\" )) COLLATE \"BINARY\" = (lower ( NEW.\"s\" )) AND (x.\"s\" <> 'no') AND (NEW.\"s\" <> 'no')"
            ]
        );
    }

    #[test]
    fn defaults_that_replace_stores_for_null_are_compared() {
        assert_eq!(
            holds("CREATE TABLE t(id INTEGER PRIMARY KEY, a NOT NULL DEFAULT abc UNIQUE)"),
            ["x.\"a\" COLLATE \"BINARY\" = coalesce(NEW.\"a\", ('abc'))"]
        );
    }

    #[test]
    fn a_unique_expression_of_an_assigned_key_cannot_be_captured() {
        for ddl in [
            "CREATE TABLE t(id INTEGER PRIMARY KEY, a); CREATE UNIQUE INDEX i ON t(id % 3)",
            "CREATE TABLE t(id INTEGER PRIMARY KEY, g AS (id % 3) UNIQUE)",
        ] {
            assert!(slots(&schema(ddl), Event::Update, Images::Key).is_err(), "{ddl}");
        }
        let condition_only = "CREATE TABLE t(id INTEGER PRIMARY KEY, a); CREATE UNIQUE INDEX i ON t(a) WHERE id > 3";
        assert_eq!(holds(condition_only), ["x.\"a\" COLLATE \"BINARY\" = NEW.\"a\" AND (x.\"id\" > 3)"]);
    }
}
