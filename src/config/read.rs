//! Every key of the configuration, with its type, its bounds and what it is called.
//!
//! `config/reference.yaml` says the same for people; a test holds the two together.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use super::events::events;
use super::section::Section;
use super::settings::{
    CaptureConfig, Compression, Config, Directions, Images, LinkConfig, LogConfig, LogFormat, MigrateMode, NodeConfig,
    OnDivergence, OnTypeMismatch, Policy, Retention, Seed,
};
use crate::model::SchemaKinds;

/// Rows in a batch or a range at most: beyond, a batch's offsets and a session's memory are no longer bounded sensibly.
const ROWS_MAX: u64 = 1_000_000;
/// Bytes in a batch at most; Arrow's offsets end at 2 GiB.
const BATCH_BYTES_MAX: u64 = 1 << 30;
/// Log entries and window rows: any number that SQLite can count.
const COUNT_MAX: u64 = i64::MAX.unsigned_abs();
/// The longest time that can be meant.
const DURATION_MAX: Duration = Duration::from_secs(100 * 365 * 86_400);
const MS: Duration = Duration::from_millis(1);

/// Reads the whole file.
pub(super) fn config(mut root: Section<'_>) -> Config {
    let log = log(root.section("log"));
    if !root.has("nodes") {
        return Config { nodes: vec![node(root)], log };
    }
    let nodes = root.sections("nodes").into_iter().map(node).collect::<Vec<_>>();
    if nodes.is_empty() {
        root.fault("nodes", "names no node; give at least one");
    }
    let also =
        root.names().into_iter().any(|name| name == "name" || name == "spec" || name == "links" || name == "events");
    if also {
        root.fault("nodes", "stands beside keys of a single node; move those into the list");
    }
    root.finish();
    Config { nodes, log }
}

fn log(mut section: Section<'_>) -> LogConfig {
    let defaults = LogConfig::default();
    let log = LogConfig {
        level: section.text("level").unwrap_or(defaults.level),
        format: section
            .word("format", &[("text", LogFormat::Text), ("json", LogFormat::Json)])
            .unwrap_or(defaults.format),
    };
    section.finish();
    log
}

fn node(mut section: Section<'_>) -> NodeConfig {
    let name = section.required("name", "this node's name, by which its peers know it");
    let database = database(section.section("spec"));
    let events: Vec<_> = section.sections("events").into_iter().map(events).collect();
    let mut defaults = NodeConfig::defaults(name, database);
    if !events.is_empty() {
        defaults.capture.images = Images::Full;
    }
    let rows = |section: &mut Section<'_>, key, max, default: usize| {
        section.count(key, 1..=max).map_or(default, |rows| usize::try_from(rows).unwrap_or(usize::MAX))
    };
    let node = NodeConfig {
        listen: section.address("listen"),
        tables: section.texts("tables").unwrap_or(defaults.tables),
        skip_tables: section.texts("skip_tables").unwrap_or(defaults.skip_tables),
        capture: capture(section.section("capture"), defaults.capture),
        batch_size: rows(&mut section, "batch_size", ROWS_MAX, defaults.batch_size),
        batch_size_bytes: section
            .size("batch_size_bytes", 1..=BATCH_BYTES_MAX)
            .map_or(defaults.batch_size_bytes, |bytes| usize::try_from(bytes).unwrap_or(usize::MAX)),
        window_rows: rows(&mut section, "window_rows", COUNT_MAX, defaults.window_rows),
        snapshot_rows: rows(&mut section, "snapshot_rows", ROWS_MAX, defaults.snapshot_rows),
        grace: section.duration("grace", Duration::ZERO..=Duration::from_secs(3_600)).unwrap_or(defaults.grace),
        links: section.sections("links").into_iter().map(link).collect(),
        events,
        admin_listen: listen(section.section("admin")),
        cloudquery_listen: listen(section.section("cloudquery")),
        spool_dir: section.text("spool_dir").map(PathBuf::from),
        insecure: section.truth("insecure").unwrap_or(defaults.insecure),
        name: defaults.name,
        database: defaults.database,
    };
    section.finish();
    node
}

fn listen(mut section: Section<'_>) -> Option<String> {
    let listen = section.address("listen");
    section.finish();
    listen
}

fn database(mut section: Section<'_>) -> PathBuf {
    let text = section.required("connection_string", "the database's file, as a path or a file: URI");
    let path = path_of(&text);
    if let Err(what) = &path {
        section.fault("connection_string", what);
    }
    section.finish();
    path.unwrap_or_default()
}

/// A path, out of a path or a `file:` URI.
fn path_of(text: &str) -> Result<PathBuf, String> {
    if text == ":memory:" || text.starts_with("file::memory:") {
        return Err("a database in memory cannot be replicated; name a file".to_owned());
    }
    let Some(rest) = text.strip_prefix("file:") else { return Ok(PathBuf::from(text)) };
    if rest.contains(['?', '#']) {
        return Err(
            "takes no parameters after the path: Twinlite opens the file its own way; leave them out".to_owned()
        );
    }
    let path = match rest.strip_prefix("//") {
        Some(rest) => rest.strip_prefix("localhost").unwrap_or(rest),
        None => rest,
    };
    if rest.starts_with("//") && !path.starts_with('/') {
        return Err("names another host; the file must be on this machine, as in file:///data/app.db".to_owned());
    }
    decoded(path).map(PathBuf::from).ok_or_else(|| "holds a % that no two hexadecimal digits follow".to_owned())
}

fn decoded(path: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let digits = std::str::from_utf8(rest.get(..2)?).ok()?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        rest = &rest[2..];
    }
    String::from_utf8(bytes).ok()
}

fn capture(mut section: Section<'_>, defaults: CaptureConfig) -> CaptureConfig {
    let images = section.word("images", &[("key", Images::Key), ("full", Images::Full)]);
    let capture = CaptureConfig {
        images: images.unwrap_or(defaults.images),
        images_if_new: images.is_none(),
        retention: retention(section.section("retention")),
        log_table: section.text("log_table").unwrap_or(defaults.log_table),
    };
    section.finish();
    capture
}

fn retention(mut section: Section<'_>) -> Retention {
    let defaults = Retention::default();
    let retention = Retention {
        age: section.duration("age", Duration::from_secs(1)..=DURATION_MAX).unwrap_or(defaults.age),
        rows: section.count("rows", 1..=COUNT_MAX).unwrap_or(defaults.rows),
        size_bytes: section.size("size", 1..=COUNT_MAX).unwrap_or(defaults.size_bytes),
    };
    section.finish();
    retention
}

const DIRECTIONS: [(&str, Directions); 3] =
    [("send", Directions::Send), ("receive", Directions::Receive), ("both", Directions::Both)];

const COMPRESSIONS: [(&str, Compression); 4] =
    [("auto", Compression::Auto), ("none", Compression::None), ("lz4", Compression::Lz4), ("zstd", Compression::Zstd)];

const MISMATCHES: [(&str, OnTypeMismatch); 3] =
    [("error", OnTypeMismatch::Error), ("text", OnTypeMismatch::Text), ("null", OnTypeMismatch::Null)];

fn link(mut section: Section<'_>) -> LinkConfig {
    section.refuse(
        &["write_mode"],
        "belongs to CloudQuery specs; a link always keeps the other side equal. Leave it out, and see `directions`",
    );
    let name = section.required("name", "the peer node's name");
    let cloudquery = section.address("cloudquery");
    let directions = directions(&mut section, cloudquery.is_some());
    let mut link = LinkConfig::defaults(name, directions.unwrap_or(Directions::Send));
    if cloudquery.is_some() {
        section.refuse(&["peer"], "stands beside `cloudquery`; a link has one or the other");
        section.refuse(&["compression"], "belongs to a link to a node; CloudQuery's protocol has none");
        link.cloudquery_spec = section.json("spec");
    } else {
        section.refuse(&["spec"], "belongs to a link with `cloudquery`; a node has its own configuration");
        section.refuse(&["on_type_mismatch"], "belongs to a link with `cloudquery`; a node takes every value as it is");
    }
    let (receives, both) = (link.directions.receives(), link.directions == Directions::Both);
    // With `directions` itself in doubt, what fits it is too.
    if directions.is_some() && !receives {
        if cloudquery.is_none() {
            section.refuse(
                &["migrate_mode"],
                "belongs to a link that receives, and this one only sends; say it at the peer",
            );
        }
        section.refuse(&RECEIVE_ONLY, "belongs to a link that receives, and this one only sends; say it at the peer");
    }
    if directions.is_some() && !both {
        let what = "belongs to a link with `directions: both`; one way, the source wins";
        // Where others get what comes, a first contact has to be decided: whether they do, the whole file tells.
        let refused: &[&str] =
            if receives { &["policy", "policy_tables", "max_clock_skew"] } else { &["seed", "seed_prefer"] };
        section.refuse(refused, what);
    }
    if both {
        section.refuse(&["protect"], "is for what only receives; with `directions: both` applications write here too");
    }
    link.peer = section.address("peer");
    link.cloudquery = cloudquery;
    read_details(&mut section, &mut link);
    section.finish();
    link
}

/// What only a link that receives has a use for; and `migrate_mode`, but for a CloudQuery destination.
const RECEIVE_ONLY: [&str; 7] =
    ["schema", "on_divergence", "protect", "user_triggers", "policy", "policy_tables", "max_clock_skew"];

fn directions(section: &mut Section<'_>, cloudquery: bool) -> Option<Directions> {
    if !cloudquery {
        if !section.has("directions") {
            section.fault("directions", "missing: send, receive or both, seen from this node");
        }
        return section.word("directions", &DIRECTIONS);
    }
    let directions = section.word("directions", &DIRECTIONS).unwrap_or(Directions::Send);
    if directions.receives() {
        section.fault("directions", "a CloudQuery destination only takes: leave it out, or say send");
    }
    Some(Directions::Send)
}

fn read_details(section: &mut Section<'_>, link: &mut LinkConfig) {
    if let Some(tables) = section.texts("tables") {
        link.tables = tables;
    }
    link.on_type_mismatch = section.word("on_type_mismatch", &MISMATCHES).unwrap_or(link.on_type_mismatch);
    link.compression = section.word("compression", &COMPRESSIONS).unwrap_or(link.compression);
    let modes = [("safe", MigrateMode::Safe), ("forced", MigrateMode::Forced)];
    link.migrate_mode = section.word("migrate_mode", &modes);
    link.schema = schema(section);
    let divergence = [("halt", OnDivergence::Halt), ("resnapshot", OnDivergence::Resnapshot)];
    link.on_divergence = section.word("on_divergence", &divergence).unwrap_or(link.on_divergence);
    link.protect = section.truth("protect").unwrap_or(link.protect);
    link.user_triggers = section.truth("user_triggers").unwrap_or(link.user_triggers);
    let skew = section.duration("max_clock_skew", MS..=DURATION_MAX);
    link.max_clock_skew = skew.unwrap_or(link.max_clock_skew);
    if let Some(found) = section.word_or_section("policy") {
        link.policy = policy(section, "policy", found);
    }
    link.policy_tables = policy_tables(section);
    link.seed = seed(section);
}

fn schema(section: &mut Section<'_>) -> Option<SchemaKinds> {
    let words = section.texts("schema")?;
    let mut kinds = SchemaKinds { indexes: false, views: false, triggers: false };
    for word in &words {
        match word.as_str() {
            "tables" => {}
            "indexes" => kinds.indexes = true,
            "views" => kinds.views = true,
            "triggers" => kinds.triggers = true,
            other => section.fault("schema", format!("wants tables, indexes, views or triggers, not {other:?}")),
        }
    }
    if !words.iter().any(|word| word == "tables") {
        section.fault("schema", "lacks tables, without which nothing else travels");
    }
    Some(kinds)
}

fn policy(section: &Section<'_>, key: &str, found: Result<String, Section<'_>>) -> Policy {
    match found {
        Ok(word) if word == "last_write_wins" => {}
        Ok(word) => section.fault(key, format!("wants last_write_wins or {{ prefer: <node name> }}, not {word:?}")),
        Err(mut inner) => {
            let prefer = inner.required("prefer", "the name of the node that wins, this one or the peer");
            inner.finish();
            return Policy::Prefer(prefer);
        }
    }
    Policy::LastWriteWins
}

fn policy_tables(section: &mut Section<'_>) -> BTreeMap<String, Policy> {
    let found = section.section("policy_tables").rest();
    let read = |(glob, found)| {
        let key = format!("policy_tables.{glob}");
        let policy = policy(section, &key, found);
        (glob, policy)
    };
    found.into_iter().map(read).collect()
}

fn seed(section: &mut Section<'_>) -> Option<Seed> {
    let (seed, prefer) = (section.text("seed"), section.text("seed_prefer"));
    match (seed.as_deref(), prefer) {
        (Some("merge"), Some(prefer)) => return Some(Seed::Merge { prefer }),
        (Some("merge"), None) => {
            section.fault("seed_prefer", "missing: with `seed: merge`, the node whose rows win");
            return None;
        }
        (_, Some(_)) => section.fault("seed_prefer", "means something only with `seed: merge`"),
        (_, None) => {}
    }
    seed.map(Seed::Node)
}
