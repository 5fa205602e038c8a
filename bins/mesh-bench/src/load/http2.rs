//! HTTP/2 and gRPC, one connection for each lane.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, TE};
use http::{Method, Request, Response, StatusCode, Uri};
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::sync::mpsc;
use tokio::task::spawn_local;

use super::{Failure, Plan, Work, connect};
use crate::backend::{
    CONNECTION_WINDOW, ECHO_PATH, GRPC_STATUS, LocalExec, MESSAGE_HEAD, STREAM_WINDOW, UNARY_PATH,
    message,
};

/// A connection, and what is asked on it.
pub(super) struct Client {
    send: SendRequest<Upload>,
    uri: Uri,
    /// The message of a call of gRPC.
    call: Option<Bytes>,
    size: usize,
}

impl Client {
    pub(super) async fn connect(plan: &Plan) -> Result<Self, Failure> {
        let stream = connect(plan.target).await?;
        let (send, connection) = Builder::new(LocalExec)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .handshake(TokioIo::new(stream))
            .await?;
        spawn_local(connection);
        let path = match plan.work {
            Work::GrpcUnary => format!("{UNARY_PATH}{}", plan.size),
            Work::GrpcStream => ECHO_PATH.to_owned(),
            _ => format!("/{}", plan.size),
        };
        Ok(Self {
            send,
            uri: format!("http://{}{path}", plan.target).parse()?,
            call: (plan.work == Work::GrpcUnary).then(|| message(REQUEST_BYTES)),
            size: plan.size,
        })
    }

    /// One request and its whole answer.
    pub(super) async fn exchange(&mut self) -> Result<(), Failure> {
        let Some(call) = self.call.clone() else {
            let mut request = Request::new(Upload::Once(None));
            *request.uri_mut() = self.uri.clone();
            let mut body = self.send(request).await?.into_body();
            return expect_bytes(read(&mut body).await?.0, self.size);
        };
        let request = call_of(&self.uri, Upload::Once(Some(call)));
        let response = self.send(request).await?;
        let headers = response.headers().get(GRPC_STATUS).cloned();
        let mut body = response.into_body();
        let (bytes, trailer) = read(&mut body).await?;
        let status = headers.or(trailer);
        match status.as_ref().map(http::HeaderValue::as_bytes) {
            Some(b"0") => expect_bytes(bytes, self.size + MESSAGE_HEAD),
            status => Err(format!("grpc-status {status:?}").into()),
        }
    }

    /// Opens a stream of gRPC.
    pub(super) async fn stream(mut self) -> Result<Stream, Failure> {
        let (upload, receiver) = mpsc::channel(1);
        let request = call_of(&self.uri, Upload::Stream(receiver));
        let message = message(self.size);
        // The head of the answer may come with the first message of it only.
        upload.send(message.clone()).await?;
        let response = self.send(request).await?;
        let mut stream = Stream {
            upload,
            message,
            body: response.into_body(),
            _connection: self.send,
        };
        stream.read().await?;
        Ok(stream)
    }

    async fn send(&mut self, request: Request<Upload>) -> Result<Response<Incoming>, Failure> {
        self.send.ready().await?;
        let response = self.send.send_request(request).await?;
        match response.status() {
            StatusCode::OK => Ok(response),
            status => Err(status.to_string().into()),
        }
    }
}

/// The bytes of the message of a call; what is answered is what is measured.
const REQUEST_BYTES: usize = 128;

fn call_of(uri: &Uri, upload: Upload) -> Request<Upload> {
    let mut request = Request::new(upload);
    *request.method_mut() = Method::POST;
    *request.uri_mut() = uri.clone();
    let headers = request.headers_mut();
    let grpc = http::HeaderValue::from_static("application/grpc");
    headers.insert(CONTENT_TYPE, grpc);
    headers.insert(TE, http::HeaderValue::from_static("trailers"));
    request
}

/// The bytes of a body and the status of gRPC after it.
async fn read(body: &mut Incoming) -> Result<(usize, Option<http::HeaderValue>), Failure> {
    let (mut bytes, mut status) = (0, None);
    while let Some(frame) = body.frame().await {
        match frame?.into_data() {
            Ok(data) => bytes += data.len(),
            Err(frame) => {
                status = frame
                    .into_trailers()
                    .ok()
                    .and_then(|mut trailers| trailers.remove(GRPC_STATUS));
            }
        }
    }
    Ok((bytes, status))
}

fn expect_bytes(bytes: usize, expected: usize) -> Result<(), Failure> {
    if bytes == expected {
        Ok(())
    } else {
        Err(format!("an answer of {bytes} bytes, not {expected}").into())
    }
}

/// A stream of gRPC on which messages come back.
pub(super) struct Stream {
    upload: mpsc::Sender<Bytes>,
    message: Bytes,
    body: Incoming,
    _connection: SendRequest<Upload>,
}

impl Stream {
    /// One message there and back.
    pub(super) async fn round(&mut self) -> Result<(), Failure> {
        self.upload.send(self.message.clone()).await?;
        self.read().await
    }

    async fn read(&mut self) -> Result<(), Failure> {
        let mut missing = self.message.len();
        while missing > 0 {
            let frame = self.body.frame().await.ok_or("the stream ended")??;
            let data = frame.into_data().map_err(|_| "the stream ended")?;
            missing = missing
                .checked_sub(data.len())
                .ok_or("more than was sent came back")?;
        }
        Ok(())
    }
}

/// The body of a request.
pub(super) enum Upload {
    Once(Option<Bytes>),
    Stream(mpsc::Receiver<Bytes>),
}

impl Body for Upload {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let data = match &mut *self {
            Self::Once(data) => data.take(),
            Self::Stream(receiver) => std::task::ready!(receiver.poll_recv(cx)),
        };
        Poll::Ready(data.map(|data| Ok(Frame::data(data))))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Once(None))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Once(data) => SizeHint::with_exact(data.as_ref().map_or(0, Bytes::len) as u64),
            Self::Stream(_) => SizeHint::default(),
        }
    }
}
