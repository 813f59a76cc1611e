//! A table's definition as a set of facts, and how two of them differ.
//!
//! Facts are token-normalised DDL items: layout, the case of words and names, the names of constraints, and whether a
//! UNIQUE stands with its column or with the table make no difference. Pure.

use std::collections::HashMap;

use crate::sqlite::ddl::{self, ColumnDef, Constraint, ConstraintKind};
use crate::sqlite::{ident, lexer};

/// What tables and columns are about to be called: a comparison after a rename is made before it. Keys in upper case.
#[derive(Clone, Debug, Default)]
pub(super) struct Renames {
    /// Tables, by old name.
    pub(super) tables: HashMap<String, String>,
    /// Columns of the table at hand, by old name.
    pub(super) columns: HashMap<String, String>,
}

impl Renames {
    fn table(&self, name: &str) -> String {
        let upper = name.to_ascii_uppercase();
        self.tables.get(&upper).map_or(upper, |new| new.to_ascii_uppercase())
    }

    fn column(&self, name: &str) -> String {
        let upper = name.to_ascii_uppercase();
        self.columns.get(&upper).map_or(upper, |new| new.to_ascii_uppercase())
    }
}

/// One column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ColumnShape {
    /// As written.
    pub(super) name: String,
    /// What it is (or is about to be) called, in upper case.
    pub(super) id: String,
    /// Its exact text.
    pub(super) text: String,
    /// What may not change: type, default, collation, generated expression.
    pub(super) fixed: Vec<String>,
    /// NOT NULL, with its conflict clause.
    pub(super) not_null: Option<String>,
    /// A default that is not NULL.
    pub(super) has_default: bool,
    /// Whether it is computed.
    pub(super) generated: bool,
}

impl ColumnShape {
    /// Its name as its definition spells it, quotes included.
    pub(super) fn spelling(&self) -> String {
        lexer::tokens(&self.text).first().map_or_else(|| ident(&self.name), |token| token.text.to_owned())
    }
}

/// One UNIQUE, CHECK or foreign key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rule {
    /// Normalised.
    pub(super) text: String,
    /// The column that it stands with; it comes and goes with that.
    pub(super) column: Option<String>,
}

/// A table's definition as facts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Shape {
    /// In their order.
    pub(super) columns: Vec<ColumnShape>,
    /// What can be loosened: UNIQUE, CHECK, foreign keys, and what we do not know.
    pub(super) rules: Vec<Rule>,
    /// The primary key, with AUTOINCREMENT.
    pub(super) key: Vec<String>,
    /// WITHOUT ROWID, STRICT.
    pub(super) options: (bool, bool),
}

impl Shape {
    /// The facts of a CREATE TABLE. One that cannot be taken apart has no columns, and equals only itself.
    pub(super) fn of(sql: &str, renames: &Renames) -> Self {
        let Some(parsed) = ddl::create_table(sql) else {
            let text = sql.to_owned();
            return Self { rules: vec![Rule { text, column: None }], ..Self::default() };
        };
        let ids: Vec<(String, String)> = parsed
            .columns
            .iter()
            .map(|column| (column.name.to_ascii_uppercase(), renames.column(&column.name)))
            .collect();
        let mut reader = Reader { ids, renames, shape: Self::default() };
        reader.shape.options = (parsed.without_rowid, parsed.strict);
        for column in &parsed.columns {
            reader.column(column);
        }
        for constraint in &parsed.constraints {
            reader.rule(constraint, None);
        }
        reader.shape.key.sort();
        reader.shape
    }

    /// The column that is called so, by upper-case name.
    pub(super) fn column(&self, id: &str) -> Option<&ColumnShape> {
        self.columns.iter().find(|column| column.id == id)
    }
}

struct Reader<'a> {
    ids: Vec<(String, String)>,
    renames: &'a Renames,
    shape: Shape,
}

impl Reader<'_> {
    fn column(&mut self, column: &ColumnDef<'_>) {
        let id = self.renames.column(&column.name);
        let declared = ddl::normal(&column.declared_type, &|name| Some(name.to_ascii_uppercase()));
        let mut shape = ColumnShape {
            name: column.name.clone(),
            id: id.clone(),
            text: column.text.to_owned(),
            fixed: vec![format!("TYPE {declared}")],
            not_null: None,
            has_default: false,
            generated: false,
        };
        for constraint in &column.constraints {
            match constraint.kind {
                ConstraintKind::Null => {}
                ConstraintKind::NotNull => shape.not_null = Some(self.normal(constraint)),
                ConstraintKind::Default | ConstraintKind::Collate | ConstraintKind::Generated => {
                    shape.has_default |= constraint.kind == ConstraintKind::Default
                        && !constraint.tokens.get(1).is_some_and(|value| value.is("NULL"));
                    shape.generated |= constraint.kind == ConstraintKind::Generated;
                    let text = self.normal(constraint);
                    shape.fixed.push(text);
                }
                ConstraintKind::PrimaryKey
                | ConstraintKind::Unique
                | ConstraintKind::Check
                | ConstraintKind::References
                | ConstraintKind::ForeignKey
                | ConstraintKind::Other => self.rule(constraint, Some(&id)),
            }
        }
        shape.fixed.sort();
        self.shape.columns.push(shape);
    }

    fn rule(&mut self, constraint: &Constraint<'_>, column: Option<&str>) {
        let text = self.normal(constraint);
        let owner = column.map(str::to_owned);
        match (constraint.kind, column) {
            (ConstraintKind::PrimaryKey, Some(column)) => self.shape.key.push(format!("{column}: {text}")),
            (ConstraintKind::PrimaryKey, None) => self.shape.key.push(text),
            (ConstraintKind::Unique, Some(column)) => {
                let text = text.replacen("UNIQUE", &format!("UNIQUE ( {column} )"), 1);
                self.shape.rules.push(Rule { text, column: owner });
            }
            (ConstraintKind::References, Some(column)) => {
                let text = format!("FOREIGN KEY ( {column} ) {text}");
                self.shape.rules.push(Rule { text, column: owner });
            }
            (
                ConstraintKind::NotNull
                | ConstraintKind::Null
                | ConstraintKind::Unique
                | ConstraintKind::Check
                | ConstraintKind::Default
                | ConstraintKind::Collate
                | ConstraintKind::References
                | ConstraintKind::ForeignKey
                | ConstraintKind::Generated
                | ConstraintKind::Other,
                _,
            ) => self.shape.rules.push(Rule { text, column: owner }),
        }
    }

    /// The constraint's tokens, its column names by their new names; what it refers to, by the table's new name.
    fn normal(&self, constraint: &Constraint<'_>) -> String {
        let known = |name: &str| {
            let upper = name.to_ascii_uppercase();
            self.ids.iter().find(|(old, _)| *old == upper).map(|(_, new)| new.clone())
        };
        let refers = constraint.tokens.iter().position(|token| token.is("REFERENCES"));
        let Some(at) = refers else { return ddl::normal(&constraint.tokens, &known) };
        let parent = constraint.tokens.get(at + 1).and_then(|token| token.name()).unwrap_or_default();
        let tail = constraint.tokens.get(at + 2..).unwrap_or_default();
        let parts = [
            ddl::normal(&constraint.tokens[..=at], &known),
            format!("[{}]", self.renames.table(&parent)),
            ddl::normal(tail, &|name| Some(name.to_ascii_uppercase())),
        ];
        parts.join(" ").trim_end().to_owned()
    }
}

/// How what is here differs from what is wanted. Columns by upper-case name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Difference {
    /// Columns that only the wanted one has.
    pub(super) added: Vec<String>,
    /// Columns that only this one has.
    pub(super) missing: Vec<String>,
    /// Columns whose type, default, collation or expression is another.
    pub(super) changed: Vec<String>,
    /// Columns that become NOT NULL, or differ in its conflict clause.
    pub(super) tightened: Vec<String>,
    /// Columns that cease to be NOT NULL.
    pub(super) loosened: Vec<String>,
    /// UNIQUE, CHECK, foreign keys that only the wanted one has.
    pub(super) rules_added: Vec<String>,
    /// Those that only this one has.
    pub(super) rules_removed: Vec<String>,
    /// Whether the key, WITHOUT ROWID or STRICT differ.
    pub(super) key: bool,
    /// Whether common columns stand in another order.
    pub(super) order: bool,
    /// Whether an added column stands before a common one.
    pub(super) inserted: bool,
}

impl Difference {
    /// What `here` lacks of `wanted`. Columns in `kept` are here on purpose and do not count.
    pub(super) fn between(wanted: &Shape, here: &Shape, kept: &[String]) -> Self {
        let ids = |shape: &Shape| shape.columns.iter().map(|column| column.id.clone()).collect::<Vec<_>>();
        let (there, mine) = (ids(wanted), ids(here));
        let added: Vec<String> = there.iter().filter(|id| !mine.contains(id)).cloned().collect();
        let missing: Vec<String> =
            mine.iter().filter(|id| !there.contains(id) && !kept.contains(id)).cloned().collect();
        let common: Vec<&String> = there.iter().filter(|id| mine.contains(id)).collect();
        let mut difference = Self {
            order: !common.iter().copied().eq(mine.iter().filter(|id| there.contains(id))),
            inserted: there.iter().take(common.len()).any(|id| added.contains(id)),
            key: wanted.key != here.key || wanted.options != here.options,
            added,
            missing,
            ..Self::default()
        };
        for id in common {
            difference.column(wanted.column(id).expect("common"), here.column(id).expect("common"));
        }
        let lone = |a: &Shape, b: &Shape| {
            let excused = |rule: &Rule| rule.column.as_ref().is_some_and(|column| b.column(column).is_none());
            let lacks = |rule: &&Rule| !b.rules.iter().any(|other| other.text == rule.text) && !excused(rule);
            a.rules.iter().filter(lacks).map(|rule| rule.text.clone()).collect::<Vec<_>>()
        };
        difference.rules_added = lone(wanted, here);
        difference.rules_removed = lone(here, wanted);
        difference
    }

    fn column(&mut self, wanted: &ColumnShape, here: &ColumnShape) {
        if wanted.fixed != here.fixed {
            self.changed.push(wanted.id.clone());
        }
        if wanted.not_null == here.not_null {
            return;
        }
        if wanted.not_null.is_none() {
            self.loosened.push(wanted.id.clone());
        } else {
            self.tightened.push(wanted.id.clone());
        }
    }

    /// Leaves only what differs there too; which columns come and go stays.
    pub(super) fn keep_only(&mut self, other: &Self) {
        self.changed.retain(|id| other.changed.contains(id));
        self.tightened.retain(|id| other.tightened.contains(id));
        self.loosened.retain(|id| other.loosened.contains(id));
        self.rules_added.retain(|text| other.rules_added.contains(text));
        self.rules_removed.retain(|text| other.rules_removed.contains(text));
        self.key &= other.key;
    }

    /// Whether there is none.
    pub(super) fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// Whether only columns come or go, so that ALTER TABLE may do.
    pub(super) fn is_columns_only(&self) -> bool {
        let Self { added, missing, inserted, .. } = self;
        let columns = Self { added: added.clone(), missing: missing.clone(), inserted: *inserted, ..Self::default() };
        *self == columns && !inserted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn difference(wanted: &str, here: &str) -> Difference {
        let renames = Renames::default();
        Difference::between(&Shape::of(wanted, &renames), &Shape::of(here, &renames), &[])
    }

    #[test]
    fn layout_case_quoting_and_names_of_constraints_make_no_difference() {
        let wanted = "CREATE TABLE t(a INTEGER PRIMARY KEY, b TEXT UNIQUE, c REFERENCES \"P\"(x), CHECK (b <> c))";
        let here = "create table \"T\"( [A] integer primary key,\n B text, `c`, CONSTRAINT u UNIQUE (b), \
                    FOREIGN KEY(c) REFERENCES p(X), CONSTRAINT k check(\"b\" <> C))";
        assert_eq!(difference(wanted, here), Difference::default());
        assert!(!difference("CREATE TABLE t(a DEFAULT 'x')", "CREATE TABLE t(a DEFAULT 'X')").is_none());
    }

    #[test]
    fn every_kind_of_difference_is_told() {
        let one = |text: &str| vec![text.to_owned()];
        let here = "CREATE TABLE t(a, b NOT NULL, c INT)";
        assert_eq!(difference("CREATE TABLE t(a, b NOT NULL, c INT, d)", here).added, one("D"));
        assert_eq!(difference("CREATE TABLE t(a, b NOT NULL)", here).missing, one("C"));
        assert_eq!(difference("CREATE TABLE t(a, b NOT NULL, c TEXT)", here).changed, one("C"));
        assert_eq!(difference("CREATE TABLE t(a NOT NULL, b NOT NULL, c INT)", here).tightened, one("A"));
        assert_eq!(difference("CREATE TABLE t(a, b, c INT)", here).loosened, one("B"));
        assert!(difference("CREATE TABLE t(b NOT NULL, a, c INT)", here).order);
        assert!(difference("CREATE TABLE t(a, d, b NOT NULL, c INT)", here).inserted);
        assert!(difference("CREATE TABLE t(a, b NOT NULL, c INT) STRICT", here).key);
        assert_eq!(difference("CREATE TABLE t(a, b NOT NULL, c INT CHECK(c > 0))", here).rules_added.len(), 1);
    }
}
