//! What a test needs of the machine, and what happens when it is not there.

use std::fmt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::{clock, programs};

/// One thing a test cannot run without.
#[derive(Debug, Clone, Copy)]
pub enum Requirement {
    /// The effective user is root: namespaces, nftables and captures need it.
    Root,
    /// A program is on the search path.
    Program(&'static str),
    /// A program of this workspace has been built into the same target folder as the test.
    Built(&'static str),
    /// Debian's libfaketime is installed, for [`Clock`](crate::Clock).
    Faketime,
    /// A Python module can be imported by [`python`].
    Python(&'static str),
}

impl Requirement {
    fn is_met(self) -> bool {
        match self {
            Self::Root => effective_user() == Some(0),
            Self::Program(name) => on_path(name),
            Self::Built(name) => programs::built(name).is_file(),
            Self::Faketime => clock::library().is_some(),
            Self::Python(module) => Command::new(python())
                .args(["-c", &format!("import {module}")])
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status()
                .is_ok_and(|status| status.success()),
        }
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => f.write_str("root"),
            Self::Program(name) => write!(f, "the program {name}"),
            Self::Built(name) => write!(f, "{name} (cargo build -p {name})"),
            Self::Faketime => f.write_str("libfaketime"),
            Self::Python(module) => write!(f, "the Python module {module}"),
        }
    }
}

/// What every test that makes namespaces needs.
pub const NAMESPACES: [Requirement; 3] = [
    Requirement::Root,
    Requirement::Program("ip"),
    Requirement::Program("setpriv"),
];

/// Whether everything in `needs`, and [`NAMESPACES`], is there.
///
/// If not, one line `SKIPPED: needs ...` goes to standard output and the answer is `false`: the test returns.
///
/// # Panics
/// With `MESH_TEST_REQUIRE=1` in the environment (as in CI) a missing requirement is a failure.
#[must_use]
#[allow(
    clippy::print_stdout,
    reason = "the line is meant for the person who reads the test's output"
)]
pub fn require(needs: &[Requirement]) -> bool {
    let missing: Vec<String> = NAMESPACES
        .iter()
        .chain(needs)
        .filter(|need| !need.is_met())
        .map(ToString::to_string)
        .collect();
    if missing.is_empty() {
        return true;
    }
    let missing = missing.join(", ");
    let strict = std::env::var("MESH_TEST_REQUIRE").is_ok_and(|value| value == "1");
    assert!(
        !strict,
        "MESH_TEST_REQUIRE=1 and this test needs {missing}: run scripts/setup-tests"
    );
    println!("SKIPPED: needs {missing}: run scripts/setup-tests");
    false
}

/// The Python with the test peers' modules: `MESH_TEST_PYTHON`, else the virtual environment that
/// `scripts/setup-tests` makes in the cache folder, else `python3`.
#[must_use]
pub fn python() -> PathBuf {
    if let Some(chosen) = std::env::var_os("MESH_TEST_PYTHON") {
        return chosen.into();
    }
    let cache = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache")));
    match cache.map(|cache| cache.join("mesh-rs/venv/bin/python")) {
        Some(python) if python.is_file() => python,
        _ => "python3".into(),
    }
}

fn on_path(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .any(|folder| folder.join(name).is_file())
}

/// The effective user id, from `/proc/self/status` (line `Uid: real effective saved filesystem`).
fn effective_user() -> Option<u32> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}
