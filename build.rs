//! Compiles the messages of the link and of CloudQuery's plugin protocol, without a system protoc, and the services
//! around them.
//!
//! The link's service carries frames as bytes: what is encoded already (a window kept in a spool, a part of a large frame) is
//! sent as it is, and the messages are decoded where somebody looks at them.

use std::error::Error;

use tonic_prost_build::manual::{Builder, Method, Service};

const LINK_PROTO: &str = "proto/twinlite/link/v1/link.proto";

const CLOUDQUERY_PROTOS: [&str; 5] = [
    "proto/cloudquery/plugin/v3/plugin.proto",
    "proto/cloudquery/discovery/v0/discovery.proto",
    "proto/cloudquery/discovery/v1/discovery.proto",
    "proto/cloudquery/destination/v0/destination.proto",
    "proto/cloudquery/destination/v1/destination.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    let files = protox::compile([LINK_PROTO], ["proto"])?;
    tonic_prost_build::configure().build_client(false).build_server(false).bytes(".").compile_fds(files)?;
    let replicate = Method::builder()
        .name("replicate")
        .route_name("Replicate")
        .input_type("::bytes::Bytes")
        .output_type("::bytes::Bytes")
        .codec_path("crate::link::raw::RawCodec")
        .client_streaming()
        .server_streaming()
        .build();
    let link = Service::builder().name("Link").package("twinlite.link.v1").method(replicate).build();
    Builder::new().compile(&[link]);
    let files = protox::compile(CLOUDQUERY_PROTOS, ["proto"])?;
    tonic_prost_build::configure().bytes(".").compile_fds(files)?;
    Ok(())
}
