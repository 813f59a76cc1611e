//! `twinlite serve` below gRPC: sockets, the CLI's `:authority`, log lines, and bytes that no client sends.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::Command;
use std::time::Duration;

use arrow::array::{ArrayRef, BinaryArray, RecordBatch};
use arrow::datatypes::DataType;
use rustix::process::Signal;
use serde_json::json;
use tonic::Code;
use twinlite::cloudquery::proto::plugin::close;
use twinlite::cloudquery::{Column, Table, ipc};

use crate::support::cq::{Serve, expect, init, insert, insert_bytes, migrate, read, rows, table, write};
use crate::support::process::expect_failure;
use crate::support::random::Random;
use crate::support::{Place, open_reader};

const HEADERS: u8 = 1;
const DATA: u8 = 0;
const RST_STREAM: u8 = 3;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&len[1..], &[kind, flags, 0, 0, 0, stream], payload].concat()
}

/// A header that is kept in the table: its name is in the static one, or spelled out.
fn header(name: Result<u8, &str>, value: &str) -> Vec<u8> {
    let text = |text: &str| [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
    match name {
        Ok(index) => [vec![0x40 | index], text(value)].concat(),
        Err(name) => [vec![0x40], text(name), text(value)].concat(),
    }
}

fn preface() -> Vec<u8> {
    [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), frame(4, 0, 0, &[])].concat()
}

/// Discovery's GetVersions, with nothing in it.
fn call(stream: u8, headers: &[Vec<u8>]) -> Vec<u8> {
    [frame(HEADERS, END_HEADERS, stream, &headers.concat()), frame(DATA, END_STREAM, stream, &[0; 5])].concat()
}

/// The kinds of the frames that come for a stream, until its end; and what its DATA said.
fn answer(socket: &mut UnixStream, stream: u8) -> (Vec<u8>, Vec<u8>) {
    let (mut kinds, mut data) = (Vec::new(), Vec::new());
    loop {
        let mut head = [0; 9];
        socket.read_exact(&mut head).expect("a frame");
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        socket.read_exact(&mut payload).expect("its payload");
        if head[8] != stream {
            continue;
        }
        kinds.push(head[3]);
        if head[3] == DATA {
            data.extend_from_slice(&payload);
        }
        if head[3] == RST_STREAM || (head[4] & END_STREAM != 0 && matches!(head[3], HEADERS | DATA)) {
            return (kinds, data);
        }
    }
}

/// CloudQuery's CLI dials its plugins so that `:authority` is the socket's path, percent-encoded. To the HTTP/2 library
/// that was a malformed request, and `registry: local` could not work at all.
#[test]
fn the_cli_s_authority_on_a_unix_socket_is_no_reason_to_refuse_it() {
    let place = Place::new();
    let server = Serve::unix(&place.file("cq.sock"));
    let mut socket = UnixStream::connect(&server.address).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let versions = [0, 0, 0, 0, 6, 10, 4, 0, 1, 2, 3];
    let encoded = server.address.replace('/', "%2F");
    let first = [
        vec![0x83, 0x86],
        header(Ok(4), "/cloudquery.discovery.v1.Discovery/GetVersions"),
        header(Ok(1), &encoded),
        header(Err("content-type"), "application/grpc"),
        header(Err("te"), "trailers"),
    ];
    socket.write_all(&[preface(), call(1, &first)].concat()).unwrap();
    let (kinds, data) = answer(&mut socket, 1);
    assert_eq!((kinds, data.as_slice()), (vec![HEADERS, DATA, HEADERS], &versions[..]));
    // The same again, by the indexes that the first call's headers got: te 62, content-type 63, :authority 64, :path 65.
    socket.write_all(&call(3, &[vec![0x83, 0x86, 0x80 | 65, 0x80 | 64, 0x80 | 63, 0x80 | 62]])).unwrap();
    assert_eq!(answer(&mut socket, 3).1, versions);
    // As a name out of that table, and a value in plain.
    let other =
        [vec![0x83, 0x86, 0x80 | 65, 0x7f, 64 - 63], header(Ok(0), "/x")[1..].to_vec(), vec![0x80 | 64, 0x80 | 63]];
    socket.write_all(&call(5, &other)).unwrap();
    assert_eq!(answer(&mut socket, 5).1, versions);
    // Without the shim it is reset; the one header that it is about is all that it changes.
    let bad_path = [vec![0x83, 0x86], header(Ok(4), "%2F"), header(Ok(1), "x"), vec![0x80 | 66, 0x80 | 65]];
    socket.write_all(&call(7, &bad_path)).unwrap();
    assert_ne!(answer(&mut socket, 7).1, versions);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_unix_socket_stands_at_its_path_and_is_gone_afterwards() {
    let place = Place::new();
    let path = place.file("cq.sock");
    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists(), "a stale socket");
    let server = Serve::unix(&path);
    assert_eq!(server.address, path.to_str().unwrap());
    let mut client = server.ready(&place.source()).await;
    write(&mut client, vec![migrate(&table("t")), insert(&rows("t", &[1, 2]))]).await.unwrap();
    assert_eq!(read(&mut client, &table("t")).await.unwrap(), 2);
    let taken = expect_failure(1, &["serve", "--network", "unix", "--address", path.to_str().unwrap()]);
    assert!(taken.contains("another process listens there"), "{taken}");
    client.close(close::Request {}).await.unwrap();
    drop(client);
    server.stop(Signal::INT);
    assert!(!path.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn log_lines_are_as_the_cli_reads_them() {
    let place = Place::new();
    let server =
        Serve::start(&["--network", "tcp4", "--address", "0.0.0.0:0", "--license", "x", "--otel-endpoint", "y"]);
    let first = server.log()[0].clone();
    let plugin = format!("twinlite/destination/sqlite@{}", env!("CARGO_PKG_VERSION"));
    assert_eq!(first["message"], "Plugin server listening");
    assert_eq!(
        (&first["level"], &first["module"], &first["plugin"]),
        (&json!("info"), &json!("sqlite-dest"), &json!(plugin))
    );
    assert!(first.get("invocation_id").is_none());
    let address = server.address.replace("0.0.0.0", "127.0.0.1");
    let channel = tonic::transport::Endpoint::new(format!("http://{address}")).unwrap().connect().await.unwrap();
    let mut client = twinlite::cloudquery::proto::plugin::plugin_client::PluginClient::new(channel);
    init(&mut client, &json!({"connection_string": place.source()})).await.unwrap();
    crate::support::wait::until("lines", || {
        let lines = server.log();
        let warned =
            lines.iter().any(|line| line["level"] == "warn" && line["message"].to_string().contains("no login"));
        let named = lines.iter().any(|line| line["message"] == "initialized" && line["invocation_id"] == "run-1");
        if warned && named { Ok(()) } else { Err(format!("{lines:?}")) }
    });
    server.stop(Signal::TERM);
}

#[test]
fn flags_that_cannot_be_meant_are_refused() {
    for args in [
        &["serve", "--network", "unixpacket", "--address", "x"][..],
        &["serve", "--root", "/no/such/folder"],
        &["serve", "--log-level", "loud"],
        &["serve", "--network", "udp"],
    ] {
        expect_failure(2, args);
    }
    let place = Place::new();
    let path = place.file("precious");
    std::fs::write(&path, "text").unwrap();
    expect_failure(1, &["serve", "--network", "unix", "--address", path.to_str().unwrap()]);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "text");
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_of_any_kind_harm_nobody_else() {
    let place = Place::new();
    let (tcp, unix) = (Serve::tcp(), Serve::unix(&place.file("cq.sock")));
    let mut random = Random::new(7);
    for round in 0..60 {
        let mut bytes: Vec<u8> = (0..random.below(4000)).map(|_| u8::try_from(random.below(256)).unwrap()).collect();
        if round % 2 == 0 {
            // Frames of every kind, with payloads that are none.
            let frames = bytes
                .chunks(64)
                .map(|part| frame(part[0] % 11, part[0] / 11, u8::try_from(part.len() % 5).unwrap(), part));
            bytes = [preface(), frames.flatten().collect()].concat();
        }
        let mut socket = TcpStream::connect(&tcp.address).unwrap();
        let _ = socket.write_all(&bytes);
        let mut socket = UnixStream::connect(&unix.address).unwrap();
        let _ = socket.write_all(&bytes);
    }
    for server in [&tcp, &unix] {
        let mut client = server.ready(&place.file(&format!("{}.db", server.address.len()))).await;
        write(&mut client, vec![migrate(&table("t")), insert(&rows("t", &[1]))]).await.unwrap();
    }
}

/// Every way to cut a record, and many to spoil it, at once into one table: what is taken is whole, what is not is told.
#[tokio::test(flavor = "multi_thread")]
async fn a_spoiled_record_is_refused_with_a_word_and_never_in_part() {
    let (server, place) = (Serve::tcp(), Place::new());
    let mut client = server.ready(&place.source()).await;
    write(&mut client, vec![migrate(&table("t"))]).await.unwrap();
    let whole = ipc::encode_record(&rows("t", &(0..50).collect::<Vec<_>>())).unwrap();
    let mut random = Random::new(11);
    let mut spoiled: Vec<Vec<u8>> = (0..whole.len()).step_by(7).map(|end| whole[..end].to_vec()).collect();
    for _ in 0..300 {
        let mut bytes = whole.to_vec();
        for _ in 0..=random.below(4) {
            let at = random.below(bytes.len());
            bytes[at] = u8::try_from(random.below(256)).unwrap();
        }
        spoiled.push(bytes);
    }
    // Lengths that nobody has bytes for.
    for length in [i32::MAX, i32::MIN, 1 << 30, 8] {
        spoiled.push([&[0xff; 4], &length.to_le_bytes()[..], &whole[8..]].concat());
    }
    for bytes in spoiled {
        let refused = write(&mut client, vec![insert_bytes(bytes)]).await;
        let codes = [Code::InvalidArgument, Code::Internal, Code::Cancelled];
        if let Err(status) = &refused {
            assert!(codes.contains(&status.code()), "{status:?}");
            assert!(!status.message().contains("own; see its log"), "a panic: {status:?}");
        }
        let count: i64 =
            open_reader(&place.source()).query_row("SELECT count(*) FROM t", [], |row| row.get(0)).unwrap();
        assert!(count == 0 || count >= 50 || refused.is_ok(), "{count} rows after {refused:?}");
    }
    write(&mut client, vec![insert(&rows("t", &[7]))]).await.unwrap();
    server.stop(Signal::INT);
}

/// A bomb: a compressed batch says itself how large it becomes.
#[tokio::test(flavor = "multi_thread")]
async fn a_compressed_record_is_refused() {
    let (server, place) = (Serve::tcp(), Place::new());
    let mut client = server.ready(&place.source()).await;
    let batch = rows("t", &(0..1000).collect::<Vec<_>>());
    let options = arrow::ipc::writer::IpcWriteOptions::default()
        .try_with_compression(Some(arrow::ipc::CompressionType::LZ4_FRAME))
        .unwrap();
    let mut writer =
        arrow::ipc::writer::StreamWriter::try_new_with_options(Vec::new(), &batch.schema(), options).unwrap();
    writer.write(&batch).unwrap();
    writer.finish().unwrap();
    let bytes = writer.into_inner().unwrap();
    let refused = write(&mut client, vec![migrate(&table("t")), insert_bytes(bytes)]).await;
    assert!(refused.as_ref().unwrap_err().message().contains("compressed"), "{refused:?}");
    expect("compressed", refused, Code::InvalidArgument, "failed to create record: ");
}

/// One record of 64 MiB: as it came, as it was decoded, and as SQLite has it.
#[tokio::test(flavor = "multi_thread")]
async fn a_large_message_is_held_three_times_at_most() {
    const BYTES: usize = 64 << 20;
    let (server, place) = (Serve::tcp(), Place::new());
    let mut client = server.ready(&place.source()).await;
    let blobs = Table::new("blobs", vec![Column::new("data", DataType::Binary)]);
    write(&mut client, vec![migrate(&blobs)]).await.unwrap();
    let before = server.peak_bytes();
    let data: Vec<Vec<u8>> = (0..64).map(|_| vec![7; BYTES / 64]).collect();
    let column: ArrayRef = std::sync::Arc::new(BinaryArray::from_iter_values(data));
    let batch = RecordBatch::try_new(std::sync::Arc::new(blobs.to_schema()), vec![column]).unwrap();
    write(&mut client, vec![insert(&batch)]).await.unwrap();
    let grown = server.peak_bytes() - before;
    assert!(grown <= 3 * BYTES as u64, "{} MiB for a message of {} MiB", grown >> 20, BYTES >> 20);
    let length: i64 =
        open_reader(&place.source()).query_row("SELECT sum(length(data)) FROM blobs", [], |row| row.get(0)).unwrap();
    assert_eq!(length, i64::try_from(BYTES).unwrap());
}

#[test]
fn the_help_names_what_people_need_and_hides_the_rest() {
    let help = Command::new(env!("CARGO_BIN_EXE_twinlite")).args(["serve", "--help"]).output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    assert!(help.contains("--root") && help.contains("--log-format") && !help.contains("sentry"), "{help}");
}
