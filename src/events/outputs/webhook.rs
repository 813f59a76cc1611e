//! Batches as POSTs to a URL.
//!
//! A batch is taken when the server has answered 200 and its answer has ended well. Anything else, a redirect and another
//! success too, is a failure, and the batch is posted again, with the same id and the same bytes, after a wait that doubles:
//! for ever, or for as long as was said. So a server may get a batch more than once, and never a later one before it.

use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use http::{HeaderName, HeaderValue, Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper_rustls::{ConfigBuilderExt as _, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::envelope::body;
use super::json::Form;
use super::retry::Retry;
use super::{ChangesHandler, Error};
use crate::config::{HttpUrl, ID_HEADER, WEBHOOK_TIMEOUT};
use crate::events::HandlerError;
use crate::model::Changes;
use crate::sqlite::said;
use crate::telemetry::EventsHandle;

/// How long one address is tried: a host that does not answer at all is told from one that is slow.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection that is not used is kept: less than the 5 s after which common servers close it, so that a batch
/// seldom meets a connection that has just ended.
const IDLE_TIMEOUT: Duration = Duration::from_secs(4);
/// Bytes of an answer that are read, so that the connection can be used again; nothing in them counts.
const ANSWER_BYTES_MAX: usize = 64 << 10;
/// How often a failure that lasts is logged; `status` has it always.
const SAY_AGAIN_EVERY: Duration = Duration::from_secs(300);

/// Where and how batches are posted.
#[derive(Clone, Debug)]
pub struct WebhookOptions {
    /// Where to.
    pub url: HttpUrl,
    /// Headers of each POST, besides those that are set anyway.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// How long one POST may take, from connecting to the end of the answer.
    pub timeout: Duration,
    /// How long a batch is tried; `None`: for ever. With no time at all it is tried once.
    pub retry_for: Option<Duration>,
    /// How events are said.
    pub form: Form,
    /// Ends the wait between tries, with [`Error::Stopped`].
    pub stop: CancellationToken,
}

impl WebhookOptions {
    /// Every default.
    pub fn new(url: HttpUrl) -> Self {
        Self {
            url,
            headers: Vec::new(),
            timeout: WEBHOOK_TIMEOUT,
            retry_for: None,
            form: Form::default(),
            stop: CancellationToken::new(),
        }
    }
}

/// Posts batches. See the module.
pub struct Webhook {
    options: WebhookOptions,
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    status: Option<EventsHandle>,
}

impl Webhook {
    /// Connects to nothing yet. `status`: where it says how it is doing.
    ///
    /// # Errors
    /// [`Error::Roots`], for an `https` URL.
    pub fn new(options: WebhookOptions, status: Option<EventsHandle>) -> Result<Self, Error> {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
        let tls = tls_config(&options.url)?;
        let connector =
            HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().wrap_connector(tcp);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_max_idle_per_host(1)
            .build(connector);
        Ok(Self { options, client, status })
    }

    /// As it is shown.
    fn url(&self) -> String {
        self.options.url.to_string()
    }

    async fn handle(&mut self, changes: &Changes) -> Result<(), Error> {
        let id = HeaderValue::from_str(&changes.id).map_err(|_| Error::Id { url: self.url() })?;
        let body = Bytes::from(body(changes, &self.options.form));
        let mut retry = Retry::new(self.options.retry_for);
        let (began, mut logged_at) = (Instant::now(), None::<Instant>);
        loop {
            let Err(error) = self.post(&id, &body).await else { break };
            if let Some(status) = &self.status {
                status.failed(error.trouble());
            }
            let Some(wait) = retry.next(began.elapsed(), rand::random()) else {
                return Err(Error::GaveUp { tries: retry.failed(), after: began.elapsed(), source: Box::new(error) });
            };
            if logged_at.is_none_or(|at| at.elapsed() >= SAY_AGAIN_EVERY) {
                logged_at = Some(Instant::now());
                tracing::warn!(error = said(&error), tries = retry.failed(), "events are not taken: trying again");
            }
            tokio::select! {
                biased;
                () = self.options.stop.cancelled() => return Err(Error::Stopped { source: Box::new(error) }),
                () = sleep(wait) => {}
            }
        }
        if retry.failed() > 0 {
            tracing::info!(url = %self.options.url, tries = retry.failed() + 1, "events are taken again");
        }
        if let Some(status) = &self.status {
            status.taken();
        }
        Ok(())
    }

    async fn post(&self, id: &HeaderValue, body: &Bytes) -> Result<(), Error> {
        let late = |_| Error::Late { url: self.url(), after: self.options.timeout };
        timeout(self.options.timeout, self.exchange(id, body)).await.map_err(late)?
    }

    async fn exchange(&self, id: &HeaderValue, body: &Bytes) -> Result<(), Error> {
        let url = || self.url();
        let answer = self.client.request(self.request(id, body)).await;
        let answer = answer.map_err(|source| match source.is_connect() {
            true => Error::Connect { url: url(), source },
            false => Error::Broken { url: url(), source },
        })?;
        let status = answer.status();
        if status != StatusCode::OK {
            return Err(Error::Status { url: url(), status });
        }
        match Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await {
            Ok(_) => Ok(()),
            // A longer answer is not read to its end, and the connection not used again.
            Err(error) if error.is::<LengthLimitError>() => Ok(()),
            Err(source) => Err(Error::Cut { url: url(), source }),
        }
    }

    fn request(&self, id: &HeaderValue, body: &Bytes) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(body.clone()));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.options.url.uri().clone();
        let headers = request.headers_mut();
        for (name, value) in &self.options.headers {
            headers.append(name, value.clone());
        }
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers
            .entry(header::USER_AGENT)
            .or_insert(HeaderValue::from_static(concat!("twinlite/", env!("CARGO_PKG_VERSION"))));
        headers.insert(ID_HEADER, id.clone());
        request
    }
}

impl ChangesHandler for Webhook {
    fn handle_changes<'a>(&'a mut self, changes: &'a Changes) -> BoxFuture<'a, Result<(), HandlerError>> {
        async { Ok(self.handle(changes).await?) }.boxed()
    }

    /// Those that it was made with, as a node does, stay.
    fn begins(&mut self, status: &EventsHandle, cancel: &CancellationToken) {
        if self.status.is_none() {
            (self.status, self.options.stop) = (Some(status.clone()), cancel.clone());
        }
    }
}

/// Trusts what the machine trusts; looks for that only where the URL asks for TLS.
fn tls_config(url: &HttpUrl) -> Result<rustls::ClientConfig, Error> {
    let builder = rustls::ClientConfig::builder_with_provider(rustls::crypto::ring::default_provider().into());
    let builder = builder.with_safe_default_protocol_versions().expect("the provider has what its own versions need");
    if url.is_https() {
        let trusting = builder.with_native_roots().map_err(|_| Error::Roots { url: url.to_string() })?;
        return Ok(trusting.with_no_client_auth());
    }
    Ok(builder.with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth())
}
