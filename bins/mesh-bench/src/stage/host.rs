//! Hosts: network namespaces with a pair of virtual links between them. What is in them ends when they are dropped.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::Command;

use super::process::Spawn;
use crate::error::Error;

/// What the namespaces' names begin with; the id of the process that made them follows.
const PREFIX: &str = "mesh-bench";
/// How the two hosts see each other.
const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 79, 0, 1);
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 79, 0, 2);

/// Two hosts that reach each other and nothing else.
#[derive(Debug)]
pub(crate) struct Network {
    /// Where the load runs, and the proxy it speaks to.
    pub(crate) client: Host,
    /// Where the application runs, and the proxy before it.
    pub(crate) server: Host,
}

impl Network {
    /// Makes them, and removes what runs that were killed left behind.
    ///
    /// # Errors
    /// If this is not root, or the system refuses.
    pub(crate) fn new() -> Result<Self, Error> {
        if !rustix::process::geteuid().is_root() {
            return Err(Error::NotRoot);
        }
        sweep();
        let client = Host::new("client", CLIENT)?;
        let server = Host::new("server", SERVER)?;
        let peer = ["peer", "name", "eth0", "netns", &server.name];
        let link = ["link", "add", "eth0", "type", "veth"];
        client.run("ip", &[&link[..], &peer].concat())?;
        for host in [&client, &server] {
            let address = format!("{}/24", host.address);
            host.run("ip", &["address", "add", &address, "dev", "eth0"])?;
            host.run("ip", &["link", "set", "lo", "up"])?;
            host.run("ip", &["link", "set", "eth0", "up"])?;
            host.run("ip", &["route", "add", "default", "dev", "eth0"])?;
            for setting in SETTINGS {
                host.run(
                    "sh",
                    &["-c", &format!("echo {} > {}", setting.1, setting.0)],
                )?;
            }
        }
        Ok(Self { client, server })
    }

    /// Makes all addresses of a prefix the server's.
    ///
    /// # Errors
    /// If the system refuses.
    pub(crate) fn many_addresses(&self, (prefix, length): (Ipv4Addr, u8)) -> Result<(), Error> {
        let prefix = format!("{prefix}/{length}");
        let local = ["route", "replace", "local", &prefix, "dev", "lo"];
        self.server.run("ip", &local)?;
        // By the server's own address, so that the client need not ask for each where it is.
        let via = self.server.address.to_string();
        let route = ["route", "replace", &prefix, "via", &via];
        self.client.run("ip", &route)?;
        Ok(())
    }
}

/// Many connections come and go: ports enough for them, to be used again at once.
const SETTINGS: [(&str, &str); 3] = [
    ("/proc/sys/net/ipv4/ip_local_port_range", "10000 65535"),
    ("/proc/sys/net/ipv4/tcp_tw_reuse", "1"),
    ("/proc/sys/net/core/somaxconn", "16384"),
];

/// One host. Dropped, its processes end.
#[derive(Debug)]
pub(crate) struct Host {
    name: String,
    address: Ipv4Addr,
}

impl Host {
    fn new(role: &str, address: Ipv4Addr) -> Result<Self, Error> {
        let name = format!("{PREFIX}-{}-{role}", std::process::id());
        run(Command::new("ip").args(["netns", "add", &name]))?;
        Ok(Self { name, address })
    }

    /// How the other host sees it.
    pub(crate) fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// A program to run on this host.
    pub(crate) fn spawn(&self, program: impl Into<PathBuf>) -> Spawn {
        Spawn::new(&self.name, program.into())
    }

    /// Runs a short program to its end and gives what it printed.
    ///
    /// # Errors
    /// If it cannot run or fails.
    pub(crate) fn run(&self, program: &str, arguments: &[&str]) -> Result<String, Error> {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name, program]);
        run(command.args(arguments))
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        remove(&self.name);
    }
}

fn run(command: &mut Command) -> Result<String, Error> {
    super::process::output(command)
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

/// Removes the namespaces whose maker is gone: a run that was killed could not.
fn sweep() {
    let Ok(entries) = std::fs::read_dir("/run/netns") else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if let Some(maker) = maker(&name)
            && !PathBuf::from(format!("/proc/{maker}")).exists()
        {
            remove(&name);
        }
    }
}

/// The process that made the namespace of that name, if it is one of ours.
fn maker(name: &str) -> Option<u32> {
    let rest = name.strip_prefix(PREFIX)?.strip_prefix('-')?;
    rest.split('-').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_namespaces_of_ours_have_a_maker() {
        assert_eq!(maker("mesh-bench-17-client"), Some(17));
        assert_eq!(maker("mesh-e2e-17-client"), None);
        assert_eq!(maker("mesh-bench"), None);
        assert_eq!(maker("mesh-benchmark-17"), None);
    }
}
