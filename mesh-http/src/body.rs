//! Bodies that say, exactly once, how they ended.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};

/// How a body ended.
#[derive(Debug)]
pub enum End<'a> {
    /// In full, with its trailers if it had any.
    Complete(Option<&'a HeaderMap>),
    /// With an error of the side it came from.
    Failed,
    /// Not in time: whoever reads it gave up.
    Late,
    /// Dropped before its end: the side it went to was gone, or lost interest.
    Dropped,
}

/// Told how a body ended. Called exactly once.
pub trait Observe {
    /// The body ended so.
    fn ended(self, end: End<'_>);
}

pin_project_lite::pin_project! {
    /// A body that tells an observer how it ended.
    #[derive(Debug)]
    pub struct Observed<B, O>
    where
        B: Body,
        O: Observe,
    {
        #[pin]
        body: B,
        observer: Option<O>,
    }

    impl<B, O> PinnedDrop for Observed<B, O>
    where
        B: Body,
        O: Observe,
    {
        fn drop(this: Pin<&mut Self>) {
            let this = this.project();
            if let Some(observer) = this.observer.take() {
                // A body whose last byte was taken is often dropped without being asked for its end.
                observer.ended(if this.body.is_end_stream() { End::Complete(None) } else { End::Dropped });
            }
        }
    }
}

impl<B: Body, O: Observe> Observed<B, O> {
    /// Watches `body` for `observer`.
    pub fn new(body: B, observer: O) -> Self {
        Self {
            body,
            observer: Some(observer),
        }
    }

    /// Tells the observer that the body ended so, though it has not: whoever reads it will read no more.
    pub fn end(&mut self, end: End<'_>) {
        if let Some(observer) = self.observer.take() {
            observer.ended(end);
        }
    }
}

impl<B, O> Body for Observed<B, O>
where
    B: Body,
    O: Observe,
{
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let this = self.project();
        let frame = ready!(this.body.poll_frame(cx));
        let end = match &frame {
            Some(Ok(frame)) => frame
                .trailers_ref()
                .map(|trailers| End::Complete(Some(trailers))),
            Some(Err(_)) => Some(End::Failed),
            None => Some(End::Complete(None)),
        };
        if let Some(end) = end
            && let Some(observer) = this.observer.take()
        {
            observer.ended(end);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A body that a proxy answers with itself: one piece, or nothing.
#[derive(Debug, Default)]
pub struct Short(Option<Bytes>);

impl Short {
    /// The whole body.
    #[must_use]
    pub fn new(bytes: impl Into<Bytes>) -> Self {
        Self(Some(bytes.into()).filter(|bytes| !bytes.is_empty()))
    }

    /// Takes the piece out.
    pub fn take(&mut self) -> Option<Bytes> {
        self.0.take()
    }

    /// Bytes left.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.as_ref().map_or(0, Bytes::len)
    }

    /// Whether nothing is left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::{BodyExt, Empty, Full, StreamBody};
    use std::cell::RefCell;

    struct Into<'a>(&'a RefCell<Vec<String>>);

    impl Observe for Into<'_> {
        fn ended(self, end: End<'_>) {
            self.0.borrow_mut().push(format!("{end:?}"));
        }
    }

    #[tokio::test]
    async fn every_end_is_told_once() {
        let told = RefCell::default();
        Observed::new(Full::new(Bytes::from_static(b"abc")), Into(&told))
            .collect()
            .await
            .unwrap();
        drop(Observed::new(
            Full::new(Bytes::from_static(b"abc")),
            Into(&told),
        ));
        drop(Observed::new(Empty::<Bytes>::new(), Into(&told)));
        let failing = StreamBody::new(futures_util::stream::iter([Err::<Frame<Bytes>, _>(
            "broken",
        )]));
        Observed::new(failing, Into(&told))
            .collect()
            .await
            .unwrap_err();
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", http::HeaderValue::from_static("0"));
        let frames = [
            Ok::<_, &str>(Frame::data(Bytes::from_static(b"a"))),
            Ok(Frame::trailers(trailers)),
        ];
        Observed::new(
            StreamBody::new(futures_util::stream::iter(frames)),
            Into(&told),
        )
        .collect()
        .await
        .unwrap();
        let told = told.into_inner();
        let trailers = r#"Complete(Some({"grpc-status": "0"}))"#;
        assert_eq!(
            told,
            [
                "Complete(None)",
                "Dropped",
                "Complete(None)",
                "Failed",
                trailers
            ]
        );
    }
}
