//! The one place where names and values become SQL text.

/// A name as an SQL identifier, whatever is in it.
pub fn ident(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A string as an SQL text literal. A NUL ends SQL text, so it is spelled as an expression.
pub fn literal(text: &str) -> String {
    let quoted = |part: &str| format!("'{}'", part.replace('\'', "''"));
    if text.contains('\0') {
        let parts: Vec<String> = text.split('\0').map(quoted).collect();
        return format!("({})", parts.join("||char(0)||"));
    }
    quoted(text)
}

/// Names as a comma-separated list of identifiers.
pub fn idents<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    names.into_iter().map(ident).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_name_and_any_text_can_be_quoted() {
        assert_eq!(ident("a\"b c"), "\"a\"\"b c\"");
        assert_eq!(literal("it's"), "'it''s'");
        assert_eq!(literal("a\0b"), "('a'||char(0)||'b')");
    }
}
