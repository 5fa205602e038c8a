use e2e::{App, Carriage, Load, MESH, Mesh, Network, Redis, Requirement, require};

use crate::PAUSE;

#[test]
fn of_a_stock_redis() {
    if !require(
        &[
            &MESH[..],
            &[
                Requirement::Program("redis-server"),
                Requirement::Program("redis-benchmark"),
            ],
        ]
        .concat(),
    ) {
        return;
    }
    let network = Network::new();
    let mesh = Mesh::start(&network, "");
    let client = mesh.workload("client", "client", &[]);
    let server = mesh.workload("redis-1", "redis", &[(6379, "opaque")]);
    let _redis = Redis::start(&server.host, 6379);
    let service = mesh.service("redis", &[(6379, "opaque")]);
    server.publish();

    let address = service.to_string();
    let run = |program: &str, arguments: &[&str]| {
        client
            .host
            .start(program, &[&["-h", &address], arguments].concat())
            .success()
    };
    assert_eq!(run("redis-cli", &["set", "key", "a value"]), "OK\n");
    assert_eq!(run("redis-cli", &["get", "key"]), "a value\n");
    let blob = "x".repeat(100_000);
    assert_eq!(run("redis-cli", &["set", "blob", &blob]), "OK\n");
    assert_eq!(run("redis-cli", &["strlen", "blob"]), "100000\n");
    let measured = run(
        "redis-benchmark",
        &["-n", "2000", "-c", "10", "-t", "set,get", "-q"],
    );
    assert!(measured.contains("requests per second"), "{measured}");
}

#[test]
fn of_protocols_where_the_server_speaks_first_and_of_half_closed_connections() {
    if !require(&MESH) {
        return;
    }
    let network = Network::new();
    let mesh = Mesh::start(&network, "");
    let client = mesh.workload("client", "client", &[]);
    let ports = [(9001, "opaque"), (9002, "opaque")];
    let server = mesh.workload("echo-1", "echo", &ports);
    let _app = App::start(&server.host, "one", 9000);
    let service = mesh.service("echo", &ports);
    server.publish();

    let mut first = Load::start(
        &client.host,
        Carriage::ServerFirst,
        &format!("{service}:9002"),
        4,
        PAUSE,
    );
    let mut once = Load::start(
        &client.host,
        Carriage::TcpOnce,
        &format!("{service}:9001"),
        4,
        PAUSE,
    );
    first.wait_served("hello one", 500);
    once.wait_ok(200);
    let first = first.stop();
    first.assert_no_failure(500);
    assert_eq!(first.connections, 4);
    let once = once.stop();
    once.assert_no_failure(200);
    assert_eq!(once.connections, once.attempts);
}
