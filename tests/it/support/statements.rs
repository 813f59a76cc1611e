//! Random statements over whatever tables a database has, and what running one of them shows an application.

use rusqlite::{Connection, types::Value};

use super::{
    oracle::quoted,
    random::Random,
    table::{Column, Table},
};

const CLAUSES: &[&str] =
    &["", "", "", " OR REPLACE", " OR REPLACE", " OR IGNORE", " OR FAIL", " OR ABORT", " OR ROLLBACK"];

/// A statement.
#[derive(Clone, Debug)]
pub struct Statement {
    /// Its text.
    pub sql: String,
    /// Whether any trigger, whoever's, may change what it does: it visits several rows and may make them collide, so the
    /// order matters (P55); or it offers a STRICT table a value of the wrong type (P56).
    pub shaky: bool,
}

impl Statement {
    fn steady(sql: impl Into<String>) -> Self {
        Self { sql: sql.into(), shaky: false }
    }
}

/// Generates statements.
pub struct Generator<'a> {
    random: &'a mut Random,
    tables: &'a [Table],
}

impl<'a> Generator<'a> {
    /// For the tables given, in the order that `random` determines.
    pub fn new(random: &'a mut Random, tables: &'a [Table]) -> Self {
        assert!(!tables.is_empty(), "no table to write to");
        Self { random, tables }
    }

    /// The next statement.
    pub fn next(&mut self) -> Statement {
        let table = &self.tables[self.random.below(self.tables.len())];
        match self.random.below(100) {
            0..40 => self.insert(table),
            40..45 => self.insert_select(table),
            45..72 => self.update(table),
            72..76 => self.set_rowid(table),
            76..86 => self.delete(table),
            _ => Statement::steady(self.control()),
        }
    }

    fn control(&mut self) -> &'static str {
        let list = [
            "BEGIN",
            "BEGIN IMMEDIATE",
            "COMMIT",
            "COMMIT",
            "COMMIT",
            "ROLLBACK",
            "SAVEPOINT one",
            "SAVEPOINT two",
            "RELEASE one",
            "RELEASE two",
            "ROLLBACK TO one",
            "ROLLBACK TO two",
        ];
        self.random.pick(&list)
    }

    fn insert(&mut self, table: &Table) -> Statement {
        let columns = self.columns(table, true);
        let mut names: Vec<String> = columns.iter().map(|column| quoted(&column.name)).collect();
        let rowid = table.rowid.filter(|_| table.alias.is_none() && self.random.chance(15));
        names.extend(rowid.map(str::to_owned));
        let mut shaky = false;
        let rows: Vec<String> = (0..=self.random.below(3))
            .map(|_| {
                let mut values: Vec<String> =
                    columns.iter().map(|column| self.value(table, column, &mut shaky)).collect();
                if rowid.is_some() {
                    values.push(self.random.between(1, 12).to_string());
                }
                format!("({})", values.join(", "))
            })
            .collect();
        let (clause, upsert) = match self.random.below(4) {
            0 => ("", self.upsert(table, &mut shaky)),
            _ => (self.random.pick(CLAUSES), String::new()),
        };
        let into = format!("INSERT{clause} INTO {}", table.quoted());
        let returning = self.returning();
        let sql = if names.is_empty() {
            format!("{into} DEFAULT VALUES{returning}")
        } else {
            format!("{into}({}) VALUES {}{upsert}{returning}", names.join(", "), rows.join(", "))
        };
        Statement { sql, shaky }
    }

    fn upsert(&mut self, table: &Table, shaky: &mut bool) -> String {
        let targets: Vec<&Vec<String>> =
            table.uniques.iter().filter(|columns| columns.iter().all(|name| !name.is_empty())).collect();
        let mut target = table.key();
        if (target.is_empty() || self.random.chance(40)) && !targets.is_empty() {
            target = self.random.one(&targets).iter().map(|name| quoted(name)).collect();
        }
        if target.is_empty() || self.random.chance(30) {
            return " ON CONFLICT DO NOTHING".to_owned();
        }
        let set = self.assignments(table, shaky).0;
        if set.is_empty() {
            return " ON CONFLICT DO NOTHING".to_owned();
        }
        format!(" ON CONFLICT({}) DO UPDATE SET {set}", target.join(", "))
    }

    fn insert_select(&mut self, table: &Table) -> Statement {
        let columns = self.columns(table, false);
        if columns.is_empty() {
            return Statement::steady("SELECT 1");
        }
        let names: Vec<String> = columns.iter().map(|column| quoted(&column.name)).collect();
        let clause = self.random.pick(CLAUSES);
        let limit = 1 + self.random.below(4);
        let names = names.join(", ");
        let order = (1..=columns.len()).map(|place| place.to_string()).collect::<Vec<_>>().join(", ");
        let sql = format!(
            "INSERT{clause} INTO {0}({names}) SELECT {names} FROM {0} ORDER BY {order} LIMIT {limit}",
            table.quoted()
        );
        Statement { sql, shaky: table.strict }
    }

    fn update(&mut self, table: &Table) -> Statement {
        let mut shaky = false;
        let (set, collides) = self.assignments(table, &mut shaky);
        if set.is_empty() {
            return self.delete(table);
        }
        let clause = self.random.pick(CLAUSES);
        let (predicate, one) = self.predicate(table);
        // A row of the outer table that meets several of the inner one takes any of them, so it meets one.
        let from = if self.random.chance(8) { " FROM (SELECT 1 AS one)" } else { "" };
        let returning = self.returning();
        let sql = format!("UPDATE{clause} {} SET {set}{from} WHERE {predicate}{returning}", table.quoted());
        Statement { sql, shaky: shaky || (!one && (collides || !clause.is_empty() || table.strict)) }
    }

    fn set_rowid(&mut self, table: &Table) -> Statement {
        let Some(rowid) = table.rowid else { return self.update(table) };
        let clause = self.random.pick(CLAUSES);
        let (predicate, one) = self.predicate(table);
        let value = match self.random.chance(50) {
            true => self.random.between(1, 12).to_string(),
            false => format!("{rowid} + {}", self.random.between(1, 3)),
        };
        let sql = format!("UPDATE{clause} {} SET {rowid} = {value} WHERE {predicate}", table.quoted());
        Statement { sql, shaky: !one }
    }

    fn delete(&mut self, table: &Table) -> Statement {
        let table_name = table.quoted();
        if self.random.chance(4) {
            return Statement::steady(format!("DELETE FROM {table_name}"));
        }
        let (predicate, _) = self.predicate(table);
        let returning = self.returning();
        Statement::steady(format!("DELETE FROM {table_name} WHERE {predicate}{returning}"))
    }

    fn returning(&mut self) -> &'static str {
        if self.random.chance(15) { " RETURNING *" } else { "" }
    }

    /// A choice of columns to write; `INSERT` prefers most of them.
    fn columns<'t>(&mut self, table: &'t Table, most: bool) -> Vec<&'t Column> {
        let percent = if most { 80 } else { 50 };
        table.writable().into_iter().filter(|_| self.random.chance(percent)).collect()
    }

    /// Assignments, and whether what they set may collide with another row.
    fn assignments(&mut self, table: &Table, shaky: &mut bool) -> (String, bool) {
        let writable = table.writable();
        if writable.is_empty() {
            return (String::new(), false);
        }
        let mut collides = false;
        let mut taken: Vec<&str> = Vec::new();
        let mut parts = Vec::new();
        for _ in 0..=self.random.below(2) {
            let column = *self.random.one(&writable);
            if taken.contains(&column.name.as_str()) {
                continue;
            }
            taken.push(&column.name);
            collides |= table.may_collide(column);
            let name = quoted(&column.name);
            let value = match self.random.below(5) {
                0 if !table.strict => format!("{name} + 1"),
                1 if !table.strict => format!("substr({name} || 'q', 1, 12)"),
                2 if !table.strict => quoted(&self.random.one(&writable).name),
                _ => self.value(table, column, shaky),
            };
            parts.push(format!("{name} = {value}"));
        }
        (parts.join(", "), collides)
    }

    /// A condition, and whether it chooses at most one row.
    fn predicate(&mut self, table: &Table) -> (String, bool) {
        let key = table.key();
        let column = self.random.one(&table.columns).clone();
        let name = quoted(&column.name);
        let offset = self.random.below(8);
        let mut ignored = false;
        match self.random.below(8) {
            0..4 => {
                let whole = table.rowid.map_or_else(|| key.join(", "), str::to_owned);
                if whole.is_empty() {
                    return (format!("{name} IS NULL"), false);
                }
                let inner = format!("SELECT {whole} FROM {} ORDER BY {whole} LIMIT 1 OFFSET {offset}", table.quoted());
                (format!("({whole}) = ({inner})"), true)
            }
            4 => (format!("{name} IS NULL"), false),
            5 => (format!("length({name}) > 1"), false),
            6 => (format!("{name} <= {}", self.value(table, &column, &mut ignored)), false),
            _ => (format!("{name} = {}", self.value(table, &column, &mut ignored)), false),
        }
    }

    /// A literal for a column: few different ones, so that rows collide, and all the strange ones.
    fn value(&mut self, table: &Table, column: &Column, shaky: &mut bool) -> String {
        if table.alias.as_ref() == Some(&column.name) {
            return match self.random.below(10) {
                0..3 => "NULL".to_owned(),
                3 => "-2".to_owned(),
                _ => self.random.between(0, 12).to_string(),
            };
        }
        if table.strict && column.declared != "ANY" {
            if self.random.chance(96) {
                return self.strict_value(&column.declared);
            }
            *shaky = true;
        }
        match self.random.below(10) {
            0..4 => self.random.between(0, 7).to_string(),
            4..7 => self.text(),
            7 => "NULL".to_owned(),
            8 => self.number(),
            _ => self.blob(),
        }
    }

    fn strict_value(&mut self, declared: &str) -> String {
        if self.random.chance(10) {
            return "NULL".to_owned();
        }
        match declared {
            "TEXT" => self.text(),
            "BLOB" => self.blob(),
            "REAL" => self.random.pick(&["0.0", "-0.0", "1.5", "2", "9e999", "1e-310"]).to_owned(),
            _ => self.random.between(-1, 7).to_string(),
        }
    }

    fn text(&mut self) -> String {
        let list = [
            "'a'",
            "'A'",
            "'a '",
            "'b'",
            "'B'",
            "'1'",
            "'1.0'",
            "''",
            "'it''s'",
            "'ä'",
            "'Ä'",
            "'zz'",
            "CAST(x'ff61' AS TEXT)",
            "'nul' || char(0) || 'tail'",
            "'👍'",
        ];
        self.random.pick(&list).to_owned()
    }

    fn number(&mut self) -> String {
        let list = [
            "9223372036854775807",
            "-9223372036854775808",
            "9007199254740993",
            "1.0",
            "0.1",
            "-0.0",
            "9e999",
            "-9e999",
            "1.7976931348623157e308",
            "5e-324",
            "3.0",
            "-1",
        ];
        self.random.pick(&list).to_owned()
    }

    fn blob(&mut self) -> String {
        self.random.pick(&["x''", "x'61'", "x'00ff'", "zeroblob(300)", "x'31'"]).to_owned()
    }
}

/// What an application sees of a statement.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// The rows that it returned.
    pub rows: Vec<Vec<Value>>,
    /// The error that it ended with.
    pub error: Option<String>,
    /// `changes()` after it.
    pub changes: u64,
    /// `last_insert_rowid()` after it.
    pub last_insert_rowid: i64,
    /// Whether no transaction was open after it.
    pub autocommit: bool,
}

/// Runs a statement to its end.
pub fn run(conn: &Connection, sql: &str) -> Outcome {
    let mut rows = Vec::new();
    let error = collect(conn, sql, &mut rows).err().map(|error| error.to_string());
    Outcome {
        rows,
        error,
        changes: conn.changes(),
        last_insert_rowid: conn.last_insert_rowid(),
        autocommit: conn.is_autocommit(),
    }
}

fn collect(conn: &Connection, sql: &str, found: &mut Vec<Vec<Value>>) -> rusqlite::Result<()> {
    let mut statement = conn.prepare(sql)?;
    let width = statement.column_count();
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        found.push((0..width).map(|at| exact(row.get_ref(at).unwrap())).collect());
    }
    Ok(())
}

/// A value as it is: text that is not UTF-8 becomes a blob, which is all that a comparison needs.
fn exact(value: rusqlite::types::ValueRef<'_>) -> Value {
    use rusqlite::types::ValueRef;
    match value {
        ValueRef::Text(text) => match std::str::from_utf8(text) {
            Ok(text) => Value::Text(text.to_owned()),
            Err(_) => Value::Blob(text.to_owned()),
        },
        ValueRef::Null => Value::Null,
        ValueRef::Integer(number) => Value::Integer(number),
        ValueRef::Real(number) => Value::Real(number),
        ValueRef::Blob(bytes) => Value::Blob(bytes.to_owned()),
    }
}

/// Ends whatever transaction is open.
pub fn finish(conn: &Connection) {
    if !conn.is_autocommit() && conn.execute_batch("COMMIT").is_err() {
        conn.execute_batch("ROLLBACK").unwrap();
    }
}
