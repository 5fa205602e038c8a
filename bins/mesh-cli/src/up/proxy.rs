//! A proxy: its process and its configuration file.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use mesh_discovery::Name;

use super::plan::{Part, label};
use crate::probe::Probe;
use crate::process::Launch;

/// Everything that a proxy is started with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Proxy {
    /// The process.
    pub(crate) part: Part,
    /// Where its configuration goes.
    pub(crate) file: PathBuf,
    /// Its configuration.
    pub(crate) config: String,
    /// Where it answers about itself.
    pub(crate) admin: SocketAddr,
    /// Where it takes traffic.
    pub(crate) listens: Vec<SocketAddr>,
}

/// What differs from proxy to proxy.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Settings<'a> {
    /// The program.
    pub(crate) program: &'a Path,
    /// The workload.
    pub(crate) name: &'a Name,
    /// What it proves.
    pub(crate) identity: &'a str,
    /// The controller.
    pub(crate) control: SocketAddr,
    /// Where it runs.
    pub(crate) data: &'a Path,
    /// Where its files are.
    pub(crate) folder: &'a Path,
    /// Mesh ports and the application's ports behind them.
    pub(crate) inbound: &'a [(SocketAddr, SocketAddr)],
    /// Listeners and the service that each stands for.
    pub(crate) outbound: &'a [(SocketAddr, String)],
    /// The zone that the workload is in.
    pub(crate) zone: Option<&'a str>,
    /// Where plain proxy requests are taken.
    pub(crate) http_proxy: SocketAddr,
    /// Where it answers about itself.
    pub(crate) admin: SocketAddr,
}

impl Proxy {
    /// Plans one.
    pub(crate) fn new(settings: &Settings<'_>) -> Self {
        // The file of the one that runs is left alone when the next is started.
        let file = settings
            .folder
            .join(format!("proxy-{}.toml", settings.admin.port()));
        let launch = Launch {
            name: format!("{}'s proxy", label(settings.name)),
            command: vec![
                settings.program.into(),
                "--config".into(),
                file.clone().into(),
            ],
            env: BTreeMap::new(),
            isolated: true,
            folder: settings.data.to_path_buf(),
        };
        let ready = Probe::Http {
            address: settings.admin,
            path: "/ready".to_owned(),
        };
        let inbound = settings.inbound.iter().map(|(mesh, _)| *mesh);
        let outbound = settings.outbound.iter().map(|(listener, _)| *listener);
        Self {
            part: Part {
                launch,
                ready: Some(ready),
            },
            file,
            config: config(settings),
            admin: settings.admin,
            listens: inbound
                .chain(outbound)
                .chain([settings.http_proxy])
                .collect(),
        }
    }
}

/// Where its token is.
pub(crate) fn token_file(folder: &Path) -> PathBuf {
    folder.join("token")
}

/// Where the anchors it trusts are.
pub(crate) fn anchors_file(folder: &Path) -> PathBuf {
    folder.join("anchors.pem")
}

/// The file as text.
fn config(settings: &Settings<'_>) -> String {
    let Settings {
        name,
        identity,
        control,
        data,
        folder,
        inbound,
        outbound,
        zone,
        http_proxy,
        admin,
        ..
    } = settings;
    let workload = serde_json::json!({"ns": name.namespace, "pod": name.name}).to_string();
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = write!(
        text,
        "[identity]\nname = {}\ntrust_anchors_file = {}\nbundle_key_file = {}\nbundle_file = {}\ntoken_file = {}\n\n\
         [control]\naddress = \"{control}\"\nworkload = {workload}\ncontext = {workload}\n\n[inbound]\nports = [\n",
        quoted(identity),
        quoted(&anchors_file(folder).to_string_lossy()),
        quoted(&data.join("bundle-key.pub").to_string_lossy()),
        quoted(&folder.join("bundle.json").to_string_lossy()),
        quoted(&token_file(folder).to_string_lossy()),
        workload = quoted(&workload),
    );
    for (mesh, app) in *inbound {
        let _ = writeln!(text, "  {{ listen = \"{mesh}\", app = \"{app}\" }},");
    }
    text.push_str("]\n\n[outbound]\nservices = [\n");
    for (listener, authority) in *outbound {
        let _ = writeln!(
            text,
            "  {{ listen = \"{listener}\", authority = {} }},",
            quoted(authority)
        );
    }
    // One worker is plenty for one machine's traffic with itself, and many proxies share it. One that was
    // replaced may drain for long, as nobody waits for it.
    let _ = write!(
        text,
        "]\nhttp_proxy = \"{http_proxy}\"\n\n[limits]\nworkers = 1\ndrain_timeout = \"10s\"\n\n[admin]\nlisten = \"{admin}\"\n"
    );
    if let Some(zone) = zone {
        let _ = write!(text, "\n[balance]\nzone = {}\n", quoted(zone));
    }
    text
}

/// A TOML basic string: the escapes of JSON are among those of TOML.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text)
        .to_string()
        .replace('\u{7f}', "\\u007f")
}
