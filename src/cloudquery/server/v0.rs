//! `proto.Destination`: how sources of protocol version 1 write. Tables and rows are JSON ([`super::v0_tables`],
//! [`super::v0_rows`]); behind this they are Arrow as everybody's.

use tonic::{Request, Response, Status, Streaming};

use super::old::{Modes, Old};
use super::status::Failure;
use super::v0_rows::{self, Origin};
use super::write::Op;
use super::{Calls, NAME, VERSION, v0_tables};
use crate::cloudquery::Table;
use crate::cloudquery::proto::destination_v0::destination_server;
use crate::cloudquery::proto::destination_v0::{
    close, configure, delete_stale, get_destination_metrics, get_name, get_protocol_version, get_version, migrate,
    write, write2,
};

/// What GetProtocolVersion says; CloudQuery's own server says the same.
const PROTOCOL_VERSION: u64 = 2;

/// The service.
pub(super) struct Destination(Old);

impl Destination {
    pub(super) fn new(calls: Calls) -> Self {
        Self(Old::new(calls))
    }
}

fn tables(json: &[u8]) -> Result<Vec<Table>, Failure> {
    v0_tables::parse(json).map_err(Failure::Argument)
}

/// A Write2: its first message says which tables, and of which sync; the others are a row each.
struct Rows {
    modes: Modes,
    tables: Vec<Table>,
    origin: Option<Origin>,
}

impl Rows {
    fn convert(&mut self, request: &write2::Request) -> Result<Vec<Op>, Failure> {
        let mut ops = Vec::new();
        if self.origin.is_none() {
            self.origin = Some(Origin { source: request.source.clone(), sync_time: request.timestamp });
            let tables = if request.tables.is_empty() { Vec::new() } else { tables(&request.tables)? };
            self.tables = tables.into_iter().map(|table| self.modes.table(table)).collect();
            ops.extend(self.tables.iter().map(|table| Op::Migrate(table.clone(), self.modes.forced)));
        }
        if let (Some(origin), false) = (&self.origin, request.resource.is_empty()) {
            let record = v0_rows::parse(&request.resource, &self.tables, origin).map_err(Failure::Argument)?;
            ops.push(Op::Insert(record));
        }
        Ok(ops)
    }
}

#[tonic::async_trait]
impl destination_server::Destination for Destination {
    async fn get_protocol_version(
        &self,
        _: Request<get_protocol_version::Request>,
    ) -> Result<Response<get_protocol_version::Response>, Status> {
        Ok(Response::new(get_protocol_version::Response { version: PROTOCOL_VERSION }))
    }

    async fn get_name(&self, _: Request<get_name::Request>) -> Result<Response<get_name::Response>, Status> {
        Ok(Response::new(get_name::Response { name: NAME.to_owned() }))
    }

    async fn get_version(&self, _: Request<get_version::Request>) -> Result<Response<get_version::Response>, Status> {
        Ok(Response::new(get_version::Response { version: VERSION.to_owned() }))
    }

    async fn configure(&self, request: Request<configure::Request>) -> Result<Response<configure::Response>, Status> {
        self.0.configure(&request.into_inner().config).await?;
        Ok(Response::new(configure::Response { error: String::new() }))
    }

    async fn migrate(&self, request: Request<migrate::Request>) -> Result<Response<migrate::Response>, Status> {
        self.0.migrate(tables(&request.into_inner().tables)?).await?;
        Ok(Response::new(migrate::Response {}))
    }

    /// Nobody calls it any more: it came before Write2, and CloudQuery's own server does not have it either.
    async fn write(&self, _: Request<Streaming<write::Request>>) -> Result<Response<write::Response>, Status> {
        Err(Status::unimplemented("Write is not implemented in this plugin; use Write2"))
    }

    async fn write2(&self, request: Request<Streaming<write2::Request>>) -> Result<Response<write2::Response>, Status> {
        let mut rows = Rows { modes: self.0.modes(), tables: Vec::new(), origin: None };
        let convert = move |request: write2::Request| rows.convert(&request);
        self.0.calls.write(request.into_inner(), convert).await?;
        Ok(Response::new(write2::Response {}))
    }

    async fn delete_stale(
        &self,
        request: Request<delete_stale::Request>,
    ) -> Result<Response<delete_stale::Response>, Status> {
        let request = request.into_inner();
        self.0.delete_stale(tables(&request.tables)?, &request.source, request.timestamp).await?;
        Ok(Response::new(delete_stale::Response { failed_deletes: 0 }))
    }

    async fn close(&self, _: Request<close::Request>) -> Result<Response<close::Response>, Status> {
        self.0.calls.plugin.close().await?;
        Ok(Response::new(close::Response {}))
    }

    async fn get_metrics(
        &self,
        _: Request<get_destination_metrics::Request>,
    ) -> Result<Response<get_destination_metrics::Response>, Status> {
        Err(Status::unimplemented("GetMetrics is not implemented in this plugin"))
    }
}
