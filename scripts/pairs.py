"""Pairs of proxies to measure: two mesh proxies, or the bare hyper pipeline that is their floor, before one nginx.

Both carry 128-byte answers over two hops of mTLS on loopback, one worker each; the mesh larger ones and bytes that it does not look
into too. It hands a request to the application in the version it came in, so nginx listens for HTTP/2 too; the floor always speaks
HTTP/1 to it.

The floor is a cargo folder with a program `floor c LISTEN PEER CERT_DIR SNI` and `floor s LISTEN APP CERT_DIR`. It is built
in the cache folder with the versions of our Cargo.lock.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mesh-rs"
TARGET = Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target")
BODY_BYTES = 128
LARGE_BYTES = 64 * 1024
# The mesh's service: what a port is called, its number, what is spoken there.
PORTS = (("one", 81, "http"), ("two", 82, "http"), ("three", 83, "opaque"))
IDENTITY = "{}.default.serviceaccount.identity.linkerd.cluster.local"


def build_floor(source):
    work = CACHE / "floor"
    shutil.rmtree(work / "src", ignore_errors=True)
    shutil.copytree(source / "src", work / "src")
    shutil.copy(source / "Cargo.toml", work)
    shutil.copy(ROOT / "Cargo.lock", work)
    run(["cargo", "build", "--release", "--manifest-path", work / "Cargo.toml", "--target-dir", work / "target"])
    return work / "target/release/floor"


def build_proxy(profile):
    run(["cargo", "build", "--profile", profile, "--locked", "-p", "mesh-proxy"], cwd=ROOT)
    return TARGET / profile / "mesh-proxy"


def build_mesh():
    """The programs beside the proxy, which are not measured."""
    run(["cargo", "build", "--locked", "-p", "mesh-controller", "-p", "mesh-cli"], cwd=ROOT)


def start_nginx(folder, processes):
    """Its ports for HTTP/1, HTTP/2 and what is not looked into, HTTP/1 again. It has something large at `/large`, and under `/grpc/` it
    answers as a gRPC server that does not look at what it is asked."""
    ports = free_ports(3)
    (folder / "large").write_bytes(b"x" * LARGE_BYTES)
    temporary = " ".join(f"{kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    (folder / "nginx.conf").write_text(
        f"daemon off; master_process off; pid {folder}/nginx.pid; error_log stderr warn;\n"
        "events { worker_connections 1024; }\n"
        "http {\n access_log off; keepalive_requests 1000000000; keepalive_timeout 600;\n"
        f" {temporary}\n"
        f" server {{\n  listen 127.0.0.1:{ports[0]}; listen 127.0.0.1:{ports[1]} http2;\n"
        f"  listen 127.0.0.1:{ports[2]};\n"
        f"  location = /large {{ root {folder}; }}\n"
        f"  location / {{ return 200 \"{'x' * BODY_BYTES}\"; }}\n"
        "  location /grpc/ { default_type application/grpc; add_trailer grpc-status 0; "
        f"return 200 \"{'x' * BODY_BYTES}\"; }}\n }}\n}}\n"
    )
    processes.start(["nginx", "-c", folder / "nginx.conf", "-e", "stderr"])
    wait_port(ports[1])
    return ports


def start_floor(program, folder, processes, backend, under=()):
    """The ports of its client side by protocol, and its processes: the server's and the client's. They run under the command `under`."""
    certificates = folder / "certificates"
    make_certificates(certificates)
    server, client = free_ports(2)
    pair = [processes.start([*under, program, "s", f"127.0.0.1:{server}", f"127.0.0.1:{backend[0]}", certificates / "server"])]
    wait_port(server)
    listen, peer = f"127.0.0.1:{client}", f"127.0.0.1:{server}"
    pair.append(processes.start([*under, program, "c", listen, peer, certificates / "client", "server.test"]))
    wait_port(client)
    return {"HTTP/1": client, "HTTP/2": client}, pair


def make_certificates(folder):
    folder.mkdir()

    def openssl(*arguments):
        run(["openssl", *arguments], cwd=folder, quiet=True)

    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    openssl("req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.pem", "-days", "2", "-subj", "/CN=root")
    for name in ("server", "client"):
        (folder / name).mkdir()
        (folder / "extensions").write_text(f"subjectAltName=DNS:{name}.test\nextendedKeyUsage=serverAuth,clientAuth\n")
        openssl("req", *key, "-keyout", f"{name}/key.pem", "-out", "request", "-subj", "/")
        openssl(
            *("x509", "-req", "-in", "request", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial"),
            *("-days", "2", "-extfile", "extensions", "-out", f"{name}/cert.pem"),
        )


def start_mesh(proxy, folder, processes, backend, under=()):
    """As [`start_floor`], with a controller of its own."""
    data, manifests = folder / "data", folder / "manifests"
    manifests.mkdir()
    *ports, admin = free_ports(2 * len(PORTS) + 1)
    servers, clients = ports[: len(PORTS)], ports[len(PORTS) :]
    service = ", ".join(f"{{name: {name}, port: {port}, targetPort: {app}}}" for (name, port, _), app in zip(PORTS, backend))
    workload = "".join(
        f"  - {{name: {name}, port: {app}, meshPort: {server}, protocol: {protocol}}}\n"
        for (name, _, protocol), app, server in zip(PORTS, backend, servers)
    )
    (manifests / "mesh.yaml").write_text(
        "apiVersion: mesh-rs.io/v1alpha1\nkind: MeshConfig\nmetadata: {name: mesh}\nspec: {trustDomain: cluster.local}\n---\n"
        "apiVersion: v1\nkind: Service\nmetadata: {name: web, namespace: default}\nspec:\n  selector: {app: web}\n"
        f"  ports: [{service}]\n---\n"
        "apiVersion: mesh-rs.io/v1alpha1\nkind: Workload\nmetadata: {name: web-1, namespace: default, labels: {app: web}}\n"
        f"spec:\n  identity: {IDENTITY.format('web')}\n  addresses: [127.0.0.1]\n"
        f"  ports:\n{workload}"
    )
    controller = TARGET / "debug/mesh-controller"
    processes.start(
        [controller, "--data", data, "--manifests", manifests, "--listen", "127.0.0.1:0", "--admin", f"127.0.0.1:{admin}"]
    )
    wait(lambda: (data / "controller.json").exists(), "controller.json")
    grpc = json.loads((data / "controller.json").read_text())["grpc"]

    def start_proxy(name, settings):
        (admin,) = free_ports(1)
        place = folder / name
        place.mkdir()
        token = run([TARGET / "debug/mesh", "token", "create", "--identity", IDENTITY.format(name), "--data", data], quiet=True)
        (place / "token").write_text(token)
        (place / "proxy.toml").write_text(
            f'[identity]\nname = "{IDENTITY.format(name)}"\ntrust_anchors_file = "{data}/anchors.pem"\n'
            f'token_file = "{place}/token"\n\n'
            f'[control]\naddress = "{grpc}"\nworkload = \'{{"ns":"default","pod":"{name}-1"}}\'\n\n'
            f'{settings}\n[limits]\nworkers = 1\n\n[admin]\nlisten = "127.0.0.1:{admin}"\n'
        )
        process = processes.start([*under, proxy, "--config", place / "proxy.toml"])
        wait(lambda: http_status(f"http://127.0.0.1:{admin}/ready") == 200, f"{name}'s proxy is ready")
        return process

    def table(pairs, key, value):
        return ",".join(f'{{ listen = "127.0.0.1:{listen}", {key} = "{value}{port}" }}' for listen, port in pairs)

    inbound = table(zip(servers, backend), "app", "127.0.0.1:")
    outbound = table([(client, port) for client, (_, port, _) in zip(clients, PORTS)], "authority", "web.default.svc.cluster.local:")
    pair = [start_proxy("web", f"[inbound]\nports = [{inbound}]\n"), start_proxy("client", f"[outbound]\nservices = [{outbound}]\n")]
    wait(lambda: http_status(f"http://127.0.0.1:{clients[0]}/") == 200, "the mesh carries a request")
    return dict(zip(("HTTP/1", "HTTP/2", "bytes"), clients)), pair


def load(protocol, ports, folder, requests, connections, body=BODY_BYTES):
    """So many requests through a pair, one after the other on each connection: of HTTP/1, HTTP/2, gRPC unary calls, or bytes that the
    mesh does not look into. `body` is how many bytes an answer has, or a call of gRPC."""
    port, arguments = ports["HTTP/2" if protocol == "gRPC" else protocol], []
    path = "large" if body == LARGE_BYTES else ""
    if protocol in ("HTTP/1", "bytes"):
        arguments = ["--h1"]
    elif protocol == "gRPC":
        message = folder / "message"
        message.write_bytes(b"\0" + (body - 5).to_bytes(4, "big") + b"x" * (body - 5))
        path = "grpc/call"
        arguments = ["-d", message, "-H", "content-type: application/grpc", "-H", "te: trailers"]
    url = f"http://127.0.0.1:{port}/{path}"
    said = run(["h2load", "-t1", f"-c{connections}", "-m1", "-n", requests, *arguments, url], quiet=True)
    if f"{requests} succeeded" not in said or f"{requests} 2xx" not in said:
        sys.exit(f"error: h2load saw failures\n{said}")


class Processes:
    """What was started, ended at the end whatever happens. What it said is shown if something failed."""

    def __init__(self, log):
        self.log = log
        self.started = []

    def __enter__(self):
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
        return self

    def start(self, command):
        with self.log.open("a") as log:
            process = subprocess.Popen(list(map(str, command)), stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.started.append(process)
        return process

    def __exit__(self, _kind, error, _trace):
        for process in reversed(self.started):
            process.kill()
            process.wait()
        if error:
            print(self.log.read_text()[-5000:], file=sys.stderr)


def run(command, quiet=False, cwd=None):
    command = list(map(str, command))
    output = subprocess.PIPE if quiet else None
    done = subprocess.run(command, cwd=cwd, stdin=subprocess.DEVNULL, stdout=output, stderr=output, text=True)
    if done.returncode != 0:
        sys.exit(f"error: {' '.join(command)}: exit {done.returncode}\n{done.stdout or ''}{done.stderr or ''}")
    return done.stdout or ""


def free_ports(count):
    # All held until the last is found, so that no two are the same.
    probes = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


def wait_port(port):
    def answers():
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    wait(answers, f"something listens on port {port}")


def http_status(url):
    try:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(url, timeout=5) as answer:
            return answer.status
    except OSError as error:
        return getattr(error, "code", None)


def wait(done, what):
    deadline = time.monotonic() + 30
    while not done():
        if time.monotonic() > deadline:
            sys.exit(f"error: not in 30 s: {what}")
        time.sleep(0.05)
