// What must hold of whatever a server answers: a byte that chooses what was asked and in what pieces the answer comes, then the answer.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::FutureExt;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body::{Body, Frame};
use mesh_http::client::{ClientSettings, Sender};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

pub(crate) fn response(bytes: &[u8]) {
    let [choices, answer @ ..] = bytes else {
        return;
    };
    let method = [Method::GET, Method::HEAD, Method::CONNECT][usize::from(choices % 3)].clone();
    let whole = read(&method, answer, usize::MAX);
    for size in [1, 2, 1 + usize::from(choices / 3)] {
        assert_eq!(read(&method, answer, size), whole, "in pieces of {size}");
    }
    if let Some(read) = whole {
        assert!(!read.status.is_informational() || read.status == 101);
        assert!(
            !read.headers.contains_key("content-length")
                || !read.headers.contains_key("transfer-encoding")
        );
        let without = method != Method::GET || matches!(read.status.as_u16(), 101 | 204 | 304);
        assert!(!without || read.status.as_u16() >= 300 || read.body.is_empty());
    }
}

/// An answer as it is given on.
#[derive(Debug, PartialEq)]
struct Read {
    status: StatusCode,
    headers: HeaderMap,
    body: Vec<u8>,
    trailers: Option<HeaderMap>,
    ended: bool,
}

/// What is read of `answer` when it comes in pieces of `size` bytes, and the connection ends after it.
fn read(method: &Method, answer: &[u8], size: usize) -> Option<Read> {
    let io = Pieces {
        asked: false,
        left: answer.to_vec().into(),
        size,
    };
    let mut sender = Sender::new(io, &ClientSettings::default());
    let mut request = Request::new(Nothing);
    *request.method_mut() = method.clone();
    *request.uri_mut() = http::Uri::from_static("a.test:80");
    let answered = sender.send(&mut request, |_| {}).now_or_never()?.ok()?;
    let (head, mut body) = answered.into_parts();
    let mut read = Read {
        status: head.status,
        headers: head.headers,
        body: Vec::new(),
        trailers: None,
        ended: false,
    };
    let mut cx = Context::from_waker(std::task::Waker::noop());
    loop {
        match Pin::new(&mut body).poll_frame(&mut cx) {
            Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                Ok(data) => read.body.extend_from_slice(&data),
                Err(frame) => read.trailers = frame.into_trailers().ok(),
            },
            Poll::Ready(None) => {
                read.ended = true;
                return Some(read);
            }
            Poll::Ready(Some(Err(_))) => return Some(read),
            Poll::Pending => unreachable!("the connection has ended"),
        }
    }
}

/// Silent until a request was written; then it gives its bytes, and ends.
struct Pieces {
    asked: bool,
    left: Bytes,
    size: usize,
}

impl AsyncRead for Pieces {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.asked {
            return Poll::Pending;
        }
        let length = self.left.len().min(self.size).min(buf.remaining());
        buf.put_slice(&self.left.split_to(length));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Pieces {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.asked = true;
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// No body.
#[derive(Default)]
struct Nothing;

impl Body for Nothing {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        Poll::Ready(None)
    }

    fn is_end_stream(&self) -> bool {
        true
    }
}
