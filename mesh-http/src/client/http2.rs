//! HTTP/2 connections to one endpoint, shared by all requests of a worker.
//!
//! On the `h2` crate itself: a request is handed to its stream by the task that asks, and its response is read by that task, with
//! no channel and no further task between. The connection's own task reads, writes and pings.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::{LocalBoxFuture, Shared};
use h2::client::{Builder, SendRequest};
use http::header::{CONTENT_LENGTH, HeaderValue};
use http::{Method, Request, Response};
use http_body::Body;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, sleep};

use crate::client::ClientSettings;
use crate::http2::{
    ADAPTIVE_WINDOW_BYTES, Beat, Counted, KeepAlive, MAX_WINDOW, Pipe, Pulse, Received, State,
};
use crate::limits::{frame_budget, header_list_bytes};
use crate::{Broken, Error, headers};

/// The most headers of a response: as many as hyper takes in HTTP/1.
const MAX_HEADERS: usize = 100;
/// How many streams are begun before the server has said how many it takes.
const INITIAL_STREAMS: usize = 100;
/// How much is kept for sending on a stream where the settings say nothing.
const SEND_BUFFER_BYTES: usize = 1 << 20;
/// How long a server's settings may take, and how often they are looked for: nobody tells when they come.
const SETTINGS_TIMEOUT: Duration = Duration::from_secs(1);
const SETTINGS_INTERVAL: Duration = Duration::from_millis(5);

/// The HTTP/2 connections to one endpoint.
///
/// [`Http2Pool::get`] takes one that is there without waiting; [`Http2Pool::connect`] makes one, once for all who wait.
#[derive(Debug)]
pub struct Http2Pool {
    connections: RefCell<Vec<Rc<Shareable>>>,
    connecting: RefCell<Option<Connecting>>,
    settings: ClientSettings,
}

type Connecting = Shared<LocalBoxFuture<'static, Result<Rc<Shareable>, Rc<Error>>>>;

struct Shareable {
    sender: SendRequest<Bytes>,
    state: Rc<State>,
    /// How many sweeps in a row have found it without a request.
    idle_sweeps: Cell<u32>,
    /// When it was connected.
    made: Instant,
}

/// A place on a connection for one request; it is given back when this is dropped, which is to be when its response has ended.
#[derive(Debug)]
pub struct Stream(Rc<Shareable>);

/// A request that was not answered.
#[derive(Debug)]
pub struct Unanswered<B> {
    /// Why.
    pub error: Broken,
    /// The request, where the server did nothing about it, and what was taken out of its body is still known.
    pub unprocessed: Option<Unprocessed<B>>,
    /// The request, where it has no body and its connection died before anything came in on it: the server may have had it or
    /// not. What is idempotent may be sent again (RFC 9110, section 9.2.2).
    pub unheard: Option<Request<B>>,
}

/// A request that no server did anything about, so that it may be sent again whatever it asks for.
#[derive(Debug)]
pub struct Unprocessed<B> {
    /// The request, with what is left of its body.
    pub request: Request<B>,
    /// What was taken out of its body before.
    pub taken: Option<Bytes>,
    /// Whether it was the server that turned it away. Otherwise none of it was sent.
    pub refused: bool,
}

impl Http2Pool {
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
    pub fn get(&self) -> Option<Stream> {
        let mut connections = self.connections.borrow_mut();
        let mut index = 0;
        while let Some(connection) = connections.get(index) {
            if connection.is_ending() {
                connections.swap_remove(index);
            } else if connection.state.streams.get() < self.settings.streams_per_connection {
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
            .min_by_key(|connection| connection.state.streams.get())
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
    ) -> Result<Stream, Rc<Error>>
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
    ) -> Connecting
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
    ) -> Result<Rc<Shareable>, Error>
    where
        I: AsyncRead + AsyncWrite + Unpin + 'static,
    {
        let state = Rc::<State>::default();
        let io = Counted::to_server(connect.await?, state.clone());
        let (sender, mut connection) = self.builder().handshake(io).await.map_err(Error::Http2)?;
        let settings = &self.settings;
        let keep_alive = settings.keep_alive_interval.map(|interval| KeepAlive {
            interval,
            timeout: settings.keep_alive_timeout,
            while_idle: settings.keep_alive_while_idle,
        });
        let mut pulse = connection
            .ping_pong()
            .map(|pings| Pulse::new(pings, keep_alive, settings.adaptive_window));
        // The task ends when the last sender and the last stream are dropped, or the server closes; what goes wrong reaches the
        // requests.
        let watched = state.clone();
        tokio::task::spawn_local(async move {
            let state = Closing(watched);
            let driven = poll_fn(|cx| drive(&mut connection, pulse.as_mut(), &state.0, cx));
            if let Err(error) = driven.await {
                tracing::debug!(%error, "an HTTP/2 connection ended");
            }
        });
        Ok(Rc::new(Shareable {
            sender,
            state,
            idle_sweeps: Cell::new(0),
            made: Instant::now(),
        }))
    }

    fn builder(&self) -> Builder {
        let settings = &self.settings;
        let (stream, connection, most) = if settings.adaptive_window {
            (ADAPTIVE_WINDOW_BYTES, ADAPTIVE_WINDOW_BYTES, MAX_WINDOW)
        } else {
            (
                settings.stream_window_bytes,
                settings.connection_window_bytes,
                settings.connection_window_bytes as usize,
            )
        };
        let mut builder = Builder::new();
        builder
            .enable_push(false)
            .data_frame_budget(frame_budget(most))
            .initial_max_send_streams(INITIAL_STREAMS)
            .initial_window_size(stream)
            .initial_connection_window_size(connection)
            .max_send_buffer_size(settings.max_send_buffer_bytes.unwrap_or(SEND_BUFFER_BYTES))
            .max_header_list_size(header_list_bytes(
                settings.max_header_bytes as usize,
                MAX_HEADERS,
            ));
        if let Some(bytes) = settings.max_frame_bytes {
            builder.max_frame_size(bytes);
        }
        if let Some(streams) = settings.max_concurrent_reset_streams {
            builder.max_concurrent_reset_streams(streams);
        }
        builder
    }

    /// Drops closed connections, and those that the last `kept` sweeps found idle already and that no request used since. Returns
    /// how many are left.
    pub fn sweep(&self, kept: u32) -> usize {
        let mut connections = self.connections.borrow_mut();
        connections.retain(|connection| {
            if connection.state.closed.get() {
                return false;
            }
            if connection.state.streams.get() > 0 {
                return true;
            }
            let idle = connection.idle_sweeps.get();
            connection.idle_sweeps.set(idle.saturating_add(1));
            idle < kept
        });
        connections.len()
    }
}

/// Says that a connection is closed, however its task ends.
struct Closing(Rc<State>);

impl Drop for Closing {
    fn drop(&mut self) {
        self.0.closed.set(true);
    }
}

impl Shareable {
    /// Whether it takes no more requests.
    fn is_ending(&self) -> bool {
        if !self.state.closed.get() {
            // A sender of its own waits for no earlier request, so that it is always ready, one way or the other.
            let ready = self
                .sender
                .clone()
                .poll_ready(&mut Context::from_waker(Waker::noop()));
            self.state.closed.set(matches!(ready, Poll::Ready(Err(_))));
        }
        self.state.closed.get()
    }
}

/// Reads, writes and pings. Ready when the connection has ended.
fn drive<I>(
    connection: &mut h2::client::Connection<I, Bytes>,
    pulse: Option<&mut Pulse>,
    state: &State,
    cx: &mut Context<'_>,
) -> Poll<Result<(), h2::Error>>
where
    I: AsyncRead + AsyncWrite + Unpin,
{
    if let Some(pulse) = pulse {
        while let Poll::Ready(beat) = pulse.poll(cx, state) {
            match beat {
                Beat::Window(bytes) => {
                    connection.set_target_window_size(bytes);
                    if let Err(error) = connection.set_initial_window_size(bytes) {
                        // The server has not taken note of the last one yet. They may grow later.
                        tracing::debug!(%error, "the windows stay as they are");
                    }
                }
                Beat::Silent(silent) => {
                    state.silent.set(Some(silent));
                    return Poll::Ready(Ok(()));
                }
            }
        }
    }
    Pin::new(connection).poll(cx)
}

impl Stream {
    fn new(connection: Rc<Shareable>) -> Self {
        let streams = &connection.state.streams;
        streams.set(streams.get() + 1);
        connection.idle_sweeps.set(0);
        Self(connection)
    }

    /// Sends `request` and waits for the head of its response. A body that is not sent in full by then goes on by itself.
    ///
    /// Dropped before it is ready, it cancels the request.
    ///
    /// # Errors
    /// What the stream or its connection broke off with, and the request where it was not sent at all.
    pub async fn send<B>(&self, request: Request<B>) -> Result<Response<Received>, Unanswered<B>>
    where
        B: Body<Data = Bytes> + Unpin + 'static,
    {
        let Self(connection) = self;
        let state = &connection.state;
        // What has no body can be sent again, whatever the server says.
        if request.method() == Method::CONNECT || !request.body().is_end_stream() {
            hindmost().await;
        }
        // A sender of its own: the shared one would refuse a request while the last one waits for the server to take it.
        let mut sender = connection.sender.clone();
        if let Err(error) = poll_fn(|cx| sender.poll_ready(cx)).await {
            state.closed.set(true);
            let unsent = Unprocessed {
                request,
                taken: None,
                refused: false,
            };
            return Err(Unanswered {
                error: state.broken(error),
                unprocessed: Some(unsent),
                unheard: None,
            });
        }
        let (head, body) = request.into_parts();
        let mut head = Request::from_parts(head, ());
        let tunnel = head.method() == Method::CONNECT;
        prepare(&mut head, &body, tunnel);
        let whole = !tunnel && body.is_end_stream();
        let sent = Sent {
            copy: (!tunnel).then(|| Box::new(copy(&head))),
            whole,
            read: state.read.get(),
        };
        let (response, sending) = match sender.send_request(head, whole) {
            Ok(begun) => begun,
            Err(error) => return Err(state.unanswered(error, sent, Outgoing::Body(body))),
        };
        drop(sender);
        state.queued.set(true);
        let mut sending = Some(sending);
        let mut outgoing = match sending.take_if(|_| !whole && !tunnel) {
            Some(sending) => Outgoing::Pipe(Pipe::of_request(body, sending)),
            None => Outgoing::Body(body),
        };
        let mut response = pin!(response);
        let answered = poll_fn(|cx| {
            // First, so that of what the server turned away no more is taken out.
            if let Poll::Ready(answered) = response.as_mut().poll(cx) {
                return Poll::Ready(answered);
            }
            if let Outgoing::Pipe(pipe) = &mut outgoing {
                // Whether it is done is asked when the response has come.
                let _ = pipe.poll(cx);
            }
            response.as_mut().poll(cx)
        });
        let response = match answered.await {
            Ok(response) => response,
            Err(error) => return Err(state.unanswered(error, sent, outgoing)),
        };
        if let Outgoing::Pipe(mut pipe) = outgoing
            && !pipe.is_done()
        {
            pipe.forget();
            let connection = connection.clone();
            tokio::task::spawn_local(async move {
                poll_fn(|cx| pipe.poll(cx)).await;
                drop(connection);
            });
        }
        let sending = sending.filter(|_| tunnel && response.status().is_success());
        Ok(response.map(|received| Received::of_response(received, sending, state.clone())))
    }

    /// Whether the server takes extended CONNECT (RFC 8441). It says so in its settings, and what it has not said once they
    /// should have come, it does not permit; that is waited for only on a connection that is new.
    pub async fn permits_extended_connect(&self) -> bool {
        let Self(connection) = self;
        let due = connection.made + SETTINGS_TIMEOUT;
        while !connection.sender.is_extended_connect_protocol_enabled() {
            if Instant::now() >= due || connection.state.closed.get() {
                return false;
            }
            sleep(SETTINGS_INTERVAL).await;
        }
        true
    }
}

/// Lets run what can, first of all the connection's task: a server that says it is ending and pings to hear that this is known
/// (RFC 9113, section 6.8) is to be heard before a request is queued. The answer to the ping is sent before the request would
/// be, so that the server took no more of it.
async fn hindmost() {
    let mut waited = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut waited, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// What a request's body has become while its response is waited for.
enum Outgoing<B> {
    /// It has none, or carries another protocol.
    Body(B),
    Pipe(Pipe<B>),
}

/// What is known of a request that was sent.
struct Sent {
    /// Its head, unless it carries another protocol.
    copy: Option<Box<Request<()>>>,
    /// It has no body.
    whole: bool,
    /// What had been read from the connection before.
    read: usize,
}

impl State {
    /// Why a request was not answered; with the request, put together from the copy of its head and what is left of its body, where
    /// the server says that it did nothing about it, or the connection died without a word.
    fn unanswered<B>(&self, error: h2::Error, sent: Sent, outgoing: Outgoing<B>) -> Unanswered<B>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        let dead = error.is_io() || self.silent.get().is_some();
        if error.is_go_away() || dead {
            self.closed.set(true);
        }
        let unheard = sent.whole && dead && sent.read == self.read.get();
        let error = self.broken(error);
        let mut unanswered = Unanswered {
            unprocessed: None,
            unheard: None,
            error,
        };
        if !unanswered.error.is_unprocessed() && !unheard {
            return unanswered;
        }
        let body = match outgoing {
            Outgoing::Body(body) => Some((body, None)),
            Outgoing::Pipe(pipe) => pipe.into_body(),
        };
        let Some((copy, (body, taken))) = sent.copy.zip(body) else {
            return unanswered;
        };
        let request = copy.map(|()| body);
        if unheard {
            unanswered.unheard = Some(request);
        } else {
            unanswered.unprocessed = Some(Unprocessed {
                request,
                taken,
                refused: true,
            });
        }
        unanswered
    }
}

/// A copy of a request's head, but for what is known of it here alone.
fn copy(head: &Request<()>) -> Request<()> {
    let mut copy = Request::new(());
    copy.method_mut().clone_from(head.method());
    copy.uri_mut().clone_from(head.uri());
    copy.headers_mut().clone_from(head.headers());
    *copy.version_mut() = head.version();
    copy
}

/// Gives a request's head the form that HTTP/2 asks for.
fn prepare<B: Body>(head: &mut Request<()>, body: &B, tunnel: bool) {
    headers::remove_hop_by_hop(head.headers_mut());
    if tunnel {
        return;
    }
    // A length that is known is said, as a server may ask for it; of no body it is said where a body is usual.
    let usual = matches!(*head.method(), Method::POST | Method::PUT | Method::PATCH);
    if let Some(length) = body.size_hint().exact()
        && (length > 0 || usual)
    {
        head.headers_mut()
            .entry(CONTENT_LENGTH)
            .or_insert_with(|| HeaderValue::from(length));
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let streams = &self.0.state.streams;
        streams.set(streams.get() - 1);
    }
}

impl fmt::Debug for Shareable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shareable")
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}
