//! A webhook that does what a test tells it, and whoever is behind it: a receiver that keeps what it was told as rows.

use std::{
    collections::{BTreeMap, VecDeque},
    io::{BufRead as _, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
};

use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use serde_json::Value;

/// What it does with a POST that it has read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Answers with this code.
    Answer(u16),
    /// Closes the connection.
    Close,
    /// Says 200 and closes in the middle of its answer.
    Cut,
    /// Answers 200 when the client has gone.
    Late,
}

/// What came with one POST, and what was done with it.
#[derive(Clone, Debug)]
pub struct Post {
    /// `Idempotency-Key`.
    pub id: String,
    /// All of the head.
    pub head: String,
    /// The body.
    pub body: Value,
    /// What was done.
    pub act: Act,
}

impl Post {
    /// The changes with their positions.
    pub fn changes(&self) -> impl Iterator<Item = (i64, &Value)> {
        let positions = self.body["positions"].as_array().unwrap().iter().map(|at| at.as_i64().unwrap());
        let changes = self.body["changes"].as_array().unwrap();
        assert_eq!(positions.len(), changes.len(), "a position for each change");
        positions.zip(changes)
    }
}

#[derive(Default)]
struct Told {
    posts: Vec<Post>,
    next: VecDeque<Act>,
    then: Option<Act>,
}

/// The server. It ends with the test's process.
pub struct Hook {
    /// Where it listens.
    pub url: String,
    told: Arc<Mutex<Told>>,
}

impl Hook {
    /// Answers 200, until it is told otherwise.
    pub fn start() -> Self {
        Self::serve("http", |stream| Some(Box::new(stream) as Box<dyn Connection>))
    }

    /// The same over TLS, with the certificate of `tests/fixtures/tls`.
    pub fn start_tls() -> Self {
        let chain = CertificateDer::pem_slice_iter(include_bytes!("../../fixtures/tls/server.pem"));
        let key = PrivateKeyDer::from_pem_slice(include_bytes!("../../fixtures/tls/server.key")).unwrap();
        let provider = rustls::crypto::ring::default_provider();
        let config = rustls::ServerConfig::builder_with_provider(provider.into())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain.map(Result::unwrap).collect(), key)
            .unwrap();
        let config = Arc::new(config);
        Self::serve("https", move |stream| {
            let session = rustls::ServerConnection::new(Arc::clone(&config)).unwrap();
            Some(Box::new(rustls::StreamOwned::new(session, stream)))
        })
    }

    fn serve(scheme: &str, wrap: impl Fn(TcpStream) -> Option<Box<dyn Connection>> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("{scheme}://localhost:{}/hook", listener.local_addr().unwrap().port());
        let told = Arc::new(Mutex::new(Told::default()));
        let (shared, wrap) = (Arc::clone(&told), Arc::new(wrap));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (told, wrap) = (Arc::clone(&shared), Arc::clone(&wrap));
                std::thread::spawn(move || wrap(stream).map(|stream| converse(BufReader::new(stream), &told)));
            }
        });
        Self { url, told }
    }

    /// Does these with the next posts.
    pub fn next(&self, acts: &[Act]) {
        self.told.lock().unwrap().next.extend(acts);
    }

    /// Does this with every post after those.
    pub fn then(&self, act: Act) {
        self.told.lock().unwrap().then = Some(act);
    }

    /// Everything that came.
    pub fn posts(&self) -> Vec<Post> {
        self.told.lock().unwrap().posts.clone()
    }

    /// What was taken: answered 200 in time.
    pub fn taken(&self) -> Vec<Post> {
        self.posts().into_iter().filter(|post| post.act == Act::Answer(200)).collect()
    }
}

/// What a conversation is held over.
pub trait Connection: Read + Write + Send {}
impl<T: Read + Write + Send> Connection for T {}

fn converse(mut stream: BufReader<Box<dyn Connection>>, told: &Mutex<Told>) {
    while let Some((head, body)) = request(&mut stream) {
        let id = header(&head, "idempotency-key").unwrap().to_owned();
        let act = {
            let mut told = told.lock().unwrap();
            let act = told.next.pop_front().or(told.then).unwrap_or(Act::Answer(200));
            told.posts.push(Post { id, head, body, act });
            act
        };
        let answer = match act {
            Act::Answer(code) => format!("HTTP/1.1 {code} x\r\nlocation: /else\r\ncontent-length: 0\r\n\r\n"),
            Act::Close => return,
            Act::Cut => "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf".to_owned(),
            Act::Late => {
                let _ = stream.read(&mut [0]);
                "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n".to_owned()
            }
        };
        let written = stream.get_mut().write_all(answer.as_bytes()).and_then(|()| stream.get_mut().flush());
        if written.is_err() || act == Act::Cut {
            return;
        }
    }
}

fn request(stream: &mut BufReader<Box<dyn Connection>>) -> Option<(String, Value)> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if stream.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    let mut body = vec![0; header(&head, "content-length")?.parse().ok()?];
    stream.read_exact(&mut body).ok()?;
    Some((head, serde_json::from_slice(&body).expect("a body is JSON")))
}

/// A header's value.
pub fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let fields = head.lines().filter_map(|line| line.split_once(": "));
    fields.filter(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value).next()
}

/// Rows by table and key, as whoever takes events keeps them. The key is the column `id`.
pub type Rows = BTreeMap<(String, i64), Value>;

/// What rows there are after these posts, each taken once: every event has to fit what the events before it say.
#[track_caller]
pub fn replay(posts: &[Post]) -> Rows {
    let mut rows = Rows::new();
    let mut last = 0;
    for (position, change) in posts.iter().flat_map(Post::changes) {
        assert!(position >= last, "positions go down, from {last} to {position}");
        last = position;
        let table = change["table"].as_str().unwrap();
        let key = |image: &Value| (table.to_owned(), image["id"].as_i64().unwrap());
        let (before, after) = (&change["before"], &change["after"]);
        if change["operation"] == "RESYNC" {
            rows.retain(|(known, _), _| known != table);
        }
        if !before.is_null() {
            assert_eq!(rows.remove(&key(before)).as_ref(), Some(before), "{change}");
        }
        if !after.is_null() {
            assert_eq!(rows.insert(key(after), after.clone()), None, "{change}");
        }
    }
    rows
}

/// What rows there are for a receiver that drops repeats by position, as docs/events.md says it may.
pub fn receive(posts: &[Post]) -> Rows {
    let mut rows = Rows::new();
    let (mut epoch, mut highest) = (String::new(), 0);
    for post in posts {
        if post.body["epoch"] != *epoch {
            (epoch, highest) = (post.body["epoch"].as_str().unwrap().to_owned(), 0);
        }
        for (position, change) in post.changes() {
            let is_insert = change["operation"] == "INSERT";
            if position < highest || (position == highest && !is_insert) {
                continue;
            }
            highest = position;
            let table = change["table"].as_str().unwrap();
            let key = |image: &Value| (table.to_owned(), image["id"].as_i64().unwrap());
            if change["operation"] == "RESYNC" {
                rows.retain(|(known, _), _| known != table);
            }
            if !change["before"].is_null() {
                rows.remove(&key(&change["before"]));
            }
            if !change["after"].is_null() {
                rows.insert(key(&change["after"]), change["after"].clone());
            }
        }
    }
    rows
}
