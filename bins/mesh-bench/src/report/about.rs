//! Where and of what something was measured.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use serde::{Deserialize, Serialize};

use crate::peers::{CIPHER_SUITE, Found, KEY_EXCHANGE, Kind, checkout};
use crate::stage::{Cores, output};

/// Where and of what something was measured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct About {
    /// The code.
    pub(crate) commit: String,
    /// The day, in UTC.
    date: String,
    /// Processor, kernel.
    machine: String,
    /// What runs on which core.
    cores: String,
    /// What is spoken between the proxies.
    cryptography: String,
    /// What each peer says of itself.
    versions: BTreeMap<Kind, String>,
    /// Who was not there, and why.
    missing: Vec<String>,
}

impl About {
    /// Asks the system.
    pub(crate) fn new(cores: &Cores, found: &[Found], missing: &[String]) -> Self {
        let count = std::thread::available_parallelism().map_or(1, usize::from);
        let model = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = model
            .lines()
            .find_map(|line| line.strip_prefix("model name"));
        let model = model.map_or("unknown processor", |line| {
            line.trim_start_matches(['\t', ' ', ':'])
        });
        Self {
            commit: commit(),
            date: said("date", &["-u", "+%F %H:%M UTC"]),
            machine: format!("{model}, {count} cores, {}", said("uname", &["-sr"])),
            cores: cores.describe(),
            cryptography: cryptography(found),
            versions: found
                .iter()
                .map(|peer| (peer.kind(), peer.version()))
                .filter(|(_, version)| !version.is_empty())
                .collect(),
            missing: missing.to_vec(),
        }
    }

    /// As Markdown, for what this command measured.
    pub(crate) fn markdown(&self, command: &str) -> String {
        let mut text = format!(
            "Measured by `mesh-bench {command}` on {}, commit {}.\n{}; {}.\n{}\n",
            self.date, self.commit, self.machine, self.cores, self.cryptography
        );
        // Writing to a string cannot fail.
        for version in self.versions.values() {
            let _ = writeln!(text, "- {version}");
        }
        for missing in &self.missing {
            let _ = writeln!(text, "- skipped: {missing}");
        }
        text
    }

    /// What keeps the two from being of the same thing.
    pub(super) fn difference(&self, other: &Self) -> Option<String> {
        let pairs = [
            (&self.commit, &other.commit),
            (&self.machine, &other.machine),
            (&self.cores, &other.cores),
        ];
        let (now, then) = pairs.into_iter().find(|(now, then)| now != then)?;
        Some(format!("{now}, not {then}"))
    }

    /// Knows what either knew.
    pub(super) fn join(&mut self, other: Self) {
        for (kind, version) in other.versions {
            self.versions.entry(kind).or_insert(version);
        }
        for missing in other.missing {
            if !self.missing.contains(&missing) {
                self.missing.push(missing);
            }
        }
    }

    #[cfg(test)]
    pub(super) fn example() -> Self {
        Self {
            commit: "c".into(),
            date: "d".into(),
            machine: "m".into(),
            cores: "k".into(),
            cryptography: "t".into(),
            versions: BTreeMap::new(),
            missing: Vec::new(),
        }
    }
}

/// What is pinned, and what cannot be.
fn cryptography(found: &[Found]) -> String {
    let mut text = format!(
        "mTLS 1.3 between the proxies, certificates on P-256, {CIPHER_SUITE}, key exchange {KEY_EXCHANGE}, no resumption."
    );
    let there = |kind| found.iter().any(|peer| peer.kind() == kind);
    if there(Kind::Envoy) {
        text.push_str(
            " Envoy's suite cannot be set; with AES in hardware it takes that one by itself.",
        );
    }
    let unpinned = |peer: &Found| matches!(peer, Found::Mesh(programs) if !programs.can_pin());
    if found.iter().any(unpinned) {
        text.push_str(
            " This mesh-proxy's cannot be set: TLS_AES_256_GCM_SHA384 and X25519MLKEM768.",
        );
    }
    if there(Kind::Linkerd) || there(Kind::Floor) {
        text.push_str(" What linkerd2-proxy and the floor speak cannot be set.");
    }
    text
}

fn commit() -> String {
    let root = checkout();
    let root = root.as_deref().unwrap_or(Path::new("."));
    let git = |arguments: &[&str]| output(Command::new("git").arg("-C").arg(root).args(arguments));
    let Ok(commit) = git(&["rev-parse", "--short=10", "HEAD"]) else {
        return "unknown".into();
    };
    let changed = git(&[
        "status",
        "--porcelain",
        "--untracked-files=no",
        "--",
        ".",
        ":!*.md",
        ":!*/results/*",
    ]);
    let changed = changed.is_ok_and(|changes| !changes.is_empty());
    format!(
        "{}{}",
        commit.trim(),
        if changed { " with changes" } else { "" }
    )
}

fn said(program: &str, arguments: &[&str]) -> String {
    let said = output(Command::new(program).args(arguments));
    said.map_or_else(|_| "unknown".into(), |text| text.trim().to_owned())
}
