//! JSON as Go writes it: strings with HTML's characters escaped, and JSON values within JSON.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::IgnoredAny;

/// What stands before a JSON value that could not be embedded as it is. It is JSON's white space, which nothing else of
/// what we write has, and no other writer puts a tab there alone.
pub(in crate::cloudquery) const WRAPPED: char = '\t';

/// Writes a JSON string.
pub(super) fn write_string(out: &mut String, text: &str) {
    out.push('"');
    let mut plain = 0;
    for (at, c) in text.char_indices() {
        let escape = match c {
            '"' => "\\\"",
            '\\' => "\\\\",
            '\n' => "\\n",
            '\r' => "\\r",
            '\t' => "\\t",
            '\u{8}' => "\\b",
            '\u{c}' => "\\f",
            '<' => "\\u003c",
            '>' => "\\u003e",
            '&' => "\\u0026",
            '\u{2028}' => "\\u2028",
            '\u{2029}' => "\\u2029",
            c if c < ' ' => "",
            _ => continue,
        };
        out.push_str(&text[plain..at]);
        out.push_str(escape);
        if escape.is_empty() {
            // Writing to a String cannot fail.
            let _ = write!(out, "\\u{:04x}", u32::from(c));
        }
        plain = at + c.len_utf8();
    }
    out.push_str(&text[plain..]);
    out.push('"');
}

/// Writes the bytes of a JSON value within JSON.
///
/// Valid JSON is embedded as it is. Bytes that would not read back as themselves (no JSON at all, white space around it,
/// a `null` that is not NULL) are a string after [`WRAPPED`], and bytes that are no text are base64 in a list after it.
pub(super) fn write_value(out: &mut String, bytes: &[u8]) {
    match std::str::from_utf8(bytes) {
        Ok(text) if reads_back(text) => out.push_str(text),
        Ok(text) => {
            out.push(WRAPPED);
            write_string(out, text);
        }
        Err(_) => {
            out.push(WRAPPED);
            out.push_str("[\"");
            STANDARD.encode_string(bytes, out);
            out.push_str("\"]");
        }
    }
}

fn reads_back(text: &str) -> bool {
    let space = [' ', '\t', '\n', '\r'];
    let bare = !text.starts_with(space) && !text.ends_with(space) && text != "null";
    bare && serde_json::from_str::<IgnoredAny>(text).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_escaped_as_go_escapes_them() {
        for (text, expected) in [
            ("plain é", "\"plain é\""),
            ("<a href=\"x\">&\\", "\"\\u003ca href=\\\"x\\\"\\u003e\\u0026\\\\\""),
            ("\n\r\t\u{8}\u{c}\u{0}\u{1f}\u{7f}", "\"\\n\\r\\t\\b\\f\\u0000\\u001f\u{7f}\""),
            ("\u{2028}\u{2029}", "\"\\u2028\\u2029\""),
        ] {
            let mut out = String::new();
            write_string(&mut out, text);
            assert_eq!(out, expected);
            assert_eq!(serde_json::from_str::<String>(&out).unwrap(), text);
        }
    }

    #[test]
    fn json_values_are_embedded_where_they_are_json() {
        for (bytes, expected) in [
            (&b"{\"a\": 1}"[..], "{\"a\": 1}"),
            (b"\"text\"", "\"text\""),
            (b"12345678901234567890", "12345678901234567890"),
            (b"null", "\t\"null\""),
            (b" 1", "\t\" 1\""),
            (b"", "\t\"\""),
            (b"{oops", "\t\"{oops\""),
            (b"\xff", "\t[\"/w==\"]"),
        ] {
            let mut out = String::new();
            write_value(&mut out, bytes);
            assert_eq!(out, expected);
        }
    }
}
