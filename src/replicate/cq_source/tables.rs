//! A SQLite table as a CloudQuery table: which columns it has there, of which Arrow types, and what identifies its rows.
//!
//! Pure: from the catalog's [`TableSchema`] alone, so that a source and a link that sees the same table say the same.
//!
//! * `_cq_id` comes first, unless the table has a column of that name. Then the columns that are written, in order;
//!   generated ones are computed by whoever reads, and are left out.
//! * The primary key is the table's own. A table without one is keyed by its rowid, which travels as `_rowid`. A key
//!   that does not compare byte by byte (NOCASE, RTRIM) would be two rows at a destination where it is one here: such a
//!   table is keyed by `_cq_id`, made of the key as SQLite compares it.
//! * A column that the destination may not leave empty is one that cannot be NULL here. Unique constraints do not
//!   travel: they are kept here, and rows that swap values would break them on the way.
//! * Foreign keys make no parents: a destination deletes a parent's rows by ids that no row here has.

use crate::cloudquery::table::{columns, schema_keys};
use crate::cloudquery::{Column, Table};
use crate::model::{Affinity, Collation, Generated, KeyShape, TableSchema};

use super::values::Kind;

/// What the rowid is called where it is the key.
const ROWID: &str = "_rowid";

/// How a table is made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TableOptions {
    /// Whether `_cq_id` alone is the primary key, made of the table's own one.
    pub key_is_cq_id: bool,
    /// Whether a later sync goes on where this one ends, so that no row is stale for not being in it.
    pub incremental: bool,
    /// Whether its rows say themselves that they are of no source: a column `_cq_source_name` that is NULL, which clients
    /// leave as it is. A sync of changes whose state is here needs it. Clients know an incremental table only by their own
    /// state backend, and would delete whatever such a sync does not send, for it is of their source and older.
    pub of_no_source: bool,
}

/// A table as both sides see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceTable {
    /// As the catalog has it.
    pub schema: TableSchema,
    /// As the destination sees it.
    pub table: Table,
    /// The columns after an added `_cq_id`, one for each of [`TableSchema::wire_columns`].
    pub columns: Vec<SourceColumn>,
    /// Whether `_cq_id` is added in front.
    pub adds_cq_id: bool,
    /// Whether `_cq_source_name` is added at the end, NULL in each row.
    pub adds_source_name: bool,
    /// Whether rows are identified by `_cq_id`, so that it must be the same whenever a row is said.
    pub keyed_by_cq_id: bool,
}

/// One column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceColumn {
    /// What it is called at the destination.
    pub name: String,
    /// What it holds there.
    pub kind: Kind,
    /// Whether it may not be NULL there.
    pub not_null: bool,
    /// Whether it is in the table's key here.
    pub in_key: bool,
}

/// Why a table cannot be a CloudQuery table.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// No primary key, and no name by which its rowid can be read.
    #[error("it has no primary key, and columns hide its rowid; give it a primary key")]
    NoKey,
    /// Its key needs `_cq_id`, which is a column of its own.
    #[error("its key does not compare byte by byte, and its own column _cq_id is where that would be made up for")]
    CqIdTaken,
    /// Something that only the application has.
    #[error("{0}")]
    Foreign(String),
}

impl SourceTable {
    /// The table as CloudQuery sees it.
    ///
    /// # Errors
    /// [`Unfit`].
    pub fn new(schema: TableSchema, options: TableOptions) -> Result<Self, Unfit> {
        if let Some(needs) = &schema.foreign_needs {
            return Err(Unfit::Foreign(needs.clone()));
        }
        if schema.key == KeyShape::None {
            return Err(Unfit::NoKey);
        }
        let adds_cq_id = schema.column(columns::CQ_ID).is_none();
        let collated = schema.key_collations().iter().any(|collation| *collation != Collation::Binary);
        if collated && !adds_cq_id {
            return Err(Unfit::CqIdTaken);
        }
        let keyed_by_cq_id = adds_cq_id && (collated || options.key_is_cq_id);
        let columns: Vec<SourceColumn> = schema.wire_columns().iter().map(|name| column(&schema, name)).collect();
        let id = cloudquery_id(keyed_by_cq_id);
        let described = columns.iter().map(|column| {
            let described = column.kind.column(&column.name).with_not_null(column.not_null);
            described.with_primary_key(column.in_key && !keyed_by_cq_id)
        });
        let adds_source_name = options.of_no_source && schema.column(columns::CQ_SOURCE_NAME).is_none();
        let source_name = adds_source_name.then(|| Kind::Text.column(columns::CQ_SOURCE_NAME));
        let described = adds_cq_id.then_some(id).into_iter().chain(described).chain(source_name).collect();
        let mut table = Table::new(&schema.name, described);
        if options.incremental {
            table.metadata.insert(schema_keys::INCREMENTAL, "true");
        }
        Ok(Self { schema, table, columns, adds_cq_id, adds_source_name, keyed_by_cq_id })
    }

    /// Whether moving from `before` to this leaves rows at the destination that are right as they are: columns that are
    /// NULL in every row, or that were dropped. Otherwise they have to be sent again.
    pub fn keeps_rows_of(&self, before: &Self) -> bool {
        let same_key = self.keyed_by_cq_id == before.keyed_by_cq_id && self.schema.key == before.schema.key;
        let is_kept = |column: &SourceColumn| before.columns.contains(column);
        let (kept, added): (Vec<_>, Vec<_>) = self.columns.iter().partition(|column| is_kept(column));
        let only_added =
            kept.len() == before.columns.len() && added.iter().all(|column| self.is_empty_at_first(column));
        let only_dropped =
            added.is_empty() && before.columns.iter().all(|column| !column.not_null || kept.contains(&column));
        same_key && self.adds_cq_id == before.adds_cq_id && (only_added || only_dropped)
    }

    /// Whether two spellings of one key are one row here.
    pub fn is_collated(&self) -> bool {
        self.schema.key_collations().iter().any(|collation| *collation != Collation::Binary)
    }

    /// Whether a column that was added is NULL in the rows that were there.
    fn is_empty_at_first(&self, column: &SourceColumn) -> bool {
        !column.not_null && self.schema.column(&column.name).is_some_and(|column| column.default.is_none())
    }
}

fn cloudquery_id(primary_key: bool) -> Column {
    Kind::Uuid.column(columns::CQ_ID).with_not_null(true).with_unique(true).with_primary_key(primary_key)
}

fn column(schema: &TableSchema, name: &str) -> SourceColumn {
    let in_key = schema.key_columns().iter().any(|(key, _)| *key == name);
    let is_rowid = matches!(schema.key, KeyShape::Rowid { name: rowid } if rowid == name);
    let declared = schema.columns.iter().find(|column| column.name == name && !is_rowid);
    let Some(declared) = declared else {
        return SourceColumn { name: rowid_name(schema), kind: Kind::Integer, not_null: true, in_key };
    };
    debug_assert_eq!(declared.generated, Generated::No, "generated columns do not travel");
    let is_alias = schema.rowid_alias().is_some_and(|alias| alias.name == declared.name);
    let not_null = declared.not_null || is_alias || schema.without_rowid && in_key;
    let kind = if is_alias { Kind::Integer } else { kind_of(&declared.declared_type) };
    SourceColumn { name: declared.name.clone(), kind, not_null, in_key }
}

/// A name for the rowid that no column has.
fn rowid_name(schema: &TableSchema) -> String {
    let mut name = ROWID.to_owned();
    while schema.column(&name).is_some() {
        name.push('_');
    }
    name
}

/// What a declared type holds: the words of CloudQuery's destinations first, then SQLite's affinity.
fn kind_of(declared: &str) -> Kind {
    match declared.trim().to_ascii_lowercase().as_str() {
        "boolean" | "bool" => return Kind::Boolean,
        "timestamp" | "datetime" | "timestamptz" => return Kind::Timestamp,
        "json" => return Kind::Json,
        "uuid" => return Kind::Uuid,
        "inet" => return Kind::Inet,
        _ => {}
    }
    match Affinity::of_declared_type(declared) {
        Affinity::Integer => Kind::Integer,
        Affinity::Real => Kind::Real,
        Affinity::Text => Kind::Text,
        Affinity::Blob => Kind::Blob,
        Affinity::Numeric => Kind::Numeric,
    }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{DataType, TimeUnit};

    use super::*;
    use crate::sqlite::{catalog, in_memory};

    fn schema(ddl: &str) -> TableSchema {
        let connection = in_memory().expect("memory");
        connection.execute_batch(ddl).expect("ddl");
        catalog::table(&connection, "t").expect("catalog").expect("table")
    }

    fn table(ddl: &str) -> SourceTable {
        SourceTable::new(schema(ddl), TableOptions::default()).expect("fits")
    }

    /// Name, with `!` where NOT NULL and `*` where in the primary key.
    fn said(table: &SourceTable) -> Vec<String> {
        let mark = |is: bool, mark: &'static str| if is { mark } else { "" };
        let columns = table.table.columns.iter();
        columns
            .map(|column| {
                format!("{}{}{}", column.name(), mark(column.not_null(), "!"), mark(column.primary_key(), "*"))
            })
            .collect()
    }

    #[test]
    fn declared_types_become_arrow_types() {
        let utc = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
        for (declared, expected) in [
            ("INTEGER", DataType::Int64),
            ("BIGINT", DataType::Int64),
            ("REAL", DataType::Float64),
            ("DOUBLE PRECISION", DataType::Float64),
            ("VARCHAR(20)", DataType::Utf8),
            ("BLOB", DataType::Binary),
            ("", DataType::Binary),
            ("DECIMAL(10,2)", DataType::Utf8),
            ("DATE", DataType::Utf8),
            ("Boolean", DataType::Boolean),
            ("TIMESTAMP", utc.clone()),
            ("datetime", utc),
            ("JSON", DataType::Binary),
            ("UUID", DataType::FixedSizeBinary(16)),
        ] {
            let table = table(&format!("CREATE TABLE t(id INTEGER PRIMARY KEY, v {declared})"));
            assert_eq!(table.table.columns[2].data_type(), &expected, "{declared}");
        }
    }

    #[test]
    fn a_table_is_keyed_by_what_identifies_its_rows() {
        for (ddl, expected) in [
            ("CREATE TABLE t(id INTEGER PRIMARY KEY, v TEXT NOT NULL)", &["_cq_id!", "id!*", "v!"][..]),
            ("CREATE TABLE t(v TEXT)", &["_cq_id!", "_rowid!*", "v"]),
            ("CREATE TABLE t(_rowid, v)", &["_cq_id!", "_rowid_!*", "_rowid", "v"]),
            ("CREATE TABLE t(a TEXT, b INT, PRIMARY KEY(b, a))", &["_cq_id!", "a*", "b*"]),
            ("CREATE TABLE t(a TEXT, b INT, PRIMARY KEY(b, a)) WITHOUT ROWID", &["_cq_id!", "a!*", "b!*"]),
            ("CREATE TABLE t(k TEXT COLLATE NOCASE PRIMARY KEY, v)", &["_cq_id!*", "k", "v"]),
            ("CREATE TABLE t(_cq_id TEXT PRIMARY KEY, v)", &["_cq_id*", "v"]),
            ("CREATE TABLE t(id INTEGER PRIMARY KEY, v, w AS (v) STORED)", &["_cq_id!", "id!*", "v"]),
        ] {
            assert_eq!(said(&table(ddl)), expected, "{ddl}");
        }
        let options = TableOptions { key_is_cq_id: true, incremental: true, of_no_source: true };
        let by_id = SourceTable::new(schema("CREATE TABLE t(id INTEGER PRIMARY KEY)"), options).expect("fits");
        assert_eq!(said(&by_id), ["_cq_id!*", "id!", "_cq_source_name"]);
        assert_eq!(by_id.table.metadata.get(schema_keys::INCREMENTAL).map(String::as_str), Some("true"));
    }

    #[test]
    fn a_table_that_nothing_identifies_is_unfit() {
        let unfit = |ddl: &str| SourceTable::new(schema(ddl), TableOptions::default()).expect_err("unfit");
        assert_eq!(unfit("CREATE TABLE t(rowid, oid, _rowid_)"), Unfit::NoKey);
        assert_eq!(unfit("CREATE TABLE t(k TEXT COLLATE RTRIM PRIMARY KEY, _cq_id)"), Unfit::CqIdTaken);
    }

    #[test]
    fn rows_are_kept_only_where_what_changed_is_null_in_them() {
        let before = table("CREATE TABLE t(id INTEGER PRIMARY KEY, a TEXT, b TEXT)");
        for (ddl, keeps) in [
            ("CREATE TABLE t(id INTEGER PRIMARY KEY, a TEXT, b TEXT, c TEXT)", true),
            ("CREATE TABLE t(id INTEGER PRIMARY KEY, a TEXT, b TEXT, c TEXT DEFAULT 'x')", false),
            ("CREATE TABLE t(id INTEGER PRIMARY KEY, a TEXT)", true),
            ("CREATE TABLE t(id INTEGER PRIMARY KEY, a TEXT, c TEXT)", false),
            ("CREATE TABLE t(id INTEGER PRIMARY KEY, a TEXT, b INTEGER)", false),
            ("CREATE TABLE t(id INTEGER, a TEXT PRIMARY KEY, b TEXT)", false),
        ] {
            assert_eq!(table(ddl).keeps_rows_of(&before), keeps, "{ddl}");
        }
    }
}
