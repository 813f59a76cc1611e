//! The text form of every Arrow value, as CloudQuery's Go SDK writes it: what a column of text holds, and what ids are
//! made of.
//!
//! Nested values are compact JSON: 64-bit integers are bare numbers, bytes are base64, everything else that JSON has no
//! type for is a string in the form that it has alone. Every text reads back as the value that it was written from
//! ([`super::parse`]), with these words on what Go's form leaves open:
//!
//! * Years beyond 9999 and times beyond a day have more digits; a date64 within a day has its time.
//! * A timestamp in a named zone is written in UTC; which zone it is, its type says.
//! * Two fields of a struct that have one name are both written, in their order.
//! * JSON within JSON that is not valid, or not distinguishable, is a string; see `json::write_value`.

mod float;
pub(super) mod json;
mod scalar;

use std::ops::Range;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{
    ArrowDictionaryKeyType, DataType, Field, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type, UInt16Type,
    UInt32Type, UInt64Type,
};

use super::types::{extension_of, type_name};
use super::{Error, Extension, MESSAGE_BYTES_MAX};

/// What NULL is written as where something must be. Never stored.
const NULL: &str = "(null)";

/// The text form of one value; `(null)` for NULL.
///
/// # Errors
/// As [`Formatter::new`] and [`Formatter::write`].
pub fn text(array: &dyn Array, field: &Field, row: usize) -> Result<String, Error> {
    let mut out = String::new();
    if !Formatter::new(field)?.write(array, row, &mut out)? {
        out.push_str(NULL);
    }
    Ok(out)
}

/// Writes the values of one column.
#[derive(Debug)]
pub struct Formatter {
    column: String,
    node: Node,
}

/// How a value is written, by its type.
#[derive(Debug)]
enum Node {
    Null,
    Scalar(DataType),
    Extension(Extension, DataType),
    List(Box<Node>),
    Map(Box<Node>, Box<Node>),
    /// Each field's key as JSON with its colon, its place, and how its values are written; sorted by name.
    Struct(Vec<(String, usize, Node)>),
    Dictionary(Box<Node>),
}

/// Why a value cannot be written.
#[derive(Debug)]
pub(super) enum Fail {
    /// The array is not of the type that the field says.
    Array,
    /// The value has no text form.
    Value(&'static str),
}

impl Fail {
    pub(super) fn of(self, column: &str) -> Error {
        match self {
            Self::Array => Error::Malformed(format!("column {column:?} is not of the type that its schema says")),
            Self::Value(what) => Error::Unstorable { column: column.to_owned(), what },
        }
    }
}

impl Formatter {
    /// A writer for a column.
    ///
    /// # Errors
    /// [`Error::UnsupportedType`] for unions and run-end encoded types, and whatever has them inside.
    pub fn new(field: &Field) -> Result<Self, Error> {
        let node = node(field)
            .ok_or_else(|| Error::UnsupportedType { column: field.name().clone(), type_name: type_name(field) })?;
        Ok(Self { column: field.name().clone(), node })
    }

    /// Appends the text form of a row's value; says whether there is one, which NULL has not.
    ///
    /// # Errors
    /// [`Error::Malformed`] where the array is of another type, [`Error::Unstorable`] where a value has no text form.
    pub fn write(&self, array: &dyn Array, row: usize, out: &mut String) -> Result<bool, Error> {
        self.node.write(array, row, out).map_err(|fail| fail.of(&self.column))
    }
}

fn node(field: &Field) -> Option<Node> {
    if let Some(extension) = extension_of(field) {
        return Some(Node::Extension(extension, field.data_type().clone()));
    }
    Some(match field.data_type() {
        DataType::Null => Node::Null,
        DataType::List(item)
        | DataType::LargeList(item)
        | DataType::FixedSizeList(item, _)
        | DataType::ListView(item)
        | DataType::LargeListView(item) => Node::List(Box::new(node(item)?)),
        DataType::Struct(fields) => {
            let mut children = Vec::with_capacity(fields.len());
            for (at, field) in fields.iter().enumerate() {
                children.push((field.name().as_str(), at, node(field)?));
            }
            children.sort_by_key(|(name, _, _)| *name);
            Node::Struct(children.into_iter().map(|(name, at, node)| (json_key(name), at, node)).collect())
        }
        DataType::Map(entries, _) => {
            let DataType::Struct(fields) = entries.data_type() else { return None };
            let [key, value] = fields.as_ref() else { return None };
            Node::Map(Box::new(node(key)?), Box::new(node(value)?))
        }
        DataType::Dictionary(_, values) => {
            Node::Dictionary(Box::new(node(&Field::new("", values.as_ref().clone(), true))?))
        }
        DataType::Union(..) | DataType::RunEndEncoded(..) => return None,
        scalar => Node::Scalar(scalar.clone()),
    })
}

fn json_key(name: &str) -> String {
    let mut key = String::new();
    json::write_string(&mut key, name);
    key.push(':');
    key
}

impl Node {
    /// Writes a value as it stands alone, unless it is NULL.
    fn write(&self, array: &dyn Array, row: usize, out: &mut String) -> Result<bool, Fail> {
        if array.is_null(row) {
            return Ok(false);
        }
        match self {
            Self::Null => return Ok(false),
            Self::Scalar(data_type) => scalar::write(data_type, array, row, out)?,
            Self::Extension(extension, data_type) => {
                let bytes = binary_at(data_type, array, row)?;
                scalar::write_extension(*extension, bytes, out)?;
            }
            Self::Dictionary(values) => {
                let (array, row) = dictionary_at(array, row)?;
                return values.write(array, row, out);
            }
            Self::List(_) | Self::Map(..) | Self::Struct(_) => self.write_json(array, row, out)?,
        }
        Ok(true)
    }

    /// Writes a value as JSON.
    fn write_json(&self, array: &dyn Array, row: usize, out: &mut String) -> Result<(), Fail> {
        if array.is_null(row) {
            out.push_str("null");
            return Ok(());
        }
        match self {
            Self::Null => out.push_str("null"),
            Self::Scalar(data_type) => scalar::write_json(data_type, array, row, out)?,
            Self::Extension(extension, data_type) => {
                let bytes = binary_at(data_type, array, row)?;
                scalar::write_extension_json(*extension, bytes, out)?;
            }
            Self::Dictionary(values) => {
                let (array, row) = dictionary_at(array, row)?;
                values.write_json(array, row, out)?;
            }
            Self::List(item) => {
                let (values, range) = list_at(array, row)?;
                write_all(out, ('[', ']'), range, |at, out| item.write_json(values, at, out))?;
            }
            Self::Map(key, value) => {
                let map = array.as_map_opt().ok_or(Fail::Array)?;
                let offsets = map.value_offsets();
                let range = index(offsets[row])?..index(offsets[row + 1])?;
                write_all(out, ('[', ']'), range, |at, out| {
                    out.push_str("{\"key\":");
                    key.write_json(map.keys(), at, out)?;
                    out.push_str(",\"value\":");
                    value.write_json(map.values(), at, out)?;
                    out.push('}');
                    Ok(())
                })?;
            }
            Self::Struct(children) => {
                let array = array.as_struct_opt().ok_or(Fail::Array)?;
                write_all(out, ('{', '}'), 0..children.len(), |at, out| {
                    let (key, column, node) = &children[at];
                    out.push_str(key);
                    node.write_json(array.columns().get(*column).ok_or(Fail::Array)?, row, out)
                })?;
            }
        }
        Ok(())
    }
}

/// Writes items with commas between them, in these brackets.
fn write_all(
    out: &mut String,
    (open, close): (char, char),
    range: Range<usize>,
    mut write: impl FnMut(usize, &mut String) -> Result<(), Fail>,
) -> Result<(), Fail> {
    out.push(open);
    let first = range.start;
    for at in range {
        if at > first {
            out.push(',');
        }
        write(at, out)?;
        if out.len() > MESSAGE_BYTES_MAX {
            return Err(Fail::Value("its text form is longer than a message may be, 200 MiB"));
        }
    }
    out.push(close);
    Ok(())
}

fn index(offset: impl TryInto<usize>) -> Result<usize, Fail> {
    offset.try_into().map_err(|_| Fail::Array)
}

/// The items of a list of any kind, and which of them are a row's.
fn list_at(array: &dyn Array, row: usize) -> Result<(&ArrayRef, Range<usize>), Fail> {
    if let Some(list) = array.as_list_opt::<i32>() {
        return Ok((list.values(), index(list.value_offsets()[row])?..index(list.value_offsets()[row + 1])?));
    }
    if let Some(list) = array.as_list_opt::<i64>() {
        return Ok((list.values(), index(list.value_offsets()[row])?..index(list.value_offsets()[row + 1])?));
    }
    if let Some(list) = array.as_fixed_size_list_opt() {
        let (start, length) = (index(list.value_offset_at(row))?, index(list.value_length())?);
        return Ok((list.values(), start..start + length));
    }
    if let Some(list) = array.as_list_view_opt::<i32>() {
        let (start, length) = (index(list.value_offset(row))?, index(list.value_size(row))?);
        return Ok((list.values(), start..start + length));
    }
    let list = array.as_list_view_opt::<i64>().ok_or(Fail::Array)?;
    let (start, length) = (index(list.value_offset(row))?, index(list.value_size(row))?);
    Ok((list.values(), start..start + length))
}

/// The values of a dictionary, and which of them is a row's, whose key is not NULL.
pub(super) fn dictionary_at(array: &dyn Array, row: usize) -> Result<(&dyn Array, usize), Fail> {
    let found = keyed::<Int32Type>(array, row)
        .or_else(|| keyed::<Int8Type>(array, row))
        .or_else(|| keyed::<Int16Type>(array, row))
        .or_else(|| keyed::<Int64Type>(array, row))
        .or_else(|| keyed::<UInt8Type>(array, row))
        .or_else(|| keyed::<UInt16Type>(array, row))
        .or_else(|| keyed::<UInt32Type>(array, row))
        .or_else(|| keyed::<UInt64Type>(array, row));
    found.ok_or(Fail::Array)
}

fn keyed<K: ArrowDictionaryKeyType>(array: &dyn Array, row: usize) -> Option<(&dyn Array, usize)> {
    let dictionary = array.as_dictionary_opt::<K>()?;
    Some((dictionary.values().as_ref(), dictionary.key(row)?))
}

/// The bytes of a value of any binary type.
pub(super) fn binary_at<'a>(data_type: &DataType, array: &'a dyn Array, row: usize) -> Result<&'a [u8], Fail> {
    let bytes = match data_type {
        DataType::Binary => array.as_binary_opt::<i32>().map(|array| array.value(row)),
        DataType::LargeBinary => array.as_binary_opt::<i64>().map(|array| array.value(row)),
        DataType::BinaryView => array.as_binary_view_opt().map(|array| array.value(row)),
        _ => array.as_fixed_size_binary_opt().map(|array| array.value(row)),
    };
    bytes.ok_or(Fail::Array)
}

/// The text of a value of any text type.
pub(super) fn string_at<'a>(data_type: &DataType, array: &'a dyn Array, row: usize) -> Result<&'a str, Fail> {
    let text = match data_type {
        DataType::Utf8 => array.as_string_opt::<i32>().map(|array| array.value(row)),
        DataType::LargeUtf8 => array.as_string_opt::<i64>().map(|array| array.value(row)),
        _ => array.as_string_view_opt().map(|array| array.value(row)),
    };
    text.ok_or(Fail::Array)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{BinaryArray, ListArray, ListViewArray};
    use arrow::buffer::OffsetBuffer;

    use super::*;

    /// Lists that all show the same 16 MiB: a message is quick to say what takes long to write.
    #[test]
    fn a_text_that_no_message_could_bring_back_is_refused() {
        let lists = |count: usize| {
            let item = |data_type| Arc::new(Field::new("item", data_type, true));
            let bytes: ArrayRef = Arc::new(BinaryArray::from_iter_values([vec![0; 16 << 20]]));
            let (starts, sizes) = (vec![0; count], vec![1; count]);
            let views = ListViewArray::new(item(DataType::Binary), starts.into(), sizes.into(), bytes, None);
            let offsets = OffsetBuffer::from_lengths([count]);
            ListArray::new(item(views.data_type().clone()), offsets, Arc::new(views), None)
        };
        let written = |count| {
            let array = lists(count);
            text(&array, &Field::new("c", array.data_type().clone(), true), 0)
        };
        assert!(written(2).expect("43 MiB").len() > 40 << 20);
        let why = written(10).expect_err("213 MiB").to_string();
        assert!(why.contains("\"c\"") && why.contains("longer than a message"), "{why}");
    }
}
