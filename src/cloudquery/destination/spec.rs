//! The destination's spec: what a user writes below `spec.spec` in the YAML of a destination.
//!
//! It arrives as JSON from whoever made it: numbers may be floats (`1e+06`), for the CLI passes some through float64, or
//! digits in quotes. A key that is not known is an error, so that a misspelled one is not a default.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserializer, Unexpected, Visitor};
use serde::{Deserialize, Serialize};

use super::Error;
use crate::config::OnTypeMismatch;

/// Rows of a batch where the spec does not say.
const BATCH_ROWS: u64 = 10_000;

/// Bytes of a batch where the spec does not say: 10 MiB.
const BATCH_BYTES: u64 = 10 << 20;

/// How long a batch that is not full waits where the spec does not say.
const BATCH_TIMEOUT: Duration = Duration::from_secs(20);

/// The longest name of a consumer.
const CONSUMER_CHARS_MAX: usize = 200;

/// Where to write, and in which portions.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("required" = ["connection_string"]))]
pub struct Spec {
    /// The database: a path, a `file:` URI, or `:memory:`.
    #[serde(default)]
    #[schemars(length(min = 1))]
    pub connection_string: String,
    /// Rows of a batch, which is one transaction; 0 means the default.
    #[serde(default)]
    #[schemars(with = "Count<BATCH_ROWS>")]
    pub batch_size: Count<BATCH_ROWS>,
    /// Bytes of a batch, as Arrow counts them; 0 means the default.
    #[serde(default)]
    #[schemars(with = "Count<BATCH_BYTES>")]
    pub batch_size_bytes: Count<BATCH_BYTES>,
    /// How long a batch that is not full waits, such as `20s` or `1m30s`; `0s` means until something else ends it.
    #[serde(default)]
    pub batch_timeout: Timeout,
    /// As a source: whether a sync sends only what changed since the one before, deletions too. Installs a change log.
    /// A state backend means the same.
    #[serde(default)]
    pub cdc: bool,
    /// As a source with `cdc`: under which name the change log is kept for it; one for each of several syncs.
    #[serde(default = "consumer")]
    #[schemars(length(min = 1, max = CONSUMER_CHARS_MAX))]
    pub consumer: String,
    /// As a source: what becomes of a value that its column's type cannot hold.
    #[serde(default)]
    pub on_type_mismatch: OnTypeMismatch,
}

/// The consumer of syncs that name none.
fn consumer() -> String {
    "cloudquery".to_owned()
}

impl Default for Spec {
    fn default() -> Self {
        Self {
            connection_string: String::new(),
            batch_size: Count::default(),
            batch_size_bytes: Count::default(),
            batch_timeout: Timeout::default(),
            cdc: false,
            consumer: consumer(),
            on_type_mismatch: OnTypeMismatch::Error,
        }
    }
}

impl Spec {
    /// Reads a spec. Nothing, or `null`, is one of defaults, which names no database; [`super::Destination::open`] says so
    /// unless it has one to fall back on.
    ///
    /// # Errors
    /// [`Error::Spec`], which names the key.
    pub fn parse(json: &[u8]) -> Result<Self, Error> {
        if json.trim_ascii().is_empty() {
            return Ok(Self::default());
        }
        // Serde takes an array for a struct's fields in their order.
        if json.trim_ascii().starts_with(b"[") {
            return Err(Error::Spec("spec: an array, where an object is expected".to_owned()));
        }
        let reader = &mut serde_json::Deserializer::from_slice(json);
        let spec: Option<Self> = serde_path_to_error::deserialize(&mut *reader).map_err(|error| {
            let place = error.path().to_string();
            let named = if place == "." { String::new() } else { format!("{place}: ") };
            Error::Spec(format!("spec: {named}{}", error.inner()))
        })?;
        reader.end().map_err(|error| Error::Spec(format!("spec: {error}")))?;
        let spec = spec.unwrap_or_default();
        if !(1..=CONSUMER_CHARS_MAX).contains(&spec.consumer.chars().count()) {
            return Err(Error::Spec(format!("spec: consumer: want a name of 1 to {CONSUMER_CHARS_MAX} characters")));
        }
        Ok(spec)
    }

    /// The JSON Schema (draft 2020-12) of a spec; of one that need not name a database, where there is one already.
    pub fn json_schema(is_database_known: bool) -> String {
        let mut schema = schemars::schema_for!(Self);
        if is_database_known {
            schema.remove("required");
        }
        schema.as_value().to_string()
    }
}

/// A number of something: 0 means `DEFAULT`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count<const DEFAULT: u64>(u64);

impl<const DEFAULT: u64> Count<DEFAULT> {
    /// That many; 0 means the default.
    pub fn new(count: u64) -> Self {
        Self(count)
    }

    /// How many that is, and at least one.
    pub fn get(self) -> usize {
        usize::try_from(if self.0 == 0 { DEFAULT } else { self.0 }).unwrap_or(usize::MAX)
    }
}

impl<'de, const DEFAULT: u64> Deserialize<'de> for Count<DEFAULT> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(CountVisitor).map(Self)
    }
}

struct CountVisitor;

/// Whole numbers above this are not exact as a float.
const EXACT_MAX: f64 = 9_007_199_254_740_992.0;

impl Visitor<'_> for CountVisitor {
    type Value = u64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a whole number, 0 or more")
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<u64, E> {
        Ok(number)
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<u64, E> {
        u64::try_from(number).map_err(|_| E::invalid_value(Unexpected::Signed(number), &self))
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<u64, E> {
        if number.fract() != 0.0 || !(0.0..=EXACT_MAX).contains(&number) {
            return Err(E::invalid_value(Unexpected::Float(number), &self));
        }
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "whole, and in range")]
        Ok(number as u64)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<u64, E> {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse().ok().filter(|_| digits).ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
    }
}

impl<const DEFAULT: u64> JsonSchema for Count<DEFAULT> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Count".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": ["integer", "string"], "minimum": 0, "pattern": "^[0-9]+$", "default": DEFAULT })
    }
}

impl<const DEFAULT: u64> Serialize for Count<DEFAULT> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // What 0 stands for: the JSON Schema says it as the default.
        serializer.serialize_u64(if self.0 == 0 { DEFAULT } else { self.0 })
    }
}

/// How long a batch waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeout(Duration);

impl Default for Timeout {
    fn default() -> Self {
        Self(BATCH_TIMEOUT)
    }
}

impl Timeout {
    /// That long; zero means for ever.
    pub fn new(wait: Duration) -> Self {
        Self(wait)
    }

    /// How long; `None` for ever.
    pub fn get(self) -> Option<Duration> {
        Some(self.0).filter(|wait| !wait.is_zero())
    }
}

impl<'de> Deserialize<'de> for Timeout {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let expected = &"a duration such as 20s, 500ms or 1m30s";
        go_duration(&text).map(Self).ok_or_else(|| de::Error::invalid_value(Unexpected::Str(&text), expected))
    }
}

/// The form of [`Timeout`], as its JSON Schema says it.
const DURATION_PATTERN: &str = r"^([+]?0|[+]?(([0-9]+([.][0-9]*)?|[.][0-9]+)(ns|us|µs|μs|ms|s|m|h))+)$";

impl JsonSchema for Timeout {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Timeout".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": DURATION_PATTERN, "default": "20s" })
    }
}

/// Reads a duration as Go writes it: numbers, each with its unit. `None` for anything else, negative ones too.
fn go_duration(text: &str) -> Option<Duration> {
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Some(Duration::ZERO);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !(c.is_ascii_digit() || c == '.')).filter(|end| *end > 0)?;
        let (number, tail) = rest.split_at(end);
        let units = [
            ("ns", 1e-9),
            ("us", 1e-6),
            ("µs", 1e-6),
            ("μs", 1e-6),
            ("ms", 1e-3),
            ("s", 1.0),
            ("m", 60.0),
            ("h", 3600.0),
        ];
        let (unit, seconds) = units.into_iter().find(|(unit, _)| tail.starts_with(unit))?;
        let number: f64 = number.parse().ok()?;
        total = total.checked_add(Duration::try_from_secs_f64(number * seconds).ok()?)?;
        rest = &tail[unit.len()..];
    }
    // Go counts nanoseconds in 64 bits; and a moment so far away is none that a clock could be set for.
    i64::try_from(total.as_nanos()).is_ok().then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> Result<Spec, String> {
        Spec::parse(json.as_bytes()).map_err(|error| error.to_string())
    }

    #[test]
    fn nothing_and_null_are_the_defaults() {
        for nothing in ["", " \n", "null", "{}"] {
            let spec = parse(nothing).expect("defaults");
            assert_eq!((spec.batch_size.get(), spec.batch_size_bytes.get()), (10_000, 10 << 20), "{nothing:?}");
            assert_eq!(spec.batch_timeout.get(), Some(Duration::from_secs(20)));
            assert_eq!(spec.connection_string, "");
        }
        let zero = parse(r#"{"connection_string": "a", "batch_size": 0, "batch_timeout": "0s"}"#).expect("zero");
        assert_eq!((zero.batch_size.get(), zero.batch_timeout.get()), (10_000, None));
    }

    #[test]
    fn numbers_come_in_every_form() {
        for number in ["1000000", "1e+06", "1000000.0", "\"1000000\""] {
            let spec = parse(&format!(r#"{{"batch_size": {number}}}"#)).expect("a number");
            assert_eq!(spec.batch_size.get(), 1_000_000, "{number}");
        }
    }

    #[test]
    fn a_fault_names_its_key() {
        for (json, key) in [
            (r#"{"batch_size": -1}"#, "batch_size"),
            (r#"{"batch_size": 1.5}"#, "batch_size"),
            (r#"{"batch_size_bytes": "1k"}"#, "batch_size_bytes"),
            (r#"{"batch_size_bytes": ""}"#, "batch_size_bytes"),
            (r#"{"batch_size_bytes": 1e30}"#, "batch_size_bytes"),
            (r#"{"batch_timeout": 20}"#, "batch_timeout"),
            (r#"{"batch_timeout": "20"}"#, "batch_timeout"),
            (r#"{"batch_timeout": "-1s"}"#, "batch_timeout"),
            (r#"{"connection_string": 7}"#, "connection_string"),
            (r#"{"connectionString": "a"}"#, "connectionString"),
            (r#"{"batch_timeout": "4000000000000000h"}"#, "batch_timeout"),
            (r#"{"consumer": ""}"#, "consumer"),
            ("[]", "spec"),
            ("{} {}", "spec"),
        ] {
            let error = parse(json).expect_err(json);
            assert!(error.contains(key), "{json}: {error}");
        }
    }

    #[test]
    fn durations_are_go_s() {
        let ms = |text: &str| go_duration(text).map(|found| found.as_millis());
        assert_eq!(ms("20s"), Some(20_000));
        assert_eq!(ms("1m30.5s"), Some(90_500));
        assert_eq!(ms("1h"), Some(3_600_000));
        assert_eq!(ms("500ms"), Some(500));
        assert_eq!(ms("1500µs"), Some(1));
        assert_eq!(ms("0"), Some(0));
        assert_eq!(ms("2562047h"), Some(2_562_047 * 3_600_000));
        for wrong in ["", "s", "1", "1x", "-1s", "1s2", ".s", "1..2s", "1e9999h", "2562048h", "4000000000000000h"] {
            assert_eq!(ms(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn the_schema_says_the_same() {
        let schema: serde_json::Value = serde_json::from_str(&Spec::json_schema(false)).expect("JSON");
        assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
        assert_eq!(schema["additionalProperties"], false);
        assert_eq!(schema["required"], serde_json::json!(["connection_string"]));
        let properties = &schema["properties"];
        assert_eq!(properties["connection_string"]["minLength"], 1);
        assert_eq!(properties["batch_size"]["default"], 10_000);
        assert_eq!(properties["batch_size_bytes"]["default"], 10 << 20);
        assert_eq!(properties["batch_timeout"]["default"], "20s");
        assert_eq!(properties["consumer"]["maxLength"], 200);
        assert_eq!(properties.as_object().map(serde_json::Map::len), Some(7));
        let of_a_node: serde_json::Value = serde_json::from_str(&Spec::json_schema(true)).expect("JSON");
        assert!(of_a_node.get("required").is_none() && of_a_node["properties"] == *properties);
    }
}
