//! A bundle or a leaf is replaced while connections live: they go on, and every new handshake uses the
//! new material.

#![allow(clippy::unwrap_used)]

mod support;

use std::sync::Arc;

use mesh_tls::{ClientAuth, Error};
use support::{
    DAY, Workload, anchor, authority_of, bundle, connected, handshake, ping_pong, shop, t0, web,
};

#[tokio::test]
async fn a_connection_outlives_the_leaf_it_was_made_with() {
    let authority = authority_of(&anchor());
    let (web, shop) = (
        Workload::new(web(), &authority),
        Workload::new(shop(), &authority),
    );
    let server = web.tls.server(&[], ClientAuth::Required);
    let client = shop.tls.client(&[]);
    let (mut server_stream, _, mut client_stream) =
        connected(&server, &client, &web.identity).await;
    let first = leaf(&client_stream);

    web.certify(&authority);
    shop.certify(&authority);
    ping_pong(&mut server_stream, &mut client_stream).await;
    assert_eq!(leaf(&client_stream), first);

    let (_server_stream, _, renewed) = connected(&server, &client, &web.identity).await;
    assert_ne!(
        leaf(&renewed),
        first,
        "a new handshake presents the new leaf"
    );

    // Long after the first leaves expired, the first connection still carries data.
    for workload in [&web, &shop] {
        workload.clock.set(t0() + 2 * DAY);
    }
    let (_, result) = handshake(&server, &client, &web.identity).await;
    assert!(matches!(result, Err(Error::Expired { .. })), "{result:?}");
    ping_pong(&mut server_stream, &mut client_stream).await;
}

#[tokio::test]
async fn a_removed_anchor_is_refused_at_the_next_handshake() {
    let (old, new) = (anchor(), anchor());
    let (old_authority, new_authority) = (authority_of(&old), authority_of(&new));
    let web = Workload::new(web(), &old_authority);
    let shop = Workload::new(shop(), &old_authority);
    let server = web.tls.server(&[], ClientAuth::Required);
    let client = shop.tls.client(&[]);
    let (mut server_stream, _, mut client_stream) =
        connected(&server, &client, &web.identity).await;

    // Both anchors trusted: leaves of either work.
    for workload in [&web, &shop] {
        workload.trust.set(bundle(2, &[&old, &new])).unwrap();
    }
    connected(&server, &client, &web.identity).await;
    web.certify(&new_authority);
    connected(&server, &client, &web.identity).await;

    // The old anchor goes while shop still has a leaf of it.
    web.trust.set(bundle(3, &[&new])).unwrap();
    let (accepted, _) = handshake(&server, &client, &web.identity).await;
    assert!(
        matches!(accepted, Err(Error::UntrustedIssuer)),
        "{accepted:?}"
    );
    ping_pong(&mut server_stream, &mut client_stream).await;

    shop.certify(&new_authority);
    shop.trust.set(bundle(3, &[&new])).unwrap();
    connected(&server, &client, &web.identity).await;
    ping_pong(&mut server_stream, &mut client_stream).await;
}

#[tokio::test]
async fn the_client_stops_trusting_a_removed_anchor_too() {
    let (old, new) = (anchor(), anchor());
    let web = Workload::new(web(), &authority_of(&old));
    let shop = Workload::new(shop(), &authority_of(&old));
    let server = web.tls.server(&[], ClientAuth::Required);
    let client = shop.tls.client(&[]);
    connected(&server, &client, &web.identity).await;
    shop.trust.set(bundle(2, &[&new])).unwrap();
    let (_, result) = handshake(&server, &client, &web.identity).await;
    assert!(matches!(result, Err(Error::UntrustedIssuer)));
}

#[test]
fn configurations_are_shared_until_something_changes() {
    let authority = authority_of(&anchor());
    let web = Workload::new(web(), &authority);
    let server = web.tls.server(&[b"h2"], ClientAuth::Required);
    let client = web.tls.client(&[b"h2"]);
    let peer = shop();
    let before = (server.config().unwrap(), client.config(&peer).unwrap());
    assert!(Arc::ptr_eq(&before.0, &server.config().unwrap()));
    assert!(Arc::ptr_eq(&before.1, &client.config(&peer).unwrap()));
    web.certify(&authority);
    let after = (server.config().unwrap(), client.config(&peer).unwrap());
    assert!(!Arc::ptr_eq(&before.0, &after.0));
    assert!(!Arc::ptr_eq(&before.1, &after.1));
}

#[test]
fn an_anonymous_clients_configuration_does_not_depend_on_the_leaf() {
    let authority = authority_of(&anchor());
    let web = Workload::new(web(), &authority);
    let client = web.tls.anonymous_client(&[]);
    let before = client.config(&shop()).unwrap();
    web.certify(&authority);
    assert!(Arc::ptr_eq(&before, &client.config(&shop()).unwrap()));
}

fn leaf(client: &support::ClientStream) -> Vec<u8> {
    client.get_ref().1.peer_certificates().unwrap()[0].to_vec()
}

#[tokio::test]
async fn a_change_is_settled_when_the_handshakes_before_it_have_ended() {
    let anchor = anchor();
    let authority = authority_of(&anchor);
    let web = Workload::new(web(), &authority);
    let shop = Workload::new(shop(), &authority);
    let server = web.tls.server(&[], ClientAuth::Required);
    let client = shop.tls.client(&[]);
    let (near, far) = tokio::io::duplex(16 * 1024);
    let mut accepting = Box::pin(server.accept_verified(far));
    assert!(poll(&mut accepting).await.is_none());

    web.trust.set(bundle(2, &[&anchor])).unwrap();
    // Given up once: the next who waits still waits for all.
    assert!(poll(&mut Box::pin(web.trust.settled())).await.is_none());
    let mut settled = Box::pin(web.trust.settled());
    assert!(poll(&mut settled).await.is_none());
    let (_silent, far) = tokio::io::duplex(1);
    let mut later = Box::pin(server.accept_verified(far));
    assert!(poll(&mut later).await.is_none());
    assert!(poll(&mut settled).await.is_none());

    let connecting = client.connect_verified(near, &web.identity, support::server_name());
    let (accepted, connected) = tokio::join!(accepting, connecting);
    let keys = [accepted.unwrap().1.unwrap().keys, connected.unwrap().1];
    assert_eq!(keys[0], keys[1]);
    assert_eq!([keys[0].anchor], web.trust.load().anchor_keys());
    assert_ne!(keys[0].issuer, keys[0].anchor);
    settled.await;
}

#[tokio::test]
async fn a_known_chain_is_known_by_its_keys_too() {
    let (old, new) = (anchor(), anchor());
    let web = Workload::new(web(), &authority_of(&old));
    let shop = Workload::new(shop(), &authority_of(&new));
    for workload in [&web, &shop] {
        workload.trust.set(bundle(2, &[&old, &new])).unwrap();
    }
    let server = web.tls.server(&[], ClientAuth::Required);
    let client = shop.tls.client(&[]);
    let keys = web.trust.load().anchor_keys().to_vec();
    for _ in 0..2 {
        let (near, far) = tokio::io::duplex(16 * 1024);
        let (accepted, connected) = tokio::join!(
            server.accept_verified(far),
            client.connect_verified(near, &web.identity, support::server_name())
        );
        let of_client = accepted.unwrap().1.unwrap();
        assert_eq!(of_client.identity, shop.identity);
        assert_eq!(
            (of_client.keys.anchor, connected.unwrap().1.anchor),
            (keys[1], keys[0])
        );
    }
}

/// What comes of one poll.
async fn poll<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
    std::future::poll_fn(|cx| {
        let polled = std::pin::Pin::new(&mut *future).poll(cx);
        std::task::Poll::Ready(match polled {
            std::task::Poll::Ready(output) => Some(output),
            std::task::Poll::Pending => None,
        })
    })
    .await
}
