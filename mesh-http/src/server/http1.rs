//! Serving HTTP/1.

use std::future::{Future, poll_fn};
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::Body;
use hyper::server::conn::http1;
use hyper::service::Service;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::connections::{Activity, Connection, Told};
use crate::{Error, Incoming, Prefixed, ServerLimits};

/// Serves HTTP/1.0 and HTTP/1.1 on `io` until the client or `connection` says that it ends, or a response switched protocols.
///
/// A service that answers 101 (or a CONNECT with success) takes [`hyper::upgrade::on`] its request before; it resolves
/// by the time this returns.
///
/// A client that ends its side while a request is in flight has left: the request is cancelled, as a client's timeout
/// must reach the application. (HTTP/1 cannot tell that from a half-close.)
///
/// A connection that rests ([`Connection::poll_rest`]) holds no buffers until bytes come in again. So the service has to
/// hold [`Activity::request`] from its call until both bodies have ended.
///
/// # Errors
/// [`Error::Http`] when the client breaks the protocol or the connection.
pub async fn http1<I, S, B>(
    io: I,
    limits: &ServerLimits,
    connection: &Connection,
    service: S,
) -> Result<(), Error>
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: Service<Request<Incoming>, Response = Response<B>>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    B: Body + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let mut builder = http1::Builder::new();
    builder
        .auto_date_header(false)
        .header_read_timeout(None)
        .max_headers(limits.max_headers)
        .max_buf_size(limits.max_header_bytes.max(8192));
    let activity = connection.activity();
    activity.http_begins();
    let mut io = Prefixed::new(Bytes::new(), io);
    let mut service = Hearing(service);
    let mut known = None;
    let ended = loop {
        let noted = TokioIo::new(Noted {
            io,
            activity: activity.clone(),
        });
        let mut served = builder.serve_connection(noted, service).with_upgrades();
        match poll_fn(|cx| poll_requests(&mut served, connection, &mut known, cx)).await {
            Ok(Next::Rest) => {}
            Ok(Next::End) => break Ok(()),
            Err(error) => break Err(error),
        }
        let Some(parts) = served.into_parts() else {
            break Ok(());
        };
        service = parts.service;
        let (unread, mut stream) = parts.io.into_inner().io.into_parts();
        // What hyper has read comes before what it has not.
        let mut begun = chained(&parts.read_buf, &unread);
        drop((parts.read_buf, unread));
        if begun.is_empty() {
            begun = rest(&mut stream, connection).await?;
        }
        if begun.is_empty() {
            end(&mut stream, connection).await;
            break Ok(());
        }
        io = Prefixed::new(begun, stream);
    };
    // What a response has switched to may stay silent.
    activity.http_ends();
    ended
}

/// A service of requests whose bodies are hyper's.
struct Hearing<S>(S);

impl<S: Service<Request<Incoming>>> Service<Request<hyper::body::Incoming>> for Hearing<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn call(&self, request: Request<hyper::body::Incoming>) -> S::Future {
        self.0.call(request.map(Incoming::Http1))
    }
}

/// What becomes of a connection when no request is on it.
enum Next {
    /// It gives its buffers back until bytes come in.
    Rest,
    End,
}

/// Serves the requests that come in. One that has come in already is served though `connection` says that it ends: hyper closes at
/// once when it is told to before it has read anything.
fn poll_requests<I, S, B>(
    served: &mut http1::UpgradeableConnection<I, Hearing<S>>,
    connection: &Connection,
    known: &mut Option<Told>,
    cx: &mut Context<'_>,
) -> Poll<Result<Next, Error>>
where
    I: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
    S: Service<Request<Incoming>, Response = Response<B>>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    B: Body + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    loop {
        if let Poll::Ready(ended) = Pin::new(&mut *served).poll(cx) {
            return Poll::Ready(ended.map(|()| Next::End).map_err(Error::from));
        }
        let Poll::Ready(told) = connection.poll_told(*known, cx) else {
            break;
        };
        *known = Some(told);
        match told {
            Told::Drain => Pin::new(&mut *served).graceful_shutdown(),
            Told::Close => return Poll::Ready(Ok(Next::End)),
        }
    }
    match known {
        Some(_) => Poll::Pending,
        None => connection.poll_rest(cx).map(|()| Ok(Next::Rest)),
    }
}

/// The next bytes that come in; none when `io` ends, or `connection` says that it does.
async fn rest<I: AsyncRead + Unpin>(io: &mut I, connection: &Connection) -> io::Result<Bytes> {
    poll_fn(|cx| {
        // Only while this is polled: between polls it takes no memory.
        let mut space = [MaybeUninit::uninit(); 1024];
        let mut begun = ReadBuf::uninit(&mut space);
        if let Poll::Ready(read) = Pin::new(&mut *io).poll_read(cx, &mut begun) {
            return Poll::Ready(read.map(|()| Bytes::copy_from_slice(begun.filled())));
        }
        connection.poll_told(None, cx).map(|_| Ok(Bytes::new()))
    })
    .await
}

/// Ends `io`, unless `connection` is told to close before it can. The other side may be gone already.
async fn end<I: AsyncWrite + Unpin>(io: &mut I, connection: &Connection) {
    poll_fn(|cx| {
        if connection.poll_told(Some(Told::Drain), cx).is_ready() {
            return Poll::Ready(());
        }
        Pin::new(&mut *io).poll_shutdown(cx).map(|_| ())
    })
    .await;
}

/// `first`, then `second`. Both are empty mostly; an empty one may hold on to a buffer all the same.
fn chained(first: &Bytes, second: &Bytes) -> Bytes {
    match first.is_empty() && second.is_empty() {
        true => Bytes::new(),
        false => [&first[..], second].concat().into(),
    }
}

/// Notes that bytes came in, so that a head that never ends is seen, and whether some wait to go out.
struct Noted<I> {
    io: Prefixed<I>,
    activity: Activity,
}

impl<I> Noted<I> {
    fn sent<T>(&self, sent: Poll<T>) -> Poll<T> {
        self.activity.unsent(sent.is_pending());
        sent
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Noted<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.io).poll_read(cx, buf);
        if buf.filled().len() > before {
            self.activity.received();
        }
        read
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Noted<I> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let sent = Pin::new(&mut self.io).poll_write(cx, buf);
        self.sent(sent)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let sent = Pin::new(&mut self.io).poll_flush(cx);
        self.sent(sent)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let sent = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.sent(sent)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}
