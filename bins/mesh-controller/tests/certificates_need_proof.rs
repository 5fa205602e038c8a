//! Nobody is certified for an identity that is not proven.

// Functions beside the tests may panic as the tests do.
#![allow(clippy::unwrap_used)]

mod support;

use std::time::{Duration, SystemTime};

use mesh_tls::{Credentials, LeafKey, TrustBundle, pki_types::CertificateDer};
use support::{Controller, DAY, certify, certify_csr, identity, within};
use tonic::Code;

#[tokio::test]
async fn a_token_gets_the_certificate_of_its_identity_again_and_again() {
    let controller = Controller::start(&[], &[]).await;
    let web = identity("web");
    let (token, _) = controller.token(&web, DAY).await;
    // A token file ends in a new line.
    for token in [token.clone(), format!("{token}\n")] {
        let (key, response) = certify(controller.proxy_api(), &web, &token).await.unwrap();
        let chain = std::iter::once(response.leaf_certificate)
            .chain(response.intermediate_certificates)
            .map(CertificateDer::from)
            .collect();
        let credentials: Credentials = key.credentials(chain).unwrap();
        let anchors = support::read(&controller.data().join("anchors.pem"));
        let trust = TrustBundle::from_pem(1, &anchors).unwrap();
        credentials.verify(&trust, SystemTime::now()).unwrap();
        assert_eq!(credentials.identity().as_str(), web);
        let until = SystemTime::try_from(response.valid_until.unwrap()).unwrap();
        assert_eq!(until, credentials.not_after());
        let left = until.duration_since(SystemTime::now()).unwrap();
        assert!(
            left <= DAY && left > DAY - Duration::from_mins(5),
            "{left:?}"
        );
    }
}

#[tokio::test]
async fn leaves_live_as_long_as_the_mesh_config_says() {
    let config = "apiVersion: mesh-rs.io/v1alpha1\nkind: MeshConfig\nmetadata: {name: mesh}\n\
                  spec: {leafLifetime: 1m, trustDomain: example.org}\n";
    let controller = Controller::start(&[("mesh.yaml", config)], &[]).await;
    let web = "web.default.serviceaccount.identity.linkerd.example.org";
    let (token, _) = controller.token(web, DAY).await;
    let (_, response) = certify(controller.proxy_api(), web, &token).await.unwrap();
    let until = SystemTime::try_from(response.valid_until.unwrap()).unwrap();
    let left = until.duration_since(SystemTime::now()).unwrap();
    assert!(left <= Duration::from_mins(1), "{left:?}");
    let other = identity("web");
    let refused = controller
        .admin()
        .await
        .issue_token(mesh_control_api::admin::IssueTokenRequest {
            identity: other,
            ..Default::default()
        })
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn every_other_proof_is_refused() {
    let controller = Controller::start(&[], &[]).await;
    let web = identity("web");
    let admin = identity("admin");
    let (token, id) = controller.token(&web, DAY).await;
    let (short, _) = controller.token(&web, Duration::from_secs(1)).await;
    let refused = async |identity: &str, token: &str| {
        certify(controller.proxy_api(), identity, token)
            .await
            .unwrap_err()
    };

    let wrong = refused(&admin, &token).await;
    assert_eq!(wrong.code(), Code::PermissionDenied, "{wrong}");
    for nothing in ["", "no token", "mesh1.AAAA", "\u{fffd}"] {
        let status = refused(&web, nothing).await;
        assert_eq!(status.code(), Code::Unauthenticated, "{nothing}: {status}");
    }

    let csr = LeafKey::generate()
        .unwrap()
        .csr(&admin.parse().unwrap())
        .unwrap();
    for csr in [csr, vec![], vec![0; 100], vec![0x30; 60_000]] {
        let status = certify_csr(controller.proxy_api(), &web, &token, csr)
            .await
            .unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    }

    let request = mesh_control_api::admin::RevokeTokenRequest { id };
    controller
        .admin()
        .await
        .revoke_token(request)
        .await
        .unwrap();
    let revoked = refused(&web, &token).await;
    assert_eq!(revoked.code(), Code::Unauthenticated);
    assert!(revoked.message().contains("revoked"), "{revoked}");

    let expired = within(async {
        loop {
            match certify(controller.proxy_api(), &web, &short).await {
                Err(status) => return status,
                Ok(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    })
    .await;
    assert_eq!(expired.code(), Code::Unauthenticated);
    assert!(expired.message().contains("expired"), "{expired}");

    // What was refused is counted and logged, without the token.
    let (_, metrics) = controller.get("/metrics").await;
    assert!(
        metrics.contains("controller_certificates_refused"),
        "{metrics}"
    );
    let log = controller.log();
    assert!(log.contains("refused to certify"), "{log}");
    // A token is base64 of JSON, which begins so.
    assert!(!log.contains("mesh1.ey"), "a token is in the log");
}
