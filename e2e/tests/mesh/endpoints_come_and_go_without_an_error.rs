use e2e::{App, Carriage, Load, MESH, Mesh, Network, require};

use crate::PAUSE;

#[test]
fn under_load() {
    if !require(&MESH) {
        return;
    }
    let network = Network::new();
    let mesh = Mesh::start(&network, "");
    let client = mesh.workload("client", "client", &[]);
    let ports = [(8080, "http"), (8082, "opaque")];
    let one = mesh.workload("web-1", "web", &ports);
    let app_one = App::start(&one.host, "one", 8080);
    let service = mesh.service("web", &ports);
    one.publish();

    let url = format!("http://{service}:8080/echo");
    let mut http1 = Load::start(&client.host, Carriage::Http1, &url, 4, PAUSE);
    let mut http2 = Load::start(&client.host, Carriage::Http2, &url, 4, PAUSE);
    http1.wait_served("one", 100);
    http2.wait_served("one", 100);

    let two = mesh.workload("web-2", "web", &ports);
    let _app_two = App::start(&two.host, "two", 8080);
    two.publish();
    http1.wait_served("two", 100);
    http2.wait_served("two", 100);

    one.withdraw();
    // It is out when the other has given many answers in a row, on every lane.
    for load in [&mut http1, &mut http2] {
        let mut seen = (0, 0);
        load.wait_for("the first endpoint is out of use", |report| {
            if report.served("one") != seen.0 {
                seen = (report.served("one"), report.served("two"));
            }
            report.served("two") >= seen.1 + 300
        });
    }
    drop((one, app_one));
    http1.wait_served("two", 200);
    http2.wait_served("two", 200);
    http1.stop().assert_no_failure(700);
    http2.stop().assert_no_failure(700);
}
