//! HTTP/2 and gRPC pass as streams: nothing waits for an end, trailers arrive, a cancelled call ends everywhere.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use tokio::sync::{Notify, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status, Streaming};
use tonic_prost::ProstCodec;
use tower::service_fn;

use crate::controller::soon;
use crate::h2;
use crate::mesh::Mesh;
use crate::policy;

type Out = std::pin::Pin<Box<dyn Stream<Item = Result<String, Status>> + Send>>;

fn codec() -> ProstCodec<String, String> {
    ProstCodec::default()
}

/// The four kinds of call, and one that fails at once.
pub async fn grpc_app(address: SocketAddr) -> h2::App {
    h2::app(address, |request| async move {
        let mut grpc = tonic::server::Grpc::new(codec());
        let response = match request.uri().path() {
            "/test.Echo/Unary" => {
                let call = |request: tonic::Request<String>| async move {
                    let mut response = tonic::Response::new(format!("<{}>", request.get_ref()));
                    if let Some(id) = request.metadata().get("l5d-client-id") {
                        response.metadata_mut().insert("seen-id", id.clone());
                    }
                    Ok::<_, Status>(response)
                };
                grpc.unary(service_fn(call), request).await
            }
            "/test.Echo/ServerStreaming" => {
                let call = |request: tonic::Request<String>| async move {
                    let items: Vec<_> = request
                        .into_inner()
                        .chars()
                        .map(|c| Ok(c.to_string()))
                        .collect();
                    Ok::<_, Status>(tonic::Response::new(
                        Box::pin(tokio_stream::iter(items)) as Out
                    ))
                };
                grpc.server_streaming(service_fn(call), request).await
            }
            "/test.Echo/ClientStreaming" => {
                let call = |request: tonic::Request<Streaming<String>>| async move {
                    let all: Vec<_> = request.into_inner().collect::<Result<_, _>>().await?;
                    Ok::<_, Status>(tonic::Response::new(all.join("+")))
                };
                grpc.client_streaming(service_fn(call), request).await
            }
            "/test.Echo/Bidi" => {
                let call = |request: tonic::Request<Streaming<String>>| async move {
                    let answers = request
                        .into_inner()
                        .map(|item| item.map(|item| format!("<{item}>")));
                    Ok::<_, Status>(tonic::Response::new(Box::pin(answers) as Out))
                };
                grpc.streaming(service_fn(call), request).await
            }
            "/test.Echo/Late" => {
                let call = |_: tonic::Request<String>| async move {
                    let items = vec![Ok("one".to_owned()), Err(Status::data_loss("after one"))];
                    Ok::<_, Status>(tonic::Response::new(
                        Box::pin(tokio_stream::iter(items)) as Out
                    ))
                };
                grpc.server_streaming(service_fn(call), request).await
            }
            _ => {
                let call = |_: tonic::Request<String>| async move {
                    Err::<tonic::Response<String>, _>(Status::not_found("no such thing"))
                };
                grpc.unary(service_fn(call), request).await
            }
        };
        response.map(|body| body.map_err(Into::into).boxed_unsync())
    })
    .await
}

pub async fn client(address: SocketAddr) -> tonic::client::Grpc<Channel> {
    let channel = Endpoint::from_shared(format!("http://{address}"))
        .unwrap()
        .connect()
        .await
        .unwrap();
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.unwrap();
    client
}

fn path(method: &str) -> http::uri::PathAndQuery {
    format!("/test.Echo/{method}").parse().unwrap()
}

pub async fn unary(
    client: &mut tonic::client::Grpc<Channel>,
    method: &str,
) -> Result<tonic::Response<String>, Status> {
    client.ready().await.unwrap();
    let call = client.unary(tonic::Request::new("hi".to_owned()), path(method), codec());
    soon("the call", call).await
}

#[tokio::test(flavor = "multi_thread")]
async fn all_four_kinds_of_call_pass_with_their_status() {
    let mesh = Mesh::start();
    let (proxy, server) = mesh.both().await;
    let _app = grpc_app(mesh.net.app()).await;
    let mut client = client(mesh.net.web()).await;

    let response = unary(&mut client, "Unary").await.unwrap();
    assert_eq!(response.get_ref(), "<hi>");
    assert_eq!(response.metadata().get("seen-id").unwrap(), "client.test");

    client.ready().await.unwrap();
    let call = client.server_streaming(
        tonic::Request::new("abc".to_owned()),
        path("ServerStreaming"),
        codec(),
    );
    let items: Vec<String> = soon("items", async {
        call.await
            .unwrap()
            .into_inner()
            .collect::<Result<_, _>>()
            .await
    })
    .await
    .unwrap();
    assert_eq!(items, ["a", "b", "c"]);

    client.ready().await.unwrap();
    let items = tokio_stream::iter(["a".to_owned(), "b".to_owned()]);
    let call =
        client.client_streaming(tonic::Request::new(items), path("ClientStreaming"), codec());
    assert_eq!(soon("a sum", call).await.unwrap().into_inner(), "a+b");

    client.ready().await.unwrap();
    let (items, receiver) = mpsc::channel(1);
    let call = client.streaming(
        tonic::Request::new(ReceiverStream::new(receiver)),
        path("Bidi"),
        codec(),
    );
    let mut answers = soon("answers", call).await.unwrap().into_inner();
    for n in 0..10 {
        // Each answer comes before the next item is sent: nothing is held back.
        items.send(n.to_string()).await.unwrap();
        assert_eq!(
            soon("an answer", answers.next()).await.unwrap().unwrap(),
            format!("<{n}>")
        );
    }
    drop(items);
    assert!(soon("the end", answers.next()).await.is_none());

    let failed = unary(&mut client, "Missing").await.unwrap_err();
    assert_eq!(
        (failed.code(), failed.message()),
        (Code::NotFound, "no such thing")
    );
    client.ready().await.unwrap();
    let call = client.server_streaming(tonic::Request::new(String::new()), path("Late"), codec());
    let mut items = soon("items", call).await.unwrap().into_inner();
    assert_eq!(soon("an item", items.next()).await.unwrap().unwrap(), "one");
    let failed = soon("the failure", items.next())
        .await
        .unwrap()
        .unwrap_err();
    assert_eq!(
        (failed.code(), failed.message()),
        (Code::DataLoss, "after one")
    );

    for (proxy, family) in [
        (&proxy, "outbound_grpc_route_statuses_total"),
        (&server, "inbound_grpc_statuses_total"),
    ] {
        for (code, count) in [("OK", 4.0), ("NOT_FOUND", 1.0), ("DATA_LOSS", 1.0)] {
            proxy
                .metric_becomes(family, &[&format!("grpc_status=\"{code}\"")], count)
                .await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_request_ends_at_the_application_too() {
    let mesh = Mesh::start();
    let (client, server) = mesh.both().await;
    let gone = Arc::new(Notify::new());
    let begun = Arc::new(Notify::new());
    struct Gone(Arc<Notify>);
    impl Drop for Gone {
        fn drop(&mut self) {
            self.0.notify_one();
        }
    }
    let (tell_gone, tell_begun) = (gone.clone(), begun.clone());
    let _app = h2::app(mesh.net.app(), move |_| {
        let gone = Gone(tell_gone.clone());
        tell_begun.notify_one();
        async move {
            std::future::pending::<()>().await;
            drop(gone);
            unreachable!()
        }
    })
    .await;
    let (mut sender, _connection) = h2::connect(mesh.net.web()).await;
    let request = Request::get("http://web.test/").body(h2::full("")).unwrap();
    let call = tokio::spawn(sender.send_request(request));
    soon("the request", begun.notified()).await;
    call.abort();
    soon("the cancellation", gone.notified()).await;
    for (proxy, direction) in [(&client, "outbound_http_route"), (&server, "inbound_http")] {
        proxy
            .metric_becomes(&format!("{direction}_requests_active"), &[], 0.0)
            .await;
        proxy
            .metric_becomes(&format!("{direction}_failures_total"), &["canceled"], 1.0)
            .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_http_1_client_that_leaves_cancels_its_request() {
    let mesh = Mesh::start();
    let (client, server) = mesh.both().await;
    let (tell, mut told) = mpsc::unbounded_channel();
    let _app = crate::wire::app(mesh.net.app(), move |mut wire| {
        let tell = tell.clone();
        async move {
            wire.request().await.unwrap();
            tell.send("asked").unwrap();
            assert!(wire.ends_within(Duration::from_secs(10)).await);
            tell.send("left").unwrap();
        }
    })
    .await;
    let mut wire = crate::wire::Wire::connect(mesh.net.web()).await;
    wire.send("GET /slow HTTP/1.1\r\nhost: web.test\r\n\r\n")
        .await;
    assert_eq!(soon("the request", told.recv()).await, Some("asked"));
    drop(wire);
    assert_eq!(soon("the cancellation", told.recv()).await, Some("left"));
    for (proxy, direction) in [(&client, "outbound_http_route"), (&server, "inbound_http")] {
        proxy
            .metric_becomes(&format!("{direction}_requests_active"), &[], 0.0)
            .await;
        proxy
            .metric_becomes(&format!("{direction}_failures_total"), &["canceled"], 1.0)
            .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn both_directions_of_a_stream_run_at_once() {
    let mesh = Mesh::start();
    let _proxies = mesh.both().await;
    let _app = h2::app(mesh.net.app(), |request| async move {
        assert_eq!(request.version(), http::Version::HTTP_2);
        http::Response::new(request.into_body().map_err(Into::into).boxed_unsync())
    })
    .await;
    let (mut sender, _connection) = h2::connect(mesh.net.web()).await;
    let (frames, receiver) = mpsc::channel::<Result<Frame<Bytes>, _>>(1);
    let body = StreamBody::new(ReceiverStream::new(receiver)).boxed_unsync();
    let request = Request::post("http://web.test/").body(body).unwrap();
    let mut response = soon(
        "a response before the request ends",
        sender.send_request(request),
    )
    .await
    .unwrap()
    .into_body();
    for n in 0u8..10 {
        frames
            .send(Ok(Frame::data(Bytes::from(vec![n; 3]))))
            .await
            .unwrap();
        let frame = soon("a frame", response.frame()).await.unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), vec![n; 3]);
    }
    drop(frames);
    // The end may be a frame of its own, without bytes.
    while let Some(frame) = soon("the end", response.frame()).await {
        assert!(frame.unwrap().into_data().unwrap().is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn more_long_streams_than_a_server_takes_on_one_connection_all_begin() {
    let mesh = Mesh::start();
    let _client = mesh.client("limits.workers = 1").await;
    mesh.says
        .endpoints("web.test:80", vec![policy::plain(mesh.net.plain(0))]);
    // hyper's server takes 200 streams on a connection.
    let _app = h2::app(mesh.net.plain(0), |request| async move {
        http::Response::new(request.into_body().map_err(Into::into).boxed_unsync())
    })
    .await;
    let (sender, _connection) = h2::connect(mesh.net.web()).await;
    let mut open = Vec::new();
    for n in 0..250 {
        let (frames, receiver) = mpsc::channel::<Result<Frame<Bytes>, _>>(1);
        let body = StreamBody::new(ReceiverStream::new(receiver)).boxed_unsync();
        let request = Request::post("http://web.test/").body(body).unwrap();
        let response = soon(&format!("stream {n}"), sender.clone().send_request(request))
            .await
            .unwrap();
        open.push((frames, response));
    }
}
