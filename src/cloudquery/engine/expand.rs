//! What a specification refers to: `${VAR}` is a variable of the environment, `${file:PATH}` a file's content without its
//! last line break, `$${` a plain `${`; and `@@plugins.NAME.connection`, which is known only when the plugins run.
//!
//! References are replaced inside the values of the parsed YAML, so that no value can change what the document says. As a
//! reference may stand where YAML would read its braces (`[${A}]`), each is masked before parsing; what stands in a
//! comment is never looked at.

use std::collections::BTreeMap;

/// What encloses the number of a masked reference: characters for private use, which mean nothing in YAML.
const OPEN: char = '\u{E000}';
const CLOSE: char = '\u{E001}';

/// What begins and ends a reference to a running plugin.
const PLUGIN: &str = "@@plugins.";
const CONNECTION: &str = ".connection";

/// A text whose references are masked.
pub(super) struct Masked {
    /// The text to parse; its lines are those of the file.
    pub text: String,
    references: Vec<Reference>,
}

enum Reference {
    /// What is between `${` and `}`.
    To(String),
    /// To be left as it is.
    Plain(String),
}

/// Masks every reference of a text.
pub(super) fn mask(text: &str) -> Masked {
    let mut masked = String::with_capacity(text.len());
    let mut references = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        let (before, from) = rest.split_at(at);
        let line = from.find('\n').unwrap_or(from.len());
        let Some(end) = from[..line].find('}') else {
            masked.push_str(&rest[..at + 2]);
            rest = &from[2..];
            continue;
        };
        let inner = &from[2..end];
        let (before, reference) = match before.strip_suffix('$') {
            Some(before) => (before, Reference::Plain(format!("${{{inner}}}"))),
            None => (before, Reference::To(inner.to_owned())),
        };
        masked.push_str(before);
        masked.push(OPEN);
        masked.push_str(&references.len().to_string());
        masked.push(CLOSE);
        references.push(reference);
        rest = &from[end + 1..];
    }
    masked.push_str(rest);
    Masked { text: masked, references }
}

impl Masked {
    /// Puts what its references refer to into a value.
    ///
    /// # Errors
    /// A sentence for the person who wrote the value.
    pub(super) fn unmask(&self, value: &str, environment: &BTreeMap<String, String>) -> Result<String, String> {
        let mut unmasked = String::with_capacity(value.len());
        let mut rest = value;
        while let Some(at) = rest.find(OPEN) {
            unmasked.push_str(&rest[..at]);
            let from = &rest[at + OPEN.len_utf8()..];
            let reference = from.split_once(CLOSE).and_then(|(number, after)| {
                let number: usize = number.parse().ok()?;
                Some((self.references.get(number)?, after))
            });
            let (reference, after) = reference.ok_or("has a character U+E000, which cannot be used here")?;
            match reference {
                Reference::To(what) => unmasked.push_str(&referred(what, environment)?),
                Reference::Plain(text) => unmasked.push_str(text),
            }
            rest = after;
        }
        unmasked.push_str(rest);
        Ok(unmasked)
    }
}

fn referred(what: &str, environment: &BTreeMap<String, String>) -> Result<String, String> {
    if let Some(path) = what.strip_prefix("file:") {
        let path = path.trim();
        let read = std::fs::read_to_string(path);
        let text = read.map_err(|error| format!("${{file:{path}}} cannot be read ({error}); check path and mode"))?;
        let line = text.strip_suffix('\n').unwrap_or(&text);
        return Ok(line.strip_suffix('\r').unwrap_or(line).to_owned());
    }
    if what.starts_with("time:") {
        return Err(format!(
            "${{{what}}} is not supported; write the time itself, or have it in a variable: START=$(date -Is -d '7 days ago')"
        ));
    }
    let unset = || format!("${{{what}}} is not set in the environment; set it, or write `$${{` for a plain `${{`");
    environment.get(what).cloned().ok_or_else(unset)
}

/// The plugins whose connection a text refers to.
///
/// # Errors
/// A sentence about a reference that is none.
pub(super) fn connections(text: &str) -> Result<Vec<&str>, String> {
    let mut names = Vec::new();
    for (at, _) in text.match_indices(PLUGIN) {
        let rest = &text[at + PLUGIN.len()..];
        let end = rest.find(|c: char| c.is_whitespace() || "\"'/,;".contains(c)).unwrap_or(rest.len());
        let name = rest[..end].find(CONNECTION).map(|end| &rest[..end]).filter(|name| !name.is_empty());
        let wrong = || format!("has {PLUGIN}{}; only {PLUGIN}NAME{CONNECTION} is known", &rest[..end]);
        names.push(name.ok_or_else(wrong)?);
    }
    Ok(names)
}

/// The text with every plugin's connection in its place. `connection` knows all that [`connections`] names.
pub(super) fn connect(text: &str, connection: &impl Fn(&str) -> Option<String>) -> String {
    let mut connected = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(PLUGIN) {
        let from = &rest[at + PLUGIN.len()..];
        let found = from.find(CONNECTION).and_then(|end| Some((connection(&from[..end])?, end + CONNECTION.len())));
        connected.push_str(&rest[..at]);
        match found {
            Some((connection, used)) => {
                connected.push_str(&connection);
                rest = &from[used..];
            }
            None => {
                connected.push_str(PLUGIN);
                rest = from;
            }
        }
    }
    connected.push_str(rest);
    connected
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expanded(text: &str) -> Result<String, String> {
        let environment = BTreeMap::from([("A".to_owned(), "one".to_owned()), ("B".to_owned(), "${A}: [".to_owned())]);
        let masked = mask(text);
        masked.unmask(&masked.text, &environment)
    }

    #[test]
    fn references_become_what_they_refer_to() {
        assert_eq!(expanded("x${A}y${A}"), Ok("xoneyone".to_owned()));
        assert_eq!(expanded("${B}"), Ok("${A}: [".to_owned()), "what comes in is not looked at again");
        assert_eq!(expanded("$${A} costs $5 or ${ or $"), Ok("${A} costs $5 or ${ or $".to_owned()));
        assert!(expanded("${C}").expect_err("unset").contains("${C} is not set"));
        assert!(expanded("${time:7 days ago}").expect_err("unsupported").contains("is not supported"));
        assert!(expanded("\u{E000}7\u{E001}").expect_err("private use").contains("U+E000"));
        assert!(expanded("${A}\u{E000}").is_err());
    }

    #[test]
    fn masking_leaves_lines_and_hides_braces() {
        let masked = mask("a: [${A}, ${A}]\nb: ${\nc: }");
        assert_eq!(masked.text, "a: [\u{E000}0\u{E001}, \u{E000}1\u{E001}]\nb: ${\nc: }");
    }

    #[test]
    fn a_file_loses_its_last_line_break() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("secret");
        std::fs::write(&path, "s3c: ret\r\n").expect("write");
        assert_eq!(expanded(&format!("<${{file:{}}}>", path.display())), Ok("<s3c: ret>".to_owned()));
        assert!(expanded("${file:/does/not/exist}").expect_err("missing").contains("/does/not/exist"));
    }

    #[test]
    fn connections_are_found_and_put_in() {
        let text = "a @@plugins.my-db.connection, b=@@plugins.x.connection";
        assert_eq!(connections(text), Ok(vec!["my-db", "x"]));
        assert_eq!(connections("none"), Ok(vec![]));
        for wrong in ["@@plugins.x.path", "@@plugins.connection", "@@plugins..connection", "@@plugins.x y.connection"] {
            assert!(connections(wrong).is_err(), "{wrong}");
        }
        let connection = |name: &str| (name == "my-db").then(|| "unix:///s".to_owned());
        assert_eq!(connect(text, &connection), "a unix:///s, b=@@plugins.x.connection");
    }
}
