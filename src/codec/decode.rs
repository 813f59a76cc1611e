//! Batches into cells.
//!
//! The apply stage reads what a peer sent. Everything that Arrow's reader would take on trust (where buffers lie, how
//! long they are when unpacked, how many rows there are) is checked first, so that no bytes make it panic or allocate
//! more than [`BATCH_BYTES_MAX`] allows for.

use std::collections::HashMap;

use arrow::array::{
    Array, ArrayRef, BinaryArray, Float64Array, Int8Array, Int16Array, Int32Array, Int64Array, RecordBatch,
    StringArray, UnionArray,
};
use arrow::buffer::{Buffer, NullBuffer, ScalarBuffer};
use arrow::ipc::reader::read_record_batch;
use arrow::ipc::{MessageHeader, MetadataVersion, root_as_message};
use rusqlite::types::ValueRef;

use super::batch::schema_of;
use super::column::{CLASS_BLOB, CLASS_INTEGER, CLASS_REAL, CLASS_TEXT, Code};
use super::{BATCH_BYTES_MAX, BATCH_ROWS_MAX, Error};
use crate::model::EncodedBatch;

/// How Arrow's buffers are aligned within a batch, at the least: what its reader of unions takes for granted.
const ALIGNMENT: usize = 8;

/// A batch that can be read cell by cell.
pub struct DecodedBatch {
    rows: usize,
    columns: Vec<Column>,
}

struct Column {
    nulls: Option<NullBuffer>,
    cells: Cells,
}

enum Cells {
    Null,
    Int8(Int8Array),
    Int16(Int16Array),
    Int32(Int32Array),
    Int64(Int64Array),
    Float64(Float64Array),
    Utf8(StringArray),
    TextBytes(BinaryArray),
    Blob(BinaryArray),
    Mixed(Box<Mixed>),
}

struct Mixed {
    classes: ScalarBuffer<i8>,
    places: ScalarBuffer<i32>,
    integers: Int64Array,
    reals: Float64Array,
    texts: BinaryArray,
    blobs: BinaryArray,
}

impl DecodedBatch {
    /// Checks and opens a batch of that many columns.
    ///
    /// # Errors
    /// [`Error::Malformed`] if it is not what it says.
    pub fn new(batch: &EncodedBatch, columns: usize) -> Result<Self, Error> {
        let codes = codes_of(batch, columns)?;
        let (header, body) = split(batch)?;
        let message = root_as_message(header).map_err(|error| malformed(&format!("its header: {error}")))?;
        let record = match (message.version(), message.header_type()) {
            (MetadataVersion::V5, MessageHeader::RecordBatch) => message.header_as_record_batch(),
            _ => None,
        };
        let record = record.ok_or_else(|| malformed("its header describes no record batch"))?;
        check(&record, &codes, batch.rows, body)?;
        let body = aligned(body);
        let version = message.version();
        let decoded = read_record_batch(&body, record, schema_of(&codes), &HashMap::new(), None, &version)?;
        if decoded.num_rows() != batch.rows {
            return Err(malformed("its columns are shorter than it says"));
        }
        Ok(Self { rows: batch.rows, columns: open(&decoded, &codes)? })
    }

    /// How many rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// How many columns.
    pub fn columns(&self) -> usize {
        self.columns.len()
    }

    /// One cell, borrowed from the batch.
    ///
    /// # Panics
    /// If there is no such column or row.
    #[inline]
    pub fn value(&self, column: usize, row: usize) -> ValueRef<'_> {
        let Column { nulls, cells } = &self.columns[column];
        if nulls.as_ref().is_some_and(|nulls| nulls.is_null(row)) {
            return ValueRef::Null;
        }
        match cells {
            Cells::Null => ValueRef::Null,
            Cells::Int8(array) => ValueRef::Integer(array.value(row).into()),
            Cells::Int16(array) => ValueRef::Integer(array.value(row).into()),
            Cells::Int32(array) => ValueRef::Integer(array.value(row).into()),
            Cells::Int64(array) => ValueRef::Integer(array.value(row)),
            Cells::Float64(array) => ValueRef::Real(array.value(row)),
            Cells::Utf8(array) => ValueRef::Text(array.value(row).as_bytes()),
            Cells::TextBytes(array) => ValueRef::Text(array.value(row)),
            Cells::Blob(array) => ValueRef::Blob(array.value(row)),
            Cells::Mixed(mixed) => mixed.value(row),
        }
    }
}

impl Mixed {
    #[expect(clippy::cast_sign_loss, reason = "Arrow checked that places are within their child")]
    fn value(&self, row: usize) -> ValueRef<'_> {
        let place = self.places[row] as usize;
        match self.classes[row] {
            CLASS_INTEGER => ValueRef::Integer(self.integers.value(place)),
            CLASS_REAL => ValueRef::Real(self.reals.value(place)),
            CLASS_TEXT => ValueRef::Text(self.texts.value(place)),
            CLASS_BLOB => ValueRef::Blob(self.blobs.value(place)),
            _ => ValueRef::Null,
        }
    }
}

fn malformed(why: &str) -> Error {
    Error::Malformed(why.to_owned())
}

fn codes_of(batch: &EncodedBatch, columns: usize) -> Result<Vec<Code>, Error> {
    if batch.codes.len() != columns {
        return Err(Error::Malformed(format!("it has {} columns, where {columns} belong", batch.codes.len())));
    }
    if batch.rows > BATCH_ROWS_MAX {
        return Err(malformed("it says to have more rows than a batch may"));
    }
    let code = |byte: &u8| Code::of(*byte).ok_or_else(|| Error::Malformed(format!("type code {byte} is unknown")));
    batch.codes.iter().map(code).collect()
}

/// The message header and the body.
fn split(batch: &EncodedBatch) -> Result<(&[u8], &[u8]), Error> {
    let short = || malformed("it ends within its header");
    let (length, rest) = batch.data.split_first_chunk::<4>().ok_or_else(short)?;
    let length = usize::try_from(u32::from_le_bytes(*length)).map_err(|_| short())?;
    rest.split_at_checked(length).ok_or_else(short)
}

/// The body where Arrow can read it in place; frames arrive at any address.
fn aligned(body: &[u8]) -> Buffer {
    // Arrow allocates on cache lines. One copy of the bytes costs less than the reader's copies of buffers one by one.
    Buffer::from_slice_ref(body)
}

/// Walks nodes and buffers as Arrow's reader will, and refuses what would make it panic.
fn check(record: &arrow::ipc::RecordBatch<'_>, codes: &[Code], rows: usize, body: &[u8]) -> Result<(), Error> {
    if usize::try_from(record.length()) != Ok(rows) {
        return Err(malformed("its header and its frame disagree on the rows"));
    }
    let nodes = record.nodes().ok_or_else(|| malformed("it has no nodes"))?;
    for node in nodes {
        let length = usize::try_from(node.length()).ok().filter(|length| *length <= rows);
        let length = length.ok_or_else(|| malformed("a column is longer than it"))?;
        if usize::try_from(node.null_count()).is_ok_and(|nulls| nulls <= length) {
            continue;
        }
        return Err(malformed("a column has more NULLs than values"));
    }
    let lengths = buffer_lengths(record, body)?;
    let mut rest = lengths.as_slice();
    for code in codes {
        let widths = buffer_widths(*code);
        let own = rest.split_off(..widths.len()).ok_or_else(|| malformed("it has too few buffers"))?;
        if own.iter().zip(widths).any(|(length, width)| length % width != 0) {
            return Err(malformed("a buffer ends within a value"));
        }
        // Of a mixed column the first two are its classes and places, one for each row.
        if *code == Code::Mixed && (own[0] < rows || own[1] < rows * 4) {
            return Err(malformed("a mixed column is shorter than it says"));
        }
    }
    if rest.is_empty() { Ok(()) } else { Err(malformed("it has too many buffers")) }
}

/// The buffers that a column of that code has, by the bytes of one element of each.
fn buffer_widths(code: Code) -> &'static [usize] {
    match code {
        Code::Null => &[],
        Code::Int8 => &[1, 1],
        Code::Int16 => &[1, 2],
        Code::Int32 => &[1, 4],
        Code::Int64 | Code::Float64 => &[1, 8],
        Code::Utf8 | Code::TextBytes | Code::Blob => &[1, 4, 1],
        Code::Mixed => &[1, 4, 1, 8, 1, 8, 1, 4, 1, 1, 4, 1],
    }
}

/// The length of each buffer once unpacked, having looked that all lie in the body and are not too much together.
fn buffer_lengths(record: &arrow::ipc::RecordBatch<'_>, body: &[u8]) -> Result<Vec<usize>, Error> {
    let packed = record.compression().is_some();
    let buffers = record.buffers().ok_or_else(|| malformed("it has no buffers"))?;
    // Offsets and validity come on top of the values, at most doubling them.
    let mut left = 2 * BATCH_BYTES_MAX;
    let mut lengths = Vec::with_capacity(buffers.len());
    for buffer in buffers {
        let outside = || malformed("a buffer lies outside of it");
        let start = usize::try_from(buffer.offset()).map_err(|_| outside())?;
        let length = usize::try_from(buffer.length()).map_err(|_| outside())?;
        let end = start.checked_add(length).ok_or_else(outside)?;
        let bytes = body.get(start..end).ok_or_else(outside)?;
        if start % ALIGNMENT != 0 {
            return Err(malformed("a buffer is not aligned"));
        }
        let length = if packed { unpacked_length(bytes)? } else { length };
        left = left.checked_sub(length).ok_or_else(|| malformed("it is too large once unpacked"))?;
        lengths.push(length);
    }
    Ok(lengths)
}

/// A packed buffer says its length in its first eight bytes; -1 there means that it is not packed after all.
fn unpacked_length(bytes: &[u8]) -> Result<usize, Error> {
    if bytes.is_empty() {
        return Ok(0);
    }
    let Some((length, content)) = bytes.split_first_chunk::<8>() else {
        return Err(malformed("a packed buffer ends within its length"));
    };
    match i64::from_le_bytes(*length) {
        -1 => Ok(content.len()),
        length => usize::try_from(length).map_err(|_| malformed("a packed buffer's length is negative")),
    }
}

fn open(batch: &RecordBatch, codes: &[Code]) -> Result<Vec<Column>, Error> {
    batch.columns().iter().zip(codes).map(|(array, code)| column(array, *code)).collect()
}

fn column(array: &ArrayRef, code: Code) -> Result<Column, Error> {
    let cells = match code {
        Code::Null => Cells::Null,
        Code::Int8 => Cells::Int8(typed(array)?),
        Code::Int16 => Cells::Int16(typed(array)?),
        Code::Int32 => Cells::Int32(typed(array)?),
        Code::Int64 => Cells::Int64(typed(array)?),
        Code::Float64 => Cells::Float64(typed(array)?),
        Code::Utf8 => Cells::Utf8(typed(array)?),
        Code::TextBytes => Cells::TextBytes(typed(array)?),
        Code::Blob => Cells::Blob(typed(array)?),
        Code::Mixed => {
            let union: UnionArray = typed(array)?;
            let places = union.offsets().ok_or_else(|| malformed("a mixed column has no places"))?.clone();
            return Ok(Column {
                nulls: None,
                cells: Cells::Mixed(Box::new(Mixed {
                    classes: union.type_ids().clone(),
                    places,
                    integers: typed(union.child(CLASS_INTEGER))?,
                    reals: typed(union.child(CLASS_REAL))?,
                    texts: typed(union.child(CLASS_TEXT))?,
                    blobs: typed(union.child(CLASS_BLOB))?,
                })),
            });
        }
    };
    Ok(Column { nulls: array.nulls().cloned(), cells })
}

fn typed<A: Array + Clone + 'static>(array: &ArrayRef) -> Result<A, Error> {
    array.as_any().downcast_ref::<A>().cloned().ok_or_else(|| malformed("a column is of another type than its code"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::codec::{BatchBuilder, Compression};
    use crate::model::Value;

    const COMPRESSIONS: [Compression; 3] = [Compression::None, Compression::Lz4, Compression::Zstd];

    fn borrowed(value: &Value) -> ValueRef<'_> {
        match value {
            Value::Null => ValueRef::Null,
            Value::Integer(integer) => ValueRef::Integer(*integer),
            Value::Real(real) => ValueRef::Real(*real),
            Value::Text(text) => ValueRef::Text(text),
            Value::Blob(blob) => ValueRef::Blob(blob),
        }
    }

    fn owned(value: ValueRef<'_>) -> Value {
        match value {
            ValueRef::Null => Value::Null,
            ValueRef::Integer(integer) => Value::Integer(integer),
            ValueRef::Real(real) => Value::Real(real),
            ValueRef::Text(text) => Value::Text(text.to_vec()),
            ValueRef::Blob(blob) => Value::Blob(blob.to_vec()),
        }
    }

    fn encode(rows: &[Vec<Value>], columns: usize, compression: Compression) -> EncodedBatch {
        let mut builder = BatchBuilder::new(columns);
        for value in rows.iter().flatten() {
            builder.push(borrowed(value));
        }
        assert_eq!(builder.rows(), rows.len());
        builder.finish(compression).expect("a batch")
    }

    fn decode(batch: &EncodedBatch, columns: usize) -> Result<Vec<Vec<Value>>, Error> {
        let decoded = DecodedBatch::new(batch, columns)?;
        let row = |row| (0..columns).map(|column| owned(decoded.value(column, row))).collect();
        Ok((0..decoded.rows()).map(row).collect())
    }

    fn round_trip(rows: &[Vec<Value>], columns: usize) {
        for compression in COMPRESSIONS {
            let batch = encode(rows, columns, compression);
            assert!(decode(&batch, columns).expect("own batch") == rows, "{compression:?}");
        }
    }

    fn column_of(values: &[Value]) -> Vec<Vec<Value>> {
        values.iter().map(|value| vec![value.clone()]).collect()
    }

    fn extremes() -> Vec<Value> {
        let integers = [0, 1, -1, 127, -128, 128, 32767, -32769, 1 << 31, i64::MAX, i64::MIN];
        let reals = [0.0, -0.0, 1.0, f64::INFINITY, f64::NEG_INFINITY, f64::MAX, f64::MIN_POSITIVE, 5e-324, -5e-324];
        let bytes: [&[u8]; 5] = [b"", b"a\0b", "grüße 🦀".as_bytes(), b"\xff\xfe", b"\xc3"];
        let mut values = vec![Value::Null];
        values.extend(integers.map(Value::Integer));
        values.extend(reals.map(Value::Real));
        values.extend(bytes.iter().map(|bytes| Value::Text(bytes.to_vec())));
        values.extend(bytes.iter().map(|bytes| Value::Blob(bytes.to_vec())));
        values
    }

    #[test]
    fn every_extreme_value_comes_back_bit_by_bit_in_a_column_of_its_own_and_among_others() {
        let all = extremes();
        round_trip(&column_of(&all), 1);
        for value in &all {
            round_trip(&column_of(std::slice::from_ref(value)), 1);
            round_trip(&column_of(&[Value::Null, value.clone(), Value::Null, Value::Null]), 1);
            round_trip(&column_of(&[value.clone(), Value::Null, value.clone()]), 1);
        }
        round_trip(&[all.clone(), all.iter().rev().cloned().collect()], all.len());
    }

    #[test]
    fn a_column_takes_the_narrowest_type_that_holds_it() {
        let code = |values: &[Value]| encode(&column_of(values), 1, Compression::None).codes[0];
        let integers = |values: &[i64]| values.iter().copied().map(Value::Integer).collect::<Vec<_>>();
        assert_eq!(code(&[Value::Null, Value::Null]), Code::Null as u8);
        assert_eq!(code(&integers(&[-128, 127])), Code::Int8 as u8);
        assert_eq!(code(&integers(&[-129])), Code::Int16 as u8);
        assert_eq!(code(&integers(&[40_000])), Code::Int32 as u8);
        assert_eq!(code(&integers(&[0, 1 << 40])), Code::Int64 as u8);
        assert_eq!(code(&[Value::Real(1.0)]), Code::Float64 as u8);
        assert_eq!(code(&[Value::text("ü")]), Code::Utf8 as u8);
        // Valid as a whole, but each value ends within the character.
        assert_eq!(code(&[Value::Text(vec![0xc3]), Value::Text(vec![0xbc])]), Code::TextBytes as u8);
        assert_eq!(code(&[Value::Blob(vec![1])]), Code::Blob as u8);
        assert_eq!(code(&[Value::Integer(1), Value::Real(1.0)]), Code::Mixed as u8);
    }

    #[test]
    fn a_builder_that_finished_starts_anew() {
        let mut builder = BatchBuilder::new(1);
        builder.push(ValueRef::Text(b"first"));
        assert_eq!((builder.rows(), builder.size_bytes()), (1, 9));
        let first = builder.finish(Compression::Zstd).expect("a batch");
        builder.push(ValueRef::Integer(7));
        let second = builder.finish(Compression::Zstd).expect("a batch");
        assert_eq!(decode(&first, 1).expect("own batch"), [[Value::text("first")]]);
        assert_eq!(decode(&second, 1).expect("own batch"), [[Value::Integer(7)]]);
        assert_eq!(decode(&builder.finish(Compression::None).expect("a batch"), 1).expect("own batch").len(), 0);
    }

    #[test]
    fn a_batch_of_another_shape_is_malformed() {
        let batch = encode(&column_of(&[Value::Integer(1), Value::text("x")]), 1, Compression::None);
        assert!(matches!(decode(&batch, 2), Err(Error::Malformed(_))));
        for (rows, codes) in
            [(1, vec![9]), (3, vec![9]), (usize::MAX, vec![9]), (2, vec![0]), (2, vec![6]), (2, vec![10])]
        {
            let other = EncodedBatch { rows, codes, data: batch.data.clone() };
            assert!(decode(&other, 1).is_err(), "{} rows, {:?}", other.rows, other.codes);
        }
        for length in 0..batch.data.len() {
            let _ = decode(&EncodedBatch { data: batch.data.slice(..length), ..batch.clone() }, 1);
        }
    }

    #[test]
    fn a_buffer_that_starts_at_an_odd_place_is_malformed() {
        // The places of a mixed column, which Arrow's reader would look at where they lie.
        let batch = encode(&column_of(&extremes()), 1, Compression::None);
        let header = usize::from(u16::from_le_bytes([batch.data[0], batch.data[1]]));
        let moved = |at: usize| {
            let mut data = batch.data.to_vec();
            data[at] ^= 1;
            EncodedBatch { data: data.into(), ..batch.clone() }
        };
        let refused = (4..4 + header).filter(|at| match DecodedBatch::new(&moved(*at), 1) {
            Err(Error::Malformed(why)) => why.contains("aligned"),
            Ok(_) | Err(_) => false,
        });
        assert!(refused.count() > 0);
    }

    fn any_value() -> impl Strategy<Value = Value> {
        prop_oneof![
            Just(Value::Null),
            any::<i64>().prop_map(Value::Integer),
            (-200_i64..200).prop_map(Value::Integer),
            any::<f64>().prop_map(Value::Real),
            ".{0,12}".prop_map(|text| Value::text(&text)),
            prop::collection::vec(any::<u8>(), 0..40).prop_map(Value::Text),
            prop::collection::vec(any::<u8>(), 0..200).prop_map(Value::Blob),
        ]
    }

    fn any_column() -> impl Strategy<Value = Vec<Value>> {
        // Columns of one class, of one class with NULLs, and of anything.
        (any_value(), prop::collection::vec(any_value(), 30), any::<bool>()).prop_map(|(like, values, mixed)| {
            let fits = |value: &Value| mixed || value.is_null() || value.class() == like.class();
            values.into_iter().map(|value| if fits(&value) { value } else { like.clone() }).collect()
        })
    }

    fn any_rows() -> impl Strategy<Value = Vec<Vec<Value>>> {
        (prop::collection::vec(any_column(), 1..6), 0_usize..=30).prop_map(|(columns, rows)| {
            (0..rows).map(|row| columns.iter().map(|column| column[row].clone()).collect()).collect()
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn whatever_goes_in_comes_out(rows in any_rows()) {
            let columns = rows.first().map_or(1, Vec::len);
            round_trip(&rows, columns);
        }

        #[test]
        fn flipped_bytes_are_an_error_or_other_values_but_never_a_panic(
            rows in any_rows(),
            flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
            cut in any::<Option<prop::sample::Index>>(),
        ) {
            let columns = rows.first().map_or(1, Vec::len);
            for compression in COMPRESSIONS {
                let mut batch = encode(&rows, columns, compression);
                let mut data = batch.data.to_vec();
                for (at, byte) in &flips {
                    let at = at.index(data.len());
                    data[at] = *byte;
                }
                if let Some(cut) = cut {
                    data.truncate(cut.index(data.len()));
                }
                batch.data = data.into();
                let _ = decode(&batch, columns);
            }
        }
    }
}
