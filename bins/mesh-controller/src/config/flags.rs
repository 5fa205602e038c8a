use std::{net::SocketAddr, path::PathBuf};

use clap::Parser;

use super::{HostPort, TlsMode};

/// The mesh-rs control plane: destinations, policies and identities over the Linkerd proxy API.
///
/// Reads a folder of YAML manifests, follows its changes, and serves them to proxies. Every setting is a flag, an
/// environment variable or a key of the TOML file (the flag's name without its dashes); the first of these that is set
/// counts. Keys that are unknown are errors.
///
/// In its data folder it keeps `state.redb` (certificate authority and join tokens; mode 0600), `anchors.pem` (the public
/// trust bundle), `admin.sock` (for the `mesh` command; mode 0600) and `controller.json` (where it serves, or last served).
#[derive(Debug, Parser)]
#[command(
    name = "mesh-controller",
    version,
    after_long_help = "Exit codes: 0 stopped as asked, or --check found nothing; 1 failed while running; 2 the settings are wrong; \
                       3 --check found manifests that are wrong; 4 the data folder cannot be used."
)]
pub(crate) struct Flags {
    /// A TOML file with any of the keys below.
    #[arg(long, value_name = "FILE", env = "MESH_CONTROLLER_CONFIG")]
    pub config: Option<PathBuf>,

    /// Folder for the controller's own state; made if missing. One controller at a time. Required.
    #[arg(long, value_name = "DIR", env = "MESH_CONTROLLER_DATA")]
    pub data: Option<PathBuf>,

    /// Members of an etcd, https://HOST:PORT (http:// on loopback addresses only), which keeps the state of several
    /// controllers of one mesh: one of them drives changes of trust, all serve. [default: none; state.redb in the data folder]
    #[arg(
        long,
        value_name = "URL",
        env = "MESH_CONTROLLER_ETCD",
        value_delimiter = ','
    )]
    pub etcd: Vec<String>,

    /// What the keys of this mesh begin with in etcd. [default: mesh/]
    #[arg(long, value_name = "TEXT", env = "MESH_CONTROLLER_ETCD_PREFIX")]
    pub etcd_prefix: Option<String>,

    /// Certificates that etcd's are verified by, PEM.
    #[arg(long, value_name = "FILE", env = "MESH_CONTROLLER_ETCD_CA")]
    pub etcd_ca: Option<PathBuf>,

    /// The certificate to show to etcd, PEM. With etcd-key.
    #[arg(long, value_name = "FILE", env = "MESH_CONTROLLER_ETCD_CERT")]
    pub etcd_cert: Option<PathBuf>,

    /// Its private key, PEM.
    #[arg(long, value_name = "FILE", env = "MESH_CONTROLLER_ETCD_KEY")]
    pub etcd_key: Option<PathBuf>,

    /// Whoever leads has etcd forget every so many minutes what was changed before them, as its space is full otherwise.
    /// 0: etcd's own settings do (auto-compaction-retention), or others that use it. [default: 5]
    #[arg(
        long,
        value_name = "MINUTES",
        env = "MESH_CONTROLLER_ETCD_COMPACT_MINUTES"
    )]
    pub etcd_compact_minutes: Option<u16>,

    /// After how many seconds without a word from the controller that leads another takes its place. [default: 10]
    #[arg(long, value_name = "SECONDS", env = "MESH_CONTROLLER_LEAD_LEASE")]
    pub lead_lease: Option<u16>,

    /// Folder of YAML manifests: Service, Workload, MeshConfig. Followed while running. Required.
    #[arg(long, value_name = "DIR", env = "MESH_CONTROLLER_MANIFESTS")]
    pub manifests: Option<PathBuf>,

    /// Folder in which an outside authority (cert-manager, step, a script) writes the issuer that is to sign: `tls.crt`, its key
    /// `tls.key`, and the trust anchors `ca.crt`, as in a Kubernetes TLS Secret. It is followed; what is new begins a change of
    /// trust, what is wrong is named and not used. [default: none; the controller makes anchors and issuers itself]
    #[arg(long, value_name = "DIR", env = "MESH_CONTROLLER_OUTSIDE_CA")]
    pub outside_ca: Option<PathBuf>,

    /// The outside authority's trust anchors, if they are not `ca.crt` in its folder. With outside-ca.
    #[arg(long, value_name = "FILE", env = "MESH_CONTROLLER_OUTSIDE_CA_ANCHORS")]
    pub outside_ca_anchors: Option<PathBuf>,

    /// Addresses of the proxy API. Port 0 takes the port of the last run in this data folder if it is free, else any free
    /// one. Plaintext HTTP/2 on loopback addresses, TLS on all others. [default: 127.0.0.1:8086]
    #[arg(
        long,
        value_name = "IP:PORT",
        env = "MESH_CONTROLLER_LISTEN",
        value_delimiter = ','
    )]
    pub listen: Vec<SocketAddr>,

    /// Which listeners speak TLS: `auto`, all but those on loopback addresses, or `always`. Over TLS, a certificate can
    /// be had with a join token; everything else needs a client certificate of the mesh. [default: auto]
    #[arg(long, value_enum, value_name = "MODE", env = "MESH_CONTROLLER_TLS")]
    pub tls: Option<TlsMode>,

    /// The address that join tokens give to those who join. [default: the first of `listen` that is not 0.0.0.0 or ::]
    #[arg(long, value_name = "HOST:PORT", env = "MESH_CONTROLLER_ADVERTISE")]
    pub advertise: Option<HostPort>,

    /// Address of /live, /ready, /metrics and /config, over plain HTTP. Port 0 as for `listen`. [default: 127.0.0.1:9996]
    #[arg(long, value_name = "IP:PORT", env = "MESH_CONTROLLER_ADMIN")]
    pub admin: Option<SocketAddr>,

    /// What to log to standard error: a level, or `target=level,…`. [default: info]
    #[arg(long, value_name = "FILTER", env = "MESH_CONTROLLER_LOG")]
    pub log: Option<String>,

    /// What the names of services end in, after `svc`. [default: cluster.local]
    #[arg(long, value_name = "DOMAIN", env = "MESH_CONTROLLER_CLUSTER_DOMAIN")]
    pub cluster_domain: Option<String>,

    /// Connections of the proxy API at a time, over TLS those with a client certificate; more are closed at once.
    /// [default: 50000]
    #[arg(long, value_name = "N", env = "MESH_CONTROLLER_MAX_CONNECTIONS")]
    pub max_connections: Option<u32>,

    /// Connections over TLS without a client certificate at a time, beside max-connections; more are closed at once. Each
    /// ends a few seconds after its first answer. As many TLS handshakes may be under way on each listener; then those
    /// that take longer than a second make room. [default: 1024]
    #[arg(long, value_name = "N", env = "MESH_CONTROLLER_MAX_UNCERTIFIED")]
    pub max_uncertified: Option<u32>,

    /// Streams of the proxy API at a time; more are told to come back later. [default: 500000]
    #[arg(long, value_name = "N", env = "MESH_CONTROLLER_MAX_STREAMS")]
    pub max_streams: Option<u32>,

    /// Certificates being issued at a time; more are told to come back later. [default: 64]
    #[arg(long, value_name = "N", env = "MESH_CONTROLLER_MAX_CERTIFICATIONS")]
    pub max_certifications: Option<u32>,

    /// Check settings and manifests, say what is wrong, and exit.
    #[arg(long)]
    pub check: bool,
}
