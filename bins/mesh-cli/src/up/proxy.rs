//! A proxy's configuration file.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use mesh_discovery::Name;

/// What differs from proxy to proxy.
#[derive(Debug)]
pub(crate) struct Settings<'a> {
    /// The workload.
    pub(crate) name: &'a Name,
    /// What it proves.
    pub(crate) identity: &'a str,
    /// The controller.
    pub(crate) control: SocketAddr,
    /// Where its files are.
    pub(crate) folder: &'a Path,
    /// Mesh ports and the application's ports behind them.
    pub(crate) inbound: &'a [(SocketAddr, SocketAddr)],
    /// Listeners and the service that each stands for.
    pub(crate) outbound: &'a [(SocketAddr, String)],
    /// Where plain proxy requests are taken.
    pub(crate) http_proxy: SocketAddr,
    /// Where it answers about itself.
    pub(crate) admin: SocketAddr,
}

/// Where its configuration is, among its files.
pub(crate) fn config_file(folder: &Path) -> PathBuf {
    folder.join("proxy.toml")
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
pub(crate) fn config(settings: &Settings<'_>) -> String {
    let Settings {
        name,
        identity,
        control,
        folder,
        inbound,
        outbound,
        http_proxy,
        admin,
    } = settings;
    let workload = serde_json::json!({"ns": name.namespace, "pod": name.name}).to_string();
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = write!(
        text,
        "[identity]\nname = {}\ntrust_anchors_file = {}\ntoken_file = {}\n\n\
         [control]\naddress = \"{control}\"\nworkload = {workload}\ncontext = {workload}\n\n[inbound]\nports = [\n",
        quoted(identity),
        quoted(&anchors_file(folder).to_string_lossy()),
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
    // One worker is plenty for one machine's traffic with itself, and many proxies share it.
    let _ = write!(
        text,
        "]\nhttp_proxy = \"{http_proxy}\"\n\n[limits]\nworkers = 1\ndrain_timeout = \"3s\"\n\n[admin]\nlisten = \"{admin}\"\n"
    );
    text
}

/// A TOML basic string: the escapes of JSON are among those of TOML.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text)
        .to_string()
        .replace('\u{7f}', "\\u007f")
}
