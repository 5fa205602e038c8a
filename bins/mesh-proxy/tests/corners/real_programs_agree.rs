//! nginx, HAProxy, curl and Python's own server see through the mesh what they see without it.

use crate::controller::soon;
use crate::h2;
use crate::mesh::Mesh;
use crate::policy;
use crate::programs::{curl, found, haproxy, nginx, python_http};
use crate::wire::{app, mirror};

#[tokio::test(flavor = "multi_thread")]
async fn nginx_and_curl_over_http_1() {
    if !found(&["nginx", "curl"]) {
        return;
    }
    let mesh = Mesh::start();
    let _proxies = mesh.both().await;
    let behind = mesh.net.plain(1);
    let _behind = mirror(behind).await;
    let address = mesh.net.app();
    let config = format!(
        "large_client_header_buffers 4 128k;\nserver {{ listen {address}; root ROOT;\n\
         location /small {{ client_max_body_size 1k; proxy_pass http://{behind}; }}\n\
         location /large {{ client_max_body_size 100m; proxy_pass http://{behind}; proxy_http_version 1.1; }}\n\
         location /empty {{ return 204; }}\n\
         location /moved {{ return 301 /elsewhere; }}\n\
         location /echo {{ return 200 \"$http_x_large\"; }}\n}}"
    );
    let nginx = nginx(address, &config, &[("page", "a page of text")]).await;
    let web = format!("http://{}", mesh.net.web());
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "x".repeat(2 << 20)).unwrap();
    let file = file.path().to_str().unwrap();

    // curl keeps a body as large as this back until it hears 100, for a second at most.
    let refused = curl(&[
        "-H",
        "expect: 100-continue",
        "-T",
        file,
        &format!("{web}/small"),
    ])
    .await;
    assert_eq!((refused.status, refused.uploaded), (413, 0), "{refused:?}");
    let taken = curl(&[
        "-H",
        "expect: 100-continue",
        "-T",
        file,
        &format!("{web}/large"),
    ])
    .await;
    assert_eq!(
        (taken.status, taken.uploaded),
        (200, 2 << 20),
        "{}",
        taken.head
    );
    // Without waiting, the answer comes early, and arrives.
    let early = curl(&["-H", "expect:", "-T", file, &format!("{web}/small")]).await;
    assert_eq!(early.status, 413, "{early:?}");

    let page = curl(&[&format!("{web}/page")]).await;
    assert_eq!((page.status, page.body.as_str()), (200, "a page of text"));
    let etag = page
        .head
        .lines()
        .find(|line| line.starts_with("etag: "))
        .unwrap();
    let etag = format!("if-none-match: {}", &etag[6..]);
    let same = curl(&["-H", &etag, &format!("{web}/page")]).await;
    assert_eq!((same.status, same.body.as_str()), (304, ""), "{same:?}");
    let head = curl(&["--head", &format!("{web}/page")]).await;
    assert_eq!(head.status, 200);
    assert!(head.head.contains("content-length: 14"), "{}", head.head);
    let part = curl(&["-r", "2-5", &format!("{web}/page")]).await;
    assert_eq!((part.status, part.body.as_str()), (206, "page"));
    let empty = curl(&[&format!("{web}/empty")]).await;
    assert_eq!((empty.status, empty.body.as_str()), (204, ""));
    assert!(!empty.head.contains("content-length"), "{}", empty.head);
    let moved = curl(&[&format!("{web}/moved")]).await;
    assert!(moved.head.contains("location: http://"), "{}", moved.head);

    let large = "v".repeat(60_000);
    let header = format!("x-large: {large}");
    let echoed = curl(&["-H", &header, &format!("{web}/echo")]).await;
    assert_eq!((echoed.status, echoed.body.len()), (200, large.len()));
    for version in ["--http1.0", "--http1.1"] {
        let url = format!("{web}/page");
        let both = curl(&[version, &url, &url]).await;
        assert_eq!(both.status, 200, "{both:?}");
        assert_eq!(both.connections, if version == "--http1.0" { 2 } else { 1 });
    }
    // nginx took no request for more than it was.
    let log = nginx.file("access");
    assert!(!log.contains(" 400 "), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nginx_and_curl_over_http_2() {
    if !found(&["nginx", "curl"]) {
        return;
    }
    let mesh = Mesh::start();
    let _proxies = mesh.both().await;
    let address = mesh.net.app();
    let behind = mesh.net.plain(1);
    let _behind = mirror(behind).await;
    let config = format!(
        "server {{ listen {address} http2; root ROOT;\n\
         location /small {{ client_max_body_size 1k; proxy_pass http://{behind}; }}\n\
         location /large {{ client_max_body_size 100m; proxy_pass http://{behind}; }}\n\
         location /empty {{ return 204; }}\n}}"
    );
    let _nginx = nginx(address, &config, &[("page", "a page of text")]).await;
    let web = format!("http://{}", mesh.net.web());
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "x".repeat(2 << 20)).unwrap();
    let file = file.path().to_str().unwrap();
    let version = "--http2-prior-knowledge";
    let page = curl(&[version, &format!("{web}/page")]).await;
    assert_eq!((page.status, page.body.as_str()), (200, "a page of text"));
    let head = curl(&[version, "--head", &format!("{web}/page")]).await;
    assert!(head.head.contains("content-length: 14"), "{}", head.head);
    let empty = curl(&[version, &format!("{web}/empty")]).await;
    assert_eq!((empty.status, empty.body.as_str()), (204, ""));
    // curl takes nginx's early answer for an error, with or without a mesh; another client does not.
    let (mut sender, _connection) = h2::connect(mesh.net.web()).await;
    let request = http::Request::put(format!("{web}/small")).body(h2::full("x".repeat(2 << 20)));
    let refused = soon("an answer", sender.send_request(request.unwrap())).await;
    assert_eq!(refused.unwrap().status(), 413);
    let taken = curl(&[version, "-T", file, &format!("{web}/large")]).await;
    assert_eq!(
        (taken.status, taken.uploaded),
        (200, 2 << 20),
        "{}",
        taken.head
    );
    let part = curl(&[version, "-r", "2-5", &format!("{web}/page")]).await;
    assert_eq!((part.status, part.body.as_str()), (206, "page"));
}

#[tokio::test(flavor = "multi_thread")]
async fn pythons_server_of_http_1_0() {
    if !found(&["python3", "curl"]) {
        return;
    }
    let mesh = Mesh::start();
    let _proxies = mesh.both().await;
    let _server = python_http(mesh.net.app(), &[("page", "a page of text")]).await;
    for way in crate::ways(&mesh) {
        let page = format!("http://{way}/page");
        for version in ["--http1.0", "--http1.1"] {
            // It ends its connections; the client's stay, and end, as the client asks.
            let seen = curl(&[version, &page, &page, &page]).await;
            assert_eq!((seen.status, seen.body.as_str()), (200, "a page of text"));
            let kept = if version == "--http1.1" { 1 } else { 3 };
            assert_eq!(seen.connections, kept, "{way} {version}");
        }
        let head = curl(&["--head", &page]).await;
        assert!(head.head.contains("content-length: 14"), "{}", head.head);
        let refused = curl(&["-d", "body", &page]).await;
        assert_eq!(refused.status, 501, "it knows no POST");
        let missing = curl(&[&format!("http://{way}/missing")]).await;
        assert_eq!(missing.status, 404);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn haproxy_before_and_behind() {
    if !found(&["haproxy", "curl"]) {
        return;
    }
    let mesh = Mesh::start();
    let _proxies = mesh.both().await;
    let (app_address, before) = (mesh.net.plain(1), mesh.net.plain(2));
    let _app = app(app_address, |mut wire| async move {
        while let Some(request) = wire.request().await {
            let body = format!("{} {}", request.first, request.body.len());
            wire.send(format!(
                "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n",
                body.len()
            ))
            .await;
        }
    })
    .await;
    let (web, to) = (mesh.net.web(), mesh.net.app());
    // It takes HTTP/1 and HTTP/2 in the mesh's name, and sends either into the mesh.
    let _haproxy = haproxy(
        before,
        &format!(
            "frontend behind\n bind {to}\n default_backend app\nbackend app\n server app {app_address}\n\
             frontend before\n bind {before}\n use_backend h2 if {{ path_beg /2 }}\n default_backend h1\n\
             backend h1\n server web {web}\nbackend h2\n server web {web} proto h2\n"
        ),
    )
    .await;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "x".repeat(1 << 20)).unwrap();
    let file = file.path().to_str().unwrap();
    for version in ["--http1.1", "--http2-prior-knowledge"] {
        for path in ["/1", "/2"] {
            let url = format!("http://{before}{path}");
            let seen = curl(&[version, &url]).await;
            assert_eq!(
                (seen.status, seen.body),
                (200, format!("GET {path} HTTP/1.1 0"))
            );
            let seen = curl(&[version, "-T", file, &url]).await;
            assert_eq!(
                (seen.status, seen.body),
                (200, format!("PUT {path} HTTP/1.1 1048576"))
            );
            let seen = curl(&[
                version,
                "-H",
                "transfer-encoding: chunked",
                "-T",
                file,
                &url,
            ])
            .await;
            assert_eq!(
                (seen.status, seen.body),
                (200, format!("PUT {path} HTTP/1.1 1048576"))
            );
        }
    }
    // To an endpoint outside the mesh, with and without HTTP/2.
    mesh.says.endpoints("web.test:80", vec![policy::plain(to)]);
    for version in ["--http1.1", "--http2-prior-knowledge"] {
        let seen = curl(&[version, &format!("http://{web}/3")]).await;
        assert_eq!(
            (seen.status, seen.body.as_str()),
            (200, "GET /3 HTTP/1.1 0")
        );
    }
}
