//! Transparent interception on one host: what applications send goes to the outbound port of the host's proxy, what
//! arrives for their ports to its inbound port.

use std::fmt::Write as _;

use crate::network::Host;
use crate::process::PROXY_USER;

/// Where a host's proxy takes what the redirect catches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Redirect {
    /// The proxy's outbound port.
    pub outbound: u16,
    /// The proxy's inbound port.
    pub inbound: u16,
}

impl Default for Redirect {
    fn default() -> Self {
        Self {
            outbound: 4140,
            inbound: 4143,
        }
    }
}

impl Redirect {
    /// Sends every outgoing TCP connection to the outbound port, unless [`PROXY_USER`] makes it or it stays on the
    /// loopback device. The proxy learns where it was meant to go by `SO_ORIGINAL_DST`.
    ///
    /// # Panics
    /// If nftables refuses the rules.
    pub fn outgoing(self, host: &Host) {
        let mut rules = String::from(
            "table ip mesh_outbound {\n chain output {\n  type nat hook output priority -100;\n",
        );
        let _ = writeln!(rules, "  meta skuid {PROXY_USER} accept");
        let _ = writeln!(rules, "  ip daddr 127.0.0.0/8 accept");
        let _ = writeln!(rules, "  ip protocol tcp redirect to :{}", self.outbound);
        rules.push_str(" }\n}\n");
        apply(host, &rules);
    }

    /// Sends every TCP connection that arrives from the network for one of `ports` to the inbound port.
    ///
    /// # Panics
    /// If nftables refuses the rules.
    pub fn incoming(self, host: &Host, ports: &[u16]) {
        let ports: Vec<String> = ports.iter().map(ToString::to_string).collect();
        let mut rules = String::from(
            "table ip mesh_inbound {\n chain input {\n  type nat hook prerouting priority -100;\n",
        );
        let ports = ports.join(", ");
        let _ = writeln!(
            rules,
            "  iifname \"eth0\" tcp dport {{ {ports} }} redirect to :{}",
            self.inbound
        );
        rules.push_str(" }\n}\n");
        apply(host, &rules);
    }
}

fn apply(host: &Host, rules: &str) {
    host.run("nft", &[rules]);
}
