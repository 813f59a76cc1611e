//! A map of a document, read key by key: each by the type that it wants, and what nobody wanted is a fault.

use super::SpecFault;
use super::yaml::{Entry, Node, Value};

/// Where faults go, and what they say of their place.
pub(super) struct Findings<'a> {
    pub file: &'a str,
    pub document: usize,
    pub faults: Vec<SpecFault>,
}

impl Findings<'_> {
    /// Notes a fault.
    pub(super) fn fault(&mut self, line: usize, key: &str, what: impl Into<String>) {
        self.faults.push(SpecFault {
            file: self.file.to_owned(),
            line,
            document: self.document,
            key: key.to_owned(),
            what: what.into(),
        });
    }
}

/// A map whose keys are taken one by one.
pub(super) struct Section<'f, 'a> {
    entries: Vec<Entry>,
    path: String,
    line: usize,
    known: Vec<&'static str>,
    findings: &'f mut Findings<'a>,
}

impl<'f, 'a> Section<'f, 'a> {
    /// A section of what may be none: then it is empty, and that is a fault.
    pub(super) fn new(node: Node, path: &str, findings: &'f mut Findings<'a>) -> Self {
        let line = node.line;
        let entries = match node.value {
            Value::Map(entries) => entries,
            other => {
                findings.fault(line, path, format!("wants a map of keys, not {}", said(&other)));
                Vec::new()
            }
        };
        Self { entries, path: path.to_owned(), line, known: Vec::new(), findings }
    }

    /// A key's whole name.
    pub(super) fn path(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// The line of a key, or of the section where it lacks it.
    pub(super) fn line(&self, key: &str) -> usize {
        self.entries.iter().find(|entry| entry.key == key).map_or(self.line, |entry| entry.line)
    }

    /// Notes a fault of a key.
    pub(super) fn fault(&mut self, line: usize, key: &str, what: impl Into<String>) {
        let path = self.path(key);
        self.findings.fault(line, &path, what);
    }

    /// A key's value, with its line; none where it is null.
    pub(super) fn take(&mut self, key: &'static str) -> Option<Node> {
        self.known.push(key);
        let at = self.entries.iter().position(|entry| entry.key == key)?;
        let entry = self.entries.remove(at);
        (entry.node.value != Value::Null).then_some(entry.node)
    }

    pub(super) fn text(&mut self, key: &'static str) -> Option<(String, usize)> {
        let node = self.take(key)?;
        match node.value {
            Value::Text(text) => Some((text, node.line)),
            other => {
                let quotes = if matches!(other, Value::Number(_) | Value::Bool(_)) { "; put it in quotes" } else { "" };
                self.fault(node.line, key, format!("wants text, not {}{quotes}", said(&other)));
                None
            }
        }
    }

    /// Text that must be there, and not be empty; `what` says what it would be.
    pub(super) fn required(&mut self, key: &'static str, what: &str) -> (String, usize) {
        let (missing, line) = (!self.has(key), self.line(key));
        let (text, line) = self.text(key).unwrap_or((String::new(), line));
        if missing || (text.is_empty() && !self.faulty(key)) {
            self.fault(line, key, format!("missing: {what}"));
        }
        (text, line)
    }

    pub(super) fn truth(&mut self, key: &'static str) -> Option<bool> {
        let node = self.take(key)?;
        match node.value {
            Value::Bool(value) => Some(value),
            other => {
                self.fault(node.line, key, format!("wants true or false, not {}", said(&other)));
                None
            }
        }
    }

    /// One of a few words.
    pub(super) fn word<T: Copy>(&mut self, key: &'static str, words: &[(&str, T)]) -> Option<T> {
        let (text, line) = self.text(key)?;
        let found = words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
        if found.is_none() {
            let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            self.fault(line, key, format!("wants one of {}, not {text:?}", known.join(", ")));
        }
        found
    }

    /// A list of texts, each with its line.
    pub(super) fn texts(&mut self, key: &'static str) -> Option<Vec<(String, usize)>> {
        let node = self.take(key)?;
        let Value::List(nodes) = node.value else {
            self.fault(node.line, key, format!("wants a list of texts, not {}", said(&node.value)));
            return None;
        };
        let mut texts = Vec::new();
        for (at, node) in nodes.into_iter().enumerate() {
            match node.value {
                Value::Text(text) => texts.push((text, node.line)),
                other => self.fault(node.line, &format!("{key}[{at}]"), format!("wants text, not {}", said(&other))),
            }
        }
        Some(texts)
    }

    /// A section below, if the key is there.
    pub(super) fn section(&mut self, key: &'static str) -> Option<Section<'_, 'a>> {
        let node = self.take(key)?;
        let path = self.path(key);
        Some(Section::new(node, &path, self.findings))
    }

    /// Whether the key is there still.
    pub(super) fn has(&self, key: &str) -> bool {
        self.entries.iter().any(|entry| entry.key == key && entry.node.value != Value::Null)
    }

    fn faulty(&self, key: &str) -> bool {
        let path = self.path(key);
        self.findings.faults.iter().any(|fault| fault.key == path && fault.document == self.findings.document)
    }

    /// Says what nobody wanted.
    pub(super) fn finish(self) {
        for entry in &self.entries {
            let what = format!("unknown key; known here: {}", self.known.join(", "));
            let path = self.path(&entry.key);
            self.findings.fault(entry.line, &path, what);
        }
    }
}

/// A value, said to whoever wrote it.
pub(super) fn said(value: &Value) -> String {
    match value {
        Value::Null => "nothing".to_owned(),
        Value::Bool(value) => format!("the truth value {value}"),
        Value::Number(value) => format!("the number {value}"),
        Value::Text(text) => format!("the text {text:?}"),
        Value::List(_) => "a list".to_owned(),
        Value::Map(_) => "a map".to_owned(),
    }
}
