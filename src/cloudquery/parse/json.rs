//! A cursor over JSON text, which follows the type that is asked for.
//!
//! Numbers keep all of their digits, and values within can be taken as they are written; neither is so in a tree of
//! parsed values. Depth is bounded by the type's, not by the text's.

use std::borrow::Cow;

use serde::de::IgnoredAny;

use super::{Bad, Scalar};
use crate::cloudquery::text::json::WRAPPED;

const SPACE: [char; 4] = [' ', '\t', '\n', '\r'];

/// Where one is in a JSON text.
pub(super) struct Cursor<'a> {
    text: &'a str,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { text }
    }

    /// What follows after white space, which stays: before a value it may be a mark.
    fn ahead(&self) -> &'a str {
        self.text.trim_start_matches(SPACE)
    }

    /// The next character that is no white space.
    pub(super) fn peek(&self) -> Option<char> {
        self.ahead().chars().next()
    }

    /// Takes this character, if it is the next; else moves nowhere.
    pub(super) fn take(&mut self, expected: char) -> bool {
        self.take_text(expected.encode_utf8(&mut [0; 4]))
    }

    fn take_text(&mut self, expected: &str) -> bool {
        match self.ahead().strip_prefix(expected) {
            Some(rest) => {
                self.text = rest;
                true
            }
            None => false,
        }
    }

    pub(super) fn expect(&mut self, expected: char, otherwise: Bad) -> Result<(), Bad> {
        if self.take(expected) { Ok(()) } else { Err(otherwise) }
    }

    /// Takes a `null`, if it is next; else moves nowhere.
    pub(super) fn null(&mut self) -> bool {
        self.take_text("null")
    }

    /// Takes the mark of a wrapped value, if it is next.
    pub(super) fn wrapped(&mut self) -> bool {
        match self.text.strip_prefix(WRAPPED) {
            Some(rest) if rest.starts_with(['"', '[']) => {
                self.text = rest;
                true
            }
            _ => false,
        }
    }

    /// Nothing may follow.
    pub(super) fn end(&self) -> Result<(), Bad> {
        if self.peek().is_none() { Ok(()) } else { Err("text follows its JSON") }
    }

    /// Takes a value of any kind, as it is written.
    pub(super) fn raw(&mut self) -> Result<&'a str, Bad> {
        self.text = self.ahead();
        let mut values = serde_json::Deserializer::from_str(self.text).into_iter::<IgnoredAny>();
        match values.next() {
            Some(Ok(IgnoredAny)) => {
                let (value, rest) = self.text.split_at(values.byte_offset());
                self.text = rest;
                Ok(value)
            }
            Some(Err(_)) | None => Err("it is not valid JSON"),
        }
    }

    /// Takes a value of any kind, as it is written and with what stands before it.
    pub(super) fn raw_with_mark(&mut self) -> Result<&'a str, Bad> {
        let before = self.text;
        self.raw()?;
        Ok(&before[..before.len() - self.text.len()])
    }

    /// Takes a value that is neither nested nor null.
    pub(super) fn scalar(&mut self) -> Result<Scalar<'a>, Bad> {
        match self.peek() {
            Some('"') => Ok(Scalar::Text(self.string()?)),
            Some('t' | 'f') => match self.raw()? {
                "true" => Ok(Scalar::Bool(true)),
                _ => Ok(Scalar::Bool(false)),
            },
            Some('-' | '0'..='9') => Ok(Scalar::Number(self.raw()?)),
            _ => Err("a value in its JSON is of another kind"),
        }
    }

    /// Takes a string.
    pub(super) fn string(&mut self) -> Result<Cow<'a, str>, Bad> {
        if self.peek() != Some('"') {
            return Err("its JSON has something else where a string should be");
        }
        let written = self.raw()?;
        let inner = &written[1..written.len() - 1];
        if !inner.contains('\\') {
            return Ok(Cow::Borrowed(inner));
        }
        serde_json::from_str(written).map(Cow::Owned).map_err(|_| "a string in its JSON is not valid")
    }

    /// Takes a list, and hands out the cursor for each item.
    pub(super) fn list(&mut self, mut item: impl FnMut(&mut Self) -> Result<(), Bad>) -> Result<(), Bad> {
        self.expect('[', "it is not a JSON list")?;
        if self.take(']') {
            return Ok(());
        }
        loop {
            item(self)?;
            if self.take(']') {
                return Ok(());
            }
            self.expect(',', "its JSON list is not valid")?;
        }
    }

    /// Takes an object, and hands out each key and the cursor for its value.
    pub(super) fn object(&mut self, mut member: impl FnMut(&str, &mut Self) -> Result<(), Bad>) -> Result<(), Bad> {
        self.expect('{', "it is not a JSON object")?;
        if self.take('}') {
            return Ok(());
        }
        loop {
            let key = self.string()?;
            self.expect(':', "its JSON object is not valid")?;
            member(&key, self)?;
            if self.take('}') {
                return Ok(());
            }
            self.expect(',', "its JSON object is not valid")?;
        }
    }
}
