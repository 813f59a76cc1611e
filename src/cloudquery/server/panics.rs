//! A panic in a call is that call's failure, INTERNAL, and nobody else's.

use std::panic::AssertUnwindSafe;
use std::task::{Context, Poll};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::http::{Request, Response};
use tower::{Layer, Service};

use super::status::Failure;

/// Puts [`Caught`] around a service.
#[derive(Clone, Copy)]
pub(super) struct CatchPanics;

/// A service whose calls end where they panic.
#[derive(Clone)]
pub(super) struct Caught<S>(S);

impl<S> Layer<S> for CatchPanics {
    type Service = Caught<S>;

    fn layer(&self, inner: S) -> Caught<S> {
        Caught(inner)
    }
}

impl<S> Service<Request<Body>> for Caught<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Response<Body>, S::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let answer = self.0.call(request);
        async move {
            match AssertUnwindSafe(answer).catch_unwind().await {
                Ok(answer) => answer,
                Err(_) => Ok(Status::from(Failure::Panic).into_http()),
            }
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use tower::ServiceExt;

    use super::*;

    #[tokio::test]
    async fn a_panic_is_answered() {
        let broken = tower::service_fn(|_: Request<Body>| async {
            assert!(std::hint::black_box(false), "on purpose");
            Ok::<_, std::convert::Infallible>(Response::new(Body::empty()))
        });
        let answer = CatchPanics.layer(broken).oneshot(Request::new(Body::empty())).await.expect("an answer");
        assert_eq!(answer.headers()["grpc-status"], "13");
    }
}
