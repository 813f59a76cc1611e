//! What takes events, as a configuration and the command line say it.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use http::uri::Authority;
use http::{HeaderName, HeaderValue, Uri, header};

use super::expand::expand;
use super::section::Section;
use crate::model::Selection;

/// Events in a batch where nothing else is said: what sqlite-cdc has.
pub const EVENT_BATCH_SIZE: usize = 256;
/// How long a POST may take, from connecting to the end of the answer, where nothing else is said.
pub const WEBHOOK_TIMEOUT: Duration = Duration::from_secs(30);

/// Events in a batch at most: a batch is in memory as values and as JSON.
const BATCH_MAX: u64 = 100_000;
const TIMEOUT_MAX: Duration = Duration::from_secs(3_600);
const RETRY_FOR_MAX: Duration = Duration::from_secs(365 * 86_400);

/// Headers that a POST of events has anyway, or that the connection decides.
const OURS: [HeaderName; 9] = [
    header::CONNECTION,
    header::CONTENT_LENGTH,
    header::CONTENT_TYPE,
    header::EXPECT,
    header::HOST,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// The header that carries a batch's id.
pub const ID_HEADER: HeaderName = HeaderName::from_static("idempotency-key");

/// Where events go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EventOutput {
    /// `-`: a line `<timestamp>: <table> <operation>` on stdout for each.
    Lines,
    /// `json`: a line of JSON on stdout for each.
    Json,
    /// An `http` or `https` URL: a POST for each batch.
    Http(HttpUrl),
}

impl EventOutput {
    /// Reads `-`, `json` or a URL.
    ///
    /// # Errors
    /// A sentence for the person who wrote it.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text {
            "-" => Ok(Self::Lines),
            "json" => Ok(Self::Json),
            url => HttpUrl::parse(url).map(Self::Http),
        }
    }
}

/// As it is shown to people: a URL without its query, which may hold a secret.
impl fmt::Display for EventOutput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lines => f.write_str("-"),
            Self::Json => f.write_str("json"),
            Self::Http(url) => url.fmt(f),
        }
    }
}

/// An `http` or `https` URL with a host and without a user.
#[derive(Clone, PartialEq, Eq)]
pub struct HttpUrl(Uri);

impl HttpUrl {
    /// Reads a URL.
    ///
    /// # Errors
    /// A sentence for the person who wrote it.
    pub fn parse(text: &str) -> Result<Self, String> {
        // What was written is not repeated: it may hold a password.
        let form = "wants -, json, or a URL as in https://example.org/hook";
        let uri: Uri = text.parse().map_err(|error| format!("{form}; this one does not parse ({error})"))?;
        let is_http = uri.scheme_str().is_some_and(|scheme| scheme == "http" || scheme == "https");
        if !is_http || uri.host().is_none_or(str::is_empty) {
            return Err(form.to_owned());
        }
        if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
            return Err("has a user or password in the URL; give an Authorization header instead".to_owned());
        }
        let after_host = |authority: &Authority| authority.as_str().get(authority.host().len()..).map(str::to_owned);
        if let Some(port) = uri.authority().and_then(after_host).as_deref().and_then(|rest| rest.strip_prefix(':'))
            && !port.is_empty()
            && !port.parse::<u16>().is_ok_and(|port| port > 0)
        {
            return Err(format!("has port {port}; a port is a number from 1 to 65535"));
        }
        Ok(Self(uri))
    }

    /// The URL as HTTP libraries have it.
    pub fn uri(&self) -> &Uri {
        &self.0
    }

    /// Whether it asks for TLS.
    pub fn is_https(&self) -> bool {
        self.0.scheme_str() == Some("https")
    }
}

impl fmt::Display for HttpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, authority) = (self.0.scheme_str().unwrap_or_default(), self.0.authority());
        write!(f, "{scheme}://{}{}", authority.map_or("", |authority| authority.as_str()), self.0.path())
    }
}

impl fmt::Debug for HttpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A header of each POST. Its value may be a secret and is not shown by `Debug`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Its name, in lower case.
    pub name: HeaderName,
    /// Its value.
    pub value: HeaderValue,
}

impl Header {
    /// A header of that name and value.
    ///
    /// # Errors
    /// A sentence for the person who wrote it: no name or value of a header, or a header that is ours to set.
    pub fn new(name: &str, value: &str) -> Result<Self, String> {
        let name: HeaderName = name.parse().map_err(|_| "is no name of a header".to_owned())?;
        if OURS.contains(&name) || name == ID_HEADER {
            return Err(format!("{name} is set by Twinlite; leave it out"));
        }
        let mut value: HeaderValue = value
            .parse()
            .map_err(|_| format!("the value of {name} holds what a header cannot, such as a line break"))?;
        value.set_sensitive(true);
        Ok(Self { name, value })
    }

    /// Reads `NAME=VALUE`; in the value `${VAR}` is a variable of the environment and `${file:PATH}` a file's content, as in
    /// a configuration, so that a secret need not stand in the list of processes.
    ///
    /// # Errors
    /// A sentence for the person who wrote it.
    pub fn from_argument(argument: &str) -> Result<Self, String> {
        let (name, value) = argument.split_once('=').ok_or("wants NAME=VALUE, as in X-Token=${TOKEN}")?;
        let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        let environment: BTreeMap<String, String> = std::env::vars_os().filter_map(text).collect();
        Self::new(name.trim(), &expand(value, &environment)?)
    }
}

/// How bytes of a BLOB are said in JSON.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BlobEncoding {
    /// Upper-case hexadecimal digits, as SQLite's `hex()` writes them.
    #[default]
    Hex,
    /// Base 64 with padding, of the standard alphabet.
    Base64,
}

/// What becomes of a table whose events may be incomplete.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnGap {
    /// A `RESYNC` event, then an `INSERT` for each of its rows.
    #[default]
    Resync,
    /// The output stops, and says so.
    Stop,
}

/// One output of a node's events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventsConfig {
    /// Its name as a consumer of the log: where it was is kept under it.
    pub name: String,
    /// Where the events go.
    pub output: EventOutput,
    /// Globs of this node's tables whose events go there.
    pub tables: Vec<String>,
    /// Headers of each POST.
    pub headers: Vec<Header>,
    /// How long a POST may take.
    pub timeout: Duration,
    /// How long a batch is tried before the output stops. `None`: for ever.
    pub retry_for: Option<Duration>,
    /// Events in a batch at most.
    pub batch_size: usize,
    /// Whether it begins with an `INSERT` for each row that is there.
    pub bootstrap: bool,
    /// What becomes of a table whose events may be incomplete.
    pub on_gap: OnGap,
    /// How BLOBs are said.
    pub blob_encoding: BlobEncoding,
    /// Whether timestamps have milliseconds.
    pub subseconds: bool,
}

impl EventsConfig {
    /// An output with every default.
    pub fn defaults(name: impl Into<String>, output: EventOutput) -> Self {
        Self {
            name: name.into(),
            output,
            tables: vec!["*".to_owned()],
            headers: Vec::new(),
            timeout: WEBHOOK_TIMEOUT,
            retry_for: None,
            batch_size: EVENT_BATCH_SIZE,
            bootstrap: false,
            on_gap: OnGap::default(),
            blob_encoding: BlobEncoding::default(),
            subseconds: true,
        }
    }

    /// The tables whose events go there.
    ///
    /// # Panics
    /// If a glob was put here that [`super::load()`] would have refused.
    pub fn selection(&self) -> Selection {
        Selection::new(&self.tables, &[]).expect("globs were validated")
    }
}

/// Reads one entry of `events`.
pub(super) fn events(mut section: Section<'_>) -> EventsConfig {
    let name = section.required("name", "the consumer's name, under which the database keeps where it was");
    let text = section.required("output", "where the events go: -, json, or a URL");
    let output = EventOutput::parse(&text);
    if let Err(what) = output.as_ref().map_err(|what| what.as_str())
        && !text.is_empty()
    {
        section.fault("output", what);
    }
    match &output {
        Ok(EventOutput::Lines) => {
            section.refuse(&["blob_encoding"], "belongs to an output that says values; `-` says none");
            section.refuse(&HTTP_ONLY, "belongs to an output that is a URL");
        }
        Ok(EventOutput::Json) => section.refuse(&HTTP_ONLY, "belongs to an output that is a URL"),
        // With the output itself in doubt, what fits it is too.
        Ok(EventOutput::Http(_)) | Err(_) => {}
    }
    let mut events = EventsConfig::defaults(name, output.unwrap_or(EventOutput::Lines));
    details(&mut section, &mut events);
    section.finish();
    events
}

const HTTP_ONLY: [&str; 3] = ["headers", "timeout", "retry_for"];

fn details(section: &mut Section<'_>, events: &mut EventsConfig) {
    if let Some(tables) = section.texts("tables") {
        events.tables = tables;
    }
    events.headers = headers(section);
    let shortest = Duration::from_millis(1);
    events.timeout = section.duration("timeout", shortest..=TIMEOUT_MAX).unwrap_or(events.timeout);
    events.retry_for = section.duration("retry_for", Duration::ZERO..=RETRY_FOR_MAX);
    let batch_size = section.count("batch_size", 1..=BATCH_MAX).and_then(|size| usize::try_from(size).ok());
    events.batch_size = batch_size.unwrap_or(events.batch_size);
    events.bootstrap = section.truth("bootstrap").unwrap_or(events.bootstrap);
    let gaps = [("resync", OnGap::Resync), ("stop", OnGap::Stop)];
    events.on_gap = section.word("on_gap", &gaps).unwrap_or(events.on_gap);
    let encodings = [("hex", BlobEncoding::Hex), ("base64", BlobEncoding::Base64)];
    events.blob_encoding = section.word("blob_encoding", &encodings).unwrap_or(events.blob_encoding);
    events.subseconds = section.truth("subseconds").unwrap_or(events.subseconds);
}

fn headers(section: &mut Section<'_>) -> Vec<Header> {
    let mut headers = Vec::new();
    for (name, found) in section.section("headers").rest() {
        let header = match found {
            Ok(value) => Header::new(&name, &value),
            Err(_) => Err("wants text (in quotes), not a section".to_owned()),
        };
        match header {
            Ok(header) => headers.push(header),
            Err(what) => section.fault(&format!("headers.{name}"), what),
        }
    }
    headers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_output_is_one_of_three_things() {
        assert_eq!(EventOutput::parse("-"), Ok(EventOutput::Lines));
        assert_eq!(EventOutput::parse("json"), Ok(EventOutput::Json));
        for (url, shown) in [
            ("http://127.0.0.1:8080", "http://127.0.0.1:8080/"),
            ("https://example.org/hook?token=secret", "https://example.org/hook"),
            ("HTTPS://example.org", "https://example.org/"),
            ("http://[::1]:1/a", "http://[::1]:1/a"),
        ] {
            let output = EventOutput::parse(url).expect(url);
            assert_eq!(output.to_string(), shown);
            assert!(!format!("{output:?}").contains("secret"));
        }
        for (url, port) in [("http://h:99999/", "99999"), ("https://[::1]:0", "0"), ("http://h:x/", "x")] {
            let refused = EventOutput::parse(url).expect_err(url);
            assert!(refused.contains(&format!("port {port};")) || port == "x", "{url}: {refused}");
        }
        for url in ["http://h:65535/", "http://[::1]:1/", "http://[::1]/"] {
            assert!(EventOutput::parse(url).is_ok(), "{url}");
        }
        let too = ["", "JSON", "stdout", "/hook", "ftp://a/b", "http:/a", "http://", "https://a b/", "example.org:80"];
        for wrong in too {
            assert!(EventOutput::parse(wrong).is_err(), "{wrong}");
        }
        let refused = EventOutput::parse("http://me:hunter2@example.org/").expect_err("a password");
        assert!(refused.contains("Authorization") && !refused.contains("hunter2"), "{refused}");
    }

    #[test]
    fn a_header_keeps_its_value_to_itself() {
        let header = Header::from_argument("X-Token=a=b").expect("valid");
        assert!(header.name == "x-token" && header.value == "a=b");
        assert!(!format!("{header:?}").contains("a=b"), "{header:?}");
        let path = std::env::var("PATH").expect("set");
        assert!(Header::from_argument("x=${PATH}").expect("valid").value == *path);
        for (wrong, says) in [
            ("X-Token", "NAME=VALUE"),
            ("X Token=1", "no name"),
            ("=1", "no name"),
            ("x=a\nb", "line break"),
            ("x=${TWINLITE_IS_NOT_SET}", "not set"),
            ("content-type=text/plain", "set by Twinlite"),
            ("Idempotency-Key=1", "set by Twinlite"),
        ] {
            let error = Header::from_argument(wrong).expect_err(wrong);
            assert!(error.contains(says), "{wrong}: {error}");
        }
    }
}
