//! Settings with a shape of their own.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use mesh_policy::inbound::DefaultPolicy;
use mesh_tls::Identity;
use serde_json::{Value as Json, json};

use super::host_port::is_dns_name;
use super::value::{Value, kind};
use crate::os::local_path;

/// One mesh port and the application port behind it. As text: `LISTEN=APP`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PortMap {
    /// Where the mesh connects to.
    pub listen: SocketAddr,
    /// Where the application listens. Its port is the one the controller is asked about.
    pub app: SocketAddr,
}

impl Value for PortMap {
    fn parse(text: &str) -> Result<Self, String> {
        let (listen, app) = text.split_once('=').ok_or_else(|| {
            format!("expected LISTEN=APP, as in 127.0.0.2:14143=127.0.0.2:8080, found {text:?}")
        })?;
        Ok(Self {
            listen: SocketAddr::parse(listen.trim())?,
            app: SocketAddr::parse(app.trim())?,
        })
    }

    fn from_toml(value: toml::Value) -> Result<Self, String> {
        let (listen, app) = pair(value, "app")?;
        Ok(Self {
            listen: SocketAddr::parse(&listen)?,
            app: SocketAddr::parse(&app)?,
        })
    }

    fn to_json(&self) -> Json {
        json!({"listen": self.listen.to_string(), "app": self.app.to_string()})
    }
}

/// A loopback listener whose connections all go to one service. As text: `LISTEN=AUTHORITY`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ServiceListener {
    /// Where the application connects to.
    pub listen: SocketAddr,
    /// The service, as `host:port`, in lower case.
    pub authority: String,
}

impl ServiceListener {
    fn new(listen: &str, authority: &str) -> Result<Self, String> {
        Ok(Self {
            listen: SocketAddr::parse(listen.trim())?,
            authority: authority_of(authority.trim())?,
        })
    }
}

impl Value for ServiceListener {
    fn parse(text: &str) -> Result<Self, String> {
        let (listen, authority) = text.split_once('=').ok_or_else(|| {
            format!("expected LISTEN=AUTHORITY, as in 127.0.0.2:15001=web.default.svc.cluster.local:80, found {text:?}")
        })?;
        Self::new(listen, authority)
    }

    fn from_toml(value: toml::Value) -> Result<Self, String> {
        let (listen, authority) = pair(value, "authority")?;
        Self::new(&listen, &authority)
    }

    fn to_json(&self) -> Json {
        json!({"listen": self.listen.to_string(), "authority": self.authority})
    }
}

impl Value for DefaultPolicy {
    fn parse(text: &str) -> Result<Self, String> {
        text.parse().map_err(|_| {
            let names = Self::ALL.map(Self::as_str).join(", ");
            format!("expected one of {names}, found {text:?}")
        })
    }

    fn to_json(&self) -> Json {
        Json::from(self.as_str())
    }
}

/// Some ports: `8080`, or `9000-9010`, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PortRange {
    /// The first of them.
    pub first: u16,
    /// The last of them, not less than the first.
    pub last: u16,
}

/// Whether `port` is in one of `ranges`.
#[must_use]
pub fn contains_port(ranges: &[PortRange], port: u16) -> bool {
    ranges
        .iter()
        .any(|range| (range.first..=range.last).contains(&port))
}

impl Value for PortRange {
    fn parse(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!("expected a port or a range of ports, as in 8080 or 9000-9010, found {text:?}")
        };
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let port = |text: &str| text.trim().parse::<u16>().map_err(|_| wrong());
        let (first, last) = (port(first)?, port(last)?);
        if last < first {
            return Err(wrong());
        }
        Ok(Self { first, last })
    }

    fn from_toml(value: toml::Value) -> Result<Self, String> {
        match value {
            toml::Value::Integer(port) => Self::parse(&port.to_string()),
            toml::Value::String(text) => Self::parse(&text),
            other => Err(format!(
                "expected a port or a range of ports, found {}",
                kind(&other)
            )),
        }
    }

    fn to_json(&self) -> Json {
        if self.first == self.last {
            return Json::from(self.first);
        }
        Json::from(format!("{}-{}", self.first, self.last))
    }
}

/// The end of DNS names: `svc.cluster.local` means itself and every name below it, `.` every name there is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DnsSuffix(Box<str>);

impl DnsSuffix {
    /// Whether `name`, with or without a trailing dot, ends so.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        let name = name.strip_suffix('.').unwrap_or(name);
        let Some(start) = name.len().checked_sub(self.0.len()) else {
            return false;
        };
        let (above, end) = (name.as_bytes().get(..start), name.as_bytes().get(start..));
        let below = above.is_some_and(|above| above.is_empty() || above.ends_with(b"."));
        self.0.is_empty()
            || below && end.is_some_and(|end| end.eq_ignore_ascii_case(self.0.as_bytes()))
    }
}

impl Value for DnsSuffix {
    fn parse(text: &str) -> Result<Self, String> {
        let suffix = text.strip_suffix('.').unwrap_or(text);
        if text != "." && !is_dns_name(suffix) {
            return Err(format!(
                "expected the end of DNS names, as in svc.cluster.local, or . for all, found {text:?}"
            ));
        }
        Ok(Self(suffix.to_ascii_lowercase().into()))
    }

    fn to_json(&self) -> Json {
        Json::from(if self.0.is_empty() { "." } else { &self.0 })
    }
}

/// A local socket: the path of a Unix socket, `unix:PATH` or `unix://PATH`; on Windows a named pipe, `npipe:NAME` or
/// its path.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct SocketPath(PathBuf);

impl SocketPath {
    /// The path that is opened.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Value for SocketPath {
    fn parse(text: &str) -> Result<Self, String> {
        local_path(text).map(Self).ok_or_else(|| {
            format!(
                "expected the path of a socket, as in unix:///run/spire/agent.sock (on Windows npipe:spire-agent), found {text:?}"
            )
        })
    }

    fn to_json(&self) -> Json {
        Json::from(self.to_string())
    }
}

impl fmt::Display for SocketPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.display().fmt(f)
    }
}

impl fmt::Debug for SocketPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// How the log is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// A line of text for each event.
    Plain,
    /// A JSON object for each event, one a line.
    Json,
}

impl Value for LogFormat {
    fn parse(text: &str) -> Result<Self, String> {
        match text.to_ascii_lowercase().as_str() {
            "plain" => Ok(Self::Plain),
            "json" => Ok(Self::Json),
            _ => Err(format!("expected plain or json, found {text:?}")),
        }
    }

    fn to_json(&self) -> Json {
        Json::from(match self {
            Self::Plain => "plain",
            Self::Json => "json",
        })
    }
}

impl Value for Identity {
    fn parse(text: &str) -> Result<Self, String> {
        Self::parse(text)
            .map_err(|_| format!("expected a DNS name or a SPIFFE URI, found {text:?}"))
    }

    fn to_json(&self) -> Json {
        Json::from(self.as_str())
    }
}

/// PEM text. Public, but long: `/config` shows only that it is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pem(pub String);

impl Value for Pem {
    fn parse(text: &str) -> Result<Self, String> {
        if !text.contains("-----BEGIN CERTIFICATE-----") {
            return Err("expected PEM text with at least one CERTIFICATE".to_owned());
        }
        Ok(Self(text.to_owned()))
    }

    fn to_json(&self) -> Json {
        Json::from(format!(
            "{} certificates",
            self.0.matches("-----BEGIN CERTIFICATE-----").count()
        ))
    }
}

/// The two strings of an inline table `{listen = "..", <other> = ".."}`.
fn pair(value: toml::Value, other: &str) -> Result<(String, String), String> {
    let form = || format!("expected {{listen = \"IP:PORT\", {other} = \"..\"}}");
    let toml::Value::Table(mut table) = value else {
        return Err(format!("{}, found {}", form(), kind(&value)));
    };
    let mut take = |key: &str| match table.remove(key) {
        Some(toml::Value::String(text)) => Ok(text),
        Some(wrong) => Err(format!("{}: {key} is {}", form(), kind(&wrong))),
        None => Err(format!("{}: {key} is missing", form())),
    };
    let both = (take("listen")?, take(other)?);
    match table.keys().next() {
        Some(unknown) => Err(format!("{}: unknown key {unknown:?}", form())),
        None => Ok(both),
    }
}

fn authority_of(text: &str) -> Result<String, String> {
    let wrong = || {
        format!(
            "expected a host with a port, as in web.default.svc.cluster.local:80, found {text:?}"
        )
    };
    let authority: http::uri::Authority = text.parse().map_err(|_| wrong())?;
    if authority.port_u16().is_none()
        || authority.as_str().contains('@')
        || authority.host().is_empty()
    {
        return Err(wrong());
    }
    Ok(authority.as_str().to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listeners_read_from_text_and_toml() {
        let map = PortMap::parse("127.77.0.2:14143=127.77.0.2:8080").unwrap();
        assert_eq!(map.app.port(), 8080);
        let table: toml::Value = toml::Value::Table(
            toml::from_str(
                r#"listen = "127.0.0.1:1"
authority = "Web:80""#,
            )
            .unwrap(),
        );
        assert_eq!(
            ServiceListener::from_toml(table).unwrap().authority,
            "web:80"
        );
        for wrong in [
            "127.0.0.1:1",
            "=",
            "127.0.0.1:1=web",
            "127.0.0.1:1=u@web:80",
            "x=web:80",
            "127.0.0.1:1=:80",
        ] {
            assert!(ServiceListener::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_wrong_inline_table_says_which_key() {
        let table = |text: &str| {
            PortMap::from_toml(toml::Value::Table(toml::from_str(text).unwrap())).unwrap_err()
        };
        assert!(table("listen = \"127.0.0.1:1\"").contains("app is missing"));
        assert!(table("listen = 1").contains("listen is the integer 1"));
        assert!(
            table("listen = \"127.0.0.1:1\"\napp = \"127.0.0.1:2\"\nport = 3")
                .contains("unknown key \"port\"")
        );
    }

    #[test]
    fn port_ranges_hold_both_ends() {
        let ranges = Vec::<PortRange>::parse("25, 9000 - 9010,,").unwrap();
        for (port, inside) in [
            (25, true),
            (26, false),
            (8999, false),
            (9000, true),
            (9010, true),
            (9011, false),
        ] {
            assert_eq!(contains_port(&ranges, port), inside, "{port}");
        }
        for wrong in ["x", "1-", "-1", "80-79", "69420", "1-69420", "1-2-3"] {
            assert!(PortRange::parse(wrong).is_err(), "{wrong}");
        }
        assert_eq!(ranges.to_json(), json!([25, "9000-9010"]));
    }

    #[test]
    fn suffixes_end_names_at_labels() {
        let suffix = DnsSuffix::parse("Svc.Cluster.local.").unwrap();
        for inside in [
            "svc.cluster.local",
            "web.default.svc.cluster.LOCAL.",
            "a.svc.cluster.local",
        ] {
            assert!(suffix.contains(inside), "{inside}");
        }
        for outside in [
            "asvc.cluster.local",
            "cluster.local",
            "svc.cluster.local.example",
            "",
        ] {
            assert!(!suffix.contains(outside), "{outside}");
        }
        assert!(DnsSuffix::parse(".").unwrap().contains("anything.example"));
        assert!(DnsSuffix::parse("a .b").is_err());
        assert!(DnsSuffix::parse("").is_err());
    }

    #[test]
    fn sockets_are_written_as_paths_or_uris() {
        if cfg!(unix) {
            for text in [
                "/run/agent.sock",
                "unix:/run/agent.sock",
                "unix:///run/agent.sock",
            ] {
                let socket = SocketPath::parse(text).unwrap();
                assert_eq!(socket.path(), Path::new("/run/agent.sock"), "{text}");
            }
            for wrong in [
                "",
                "agent.sock",
                "unix:",
                "unix://",
                "tcp://127.0.0.1:1",
                "npipe:agent",
            ] {
                assert!(SocketPath::parse(wrong).is_err(), "{wrong}");
            }
        }
    }

    #[test]
    fn policies_have_linkerds_names() {
        for policy in DefaultPolicy::ALL {
            assert_eq!(DefaultPolicy::parse(policy.as_str()), Ok(policy));
        }
        assert!(
            DefaultPolicy::parse("allow")
                .unwrap_err()
                .contains("cluster-authenticated")
        );
    }
}
