use e2e::{MESH, Mesh, Network, PythonPeer, Requirement, require};

#[test]
fn of_grpcio_with_all_kinds_of_calls_and_trailers() {
    if !require(&[&MESH[..], &[Requirement::Python("grpc")]].concat()) {
        return;
    }
    let network = Network::new();
    let mesh = Mesh::start(&network, "");
    let client = mesh.workload("client", "client", &[]);
    let server = mesh.workload("greeter-1", "greeter", &[(50051, "grpc")]);
    let _server = PythonPeer::start(&server.host, "grpc_server.py", &["50051"], Some(50051));
    let service = mesh.service("greeter", &[(50051, "grpc")]);
    server.publish();

    let target = format!("{service}:50051");
    let mut calls = PythonPeer::start(
        &client.host,
        "grpc_client.py",
        &[&target, "marker", &client.identity()],
        None,
    );
    assert_eq!(calls.process.success(), "passed 7\n");
}
