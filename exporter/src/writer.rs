//! The artifact folder, written so that a crash never leaves half of one.
//!
//! Every file goes to a temporary file beside its place and is synced. Only when all are complete
//! are they renamed, the manifest last. An older export in the folder stays valid until then.

use std::collections::BTreeMap;
use std::fs::{self, File, Permissions};
use std::io::{BufWriter, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::thread;

use hydit_graphs::manifest::{self, FileEntry, Manifest};
use sha2::{Digest, Sha256};
use tempfile::NamedTempFile;

use crate::error::{Error, Result};

/// Prefix of the names of temporary files.
const PREFIX: &str = ".hydit-export-";

/// Number of bytes that are hashed and written at once: they stay in the processor's cache in
/// between.
const CHUNK: usize = 1 << 18;

/// Number of bytes of a file after which they are synced while the next ones are written.
const SYNC_EVERY: u64 = 128 << 20;

/// A folder that is being written. Its files are temporary until they are put in their places; if
/// it is dropped before, nothing stays.
pub struct Folder {
    path: PathBuf,
    created: bool,
    waiting: Vec<(String, NamedTempFile)>,
    files: BTreeMap<String, FileEntry>,
}

impl Folder {
    /// Prepares a new or empty folder, or one with an older export to replace.
    ///
    /// # Errors
    /// The folder has files that are no export, or cannot be written to.
    pub fn prepare(path: &Path) -> Result<Folder> {
        let created = !path.exists();
        fs::create_dir_all(path).map_err(Error::writing(path))?;
        let (mut ours, mut foreign) = (path.join(manifest::FILE).exists(), None);
        for entry in fs::read_dir(path).map_err(Error::reading(path))? {
            let entry = entry.map_err(Error::reading(path))?;
            let name = entry.file_name();
            if name.to_string_lossy().starts_with(PREFIX) {
                ours = true; // an export was killed here
                fs::remove_file(entry.path()).map_err(Error::writing(entry.path()))?;
            } else {
                foreign = Some(entry.path());
            }
        }
        if let Some(file) = foreign.filter(|_| !ours) {
            let message = format!(
                "{} holds {} but no {}: choose a new or empty folder",
                path.display(),
                file.file_name().unwrap_or_default().to_string_lossy(),
                manifest::FILE
            );
            return Err(Error::Flag { flag: "out", message });
        }
        Ok(Folder {
            path: path.to_path_buf(),
            created,
            waiting: Vec::new(),
            files: BTreeMap::new(),
        })
    }

    /// Writes the file `name` with the bytes that `fill` puts into a sink.
    ///
    /// # Errors
    /// The file cannot be written, or what `fill` returns.
    pub(crate) fn write(
        &mut self,
        name: &str,
        fill: impl FnOnce(&mut Sink) -> Result<()>,
    ) -> Result<()> {
        let path = self.path.join(name);
        let file = tempfile::Builder::new()
            .prefix(PREFIX)
            .permissions(Permissions::from_mode(0o644))
            .tempfile_in(&self.path)
            .map_err(Error::writing(&path))?;
        let handle = file.reopen().map_err(Error::writing(&path))?;
        // The next piece is computed while this one is hashed and written.
        let (queue, pieces) = mpsc::sync_channel(2);
        let (filled, written) = thread::scope(|scope| {
            let writer = scope.spawn(|| write(&handle, pieces));
            let filled = fill(&mut Sink { queue, bytes: 0, failed: false });
            (filled, writer.join().expect("writing does not panic"))
        });
        let entry = written.map_err(Error::writing(&path))?;
        filled?;
        self.files.insert(name.to_string(), entry);
        self.waiting.push((name.to_string(), file));
        Ok(())
    }

    /// Writes the file `name` with the content `bytes`.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(crate) fn write_bytes(&mut self, name: &str, bytes: impl Into<Vec<u8>>) -> Result<()> {
        self.write(name, |sink| {
            sink.put(bytes);
            Ok(())
        })
    }

    /// The files that were written so far, by name.
    pub(crate) fn files(&self) -> &BTreeMap<String, FileEntry> {
        &self.files
    }

    /// Puts every file in its place, then the manifest, and removes files that only an older export
    /// had.
    ///
    /// # Errors
    /// A file cannot be written, renamed or removed.
    pub(crate) fn commit(mut self, manifest: &Manifest) -> Result<()> {
        let path = self.path.join(manifest::FILE);
        let old = fs::read_to_string(&path).ok().and_then(|text| Manifest::from_yaml(&text).ok());
        self.write_bytes(manifest::FILE, manifest.to_yaml())?;
        let last = self.waiting.pop();
        if path.exists() {
            fs::remove_file(&path).map_err(Error::writing(&path))?;
        }
        self.settle()?;
        self.waiting.extend(last);
        self.settle()?;
        for name in old.iter().flat_map(|old| old.files.keys()) {
            if !self.files.contains_key(name) {
                let stale = self.path.join(name);
                fs::remove_file(&stale).map_err(Error::writing(&stale))?;
            }
        }
        Ok(())
    }

    /// Puts the files that were written so far in their places, durably.
    ///
    /// # Errors
    /// A file cannot be renamed.
    pub fn settle(&mut self) -> Result<()> {
        self.created = false;
        self.sync()?;
        for (name, file) in self.waiting.drain(..) {
            let path = self.path.join(&name);
            file.persist(&path).map_err(|error| Error::Write { path, source: error.error })?;
        }
        self.sync()
    }

    /// Makes renames durable.
    fn sync(&self) -> Result<()> {
        File::open(&self.path)
            .and_then(|folder| folder.sync_all())
            .map_err(Error::writing(&self.path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        self.waiting.clear();
        if self.created {
            let _ = fs::remove_dir(&self.path); // fails if something is in it, as it should
        }
    }
}

/// The end of a file that is being written.
pub(crate) struct Sink {
    queue: SyncSender<Vec<u8>>,
    bytes: u64,
    failed: bool,
}

impl Sink {
    /// Appends `bytes`; they are lost if the sink has failed.
    pub fn put(&mut self, bytes: impl Into<Vec<u8>>) {
        let bytes = bytes.into();
        self.bytes += bytes.len() as u64;
        self.failed |= self.queue.send(bytes).is_err();
    }

    /// Appends zeros up to `offset`.
    pub fn pad_to(&mut self, offset: u64) {
        let gap = offset.checked_sub(self.bytes).expect("offsets grow");
        self.put(vec![0; gap as usize]);
    }

    /// Whether writing has failed, for a reason that [`Folder::write`] returns.
    pub fn has_failed(&self) -> bool {
        self.failed
    }
}

/// Hashes and writes `pieces` until there are no more. The disk is kept busy from the start, so
/// that little is left to do for the sync at the end.
fn write(file: &File, pieces: Receiver<Vec<u8>>) -> std::io::Result<FileEntry> {
    let (mut hash, mut bytes, mut synced) = (Sha256::new(), 0, 0);
    let mut out = BufWriter::with_capacity(CHUNK, file);
    thread::scope(|scope| {
        let (behind, ticks) = mpsc::sync_channel::<()>(0);
        let syncing = scope.spawn(move || ticks.iter().try_for_each(|()| file.sync_data()));
        for piece in pieces {
            for chunk in piece.chunks(CHUNK) {
                hash.update(chunk);
                out.write_all(chunk)?;
            }
            bytes += piece.len() as u64;
            if bytes - synced >= SYNC_EVERY && behind.try_send(()).is_ok() {
                synced = bytes;
            }
        }
        drop(behind);
        // The system reports a failure only once, so the sync below would not know of it.
        syncing.join().expect("syncing does not panic")?;
        out.flush()
    })?;
    file.sync_all()?;
    let sha256 = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(FileEntry { bytes, sha256 })
}
