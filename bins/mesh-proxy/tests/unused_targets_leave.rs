//! Targets are bounded, and leave when nobody has used them for a while.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod controller;

use controller::messages::balanced;
use controller::{Controller, addr, authority, soon, until};
use mesh_proxy::control::Error;

#[tokio::test]
async fn a_held_target_stays_and_an_unheld_one_leaves() {
    let mut controller = Controller::start();
    let (control, _) = controller.follow("control.idle_timeout = \"40ms\"");
    let (watched, feed) = tokio::join!(control.outbound(authority("web:80")), async {
        let feed = controller.policies.next().await.accept();
        feed.send(balanced("web", "web:80")).await;
        feed
    });
    let watched = watched.unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    assert_eq!(control.watches(), (1, 0), "held, however idle");

    drop(watched);
    soon("the stream's end", feed.abandoned()).await;
    until("leaving", || control.watches() == (0, 0)).await;
}

#[tokio::test]
async fn ports_and_targets_may_be_kept_for_times_of_their_own() {
    let mut controller = Controller::start();
    let times = "outbound.idle_timeout = \"40ms\"\ninbound.idle_timeout = \"1h\"\ncontrol.idle_timeout = \"1h\"";
    let (control, _) = controller.follow(times);
    let (watched, _feed) = tokio::join!(control.outbound(authority("web:80")), async {
        let feed = controller.policies.next().await.accept();
        feed.send(balanced("web", "web:80")).await;
        feed
    });
    let (port, ()) = tokio::join!(control.inbound(80), async {
        let call = controller.ports.next().await;
        call.refuse(tonic::Code::NotFound);
    });
    drop((watched, port));
    until("the target's leaving", || control.watches() == (0, 1)).await;
}

#[tokio::test]
async fn too_many_targets_is_an_error_that_says_so() {
    let mut controller = Controller::start();
    let (control, _) = controller.follow("control.max_targets = 1");
    let (held, feed) = tokio::join!(control.outbound(addr("10.0.0.1:80")), async {
        let feed = controller.policies.next().await.accept();
        feed.send(balanced("web", "web:80")).await;
        feed
    });
    let held = held.unwrap();
    let error = control.outbound(addr("10.0.0.2:80")).await.unwrap_err();
    assert_eq!(
        error,
        Error::TooManyTargets {
            target: addr("10.0.0.2:80"),
            limit: 1
        }
    );
    assert!(control.outbound(addr("10.0.0.1:80")).await.is_ok());
    drop((held, feed));
}

#[tokio::test]
async fn a_wrong_policy_is_refused_and_the_last_one_stays() {
    let mut controller = Controller::start();
    let (control, metrics) = controller.follow("");
    let (watched, feed) = tokio::join!(control.outbound(authority("web:80")), async {
        let feed = controller.policies.next().await.accept();
        feed.send(balanced("web", "web:80")).await;
        feed
    });
    let watched = watched.unwrap();
    feed.send(linkerd2_proxy_api::outbound::OutboundPolicy {
        protocol: None,
        ..balanced("worse", "web:80")
    })
    .await;
    let invalid = r#"control_invalid_messages_total{api="outbound_policy"} 1"#;
    until("the refusal", || metrics.render().contains(invalid)).await;
    assert_eq!(watched.load().meta.name(), "web");
    feed.send(balanced("better", "web:80")).await;
    until("the next", || watched.load().meta.name() == "better").await;
}
