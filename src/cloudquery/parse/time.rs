//! Dates, times, timestamps and durations from their text.

use arrow::datatypes::TimeUnit;

use crate::cloudquery::civil::{self, DAY_SECONDS};

/// Takes digits from the front of a text: so many, or as many as there are.
fn digits<'a>(text: &mut &'a str, count: Option<usize>) -> Option<&'a str> {
    let available = text.bytes().take_while(u8::is_ascii_digit).count();
    let count = count.unwrap_or(available);
    if count == 0 || count > available {
        return None;
    }
    let (taken, rest) = text.split_at(count);
    *text = rest;
    Some(taken)
}

fn number(text: &mut &str, count: Option<usize>) -> Option<i64> {
    digits(text, count)?.parse().ok()
}

fn take(text: &mut &str, expected: &str) -> Option<()> {
    *text = text.strip_prefix(expected)?;
    Some(())
}

/// Takes a day from the front of a text.
fn take_date(text: &mut &str) -> Option<i64> {
    let negative = take(text, "-").is_some();
    let year = number(text, None)?;
    take(text, "-")?;
    let month = number(text, Some(2))?;
    take(text, "-")?;
    let day = number(text, Some(2))?;
    civil::to_days(if negative { -year } else { year }, month, day)
}

/// Takes seconds and the ticks within from the front of a text.
fn take_time(text: &mut &str, unit: TimeUnit) -> Option<(i64, i64)> {
    let hours = number(text, None)?;
    take(text, ":")?;
    let minutes = number(text, Some(2))?;
    let seconds = if take(text, ":").is_some() { number(text, Some(2))? } else { 0 };
    let fraction = if take(text, ".").is_some() { ticks(digits(text, None)?, unit) } else { 0 };
    let minutes = (minutes < 60 && seconds < 60).then_some(minutes * 60 + seconds)?;
    Some((hours.checked_mul(3600)?.checked_add(minutes)?, fraction))
}

/// The ticks of a unit that the digits of a fraction are; further digits are cut off.
fn ticks(fraction: &str, unit: TimeUnit) -> i64 {
    let (_, places) = civil::unit(unit);
    let digits = fraction.bytes().chain(std::iter::repeat(b'0')).take(places);
    digits.fold(0, |ticks, digit| ticks * 10 + i64::from(digit - b'0'))
}

/// The days that a date is.
pub(super) fn date(mut text: &str) -> Option<i64> {
    let days = take_date(&mut text)?;
    text.is_empty().then_some(days)
}

/// The ticks that a time of day is.
pub(super) fn time(mut text: &str, unit: TimeUnit) -> Option<i64> {
    let sign = if take(&mut text, "-").is_some() { -1 } else { 1 };
    let (seconds, fraction) = take_time(&mut text, unit)?;
    let value = i128::from(seconds) * i128::from(civil::unit(unit).0) + i128::from(fraction);
    text.is_empty().then(|| i64::try_from(sign * value).ok())?
}

/// The ticks since 1970 that a timestamp is: RFC 3339, and what SQLite takes for one. Without a zone it is in UTC.
pub(super) fn timestamp(mut text: &str, unit: TimeUnit) -> Option<i64> {
    let days = take_date(&mut text)?;
    let (seconds, fraction) = match text.chars().next() {
        None => (0, 0),
        Some('T' | 't' | ' ') => {
            text = &text[1..];
            take_time(&mut text, unit)?
        }
        Some(_) => return None,
    };
    let offset = match text.trim_start_matches(' ') {
        "" | "Z" | "z" => 0,
        offset => civil::offset_seconds(offset)?,
    };
    if seconds >= DAY_SECONDS {
        return None;
    }
    let seconds = i128::from(days) * i128::from(DAY_SECONDS) + i128::from(seconds - offset);
    let value = seconds * i128::from(civil::unit(unit).0) + i128::from(fraction);
    i64::try_from(value).ok()
}

/// The ticks of a unit that a duration is, in whichever unit it is written.
pub(super) fn duration(text: &str, unit: TimeUnit) -> Option<i64> {
    let at = text.find(|c: char| c.is_ascii_alphabetic())?;
    let (count, written) = text.split_at(at);
    let written = match written {
        "s" => TimeUnit::Second,
        "ms" => TimeUnit::Millisecond,
        "us" => TimeUnit::Microsecond,
        "ns" => TimeUnit::Nanosecond,
        _ => return None,
    };
    let (from, to) = (i128::from(civil::unit(written).0), i128::from(civil::unit(unit).0));
    let ticks = i128::from(count.parse::<i64>().ok()?) * to;
    // A part of a tick would be lost.
    if ticks % from != 0 {
        return None;
    }
    i64::try_from(ticks / from).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_are_read_in_every_form() {
        let expected = Some(1_714_979_289_120_000);
        for text in [
            "2024-05-06T07:08:09.12Z",
            "2024-05-06 07:08:09.12",
            "2024-05-06 07:08:09.120000+00:00",
            "2024-05-06t09:08:09.1200009+02:00",
            "2024-05-06T01:38:09.12-0530",
            "2024-05-06 07:08:09.12 +0000",
        ] {
            assert_eq!(timestamp(text, TimeUnit::Microsecond), expected, "{text}");
        }
        assert_eq!(timestamp("1970-01-02", TimeUnit::Second), Some(86_400));
        assert_eq!(timestamp("1970-01-01T00:01", TimeUnit::Second), Some(60));
        assert_eq!(timestamp("1969-12-31T23:59:59.5Z", TimeUnit::Millisecond), Some(-500));
        assert_eq!(timestamp("292277026596-12-04T15:30:07Z", TimeUnit::Second), Some(i64::MAX));
        assert_eq!(timestamp("1677-09-21T00:12:43.145224192Z", TimeUnit::Nanosecond), Some(i64::MIN));
    }

    #[test]
    fn what_is_no_timestamp_is_refused() {
        for text in [
            "",
            "now",
            "2024",
            "2024-05-06T",
            "2024-05-06T07",
            "2024-13-06T07:08:09Z",
            "2024-05-06T24:00:00Z",
            "2024-05-06T07:60:00Z",
            "2024-05-06T07:08:09.Z",
            "2024-05-06T07:08:09Zx",
            "2024-05-06T07:08:09+25:00",
            "99999999999999999999-01-01T00:00:00Z",
            "2024-05-06é07:08:09Z",
            "1714979289",
            "--2024-01-01",
        ] {
            assert_eq!(timestamp(text, TimeUnit::Microsecond), None, "{text}");
        }
        // Beyond what nanoseconds can count.
        assert_eq!(timestamp("2300-01-01T00:00:00Z", TimeUnit::Nanosecond), None);
    }

    #[test]
    fn dates_times_and_durations_are_read() {
        assert_eq!(date("2023-07-07"), Some(19_545));
        assert_eq!(date("-0001-01-01"), Some(-719_893));
        assert_eq!(date("2023-07-07T00:00:00Z"), None);
        assert_eq!(time("03:04:05.678901", TimeUnit::Microsecond), Some(11_045_678_901));
        assert_eq!(time("25:00:00", TimeUnit::Second), Some(90_000));
        assert_eq!(time("-00:00:00.001", TimeUnit::Millisecond), Some(-1));
        assert_eq!(time("03:04:05x", TimeUnit::Second), None);
        assert_eq!(duration("-5ms", TimeUnit::Millisecond), Some(-5));
        assert_eq!(duration("5s", TimeUnit::Millisecond), Some(5_000));
        assert_eq!(duration("5000ms", TimeUnit::Second), Some(5));
        assert_eq!(duration("5ms", TimeUnit::Second), None);
        assert_eq!(duration("5", TimeUnit::Second), None);
        assert_eq!(duration("9223372036854775807s", TimeUnit::Nanosecond), None);
    }
}
