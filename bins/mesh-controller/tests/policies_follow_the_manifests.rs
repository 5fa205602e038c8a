//! Proxies are told how to treat a target and whom to let in, by name and by address, and whenever it changes.

// Functions beside the tests may panic as the tests do.
#![allow(clippy::unwrap_used)]

mod support;

use std::net::SocketAddr;

use linkerd2_proxy_api::{
    inbound::{self, PortSpec, inbound_server_policies_client::InboundServerPoliciesClient},
    meta::metadata,
    outbound::{
        Backend, OutboundPolicy, TrafficSpec,
        backend::{self, balance_p2c},
        failure_accrual,
        grpc_route::distribution,
        outbound_policies_client::OutboundPoliciesClient,
        proxy_protocol, traffic_spec,
    },
};
use support::{Controller, service, within, workload};
use tonic::{Code, Status};

const WEB: &str = r#"{"ns":"default","pod":"web-1"}"#;

async fn start(more: &str) -> Controller {
    let web = service("web", more).replace("spec:\n", "spec:\n  clusterIP: 10.96.0.7\n");
    Controller::start(&[("web.yaml", &web), ("1.yaml", &workload("web", 1))], &[]).await
}

fn spec(target: &str) -> TrafficSpec {
    let target = match target.parse::<SocketAddr>() {
        Ok(address) => traffic_spec::Target::Addr(address.into()),
        Err(_) => traffic_spec::Target::Authority(target.to_owned()),
    };
    TrafficSpec {
        source_workload: WEB.to_owned(),
        target: Some(target),
    }
}

async fn outbound(controller: &Controller, target: &str) -> Result<OutboundPolicy, Status> {
    let mut client = OutboundPoliciesClient::new(controller.proxy_api());
    within(client.get(spec(target)))
        .await
        .map(tonic::Response::into_inner)
}

fn annotated(service: &str, annotations: &[(&str, &str)]) -> String {
    let annotations: Vec<_> = annotations
        .iter()
        .map(|(key, value)| format!("{key}: '{value}'"))
        .collect();
    service.replace(
        "namespace: default}",
        &format!(
            "namespace: default, annotations: {{{}}}}}",
            annotations.join(", ")
        ),
    )
}

fn kind(policy: &OutboundPolicy) -> &proxy_protocol::Kind {
    policy.protocol.as_ref().unwrap().kind.as_ref().unwrap()
}

fn http_backend(policy: &OutboundPolicy) -> &Backend {
    use linkerd2_proxy_api::outbound::http_route::distribution;
    let proxy_protocol::Kind::Detect(detect) = kind(policy) else {
        panic!("expected detection");
    };
    let rule = &detect.http1.as_ref().unwrap().routes[0].rules[0];
    let Some(distribution::Kind::FirstAvailable(first)) = &rule.backends.as_ref().unwrap().kind
    else {
        panic!("expected one backend");
    };
    first.backends[0].backend.as_ref().unwrap()
}

fn resource_name(policy: &OutboundPolicy) -> String {
    match policy.metadata.as_ref().unwrap().kind.as_ref().unwrap() {
        metadata::Kind::Resource(resource) => {
            format!("{}/{}:{}", resource.kind, resource.name, resource.port)
        }
        metadata::Kind::Default(name) => name.clone(),
    }
}

#[tokio::test]
async fn a_service_is_found_by_every_name_and_by_its_address() {
    let controller = start("").await;
    for target in [
        "web.default.svc.cluster.local:80",
        "web.default.svc.cluster.local",
        "web.default:80",
        "web:80",
        "web",
        "10.96.0.7:80",
    ] {
        let policy = outbound(&controller, target).await.unwrap();
        assert_eq!(resource_name(&policy), "Service/web:80", "{target}");
        let backend = http_backend(&policy);
        let Some(backend::Kind::Balancer(balancer)) = &backend.kind else {
            panic!("expected a balancer at {target}");
        };
        let Some(backend::endpoint_discovery::Kind::Dst(destination)) =
            &balancer.discovery.as_ref().unwrap().kind
        else {
            panic!("expected discovery");
        };
        assert_eq!(destination.path, "web.default.svc.cluster.local:80");
        assert!(balancer.load.is_some());
        assert_eq!(backend.queue.unwrap().capacity, 100);
        let proxy_protocol::Kind::Detect(detect) = kind(&policy) else {
            panic!("expected detection");
        };
        assert!(detect.timeout.is_some() && detect.opaque.is_some() && detect.http2.is_some());
        assert_eq!(detect.http1.as_ref().unwrap().failure_accrual, None);
    }
}

#[tokio::test]
async fn a_workload_is_found_by_its_own_address_and_strangers_are_not() {
    let controller = start("").await;
    for target in ["127.77.0.1:8080", "127.77.0.1:14143"] {
        let policy = outbound(&controller, target).await.unwrap();
        assert_eq!(resource_name(&policy), "Workload/web-1:8080", "{target}");
        let Some(backend::Kind::Forward(endpoint)) = &http_backend(&policy).kind else {
            panic!("expected an endpoint at {target}");
        };
        assert_eq!(endpoint.addr.unwrap().port, 14143);
        assert!(endpoint.tls_identity.is_some());
    }
    for target in [
        "192.0.2.1:80",
        "127.77.0.1:9",
        "10.96.0.7:81",
        "web:81",
        "other:80",
        "www.example.com:443",
    ] {
        let status = outbound(&controller, target).await.unwrap_err();
        assert_eq!(status.code(), Code::NotFound, "{target}");
    }
    let nothing = TrafficSpec {
        source_workload: String::new(),
        target: None,
    };
    let status = OutboundPoliciesClient::new(controller.proxy_api())
        .get(nothing)
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn the_protocol_and_the_breaker_are_those_of_the_service() {
    let grpc = annotated(
        &service("rpc", ", appProtocol: grpc"),
        &[
            ("balancer.linkerd.io/failure-accrual", "unified"),
            (
                "balancer.linkerd.io/failure-accrual-consecutive-max-failures",
                "3",
            ),
            (
                "balancer.alpha.linkerd.io/failure-accrual-success-rate-threshold",
                "0.9",
            ),
            (
                "balancer.alpha.linkerd.io/failure-accrual-honor-retry-after",
                "true",
            ),
            ("balancer.alpha.linkerd.io/penalize-failures", "true"),
            ("balancer.alpha.linkerd.io/load-biaser-penalty", "3s"),
        ],
    );
    let redis = service("redis", "").replace("port: 80,", "port: 6379,");
    let controller = Controller::start(&[("rpc.yaml", &grpc), ("redis.yaml", &redis)], &[]).await;
    let rpc = outbound(&controller, "rpc:80").await.unwrap();
    let proxy_protocol::Kind::Grpc(grpc) = kind(&rpc) else {
        panic!("expected gRPC");
    };
    let Some(failure_accrual::Kind::Unified(unified)) =
        &grpc.failure_accrual.as_ref().unwrap().kind
    else {
        panic!("expected a unified breaker");
    };
    assert_eq!(unified.max_consecutive_failures, 3);
    assert!((unified.success_rate_threshold - 0.9).abs() < f64::EPSILON);
    assert!(unified.backoff.unwrap().respect_retry_after_hint);
    let Some(distribution::Kind::FirstAvailable(first)) =
        &grpc.routes[0].rules[0].backends.as_ref().unwrap().kind
    else {
        panic!("expected one backend");
    };
    let Some(backend::Kind::Balancer(balancer)) = &first.backends[0].backend.as_ref().unwrap().kind
    else {
        panic!("expected a balancer");
    };
    let Some(balance_p2c::Load::PenaltyPeakEwma(load)) = &balancer.load else {
        panic!("expected a penalty");
    };
    assert_eq!(load.penalty.unwrap().seconds, 3);
    assert_eq!(load.max_retry_after.unwrap().seconds, 300);

    let redis = outbound(&controller, "redis:6379").await.unwrap();
    assert!(matches!(kind(&redis), proxy_protocol::Kind::Opaque(_)));
}

/// The breaker's limit of failures in a row, if there is a breaker of that kind.
fn max_failures(policy: &OutboundPolicy) -> Option<u32> {
    let proxy_protocol::Kind::Detect(detect) = kind(policy) else {
        panic!("expected detection");
    };
    match detect
        .http1
        .as_ref()?
        .failure_accrual
        .as_ref()?
        .kind
        .as_ref()?
    {
        failure_accrual::Kind::ConsecutiveFailures(found) => Some(found.max_failures),
        failure_accrual::Kind::Unified(_) => None,
    }
}

#[tokio::test]
async fn a_wrong_annotation_is_named_and_the_last_good_one_stays_in_force() {
    let breaker = |failures| {
        annotated(
            &service("web", ""),
            &[
                ("balancer.linkerd.io/failure-accrual", "consecutive"),
                (
                    "balancer.linkerd.io/failure-accrual-consecutive-max-failures",
                    failures,
                ),
            ],
        )
    };
    let controller = Controller::start(&[("web.yaml", &breaker("3"))], &[]).await;
    let mut client = OutboundPoliciesClient::new(controller.proxy_api());
    let mut watch = within(client.watch(spec("web:80")))
        .await
        .unwrap()
        .into_inner();
    let first = within(watch.message()).await.unwrap().unwrap();
    assert_eq!(max_failures(&first), Some(3));

    controller.write("web.yaml", &breaker("three"));
    controller
        .wait_metric("controller_manifest_errors", 1)
        .await;
    let request = mesh_control_api::admin::ListManifestErrorsRequest {};
    let mut errors = controller
        .admin()
        .await
        .list_manifest_errors(request)
        .await
        .unwrap()
        .into_inner();
    let error = errors.message().await.unwrap().unwrap();
    let field =
        "metadata.annotations[balancer.linkerd.io/failure-accrual-consecutive-max-failures]";
    assert_eq!(
        (&*error.file, error.line > 0, &*error.field, error.kept),
        ("web.yaml", true, field, true)
    );
    assert_eq!(error.reason, "\"three\": must be a whole number from 1 on");
    let still = outbound(&controller, "web:80").await.unwrap();
    assert_eq!(max_failures(&still), Some(3));

    controller.write("web.yaml", &breaker("9"));
    let next = within(watch.message()).await.unwrap().unwrap();
    assert_eq!(max_failures(&next), Some(9));
}

#[tokio::test]
async fn a_watch_follows_its_service_and_ends_with_it() {
    let controller = start("").await;
    let mut client = OutboundPoliciesClient::new(controller.proxy_api());
    let mut watch = within(client.watch(spec("web:80")))
        .await
        .unwrap()
        .into_inner();
    let first = within(watch.message()).await.unwrap().unwrap();
    assert!(matches!(kind(&first), proxy_protocol::Kind::Detect(_)));

    // A change elsewhere is no news here.
    controller.write("other.yaml", &service("other", ""));
    controller.write("web.yaml", &service("web", ", appProtocol: tcp"));
    let second = within(watch.message()).await.unwrap().unwrap();
    assert!(matches!(kind(&second), proxy_protocol::Kind::Opaque(_)));

    controller.remove("web.yaml");
    let end = within(watch.message()).await.unwrap_err();
    assert_eq!(end.code(), Code::NotFound);
}

fn port(port: u32) -> PortSpec {
    PortSpec {
        workload: WEB.to_owned(),
        port,
    }
}

fn policy_name(server: &inbound::Server) -> &str {
    &server.labels["name"]
}

#[tokio::test]
async fn inbound_policy_is_the_default_unless_the_service_says_otherwise() {
    let controller = start("").await;
    let mut client = InboundServerPoliciesClient::new(controller.proxy_api());
    let mut watch = within(client.watch_port(port(8080)))
        .await
        .unwrap()
        .into_inner();
    let first = within(watch.message()).await.unwrap().unwrap();
    assert_eq!(policy_name(&first), "all-authenticated");
    let allowed = &first.authorizations[0];
    assert_eq!(allowed.networks.len(), 2);
    assert!(matches!(
        allowed.authentication.as_ref().unwrap().permit,
        Some(inbound::authn::Permit::MeshTls(_))
    ));
    assert!(matches!(
        first.protocol.unwrap().kind,
        Some(inbound::proxy_protocol::Kind::Detect(_))
    ));

    let config = "apiVersion: mesh-rs.io/v1alpha1\nkind: MeshConfig\nmetadata: {name: mesh}\n\
                  spec: {inbound: {defaultPolicy: all-unauthenticated}}\n";
    controller.write("mesh.yaml", config);
    let second = within(watch.message()).await.unwrap().unwrap();
    assert_eq!(policy_name(&second), "all-unauthenticated");
    assert!(matches!(
        second.authorizations[0]
            .authentication
            .as_ref()
            .unwrap()
            .permit,
        Some(inbound::authn::Permit::Unauthenticated(_))
    ));

    let denied = service("web", ", appProtocol: tcp").replace(
        "namespace: default}",
        "namespace: default, annotations: {config.linkerd.io/default-inbound-policy: deny}}",
    );
    controller.write("web.yaml", &denied);
    let third = within(watch.message()).await.unwrap().unwrap();
    assert_eq!(
        (policy_name(&third), third.authorizations.len()),
        ("deny", 0)
    );
    assert!(matches!(
        third.protocol.unwrap().kind,
        Some(inbound::proxy_protocol::Kind::Opaque(_))
    ));
    let other = within(client.get_port(port(9))).await.unwrap().into_inner();
    assert_eq!(policy_name(&other), "all-unauthenticated");

    for (spec, code) in [
        (port(0), Code::InvalidArgument),
        (port(70_000), Code::InvalidArgument),
        (
            PortSpec {
                workload: "web-1".into(),
                port: 80,
            },
            Code::InvalidArgument,
        ),
        (
            PortSpec {
                workload: "default:nobody".into(),
                port: 80,
            },
            Code::NotFound,
        ),
    ] {
        assert_eq!(
            within(client.get_port(spec)).await.unwrap_err().code(),
            code
        );
    }
}
