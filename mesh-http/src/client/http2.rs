//! HTTP/2 connections to one endpoint, shared by all requests of a worker.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::{Future, poll_fn};
use std::rc::Rc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{LocalBoxFuture, Shared};
use hyper::body::{Body, Incoming};
use hyper::client::conn::{TrySendError, http2};
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, sleep};

use crate::client::ClientSettings;
use crate::limits::header_list_bytes;
use crate::{Error, LocalExecutor};

/// The most headers of a response: as many as hyper takes in HTTP/1.
const MAX_HEADERS: usize = 100;
/// How long a server's settings may take, and how often they are looked for: hyper does not tell when they come.
const SETTINGS_TIMEOUT: Duration = Duration::from_secs(1);
const SETTINGS_INTERVAL: Duration = Duration::from_millis(5);

/// The HTTP/2 connections to one endpoint.
///
/// [`Http2Pool::get`] takes one that is there without waiting; [`Http2Pool::connect`] makes one, once for all who wait.
#[derive(Debug)]
pub struct Http2Pool<B> {
    connections: RefCell<Vec<Rc<Shareable<B>>>>,
    connecting: RefCell<Option<Connecting<B>>>,
    settings: ClientSettings,
}

type Connecting<B> = Shared<LocalBoxFuture<'static, Result<Rc<Shareable<B>>, Rc<Error>>>>;

#[derive(Debug)]
struct Shareable<B> {
    sender: RefCell<http2::SendRequest<B>>,
    streams: Cell<usize>,
    /// Whether [`Http2Pool::sweep`] has seen it idle, and no request since.
    seen_idle: Cell<bool>,
    /// Whether the server has said that it takes extended CONNECT.
    permits_connect: Permits,
    /// When it was connected.
    made: Instant,
}

/// Asks a connection, which only its own task drives, what its server permits.
struct Permits(Box<dyn Fn() -> bool>);

impl fmt::Debug for Permits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Permits")
    }
}

/// A place on a connection for one request; it is given back when this is dropped, which is to be when its response has ended.
#[derive(Debug)]
pub struct Stream<B>(Rc<Shareable<B>>);

impl<B> Http2Pool<B>
where
    B: Body + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    /// A pool without connections.
    #[must_use]
    pub fn new(settings: ClientSettings) -> Self {
        Self {
            connections: RefCell::default(),
            connecting: RefCell::default(),
            settings,
        }
    }

    /// A place on an open connection, if there is one with room.
    pub fn get(&self) -> Option<Stream<B>> {
        let mut connections = self.connections.borrow_mut();
        let mut index = 0;
        while let Some(connection) = connections.get(index) {
            if connection.sender.borrow().is_closed() {
                connections.swap_remove(index);
            } else if connection.streams.get() < self.settings.streams_per_connection {
                return Some(Stream::new(connection.clone()));
            } else {
                index += 1;
            }
        }
        if connections.len() < self.settings.max_connections {
            return None;
        }
        connections
            .iter()
            .min_by_key(|connection| connection.streams.get())
            .cloned()
            .map(Stream::new)
    }

    /// A place on a new connection, made with the stream that `connect` gives. Who asks while one is being made waits for it.
    /// The caller bounds `connect` in time.
    ///
    /// # Errors
    /// What `connect` fails with, shared by all who waited, or what the HTTP/2 handshake does.
    pub async fn connect<I, F>(
        self: &Rc<Self>,
        connect: impl FnOnce() -> F,
    ) -> Result<Stream<B>, Rc<Error>>
    where
        I: AsyncRead + AsyncWrite + Unpin + 'static,
        F: Future<Output = Result<I, Error>> + 'static,
    {
        let connecting = self.connecting.borrow().clone();
        let connecting = connecting.unwrap_or_else(|| self.start(connect()));
        connecting.await.map(Stream::new)
    }

    /// Connects in a task of its own, so that it goes on though the request that began it is cancelled.
    fn start<I>(
        self: &Rc<Self>,
        connect: impl Future<Output = Result<I, Error>> + 'static,
    ) -> Connecting<B>
    where
        I: AsyncRead + AsyncWrite + Unpin + 'static,
    {
        let pool = self.clone();
        let task = tokio::task::spawn_local(async move {
            let connected = pool.handshake(connect).await;
            if let Ok(connection) = &connected {
                pool.connections.borrow_mut().push(connection.clone());
            }
            *pool.connecting.borrow_mut() = None;
            connected.map_err(Rc::new)
        });
        let ended = || Rc::new(Error::Connect("the worker is ending".to_owned()));
        let connecting = task
            .map(move |joined| joined.unwrap_or_else(|_| Err(ended())))
            .boxed_local()
            .shared();
        *self.connecting.borrow_mut() = Some(connecting.clone());
        connecting
    }

    async fn handshake<I>(
        &self,
        connect: impl Future<Output = Result<I, Error>>,
    ) -> Result<Rc<Shareable<B>>, Error>
    where
        I: AsyncRead + AsyncWrite + Unpin + 'static,
    {
        let io = connect.await?;
        let mut builder = http2::Builder::new(LocalExecutor);
        builder
            .timer(TokioTimer::new())
            .initial_stream_window_size(self.settings.stream_window_bytes)
            .initial_connection_window_size(self.settings.connection_window_bytes)
            .max_header_list_size(header_list_bytes(
                self.settings.max_header_bytes as usize,
                MAX_HEADERS,
            ))
            .keep_alive_interval(self.settings.keep_alive_interval)
            .keep_alive_timeout(self.settings.keep_alive_timeout)
            .keep_alive_while_idle(self.settings.keep_alive_while_idle);
        if self.settings.adaptive_window {
            builder.adaptive_window(true);
        }
        if let Some(bytes) = self.settings.max_frame_bytes {
            builder.max_frame_size(bytes);
        }
        if let Some(bytes) = self.settings.max_send_buffer_bytes {
            builder.max_send_buf_size(bytes);
        }
        if let Some(streams) = self.settings.max_concurrent_reset_streams {
            builder.max_concurrent_reset_streams(streams);
        }
        let (sender, connection) = builder.handshake(TokioIo::new(io)).await?;
        // The task ends when the last sender is dropped or the server closes; what goes wrong reaches the requests.
        let connection = Rc::new(RefCell::new(connection));
        // Weakly: with the connection go the requests that wait for it.
        let settings = Rc::downgrade(&connection);
        tokio::task::spawn_local(poll_fn(move |cx| connection.borrow_mut().poll_unpin(cx)));
        Ok(Rc::new(Shareable {
            sender: RefCell::new(sender),
            streams: Cell::new(0),
            seen_idle: Cell::new(false),
            permits_connect: Permits(Box::new(move || {
                settings.upgrade().is_some_and(|connection| {
                    connection.borrow().is_extended_connect_protocol_enabled()
                })
            })),
            made: Instant::now(),
        }))
    }

    /// Drops closed connections, and those that no request used since the last sweep. Returns how many are left.
    pub fn sweep(&self) -> usize {
        let mut connections = self.connections.borrow_mut();
        connections.retain(|connection| {
            let idle = connection.streams.get() == 0;
            !(connection.sender.borrow().is_closed()
                || (idle && connection.seen_idle.replace(true)))
        });
        connections.len()
    }
}

impl<B> Stream<B> {
    fn new(connection: Rc<Shareable<B>>) -> Self {
        connection.streams.set(connection.streams.get() + 1);
        connection.seen_idle.set(false);
        Self(connection)
    }
}

impl<B> Stream<B>
where
    B: Body + 'static,
{
    /// Sends `request`. When it was not sent at all, the error gives it back.
    pub fn send(
        &self,
        request: Request<B>,
    ) -> impl Future<Output = Result<Response<Incoming>, TrySendError<Request<B>>>> + use<B> {
        self.0.sender.borrow_mut().try_send_request(request)
    }

    /// Whether the server takes extended CONNECT (RFC 8441). It says so in its settings, and what it has not said once they
    /// should have come, it does not permit; that is waited for only on a connection that is new.
    pub async fn permits_extended_connect(&self) -> bool {
        let Self(connection) = self;
        let due = connection.made + SETTINGS_TIMEOUT;
        while !(connection.permits_connect.0)() {
            if Instant::now() >= due || connection.sender.borrow().is_closed() {
                return false;
            }
            sleep(SETTINGS_INTERVAL).await;
        }
        true
    }
}

/// Whether the server says that it did nothing about a request, so that it may be sent again: it refused the stream (RFC 9113,
/// section 8.7), or went away before it came to it (section 6.8).
#[must_use]
pub fn is_unprocessed(error: &hyper::Error) -> bool {
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        if let Some(error) = error.downcast_ref::<h2::Error>() {
            let refused = error.is_reset() && error.reason() == Some(h2::Reason::REFUSED_STREAM);
            return error.is_remote() && (refused || error.is_go_away());
        }
        source = error.source();
    }
    false
}

impl<B> Drop for Stream<B> {
    fn drop(&mut self) {
        self.0.streams.set(self.0.streams.get() - 1);
    }
}
