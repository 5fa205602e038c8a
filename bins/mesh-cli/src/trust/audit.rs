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
    from: u64,
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
    entries.retain(|entry| (from..trust.audit_length).contains(&entry.index));
    if verify {
        return Ok(match check(&entries, trust, from) {
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

fn check(entries: &[Entry], trust: &Trust, from: u64) -> Result<(), String> {
    let length = trust.audit_length;
    if from >= length {
        return Err(format!("there is no entry {from}: there are {length}"));
    }
    let missing = (from..length)
        .zip(
            entries
                .iter()
                .map(|entry| Some(entry.index))
                .chain(std::iter::repeat(None)),
        )
        .find(|(wanted, found)| *found != Some(*wanted));
    if let Some((missing, _)) = missing {
        let known = entries.iter().rev().zip((0..length).rev());
        let last = known
            .take_while(|(entry, index)| entry.index == *index)
            .last();
        let rest = last.map_or_else(String::new, |(entry, _)| {
            format!(
                ". Where other controllers share the mesh, it may be in the data folder of one of those, and `--from {}` \
                 checks what was written here since",
                entry.index
            )
        });
        return Err(format!(
            "entry {missing} is not there: {} are, of {}{rest}",
            entries.len(),
            length - from
        ));
    }
    let head = Digest::try_from(trust.audit_head.clone());
    let head = head.map_err(|error| error.to_string())?;
    audit::verify(entries, head, &Sha256).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use mesh_trust_rotation::audit::Chain;
    use mesh_trust_rotation::{Epoch, Generation, UnixTime};

    use super::*;

    /// A chain of ten entries, and what the controller says of it.
    fn chain() -> (Vec<Entry>, Trust) {
        let mut chain = Chain::default();
        for number in 0..10 {
            let entry = Entry {
                index: 0,
                at: UnixTime(number),
                epoch: Epoch(1),
                actor: "operator".to_owned(),
                event: "pause".to_owned(),
                phase: None,
                generation: Generation(1),
                gate: None,
                blockers: 0,
                inputs: Digest::new([0; 32]),
                previous: Digest::new([0; 32]),
            };
            chain.add(entry, &Sha256).unwrap();
        }
        let trust = Trust {
            audit_length: chain.length(),
            audit_head: chain.head().to_string(),
            ..Trust::default()
        };
        (chain.recent().cloned().collect(), trust)
    }

    #[test]
    fn what_was_changed_left_out_or_added_is_noticed() {
        let (entries, trust) = chain();
        check(&entries, &trust, 0).unwrap();
        for number in 0..10 {
            let mut changed = entries.clone();
            changed[number].actor = "nobody".to_owned();
            check(&changed, &trust, 0).unwrap_err();
            let mut fewer = entries.clone();
            fewer.remove(number);
            let reason = check(&fewer, &trust, 0).unwrap_err();
            assert!(
                reason.contains(&format!("entry {number} is not there")),
                "{reason}"
            );
            let mut more = entries.clone();
            more.insert(number, entries[number].clone());
            check(&more, &trust, 0).unwrap_err();
        }
    }

    #[test]
    fn what_another_controller_wrote_can_be_left_out_by_saying_so() {
        let (mut entries, trust) = chain();
        entries.drain(2..5);
        let reason = check(&entries, &trust, 0).unwrap_err();
        assert!(
            reason.contains("entry 2 is not there") && reason.contains("`--from 5`"),
            "{reason}"
        );
        check(&entries[2..], &trust, 5).unwrap();
        check(&entries[2..], &trust, 4).unwrap_err();
        check(&[], &trust, 10).unwrap_err();
    }
}
