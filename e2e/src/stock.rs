//! Proxies that are started with what `mesh token --stock-proxy` writes: a stock linkerd2-proxy, or ours in its place.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::mesh::Program;
use crate::network::Host;
use crate::process::{PROXY_USER, Process};
use crate::programs;

/// The stock linkerd2-proxy to test against, if there is one: the file that `LINKERD2_PROXY` names.
///
/// # Panics
/// If the variable names no file: a mistake is no reason to skip.
#[must_use]
pub fn linkerd2_proxy() -> Option<PathBuf> {
    let path = PathBuf::from(std::env::var_os("LINKERD2_PROXY").filter(|path| !path.is_empty())?);
    assert!(
        path.is_file(),
        "LINKERD2_PROXY={}: there is no such file",
        path.display()
    );
    Some(path)
}

/// Has `mesh` write what the proxy of a workload is started with into `folder`.
///
/// # Panics
/// If it does not.
pub(crate) fn set_up(data: &Path, controller: &str, workload: &str, folder: &Path) {
    let output = Command::new(programs::built("mesh"))
        .args(["token", "--workload", workload, "--controller", controller])
        .arg("--stock-proxy")
        .arg(folder)
        .arg("--data")
        .arg(data)
        .output()
        .unwrap_or_else(|error| panic!("mesh token: {error}"));
    assert!(
        output.status.success(),
        "mesh token --stock-proxy: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Starts the program with the variables in `folder`, read as its documentation says.
///
/// # Panics
/// If it cannot be started.
pub(crate) fn start(program: Program, host: &Host, folder: &Path) -> Process {
    let path = match program {
        Program::Stock => linkerd2_proxy()
            .unwrap_or_else(|| panic!("LINKERD2_PROXY names no stock linkerd2-proxy")),
        Program::Ours | Program::Listeners | Program::StandIn => programs::built("mesh-proxy"),
    };
    host.spawn("sh")
        .args(["-c", "set -a; . \"$0\"; exec \"$1\""])
        .arg(folder.join("proxy.env"))
        .arg(path)
        .user(PROXY_USER)
        .start()
}
