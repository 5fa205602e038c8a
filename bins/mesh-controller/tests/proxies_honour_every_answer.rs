//! What the controller sends, a proxy of this mesh understands to the last field.

// Functions beside the tests may panic as the tests do.
#![allow(clippy::unwrap_used)]

mod support;

use linkerd2_proxy_api::{
    destination::{GetDestination, destination_client::DestinationClient},
    inbound::{PortSpec, inbound_server_policies_client::InboundServerPoliciesClient},
    outbound::{
        TrafficSpec, outbound_policies_client::OutboundPoliciesClient, traffic_spec::Target,
    },
};
use mesh_policy::proxy_api::{
    EndpointUpdate, endpoint_update, outbound_policy, profile, server_policy,
};
use support::{Controller, service, within, workload};

const PROTOCOLS: [(&str, &str); 4] = [
    ("plain", ""),
    ("web", ", appProtocol: http"),
    ("rpc", ", appProtocol: grpc"),
    ("db", ", appProtocol: tcp"),
];

async fn start() -> Controller {
    let mut manifests = Vec::new();
    for (number, (name, more)) in (1..).zip(PROTOCOLS) {
        let broken = service(name, more).replace(
            "namespace: default}",
            "namespace: default, annotations: {balancer.linkerd.io/failure-accrual: unified, \
             balancer.alpha.linkerd.io/penalize-failures: 'true', \
             balancer.alpha.linkerd.io/failure-accrual-honor-retry-after: 'true'}}",
        );
        manifests.push((format!("{name}.yaml"), broken));
        manifests.push((format!("{name}-1.yaml"), workload(name, number)));
    }
    let manifests: Vec<_> = manifests
        .iter()
        .map(|(n, t)| (n.as_str(), t.as_str()))
        .collect();
    Controller::start(&manifests, &[]).await
}

#[tokio::test]
async fn policies_have_no_field_that_is_needless() {
    let controller = start().await;
    let mut outbound = OutboundPoliciesClient::new(controller.proxy_api());
    let mut inbound = InboundServerPoliciesClient::new(controller.proxy_api());
    for (number, (name, _)) in (1..).zip(PROTOCOLS) {
        for target in [
            Target::Authority(format!("{name}.default:80")),
            Target::Addr(std::net::SocketAddr::from(([127, 77, 0, number], 8080)).into()),
        ] {
            let spec = TrafficSpec {
                source_workload: String::new(),
                target: Some(target),
            };
            let sent = within(outbound.get(spec)).await.unwrap().into_inner();
            let read = outbound_policy(&sent).unwrap();
            assert_eq!(read.unsupported, Vec::<&str>::new(), "{name}");
        }
        for policy in [
            "",
            "all-authenticated",
            "cluster-unauthenticated",
            "cluster-authenticated",
            "deny",
        ] {
            if !policy.is_empty() {
                controller.write("mesh.yaml", &format!(
                    "apiVersion: mesh-rs.io/v1alpha1\nkind: MeshConfig\nmetadata: {{name: mesh}}\n\
                     spec: {{inbound: {{defaultPolicy: {policy}}}}}\n"
                ));
            }
            let spec = PortSpec {
                workload: format!("default:{name}-{number}"),
                port: 8080,
            };
            // The change takes a moment; whichever policy is in force by then, it must be understood.
            let sent = within(inbound.get_port(spec)).await.unwrap().into_inner();
            let read = server_policy(&sent).unwrap();
            assert_eq!(read.unsupported, Vec::<&str>::new(), "{name} {policy}");
        }
    }
}

#[tokio::test]
async fn endpoints_and_profiles_have_no_field_that_is_not_honoured() {
    let controller = start().await;
    let mut client = DestinationClient::new(controller.proxy_api());
    for (name, _) in PROTOCOLS {
        let request = GetDestination {
            path: format!("{name}.default:80"),
            ..GetDestination::default()
        };
        let mut stream = within(client.get(request.clone()))
            .await
            .unwrap()
            .into_inner();
        let sent = within(stream.message()).await.unwrap().unwrap();
        let read = endpoint_update(&sent).unwrap();
        assert_eq!(read.unsupported, Vec::<&str>::new(), "{name}");
        let EndpointUpdate::Add {
            endpoints,
            rejected,
        } = read.value
        else {
            panic!("expected endpoints of {name}");
        };
        assert_eq!((endpoints.len(), rejected.len()), (1, 0), "{name}");
        let mut stream = within(client.get_profile(request))
            .await
            .unwrap()
            .into_inner();
        profile(&within(stream.message()).await.unwrap().unwrap()).unwrap();
    }
}
