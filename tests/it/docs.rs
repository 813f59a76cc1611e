//! What the documentation tells people to write is what the program reads.

use std::collections::BTreeMap;

use twinlite::cloudquery::destination::Spec;
use twinlite::cloudquery::engine;

use crate::support::Place;

/// The YAML examples of a page, in order.
fn examples(page: &str) -> Vec<String> {
    let blocks = page.split("```yaml\n").skip(1);
    blocks.map(|block| block.split("```").next().unwrap_or_default().to_owned()).collect()
}

#[test]
fn the_examples_for_cloudquery_are_specifications() {
    let examples = examples(include_str!("../../docs/cloudquery.md"));
    let [destination, source, node] = examples.as_slice() else { panic!("{} examples", examples.len()) };
    let both = format!("{source}---\n{destination}");
    let spec = engine::parse(&both, "spec.yaml", &BTreeMap::new()).unwrap_or_else(|error| panic!("{error}\n{both}"));
    assert_eq!((spec.sources.len(), spec.destinations.len()), (1, 1));
    let plugins = [&spec.sources[0].plugin, &spec.destinations[0].plugin];
    for plugin in plugins {
        let own = Spec::parse(&serde_json::to_vec(&plugin.spec).unwrap())
            .unwrap_or_else(|error| panic!("{error}: {}", plugin.spec));
        assert!(own.connection_string.ends_with(".db"), "{own:?}");
    }
    let place = Place::new();
    let file = place.file("node.yaml");
    std::fs::write(&file, node).unwrap();
    let config = twinlite::config::load(&file).unwrap_or_else(|error| panic!("{error}\n{node}"));
    assert_eq!(config.nodes[0].links[0].cloudquery.as_deref(), Some("lake:7777"));
    assert!(config.not_built_yet().is_empty());
}
