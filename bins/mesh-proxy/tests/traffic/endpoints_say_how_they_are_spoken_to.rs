//! An endpoint is spoken to as the controller says: with its HTTP/2 parameters, and by its authority.

use std::time::Duration;

use linkerd2_proxy_api::destination::http2_client_params::{FlowControl, Internals, KeepAlive};
use linkerd2_proxy_api::destination::protocol_hint::{H2, Protocol};
use linkerd2_proxy_api::destination::{
    AuthorityOverride, Http2ClientParams, ProtocolHint, WeightedAddr,
};
use tokio::sync::mpsc;

use crate::controller::soon;
use crate::mesh::Mesh;
use crate::policy;
use crate::wire::{Wire, app, ask, mirror};

#[tokio::test(flavor = "multi_thread")]
async fn windows_frames_and_pings() {
    let mesh = Mesh::start();
    let params = Http2ClientParams {
        flow_control: Some(FlowControl {
            initial_connection_window_size: 100_000,
            initial_stream_window_size: 70_000,
            adaptive_flow_control: false,
        }),
        keep_alive: Some(KeepAlive {
            interval: policy::duration(Duration::from_millis(100)),
            timeout: policy::duration(Duration::from_secs(20)),
            while_idle: true,
        }),
        internals: Some(Internals {
            max_frame_size: 20_000,
            max_concurrent_reset_streams: 7,
            max_send_buf_size: 50_000,
        }),
    };
    let endpoint = WeightedAddr {
        protocol_hint: Some(ProtocolHint {
            protocol: Some(Protocol::H2(H2 {})),
            opaque_transport: None,
        }),
        http2: Some(params),
        ..policy::plain(mesh.net.plain(0))
    };
    mesh.says.endpoints("web.test:80", vec![endpoint]);
    let (frames, mut seen) = mpsc::unbounded_channel();
    let _app = app(mesh.net.plain(0), move |mut wire| {
        let frames = frames.clone();
        async move {
            wire.exactly(24).await;
            // An empty SETTINGS, and the acknowledgement of the client's.
            wire.send([0, 0, 0, 4, 0, 0, 0, 0, 0]).await;
            wire.send([0, 0, 0, 4, 1, 0, 0, 0, 0]).await;
            while let Some(frame) = wire.frame().await {
                if frames.send(frame).is_err() {
                    return;
                }
            }
        }
    })
    .await;
    let client = mesh.client("").await;
    let mut wire = Wire::connect(mesh.net.web()).await;
    wire.send("GET / HTTP/1.1\r\nhost: web.test\r\n\r\n").await;

    let mut next = async |kind| loop {
        let (found, payload) = soon("a frame", seen.recv()).await.unwrap();
        if found == kind {
            return payload;
        }
    };
    let settings = next(4).await;
    let settings: Vec<_> = settings
        .chunks(6)
        .map(|setting| {
            (
                setting[1],
                u32::from_be_bytes(setting[2..].try_into().unwrap()),
            )
        })
        .collect();
    // SETTINGS_INITIAL_WINDOW_SIZE and SETTINGS_MAX_FRAME_SIZE (RFC 9113, section 6.5.2).
    assert!(settings.contains(&(4, 70_000)), "{settings:?}");
    assert!(settings.contains(&(5, 20_000)), "{settings:?}");
    // WINDOW_UPDATE of the connection, from the 65,535 that it begins with.
    assert_eq!(next(8).await, (100_000_u32 - 65_535).to_be_bytes());
    // PING.
    assert_eq!(next(6).await.len(), 8);
    client
        .until("/config", |text| !text.contains("WeightedAddr.http2"))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_may_have_an_authority_of_its_own() {
    let mesh = Mesh::start();
    let own = WeightedAddr {
        authority_override: Some(AuthorityOverride {
            authority_override: "own.test:81".to_owned(),
        }),
        ..policy::plain(mesh.net.plain(0))
    };
    mesh.says.endpoints("web.test:80", vec![own]);
    let _app = mirror(mesh.net.plain(0)).await;
    let _client = mesh.client("").await;
    let seen = ask(mesh.net.web(), "GET / HTTP/1.1\r\nhost: web.test\r\n\r\n").await;
    let body = seen.body_text();
    assert!(body.contains("host: own.test:81\n"), "{body}");
}
