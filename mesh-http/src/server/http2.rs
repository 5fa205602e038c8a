//! Serving HTTP/2.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::server::{Builder, SendResponse};
use h2::{Reason, RecvStream};
use http::header::{CONTENT_LENGTH, HeaderValue};
use http::{Method, Request, Response};
use http_body::Body;
use hyper::service::Service;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::oneshot;

use crate::connections::{Connection, Told};
use crate::http2::{Counted, KeepAlive, Offer, Pipe, Pulse, Received, State, Tunnel};
use crate::limits::frame_budget;
use crate::{Error, Incoming, ServerLimits, headers};

/// Serves HTTP/2 with prior knowledge on `io` until the client or `connection` says that it ends.
///
/// Extended CONNECT (RFC 8441) is offered: [`offers_stream`] knows such a request, and its body is an [`Incoming::Offer`]. Other
/// CONNECTs have nothing to give.
///
/// # Errors
/// [`Error::Http2`] when the client breaks the protocol or the connection.
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
    B: Body<Data = Bytes> + Unpin + 'static,
{
    // Nothing else bounds the time until the first request: the handshake, and whether there is a request at all.
    connection.activity().opened();
    connection.activity().http_begins();
    let state = Rc::<State>::default();
    let io = Counted::to_client(io, state.clone());
    let mut handshake = pin!(builder(limits).handshake::<_, Bytes>(io));
    let mut known = None;
    let begun = poll_fn(|cx| {
        while let Poll::Ready(told) = connection.poll_told(known, cx) {
            known = Some(told);
            if told == Told::Close {
                return Poll::Ready(Ok(None));
            }
        }
        handshake.as_mut().poll(cx).map_ok(Some)
    });
    let Some(mut served) = begun.await.map_err(Error::Http2)? else {
        return Ok(());
    };
    if known.is_some() {
        served.graceful_shutdown();
    }
    let keep_alive = limits.keep_alive_interval.map(|interval| KeepAlive {
        interval,
        timeout: limits.keep_alive_timeout,
        while_idle: true,
    });
    let mut pulse = served
        .ping_pong()
        .map(|pings| Pulse::new(pings, keep_alive, false));
    poll_fn(|cx| {
        while let Poll::Ready(told) = connection.poll_told(known, cx) {
            known = Some(told);
            match told {
                Told::Drain => served.graceful_shutdown(),
                Told::Close => return Poll::Ready(Ok(())),
            }
        }
        if let Some(pulse) = &mut pulse
            // It asks for no windows.
            && pulse.poll(cx, &state).is_ready()
        {
            return Poll::Ready(Ok(()));
        }
        loop {
            match ready!(served.poll_accept(cx)) {
                Some(Ok((request, respond))) => begin(request, respond, &service, &state),
                Some(Err(error)) => return Poll::Ready(Err(Error::Http2(error))),
                None => return Poll::Ready(Ok(())),
            }
        }
    })
    .await
}

/// Whether `request` offers its stream for another protocol (RFC 8441).
pub fn offers_stream<B>(request: &Request<B>) -> bool {
    request.extensions().get::<h2::ext::Protocol>().is_some()
}

fn builder(limits: &ServerLimits) -> Builder {
    let mut builder = Builder::new();
    builder
        .initial_window_size(limits.stream_window_bytes)
        .initial_connection_window_size(limits.connection_window_bytes)
        .data_frame_budget(frame_budget(limits.connection_window_bytes as usize))
        .max_concurrent_streams(limits.max_concurrent_streams)
        .max_header_list_size(limits.max_header_list_bytes())
        .max_send_buffer_size(limits.stream_send_bytes)
        .max_pending_accept_reset_streams(limits.max_pending_resets)
        .max_local_error_reset_streams(Some(limits.max_local_resets))
        .enable_connect_protocol();
    builder
}

/// Has `service` answer a request, in a task of its own.
fn begin<S, B>(
    request: Request<RecvStream>,
    respond: SendResponse<Bytes>,
    service: &S,
    state: &Rc<State>,
) where
    S: Service<Request<Incoming>, Response = Response<B>>,
    S::Future: 'static,
    B: Body<Data = Bytes> + Unpin + 'static,
{
    let mut offered = None;
    let (head, stream) = request.into_parts();
    let body = if head.method == Method::CONNECT {
        let (open, opened) = oneshot::channel();
        offered = Some((open, stream));
        Incoming::Offer(Offer(opened))
    } else {
        let length = head.headers.get(CONTENT_LENGTH);
        let length = length.and_then(|length| length.to_str().ok()?.parse().ok());
        Incoming::Http2(Received::of_request(stream, length, state.clone()))
    };
    tokio::task::spawn_local(Answering {
        respond,
        offered,
        // Boxed, as a task is moved whole before it runs, and sending a body takes little room.
        stage: Stage::Asking(Box::pin(service.call(Request::from_parts(head, body)))),
    });
}

/// One request, from its head to the end of its response.
struct Answering<F, B> {
    respond: SendResponse<Bytes>,
    offered: Option<(oneshot::Sender<Tunnel>, RecvStream)>,
    stage: Stage<F, B>,
}

enum Stage<F, B> {
    Asking(Pin<Box<F>>),
    Sending(Pipe<B>),
}

impl<F, B, E> Future for Answering<F, B>
where
    F: Future<Output = Result<Response<B>, E>>,
    B: Body<Data = Bytes> + Unpin,
{
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        loop {
            let answered = match &mut this.stage {
                Stage::Asking(answer) => answer.as_mut().poll(cx),
                Stage::Sending(pipe) => return pipe.poll(cx),
            };
            let response = match answered {
                Poll::Ready(Ok(response)) => response,
                Poll::Ready(Err(_)) => {
                    this.respond.send_reset(Reason::INTERNAL_ERROR);
                    return Poll::Ready(());
                }
                // A client that wants no answer any more ends the wait.
                Poll::Pending => return this.respond.poll_reset(cx).map(|_| ()),
            };
            match respond(response, &mut this.respond, this.offered.take()) {
                Some(pipe) => this.stage = Stage::Sending(pipe),
                None => return Poll::Ready(()),
            }
        }
    }
}

/// Sends the head of `response`; its body, if it has one, is left to be sent.
fn respond<B>(
    response: Response<B>,
    respond: &mut SendResponse<Bytes>,
    offered: Option<(oneshot::Sender<Tunnel>, RecvStream)>,
) -> Option<Pipe<B>>
where
    B: Body<Data = Bytes> + Unpin,
{
    let (head, body) = response.into_parts();
    let mut head = Response::from_parts(head, ());
    headers::remove_hop_by_hop(head.headers_mut());
    let offered = offered.filter(|_| head.status().is_success());
    let whole = offered.is_none() && body.is_end_stream();
    if offered.is_some() {
        head.headers_mut().remove(CONTENT_LENGTH);
    } else if !whole && let Some(length) = body.size_hint().exact() {
        head.headers_mut()
            .entry(CONTENT_LENGTH)
            .or_insert_with(|| HeaderValue::from(length));
    }
    let sending = match respond.send_response(head, whole) {
        Ok(sending) => sending,
        Err(error) => {
            tracing::debug!(%error, "a response was not sent");
            respond.send_reset(Reason::INTERNAL_ERROR);
            return None;
        }
    };
    if let Some((open, receiving)) = offered {
        // Who does not want it any more drops it, which ends the stream.
        let _ = open.send(Tunnel::new(receiving, sending));
        return None;
    }
    (!whole).then(|| Pipe::of_response(body, sending))
}
