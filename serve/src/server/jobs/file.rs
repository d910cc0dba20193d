//! The store's file: held by one process, opened again after a failed write, with its errors told
//! apart.

use std::fs::{self, OpenOptions, TryLockError};
use std::io::{self, ErrorKind};
use std::os::unix::fs::OpenOptionsExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use parking_lot::{RwLock, RwLockReadGuard, RwLockWriteGuard};
use redb::backends::FileBackend;
use redb::{Database, DatabaseError, ReadTransaction, ReadableDatabase, WriteTransaction};

use super::error::JobsError;

/// Maximum bytes of the file that are kept in memory.
const CACHE: usize = 8 << 20;

type Opener = dyn Fn(&Path) -> Result<Database, DatabaseError> + Send + Sync;

/// A redb database.
pub struct File {
    path: PathBuf,
    opener: Box<Opener>,
    state: RwLock<State>,
    /// Keeps other processes away as long as this value lives, also while the database is closed.
    _lock: fs::File,
}

#[derive(Default)]
struct State {
    /// `None` after an error: redb accepts nothing more until it is opened again, which goes back
    /// to the last commit.
    database: Option<Database>,
    /// How often it was opened.
    opened: u64,
}

impl File {
    /// Opens the file, or makes it.
    ///
    /// # Errors
    /// When another process has the file open, or it cannot be read.
    pub fn open(path: &Path) -> Result<File, JobsError> {
        File::open_by(path, |path| {
            let backend = FileBackend::new(open_private(path)?)?;
            Database::builder().set_cache_size(CACHE).create_with_backend(backend)
        })
    }

    /// Opens the file by `opener`, now and after every error.
    pub fn open_by(
        path: &Path,
        opener: impl Fn(&Path) -> Result<Database, DatabaseError> + Send + Sync + 'static,
    ) -> Result<File, JobsError> {
        let lock = lock(path).map_err(|error| name_path(path, error))?;
        let (path, opener) = (path.to_path_buf(), Box::new(opener));
        let file = File { path, opener, state: RwLock::default(), _lock: lock };
        drop(file.opened()?);
        Ok(file)
    }

    /// Runs `work` on the state of one commit; again, if an error elsewhere comes in between.
    pub fn read<R>(
        &self,
        work: impl Fn(&ReadTransaction) -> Result<R, redb::Error>,
    ) -> Result<R, JobsError> {
        self.with(|database| work(&database.begin_read()?))
    }

    /// Runs `work` in one transaction. Without an error all of it is on the disk; with one none of
    /// it is, except that a failed last write to the disk may or may not have arrived.
    pub fn write<R>(
        &self,
        work: impl FnOnce(&WriteTransaction) -> Result<R, redb::Error>,
    ) -> Result<R, JobsError> {
        #[cfg(feature = "failpoints")] // where a test lets the disk be full
        fail::fail_point!("store", |_| Err(JobsError::DiskFull { path: self.path.clone() }));
        let mut work = Some(work);
        self.with(|database| {
            let mut transaction = database.begin_write()?;
            let work = work.take().ok_or(redb::Error::PreviousIo)?;
            // Otherwise opening after a kill would read the whole file.
            transaction.set_quick_repair(true);
            let out = work(&transaction)?;
            transaction.commit()?;
            Ok(out)
        })
    }

    /// Runs `work`, once more if it could not begin because of an error elsewhere, which closes the
    /// database for all.
    fn with<R>(
        &self,
        mut work: impl FnMut(&Database) -> Result<R, redb::Error>,
    ) -> Result<R, JobsError> {
        let outcome = match self.attempt(&mut work)? {
            Err(redb::Error::PreviousIo) => self.attempt(&mut work)?,
            outcome => outcome,
        };
        outcome.map_err(|error| name_path(&self.path, error))
    }

    fn attempt<R>(
        &self,
        work: impl FnOnce(&Database) -> Result<R, redb::Error>,
    ) -> Result<Result<R, redb::Error>, JobsError> {
        let state = self.opened()?;
        let (database, opened) = (state.database.as_ref().expect("it is open"), state.opened);
        let outcome = caught(|| work(database));
        drop(state);
        if outcome.is_err() {
            let mut state = self.state.write();
            // Unless another thread has opened it again.
            if state.opened == opened {
                state.database = None;
            }
        }
        Ok(outcome)
    }

    /// The state, with the database open.
    fn opened(&self) -> Result<RwLockReadGuard<'_, State>, JobsError> {
        let state = self.state.read();
        if state.database.is_some() {
            return Ok(state);
        }
        drop(state);
        let mut state = self.state.write();
        if state.database.is_none() {
            let database = caught(|| Ok((self.opener)(&self.path)?));
            state.database = Some(database.map_err(|error| name_path(&self.path, error))?);
            state.opened += 1;
        }
        Ok(RwLockWriteGuard::downgrade(state))
    }
}

/// Opens a file that only this user may read: prompts are in it.
fn open_private(path: &Path) -> io::Result<fs::File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

/// Locks a file beside `path` for as long as the returned value lives.
fn lock(path: &Path) -> Result<fs::File, redb::Error> {
    let file = open_private(&path.with_extension("lock"))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(redb::Error::DatabaseAlreadyOpen),
        Err(TryLockError::Error(error)) => Err(error.into()),
    }
}

/// An error of the file `path`.
fn name_path(path: &Path, error: redb::Error) -> JobsError {
    let path = path.to_path_buf();
    let damaged = |path, why| JobsError::Damaged { path, why };
    match error {
        redb::Error::DatabaseAlreadyOpen => JobsError::Locked { path },
        redb::Error::Io(error) if error.kind() == ErrorKind::InvalidData => {
            damaged(path, error.to_string())
        }
        redb::Error::Io(error)
            if matches!(
                error.kind(),
                ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge
            ) =>
        {
            JobsError::DiskFull { path }
        }
        redb::Error::Corrupted(why) => damaged(path, why),
        error @ (redb::Error::UpgradeRequired(_)
        | redb::Error::RepairAborted
        | redb::Error::TableTypeMismatch { .. }
        | redb::Error::TableIsMultimap(_)
        | redb::Error::TypeDefinitionChanged { .. }) => damaged(path, error.to_string()),
        source => JobsError::Store { path, source },
    }
}

/// Runs `work` with redb, which may panic on a file that others have changed.
fn caught<R>(work: impl FnOnce() -> Result<R, redb::Error>) -> Result<R, redb::Error> {
    catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|_| Err(redb::Error::Corrupted("it cannot be read".to_string())))
}
