//! What HTTP/1 says is read as it was sent, however it comes in, and as hyper reads it; what can be read in two ways is refused.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::convert::Infallible;
use std::future::Future;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, Empty, Full, StreamBody, combinators::BoxBody};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use mesh_http::Http1Error;
use mesh_http::client::{ClientSettings, NoAnswer, Reached, Sender};
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::task::{LocalSet, spawn_local, yield_now};

type Nothing = Empty<Bytes>;

/// A message without its first line.
#[derive(Clone, Debug, PartialEq)]
struct Message {
    fields: Vec<(String, String)>,
    pieces: Vec<Vec<u8>>,
    framing: How,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum How {
    Length,
    Chunks,
    UntilEnd,
}

fn message() -> impl Strategy<Value = Message> {
    let field = (
        "x-[a-z0-9!#$%&'*+.^_`|~-]{0,12}",
        "([!-~]([ -~\t]{0,20}[!-~])?)?",
    );
    (
        prop::collection::vec(field, 0..8),
        prop::collection::vec(prop::collection::vec(any::<u8>(), 1..2000), 0..4),
        prop::sample::select(vec![How::Length, How::Chunks, How::UntilEnd]),
    )
        .prop_map(|(fields, pieces, framing)| Message {
            fields,
            pieces,
            framing,
        })
}

impl Message {
    fn body(&self) -> Vec<u8> {
        self.pieces.concat()
    }

    fn fields(&self) -> HeaderMap {
        let mut fields = HeaderMap::new();
        for (name, value) in &self.fields {
            let name: http::HeaderName = name.parse().unwrap();
            fields.append(name, value.parse().unwrap());
        }
        fields
    }

    fn on_the_wire(&self, first: &str) -> Vec<u8> {
        let mut wire = format!("{first}\r\n").into_bytes();
        for (name, value) in &self.fields {
            wire.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
        }
        match self.framing {
            How::Length => {
                let length = self.body().len();
                wire.extend_from_slice(format!("content-length: {length}\r\n\r\n").as_bytes());
                wire.extend_from_slice(&self.body());
            }
            How::Chunks => {
                wire.extend_from_slice(b"transfer-encoding: chunked\r\n\r\n");
                for piece in &self.pieces {
                    wire.extend_from_slice(format!("{:x};a=b\r\n", piece.len()).as_bytes());
                    wire.extend_from_slice(piece);
                    wire.extend_from_slice(b"\r\n");
                }
                wire.extend_from_slice(b"0\r\nx-last: 1\r\n\r\n");
            }
            How::UntilEnd => {
                wire.extend_from_slice(b"\r\n");
                wire.extend_from_slice(&self.body());
            }
        }
        wire
    }
}

fn run<F: Future>(test: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    LocalSet::new().block_on(&runtime, test)
}

/// Gives `bytes` in pieces that end at `cuts`, and ends.
async fn give(mut io: DuplexStream, bytes: Vec<u8>, mut cuts: Vec<usize>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(io.read_u8().await.unwrap());
    }
    cuts.push(bytes.len());
    cuts.sort_unstable();
    let mut given = 0;
    for cut in cuts {
        let cut = cut.min(bytes.len());
        io.write_all(&bytes[given..cut]).await.unwrap();
        given = cut;
        for _ in 0..3 {
            yield_now().await;
        }
    }
}

fn without_framing(mut fields: HeaderMap) -> HeaderMap {
    fields.remove("content-length");
    fields.remove("transfer-encoding");
    fields
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn a_response_is_what_was_sent_and_what_hyper_reads(
        message in message(),
        status in 200_u16..600,
        cuts in prop::collection::vec(0_usize..3000, 0..6),
    ) {
        prop_assume!(status != 204 && status != 304);
        let wire = message.on_the_wire(&format!("HTTP/1.1 {status} As it is"));
        run(async {
            let (near, far) = duplex(1 << 20);
            spawn_local(give(far, wire.clone(), cuts));
            let mut sender = Sender::new(near, &ClientSettings::default());
            let mut request = Request::new(Nothing::new());
            let answer = sender.send(&mut request, |_| {}).await.unwrap();
            let (near, far) = duplex(1 << 20);
            spawn_local(give(far, wire, Vec::new()));
            let (mut other, connection) = hyper::client::conn::http1::handshake(TokioIo::new(near)).await.unwrap();
            spawn_local(connection);
            let others = other.send_request(Request::new(Nothing::new())).await.unwrap();
            assert_eq!(answer.status(), others.status());
            assert_eq!(answer.version(), others.version());
            assert_eq!(answer.headers(), others.headers());
            assert_eq!(without_framing(answer.headers().clone()), message.fields());
            let read = answer.into_body().collect().await.unwrap();
            let trailers = read.trailers().cloned();
            assert_eq!(trailers.is_some(), message.framing == How::Chunks);
            assert_eq!(trailers.as_ref(), others.into_body().collect().await.unwrap().trailers());
            assert_eq!(read.to_bytes(), message.body());
        });
    }

    #[test]
    fn a_request_arrives_as_it_was_sent(
        message in message(),
        path in "/[a-z/]{0,20}(\\?[a-z=&]{0,10})?",
        method in prop::sample::select(vec!["GET", "POST", "PUT", "OTHER"]),
    ) {
        prop_assume!(message.framing != How::UntilEnd);
        run(async {
            let (near, far) = duplex(1 << 20);
            let service = service_fn(|request: Request<hyper::body::Incoming>| async move {
                let (head, body) = request.into_parts();
                let read = body.collect().await.unwrap();
                let trailers = read.trailers().cloned();
                let mut seen = Response::new(Full::new(read.to_bytes()));
                *seen.headers_mut() = without_framing(head.headers);
                seen.headers_mut().insert("seen", format!("{} {}", head.method, head.uri).parse().unwrap());
                seen.headers_mut().insert("trailed", trailers.is_some().into_value());
                Ok::<_, Infallible>(seen)
            });
            let mut builder = hyper::server::conn::http1::Builder::new();
            spawn_local(builder.auto_date_header(false).serve_connection(TokioIo::new(far), service));
            let mut sender = Sender::new(near, &ClientSettings::default());
            // Twice: the second begins where the first ended.
            for _ in 0..2 {
                let mut request = Request::new(body_of(&message));
                *request.method_mut() = Method::from_bytes(method.as_bytes()).unwrap();
                *request.uri_mut() = path.parse().unwrap();
                *request.headers_mut() = message.fields();
                if message.framing == How::Length {
                    request.headers_mut().insert("content-length", message.body().len().into());
                }
                let answer = sender.send(&mut request, |_| {}).await.unwrap();
                let mut fields = without_framing(answer.headers().clone());
                assert_eq!(fields.remove("seen").unwrap(), format!("{method} {path}"));
                assert_eq!(fields.remove("trailed").unwrap(), (message.framing == How::Chunks).into_value());
                assert_eq!(fields, message.fields());
                assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), message.body());
            }
        });
    }
}

trait IntoValue {
    fn into_value(self) -> http::HeaderValue;
}

impl IntoValue for bool {
    fn into_value(self) -> http::HeaderValue {
        http::HeaderValue::from_static(if self { "yes" } else { "no" })
    }
}

#[derive(Default)]
struct Pieces(Option<BoxBody<Bytes, Infallible>>);

impl http_body::Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let body = self.0.as_mut().unwrap();
        std::pin::Pin::new(body).poll_frame(cx)
    }
}

fn body_of(message: &Message) -> Pieces {
    let pieces = message
        .pieces
        .iter()
        .map(|piece| Frame::data(Bytes::copy_from_slice(piece)));
    let mut frames: Vec<_> = pieces.map(Ok).collect();
    if message.framing == How::Chunks {
        let mut trailers = HeaderMap::new();
        trailers.insert("x-last", http::HeaderValue::from_static("1"));
        // What frames a message has no place there.
        trailers.insert("content-length", http::HeaderValue::from_static("7"));
        frames.push(Ok(Frame::trailers(trailers)));
    }
    let body = StreamBody::new(futures_util::stream::iter(frames));
    Pieces(Some(BoxBody::new(body)))
}

async fn answer_to(wire: &[u8]) -> Result<Bytes, String> {
    let (near, far) = duplex(1 << 20);
    spawn_local(give(far, wire.to_vec(), Vec::new()));
    let mut sender = Sender::new(near, &ClientSettings::default());
    let mut request = Request::new(Nothing::new());
    let answer = sender.send(&mut request, |_| {}).await;
    let answer = answer.map_err(|failed| failed.error.to_string())?;
    let read = answer.into_body().collect().await;
    Ok(read.map_err(|error| error.to_string())?.to_bytes())
}

#[test]
fn responses_that_can_be_read_in_two_ways_are_refused() {
    run(async {
        for head in [
            "HTTP/1.1 200 OK\nx: y",
            "HTTP/1.1 200 OK\r\nx: y\nz: a",
            "HTTP/1.1 200 OK\r\nx: y\rz: a",
            "HTTP/1.1 200 OK\r\nx : y",
            "HTTP/1.1 200 OK\r\n x: y",
            "HTTP/1.1 200 OK\r\nx: y\r\n\tz",
            "HTTP/1.1 200 OK\r\n: y",
            "HTTP/1.1 200 OK\r\nx",
            "HTTP/1.1 200 OK\r\nx: \0",
            "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2",
            "HTTP/1.1 200 OK\r\ncontent-length: 1, 2",
            "HTTP/1.1 200 OK\r\ncontent-length: +1",
            "HTTP/1.1 200 OK\r\ncontent-length: ",
            "HTTP/1.1 200 OK\r\ncontent-length: 18446744073709551616",
            "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ntransfer-encoding: chunked",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked, chunked",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked",
            "HTTP/1.0 200 OK\r\ntransfer-encoding: chunked",
            "HTTP/1.2 200 OK",
            "HTTP/1.1  200 OK",
            "HTTP/1.1 20 OK",
            "HTTP/1.1 2000 OK",
            "HTTP/1.1 099 OK",
            "HTTP/1.1 200 O\rK",
            "\r\nHTTP/1.1 200 OK",
        ] {
            let wire = format!("{head}\r\n\r\n0\r\n\r\n");
            assert!(answer_to(wire.as_bytes()).await.is_err(), "{head:?}");
        }
        let long = "e".repeat(5000);
        let (chunk, lines) = (
            format!("1;{long}\r\na\r\n"),
            format!("1;{}\r\na\r\n", &long[..4000]),
        );
        for body in [
            "1\na\r\n0\r\n\r\n",
            "1 1\r\na\r\n0\r\n\r\n",
            "0x1\r\na\r\n0\r\n\r\n",
            "-1\r\na\r\n0\r\n\r\n",
            "\r\na\r\n0\r\n\r\n",
            "1;a\rb\r\na\r\n0\r\n\r\n",
            "1\r\nab\r\n0\r\n\r\n",
            "1\r\na0\r\n\r\n",
            "1\r\na\n0\r\n\r\n",
            "00000000000000001\r\na\r\n0\r\n\r\n",
            "ffffffffffffffff\r\na\r\n0\r\n\r\n",
            "1\r\na\r\n",
            "1\r\na\r\n0\r\n",
            "1\r\na\r\n0\r\nx : y\r\n\r\n",
            "1\r\na\r\n0\r\nx: y\n\r\n",
            &chunk,
            &lines.repeat(5),
            &format!("0\r\nx: {}\r\n\r\n", "v".repeat(17_000)),
        ] {
            let wire = format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{body}");
            assert!(answer_to(wire.as_bytes()).await.is_err(), "{body:?}");
        }
        let hints = "HTTP/1.1 103 Early Hints\r\n\r\n".repeat(33);
        let endless = format!("{hints}HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
        assert!(answer_to(endless.as_bytes()).await.is_err());
    });
}

#[test]
fn heads_have_their_limits() {
    run(async {
        let long = |bytes: usize| {
            format!(
                "HTTP/1.1 200 OK\r\nx: {}\r\ncontent-length: 0\r\n\r\n",
                "v".repeat(bytes)
            )
        };
        assert!(answer_to(long(65_000).as_bytes()).await.is_ok());
        assert!(answer_to(long(66_000).as_bytes()).await.is_err());
        let many = |fields: usize| {
            format!(
                "HTTP/1.1 200 OK\r\n{}content-length: 0\r\n\r\n",
                "x: y\r\n".repeat(fields)
            )
        };
        assert!(answer_to(many(99).as_bytes()).await.is_ok());
        assert!(answer_to(many(100).as_bytes()).await.is_err());
    });
}

#[test]
fn who_sends_learns_how_far_a_request_came() {
    run(async {
        let settings = ClientSettings::default();
        let mut request = Request::new(Full::new(Bytes::from_static(b"hello")));
        request.headers_mut().insert("content-length", 5.into());
        let (near, far) = duplex(1024);
        drop(far);
        let mut sender = Sender::new(near, &settings);
        let failed = sender.send(&mut request, |_| {}).await.unwrap_err();
        assert_eq!(failed.reached, Reached::Nothing);
        // As it was.
        assert_eq!(
            request.body().clone().collect().await.unwrap().to_bytes(),
            "hello"
        );
        for (answer, reached) in [
            ("", Reached::Silence),
            ("HTTP/1.1 2", Reached::Answer),
            // A whole head that cannot be meant.
            (
                "HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n",
                Reached::Answer,
            ),
            ("nonsense\r\n\r\n", Reached::Answer),
        ] {
            let (near, far) = duplex(1024);
            let mut request = request.clone();
            spawn_local(give(far, answer.into(), Vec::new()));
            let mut sender = Sender::new(near, &settings);
            let failed = sender.send(&mut request, |_| {}).await.unwrap_err();
            assert_eq!(failed.reached, reached);
        }
    });
}

/// Which goes on without an end, though nobody asks for it any more.
#[test]
fn a_request_ends_with_its_response_where_its_sender_is_gone() {
    run(async {
        let (near, mut far) = duplex(1024);
        let mut sender = Sender::new(near, &ClientSettings::default());
        let endless = futures_util::stream::repeat_with(|| {
            Ok::<_, Infallible>(Frame::data(Bytes::from_static(b"more")))
        });
        let body = Pieces(Some(BoxBody::new(StreamBody::new(endless))));
        let mut request = Request::post("/").body(body).unwrap();
        let served = spawn_local(async move {
            far.read_u8().await.unwrap();
            far.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
                .await
                .unwrap();
            // What was written before, and then the end.
            far.read_to_end(&mut Vec::new()).await
        });
        let answer = sender.send(&mut request, |_| {}).await.unwrap();
        drop(sender);
        let read = answer.into_body().collect().await.unwrap();
        assert_eq!(read.to_bytes(), "ok");
        served.await.unwrap().unwrap();
    });
}

#[test]
fn a_body_that_is_not_what_its_head_says_ends_the_connection() {
    run(async {
        for length in [4, 6] {
            let mut request = Request::new(Full::new(Bytes::from_static(b"hello")));
            request
                .headers_mut()
                .insert("content-length", length.into());
            let (near, mut far) = duplex(1024);
            let mut sender = Sender::new(near, &ClientSettings::default());
            let failed = sender.send(&mut request, |_| {}).await;
            assert!(
                matches!(
                    failed,
                    Err(NoAnswer {
                        error: Http1Error::Body(_),
                        ..
                    })
                ),
                "{length}"
            );
            drop(sender);
            let mut seen = Vec::new();
            far.read_to_end(&mut seen).await.unwrap();
            assert!(!seen.ends_with(b"hello\r\n"), "{}", seen.escape_ascii());
        }
    });
}

#[test]
fn a_request_is_sent_on_while_its_response_waits_for_who_reads_it() {
    run(async {
        let (near, mut far) = duplex(1024);
        let mut sender = Sender::new(near, &ClientSettings::default());
        let long = Bytes::from(vec![7; 100_000]);
        let mut request = Request::new(Full::new(long));
        request
            .headers_mut()
            .insert("content-length", 100_000.into());
        let server = async {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(far.read_u8().await.unwrap());
            }
            far.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n")
                .await
                .unwrap();
            let mut body = vec![0; 100_000];
            far.read_exact(&mut body).await.unwrap();
            far.write_all(b"yes").await.unwrap();
        };
        let (answer, ()) = tokio::join!(sender.send(&mut request, |_| {}), server);
        assert_eq!(
            answer
                .unwrap()
                .into_body()
                .collect()
                .await
                .unwrap()
                .to_bytes(),
            "yes"
        );
    });
}
