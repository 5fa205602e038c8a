//! An outside authority: another program makes anchors and issuers and writes them as files. Here they are watched, judged and
//! gated: what is new begins a change, what is wrong is named and changes nothing.
//!
//! - `files`: the three files, read so that they belong together
//! - `offer`: what is in them, and what can be wrong with it
//! - `verdict`: what becomes of it, by what the record has in force

mod files;
mod offer;
mod verdict;

use std::{
    fmt,
    path::PathBuf,
    time::{Duration, SystemTime},
};

pub(crate) use crate::config::OutsideCa as Source;

use self::files::Files;
pub(in crate::trust) use self::offer::Offer;
pub(in crate::trust) use self::verdict::{Verdict, verdict};

/// What is wrong with what was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    pub(super) file: PathBuf,
    /// From 1; none where all of the file is meant.
    pub(super) line: Option<usize>,
    pub(super) field: &'static str,
    /// What it is and what would be right.
    pub(super) reason: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        write!(f, ": {}: {}", self.field, self.reason)
    }
}

impl std::error::Error for Fault {}

/// How it stands with what an outside authority wrote last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Standing {
    /// `in force`, `changing`, `waits`, `unsettled` or `refused`.
    pub(crate) word: &'static str,
    /// Why it waits or is refused.
    pub(crate) detail: String,
    pub(crate) since: SystemTime,
}

/// Follows what is written.
#[derive(Debug)]
pub(super) struct Outside {
    source: Source,
    seen: Option<Seen>,
    pub(super) standing: Option<Standing>,
}

/// What was read last, and since when it is the same.
#[derive(Debug)]
struct Seen {
    files: Result<Files, Fault>,
    since: SystemTime,
    looked: SystemTime,
    /// Once it has settled.
    judged: Option<Result<Offer, Fault>>,
}

impl Outside {
    pub(super) fn new(source: Source) -> Self {
        Self {
            source,
            seen: None,
            standing: None,
        }
    }

    pub(super) fn source(&self) -> &Source {
        &self.source
    }

    /// Looks at the files. None until they have been the same for a while: whoever writes one after another, or slowly, is not
    /// judged by half of it.
    pub(super) fn look(&mut self, now: SystemTime) -> Option<&Result<Offer, Fault>> {
        let early = |seen: &Seen| {
            let since = now.duration_since(seen.looked);
            since.is_ok_and(|since| since < LOOK_AGAIN)
        };
        if !self.seen.as_ref().is_some_and(early) {
            let files = self.source.read();
            match &mut self.seen {
                Some(seen) if seen.files == files => seen.looked = now,
                seen => {
                    *seen = Some(Seen {
                        files,
                        since: now,
                        looked: now,
                        judged: None,
                    });
                }
            }
        }
        let source = &self.source;
        let seen = self.seen.as_mut()?;
        let settled = seen.looked.duration_since(seen.since);
        if settled.is_ok_and(|settled| settled >= SETTLED) {
            let files = &seen.files;
            let judge = || files.clone().and_then(|files| Offer::read(source, &files));
            return Some(seen.judged.get_or_insert_with(judge));
        }
        None
    }

    /// Notes how it stands; true if that is another than before.
    pub(super) fn stands(&mut self, word: &'static str, detail: String, now: SystemTime) -> bool {
        let same = |standing: &Standing| standing.word == word && standing.detail == detail;
        if self.standing.as_ref().is_some_and(same) {
            return false;
        }
        self.standing = Some(Standing {
            word,
            detail,
            since: now,
        });
        true
    }
}

/// Three small files are read no more often.
const LOOK_AGAIN: Duration = Duration::from_millis(400);
/// For so long they have to be the same.
const SETTLED: Duration = Duration::from_secs(1);
