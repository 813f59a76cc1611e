//! Whether two databases are equal: every value of every table with its storage class and its exact bytes, and the
//! schema. It shares no code with the program.

use std::{collections::BTreeMap, fmt::Write as _, path::Path};

use rusqlite::{Connection, types::ValueRef};

use super::open_reader;

const DIFFERENCES_SHOWN: usize = 5;

/// What to compare, besides the content of tables, which always is.
#[derive(Clone, Debug)]
pub struct Oracle {
    /// Whether `user_version` and `application_id` must be equal.
    pub versions: bool,
    /// Whether each value of `sqlite_sequence` at the replica must be at least the source's.
    pub sequences: bool,
    /// Tables of the source that are not replicated.
    pub skip: Vec<String>,
    /// Objects that only the replica has, and may have.
    pub extra: Vec<String>,
    /// Whether the constraints of a table may be written in another order: some ORMs write them in a random one.
    pub any_order: bool,
}

impl Default for Oracle {
    fn default() -> Self {
        Self { versions: true, sequences: true, skip: Vec::new(), extra: Vec::new(), any_order: false }
    }
}

/// Panics with the first differences unless both databases hold the same.
#[track_caller]
pub fn assert_equal(source: &Path, replica: &Path) {
    Oracle::default().assert_equal(source, replica);
}

impl Oracle {
    /// Panics with the first differences unless both databases hold the same.
    #[track_caller]
    pub fn assert_equal(&self, source: &Path, replica: &Path) {
        let differences = self.differences(source, replica);
        assert!(differences.is_empty(), "source and replica differ:\n{}", differences.join("\n"));
    }

    /// What differs, for a person; nothing if they are equal.
    pub fn differences(&self, source: &Path, replica: &Path) -> Vec<String> {
        let (source, replica) = (open_reader(source), open_reader(replica));
        source.execute_batch("BEGIN").unwrap();
        replica.execute_batch("BEGIN").unwrap();
        let mut found = self.schema_differences(&source, &replica);
        for table in tables(&source) {
            if !self.skip.contains(&table) && found.len() < DIFFERENCES_SHOWN {
                found.extend(table_difference(&source, &replica, &table));
            }
        }
        found.extend(self.number_differences(&source, &replica));
        found.extend(broken(&source, &replica));
        found
    }

    fn schema_differences(&self, source: &Connection, replica: &Connection) -> Vec<String> {
        let (here, there) = (objects(source), objects(replica));
        let mut found = Vec::new();
        for (object, sql) in &here {
            match there.get(object) {
                _ if self.skip.contains(&object.1) || self.skip.contains(&object.2) => {}
                None => found.push(format!("{} {:?}: only in the source", object.0, object.1)),
                Some(other) if self.any_order && in_order(other) == in_order(sql) => {}
                Some(other) if other != sql => {
                    found.push(format!("{} {:?}:\n  source:  {sql}\n  replica: {other}", object.0, object.1));
                }
                Some(_) => {}
            }
        }
        for object in there.keys() {
            if !here.contains_key(object) && !self.extra.contains(&object.1) {
                found.push(format!("{} {:?}: only in the replica", object.0, object.1));
            }
        }
        found
    }

    fn number_differences(&self, source: &Connection, replica: &Connection) -> Vec<String> {
        let mut found = Vec::new();
        for pragma in ["user_version", "application_id"] {
            let number =
                |conn: &Connection| -> i64 { conn.pragma_query_value(None, pragma, |row| row.get(0)).unwrap() };
            if self.versions && number(source) != number(replica) {
                found.push(format!("{pragma}: source {}, replica {}", number(source), number(replica)));
            }
        }
        let there = sequences(replica);
        for (table, seq) in sequences(source) {
            let other = there.get(&table).copied().unwrap_or(0);
            if self.sequences && other < seq && !self.skip.contains(&table) {
                found.push(format!("sqlite_sequence of {table:?}: source {seq}, replica {other}"));
            }
        }
        found
    }
}

fn sequences(conn: &Connection) -> BTreeMap<String, i64> {
    let Ok(mut statement) = conn.prepare("SELECT name, max(seq) FROM sqlite_sequence WHERE seq > 0 GROUP BY 1") else {
        return BTreeMap::new();
    };
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    rows.map(Result::unwrap).filter(|(name, _): &(String, i64)| !name.starts_with("__cdc_")).collect()
}

/// The ordinary tables of the application, without virtual ones and what these keep their content in.
pub fn tables(conn: &Connection) -> Vec<String> {
    let sql = "SELECT name FROM pragma_table_list WHERE schema = 'main' AND type = 'table' \
               AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' AND name NOT LIKE '\\_\\_cdc\\_%' ESCAPE '\\' ORDER BY name";
    conn.prepare(sql).unwrap().query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
}

/// Type, name and table of a schema object.
type Object = (String, String, String);

fn objects(conn: &Connection) -> BTreeMap<Object, String> {
    let sql = "SELECT type, name, tbl_name, sql FROM sqlite_schema WHERE sql IS NOT NULL \
               AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' AND name NOT LIKE '\\_\\_cdc\\_%' ESCAPE '\\' \
               AND tbl_name NOT LIKE '\\_\\_cdc\\_%' ESCAPE '\\' AND tbl_name NOT IN \
               (SELECT name FROM pragma_table_list WHERE schema = 'main' AND type IN ('virtual', 'shadow'))";
    let mut statement = conn.prepare(sql).unwrap();
    let rows = statement
        .query_map([], |row| Ok(((row.get(0)?, row.get(1)?, row.get(2)?), normal_sql(&row.get::<_, String>(3)?))));
    rows.unwrap().map(Result::unwrap).collect()
}

/// What a CREATE TABLE in its normal form lists, the constraints of the table sorted.
fn in_order(sql: &str) -> Vec<String> {
    let mut items = vec![String::new()];
    let mut depth = 0;
    for word in sql.split(' ') {
        depth += i32::from(word == "(") - i32::from(word == ")");
        if word == "," && depth == 1 {
            items.push(String::new());
            continue;
        }
        let item = items.last_mut().unwrap();
        // The parentheses around all of it belong to no item.
        if !(word == "(" && depth == 1 || word == ")" && depth == 0) {
            item.push_str(word);
            item.push(' ');
        }
    }
    let is_constraint = |item: &str| {
        let first = item.split(' ').next().unwrap_or_default();
        ["constraint", "primary", "unique", "check", "foreign"].contains(&first)
    };
    let columns = items.iter().position(|item| is_constraint(item)).unwrap_or(items.len());
    items[columns..].sort();
    items
}

#[test]
fn constraints_in_another_order_are_the_same_and_columns_are_not() {
    let table = |inside: &str| in_order(&normal_sql(&format!("CREATE TABLE t({inside})")));
    let (one, other) = ("UNIQUE (a, b)", "CONSTRAINT c CHECK (a > 0)");
    let columns = "a INT, b DEFAULT (max(1, 2))";
    assert_eq!(table(&format!("{columns}, {one}, {other}")), table(&format!("{columns}, {other}, {one}")));
    assert_ne!(table("a, b"), table("b, a"));
    assert_ne!(table(&format!("{columns}, {one}")), table(&format!("{columns}, {other}")));
}

/// SQL as it is compared: tokens apart by one space, comments gone, names in lower case without their quotes.
pub fn normal_sql(sql: &str) -> String {
    let chars: Vec<char> = sql.chars().collect();
    let (mut out, mut at) = (String::new(), 0);
    while at < chars.len() {
        let start = at;
        let c = chars[at];
        let next = chars.get(at + 1).copied().unwrap_or(' ');
        if c.is_whitespace() {
            at += 1;
        } else if (c, next) == ('-', '-') {
            at += chars[at..].iter().position(|c| *c == '\n').unwrap_or(chars.len() - at);
        } else if (c, next) == ('/', '*') {
            at += 2;
            while at < chars.len() && (chars[at - 1] != '*' || chars[at] != '/' || at < start + 3) {
                at += 1;
            }
            at += 1;
        } else if let Some(close) = closing_quote(c) {
            at = quoted_end(&chars, at, close);
            let text: String = chars[start..at].iter().collect();
            out.push(' ');
            out.push_str(&if c == '\'' { text } else { unquoted(&text, close).to_lowercase() });
        } else if is_word(c) {
            while at < chars.len() && is_word(chars[at]) {
                at += 1;
            }
            out.push(' ');
            out.push_str(&chars[start..at].iter().collect::<String>().to_lowercase());
        } else {
            at += 1;
            out.push(' ');
            out.push(c);
        }
    }
    out.trim_start().to_owned()
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || c == '$' || !c.is_ascii()
}

fn closing_quote(open: char) -> Option<char> {
    match open {
        '\'' | '"' | '`' => Some(open),
        '[' => Some(']'),
        _ => None,
    }
}

fn quoted_end(chars: &[char], start: usize, close: char) -> usize {
    let mut at = start + 1;
    while at < chars.len() {
        if chars[at] == close {
            if close != ']' && chars.get(at + 1) == Some(&close) {
                at += 1;
            } else {
                return at + 1;
            }
        }
        at += 1;
    }
    at
}

fn unquoted(text: &str, close: char) -> String {
    let inside: String = text.chars().skip(1).take(text.chars().count().saturating_sub(2)).collect();
    inside.replace(&format!("{close}{close}"), &close.to_string())
}

/// One column of a table, as the comparison needs it.
struct Column {
    name: String,
    key: i64,
    not_null: bool,
}

fn columns(conn: &Connection, table: &str) -> Vec<Column> {
    let mut statement = conn.prepare("SELECT name, pk, \"notnull\" FROM pragma_table_xinfo(?1)").unwrap();
    let rows = statement
        .query_map([table], |row| Ok(Column { name: row.get(0)?, key: row.get(1)?, not_null: row.get(2)? }))
        .unwrap();
    rows.map(Result::unwrap).collect()
}

/// An identifier, quoted.
pub fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// The query that reads all of a table in an order that both databases share.
fn content_sql(conn: &Connection, table: &str) -> String {
    let columns = columns(conn, table);
    let mut selected: Vec<String> = columns.iter().map(|column| quoted(&column.name)).collect();
    let mut key: Vec<&Column> = columns.iter().filter(|column| column.key > 0).collect();
    key.sort_by_key(|column| column.key);
    let mut order: Vec<String> = key.iter().map(|column| quoted(&column.name)).collect();
    if key.is_empty() {
        let hidden = |name: &&&str| columns.iter().any(|column| column.name.eq_ignore_ascii_case(name));
        let Some(rowid) = ["rowid", "oid", "_rowid_"].iter().find(|name| !hidden(name)) else {
            panic!("table {table} has neither a key nor a name for its rowid");
        };
        selected.insert(0, (*rowid).to_owned());
        order.push((*rowid).to_owned());
    } else if key.iter().any(|column| !column.not_null) || has_collations(conn, table) {
        // A key may hold NULLs, several times, and its index may compare otherwise than its columns do; then only
        // everything together orders the rows. The first 200 columns do.
        for name in columns.iter().take(200).map(|column| quoted(&column.name)) {
            order.push(format!("typeof({name})"));
            order.push(format!("{name} COLLATE BINARY"));
        }
    }
    format!("SELECT {} FROM main.{} ORDER BY {}", selected.join(","), quoted(table), order.join(","))
}

fn has_collations(conn: &Connection, table: &str) -> bool {
    let sql = "SELECT sql LIKE '%collate%' FROM sqlite_schema WHERE type = 'table' AND name = ?1";
    conn.query_row(sql, [table], |row| row.get(0)).unwrap()
}

fn table_difference(source: &Connection, replica: &Connection, table: &str) -> Option<String> {
    let sql = content_sql(source, table);
    let mut left = source.prepare(&sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
    let mut right = match replica.prepare(&sql) {
        Ok(statement) => statement,
        Err(error) => return Some(format!("table {table:?}: cannot be read in the replica: {error}")),
    };
    let width = left.column_count();
    let (mut left, mut right) = (left.query([]).unwrap(), right.query([]).unwrap());
    let mut row_number = 0_u64;
    loop {
        let (a, b) = (left.next().unwrap(), right.next().unwrap());
        let equal = match (a, b) {
            (None, None) => return None,
            (Some(a), Some(b)) => (0..width).all(|at| same(a.get_ref(at).unwrap(), b.get_ref(at).unwrap())),
            _ => false,
        };
        if !equal {
            return Some(row_differences(source, replica, table, &sql, row_number));
        }
        row_number += 1;
    }
}

/// Equal in storage class and in every bit.
fn same(a: ValueRef<'_>, b: ValueRef<'_>) -> bool {
    match (a, b) {
        (ValueRef::Real(a), ValueRef::Real(b)) => a.to_bits() == b.to_bits(),
        (a, b) => a == b,
    }
}

fn row_differences(source: &Connection, replica: &Connection, table: &str, sql: &str, first: u64) -> String {
    let (here, there) = (rows(source, sql), rows(replica, sql));
    let mut text = format!(
        "table {table:?}: {} rows in the source, {} in the replica, different from row {first}",
        here.values().sum::<usize>(),
        there.values().sum::<usize>()
    );
    for (name, one, other) in [("source", &here, &there), ("replica", &there, &here)] {
        let only: Vec<&String> = one.iter().filter(|(row, n)| other.get(*row) != Some(n)).map(|(row, _)| row).collect();
        for row in only.iter().take(DIFFERENCES_SHOWN) {
            let _ = write!(text, "\n  only in the {name}: {row}");
        }
        if only.len() > DIFFERENCES_SHOWN {
            let _ = write!(text, "\n  and {} more", only.len() - DIFFERENCES_SHOWN);
        }
    }
    text
}

fn rows(conn: &Connection, sql: &str) -> BTreeMap<String, usize> {
    let mut statement = conn.prepare(sql).unwrap();
    let width = statement.column_count();
    let mut rows = statement.query([]).unwrap();
    let mut found = BTreeMap::new();
    while let Some(row) = rows.next().unwrap() {
        let cells: Vec<String> = (0..width).map(|at| shown(row.get_ref(at).unwrap())).collect();
        *found.entry(cells.join(" | ")).or_default() += 1;
    }
    found
}

/// A value for a person, with its storage class; long ones cut, with a checksum so that they still differ.
pub fn shown(value: ValueRef<'_>) -> String {
    match value {
        ValueRef::Null => "NULL".to_owned(),
        ValueRef::Integer(number) => format!("{number}"),
        ValueRef::Real(number) => format!("{number:?} (bits {:x})", number.to_bits()),
        ValueRef::Text(text) => match std::str::from_utf8(text) {
            Ok(valid) => cut("", &format!("{valid:?}"), text),
            Err(_) => format!("text of {}", shown(ValueRef::Blob(text))),
        },
        ValueRef::Blob(bytes) => {
            cut("x", &bytes.iter().take(40).map(|byte| format!("{byte:02x}")).collect::<String>(), bytes)
        }
    }
}

fn cut(prefix: &str, text: &str, bytes: &[u8]) -> String {
    if bytes.len() <= 30 {
        return format!("{prefix}{text}");
    }
    let sum = bytes.iter().fold(0_u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(*byte)));
    format!("{prefix}{}… ({} bytes, sum {sum:x})", text.chars().take(30).collect::<String>(), bytes.len())
}

/// What SQLite itself finds wrong with the replica and not with the source.
fn broken(source: &Connection, replica: &Connection) -> Vec<String> {
    let check = |conn: &Connection| -> Vec<String> {
        let mut statement = conn.prepare("PRAGMA integrity_check").unwrap();
        statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
    };
    let there = check(replica);
    if there == ["ok"] || there == check(source) {
        return Vec::new();
    }
    there.into_iter().take(DIFFERENCES_SHOWN).map(|line| format!("integrity_check of the replica: {line}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::support::{Place, open};

    fn differences(source: &str, replica: &str) -> Vec<String> {
        let place = Place::new();
        open(&place.source()).execute_batch(source).unwrap();
        open(&place.replica()).execute_batch(replica).unwrap();
        Oracle::default().differences(&place.source(), &place.replica())
    }

    #[test]
    fn the_same_content_in_another_order_and_spelling_is_equal() {
        let source = "CREATE TABLE a(x PRIMARY KEY, y); INSERT INTO a VALUES (1, NULL), (NULL, 2), (NULL, 1)";
        let replica = "create  table \"a\" (x /* key */ primary key,[y]); \
                       INSERT INTO a VALUES (NULL, 1), (NULL, 2), (1, NULL); CREATE TABLE __cdc_log(seq)";
        assert_eq!(differences(source, replica), Vec::<String>::new());
    }

    #[test]
    fn each_kind_of_difference_is_found() {
        let base = "CREATE TABLE a(x PRIMARY KEY, y); INSERT INTO a VALUES (1, 1);";
        for (change, expected) in [
            ("UPDATE a SET y = 1.0", "only in the replica: 1 | 1.0"),
            ("UPDATE a SET y = '1'", "\"1\""),
            ("UPDATE a SET y = x'31'", "x31"),
            ("INSERT INTO a VALUES (2, 2)", "1 rows in the source, 2 in the replica"),
            ("DELETE FROM a", "only in the source: 1 | 1"),
            ("CREATE INDEX i ON a(y)", "index \"i\": only in the replica"),
            ("CREATE VIEW v AS SELECT 1", "view \"v\": only in the replica"),
            ("ALTER TABLE a ADD z", "table \"a\":\n  source:"),
            ("PRAGMA user_version = 3", "user_version: source 0, replica 3"),
        ] {
            let found = differences(base, &format!("{base}{change}")).join("\n");
            assert!(found.contains(expected), "{change}: {found}");
        }
        let zeros = "CREATE TABLE a(x PRIMARY KEY, y); INSERT INTO a VALUES (1, ";
        assert!(differences(&format!("{zeros}0.0)"), &format!("{zeros}-0.0)")).len() == 1);
        let sequence = "CREATE TABLE a(x INTEGER PRIMARY KEY AUTOINCREMENT);";
        let moved = format!("{sequence} INSERT INTO a DEFAULT VALUES; DELETE FROM a");
        assert!(differences(&moved, sequence)[0].contains("sqlite_sequence"));
    }
}
