//! Who watches a service learns its endpoints at once, and whatever changes.

// Functions beside the tests may panic as the tests do.
#![allow(clippy::unwrap_used)]

mod support;

use std::net::SocketAddr;

use linkerd2_proxy_api::destination::{
    GetDestination, Update, WeightedAddr, destination_client::DestinationClient, protocol_hint,
    tls_identity, update,
};
use prost::Message;
use support::{Controller, identity, raw, service, within, workload};
use tonic::{Code, Streaming, transport::Channel};

async fn get(channel: Channel, path: &str) -> Streaming<Update> {
    let request = GetDestination {
        scheme: "k8s".into(),
        path: path.into(),
        context_token: r#"{"ns":"default","pod":"web-1"}"#.into(),
    };
    within(DestinationClient::new(channel).get(request))
        .await
        .unwrap()
        .into_inner()
}

async fn next(stream: &mut Streaming<Update>) -> update::Update {
    within(stream.message())
        .await
        .unwrap()
        .unwrap()
        .update
        .unwrap()
}

fn address(addr: &WeightedAddr) -> SocketAddr {
    let addr = addr.addr.unwrap();
    let ip = std::net::IpAddr::try_from(addr.ip.unwrap()).unwrap();
    (ip, u16::try_from(addr.port).unwrap()).into()
}

fn added(update: update::Update) -> Vec<WeightedAddr> {
    match update {
        update::Update::Add(set) => set.addrs,
        other => panic!("expected endpoints, got {other:?}"),
    }
}

#[tokio::test]
async fn zones_travel_as_labels_from_either_place() {
    let labelled = workload("web", 2).replace("  zone: zone-2\n", "").replace(
        "{app: web}",
        "{app: web, topology.kubernetes.io/zone: eu-1b}",
    );
    let without = workload("web", 3).replace("  zone: zone-3\n", "");
    let controller = Controller::start(
        &[
            ("web.yaml", &service("web", "")),
            ("1.yaml", &workload("web", 1)),
            ("2.yaml", &labelled),
            ("3.yaml", &without),
        ],
        &[],
    )
    .await;
    let mut stream = get(controller.proxy_api(), "web.default:80").await;
    let mut zones: Vec<_> = added(next(&mut stream).await)
        .iter()
        .map(|addr| (address(addr), addr.metric_labels.get("zone").cloned()))
        .collect();
    zones.sort();
    let zones: Vec<_> = zones.into_iter().map(|(_, zone)| zone).collect();
    assert_eq!(
        zones,
        [Some("zone-1".to_owned()), Some("eu-1b".to_owned()), None]
    );
}

#[tokio::test]
async fn a_snapshot_then_what_changes() {
    let controller = Controller::start(
        &[
            ("web.yaml", &service("web", "")),
            ("1.yaml", &workload("web", 1)),
        ],
        &[],
    )
    .await;
    let mut stream = get(controller.proxy_api(), "web.default.svc.cluster.local:80").await;
    let first = added(next(&mut stream).await);
    assert_eq!(first.len(), 1);
    let endpoint = &first[0];
    assert_eq!(address(endpoint), "127.77.0.1:14143".parse().unwrap());
    assert_eq!(endpoint.weight, 10_000);
    assert_eq!(endpoint.metric_labels["zone"], "zone-1");
    let tls = endpoint.tls_identity.clone().unwrap();
    assert_eq!(tls.server_name.unwrap().name, identity("web"));
    let Some(tls_identity::Strategy::DnsLikeIdentity(name)) = tls.strategy else {
        panic!("another strategy");
    };
    assert_eq!(name.name, identity("web"));
    assert_eq!(
        endpoint.protocol_hint.unwrap().protocol,
        Some(protocol_hint::Protocol::H2(protocol_hint::H2 {}))
    );

    controller.write("2.yaml", &workload("web", 2));
    let second = added(next(&mut stream).await);
    assert_eq!(second.len(), 1, "only what is new");
    assert_eq!(address(&second[0]), "127.77.0.2:14143".parse().unwrap());

    controller.remove("1.yaml");
    let update::Update::Remove(removed) = next(&mut stream).await else {
        panic!("expected a removal");
    };
    assert_eq!(removed.addrs.len(), 1);

    controller.remove("2.yaml");
    let update::Update::NoEndpoints(none) = next(&mut stream).await else {
        panic!("expected no endpoints");
    };
    assert!(none.exists);
    controller.remove("web.yaml");
    let update::Update::NoEndpoints(none) = next(&mut stream).await else {
        panic!("expected no endpoints");
    };
    assert!(!none.exists);
}

#[tokio::test]
async fn nothing_is_an_answer_too() {
    let controller = Controller::start(&[("web.yaml", &service("web", ""))], &[]).await;
    for (path, exists) in [
        ("web.default.svc.cluster.local:80", true),
        ("web:80", true),
        ("web", true),
        ("web.default.svc.cluster.local:81", false),
        ("other.default.svc.cluster.local:80", false),
    ] {
        let mut stream = get(controller.proxy_api(), path).await;
        let update::Update::NoEndpoints(none) = next(&mut stream).await else {
            panic!("expected no endpoints at {path}");
        };
        assert_eq!(none.exists, exists, "{path}");
    }
    for path in ["127.0.0.1:80", "www.example.com:80", ""] {
        let request = GetDestination {
            path: path.into(),
            ..GetDestination::default()
        };
        let status = DestinationClient::new(controller.proxy_api())
            .get(request)
            .await
            .unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{path}");
    }
}

#[tokio::test]
async fn all_subscribers_get_the_same_bytes() {
    let workloads: Vec<_> = (1..=9).map(|number| workload("web", number)).collect();
    let controller = Controller::start(
        &[
            ("web.yaml", &service("web", "")),
            ("all.yaml", &workloads.join("---\n")),
        ],
        &[],
    )
    .await;
    let path = "web.default.svc.cluster.local:80";
    let mut streams = Vec::new();
    for _ in 0..4 {
        streams.push(raw::destination(controller.proxy_api(), path).await);
    }
    // The labels of an endpoint are a hash map: encoded twice, two messages would hardly be the same.
    let mut snapshots = Vec::new();
    for stream in &mut streams {
        snapshots.push(within(stream.message()).await.unwrap().unwrap());
    }
    assert_eq!(
        added(Update::decode(&*snapshots[0]).unwrap().update.unwrap()).len(),
        9
    );
    assert!(snapshots.windows(2).all(|pair| pair[0] == pair[1]));

    controller.write("10.yaml", &workload("web", 10));
    let mut deltas = Vec::new();
    for stream in &mut streams {
        deltas.push(within(stream.message()).await.unwrap().unwrap());
    }
    assert_eq!(
        added(Update::decode(&*deltas[0]).unwrap().update.unwrap()).len(),
        1
    );
    assert!(deltas.windows(2).all(|pair| pair[0] == pair[1]));
}

#[tokio::test]
async fn opaque_endpoints_say_so_and_unmeshed_ones_have_no_identity() {
    let redirected = "apiVersion: mesh-rs.io/v1alpha1\nkind: Workload\n\
        metadata: {name: db-1, namespace: default, labels: {app: db}}\nspec:\n  serviceAccount: db\n  meshed: true\n  \
        addresses: [127.77.0.1]\n  ports: [{port: 8080}]\n";
    let plain = "apiVersion: mesh-rs.io/v1alpha1\nkind: Workload\n\
        metadata: {name: db-3, namespace: default, labels: {app: db}}\nspec:\n  serviceAccount: db\n  \
        addresses: [127.77.0.3]\n  ports: [{port: 8080}]\n";
    let controller = Controller::start(
        &[
            ("db.yaml", &service("db", ", appProtocol: tcp")),
            ("1.yaml", redirected),
            ("2.yaml", &workload("db", 2)),
            ("3.yaml", plain),
        ],
        &[],
    )
    .await;
    let mut stream = get(controller.proxy_api(), "db:80").await;
    let endpoints = added(next(&mut stream).await);
    assert_eq!(
        controller
            .admin()
            .await
            .list_manifest_errors(mesh_control_api::admin::ListManifestErrorsRequest {})
            .await
            .unwrap()
            .into_inner()
            .message()
            .await
            .unwrap(),
        None
    );
    let opaque = Some(protocol_hint::Protocol::Opaque(protocol_hint::Opaque {}));

    let redirected = endpoints[0].protocol_hint.unwrap();
    assert_eq!(address(&endpoints[0]), "127.77.0.1:8080".parse().unwrap());
    assert_eq!(redirected.protocol, opaque);
    assert_eq!(redirected.opaque_transport.unwrap().inbound_port, 4143);

    let listener = endpoints[1].protocol_hint.unwrap();
    assert_eq!(address(&endpoints[1]), "127.77.0.2:14143".parse().unwrap());
    assert_eq!(listener.protocol, opaque);
    assert_eq!(listener.opaque_transport, None);

    assert_eq!(address(&endpoints[2]), "127.77.0.3:8080".parse().unwrap());
    assert_eq!(
        (&endpoints[2].tls_identity, endpoints[2].protocol_hint),
        (&None, None)
    );
}

#[tokio::test]
async fn profiles_tell_services_from_endpoints() {
    let with_address =
        service("web", ", appProtocol: tcp").replace("spec:\n", "spec:\n  clusterIP: 10.96.0.7\n");
    let controller = Controller::start(
        &[("web.yaml", &with_address), ("1.yaml", &workload("web", 1))],
        &[],
    )
    .await;
    let mut client = DestinationClient::new(controller.proxy_api());
    let mut profile = async |path: &str| {
        let request = GetDestination {
            path: path.into(),
            ..GetDestination::default()
        };
        let mut stream = within(client.get_profile(request))
            .await
            .unwrap()
            .into_inner();
        within(stream.message()).await.unwrap().unwrap()
    };
    for path in ["web.default.svc.cluster.local:80", "10.96.0.7:80"] {
        let found = profile(path).await;
        assert_eq!(found.fully_qualified_name, "web.default.svc.cluster.local");
        assert!(found.opaque_protocol && found.endpoint.is_none());
    }
    let endpoint = profile("127.77.0.1:8080").await.endpoint.unwrap();
    assert_eq!(address(&endpoint), "127.77.0.1:14143".parse().unwrap());
    let unknown = profile("192.0.2.1:80").await;
    assert_eq!(
        (unknown.fully_qualified_name.as_str(), unknown.endpoint),
        ("", None)
    );
}
