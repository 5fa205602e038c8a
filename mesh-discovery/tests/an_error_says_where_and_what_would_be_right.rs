//! Each mistake is named with line, column and field.

#![cfg(feature = "manifests")]

use mesh_discovery::manifests::parse;

const WORKLOAD: &str = "\
apiVersion: mesh-rs.io/v1alpha1
kind: Workload
metadata: {name: web-1, namespace: shop, labels: {app: web}}
spec:
  identity: web.shop
  serviceAccount: web
  zone: eu-1a
  addresses: [10.0.0.1, 'fd00::1']
  ports:
    - {name: http, port: 8080, meshPort: 14143, protocol: http}
    - {name: grpc, port: 9090, protocol: grpc}
  run:
    command: [./web]
    env: {LEVEL: info}
    workingDir: web
    ready: {httpGet: /healthz, port: 8080}
";

const SERVICE: &str = "\
apiVersion: v1
kind: Service
metadata:
  name: web
  annotations: {config.linkerd.io/default-inbound-policy: deny}
spec:
  type: ClusterIP
  clusterIP: 10.96.0.1
  selector: {app: web}
  ports:
    - {name: http, port: 80, targetPort: http, appProtocol: http}
    - {name: grpc, port: 90, targetPort: 9090}
";

const MESH: &str = "\
apiVersion: mesh-rs.io/v1alpha1
kind: MeshConfig
metadata: {name: mesh}
spec:
  trustDomain: cluster.local
  leafLifetime: 24h
  inbound:
    defaultPolicy: all-authenticated
";

/// What `from` becomes `to` in each manifest comes to.
#[track_caller]
fn wrong(manifest: &str, from: &str, to: &str, expected: &[&str]) {
    assert!(manifest.contains(from), "{from:?}");
    let (resources, errors) = parse("f.yaml", &manifest.replacen(from, to, 1));
    assert!(resources.is_empty(), "{to:?} was taken");
    let errors: Vec<_> = errors.iter().map(ToString::to_string).collect();
    assert_eq!(errors, expected, "{from:?} -> {to:?}");
}

#[test]
fn what_is_right_is_taken() {
    let all = [WORKLOAD, SERVICE, MESH].join("---\n");
    let (resources, errors) = parse("f.yaml", &all);
    assert_eq!((resources.len(), errors), (3, vec![]));
}

#[test]
fn in_workloads() {
    for (from, to, expected) in [
        ("zone:", "zoen:", "f.yaml:7:3: spec.zoen: unknown field"),
        (
            "labels:",
            "label:",
            "f.yaml:3:42: metadata.label: unknown field",
        ),
        (
            "name: web-1",
            "name: Web_1",
            "f.yaml:3:18: metadata.name: \"Web_1\" is no name: must be 1 to 63 lower-case letters, digits and dashes, and neither start nor end with a dash",
        ),
        (
            "name: web-1, ",
            "",
            "f.yaml:3:11: metadata.name: missing: a resource needs a name",
        ),
        (
            "{app: web}",
            "{app: 1}",
            "f.yaml:3:56: metadata.labels.app: integer `1` where text is expected: put it in quotes",
        ),
        (
            "10.0.0.1",
            "10.0.0.256",
            "f.yaml:8:15: spec.addresses[0]: \"10.0.0.256\" is no address: must be IPv4 or IPv6 as in 10.0.0.1 or fd00::1, without a port",
        ),
        (
            "10.0.0.1",
            "0.0.0.0",
            "f.yaml:8:15: spec.addresses[0]: \"0.0.0.0\" is no address of one machine",
        ),
        (
            "[10.0.0.1, 'fd00::1']",
            "[]",
            "f.yaml:8:14: spec.addresses: missing: a workload needs at least one address",
        ),
        (
            "'fd00::1'",
            "10.0.0.1",
            "f.yaml:8:25: spec.addresses[1]: 10.0.0.1 is there twice",
        ),
        (
            "port: 8080,",
            "port: 0,",
            "f.yaml:10:26: spec.ports[0].port: 0 is no port: must be 1 to 65535",
        ),
        (
            "14143",
            "65536",
            "f.yaml:10:42: spec.ports[0].meshPort: 65536 is no port: must be 1 to 65535",
        ),
        (
            "14143",
            "9090",
            "f.yaml:11:26: spec.ports[1].port: 9090 is taken already by another port or meshPort of this workload",
        ),
        (
            "protocol: http",
            "protocol: htp",
            "f.yaml:10:59: spec.ports[0].protocol: unknown protocol \"htp\": must be one of http, grpc, tcp, opaque, tls",
        ),
        (
            "name: grpc",
            "name: http",
            "f.yaml:11:14: spec.ports[1].name: another port is called \"http\" already",
        ),
        (
            "port: 8080,",
            "port: many,",
            "f.yaml:10:26: spec.ports[0].port: invalid type: string \"many\", expected i64",
        ),
        (
            "identity: web.shop",
            "identity: spiffe://x",
            "f.yaml:5:13: spec.identity: \"spiffe://x\" is no identity: must be a DNS name in lower case or spiffe://<trust domain>/<path>",
        ),
        (
            "[./web]",
            "[]",
            "f.yaml:13:14: spec.run.command: is empty: must be a program and its arguments, as [./web, --verbose]",
        ),
        (
            "LEVEL: info",
            "LEVEL: 3",
            "f.yaml:14:18: spec.run.env.LEVEL: integer `3` where text is expected: put it in quotes",
        ),
        (
            "/healthz",
            "healthz",
            "f.yaml:16:22: spec.run.ready.httpGet: \"healthz\" is no path: must start with /",
        ),
        (
            "httpGet: /healthz, ",
            "",
            "f.yaml:16:12: spec.run.ready: must have either httpGet, as {httpGet: /healthz}, or tcp, as {tcp: 8080}",
        ),
        (
            "kind: Workload",
            "kind: Worklaod",
            "f.yaml:2:7: kind: unknown kind Worklaod of mesh-rs.io/v1alpha1: must be Service of v1, or Workload or MeshConfig of mesh-rs.io/v1alpha1",
        ),
        (
            "kind: Workload",
            "",
            "f.yaml:1:1: kind: missing: a manifest starts with apiVersion and kind",
        ),
        (
            "[./web]",
            "[./web",
            "f.yaml:14:8: not YAML: illegal placement of ':' indicator",
        ),
        (
            "  zone: eu-1a",
            "  identity: again",
            "f.yaml:7:3: not YAML: \"identity\" is there twice: remove one",
        ),
    ] {
        wrong(WORKLOAD, from, to, &[expected]);
    }
}

#[test]
fn in_services() {
    for (from, to, expected) in [
        (
            "selector: {app: web}",
            "selector: {}",
            "f.yaml:9:13: spec.selector: missing: name the labels of the workloads behind it, as {app: web}",
        ),
        (
            "  selector: {app: web}\n",
            "",
            "f.yaml:7:3: spec.selector: missing: name the labels of the workloads behind it, as {app: web}",
        ),
        (
            "selector:",
            "selectors:",
            "f.yaml:9:3: spec.selectors: unknown field",
        ),
        (
            "port: 80,",
            "port: 0,",
            "f.yaml:11:26: spec.ports[0].port: 0 is no port: must be 1 to 65535",
        ),
        (
            "port: 90",
            "port: 80",
            "f.yaml:12:26: spec.ports[1].port: 80 is there twice",
        ),
        (
            "name: grpc, ",
            "",
            "f.yaml:12:7: spec.ports[1].name: missing: each of several ports needs a name",
        ),
        (
            "name: grpc",
            "name: http",
            "f.yaml:12:14: spec.ports[1].name: another port is called \"http\" already",
        ),
        (
            "targetPort: 9090",
            "targetPort: 0",
            "f.yaml:12:42: spec.ports[1].targetPort: 0 is no port: must be 1 to 65535",
        ),
        (
            "targetPort: 9090",
            "targetPort: true",
            "f.yaml:12:42: spec.ports[1].targetPort: invalid type: boolean `true`, expected IntOrString",
        ),
        (
            "appProtocol: http",
            "appProtocol: smtp",
            "f.yaml:11:61: spec.ports[0].appProtocol: unknown protocol \"smtp\": must be one of http, grpc, tcp, opaque, tls, kubernetes.io/h2c, kubernetes.io/ws, linkerd.io/opaque, https",
        ),
        (
            "targetPort: 9090",
            "protocol: UDP",
            "f.yaml:12:40: spec.ports[1].protocol: \"UDP\" is not carried: must be TCP or left out",
        ),
        (
            "type: ClusterIP",
            "type: LoadBalancer",
            "f.yaml:7:9: spec.type: \"LoadBalancer\" is not honoured by the mesh: must be ClusterIP or left out",
        ),
        (
            "type: ClusterIP",
            "externalIPs: [10.0.0.1]",
            "f.yaml:7:16: spec.externalIPs: is not honoured by the mesh: remove it",
        ),
        (
            "10.96.0.1",
            "10.96.0",
            "f.yaml:8:14: spec.clusterIP: \"10.96.0\" is no address: must be IPv4 or IPv6 as in 10.0.0.1 or fd00::1, without a port",
        ),
        (
            "policy: deny",
            "policy: denied",
            "f.yaml:5:16: metadata.annotations: config.linkerd.io/default-inbound-policy: unknown policy \"denied\": must be one of all-unauthenticated, all-authenticated, cluster-unauthenticated, cluster-authenticated, deny",
        ),
    ] {
        let more: &[&str] = match from {
            "selector:" => &[
                "f.yaml:7:3: spec.selector: missing: name the labels of the workloads behind it, as {app: web}",
            ],
            _ => &[],
        };
        wrong(SERVICE, from, to, &[&[expected], more].concat());
    }
}

#[test]
fn in_an_annotation_that_asks_something_of_balancers() {
    let at = |annotation: &str| {
        format!("\n    config.linkerd.io/default-inbound-policy: deny\n    balancer.{annotation}")
    };
    wrong(
        SERVICE,
        " {config.linkerd.io/default-inbound-policy: deny}",
        &at("alpha.linkerd.io/load-biaser-penalty: '5'"),
        &[
            "f.yaml:7:52: metadata.annotations[balancer.alpha.linkerd.io/load-biaser-penalty]: \"5\": must be a whole number with a unit, as in 500ms, 1s or 2m",
        ],
    );
    wrong(
        SERVICE,
        " {config.linkerd.io/default-inbound-policy: deny}",
        &at("linkerd.io/failure-accrual: unifid"),
        &[
            "f.yaml:7:42: metadata.annotations[balancer.linkerd.io/failure-accrual]: \"unifid\": must be consecutive or unified",
        ],
    );
}

#[test]
fn in_the_meshs_configuration() {
    for (from, to, expected) in [
        (
            "cluster.local",
            "Cluster.Local",
            "f.yaml:5:16: spec.trustDomain: \"Cluster.Local\" is no trust domain: must be a DNS name in lower case",
        ),
        (
            "24h",
            "24 hours",
            "f.yaml:6:17: spec.leafLifetime: \"24 hours\" is no duration: must be as 10m, 24h or 1h30m",
        ),
        (
            "24h",
            "1s",
            "f.yaml:6:17: spec.leafLifetime: \"1s\" is out of range: must be 10s to 8760h",
        ),
        (
            "24h",
            "24",
            "f.yaml:6:17: spec.leafLifetime: integer `24` where text is expected: put it in quotes",
        ),
        (
            "all-authenticated",
            "open",
            "f.yaml:8:20: spec.inbound.defaultPolicy: unknown policy \"open\": must be one of all-unauthenticated, all-authenticated, cluster-unauthenticated, cluster-authenticated, deny",
        ),
        (
            "trustDomain: cluster.local",
            "rotate: {}",
            "f.yaml:5:3: spec.rotate: unknown field",
        ),
        (
            "trustDomain: cluster.local",
            "rotation: {drain: cut, anchorLife: 9m}",
            "f.yaml:5:26: spec.rotation.anchorLife: unknown field",
        ),
    ] {
        wrong(MESH, from, to, &[expected]);
    }
}

#[test]
fn lines_are_those_of_the_file() {
    let second = format!("# first\n{MESH}---\n{}", MESH.replace("24h", "x"));
    let (resources, errors) = parse("f.yaml", &second);
    assert_eq!(resources.len(), 1);
    assert_eq!((errors[0].line, errors[0].document), (16, 2));
}

#[test]
fn what_is_too_large_is_refused() {
    let (_, errors) = parse("f.yaml", &"#".repeat(5 << 20));
    assert_eq!(
        errors[0].to_string(),
        "f.yaml: has 5242880 bytes: must have at most 4194304; split it"
    );
    let (_, errors) = parse("f.yaml", &"---\na\n".repeat(10_001));
    assert_eq!(
        errors[0].to_string(),
        "f.yaml: has 10001 documents: must have at most 10000; split it"
    );
}

#[test]
fn only_a_proxy_that_nothing_is_behind_needs_no_port() {
    let caller = "\
apiVersion: mesh-rs.io/v1alpha1
kind: Workload
metadata: {name: caller}
spec: {meshed: true, addresses: [10.0.0.1]}
";
    let (resources, errors) = parse("f.yaml", caller);
    assert_eq!((resources.len(), errors), (1, vec![]));
    let expected = "f.yaml:4:7: spec.ports: missing: a workload needs at least one port, or `meshed: true` if it only calls others";
    wrong(caller, "meshed: true", "meshed: false", &[expected]);
    let run = "meshed: true, run: {command: [x]}";
    wrong(caller, "meshed: true", run, &[expected]);
}
