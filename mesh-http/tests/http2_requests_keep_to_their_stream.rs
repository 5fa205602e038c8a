//! Requests over HTTP/2 go and end with their stream; what ends the connection reaches each of them.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::cell::Cell;
use std::convert::Infallible;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use h2::Reason;
use h2::server::{self, SendResponse};
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use mesh_http::Broken;
use mesh_http::Error;
use mesh_http::client::{ClientSettings, Http2Pool};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::task::{LocalSet, spawn_local};
use tokio::time::{Instant, sleep};

type Server = server::Connection<DuplexStream, Bytes>;
type Asked = (Request<h2::RecvStream>, SendResponse<Bytes>);

/// A pool whose next connection is the server's.
struct Pair {
    pool: Rc<Http2Pool>,
    server: Server,
}

impl Pair {
    async fn new(settings: ClientSettings, builder: &server::Builder) -> Self {
        let pool = Rc::new(Http2Pool::new(settings));
        let (client, io) = duplex(1 << 20);
        let connecting = pool.connect(|| async move { Ok::<_, Error>(client) });
        let (stream, server) = tokio::join!(connecting, builder.handshake(io));
        drop(stream.unwrap());
        Self {
            pool,
            server: server.unwrap(),
        }
    }

    async fn plain() -> Self {
        Self::new(ClientSettings::default(), &server::Builder::new()).await
    }
}

/// A server of which the test says and sees every byte.
struct Raw(DuplexStream);

impl Raw {
    /// The server of a pool's one connection, once both have said what they take.
    async fn connect() -> (Rc<Http2Pool>, Self) {
        let pool = Rc::new(Http2Pool::new(ClientSettings::default()));
        let (client, io) = duplex(1 << 20);
        let connected = pool.connect(|| async move { Ok::<_, Error>(client) }).await;
        drop(connected.unwrap());
        let mut server = Self(io);
        server.0.read_exact(&mut [0; 24]).await.unwrap();
        // An empty SETTINGS, which the client acknowledges.
        let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
        server.0.write_all(&settings).await.unwrap();
        while server.frame().await != (4, 1) {}
        (pool, server)
    }

    /// Reads on until a request has come.
    async fn headers(&mut self) {
        while self.frame().await.0 != 1 {}
    }

    /// The type and the flags of the next frame.
    async fn frame(&mut self) -> (u8, u8) {
        let mut head = [0; 9];
        self.0.read_exact(&mut head).await.unwrap();
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; length as usize];
        self.0.read_exact(&mut payload).await.unwrap();
        (head[3], head[4])
    }
}

/// Answers each request as `answer` does, until the client goes.
fn serve<F, A>(mut server: Server, answer: A)
where
    F: Future<Output = ()> + 'static,
    A: Fn(Asked) -> F + 'static,
{
    spawn_local(async move {
        while let Some(Ok(asked)) = server.accept().await {
            spawn_local(answer(asked));
        }
    });
}

fn get<B: Default>() -> Request<B> {
    Request::get("http://web/").body(B::default()).unwrap()
}

fn post<B>(body: B) -> Request<B> {
    Request::post("http://web/").body(body).unwrap()
}

fn ok() -> Response<()> {
    Response::new(())
}

/// Runs a test as a worker does, on one thread.
async fn local(test: impl Future<Output = ()>) {
    LocalSet::new().run_until(test).await;
}

/// A body that never ends, and never has anything.
#[derive(Debug, Default)]
struct Waiting;

impl Body for Waiting {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Pending
    }
}

#[tokio::test]
async fn body_and_trailers_pass_both_ways() {
    local(async {
        let Pair { pool, server } = Pair::plain().await;
        serve(server, |(request, mut respond)| async move {
            assert_eq!(request.headers().get(CONTENT_LENGTH), None);
            let mut body = request.into_body();
            let mut answer = respond.send_response(ok(), false).unwrap();
            while let Some(data) = body.data().await {
                let data = data.unwrap();
                body.flow_control().release_capacity(data.len()).unwrap();
                answer.send_data(data, false).unwrap();
            }
            let trailers = body.trailers().await.unwrap().unwrap();
            answer.send_trailers(trailers).unwrap();
        });
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from_static("0"));
        // Larger than a stream's first window: it goes on when there is room.
        let mut frames = Vec::new();
        for _ in 0..30 {
            frames.push(Ok::<_, Infallible>(Frame::data(Bytes::from_static(
                &[7; 10_000],
            ))));
        }
        frames.push(Ok(Frame::trailers(trailers.clone())));
        let body = StreamBody::new(futures_util::stream::iter(frames));
        let stream = pool.get().unwrap();
        let response = stream.send(post(body)).await.unwrap();
        let whole = response.into_body().collect().await.unwrap();
        assert_eq!(whole.trailers(), Some(&trailers));
        assert_eq!(whole.to_bytes(), vec![7; 300_000]);
    })
    .await;
}

#[tokio::test]
async fn a_length_is_said_where_it_is_known_and_usual() {
    local(async {
        let Pair { pool, server } = Pair::plain().await;
        serve(server, |(request, mut respond)| async move {
            let mut answer = ok();
            if let Some(length) = request.headers().get(CONTENT_LENGTH) {
                answer.headers_mut().insert("said", length.clone());
            }
            respond.send_response(answer, true).unwrap();
        });
        let stream = pool.get().unwrap();
        let said = |response: Response<_>| response.headers().get("said").cloned();
        let body = Full::new(Bytes::from_static(b"abc"));
        let response = stream.send(post(body)).await.unwrap();
        assert_eq!(said(response).unwrap(), "3");
        let response = stream.send(post(Empty::<Bytes>::new())).await.unwrap();
        assert_eq!(said(response).unwrap(), "0");
        let response = stream.send(get::<Empty<Bytes>>()).await.unwrap();
        assert_eq!(said(response), None);
    })
    .await;
}

#[tokio::test]
async fn more_requests_than_the_server_takes_at_once_are_all_answered() {
    local(async {
        let mut builder = server::Builder::new();
        builder.max_concurrent_streams(1);
        let Pair { pool, server } = Pair::new(ClientSettings::default(), &builder).await;
        serve(server, |(request, mut respond)| async move {
            let mut body = request.into_body();
            while let Some(data) = body.data().await {
                let _ = body.flow_control().release_capacity(data.unwrap().len());
            }
            respond.send_response(ok(), true).unwrap();
        });
        let asking = (0..20).map(|_| async {
            let stream = pool.get().unwrap();
            let body = Full::new(Bytes::from_static(&[1; 100_000]));
            stream.send(post(body)).await.unwrap().status()
        });
        assert_eq!(join_all(asking).await, [StatusCode::OK; 20]);
    })
    .await;
}

#[tokio::test]
async fn who_is_not_waited_for_any_more_is_told_to_stop() {
    local(async {
        let Pair { pool, mut server } = Pair::plain().await;
        let stream = pool.get().unwrap();
        let asking = spawn_local(async move { stream.send(post(Waiting)).await.map(drop) });
        let (_request, mut respond) = server.accept().await.unwrap().unwrap();
        asking.abort();
        spawn_local(async move { while server.accept().await.is_some() {} });
        let reason = std::future::poll_fn(|cx| respond.poll_reset(cx)).await;
        assert_eq!(reason.unwrap(), Reason::CANCEL);
    })
    .await;
}

#[tokio::test]
async fn a_body_that_breaks_off_ends_its_request_only() {
    local(async {
        let Pair { pool, mut server } = Pair::plain().await;
        let (broken, whole) = (pool.get().unwrap(), pool.get().unwrap());
        let frames = [
            Ok(Frame::data(Bytes::from_static(b"abc"))),
            Err("the client left"),
        ];
        let body = StreamBody::new(futures_util::stream::iter(frames));
        let asking = spawn_local(async move { broken.send(post(body)).await.map(drop) });
        let (mut request, _respond) = server.accept().await.unwrap().unwrap();
        serve(server, |(_, mut respond)| async move {
            respond.send_response(ok(), true).unwrap();
        });
        let error = loop {
            match request.body_mut().data().await {
                Some(Ok(_)) => {}
                Some(Err(error)) => break error,
                None => panic!("it looks whole"),
            }
        };
        assert_eq!(error.reason(), Some(Reason::CANCEL));
        assert!(asking.await.unwrap().is_err());
        let response = whole.send(get::<Empty<Bytes>>()).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn an_answer_is_whole_though_the_server_wants_no_more_of_the_request() {
    local(async {
        let Pair { pool, server } = Pair::plain().await;
        serve(server, |(_request, mut respond)| async move {
            let mut answer = respond.send_response(ok(), false).unwrap();
            answer
                .send_data(Bytes::from_static(b"enough"), true)
                .unwrap();
            // All that can be done is done before time passes.
            sleep(Duration::from_millis(5)).await;
            answer.send_reset(Reason::NO_ERROR);
        });
        let stream = pool.get().unwrap();
        let response = stream.send(post(Waiting)).await.unwrap();
        let body = response.into_body().collect().await.unwrap();
        assert_eq!(body.to_bytes(), "enough");
    })
    .await;
}

#[tokio::test]
async fn what_a_server_did_not_look_at_may_be_sent_again() {
    local(async {
        let Pair { pool, mut server } = Pair::plain().await;
        let stream = pool.get().unwrap();
        let refusing = async {
            let (_, mut respond) = server.accept().await.unwrap().unwrap();
            respond.send_reset(Reason::REFUSED_STREAM);
            server
        };
        let asking = stream.send(post(Full::new(Bytes::from_static(b"abc"))));
        let driven = async {
            let mut server = refusing.await;
            // It sends what it has, and reads on.
            spawn_local(async move { while server.accept().await.is_some() {} });
        };
        let (unanswered, ()) = tokio::join!(asking, driven);
        let unanswered = unanswered.unwrap_err();
        assert!(unanswered.error.is_unprocessed(), "{:?}", unanswered.error);
        let again = unanswered.unprocessed.unwrap();
        assert!(again.refused);
        assert_eq!(again.request.method(), Method::POST);
        assert_eq!(again.taken.unwrap(), "abc");
        assert!(again.request.body().is_end_stream());
    })
    .await;
}

/// One that does not know beforehand that it has ended.
#[tokio::test]
async fn an_empty_frame_at_the_end_is_nothing_that_was_lost() {
    local(async {
        let Pair { pool, mut server } = Pair::plain().await;
        let stream = pool.get().unwrap();
        let frames = ["abc", ""].map(|data| Ok::<_, Infallible>(Frame::data(Bytes::from(data))));
        let body = StreamBody::new(futures_util::stream::iter(frames));
        let asking = spawn_local(async move { stream.send(post(body)).await.map(drop) });
        let (request, mut respond) = server.accept().await.unwrap().unwrap();
        spawn_local(async move { while server.accept().await.is_some() {} });
        let mut body = request.into_body();
        while let Some(data) = body.data().await {
            data.unwrap();
        }
        respond.send_reset(Reason::REFUSED_STREAM);
        let unanswered = asking.await.unwrap().unwrap_err();
        assert_eq!(unanswered.unprocessed.unwrap().taken.unwrap(), "abc");
    })
    .await;
}

/// Has one frame, and another one once it is told to.
struct Told {
    first: Option<Bytes>,
    told: Rc<Cell<bool>>,
}

impl Body for Told {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(Ok(Frame::data(first))));
        }
        if self.told.get() {
            return Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"more")))));
        }
        Poll::Pending
    }
}

#[tokio::test]
async fn of_what_was_refused_no_more_is_taken() {
    local(async {
        let Pair { pool, mut server } = Pair::plain().await;
        let stream = pool.get().unwrap();
        let told = Rc::new(Cell::new(false));
        let body = Told {
            first: Some(Bytes::from_static(b"abc")),
            told: told.clone(),
        };
        let asking = spawn_local(async move { stream.send(post(body)).await.map(drop) });
        let (request, mut respond) = server.accept().await.unwrap().unwrap();
        spawn_local(async move { while server.accept().await.is_some() {} });
        assert_eq!(request.into_body().data().await.unwrap().unwrap(), "abc");
        // It has the next one when it is woken by the refusal.
        told.set(true);
        respond.send_reset(Reason::REFUSED_STREAM);
        let unanswered = asking.await.unwrap().unwrap_err();
        assert_eq!(unanswered.unprocessed.unwrap().taken.unwrap(), "abc");
    })
    .await;
}

#[tokio::test]
async fn an_answer_that_is_cut_off_is_not_whole_whatever_the_reason() {
    local(async {
        for reason in [Reason::NO_ERROR, Reason::CANCEL] {
            let Pair { pool, server } = Pair::plain().await;
            serve(server, move |(_request, mut respond)| async move {
                let mut answer = respond.send_response(ok(), false).unwrap();
                answer
                    .send_data(Bytes::from_static(b"half"), false)
                    .unwrap();
                tokio::task::yield_now().await;
                answer.send_reset(reason);
            });
            let stream = pool.get().unwrap();
            let response = stream.send(get::<Empty<Bytes>>()).await.unwrap();
            assert!(response.into_body().collect().await.is_err(), "{reason:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn readers_that_stall_delay_nobody_else() {
    local(async {
        let Pair { pool, server } = Pair::plain().await;
        serve(server, |(request, mut respond)| async move {
            if request.method() == Method::POST {
                respond.send_response(ok(), true).unwrap();
                return;
            }
            let mut answer = respond.send_response(ok(), false).unwrap();
            loop {
                answer.reserve_capacity(10);
                while answer.capacity() < 10 {
                    let room = std::future::poll_fn(|cx| answer.poll_capacity(cx)).await;
                    if !matches!(room, Some(Ok(_))) {
                        return;
                    }
                }
                answer
                    .send_data(Bytes::from_static(&[7; 10]), false)
                    .unwrap();
            }
        });
        let mut stalled = Vec::new();
        for _ in 0..4 {
            let stream = pool.get().unwrap();
            let response = stream.send(get::<Empty<Bytes>>()).await.unwrap();
            stalled.push((stream, response));
        }
        // Their windows fill meanwhile.
        for _ in 0..5_000 {
            let stream = pool.get().expect("the connection is still there");
            let response = stream.send(post(Empty::<Bytes>::new())).await;
            assert_eq!(response.unwrap().status(), StatusCode::OK);
        }
        let window = ClientSettings::default().stream_window_bytes as usize;
        for (_stream, response) in stalled {
            let mut body = response.into_body();
            let mut read = 0;
            while read < window {
                let frame = body.frame().await.unwrap().unwrap();
                read += frame.into_data().unwrap().len();
            }
        }
    })
    .await;
}

#[tokio::test]
async fn one_that_ends_after_a_long_stream_is_given_to_nobody() {
    local(async {
        let Pair { pool, mut server } = Pair::plain().await;
        let stream = pool.get().unwrap();
        let asking = spawn_local(async move { stream.send(post(Waiting)).await.map(drop) });
        let _long = server.accept().await.unwrap().unwrap();
        assert!(pool.get().is_some());
        server.graceful_shutdown();
        let served = spawn_local(async move { while server.accept().await.is_some() {} });
        // Nobody waits for anything but turns.
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        assert!(pool.get().is_none());
        assert!(!asking.is_finished() && !served.is_finished());
    })
    .await;
}

/// What was sent of it is not kept, however little the server looked at.
#[tokio::test]
async fn a_long_body_is_not_given_back() {
    local(async {
        let Pair { pool, mut server } = Pair::plain().await;
        let stream = pool.get().unwrap();
        let long = Full::new(Bytes::from(vec![0; (64 << 10) + 1]));
        let asking = spawn_local(async move { stream.send(post(long)).await.map(drop) });
        let (_, mut respond) = server.accept().await.unwrap().unwrap();
        respond.send_reset(Reason::REFUSED_STREAM);
        spawn_local(async move { while server.accept().await.is_some() {} });
        let unanswered = asking.await.unwrap().unwrap_err();
        assert!(unanswered.error.is_unprocessed(), "{:?}", unanswered.error);
        assert!(unanswered.unprocessed.is_none());
    })
    .await;
}

#[tokio::test]
async fn a_connection_that_the_server_ends_takes_no_more_and_gives_the_request_back() {
    local(async {
        let Pair { pool, mut server } = Pair::plain().await;
        let stream = pool.get().unwrap();
        server.graceful_shutdown();
        // It says so and asks whether that was heard; nobody has read it yet.
        std::future::poll_fn(|cx| Poll::Ready(server.poll_accept(cx).is_pending())).await;
        spawn_local(async move { while server.accept().await.is_some() {} });
        let body = Full::new(Bytes::from_static(b"abc"));
        let unanswered = stream.send(post(body)).await.unwrap_err();
        assert!(unanswered.error.is_unprocessed(), "{unanswered:?}");
        let unsent = unanswered.unprocessed.unwrap();
        assert!(!unsent.refused && unsent.taken.is_none());
        assert_eq!(unsent.request.method(), Method::POST);
        assert!(pool.get().is_none(), "nobody is given a place on it");
        assert_eq!(pool.sweep(1), 0);
    })
    .await;
}

/// It is heard after what could not know of it was sent, so that it takes that and nothing has to be sent again.
#[tokio::test]
async fn a_request_without_a_body_reaches_a_server_that_is_ending_unheard() {
    local(async {
        let Pair { pool, mut server } = Pair::plain().await;
        let stream = pool.get().unwrap();
        server.graceful_shutdown();
        std::future::poll_fn(|cx| Poll::Ready(server.poll_accept(cx).is_pending())).await;
        serve(server, |(_, mut respond)| async move {
            respond.send_response(ok(), true).unwrap();
        });
        let response = stream.send(get::<Empty<Bytes>>()).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        assert!(pool.get().is_none(), "nobody is given a place on it");
    })
    .await;
}

#[tokio::test]
async fn a_connection_ends_when_nobody_keeps_it() {
    local(async {
        let Pair { pool, mut server } = Pair::plain().await;
        assert_eq!((pool.sweep(1), pool.sweep(1)), (1, 0));
        assert!(server.accept().await.is_none());
    })
    .await;
}

#[tokio::test]
async fn a_connection_is_kept_for_as_many_sweeps_as_is_said() {
    local(async {
        let Pair { pool, server } = Pair::plain().await;
        assert_eq!([pool.sweep(2), pool.sweep(2)], [1, 1]);
        // Used, it is kept as long again.
        let stream = pool.get().unwrap();
        assert_eq!([pool.sweep(0), pool.sweep(0)], [1, 1]);
        drop(stream);
        assert_eq!([pool.sweep(2), pool.sweep(2), pool.sweep(2)], [1, 1, 0]);
        drop(server);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn who_is_silent_while_asked_is_given_up_and_who_rests_is_not() {
    local(async {
        let Pair { pool, server } = Pair::plain().await;
        // Nobody drives the server from here on.
        sleep(Duration::from_secs(600)).await;
        let stream = pool.get().unwrap();
        let began = Instant::now();
        let unanswered = stream.send(get::<Empty<Bytes>>()).await.unwrap_err();
        let after = began.elapsed().as_secs_f64();
        assert!(matches!(unanswered.error, Broken::Silent(timeout) if timeout.as_secs() == 5));
        assert!((15.0..=17.5).contains(&after), "{after} s");
        assert!(pool.get().is_none());
        drop(server);
    })
    .await;
}

/// Whether the server had it nobody knows: it is for the caller to say whether it may be sent twice.
#[tokio::test]
async fn a_connection_that_dies_unheard_gives_back_what_has_no_body() {
    for (method, body, given_back) in [
        (Method::GET, "", true),
        (Method::POST, "", true),
        (Method::POST, "abc", false),
    ] {
        local(async move {
            let (pool, mut server) = Raw::connect().await;
            let stream = pool.get().unwrap();
            let mut request = post(Full::new(Bytes::from_static(body.as_bytes())));
            *request.method_mut() = method.clone();
            let asking = spawn_local(async move { stream.send(request).await.map(drop) });
            server.headers().await;
            drop(server);
            let unanswered = asking.await.unwrap().unwrap_err();
            assert!(unanswered.unprocessed.is_none(), "{unanswered:?}");
            assert_eq!(unanswered.unheard.is_some(), given_back, "{method} {body}");
            if let Some(request) = unanswered.unheard {
                assert_eq!((request.method(), request.uri().path()), (&method, "/"));
            }
            assert!(pool.get().is_none(), "nobody is given a place on it");
        })
        .await;
    }
}

#[tokio::test]
async fn what_a_connection_that_was_heard_of_dies_of_is_not_given_back() {
    local(async {
        let (pool, mut server) = Raw::connect().await;
        let stream = pool.get().unwrap();
        let asking = spawn_local(async move { stream.send(get::<Empty<Bytes>>()).await.map(drop) });
        server.headers().await;
        // PING, which says that the server was alive after the request came.
        server
            .0
            .write_all(&[0, 0, 8, 6, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8])
            .await
            .unwrap();
        drop(server);
        let unanswered = asking.await.unwrap().unwrap_err();
        assert!(unanswered.unheard.is_none(), "{unanswered:?}");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn who_rests_is_given_up_as_well_where_that_is_asked_for() {
    local(async {
        let mut settings = ClientSettings::default();
        settings.keep_alive_while_idle = true;
        let Pair { pool, server } = Pair::new(settings, &server::Builder::new()).await;
        // Nobody drives the server from here on.
        sleep(Duration::from_secs(18)).await;
        assert!(pool.get().is_none());
        drop(server);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn who_takes_long_and_answers_pings_is_waited_for() {
    local(async {
        let Pair { pool, server } = Pair::plain().await;
        serve(server, |(_, mut respond)| async move {
            sleep(Duration::from_secs(300)).await;
            respond.send_response(ok(), true).unwrap();
        });
        let stream = pool.get().unwrap();
        let response = stream.send(get::<Empty<Bytes>>()).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn windows_follow_what_comes_in_where_they_may() {
    for (adaptive_window, grows) in [(true, true), (false, false)] {
        local(async move {
            let mut settings = ClientSettings::default();
            settings.adaptive_window = adaptive_window;
            settings.stream_window_bytes = 65_535;
            let Pair { pool, server } = Pair::new(settings, &server::Builder::new()).await;
            serve(server, move |(_, mut respond)| async move {
                let mut answer = respond.send_response(ok(), false).unwrap();
                let mut room = 0;
                for _ in 0..200 {
                    answer.reserve_capacity(1 << 20);
                    while answer.capacity() == 0 {
                        std::future::poll_fn(|cx| answer.poll_capacity(cx)).await;
                    }
                    room = room.max(answer.capacity());
                    let bytes = vec![0; answer.capacity()];
                    answer.send_data(bytes.into(), false).unwrap();
                    sleep(Duration::from_millis(10)).await;
                }
                assert_eq!(room > 65_535, grows, "{room}");
                answer.send_data(Bytes::new(), true).unwrap();
            });
            let stream = pool.get().unwrap();
            let mut body = stream
                .send(get::<Empty<Bytes>>())
                .await
                .unwrap()
                .into_body();
            while let Some(frame) = body.frame().await {
                frame.unwrap();
            }
        })
        .await;
    }
}

#[tokio::test]
async fn a_tunnel_carries_bytes_both_ways_and_each_way_ends_on_its_own() {
    local(async {
        let mut builder = server::Builder::new();
        builder.enable_connect_protocol();
        let Pair { pool, server } = Pair::new(ClientSettings::default(), &builder).await;
        serve(server, |(request, mut respond)| async move {
            let protocol = request.extensions().get::<h2::ext::Protocol>().unwrap();
            assert_eq!(protocol.as_str(), "websocket");
            let mut answer = respond.send_response(ok(), false).unwrap();
            let mut body = request.into_body();
            while let Some(data) = body.data().await {
                let data = data.unwrap();
                body.flow_control().release_capacity(data.len()).unwrap();
                answer.send_data(data, false).unwrap();
            }
            answer.send_data(Bytes::from_static(b"bye"), true).unwrap();
        });
        let stream = pool.get().unwrap();
        assert!(stream.permits_extended_connect().await);
        let mut request = Request::new(Empty::<Bytes>::new());
        *request.method_mut() = Method::CONNECT;
        *request.uri_mut() = "http://web/chat".parse().unwrap();
        let protocol = h2::ext::Protocol::from_static("websocket");
        request.extensions_mut().insert(protocol);
        let response = stream.send(request).await.unwrap();
        let mut body = mesh_http::Incoming::Http2(response.into_body());
        let tunnel = body.take_tunnel().unwrap();
        assert!(body.is_end_stream() && body.take_tunnel().is_none());
        let (mut reading, mut writing) = tokio::io::split(tunnel);
        let sent = vec![9; 500_000];
        let expected = sent.clone();
        spawn_local(async move {
            writing.write_all(&sent).await.unwrap();
            writing.shutdown().await.unwrap();
        });
        let mut read = Vec::new();
        reading.read_to_end(&mut read).await.unwrap();
        assert!(read.starts_with(&expected) && read.ends_with(b"bye"));
        assert_eq!(read.len(), 500_003);
    })
    .await;
}
