//! The status for health checks: `/status.json`, `/live`, `/ready`.
//!
//! `/live` says that the process runs. `/ready` is 200 only while the node's links are healthy and every link that receives is
//! live, so that a balancer sends readers to a replica that shows the source's present; otherwise 503 and why. A source is
//! ready whether or not its replicas are there, and any node whether or not somebody takes its events.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::Error;
use crate::telemetry::{Board, Direction, LinkReport, LinkState, StatusReport};

/// Binds the address that `admin.listen` names.
///
/// # Errors
/// [`Error::Listen`], as where the port is taken.
pub async fn bind(address: &str) -> Result<TcpListener, Error> {
    TcpListener::bind(address).await.map_err(|source| Error::Listen { address: address.to_owned(), source })
}

/// How long the answers at hand may take after `shutdown`. A connection that is kept open without a request, or with half of
/// one, is not waited for any longer.
const ANSWER_GRACE: Duration = Duration::from_secs(1);

/// What there is to answer with.
#[derive(Clone)]
pub struct Health {
    /// What decides whether readers are welcome.
    pub board: Board,
    /// Gives the whole report, as `twinlite status -o json` prints it.
    pub report: Arc<Reports>,
}

/// Gives reports.
pub type Reports = dyn Fn() -> Pin<Box<dyn Future<Output = StatusReport> + Send>> + Send + Sync;

/// Serves until `shutdown`, then finishes the answers at hand.
///
/// # Errors
/// [`Error::Listen`] if the listener fails for good.
pub async fn serve_http(listener: TcpListener, health: Health, shutdown: CancellationToken) -> Result<(), Error> {
    let address = listener.local_addr().map(|address| address.to_string()).unwrap_or_default();
    let serve = axum::serve(listener, router(health)).with_graceful_shutdown(shutdown.clone().cancelled_owned());
    let over = async {
        shutdown.cancelled().await;
        tokio::time::sleep(ANSWER_GRACE).await;
    };
    tokio::select! {
        served = serve.into_future() => served.map_err(|source| Error::Listen { address, source }),
        () = over => Ok(()),
    }
}

fn router(health: Health) -> Router {
    Router::new()
        .route("/status.json", get(status))
        .route("/live", get(async || "live\n"))
        .route("/ready", get(ready))
        .with_state(health)
}

async fn status(State(health): State<Health>) -> Response {
    match serde_json::to_string(&(health.report)().await) {
        Ok(json) => ([(header::CONTENT_TYPE, "application/json")], json + "\n").into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

async fn ready(State(health): State<Health>) -> Response {
    match unready(&health.board) {
        None => "ready\n".into_response(),
        Some(why) => (StatusCode::SERVICE_UNAVAILABLE, why + "\n").into_response(),
    }
}

/// Why readers should go elsewhere.
fn unready(board: &Board) -> Option<String> {
    let report = board.report();
    let receiving = |link: &&LinkReport| link.direction == Direction::Receive;
    let waiting = report.links.iter().filter(receiving).find(|link| link.state != LinkState::Live);
    match waiting {
        Some(link) => Some(format!("link {:?} is {}", link.name, link.state.word())),
        None => (!board.links_are_healthy()).then(|| "unhealthy; see /status.json".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use axum::body::{Body, to_bytes};
    use axum::http::Request;
    use tower::ServiceExt;

    use super::*;
    use crate::model::{ManualClock, Trouble};

    fn health(board: &Board) -> Health {
        let board = board.clone();
        let reported = board.clone();
        let report = move || -> Pin<Box<dyn Future<Output = StatusReport> + Send>> {
            let report = reported.report();
            Box::pin(async move { report })
        };
        Health { board, report: Arc::new(report) }
    }

    async fn get(board: &Board, path: &str) -> (StatusCode, String) {
        let request = Request::get(path).body(Body::empty()).expect("request");
        let response = router(health(board)).oneshot(request).await.expect("answers");
        let status = response.status();
        let body = to_bytes(response.into_body(), 1 << 20).await.expect("body");
        (status, String::from_utf8(body.to_vec()).expect("text"))
    }

    #[tokio::test]
    async fn ready_means_live_and_healthy() {
        let board = Board::new("replica", "/data/replica.db", Arc::new(ManualClock::at(0)));
        let link = board.link("source", Direction::Receive, None);
        let _away = board.link("archive", Direction::Send, None);
        assert_eq!(get(&board, "/live").await, (StatusCode::OK, "live\n".to_owned()));
        let (status, why) = get(&board, "/ready").await;
        assert_eq!((status, why.as_str()), (StatusCode::SERVICE_UNAVAILABLE, "link \"source\" is connecting\n"));
        link.connected(true);
        link.goes_on(LinkState::Live, true);
        assert_eq!(get(&board, "/ready").await.0, StatusCode::OK);
        let trouble = Trouble { code: "x".into(), message: "y".into(), hint: String::new() };
        link.trouble(&trouble, LinkState::Halted, None);
        assert_eq!(get(&board, "/ready").await.0, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(get(&board, "/live").await.0, StatusCode::OK);
        let (status, json) = get(&board, "/status.json").await;
        let report: StatusReport = serde_json::from_str(&json).expect("the contract");
        assert_eq!((status, report.healthy), (StatusCode::OK, false));
    }

    #[tokio::test]
    async fn readers_are_not_sent_away_because_nobody_takes_the_events() {
        let board = Board::new("replica", "/data/replica.db", Arc::new(ManualClock::at(0)));
        let events = board.events("search", "https://example.org/");
        events.stopped(Trouble { code: "x".into(), message: "y".into(), hint: String::new() });
        assert!(!board.report().healthy);
        assert_eq!(get(&board, "/ready").await.0, StatusCode::OK);
    }

    #[tokio::test]
    async fn a_connection_that_asks_nothing_does_not_keep_the_node() {
        let listener = bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let board = Board::new("replica", "/data/replica.db", Arc::new(ManualClock::at(0)));
        let shutdown = CancellationToken::new();
        let serving = tokio::spawn(serve_http(listener, health(&board), shutdown.clone()));
        let mut idle = tokio::net::TcpStream::connect(address).await.expect("connects");
        tokio::io::AsyncWriteExt::write_all(&mut idle, b"GET /live HTTP/1.1\r\n").await.expect("half a request");
        shutdown.cancel();
        let ended = tokio::time::timeout(ANSWER_GRACE * 20, serving).await.expect("it ends");
        ended.expect("no panic").expect("in good order");
        drop(idle);
    }

    #[tokio::test]
    async fn a_port_that_is_taken_is_named() {
        let first = bind("127.0.0.1:0").await.expect("a free port");
        let taken = first.local_addr().expect("bound").to_string();
        let error = bind(&taken).await.expect_err("taken");
        assert!(error.to_string().contains(&taken), "{error}");
    }
}
