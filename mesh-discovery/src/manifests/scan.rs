//! Reads a folder of the file system.

use std::{
    collections::HashMap,
    fs::{self, File},
    hash::{BuildHasher, RandomState},
    io::{self, ErrorKind, Read},
    path::Path,
};

use super::{
    folder::{Changes, Content, FILES, Folder, too_many_files},
    parse::FILE_BYTES,
};

/// Remembers what files were like, so that only those that changed are parsed again.
#[derive(Debug, Default)]
pub(super) struct Scanner {
    seen: HashMap<String, u64>,
    hasher: RandomState,
}

enum Found {
    Text(String),
    Unreadable(String),
}

impl Scanner {
    /// Brings `folder` up to what is at `path`.
    pub(super) fn scan(&mut self, path: &Path, folder: &mut Folder) -> Changes {
        let names = match names(path) {
            Ok(names) => names,
            Err(error) => {
                return folder.unreadable(format!(
                    "cannot read the folder {}: {error}; what was read before stays in force",
                    path.display()
                ));
            }
        };
        if names.len() > FILES {
            return folder.unreadable(too_many_files());
        }
        let mut files = Vec::new();
        let mut seen = HashMap::with_capacity(names.len());
        for name in names {
            let Some(found) = read(&path.join(&name)) else {
                continue;
            };
            let hash = match &found {
                Found::Text(text) => self.hasher.hash_one((true, text)),
                Found::Unreadable(reason) => self.hasher.hash_one((false, reason)),
            };
            if self.seen.remove(&name) != Some(hash) {
                files.push((name.clone(), found));
            }
            seen.insert(name, hash);
        }
        let gone = std::mem::replace(&mut self.seen, seen);
        let gone = gone.keys().map(|name| (name.as_str(), Content::Gone));
        folder.apply_all(gone.chain(files.iter().map(|(name, found)| {
            let content = match found {
                Found::Text(text) => Content::Text(text),
                Found::Unreadable(reason) => Content::Unreadable(reason),
            };
            (name.as_str(), content)
        })))
    }
}

impl Folder {
    /// Reads a folder of the file system once.
    pub fn read(path: &Path) -> Self {
        let mut folder = Self::new();
        Scanner::default().scan(path, &mut folder);
        folder
    }
}

/// Files that count: `.yaml` and `.yml`, not hidden, directly in the folder. In order, so that it does
/// not depend on the file system which of two duplicates counts at first.
fn names(path: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(path)? {
        let name = entry?.file_name();
        let Some(name) = name.to_str() else { continue };
        let counts = !name.starts_with('.') && (name.ends_with(".yaml") || name.ends_with(".yml"));
        if counts {
            names.push(name.to_owned());
        }
        if names.len() > FILES {
            break;
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// `None` when there is no such file (any more).
fn read(path: &Path) -> Option<Found> {
    let text = || -> io::Result<Option<String>> {
        // Opening what is no file, such as a pipe, could take forever.
        if !fs::metadata(path)?.is_file() {
            return Ok(None);
        }
        let mut text = String::new();
        let most = FILE_BYTES as u64 + 1;
        File::open(path)?.take(most).read_to_string(&mut text)?;
        Ok(Some(text))
    };
    match text() {
        Ok(text) => text.map(Found::Text),
        Err(error) => match error.kind() {
            ErrorKind::NotFound => None,
            ErrorKind::InvalidData => Some(Found::Unreadable(
                "is no UTF-8 text: save it as UTF-8".to_owned(),
            )),
            _ => Some(Found::Unreadable(format!("cannot be read: {error}"))),
        },
    }
}
