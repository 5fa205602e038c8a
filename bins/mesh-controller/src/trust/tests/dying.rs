//! Stores that die at a write, as their process would.

use std::{
    collections::BTreeMap,
    fmt,
    fs::OpenOptions,
    io,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use redb::{StorageBackend, backends::FileBackend};

use crate::store::{
    EmbeddedStore, Expected, Most, StateStore, StoreError, StoreFuture, Version, Versioned,
};

/// Values in memory.
#[derive(Debug)]
pub(super) struct Memory {
    values: Mutex<BTreeMap<String, Versioned>>,
    version: AtomicU64,
    most: Most,
}

impl Memory {
    /// One that takes so much in a commit.
    pub(super) fn taking(most: Most) -> Self {
        Self {
            values: Mutex::default(),
            version: AtomicU64::new(0),
            most,
        }
    }

    fn change(
        &self,
        expected: Vec<(String, Expected)>,
        changes: Vec<(String, Option<Vec<u8>>)>,
    ) -> Result<Version, StoreError> {
        let mut values = self.values.lock().unwrap();
        for (key, expected) in expected {
            let found = values.get(&key).map(|found| found.version);
            let wanted = match expected {
                Expected::Absent => None,
                Expected::At(version) => Some(version),
            };
            if found != wanted {
                return Err(StoreError::Conflict {
                    key,
                    expected,
                    found,
                });
            }
        }
        let version = Version::of(self.version.fetch_add(1, Ordering::SeqCst) + 1);
        for (key, value) in changes {
            match value {
                Some(value) => values.insert(key, Versioned { version, value }),
                None => values.remove(&key),
            };
        }
        Ok(version)
    }
}

impl Default for Memory {
    fn default() -> Self {
        Self::taking(Most {
            keys: usize::MAX,
            bytes: usize::MAX,
        })
    }
}

impl StateStore for Memory {
    fn get(&self, key: &str) -> StoreFuture<'_, Option<Versioned>> {
        let found = self.values.lock().unwrap().get(key).cloned();
        Box::pin(async move { Ok(found) })
    }

    fn commit(
        &self,
        expected: Vec<(String, Expected)>,
        values: Vec<(String, Vec<u8>)>,
    ) -> StoreFuture<'_, Version> {
        let values = values.into_iter();
        let values = values.map(|(key, value)| (key, Some(value))).collect();
        let done = self.change(expected, values);
        Box::pin(async move { done })
    }

    fn most(&self) -> Most {
        self.most
    }

    fn written(
        &self,
        prefix: &str,
        since: Option<Version>,
    ) -> StoreFuture<'_, Vec<(String, Versioned)>> {
        let values = self.values.lock().unwrap();
        let found = values
            .iter()
            .filter(|(key, _)| key.starts_with(prefix))
            .filter(|(_, found)| since.is_none_or(|since| found.version > since))
            .map(|(key, found)| (key.clone(), found.clone()))
            .collect();
        Box::pin(async move { Ok(found) })
    }

    fn delete(&self, key: &str, expected: Version) -> StoreFuture<'_, ()> {
        let key = key.to_owned();
        let expected = vec![(key.clone(), Expected::At(expected))];
        let done = self.change(expected, vec![(key, None)]);
        Box::pin(async move { done.map(|_| ()) })
    }

    fn list(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> StoreFuture<'_, Vec<(String, Versioned)>> {
        let values = self.values.lock().unwrap();
        let found = values
            .iter()
            .filter(|(key, _)| key.starts_with(prefix) && after.is_none_or(|after| &***key > after))
            .take(limit)
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        Box::pin(async move { Ok(found) })
    }
}

/// A file whose process dies at one of its writes, flushes or changes of length: what was written before is there, as the
/// kernel keeps it, and nothing else is.
#[derive(Debug)]
pub(super) struct MortalFile {
    file: FileBackend,
    fate: Arc<Fate>,
}

/// When a process dies that has a file open.
#[derive(Debug, Default)]
pub(super) struct Fate {
    /// Operations until it dies; negative: never.
    left: AtomicI64,
    pub(super) dead: AtomicBool,
    operations: AtomicU64,
}

impl Fate {
    pub(super) fn immortal() -> Arc<Self> {
        let fate = Self::default();
        fate.left.store(-1, Ordering::SeqCst);
        Arc::new(fate)
    }

    pub(super) fn dies_at(&self, operation: u64) {
        let left = i64::try_from(operation).unwrap();
        self.left.store(left, Ordering::SeqCst);
    }

    pub(super) fn operations(&self) -> u64 {
        self.operations.load(Ordering::SeqCst)
    }

    fn revive(&self) {
        self.left.store(-1, Ordering::SeqCst);
        self.dead.store(false, Ordering::SeqCst);
    }

    fn lives(&self) -> io::Result<()> {
        if self.dead.load(Ordering::SeqCst) {
            return Err(io::Error::other("dead"));
        }
        Ok(())
    }

    /// An operation that changes the file is to be done.
    fn operation(&self) -> io::Result<()> {
        self.lives()?;
        self.operations.fetch_add(1, Ordering::SeqCst);
        if self.left.fetch_sub(1, Ordering::SeqCst) == 0 {
            self.dead.store(true, Ordering::SeqCst);
        }
        self.lives()
    }
}

impl MortalFile {
    /// Opens or makes a store in this file.
    pub(super) fn store(path: &Path, fate: &Arc<Fate>) -> Arc<dyn StateStore> {
        let open = || {
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .open(path)
                .unwrap();
            let file = FileBackend::new(file).unwrap();
            let fate = fate.clone();
            EmbeddedStore::on(Self { file, fate }, path)
        };
        // A call of the dead process may still be on its way out of its thread.
        for _ in 0..1000 {
            match open() {
                Ok(store) => return Arc::new(store),
                Err(StoreError::InUse { .. }) => std::thread::sleep(Duration::from_millis(2)),
                Err(error) => panic!("what a dead process left cannot be opened: {error}"),
            }
        }
        panic!("the dead process does not let go of its file");
    }
}

impl StorageBackend for MortalFile {
    fn len(&self) -> io::Result<u64> {
        self.fate.lives()?;
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.fate.lives()?;
        self.file.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.fate.operation()?;
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        // The kernel keeps what a dead process wrote: to flush it takes time and changes nothing.
        self.fate.operation()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.fate.operation()?;
        self.file.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.file.close()
    }
}

/// A store whose process dies at a write, before or after that has taken effect. From then on nothing gets through, until it
/// is revived: as another process, which opens what is there.
pub(super) struct Dying {
    open: Box<dyn Fn() -> Arc<dyn StateStore> + Send + Sync>,
    inner: Mutex<Arc<dyn StateStore>>,
    /// Writes until it dies; negative: never.
    left: AtomicI64,
    after: AtomicBool,
    dead: AtomicBool,
    writes: AtomicU64,
    /// The file's, where it is one.
    pub(super) fate: Arc<Fate>,
}

impl Dying {
    /// What is in memory stays there when its process dies.
    pub(super) fn in_memory() -> Arc<Self> {
        let memory: Arc<dyn StateStore> = Arc::new(Memory::default());
        Self::opened_by(move || memory.clone())
    }

    /// What is in a file stays there.
    pub(super) fn in_file(path: &Path) -> Arc<Self> {
        let (path, fate) = (path.to_owned(), Fate::immortal());
        let open = {
            let fate = fate.clone();
            move || MortalFile::store(&path, &fate)
        };
        Self::new(open, fate)
    }

    pub(super) fn opened_by(
        open: impl Fn() -> Arc<dyn StateStore> + Send + Sync + 'static,
    ) -> Arc<Self> {
        Self::new(open, Fate::immortal())
    }

    fn new(
        open: impl Fn() -> Arc<dyn StateStore> + Send + Sync + 'static,
        fate: Arc<Fate>,
    ) -> Arc<Self> {
        Arc::new(Self {
            fate,
            inner: Mutex::new(open()),
            open: Box::new(open),
            left: AtomicI64::new(-1),
            after: AtomicBool::new(false),
            dead: AtomicBool::new(false),
            writes: AtomicU64::new(0),
        })
    }

    /// Dies at the write after so many, before or after it has taken effect.
    pub(super) fn dies_at(&self, writes: u64, after: bool) {
        self.after.store(after, Ordering::SeqCst);
        let writes = i64::try_from(writes).unwrap();
        self.left.store(writes, Ordering::SeqCst);
    }

    pub(super) fn die(&self) {
        self.dead.store(true, Ordering::SeqCst);
    }

    pub(super) fn is_dead(&self) -> bool {
        self.dead.load(Ordering::SeqCst) || self.fate.dead.load(Ordering::SeqCst)
    }

    pub(super) fn revive(&self) {
        self.left.store(-1, Ordering::SeqCst);
        let mut inner = self.inner.lock().unwrap();
        // A process that is gone has let go of its file before another opens it.
        *inner = Arc::new(Memory::default());
        self.fate.revive();
        *inner = (self.open)();
        self.dead.store(false, Ordering::SeqCst);
    }

    pub(super) fn writes(&self) -> u64 {
        self.writes.load(Ordering::SeqCst)
    }

    fn inner(&self) -> Result<Arc<dyn StateStore>, StoreError> {
        if self.is_dead() {
            return Err(StoreError::Io("dead".into()));
        }
        Ok(self.inner.lock().unwrap().clone())
    }

    /// A write begins. The second is whether it is the last one.
    fn begin(&self) -> Result<(Arc<dyn StateStore>, bool), StoreError> {
        let inner = self.inner()?;
        self.writes.fetch_add(1, Ordering::SeqCst);
        let dies = self.left.fetch_sub(1, Ordering::SeqCst) == 0;
        if dies && !self.after.load(Ordering::SeqCst) {
            self.die();
            return Err(StoreError::Io("dies before a write".into()));
        }
        Ok((inner, dies))
    }

    /// A write has taken effect.
    fn end<T>(&self, dies: bool, done: Result<T, StoreError>) -> Result<T, StoreError> {
        if dies {
            self.die();
            return Err(StoreError::Io("dies after a write".into()));
        }
        done
    }
}

impl StateStore for Dying {
    fn get(&self, key: &str) -> StoreFuture<'_, Option<Versioned>> {
        let key = key.to_owned();
        Box::pin(async move { self.inner()?.get(&key).await })
    }

    fn commit(
        &self,
        expected: Vec<(String, Expected)>,
        values: Vec<(String, Vec<u8>)>,
    ) -> StoreFuture<'_, Version> {
        Box::pin(async move {
            let (inner, dies) = self.begin()?;
            self.end(dies, inner.commit(expected, values).await)
        })
    }

    fn most(&self) -> Most {
        self.inner.lock().unwrap().most()
    }

    fn written(
        &self,
        prefix: &str,
        since: Option<Version>,
    ) -> StoreFuture<'_, Vec<(String, Versioned)>> {
        let prefix = prefix.to_owned();
        Box::pin(async move { self.inner()?.written(&prefix, since).await })
    }

    fn delete(&self, key: &str, expected: Version) -> StoreFuture<'_, ()> {
        let key = key.to_owned();
        Box::pin(async move {
            let (inner, dies) = self.begin()?;
            self.end(dies, inner.delete(&key, expected).await)
        })
    }

    fn list(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> StoreFuture<'_, Vec<(String, Versioned)>> {
        let (prefix, after) = (prefix.to_owned(), after.map(ToOwned::to_owned));
        Box::pin(async move { self.inner()?.list(&prefix, after.as_deref(), limit).await })
    }
}

impl fmt::Debug for Dying {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dying")
            .field("dead", &self.dead)
            .finish_non_exhaustive()
    }
}
