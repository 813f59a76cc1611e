//! The text form of values that hold no others.

use std::fmt::{Display, Write as _};
use std::net::IpAddr;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Date32Type, Date64Type, Decimal32Type, Decimal64Type, Decimal128Type, Decimal256Type,
    DurationMicrosecondType, DurationMillisecondType, DurationNanosecondType, DurationSecondType, Float16Type,
    Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, IntervalDayTimeType, IntervalMonthDayNanoType,
    IntervalUnit, IntervalYearMonthType, Time32MillisecondType, Time32SecondType, Time64MicrosecondType,
    Time64NanosecondType, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType,
    TimestampSecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use uuid::Uuid;

use super::float::Float;
use super::{Fail, binary_at, json, string_at};
use crate::cloudquery::Extension;
use crate::cloudquery::civil::{self, DAY_SECONDS};
use crate::cloudquery::types::unit_name;

const DAY_MS: i64 = DAY_SECONDS * 1000;

/// Writes a value that is not NULL as it stands alone.
pub(super) fn write(data_type: &DataType, array: &dyn Array, row: usize, out: &mut String) -> Result<(), Fail> {
    match data_type {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => out.push_str(string_at(data_type, array, row)?),
        DataType::Float16 | DataType::Float32 | DataType::Float64 => float_at(data_type, array, row)?.write(out),
        DataType::Interval(IntervalUnit::YearMonth) => {
            show(out, at::<IntervalYearMonthType>(array, row)?);
        }
        data_type => write_plain(data_type, array, row, out)?,
    }
    Ok(())
}

/// Writes a value that is not NULL as JSON.
pub(super) fn write_json(data_type: &DataType, array: &dyn Array, row: usize, out: &mut String) -> Result<(), Fail> {
    match data_type {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => {
            json::write_string(out, string_at(data_type, array, row)?);
        }
        DataType::Float16 | DataType::Float32 | DataType::Float64 => float_at(data_type, array, row)?.write_json(out),
        DataType::Interval(IntervalUnit::YearMonth) => {
            show(out, format_args!("{{\"months\":{}}}", at::<IntervalYearMonthType>(array, row)?));
        }
        DataType::Boolean | DataType::Interval(_) => write_plain(data_type, array, row, out)?,
        data_type if data_type.is_integer() => write_plain(data_type, array, row, out)?,
        data_type => {
            // None of these forms has a character that JSON escapes.
            out.push('"');
            write_plain(data_type, array, row, out)?;
            out.push('"');
        }
    }
    Ok(())
}

/// The forms that are the same alone and in JSON, but for quotes.
fn write_plain(data_type: &DataType, array: &dyn Array, row: usize, out: &mut String) -> Result<(), Fail> {
    match data_type {
        DataType::Boolean => show(out, array.as_boolean_opt().ok_or(Fail::Array)?.value(row)),
        DataType::Int8 => show(out, at::<Int8Type>(array, row)?),
        DataType::Int16 => show(out, at::<Int16Type>(array, row)?),
        DataType::Int32 => show(out, at::<Int32Type>(array, row)?),
        DataType::Int64 => show(out, at::<Int64Type>(array, row)?),
        DataType::UInt8 => show(out, at::<UInt8Type>(array, row)?),
        DataType::UInt16 => show(out, at::<UInt16Type>(array, row)?),
        DataType::UInt32 => show(out, at::<UInt32Type>(array, row)?),
        DataType::UInt64 => show(out, at::<UInt64Type>(array, row)?),
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
            STANDARD.encode_string(binary_at(data_type, array, row)?, out);
        }
        DataType::Decimal32(_, scale) => decimal(out, at::<Decimal32Type>(array, row)?, *scale),
        DataType::Decimal64(_, scale) => decimal(out, at::<Decimal64Type>(array, row)?, *scale),
        DataType::Decimal128(_, scale) => decimal(out, at::<Decimal128Type>(array, row)?, *scale),
        DataType::Decimal256(_, scale) => decimal(out, at::<Decimal256Type>(array, row)?, *scale),
        DataType::Interval(IntervalUnit::DayTime) => {
            let value = at::<IntervalDayTimeType>(array, row)?;
            show(out, format_args!("{{\"days\":{},\"milliseconds\":{}}}", value.days, value.milliseconds));
        }
        DataType::Interval(IntervalUnit::MonthDayNano) => {
            let value = at::<IntervalMonthDayNanoType>(array, row)?;
            let (months, days, nanos) = (value.months, value.days, value.nanoseconds);
            show(out, format_args!("{{\"months\":{months},\"days\":{days},\"nanoseconds\":{nanos}}}"));
        }
        data_type => write_temporal(data_type, array, row, out)?,
    }
    Ok(())
}

fn write_temporal(data_type: &DataType, array: &dyn Array, row: usize, out: &mut String) -> Result<(), Fail> {
    match data_type {
        DataType::Date32 => civil::write_date(out, i64::from(at::<Date32Type>(array, row)?)),
        DataType::Date64 => date64(out, at::<Date64Type>(array, row)?),
        DataType::Time32(unit) => {
            let value = match unit {
                TimeUnit::Second => at::<Time32SecondType>(array, row)?,
                _ => at::<Time32MillisecondType>(array, row)?,
            };
            civil::write_time(out, i64::from(value), *unit);
        }
        DataType::Time64(unit) => {
            let value = match unit {
                TimeUnit::Microsecond => at::<Time64MicrosecondType>(array, row)?,
                _ => at::<Time64NanosecondType>(array, row)?,
            };
            civil::write_time(out, value, *unit);
        }
        DataType::Timestamp(unit, zone) => {
            let value = match unit {
                TimeUnit::Second => at::<TimestampSecondType>(array, row)?,
                TimeUnit::Millisecond => at::<TimestampMillisecondType>(array, row)?,
                TimeUnit::Microsecond => at::<TimestampMicrosecondType>(array, row)?,
                TimeUnit::Nanosecond => at::<TimestampNanosecondType>(array, row)?,
            };
            civil::write_timestamp(out, value, *unit, zone.as_deref().map_or(0, civil::zone_seconds));
        }
        DataType::Duration(unit) => {
            let value = match unit {
                TimeUnit::Second => at::<DurationSecondType>(array, row)?,
                TimeUnit::Millisecond => at::<DurationMillisecondType>(array, row)?,
                TimeUnit::Microsecond => at::<DurationMicrosecondType>(array, row)?,
                TimeUnit::Nanosecond => at::<DurationNanosecondType>(array, row)?,
            };
            show(out, format_args!("{value}{}", unit_name(*unit)));
        }
        _ => return Err(Fail::Array),
    }
    Ok(())
}

/// The value of a row of a primitive array.
fn at<T: ArrowPrimitiveType>(array: &dyn Array, row: usize) -> Result<T::Native, Fail> {
    Ok(array.as_primitive_opt::<T>().ok_or(Fail::Array)?.value(row))
}

fn show(out: &mut String, value: impl Display) {
    // Writing to a String cannot fail.
    let _ = write!(out, "{value}");
}

fn float_at(data_type: &DataType, array: &dyn Array, row: usize) -> Result<Float, Fail> {
    Ok(match data_type {
        DataType::Float16 => Float::Single(at::<Float16Type>(array, row)?.to_f32()),
        DataType::Float32 => Float::Single(at::<Float32Type>(array, row)?),
        _ => Float::Double(at::<Float64Type>(array, row)?),
    })
}

/// A date64 is a day; one that is within a day has its time, so that nothing is lost.
fn date64(out: &mut String, value: i64) {
    if value.rem_euclid(DAY_MS) == 0 {
        civil::write_date(out, value.div_euclid(DAY_MS));
    } else {
        civil::write_timestamp(out, value, TimeUnit::Millisecond, 0);
    }
}

/// A decimal without zeros at its end.
fn decimal(out: &mut String, unscaled: impl Display, scale: i8) {
    let unscaled = unscaled.to_string();
    let (sign, digits) = match unscaled.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", unscaled.as_str()),
    };
    if digits == "0" {
        out.push('0');
        return;
    }
    out.push_str(sign);
    let places = usize::from(scale.unsigned_abs());
    if scale <= 0 {
        out.push_str(digits);
        out.extend(std::iter::repeat_n('0', places));
        return;
    }
    let padded = format!("{digits:0>width$}", width = places + 1);
    let (whole, fraction) = padded.split_at(padded.len() - places);
    out.push_str(whole);
    let fraction = fraction.trim_end_matches('0');
    if !fraction.is_empty() {
        show(out, format_args!(".{fraction}"));
    }
}

/// Writes the value of an extension type as it stands alone.
pub(super) fn write_extension(extension: Extension, bytes: &[u8], out: &mut String) -> Result<(), Fail> {
    match extension {
        Extension::Uuid => show(out, Uuid::from_slice(bytes).map_err(|_| Fail::Array)?),
        Extension::Mac => mac(out, bytes),
        Extension::Json => out.push_str(utf8(bytes)?),
        Extension::Inet => inet(out, utf8(bytes)?),
    }
    Ok(())
}

/// Writes the value of an extension type as JSON. Addresses are as the sender wrote them, so that they read back so.
pub(super) fn write_extension_json(extension: Extension, bytes: &[u8], out: &mut String) -> Result<(), Fail> {
    match extension {
        Extension::Json => json::write_value(out, bytes),
        Extension::Inet => json::write_string(out, utf8(bytes)?),
        Extension::Uuid | Extension::Mac => {
            out.push('"');
            write_extension(extension, bytes, out)?;
            out.push('"');
        }
    }
    Ok(())
}

fn utf8(bytes: &[u8]) -> Result<&str, Fail> {
    std::str::from_utf8(bytes).map_err(|_| Fail::Value("its bytes are not UTF-8"))
}

/// Bytes as hexadecimal with colons.
fn mac(out: &mut String, bytes: &[u8]) {
    for (at, byte) in bytes.iter().enumerate() {
        let colon = if at > 0 { ":" } else { "" };
        show(out, format_args!("{colon}{byte:02x}"));
    }
}

/// An address and its prefix in the one form that they have; what is none, as it is.
fn inet(out: &mut String, text: &str) {
    let parsed = text.split_once('/').and_then(|(address, prefix)| {
        Some((address.parse::<IpAddr>().ok()?.to_canonical(), prefix.parse::<u8>().ok()?))
    });
    match parsed {
        _ if text.is_empty() => out.push_str("0.0.0.0/0"),
        Some((address, prefix)) => show(out, format_args!("{address}/{prefix}")),
        None => out.push_str(text),
    }
}
