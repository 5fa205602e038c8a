//! The port for HTTP/1, HTTP/2 and gRPC.

use std::collections::HashMap;
use std::convert::Infallible;
use std::future::Future;
use std::rc::Rc;

use bytes::{BufMut, Bytes, BytesMut};
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use hyper_util::server::conn::auto;
use tokio::net::TcpListener;
use tokio::task::spawn_local;

use super::accept;
use super::answer::Answer;

/// A call of gRPC: the number of bytes to answer with comes after it.
pub(crate) const UNARY_PATH: &str = "/mesh.bench.Unary/";
/// A stream of gRPC: every message comes back.
pub(crate) const ECHO_PATH: &str = "/mesh.bench.Stream/Echo";

pub(super) async fn serve(listener: TcpListener) {
    let bodies = Rc::new(Bodies::new());
    loop {
        let stream = accept(&listener).await;
        let bodies = Rc::clone(&bodies);
        spawn_local(async move {
            let service = service_fn(move |request| {
                let bodies = Rc::clone(&bodies);
                async move { Ok::<_, Infallible>(answer(&bodies, request).await) }
            });
            let mut server = auto::Builder::new(LocalExec);
            server
                .http2()
                .initial_stream_window_size(STREAM_WINDOW)
                .initial_connection_window_size(CONNECTION_WINDOW)
                .max_concurrent_streams(None);
            // A connection that breaks off is its client's to complain about.
            let _ = server.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn answer(bodies: &Bodies, request: Request<Incoming>) -> Response<Answer> {
    let path = request.uri().path();
    if path == ECHO_PATH {
        return grpc(Answer::Echo(request.into_body()));
    }
    let sizes = path.strip_prefix(UNARY_PATH).map(|size| (size, true));
    let sizes = sizes.or_else(|| path.strip_prefix('/').map(|size| (size, false)));
    let Some((size, unary)) = sizes.and_then(|(size, unary)| Some((size.parse().ok()?, unary)))
    else {
        let mut refusal = Response::new(Answer::Full(None));
        *refusal.status_mut() = StatusCode::NOT_FOUND;
        return refusal;
    };
    let mut body = request.into_body();
    while let Some(Ok(_)) = body.frame().await {}
    if unary {
        return grpc(Answer::Message(bodies.messages.get(&size).cloned()));
    }
    Response::new(Answer::Full(bodies.plain.get(&size).cloned()))
}

fn grpc(answer: Answer) -> Response<Answer> {
    let mut response = Response::new(answer);
    let grpc = HeaderValue::from_static("application/grpc");
    response.headers_mut().insert(CONTENT_TYPE, grpc);
    response
}

/// The sizes of bodies that are served, in bytes. Any other is answered empty, which a load counts as a failure.
const SIZES: [usize; 4] = [0, 128, 16 * 1024, 1024 * 1024];

struct Bodies {
    plain: HashMap<usize, Bytes>,
    messages: HashMap<usize, Bytes>,
}

impl Bodies {
    fn new() -> Self {
        Self {
            plain: SIZES.map(|size| (size, vec![b'x'; size].into())).into(),
            messages: SIZES.map(|size| (size, message(size))).into(),
        }
    }
}

/// A message of gRPC of so many bytes: not compressed, its length, itself (gRPC over HTTP/2, "Length-Prefixed-Message").
pub(crate) fn message(size: usize) -> Bytes {
    let mut message = BytesMut::with_capacity(size + MESSAGE_HEAD);
    message.put_u8(0);
    message.put_u32(u32::try_from(size).unwrap_or(u32::MAX));
    message.put_bytes(b'x', size);
    message.freeze()
}

/// What comes before each message of gRPC, in bytes.
pub(crate) const MESSAGE_HEAD: usize = 5;

/// Windows of HTTP/2 in bytes, of loads too: so large that the proxies' own are what counts.
pub(crate) const STREAM_WINDOW: u32 = 4 << 20;
/// As [`STREAM_WINDOW`], of a whole connection.
pub(crate) const CONNECTION_WINDOW: u32 = 64 << 20;

/// Everything on this thread.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LocalExec;

impl<F> hyper::rt::Executor<F> for LocalExec
where
    F: Future<Output: 'static> + 'static,
{
    fn execute(&self, future: F) {
        spawn_local(future);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_of_grpc_says_how_long_it_is() {
        assert_eq!(&message(3)[..], b"\0\0\0\0\x03xxx");
        assert_eq!(message(1024 * 1024).len(), 1024 * 1024 + MESSAGE_HEAD);
    }
}
