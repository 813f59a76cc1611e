//! Numbers, truth values, and everything else of a fixed width.

use std::sync::Arc;

use arrow::array::{ArrayRef, ArrowPrimitiveType, BooleanBuilder, NullBuilder, PrimitiveBuilder};
use arrow::datatypes::{
    DataType, Date32Type, Date64Type, Decimal32Type, Decimal64Type, Decimal128Type, Decimal256Type,
    DurationMicrosecondType, DurationMillisecondType, DurationNanosecondType, DurationSecondType, Float16Type,
    Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, IntervalDayTime, IntervalDayTimeType,
    IntervalMonthDayNano, IntervalMonthDayNanoType, IntervalUnit, IntervalYearMonthType, Time32MillisecondType,
    Time32SecondType, Time64MicrosecondType, Time64NanosecondType, TimeUnit, TimestampMicrosecondType,
    TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType, UInt8Type, UInt16Type, UInt32Type,
    UInt64Type, i256,
};
use half::f16;

use super::json::Cursor;
use super::{Bad, Build, Scalar, time};

/// How a value of one type is read.
type Read<V> = Box<dyn Fn(&Scalar<'_>) -> Result<V, Bad> + Send>;

/// Values of one primitive type, and how one is read.
struct Primitive<T: ArrowPrimitiveType> {
    values: PrimitiveBuilder<T>,
    read: Read<T::Native>,
}

impl<T: ArrowPrimitiveType> Build for Primitive<T> {
    fn null(&mut self) {
        self.values.append_null();
    }

    fn scalar(&mut self, value: Scalar<'_>) -> Result<(), Bad> {
        self.values.append_value((self.read)(&value)?);
        Ok(())
    }

    fn json(&mut self, cursor: &mut Cursor<'_>) -> Result<(), Bad> {
        // An interval is the same object alone and in JSON.
        let value = match cursor.peek() {
            Some('{') => Scalar::Text(cursor.raw()?.into()),
            _ => cursor.scalar()?,
        };
        self.scalar(value)
    }

    fn finish(&mut self) -> Result<ArrayRef, Bad> {
        Ok(Arc::new(self.values.finish()))
    }
}

fn primitive<T: ArrowPrimitiveType>(
    data_type: &DataType,
    read: impl Fn(&Scalar<'_>) -> Result<T::Native, Bad> + Send + 'static,
) -> Option<Box<dyn Build>> {
    let values = PrimitiveBuilder::<T>::new().with_data_type(data_type.clone());
    Some(Box::new(Primitive { values, read: Box::new(read) }))
}

/// A builder for a type of a fixed width.
pub(super) fn build(data_type: &DataType) -> Option<Box<dyn Build>> {
    use DataType as T;
    match data_type {
        T::Null => Some(Box::new(NullBuilder::new())),
        T::Boolean => Some(Box::new(BooleanBuilder::new())),
        T::Int8 => primitive::<Int8Type>(data_type, integer),
        T::Int16 => primitive::<Int16Type>(data_type, integer),
        T::Int32 => primitive::<Int32Type>(data_type, integer),
        T::Int64 => primitive::<Int64Type>(data_type, integer),
        T::UInt8 => primitive::<UInt8Type>(data_type, integer),
        T::UInt16 => primitive::<UInt16Type>(data_type, integer),
        T::UInt32 => primitive::<UInt32Type>(data_type, integer),
        T::UInt64 => primitive::<UInt64Type>(data_type, |value| match value {
            // So the official plugin stores what is above 2⁶³ − 1.
            Scalar::Integer(value) => Ok(value.cast_unsigned()),
            value => integer(value),
        }),
        T::Float16 => primitive::<Float16Type>(data_type, |value| single(value).map(f16::from_f32)),
        T::Float32 => primitive::<Float32Type>(data_type, single),
        T::Float64 => primitive::<Float64Type>(data_type, double),
        T::Decimal32(_, scale) => decimal::<Decimal32Type>(data_type, *scale, |text| text.parse().ok()),
        T::Decimal64(_, scale) => decimal::<Decimal64Type>(data_type, *scale, |text| text.parse().ok()),
        T::Decimal128(_, scale) => decimal::<Decimal128Type>(data_type, *scale, |text| text.parse().ok()),
        T::Decimal256(_, scale) => decimal::<Decimal256Type>(data_type, *scale, i256::from_string),
        T::Interval(unit) => interval(data_type, *unit),
        data_type => temporal(data_type),
    }
}

fn temporal(data_type: &DataType) -> Option<Box<dyn Build>> {
    use DataType as T;
    match data_type {
        T::Date32 => primitive::<Date32Type>(data_type, |value| {
            let days = text(value).and_then(time::date).ok_or(NO_DATE)?;
            i32::try_from(days).map_err(|_| NO_DATE)
        }),
        T::Date64 => primitive::<Date64Type>(data_type, |value| {
            text(value).and_then(|text| time::timestamp(text, TimeUnit::Millisecond)).ok_or(NO_DATE)
        }),
        T::Time32(unit @ TimeUnit::Second) => primitive::<Time32SecondType>(data_type, time32(*unit)),
        T::Time32(unit @ TimeUnit::Millisecond) => primitive::<Time32MillisecondType>(data_type, time32(*unit)),
        T::Time64(unit @ TimeUnit::Microsecond) => {
            primitive::<Time64MicrosecondType>(data_type, counted(*unit, time::time, NO_TIME))
        }
        T::Time64(unit @ TimeUnit::Nanosecond) => {
            primitive::<Time64NanosecondType>(data_type, counted(*unit, time::time, NO_TIME))
        }
        T::Timestamp(unit, _) => {
            let read = counted(*unit, time::timestamp, "it is not a timestamp that the type can hold");
            match unit {
                TimeUnit::Second => primitive::<TimestampSecondType>(data_type, read),
                TimeUnit::Millisecond => primitive::<TimestampMillisecondType>(data_type, read),
                TimeUnit::Microsecond => primitive::<TimestampMicrosecondType>(data_type, read),
                TimeUnit::Nanosecond => primitive::<TimestampNanosecondType>(data_type, read),
            }
        }
        T::Duration(unit) => {
            let read = counted(*unit, time::duration, "it is not a duration that the type can hold");
            match unit {
                TimeUnit::Second => primitive::<DurationSecondType>(data_type, read),
                TimeUnit::Millisecond => primitive::<DurationMillisecondType>(data_type, read),
                TimeUnit::Microsecond => primitive::<DurationMicrosecondType>(data_type, read),
                TimeUnit::Nanosecond => primitive::<DurationNanosecondType>(data_type, read),
            }
        }
        _ => None,
    }
}

const NO_DATE: Bad = "it is not a date";
const NO_TIME: Bad = "it is not a time that the type can hold";
const NO_INTEGER: Bad = "it is not an integer, or one beyond what the type can hold";
const NO_FLOAT: Bad = "it is not a number";
const NO_DECIMAL: Bad = "it is not a decimal that the type can hold";
const NO_INTERVAL: Bad = "it is not an interval";

/// A text that was stored as one: neither bytes nor a bare number.
fn text<'a>(value: &'a Scalar<'_>) -> Option<&'a str> {
    match value {
        Scalar::Text(text) => Some(text),
        Scalar::Integer(_) | Scalar::Real(_) | Scalar::Number(_) | Scalar::Bool(_) | Scalar::Blob(_) => None,
    }
}

fn counted(
    unit: TimeUnit,
    parse: fn(&str, TimeUnit) -> Option<i64>,
    otherwise: Bad,
) -> impl Fn(&Scalar<'_>) -> Result<i64, Bad> {
    move |value| text(value).and_then(|text| parse(text, unit)).ok_or(otherwise)
}

fn time32(unit: TimeUnit) -> impl Fn(&Scalar<'_>) -> Result<i32, Bad> {
    let read = counted(unit, time::time, NO_TIME);
    move |value| i32::try_from(read(value)?).map_err(|_| NO_TIME)
}

fn integer<T: TryFrom<i128>>(value: &Scalar<'_>) -> Result<T, Bad> {
    let value: Option<i128> = match value {
        Scalar::Integer(value) => Some((*value).into()),
        Scalar::Real(value) => whole(*value),
        Scalar::Number(_) | Scalar::Text(_) | Scalar::Blob(_) => value.text().and_then(|text| text.parse().ok()),
        Scalar::Bool(_) => None,
    };
    value.and_then(|value| T::try_from(value).ok()).ok_or(NO_INTEGER)
}

/// A float as the integer that it is, where it is one.
fn whole(value: f64) -> Option<i128> {
    #[expect(clippy::cast_possible_truncation, reason = "it has no fraction, and is far from the ends of the type")]
    (value.fract() == 0.0 && value.abs() < 1e20).then_some(value as i128)
}

fn double(value: &Scalar<'_>) -> Result<f64, Bad> {
    match value {
        #[expect(clippy::cast_precision_loss, reason = "SQLite makes an integer of a float only where that is exact")]
        Scalar::Integer(value) => Ok(*value as f64),
        Scalar::Real(value) => Ok(*value),
        Scalar::Number(_) | Scalar::Text(_) => value.text().and_then(|text| text.parse().ok()).ok_or(NO_FLOAT),
        Scalar::Bool(_) | Scalar::Blob(_) => Err(NO_FLOAT),
    }
}

/// A float32. Text is read as one at once: over a float64 it would be rounded twice.
fn single(value: &Scalar<'_>) -> Result<f32, Bad> {
    match value {
        Scalar::Number(_) | Scalar::Text(_) => value.text().and_then(|text| text.parse().ok()).ok_or(NO_FLOAT),
        #[expect(clippy::cast_possible_truncation, reason = "what was stored as a float32 is one")]
        Scalar::Integer(_) | Scalar::Real(_) | Scalar::Bool(_) | Scalar::Blob(_) => Ok(double(value)? as f32),
    }
}

fn decimal<T: ArrowPrimitiveType>(
    data_type: &DataType,
    scale: i8,
    parse: fn(&str) -> Option<T::Native>,
) -> Option<Box<dyn Build>> {
    primitive::<T>(data_type, move |value| {
        let integer = match value {
            Scalar::Integer(value) => Some(value.to_string()),
            _ => None,
        };
        let text = integer.as_deref().or_else(|| value.text()).ok_or(NO_DECIMAL)?;
        unscaled(text, scale).and_then(|text| parse(&text)).ok_or(NO_DECIMAL)
    })
}

/// The digits of a decimal times 10 to the power of its scale, if it has no more places than that.
fn unscaled(text: &str, scale: i8) -> Option<String> {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", text),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let valid = |digits: &str| digits.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !valid(whole) || !valid(fraction) {
        return None;
    }
    let (fraction, places) = (fraction.trim_end_matches('0'), usize::from(scale.unsigned_abs()));
    if scale >= 0 {
        let missing = places.checked_sub(fraction.len())?;
        return Some(format!("{sign}{whole}{fraction}{}", "0".repeat(missing)));
    }
    let zeros = whole.len() - whole.trim_end_matches('0').len();
    if !fraction.is_empty() || (zeros < places && zeros < whole.len()) {
        return None;
    }
    let kept = &whole[..whole.len().saturating_sub(places)];
    Some(if kept.is_empty() { "0".to_owned() } else { format!("{sign}{kept}") })
}

fn interval(data_type: &DataType, unit: IntervalUnit) -> Option<Box<dyn Build>> {
    match unit {
        IntervalUnit::YearMonth => primitive::<IntervalYearMonthType>(data_type, |value| match text(value) {
            Some(text) if text.starts_with('{') => {
                let [months] = members(text, ["months"])?;
                i32::try_from(months).map_err(|_| NO_INTERVAL)
            }
            _ => integer(value),
        }),
        IntervalUnit::DayTime => primitive::<IntervalDayTimeType>(data_type, |value| {
            let [days, ms] = members(text(value).ok_or(NO_INTERVAL)?, ["days", "milliseconds"])?;
            let part = |part| i32::try_from(part).map_err(|_| NO_INTERVAL);
            Ok(IntervalDayTime::new(part(days)?, part(ms)?))
        }),
        IntervalUnit::MonthDayNano => primitive::<IntervalMonthDayNanoType>(data_type, |value| {
            let names = ["months", "days", "nanoseconds"];
            let [months, days, nanos] = members(text(value).ok_or(NO_INTERVAL)?, names)?;
            let part = |part| i32::try_from(part).map_err(|_| NO_INTERVAL);
            Ok(IntervalMonthDayNano::new(part(months)?, part(days)?, nanos))
        }),
    }
}

/// The integers of a JSON object by their names; 0 where one is missing.
fn members<const N: usize>(text: &str, names: [&str; N]) -> Result<[i64; N], Bad> {
    let mut values = [0; N];
    let mut cursor = Cursor::new(text);
    cursor.object(|key, cursor| {
        let at = names.iter().position(|name| *name == key).ok_or(NO_INTERVAL)?;
        values[at] = integer(&cursor.scalar()?)?;
        Ok(())
    })?;
    cursor.end()?;
    Ok(values)
}

impl Build for BooleanBuilder {
    fn null(&mut self) {
        self.append_null();
    }

    fn scalar(&mut self, value: Scalar<'_>) -> Result<(), Bad> {
        self.append_value(match value {
            Scalar::Bool(value) => value,
            // As SQLite takes a number for a truth value.
            Scalar::Integer(value) => value != 0,
            Scalar::Text(text) if text == "true" => true,
            Scalar::Text(text) if text == "false" => false,
            Scalar::Text(_) | Scalar::Real(_) | Scalar::Number(_) | Scalar::Blob(_) => {
                return Err("it is not a truth value");
            }
        });
        Ok(())
    }

    fn finish(&mut self) -> Result<ArrayRef, Bad> {
        Ok(Arc::new(BooleanBuilder::finish(self)))
    }
}

impl Build for NullBuilder {
    fn null(&mut self) {
        self.append_null();
    }

    fn scalar(&mut self, _: Scalar<'_>) -> Result<(), Bad> {
        Err("it is not NULL")
    }

    fn finish(&mut self) -> Result<ArrayRef, Bad> {
        Ok(Arc::new(NullBuilder::finish(self)))
    }
}
