//! The plugins of a run: connected or started before anything is synced, stopped when all is over.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;
use tokio::time::timeout;

use super::{Embedded, Error, PluginSpec, Registry, Running, Spec, expand};
use crate::cloudquery::client::{self, LocalOptions, LocalPlugin, LogTally, PluginClient};

/// How long a program that has closed its connection may take to be seen to have ended.
const ENDED_WITHIN: Duration = Duration::from_millis(500);

/// One plugin of a specification, connected.
pub(super) struct Plugin {
    pub name: String,
    pub client: PluginClient,
    life: Life,
}

/// Who ends it.
enum Life {
    /// Whoever started it, elsewhere.
    Elsewhere,
    Local(Box<LocalPlugin>),
    Embedded(Running),
}

/// Warnings and errors of a plugin's log.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Complaints {
    pub warnings: u64,
    pub errors: u64,
}

impl Complaints {
    /// What has come since an earlier count.
    pub(super) fn since(self, earlier: Self) -> Self {
        Self { warnings: self.warnings - earlier.warnings, errors: self.errors - earlier.errors }
    }
}

impl Plugin {
    /// What it complained about so far; nothing is known of a plugin whose log goes elsewhere.
    pub(super) fn complaints(&self) -> Complaints {
        match &self.life {
            Life::Local(local) => {
                let tally: Arc<LogTally> = local.tally();
                Complaints { warnings: tally.warnings(), errors: tally.errors() }
            }
            Life::Elsewhere | Life::Embedded(_) => Complaints::default(),
        }
    }

    async fn stop(self) {
        drop(self.client);
        match self.life {
            Life::Local(local) => local.stop().await,
            Life::Embedded(running) => running.stop().await,
            Life::Elsewhere => {}
        }
    }
}

/// All plugins of a run.
#[derive(Default)]
pub(super) struct Plugins {
    pub sources: Vec<Plugin>,
    pub destinations: Vec<Plugin>,
}

/// What starting needs to know.
pub(super) struct Starter<'a> {
    pub embedded: Option<&'a dyn Embedded>,
    pub log_level: &'a str,
}

impl Plugins {
    /// Starts what is used: sources first, in the file's order.
    pub(super) async fn start(&mut self, spec: &Spec, starter: &Starter<'_>) -> Result<(), Error> {
        for source in &spec.sources {
            self.sources.push(starter.start("source", &source.plugin).await?);
        }
        for destination in &spec.destinations {
            if used(spec, &destination.plugin.name) {
                self.destinations.push(starter.start("destination", &destination.plugin).await?);
            } else {
                tracing::warn!(destination = destination.plugin.name, "no source writes to this destination");
            }
        }
        Ok(())
    }

    /// A destination by its name.
    pub(super) fn destination(&self, name: &str) -> Option<&Plugin> {
        self.destinations.iter().find(|plugin| plugin.name == name)
    }

    /// Adds to a failure that the plugin's program has ended, where that is why.
    pub(super) async fn explain(&mut self, error: Error) -> Error {
        let Error::Plugin(why) = &error else { return error };
        let (client::Error::Call { plugin, .. } | client::Error::WriteEnded { plugin, .. }) = &**why else {
            return error;
        };
        let failed = plugin.clone();
        let all = self.sources.iter_mut().chain(&mut self.destinations);
        for plugin in all.filter(|plugin| plugin.client.plugin() == failed) {
            if let Life::Local(local) = &mut plugin.life
                && let Ok(status) = timeout(ENDED_WITHIN, local.wait()).await
            {
                return match status {
                    Some(status) => Error::Died { plugin: failed, status, source: Box::new(error) },
                    None => error,
                };
            }
        }
        error
    }

    /// Stops what was started here, all at once.
    pub(super) async fn stop(self) {
        let all = self.sources.into_iter().chain(self.destinations);
        futures_util::future::join_all(all.map(Plugin::stop)).await;
    }
}

impl Starter<'_> {
    async fn start(&self, kind: &str, spec: &PluginSpec) -> Result<Plugin, Error> {
        let plugin = format!("{kind} {:?}", spec.name);
        let (client, life) = match &spec.registry {
            Registry::Grpc(address) => (PluginClient::connect(&plugin, address).await?, Life::Elsewhere),
            Registry::Local(path) => {
                let options = LocalOptions { plugin, path: path.clone(), log_level: self.log_level.to_owned() };
                let (local, client) = LocalPlugin::start(&options).await?;
                (client, Life::Local(Box::new(local)))
            }
            Registry::Embedded => {
                let Some(embedded) = self.embedded else { return Err(Error::NotProvided { plugin }) };
                let started = embedded.start(&spec.name).await;
                let running = started.map_err(|source| Error::Embedded { plugin: plugin.clone(), source })?;
                let client = PluginClient::connect(&plugin, &running.address).await?;
                (client, Life::Embedded(running))
            }
        };
        Ok(Plugin { name: spec.name.clone(), client, life })
    }
}

/// Whether a source writes to a destination, or keeps its state there.
fn used(spec: &Spec, name: &str) -> bool {
    spec.sources.iter().any(|source| {
        source.destinations.iter().any(|destination| destination == name)
            || connections(source).iter().any(|connection| connection == name)
    })
}

/// The destinations whose connection a source is told.
pub(super) fn connections(source: &super::SourceSpec) -> Vec<String> {
    let spec = source.plugin.spec.to_string();
    let backend = source.backend.as_ref().map_or("", |backend| backend.connection.as_str());
    // What is malformed was refused when the specification was read.
    let named = [spec.as_str(), backend].map(|text| expand::connections(text).unwrap_or_default());
    named.concat().into_iter().map(str::to_owned).collect()
}

/// A plugin's own part as it goes over the wire: JSON with its keys in order, safe inside HTML as Go writes it.
pub(super) fn spec_bytes(spec: &Value) -> Bytes {
    let escaped = spec
        .to_string()
        // These stand only inside strings.
        .replace('<', "\\u003c")
        .replace('>', "\\u003e")
        .replace('&', "\\u0026")
        .replace('\u{2028}', "\\u2028")
        .replace('\u{2029}', "\\u2029");
    escaped.into()
}

/// A plugin's own part with connections in their place.
pub(super) fn connected(spec: &Value, connection: &impl Fn(&str) -> Option<String>) -> Value {
    match spec {
        Value::String(text) => Value::String(expand::connect(text, connection)),
        Value::Array(values) => values.iter().map(|value| connected(value, connection)).collect(),
        Value::Object(map) => {
            Value::Object(map.iter().map(|(key, value)| (key.clone(), connected(value, connection))).collect())
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => spec.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_spec_goes_over_the_wire_as_go_writes_it() {
        assert_eq!(spec_bytes(&Value::Null), "null");
        let spec = json!({"z": 1, "a": "<&>\u{2028}", "m": {"y": [1.5, null], "b": true}});
        let wanted = r#"{"a":"\u003c\u0026\u003e\u2028","m":{"b":true,"y":[1.5,null]},"z":1}"#;
        assert_eq!(spec_bytes(&spec), wanted);
        assert_eq!(serde_json::from_slice::<Value>(&spec_bytes(&spec)).expect("JSON"), spec);
    }

    #[test]
    fn connections_are_put_into_every_text() {
        let spec = json!({"a": ["@@plugins.db.connection"], "b": {"c": "x@@plugins.db.connection"}, "d": 1});
        let wanted = json!({"a": ["unix:///s"], "b": {"c": "xunix:///s"}, "d": 1});
        assert_eq!(connected(&spec, &|name| (name == "db").then(|| "unix:///s".to_owned())), wanted);
    }
}
