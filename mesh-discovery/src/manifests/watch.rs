//! Follows a folder of the file system.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    },
    thread,
    time::Duration,
};

use notify::{
    Event, EventKind, RecursiveMode, Watcher as _,
    event::{AccessKind, AccessMode},
};

use super::{
    folder::{Changes, Folder},
    inode::{Inode, inode},
    scan::Scanner,
};
use crate::Error;

/// How a folder is followed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Options {
    /// How long the folder must be quiet before it is read, so that what is saved together counts
    /// together; a folder that is never quiet is read after ten times as long. Default 100 ms.
    pub debounce: Duration,
    /// How often the folder is read although nothing was heard, as some file systems tell nothing.
    /// Default 30 s.
    pub rescan: Duration,
    /// How often a folder that is not there is looked for. Default 500 ms.
    pub retry: Duration,
}

/// Follows a folder until it is dropped.
#[derive(Debug)]
pub struct Watcher {
    stop: Arc<AtomicBool>,
    bell: SyncSender<()>,
}

/// The part that runs on a thread of its own.
struct Follower<F> {
    path: PathBuf,
    options: Options,
    on_change: F,
    folder: Folder,
    scanner: Scanner,
    stop: Arc<AtomicBool>,
    bell: SyncSender<()>,
    rung: Receiver<()>,
    watch: Option<Watch>,
}

/// A watch on what was at the path, which need not be what is there now.
struct Watch {
    inode: Option<Inode>,
    /// The folder itself went or events were lost. A new folder may have the old one's number.
    stale: Arc<AtomicBool>,
    _watcher: notify::RecommendedWatcher,
}

impl Watcher {
    /// Reads the folder, reports it to `on_change`, and from then on reports whatever changes, from a
    /// thread of its own. A folder that is not there yet is an error in the state reported, and read
    /// when it appears.
    ///
    /// # Errors
    /// [`Error::Watch`] when there can be no thread.
    pub fn start(
        path: impl Into<PathBuf>,
        options: Options,
        on_change: impl FnMut(&Folder, &Changes) + Send + 'static,
    ) -> Result<Self, Error> {
        let path = path.into();
        // Events name what they are about by its whole path.
        let path = std::path::absolute(&path).unwrap_or(path);
        let (bell, rung) = sync_channel(1);
        let stop = Arc::new(AtomicBool::new(false));
        let mut follower = Follower {
            path: path.clone(),
            options,
            on_change,
            folder: Folder::new(),
            scanner: Scanner::default(),
            stop: stop.clone(),
            bell: bell.clone(),
            rung,
            watch: None,
        };
        follower.look(true);
        thread::Builder::new()
            .name("manifests".to_owned())
            .spawn(move || follower.run())
            .map_err(|error| Error::Watch {
                path,
                reason: error.to_string(),
            })?;
        Ok(Self { stop, bell })
    }
}

impl<F: FnMut(&Folder, &Changes)> Follower<F> {
    fn run(mut self) {
        while !self.stop.load(Ordering::Relaxed) {
            let wait = match self.watch {
                Some(_) => self.options.rescan,
                None => self.options.retry.min(self.options.rescan),
            };
            match self.rung.recv_timeout(wait) {
                Ok(()) => self.settle(),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            if !self.stop.load(Ordering::Relaxed) {
                self.look(false);
            }
        }
    }

    /// Waits until the bell has been quiet for a while.
    fn settle(&self) {
        for _ in 0..10 {
            if self.stop.load(Ordering::Relaxed)
                || self.rung.recv_timeout(self.options.debounce).is_err()
            {
                return;
            }
        }
    }

    /// Watches before it reads, so that what happens in between is heard.
    fn look(&mut self, first: bool) {
        let inode = inode(&self.path);
        if !self.watch.as_ref().is_some_and(|watch| watch.holds(inode)) {
            self.watch = inode.and_then(|_| watch(&self.path, inode, &self.bell));
        }
        let changes = self.scanner.scan(&self.path, &mut self.folder);
        if first || changes != Changes::default() {
            (self.on_change)(&self.folder, &changes);
        }
    }
}

impl Watch {
    fn holds(&self, inode: Option<Inode>) -> bool {
        inode.is_some() && self.inode == inode && !self.stale.load(Ordering::Relaxed)
    }
}

/// `None` when the system cannot: then the folder is read at intervals.
fn watch(path: &Path, inode: Option<Inode>, bell: &SyncSender<()>) -> Option<Watch> {
    let stale = Arc::new(AtomicBool::new(false));
    let (bell, folder, is_stale) = (bell.clone(), path.to_owned(), stale.clone());
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
        let event = event.unwrap_or_default();
        if !is_change(event.kind) {
            return;
        }
        if event.need_rescan() || event.paths.is_empty() || event.paths.contains(&folder) {
            is_stale.store(true, Ordering::Relaxed);
        }
        // Full means rung already.
        let _ = bell.try_send(());
    })
    .ok()?;
    watcher.watch(path, RecursiveMode::NonRecursive).ok()?;
    Some(Watch {
        inode,
        stale,
        _watcher: watcher,
    })
}

/// Reading is no change: or else reading the folder would ring for itself.
fn is_change(kind: EventKind) -> bool {
    match kind {
        EventKind::Access(access) => access == AccessKind::Close(AccessMode::Write),
        _ => true,
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.bell.try_send(());
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            debounce: Duration::from_millis(100),
            rescan: Duration::from_secs(30),
            retry: Duration::from_millis(500),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, sync::mpsc::channel};

    use super::*;

    /// Or else the folder would be read forever.
    #[test]
    fn reading_a_folder_rings_no_bell() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.yaml");
        fs::write(&file, "a").unwrap();
        let (sender, events) = channel();
        let mut watcher = notify::recommended_watcher(sender).unwrap();
        watcher
            .watch(folder.path(), RecursiveMode::NonRecursive)
            .unwrap();

        Scanner::default().scan(folder.path(), &mut Folder::new());
        let mark = folder.path().join("mark");
        fs::create_dir(&mark).unwrap();
        loop {
            let event = events
                .recv_timeout(Duration::from_secs(20))
                .unwrap()
                .unwrap();
            if event.paths.contains(&mark) {
                return;
            }
            assert!(!is_change(event.kind), "{event:?}");
        }
    }
}
