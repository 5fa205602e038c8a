//! How many names one identity may have in the record. Who holds a certificate chooses the names of its workloads itself, so
//! what it makes up must not fill the record, nor block everybody else.

use std::collections::HashMap;

use mesh_trust_rotation::{Rotation, WorkloadId};

use super::consumers::Process;

/// The names that there are, counted when one is asked about that is new. For one turn.
#[derive(Debug, Default)]
pub(super) struct Names {
    counted: Option<HashMap<String, usize>>,
}

impl Names {
    /// Whether this one can be in the record: it is already, or its identity has room for it. Counts it then.
    pub(super) fn admit(&mut self, rotation: &Rotation, id: &WorkloadId) -> bool {
        if rotation.consumers().contains_key(id) {
            return true;
        }
        // Without a name of its own, it is the one of its identity.
        let Some((_, identity)) = id.as_str().rsplit_once('@') else {
            return true;
        };
        let counted = self.counted.get_or_insert_with(|| {
            let mut counted = HashMap::new();
            for id in rotation.consumers().keys() {
                if let Some((_, identity)) = id.as_str().rsplit_once('@') {
                    *counted.entry(identity.to_owned()).or_default() += 1;
                }
            }
            counted
        });
        let count = counted.entry(identity.to_owned()).or_default();
        if *count >= MAX_NAMES {
            return false;
        }
        *count += 1;
        true
    }
}

/// Of which process a stream is: that of its first report, and no other later.
#[derive(Debug, Default)]
pub(super) struct Speaker(Option<(String, String)>);

impl Speaker {
    pub(super) fn is(&mut self, process: &Process) -> bool {
        let who = (process.process.clone(), process.workload.clone());
        *self.0.get_or_insert_with(|| who.clone()) == who
    }
}

/// Of one identity: replicas, and what those that are gone have left for two leases.
pub(super) const MAX_NAMES: usize = 500;

#[cfg(test)]
mod tests {
    use mesh_trust_rotation::Incarnation;

    use super::*;

    #[test]
    fn a_stream_is_of_one_process() {
        let process = |process: &str, workload: &str| Process {
            process: process.to_owned(),
            incarnation: Incarnation(1),
            workload: workload.to_owned(),
            loaded: None,
        };
        let mut speaker = Speaker::default();
        assert!(speaker.is(&process("a", "shop:web")));
        assert!(speaker.is(&process("a", "shop:web")));
        assert!(!speaker.is(&process("a", "shop:web-2")));
        assert!(!speaker.is(&process("b", "shop:web")));
        assert!(speaker.is(&process("a", "shop:web")));
    }
}
