//! What a table is, as the catalog reads it: columns, key, indexes.

use super::{Collation, Value};

/// Names one *generation* of a captured table, in the database that owns it.
///
/// A new id whenever the table's columns, key or unique indexes change, so that a log entry is read with the columns
/// that it was written under. Ids ascend and are never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct TableId(pub i64);

/// How a column comes by its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Generated {
    /// It is written.
    No,
    /// It is computed when read.
    Virtual,
    /// It is computed when written.
    Stored,
}

/// SQLite's column affinity (datatype3, section 3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "SQLite's own words")]
pub enum Affinity {
    Integer,
    Text,
    Blob,
    Real,
    Numeric,
}

impl Affinity {
    /// By SQLite's rules, in their order.
    pub fn of_declared_type(declared: &str) -> Self {
        let upper = declared.to_ascii_uppercase();
        let has = |part: &str| upper.contains(part);
        if has("INT") {
            Self::Integer
        } else if has("CHAR") || has("CLOB") || has("TEXT") {
            Self::Text
        } else if has("BLOB") || declared.trim().is_empty() {
            Self::Blob
        } else if has("REAL") || has("FLOA") || has("DOUB") {
            Self::Real
        } else {
            Self::Numeric
        }
    }
}

/// One column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// As declared.
    pub name: String,
    /// As declared, empty where there is none.
    pub declared_type: String,
    /// Whether NOT NULL was declared.
    pub not_null: bool,
    /// The default's SQL, as `table_xinfo` has it.
    pub default: Option<String>,
    /// Its place in the declared primary key, from 0.
    pub key_part: Option<usize>,
    /// Whether it is computed.
    pub generated: Generated,
}

/// Where an index comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IndexOrigin {
    /// CREATE INDEX.
    Created,
    /// A UNIQUE constraint.
    Unique,
    /// The PRIMARY KEY.
    PrimaryKey,
}

/// One column or expression of an index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexColumn {
    /// The column's place in [`TableSchema::columns`]; `None` for an expression.
    pub column: Option<usize>,
    /// The collation's name, as SQLite has it.
    pub collation: String,
    /// Whether it descends.
    pub descending: bool,
}

/// One index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Index {
    /// Its name; `sqlite_autoindex_…` for a constraint's.
    pub name: String,
    /// Whether it is unique.
    pub unique: bool,
    /// Where it comes from.
    pub origin: IndexOrigin,
    /// Whether it has a WHERE.
    pub partial: bool,
    /// The CREATE INDEX, for [`IndexOrigin::Created`].
    pub sql: Option<String>,
    /// What it is on, without the row's key that SQLite appends.
    pub columns: Vec<IndexColumn>,
}

/// What identifies a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyShape {
    /// No primary key is declared: the rowid, by a name that no column hides.
    Rowid {
        /// `rowid`, `_rowid_` or `oid`.
        name: &'static str,
    },
    /// One INTEGER PRIMARY KEY column, which is the rowid itself.
    RowidAlias {
        /// Its place in [`TableSchema::columns`].
        column: usize,
    },
    /// The declared primary key.
    Columns {
        /// Their places in [`TableSchema::columns`], in the key's order, each with the collation of the key's index.
        columns: Vec<(usize, Collation)>,
    },
    /// None: no primary key, and columns hide every name of the rowid.
    None,
}

/// One table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableSchema {
    /// Its name as declared.
    pub name: String,
    /// All columns in declared order, generated ones too.
    pub columns: Vec<Column>,
    /// What identifies a row.
    pub key: KeyShape,
    /// WITHOUT ROWID.
    pub without_rowid: bool,
    /// STRICT.
    pub strict: bool,
    /// The CREATE TABLE, as `sqlite_schema` has it.
    pub ddl: String,
    /// All indexes, automatic ones too, by name.
    pub indexes: Vec<Index>,
    /// What about it the application alone knows (a collation, a function): such a table is not captured.
    pub foreign_needs: Option<String>,
}

impl TableSchema {
    /// The key's columns: name and collation, in the key's order. The rowid goes under the name that it can be read by.
    pub fn key_columns(&self) -> Vec<(&str, Collation)> {
        match &self.key {
            KeyShape::Rowid { name } => vec![(name, Collation::Binary)],
            KeyShape::RowidAlias { column } => vec![(self.columns[*column].name.as_str(), Collation::Binary)],
            KeyShape::Columns { columns } => {
                columns.iter().map(|(column, collation)| (self.columns[*column].name.as_str(), *collation)).collect()
            }
            KeyShape::None => Vec::new(),
        }
    }

    /// The collations of the key's columns, for [`super::Key::normal`].
    pub fn key_collations(&self) -> Vec<Collation> {
        self.key_columns().into_iter().map(|(_, collation)| collation).collect()
    }

    /// The columns of a row that travels, in order: the rowid first where it is the key, then every column that is
    /// written (generated ones are recomputed where they arrive). Both ends derive it from the same DDL.
    pub fn wire_columns(&self) -> Vec<&str> {
        let rowid = match &self.key {
            KeyShape::Rowid { name } => Some(*name),
            KeyShape::RowidAlias { .. } | KeyShape::Columns { .. } | KeyShape::None => None,
        };
        let written = self.columns.iter().filter(|column| column.generated == Generated::No);
        rowid.into_iter().chain(written.map(|column| column.name.as_str())).collect()
    }

    /// Where in [`Self::wire_columns`] each key column is, in the key's order.
    pub fn key_in_wire(&self) -> Vec<usize> {
        let wire = self.wire_columns();
        let place = |name: &str| wire.iter().position(|column| *column == name).expect("a key column is written");
        self.key_columns().iter().map(|(name, _)| place(name)).collect()
    }

    /// All columns of a row for somebody who looks at it: the rowid first where it is the key, then every column,
    /// generated ones too.
    pub fn all_columns(&self) -> Vec<&str> {
        let rowid = match &self.key {
            KeyShape::Rowid { name } => Some(*name),
            KeyShape::RowidAlias { .. } | KeyShape::Columns { .. } | KeyShape::None => None,
        };
        rowid.into_iter().chain(self.columns.iter().map(|column| column.name.as_str())).collect()
    }

    /// Where in [`Self::all_columns`] each key column is, in the key's order.
    pub fn key_in_all(&self) -> Vec<usize> {
        match &self.key {
            KeyShape::Rowid { .. } => vec![0],
            KeyShape::RowidAlias { column } => vec![*column],
            KeyShape::Columns { columns } => columns.iter().map(|(column, _)| *column).collect(),
            KeyShape::None => Vec::new(),
        }
    }

    /// The key out of a row in wire order.
    pub fn key_of(&self, row: &[Value]) -> super::Key {
        super::Key(self.key_in_wire().into_iter().map(|place| row[place].clone()).collect())
    }

    /// The column of that name, without case, as SQLite compares names.
    pub fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.name.eq_ignore_ascii_case(name))
    }

    /// The column that AUTOINCREMENT-less `max(rowid)+1` or AUTOINCREMENT fills, if the rowid has a name of its own.
    pub fn rowid_alias(&self) -> Option<&Column> {
        match self.key {
            KeyShape::RowidAlias { column } => Some(&self.columns[column]),
            KeyShape::Rowid { .. } | KeyShape::Columns { .. } | KeyShape::None => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn affinity_follows_the_rules_in_their_order() {
        for (declared, affinity) in [
            ("INTEGER", Affinity::Integer),
            ("CHARINT", Affinity::Integer),
            ("VARCHAR(20)", Affinity::Text),
            ("BLOB", Affinity::Blob),
            ("", Affinity::Blob),
            ("DOUBLE PRECISION", Affinity::Real),
            ("FLOATING POINT", Affinity::Integer),
            ("DECIMAL(10,5)", Affinity::Numeric),
            ("STRING", Affinity::Numeric),
        ] {
            assert_eq!(Affinity::of_declared_type(declared), affinity, "{declared}");
        }
    }
}
