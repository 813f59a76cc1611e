//! What one key alone cannot tell: whether the whole makes sense, and whether this version can do it.

use std::collections::BTreeSet;

use super::ConfigFault;
use super::address::is_loopback;
use super::events::{EventOutput, EventsConfig};
use super::settings::{Config, LinkConfig, NodeConfig, Policy, Seed};
use crate::model::{Selection, is_log_name};

/// Every fault of the whole. Values that were faulty by themselves are empty here, and told already.
/// `in_list`: the file has them in `nodes`.
pub(super) fn config(config: &Config, file: &str, in_list: bool) -> Vec<ConfigFault> {
    let mut check = Check { file, in_list, node: String::new(), faults: Vec::new() };
    for (at, node) in config.nodes.iter().enumerate() {
        check.enter(at);
        check.node(node);
    }
    check.between(&config.nodes);
    check.faults
}

struct Check<'a> {
    file: &'a str,
    in_list: bool,
    node: String,
    faults: Vec<ConfigFault>,
}

impl Check<'_> {
    fn enter(&mut self, at: usize) {
        self.node = if self.in_list { format!("nodes[{at}].") } else { String::new() };
    }

    fn fault(&mut self, key: &str, what: impl Into<String>) {
        let key = format!("{}{key}", self.node);
        self.faults.push(ConfigFault { file: self.file.to_owned(), key, what: what.into() });
    }

    fn node(&mut self, node: &NodeConfig) {
        self.name("name", &node.name);
        for (key, globs) in [("tables", &node.tables), ("skip_tables", &node.skip_tables)] {
            self.globs(key, globs);
        }
        self.tables_of_a_receiver(node);
        self.log_table(&node.capture.log_table);
        for (key, address) in [
            ("listen", &node.listen),
            ("admin.listen", &node.admin_listen),
            ("cloudquery.listen", &node.cloudquery_listen),
        ] {
            self.listen(key, address.as_deref(), node.insecure);
        }
        let mut names = BTreeSet::new();
        for (at, link) in node.links.iter().enumerate() {
            let key = format!("links[{at}]");
            if !link.name.is_empty() && !names.insert(link.name.as_str()) {
                self.fault(&format!("{key}.name"), format!("{:?} names two links; one link a peer", link.name));
            }
            self.link(&key, link, node);
        }
        if !node.events.is_empty() && !node.links.is_empty() && !node.sends() {
            self.fault(
                "events",
                "has nothing to say: this node only receives, and what comes from a peer is an event where it was made; put \
                 it there",
            );
        }
        for (at, events) in node.events.iter().enumerate() {
            let key = format!("events[{at}]");
            if !events.name.is_empty() && !names.insert(events.name.as_str()) {
                let what = format!(
                    "{:?} is already the name of a link or an output; each reads the log by its own",
                    events.name
                );
                self.fault(&format!("{key}.name"), what);
            }
            self.events(&key, events);
        }
    }

    fn events(&mut self, key: &str, events: &EventsConfig) {
        self.name(&format!("{key}.name"), &events.name);
        self.globs(&format!("{key}.tables"), &events.tables);
    }

    /// Which tables travel to a node is said where they are captured, or by its link.
    fn tables_of_a_receiver(&mut self, node: &NodeConfig) {
        let only_receives = !node.links.is_empty() && !node.captures() && node.cloudquery_listen.is_none();
        if !only_receives {
            return;
        }
        for (key, given) in [("tables", node.tables != ["*"]), ("skip_tables", !node.skip_tables.is_empty())] {
            if given {
                self.fault(key, "says what is captured, and this node only receives; say it at the source, or in the link's `tables`");
            }
        }
    }

    fn name(&mut self, key: &str, name: &str) {
        if name.chars().any(|c| c.is_control()) || name.trim() != name || name.len() > 200 {
            self.fault(key, "is no name: at most 200 bytes, no control characters, no spaces around it");
        }
    }

    fn globs(&mut self, key: &str, globs: &[String]) {
        for (at, glob) in globs.iter().enumerate() {
            if let Err(error) = Selection::new(std::slice::from_ref(glob), &[]) {
                self.fault(&format!("{key}[{at}]"), format!("is no glob ({error}); as in order_*"));
            }
        }
    }

    fn log_table(&mut self, name: &str) {
        if !is_log_name(name) {
            self.fault(
                "capture.log_table",
                "wants a name that begins with __cdc_ (by which everything of Twinlite's is told) and is not another table's",
            );
        }
    }

    fn listen(&mut self, key: &str, address: Option<&str>, insecure: bool) {
        if key == "admin.listen" && address.is_some_and(|address| address.starts_with("unix:")) {
            return self.fault(key, "is served over HTTP and wants host:port, as in 127.0.0.1:7746");
        }
        let Some(address) = address.filter(|address| !address.is_empty() && !insecure && !is_loopback(address)) else {
            return;
        };
        self.fault(
            key,
            format!(
                "{address} can be reached from other machines, in plain text and by anyone; listen on 127.0.0.1, or say \
                 insecure: true if the network is private"
            ),
        );
    }

    fn link(&mut self, key: &str, link: &LinkConfig, node: &NodeConfig) {
        self.name(&format!("{key}.name"), &link.name);
        if !link.name.is_empty() && link.name == node.name {
            self.fault(&format!("{key}.name"), "is this node's own name; a link has its peer's");
        }
        if link.peer.is_none() && link.cloudquery.is_none() && node.listen.is_none() {
            let what = "nobody would dial: give the link a `peer`, or the node a `listen`";
            self.fault(&format!("{key}.peer"), what);
        }
        self.globs(&format!("{key}.tables"), &link.tables);
        self.globs(&format!("{key}.policy_tables"), &link.policy_tables.keys().cloned().collect::<Vec<_>>());
        self.one_of_the_two(&format!("{key}.policy.prefer"), preferred(&link.policy), link, node);
        for (glob, policy) in &link.policy_tables {
            self.one_of_the_two(&format!("{key}.policy_tables.{glob}.prefer"), preferred(policy), link, node);
        }
        if link.seed.is_some() && !node.merges() {
            self.fault(
                &format!("{key}.seed"),
                "belongs to a link with `directions: both`; one way, the source wins".to_owned(),
            );
        }
        match &link.seed {
            None => {}
            Some(Seed::Node(name)) => self.one_of_the_two(&format!("{key}.seed"), Some(name), link, node),
            Some(Seed::Merge { prefer }) => {
                self.one_of_the_two(&format!("{key}.seed_prefer"), Some(prefer), link, node);
            }
        }
    }

    fn one_of_the_two(&mut self, key: &str, name: Option<&str>, link: &LinkConfig, node: &NodeConfig) {
        let Some(name) = name.filter(|name| !name.is_empty()) else { return };
        if name != link.name && name != node.name {
            self.fault(key, format!("{name:?} is neither this node ({:?}) nor the peer ({:?})", node.name, link.name));
        }
    }

    /// What two nodes of one process cannot share.
    fn between(&mut self, nodes: &[NodeConfig]) {
        let mut taken = BTreeSet::new();
        for (at, node) in nodes.iter().enumerate() {
            self.enter(at);
            let database = node.database.display().to_string();
            for (key, value) in [
                ("name", Some(&node.name)),
                ("spec.connection_string", Some(&database)),
                ("listen", node.listen.as_ref()),
                ("admin.listen", node.admin_listen.as_ref()),
                ("cloudquery.listen", node.cloudquery_listen.as_ref()),
            ] {
                let Some(value) = value.filter(|value| !value.is_empty()) else { continue };
                // All addresses of a process share one namespace; `:0` is a free port each time.
                let kind = if key.ends_with("listen") { "listen" } else { key };
                if !value.ends_with(":0") && !taken.insert((kind, value.clone())) {
                    self.fault(key, format!("{value:?} is used twice in this file"));
                }
            }
            let on_stdout = |events: &EventsConfig| matches!(events.output, EventOutput::Lines | EventOutput::Json);
            for (at, _) in node.events.iter().enumerate().filter(|(_, events)| on_stdout(events)) {
                if !taken.insert(("stdout", String::new())) {
                    let what =
                        "is a second one on stdout, where nobody could tell the two apart; one for the whole file";
                    self.fault(&format!("events[{at}].output"), what);
                }
            }
        }
    }
}

fn preferred(policy: &Policy) -> Option<&str> {
    match policy {
        Policy::LastWriteWins => None,
        Policy::Prefer(name) => Some(name),
    }
}
