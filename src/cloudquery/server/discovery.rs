//! Which versions of the protocol are spoken: 3, and the destination services of 0 and 1.
//!
//! 2 is listed as CloudQuery's own server lists it; it was a version of sources alone.

use tonic::{Request, Response, Status};

use crate::cloudquery::proto::{discovery, discovery_v0};

/// Both discovery services.
pub(super) struct Discovery;

#[tonic::async_trait]
impl discovery::discovery_server::Discovery for Discovery {
    async fn get_versions(
        &self,
        _: Request<discovery::get_versions::Request>,
    ) -> Result<Response<discovery::get_versions::Response>, Status> {
        Ok(Response::new(discovery::get_versions::Response { versions: vec![0, 1, 2, 3] }))
    }
}

#[tonic::async_trait]
impl discovery_v0::discovery_server::Discovery for Discovery {
    async fn get_versions(
        &self,
        _: Request<discovery_v0::get_versions::Request>,
    ) -> Result<Response<discovery_v0::get_versions::Response>, Status> {
        let versions = ["v0", "v1", "v2", "v3"].map(str::to_owned).to_vec();
        Ok(Response::new(discovery_v0::get_versions::Response { versions }))
    }
}
