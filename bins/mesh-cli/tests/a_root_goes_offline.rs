//! The root's key is exported and removed from a running mesh; an issuer that was signed offline takes over.

#![allow(clippy::unwrap_used)]

mod running;

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Output;

use running::{Up, get, manifests, mesh, said, turn};

#[test]
fn and_the_mesh_goes_on_with_issuers_that_were_signed_elsewhere() {
    let Some(_turn) = turn() else { return };
    let folder = manifests(31);
    let config = folder.path().join("mesh.yaml");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(
        &config,
        text.replace("leafLifetime: 24h", "leafLifetime: 10s"),
    )
    .unwrap();
    let (data, safe) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let data = data.path().to_str().unwrap();
    let mut up = Up::start(&["up", folder.path().to_str().unwrap(), "--data", data]);
    up.expect("mesh is ready");

    let trust = |arguments: &[&str]| -> Output {
        let all = [&["trust"], arguments, &["--data", data]].concat();
        mesh(&all).output().unwrap()
    };
    let done = |arguments: &[&str]| -> String {
        let output = trust(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", said(&output));
        said(&output)
    };
    let path = |name: &str| -> String { safe.path().join(name).to_str().unwrap().to_owned() };
    let (root, csr, signed) = (path("root"), path("issuer.csr"), path("issuer.pem"));

    let without = trust(&["remove-root", &root, "--yes"]);
    assert!(
        !without.status.success(),
        "it was not exported: {}",
        said(&without)
    );
    let said_of_it = done(&["export-root", &root]);
    assert!(!said_of_it.contains("BEGIN"), "{said_of_it}");
    let key = Path::new(&root).join("anchor.key.pem");
    let mode = std::fs::metadata(&key).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let removed = done(&["remove-root", &root, "--yes"]);
    assert!(
        removed.contains("another issuer is needed within"),
        "{removed}"
    );
    let status = done(&["status"]);
    assert!(status.contains("The anchor's key is not here"), "{status}");
    let refused = trust(&["rotate", "--issuer-only", "--yes"]);
    assert!(said(&refused).contains("is not here"), "{}", said(&refused));

    done(&["issuer-request", &csr]);
    done(&[
        "sign-issuer",
        "--root",
        &root,
        "--request",
        &csr,
        "--out",
        &signed,
    ]);
    let before = issuer(&done(&["status", "--json"]));
    done(&["import", "--issuer", &signed, "--yes"]);
    let after = issuer(&done(&["status", "--json"]));
    assert_ne!(before, after);
    // Through the proxy of whoever sits at this machine; the table says where it is.
    let call = up
        .seen
        .iter()
        .find_map(|line| line.split("curl http://").nth(1))
        .unwrap();
    let client: std::net::SocketAddr = call.split('/').next().unwrap().parse().unwrap();
    let answer = get(
        (client.ip(), 15_000),
        "http://web.default.svc.cluster.local/hello",
    );
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");

    let certificate = Path::new(&root).join("anchor.pem");
    let (certificate, key) = (certificate.to_str().unwrap(), key.to_str().unwrap());
    done(&[
        "import",
        "--anchor",
        certificate,
        "--anchor-key",
        key,
        "--yes",
    ]);
    let status = done(&["status", "--json"]);
    assert!(status.contains("\"kind\":\"here\""), "{status}");
}

/// Who signs.
fn issuer(status: &str) -> String {
    let status: serde_json::Value = serde_json::from_str(status.trim()).unwrap();
    let issuers = status["issuers"].as_array().unwrap();
    let signs = issuers.iter().find(|issuer| issuer["signs"] == true);
    signs.unwrap()["id"].as_str().unwrap().to_owned()
}
