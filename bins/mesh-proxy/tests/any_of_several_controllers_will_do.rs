//! A proxy that is told of several controllers follows one of them, and goes on with another when that one is gone, hangs, or was
//! never there. What it knows stays meanwhile.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod controller;

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use controller::messages::balanced;
use controller::{Controller, authority, soon, until};
use mesh_metrics::Metrics;
use mesh_proxy::config::Config;
use mesh_proxy::control::channel::{self, Security};
use mesh_proxy::control::{Control, Watched};
use mesh_proxy::model::Outbound;
use tokio::runtime::Handle;

const PATH: &str = "web.default.svc.cluster.local:80";

/// The control side of a proxy that knows these.
fn follow(addresses: &[SocketAddr]) -> Control {
    let addresses: Vec<_> = addresses.iter().map(|one| format!("\"{one}\"")).collect();
    let settings = format!(
        r#"
        control.keepalive_interval = "100ms"
        control.keepalive_timeout = "300ms"
        control.destination_address = [{0}]
        control.policy_address = [{0}]
        "#,
        addresses.join(", ")
    );
    let config: Arc<Config> = Arc::new(controller::config(([127, 0, 0, 1], 1).into(), &settings));
    let known = config.controllers.policy.address.clone();
    assert_eq!(known.all().len(), addresses.len());
    let channel = channel::open(&config.control, known, Security::Plaintext).unwrap();
    let metrics = Metrics::proxy("test");
    Control::new(Handle::current(), channel, config, &metrics.families)
}

/// An address at which connections are taken and nothing is said.
fn silent() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").unwrap()
}

/// An address at which nobody listens: below the ports that are given to whoever asks for any.
fn nobody() -> SocketAddr {
    "127.0.0.1:9".parse().unwrap()
}

#[tokio::test]
async fn one_that_is_gone_is_left_for_the_next_and_nothing_is_lost() {
    let mut all = [
        Controller::start(),
        Controller::start(),
        Controller::start(),
    ];
    let silent = silent();
    let mut addresses: Vec<_> = all.iter().map(|one| one.address).collect();
    addresses.extend([nobody(), silent.local_addr().unwrap()]);
    let control = follow(&addresses);
    let watched =
        tokio::spawn(async move { (control.outbound(authority("web:80")).await, control) });
    let mut watched = Some(watched);
    let (mut held, mut followed) = (None, Vec::new());
    for number in 0..3 {
        // Whichever it is that is asked.
        let [one, two, three] = &mut all;
        let next = async {
            tokio::select! {
                call = one.policies.next() => (0, call),
                call = two.policies.next() => (1, call),
                call = three.policies.next() => (2, call),
            }
        };
        let (at, call) = soon("a controller", next).await;
        assert!(!followed.contains(&at), "{at} is gone");
        followed.push(at);
        let feed = call.accept();
        feed.send(balanced(&format!("web-{number}"), PATH)).await;
        if let Some(first) = watched.take() {
            let (policy, control) = first.await.unwrap();
            held = Some((policy.unwrap(), control));
        }
        let (policy, _control) = held.as_ref().unwrap();
        until("what it says is in force", || says(policy, number)).await;
        if number < 2 {
            // Its process ends; another is at none of its ports.
            let gone = std::mem::replace(&mut all[at], Controller::start());
            drop((gone, feed));
            assert!(says(policy, number), "what was known stays");
        }
    }
    println!("followed in turn: {followed:?}");
    drop(silent);
}

/// Whether the policy in force is that of this controller.
fn says(policy: &Watched<Outbound>, number: usize) -> bool {
    let backend = format!("{:?}", controller::backend(&policy.load()));
    backend.contains(&format!("web-{number}"))
}

#[tokio::test]
async fn one_that_takes_connections_and_says_nothing_is_left_for_the_next() {
    let silent = silent();
    silent.set_nonblocking(true).unwrap();
    let mut tried = Vec::new();
    // Which one is asked first is random.
    for _ in 0..100 {
        let mut live = Controller::start();
        let control = follow(&[silent.local_addr().unwrap(), live.address]);
        let watched =
            tokio::spawn(async move { (control.outbound(authority("web:80")).await, control) });
        let call = soon("the one that answers", live.policies.next()).await;
        let feed = call.accept();
        feed.send(balanced("web-0", PATH)).await;
        let (policy, _control) = soon("a policy", watched).await.unwrap();
        assert!(says(&policy.unwrap(), 0));
        if let Ok(taken) = silent.accept() {
            tried.push(taken);
            break;
        }
    }
    assert!(!tried.is_empty(), "the silent one was never asked");
}
