//! One plugin, connected: a method a call.

use std::fmt::{self, Debug};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tonic::Status;
use tonic::transport::Channel;

use super::connect::{dial, discover};
use super::{Address, Answer, Error, ReadStream, SyncStream, WriteSession};
use crate::cloudquery::proto::plugin::{
    self as proto, get_tables, init, plugin_client::PluginClient as Client, read, sync, test_connection,
};
use crate::cloudquery::{MESSAGE_BYTES_MAX, Table, ipc};

/// How long Init and GetTables may take: a source may log in somewhere, and list what is there, in either.
const SETUP_TIMEOUT: Duration = Duration::from_secs(600);
/// How long Close may take: a destination may finish what it has begun.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(60);
/// How long saying a name may take, which needs no work at all.
const NAME_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a plugin may take until it has tried its connection: it has a timeout of its own below that.
const TEST_TIMEOUT: Duration = Duration::from_secs(120);
/// How long it may take until a stream is open.
const OPEN_TIMEOUT: Duration = Duration::from_secs(600);

/// What Init said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Initialized {
    /// Whether [`PluginClient::write_stream`] works here.
    pub supports_flush: bool,
}

/// What TestConnection said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tested {
    /// It connects.
    Fine,
    /// It does not.
    Failed {
        /// The plugin's code, as `UNAUTHORIZED`.
        code: String,
        /// Its words.
        description: String,
    },
}

/// A plugin, connected, that supports protocol version 3. Clones share the connection.
#[derive(Clone)]
pub struct PluginClient {
    plugin: Arc<str>,
    address: Address,
    client: Client<Channel>,
}

impl Debug for PluginClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PluginClient").field("plugin", &self.plugin).field("address", &self.address).finish()
    }
}

impl PluginClient {
    /// Connects, and asks for the protocol's version. `plugin` is what errors call it, as `destination "db"`.
    ///
    /// # Errors
    /// [`Error::Connect`], [`Error::NotAPlugin`], [`Error::Version`], or that it does not answer.
    pub async fn connect(plugin: &str, address: &Address) -> Result<Self, Error> {
        let channel = dial(plugin, address).await?;
        discover(plugin, address, &channel).await?;
        let client = Client::new(channel)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        Ok(Self { plugin: plugin.into(), address: address.clone(), client })
    }

    /// What errors call it.
    pub fn plugin(&self) -> &str {
        &self.plugin
    }

    /// Where it listens.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Its name and its version, as it says them; needs no Init.
    ///
    /// # Errors
    /// The plugin's.
    pub async fn name_and_version(&self) -> Result<(String, String), Error> {
        let (mut one, mut other) = (self.client.clone(), self.client.clone());
        let name = self.call("GetName", NAME_TIMEOUT, one.get_name(proto::get_name::Request {})).await?;
        let version = self.call("GetVersion", NAME_TIMEOUT, other.get_version(proto::get_version::Request {})).await?;
        Ok((name.name, version.version))
    }

    /// Gives it its spec: JSON, `null` where there is none. May be called again, which begins anew.
    ///
    /// # Errors
    /// The plugin's: mostly what is wrong with the spec.
    pub async fn init(&self, spec: Bytes, no_connection: bool, invocation_id: &str) -> Result<Initialized, Error> {
        let request = init::Request { spec, no_connection, invocation_id: invocation_id.to_owned() };
        let answer = self.call("Init", SETUP_TIMEOUT, self.client.clone().init(request)).await?;
        Ok(Initialized { supports_flush: answer.supports_flush })
    }

    /// The tables of a source, parents first.
    ///
    /// # Errors
    /// The plugin's, and [`Error::Malformed`].
    pub async fn tables(&self, request: get_tables::Request) -> Result<Vec<Table>, Error> {
        let answer = self.call("GetTables", SETUP_TIMEOUT, self.client.clone().get_tables(request)).await?;
        let decoded = answer.tables.iter().map(|bytes| ipc::decode_table(bytes)).collect::<Result<_, _>>();
        decoded.map_err(|source| self.malformed("GetTables", source))
    }

    /// What a source has, message by message.
    ///
    /// # Errors
    /// The plugin's.
    pub async fn sync(&self, request: sync::Request) -> Result<SyncStream, Error> {
        let stream = self.call("Sync", OPEN_TIMEOUT, self.client.clone().sync(request)).await?;
        Ok(SyncStream::new(self.clone(), stream))
    }

    /// One Write: nothing is sure to be committed before [`WriteSession::finish`] has returned.
    pub fn write(&self) -> WriteSession {
        WriteSession::write(self.clone(), self.client.clone())
    }

    /// One WriteStream: what [`WriteSession::flush`] has returned for is committed. Only where
    /// [`Initialized::supports_flush`].
    pub fn write_stream(&self) -> WriteSession {
        WriteSession::write_stream(self.clone(), self.client.clone())
    }

    /// What a destination has of a table, with just these columns and types.
    ///
    /// # Errors
    /// The plugin's, and [`Error::Encode`].
    pub async fn read(&self, table: &Table) -> Result<ReadStream, Error> {
        let encoded = ipc::encode_schema(&table.to_schema());
        let table = encoded.map_err(|source| Error::Encode { plugin: self.name(), call: "Read", source })?;
        let stream = self.call("Read", OPEN_TIMEOUT, self.client.clone().read(read::Request { table })).await?;
        Ok(ReadStream::new(self.clone(), stream))
    }

    /// Ends what Init began. A source is not told.
    ///
    /// # Errors
    /// The plugin's.
    pub async fn close(&self) -> Result<(), Error> {
        self.call("Close", CLOSE_TIMEOUT, self.client.clone().close(proto::close::Request {})).await?;
        Ok(())
    }

    /// Whether it could connect with that spec.
    ///
    /// # Errors
    /// The plugin's; `Unimplemented` where it cannot tell.
    pub async fn test_connection(&self, spec: Bytes) -> Result<Tested, Error> {
        let request = test_connection::Request { spec };
        let answer = self.call("TestConnection", TEST_TIMEOUT, self.client.clone().test_connection(request)).await?;
        Ok(match answer.success {
            true => Tested::Fine,
            false => Tested::Failed { code: answer.failure_code, description: answer.failure_description },
        })
    }

    pub(super) fn name(&self) -> String {
        self.plugin.to_string()
    }

    pub(super) fn failed(&self, call: &'static str, status: Status) -> Error {
        Error::Call { plugin: self.name(), call, source: Answer::from(status) }
    }

    pub(super) fn malformed(&self, call: &'static str, source: crate::cloudquery::Error) -> Error {
        Error::Malformed { plugin: self.name(), call, source }
    }

    async fn call<T>(
        &self,
        call: &'static str,
        within: Duration,
        asked: impl Future<Output = Result<tonic::Response<T>, Status>>,
    ) -> Result<T, Error> {
        let late = |_| Error::Deadline { plugin: self.name(), call, after: within };
        let answer = tokio::time::timeout(within, Box::pin(asked)).await.map_err(late)?;
        answer.map(tonic::Response::into_inner).map_err(|status| self.failed(call, status))
    }
}
