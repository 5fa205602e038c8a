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
