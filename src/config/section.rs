//! One map of the merged configuration, read key by key by the type that each key wants.
//!
//! Every question that is not answered well becomes a fault, and reading goes on: a person is told everything at once.
//! Text from the environment, from `${…}` and in quotes is the same; it is read as what the key wants, never guessed.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::time::Duration;

use super::{ConfigFault, units};

/// A value with where it comes from.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) node: Node,
    pub(super) file: String,
}

/// A value as YAML has it.
#[derive(Clone, Debug)]
pub(super) enum Node {
    Nil,
    Text(String),
    Bool(bool),
    Integer(i128),
    Real(f64),
    List(Vec<Entry>),
    Map(BTreeMap<String, Entry>),
}

impl Node {
    fn kind(&self) -> String {
        match self {
            Self::Nil => "nothing".to_owned(),
            Self::Text(text) => format!("the text {text:?}"),
            Self::Bool(value) => format!("{value}"),
            Self::Integer(value) => format!("the number {value}"),
            Self::Real(value) => format!("the number {value}"),
            Self::List(_) => "a list".to_owned(),
            Self::Map(_) => "a section".to_owned(),
        }
    }
}

/// What reading found wrong, and which keys it asked for.
#[derive(Debug, Default)]
pub(super) struct Findings {
    pub(super) faults: Vec<ConfigFault>,
    pub(super) asked: BTreeSet<String>,
}

/// One map, while it is read.
pub(super) struct Section<'a> {
    path: String,
    file: String,
    left: BTreeMap<String, Entry>,
    asked: BTreeSet<&'static str>,
    findings: &'a RefCell<Findings>,
}

impl<'a> Section<'a> {
    /// The outermost map of a file.
    pub(super) fn root(entries: BTreeMap<String, Entry>, file: &str, findings: &'a RefCell<Findings>) -> Self {
        Self { path: String::new(), file: file.to_owned(), left: entries, asked: BTreeSet::new(), findings }
    }

    /// The full name of a key in it.
    pub(super) fn key(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    /// Notes a fault of one of its keys.
    pub(super) fn fault(&self, name: &str, what: impl Into<String>) {
        self.fault_at(self.key(name), self.file.clone(), what);
    }

    fn fault_at(&self, key: String, file: String, what: impl Into<String>) {
        self.findings.borrow_mut().faults.push(ConfigFault { file, key, what: what.into() });
    }

    /// Whether the key is there and was not asked for yet.
    pub(super) fn has(&self, name: &str) -> bool {
        self.left.contains_key(name)
    }

    /// The keys that are there and were not asked for yet.
    pub(super) fn names(&self) -> Vec<String> {
        self.left.keys().cloned().collect()
    }

    /// Refuses these keys where they are there, with a sentence; they count as known.
    pub(super) fn refuse(&mut self, names: &[&'static str], what: &str) {
        for name in names {
            if let Some(entry) = self.entry(name) {
                self.fault_at(self.key(name), entry.file, what);
            }
        }
    }

    fn entry(&mut self, name: &'static str) -> Option<Entry> {
        self.asked.insert(name);
        self.findings.borrow_mut().asked.insert(self.key(name));
        self.left.remove(name)
    }

    fn read<T>(&mut self, name: &'static str, wanted: &str, read: impl FnOnce(&Node) -> Option<T>) -> Option<T> {
        let entry = self.entry(name)?;
        let found = read(&entry.node);
        if found.is_none() {
            let hint = if matches!(entry.node, Node::Nil) { "; leave the key out, or give it a value" } else { "" };
            self.fault_at(self.key(name), entry.file, format!("wants {wanted}, not {}{hint}", entry.node.kind()));
        }
        found
    }

    /// Text. A number or a truth value without quotes is a fault: what was meant is not guessed.
    pub(super) fn text(&mut self, name: &'static str) -> Option<String> {
        self.read(name, "text (in quotes where YAML would read a number or true/false)", |node| match node {
            Node::Text(text) if !text.trim().is_empty() => Some(text.clone()),
            _ => None,
        })
    }

    /// Text that must be there; empty, and a fault, where it is not.
    pub(super) fn required(&mut self, name: &'static str, what: &str) -> String {
        if !self.has(name) {
            self.entry(name);
            self.fault(name, format!("missing: {what}"));
            return String::new();
        }
        self.text(name).unwrap_or_default()
    }

    /// An address; empty, and a fault, where it is none.
    pub(super) fn address(&mut self, name: &'static str) -> Option<String> {
        let is_there = self.has(name);
        let address = self.read(name, super::address::FORM, |node| match node {
            Node::Text(text) if super::address::is_address(text) => Some(text.clone()),
            _ => None,
        });
        address.or_else(|| is_there.then(String::new))
    }

    /// On or off.
    pub(super) fn truth(&mut self, name: &'static str) -> Option<bool> {
        self.read(name, "true or false (or on, off)", |node| match node {
            Node::Bool(value) => Some(*value),
            Node::Text(text) => match text.to_ascii_lowercase().as_str() {
                "true" | "on" => Some(true),
                "false" | "off" => Some(false),
                _ => None,
            },
            _ => None,
        })
    }

    /// A whole number in a range.
    pub(super) fn count(&mut self, name: &'static str, range: RangeInclusive<u64>) -> Option<u64> {
        let wanted = format!("a whole number from {} to {}", range.start(), range.end());
        let number = |node: &Node| match node {
            Node::Integer(number) => u64::try_from(*number).ok(),
            Node::Text(text) => text.trim().parse().ok(),
            _ => None,
        };
        self.read(name, &wanted, |node| number(node).filter(|number| range.contains(number)))
    }

    /// A number of bytes in a range.
    pub(super) fn size(&mut self, name: &'static str, range: RangeInclusive<u64>) -> Option<u64> {
        let wanted = format!("{}, from {} to {} bytes", units::SIZE_FORM, range.start(), range.end());
        let bytes = |node: &Node| match node {
            Node::Integer(number) => u64::try_from(*number).ok(),
            Node::Text(text) => units::size(text),
            _ => None,
        };
        self.read(name, &wanted, |node| bytes(node).filter(|bytes| range.contains(bytes)))
    }

    /// A duration in a range.
    pub(super) fn duration(&mut self, name: &'static str, range: RangeInclusive<Duration>) -> Option<Duration> {
        let wanted = format!("{}, from {:?} to {:?}", units::DURATION_FORM, range.start(), range.end());
        let read = |node: &Node| match node {
            Node::Text(text) => units::duration(text),
            _ => None,
        };
        self.read(name, &wanted, |node| read(node).filter(|duration| range.contains(duration)))
    }

    /// One of some words.
    pub(super) fn word<T: Copy>(&mut self, name: &'static str, words: &[(&str, T)]) -> Option<T> {
        let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        let is_null = known.contains(&"null");
        let hint = if is_null { " (null in quotes: bare, it is YAML's)" } else { "" };
        self.read(name, &format!("one of {}{hint}", known.join(", ")), |node| match node {
            Node::Text(text) => words.iter().find(|(word, _)| word == text).map(|(_, meant)| *meant),
            _ => None,
        })
    }

    /// A list of texts.
    pub(super) fn texts(&mut self, name: &'static str) -> Option<Vec<String>> {
        let entries = self.list(name)?;
        let mut texts = Vec::new();
        for (at, entry) in entries.into_iter().enumerate() {
            match entry.node {
                Node::Text(text) => texts.push(text),
                other => {
                    let what = format!("wants text (in quotes), not {}", other.kind());
                    self.fault_at(format!("{}[{at}]", self.key(name)), entry.file, what);
                }
            }
        }
        Some(texts)
    }

    fn list(&mut self, name: &'static str) -> Option<Vec<Entry>> {
        let wanted = "a list (which the environment cannot give; use ${VAR} in the file's list)";
        self.read(name, wanted, |node| match node {
            Node::List(entries) => Some(entries.clone()),
            _ => None,
        })
    }

    /// A map of its own; empty where it is not there.
    pub(super) fn section(&mut self, name: &'static str) -> Section<'a> {
        let entries = self.read(name, "a section with keys of its own", |node| match node {
            Node::Map(entries) => Some(entries.clone()),
            _ => None,
        });
        self.below(self.key(name), self.file.clone(), entries.unwrap_or_default())
    }

    /// A map of whatever keys, as JSON: the user's own, for somebody else.
    pub(super) fn json(&mut self, name: &'static str) -> Option<String> {
        self.read(name, "a section with keys of its own", |node| match node {
            Node::Map(_) => Some(as_json(node).to_string()),
            _ => None,
        })
    }

    /// A list of maps; empty where it is not there.
    pub(super) fn sections(&mut self, name: &'static str) -> Vec<Section<'a>> {
        let mut sections = Vec::new();
        for (at, entry) in self.list(name).unwrap_or_default().into_iter().enumerate() {
            let path = format!("{}[{at}]", self.key(name));
            match entry.node {
                Node::Map(entries) => sections.push(self.below(path, entry.file, entries)),
                other => self.fault_at(path, entry.file, format!("wants a section with keys, not {}", other.kind())),
            }
        }
        sections
    }

    /// A word, or a map of its own: what `policy` is.
    pub(super) fn word_or_section(&mut self, name: &'static str) -> Option<Result<String, Section<'a>>> {
        let entry = self.entry(name)?;
        self.either(self.key(name), entry)
    }

    /// Everything that is left, by names that are the user's own: each a word or a map of its own.
    pub(super) fn rest(mut self) -> Vec<(String, Result<String, Section<'a>>)> {
        let left = std::mem::take(&mut self.left);
        let read = |(name, entry): (String, Entry)| {
            let found = self.either(self.key(&name), entry)?;
            Some((name, found))
        };
        left.into_iter().filter_map(read).collect()
    }

    fn either(&self, path: String, entry: Entry) -> Option<Result<String, Section<'a>>> {
        match entry.node {
            Node::Text(text) => Some(Ok(text)),
            Node::Map(entries) => Some(Err(self.below(path, entry.file, entries))),
            other => {
                self.fault_at(path, entry.file, format!("wants a word or a section, not {}", other.kind()));
                None
            }
        }
    }

    fn below(&self, path: String, file: String, left: BTreeMap<String, Entry>) -> Section<'a> {
        Section { path, file, left, asked: BTreeSet::new(), findings: self.findings }
    }

    /// Ends the reading: every key that nobody asked for is a fault.
    pub(super) fn finish(mut self) {
        let known = self.asked.iter().copied().collect::<Vec<_>>().join(", ");
        for (name, entry) in std::mem::take(&mut self.left) {
            self.fault_at(self.key(&name), entry.file, format!("unknown key; known here: {known}"));
        }
    }
}

fn as_json(node: &Node) -> serde_json::Value {
    use serde_json::Value;
    match node {
        Node::Nil => Value::Null,
        Node::Text(text) => Value::from(text.as_str()),
        Node::Bool(value) => Value::from(*value),
        Node::Integer(value) => i64::try_from(*value).map_or_else(|_| Value::from(value.to_string()), Value::from),
        Node::Real(value) => Value::from(*value),
        Node::List(entries) => entries.iter().map(|entry| as_json(&entry.node)).collect(),
        Node::Map(entries) => entries
            .iter()
            .map(|(name, entry)| (name.clone(), as_json(&entry.node)))
            .collect::<serde_json::Map<_, _>>()
            .into(),
    }
}
