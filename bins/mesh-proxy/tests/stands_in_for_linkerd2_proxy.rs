//! Started with the variables of linkerd2-proxy and nothing else, the program does what that one does: it has the key of
//! its folder certified by the request there, asks each service of the controller where that is, and carries traffic.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![cfg(unix)]

mod controller;
mod process;

use std::io::{BufRead, BufReader};
use std::time::SystemTime;

use controller::{Controller, soon};
use mesh_http::transport_header::{self, TransportHeader};
use mesh_proxy::config::linkerd::{HONOURED, NOT_HONOURED};
use mesh_tls::ca::Authority;
use mesh_tls::{
    CredentialWriter, Identity, LeafKey, Tls, TrustBundle, TrustWriter, credential_store,
    trust_store,
};
use process::{HOUR, NAME, Proxy, authority, free_address, issue};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// A client of the mesh, which trusts what `authority` issues.
fn client(authority: &Authority) -> (Tls, (TrustWriter, CredentialWriter)) {
    let bundle = TrustBundle::from_pem(0, authority.anchor_pem().as_bytes()).unwrap();
    let (trust_writer, trust) = trust_store(bundle);
    let (credential_writer, credentials) = credential_store();
    let (key, name) = (LeafKey::generate().unwrap(), "client.example");
    let name: Identity = name.parse().unwrap();
    let csr = key.csr(&name).unwrap();
    let leaf = authority.issue(&csr, &name, HOUR, SystemTime::now());
    let chain = leaf.unwrap().into_chain();
    credential_writer.set(key.credentials(chain).unwrap());
    (
        Tls::new(trust, credentials),
        (trust_writer, credential_writer),
    )
}

/// Answers each connection with what it read, upside down.
async fn application() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut text = [0; 4];
                stream.read_exact(&mut text).await.unwrap();
                text.reverse();
                stream.write_all(&text).await.unwrap();
            });
        }
    });
    port
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_certified_and_carries_traffic_by_the_variables_alone() {
    let authority = authority();
    let (mut policy, mut identity) = (Controller::start(), Controller::start());
    let folder = tempfile::tempdir().unwrap();
    let key = LeafKey::generate().unwrap();
    let csr = key.csr(&NAME.parse().unwrap()).unwrap();
    let file = |name: &str, bytes: &[u8]| {
        std::fs::write(folder.path().join(name), bytes).unwrap();
        folder.path().join(name).display().to_string()
    };
    file("key.p8", key.to_pkcs8_der().secret_pkcs8_der());
    file("csr.der", &csr);
    let token = file("token", b"the-token");
    let (inbound, port) = (free_address(), application().await);
    let at = |controller: &Controller| format!("localhost.:{}", controller.address.port());
    let mut proxy = Proxy::stand_in(
        &[
            ("DESTINATION_SVC_ADDR", &at(&policy)),
            // Others go over it: the address is a loopback address.
            ("DESTINATION_SVC_NAME", "linkerd-destination.example"),
            ("POLICY_SVC_ADDR", &at(&policy)),
            ("POLICY_WORKLOAD", r#"{"ns":"default","pod":"web-1"}"#),
            ("IDENTITY_SVC_ADDR", &identity.address.to_string()),
            ("IDENTITY_LOCAL_NAME", NAME),
            ("IDENTITY_TRUST_ANCHORS", &authority.anchor_pem()),
            ("IDENTITY_DIR", &folder.path().display().to_string()),
            ("IDENTITY_TOKEN_FILE", &token),
            ("INBOUND_LISTEN_ADDR", &inbound.to_string()),
            ("INBOUND_PORTS", &port.to_string()),
            (
                "OUTBOUND_LISTEN_ADDRS",
                &format!("{},[::1]:0", free_address()),
            ),
            ("LOG", "warn,linkerd=info"),
            ("TRACE_COLLECTOR_SVC_ADDR", "collector.example:4317"),
            ("FRESHLY_INVENTED", "yes"),
        ],
        folder,
    );

    let call = identity.certify.next().await;
    assert_eq!(call.request.identity, NAME);
    assert_eq!(call.request.token, b"the-token");
    assert_eq!(call.request.certificate_signing_request, csr);
    let certificate = issue(&authority, &call.request);
    call.reply(certificate);
    proxy.until("/ready", |status, _| status == 200).await;
    assert!(identity.ports.is_empty() && policy.certify.is_empty());

    // Its port is watched before anybody calls; that nothing is known of it leaves the default, which lets everyone in.
    let watch = policy.ports.next().await;
    assert_eq!(watch.request.workload, r#"{"ns":"default","pod":"web-1"}"#);
    assert_eq!(watch.request.port, u32::from(port));
    watch.refuse(tonic::Code::NotFound);

    let (tls, _writers) = client(&authority);
    let connect = async {
        let tcp = TcpStream::connect(inbound).await.unwrap();
        let client = tls.client(&[transport_header::ALPN]);
        let mut stream = client
            .connect(tcp, &NAME.parse().unwrap(), None)
            .await
            .unwrap();
        let header = TransportHeader {
            port,
            name: None,
            session: None,
        };
        stream.write_all(&header.encode()).await.unwrap();
        stream.write_all(b"ping").await.unwrap();
        let mut answer = [0; 4];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"gnip");
    };
    soon("traffic", connect).await;

    let (_, config) = proxy.get("/config").unwrap();
    let json: serde_json::Value = serde_json::from_str(&config).unwrap();
    let unheeded = serde_json::json!({
        "not_honoured": ["LINKERD2_PROXY_TRACE_COLLECTOR_SVC_ADDR"],
        "overridden": ["LINKERD2_PROXY_DESTINATION_SVC_NAME"],
        "unknown": ["LINKERD2_PROXY_FRESHLY_INVENTED"],
    });
    assert_eq!(json["linkerd2_proxy"], unheeded);
    proxy.signal("-TERM");
    assert_eq!(proxy.wait().code(), Some(0));
    let log = BufReader::new(proxy.process.stderr.take().unwrap());
    let told: Vec<_> = log
        .lines()
        .map(Result::unwrap)
        .filter(|line| line.contains("FRESHLY_INVENTED"))
        .collect();
    assert_eq!(told.len(), 1, "once: {told:?}");
    assert!(told[0].contains("TRACE_COLLECTOR_SVC_ADDR"));
}

#[tokio::test(flavor = "multi_thread")]
async fn it_says_which_file_it_misses() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().display().to_string();
    let mut proxy = Proxy::stand_in(
        &[
            ("DESTINATION_SVC_ADDR", "localhost.:1"),
            ("POLICY_SVC_ADDR", "localhost.:1"),
            ("POLICY_WORKLOAD", "w"),
            ("IDENTITY_SVC_ADDR", "localhost.:1"),
            ("IDENTITY_LOCAL_NAME", NAME),
            ("IDENTITY_TRUST_ANCHORS", &authority().anchor_pem()),
            ("IDENTITY_DIR", &path),
            ("IDENTITY_TOKEN_FILE", "token"),
            ("INBOUND_LISTEN_ADDR", "127.0.0.1:0"),
            ("OUTBOUND_LISTEN_ADDR", "127.0.0.1:0"),
        ],
        folder,
    );
    assert_eq!(proxy.wait().code(), Some(1));
    let log = std::io::read_to_string(proxy.process.stderr.take().unwrap()).unwrap();
    assert!(
        log.contains(&format!("{path}/key.p8 (identity.key_dir)")),
        "{log}"
    );
}

#[test]
fn the_readme_lists_every_variable() {
    let readme = include_str!("../README.md");
    let mut keys: Vec<_> = HONOURED
        .iter()
        .map(|variable| {
            let default = variable
                .default
                .map_or(String::new(), |default| format!("`{default}`"));
            format!(
                "| `{}` | `{}` | {} |",
                variable.name,
                variable.key,
                default.replace("``", "nothing")
            )
        })
        .collect();
    keys.extend(
        NOT_HONOURED
            .iter()
            .map(|(name, why)| format!("| `{name}` | {why} |")),
    );
    let missing: Vec<_> = keys
        .iter()
        .filter(|line| !readme.contains(line.as_str()))
        .map(String::as_str)
        .collect();
    assert!(
        missing.is_empty(),
        "README.md lacks these lines:\n{}",
        missing.join("\n")
    );
    let is_variable = |name: &str| {
        let plain = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_';
        name.bytes().all(plain) && !name.ends_with('_')
    };
    let listed = readme
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    let listed = listed.filter(|name| is_variable(name)).count();
    assert_eq!(listed, keys.len(), "and no other");
}
