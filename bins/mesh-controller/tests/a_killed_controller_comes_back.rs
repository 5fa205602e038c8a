//! Killed at any moment, a controller starts again with its anchor, its tokens and its address.

// Functions beside the tests may panic as the tests do.
#![allow(clippy::unwrap_used)]

mod support;

use std::time::{Duration, Instant};

use linkerd2_proxy_api::destination::{GetDestination, destination_client::DestinationClient};
use mesh_control_api::admin::{
    ChangeTrustRequest, GetTrustRequest, ListTokensRequest, RotateTrust, Trust, TrustPhase,
    change_trust_request, trust_phase,
};
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

#[tokio::test]
async fn killed_again_and_again_in_a_rotation_it_ends_in_the_same_place() {
    let mesh = "apiVersion: mesh-rs.io/v1alpha1\nkind: MeshConfig\nmetadata: {name: mesh}\nspec: {leafLifetime: 10s}\n";
    let mut controller = Controller::start(&[("mesh.yaml", mesh)], &[]).await;
    let before = trust(&controller).await;
    let word = change_trust_request::Word::Rotate(RotateTrust { issuer_only: false });
    let rotate = ChangeTrustRequest { word: Some(word) };
    controller.admin().await.change_trust(rotate).await.unwrap();
    let (mut kills, mut phases) = (0, Vec::new());
    let began = Instant::now();
    let after = loop {
        let now = trust(&controller).await;
        let Some(change) = now.change else { break now };
        let present = |phase: &&TrustPhase| phase.state() == trust_phase::State::Now;
        phases.extend(
            change
                .phases
                .iter()
                .find(present)
                .map(|phase| phase.name.clone()),
        );
        // Moments of all kinds: from at once to after a second.
        tokio::time::sleep(Duration::from_millis(kills * 137 % 1000)).await;
        controller.kill();
        controller.restart().await;
        kills += 1;
        assert!(began.elapsed() < Duration::from_secs(180), "{phases:?}");
    };
    phases.dedup();
    println!("killed -9 {kills} times in a rotation, in {phases:?}; it completed");
    assert!(kills > 5, "{kills}");
    assert_eq!(after.last_outcome, "completed");
    let in_use = |trust: &Trust| -> Vec<String> {
        let anchors = trust.anchors.iter();
        let in_use = anchors.filter(|anchor| anchor.state == "in use");
        in_use.map(|anchor| anchor.id.clone()).collect()
    };
    assert_ne!(in_use(&after), in_use(&before));
    // The old key goes with the last action, after the change has ended.
    let mut left = after;
    while left.anchors.len() > 1 && began.elapsed() < Duration::from_secs(200) {
        tokio::time::sleep(Duration::from_millis(100)).await;
        left = trust(&controller).await;
    }
    assert_eq!((left.anchors.len(), left.issuers.len()), (1, 1));
}

async fn trust(controller: &Controller) -> Trust {
    let answer = controller.admin().await.get_trust(GetTrustRequest {}).await;
    answer.unwrap().into_inner()
}
