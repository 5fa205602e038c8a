use e2e::{App, MESH, Mesh, Network, Program, Requirement, require};

#[test]
fn and_carries_what_is_redirected() {
    if !require(&[&MESH[..], &[Requirement::Built("mesh")]].concat()) {
        return;
    }
    let network = Network::new();
    let mesh = Mesh::start(&network, "inbound: {defaultPolicy: all-unauthenticated}");
    let stranger = network.host("stranger");
    let service = mesh.service("web", &[(8080, "http"), (8090, "opaque")]);
    let client = mesh.published(Program::StandIn, "client", "client", &[]);
    let ports = [(8080, "http"), (8090, "opaque")];
    let web = mesh.published(Program::StandIn, "web-1", "web", &ports);
    let _http = App::start(&web.host, "one", 8080);
    let _opaque = App::start(&web.host, "one", 8090);

    let url = format!("http://{service}:8080/");
    client.host.wait_status(&url, 200);
    let seen = client
        .host
        .curl(&format!("{url}echo"), &["--data", "hello"]);
    assert!(seen.body.starts_with("hello"), "{seen:?}");
    let opaque = client
        .host
        .curl(&format!("http://{service}:8090/"), &["--http1.0"]);
    assert_eq!(opaque.status, 200, "{opaque:?}");
    let seen = client.host.curl(&format!("{url}seen"), &[]);
    assert!(seen.body.contains(&client.identity()), "{seen:?}");

    // The one endpoint of the service is the caller itself: no redirect leads back to its proxy.
    let itself = web.host.curl(&url, &[]);
    assert_eq!(itself.status, 200, "{itself:?}");

    // An address of the host that is not the workload's: a neighbour that sends there gets nowhere.
    let own = format!("http://{}:8080/", web.host.address());
    assert_eq!(stranger.curl(&own, &[]).status, 200);
    let foreign = "10.254.0.1";
    let on_loopback = ["address", "add", &format!("{foreign}/32"), "dev", "lo"];
    web.host.run("ip", &on_loopback);
    let by_web = web.host.address().to_string();
    stranger.run("ip", &["route", "add", foreign, "via", &by_web]);
    let refused = stranger.curl(&format!("http://{foreign}:8080/"), &[]);
    assert_eq!(refused.status, 0, "{refused:?}");
    assert!(refused.header("x-served-by").is_none(), "{refused:?}");
}
