//! YAML, as a tree that knows its lines: several documents, one type a value, nothing guessed.
//!
//! A plain value is null, `true` or `false`, a number as JSON writes it, or text: `yes`, `012` and `1_000` are text. Text in
//! quotes is text. References are put in before a plain value's type is seen.
//!
//! Bounded: [`DEPTH_MAX`] levels, [`NODES_MAX`] values, aliases counted as often as they are used.

use std::collections::BTreeMap;
use std::collections::HashMap;

use serde_json::{Map, Number, Value as Json};
use yaml_rust2::Event;
use yaml_rust2::parser::Parser;
use yaml_rust2::scanner::TScalarStyle;

use super::expand::Masked;

/// How deep values may be nested: nobody writes more by hand.
const DEPTH_MAX: usize = 64;
/// How many values a file may have: an alias of an alias of an alias is one line and a million values.
const NODES_MAX: usize = 100_000;

/// A value, and where it begins.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Node {
    pub value: Value,
    /// From 1.
    pub line: usize,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Null,
    Bool(bool),
    Number(Number),
    Text(String),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// A key of a map, its line, and its value.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Entry {
    pub key: String,
    pub line: usize,
    pub node: Node,
}

/// What is wrong, and in which line.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub line: usize,
    pub what: String,
}

impl Node {
    /// The value for a plugin.
    pub(super) fn into_json(self) -> Json {
        match self.value {
            Value::Null => Json::Null,
            Value::Bool(value) => Json::Bool(value),
            Value::Number(value) => Json::Number(value),
            Value::Text(value) => Json::String(value),
            Value::List(nodes) => Json::Array(nodes.into_iter().map(Self::into_json).collect()),
            Value::Map(entries) => {
                let pairs = entries.into_iter().map(|entry| (entry.key, entry.node.into_json()));
                Json::Object(pairs.collect::<Map<_, _>>())
            }
        }
    }

    fn size(&self) -> usize {
        1 + match &self.value {
            Value::List(nodes) => nodes.iter().map(Self::size).sum(),
            Value::Map(entries) => entries.iter().map(|entry| entry.node.size()).sum(),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Text(_) => 0,
        }
    }
}

/// The documents of a text, those that say nothing left out, and what is wrong with single values.
///
/// # Errors
/// What makes the text no YAML.
pub(super) fn documents(
    masked: &Masked,
    environment: &BTreeMap<String, String>,
) -> Result<(Vec<Node>, Vec<Fault>), Fault> {
    let mut parser = Parser::new_from_str(&masked.text);
    let mut builder =
        Builder { masked, environment, open: Vec::new(), anchors: HashMap::new(), nodes: 0, faults: vec![] };
    let mut documents = Vec::new();
    loop {
        let (event, marker) = parser.next_token().map_err(|error| Fault {
            line: error.marker().line(),
            what: format!("not valid YAML: {} (column {})", error.info(), error.marker().col() + 1),
        })?;
        match event {
            Event::StreamEnd => return Ok((documents, builder.faults)),
            Event::DocumentStart => builder.anchors.clear(),
            Event::Nothing | Event::StreamStart | Event::DocumentEnd => {}
            event => {
                if let Some(node) = builder.take(event, marker.line())?
                    && node.value != Value::Null
                {
                    documents.push(node);
                }
            }
        }
    }
}

struct Builder<'a> {
    masked: &'a Masked,
    environment: &'a BTreeMap<String, String>,
    open: Vec<Open>,
    anchors: HashMap<usize, Node>,
    nodes: usize,
    faults: Vec<Fault>,
}

/// A list or a map whose end has not come yet.
struct Open {
    line: usize,
    anchor: usize,
    inside: Inside,
}

enum Inside {
    List(Vec<Node>),
    Map { entries: Vec<Entry>, key: Option<(String, usize)> },
}

impl Builder<'_> {
    /// Takes the next event; gives a document when it is whole.
    fn take(&mut self, event: Event, line: usize) -> Result<Option<Node>, Fault> {
        let (node, anchor) = match event {
            Event::SequenceStart(anchor, _) => return self.open(line, anchor, Inside::List(Vec::new())),
            Event::MappingStart(anchor, _) => {
                return self.open(line, anchor, Inside::Map { entries: Vec::new(), key: None });
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let open = self.open.pop().expect("the parser ends only what it began");
                let value = match open.inside {
                    Inside::List(nodes) => Value::List(nodes),
                    Inside::Map { entries, .. } => Value::Map(entries),
                };
                (Node { value, line: open.line }, open.anchor)
            }
            Event::Scalar(text, style, anchor, tag) => {
                self.count(1, line)?;
                let is_text = tag.is_some_and(|tag| tag.suffix == "str");
                let value = self.scalar(&text, style == TScalarStyle::Plain && !is_text, line);
                (Node { value, line }, anchor)
            }
            Event::Alias(anchor) => {
                let unknown = || Fault { line, what: "an alias of what is not complete yet".to_owned() };
                let size = self.anchors.get(&anchor).ok_or_else(unknown)?.size();
                self.count(size, line)?;
                (self.anchors[&anchor].clone(), 0)
            }
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentStart | Event::DocumentEnd => {
                return Ok(None);
            }
        };
        if anchor > 0 {
            self.anchors.insert(anchor, node.clone());
        }
        self.put(node)
    }

    fn open(&mut self, line: usize, anchor: usize, inside: Inside) -> Result<Option<Node>, Fault> {
        if self.open.len() >= DEPTH_MAX {
            return Err(Fault { line, what: format!("nested deeper than {DEPTH_MAX} levels") });
        }
        self.count(1, line)?;
        self.open.push(Open { line, anchor, inside });
        Ok(None)
    }

    fn count(&mut self, nodes: usize, line: usize) -> Result<(), Fault> {
        self.nodes += nodes;
        if self.nodes > NODES_MAX {
            return Err(Fault { line, what: format!("more than {NODES_MAX} values") });
        }
        Ok(())
    }

    fn put(&mut self, node: Node) -> Result<Option<Node>, Fault> {
        let line = node.line;
        match self.open.last_mut().map(|open| &mut open.inside) {
            None => return Ok(Some(node)),
            Some(Inside::List(nodes)) => nodes.push(node),
            Some(Inside::Map { entries, key }) => match key.take() {
                Some((key, line)) => entries.push(Entry { key, line, node }),
                None => *key = Some((key_of(node)?, line)),
            },
        }
        if let Some(Inside::Map { entries, key: Some((key, _)) }) = self.open.last().map(|open| &open.inside)
            && entries.iter().any(|entry| entry.key == *key)
        {
            return Err(Fault { line, what: format!("the key {key:?} is there twice") });
        }
        Ok(None)
    }

    fn scalar(&mut self, text: &str, plain: bool, line: usize) -> Value {
        match self.masked.unmask(text, self.environment) {
            Ok(text) if plain => resolve(text),
            Ok(text) => Value::Text(text),
            Err(what) => {
                self.faults.push(Fault { line, what });
                Value::Text(String::new())
            }
        }
    }
}

fn key_of(node: Node) -> Result<String, Fault> {
    match node.value {
        Value::Text(text) => Ok(text),
        Value::Bool(value) => Ok(value.to_string()),
        Value::Number(value) => Ok(value.to_string()),
        Value::Null | Value::List(_) | Value::Map(_) => {
            Err(Fault { line: node.line, what: "a key is to be text".to_owned() })
        }
    }
}

/// The type of a plain value.
fn resolve(text: String) -> Value {
    match text.as_str() {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" => return Value::Bool(true),
        "false" | "False" | "FALSE" => return Value::Bool(false),
        _ => {}
    }
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(&text);
    let digits = unsigned.starts_with(|c: char| c.is_ascii_digit());
    let leading_zero = unsigned.len() > 1 && unsigned.starts_with('0') && !unsigned.starts_with("0.");
    if !digits || leading_zero {
        return Value::Text(text);
    }
    let whole = unsigned.bytes().all(|byte| byte.is_ascii_digit());
    let number = if whole {
        // One that is too large for either is text: a plugin that wants a number can still read it.
        text.parse::<i64>().map(Number::from).or_else(|_| text.parse::<u64>().map(Number::from)).ok()
    } else {
        text.parse::<f64>().ok().and_then(Number::from_f64)
    };
    number.map_or(Value::Text(text), Value::Number)
}

#[cfg(test)]
mod tests {
    use super::super::expand::mask;
    use super::*;
    use serde_json::json;

    fn read(text: &str) -> Result<Vec<Json>, Fault> {
        let environment = BTreeMap::from([("N".to_owned(), "7".to_owned()), ("T".to_owned(), "a: [b".to_owned())]);
        let (documents, faults) = documents(&mask(text), &environment)?;
        assert_eq!(faults, []);
        Ok(documents.into_iter().map(Node::into_json).collect())
    }

    #[test]
    fn documents_are_read_without_guessing() {
        let text = "# nothing\n---\na: [1, -2, 1.5, 18446744073709551615, 1e3]\nb: {c: 'x', d: \"1\"}\n---\n---\n\
                    - yes\n- 012\n- 1_000\n- ~\n- true\n- 0.5\n- 0\n- .inf\n- 1.2.3\n- 99999999999999999999\n- v1\n- !!str 7\n...\n";
        let wanted = [
            json!({"a": [1, -2, 1.5, 18_446_744_073_709_551_615_u64, 1000.0], "b": {"c": "x", "d": "1"}}),
            json!(["yes", "012", "1_000", null, true, 0.5, 0, ".inf", "1.2.3", "99999999999999999999", "v1", "7"]),
        ];
        assert_eq!(read(text), Ok(wanted.to_vec()));
    }

    #[test]
    fn references_are_values_and_nothing_else() {
        let text = "n: ${N}\nquoted: '${N}'\nflow: [${N}, ${T}]\ntext: ${T}\n# ${UNSET}\n${N}: ${N}${N}\n";
        let wanted = json!({"n": 7, "quoted": "7", "flow": [7, "a: [b"], "text": "a: [b", "7": 77});
        assert_eq!(read(text), Ok(vec![wanted]));
    }

    #[test]
    fn faults_have_their_line() {
        let fault = |text: &str| read(text).expect_err(text);
        assert_eq!(fault("a: 1\nb: [\n").line, 3);
        let twice = fault("a: 1\nb: 2\na: 3\n");
        assert_eq!((twice.line, twice.what.as_str()), (3, "the key \"a\" is there twice"));
        assert!(fault("a: 1\n? [x]\n: y\n").what.contains("a key is to be text"));
        assert!(fault(&"[".repeat(100)).what.contains("deeper than"));
        assert!(read(&"[".repeat(100_000)).is_err(), "the parser has a limit of its own");
    }

    #[test]
    fn aliases_are_copies_and_bounded() {
        assert_eq!(read("a: &x {b: 1}\nc: *x\n"), Ok(vec![json!({"a": {"b": 1}, "c": {"b": 1}})]));
        let mut bomb = "a0: &a0 [1,1,1,1,1,1,1,1,1,1]\n".to_owned();
        for level in 1..12 {
            let item = format!("*a{}", level - 1);
            bomb += &format!("a{level}: &a{level} [{}]\n", vec![item; 10].join(","));
        }
        assert!(read(&bomb).expect_err("a bomb").what.contains("more than"), "it would be 10^12 values");
    }
}
