//! A mistake in a manifest or a setting is named, and what was in force stays so.

// Functions beside the tests may panic as the tests do.
#![allow(clippy::unwrap_used)]

mod support;

use linkerd2_proxy_api::destination::{
    GetDestination, destination_client::DestinationClient, update,
};
use mesh_control_api::admin::{
    GetStatusRequest, ListManifestErrorsRequest, ListServicesRequest, ListWorkloadsRequest,
    ManifestError,
};
use support::{Controller, identity, service, within, workload};

async fn errors(controller: &Controller) -> Vec<ManifestError> {
    let mut admin = controller.admin().await;
    let request = ListManifestErrorsRequest {};
    let mut stream = admin
        .list_manifest_errors(request)
        .await
        .unwrap()
        .into_inner();
    let mut errors = Vec::new();
    while let Some(error) = stream.message().await.unwrap() {
        errors.push(error);
    }
    errors
}

#[tokio::test]
async fn a_bad_manifest_is_reported_and_the_last_good_state_stays() {
    let controller = Controller::start(
        &[
            ("web.yaml", &service("web", "")),
            ("1.yaml", &workload("web", 1)),
        ],
        &[],
    )
    .await;
    assert_eq!(errors(&controller).await, []);
    controller.write("1.yaml", &workload("web", 1).replace("8080", "0"));
    let found = within(async {
        loop {
            let errors = errors(&controller).await;
            if !errors.is_empty() {
                return errors;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    })
    .await;
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].file, "1.yaml");
    assert_eq!(found[0].field, "spec.ports[0].port");
    assert!(found[0].line > 0 && found[0].kept, "{found:?}");

    let request = GetDestination {
        path: "web.default:80".into(),
        ..GetDestination::default()
    };
    let mut client = DestinationClient::new(controller.proxy_api());
    let mut stream = client.get(request).await.unwrap().into_inner();
    let first = within(stream.message()).await.unwrap().unwrap().update;
    assert!(matches!(first, Some(update::Update::Add(set)) if set.addrs.len() == 1));
    assert_eq!(controller.get("/ready").await.0, 200);
    controller
        .wait_metric("controller_manifest_errors", 1)
        .await;
}

#[tokio::test]
async fn who_claims_the_address_of_another_is_reported_and_does_not_get_it() {
    let at = |name: &str| service(name, "").replace("spec:\n", "spec:\n  clusterIP: 10.96.0.7\n");
    let controller = Controller::start(&[("z.yaml", &at("web"))], &[]).await;
    controller.write("a.yaml", &at("api"));
    controller
        .wait_metric("controller_manifest_errors", 1)
        .await;
    let found = errors(&controller).await;
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(
        (
            &*found[0].file,
            found[0].line,
            &*found[0].field,
            found[0].kept
        ),
        ("a.yaml", 5, "spec.clusterIP", true)
    );
    let holder = "10.96.0.7:80 belongs to Service default/web in z.yaml";
    assert!(found[0].reason.contains(holder), "{found:?}");

    let mut check = controller.command();
    check.arg("--check");
    let output = support::run(check);
    assert_eq!(output.status.code(), Some(3));
    let said = String::from_utf8(output.stderr).unwrap();
    // Read at once, the first by name has it.
    assert!(said.starts_with("z.yaml:5: spec.clusterIP: "), "{said}");

    let mut admin = controller.admin().await;
    let request = ListServicesRequest {};
    let mut services = admin.list_services(request).await.unwrap().into_inner();
    let mut addresses = Vec::new();
    while let Some(service) = services.message().await.unwrap() {
        addresses.push((service.name, service.cluster_ips.len()));
    }
    assert_eq!(addresses, [("api".to_owned(), 0), ("web".to_owned(), 1)]);
}

#[tokio::test]
async fn the_admin_api_lists_what_there_is() {
    let plain = workload("web", 2).replace(", meshPort: 14143", "");
    let controller = Controller::start(
        &[
            ("web.yaml", &service("web", "")),
            ("1.yaml", &workload("web", 1)),
            ("2.yaml", &plain),
        ],
        &[],
    )
    .await;
    let mut admin = controller.admin().await;
    let status = admin
        .get_status(GetStatusRequest {})
        .await
        .unwrap()
        .into_inner();
    assert!(status.ready && status.not_ready.is_empty());
    assert_eq!(
        (status.services, status.workloads, status.manifest_errors),
        (1, 2, 0)
    );
    assert_eq!(status.trust_domain, "cluster.local");
    assert!(status.bundle_digest.starts_with("sha256:"));
    assert_eq!(
        status.bundle_pem.as_bytes(),
        support::read(&controller.data().join("anchors.pem"))
    );

    let mut services = admin
        .list_services(ListServicesRequest {})
        .await
        .unwrap()
        .into_inner();
    let web = services.message().await.unwrap().unwrap();
    assert_eq!(web.authority, "web.default.svc.cluster.local");
    assert_eq!((web.ports[0].endpoints, web.ports[0].meshed), (2, 1));
    assert_eq!(web.ports[0].protocol, "detect");
    assert_eq!(services.message().await.unwrap(), None);

    let mut workloads = admin
        .list_workloads(ListWorkloadsRequest {})
        .await
        .unwrap()
        .into_inner();
    let first = workloads.message().await.unwrap().unwrap();
    assert_eq!(
        (first.name.as_str(), first.identity),
        ("web-1", identity("web"))
    );
    assert_eq!(first.services, ["default/web"]);
    assert_eq!(
        (first.ports[0].port, first.ports[0].mesh_port),
        (8080, 14143)
    );
    let second = workloads.message().await.unwrap().unwrap();
    assert_eq!(
        (second.name.as_str(), second.identity.as_str()),
        ("web-2", "")
    );
}

#[tokio::test]
async fn check_says_what_is_wrong_and_exits_accordingly() {
    let controller = Controller::start(&[("web.yaml", &service("web", ""))], &[]).await;
    let check = |more: &[&str]| {
        let mut command = controller.command();
        command.arg("--check").args(more);
        let output = support::run(command);
        (
            output.status.code(),
            String::from_utf8(output.stderr).unwrap(),
        )
    };
    assert_eq!(check(&[]), (Some(0), String::new()));
    controller.write(
        "bad.yaml",
        "apiVersion: v1\nkind: Service\nmetadata: {name: x}\n",
    );
    let (code, said) = check(&[]);
    assert_eq!(code, Some(3));
    assert!(said.starts_with("bad.yaml:"), "{said}");
    assert_eq!(check(&["--max-streams", "0"]).0, Some(2));
    assert_eq!(check(&["--no-such-flag"]).0, Some(2));
}

#[tokio::test]
async fn without_manifests_it_lives_and_is_not_ready() {
    let mut controller = Controller::start(&[], &[]).await;
    std::fs::remove_dir(controller.manifests()).unwrap();
    controller.restart().await;
    assert_eq!(controller.get("/live").await.0, 200);
    let (code, why) = controller.get("/ready").await;
    assert_eq!(code, 503);
    assert!(why.contains("manifests"), "{why}");
    std::fs::create_dir(controller.manifests()).unwrap();
    within(async {
        while controller.get("/ready").await.0 != 200 {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    })
    .await;
    let (_, config) = controller.get("/config").await;
    assert!(
        config.contains("\"cluster_domain\": \"cluster.local\""),
        "{config}"
    );
    assert_eq!(controller.get("/else").await.0, 404);
}

#[test]
fn help_documents_every_key_and_exit_code() {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_mesh-controller"));
    command.arg("--help");
    let output = support::run(command);
    assert!(output.status.success());
    let help = String::from_utf8(output.stdout).unwrap();
    for key in [
        "config",
        "data",
        "manifests",
        "listen",
        "tls",
        "advertise",
        "admin",
        "log",
        "cluster-domain",
        "max-connections",
        "max-uncertified",
        "max-streams",
        "max-certifications",
    ] {
        assert!(help.contains(&format!("--{key} ")), "{key}");
        let variable = key.to_uppercase().replace('-', "_");
        assert!(
            help.contains(&format!("MESH_CONTROLLER_{variable}")),
            "{key}"
        );
    }
    assert!(help.contains("Exit codes: 0"));
}
