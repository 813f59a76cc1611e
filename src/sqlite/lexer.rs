//! SQLite's tokens, for the few places that must look inside DDL: trigger bodies made from index expressions, and
//! schemas compared without regard to layout.

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenKind {
    /// A bare word: a keyword, a name, a function.
    Word,
    /// A name or (by SQLite's leniency) a string in double quotes.
    DoubleQuoted,
    /// A name in brackets or backticks.
    Quoted,
    /// A string in single quotes.
    String,
    /// A blob literal, X'…'.
    Blob,
    /// A number.
    Number,
    /// A parameter: ?, ?1, :a, @a, $a.
    Parameter,
    /// Punctuation or an operator.
    Symbol,
}

/// One token of SQL text. White space and comments are no tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token<'a> {
    /// What it is.
    pub kind: TokenKind,
    /// As written, quotes included.
    pub text: &'a str,
    /// Where it begins, in bytes.
    pub start: usize,
}

impl Token<'_> {
    /// Whether it is this keyword, in any case.
    pub fn is(&self, keyword: &str) -> bool {
        self.kind == TokenKind::Word && self.text.eq_ignore_ascii_case(keyword)
    }

    /// Whether it is this punctuation.
    pub fn is_symbol(&self, symbol: &str) -> bool {
        self.kind == TokenKind::Symbol && self.text == symbol
    }

    /// Where it ends, in bytes.
    pub fn end(&self) -> usize {
        self.start + self.text.len()
    }

    /// The name that it stands for, where it can be one: quotes removed, doubled ones made single.
    pub fn name(&self) -> Option<String> {
        let inner = || &self.text[1..self.text.len() - 1];
        match self.kind {
            TokenKind::Word => Some(self.text.to_owned()),
            TokenKind::DoubleQuoted => Some(inner().replace("\"\"", "\"")),
            TokenKind::String => Some(inner().replace("''", "'")),
            TokenKind::Quoted if self.text.starts_with('`') => Some(inner().replace("``", "`")),
            TokenKind::Quoted => Some(inner().to_owned()),
            TokenKind::Blob | TokenKind::Number | TokenKind::Parameter | TokenKind::Symbol => None,
        }
    }
}

/// The tokens of `sql`. Text that does not end (a quote, a comment) ends with the input; nothing fails.
pub fn tokens(sql: &str) -> Vec<Token<'_>> {
    let bytes = sql.as_bytes();
    let mut found = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let (kind, end) = match bytes[at] {
            byte if byte.is_ascii_whitespace() => {
                at += 1;
                continue;
            }
            b'-' if bytes.get(at + 1) == Some(&b'-') => {
                at = find(bytes, at, b"\n");
                continue;
            }
            b'/' if bytes.get(at + 1) == Some(&b'*') => {
                at = find(bytes, at + 2, b"*/");
                continue;
            }
            b'\'' => (TokenKind::String, quoted(bytes, at, b'\'')),
            b'"' => (TokenKind::DoubleQuoted, quoted(bytes, at, b'"')),
            b'`' => (TokenKind::Quoted, quoted(bytes, at, b'`')),
            b'[' => (TokenKind::Quoted, find(bytes, at, b"]")),
            b'x' | b'X' if bytes.get(at + 1) == Some(&b'\'') => (TokenKind::Blob, quoted(bytes, at + 1, b'\'')),
            b'0'..=b'9' => (TokenKind::Number, number(bytes, at)),
            b'.' if bytes.get(at + 1).is_some_and(u8::is_ascii_digit) => (TokenKind::Number, number(bytes, at)),
            b'?' | b':' | b'@' | b'$' => (TokenKind::Parameter, word(bytes, at + 1)),
            byte if is_word(byte) => (TokenKind::Word, word(bytes, at)),
            _ => (TokenKind::Symbol, at + symbol(&bytes[at..])),
        };
        found.push(Token { kind, text: &sql[at..end], start: at });
        at = end;
    }
    found
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'$' || byte >= 0x80
}

fn word(bytes: &[u8], from: usize) -> usize {
    bytes[from..].iter().position(|byte| !is_word(*byte)).map_or(bytes.len(), |length| from + length)
}

/// Digits, a point, an exponent with its sign, hexadecimal and digit separators: all that SQLite takes, and no more
/// strictly than it matters for finding where the number ends.
fn number(bytes: &[u8], from: usize) -> usize {
    let hex = matches!(bytes.get(from + 1), Some(b'x' | b'X'));
    let mut at = from;
    while let Some(byte) = bytes.get(at) {
        let sign = matches!(byte, b'+' | b'-') && !hex && at > from && matches!(bytes[at - 1], b'e' | b'E');
        if !(byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_') || sign) {
            break;
        }
        at += 1;
    }
    at
}

/// The end of a quoted token that begins at `from`; a doubled quote stays inside.
fn quoted(bytes: &[u8], from: usize, quote: u8) -> usize {
    let mut at = from + 1;
    while at < bytes.len() {
        if bytes[at] == quote {
            if bytes.get(at + 1) != Some(&quote) {
                return at + 1;
            }
            at += 1;
        }
        at += 1;
    }
    bytes.len()
}

/// Just behind the next `what`, or the end.
fn find(bytes: &[u8], from: usize, what: &[u8]) -> usize {
    let rest = &bytes[from.min(bytes.len())..];
    rest.windows(what.len()).position(|window| window == what).map_or(bytes.len(), |place| from + place + what.len())
}

fn symbol(bytes: &[u8]) -> usize {
    const LONG: [&[u8]; 9] = [b"->>", b"->", b"||", b"<=", b">=", b"<>", b"!=", b"==", b"<<"];
    let long = LONG.iter().find(|long| bytes.starts_with(long)).map(|long| long.len());
    long.or_else(|| bytes.starts_with(b">>").then_some(2)).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_token_is_found_and_comments_are_not() {
        let sql = "a\"b\"\"c\" [d e]`f``` 'g''h' x'00' 1.5e-3 0xFF .5 :p ->> <= -- gone\n /* gone */ é;";
        let texts: Vec<&str> = tokens(sql).iter().map(|token| token.text).collect();
        let expected = [
            "a",
            "\"b\"\"c\"",
            "[d e]",
            "`f```",
            "'g''h'",
            "x'00'",
            "1.5e-3",
            "0xFF",
            ".5",
            ":p",
            "->>",
            "<=",
            "é",
            ";",
        ];
        assert_eq!(texts, expected);
    }

    #[test]
    fn names_lose_their_quotes() {
        let names: Vec<_> = tokens("a \"b\"\"c\" [d e] `f```").iter().filter_map(Token::name).collect();
        assert_eq!(names, ["a", "b\"c", "d e", "f`"]);
    }

    #[test]
    fn text_that_does_not_end_ends_with_the_input() {
        for sql in ["'abc", "\"abc", "/* abc", "-- abc", "[abc", "x'"] {
            assert!(tokens(sql).len() <= 1, "{sql}");
        }
    }
}
