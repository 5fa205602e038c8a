//! The controller's settings: flags over environment over one TOML file over defaults.

mod file;
mod flags;

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    str::FromStr,
};

use clap::{Parser, ValueEnum};
use serde::{Deserialize, Serialize};
use thiserror::Error;

pub use self::file::FileError;
pub(crate) use self::flags::Flags;

/// What a controller is started with; every value is valid.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Config {
    /// Where the store, `admin.sock`, `anchors.pem` and `controller.json` live.
    pub data: PathBuf,
    /// The folder of YAML that describes the mesh.
    pub manifests: PathBuf,
    /// The etcd of several controllers; none where the data folder keeps the state of the only one.
    pub etcd: Option<Etcd>,
    /// Where an outside authority writes anchors and issuers; none where the controller makes them.
    pub outside_ca: Option<OutsideCa>,
    /// Where the proxy API is served; at least one.
    pub listen: Vec<SocketAddr>,
    /// Which listeners speak TLS.
    pub tls: TlsMode,
    /// What join tokens give as the controller's address, unless that of the first listener with one of its own.
    pub advertise: Option<HostPort>,
    /// Where `/live`, `/ready`, `/metrics` and `/config` are served.
    pub admin: SocketAddr,
    /// What to log, in the syntax of `tracing_subscriber`'s `EnvFilter`.
    pub log: String,
    /// The domain that service names end in, after `svc`.
    pub cluster_domain: String,
    /// How many connections the proxy API has at a time, those counted by `max_uncertified` apart.
    pub max_connections: u32,
    /// How many connections over TLS have shown no client certificate at a time, and how many handshakes are under way
    /// on a listener.
    pub max_uncertified: u32,
    /// How many streams all of them have together.
    pub max_streams: u32,
    /// How many certificates are being issued at a time.
    pub max_certifications: u32,
}

/// The etcd that keeps the state of several controllers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Etcd {
    /// `https://host:port` of its members; `http://` for loopback addresses only.
    pub members: Vec<String>,
    /// What the keys of this mesh begin with.
    pub prefix: String,
    /// The certificates that its members' are verified by, PEM.
    pub ca: Option<PathBuf>,
    /// The certificate to show and its private key, PEM.
    pub certificate: Option<(PathBuf, PathBuf)>,
    /// Every so many minutes whoever leads has it forget what was changed before them; 0: somebody else does.
    pub compact_minutes: u16,
    /// After how many seconds without a word another controller leads.
    pub lead_lease_seconds: u16,
}

/// Where an outside authority writes anchors and issuers, in the form of a Kubernetes TLS Secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OutsideCa {
    /// With `tls.crt` (the issuer), `tls.key` (its key) and `ca.crt` (the anchors).
    pub folder: PathBuf,
    /// The anchors, if they are in a file of their own.
    pub anchors: Option<PathBuf>,
}

/// Which listeners speak TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum TlsMode {
    /// Every listener except those on loopback addresses.
    Auto,
    /// Every listener.
    Always,
}

/// `host:port`, the host a name or an address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HostPort(String);

/// What the command line asks for.
#[derive(Debug)]
pub struct Invocation {
    /// The settings.
    pub config: Config,
    /// Check settings and manifests, and do no more.
    pub check: bool,
}

/// Why there are no settings.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The command line, or `--help`. Printed by clap, with its own exit code.
    #[error(transparent)]
    Flags(#[from] clap::Error),
    /// The file.
    #[error(transparent)]
    File(#[from] FileError),
    /// A setting that has no default.
    #[error("`{key}` is not set; pass --{key}, set {env}, or add `{key} = …` to the file")]
    Missing {
        /// The key.
        key: &'static str,
        /// Its variable.
        env: &'static str,
    },
    /// A value that is of the right type and still not right.
    #[error("`{key}` is {value}: {reason}")]
    Invalid {
        /// The key.
        key: &'static str,
        /// The value.
        value: String,
        /// What would be right.
        reason: &'static str,
    },
}

impl Invocation {
    /// Reads the command line `arguments` (the program's name first), the environment and the file they name.
    ///
    /// # Errors
    /// Any [`ConfigError`]; nothing is ignored.
    pub fn read(
        arguments: impl IntoIterator<Item = std::ffi::OsString>,
    ) -> Result<Self, ConfigError> {
        let flags = Flags::try_parse_from(arguments)?;
        let file = match &flags.config {
            Some(path) => file::read(path)?,
            None => file::File::default(),
        };
        let check = flags.check;
        Ok(Self {
            config: Config::merge(flags, file)?,
            check,
        })
    }
}

impl Config {
    fn merge(flags: Flags, file: file::File) -> Result<Self, ConfigError> {
        let etcd = Etcd::merge(&flags, &file)?;
        let outside_ca = merge_outside(&flags, &file)?;
        let listen = if flags.listen.is_empty() {
            file.listen.unwrap_or_else(|| vec![DEFAULT_LISTEN])
        } else {
            flags.listen
        };
        let config = Self {
            etcd,
            outside_ca,
            data: flags.data.or(file.data).ok_or(ConfigError::Missing {
                key: "data",
                env: "MESH_CONTROLLER_DATA",
            })?,
            manifests: flags
                .manifests
                .or(file.manifests)
                .ok_or(ConfigError::Missing {
                    key: "manifests",
                    env: "MESH_CONTROLLER_MANIFESTS",
                })?,
            listen,
            tls: flags.tls.or(file.tls).unwrap_or(TlsMode::Auto),
            advertise: flags.advertise.or(file.advertise),
            admin: flags.admin.or(file.admin).unwrap_or(DEFAULT_ADMIN),
            log: flags.log.or(file.log).unwrap_or_else(|| "info".to_owned()),
            cluster_domain: flags
                .cluster_domain
                .or(file.cluster_domain)
                .unwrap_or_else(|| "cluster.local".to_owned()),
            max_connections: flags
                .max_connections
                .or(file.max_connections)
                .unwrap_or(50_000),
            max_uncertified: flags
                .max_uncertified
                .or(file.max_uncertified)
                .unwrap_or(1024),
            max_streams: flags.max_streams.or(file.max_streams).unwrap_or(500_000),
            max_certifications: flags
                .max_certifications
                .or(file.max_certifications)
                .unwrap_or(64),
        };
        config.validate()?;
        Ok(config)
    }

    fn validate(&self) -> Result<(), ConfigError> {
        let invalid = |key, value: String, reason| ConfigError::Invalid { key, value, reason };
        if self.listen.is_empty() {
            return Err(invalid(
                "listen",
                "empty".into(),
                "name at least one address",
            ));
        }
        for (key, value) in [
            ("max-connections", self.max_connections),
            ("max-uncertified", self.max_uncertified),
            ("max-streams", self.max_streams),
            ("max-certifications", self.max_certifications),
        ] {
            if value == 0 {
                return Err(invalid(key, "0".into(), "it must be at least 1"));
            }
        }
        if mesh_tls::Identity::parse(&self.cluster_domain).is_err()
            || self.cluster_domain.contains("://")
        {
            return Err(invalid(
                "cluster-domain",
                format!("`{}`", self.cluster_domain),
                "it must be a DNS name such as cluster.local",
            ));
        }
        if let Err(_error) = tracing_subscriber::EnvFilter::try_new(&self.log) {
            return Err(invalid(
                "log",
                format!("`{}`", self.log),
                "it must be a level (error, warn, info, debug, trace) or `target=level,…`",
            ));
        }
        Ok(())
    }

    /// Whether a listener on `address` speaks TLS. Plaintext is for loopback addresses only.
    #[must_use]
    pub fn speaks_tls(&self, address: IpAddr) -> bool {
        match self.tls {
            TlsMode::Always => true,
            TlsMode::Auto => !is_loopback(address),
        }
    }
}

/// Whether only this host can reach `address`: 127.0.0.0/8, `::1`, and the former written as IPv6.
#[must_use]
pub fn is_loopback(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

fn merge_outside(flags: &Flags, file: &file::File) -> Result<Option<OutsideCa>, ConfigError> {
    let folder = flags.outside_ca.as_ref().or(file.outside_ca.as_ref());
    let anchors = flags.outside_ca_anchors.as_ref();
    let anchors = anchors.or(file.outside_ca_anchors.as_ref()).cloned();
    match (folder, anchors) {
        (Some(folder), anchors) => Ok(Some(OutsideCa {
            folder: folder.clone(),
            anchors,
        })),
        (None, None) => Ok(None),
        (None, Some(path)) => Err(ConfigError::Invalid {
            key: "outside-ca-anchors",
            value: path.display().to_string(),
            reason: "`outside-ca` is not set; set both or none",
        }),
    }
}

impl Etcd {
    fn merge(flags: &Flags, file: &file::File) -> Result<Option<Self>, ConfigError> {
        let invalid = |key, value: String, reason| ConfigError::Invalid { key, value, reason };
        let members = if flags.etcd.is_empty() {
            file.etcd.clone().unwrap_or_default()
        } else {
            flags.etcd.clone()
        };
        let either = |flag: &Option<PathBuf>, file: &Option<PathBuf>| {
            let either = flag.as_ref().or(file.as_ref());
            either.cloned()
        };
        let ca = either(&flags.etcd_ca, &file.etcd_ca);
        let certificate = either(&flags.etcd_cert, &file.etcd_cert);
        let key = either(&flags.etcd_key, &file.etcd_key);
        let prefix = flags.etcd_prefix.as_ref().or(file.etcd_prefix.as_ref());
        let lease = flags.lead_lease.or(file.lead_lease);
        let compact = flags.etcd_compact_minutes.or(file.etcd_compact_minutes);
        let paths = [
            ("etcd-ca", &ca),
            ("etcd-cert", &certificate),
            ("etcd-key", &key),
        ];
        if members.is_empty() {
            let set = paths.iter().find(|(_, path)| path.is_some());
            let key = set
                .map(|(key, _)| *key)
                .or(prefix.map(|_| "etcd-prefix"))
                .or(compact.map(|_| "etcd-compact-minutes"))
                .or(lease.map(|_| "lead-lease"));
            return match key {
                None => Ok(None),
                Some(key) => Err(invalid(
                    key,
                    "set".into(),
                    "`etcd` is not; set both or none",
                )),
            };
        }
        let certificate = match (certificate, key) {
            (None, None) => None,
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (Some(path), None) => {
                let reason = "`etcd-key` is missing: set both or none";
                return Err(invalid("etcd-cert", path.display().to_string(), reason));
            }
            (None, Some(path)) => {
                let reason = "`etcd-cert` is missing: set both or none";
                return Err(invalid("etcd-key", path.display().to_string(), reason));
            }
        };
        if ca.is_none()
            && let Some(member) = members.iter().find(|it| it.starts_with("https://"))
        {
            let reason = "`etcd-ca` is missing: nobody would be believed";
            return Err(invalid("etcd", member.clone(), reason));
        }
        let compact_minutes = compact.unwrap_or(5);
        if compact_minutes > 1440 {
            let value = compact_minutes.to_string();
            let reason = "it must be 0 to 1440 minutes";
            return Err(invalid("etcd-compact-minutes", value, reason));
        }
        let lead_lease_seconds = lease.unwrap_or(10);
        if !(2..=600).contains(&lead_lease_seconds) {
            let value = lead_lease_seconds.to_string();
            return Err(invalid("lead-lease", value, "it must be 2 to 600 seconds"));
        }
        Ok(Some(Self {
            members,
            prefix: prefix.map_or_else(|| "mesh/".to_owned(), Clone::clone),
            ca,
            certificate,
            compact_minutes,
            lead_lease_seconds,
        }))
    }
}

impl HostPort {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for HostPort {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let valid_host = |host: &str| {
            !host.is_empty()
                && host.len() <= 253
                && host
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
        };
        let named = text.rsplit_once(':').is_some_and(|(host, port)| {
            valid_host(host) && port.parse::<u16>().is_ok_and(|port| port != 0)
        });
        let numeric = text
            .parse::<SocketAddr>()
            .is_ok_and(|address| address.port() != 0);
        if named || numeric {
            return Ok(Self(text.to_owned()));
        }
        Err(format!(
            "`{text}` is not `host:port` (for example 192.0.2.7:8086 or mesh.example:8086)"
        ))
    }
}

impl TryFrom<String> for HostPort {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<HostPort> for String {
    fn from(host_port: HostPort) -> Self {
        host_port.0
    }
}

const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8086);
const DEFAULT_ADMIN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9996);

#[cfg(test)]
mod tests {
    use super::*;

    fn read(arguments: &[&str]) -> Result<Invocation, ConfigError> {
        Invocation::read(["mesh-controller"].iter().chain(arguments).map(Into::into))
    }

    fn config(arguments: &[&str]) -> Config {
        let mut all = vec!["--data", "/d", "--manifests", "/m"];
        all.extend(arguments);
        read(&all).unwrap().config
    }

    #[test]
    fn defaults_are_loopback() {
        let config = config(&[]);
        assert_eq!(config.listen, [DEFAULT_LISTEN]);
        assert!(is_loopback(config.admin.ip()));
    }

    #[test]
    fn plaintext_is_for_loopback_only() {
        let auto = config(&[]);
        for loopback in ["127.0.0.1", "127.77.0.2", "::1", "::ffff:127.0.0.1"] {
            assert!(!auto.speaks_tls(loopback.parse().unwrap()), "{loopback}");
        }
        for reachable in [
            "0.0.0.0",
            "::",
            "192.0.2.1",
            "10.0.0.1",
            "::ffff:10.0.0.1",
            "fe80::1",
        ] {
            assert!(auto.speaks_tls(reachable.parse().unwrap()), "{reachable}");
        }
        assert!(config(&["--tls", "always"]).speaks_tls("127.0.0.1".parse().unwrap()));
    }

    #[test]
    fn flags_win_over_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c.toml");
        std::fs::write(
            &path,
            "data = '/file'\nmanifests = '/m'\nlisten = ['127.0.0.1:1', '127.0.0.1:2']\nmax-streams = 7\n",
        )
        .unwrap();
        let config = read(&["--config", path.to_str().unwrap(), "--data", "/flag"])
            .unwrap()
            .config;
        assert_eq!(config.data, PathBuf::from("/flag"));
        assert_eq!((config.listen.len(), config.max_streams), (2, 7));
    }

    #[test]
    fn what_is_wrong_in_the_file_is_named_with_its_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c.toml");
        for (text, line, word) in [
            ("data = '/d'\nmanifest = '/m'\n", 2, "manifest"),
            ("data = '/d'\n\nmax-streams = -1\n", 3, "-1"),
            ("listen = ['nowhere']\n", 1, "invalid"),
            ("data = \n", 1, ""),
        ] {
            std::fs::write(&path, text).unwrap();
            let error = read(&["--config", path.to_str().unwrap()])
                .unwrap_err()
                .to_string();
            assert!(error.contains(&format!("c.toml:{line}")), "{error}");
            assert!(error.contains(word), "{error}");
        }
    }

    #[test]
    fn what_is_not_valid_is_refused() {
        assert!(matches!(
            read(&["--manifests", "/m"]),
            Err(ConfigError::Missing { key: "data", .. })
        ));
        for arguments in [
            ["--lead-lease", "5"],
            ["--etcd-prefix", "m/"],
            ["--etcd-compact-minutes", "5"],
            ["--max-streams", "0"],
            ["--cluster-domain", "not a domain"],
            ["--log", "mesh=loud"],
        ] {
            let mut all = vec!["--data", "/d", "--manifests", "/m"];
            all.extend(arguments);
            let error = read(&all).unwrap_err();
            assert!(matches!(error, ConfigError::Invalid { .. }), "{error}");
        }
        let among = [
            "--data",
            "/d",
            "--manifests",
            "/m",
            "--etcd",
            "http://127.0.0.1:1",
        ];
        assert!(read(&among).is_ok());
        for more in [
            ["--lead-lease", "1"],
            ["--etcd-compact-minutes", "1441"],
            ["--etcd", "https://10.0.0.1:2379"],
            ["--etcd-cert", "c.pem"],
            ["--etcd-key", "k.pem"],
        ] {
            let error = read(&[&among[..], &more].concat()).unwrap_err();
            assert!(matches!(error, ConfigError::Invalid { .. }), "{error}");
        }
        assert!("[::1]:80".parse::<HostPort>().is_ok());
        for text in ["host", "host:0", ":80", "a b:80", "host:99999"] {
            assert!(text.parse::<HostPort>().is_err(), "{text}");
        }
    }
}
