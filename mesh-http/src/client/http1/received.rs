use std::cell::RefCell;
use std::fmt;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::connection::Source;
use crate::http1::Http1Error;

/// The body of a response. Dropped before its end, it closes the connection.
pub struct Answering {
    /// Let go of at the end, as the next exchange is another's.
    connection: Option<Rc<RefCell<dyn Source>>>,
}

impl Answering {
    pub(super) fn new(connection: Rc<RefCell<dyn Source>>) -> Self {
        let connection = Some(connection);
        Self { connection }
    }
}

impl Body for Answering {
    type Data = Bytes;
    type Error = Http1Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Http1Error>>> {
        let Some(connection) = &self.connection else {
            return Poll::Ready(None);
        };
        let mut source = connection.borrow_mut();
        let part = ready!(source.poll_part(cx));
        let ended = source.has_ended();
        drop(source);
        if ended {
            self.connection = None;
        }
        Poll::Ready(part)
    }

    fn is_end_stream(&self) -> bool {
        self.connection.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        let connection = self.connection.as_ref();
        connection.map_or(SizeHint::with_exact(0), |connection| {
            connection.borrow().size_hint()
        })
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        if let Some(connection) = &self.connection {
            connection.borrow_mut().abandon();
        }
    }
}

impl fmt::Debug for Answering {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Answering");
        shown.field("ended", &self.connection.is_none()).finish()
    }
}
