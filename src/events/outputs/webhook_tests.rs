//! Webhooks against a server that does what a test tells it, over real sockets.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{ChangesHandler, Error, Webhook, WebhookOptions};
use crate::config::HttpUrl;
use crate::model::{Changes, Epoch, Event, EventTable, Fault, ManualClock, Operation, Value};
use crate::sqlite::said;
use crate::telemetry::{Board, EventsState};

/// What the server does with a request, once it has read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    /// Answers with this code, and a body.
    Answer(u16),
    /// Closes the connection.
    Close,
    /// Answers 200 and closes in the middle of the body.
    Cut,
    /// Answers 200 with a body without end.
    Endless,
    /// Says nothing until the client has gone: an answer of 200 that comes too late.
    Late,
}

/// A request as it came.
#[derive(Clone, Debug)]
struct Post {
    head: String,
    body: String,
}

impl Post {
    fn header(&self, name: &str) -> Option<&str> {
        let value =
            |line: &'_ str| line.split_once(": ").filter(|(found, _)| found.eq_ignore_ascii_case(name)).is_some();
        self.head.lines().find(|line| value(line)).and_then(|line| line.split_once(": ")).map(|(_, value)| value)
    }

    fn id(&self) -> &str {
        self.header("idempotency-key").expect("every batch has an id")
    }
}

struct Server {
    url: String,
    posts: Arc<Mutex<Vec<Post>>>,
    serving: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Server {
    /// Does these, one for each request, and answers 200 to all that follow.
    async fn start(acts: &[Act]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}/hook?k=v", listener.local_addr().expect("bound"));
        let posts = Arc::new(Mutex::new(Vec::new()));
        let acts = Arc::new(Mutex::new(acts.iter().copied().collect::<VecDeque<_>>()));
        let taken = Arc::clone(&posts);
        let serving = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(converse(BufReader::new(stream), Arc::clone(&acts), Arc::clone(&taken)));
            }
        });
        Self { url, posts, serving }
    }

    fn posts(&self) -> Vec<Post> {
        self.posts.lock().expect("not poisoned").clone()
    }

    fn options(&self) -> WebhookOptions {
        let url = HttpUrl::parse(&self.url).expect("a URL");
        WebhookOptions { timeout: Duration::from_millis(300), ..WebhookOptions::new(url) }
    }

    fn webhook(&self) -> Webhook {
        Webhook::new(self.options(), None).expect("opens")
    }
}

async fn converse(mut stream: BufReader<TcpStream>, acts: Arc<Mutex<VecDeque<Act>>>, posts: Arc<Mutex<Vec<Post>>>) {
    while let Some(post) = request(&mut stream).await {
        posts.lock().expect("not poisoned").push(post);
        let act = acts.lock().expect("not poisoned").pop_front().unwrap_or(Act::Answer(200));
        let answer = match act {
            Act::Answer(code) => format!("HTTP/1.1 {code} x\r\nlocation: /elsewhere\r\ncontent-length: 2\r\n\r\nok"),
            Act::Close => return,
            Act::Cut => "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf".to_owned(),
            Act::Endless => "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_owned(),
            Act::Late => {
                let _ = stream.read_u8().await;
                return;
            }
        };
        if stream.write_all(answer.as_bytes()).await.is_err() || act == Act::Cut {
            return;
        }
        let chunk = format!("10000\r\n{}\r\n", "x".repeat(0x1_0000));
        while act == Act::Endless {
            if stream.write_all(chunk.as_bytes()).await.is_err() {
                return;
            }
        }
    }
}

async fn request(stream: &mut BufReader<TcpStream>) -> Option<Post> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if stream.read_line(&mut head).await.ok()? == 0 {
            return None;
        }
    }
    let post = Post { head, body: String::new() };
    let mut body = vec![0; post.header("content-length")?.parse().ok()?];
    stream.read_exact(&mut body).await.ok()?;
    Some(Post { body: String::from_utf8(body).expect("JSON is UTF-8"), ..post })
}

fn batch(id: &str) -> Changes {
    let table = Arc::new(EventTable { name: "t".into(), columns: vec!["a".into()] });
    let after = Some(vec![Value::text(id)]);
    let event = Event { table, seq: 7, ts_ms: 0, operation: Operation::Insert, before: None, after };
    Changes { id: id.to_owned(), epoch: Epoch(1), events: vec![event] }
}

#[track_caller]
fn error(result: Result<(), crate::events::HandlerError>) -> Error {
    *result.expect_err("it is not taken").downcast::<Error>().expect("ours")
}

/// The ids of what came, in order, each as often as it came.
fn ids(server: &Server) -> Vec<String> {
    server.posts().iter().map(|post| post.id().to_owned()).collect()
}

#[tokio::test]
async fn a_batch_is_a_post_with_its_id_and_the_headers_that_were_asked_for() {
    let server = Server::start(&[]).await;
    let header = (HeaderName::from_static("authorization"), HeaderValue::from_static("Bearer abc"));
    let mut webhook = Webhook::new(WebhookOptions { headers: vec![header], ..server.options() }, None).expect("opens");
    webhook.handle_changes(&batch("one")).await.expect("taken");
    webhook.handle_changes(&batch("two")).await.expect("taken");
    let posts = server.posts();
    assert!(posts[0].head.starts_with("POST /hook?k=v HTTP/1.1\r\n"), "{}", posts[0].head);
    let has = |name, value| assert_eq!(posts[0].header(name), Some(value), "{name}");
    has("authorization", "Bearer abc");
    has("content-type", "application/json");
    has("user-agent", concat!("twinlite/", env!("CARGO_PKG_VERSION")));
    assert_eq!(ids(&server), ["one", "two"]);
    let body: serde_json::Value = serde_json::from_str(&posts[0].body).expect("JSON");
    assert_eq!((&body["id"], &body["changes"][0]["after"]["a"]), (&"one".into(), &"one".into()));
}

#[tokio::test]
async fn a_batch_is_posted_until_it_is_taken_and_none_overtakes_it() {
    let acts = [Act::Answer(500), Act::Close, Act::Cut, Act::Late, Act::Answer(200)];
    let server = Server::start(&acts).await;
    let mut webhook = server.webhook();
    for id in ["one", "two"] {
        webhook.handle_changes(&batch(id)).await.expect("taken in the end");
    }
    assert_eq!(ids(&server), ["one", "one", "one", "one", "one", "two"]);
    let posts = server.posts();
    assert!(posts[..5].iter().all(|post| post.body == posts[0].body), "a repeat is the same to the byte");
}

#[tokio::test]
async fn only_200_is_success_and_redirects_are_not_followed() {
    for code in [201, 204, 301, 302, 307, 404, 500] {
        let server = Server::start(&[Act::Answer(code)]).await;
        let options = WebhookOptions { retry_for: Some(Duration::ZERO), ..server.options() };
        let mut webhook = Webhook::new(options, None).expect("opens");
        let error = error(webhook.handle_changes(&batch("one")).await);
        assert!(said(&error).contains(&format!("answered {code}")), "{}", said(&error));
        assert_eq!(said(&error).contains("redirects"), (300..400).contains(&code), "{}", said(&error));
        assert!(!said(&error).contains("k=v"), "a query may hold a secret: {}", said(&error));
        assert_eq!((error.fault(), error.code()), (Fault::Halt, "webhook_status"));
        assert_eq!(server.posts().len(), 1, "{code}: there was a second request");
    }
}

#[tokio::test]
async fn an_answer_without_end_is_not_read_to_its_end() {
    let server = Server::start(&[Act::Endless]).await;
    let mut webhook = server.webhook();
    for id in ["one", "two"] {
        webhook.handle_changes(&batch(id)).await.expect("200 was said");
    }
    assert_eq!(ids(&server), ["one", "two"]);
}

#[tokio::test]
async fn it_gives_up_after_as_long_as_was_said_and_says_why() {
    let server = Server::start(&[Act::Late; 100]).await;
    let options = WebhookOptions {
        timeout: Duration::from_millis(20),
        retry_for: Some(Duration::from_millis(200)),
        ..server.options()
    };
    let error = error(Webhook::new(options, None).expect("opens").handle_changes(&batch("one")).await);
    let Error::GaveUp { tries, after, source } = &error else { panic!("{error:?}") };
    assert!(*tries >= 2 && *after >= Duration::from_millis(200), "{error:?}");
    assert!(matches!(**source, Error::Late { .. }), "{error:?}");
    assert_eq!(error.code(), "webhook_timeout");
}

#[tokio::test]
async fn a_server_that_is_not_there_is_named_with_the_systems_reason() {
    let closed = {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        listener.local_addr().expect("bound")
    };
    let url = HttpUrl::parse(&format!("http://{closed}")).expect("a URL");
    let options = WebhookOptions { retry_for: Some(Duration::ZERO), ..WebhookOptions::new(url) };
    let error = error(Webhook::new(options, None).expect("opens").handle_changes(&batch("one")).await);
    let text = said(&error);
    assert!(text.contains(&format!("connect to http://{closed}/")) && text.contains("refused"), "{text}");
    assert_eq!(error.code(), "webhook_connect");
}

#[tokio::test]
async fn the_board_tells_of_an_outage_while_it_lasts() {
    let server = Server::start(&[Act::Answer(500), Act::Late]).await;
    let board = Board::new("a", "a.db", Arc::new(ManualClock::at(1_000)));
    let status = board.events("hook", "x");
    status.state(EventsState::Live);
    let mut webhook = Webhook::new(server.options(), Some(status)).expect("opens");
    let mut changes = board.subscribe();
    let mut seen = Vec::new();
    let one = batch("one");
    let mut handling = webhook.handle_changes(&one);
    loop {
        tokio::select! {
            taken = &mut handling => break taken.expect("taken in the end"),
            _ = changes.changed() => {
                let events = board.report().events.remove(0);
                seen.push((events.state, events.failed_tries, events.last_error.map(|error| error.code)));
            }
        }
    }
    let during = |tries, code: &str| (EventsState::Retrying, tries, Some(code.to_owned()));
    assert_eq!(seen[..2], [during(1, "webhook_status"), during(2, "webhook_timeout")]);
    let after = board.report().events.remove(0);
    assert_eq!((after.state, after.failed_tries, after.last_error), (EventsState::Live, 0, None));
    assert_eq!(after.last_success_ms, Some(1_000));
}

#[tokio::test]
async fn an_outage_does_not_hold_up_a_shutdown() {
    let server = Server::start(&[Act::Answer(500); 100]).await;
    let stop = CancellationToken::new();
    let options = WebhookOptions { stop: stop.clone(), ..server.options() };
    stop.cancel();
    let error = error(Webhook::new(options, None).expect("opens").handle_changes(&batch("one")).await);
    assert!(matches!(error, Error::Stopped { .. }) && error.code() == "webhook_status", "{error:?}");
    assert_eq!(server.posts().len(), 1, "the batch at hand is tried, and not again");
}

#[tokio::test]
async fn an_id_that_no_header_can_hold_is_refused_before_anything_is_sent() {
    let server = Server::start(&[]).await;
    let error = error(server.webhook().handle_changes(&batch("a\nb")).await);
    assert!(matches!(error, Error::Id { .. }) && server.posts().is_empty(), "{error:?}");
}
