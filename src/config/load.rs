//! From a file to a [`Config`]: merge, expand, read, check.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::Path;

use config::{Environment, File, FileFormat, Value, ValueKind};

use super::section::{Entry, Findings, Node, Section};
use super::{Config, ConfigFault, Error, check, expand, read};

/// What variables of the environment that are keys begin with: `TWINLITE__LOG__LEVEL`.
const PREFIX: &str = "TWINLITE";

/// What stands for the file in faults of values that the environment gave.
const ENVIRONMENT: &str = "environment";

/// Reads a file, with this process's environment.
///
/// # Errors
/// [`Error::Read`], [`Error::Syntax`], or [`Error::Invalid`] with every fault.
pub fn load(path: &Path) -> Result<Config, Error> {
    let text = std::fs::read_to_string(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
    let text_of = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
        Some((name.into_string().ok()?, value.into_string().ok()?))
    };
    parse(&text, &path.display().to_string(), &std::env::vars_os().filter_map(text_of).collect())
}

/// Reads a configuration's text. `file` is what faults call it; `environment` takes the place of the process's.
///
/// # Errors
/// [`Error::Syntax`], or [`Error::Invalid`] with every fault.
pub fn parse(text: &str, file: &str, environment: &BTreeMap<String, String>) -> Result<Config, Error> {
    let (config, findings) = examine(text, file, environment)?;
    match findings.faults.is_empty() {
        true => Ok(config),
        false => Err(Error::Invalid { faults: findings.faults }),
    }
}

/// Reads as far as it goes, and says what was found on the way.
fn examine(text: &str, file: &str, environment: &BTreeMap<String, String>) -> Result<(Config, Findings), Error> {
    let syntax = |source| Error::Syntax { file: file.to_owned(), source };
    let merged = config::Config::builder()
        .add_source(File::from_str(text, FileFormat::Yaml))
        .add_source(
            Environment::with_prefix(PREFIX)
                .separator("__")
                .try_parsing(false)
                .source(Some(environment.clone().into_iter().collect())),
        )
        .build()
        .and_then(|merged| merged.cache.into_table())
        .map_err(syntax)?;
    let findings = RefCell::new(Findings::default());
    let mut walk = Expansion { file, environment, faults: Vec::new() };
    let entries = walk.map(merged, "");
    findings.borrow_mut().faults.append(&mut walk.faults);
    let in_list = entries.contains_key("nodes");
    let config = read::config(Section::root(entries, file, &findings));
    let mut findings = findings.into_inner();
    findings.faults.extend(check::config(&config, file, in_list));
    Ok((config, findings))
}

struct Expansion<'a> {
    file: &'a str,
    environment: &'a BTreeMap<String, String>,
    faults: Vec<ConfigFault>,
}

impl Expansion<'_> {
    fn map(&mut self, map: config::Map<String, Value>, path: &str) -> BTreeMap<String, Entry> {
        let below = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
        map.into_iter()
            .map(|(name, value)| {
                let entry = self.entry(value, &below(&name));
                (name, entry)
            })
            .collect()
    }

    fn entry(&mut self, value: Value, path: &str) -> Entry {
        let from_environment = value.origin().is_some();
        let file = if from_environment { ENVIRONMENT } else { self.file }.to_owned();
        let node = match value.kind {
            ValueKind::Nil => Node::Nil,
            ValueKind::Boolean(value) => Node::Bool(value),
            ValueKind::I64(value) => Node::Integer(value.into()),
            ValueKind::I128(value) => Node::Integer(value),
            ValueKind::U64(value) => Node::Integer(value.into()),
            ValueKind::U128(value) => Node::Integer(i128::try_from(value).unwrap_or(i128::MAX)),
            ValueKind::Float(value) => Node::Real(value),
            ValueKind::String(text) if from_environment => Node::Text(text),
            ValueKind::String(text) => self.text(text, path),
            ValueKind::Array(items) => {
                let item = |(at, item)| self.entry(item, &format!("{path}[{at}]"));
                Node::List(items.into_iter().enumerate().map(item).collect())
            }
            ValueKind::Table(map) => Node::Map(self.map(map, path)),
        };
        Entry { node, file }
    }

    fn text(&mut self, text: String, path: &str) -> Node {
        match expand::expand(&text, self.environment) {
            Ok(text) => Node::Text(text),
            Err(what) => {
                self.faults.push(ConfigFault { file: self.file.to_owned(), key: path.to_owned(), what });
                Node::Text(text)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{BlobEncoding, Directions, EventOutput, EventsConfig, MigrateMode, OnGap, Policy, Seed};
    use super::*;
    use std::time::Duration;

    const REFERENCE: &str = include_str!("../../config/reference.yaml");
    const MINIMAL: &str = "name: a\nspec: { connection_string: /data/app.db }\n";

    fn read(text: &str, variables: &[(&str, &str)]) -> Result<Config, Error> {
        let environment = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        parse(text, "x.yaml", &environment)
    }

    fn faults(text: &str) -> Vec<String> {
        match read(text, &[]).expect_err("has faults") {
            Error::Invalid { faults } => faults.iter().map(ToString::to_string).collect(),
            other => panic!("{other}"),
        }
    }

    /// Asserts that `text` has just these faults: each begins with its key and holds its words.
    #[track_caller]
    fn check(text: &str, wanted: &[(&str, &str)]) {
        let found = faults(text);
        assert_eq!(found.len(), wanted.len(), "{found:#?}");
        for (key, words) in wanted {
            let start = format!("x.yaml: {key}: ");
            let fault = found.iter().find(|fault| fault.starts_with(&start) && fault.contains(words));
            assert!(fault.is_some(), "no fault of {key} saying {words:?} in {found:#?}");
        }
    }

    fn link(keys: &str) -> String {
        format!("{MINIMAL}listen: 127.0.0.1:1\nlinks: [{{ name: b, {keys} }}]\n")
    }

    #[test]
    fn what_is_left_out_has_its_default() {
        let config = read(MINIMAL, &[]).expect("valid");
        assert_eq!(config.nodes, [super::super::NodeConfig::defaults("a", "/data/app.db")]);
        assert_eq!(config.log, super::super::LogConfig::default());
    }

    #[test]
    fn every_key_is_read_by_the_type_that_it_wants() {
        let text = link(
            "directions: both, peer: 'b:1', migrate_mode: forced, user_triggers: on, policy: { prefer: a },
             policy_tables: { 'stock_*': { prefer: b }, log: last_write_wins }, seed: merge, seed_prefer: a,
             max_clock_skew: 250ms, schema: [tables, views]",
        ) + "capture: { retention: { size: 16MiB, age: 2h } }\nbatch_size_bytes: 4096\n";
        let node = read(&text, &[]).expect("valid").nodes.remove(0);
        assert_eq!(node.capture.retention.size_bytes, 16 << 20);
        assert_eq!(node.capture.retention.age, Duration::from_secs(7_200));
        assert_eq!(node.batch_size_bytes, 4_096);
        let link = &node.links[0];
        assert_eq!((link.directions, link.migrate_mode()), (Directions::Both, MigrateMode::Forced));
        assert!(link.user_triggers && link.schema_kinds().views && !link.schema_kinds().indexes);
        assert_eq!(link.policy, Policy::Prefer("a".into()));
        assert_eq!(link.policy_tables["stock_*"], Policy::Prefer("b".into()));
        assert_eq!(link.policy_tables["log"], Policy::LastWriteWins);
        assert_eq!(link.seed, Some(Seed::Merge { prefer: "a".into() }));
        assert_eq!(link.max_clock_skew, Duration::from_millis(250));
    }

    #[test]
    fn all_faults_are_told_at_once_with_file_and_key() {
        let text = "name: 007\nspec: { connection_string: '/data/app.db', mode: rw }\nbatch_size: many\ngrace: 10\n\
                    capture: { images: both, retention: { rows: 0 } }\ntables: '*'\nlinks: [{ directions: up }, 3]\n\
                    log: { level: }\nlisten: here\nadmin: yes\n";
        check(
            text,
            &[
                ("name", "the number 7"),
                ("spec.mode", "unknown key; known here: connection_string"),
                ("batch_size", "a whole number from 1 to 1000000, not the text \"many\""),
                ("grace", "250ms"),
                ("capture.images", "key, full"),
                ("capture.retention.rows", "from 1"),
                ("tables", "a list"),
                ("links[0].name", "missing"),
                ("links[0].directions", "send, receive, both"),
                ("links[1]", "the number 3"),
                ("log.level", "leave the key out"),
                ("listen", "host:port"),
                ("admin", "a section"),
            ],
        );
    }

    #[test]
    fn keys_that_do_not_fit_the_link_are_refused_with_the_reason() {
        check(&link("directions: send, write_mode: append"), &[("links[0].write_mode", "belongs to CloudQuery specs")]);
        check(
            &link("directions: send, migrate_mode: safe, seed: a"),
            &[("links[0].migrate_mode", "only sends"), ("links[0].seed", "directions: both")],
        );
        check(
            &link("directions: receive, policy: last_write_wins, max_clock_skew: 5s"),
            &[("links[0].policy", "directions: both"), ("links[0].max_clock_skew", "directions: both")],
        );
        check(&link("directions: both, protect: true"), &[("links[0].protect", "only receives")]);
        check(&link("directions: send, on_type_mismatch: text"), &[("links[0].on_type_mismatch", "cloudquery")]);
        check(
            &link("cloudquery: 'lake:1', peer: 'b:1', compression: lz4, on_type_mismatch: null"),
            &[
                ("links[0].compression", "CloudQuery's protocol"),
                ("links[0].peer", "one or the other"),
                ("links[0].on_type_mismatch", "in quotes"),
            ],
        );
        check(&link("directions: both, seed: merge"), &[("links[0].seed_prefer", "missing")]);
        let receiver = format!(
            "{MINIMAL}skip_tables: [x]\nadmin: {{ listen: 'unix:/tmp/a' }}\nlinks: [{{ name: b, directions: receive, peer: 'b:1' }}]"
        );
        check(&receiver, &[("skip_tables", "only receives"), ("admin.listen", "host:port")]);
        check(&link("directions: receive, schema: [views]"), &[("links[0].schema", "lacks tables")]);
    }

    #[test]
    fn a_cloudquery_destination_has_its_own_spec_and_a_safe_default() {
        let read_link =
            |keys: &str| read(&link(keys), &[("DSN", "/x.db")]).expect("valid").nodes.remove(0).links.remove(0);
        let lake = read_link("cloudquery: 'lake:1', spec: { dsn: '${DSN}', n: 7, on: true, many: [1.5, { a: }] }");
        let spec: serde_json::Value = serde_json::from_str(&lake.cloudquery_spec.clone().expect("one")).expect("JSON");
        assert_eq!(spec, serde_json::json!({"dsn": "/x.db", "n": 7, "on": true, "many": [1.5, {"a": null}]}));
        assert_eq!((lake.directions, lake.migrate_mode()), (Directions::Send, MigrateMode::Safe));
        assert_eq!(read_link("cloudquery: 'lake:1', migrate_mode: forced").migrate_mode(), MigrateMode::Forced);
        check(&link("directions: send, spec: {}"), &[("links[0].spec", "with `cloudquery`")]);
    }

    #[test]
    fn what_makes_no_sense_together_is_refused() {
        let pair =
            "links: [{ name: b, directions: send }, { name: b, directions: send }, { name: a, directions: send }]";
        check(
            &format!("{MINIMAL}listen: 127.0.0.1:1\n{pair}"),
            &[("links[1].name", "names two links"), ("links[2].name", "own name")],
        );
        let nobody = format!("{MINIMAL}links: [{{ name: b, directions: send }}]");
        check(&nobody, &[("links[0].peer", "nobody would dial")]);
        check(&format!("{MINIMAL}tables: ['[']"), &[("tables[0]", "glob")]);
        check(&format!("{MINIMAL}capture: {{ log_table: __cdc_meta }}"), &[("capture.log_table", "__cdc_")]);
        check(&format!("{MINIMAL}capture: {{ log_table: changes }}"), &[("capture.log_table", "__cdc_")]);
        check(&link("directions: both, policy: { prefer: c }"), &[("links[0].policy.prefer", "neither this node")]);
        check("name: a\nspec: { connection_string: ':memory:' }", &[("spec.connection_string", "in memory")]);
        check("name: a\nspec: { connection_string: 'file:a?mode=ro' }", &[("spec.connection_string", "parameters")]);
    }

    fn events(keys: &str) -> String {
        format!("{MINIMAL}events: [{{ name: hook, {keys} }}]")
    }

    #[test]
    fn outputs_of_events_are_read_with_their_secrets_from_elsewhere() {
        let text = events(
            "output: 'https://example.org/h?k=v', tables: [a, 'b_*'], headers: { X-A: 'one ${TOKEN}', x-b: '2' }, \
             retry_for: 5m, timeout: 250ms, batch_size: 7, bootstrap: on, on_gap: stop, blob_encoding: base64, subseconds: off",
        );
        let node = read(&text, &[("TOKEN", "s3cret")]).expect("valid").nodes.remove(0);
        assert!(node.captures() && !node.sends() && !node.merges());
        assert!(!format!("{node:?}").contains("s3cret"), "a secret is not shown by accident");
        let hook = &node.events[0];
        let headers: Vec<_> =
            hook.headers.iter().map(|header| (header.name.as_str(), header.value.as_bytes())).collect();
        assert_eq!(headers, [("x-a", b"one s3cret".as_slice()), ("x-b", b"2")]);
        assert_eq!((hook.retry_for, hook.timeout), (Some(Duration::from_secs(300)), Duration::from_millis(250)));
        assert_eq!((hook.batch_size, hook.bootstrap, hook.subseconds), (7, true, false));
        assert!(hook.selection().has("B_1") && !hook.selection().has("c"));
        assert_eq!((hook.on_gap, hook.blob_encoding), (OnGap::Stop, BlobEncoding::Base64));
        let plain = read(&events("output: json"), &[]).expect("valid").nodes.remove(0).events.remove(0);
        assert_eq!(plain, EventsConfig::defaults("hook", EventOutput::Json));
    }

    #[test]
    fn what_is_wrong_with_an_output_of_events_is_said_at_once() {
        check(
            &events(
                "output: 'ftp://x', batch_size: 0, on_gap: skip, headers: { a: [], Host: x, 'b c': d }, tables: ['['], to: x",
            ),
            &[
                ("events[0].output", "wants -, json, or a URL"),
                ("events[0].batch_size", "from 1"),
                ("events[0].on_gap", "resync, stop"),
                ("events[0].headers.a", "wants a word"),
                ("events[0].headers.Host", "set by Twinlite"),
                ("events[0].headers.b c", "no name"),
                ("events[0].tables[0]", "glob"),
                ("events[0].to", "unknown key"),
            ],
        );
        check(
            &events("output: '-', headers: { a: b }, timeout: 1s, retry_for: 1s, blob_encoding: hex"),
            &[
                ("events[0].headers", "is a URL"),
                ("events[0].timeout", "is a URL"),
                ("events[0].retry_for", "is a URL"),
                ("events[0].blob_encoding", "says none"),
            ],
        );
        let mirror = format!("{}\nlinks: [{{ name: b, directions: receive, peer: 'b:1' }}]", events("output: json"));
        check(&mirror, &[("events", "only receives")]);
        check(&format!("{MINIMAL}events: [{{}}]"), &[("events[0].name", "missing"), ("events[0].output", "missing")]);
        let several = format!(
            "{MINIMAL}listen: 127.0.0.1:1\nlinks: [{{ name: b, directions: send }}]\nevents: [{{ name: b, output: json }}, \
             {{ name: c, output: '-' }}, {{ name: c, output: 'http://x' }}]"
        );
        check(
            &several,
            &[
                ("events[0].name", "already"),
                ("events[2].name", "already"),
                ("events[1].output", "a second one on stdout"),
            ],
        );
    }

    #[test]
    fn listening_beyond_loopback_has_to_be_said_out_loud() {
        let open = format!("{MINIMAL}listen: 0.0.0.0:1\nadmin: {{ listen: '0.0.0.0:2' }}\n");
        check(&open, &[("listen", "insecure: true"), ("admin.listen", "insecure: true")]);
        assert!(read(&format!("{open}insecure: true"), &[]).is_ok());
        assert!(read(&format!("{MINIMAL}listen: unix:/run/x.sock"), &[]).is_ok());
    }

    #[test]
    fn several_nodes_in_one_file_share_nothing_but_the_log() {
        let nodes = "nodes:\n- { name: a, spec: { connection_string: a.db } }\n- { name: b, spec: { connection_string: b.db } }";
        assert_eq!(read(nodes, &[]).expect("valid").nodes.len(), 2);
        let same = nodes.replace("b.db", "a.db").replace("name: b", "name: a");
        check(&same, &[("nodes[1].name", "twice"), ("nodes[1].spec.connection_string", "twice")]);
        check("nodes: []", &[("nodes", "no node")]);
        check(&format!("{nodes}\ngrace: 1s"), &[("grace", "unknown key")]);
        let one = "nodes: [{ name: a, spec: { connection_string: a.db }, listen: '0.0.0.0:1' }]";
        check(one, &[("nodes[0].listen", "insecure")]);
    }

    #[test]
    fn the_environment_reaches_maps_and_references_reach_everything() {
        let variables = [
            ("TWINLITE__SPEC__CONNECTION_STRING", "/data/007"),
            ("TWINLITE__CAPTURE__RETENTION__ROWS", "12"),
            ("TWINLITE__NAME", "007"),
            ("TWINLITE_FAILPOINT", "none of these"),
            ("PEER", "b:1"),
        ];
        let text = format!("{MINIMAL}links: [{{ name: b, directions: send, peer: '${{PEER}}' }}]");
        let node = read(&text, &variables).expect("valid").nodes.remove(0);
        assert_eq!((node.name.as_str(), node.database.to_str()), ("007", Some("/data/007")));
        assert_eq!(node.capture.retention.rows, 12);
        assert_eq!(node.links[0].peer.as_deref(), Some("b:1"));
        let wrong = read(MINIMAL, &[("TWINLITE__BATCH_SIZE", "ten"), ("TWINLITE__NO__SUCH", "1")]).expect_err("faults");
        let wrong = wrong.to_string();
        assert!(wrong.contains("environment: batch_size: ") && wrong.contains("no: unknown key"), "{wrong}");
        check(&format!("{MINIMAL}spool_dir: ${{NOWHERE}}"), &[("spool_dir", "not set")]);
    }

    #[test]
    fn a_uri_names_the_same_file_as_a_path() {
        for (uri, path) in [("file:///d/a%20b.db", "/d/a b.db"), ("file:a.db", "a.db"), ("file://localhost/a", "/a")] {
            let text = format!("name: a\nspec: {{ connection_string: '{uri}' }}");
            assert_eq!(read(&text, &[]).expect("valid").nodes[0].database.to_str(), Some(path));
        }
    }

    #[test]
    fn text_that_is_no_yaml_names_the_file() {
        let error = read("name: [", &[]).expect_err("no YAML");
        assert!(matches!(error, Error::Syntax { .. }) && error.to_string().starts_with("x.yaml"), "{error}");
        assert!(matches!(read("name: a\nname: b", &[]), Err(Error::Syntax { .. })));
    }

    #[test]
    fn images_are_those_of_keys_unless_they_are_full() {
        let images = |capture: &str| {
            let text = format!("{}\n{capture}", link("directions: send"));
            let capture = read(&text, &[]).expect("valid").nodes[0].capture.clone();
            (capture.images, capture.images_if_new)
        };
        use crate::config::Images;
        assert_eq!(images(""), (Images::Key, true));
        assert_eq!(images("capture: { images: full }"), (Images::Full, false));
        let events = "events: [{ name: e, output: json }]";
        assert_eq!(images(events), (Images::Full, true), "events have images, unless a log has keys already");
        assert_eq!(images(&format!("{events}\ncapture: {{ images: key }}")), (Images::Key, false));
    }

    #[test]
    fn the_pair_that_compose_mounts_is_valid_and_fits() {
        let source = parse(include_str!("../../config/source.yaml"), "source.yaml", &BTreeMap::new()).expect("valid");
        let replica =
            parse(include_str!("../../config/replica.yaml"), "replica.yaml", &BTreeMap::new()).expect("valid");
        let (source, replica) = (&source.nodes[0], &replica.nodes[0]);
        assert_eq!((&source.links[0].name, &replica.links[0].name), (&replica.name, &source.name));
        assert_eq!(replica.links[0].peer.as_deref(), Some("source:7745"));
    }

    /// A line of the reference that holds a key: where it is, and what its comment says.
    struct Line {
        at: usize,
        key: String,
        comment: String,
    }

    fn reference_lines() -> Vec<Line> {
        let mut lines = Vec::new();
        for (at, line) in REFERENCE.lines().enumerate() {
            let Some((key, rest)) = line.trim_start().trim_start_matches("- ").split_once(':') else { continue };
            if !key.starts_with('#') {
                let comment = rest.split_once("# ").map_or("", |(_, comment)| comment);
                lines.push(Line { at, key: key.to_owned(), comment: comment.to_owned() });
            }
        }
        lines
    }

    #[test]
    fn the_reference_has_every_key_of_the_code_and_no_other() {
        let (_, findings) = examine(REFERENCE, "reference.yaml", &BTreeMap::new()).expect("YAML");
        assert_eq!(findings.faults, [], "a key that the code does not know, or a wrong value");
        let keys: Vec<String> = reference_lines().into_iter().map(|line| line.key).collect();
        let refused = ["write_mode"];
        for asked in &findings.asked {
            let name = asked.rsplit('.').next().expect("a part");
            assert!(refused.contains(&name) || keys.iter().any(|key| key == name), "{asked} is not in the reference");
        }
        assert!(REFERENCE.contains("nodes: ["), "the other form of the file");
    }

    #[test]
    fn the_reference_says_every_default_as_the_code_has_it() {
        let whole = read(REFERENCE, &[]).expect("valid");
        let lines: Vec<&str> = REFERENCE.lines().collect();
        let mut compared = 0;
        for Line { at, key, comment } in reference_lines() {
            if !comment.contains("default") || comment.contains("no default") || key == "links" || key == "events" {
                continue;
            }
            if key == "policy_tables" || key == "headers" {
                continue; // The default is nothing, which is shown by an example.
            }
            let without = [&lines[..at], &lines[at + 1..]].concat().join("\n");
            let found = read(&without, &[]).unwrap_or_else(|error| panic!("without {key}: {error}"));
            // Said or not said, a link does the same; only the struct remembers which.
            assert_eq!(meant(&found), meant(&whole), "without {key}, which is said to be its default");
            compared += 1;
        }
        assert!(compared >= 20, "{compared}");
    }

    fn meant(config: &Config) -> Config {
        let mut config = config.clone();
        // Said or not said, it is the same for a database that is new.
        config.nodes.iter_mut().for_each(|node| node.capture.images_if_new = false);
        for link in config.nodes.iter_mut().flat_map(|node| &mut node.links) {
            (link.migrate_mode, link.schema) = (Some(link.migrate_mode()), Some(link.schema_kinds()));
        }
        config
    }

    #[test]
    fn every_key_of_the_reference_says_what_holds_without_it() {
        let sections = ["spec", "capture", "retention", "admin", "cloudquery", "log"];
        let mut seen = std::collections::BTreeSet::new();
        for Line { key, comment, .. } in reference_lines() {
            let says = ["required", "default"].iter().any(|word| comment.contains(word));
            // A key of a link is explained where it first stands.
            assert!(says || sections.contains(&key.as_str()) || seen.contains(&key), "{key}: {comment}");
            seen.insert(key);
        }
    }
}
