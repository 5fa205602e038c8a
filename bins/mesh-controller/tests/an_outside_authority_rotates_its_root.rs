//! An outside authority, played by openssl, rotates its root under a running controller.

// Functions beside the tests may panic as the tests do.
#![allow(clippy::unwrap_used)]

mod support;

use std::{fs, path::Path, process::Command};

use mesh_control_api::admin::{
    ChangeTrustRequest, GetTrustRequest, RotateTrust, Trust, change_trust_request::Word,
};
use support::{Controller, DAY, certify, identity, until};

const MESH: &str = "apiVersion: mesh-rs.io/v1alpha1\nkind: MeshConfig\nmetadata: {name: mesh}\nspec: {leafLifetime: 10s}\n";

/// Runs openssl in a folder.
fn openssl(folder: &Path, arguments: &str) {
    let output = Command::new("openssl")
        .args(arguments.split_whitespace())
        .current_dir(folder)
        .output()
        .expect("openssl is installed (scripts/setup-tests)");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "openssl {arguments}: {said}");
}

/// A root, `root-N.crt`, and its key.
fn root(folder: &Path, number: u32) {
    openssl(
        folder,
        &format!(
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 400 -keyout root-{number}.key \
             -out root-{number}.crt -subj /O=Example/CN=root-{number} -addext keyUsage=critical,keyCertSign,cRLSign"
        ),
    );
}

/// An issuer below a root, `issuer-NAME.crt`, and its key.
fn issuer(folder: &Path, name: &str, below: u32) {
    openssl(
        folder,
        &format!(
            "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout issuer-{name}.key -out issuer.csr \
             -subj /CN=issuer-{name}"
        ),
    );
    fs::write(
        folder.join("issuer.ext"),
        "basicConstraints=critical,CA:TRUE,pathlen:0\nkeyUsage=critical,keyCertSign,cRLSign\n\
         subjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n",
    )
    .unwrap();
    openssl(
        folder,
        &format!(
            "x509 -req -in issuer.csr -CA root-{below}.crt -CAkey root-{below}.key -CAcreateserial -days 300 \
             -extfile issuer.ext -out issuer-{name}.crt"
        ),
    );
}

/// Writes what the controller is to use.
fn write(folder: &Path, to: &Path, anchor: u32, issuer: &str) {
    for (from, name) in [
        (format!("root-{anchor}.crt"), "ca.crt"),
        (format!("issuer-{issuer}.crt"), "tls.crt"),
        (format!("issuer-{issuer}.key"), "tls.key"),
    ] {
        fs::copy(folder.join(from), to.join(name)).unwrap();
    }
}

async fn trust(controller: &Controller) -> Trust {
    let answer = controller.admin().await.get_trust(GetTrustRequest {}).await;
    answer.unwrap().into_inner()
}

fn in_use(trust: &Trust) -> String {
    let mut anchors = trust.anchors.iter();
    let in_use = anchors.find(|anchor| anchor.state == "in use");
    in_use.unwrap().id.clone()
}

/// Waits until the controller says so of what was written.
async fn offered(controller: &Controller, word: &str) -> Trust {
    loop {
        let now = trust(controller).await;
        let root = now.root.clone().unwrap();
        assert_eq!(root.kind, "outside");
        if root.offer == word && now.change.is_none() && now.anchors.len() == 1 {
            return now;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn twice_and_wrongly_in_between() {
    let work = tempfile::tempdir().unwrap();
    let (made, written) = (work.path().join("made"), work.path().join("written"));
    for folder in [&made, &written] {
        fs::create_dir(folder).unwrap();
    }
    for number in 0..3 {
        root(&made, number);
        issuer(&made, &number.to_string(), number);
    }
    write(&made, &written, 0, "0");
    let outside = ["--outside-ca", written.to_str().unwrap()];
    let controller = Controller::start(&[("mesh.yaml", MESH)], &outside).await;
    let web = identity("web");
    let (token, _) = controller.token(&web, DAY).await;
    let first = offered(&controller, "in force").await;
    // What was made a moment ago is not valid yet by clocks that lag.
    while let Err(error) = certify(controller.proxy_api(), &web, &token).await {
        assert!(error.message().contains("is not valid now"), "{error}");
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }

    // Nobody but the authority makes another.
    let word = Word::Rotate(RotateTrust { issuer_only: true });
    let rotate = ChangeTrustRequest { word: Some(word) };
    let refused = controller.admin().await.change_trust(rotate).await;
    assert!(refused.unwrap_err().message().contains("come from"));

    let mut last = in_use(&first);
    for number in [1, 2] {
        // The anchors alone, from one moment to the next: it is refused by name, and certificates are issued as before.
        fs::copy(
            made.join(format!("root-{number}.crt")),
            written.join("ca.crt"),
        )
        .unwrap();
        let refused = offered(&controller, "refused").await;
        let why = refused.root.unwrap().detail;
        assert!(why.contains("tls.crt:1: issuer: no anchor in"), "{why}");
        assert!(why.contains(&format!("CN=root-{number}")), "{why}");
        controller
            .wait_metric("controller_trust_outside_refused", 1)
            .await;
        certify(controller.proxy_api(), &web, &token).await.unwrap();

        // Then all: the old anchor is given out until nobody needs it.
        write(&made, &written, number, &number.to_string());
        let anchors = controller.data().join("anchors.pem");
        let count = || {
            let text = fs::read_to_string(&anchors).unwrap();
            text.matches("BEGIN CERTIFICATE").count()
        };
        until("both anchors", || (count() == 2).then_some(())).await;
        let after = tokio::time::timeout(
            std::time::Duration::from_secs(120),
            offered(&controller, "in force"),
        );
        let after = after.await.unwrap();
        assert_eq!((after.last_outcome.as_str(), count()), ("completed", 1));
        assert_ne!(in_use(&after), last);
        last = in_use(&after);
        certify(controller.proxy_api(), &web, &token).await.unwrap();
    }
    controller
        .wait_metric("controller_trust_outside_refused", 0)
        .await;
    let (_, metrics) = controller.get("/metrics").await;
    assert!(metrics.contains("\ncontroller_trust_issuer_needed_timestamp_seconds{"));
}
