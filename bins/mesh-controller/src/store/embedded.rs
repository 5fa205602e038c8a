//! The store inside the controller's data folder.

use std::{
    fmt,
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use redb::{
    Database, DatabaseError, Durability, ReadableDatabase, ReadableTable, TableDefinition,
    TableError, backends::FileBackend,
};

use super::{Expected, Most, StateStore, StoreError, StoreFuture, Version, Versioned};

/// One file, readable by its owner only, flushed to disk by every write, open in one process at a time.
#[derive(Clone)]
pub struct EmbeddedStore {
    inner: Arc<Inner>,
}

struct Inner {
    database: Database,
    path: PathBuf,
}

impl EmbeddedStore {
    /// The largest value, in bytes: the record of trust, of a mesh of a hundred thousand.
    pub const MAX_VALUE_BYTES: usize = 64 << 20;
    /// The longest key, in bytes.
    pub const MAX_KEY_BYTES: usize = 512;

    /// Opens the store at `path`, or makes it. Blocks on the disk.
    ///
    /// # Errors
    /// [`StoreError::InUse`], [`StoreError::Open`] or [`StoreError::Damaged`].
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let open = |source: io::Error| StoreError::Open {
            path: path.to_owned(),
            source,
        };
        if !path.exists() {
            create(path)?;
        }
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(path)
            .map_err(open)?;
        // An existing file may come from a backup that was restored with a wider mode.
        file.set_permissions(std::fs::Permissions::from_mode(0o600))
            .map_err(open)?;
        let database = database(file).map_err(|error| opening_failed(path, error))?;
        Ok(Self::of(database, path))
    }

    /// The same on what stands for a file.
    #[cfg(test)]
    pub(crate) fn on(backend: impl redb::StorageBackend, path: &Path) -> Result<Self, StoreError> {
        let database = Database::builder()
            .set_cache_size(CACHE_BYTES)
            .create_with_backend(backend);
        Ok(Self::of(
            database.map_err(|error| opening_failed(path, error))?,
            path,
        ))
    }

    fn of(database: Database, path: &Path) -> Self {
        let path = path.to_owned();
        Self {
            inner: Arc::new(Inner { database, path }),
        }
    }

    fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> Result<T, StoreError> + Send + 'static,
    ) -> StoreFuture<'_, T> {
        let inner = Arc::clone(&self.inner);
        Box::pin(async move {
            tokio::task::spawn_blocking(move || work(&inner))
                .await
                .map_err(io_error)?
        })
    }
}

impl StateStore for EmbeddedStore {
    fn get(&self, key: &str) -> StoreFuture<'_, Option<Versioned>> {
        let key = key.to_owned();
        self.blocking(move |inner| inner.get(&key))
    }

    fn commit(
        &self,
        expected: Vec<(String, Expected)>,
        values: Vec<(String, Vec<u8>)>,
    ) -> StoreFuture<'_, Version> {
        self.blocking(move |inner| inner.commit(&expected, &values))
    }

    fn most(&self) -> Most {
        Most {
            keys: usize::MAX,
            bytes: Self::MAX_VALUE_BYTES,
        }
    }

    fn written(
        &self,
        prefix: &str,
        since: Option<Version>,
    ) -> StoreFuture<'_, Vec<(String, Versioned)>> {
        let prefix = prefix.to_owned();
        self.blocking(move |inner| {
            let all = inner.list(&prefix, None, usize::MAX)?.into_iter();
            let later = |found: &Versioned| since.is_none_or(|since| found.version > since);
            Ok(all.filter(|(_, found)| later(found)).collect())
        })
    }

    fn delete(&self, key: &str, expected: Version) -> StoreFuture<'_, ()> {
        let key = key.to_owned();
        self.blocking(move |inner| inner.delete(&key, expected))
    }

    fn list(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> StoreFuture<'_, Vec<(String, Versioned)>> {
        let prefix = prefix.to_owned();
        let after = after.map(ToOwned::to_owned);
        self.blocking(move |inner| inner.list(&prefix, after.as_deref(), limit))
    }
}

impl fmt::Debug for EmbeddedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmbeddedStore")
            .field("path", &self.inner.path)
            .finish_non_exhaustive()
    }
}

impl Inner {
    fn get(&self, key: &str) -> Result<Option<Versioned>, StoreError> {
        let read = self.database.begin_read().map_err(io_error)?;
        let table = match read.open_table(STATE) {
            Ok(table) => table,
            Err(TableError::TableDoesNotExist(_)) => return Ok(None),
            Err(error) => return Err(io_error(error)),
        };
        Ok(table
            .get(key)
            .map_err(io_error)?
            .map(|entry| versioned(entry.value())))
    }

    fn commit(
        &self,
        expected: &[(String, Expected)],
        values: &[(String, Vec<u8>)],
    ) -> Result<Version, StoreError> {
        for (key, value) in values {
            fits("a key", key.len(), EmbeddedStore::MAX_KEY_BYTES)?;
            fits("a value", value.len(), EmbeddedStore::MAX_VALUE_BYTES)?;
        }
        let mut write = self.database.begin_write().map_err(io_error)?;
        write
            .set_durability(Durability::Immediate)
            .map_err(io_error)?;
        let version;
        {
            let mut state = write.open_table(STATE).map_err(io_error)?;
            for (key, expected) in expected {
                check(&state, key, *expected)?;
            }
            let mut meta = write.open_table(META).map_err(io_error)?;
            version = meta
                .get(LAST_VERSION)
                .map_err(io_error)?
                .map_or(0, |entry| entry.value())
                + 1;
            meta.insert(LAST_VERSION, version).map_err(io_error)?;
            for (key, value) in values {
                let value = (version, value.as_slice());
                state.insert(key.as_str(), value).map_err(io_error)?;
            }
        }
        write.commit().map_err(io_error)?;
        Ok(Version(version))
    }

    fn delete(&self, key: &str, expected: Version) -> Result<(), StoreError> {
        let mut write = self.database.begin_write().map_err(io_error)?;
        write
            .set_durability(Durability::Immediate)
            .map_err(io_error)?;
        {
            let mut state = write.open_table(STATE).map_err(io_error)?;
            check(&state, key, Expected::At(expected))?;
            state.remove(key).map_err(io_error)?;
        }
        write.commit().map_err(io_error)
    }

    fn list(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<(String, Versioned)>, StoreError> {
        let read = self.database.begin_read().map_err(io_error)?;
        let table = match read.open_table(STATE) {
            Ok(table) => table,
            Err(TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
            Err(error) => return Err(io_error(error)),
        };
        let from = after.filter(|after| *after > prefix).unwrap_or(prefix);
        let mut found = Vec::new();
        for entry in table.range(from..).map_err(io_error)? {
            let (key, value) = entry.map_err(io_error)?;
            if !key.value().starts_with(prefix) || found.len() == limit {
                break;
            }
            if Some(key.value()) != after {
                found.push((key.value().to_owned(), versioned(value.value())));
            }
        }
        Ok(found)
    }
}

fn check(
    state: &impl ReadableTable<&'static str, (u64, &'static [u8])>,
    key: &str,
    expected: Expected,
) -> Result<(), StoreError> {
    let found = state
        .get(key)
        .map_err(io_error)?
        .map(|entry| Version(entry.value().0));
    let wanted = match expected {
        Expected::Absent => None,
        Expected::At(version) => Some(version),
    };
    if found == wanted {
        return Ok(());
    }
    Err(StoreError::Conflict {
        key: key.to_owned(),
        expected,
        found,
    })
}

/// Makes an empty store. It gets its name once it is whole: half a store would keep every later start from succeeding.
fn create(path: &Path) -> Result<(), StoreError> {
    let io = |source: io::Error| StoreError::Open {
        path: path.to_owned(),
        source,
    };
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let scratch = path.with_file_name(format!(".{name}.{}", std::process::id()));
    // One of that name is left by a process of the same id that was killed here.
    let _ = fs::remove_file(&scratch);
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&scratch)
        .map_err(io)?;
    let made = database(file).map_err(|error| opening_failed(path, error));
    // A link, unlike a rename, takes no other's place who was faster.
    let linked = made.and_then(|database| {
        drop(database);
        match fs::hard_link(&scratch, path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(io(error)),
            _ => Ok(()),
        }
    });
    let _ = fs::remove_file(&scratch);
    linked
}

fn database(file: File) -> Result<Database, DatabaseError> {
    Database::builder()
        .set_cache_size(CACHE_BYTES)
        .create_with_backend(FileBackend::new(file)?)
}

fn opening_failed(path: &Path, error: DatabaseError) -> StoreError {
    let path = path.to_owned();
    match error {
        DatabaseError::DatabaseAlreadyOpen => StoreError::InUse { path },
        DatabaseError::Storage(redb::StorageError::Io(source)) => StoreError::Open { path, source },
        other => StoreError::Damaged {
            path,
            reason: other.to_string(),
        },
    }
}

fn fits(what: &'static str, bytes: usize, max: usize) -> Result<(), StoreError> {
    if bytes > max {
        return Err(StoreError::TooLarge { what, bytes, max });
    }
    Ok(())
}

fn versioned((version, value): (u64, &[u8])) -> Versioned {
    Versioned {
        version: Version(version),
        value: value.to_vec(),
    }
}

fn io_error(error: impl fmt::Display) -> StoreError {
    StoreError::Io(error.to_string())
}

const STATE: TableDefinition<'_, &str, (u64, &[u8])> = TableDefinition::new("state");
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
const LAST_VERSION: &str = "last_version";
/// The store holds kilobytes; redb's own default of a gigabyte is for something else.
const CACHE_BYTES: usize = 4 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> (tempfile::TempDir, EmbeddedStore) {
        let folder = tempfile::tempdir().unwrap();
        let store = EmbeddedStore::open(&folder.path().join("state.redb")).unwrap();
        (folder, store)
    }

    #[tokio::test]
    async fn only_the_writer_who_has_read_the_latest_writes() {
        let (_folder, store) = store();
        let first = store.put("k", Expected::Absent, vec![1]).await.unwrap();
        let lost = store.put("k", Expected::Absent, vec![2]).await.unwrap_err();
        assert!(matches!(lost, StoreError::Conflict { found: Some(v), .. } if v == first));
        let second = store.put("k", Expected::At(first), vec![3]).await.unwrap();
        assert!(second > first);
        assert!(store.delete("k", first).await.is_err());
        assert_eq!(store.get("k").await.unwrap().unwrap().value, [3]);
        store.delete("k", second).await.unwrap();
        assert_eq!(store.get("k").await.unwrap(), None);
        // A version is not given twice, or a writer that slept through the deletion would overwrite.
        let third = store.put("k", Expected::Absent, vec![4]).await.unwrap();
        assert!(third > second);
    }

    #[tokio::test]
    async fn lists_by_prefix_in_order_and_in_pages() {
        let (_folder, store) = store();
        assert!(store.list("t/", None, 9).await.unwrap().is_empty());
        for key in ["t/b", "s/z", "t/a", "t/c", "u/a"] {
            store.put(key, Expected::Absent, vec![]).await.unwrap();
        }
        let keys = |list: Vec<(String, Versioned)>| {
            list.into_iter().map(|(key, _)| key).collect::<Vec<_>>()
        };
        assert_eq!(
            keys(store.list("t/", None, 9).await.unwrap()),
            ["t/a", "t/b", "t/c"]
        );
        assert_eq!(
            keys(store.list("t/", None, 2).await.unwrap()),
            ["t/a", "t/b"]
        );
        assert_eq!(
            keys(store.list("t/", Some("t/b"), 2).await.unwrap()),
            ["t/c"]
        );
    }

    #[tokio::test]
    async fn one_owner_and_only_the_owner_reads() {
        let (folder, store) = store();
        let path = folder.path().join("state.redb");
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let second = EmbeddedStore::open(&path).unwrap_err();
        assert!(matches!(second, StoreError::InUse { .. }), "{second}");
        drop(store);
        EmbeddedStore::open(&path).unwrap();
    }

    #[tokio::test]
    async fn too_large_is_refused() {
        let (_folder, store) = store();
        let value = vec![0; EmbeddedStore::MAX_VALUE_BYTES + 1];
        let error = store.put("k", Expected::Absent, value).await.unwrap_err();
        assert!(matches!(error, StoreError::TooLarge { .. }));
    }

    #[test]
    fn who_finds_a_store_made_meanwhile_leaves_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.redb");
        std::fs::write(&path, "another's").unwrap();
        create(&path).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"another's");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_file_that_is_no_store_is_said_to_be_damaged() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.redb");
        std::fs::write(&path, vec![b'x'; 65536]).unwrap();
        let error = EmbeddedStore::open(&path).unwrap_err();
        assert!(
            matches!(error, StoreError::Damaged { .. } | StoreError::Open { .. }),
            "{error}"
        );
    }
}
