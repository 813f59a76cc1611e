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

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::plugin::{init, sync, write};

    /// The fields that a misread definition would put elsewhere: one with a name of its own style, and those that are newer
    /// than the public definition. A client that does not know them sends none, and gets nothing that it would trip over.
    #[test]
    fn newer_fields_have_their_numbers_and_cost_older_clients_nothing() {
        let flag = |number: u8| vec![number << 3, 1];
        let errors = sync::Request { with_error_messages: true, ..sync::Request::default() };
        assert_eq!(errors.encode_to_vec(), flag(7));
        let checkpoints = sync::Request { supports_checkpoints: true, ..sync::Request::default() };
        assert_eq!(checkpoints.encode_to_vec(), flag(8));
        assert_eq!(init::Response { supports_flush: true }.encode_to_vec(), flag(1));
        let flush = write::request::Message::Flush(write::MessageFlush { id: 7 });
        let flush = write::Request { message: Some(flush) };
        assert_eq!(flush.encode_to_vec(), [5 << 3 | 2, 2, 1 << 3, 7]);
        assert!(write::Response::default().encode_to_vec().is_empty(), "as an older server's");
        assert_eq!(sync::Request::decode(&b""[..]), Ok(sync::Request::default()));
        // A kind of message that is newer still.
        let newer = [15 << 3 | 2, 3, 1, 2, 3];
        assert_eq!(write::Request::decode(&newer[..]), Ok(write::Request { message: None }));
    }
}
