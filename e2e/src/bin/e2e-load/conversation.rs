//! What stays open: a bidirectional gRPC stream or a TCP connection, on which messages are sent when they are due and must
//! come back in order.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::Uri;
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};

use super::counts::{Counts, Failure};
use super::lane::{ATTEMPT_LIMIT, LINE_BYTES, random_line};
use super::{Carriage, Wishes, grpc};

/// How often it is looked whether a conversation is to end.
const LOOK_EVERY: Duration = Duration::from_millis(20);
const AFTER_FAILURE: Duration = Duration::from_millis(100);

/// Holds one conversation after the other.
pub(crate) async fn hold(
    carriage: Carriage,
    target: String,
    every: Duration,
    counts: Rc<Counts>,
    wishes: Rc<Wishes>,
) {
    while !wishes.stop.get() {
        let round = wishes.round.get();
        let mut sent = VecDeque::new();
        let opened = timeout(ATTEMPT_LIMIT, Conversation::open(carriage, &target)).await;
        let opened = opened.unwrap_or_else(|_| Err(Failure::new("timeout", "not opened")));
        let ended = match opened {
            Ok(mut conversation) => {
                counts.report.borrow_mut().connections += 1;
                let to_end = || wishes.stop.get() || wishes.round.get() != round;
                conversation.talk(every, &counts, &mut sent, to_end).await
            }
            Err(failure) => {
                counts.report.borrow_mut().attempts += 1;
                sent.push_back((Instant::now(), Bytes::new()));
                Err(failure)
            }
        };
        match ended {
            Ok(()) => counts.report.borrow_mut().ended += 1,
            // A conversation that broke is a failure also if no message was on its way.
            Err(Failure { kind, text }) => {
                if sent.is_empty() {
                    counts.report.borrow_mut().attempts += 1;
                    sent.push_back((Instant::now(), Bytes::new()));
                }
                for (began, _) in sent {
                    counts.record(began.into_std(), Err(Failure::new(kind, text.clone())));
                }
                tokio::time::sleep(AFTER_FAILURE).await;
            }
        }
    }
}

enum Conversation {
    Grpc {
        /// None once the sending half is closed.
        messages: Option<mpsc::Sender<Bytes>>,
        answer: Incoming,
        received: BytesMut,
    },
    Tcp {
        write: OwnedWriteHalf,
        read: OwnedReadHalf,
        received: BytesMut,
    },
}

impl Conversation {
    async fn open(carriage: Carriage, target: &str) -> Result<Self, Failure> {
        if carriage == Carriage::TcpStream {
            let (read, write) = connect(target).await?.into_split();
            return Ok(Self::Tcp {
                write,
                read,
                received: BytesMut::new(),
            });
        }
        let uri: Uri = target
            .parse()
            .map_err(|_| Failure::new("other", "not a URL"))?;
        let authority = uri.authority().map(ToString::to_string).unwrap_or_default();
        let io = TokioIo::new(connect(&authority).await?);
        let (mut sender, connection) = http2::handshake(TokioExecutor::new(), io).await?;
        tokio::task::spawn_local(connection);
        let (messages, queue) = mpsc::channel(16);
        let response = sender
            .send_request(grpc::call(&uri, Messages(queue))?)
            .await?;
        if response.status() != http::StatusCode::OK {
            let why = response.headers().get("l5d-proxy-error");
            let why = why.map(|why| String::from_utf8_lossy(why.as_bytes()).into_owned());
            let text = format!("{} {}", response.status(), why.unwrap_or_default());
            return Err(Failure::new("status", text));
        }
        Ok(Self::Grpc {
            messages: Some(messages),
            answer: response.into_body(),
            received: BytesMut::new(),
        })
    }

    /// Sends and receives until `to_end` says so, then ends as it should be.
    async fn talk(
        &mut self,
        every: Duration,
        counts: &Counts,
        sent: &mut VecDeque<(Instant, Bytes)>,
        to_end: impl Fn() -> bool,
    ) -> Result<(), Failure> {
        let mut due = Instant::now();
        let mut closing = false;
        loop {
            if to_end() && sent.is_empty() && !closing {
                closing = true;
                self.close().await?;
            }
            let late = sent.front().map_or(due.max(Instant::now()), |(at, _)| *at) + ATTEMPT_LIMIT;
            tokio::select! {
                line = self.receive() => match line? {
                    Some(line) => {
                        let Some((began, expected)) = sent.pop_front() else {
                            return Err(Failure::new("content", "more than was sent"));
                        };
                        let outcome = if line == expected {
                            Ok(String::new())
                        } else {
                            Err(Failure::new("content", "not the bytes that were sent"))
                        };
                        counts.record(began.into_std(), outcome);
                    }
                    None if closing => return Ok(()),
                    None => return Err(Failure::new("closed", "the other side ended it")),
                },
                () = sleep_until(due), if !to_end() => {
                    let line = random_line();
                    counts.report.borrow_mut().attempts += 1;
                    sent.push_back((due, line.clone()));
                    due += every;
                    self.send(line).await?;
                }
                () = tokio::time::sleep(LOOK_EVERY) => {}
                () = sleep_until(late) => {
                    return Err(Failure::new("timeout", format!("nothing in {ATTEMPT_LIMIT:?}")));
                }
            }
        }
    }

    async fn send(&mut self, line: Bytes) -> Result<(), Failure> {
        match self {
            Self::Grpc { messages, .. } => {
                // If the stream is gone, receiving tells why.
                if let Some(messages) = messages {
                    let _ = timeout(ATTEMPT_LIMIT, messages.send(grpc::framed(&line))).await;
                }
                Ok(())
            }
            Self::Tcp { write, .. } => timeout(ATTEMPT_LIMIT, write.write_all(&line))
                .await
                .map_err(|_| Failure::new("timeout", "cannot send"))?
                .map_err(Failure::from),
        }
    }

    async fn close(&mut self) -> Result<(), Failure> {
        match self {
            Self::Grpc { messages, .. } => {
                *messages = None;
                Ok(())
            }
            Self::Tcp { write, .. } => Ok(write.shutdown().await?),
        }
    }

    /// The next message; none at the proper end. Cancel safe.
    async fn receive(&mut self) -> Result<Option<Bytes>, Failure> {
        match self {
            Self::Grpc {
                answer, received, ..
            } => loop {
                if let Some(message) = grpc::message(received)? {
                    return Ok(Some(message));
                }
                let Some(frame) = answer.frame().await.transpose()? else {
                    return Err(Failure::new("closed", "no trailers"));
                };
                match frame.into_data() {
                    Ok(data) => received.extend_from_slice(&data),
                    Err(frame) => {
                        grpc::status(frame.trailers_ref())?;
                        return Ok(None);
                    }
                }
            },
            Self::Tcp { read, received, .. } => loop {
                if received.len() >= LINE_BYTES {
                    return Ok(Some(received.split_to(LINE_BYTES).freeze()));
                }
                if read.read_buf(received).await? == 0 {
                    return Ok(None);
                }
            },
        }
    }
}

async fn connect(address: &str) -> Result<TcpStream, Failure> {
    let stream = TcpStream::connect(address)
        .await
        .map_err(|error| Failure::new("connect", error.to_string()))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// A body of what is put into the channel.
#[derive(Debug)]
struct Messages(mpsc::Receiver<Bytes>);

impl Body for Messages {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let message = std::task::ready!(self.0.poll_recv(context));
        Poll::Ready(message.map(|message| Ok(Frame::data(message))))
    }
}
