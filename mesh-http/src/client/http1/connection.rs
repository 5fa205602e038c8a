//! One HTTP/1 connection to a server, and the exchange that is on it. Whoever wants something of it drives it: who sends a request until
//! the head of the response has come, then who reads the response. A request's body that is not sent by then gets a task.

use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use http::{Method, Response, StatusCode, Version};
use http_body::{Body, Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::Prefixed;
use crate::http1::{
    BoxError, Decoded, Decoder, Filled, Framing, Http1Error, Outgoing, Reading, Search, Sending,
    is_silent, names, response_head,
};

/// The most fields of a response.
const MAX_FIELDS: usize = 100;
/// The most responses that announce the one that answers.
const MAX_INTERIM: usize = 32;

/// A request's body.
pub(super) type SentBody = Pin<Box<dyn Body<Data = Bytes, Error = BoxError>>>;

/// A connection. Dropped, it is closed.
#[derive(Debug)]
pub(super) struct Connection<I> {
    /// `None` when it failed, or was switched to another protocol.
    io: Option<I>,
    reading: Reading,
    search: Search,
    max_head_bytes: usize,
    out: Outgoing,
    request: Request,
    answer: Answer,
    /// Whether a byte has come since the exchange began.
    heard: bool,
    /// Whether nobody asks for the rest of what is being sent once the response has ended.
    orphaned: bool,
    /// Who waits for a part of the response while a task sends the request's body.
    reader: Option<Waker>,
    /// Who sends the request's body, or waits for that.
    writers: Vec<Waker>,
}

/// What is left of a request to be put to `out`.
enum Request {
    Nothing,
    Body(Sending<SentBody>),
    /// It broke off: the connection serves no other request.
    Failed,
}

#[derive(Debug)]
enum Answer {
    /// None is expected: no request is on the connection.
    None,
    /// To a request of this method.
    Awaited {
        method: Method,
        keeps: bool,
        interim: usize,
    },
    /// Its head has come, and its body is read.
    Read { body: Decoder, keeps: bool },
    /// It has ended, and so has the connection's use.
    Last,
}

impl<I: AsyncRead + AsyncWrite + Unpin> Connection<I> {
    pub(super) fn new(io: I, max_head_bytes: usize) -> Self {
        Self {
            io: Some(io),
            reading: Reading::default(),
            search: Search::default(),
            max_head_bytes,
            out: Outgoing::default(),
            request: Request::Nothing,
            answer: Answer::None,
            heard: false,
            orphaned: false,
            reader: None,
            writers: Vec::new(),
        }
    }

    /// Whether the exchange before, if there was one, leaves it to another one.
    pub(super) fn is_free(&self) -> bool {
        self.is_answered() && self.is_sent()
    }

    /// The same, though the request may still be being sent.
    pub(super) fn is_answered(&self) -> bool {
        matches!(self.answer, Answer::None)
            && self.io.is_some()
            && self.reading.bytes.is_empty()
            && !matches!(self.request, Request::Failed)
    }

    /// Whether the server has not ended it, nor sent what nobody asked for.
    pub(super) fn is_open(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(io) = &mut self.io else {
            return false;
        };
        let open = is_silent(io, cx);
        if !open {
            self.io = None;
        }
        open
    }

    /// Gives back the memory that only a request needs.
    pub(super) fn rest(&mut self) {
        self.reading = Reading::default();
        self.out = Outgoing::default();
        self.search = Search::default();
    }

    /// Begins an exchange: `head` writes the request's head.
    pub(super) fn begin(
        &mut self,
        method: Method,
        keeps: bool,
        body: Option<Sending<SentBody>>,
        head: impl FnOnce(&mut Vec<u8>),
    ) {
        head(self.out.begin());
        self.request = body.map_or(Request::Nothing, Request::Body);
        self.search.restart();
        self.heard = false;
        let interim = 0;
        self.answer = Answer::Awaited {
            method,
            keeps,
            interim,
        };
    }

    /// Whether a byte of the response that is awaited has come.
    pub(super) fn was_heard(&self) -> bool {
        self.heard
    }

    /// Sends the request, and reads until the head of the response has come. `interim` hears of those before it.
    pub(super) fn poll_answer(
        &mut self,
        cx: &mut Context<'_>,
        interim: &mut impl FnMut(StatusCode),
    ) -> Poll<Result<Response<()>, Http1Error>> {
        match self.poll_send(cx) {
            // A server may answer and close before it has read all: the response is read still, or that there is none.
            Poll::Pending | Poll::Ready(Ok(()) | Err(Http1Error::Io(_))) => {}
            Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
        }
        self.poll_head(cx, interim)
    }

    fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        interim: &mut impl FnMut(StatusCode),
    ) -> Poll<Result<Response<()>, Http1Error>> {
        loop {
            let found =
                self.search
                    .find(&self.reading.bytes, self.max_head_bytes, MAX_FIELDS + 1)?;
            let Some(length) = found else {
                let Some(io) = &mut self.io else {
                    return Poll::Ready(Err(Http1Error::Incomplete));
                };
                if ready!(self.reading.poll_read(cx, io))? == 0 {
                    return Poll::Ready(Err(Http1Error::Incomplete));
                }
                self.heard = true;
                continue;
            };
            let head = self.reading.bytes.split_to(length).freeze();
            let response = response_head(&head, &self.search)?;
            self.search.restart();
            if let Some(response) = self.heard(response, interim)? {
                return Poll::Ready(Ok(response));
            }
        }
    }

    /// Takes up `response`; `None` if another one is to follow.
    fn heard(
        &mut self,
        mut response: Response<()>,
        told: &mut impl FnMut(StatusCode),
    ) -> Result<Option<Response<()>>, Http1Error> {
        let Answer::Awaited {
            method,
            keeps,
            interim,
        } = &mut self.answer
        else {
            return Err(Http1Error::Malformed("a response that nobody asked for"));
        };
        let (status, version) = (response.status(), response.version());
        if status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS {
            *interim += 1;
            if *interim > MAX_INTERIM {
                return Err(Http1Error::Malformed(
                    "more interim responses than are taken",
                ));
            }
            told(status);
            return Ok(None);
        }
        let framing = Framing::of_response(method, status, version, response.headers_mut())?;
        let stays = match version {
            Version::HTTP_10 => names(response.headers(), "keep-alive"),
            _ => !names(response.headers(), "close"),
        };
        let switches = status == StatusCode::SWITCHING_PROTOCOLS
            || (*method == Method::CONNECT && status.is_success());
        let keeps = *keeps && stays && !switches && framing != Framing::UntilEnd;
        self.answer = Answer::Read {
            body: framing.into(),
            keeps,
        };
        self.end_answer();
        Ok(Some(response))
    }

    /// Notes that the response's body has ended, if it has.
    fn end_answer(&mut self) {
        if let Answer::Read { body, keeps } = &self.answer
            && body.has_ended()
        {
            self.answer = if *keeps { Answer::None } else { Answer::Last };
        }
    }

    /// Sends what there is of the request. Ready when that was all.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Http1Error>> {
        if matches!(self.request, Request::Failed) {
            return Poll::Pending;
        }
        let sent = self.poll_send_rest(cx);
        if let Poll::Ready(Err(_)) = sent {
            self.request = Request::Failed;
        }
        sent
    }

    fn poll_send_rest(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Http1Error>> {
        let Some(io) = &mut self.io else {
            return Poll::Ready(Err(Http1Error::Incomplete));
        };
        loop {
            let filled = match &mut self.request {
                Request::Body(body) => body.poll_fill(cx, &mut self.out)?,
                Request::Nothing | Request::Failed => Poll::Ready(Filled::WithTheLast),
            };
            if filled == Poll::Ready(Filled::WithTheLast) {
                self.request = Request::Nothing;
            }
            ready!(self.out.poll_write(cx, io))?;
            if filled != Poll::Ready(Filled::Up) {
                ready!(self.out.poll_flush(cx, io))?;
                return filled.map(|_| Ok(()));
            }
        }
    }

    /// Sends the rest of a request whose response has come already. Ready when there is nothing left to do.
    pub(super) fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !matches!(self.request, Request::Failed) {
            match self.poll_send(cx) {
                Poll::Pending => {
                    self.wake_later(cx);
                    return Poll::Pending;
                }
                // Who sends the body has given up, which the server has to hear.
                Poll::Ready(Err(Http1Error::Body(_))) => self.abandon(),
                Poll::Ready(_) => {}
            }
        }
        self.wake_all();
        Poll::Ready(())
    }

    /// Ready when the request was sent, or never will be.
    pub(super) fn poll_sent(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.is_sent() || matches!(self.request, Request::Failed) {
            return Poll::Ready(());
        }
        self.wake_later(cx);
        Poll::Pending
    }

    /// Ends the connection in order, as far as that takes no waiting, where no exchange is on it.
    pub(super) fn close(&mut self) {
        if !self.is_sent() || self.is_answering() {
            return;
        }
        if let Some(mut io) = self.io.take() {
            let _ = Pin::new(&mut io).poll_shutdown(&mut Context::from_waker(Waker::noop()));
        }
    }

    /// The stream, and what was read from it, once the server has switched protocols.
    pub(super) fn switch(&mut self) -> Option<Prefixed<I>> {
        if !self.is_sent() {
            return None;
        }
        let begun = self.reading.bytes.split().freeze();
        self.io.take().map(|io| Prefixed::new(begun, io))
    }
}

impl<I> Connection<I> {
    /// Closes the connection: nobody wants the rest of what is on it.
    pub(super) fn abandon(&mut self) {
        self.io = None;
        self.request = Request::Failed;
        self.wake_all();
    }

    /// As [`Self::abandon`], once the response has been read, unless the request was sent by then.
    pub(super) fn let_go(&mut self) {
        self.orphaned = true;
        if !self.is_sent() && !self.is_answering() {
            self.abandon();
        }
    }

    /// Whether a response's head has come, and its body has not ended.
    pub(super) fn is_answering(&self) -> bool {
        matches!(self.answer, Answer::Read { .. })
    }

    /// Whether nothing of the request is left to be sent.
    pub(super) fn is_sent(&self) -> bool {
        matches!(self.request, Request::Nothing) && self.out.is_done()
    }

    fn wake_later(&mut self, cx: &Context<'_>) {
        let waker = cx.waker();
        if !self.writers.iter().any(|known| known.will_wake(waker)) {
            self.writers.push(waker.clone());
        }
    }

    fn wake_all(&mut self) {
        for waker in self.writers.drain(..).chain(self.reader.take()) {
            waker.wake();
        }
    }
}

/// A response's body, whatever it comes over.
pub(super) trait Source {
    /// As [`Body::poll_frame`].
    fn poll_part(&mut self, cx: &mut Context<'_>)
    -> Poll<Option<Result<Frame<Bytes>, Http1Error>>>;

    fn has_ended(&self) -> bool;

    fn size_hint(&self) -> SizeHint;

    /// Nobody wants the rest.
    fn abandon(&mut self);
}

impl<I: AsyncRead + AsyncWrite + Unpin> Source for Connection<I> {
    fn poll_part(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Http1Error>>> {
        loop {
            let Answer::Read { body, .. } = &mut self.answer else {
                return Poll::Ready(None);
            };
            let decoded = match body.decode(&mut self.reading.bytes) {
                Ok(Decoded::Wanting) => match &mut self.io {
                    Some(io) => match self.reading.poll_read(cx, io) {
                        Poll::Pending => {
                            if !matches!(self.request, Request::Nothing) || !self.out.is_done() {
                                self.reader = Some(cx.waker().clone());
                            }
                            return Poll::Pending;
                        }
                        Poll::Ready(Ok(0)) => body.end().map(|()| Decoded::End),
                        Poll::Ready(Ok(_)) => continue,
                        Poll::Ready(Err(error)) => Err(error.into()),
                    },
                    None => Err(Http1Error::Incomplete),
                },
                decoded => decoded,
            };
            let part = match decoded {
                Ok(Decoded::Data(piece)) => Some(Ok(Frame::data(piece))),
                Ok(Decoded::Trailers(trailers)) => Some(Ok(Frame::trailers(trailers))),
                Ok(Decoded::End | Decoded::Wanting) => None,
                Err(error) => {
                    self.answer = Answer::Last;
                    self.abandon();
                    return Poll::Ready(Some(Err(error)));
                }
            };
            self.end_answer();
            if self.orphaned && !self.is_answering() && !self.is_sent() {
                self.abandon();
            }
            return Poll::Ready(part);
        }
    }

    fn has_ended(&self) -> bool {
        !self.is_answering()
    }

    fn size_hint(&self) -> SizeHint {
        match &self.answer {
            Answer::Read { body, .. } => body.size_hint(),
            _ => SizeHint::with_exact(0),
        }
    }

    fn abandon(&mut self) {
        self.answer = Answer::Last;
        Connection::abandon(self);
    }
}

impl std::fmt::Debug for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Nothing => "Nothing",
            Self::Body(_) => "Body",
            Self::Failed => "Failed",
        })
    }
}
