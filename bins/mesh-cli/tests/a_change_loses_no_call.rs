//! While services come, go and change, calls to those that stay succeed, and no application is started anew.
//!
//! The callers of these tests never try a call twice. Each call has a TCP connection of its own: over a kept one, a call may
//! cross with the proxy's closing of it, which HTTP/1.1 has no way to tell from a lost call (RFC 9112, section 9.5).

#![allow(clippy::unwrap_used)]

mod running;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use running::{MESH, Up, get, manifests, mesh, nothing_left, processes_with, turn};

/// For one call, and for what is waited for.
const PATIENCE: Duration = Duration::from_secs(10);
/// The proxies of the quickstart: four workloads' and the client's.
const PROXIES: [&str; 5] = ["echo-1", "greeter-1", "web-1", "web-2", "mesh-up/client"];

const SHOP: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: shop, namespace: default}\nspec:\n  \
                    selector: {app: web}\n  ports: [{name: http, port: 80, targetPort: http}]\n";

/// One call through the client's proxy, or why it failed.
type Call = fn(IpAddr) -> Result<(), String>;

/// Callers that go on until they are stopped.
struct Load {
    stop: Arc<AtomicBool>,
    callers: Vec<JoinHandle<()>>,
    calls: Vec<Arc<AtomicU64>>,
    failures: Arc<Mutex<Vec<String>>>,
    /// Resets that are the kernel's.
    spared: usize,
}

impl Load {
    fn start(of: &[Call], client: IpAddr) -> Self {
        let (stop, failures): (Arc<AtomicBool>, Arc<Mutex<Vec<String>>>) = Default::default();
        let calls: Vec<Arc<AtomicU64>> = of.iter().map(|_| Arc::default()).collect();
        let callers = of.iter().zip(&calls).map(|(call, calls)| {
            let (call, calls, stop, failures) =
                (*call, calls.clone(), stop.clone(), failures.clone());
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    if let Err(why) = call(client) {
                        failures.lock().unwrap().push(why);
                    }
                    calls.fetch_add(1, Ordering::Relaxed);
                    std::thread::sleep(Duration::from_millis(3));
                }
            })
        });
        Self {
            callers: callers.collect(),
            stop,
            calls,
            failures,
            spared: 0,
        }
    }

    /// Waits until each caller has made 20 calls more, none of which nor any before has failed.
    fn goes_on(&self) {
        let before: Vec<_> = self.counts();
        let deadline = Instant::now() + PATIENCE;
        while self
            .counts()
            .iter()
            .zip(&before)
            .any(|(now, before)| *now < before + 20)
        {
            assert!(Instant::now() < deadline, "the load stands still");
            std::thread::sleep(Duration::from_millis(10));
        }
        let failures = self.failures.lock().unwrap();
        let resets = failures.iter().filter(|why| why.contains("reset")).count();
        assert!(
            failures.len() == resets && resets <= self.spared,
            "{} of {:?} calls failed:\n{}",
            failures.len(),
            self.counts(),
            failures.join("\n")
        );
    }

    fn counts(&self) -> Vec<u64> {
        self.calls
            .iter()
            .map(|calls| calls.load(Ordering::Relaxed))
            .collect()
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for caller in self.callers.drain(..) {
            let _ = caller.join();
        }
    }
}

/// Calls web, which calls greeter (gRPC) and echo (TCP).
fn hello(client: IpAddr) -> Result<(), String> {
    http(client, 15_003, "/hello", "echo      web-")
}

fn http(client: IpAddr, port: u16, path: &str, expected: &str) -> Result<(), String> {
    let answer = try_get((client, port).into(), path).map_err(|error| format!("web: {error}"))?;
    if answer.starts_with("HTTP/1.1 200") && answer.contains(expected) {
        Ok(())
    } else {
        Err(format!("web: {answer:?}"))
    }
}

/// Calls echo, on a connection of bytes.
fn echo(client: IpAddr) -> Result<(), String> {
    let exchange = || {
        let mut stream = TcpStream::connect((client, 15_001))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(b"are you there?")?;
        let mut heard = [0; 14];
        stream.read_exact(&mut heard)?;
        std::io::Result::Ok(heard)
    };
    let heard = exchange().map_err(|error| format!("echo: {error}"))?;
    (heard == *b"are you there?")
        .then_some(())
        .ok_or_else(|| "echo: other bytes".to_owned())
}

fn try_get(address: SocketAddr, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nhost: web\r\nconnection: close\r\n\r\n"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// Where the client's proxy of this mesh listens.
fn client(up: &Up) -> IpAddr {
    let line = up
        .seen
        .iter()
        .find_map(|line| line.split("curl http://").nth(1));
    let address: SocketAddr = line.unwrap().split('/').next().unwrap().parse().unwrap();
    address.ip()
}

/// The commands of the mesh of `net`: each workload's process.
fn applications(net: u8) -> BTreeMap<String, String> {
    let host = format!("HOST=127.77.{net}.");
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let application = |entry: std::fs::DirEntry| {
        let read = |name: &str| std::fs::read_to_string(entry.path().join(name)).ok();
        let (environ, command_line) = (read("environ")?, read("cmdline")?);
        let variable = |start: &str| environ.split('\0').find_map(|one| one.strip_prefix(start));
        let is_ours = environ.contains(&host) && !command_line.contains("__run");
        is_ours.then(|| {
            (
                variable("MESH_WORKLOAD=").unwrap_or_default().to_owned(),
                entry.file_name().into_string().unwrap(),
            )
        })
    };
    processes.filter_map(application).collect()
}

/// Waits until all proxies were replaced.
fn all_replaced(up: &mut Up) {
    let mut left = PROXIES.to_vec();
    while !left.is_empty() {
        let line = up.expect("'s proxy was replaced");
        left.retain(|name| !line.starts_with(&format!("{name}'s")));
    }
}

/// Waits until `up` has seen the manifests as they are now, by a mistake that it names. Returns what it said before.
fn seen(up: &mut Up, folder: &Path) -> Vec<String> {
    let from = up.seen.len();
    let mark = folder.join("mark.yaml");
    std::fs::write(&mark, "kind: Nonsense\n").unwrap();
    up.expect("mark.yaml:1");
    std::fs::remove_file(&mark).unwrap();
    let said = &up.seen[from..up.seen.len() - 1];
    said.to_vec()
}

#[test]
fn a_service_that_changes_restarts_nothing() {
    let Some(_turn) = turn() else { return };
    let (folder, data) = (manifests(28), tempfile::tempdir().unwrap());
    let shop = folder.path().join("shop.yaml");
    std::fs::write(&shop, SHOP.replace("app: web", "app: nothing")).unwrap();
    let arguments = ["up", folder.path().to_str().unwrap(), "--data"];
    let mut up = Up::start(&[&arguments[..], &[data.path().to_str().unwrap()]].concat());
    up.expect("mesh is ready");
    up.expect("are followed");
    let client = client(&up);
    let before = applications(28);
    // In order of their names: echo, greeter, shop, web.
    let shop_answers = || {
        let answer = get((client, 15_003), "/healthz");
        answer.starts_with("HTTP/1.1 200")
    };
    assert!(!shop_answers());
    let load = Load::start(
        &[echo, |client| http(client, 15_004, "/healthz", "ok")],
        client,
    );
    load.goes_on();

    // Another port of its workloads, something that only callers read, other workloads.
    let nothing = SHOP.replace("app: web", "app: nothing");
    for change in [
        nothing.replace("targetPort: http", "targetPort: 8080"),
        nothing.replace(
            "default}",
            "default, annotations: {mesh-rs.io/traffic: none}}",
        ),
        SHOP.to_owned(),
    ] {
        std::fs::write(&shop, change).unwrap();
        assert_eq!(seen(&mut up, folder.path()), Vec::<String>::new());
        load.goes_on();
    }
    let deadline = Instant::now() + PATIENCE;
    while !shop_answers() {
        assert!(Instant::now() < deadline, "the new selector has no effect");
        std::thread::sleep(Duration::from_millis(20));
    }
    load.goes_on();

    assert_eq!(seen(&mut up, folder.path()), Vec::<String>::new());
    drop(load);
    let processes = processes_with(data.path());
    let proxies = |file| processes.iter().filter(|line| line.contains(file)).count();
    assert!(
        proxies("proxy-4191.toml") >= PROXIES.len() && proxies("proxy-4192.toml") == 0,
        "a proxy was replaced: {processes:?}"
    );
    assert_eq!(applications(28), before, "an application was started anew");
    up.signal("-INT");
    up.expect("stopped");
    nothing_left(28, data.path());
}

#[test]
fn a_proxy_that_does_not_come_up_replaces_nobody() {
    let Some(_turn) = turn() else { return };
    let (folder, data) = (manifests(29), tempfile::tempdir().unwrap());
    // A proxy that does not know one service.
    let programs = tempfile::tempdir().unwrap();
    let real = Path::new(MESH).parent().unwrap();
    let controller = "mesh-controller";
    std::os::unix::fs::symlink(real.join(controller), programs.path().join(controller)).unwrap();
    let script = format!(
        "#!/bin/sh\nif grep -q zzz-broken \"$2\"; then echo no such thing; exit 3; fi\nexec {} \"$@\"\n",
        real.join("mesh-proxy").display()
    );
    let proxy = programs.path().join("mesh-proxy");
    std::fs::write(&proxy, script).unwrap();
    std::fs::set_permissions(&proxy, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let arguments = ["up", folder.path().to_str().unwrap(), "--data"];
    let mut command = mesh(&[&arguments[..], &[data.path().to_str().unwrap()]].concat());
    command.env("MESH_BIN_DIR", programs.path());
    let mut up = Up::run(command);
    up.expect("mesh is ready");
    let client = client(&up);
    let before = applications(29);
    let load = Load::start(&[hello, echo], client);
    load.goes_on();

    let more = folder.path().join("more.yaml");
    let broken = SHOP.replace("name: shop", "name: zzz-broken");
    for change in ["web", "nothing"] {
        std::fs::write(&more, broken.replace("app: web", &format!("app: {change}"))).unwrap();
        // The second is another try of the same.
        for _ in PROXIES {
            up.expect("cannot be replaced, as the new one exited with 3; the one before serves on");
            up.expect("| no such thing");
        }
        load.goes_on();
    }
    std::fs::remove_file(&more).unwrap();
    up.expect("gone: MESH_ZZZ_BROKEN_ADDR");

    // An address that is taken is found before anything else is.
    let taken = TcpListener::bind((Ipv4Addr::new(127, 77, 29, 5), 15_005)).unwrap();
    assert_eq!(seen(&mut up, folder.path()), Vec::<String>::new());
    load.goes_on();
    drop(load);
    std::fs::write(&more, SHOP).unwrap();
    up.expect(
        "echo-1's proxy cannot be replaced, as the new one could not listen on 127.77.29.5:15005",
    );
    drop(taken);
    std::fs::write(&more, SHOP.replace("app: web", "app: nothing")).unwrap();
    up.expect("echo-1's proxy was replaced");

    assert_eq!(applications(29), before, "an application was started anew");
    up.signal("-INT");
    up.expect("stopped");
    nothing_left(29, data.path());
}

/// How many connections may be reset that came between a proxy's last look at its queue and its closing of it: none where the
/// kernel hands them to the proxy that has taken over, which is off by default.
fn resets_of_the_kernel() -> usize {
    let migrates = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_migrate_req");
    if migrates.is_ok_and(|value| value.trim() == "1") {
        0
    } else {
        2
    }
}

#[test]
fn services_that_come_and_go_disturb_nobody() {
    let Some(_turn) = turn() else { return };
    let (folder, data) = (manifests(27), tempfile::tempdir().unwrap());
    let data_path = data.path().to_str().unwrap();
    let mut up = Up::start(&["up", folder.path().to_str().unwrap(), "--data", data_path]);
    up.expect("mesh is ready");
    let client = client(&up);
    let before = applications(27);
    assert_eq!(before.len(), 4, "{before:?}");
    let mut load = Load::start(&[hello, hello, echo, echo], client);
    load.goes_on();

    load.spared = resets_of_the_kernel();
    let shop = folder.path().join("shop.yaml");
    for _ in 0..3 {
        std::fs::write(&shop, SHOP).unwrap();
        up.expect("new: MESH_SHOP_ADDR");
        all_replaced(&mut up);
        load.goes_on();
        let answer = get((client, 15_004), "/hello");
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        let check = mesh(&["check", "--data", data_path]).output().unwrap();
        assert!(check.status.success(), "{}", running::said(&check));

        std::fs::remove_file(&shop).unwrap();
        up.expect("gone: MESH_SHOP_ADDR");
        all_replaced(&mut up);
        load.goes_on();
        assert!(TcpStream::connect((client, 15_004)).is_err());
    }

    drop(load);
    assert_eq!(applications(27), before, "an application was started anew");
    up.signal("-INT");
    up.expect("stopped");
    nothing_left(27, data.path());
}
