//! `cloudquery.destination.v1`: how sources of protocol version 2 write. Tables and rows are Arrow here, too.

use tonic::{Request, Response, Status, Streaming};

use super::old::Old;
use super::write::{self, Op};
use super::{Calls, NAME, VERSION};
use crate::cloudquery::Table;
use crate::cloudquery::proto::destination_v1::destination_server;
use crate::cloudquery::proto::destination_v1::{
    close, configure, delete_stale, get_destination_metrics, get_name, get_version, migrate, write as wire,
};

/// The service.
pub(super) struct Destination(Old);

impl Destination {
    pub(super) fn new(calls: Calls) -> Self {
        Self(Old::new(calls))
    }
}

fn tables(schemas: &[bytes::Bytes]) -> Result<Vec<Table>, Status> {
    Ok(schemas.iter().map(|schema| write::table(schema)).collect::<Result<_, _>>()?)
}

#[tonic::async_trait]
impl destination_server::Destination for Destination {
    async fn get_name(&self, _: Request<get_name::Request>) -> Result<Response<get_name::Response>, Status> {
        Ok(Response::new(get_name::Response { name: NAME.to_owned() }))
    }

    async fn get_version(&self, _: Request<get_version::Request>) -> Result<Response<get_version::Response>, Status> {
        Ok(Response::new(get_version::Response { version: VERSION.to_owned() }))
    }

    async fn configure(&self, request: Request<configure::Request>) -> Result<Response<configure::Response>, Status> {
        self.0.configure(&request.into_inner().config).await?;
        Ok(Response::new(configure::Response {}))
    }

    async fn migrate(&self, request: Request<migrate::Request>) -> Result<Response<migrate::Response>, Status> {
        self.0.migrate(tables(&request.into_inner().tables)?).await?;
        Ok(Response::new(migrate::Response {}))
    }

    /// The tables of the first message are those that Migrate had; what counts is in the records.
    async fn write(&self, request: Request<Streaming<wire::Request>>) -> Result<Response<wire::Response>, Status> {
        let modes = self.0.modes();
        let convert = move |request: wire::Request| {
            if request.resource.is_empty() {
                return Ok(Vec::new());
            }
            let batches = write::records(request.resource)?;
            batches.into_iter().map(|batch| modes.record(batch).map(Op::Insert)).collect()
        };
        self.0.calls.write(request.into_inner(), convert).await?;
        Ok(Response::new(wire::Response {}))
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
