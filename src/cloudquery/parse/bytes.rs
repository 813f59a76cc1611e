//! Texts and bytes, and CloudQuery's own types, which are bytes with a text form.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryBuilder, BinaryViewBuilder, FixedSizeBinaryBuilder, LargeBinaryBuilder, LargeStringBuilder,
    StringBuilder, StringViewBuilder,
};
use arrow::datatypes::DataType;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use uuid::Uuid;

use super::json::Cursor;
use super::{Bad, Build, Scalar};
use crate::cloudquery::Extension;

/// The most bytes that an array with offsets of 32 bits can hold, and one value of any array.
const BYTES_MAX: usize = i32::MAX as usize;

const TOO_LARGE: Bad = "the values are too large for one array";

/// Texts of any type.
pub(super) enum Texts {
    Small(StringBuilder),
    Large(LargeStringBuilder),
    View(StringViewBuilder),
}

impl Texts {
    pub(super) fn of(data_type: &DataType) -> Option<Self> {
        Some(match data_type {
            DataType::Utf8 => Self::Small(StringBuilder::new()),
            DataType::LargeUtf8 => Self::Large(LargeStringBuilder::new()),
            DataType::Utf8View => Self::View(StringViewBuilder::new()),
            _ => return None,
        })
    }

    fn append(&mut self, text: &str) -> Result<(), Bad> {
        match self {
            Self::Small(texts) if texts.values_slice().len() + text.len() > BYTES_MAX => return Err(TOO_LARGE),
            Self::Small(texts) => texts.append_value(text),
            Self::Large(texts) => texts.append_value(text),
            Self::View(texts) => texts.try_append_value(text).map_err(|_| TOO_LARGE)?,
        }
        Ok(())
    }
}

impl Build for Texts {
    fn null(&mut self) {
        match self {
            Self::Small(texts) => texts.append_null(),
            Self::Large(texts) => texts.append_null(),
            Self::View(texts) => texts.append_null(),
        }
    }

    fn scalar(&mut self, value: Scalar<'_>) -> Result<(), Bad> {
        match value {
            Scalar::Text(text) => self.append(&text),
            Scalar::Number(text) => self.append(text),
            Scalar::Blob(bytes) => self.append(std::str::from_utf8(bytes).map_err(|_| "its bytes are not UTF-8")?),
            Scalar::Integer(value) => self.append(&value.to_string()),
            Scalar::Real(value) => self.append(&value.to_string()),
            Scalar::Bool(value) => self.append(&value.to_string()),
        }
    }

    fn finish(&mut self) -> Result<ArrayRef, Bad> {
        Ok(match self {
            Self::Small(texts) => Arc::new(texts.finish()),
            Self::Large(texts) => Arc::new(texts.finish()),
            Self::View(texts) => Arc::new(texts.finish()),
        })
    }
}

/// Arrays of bytes of any type.
enum Sink {
    Small(BinaryBuilder),
    Large(LargeBinaryBuilder),
    View(BinaryViewBuilder),
    Fixed(FixedSizeBinaryBuilder),
}

/// Bytes, and what they mean.
pub(super) struct Bytes {
    sink: Sink,
    extension: Option<Extension>,
}

impl Bytes {
    pub(super) fn of(data_type: &DataType, extension: Option<Extension>) -> Option<Self> {
        let sink = match data_type {
            DataType::Binary => Sink::Small(BinaryBuilder::new()),
            DataType::LargeBinary => Sink::Large(LargeBinaryBuilder::new()),
            DataType::BinaryView => Sink::View(BinaryViewBuilder::new()),
            DataType::FixedSizeBinary(width) if *width >= 0 => Sink::Fixed(FixedSizeBinaryBuilder::new(*width)),
            _ => return None,
        };
        Some(Self { sink, extension })
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), Bad> {
        match &mut self.sink {
            Sink::Small(sink) if sink.values_slice().len() + bytes.len() > BYTES_MAX => return Err(TOO_LARGE),
            Sink::Small(sink) => sink.append_value(bytes),
            Sink::Large(sink) => sink.append_value(bytes),
            Sink::View(sink) => sink.try_append_value(bytes).map_err(|_| TOO_LARGE)?,
            Sink::Fixed(sink) => sink.append_value(bytes).map_err(|_| "it has another number of bytes")?,
        }
        Ok(())
    }

    fn append_text(&mut self, text: &str) -> Result<(), Bad> {
        match self.extension {
            None | Some(Extension::Json | Extension::Inet) => self.append(text.as_bytes()),
            Some(Extension::Uuid) => {
                let uuid = Uuid::try_parse(text).map_err(|_| "it is not a UUID")?;
                self.append(uuid.as_bytes())
            }
            Some(Extension::Mac) => self.append(&mac(text).ok_or("it is not a hardware address")?),
        }
    }

    /// Takes the bytes of a JSON value: see `write_value` in [`crate::cloudquery::text::json`].
    fn json_value(&mut self, cursor: &mut Cursor<'_>) -> Result<(), Bad> {
        if !cursor.wrapped() {
            return self.append(cursor.raw()?.as_bytes());
        }
        if cursor.peek() == Some('"') {
            return self.append(cursor.string()?.as_bytes());
        }
        let mut bytes = None;
        cursor.list(|cursor| {
            bytes = Some(base64(&cursor.string()?)?);
            Ok(())
        })?;
        self.append(&bytes.ok_or("its JSON is not valid")?)
    }
}

impl Build for Bytes {
    fn null(&mut self) {
        match &mut self.sink {
            Sink::Small(sink) => sink.append_null(),
            Sink::Large(sink) => sink.append_null(),
            Sink::View(sink) => sink.append_null(),
            Sink::Fixed(sink) => sink.append_null(),
        }
    }

    fn scalar(&mut self, value: Scalar<'_>) -> Result<(), Bad> {
        match value {
            Scalar::Blob(bytes) => self.append(bytes),
            Scalar::Text(text) => self.append_text(&text),
            // A number is JSON as it is.
            Scalar::Integer(value) if self.extension == Some(Extension::Json) => {
                self.append(value.to_string().as_bytes())
            }
            Scalar::Real(value) if self.extension == Some(Extension::Json) => self.append(value.to_string().as_bytes()),
            Scalar::Integer(_) | Scalar::Real(_) | Scalar::Number(_) | Scalar::Bool(_) => Err("it is a number"),
        }
    }

    fn json(&mut self, cursor: &mut Cursor<'_>) -> Result<(), Bad> {
        match self.extension {
            Some(Extension::Json) => self.json_value(cursor),
            Some(Extension::Uuid | Extension::Mac | Extension::Inet) => self.append_text(&cursor.string()?),
            None => self.append(&base64(&cursor.string()?)?),
        }
    }

    fn finish(&mut self) -> Result<ArrayRef, Bad> {
        Ok(match &mut self.sink {
            Sink::Small(sink) => Arc::new(sink.finish()),
            Sink::Large(sink) => Arc::new(sink.finish()),
            Sink::View(sink) => Arc::new(sink.finish()),
            Sink::Fixed(sink) => Arc::new(sink.finish()),
        })
    }
}

fn base64(text: &str) -> Result<Vec<u8>, Bad> {
    STANDARD.decode(text).map_err(|_| "it is not base64")
}

/// The bytes of a hardware address in hexadecimal with colons.
fn mac(text: &str) -> Option<Vec<u8>> {
    if text.is_empty() {
        return Some(Vec::new());
    }
    let byte = |pair: &str| {
        let is_pair = pair.len() == 2 && pair.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_pair.then(|| u8::from_str_radix(pair, 16).ok())?
    };
    text.split(':').map(byte).collect()
}
