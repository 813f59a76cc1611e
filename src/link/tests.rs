//! Frames over every carrier, and what peers and the network do to them.

use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::channel::outgoing_in_parts;
use super::*;
use crate::model::{
    Checkpoint, CopyState, Digest, EncodedBatch, Epoch, Fault, Key, NodeId, ObjectKind, Position, Range, RangeMode,
    Rows, RowsOp, SchemaKinds, SchemaObject, TableDef, TableId, TableProgress, Trouble, Value, WindowEnd, WindowItem,
};

/// Longer than anything here takes, so that a hang is a failure.
const PATIENCE: Duration = Duration::from_secs(20);

fn position(seq: i64) -> Position {
    Position { epoch: Epoch(-7), seq }
}

fn keys() -> Key {
    Key(vec![
        Value::Null,
        Value::Integer(i64::MIN),
        Value::Real(-0.0),
        Value::Text(b"a\0\xff".to_vec()),
        Value::Blob(Vec::new()),
    ])
}

fn batch(bytes: usize) -> EncodedBatch {
    EncodedBatch { rows: 3, codes: vec![0, 9, 4], data: vec![7; bytes].into() }
}

fn rows(bytes: usize) -> Frame {
    Frame::Item(WindowItem::Rows(Rows { table: TableId(4), op: RowsOp::Upsert, batch: batch(bytes) }))
}

fn ack(number: u64) -> Frame {
    Frame::Ack(Ack { number, position: position(9) })
}

fn heartbeat(head: i64) -> Frame {
    Frame::Heartbeat(Heartbeat { head, seen: 0, now_ms: -1, behind_since_ms: Some(5) })
}

fn trouble() -> Trouble {
    Trouble { code: "divergence".into(), message: "what and where".into(), hint: "what to do".into() }
}

fn hello() -> Hello {
    let checkpoint = Checkpoint { position: position(i64::MAX), ts_ms: -3, fingerprint: i64::MIN };
    let states = [CopyState::Pending, CopyState::Copying { after: keys() }, CopyState::Done];
    let table = |state| HeldTable {
        progress: TableProgress { table: TableId(2), state, lost_history: true },
        name: "tä\"ble".into(),
        rows: u64::MAX,
    };
    Hello {
        versions: VERSIONS.to_vec(),
        node: NodeId(-1),
        name: "a".into(),
        to_name: "b".into(),
        sends: true,
        receives: false,
        tables: (vec!["*".into()], vec!["tmp_*".into(), "x".into()]),
        kinds: SchemaKinds { indexes: true, views: false, triggers: true },
        policies: r#"{"conflicts":"last_write_wins"}"#.into(),
        seed: Some(String::new()),
        empty: true,
        compressions: vec!["lz4".into(), "none".into()],
        held: Some(Held {
            checkpoint: Some(checkpoint),
            tables: states.map(table).into(),
            lost_history: true,
            union: true,
        }),
        log: Some(LogHello { epoch: Epoch(1), head: 0, oldest: -1 }),
        on_divergence_resnapshot: true,
    }
}

fn window_end() -> WindowEnd {
    WindowEnd {
        to: Checkpoint { position: position(0), ts_ms: i64::MAX, fingerprint: 1 },
        head: 12,
        seen: -1,
        applied: u64::MAX,
        whole: true,
        last_part: false,
        markers: vec![TableId(i64::MIN), TableId(0)],
        repairs: vec![TableId(3)],
        sequences: vec![("users".into(), i64::MAX), (String::new(), 0)],
        user_version: Some(-1),
        application_id: None,
    }
}

fn items() -> Vec<WindowItem> {
    let object = |kind| SchemaObject { kind, name: "i".into(), table: "t".into(), sql: "CREATE …".into() };
    let table = TableDef {
        id: TableId(8),
        ancestors: vec![TableId(7), TableId(3)],
        name: "t".into(),
        ddl: "CREATE TABLE t(a)".into(),
        indexes: vec![object(ObjectKind::Index)],
        arrow_schema: Bytes::from_static(b"\x01\x02"),
        rows_estimate: 77,
    };
    let range = Range {
        table: TableId(8),
        low: None,
        high: Some(keys()),
        mode: RangeMode::Union,
        last: true,
        lost_history: false,
        batches: vec![batch(0), batch(10)],
    };
    let digest = Digest {
        table: TableId(8),
        low: Some(Key(Vec::new())),
        high: None,
        mode: RangeMode::Exact,
        last: false,
        lost_history: true,
        rows: 4,
        digest: u128::MAX - 5,
    };
    let changed = [RowsOp::Upsert, RowsOp::Delete, RowsOp::Exactly]
        .map(|op| WindowItem::Rows(Rows { table: TableId(-8), op, batch: batch(20) }));
    let mut items = vec![WindowItem::Catalog, WindowItem::Table(table)];
    items.extend([ObjectKind::View, ObjectKind::Trigger].map(|kind| WindowItem::Object(object(kind))));
    items.extend(changed);
    items.extend([WindowItem::Range(range), WindowItem::Digest(digest)]);
    items
}

fn data_frames() -> Vec<Frame> {
    let bare = Hello { held: None, log: None, seed: None, ..hello() };
    let nothing_held = Hello { held: Some(Held::default()), ..hello() };
    let begin = Begin { number: 1, from: position(3), lost_history: true, catalog: false };
    let mut frames = vec![Frame::Hello(hello()), Frame::Hello(bare), Frame::Hello(nothing_held), Frame::Begin(begin)];
    frames.extend(items().into_iter().map(Frame::Item));
    frames.extend([Frame::Commit(Commit { number: u64::MAX, end: window_end() }), heartbeat(3)]);
    frames
}

fn control_frames() -> Vec<Frame> {
    let need = Need { table: TableId(1), low: Some(keys()), high: None };
    vec![ack(2), Frame::Need(need), Frame::Fault(trouble())]
}

/// A listening node, until it is dropped.
struct Node {
    address: Address,
    incoming: mpsc::Receiver<Connection>,
    served: JoinHandle<Result<(), Error>>,
    shutdown: DropGuard,
}

async fn listen(address: &Address) -> Node {
    let listener = bind(address).await.expect("bind");
    let address = listener.local_address().clone();
    let (sender, incoming) = mpsc::channel(4);
    let shutdown = CancellationToken::new();
    let served = tokio::spawn(serve(listener, sender, shutdown.clone()));
    Node { address, incoming, served, shutdown: shutdown.drop_guard() }
}

impl Node {
    async fn tcp() -> Self {
        listen(&Address::Tcp("127.0.0.1:0".into())).await
    }

    async fn connect(&mut self) -> (Connection, Connection) {
        self.connect_to(&self.address.clone()).await
    }

    async fn connect_to(&mut self, address: &Address) -> (Connection, Connection) {
        let near = soon(dial(address, DialOptions::default())).await.expect("dial");
        (near, soon(self.incoming.recv()).await.expect("a connection"))
    }
}

async fn soon<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work).await.expect("no hang")
}

async fn next(connection: &mut Connection) -> Frame {
    soon(connection.stream.next()).await.expect("no error").expect("a frame")
}

/// Sends every frame one way, and sees it arrive.
async fn talk(from: &Connection, to: &mut Connection) {
    for frame in data_frames() {
        soon(from.sink.data(frame.clone())).await.expect("send");
        assert_eq!(next(to).await, frame);
    }
    for frame in control_frames() {
        from.sink.control(frame.clone()).expect("send");
        assert_eq!(next(to).await, frame);
    }
}

/// Every frame both ways, then an end in good order.
async fn converse((mut near, mut far): (Connection, Connection)) {
    talk(&near, &mut far).await;
    talk(&far, &mut near).await;
    assert!(near.local && far.local);
    near.sink.control(Frame::Fault(trouble())).expect("send");
    let finished = tokio::spawn(near.finish(PATIENCE));
    assert_eq!(next(&mut far).await, Frame::Fault(trouble()));
    assert!(soon(far.stream.next()).await.expect("a good end").is_none());
    assert!(soon(far.stream.next()).await.expect("still ended").is_none());
    drop(far);
    soon(finished).await.expect("no panic");
}

#[tokio::test]
async fn every_frame_crosses_memory_tcp_and_a_unix_socket_both_ways() {
    converse(pair()).await;
    let mut tcp = Node::tcp().await;
    converse(tcp.connect().await).await;
    let folder = tempfile::tempdir().expect("a folder");
    let mut unix = listen(&Address::Unix(folder.path().join("s"))).await;
    converse(unix.connect().await).await;
}

#[tokio::test]
async fn a_frame_of_many_parts_arrives_whole_and_control_overtakes_it() {
    let mut node = Node::tcp().await;
    let (near, mut far) = node.connect().await;
    // Three parts, and more than the wire's windows hold.
    let large = rows(2 * PART_BYTES_MAX + 5);
    soon(near.sink.data(large.clone())).await.expect("send");
    near.sink.control(ack(1)).expect("send");
    assert_eq!(next(&mut far).await, ack(1));
    assert!(next(&mut far).await == large);
}

#[tokio::test]
async fn control_overtakes_data_when_the_data_queue_is_full() {
    let (near, mut far) = pair();
    let mut sent = 0;
    while near.sink.data(heartbeat(sent)).now_or_never().is_some() {
        sent += 1;
    }
    assert!(sent > 1, "some wait in the queue");
    near.sink.control(ack(1)).expect("never waits");
    near.sink.control(ack(2)).expect("never waits");
    assert_eq!((next(&mut far).await, next(&mut far).await), (ack(1), ack(2)));
    for head in 0..sent {
        assert_eq!(next(&mut far).await, heartbeat(head));
    }
    assert!(near.sink.data(heartbeat(0)).now_or_never().is_some(), "room again");
}

#[tokio::test]
async fn control_goes_between_the_parts_of_a_frame_that_is_on_its_way() {
    let (sink, outgoing) = outgoing_in_parts("memory", 4);
    let mut stream = FrameStream::new(futures_util::StreamExt::map(outgoing, Ok));
    sink.data(heartbeat(1)).await.expect("send");
    assert!(stream.next().now_or_never().is_some_and(|read| read.expect("whole") == Some(heartbeat(1))));
    let (sink, mut outgoing) = outgoing_in_parts("memory", 4);
    sink.data(heartbeat(1)).await.expect("send");
    let first = futures_util::StreamExt::next(&mut outgoing).await.expect("a part");
    sink.control(ack(1)).expect("send");
    drop(sink);
    let rest = futures_util::StreamExt::map(outgoing, Ok);
    let mut stream = FrameStream::new(futures_util::StreamExt::chain(futures_util::stream::iter([Ok(first)]), rest));
    assert_eq!(stream.next().await.expect("no error"), Some(ack(1)));
    assert_eq!(stream.next().await.expect("no error"), Some(heartbeat(1)));
    assert_eq!(stream.next().await.expect("no error"), None);
}

#[tokio::test]
async fn large_frames_wait_for_room_by_their_bytes() {
    let (near, mut far) = pair();
    // Larger than all the room: it travels alone.
    soon(near.sink.data(rows(40 << 20))).await.expect("send");
    assert!(near.sink.data(heartbeat(1)).now_or_never().is_none());
    assert!(next(&mut far).await == rows(40 << 20));
    let (sent, read) = tokio::join!(near.sink.data(heartbeat(2)), next(&mut far));
    sent.expect("room again");
    assert_eq!(read, heartbeat(2));
}

#[tokio::test]
async fn a_peer_that_does_not_read_overruns_the_control_queue_instead_of_growing_it() {
    let (near, _far) = pair();
    let mut sent = 0_u64;
    let error = loop {
        match near.sink.control(ack(sent)) {
            Ok(()) => sent += 1,
            Err(error) => break error,
        }
    };
    assert!(sent > 1000 && matches!(error, Error::Overrun { .. }));
}

#[tokio::test]
async fn who_loses_its_peer_learns_it_while_it_reads_and_while_it_waits_to_send() {
    let mut node = Node::tcp().await;
    // Each side leaves once, with the other one's data queue full.
    for near_leaves in [true, false] {
        let (near, far) = node.connect().await;
        let (gone, mut left) = if near_leaves { (near, far) } else { (far, near) };
        let sink = left.sink.clone();
        let sending = tokio::spawn(async move { while sink.data(rows(1 << 20)).await.is_ok() {} });
        drop(gone);
        soon(sending).await.expect("sending ends");
        soon(left.sink.closed()).await;
        assert!(matches!(left.sink.control(ack(1)), Err(Error::Closed { .. })));
        let end = soon(left.stream.next()).await;
        assert!(matches!(end, Ok(None) | Err(Error::Lost { .. })), "{end:?}");
    }
}

#[tokio::test]
async fn a_cable_that_is_cut_in_the_middle_of_a_frame_is_an_error_on_both_sides() {
    let mut node = Node::tcp().await;
    let proxy = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let address = Address::Tcp(proxy.local_addr().expect("bound").to_string());
    let Address::Tcp(behind) = node.address.clone() else { panic!("a TCP address") };
    let cable = tokio::spawn(async move {
        let (mut near, _) = proxy.accept().await.expect("accept");
        let mut far = TcpStream::connect(behind).await.expect("connect");
        let _ = copy_bidirectional(&mut near, &mut far).await;
    });
    let (mut near, mut far) = node.connect_to(&address).await;
    near.sink.data(heartbeat(1)).await.expect("send");
    assert_eq!(next(&mut far).await, heartbeat(1));
    // More than the wire's windows hold, and the far side does not read.
    near.sink.data(rows(PART_BYTES_MAX - 100)).await.expect("queued");
    cable.abort();
    for side in [&mut near, &mut far] {
        let error = soon(side.stream.next()).await.expect_err("lost");
        assert!(matches!(error, Error::Lost { .. }), "{error}");
        assert_eq!(error.fault(), Fault::Retry);
        // It told people of the HTTP/2 library's frames: "h2 protocol error: error reading a body from connection".
        let said = error.trouble().message;
        assert!(said.starts_with("lost the connection to ") && !said.contains("error"), "{said}");
        assert!(soon(side.stream.next()).await.expect("over").is_none());
    }
}

#[tokio::test]
async fn bytes_that_are_no_frame_are_an_error_for_the_reader_alone() {
    let mut node = Node::tcp().await;
    let (near, mut far) = node.connect().await;
    near.sink.encoded(Bytes::from_static(b"\xff\xff\xffgarbage")).await.expect("send");
    let error = soon(far.stream.next()).await.expect_err("garbage");
    assert!(matches!(error, Error::Decode(_)), "{error}");
    assert_eq!(error.trouble().code, "malformed_frame");
    // A kind of a later version.
    let unknown = Bytes::from_static(&[0xf2, 0x06, 0x00]);
    assert!(matches!(Frame::decode(unknown), Err(Error::Malformed(_))));
    // The node goes on.
    converse(node.connect().await).await;
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_make_decoding_panic(
        which in any::<prop::sample::Index>(),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let mut frames = data_frames();
        frames.extend(control_frames());
        let mut bytes = which.get(&frames).encode().to_vec();
        for (at, byte) in flips {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Ok(frame) = Frame::decode(bytes.into()) {
            // What was understood can be said.
            let _ = frame.encode();
        }
    }

    #[test]
    fn noise_is_no_frame(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Frame::decode(bytes.into());
    }
}

#[tokio::test]
async fn an_address_that_is_taken_is_named_and_a_dead_unix_socket_is_replaced() {
    let node = Node::tcp().await;
    let error = bind(&node.address).await.err().expect("taken");
    assert!(matches!(error, Error::Taken { .. }) && error.fault() == Fault::Usage);
    assert!(error.to_string().contains(&node.address.to_string()), "{error}");

    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("s");
    let address = Address::Unix(path.clone());
    // The standard library's listener leaves its file behind, as a killed process does.
    drop(std::os::unix::net::UnixListener::bind(&path).expect("bind"));
    let mut node = listen(&address).await;
    assert!(matches!(bind(&address).await.err(), Some(Error::Taken { .. })));
    converse(node.connect().await).await;
    drop(node.shutdown);
    soon(node.served).await.expect("no panic").expect("a good end");
    assert!(!path.exists(), "the socket is removed");
    // What is no socket is never removed.
    std::fs::write(&path, "data").expect("write");
    assert!(bind(&address).await.is_err() && path.exists());
}

#[tokio::test]
async fn dialling_says_whether_nobody_answers_or_somebody_else() {
    let impatient = DialOptions { connect_timeout: Duration::from_millis(200), ..DialOptions::default() };
    let free = Address::Tcp(
        TcpListener::bind("127.0.0.1:0").await.and_then(|it| it.local_addr()).expect("a port").to_string(),
    );
    let error = soon(dial(&free, impatient)).await.err().expect("nobody listens");
    assert!(matches!(error, Error::Connect { .. }) && error.fault() == Fault::Retry, "{error}");
    assert!(error.to_string().contains(&free.to_string()));
    let missing = Address::Unix("/nonexistent/socket".into());
    assert!(matches!(dial(&missing, impatient).await.err(), Some(Error::Connect { .. })));

    // One that accepts and says nothing, then one of another protocol.
    let other = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let address = Address::Tcp(other.local_addr().expect("bound").to_string());
    let error = soon(dial(&address, impatient)).await.err().expect("silence");
    assert!(matches!(error, Error::Connect { .. }), "{error}");
    let (silent, _) = other.accept().await.expect("accept");
    drop(silent);
    let answers = tokio::spawn(async move {
        let (mut stream, _) = other.accept().await.expect("accept");
        let mut request = [0; 24];
        stream.read_exact(&mut request).await.expect("a preface");
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.expect("an answer");
    });
    let error = soon(dial(&address, DialOptions::default())).await.err().expect("another protocol");
    assert!(matches!(error, Error::Refused { .. } | Error::Handshake { .. }), "{error}");
    answers.await.expect("no panic");
}

#[tokio::test]
async fn a_node_that_stops_ends_when_its_connections_do() {
    let mut node = Node::tcp().await;
    let (mut near, far) = node.connect().await;
    drop(node.shutdown);
    far.sink.data(heartbeat(1)).await.expect("still open");
    assert_eq!(next(&mut near).await, heartbeat(1));
    let finished = tokio::spawn(far.finish(PATIENCE));
    assert!(soon(near.stream.next()).await.expect("a good end").is_none());
    drop(near);
    soon(finished).await.expect("no panic");
    soon(node.served).await.expect("no panic").expect("a good end");
    assert!(dial(&node.address, DialOptions::default()).await.is_err(), "nobody listens any more");
}

#[test]
fn the_newest_common_version_is_spoken_or_none() {
    assert_eq!(common_version(&[PROTOCOL + 1, PROTOCOL]).expect("common"), PROTOCOL);
    let error = common_version(&[PROTOCOL + 1]).expect_err("none");
    assert_eq!(error.fault(), Fault::Halt);
    assert_eq!(error.trouble().code, "protocol_version");
}
