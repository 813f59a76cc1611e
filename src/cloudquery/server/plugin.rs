//! `cloudquery.plugin.v3.Plugin`: each call to where it is done.

use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::status::{Failure, failure_code, said};
use super::{Calls, NAME, VERSION, write};
use crate::cloudquery::destination::{Destination, Error, Options, Spec};
use crate::cloudquery::ipc;
use crate::cloudquery::proto::plugin::plugin_server::Plugin;
use crate::cloudquery::proto::plugin::{
    assess_tables, close, get_name, get_spec_schema, get_tables, get_version, init, read, sync, test_connection,
    transform, transform_schema, write as wire,
};
use crate::cloudquery::selection::Wanted;
use crate::cloudquery::source::{Backend, Shard, SyncRequest};

type Answers<T> = BoxStream<'static, Result<T, Status>>;

fn answers<T: Send + 'static>(receiver: mpsc::Receiver<Result<T, Status>>) -> Response<Answers<T>> {
    Response::new(ReceiverStream::new(receiver).boxed())
}

#[tonic::async_trait]
impl Plugin for Calls {
    async fn get_name(&self, _: Request<get_name::Request>) -> Result<Response<get_name::Response>, Status> {
        Ok(Response::new(get_name::Response { name: NAME.to_owned() }))
    }

    async fn get_version(&self, _: Request<get_version::Request>) -> Result<Response<get_version::Response>, Status> {
        Ok(Response::new(get_version::Response { version: VERSION.to_owned() }))
    }

    async fn get_spec_schema(
        &self,
        _: Request<get_spec_schema::Request>,
    ) -> Result<Response<get_spec_schema::Response>, Status> {
        let is_database_known = self.plugin.served().options.local.is_some();
        Ok(Response::new(get_spec_schema::Response { json_schema: Some(Spec::json_schema(is_database_known)) }))
    }

    async fn init(&self, request: Request<init::Request>) -> Result<Response<init::Response>, Status> {
        let request = request.into_inner();
        self.plugin.init(&request.spec, request.no_connection, &request.invocation_id).await?;
        Ok(Response::new(init::Response { supports_flush: true }))
    }

    async fn get_tables(
        &self,
        request: Request<get_tables::Request>,
    ) -> Result<Response<get_tables::Response>, Status> {
        let request = request.into_inner();
        let session = self.plugin.session().map_err(|absent| absent.or(Failure::TablesBeforeInit))?;
        let source = self.plugin.source(&session).await.map_err(Failure::Tables)?;
        let wanted = Wanted {
            tables: request.tables,
            skip_tables: request.skip_tables,
            skip_dependent_tables: request.skip_dependent_tables,
        };
        let failed = |error| Failure::Tables(said(&error));
        let tables = source.tables(wanted).await.map_err(failed)?;
        let tables: Result<Vec<_>, _> = tables.iter().map(|table| ipc::encode_schema(&table.to_schema())).collect();
        Ok(Response::new(get_tables::Response { tables: tables.map_err(failed)? }))
    }

    type SyncStream = Answers<sync::Response>;

    async fn sync(&self, request: Request<sync::Request>) -> Result<Response<Self::SyncStream>, Status> {
        let request = sync_request(request.into_inner())?;
        let turn = self.plugin.turn().ok_or(Failure::SyncBusy)?;
        let session = self.plugin.session().map_err(|absent| absent.or(Failure::SyncBeforeInit))?;
        let source = self.plugin.source(&session).await.map_err(Failure::Sync)?;
        Ok(answers(Calls::sync(self, source, request, turn)))
    }

    type ReadStream = Answers<read::Response>;

    async fn read(&self, request: Request<read::Request>) -> Result<Response<Self::ReadStream>, Status> {
        let table = write::table(&request.into_inner().table)?;
        let turn = self.plugin.turn().ok_or(Failure::ReadBusy)?;
        let session = self.plugin.session().map_err(|absent| absent.or(Failure::ReadBeforeInit))?;
        Ok(answers(Calls::read(self, session, table, turn)))
    }

    async fn write(&self, request: Request<Streaming<wire::Request>>) -> Result<Response<wire::Response>, Status> {
        Calls::write(self, request.into_inner(), write::convert).await?;
        Ok(Response::new(wire::Response::default()))
    }

    type WriteStreamStream = Answers<wire::Response>;

    async fn write_stream(
        &self,
        request: Request<Streaming<wire::Request>>,
    ) -> Result<Response<Self::WriteStreamStream>, Status> {
        Ok(answers(Calls::write_stream(self, request.into_inner())))
    }

    type TransformStream = Answers<transform::Response>;

    async fn transform(
        &self,
        _: Request<Streaming<transform::Request>>,
    ) -> Result<Response<Self::TransformStream>, Status> {
        Err(Failure::NotImplemented("failed to transform records").into())
    }

    async fn transform_schema(
        &self,
        _: Request<transform_schema::Request>,
    ) -> Result<Response<transform_schema::Response>, Status> {
        Err(Failure::NotImplemented("failed to transform schema").into())
    }

    async fn assess_tables(
        &self,
        _: Request<assess_tables::Request>,
    ) -> Result<Response<assess_tables::Response>, Status> {
        Err(Status::unimplemented("AssessTables is not implemented in this plugin"))
    }

    async fn close(&self, _: Request<close::Request>) -> Result<Response<close::Response>, Status> {
        self.plugin.close().await?;
        Ok(Response::new(close::Response {}))
    }

    async fn test_connection(
        &self,
        request: Request<test_connection::Request>,
    ) -> Result<Response<test_connection::Response>, Status> {
        let tried = test_connection(&request.into_inner().spec, &self.plugin.served().options).await;
        Ok(Response::new(match tried {
            Ok(()) => test_connection::Response { success: true, ..test_connection::Response::default() },
            Err(error) => test_connection::Response {
                success: false,
                failure_code: failure_code(&error).to_owned(),
                failure_description: said(&error),
            },
        }))
    }
}

/// Opens the database of a spec as Init would, which makes it where it is not there, and closes it.
async fn test_connection(spec: &[u8], options: &Options) -> Result<(), Error> {
    let destination = Destination::open(&Spec::parse(spec)?, options).await?;
    destination.close().await
}

fn sync_request(wire: sync::Request) -> Result<SyncRequest, Failure> {
    let shard = wire.shard.map(|shard| {
        let both = u32::try_from(shard.num).ok().zip(u32::try_from(shard.total).ok());
        let fits = |(num, total): &(u32, u32)| (1..=*total).contains(num);
        let wrong = || format!("shard {} of {}: want a number from 1 to the number of shards", shard.num, shard.total);
        let (num, total) = both.filter(fits).ok_or_else(wrong)?;
        Ok(Shard { num, total })
    });
    Ok(SyncRequest {
        wanted: Wanted {
            tables: wire.tables,
            skip_tables: wire.skip_tables,
            skip_dependent_tables: wire.skip_dependent_tables,
        },
        deterministic_cq_id: wire.deterministic_cq_id,
        backend: wire.backend.map(|wire| Backend { table_name: wire.table_name, connection: wire.connection }),
        shard: shard.transpose().map_err(Failure::SyncRequest)?,
        with_error_messages: wire.with_error_messages,
        supports_checkpoints: wire.supports_checkpoints,
    })
}
