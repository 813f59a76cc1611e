//! The messages and services of `proto/cloudquery`, as the build generates them.
#![allow(missing_docs, clippy::all, clippy::pedantic, reason = "the .proto files say what they are")]

/// `cloudquery.plugin.v3`.
pub mod plugin {
    include!(concat!(env!("OUT_DIR"), "/cloudquery.plugin.v3.rs"));
}

/// `cloudquery.discovery.v1`.
pub mod discovery {
    include!(concat!(env!("OUT_DIR"), "/cloudquery.discovery.v1.rs"));
}

/// `cloudquery.discovery.v0`.
pub mod discovery_v0 {
    include!(concat!(env!("OUT_DIR"), "/cloudquery.discovery.v0.rs"));
}

/// `cloudquery.destination.v1`.
pub mod destination_v1 {
    include!(concat!(env!("OUT_DIR"), "/cloudquery.destination.v1.rs"));
}

/// `proto`: the destination service of version 0.
pub mod destination_v0 {
    include!(concat!(env!("OUT_DIR"), "/proto.rs"));
}
