//! Killed at any moment, a controller starts again with its anchor, its tokens and its address.

// Functions beside the tests may panic as the tests do.
#![allow(clippy::unwrap_used)]

mod support;

use std::time::Duration;

use linkerd2_proxy_api::destination::{GetDestination, destination_client::DestinationClient};
use mesh_control_api::admin::ListTokensRequest;
use support::{Controller, DAY, certify, identity, service, within};

#[tokio::test]
async fn anchor_tokens_and_address_survive_a_kill() {
    let mut controller = Controller::start(&[("web.yaml", &service("web", ""))], &[]).await;
    let before = controller.announcement().clone();
    let anchors = support::read(&controller.data().join("anchors.pem"));
    let web = identity("web");
    let (token, id) = controller.token(&web, DAY).await;
    certify(controller.proxy_api(), &web, &token).await.unwrap();

    controller.kill();
    assert!(
        controller.data().join("admin.sock").exists(),
        "it was killed"
    );
    controller.restart().await;

    assert_eq!(
        support::read(&controller.data().join("anchors.pem")),
        anchors
    );
    let after = controller.announcement();
    assert_eq!((after.grpc, after.admin), (before.grpc, before.admin));
    assert_ne!(after.pid, before.pid);
    certify(controller.proxy_api(), &web, &token).await.unwrap();
    let mut tokens = controller
        .admin()
        .await
        .list_tokens(ListTokensRequest {})
        .await
        .unwrap()
        .into_inner();
    assert_eq!(tokens.message().await.unwrap().unwrap().id, id);
}

#[tokio::test]
async fn killed_while_it_makes_its_anchor_it_starts_all_the_same() {
    let mut controller = Controller::start(&[], &[]).await;
    controller.kill();
    for millis in [1, 5, 10, 15, 20, 30, 50, 80] {
        std::fs::remove_dir_all(controller.data()).unwrap();
        let mut killed = controller
            .command()
            .args(["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"])
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        // Any moment will do; a slower machine is killed earlier in its start.
        tokio::time::sleep(Duration::from_millis(millis)).await;
        killed.kill().unwrap();
        killed.wait().unwrap();
        controller.restart().await;
        assert_eq!(controller.get("/ready").await.0, 200, "{millis} ms");
        controller.kill();
    }
}

#[tokio::test]
async fn a_second_controller_on_the_same_data_is_refused() {
    let controller = Controller::start(&[], &[]).await;
    let mut second = controller.command();
    second.args(["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
    let output = support::run(second);
    assert_eq!(output.status.code(), Some(4));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("in use by another process"), "{said}");
    assert_eq!(controller.get("/ready").await.0, 200);
}

#[tokio::test]
async fn asked_to_stop_it_stops_soon_whoever_watches() {
    let mut controller = Controller::start(&[("web.yaml", &service("web", ""))], &[]).await;
    let request = GetDestination {
        path: "web.default:80".into(),
        ..GetDestination::default()
    };
    let mut client = DestinationClient::new(controller.proxy_api());
    let mut stream = within(client.get(request)).await.unwrap().into_inner();
    within(stream.message()).await.unwrap().unwrap();
    let status = tokio::time::timeout(Duration::from_secs(5), controller.terminate())
        .await
        .unwrap();
    assert_eq!(status.code(), Some(0));
    assert!(!controller.data().join("admin.sock").exists());
    // The stream ends, with an error or without.
    let _ = within(stream.message()).await;
}
