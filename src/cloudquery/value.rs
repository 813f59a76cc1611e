//! Arrow values as SQLite stores them.
//!
//! As the official plugin stores them (integers as INTEGER, floats as REAL, truth values as 0 and 1, bytes as BLOB,
//! everything else in its text form, see [`super::text`]), but for what that loses:
//!
//! * A uint64 above 2⁶³ − 1 is a BLOB of its 20 decimal digits. INTEGER affinity leaves it alone, it sorts after every
//!   integer and among its like by value, and nothing is silently negative.
//! * NaN is the text `NaN`, which REAL affinity leaves alone; SQLite would make it NULL. Infinities are REAL.
//! * JSON and addresses whose bytes are no UTF-8 are BLOBs.
//!
//! SQLite keeps no sign of zero in a REAL column: −0.0 is read back as 0.0, which compares as equal.
//!
//! Who feeds it: the records of a Write. Who it feeds: the parameters of a prepared statement. A [`Converter`] is made
//! once a column, and text and bytes are borrowed from the array.

use arrow::array::{Array, AsArray};
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Field, Float16Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type,
    Int64Type, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use rusqlite::types::{ToSqlOutput, Value, ValueRef};

use super::text::{Fail, Formatter, binary_at, dictionary_at, string_at};
use super::types::extension_of;
use super::{Error, Extension};

/// Turns the values of one column into what SQLite stores.
#[derive(Debug)]
pub struct Converter {
    column: String,
    plan: Plan,
}

/// What becomes of a value, by its type.
#[derive(Debug)]
enum Plan {
    /// It is stored as it is.
    Direct(DataType),
    /// Bytes that are text.
    Text(DataType),
    /// It is stored in its text form.
    Format(Formatter),
    Dictionary(Box<Plan>),
}

/// What one value is stored as.
///
/// # Errors
/// As [`Converter::new`] and [`Converter::value`].
pub fn cell(array: &dyn Array, field: &Field, row: usize) -> Result<Value, Error> {
    Ok(match Converter::new(field)?.value(array, row)? {
        ToSqlOutput::Borrowed(value) => value
            .try_into()
            .map_err(|_| Error::Unstorable { column: field.name().clone(), what: "its text is not UTF-8" })?,
        ToSqlOutput::Owned(value) => value,
        _ => return Err(Fail::Array.of(field.name())),
    })
}

impl Converter {
    /// A converter for a column.
    ///
    /// # Errors
    /// [`Error::UnsupportedType`] for types that have no form in SQLite.
    pub fn new(field: &Field) -> Result<Self, Error> {
        Ok(Self { column: field.name().clone(), plan: plan(field)? })
    }

    /// What a row's value is stored as. `array` is of the field's type, and `row` is one of its rows.
    ///
    /// # Errors
    /// [`Error::Malformed`] where the array is of another type, [`Error::Unstorable`] where something would be lost.
    pub fn value<'a>(&self, array: &'a dyn Array, row: usize) -> Result<ToSqlOutput<'a>, Error> {
        self.plan.value(array, row, &self.column)
    }
}

fn plan(field: &Field) -> Result<Plan, Error> {
    let data_type = field.data_type();
    match extension_of(field) {
        Some(Extension::Json | Extension::Inet) => return Ok(Plan::Text(data_type.clone())),
        Some(Extension::Uuid | Extension::Mac) => return Ok(Plan::Format(Formatter::new(field)?)),
        None => {}
    }
    Ok(match data_type {
        DataType::Null | DataType::Boolean => Plan::Direct(data_type.clone()),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Plan::Direct(data_type.clone()),
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
            Plan::Direct(data_type.clone())
        }
        data_type if data_type.is_integer() || data_type.is_floating() => Plan::Direct(data_type.clone()),
        DataType::Dictionary(_, values) => {
            let values = Field::new(field.name(), values.as_ref().clone(), true);
            Plan::Dictionary(Box::new(plan(&values)?))
        }
        _ => Plan::Format(Formatter::new(field)?),
    })
}

impl Plan {
    fn value<'a>(&self, array: &'a dyn Array, row: usize, column: &str) -> Result<ToSqlOutput<'a>, Error> {
        if array.is_null(row) {
            return Ok(ToSqlOutput::Borrowed(ValueRef::Null));
        }
        match self {
            Self::Direct(data_type) => direct(data_type, array, row).map_err(|fail| fail.of(column)),
            Self::Text(data_type) => {
                let bytes = binary_at(data_type, array, row).map_err(|fail| fail.of(column))?;
                let is_text = std::str::from_utf8(bytes).is_ok();
                let value = if is_text { ValueRef::Text(bytes) } else { ValueRef::Blob(bytes) };
                Ok(ToSqlOutput::Borrowed(value))
            }
            Self::Format(formatter) => {
                let mut text = String::new();
                let value = if formatter.write(array, row, &mut text)? { Value::Text(text) } else { Value::Null };
                Ok(ToSqlOutput::Owned(value))
            }
            Self::Dictionary(values) => {
                let (array, row) = dictionary_at(array, row).map_err(|fail| fail.of(column))?;
                values.value(array, row, column)
            }
        }
    }
}

fn direct<'a>(data_type: &DataType, array: &'a dyn Array, row: usize) -> Result<ToSqlOutput<'a>, Fail> {
    let value = match data_type {
        DataType::Null => ValueRef::Null,
        DataType::Boolean => ValueRef::Integer(array.as_boolean_opt().ok_or(Fail::Array)?.value(row).into()),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => {
            ValueRef::Text(string_at(data_type, array, row)?.as_bytes())
        }
        DataType::Int8 => integer::<Int8Type>(array, row)?,
        DataType::Int16 => integer::<Int16Type>(array, row)?,
        DataType::Int32 => integer::<Int32Type>(array, row)?,
        DataType::Int64 => integer::<Int64Type>(array, row)?,
        DataType::UInt8 => integer::<UInt8Type>(array, row)?,
        DataType::UInt16 => integer::<UInt16Type>(array, row)?,
        DataType::UInt32 => integer::<UInt32Type>(array, row)?,
        DataType::UInt64 => {
            let value = at::<UInt64Type>(array, row)?;
            return Ok(match i64::try_from(value) {
                Ok(value) => ToSqlOutput::Borrowed(ValueRef::Integer(value)),
                Err(_) => ToSqlOutput::Owned(Value::Blob(format!("{value:020}").into_bytes())),
            });
        }
        DataType::Float16 => real(at::<Float16Type>(array, row)?.to_f64()),
        DataType::Float32 => real(f64::from(at::<Float32Type>(array, row)?)),
        DataType::Float64 => real(at::<Float64Type>(array, row)?),
        data_type => ValueRef::Blob(binary_at(data_type, array, row)?),
    };
    Ok(ToSqlOutput::Borrowed(value))
}

fn at<T: ArrowPrimitiveType>(array: &dyn Array, row: usize) -> Result<T::Native, Fail> {
    Ok(array.as_primitive_opt::<T>().ok_or(Fail::Array)?.value(row))
}

fn integer<T: ArrowPrimitiveType<Native: Into<i64>>>(array: &dyn Array, row: usize) -> Result<ValueRef<'_>, Fail> {
    Ok(ValueRef::Integer(at::<T>(array, row)?.into()))
}

fn real(value: f64) -> ValueRef<'static> {
    if value.is_nan() { ValueRef::Text(b"NaN") } else { ValueRef::Real(value) }
}
