//! The audit chain: all entries are in the data folder, the digest of the last one is the controller's to say.

use std::path::Path;
use std::process::ExitCode;

use mesh_control_api::admin::Trust;
use mesh_trust_rotation::Digest;
use mesh_trust_rotation::audit::{self, Entry};
use mesh_trust_rotation::crypto::Sha256;

use crate::Error;
use crate::output::{Output, Table};

pub(super) fn run(
    output: &mut Output,
    folder: &Path,
    trust: &Trust,
    verify: bool,
    json: bool,
) -> Result<ExitCode, Error> {
    let path = folder.join("trust-audit.jsonl");
    let text = std::fs::read_to_string(&path).map_err(|source| Error::File {
        path: path.clone(),
        source,
    })?;
    let mut entries: Vec<Entry> = Vec::new();
    for line in text.lines() {
        // A line that a crash cut short was written again, whole.
        if let Ok(entry) = serde_json::from_str::<Entry>(line) {
            entries.push(entry);
        }
    }
    // Entries may have been added since the controller was asked.
    let length = usize::try_from(trust.audit_length).unwrap_or(usize::MAX);
    entries.truncate(length);
    if verify {
        return Ok(match check(&entries, trust) {
            Ok(()) => {
                output.line(&format!("{} entries follow one another", entries.len()));
                ExitCode::SUCCESS
            }
            Err(reason) => {
                output.line(&reason);
                ExitCode::FAILURE
            }
        });
    }
    if json {
        for entry in &entries {
            output.line(&serde_json::json!(entry).to_string());
        }
        return Ok(ExitCode::SUCCESS);
    }
    let mut table = Table::new(&[
        "#",
        "AT",
        "WHO",
        "WHAT",
        "PHASE AFTER",
        "GENERATION",
        "BLOCKERS",
    ]);
    for entry in entries {
        table.row([
            entry.index.to_string(),
            entry.at.0.to_string(),
            entry.actor,
            entry.event,
            entry.phase.map_or(String::new(), |phase| phase.to_string()),
            entry.generation.to_string(),
            entry.blockers.to_string(),
        ]);
    }
    output.table(&table);
    Ok(ExitCode::SUCCESS)
}

fn check(entries: &[Entry], trust: &Trust) -> Result<(), String> {
    if entries.len() as u64 != trust.audit_length || entries.first().is_some_and(|e| e.index != 0) {
        return Err(format!(
            "{} entries are there, of {}",
            entries.len(),
            trust.audit_length
        ));
    }
    let head = Digest::try_from(trust.audit_head.clone());
    let head = head.map_err(|error| error.to_string())?;
    audit::verify(entries, head, &Sha256).map_err(|error| error.to_string())
}
