use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use http::{Request, Response, StatusCode, Version};
use http_body::{Body, Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite};

use super::Answering;
use super::connection::{Connection, SentBody};
use crate::client::ClientSettings;
use crate::http1::{BoxError, Http1Error, Length, Sending, names, request_head};
use crate::{Incoming, Prefixed};

/// Sends requests on one connection, one after the other. Dropped without an exchange, it closes the connection.
#[derive(Debug)]
pub struct Sender<I> {
    connection: Rc<RefCell<Connection<I>>>,
}

/// Why a request has no response.
#[derive(Debug)]
pub struct NoAnswer {
    /// What went wrong.
    pub error: Http1Error,
    /// How far it came.
    pub reached: Reached,
}

/// How far a request came that has no response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reached {
    /// None of it was sent: it is as it was.
    Nothing,
    /// It was sent, or some of it, and the server said nothing. Its body, if it had one, was taken.
    Silence,
    /// The same, and the server said something.
    Answer,
}

impl<I> Sender<I>
where
    I: AsyncRead + AsyncWrite + Unpin + 'static,
{
    /// Speaks HTTP/1 on a new connection.
    #[must_use]
    pub fn new(io: I, settings: &ClientSettings) -> Self {
        let max_head_bytes = (settings.max_header_bytes as usize).max(8192);
        let connection = Connection::new(io, max_head_bytes);
        Self {
            connection: Rc::new(RefCell::new(connection)),
        }
    }

    /// Sends `request`, and waits for the head of its response; `interim` hears of those that announce it. The body is taken out, the
    /// head left. What is not sent of the body by then is sent by a task.
    ///
    /// # Errors
    /// [`NoAnswer`]; the connection is of no use then.
    pub async fn send<B>(
        &mut self,
        request: &mut Request<B>,
        mut interim: impl FnMut(StatusCode),
    ) -> Result<Response<Incoming>, NoAnswer>
    where
        B: Body<Data = Bytes, Error: Into<BoxError>> + Default + Unpin + 'static,
    {
        let answered = poll_fn({
            let mut begun = false;
            let connection = &self.connection;
            move |cx| {
                let mut connection = connection.borrow_mut();
                if !begun {
                    if !connection.is_free() || !connection.is_open(cx) {
                        return Poll::Ready(Err(NoAnswer::nothing(Http1Error::Incomplete)));
                    }
                    begin(&mut connection, request).map_err(NoAnswer::nothing)?;
                    begun = true;
                }
                connection.poll_answer(cx, &mut interim).map_err(|error| {
                    let reached = match connection.was_heard() {
                        true => Reached::Answer,
                        false => Reached::Silence,
                    };
                    NoAnswer { error, reached }
                })
            }
        });
        let response = answered.await?;
        let connection = self.connection.borrow();
        if !connection.is_sent() {
            let sending = self.connection.clone();
            tokio::task::spawn_local(poll_fn(move |cx| sending.borrow_mut().poll_finish(cx)));
        }
        let body = match connection.is_answering() {
            true => Incoming::Answering(Answering::new(self.connection.clone())),
            false => Incoming::Nothing,
        };
        Ok(response.map(|()| body))
    }

    /// The stream and what was read from it beyond the response's head, where the server has switched protocols and has all of the
    /// request.
    #[must_use]
    pub fn switched(self) -> Option<Prefixed<I>> {
        self.connection.borrow_mut().switch()
    }

    /// Whether the response has ended, so that another request can follow once this one was sent.
    pub(super) fn is_answered(&self) -> bool {
        self.connection.borrow().is_answered()
    }

    /// Whether the connection waits for a request.
    pub(super) fn is_free(&self) -> bool {
        self.connection.borrow().is_free()
    }

    /// Whether the server has not ended the connection, as far as is known.
    pub(super) fn is_open(&self, cx: &mut Context<'_>) -> bool {
        self.connection.borrow_mut().is_open(cx)
    }

    /// Resolves when the request was sent, or never will be.
    pub(super) async fn sent(&self) {
        poll_fn(|cx| self.connection.borrow_mut().poll_sent(cx)).await;
    }

    /// Ends the connection in order, if its last exchange has ended.
    pub(super) fn close(self) {
        self.connection.borrow_mut().close();
    }

    /// Gives back the memory that only requests need.
    pub(super) fn rest(&self) {
        self.connection.borrow_mut().rest();
    }
}

impl<I> Drop for Sender<I> {
    /// A request that is still being sent after its response has ended is nobody's any more.
    fn drop(&mut self) {
        self.connection.borrow_mut().let_go();
    }
}

impl NoAnswer {
    fn nothing(error: Http1Error) -> Self {
        let reached = Reached::Nothing;
        Self { error, reached }
    }
}

/// Takes the body out of `request`, where there is one.
fn begin<I, B>(connection: &mut Connection<I>, request: &mut Request<B>) -> Result<(), Http1Error>
where
    I: AsyncRead + AsyncWrite + Unpin,
    B: Body<Data = Bytes, Error: Into<BoxError>> + Default + Unpin + 'static,
{
    let headers = request.headers();
    let (length, body) = if request.body().is_end_stream() {
        if headers.get(CONTENT_LENGTH).is_some_and(|said| said != "0") {
            let shorter = "it is shorter than its head says";
            return Err(Http1Error::Body(shorter.into()));
        }
        (Length::None, None)
    } else {
        let length = Length::of_request(request.version(), headers)?;
        let body: SentBody = Box::pin(Erased(std::mem::take(request.body_mut())));
        (length, Some(Sending::new(body, length)))
    };
    // A server that is asked in HTTP/1.0 closes the connection, whatever version it answers in.
    let keeps = request.version() == Version::HTTP_11 && !names(request.headers(), "close");
    connection.begin(request.method().clone(), keeps, body, |out| {
        request_head(request, length, out);
    });
    Ok(())
}

/// A body whatever its error is.
struct Erased<B>(B);

impl<B: Body<Error: Into<BoxError>> + Unpin> Body for Erased<B> {
    type Data = B::Data;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, BoxError>>> {
        let frame = Pin::new(&mut self.0).poll_frame(cx);
        frame.map(|frame| frame.map(|frame| frame.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }
}
