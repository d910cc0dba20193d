//! The store's file: held by one process, opened again after a failed write, with its errors told
//! apart.

use std::fs::OpenOptions;
use std::io::ErrorKind;
use std::os::unix::fs::OpenOptionsExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use parking_lot::RwLock;
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
    /// `None` after an error: redb accepts nothing more until it is opened again, which goes back
    /// to the last commit.
    database: RwLock<Option<Database>>,
}

impl File {
    /// Opens the file, or makes it.
    ///
    /// # Errors
    /// When another process has the file open, or it cannot be read.
    pub fn open(path: &Path) -> Result<File, JobsError> {
        File::open_by(path, |path| {
            // Prompts are in it: only this user may read it.
            let mut options = OpenOptions::new();
            options.read(true).write(true).create(true).truncate(false).mode(0o600);
            let backend = FileBackend::new(options.open(path)?)?;
            Database::builder().set_cache_size(CACHE).create_with_backend(backend)
        })
    }

    /// Opens the file by `opener`, now and after every error.
    pub fn open_by(
        path: &Path,
        opener: impl Fn(&Path) -> Result<Database, DatabaseError> + Send + Sync + 'static,
    ) -> Result<File, JobsError> {
        let (path, opener) = (path.to_path_buf(), Box::new(opener));
        let file = File { path, opener, database: RwLock::new(None) };
        file.reopen()?;
        Ok(file)
    }

    /// Runs `work` on the state of one commit.
    pub fn read<R>(
        &self,
        work: impl FnOnce(&ReadTransaction) -> Result<R, redb::Error>,
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
        self.with(|database| {
            let mut transaction = database.begin_write()?;
            // Otherwise opening after a kill would read the whole file.
            transaction.set_quick_repair(true);
            let out = work(&transaction)?;
            transaction.commit()?;
            Ok(out)
        })
    }

    fn with<R>(
        &self,
        work: impl FnOnce(&Database) -> Result<R, redb::Error>,
    ) -> Result<R, JobsError> {
        if self.database.read().is_none() {
            self.reopen()?;
        }
        let outcome = {
            let database = self.database.read();
            match &*database {
                Some(database) => caught(|| work(database)),
                None => Err(redb::Error::PreviousIo),
            }
        };
        outcome.map_err(|error| {
            *self.database.write() = None;
            self.name_path(error)
        })
    }

    fn reopen(&self) -> Result<(), JobsError> {
        let mut database = self.database.write();
        if database.is_none() {
            let opened = caught(|| Ok((self.opener)(&self.path)?));
            *database = Some(opened.map_err(|error| self.name_path(error))?);
        }
        Ok(())
    }

    fn damaged(&self, why: String) -> JobsError {
        JobsError::Damaged { path: self.path.clone(), why }
    }

    fn name_path(&self, error: redb::Error) -> JobsError {
        let path = self.path.clone();
        match error {
            redb::Error::DatabaseAlreadyOpen => JobsError::Locked { path },
            redb::Error::Io(error) if error.kind() == ErrorKind::InvalidData => {
                self.damaged(error.to_string())
            }
            redb::Error::Io(error)
                if matches!(
                    error.kind(),
                    ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge
                ) =>
            {
                JobsError::DiskFull { path }
            }
            redb::Error::Corrupted(why) => self.damaged(why),
            error @ (redb::Error::UpgradeRequired(_)
            | redb::Error::RepairAborted
            | redb::Error::TableTypeMismatch { .. }
            | redb::Error::TableIsMultimap(_)
            | redb::Error::TypeDefinitionChanged { .. }) => self.damaged(error.to_string()),
            source => JobsError::Store { path, source },
        }
    }
}

/// Runs `work` with redb, which may panic on a file that others have changed.
fn caught<R>(work: impl FnOnce() -> Result<R, redb::Error>) -> Result<R, redb::Error> {
    catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|_| Err(redb::Error::Corrupted("it cannot be read".to_string())))
}
