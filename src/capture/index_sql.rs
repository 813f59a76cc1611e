//! Looks inside a table's own DDL: what an index is on, what a generated column is made of, and how such an expression
//! reads when it is said of `NEW` or of a row under another name. Pure.

use crate::model::TableSchema;
use crate::sqlite::lexer::{Token, TokenKind, tokens};
use crate::sqlite::literal;

/// What a name in an expression refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reference {
    /// A column, by its place in [`TableSchema::columns`].
    Column(usize),
    /// The rowid.
    Rowid,
}

/// The pieces of a CREATE INDEX.
pub(super) struct IndexParts<'a> {
    /// Each indexed column or expression, without collation and direction.
    pub columns: Vec<Vec<Token<'a>>>,
    /// The WHERE, if it is partial.
    pub condition: Option<Vec<Token<'a>>>,
}

/// Takes a CREATE INDEX apart. `None` where it does not read like one.
pub(super) fn index_parts(sql: &str) -> Option<IndexParts<'_>> {
    let all = tokens(sql);
    let on = all.iter().position(|token| token.is("ON"))?;
    let open = on + 2;
    if !all.get(open)?.is_symbol("(") {
        return None;
    }
    let (parts, close) = list(&all, open)?;
    let columns = parts.into_iter().map(|part| strip_collation(strip_direction(part)).to_vec()).collect();
    let rest = &all[close + 1..];
    let condition = rest.first().filter(|token| token.is("WHERE")).map(|_| rest[1..].to_vec());
    Some(IndexParts { columns, condition })
}

fn strip_direction<'s, 'a>(part: &'s [Token<'a>]) -> &'s [Token<'a>] {
    match part {
        [rest @ .., last] if !rest.is_empty() && (last.is("ASC") || last.is("DESC")) => rest,
        _ => part,
    }
}

fn strip_collation<'s, 'a>(part: &'s [Token<'a>]) -> &'s [Token<'a>] {
    match part {
        [rest @ .., collate, _] if !rest.is_empty() && collate.is("COLLATE") => rest,
        _ => part,
    }
}

/// The comma-separated parts of the list that opens at `open`, and where it closes.
fn list<'s, 'a>(all: &'s [Token<'a>], open: usize) -> Option<(Vec<&'s [Token<'a>]>, usize)> {
    let (mut depth, mut start, mut parts) = (0_usize, open + 1, Vec::new());
    for (place, token) in all.iter().enumerate().skip(open) {
        if token.is_symbol("(") {
            depth += 1;
        } else if token.is_symbol(")") {
            depth -= 1;
            if depth == 0 {
                parts.push(&all[start..place]);
                return Some((parts, place));
            }
        } else if depth == 1 && token.is_symbol(",") {
            parts.push(&all[start..place]);
            start = place + 1;
        }
    }
    None
}

/// What a table's own DDL says of each column beyond what SQLite's pragmas tell.
#[derive(Clone, Debug, Default)]
pub(super) struct ColumnNotes<'a> {
    /// The expression that it is generated from.
    pub generated_as: Option<Vec<Token<'a>>>,
    /// Its declared collation, where that is not BINARY.
    pub collation: Option<String>,
}

/// Reads the notes of every column, in the table's order. A column that the DDL does not show has none.
pub(super) fn column_notes(table: &TableSchema) -> Vec<ColumnNotes<'_>> {
    let all = tokens(&table.ddl);
    let mut notes = vec![ColumnNotes::default(); table.columns.len()];
    let open = all.iter().position(|token| token.is_symbol("("));
    let Some((definitions, _)) = open.and_then(|open| list(&all, open)) else { return notes };
    for definition in definitions {
        let Some(name) = definition.first().and_then(Token::name) else { continue };
        let place = table.columns.iter().position(|column| column.name.eq_ignore_ascii_case(&name));
        // Table constraints come last, so a column that is called like the keyword of one keeps what was read first.
        let Some(note) = place.map(|place| &mut notes[place]) else { continue };
        if note.generated_as.is_none() && note.collation.is_none() {
            *note = notes_of(definition);
        }
    }
    notes
}

fn notes_of<'a>(definition: &[Token<'a>]) -> ColumnNotes<'a> {
    let (mut note, mut depth) = (ColumnNotes::default(), 0_usize);
    for (place, token) in definition.iter().enumerate() {
        if token.is_symbol("(") {
            depth += 1;
        } else if token.is_symbol(")") {
            depth = depth.saturating_sub(1);
        } else if depth == 0 && token.is("COLLATE") {
            let named = definition.get(place + 1).and_then(Token::name);
            note.collation = named.filter(|name| !name.eq_ignore_ascii_case("BINARY"));
        } else if depth == 0 && token.is("AS") && definition.get(place + 1).is_some_and(|next| next.is_symbol("(")) {
            note.generated_as = list(definition, place + 1).map(|(_, close)| definition[place + 2..close].to_vec());
        }
    }
    note
}

/// Words that are operators: a column of such a name, unquoted in an expression, cannot be told from the operator.
const OPERATORS: [&str; 23] = [
    "AND", "AS", "BETWEEN", "CASE", "CAST", "COLLATE", "DISTINCT", "ELSE", "END", "ESCAPE", "EXISTS", "FROM", "GLOB",
    "IN", "IS", "ISNULL", "LIKE", "MATCH", "NOT", "NOTNULL", "NULL", "OR", "REGEXP",
];
const MORE_OPERATORS: [&str; 4] = ["THEN", "WHEN", "TRUE", "FALSE"];

/// An expression with every name replaced by what `say` makes of it. A string in double quotes becomes one in single
/// quotes, which triggers insist on.
///
/// # Errors
/// Why the expression cannot be said otherwise.
pub(super) fn rewrite(
    expression: &[Token<'_>],
    table: &TableSchema,
    say: &mut dyn FnMut(Reference) -> Result<String, String>,
) -> Result<String, String> {
    let (mut out, mut place, mut cast_depth, mut depth) = (Vec::new(), 0, None, 0_usize);
    while let Some(token) = expression.get(place) {
        depth += usize::from(token.is_symbol("("));
        depth = depth.saturating_sub(usize::from(token.is_symbol(")")));
        if cast_depth.is_some_and(|inside| depth < inside) {
            cast_depth = None;
        }
        let next_is = |symbol: &str| expression.get(place + 1).is_some_and(|next| next.is_symbol(symbol));
        let after_collate = place > 0 && expression[place - 1].is("COLLATE");
        if next_is(".") && token.name().is_some() && token.kind != TokenKind::String {
            place += 2;
            continue;
        }
        if after_collate || cast_depth.is_some() || next_is("(") && token.kind == TokenKind::Word {
            out.push(token.text.to_owned());
        } else {
            out.push(said(token, table, say)?);
        }
        if token.is("AS") {
            cast_depth = Some(depth);
        }
        place += 1;
    }
    Ok(out.join(" "))
}

fn said(
    token: &Token<'_>,
    table: &TableSchema,
    say: &mut dyn FnMut(Reference) -> Result<String, String>,
) -> Result<String, String> {
    let name = match token.kind {
        TokenKind::Word | TokenKind::DoubleQuoted | TokenKind::Quoted => token.name().unwrap_or_default(),
        TokenKind::String | TokenKind::Blob | TokenKind::Number | TokenKind::Parameter | TokenKind::Symbol => {
            return Ok(token.text.to_owned());
        }
    };
    let reference = reference(table, &name);
    if token.kind == TokenKind::Word && operator(&name) {
        return match reference {
            Some(_) => Err(format!("an index or generated column uses the word {name}, which is a column too")),
            None => Ok(token.text.to_owned()),
        };
    }
    match reference {
        Some(reference) => say(reference),
        None if token.kind == TokenKind::DoubleQuoted => Ok(literal(&name)),
        None => Ok(token.text.to_owned()),
    }
}

fn operator(word: &str) -> bool {
    OPERATORS.iter().chain(&MORE_OPERATORS).any(|operator| operator.eq_ignore_ascii_case(word))
}

/// What a name in an expression of this table refers to, if to anything.
pub(super) fn reference(table: &TableSchema, name: &str) -> Option<Reference> {
    let column = table.columns.iter().position(|column| column.name.eq_ignore_ascii_case(name));
    column.map(Reference::Column).or_else(|| {
        let rowid = ["rowid", "_rowid_", "oid"].iter().any(|rowid| rowid.eq_ignore_ascii_case(name));
        (rowid && !table.without_rowid).then_some(Reference::Rowid)
    })
}

/// A name of the rowid that no column hides.
pub(super) fn rowid_name(table: &TableSchema) -> Option<&'static str> {
    let names = ["rowid", "_rowid_", "oid"];
    names.into_iter().find(|name| !table.without_rowid && table.column(name).is_none())
}

/// DDL reduced to what matters: names (those given, and bare words) without case and quotes, no comments, no layout.
pub(super) fn normal(sql: &str, names: &[String]) -> Vec<String> {
    let plain = |token: &Token<'_>| {
        let name = token.name().unwrap_or_default().to_ascii_lowercase();
        match token.kind {
            TokenKind::Word | TokenKind::Quoted => name,
            TokenKind::DoubleQuoted if names.iter().any(|known| known.eq_ignore_ascii_case(&name)) => name,
            // In double quotes, what is no name is a string, whose case counts; a rename rewrites it to single quotes.
            TokenKind::DoubleQuoted => literal(&token.name().unwrap_or_default()),
            TokenKind::String | TokenKind::Blob | TokenKind::Number | TokenKind::Parameter | TokenKind::Symbol => {
                token.text.to_owned()
            }
        }
    };
    tokens(sql).iter().map(plain).collect()
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

    #[test]
    fn an_index_is_taken_apart() {
        let parts = index_parts(
            "CREATE UNIQUE INDEX IF NOT EXISTS \"on\" ON t(a DESC, lower(b || ',') COLLATE nocase ASC) WHERE x = 1",
        )
        .expect("parts");
        let text = |tokens: &[Token<'_>]| tokens.iter().map(|token| token.text).collect::<Vec<_>>().join(" ");
        let columns: Vec<String> = parts.columns.iter().map(|part| text(part)).collect();
        assert_eq!(columns, ["a", "lower ( b || ',' )"]);
        assert_eq!(text(&parts.condition.expect("partial")), "x = 1");
    }

    #[test]
    fn names_are_said_of_new_and_double_quoted_strings_become_strings() {
        let table = schema("CREATE TABLE t(a, text TEXT, \"b c\")");
        let sql = "lower(t.a) = \"active\" AND CAST([b c] AS text) <> `text` COLLATE nocase AND rowid > 1";
        let mut say = |reference| {
            Ok(match reference {
                Reference::Column(place) => format!("NEW.{place}"),
                Reference::Rowid => "NEW.rowid".to_owned(),
            })
        };
        let out = rewrite(&tokens(sql), &table, &mut say).expect("rewritten");
        assert_eq!(
            out,
            "lower ( NEW.0 ) = 'active' AND CAST ( NEW.2 AS text ) <> NEW.1 COLLATE nocase AND NEW.rowid > 1"
        );
    }

    #[test]
    fn a_column_tells_what_it_is_generated_from_and_its_collation() {
        let table = schema(
            "CREATE TABLE t(a TEXT COLLATE NoCase CHECK (a COLLATE rtrim <> ''), g INT GENERATED ALWAYS AS (a || ')') STORED, UNIQUE(a))",
        );
        let notes = column_notes(&table);
        assert_eq!(notes[0].collation.as_deref(), Some("NoCase"));
        let texts: Vec<&str> = notes[1].generated_as.as_ref().expect("g").iter().map(|token| token.text).collect();
        assert_eq!(texts, ["a", "||", "')'"]);
    }

    #[test]
    fn layout_case_and_quotes_of_names_do_not_count_but_strings_do() {
        let names = ["t".to_owned(), "a".to_owned()];
        assert_eq!(normal("CREATE TABLE T ( A )", &names), normal("create table \"t\"(\"a\") -- x", &names));
        assert_ne!(normal("a = \"Active\"", &names), normal("a = \"active\"", &names));
        assert_ne!(normal("a = 'A'", &names), normal("a = 'a'", &names));
    }
}
