//! HAProxy: HTTP/2 between the two, one thread each.

use std::fmt::Write as _;
use std::path::Path;

use super::{Certificates, Kind, Links, Running, start_pair};
use crate::error::Error;
use crate::stage::Ground;

pub(super) async fn start(
    ground: &Ground,
    program: &Path,
    certificates: &Certificates,
) -> Result<Running, Error> {
    let links = Links::of(Kind::Haproxy, ground);
    let files = [
        ("client.cfg", client(&links, certificates)),
        ("server.cfg", server(&links, certificates)),
    ];
    let running = start_pair(ground, Kind::Haproxy, program, &["-db", "-q", "-f"], &files)?;
    running.answers(ground).await?;
    Ok(running)
}

fn client(links: &Links, certificates: &Certificates) -> String {
    let mut text = shared();
    let tls = format!(
        "ssl verify required ca-file {} crt {} sni str({name}) verifyhost {name} no-ssl-reuse",
        certificates.path("ca.pem"),
        certificates.path("client/both.pem"),
        name = Certificates::SERVER_NAME
    );
    let [http1, http2, tcp] = links.listen;
    let [far1, far2, far_tcp] = links.between;
    pipe(
        &mut text,
        "http1",
        "http",
        &http1,
        &format!("{far1} {tls} alpn h2"),
    );
    pipe(
        &mut text,
        "http2",
        "http",
        &format!("{http2} proto h2"),
        &format!("{far2} {tls} alpn h2"),
    );
    pipe(&mut text, "tcp", "tcp", &tcp, &format!("{far_tcp} {tls}"));
    text
}

fn server(links: &Links, certificates: &Certificates) -> String {
    let mut text = shared();
    let tls = format!(
        "ssl crt {} ca-file {} verify required",
        certificates.path("server/both.pem"),
        certificates.path("ca.pem")
    );
    let [far1, far2, far_tcp] = links.between;
    let [app1, app2, app_tcp] = links.apps;
    pipe(
        &mut text,
        "http1",
        "http",
        &format!("{far1} {tls} alpn h2"),
        &app1,
    );
    pipe(
        &mut text,
        "http2",
        "http",
        &format!("{far2} {tls} alpn h2"),
        &format!("{app2} proto h2"),
    );
    pipe(
        &mut text,
        "tcp",
        "tcp",
        &format!("{far_tcp} {tls}"),
        &app_tcp,
    );
    text
}

/// No resumption, as the mesh has none. Room for 10,000 idle connections, even if the system lets it have fewer files than that
/// many busy ones would need.
fn shared() -> String {
    let suite = super::CIPHER_SUITE;
    let group = super::KEY_EXCHANGE;
    format!(
        "global\n  nbthread 1\n  no strict-limits\n  maxconn 12000\n  tune.h2.max-concurrent-streams 1000\n  \
         ssl-default-bind-options ssl-min-ver TLSv1.3 no-tls-tickets\n  ssl-default-bind-ciphersuites {suite}\n  \
         ssl-default-bind-curves {group}\n  ssl-default-server-options ssl-min-ver TLSv1.3 no-tls-tickets\n  \
         ssl-default-server-ciphersuites {suite}\n\
         defaults\n  timeout connect 5s\n  timeout client 1h\n  timeout server 1h\n  timeout http-keep-alive 1h\n  \
         http-reuse always\n"
    )
}

/// One way in and where it leads.
fn pipe(
    text: &mut String,
    name: &str,
    mode: &str,
    listen: &impl std::fmt::Display,
    to: &impl std::fmt::Display,
) {
    // Writing to a string cannot fail.
    let _ = write!(
        text,
        "listen {name}\n  mode {mode}\n  bind {listen}\n  server next {to}\n"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_verify_and_speak_the_pinned_cryptography() {
        let links = Links::example();
        let folder = tempfile::tempdir().unwrap();
        let certificates = Certificates::make(folder.path()).unwrap();
        for text in [client(&links, &certificates), server(&links, &certificates)] {
            assert_eq!(text.matches("verify required").count(), 3, "{text}");
            assert!(text.contains("ciphersuites TLS_AES_128_GCM_SHA256\n"));
            assert!(text.contains("curves X25519\n"));
            assert!(text.contains("nbthread 1\n"));
        }
        assert!(client(&links, &certificates).contains("verifyhost server.test"));
    }
}
