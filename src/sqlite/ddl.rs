//! CREATE TABLE text, taken apart: columns with their constraints, the table's constraints, its options.
//!
//! For comparing two definitions item by item, and for taking one column's text out of a peer's definition exactly as it
//! stands there. The parser is lenient: it reads text that SQLite has accepted before, so it finds boundaries rather
//! than faults, and what it does not know is an item of its own ([`ConstraintKind::Other`]), compared as it is.

use super::lexer::{Token, TokenKind, tokens};

/// A CREATE TABLE.
#[derive(Clone, Debug)]
pub struct CreateTable<'a> {
    /// The table's name.
    pub name: String,
    /// Its columns, in their order.
    pub columns: Vec<ColumnDef<'a>>,
    /// Its own constraints.
    pub constraints: Vec<Constraint<'a>>,
    /// WITHOUT ROWID.
    pub without_rowid: bool,
    /// STRICT.
    pub strict: bool,
}

/// A column's definition.
#[derive(Clone, Debug)]
pub struct ColumnDef<'a> {
    /// Its name.
    pub name: String,
    /// The whole definition, exactly as it stands.
    pub text: &'a str,
    /// Where that ends, in bytes of the statement.
    pub end: usize,
    /// The declared type; none for a column without one.
    pub declared_type: Vec<Token<'a>>,
    /// What else it says, in its order.
    pub constraints: Vec<Constraint<'a>>,
}

/// One constraint of a column or of the table, without the name that CONSTRAINT gave it.
#[derive(Clone, Debug)]
pub struct Constraint<'a> {
    /// What it is.
    pub kind: ConstraintKind,
    /// All of it, from its first keyword on.
    pub tokens: Vec<Token<'a>>,
}

/// What a constraint is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "SQLite's own words")]
pub enum ConstraintKind {
    PrimaryKey,
    NotNull,
    Null,
    Unique,
    Check,
    Default,
    Collate,
    References,
    ForeignKey,
    Generated,
    /// Nothing that we know.
    Other,
}

impl Constraint<'_> {
    /// Whether this keyword stands in it, outside parentheses.
    pub fn says(&self, keyword: &str) -> bool {
        outside(&self.tokens).any(|token| token.is(keyword))
    }
}

/// Takes a CREATE TABLE apart; `None` for anything else, virtual tables and CREATE TABLE … AS too.
pub fn create_table(sql: &str) -> Option<CreateTable<'_>> {
    let all = tokens(sql);
    let [create, table, name, open, ..] = all.as_slice() else { return None };
    if !(create.is("CREATE") && table.is("TABLE") && open.is_symbol("(")) {
        return None;
    }
    let close = closing(&all, 3)?;
    let mut parsed =
        CreateTable { name: name.name()?, columns: vec![], constraints: vec![], without_rowid: false, strict: false };
    for item in split(&all[4..close]) {
        if starts_table_constraint(item.first()?) {
            parsed.constraints.extend(constraints(item));
        } else {
            parsed.columns.push(column(sql, item)?);
        }
    }
    for option in &all[close + 1..] {
        parsed.without_rowid |= option.is("WITHOUT");
        parsed.strict |= option.is("STRICT");
    }
    (!parsed.columns.is_empty()).then_some(parsed)
}

/// `sql` with further columns behind its last one; `sql` itself where it is no CREATE TABLE.
pub fn with_columns(sql: &str, texts: &[&str]) -> String {
    let Some(end) = create_table(sql).and_then(|parsed| parsed.columns.last().map(|column| column.end)) else {
        return sql.to_owned();
    };
    let more: String = texts.iter().map(|text| format!(", {text}")).collect();
    format!("{}{more}{}", &sql[..end], &sql[end..])
}

/// Tokens in a form in which two texts are equal if they differ by layout, by the case of words, or by the quoting of
/// names. `known` says what a name is called; what it does not know stays a word, or a quoted text.
pub fn normal(tokens: &[Token<'_>], known: &dyn Fn(&str) -> Option<String>) -> String {
    let one = |token: &Token<'_>| match token.kind {
        TokenKind::Word => known(token.text).unwrap_or_else(|| token.text.to_ascii_uppercase()),
        TokenKind::DoubleQuoted => token.name().and_then(|name| known(&name)).unwrap_or_else(|| token.text.to_owned()),
        TokenKind::Quoted => {
            let name = token.name().unwrap_or_default();
            known(&name).unwrap_or_else(|| format!("[{}]", name.to_ascii_uppercase()))
        }
        TokenKind::String => token.text.to_owned(),
        TokenKind::Blob | TokenKind::Number | TokenKind::Parameter | TokenKind::Symbol => {
            token.text.to_ascii_uppercase()
        }
    };
    tokens.iter().map(one).collect::<Vec<_>>().join(" ")
}

/// Whether two statements are the same but for layout and the case of bare words.
pub fn same_text(a: &str, b: &str) -> bool {
    let form = |sql: &str| normal(&tokens(sql.trim_end().trim_end_matches(';')), &|_| None);
    a == b || form(a) == form(b)
}

fn column<'a>(sql: &'a str, item: &[Token<'a>]) -> Option<ColumnDef<'a>> {
    let (name, rest) = item.split_first()?;
    let end = item.last()?.end();
    let typed = (0..rest.len()).find(|at| starts(rest, *at)).unwrap_or(rest.len());
    Some(ColumnDef {
        name: name.name()?,
        text: &sql[name.start..end],
        end,
        declared_type: rest[..typed].to_vec(),
        constraints: constraints(&rest[typed..]),
    })
}

/// Cuts a run of constraints where each begins.
fn constraints<'a>(run: &[Token<'a>]) -> Vec<Constraint<'a>> {
    let mut found: Vec<Constraint<'a>> = Vec::new();
    let mut at = 0;
    let mut depth = 0_usize;
    let mut fresh = true;
    while at < run.len() {
        let token = run[at];
        if depth == 0 && token.is("CONSTRAINT") {
            at += 2;
            fresh = true;
            continue;
        }
        let in_foreign_key = found.last().is_some_and(|last| last.kind == ConstraintKind::ForeignKey);
        let begins = depth == 0 && starts(run, at) && !(in_foreign_key && token.is("REFERENCES") && !fresh);
        match found.last_mut() {
            Some(last) if !begins => last.tokens.push(token),
            _ => found.push(Constraint { kind: kind_of(&token), tokens: vec![token] }),
        }
        fresh = false;
        depth = deeper(depth, &token);
        at += 1;
    }
    found
}

fn kind_of(token: &Token<'_>) -> ConstraintKind {
    const KINDS: [(&str, ConstraintKind); 11] = [
        ("PRIMARY", ConstraintKind::PrimaryKey),
        ("NOT", ConstraintKind::NotNull),
        ("NULL", ConstraintKind::Null),
        ("UNIQUE", ConstraintKind::Unique),
        ("CHECK", ConstraintKind::Check),
        ("DEFAULT", ConstraintKind::Default),
        ("COLLATE", ConstraintKind::Collate),
        ("REFERENCES", ConstraintKind::References),
        ("FOREIGN", ConstraintKind::ForeignKey),
        ("GENERATED", ConstraintKind::Generated),
        ("AS", ConstraintKind::Generated),
    ];
    KINDS.iter().find(|(word, _)| token.is(word)).map_or(ConstraintKind::Other, |(_, kind)| *kind)
}

/// Whether a constraint begins at this place. The words that begin one also stand inside some.
fn starts(run: &[Token<'_>], at: usize) -> bool {
    let token = &run[at];
    if token.is("CONSTRAINT") {
        return true;
    }
    if kind_of(token) == ConstraintKind::Other {
        return false;
    }
    let after = |words: &[&str]| at > 0 && words.iter().any(|word| run[at - 1].is(word));
    let before = |word: &str| run.get(at + 1).is_some_and(|next| next.is(word));
    let inside = (token.is("NULL") && after(&["NOT", "DEFAULT", "SET"]))
        || (token.is("DEFAULT") && after(&["SET"]))
        || (token.is("NOT") && before("DEFERRABLE"))
        || (token.is("AS") && after(&["ALWAYS"]));
    !inside
}

fn starts_table_constraint(token: &Token<'_>) -> bool {
    ["CONSTRAINT", "PRIMARY", "UNIQUE", "CHECK", "FOREIGN"].iter().any(|word| token.is(word))
}

fn deeper(depth: usize, token: &Token<'_>) -> usize {
    if token.is_symbol("(") {
        depth + 1
    } else if token.is_symbol(")") {
        depth.saturating_sub(1)
    } else {
        depth
    }
}

/// The place of the parenthesis that closes the one at `open`.
fn closing(all: &[Token<'_>], open: usize) -> Option<usize> {
    let mut depth = 0;
    for (at, token) in all.iter().enumerate().skip(open) {
        depth = deeper(depth, token);
        if depth == 0 {
            return Some(at);
        }
    }
    None
}

/// Items between commas outside parentheses.
fn split<'t, 'a>(run: &'t [Token<'a>]) -> Vec<&'t [Token<'a>]> {
    let mut items = Vec::new();
    let (mut from, mut depth) = (0, 0);
    for (at, token) in run.iter().enumerate() {
        depth = deeper(depth, token);
        if depth == 0 && token.is_symbol(",") {
            items.push(&run[from..at]);
            from = at + 1;
        }
    }
    items.push(&run[from..]);
    items
}

fn outside<'t, 'a>(run: &'t [Token<'a>]) -> impl Iterator<Item = &'t Token<'a>> {
    let mut depth = 0;
    run.iter().filter(move |token| {
        depth = deeper(depth, token);
        depth == 0
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(constraints: &[Constraint<'_>]) -> Vec<ConstraintKind> {
        constraints.iter().map(|constraint| constraint.kind).collect()
    }

    #[test]
    fn columns_keep_their_exact_text_and_know_their_constraints() {
        use ConstraintKind::*;
        let sql = "CREATE TABLE \"a b\"(id INTEGER  PRIMARY KEY AUTOINCREMENT, -- the key\n\
                   n NUMERIC(10, 2) CONSTRAINT c NOT NULL ON CONFLICT IGNORE DEFAULT (1+(2)) CHECK (n > 0),\n\
                   [o p] REFERENCES other(x) ON DELETE SET NULL ON UPDATE SET DEFAULT NOT DEFERRABLE INITIALLY DEFERRED UNIQUE,\n\
                   g INT GENERATED ALWAYS AS (n * 2) STORED NULL, d DEFAULT NULL COLLATE nocase,\n\
                   CONSTRAINT u UNIQUE (n, d) FOREIGN KEY (n) REFERENCES x(y) ON DELETE CASCADE, CHECK (n <> d)) STRICT, WITHOUT ROWID";
        let parsed = create_table(sql).expect("parses");
        assert_eq!(parsed.name, "a b");
        assert!(parsed.strict && parsed.without_rowid);
        let names: Vec<&str> = parsed.columns.iter().map(|column| column.name.as_str()).collect();
        assert_eq!(names, ["id", "n", "o p", "g", "d"]);
        assert_eq!(parsed.columns[0].text, "id INTEGER  PRIMARY KEY AUTOINCREMENT");
        assert_eq!(kinds(&parsed.columns[1].constraints), [NotNull, Default, Check]);
        assert_eq!(parsed.columns[1].declared_type.len(), 6);
        assert_eq!(kinds(&parsed.columns[2].constraints), [References, Unique]);
        assert_eq!(kinds(&parsed.columns[3].constraints), [Generated, Null]);
        assert_eq!(kinds(&parsed.columns[4].constraints), [Default, Collate]);
        assert_eq!(kinds(&parsed.constraints), [Unique, ForeignKey, Check]);
        assert!(parsed.columns[0].constraints[0].says("autoincrement"));
    }

    #[test]
    fn columns_are_added_before_the_constraints_of_the_table() {
        let sql = "CREATE TABLE t(a, b TEXT /* x */, PRIMARY KEY(a))";
        let expected = "CREATE TABLE t(a, b TEXT, c INT DEFAULT 1 /* x */, PRIMARY KEY(a))";
        assert_eq!(with_columns(sql, &["c INT DEFAULT 1"]), expected);
    }

    #[test]
    fn layout_and_case_are_no_difference_but_strings_are() {
        assert!(same_text("create  view v as select A from t", "CREATE VIEW v AS\nSELECT a FROM T;"));
        assert!(!same_text("CREATE VIEW v AS SELECT 'a'", "CREATE VIEW v AS SELECT 'A'"));
    }

    #[test]
    fn what_is_no_table_definition_is_none() {
        for sql in ["", "CREATE TABLE t AS SELECT 1", "CREATE VIRTUAL TABLE t USING fts5(a)", "CREATE TABLE t(a", "("] {
            assert!(create_table(sql).is_none(), "{sql}");
        }
    }
}
