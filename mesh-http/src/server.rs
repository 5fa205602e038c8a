//! Serving HTTP/1 and HTTP/2 to a client, within limits, until it ends or is told to.

use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use hyper::body::{Body, Incoming};
use hyper::server::conn::{http1, http2};
use hyper::service::Service;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::connections::{Activity, Connection, Told};
use crate::{Error, LocalExecutor, ServerLimits};

/// Serves HTTP/1.0 and HTTP/1.1 on `io` until the client or `connection` says that it ends, or a response switched protocols.
///
/// A service that answers 101 (or a CONNECT with success) takes [`hyper::upgrade::on`] its request before; it resolves
/// by the time this returns.
///
/// A client that ends its side while a request is in flight has left: the request is cancelled, as a client's timeout
/// must reach the application. (HTTP/1 cannot tell that from a half-close.)
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
    let io = TokioIo::new(Noted {
        io,
        activity: connection.activity(),
    });
    let mut builder = http1::Builder::new();
    builder
        .auto_date_header(false)
        .header_read_timeout(None)
        .max_headers(limits.max_headers)
        .max_buf_size(limits.max_header_bytes.max(8192));
    let activity = connection.activity();
    activity.http_begins();
    let mut served = pin!(builder.serve_connection(io, service).with_upgrades());
    let mut known = None;
    let ended = std::future::poll_fn(|cx| {
        loop {
            // First, so that a request that has come in already is served: hyper closes at once when it is told to before it has
            // read anything.
            if let Poll::Ready(ended) = served.as_mut().poll(cx) {
                return Poll::Ready(ended.map_err(Error::from));
            }
            let told = ready!(connection.poll_told(known, cx));
            known = Some(told);
            match told {
                Told::Drain => served.as_mut().graceful_shutdown(),
                Told::Close => return Poll::Ready(Ok(())),
            }
        }
    })
    .await;
    // What a response has switched to may stay silent.
    activity.http_ends();
    ended
}

/// Serves HTTP/2 with prior knowledge on `io` until the client or `connection` says that it ends.
///
/// Extended CONNECT (RFC 8441) is offered: such a request has a [`hyper::ext::Protocol`]. A service that answers it with success
/// takes [`hyper::upgrade::on`] its request before, and carries the stream in a task of its own.
///
/// # Errors
/// [`Error::Http`] when the client breaks the protocol or the connection.
pub async fn http2<I, S, B>(
    io: I,
    limits: &ServerLimits,
    connection: &Connection,
    service: S,
) -> Result<(), Error>
where
    I: AsyncRead + AsyncWrite + Unpin + 'static,
    S: Service<Request<Incoming>, Response = Response<B>>,
    S::Future: 'static,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    B: Body + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let mut builder = http2::Builder::new(LocalExecutor);
    builder
        .auto_date_header(false)
        .timer(TokioTimer::new())
        .initial_stream_window_size(limits.stream_window_bytes)
        .initial_connection_window_size(limits.connection_window_bytes)
        .max_concurrent_streams(limits.max_concurrent_streams)
        .max_header_list_size(limits.max_header_list_bytes())
        .max_send_buf_size(limits.stream_send_bytes)
        .enable_connect_protocol()
        .max_pending_accept_reset_streams(limits.max_pending_resets)
        .max_local_error_reset_streams(limits.max_local_resets)
        .keep_alive_interval(limits.keep_alive_interval)
        .keep_alive_timeout(limits.keep_alive_timeout);
    // Nothing else bounds the time until the first request: the handshake, and whether there is a request at all.
    connection.activity().opened();
    connection.activity().http_begins();
    let mut served = pin!(builder.serve_connection(TokioIo::new(io), service));
    let mut known = None;
    std::future::poll_fn(move |cx| {
        while let Poll::Ready(told) = connection.poll_told(known, cx) {
            known = Some(told);
            match told {
                Told::Drain => served.as_mut().graceful_shutdown(),
                Told::Close => return Poll::Ready(Ok(())),
            }
        }
        served.as_mut().poll(cx).map_err(Error::from)
    })
    .await
}

/// Notes that bytes came in, so that a head that never ends is seen.
struct Noted<I> {
    io: I,
    activity: Activity,
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
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}
