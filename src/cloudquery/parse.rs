//! Stored values as the Arrow types that a Read asks for: the way back of [`super::value`] and [`super::text`].
//!
//! The array is built from the requested field alone, down to the names of children; nothing is inferred from values. A
//! value that is none of the type is [`Error::Unreadable`] and names the column, whatever the database holds: a file may
//! have been written by anything.
//!
//! What other writers stored is read too: a uint64 that is a negative integer, as the official plugin has it; timestamps
//! with a blank in place of the `T`, or in another zone; columns whose type has changed within its class. Digits of a
//! second that the requested unit has no place for are cut off.

mod bytes;
mod json;
mod nested;
mod scalar;
mod time;

use std::borrow::Cow;

use arrow::array::ArrayRef;
use arrow::datatypes::{DataType, Field};
use rusqlite::types::ValueRef;

use self::json::Cursor;
use super::Error;
use super::types::type_name;

/// The most bytes, or items, that one NULL may take: fixed-size types hold their size even then, and the type that is
/// asked for comes from a peer.
const FIXED_SIZE_MAX: usize = 1 << 20;

/// What is wrong with a value.
type Bad = &'static str;

/// Collects the values of one column, and makes an array of them.
pub struct ArrayReader {
    column: String,
    type_name: String,
    build: Box<dyn Build>,
}

impl std::fmt::Debug for ArrayReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ArrayReader").field("column", &self.column).finish_non_exhaustive()
    }
}

impl ArrayReader {
    /// A reader for a column of this type.
    ///
    /// # Errors
    /// [`Error::UnsupportedType`] for types that are never stored.
    pub fn new(field: &Field) -> Result<Self, Error> {
        let (column, type_name) = (field.name().clone(), type_name(field));
        if fixed_size(field.data_type()) > FIXED_SIZE_MAX {
            return Err(Error::UnsupportedType { column, type_name });
        }
        match nested::build(field) {
            Some(build) => Ok(Self { column, type_name, build }),
            None => Err(Error::UnsupportedType { column, type_name }),
        }
    }

    /// Takes the next row's value.
    ///
    /// # Errors
    /// [`Error::Unreadable`] where it is none of the type. Nothing more can be read then.
    pub fn push(&mut self, value: ValueRef<'_>) -> Result<(), Error> {
        let value = match value {
            ValueRef::Null => {
                self.build.null();
                return Ok(());
            }
            ValueRef::Integer(value) => Scalar::Integer(value),
            ValueRef::Real(value) => Scalar::Real(value),
            ValueRef::Text(bytes) => match std::str::from_utf8(bytes) {
                Ok(text) => Scalar::Text(Cow::Borrowed(text)),
                // SQLite does not check its texts.
                Err(_) => Scalar::Blob(bytes),
            },
            ValueRef::Blob(bytes) => Scalar::Blob(bytes),
        };
        self.build.scalar(value).map_err(|what| self.unreadable(what))
    }

    /// The array of all values taken.
    ///
    /// # Errors
    /// [`Error::Unreadable`] where they are more than an array of the type can hold.
    pub fn finish(mut self) -> Result<ArrayRef, Error> {
        self.build.finish().map_err(|what| self.unreadable(what))
    }

    fn unreadable(&self, what: Bad) -> Error {
        Error::Unreadable { column: self.column.clone(), type_name: self.type_name.clone(), what }
    }
}

/// What a NULL of a type takes.
fn fixed_size(data_type: &DataType) -> usize {
    match data_type {
        DataType::FixedSizeBinary(width) => usize::try_from(*width).unwrap_or(0),
        DataType::FixedSizeList(item, size) => {
            fixed_size(item.data_type()).saturating_mul(usize::try_from(*size).unwrap_or(0))
        }
        DataType::Struct(fields) => {
            fields.iter().fold(1, |sum: usize, field| sum.saturating_add(fixed_size(field.data_type())))
        }
        _ => 1,
    }
}

/// A value that is not nested, as SQLite stores it or as it stands in JSON.
enum Scalar<'a> {
    Integer(i64),
    Real(f64),
    /// A number in JSON, with all of its digits.
    Number(&'a str),
    Bool(bool),
    Text(Cow<'a, str>),
    Blob(&'a [u8]),
}

impl Scalar<'_> {
    /// Its text, where it is one: a text, the digits of a number, or the digits that a uint64 is stored as.
    fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Number(text) => Some(text),
            Self::Blob(bytes) => std::str::from_utf8(bytes).ok(),
            Self::Integer(_) | Self::Real(_) | Self::Bool(_) => None,
        }
    }
}

/// Builds the array of one type.
trait Build: Send {
    /// Appends NULL.
    fn null(&mut self);

    /// Appends a value that SQLite has stored.
    fn scalar(&mut self, value: Scalar<'_>) -> Result<(), Bad>;

    /// Appends a value in JSON that is not `null`.
    fn json(&mut self, cursor: &mut Cursor<'_>) -> Result<(), Bad> {
        let value = cursor.scalar()?;
        self.scalar(value)
    }

    /// Makes the array.
    fn finish(&mut self) -> Result<ArrayRef, Bad>;
}
