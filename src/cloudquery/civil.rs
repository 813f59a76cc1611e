//! Days, times and timestamps in the proleptic Gregorian calendar, for every number that Arrow can hold.
//!
//! A library of dates would stop at some year; the counts of a column do not. Years before 0 have a minus sign, those
//! after 9999 as many digits as they need.

use std::fmt::Write as _;

use arrow::datatypes::TimeUnit;

/// Seconds of a day.
pub(super) const DAY_SECONDS: i64 = 86_400;

/// Days from 0000-03-01 to 1970-01-01: years that begin in March have their leap day at the end.
const EPOCH_DAYS: i64 = 719_468;
/// Days of 400 years, after which the calendar repeats itself.
const ERA_DAYS: i64 = 146_097;

/// The year, month and day of a day counted from 1970-01-01.
pub(super) fn from_days(days: i64) -> (i64, i64, i64) {
    let days = days + EPOCH_DAYS;
    let (era, day) = (days.div_euclid(ERA_DAYS), days.rem_euclid(ERA_DAYS));
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day_of_year = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day_of_month = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year + i64::from(month <= 2), month, day_of_month)
}

/// The day counted from 1970-01-01 of a year, month and day; nothing where there is no such day.
pub(super) fn to_days(year: i64, month: i64, day: i64) -> Option<i64> {
    if !(1..=12).contains(&month) || !(1..=month_days(year, month)).contains(&day) {
        return None;
    }
    let year = year.checked_sub(i64::from(month <= 2))?;
    let (era, year) = (year.div_euclid(400), year.rem_euclid(400));
    let month = if month > 2 { month - 3 } else { month + 9 };
    let day_of_year = (153 * month + 2) / 5 + day - 1;
    let day = year * 365 + year / 4 - year / 100 + day_of_year;
    era.checked_mul(ERA_DAYS)?.checked_add(day - EPOCH_DAYS)
}

fn month_days(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Ticks of a unit in a second, and its digits.
pub(super) fn unit(unit: TimeUnit) -> (i64, usize) {
    match unit {
        TimeUnit::Second => (1, 0),
        TimeUnit::Millisecond => (1_000, 3),
        TimeUnit::Microsecond => (1_000_000, 6),
        TimeUnit::Nanosecond => (1_000_000_000, 9),
    }
}

/// The seconds that a time zone is ahead of UTC, where it is one of a fixed offset (`+05:30`); 0 for every other.
///
/// Named zones are written in UTC: the instant is the same, and no table of their rules has to be here.
pub(super) fn zone_seconds(zone: &str) -> i64 {
    offset_seconds(zone).unwrap_or(0)
}

/// `+HH:MM`, `+HHMM` or `+HH` in seconds.
pub(super) fn offset_seconds(text: &str) -> Option<i64> {
    let (sign, rest) = match text.as_bytes().first()? {
        b'+' => (1, &text[1..]),
        b'-' => (-1, &text[1..]),
        _ => return None,
    };
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let (hours, minutes) = match rest.len() {
        5 => rest.split_once(':')?,
        4 => rest.split_at_checked(2)?,
        2 => (rest, "00"),
        _ => return None,
    };
    if hours.len() != 2 || !digits(hours) || !digits(minutes) {
        return None;
    }
    let (hours, minutes): (i64, i64) = (hours.parse().ok()?, minutes.parse().ok()?);
    (hours < 24 && minutes < 60).then_some(sign * (hours * 3600 + minutes * 60))
}

/// Writes a day as `2023-07-07`.
pub(super) fn write_date(out: &mut String, days: i64) {
    let (year, month, day) = from_days(days);
    let sign = if year < 0 { "-" } else { "" };
    // Writing to a String cannot fail, here and below.
    let _ = write!(out, "{sign}{:04}-{month:02}-{day:02}", year.unsigned_abs());
}

/// Writes a time of day with all digits of its unit: `03:04:05.678`. Counts beyond a day have more hours, those below 0
/// a minus sign, so that each reads back as itself.
pub(super) fn write_time(out: &mut String, value: i64, time_unit: TimeUnit) {
    let (ticks, digits) = unit(time_unit);
    let sign = if value < 0 { "-" } else { "" };
    let (value, ticks) = (value.unsigned_abs(), ticks.unsigned_abs());
    let (seconds, fraction) = (value / ticks, value % ticks);
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    let _ = write!(out, "{sign}{hours:02}:{minutes:02}:{seconds:02}");
    if digits > 0 {
        let _ = write!(out, ".{fraction:0digits$}");
    }
}

/// Writes a timestamp as RFC 3339 without trailing zeros in its fraction, in a zone so many seconds ahead of UTC.
pub(super) fn write_timestamp(out: &mut String, value: i64, time_unit: TimeUnit, offset: i64) {
    let (ticks, digits) = unit(time_unit);
    let (seconds, fraction) = (value.div_euclid(ticks), value.rem_euclid(ticks));
    // The day first, so that no sum can overflow.
    let (days, second) = (seconds.div_euclid(DAY_SECONDS), seconds.rem_euclid(DAY_SECONDS) + offset);
    let (days, second) = (days + second.div_euclid(DAY_SECONDS), second.rem_euclid(DAY_SECONDS));
    write_date(out, days);
    out.push('T');
    write_time(out, second, TimeUnit::Second);
    if fraction != 0 {
        let _ = write!(out, ".{fraction:0digits$}");
        out.truncate(out.trim_end_matches('0').len());
    }
    if offset == 0 {
        out.push('Z');
    } else {
        let minutes = offset.unsigned_abs() / 60;
        let sign = if offset < 0 { '-' } else { '+' };
        let _ = write!(out, "{sign}{:02}:{:02}", minutes / 60, minutes % 60);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_day_reads_back_as_itself() {
        // Every day of more than 400 years, and the ends.
        for days in (-100_000..100_000).chain([i64::MIN / DAY_SECONDS, i64::MAX / DAY_SECONDS]) {
            let (year, month, day) = from_days(days);
            assert_eq!(to_days(year, month, day), Some(days));
        }
        assert_eq!(from_days(0), (1970, 1, 1));
        assert_eq!(from_days(19_545), (2023, 7, 7));
    }

    #[test]
    fn days_that_are_none_are_refused() {
        for (year, month, day) in
            [(2023, 2, 29), (1900, 2, 29), (2023, 4, 31), (2023, 13, 1), (2023, 1, 0), (i64::MAX, 1, 1)]
        {
            assert_eq!(to_days(year, month, day), None, "{year}-{month}-{day}");
        }
        assert!(to_days(2000, 2, 29).is_some());
    }

    #[test]
    fn timestamps_are_written_for_every_count() {
        for (value, unit, zone, expected) in [
            (0, TimeUnit::Second, "UTC", "1970-01-01T00:00:00Z"),
            (1_714_979_289_120_000, TimeUnit::Microsecond, "UTC", "2024-05-06T07:08:09.12Z"),
            (1_714_979_289_120_000, TimeUnit::Microsecond, "+05:30", "2024-05-06T12:38:09.12+05:30"),
            (0, TimeUnit::Second, "-08:00", "1969-12-31T16:00:00-08:00"),
            (0, TimeUnit::Second, "Europe/Berlin", "1970-01-01T00:00:00Z"),
            (-1, TimeUnit::Nanosecond, "", "1969-12-31T23:59:59.999999999Z"),
            (i64::MAX, TimeUnit::Second, "", "292277026596-12-04T15:30:07Z"),
            (i64::MIN, TimeUnit::Second, "", "-292277022657-01-27T08:29:52Z"),
            (i64::MIN, TimeUnit::Nanosecond, "", "1677-09-21T00:12:43.145224192Z"),
        ] {
            let mut out = String::new();
            write_timestamp(&mut out, value, unit, zone_seconds(zone));
            assert_eq!(out, expected);
        }
    }

    #[test]
    fn times_are_written_for_every_count() {
        for (value, unit, expected) in [
            (11_045, TimeUnit::Second, "03:04:05"),
            (11_045_678, TimeUnit::Millisecond, "03:04:05.678"),
            (0, TimeUnit::Nanosecond, "00:00:00.000000000"),
            (90_000, TimeUnit::Second, "25:00:00"),
            (-1, TimeUnit::Microsecond, "-00:00:00.000001"),
        ] {
            let mut out = String::new();
            write_time(&mut out, value, unit);
            assert_eq!(out, expected);
        }
    }

    #[test]
    fn offsets_are_read_in_each_form() {
        for (text, expected) in [
            ("+05:30", Some(19_800)),
            ("-0800", Some(-28_800)),
            ("+01", Some(3_600)),
            ("+24:00", None),
            ("+1:000", None),
            ("Z", None),
            ("", None),
            ("+é1", None),
        ] {
            assert_eq!(offset_seconds(text), expected, "{text}");
        }
    }
}
