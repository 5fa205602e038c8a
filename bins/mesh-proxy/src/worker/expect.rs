//! `Expect: 100-continue` (RFC 9110, section 10.1.1): the client keeps its body back until the server asks for it, so the
//! body is not asked for before the server has spoken.
//!
//! hyper tells the client to go on as soon as somebody reads the body. So who reads it waits at a [`Gate`], which the
//! server's 100 opens. A server that says nothing may not know of expectations: after [`PATIENCE`] the gate opens by itself.
//! An answer that is an error shuts it: the body is not read, and both connections end with the answer.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::task::AtomicWaker;
use http::header::{CONNECTION, HeaderValue};
use http::{Response, StatusCode};
use tokio::time::{Sleep, sleep};

/// How long a server may take to say 100: as long as clients commonly wait for it.
const PATIENCE: Duration = Duration::from_secs(1);

const WAITING: u8 = 0;
const OPEN: u8 = 1;
const SHUT: u8 = 2;
const REFUSED: u8 = 3;

/// Where a request's body waits.
#[derive(Debug)]
pub(crate) struct Gate {
    key: Key,
    patience: Pin<Box<Sleep>>,
}

/// Opens and shuts a [`Gate`]. Atomic because hyper's callback for 1xx has to be `Sync`.
#[derive(Clone, Debug)]
pub(crate) struct Key(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: AtomicU8,
    waker: AtomicWaker,
}

/// Held as long as the answer lasts to a request whose body is not read; then the body is refused, which ends the connection
/// it was meant for.
#[derive(Debug)]
pub(crate) struct Unread(Key);

/// Marks a response after which the client's connection has to end, as its request's body was not read.
#[derive(Clone, Copy, Debug)]
struct LastResponse;

impl Gate {
    pub(crate) fn new() -> Self {
        Self {
            key: Key(Arc::default()),
            patience: Box::pin(sleep(PATIENCE)),
        }
    }

    pub(crate) fn key(&self) -> Key {
        self.key.clone()
    }

    /// Ready when it is open, with whether it will ever be.
    pub(crate) fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        let Key(shared) = &self.key;
        shared.waker.register(cx.waker());
        match shared.state.load(Relaxed) {
            OPEN => Poll::Ready(true),
            REFUSED => Poll::Ready(false),
            SHUT => Poll::Pending,
            _ => self.patience.as_mut().poll(cx).map(|()| {
                self.key.change(OPEN);
                true
            }),
        }
    }
}

impl Key {
    /// The server asks for the body.
    pub(crate) fn open(&self) {
        self.change(OPEN);
    }

    /// The server answered. An error before it asked for the body means that the body is not read.
    pub(crate) fn answered<B>(self, response: &mut Response<B>) -> Option<Unread> {
        let failed = response.status() >= StatusCode::BAD_REQUEST;
        self.change(if failed { SHUT } else { OPEN });
        if self.0.state.load(Relaxed) != SHUT {
            return None;
        }
        response.extensions_mut().insert(LastResponse);
        Some(Unread(self))
    }

    /// Only what waits can be opened or shut, and only what is shut refused.
    fn change(&self, to: u8) {
        let from = if to == REFUSED { SHUT } else { WAITING };
        let Self(shared) = self;
        if shared
            .state
            .compare_exchange(from, to, Relaxed, Relaxed)
            .is_ok()
        {
            shared.waker.wake();
        }
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        self.0.change(REFUSED);
    }
}

/// Tells an HTTP/1 client that the connection ends with `response`, if its request's body was not read: what it would send
/// next cannot be told from that body.
pub(crate) fn end_after<B>(response: &mut Response<B>) {
    if response.extensions_mut().remove::<LastResponse>().is_some() {
        response
            .headers_mut()
            .insert(CONNECTION, HeaderValue::from_static("close"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use tokio::time::Instant;

    fn response(status: u16) -> Response<()> {
        let mut response = Response::new(());
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
        response
    }

    #[tokio::test(start_paused = true)]
    async fn a_gate_opens_when_the_server_says_so_or_nothing() {
        let started = Instant::now();
        let mut gate = Gate::new();
        let key = gate.key();
        key.open();
        assert!(poll_fn(|cx| gate.poll_open(cx)).await);
        assert_eq!(started.elapsed(), Duration::ZERO);
        let mut gate = Gate::new();
        assert!(poll_fn(|cx| gate.poll_open(cx)).await);
        assert_eq!(started.elapsed(), PATIENCE);
    }

    #[tokio::test(start_paused = true)]
    async fn an_error_keeps_the_body_back_and_refuses_it_in_the_end() {
        let mut gate = Gate::new();
        let key = gate.key();
        let mut refused = response(417);
        let unread = key.answered(&mut refused);
        assert!(unread.is_some());
        let waiting = tokio::time::timeout(10 * PATIENCE, poll_fn(|cx| gate.poll_open(cx)));
        assert!(waiting.await.is_err());
        drop(unread);
        assert!(!poll_fn(|cx| gate.poll_open(cx)).await);
        end_after(&mut refused);
        assert_eq!(refused.headers()[CONNECTION], "close");
    }

    #[tokio::test(start_paused = true)]
    async fn an_error_after_the_body_was_asked_for_is_an_answer_like_any() {
        for (asked, status) in [(true, 500), (false, 200)] {
            let mut gate = Gate::new();
            let key = gate.key();
            if asked {
                key.open();
            }
            let mut answer = response(status);
            assert!(key.answered(&mut answer).is_none());
            end_after(&mut answer);
            assert!(answer.headers().is_empty());
            assert!(poll_fn(|cx| gate.poll_open(cx)).await);
        }
    }
}
