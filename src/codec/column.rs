//! One column of a batch while it is collected: typed as long as its values are of one storage class, mixed from there.
//!
//! [`super::BatchBuilder`] feeds it and takes the array. The type codes, and what Arrow type each stands for, are here.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, Float64Array, Int8Array, Int16Array, Int32Array, Int64Array, NullArray, NullBufferBuilder,
    StringArray, UnionArray,
};
use arrow::buffer::{Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{DataType, Field, UnionFields, UnionMode};
use arrow::error::ArrowError;
use rusqlite::types::ValueRef;

/// What a column's values are: the type codes of `EncodedBatch::codes`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Code {
    /// Every value is NULL.
    Null = 0,
    Int8 = 1,
    Int16 = 2,
    Int32 = 3,
    Int64 = 4,
    Float64 = 5,
    /// Text that is valid UTF-8.
    Utf8 = 6,
    /// Text that is not.
    TextBytes = 7,
    Blob = 8,
    /// Values of several storage classes.
    Mixed = 9,
}

impl Code {
    /// The code that this byte is.
    pub(super) fn of(byte: u8) -> Option<Self> {
        Some(match byte {
            0 => Self::Null,
            1 => Self::Int8,
            2 => Self::Int16,
            3 => Self::Int32,
            4 => Self::Int64,
            5 => Self::Float64,
            6 => Self::Utf8,
            7 => Self::TextBytes,
            8 => Self::Blob,
            9 => Self::Mixed,
            _ => return None,
        })
    }

    /// The Arrow type that stands for it.
    pub(super) fn data_type(self) -> DataType {
        match self {
            Self::Null => DataType::Null,
            Self::Int8 => DataType::Int8,
            Self::Int16 => DataType::Int16,
            Self::Int32 => DataType::Int32,
            Self::Int64 => DataType::Int64,
            Self::Float64 => DataType::Float64,
            Self::Utf8 => DataType::Utf8,
            Self::TextBytes | Self::Blob => DataType::Binary,
            Self::Mixed => DataType::Union(mixed_fields(), UnionMode::Dense),
        }
    }
}

/// The type ids of a mixed column's children are the storage classes.
pub(super) const CLASS_NULL: i8 = 0;
pub(super) const CLASS_INTEGER: i8 = 1;
pub(super) const CLASS_REAL: i8 = 2;
pub(super) const CLASS_TEXT: i8 = 3;
pub(super) const CLASS_BLOB: i8 = 4;

fn mixed_fields() -> UnionFields {
    let child = |name: &str, data_type| Arc::new(Field::new(name, data_type, true));
    [
        (CLASS_NULL, child("null", DataType::Null)),
        (CLASS_INTEGER, child("integer", DataType::Int64)),
        (CLASS_REAL, child("real", DataType::Float64)),
        (CLASS_TEXT, child("text", DataType::Binary)),
        (CLASS_BLOB, child("blob", DataType::Binary)),
    ]
    .into_iter()
    .collect()
}

/// A column being collected.
pub(super) struct Column {
    cells: Cells,
    valid: NullBufferBuilder,
}

enum Cells {
    /// NULLs only.
    Nothing,
    Integers {
        values: Vec<i64>,
        min: i64,
        max: i64,
    },
    Reals(Vec<f64>),
    Texts(Strings),
    Blobs(Strings),
    Mixed(Mixed),
}

impl Column {
    pub(super) fn new() -> Self {
        Self { cells: Cells::Nothing, valid: NullBufferBuilder::new(0) }
    }

    /// Adds a value. The caller has seen to it that all bytes of a batch fit 31 bits.
    #[inline]
    pub(super) fn push(&mut self, value: ValueRef<'_>) {
        match (&mut self.cells, value) {
            (Cells::Integers { values, min, max }, ValueRef::Integer(integer)) => {
                values.push(integer);
                *min = integer.min(*min);
                *max = integer.max(*max);
            }
            (Cells::Reals(values), ValueRef::Real(real)) => values.push(real),
            (Cells::Texts(strings), ValueRef::Text(bytes)) | (Cells::Blobs(strings), ValueRef::Blob(bytes)) => {
                strings.push(bytes);
            }
            (Cells::Mixed(mixed), value) => return mixed.push(value),
            (_, ValueRef::Null) => return self.push_null(),
            (Cells::Nothing | Cells::Integers { .. } | Cells::Reals(_) | Cells::Texts(_) | Cells::Blobs(_), _) => {
                self.promote(value);
                return self.push(value);
            }
        }
        self.valid.append_non_null();
    }

    fn push_null(&mut self) {
        match &mut self.cells {
            Cells::Nothing => {}
            Cells::Integers { values, .. } => values.push(0),
            Cells::Reals(values) => values.push(0.0),
            Cells::Texts(strings) | Cells::Blobs(strings) => strings.push(&[]),
            Cells::Mixed(mixed) => return mixed.push(ValueRef::Null),
        }
        self.valid.append_null();
    }

    /// Makes room for a value of a class that the column does not have yet.
    fn promote(&mut self, value: ValueRef<'_>) {
        if !matches!(self.cells, Cells::Nothing) {
            let mut mixed = Mixed::new();
            for row in 0..self.valid.len() {
                mixed.push(self.value(row));
            }
            self.valid = NullBufferBuilder::new(0);
            self.cells = Cells::Mixed(mixed);
            return;
        }
        let nulls = self.valid.len();
        self.cells = match value {
            ValueRef::Null => Cells::Nothing,
            ValueRef::Integer(integer) => Cells::Integers { values: vec![0; nulls], min: integer, max: integer },
            ValueRef::Real(_) => Cells::Reals(vec![0.0; nulls]),
            ValueRef::Text(_) => Cells::Texts(Strings::of_empty(nulls)),
            ValueRef::Blob(_) => Cells::Blobs(Strings::of_empty(nulls)),
        };
    }

    /// The value at that row, of a column that is not mixed.
    fn value(&self, row: usize) -> ValueRef<'_> {
        if !self.valid.is_valid(row) {
            return ValueRef::Null;
        }
        match &self.cells {
            Cells::Nothing | Cells::Mixed(_) => ValueRef::Null,
            Cells::Integers { values, .. } => ValueRef::Integer(values[row]),
            Cells::Reals(values) => ValueRef::Real(values[row]),
            Cells::Texts(strings) => ValueRef::Text(strings.value(row)),
            Cells::Blobs(strings) => ValueRef::Blob(strings.value(row)),
        }
    }

    /// The array of what was collected, and its code. The column is empty afterwards.
    pub(super) fn finish(&mut self) -> Result<(Code, ArrayRef), ArrowError> {
        let rows = self.valid.len();
        let nulls = self.valid.finish();
        Ok(match std::mem::replace(&mut self.cells, Cells::Nothing) {
            Cells::Nothing => (Code::Null, Arc::new(NullArray::new(rows))),
            Cells::Integers { values, min, max } => narrowest(values, min, max, nulls),
            Cells::Reals(values) => (Code::Float64, Arc::new(Float64Array::new(values.into(), nulls))),
            Cells::Texts(strings) => texts(strings, nulls)?,
            Cells::Blobs(strings) => (Code::Blob, Arc::new(strings.binary(nulls)?)),
            Cells::Mixed(mixed) => (Code::Mixed, mixed.finish()?),
        })
    }
}

#[expect(clippy::cast_possible_truncation, reason = "between min and max, which were looked at")]
fn narrowest(values: Vec<i64>, min: i64, max: i64, nulls: Option<NullBuffer>) -> (Code, ArrayRef) {
    // NULLs stand as 0, which is in every range.
    let within = |low: i64, high: i64| low <= min && max <= high;
    if within(i8::MIN.into(), i8::MAX.into()) {
        let narrow: ScalarBuffer<i8> = values.iter().map(|value| *value as i8).collect();
        (Code::Int8, Arc::new(Int8Array::new(narrow, nulls)))
    } else if within(i16::MIN.into(), i16::MAX.into()) {
        let narrow: ScalarBuffer<i16> = values.iter().map(|value| *value as i16).collect();
        (Code::Int16, Arc::new(Int16Array::new(narrow, nulls)))
    } else if within(i32::MIN.into(), i32::MAX.into()) {
        let narrow: ScalarBuffer<i32> = values.iter().map(|value| *value as i32).collect();
        (Code::Int32, Arc::new(Int32Array::new(narrow, nulls)))
    } else {
        (Code::Int64, Arc::new(Int64Array::new(values.into(), nulls)))
    }
}

fn texts(strings: Strings, nulls: Option<NullBuffer>) -> Result<(Code, ArrayRef), ArrowError> {
    let (offsets, bytes) = strings.buffers();
    // Arrow checks the bytes once as a whole and then that no value ends within a character.
    match StringArray::try_new(offsets.clone(), bytes.clone(), nulls.clone()) {
        Ok(array) => Ok((Code::Utf8, Arc::new(array))),
        Err(_) => Ok((Code::TextBytes, Arc::new(BinaryArray::try_new(offsets, bytes, nulls)?))),
    }
}

/// Byte strings, end to end.
struct Strings {
    bytes: Vec<u8>,
    offsets: Vec<i32>,
}

impl Strings {
    fn of_empty(count: usize) -> Self {
        Self { bytes: Vec::new(), offsets: vec![0; count + 1] }
    }

    #[inline]
    fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        self.offsets.push(i32::try_from(self.bytes.len()).expect("a batch is below 2^31 bytes: BATCH_BYTES_MAX"));
    }

    #[expect(clippy::cast_sign_loss, reason = "offsets are lengths")]
    fn value(&self, index: usize) -> &[u8] {
        &self.bytes[self.offsets[index] as usize..self.offsets[index + 1] as usize]
    }

    fn len(&self) -> usize {
        self.offsets.len() - 1
    }

    fn buffers(self) -> (OffsetBuffer<i32>, Buffer) {
        (OffsetBuffer::new(self.offsets.into()), Buffer::from_vec(self.bytes))
    }

    fn binary(self, nulls: Option<NullBuffer>) -> Result<BinaryArray, ArrowError> {
        let (offsets, bytes) = self.buffers();
        BinaryArray::try_new(offsets, bytes, nulls)
    }
}

/// Values of several storage classes, one child a class.
struct Mixed {
    classes: Vec<i8>,
    places: Vec<i32>,
    nulls: usize,
    integers: Vec<i64>,
    reals: Vec<f64>,
    texts: Strings,
    blobs: Strings,
}

impl Mixed {
    fn new() -> Self {
        Self {
            classes: Vec::new(),
            places: Vec::new(),
            nulls: 0,
            integers: Vec::new(),
            reals: Vec::new(),
            texts: Strings::of_empty(0),
            blobs: Strings::of_empty(0),
        }
    }

    fn push(&mut self, value: ValueRef<'_>) {
        let (class, place) = match value {
            ValueRef::Null => {
                // One NULL serves all.
                self.nulls = 1;
                (CLASS_NULL, 0)
            }
            ValueRef::Integer(integer) => {
                self.integers.push(integer);
                (CLASS_INTEGER, self.integers.len() - 1)
            }
            ValueRef::Real(real) => {
                self.reals.push(real);
                (CLASS_REAL, self.reals.len() - 1)
            }
            ValueRef::Text(bytes) => {
                self.texts.push(bytes);
                (CLASS_TEXT, self.texts.len() - 1)
            }
            ValueRef::Blob(bytes) => {
                self.blobs.push(bytes);
                (CLASS_BLOB, self.blobs.len() - 1)
            }
        };
        self.classes.push(class);
        self.places.push(i32::try_from(place).expect("a batch is below 2^31 rows: BATCH_ROWS_MAX"));
    }

    fn finish(self) -> Result<ArrayRef, ArrowError> {
        let children: Vec<ArrayRef> = vec![
            Arc::new(NullArray::new(self.nulls)),
            Arc::new(Int64Array::new(self.integers.into(), None)),
            Arc::new(Float64Array::new(self.reals.into(), None)),
            Arc::new(self.texts.binary(None)?),
            Arc::new(self.blobs.binary(None)?),
        ];
        let union = UnionArray::try_new(mixed_fields(), self.classes.into(), Some(self.places.into()), children)?;
        Ok(Arc::new(union))
    }
}
