//! HTTP/1 arrives as it was sent, though it crosses the mesh in HTTP/2.

use std::time::Duration;

use crate::mesh::Mesh;
use crate::wire::{Wire, app, ask, canned, mirror};

#[tokio::test(flavor = "multi_thread")]
async fn version_target_and_host_are_kept_and_hop_by_hop_headers_go() {
    let mesh = Mesh::start();
    let (_client, _server) = mesh.both().await;
    let _app = mirror(mesh.net.app()).await;
    let mut wire = Wire::connect(mesh.net.web()).await;

    let seen = wire
        .ask("GET /a?b=c HTTP/1.1\r\nHost: Some.Host:8080\r\nx-mine: 1\r\nconnection: x-hop, keep-alive\r\nx-hop: 2\r\nkeep-alive: timeout=5\r\nte: trailers, deflate\r\nproxy-connection: keep-alive\r\n\r\n")
        .await;
    assert_eq!(seen.status(), 200);
    assert_eq!(
        seen.body_text(),
        "GET /a?b=c HTTP/1.1\nhost: Some.Host:8080\nl5d-client-id: client.test\nte: trailers\nx-mine: 1\n\n"
    );

    let seen = wire
        .ask("OPTIONS * HTTP/1.1\r\nhost: web.test\r\n\r\n")
        .await;
    assert!(
        seen.body_text().starts_with("OPTIONS * HTTP/1.1\n"),
        "{}",
        seen.body_text()
    );

    let seen = wire
        .ask("GET http://web.test/abs HTTP/1.1\r\nhost: web.test\r\n\r\n")
        .await;
    assert!(
        seen.body_text()
            .starts_with("GET http://web.test/abs HTTP/1.1\nhost: web.test\n"),
        "{}",
        seen.body_text()
    );

    let seen = wire
        .ask("POST /p HTTP/1.1\r\nhost: web.test\r\ncontent-length: 5\r\n\r\nhello")
        .await;
    assert!(
        seen.body_text().ends_with("\n\nhello"),
        "{}",
        seen.body_text()
    );
    assert!(
        seen.body_text().contains("\ncontent-length: 5\n"),
        "{}",
        seen.body_text()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn http_1_0_stays_http_1_0_with_and_without_keep_alive() {
    let mesh = Mesh::start();
    let (_client, _server) = mesh.both().await;
    let _app = mirror(mesh.net.app()).await;

    let mut once = Wire::connect(mesh.net.web()).await;
    let seen = once
        .ask("GET /old HTTP/1.0\r\nhost: web.test\r\n\r\n")
        .await;
    assert!(seen.first.starts_with("HTTP/1.0 200"), "{}", seen.first);
    assert!(
        seen.body_text()
            .starts_with("GET /old HTTP/1.0\nhost: web.test\n"),
        "{}",
        seen.body_text()
    );
    assert!(once.ends_within(Duration::from_secs(5)).await);

    let mut kept = Wire::connect(mesh.net.web()).await;
    for path in ["/one", "/two"] {
        let seen = kept
            .ask(&format!(
                "GET {path} HTTP/1.0\r\nconnection: keep-alive\r\n\r\n"
            ))
            .await;
        assert_eq!(seen.header("connection").as_deref(), Some("keep-alive"));
        // An HTTP/1.0 client may leave Host out; the service's name stands in.
        assert!(
            seen.body_text()
                .starts_with(&format!("GET {path} HTTP/1.0\nhost: web.test:80\n")),
            "{}",
            seen.body_text()
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_http_1_0_client_gets_a_body_of_unknown_length_until_the_end() {
    let mesh = Mesh::start();
    let (_client, _server) = mesh.both().await;
    let _app = canned(
        mesh.net.app(),
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n",
    )
    .await;
    let mut wire = Wire::connect(mesh.net.web()).await;
    let seen = wire
        .ask("GET / HTTP/1.0\r\nconnection: keep-alive\r\n\r\n")
        .await;
    assert_eq!(
        (seen.body_text().as_str(), seen.header("transfer-encoding")),
        ("abcde", None)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn pipelined_requests_are_answered_in_order() {
    let mesh = Mesh::start();
    let (_client, _server) = mesh.both().await;
    let _app = mirror(mesh.net.app()).await;
    let mut wire = Wire::connect(mesh.net.web()).await;
    let requests: String = (0..20)
        .map(|n| format!("POST /{n} HTTP/1.1\r\nhost: web.test\r\ncontent-length: 3\r\n\r\n{n:03}"))
        .collect();
    wire.send(requests).await;
    for n in 0..20 {
        let seen = wire.response("POST").await.body_text();
        assert!(
            seen.starts_with(&format!("POST /{n} HTTP/1.1\n"))
                && seen.ends_with(&format!("\n{n:03}")),
            "{seen}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn responses_without_a_body_keep_their_length_and_the_connection() {
    let mesh = Mesh::start();
    let (_client, _server) = mesh.both().await;
    let _app = app(mesh.net.app(), |mut wire| async move {
        while let Some(request) = wire.request().await {
            let path = request.first.split(' ').nth(1).unwrap();
            let length = if path == "/204" {
                ""
            } else {
                "content-length: 1234\r\n"
            };
            wire.send(format!(
                "HTTP/1.1 {} Said\r\n{length}etag: \"x\"\r\n\r\n",
                &path[1..]
            ))
            .await;
        }
    })
    .await;
    let mut wire = Wire::connect(mesh.net.web()).await;
    for (method, status) in [("HEAD", 200), ("GET", 304), ("HEAD", 404)] {
        let seen = wire
            .ask(&format!(
                "{method} /{status} HTTP/1.1\r\nhost: web.test\r\n\r\n"
            ))
            .await;
        assert_eq!(
            (seen.status(), seen.header("etag").as_deref()),
            (status, Some("\"x\""))
        );
        // A 304 may go without.
        let length = seen
            .header("content-length")
            .or((status == 304).then(|| "1234".to_owned()));
        assert_eq!(length.as_deref(), Some("1234"), "{method} {status}");
    }
    for _ in 0..2 {
        let seen = wire
            .ask("DELETE /204 HTTP/1.1\r\nhost: web.test\r\n\r\n")
            .await;
        assert_eq!(
            (seen.status(), seen.header("transfer-encoding")),
            (204, None)
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn chunks_pass_both_ways_with_their_trailers() {
    let mesh = Mesh::start();
    let (_client, _server) = mesh.both().await;
    let _app = app(mesh.net.app(), |mut wire| async move {
        let request = wire.request().await.unwrap();
        assert_eq!(
            request.header("transfer-encoding").as_deref(),
            Some("chunked")
        );
        assert_eq!(request.header("content-length"), None);
        assert_eq!(request.header("te").as_deref(), Some("trailers"));
        assert_eq!(request.body, b"hello, world");
        wire.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n")
            .await;
        wire.send("4\r\nback\r\n0\r\nx-sum: 7\r\n\r\n").await;
    })
    .await;
    let mut wire = Wire::connect(mesh.net.web()).await;
    let seen = wire
        .ask("POST / HTTP/1.1\r\nhost: web.test\r\nte: trailers\r\nconnection: te\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n7\r\n, world\r\n0\r\n\r\n")
        .await;
    assert_eq!((seen.status(), seen.body_text().as_str()), (200, "back"));
    assert_eq!(seen.header("x-sum").as_deref(), Some("7"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_waits_for_100_is_told_to_go_on() {
    let mesh = Mesh::start();
    let (_client, _server) = mesh.both().await;
    let _app = mirror(mesh.net.app()).await;
    let mut wire = Wire::connect(mesh.net.web()).await;
    let interim = wire
        .ask(
            "PUT / HTTP/1.1\r\nhost: web.test\r\nexpect: 100-continue\r\ncontent-length: 4\r\n\r\n",
        )
        .await;
    assert_eq!(interim.status(), 100);
    wire.send("body").await;
    let seen = wire.response("PUT").await;
    assert!(
        seen.body_text().ends_with("\n\nbody"),
        "{}",
        seen.body_text()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn interim_responses_of_the_application_do_not_disturb_the_final_one() {
    let mesh = Mesh::start();
    let (_client, _server) = mesh.both().await;
    let _app = canned(mesh.net.app(), "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
    let mut wire = Wire::connect(mesh.net.web()).await;
    for _ in 0..2 {
        wire.send("GET / HTTP/1.1\r\nhost: web.test\r\n\r\n").await;
        let mut seen = wire.response("GET").await;
        if seen.status() == 103 {
            seen = wire.response("GET").await;
        }
        assert_eq!((seen.status(), seen.body_text().as_str()), (200, "ok"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn large_bodies_pass_both_ways_in_bounded_memory() {
    const SIZE: usize = 32 << 20;
    let mesh = Mesh::start();
    let (client, server) = mesh.both().await;
    let _app = app(mesh.net.app(), |mut wire| async move {
        let head = wire.head().await.unwrap();
        let length: usize = head.header("content-length").unwrap().parse().unwrap();
        wire.send(format!(
            "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n"
        ))
        .await;
        let mut left = length;
        while left > 0 {
            let piece = wire.exactly(left.min(1 << 16)).await;
            wire.send(&piece).await;
            left -= piece.len();
        }
    })
    .await;
    let before = [client.peak_memory(), server.peak_memory()];
    // Numbers, so that what is lost, doubled or swapped shows.
    let piece = |index: usize| -> Vec<u8> {
        (0..1 << 13)
            .flat_map(|n| ((index << 13) + n).to_be_bytes())
            .collect()
    };
    let (mut reader, mut writer) = soon_connect(mesh.net.web()).await;
    let sending = async {
        use tokio::io::AsyncWriteExt;
        writer
            .write_all(
                format!("POST / HTTP/1.1\r\nhost: web.test\r\ncontent-length: {SIZE}\r\n\r\n")
                    .as_bytes(),
            )
            .await
            .unwrap();
        for index in 0..SIZE >> 16 {
            writer.write_all(&piece(index)).await.unwrap();
        }
    };
    let receiving = async {
        use tokio::io::{AsyncBufReadExt, AsyncReadExt};
        let mut line = String::new();
        while line != "\r\n" {
            line.clear();
            reader.read_line(&mut line).await.unwrap();
        }
        let mut seen = vec![0; 1 << 16];
        for index in 0..SIZE >> 16 {
            reader.read_exact(&mut seen).await.unwrap();
            assert!(seen == piece(index), "piece {index} is another");
            if index == 2 {
                // A slow reader must slow the sender down, not fill the proxies.
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
        }
    };
    crate::controller::soon("the bodies", async { tokio::join!(sending, receiving) }).await;
    let after = [client.peak_memory(), server.peak_memory()];
    for (before, after) in before.into_iter().zip(after) {
        assert!(
            after < before + (SIZE as u64) / 2,
            "{before} bytes became {after}"
        );
    }
}

async fn soon_connect(
    address: std::net::SocketAddr,
) -> (
    tokio::io::BufReader<tokio::net::tcp::OwnedReadHalf>,
    tokio::net::tcp::OwnedWriteHalf,
) {
    let (reader, writer) = tokio::net::TcpStream::connect(address)
        .await
        .unwrap()
        .into_split();
    (tokio::io::BufReader::new(reader), writer)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_line_in_single_bytes_is_still_http() {
    let mesh = Mesh::start();
    let (_client, _server) = mesh.both().await;
    let _app = mirror(mesh.net.app()).await;
    let mut wire = Wire::connect(mesh.net.web()).await;
    for byte in b"GET /slow HTTP/1.1\r\nhost: web.test\r\n\r\n" {
        wire.send([*byte]).await;
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert!(
        wire.response("GET")
            .await
            .body_text()
            .starts_with("GET /slow HTTP/1.1\n")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_outside_the_mesh_sees_the_same() {
    let mesh = Mesh::start();
    let _client = mesh.client("").await;
    mesh.says
        .endpoints("web.test:80", vec![crate::policy::plain(mesh.net.plain(0))]);
    let _app = mirror(mesh.net.plain(0)).await;
    let seen = ask(
        mesh.net.web(),
        "GET /a HTTP/1.1\r\nhost: web.test\r\nconnection: x\r\nx: 1\r\nte: gzip\r\n\r\n",
    )
    .await;
    assert_eq!(seen.body_text(), "GET /a HTTP/1.1\nhost: web.test\n\n");
    let seen = ask(mesh.net.web(), "GET /a HTTP/1.0\r\n\r\n").await;
    assert_eq!(seen.body_text(), "GET /a HTTP/1.0\nhost: web.test:80\n\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_smuggled_past_the_proxies() {
    let mesh = Mesh::start();
    let _proxies = mesh.both().await;
    let _app = mirror(mesh.net.app()).await;
    let _outside = mirror(mesh.net.plain(0)).await;
    let other = crate::controller::messages::balanced("other", "other.test:80");
    mesh.says.policy("other.test:80", other);
    mesh.says.endpoints(
        "other.test:80",
        vec![crate::policy::plain(mesh.net.plain(0))],
    );
    for address in [mesh.net.web(), mesh.net.mesh_port(), mesh.net.other()] {
        // Two hosts, of which each side may believe another one.
        let seen = ask(
            address,
            "GET / HTTP/1.1\r\nhost: a.test\r\nhost: b.test\r\n\r\n",
        )
        .await;
        assert_eq!(seen.status(), 400, "{address}");
        let seen = ask(
            address,
            "GET http://a.test/ HTTP/1.1\r\nhost: b.test\r\n\r\n",
        )
        .await
        .body_text();
        assert!(
            address == mesh.net.mesh_port() || !seen.contains("b.test"),
            "{address}: {seen}"
        );
        // Two lengths: a second request must not hide in the body of the first.
        for framing in [
            "content-length: 4\r\ntransfer-encoding: chunked",
            "transfer-encoding: chunked\r\ncontent-length: 4",
            "content-length: 4\r\ncontent-length: 5",
            "transfer-encoding: chunked, identity",
        ] {
            let mut wire = Wire::connect(address).await;
            wire.send(format!(
                "POST /first HTTP/1.1\r\nhost: a.test\r\n{framing}\r\n\r\n0\r\n\r\nGET /second HTTP/1.1\r\nhost: a.test\r\n\r\n"
            ))
            .await;
            let seen = wire.response("POST").await;
            if seen.status() == 200 {
                let text = seen.body_text();
                assert!(!text.contains("/second"), "{address} {framing}: {text}");
                assert!(
                    !(text.contains("content-length") && text.contains("transfer-encoding")),
                    "{address} {framing}: {text}"
                );
            } else {
                assert!(
                    matches!(seen.status(), 400 | 502),
                    "{address} {framing}: {}",
                    seen.first
                );
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_before_the_end_of_the_body_arrives() {
    let mesh = Mesh::start();
    let _proxies = mesh.both().await;
    let _app = app(mesh.net.app(), |mut wire| async move {
        wire.head().await.unwrap();
        wire.send(
            "HTTP/1.1 413 Content Too Large\r\ncontent-length: 2\r\nconnection: close\r\n\r\nno",
        )
        .await;
        // It reads no further, but leaves the client time to hear it.
        wire.finish().await;
        tokio::time::sleep(Duration::from_secs(1)).await;
    })
    .await;
    for length in [1 << 10, 8 << 20] {
        let (mut reader, mut writer) = soon_connect(mesh.net.web()).await;
        let head = format!("POST / HTTP/1.1\r\nhost: web.test\r\ncontent-length: {length}\r\n\r\n");
        let sending = tokio::spawn(async move {
            use tokio::io::AsyncWriteExt;
            writer.write_all(head.as_bytes()).await.unwrap();
            for _ in 0..length / 1024 {
                if writer.write_all(&[b'x'; 1024]).await.is_err() {
                    return;
                }
            }
            // Held open: the client waits for its answer.
            tokio::time::sleep(Duration::from_secs(5)).await;
        });
        let mut line = String::new();
        use tokio::io::AsyncBufReadExt;
        crate::controller::soon("the answer", reader.read_line(&mut line))
            .await
            .unwrap();
        assert!(line.starts_with("HTTP/1.1 413 "), "{length}: {line}");
        sending.abort();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_side_ends_its_own_connection() {
    let mesh = Mesh::start();
    let _proxies = mesh.both().await;
    let _app = app(mesh.net.app(), |mut wire| async move {
        let request = wire.request().await.unwrap();
        assert_eq!(request.header("connection"), None);
        // Until the end, as an HTTP/1.0 server does.
        wire.send("HTTP/1.0 200 OK\r\nconnection: close\r\n\r\nto the end")
            .await;
    })
    .await;
    let mut wire = Wire::connect(mesh.net.web()).await;
    for _ in 0..3 {
        let seen = wire.ask("GET / HTTP/1.1\r\nhost: web.test\r\n\r\n").await;
        assert_eq!(seen.body_text(), "to the end");
        assert_eq!(seen.header("connection"), None);
    }
    let seen = wire
        .ask("GET / HTTP/1.1\r\nhost: web.test\r\nconnection: close\r\n\r\n")
        .await;
    assert_eq!(seen.header("connection").as_deref(), Some("close"));
    assert!(wire.ends_within(Duration::from_secs(5)).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_cut_off_is_not_taken_for_whole() {
    let mesh = Mesh::start();
    let _proxies = mesh.both().await;
    let _app = app(mesh.net.app(), |mut wire| async move {
        wire.request().await.unwrap();
        wire.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n")
            .await;
    })
    .await;
    let mut wire = Wire::connect(mesh.net.web()).await;
    wire.send("GET / HTTP/1.1\r\nhost: web.test\r\n\r\n").await;
    assert_eq!(wire.head().await.unwrap().status(), 200);
    let rest = wire.rest().await;
    assert!(!rest.ends_with(b"0\r\n\r\n"), "{}", rest.escape_ascii());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_cut_off_is_not_taken_for_whole() {
    let mesh = Mesh::start();
    let _proxies = mesh.both().await;
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let _app = app(mesh.net.app(), move |mut wire| {
        let tell = tell.clone();
        async move {
            wire.head().await.unwrap();
            tell.send(wire.exactly(9).await).unwrap();
            tell.send(wire.rest_if_any().await).unwrap();
        }
    })
    .await;
    let mut wire = Wire::connect(mesh.net.web()).await;
    let half = "4\r\nhalf\r\n";
    wire.send(format!(
        "POST / HTTP/1.1\r\nhost: web.test\r\ntransfer-encoding: chunked\r\n\r\n{half}"
    ))
    .await;
    let seen = crate::controller::soon("half of the body", told.recv()).await;
    assert_eq!(seen.unwrap(), half.as_bytes());
    drop(wire);
    let seen = crate::controller::soon("the end", told.recv()).await;
    assert_eq!(seen.unwrap(), b"", "no last chunk");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_arrives_whatever_the_method() {
    let mesh = Mesh::start();
    let (_client, _server) = mesh.both().await;
    let _app = mirror(mesh.net.app()).await;
    // Over HTTP/2 and, from a client that is not in the mesh, over HTTP/1 all the way.
    for address in [mesh.net.web(), mesh.net.mesh_port()] {
        let mut wire = Wire::connect(address).await;
        for method in ["GET", "DELETE", "OPTIONS", "POST"] {
            let seen = wire
                .ask(&format!(
                    "{method} / HTTP/1.1\r\nhost: web.test\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
                ))
                .await
                .body_text();
            assert!(
                seen.starts_with(&format!("{method} / HTTP/1.1\n"))
                    && seen.ends_with("\ntransfer-encoding: chunked\n\nhello"),
                "{seen}"
            );
            let seen = wire
                .ask(&format!(
                    "{method} / HTTP/1.1\r\nhost: web.test\r\ncontent-length: 5\r\n\r\nhello"
                ))
                .await
                .body_text();
            assert!(
                seen.contains("\ncontent-length: 5\n") && seen.ends_with("\n\nhello"),
                "{seen}"
            );
        }
    }
}
