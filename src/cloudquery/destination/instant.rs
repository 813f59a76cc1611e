//! Points in time as text, compared as what they are.
//!
//! Timestamps are kept as RFC 3339 text with trimmed fractions, of which "…09Z" is earlier than "…09.5Z", but not in the
//! order of text. So SQLite gets a function that compares.

use chrono::{DateTime, NaiveDate, NaiveDateTime, Utc};
use rusqlite::Connection;
use rusqlite::functions::{Context, FunctionFlags};
use rusqlite::types::ValueRef;

/// `cq_is_before(text, seconds, nanoseconds)`: whether a timestamp is before that long after 1970; NULL where the text
/// is no timestamp.
pub(super) const IS_BEFORE: &str = "cq_is_before";

/// Adds the function to a connection. Nothing in a schema can call it.
pub(super) fn register(connection: &Connection) -> rusqlite::Result<()> {
    let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC | FunctionFlags::SQLITE_DIRECTONLY;
    connection.create_scalar_function(IS_BEFORE, 3, flags, |context: &Context<'_>| {
        let ValueRef::Text(text) = context.get_raw(0) else { return Ok(None) };
        let limit = (context.get::<i64>(1)?, context.get::<u32>(2)?);
        let instant = std::str::from_utf8(text).ok().and_then(parse);
        Ok(instant.map(|instant| (instant.timestamp(), instant.timestamp_subsec_nanos()) < limit))
    })
}

/// Reads RFC 3339, and what SQLite's own functions write: a blank for the T, no zone (UTC), no time (midnight).
fn parse(text: &str) -> Option<DateTime<Utc>> {
    if let Ok(instant) = DateTime::parse_from_rfc3339(text) {
        return Some(instant.with_timezone(&Utc));
    }
    let forms = ["%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%d %H:%M"];
    let local = forms.iter().find_map(|form| NaiveDateTime::parse_from_str(text, form).ok());
    let midnight = || NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?.and_hms_opt(0, 0, 0);
    local.or_else(midnight).map(|local| local.and_utc())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_before(value: impl rusqlite::ToSql, limit: &str) -> Option<bool> {
        let connection = crate::sqlite::in_memory().expect("memory");
        register(&connection).expect("registered");
        let limit = parse(limit).expect("a limit");
        let arguments = (value, limit.timestamp(), limit.timestamp_subsec_nanos());
        connection.query_row(&format!("SELECT {IS_BEFORE}(?1, ?2, ?3)"), arguments, |row| row.get(0)).expect("asked")
    }

    #[test]
    fn fractions_and_zones_count_and_their_spelling_does_not() {
        let limit = "2024-05-06T07:08:09.5Z";
        for earlier in [
            "2024-05-06T07:08:09Z",
            "2024-05-06T07:08:09.499999999Z",
            "2024-05-06T07:08:09.4Z",
            "2024-05-06T09:08:09+02:00",
            "2024-05-06 07:08:09",
            "2024-05-06 07:08:09.25",
            "2024-05-06",
            "1969-12-31T23:59:59.9Z",
        ] {
            assert_eq!(is_before(earlier, limit), Some(true), "{earlier}");
        }
        for later in
            ["2024-05-06T07:08:09.5Z", "2024-05-06T07:08:09.500Z", "2024-05-06T07:08:09.500000001Z", "9999-01-01"]
        {
            assert_eq!(is_before(later, limit), Some(false), "{later}");
        }
        assert_eq!(is_before("1969-12-31T23:59:59.5Z", "1969-12-31T23:59:59.75Z"), Some(true));
    }

    #[test]
    fn what_is_no_timestamp_is_neither() {
        for text in ["", "now", "2024-13-01T00:00:00Z", "2024-05-06T07:08:09Zx"] {
            assert_eq!(is_before(text, "2024-05-06T07:08:09Z"), None, "{text}");
        }
        assert_eq!(is_before(1_715_000_000_i64, "2024-05-06T07:08:09Z"), None);
        assert_eq!(is_before(None::<i64>, "2024-05-06T07:08:09Z"), None);
    }
}
