//! Hosts on a network of their own: network namespaces joined by a bridge in one more namespace.
//!
//! Nothing of it is visible to, or reachable from, the machine's own network. Every [`Network`] uses the same
//! addresses, because no two can see each other: `10.77.0.N/24` for host N. Each host sends what has no
//! narrower route to its one link, so a redirect can catch service addresses that belong to no host.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::process::{Process, Spawn};

/// What the namespaces' names begin with; the id of the process that made them follows.
const PREFIX: &str = "mesh-e2e";

static SERIAL: AtomicU32 = AtomicU32::new(0);
static SWEEP: Once = Once::new();

/// Several hosts that reach each other and nothing else. Dropped, everything in it ends.
#[derive(Debug)]
pub struct Network {
    bridge: Namespace,
    hosts: AtomicU32,
}

impl Network {
    /// An empty network. The first one in a process also removes what killed earlier runs left behind.
    ///
    /// # Panics
    /// If the namespace or the bridge cannot be made.
    #[must_use]
    pub fn new() -> Self {
        SWEEP.call_once(sweep);
        let bridge = Namespace::new("net");
        bridge.run(
            "ip",
            &["link", "add", "br0", "type", "bridge", "forward_delay", "0"],
        );
        bridge.run("ip", &["link", "set", "br0", "up"]);
        Self {
            bridge,
            hosts: AtomicU32::new(0),
        }
    }

    /// A new host, with the next free address.
    ///
    /// # Panics
    /// If the namespace or its link cannot be made, or after 250 hosts.
    #[must_use]
    pub fn host(&self, role: &str) -> Host {
        let number = self.hosts.fetch_add(1, Ordering::Relaxed) + 1;
        let last = u8::try_from(number).ok().filter(|last| *last <= 250);
        let last = last.unwrap_or_else(|| panic!("no address left for host {number}"));
        let address = Ipv4Addr::new(10, 77, 0, last);
        let namespace = Namespace::new(role);
        let port = format!("port{number}");
        let peer = ["peer", "name", "eth0", "netns", &namespace.name];
        self.bridge.run(
            "ip",
            &[&["link", "add", &port, "type", "veth"][..], &peer].concat(),
        );
        self.bridge
            .run("ip", &["link", "set", &port, "master", "br0", "up"]);
        namespace.run("ip", &["link", "set", "lo", "up"]);
        namespace.run(
            "ip",
            &["address", "add", &format!("{address}/24"), "dev", "eth0"],
        );
        let host = Host {
            namespace,
            address,
            role: role.to_owned(),
        };
        host.reconnect();
        host
    }
}

impl Default for Network {
    fn default() -> Self {
        Self::new()
    }
}

/// One host: a network namespace with a loopback device and one link, `eth0`. Dropped, its processes end.
#[derive(Debug)]
pub struct Host {
    namespace: Namespace,
    address: Ipv4Addr,
    role: String,
}

impl Host {
    /// The host's address on the network.
    #[must_use]
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// What the host was called when it was made; used in messages.
    #[must_use]
    pub fn role(&self) -> &str {
        &self.role
    }

    /// Takes the host off the network: what others send it is lost, and it reaches nobody.
    ///
    /// # Panics
    /// If its link cannot be changed.
    pub fn cut_off(&self) {
        self.run("ip", &["link", "set", "eth0", "down"]);
    }

    /// Puts the host on the network again.
    ///
    /// # Panics
    /// If its link cannot be changed, or it was not off.
    pub fn reconnect(&self) {
        self.run("ip", &["link", "set", "eth0", "up"]);
        // A link that goes takes its routes with it.
        self.run("ip", &["route", "add", "default", "dev", "eth0"]);
    }

    /// A program to run on this host.
    #[must_use]
    pub fn spawn(&self, program: impl AsRef<Path>) -> Spawn {
        Spawn::new(&self.namespace.name, &self.role, program.as_ref())
    }

    /// Runs a short program as root to its end and gives what it printed.
    ///
    /// # Panics
    /// If it cannot run or fails; the message carries its output.
    pub fn run(&self, program: &str, arguments: &[&str]) -> String {
        self.namespace.run(program, arguments)
    }

    /// A short program as root on this host, for a caller that wants its exit code.
    #[must_use]
    pub fn command(&self, program: &str) -> Command {
        self.namespace.command(program)
    }

    /// A program that is started at once with no settings beside its arguments, as the application's user.
    ///
    /// # Panics
    /// If it cannot be started.
    #[must_use]
    pub fn start(&self, program: impl AsRef<Path>, arguments: &[&str]) -> Process {
        self.spawn(program).args(arguments).start()
    }
}

/// A network namespace that is removed, with every process in it, when dropped.
#[derive(Debug)]
struct Namespace {
    name: String,
}

impl Namespace {
    fn new(role: &str) -> Self {
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let name = format!("{PREFIX}-{}-{serial}-{role}", std::process::id());
        run(Command::new("ip").args(["netns", "add", &name]));
        Self { name }
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name, program]);
        command
    }

    fn run(&self, program: &str, arguments: &[&str]) -> String {
        run(self.command(program).args(arguments))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        remove(&self.name);
    }
}

fn run(command: &mut Command) -> String {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{command:?}: {}: {}",
        output.status,
        said.trim_end()
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Ends what runs in the namespace, then removes it. Never fails: it also cleans up after others.
fn remove(name: &str) {
    if let Ok(output) = Command::new("ip").args(["netns", "pids", name]).output() {
        let pids = String::from_utf8_lossy(&output.stdout);
        let pids: Vec<&str> = pids.split_whitespace().collect();
        if !pids.is_empty() {
            let _ = Command::new("kill").arg("-KILL").args(&pids).output();
        }
    }
    let _ = Command::new("ip").args(["netns", "del", name]).output();
}

/// Removes the namespaces whose maker is gone: a test run that was killed could not.
fn sweep() {
    let Ok(entries) = std::fs::read_dir("/run/netns") else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let maker = name
            .strip_prefix(PREFIX)
            .and_then(|rest| rest.split('-').nth(1)?.parse::<u32>().ok());
        if let Some(maker) = maker
            && !PathBuf::from(format!("/proc/{maker}")).exists()
        {
            remove(&name);
        }
    }
}
