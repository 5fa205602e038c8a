//! A body on its way out.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::Body;

use super::{BoxError, Http1Error, Length, Outgoing};

/// A body that is sent as its head says.
#[derive(Debug)]
pub(crate) struct Sending<B> {
    body: B,
    /// What is left of it.
    length: Length,
}

/// What came of filling what waits to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Filled {
    /// There is no room for more.
    Up,
    /// That was all of the body.
    WithTheLast,
}

impl<B> Sending<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    pub(crate) fn new(body: B, length: Length) -> Self {
        Self { body, length }
    }

    /// Moves what there is of the body to `out`; pending when it is the body that has to be waited for.
    pub(crate) fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        out: &mut Outgoing,
    ) -> Poll<Result<Filled, Http1Error>> {
        while out.has_room() {
            let frame = match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => frame,
                Some(Err(error)) => return Poll::Ready(Err(Http1Error::Body(error.into()))),
                None => return Poll::Ready(self.end(out)),
            };
            match frame.into_data() {
                Ok(piece) => self.add(piece, out)?,
                Err(frame) => {
                    let trailers = frame.into_trailers().ok();
                    if self.length == Length::Chunked {
                        out.last_chunk(trailers.as_ref());
                        return Poll::Ready(Ok(Filled::WithTheLast));
                    }
                    return Poll::Ready(self.end(out));
                }
            }
            if self.body.is_end_stream() {
                return Poll::Ready(self.end(out));
            }
        }
        Poll::Ready(Ok(Filled::Up))
    }

    fn add(&mut self, piece: Bytes, out: &mut Outgoing) -> Result<(), Http1Error> {
        let chunked = match &mut self.length {
            Length::Chunked => true,
            // Nobody is to have it.
            Length::None => return Ok(()),
            Length::Known(left) => {
                let rest = left.checked_sub(piece.len() as u64);
                *left = rest.ok_or(Http1Error::Body("it is longer than its head says".into()))?;
                false
            }
        };
        out.piece(piece, chunked);
        Ok(())
    }

    fn end(&self, out: &mut Outgoing) -> Result<Filled, Http1Error> {
        match self.length {
            Length::Chunked => out.last_chunk(None),
            Length::None | Length::Known(0) => {}
            Length::Known(_) => {
                let shorter = "it is shorter than its head says";
                return Err(Http1Error::Body(shorter.into()));
            }
        }
        Ok(Filled::WithTheLast)
    }
}
