//! All entries of the audit chain, in the data folder: the record itself keeps the last ones only.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use mesh_trust_rotation::audit::{Chain, Entry};

/// The file, one entry a line. What a crash kept from being written is written with the next start, as the record has it still.
#[derive(Debug)]
pub(super) struct Archive {
    file: File,
    /// The index of the first entry that is not in the file.
    next: u64,
}

impl Archive {
    /// Opens the file, or makes it.
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let mut file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .mode(0o600)
            .open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
        let mut tail = Vec::new();
        file.read_to_end(&mut tail)?;
        if tail.last().is_some_and(|last| *last != b'\n') {
            // The line was cut short by a crash. It is written again, whole.
            file.write_all(b"\n")?;
        }
        let mut lines = tail.rsplit(|byte| *byte == b'\n');
        let last = lines.find_map(|line| serde_json::from_slice::<Entry>(line).ok());
        Ok(Self {
            file,
            next: last.map_or(0, |entry| entry.index + 1),
        })
    }

    /// Adds the entries that are not in the file yet.
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn append(&mut self, chain: &Chain) -> io::Result<()> {
        if chain.length() <= self.next {
            return Ok(());
        }
        let mut lines = Vec::new();
        for entry in chain.recent().filter(|entry| entry.index >= self.next) {
            serde_json::to_writer(&mut lines, entry)?;
            lines.push(b'\n');
        }
        let end = self.file.metadata()?.len();
        if let Err(error) = self.file.write_all(&lines) {
            // What there was space for is written again, whole.
            self.file.set_len(end)?;
            return Err(error);
        }
        self.next = chain.length();
        Ok(())
    }
}

const TAIL_BYTES: u64 = 256 << 10;
