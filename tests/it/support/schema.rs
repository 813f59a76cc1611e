//! Random schemas: every kind of table that SQLite has, with the names and constraints that trip replication up.

use super::{oracle::quoted, random::Random};

const CONFLICTS: &[&str] = &[
    "",
    "",
    "",
    "",
    " ON CONFLICT REPLACE",
    " ON CONFLICT IGNORE",
    " ON CONFLICT FAIL",
    " ON CONFLICT ROLLBACK",
    " ON CONFLICT ABORT",
];
const TYPES: &[&str] = &[
    "",
    "INTEGER",
    "INT",
    "TEXT",
    "VARCHAR(20)",
    "REAL",
    "NUMERIC",
    "BLOB",
    "BOOLEAN",
    "DATETIME",
    "DECIMAL(10,2)",
    "FLOATING POINT",
    "STRING",
    "UNSIGNED BIG INT",
    "CLOB",
    "JSON",
];
const STRICT_TYPES: &[&str] = &["INTEGER", "INT", "TEXT", "REAL", "BLOB", "ANY"];
const TABLE_NAMES: &[&str] =
    &["t", "order", "we\"ird", "таблица", "with space", "semi;colon", "it's", "100%_a.b", "[x]", "Group", "`tick`"];
const COLUMN_NAMES: &[&str] = &[
    "c",
    "select",
    "a\"b",
    "столбец",
    "two words",
    "x'y",
    "seq",
    "ts",
    "origin",
    "k0",
    "rowid",
    "Value",
    "a.b",
    "new",
];
const COLLATIONS: &[&str] = &["", "", "", " COLLATE NOCASE", " COLLATE RTRIM", " COLLATE BINARY"];

/// A random schema, as the statements that make it.
#[derive(Debug)]
pub struct Schema {
    /// Tables and indexes.
    pub ddl: Vec<String>,
    /// Triggers of the application's own, to be made before or after capture is installed.
    pub triggers: Vec<String>,
}

impl Schema {
    /// One with up to four tables and an audit table for the triggers.
    pub fn random(random: &mut Random) -> Self {
        let mut schema = Self { ddl: Vec::new(), triggers: Vec::new() };
        schema.ddl.push("CREATE TABLE audit(id INTEGER PRIMARY KEY, what TEXT, v)".to_owned());
        for number in 0..=random.below(3) {
            schema.table(random, number);
        }
        if random.chance(40) {
            schema.family(random);
        }
        schema
    }

    fn table(&mut self, random: &mut Random, number: usize) {
        let mut draft = Draft::new(random, number);
        for column in 0..draft.width {
            draft.column(random, column);
        }
        draft.key(random);
        if random.chance(25) {
            draft.generated(random);
        }
        draft.table_unique(random);
        self.ddl.push(draft.create());
        for index in 0..random.below(4) {
            self.ddl.extend(draft.index(random, index));
        }
        for trigger in 0..if random.chance(40) { 1 + random.below(2) } else { 0 } {
            self.triggers.push(draft.trigger(random, trigger));
        }
    }

    /// A parent, its children, and what SQLite does to them by itself.
    fn family(&mut self, random: &mut Random) {
        let action = |random: &mut Random| {
            random.pick(&["CASCADE", "SET NULL", "CASCADE", "SET DEFAULT", "RESTRICT"]).to_owned()
        };
        let key = random.pick(&["k INTEGER PRIMARY KEY", "k TEXT PRIMARY KEY COLLATE NOCASE", "k UNIQUE NOT NULL"]);
        self.ddl.push(format!("CREATE TABLE parent({key}, v)"));
        let (delete, update) = (action(random), action(random));
        self.ddl.push(format!(
            "CREATE TABLE child(id INTEGER PRIMARY KEY, p REFERENCES parent(k) ON DELETE {delete} ON UPDATE {update}, v)"
        ));
        self.ddl.push(
            "CREATE TABLE grandchild(a, b REFERENCES child(id) ON DELETE CASCADE ON UPDATE CASCADE, PRIMARY KEY(a, b)) \
             WITHOUT ROWID"
                .to_owned(),
        );
    }
}

/// A table in the making.
struct Draft {
    name: String,
    width: usize,
    strict: bool,
    without_rowid: bool,
    columns: Vec<(String, String)>,
    constraints: Vec<String>,
    /// The column that is the rowid. Nothing unique may be computed from it: such tables are not captured.
    alias: Option<String>,
}

impl Draft {
    fn new(random: &mut Random, number: usize) -> Self {
        let width = match random.below(100) {
            0..85 => 1 + random.below(6),
            85..96 => 7 + random.below(30),
            _ => 100 + random.below(200),
        };
        Self {
            name: format!("{}{number}", random.pick(TABLE_NAMES)),
            width,
            strict: random.chance(20),
            without_rowid: false,
            columns: Vec::new(),
            constraints: Vec::new(),
            alias: None,
        }
    }

    fn column(&mut self, random: &mut Random, number: usize) {
        let name = match random.chance(40) {
            true => {
                format!("{}{}", random.pick(COLUMN_NAMES), if number == 0 { String::new() } else { number.to_string() })
            }
            false => format!("c{number}x"),
        };
        let mut definition = random.pick(if self.strict { STRICT_TYPES } else { TYPES }).to_owned();
        definition.push_str(random.pick(COLLATIONS));
        if random.chance(15) {
            let default = default_for(&definition);
            definition.push_str(&format!(" NOT NULL{} DEFAULT {default}", random.pick(CONFLICTS)));
        }
        if random.chance(8) && number > 0 {
            definition.push_str(&format!(" UNIQUE{}", random.pick(CONFLICTS)));
        }
        if random.chance(5) {
            definition.push_str(&format!(" CHECK({} IS NOT 13)", quoted(&name)));
        }
        self.columns.push((name, definition));
    }

    fn key(&mut self, random: &mut Random) {
        let conflict = random.pick(CONFLICTS).to_owned();
        let first = self.columns[0].0.clone();
        match random.below(6) {
            0 => {
                let auto = random.pick(&["", "", " AUTOINCREMENT"]);
                self.columns[0].1 = format!("INTEGER PRIMARY KEY{conflict}{auto}");
                self.alias = Some(first);
            }
            1 => self.constraints.push(format!("PRIMARY KEY({}{}){conflict}", quoted(&first), random.pick(COLLATIONS))),
            2 | 3 => {
                let last = self.columns.len().min(1 + random.below(3));
                let parts: Vec<String> = self.columns[..last]
                    .iter()
                    .map(|(name, _)| format!("{}{}", quoted(name), random.pick(&["", "", " DESC"])))
                    .collect();
                self.constraints.push(format!("PRIMARY KEY({}){conflict}", parts.join(", ")));
                self.without_rowid = random.chance(60);
                // `PRIMARY KEY(c)` over one INTEGER column is the rowid, spelt apart.
                if parts.len() == 1 && !self.without_rowid && self.columns[0].1.starts_with("INTEGER") {
                    self.alias = Some(first);
                }
            }
            4 => self.columns[0].1.push_str(&format!(" PRIMARY KEY{conflict}")),
            _ => {}
        }
        if self.columns[0].1.starts_with("INTEGER") && self.columns[0].1.contains("PRIMARY KEY") {
            self.alias = Some(self.columns[0].0.clone());
        }
    }

    fn generated(&mut self, random: &mut Random) {
        let from = quoted(&self.plain(random));
        let expression = match random.below(3) {
            0 => format!("{from} || 'x'"),
            1 => format!("coalesce({from}, 0) + 1"),
            _ => format!("lower({from})"),
        };
        let kind = random.pick(&["VIRTUAL", "STORED"]);
        let declared = if self.strict { "ANY" } else { "" };
        let alias_free = self.alias.is_none() || self.columns.len() > 1;
        let unique = if alias_free && random.chance(20) { " UNIQUE" } else { "" };
        self.columns.push(("gen".to_owned(), format!("{declared} AS ({expression}) {kind}{unique}")));
    }

    fn table_unique(&mut self, random: &mut Random) {
        if random.chance(20) && self.columns.len() > 2 {
            let names = [quoted(&self.columns[1].0), quoted(&self.columns[2].0)];
            self.constraints.push(format!("UNIQUE({}){}", names.join(", "), random.pick(CONFLICTS)));
        }
    }

    /// A column that is not the rowid's alias, where there is one.
    fn plain(&self, random: &mut Random) -> String {
        let candidates: Vec<&String> = self
            .columns
            .iter()
            .map(|(name, _)| name)
            .filter(|name| self.alias.as_ref() != Some(name) && *name != "gen")
            .collect();
        if candidates.is_empty() { self.columns[0].0.clone() } else { (*random.one(&candidates)).clone() }
    }

    fn create(&self) -> String {
        let mut items: Vec<String> =
            self.columns.iter().map(|(name, definition)| format!("{} {definition}", quoted(name))).collect();
        items.extend(self.constraints.iter().cloned());
        let mut options = Vec::new();
        if self.without_rowid {
            options.push("WITHOUT ROWID");
        }
        if self.strict {
            options.push("STRICT");
        }
        format!("CREATE TABLE {}({}) {}", quoted(&self.name), items.join(", "), options.join(", "))
    }

    fn index(&self, random: &mut Random, number: usize) -> Option<String> {
        let unique = random.chance(50);
        let column = self.plain(random);
        if unique && self.alias.as_ref() == Some(&column) {
            return None;
        }
        let (column, other) = (quoted(&column), quoted(&self.plain(random)));
        let on = match random.below(6) {
            0 => format!("({column}, {other})"),
            1 => format!("({column} COLLATE NOCASE DESC)"),
            2 => format!("({column}) WHERE {other} IS NOT NULL"),
            3 => format!("({column}) WHERE {column} > 2 AND {other} IS NOT 'zz'"),
            4 => format!("(lower({column}), {other})"),
            _ => format!("({column} || 'y')"),
        };
        let unique = if unique { "UNIQUE " } else { "" };
        Some(format!(
            "CREATE {unique}INDEX {} ON {}{on}",
            quoted(&format!("{} i{number}", self.name)),
            quoted(&self.name)
        ))
    }

    fn trigger(&self, random: &mut Random, number: usize) -> String {
        let table = quoted(&self.name);
        let column = quoted(&self.plain(random));
        let name = quoted(&format!("{} tr{number}", self.name));
        let note = |when: &str, row: &str| format!("INSERT INTO audit(what, v) VALUES ('{when}', {row}.{column});");
        let body = match random.below(11) {
            0 => format!("AFTER INSERT ON {table} BEGIN {} END", note("after insert", "NEW")),
            1 => format!("AFTER UPDATE ON {table} BEGIN {} END", note("after update", "OLD")),
            2 => format!("BEFORE DELETE ON {table} BEGIN {} END", note("before delete", "OLD")),
            3 => format!("AFTER DELETE ON {table} BEGIN DELETE FROM audit WHERE id % 3 = 0; END"),
            4 => format!("BEFORE INSERT ON {table} WHEN NEW.{column} = 3 BEGIN SELECT RAISE(IGNORE); END"),
            5 => format!("AFTER INSERT ON {table} WHEN NEW.{column} = 4 BEGIN SELECT RAISE(ABORT, 'no'); END"),
            6 => format!("AFTER INSERT ON {table} WHEN NEW.{column} = 5 BEGIN SELECT RAISE(FAIL, 'no'); END"),
            7 => format!("BEFORE UPDATE ON {table} WHEN NEW.{column} = 6 BEGIN SELECT RAISE(ROLLBACK, 'no'); END"),
            8 => format!("AFTER UPDATE ON {table} WHEN NEW.{column} = 2 BEGIN SELECT RAISE(IGNORE); END"),
            9 => format!(
                "AFTER INSERT ON {table} WHEN NEW.{column} = 1 BEGIN UPDATE {table} SET {column} = 2 WHERE {column} = 1; END"
            ),
            _ => format!(
                "AFTER UPDATE OF {column} ON {table} BEGIN INSERT OR REPLACE INTO audit VALUES (1, 'or replace', NEW.{column}); END"
            ),
        };
        format!("CREATE TRIGGER {name} {body}")
    }
}

fn default_for(definition: &str) -> &'static str {
    let declared = definition.split(' ').next().unwrap_or_default();
    match declared {
        "INTEGER" | "INT" | "NUMERIC" => "7",
        "REAL" => "1.5",
        "BLOB" => "x'0b'",
        _ => "'d''f'",
    }
}
