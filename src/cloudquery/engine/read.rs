//! From a file to a [`Spec`]: mask, parse, read document by document, and check what one document alone cannot tell.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value as Json;

use super::section::{Findings, Section, said};
use super::yaml::{Node, Value};
use super::{
    Backend, DestinationSpec, Error, MigrateMode, PkMode, PluginSpec, Registry, SourceSpec, Spec, WriteMode, expand,
    group, yaml,
};
use crate::cloudquery::client::Address;

/// What a registry that is not supported can be replaced by.
const REGISTRIES: &str = "twinlite sync knows grpc (a plugin that runs already; `path` is its host:port), local (a program; \
                          `path` is its file) and embedded (Twinlite itself; no `path`)";

/// Reads a file, with this process's environment.
///
/// # Errors
/// [`Error::Read`], or [`Error::Spec`] with every fault.
pub fn load(path: &Path) -> Result<Spec, Error> {
    let text = std::fs::read_to_string(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
    let pairs =
        std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    parse(&text, &path.display().to_string(), &pairs.collect())
}

/// Reads a specification's text. `file` is what faults call it; `environment` takes the place of the process's.
///
/// # Errors
/// [`Error::Spec`] with every fault.
pub fn parse(text: &str, file: &str, environment: &BTreeMap<String, String>) -> Result<Spec, Error> {
    let mut findings = Findings { file, document: 0, faults: Vec::new() };
    let masked = expand::mask(text);
    let nodes = match yaml::documents(&masked, environment) {
        Ok((nodes, faults)) => {
            for fault in faults {
                findings.fault(fault.line, "", fault.what);
            }
            nodes
        }
        Err(fault) => {
            findings.fault(fault.line, "", fault.what);
            return Err(Error::Spec { faults: findings.faults });
        }
    };
    let mut read = Read::default();
    for (at, node) in nodes.into_iter().enumerate() {
        findings.document = at + 1;
        document(node, &mut findings, &mut read);
    }
    check(&read, &mut findings);
    findings.faults.sort_by_key(|fault| if fault.line == 0 { usize::MAX } else { fault.line });
    if findings.faults.is_empty() { Ok(read.into_spec()) } else { Err(Error::Spec { faults: findings.faults }) }
}

/// What was read, with its places for later faults.
#[derive(Default)]
struct Read {
    sources: Vec<(SourceSpec, Places)>,
    destinations: Vec<(DestinationSpec, Places)>,
}

/// Where in the file something is said.
#[derive(Default)]
struct Places {
    document: usize,
    name: usize,
    spec: usize,
    destinations: Vec<usize>,
    backend: usize,
}

impl Read {
    fn into_spec(self) -> Spec {
        Spec {
            sources: self.sources.into_iter().map(|(source, _)| source).collect(),
            destinations: self.destinations.into_iter().map(|(destination, _)| destination).collect(),
        }
    }
}

fn document(node: Node, findings: &mut Findings<'_>, read: &mut Read) {
    let mut root = Section::new(node, "", findings);
    let kinds = "source or destination";
    let (kind, line) = root.required("kind", kinds);
    let spec = root.take("spec");
    let spec_line = root.line("spec");
    match kind.as_str() {
        "source" | "destination" if spec.is_none() => root.fault(spec_line, "spec", "missing: what is to be done"),
        "source" | "destination" | "" => {}
        "transformer" => root.fault(line, "kind", "transformers are not run by twinlite sync; remove the document"),
        other => root.fault(line, "kind", format!("wants {kinds}, not {other:?}")),
    }
    root.finish();
    let Some(spec) = spec else { return };
    let places = Places { document: findings.document, ..Places::default() };
    let section = Section::new(spec, "spec", findings);
    match kind.as_str() {
        "source" => read.sources.push(source(section, places)),
        "destination" => read.destinations.push(destination(section, places)),
        _ => {}
    }
}

fn source(mut section: Section<'_, '_>, mut places: Places) -> (SourceSpec, Places) {
    let plugin = plugin(&mut section, &mut places);
    let tables = required_texts(&mut section, "tables", "the globs of the tables to sync, such as [\"*\"]");
    let skip_tables = section.texts("skip_tables").unwrap_or_default();
    let destinations = required_texts(&mut section, "destinations", "the names of the destinations to sync to");
    places.destinations = destinations.iter().map(|(_, line)| *line).collect();
    places.backend = section.line("backend_options");
    let backend = section.section("backend_options").map(|mut section| {
        let (table_name, _) = section.required("table_name", "the table of the state");
        let (connection, _) = section.required("connection", "where it is, mostly @@plugins.NAME.connection");
        section.finish();
        Backend { table_name, connection }
    });
    let skip_dependent_tables = section.truth("skip_dependent_tables").unwrap_or(true);
    let deterministic_cq_id = section.truth("deterministic_cq_id").unwrap_or(false);
    // Known, so that a file for the CLI works; nothing is traced here.
    section.text("otel_endpoint");
    section.truth("otel_endpoint_insecure");
    section.finish();
    let names = |texts: Vec<(String, usize)>| texts.into_iter().map(|(text, _)| text).collect();
    let source = SourceSpec {
        plugin,
        tables: names(tables),
        skip_tables: names(skip_tables),
        skip_dependent_tables,
        destinations: names(destinations),
        backend,
        deterministic_cq_id,
    };
    (source, places)
}

fn destination(mut section: Section<'_, '_>, mut places: Places) -> (DestinationSpec, Places) {
    let plugin = plugin(&mut section, &mut places);
    let write_mode = section.word(
        "write_mode",
        &[
            ("overwrite-delete-stale", WriteMode::OverwriteDeleteStale),
            ("overwrite", WriteMode::Overwrite),
            ("append", WriteMode::Append),
        ],
    );
    let migrate_mode = section.word("migrate_mode", &[("safe", MigrateMode::Safe), ("forced", MigrateMode::Forced)]);
    let pk_mode = section.word("pk_mode", &[("default", PkMode::Default), ("cq-id-only", PkMode::CqIdOnly)]);
    let (group, group_line) = section.text("sync_group_id").unwrap_or_default();
    let write_mode = write_mode.unwrap_or(WriteMode::OverwriteDeleteStale);
    if !group.is_empty() && write_mode == WriteMode::OverwriteDeleteStale {
        let what = "cannot go with write_mode overwrite-delete-stale, which would delete the other groups' rows; set \
                    write_mode to overwrite or append";
        section.fault(group_line, "sync_group_id", what);
    }
    if let Err(what) = group::check(&group) {
        section.fault(group_line, "sync_group_id", what);
    }
    let transformers = section.texts("transformers").unwrap_or_default();
    if let Some((_, line)) = transformers.first() {
        section.fault(*line, "transformers", "transformers are not run by twinlite sync; remove the key");
    }
    let send_sync_summary = section.truth("send_sync_summary").unwrap_or(false);
    section.finish();
    let destination = DestinationSpec {
        plugin,
        write_mode,
        migrate_mode: migrate_mode.unwrap_or(MigrateMode::Safe),
        pk_mode: pk_mode.unwrap_or(PkMode::Default),
        sync_group_id: group,
        send_sync_summary,
    };
    (destination, places)
}

fn required_texts(section: &mut Section<'_, '_>, key: &'static str, what: &str) -> Vec<(String, usize)> {
    let (there, line) = (section.has(key), section.line(key));
    let texts = section.texts(key);
    if !there || texts.as_ref().is_some_and(Vec::is_empty) {
        section.fault(line, key, format!("missing: {what}"));
    }
    texts.unwrap_or_default()
}

fn plugin(section: &mut Section<'_, '_>, places: &mut Places) -> PluginSpec {
    let (name, line) = section.required("name", "what it is called here");
    places.name = line;
    let registry_line = section.line("registry");
    let registry = section.text("registry").map_or_else(|| "cloudquery".to_owned(), |(text, _)| text);
    let (path, path_line) = section.text("path").unwrap_or((String::new(), registry_line));
    let version = section.text("version").map(|(text, _)| text).unwrap_or_default();
    // A token for images: known, and of no use without them.
    section.text("docker_registry_auth_token");
    let (registry, fault) = registry_of(&registry, &path);
    if let Some((key, what)) = fault {
        section.fault(if key == "path" { path_line } else { registry_line }, key, what);
    }
    places.spec = section.line("spec");
    let spec = own_spec(section);
    PluginSpec { name, registry, path, version, spec }
}

/// Where a plugin comes from, or the key that is wrong and why.
fn registry_of(registry: &str, path: &str) -> (Registry, Option<(&'static str, String)>) {
    let wrong = |key: &'static str, what: String| (Registry::Embedded, Some((key, what)));
    match registry {
        "grpc" => match Address::parse(path) {
            Some(address) => (Registry::Grpc(address), None),
            None if path.is_empty() => wrong("path", "missing: the host:port where the plugin listens".to_owned()),
            None => wrong("path", format!("wants host:port or unix:///path/to/socket, not {path:?}")),
        },
        "local" if path.is_empty() => wrong("path", "missing: the program's file".to_owned()),
        "local" => (Registry::Local(path.into()), None),
        "embedded" if path.is_empty() => (Registry::Embedded, None),
        "embedded" => wrong(
            "path",
            "means nothing with `registry: embedded`; leave it out: the database is spec.connection_string".to_owned(),
        ),
        "cloudquery" | "github" => {
            let default = if registry == "cloudquery" { ", the default," } else { "" };
            let what = format!(
                "{registry}{default} downloads plugins and may need a login, which is not done here; {REGISTRIES}. Download \
                 the plugin yourself and say local, or run it and say grpc"
            );
            wrong("registry", what)
        }
        "docker" => wrong(
            "registry",
            format!(
                "docker runs images, which is not done here; {REGISTRIES}. Run the image yourself \
                     (docker run -p 7777:7777 IMAGE serve --address 0.0.0.0:7777) and say grpc with path localhost:7777"
            ),
        ),
        other => wrong("registry", format!("{other:?} is unknown; {REGISTRIES}")),
    }
}

/// The plugin's own part: any map, or nothing.
fn own_spec(section: &mut Section<'_, '_>) -> Json {
    match section.take("spec") {
        None => Json::Null,
        Some(node @ Node { value: Value::Map(_), .. }) => node.into_json(),
        Some(node) => {
            section.fault(node.line, "spec", format!("wants a map, the plugin's own, not {}", said(&node.value)));
            Json::Null
        }
    }
}

/// What no document alone can tell.
fn check(read: &Read, findings: &mut Findings<'_>) {
    findings.document = 0;
    if read.sources.is_empty() {
        findings.fault(0, "", "no document with `kind: source`; a sync needs one");
    }
    if read.destinations.is_empty() {
        findings.fault(0, "", "no document with `kind: destination`; a sync needs one");
    }
    let sources = read.sources.iter().map(|(source, places)| (&source.plugin, places));
    twice(sources, "source", findings);
    let destinations = read.destinations.iter().map(|(destination, places)| (&destination.plugin, places));
    twice(destinations, "destination", findings);
    for (source, places) in &read.sources {
        findings.document = places.document;
        check_destinations(source, places, read, findings);
        check_addresses(source, places, read, findings);
        connections_of(&source.plugin.spec.to_string(), (places.spec, "spec.spec"), read, findings);
        if let Some(backend) = &source.backend {
            let place = (places.backend, "spec.backend_options.connection");
            connections_of(&backend.connection, place, read, findings);
        }
    }
}

fn check_destinations(source: &SourceSpec, places: &Places, read: &Read, findings: &mut Findings<'_>) {
    let mut seen = Vec::new();
    for (at, (name, line)) in source.destinations.iter().zip(&places.destinations).enumerate() {
        let key = format!("spec.destinations[{at}]");
        if seen.contains(&name) {
            findings.fault(*line, &key, format!("{name:?} is there twice"));
        } else if !read.destinations.iter().any(|(destination, _)| destination.plugin.name == *name) {
            findings.fault(*line, &key, format!("no `kind: destination` is called {name:?}"));
        }
        seen.push(name);
    }
}

/// A plugin has one spec at a time: what is told to a source last would be where its destination writes to.
fn check_addresses(source: &SourceSpec, places: &Places, read: &Read, findings: &mut Findings<'_>) {
    let mut seen = vec![(&source.plugin, "source")];
    for (at, (name, line)) in source.destinations.iter().zip(&places.destinations).enumerate() {
        let known = read.destinations.iter().find(|(destination, _)| destination.plugin.name == *name);
        let Some(plugin) = known.map(|(destination, _)| &destination.plugin) else { continue };
        // A source and a destination may have one name; a destination that is there twice is told elsewhere.
        let is_itself = |(other, kind): &(&PluginSpec, &str)| *kind == "destination" && other.name == plugin.name;
        let shared = seen.iter().find(|other| is_same(other.0, plugin) && !is_itself(other));
        if let Some((other, kind)) = shared {
            let what = format!(
                "{name:?} is at {}, where {kind} {:?} is too, and a plugin has one spec at a time; serve another one at \
                 another address",
                plugin.path, other.name
            );
            findings.fault(*line, &format!("spec.destinations[{at}]"), what);
        }
        seen.push((plugin, "destination"));
    }
}

/// Whether two specs lead to one plugin that runs already.
fn is_same(one: &PluginSpec, other: &PluginSpec) -> bool {
    let place = |plugin: &PluginSpec| match &plugin.registry {
        Registry::Grpc(Address::Tcp(host)) => {
            let (host, port) = host.rsplit_once(':')?;
            let host = if ["127.0.0.1", "[::1]"].contains(&host) { "localhost" } else { host };
            Some(Address::Tcp(format!("{host}:{port}")))
        }
        Registry::Grpc(address) => Some(address.clone()),
        Registry::Local(_) | Registry::Embedded => None,
    };
    place(one).is_some_and(|place_of_one| place(other) == Some(place_of_one))
}

fn twice<'a>(plugins: impl Iterator<Item = (&'a PluginSpec, &'a Places)>, kind: &str, findings: &mut Findings<'_>) {
    let mut seen: Vec<&str> = Vec::new();
    for (plugin, places) in plugins {
        findings.document = places.document;
        if !plugin.name.is_empty() && seen.contains(&plugin.name.as_str()) {
            findings.fault(places.name, "spec.name", format!("another {kind} is called {:?} already", plugin.name));
        }
        seen.push(&plugin.name);
    }
}

fn connections_of(text: &str, (line, key): (usize, &str), read: &Read, findings: &mut Findings<'_>) {
    match expand::connections(text) {
        Err(what) => findings.fault(line, key, what),
        Ok(names) => {
            for name in names {
                if !read.destinations.iter().any(|(destination, _)| destination.plugin.name == name) {
                    let what = format!("@@plugins.{name}.connection: no `kind: destination` is called {name:?}");
                    findings.fault(line, key, what);
                }
            }
        }
    }
}
