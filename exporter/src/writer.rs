//! The artifact folder, written so that a crash never leaves half of one.
//!
//! Every file goes to a temporary beside its place and is synced; only when all are whole are they
//! renamed, the manifest last. An older export in the folder stays valid until then.

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

use crate::error::{Error, Result, io};

const PREFIX: &str = ".hydit-export-";

/// Bytes hashed and written at once: they stay in the processor's cache in between.
const CHUNK: usize = 1 << 18;

/// Bytes of a file after which the disk is told to begin.
const SYNC_EVERY: u64 = 128 << 20;

/// Files waiting for [`Folder::commit`]; dropped without it, nothing stays.
pub struct Folder {
    path: PathBuf,
    created: bool,
    waiting: Vec<(String, NamedTempFile)>,
    files: BTreeMap<String, FileEntry>,
}

impl Folder {
    /// Prepares `path`: a new or empty folder, or an older export to replace.
    pub fn prepare(path: &Path) -> Result<Folder> {
        let created = !path.exists();
        fs::create_dir_all(path).map_err(io(path))?;
        let (mut ours, mut foreign) = (path.join(manifest::FILE).exists(), None);
        for entry in fs::read_dir(path).map_err(io(path))? {
            let entry = entry.map_err(io(path))?;
            let name = entry.file_name();
            if name.to_string_lossy().starts_with(PREFIX) {
                ours = true; // an export was killed here
                fs::remove_file(entry.path()).map_err(io(entry.path()))?;
            } else {
                foreign = Some(entry.path());
            }
        }
        if let Some(file) = foreign.filter(|_| !ours) {
            let message = format!(
                "holds {} but no {}: choose a new or empty folder",
                file.file_name().unwrap_or_default().to_string_lossy(),
                manifest::FILE
            );
            return Err(Error::Flag {
                flag: "out",
                message: format!("{} {message}", path.display()),
            });
        }
        Ok(Folder {
            path: path.to_path_buf(),
            created,
            waiting: Vec::new(),
            files: BTreeMap::new(),
        })
    }

    /// Writes the file `name`: `fill` gets a place for its bytes.
    pub fn write(&mut self, name: &str, fill: impl FnOnce(&mut Sink) -> Result<()>) -> Result<()> {
        let path = self.path.join(name);
        let file = tempfile::Builder::new()
            .prefix(PREFIX)
            .permissions(Permissions::from_mode(0o644))
            .tempfile_in(&self.path)
            .map_err(io(&path))?;
        let handle = file.reopen().map_err(io(&path))?;
        // The next piece is made while this one is hashed and written.
        let (queue, pieces) = mpsc::sync_channel(2);
        let (filled, written) = thread::scope(|scope| {
            let writer = scope.spawn(|| write(&handle, pieces));
            let filled = fill(&mut Sink { queue, bytes: 0 });
            (filled, writer.join().expect("writing does not panic"))
        });
        let entry = written.map_err(io(&path))?;
        filled?;
        self.files.insert(name.to_string(), entry);
        self.waiting.push((name.to_string(), file));
        Ok(())
    }

    /// The files written so far.
    pub fn files(&self) -> &BTreeMap<String, FileEntry> {
        &self.files
    }

    /// Puts every file in its place, then the manifest; removes files only an older export had.
    pub fn commit(mut self, manifest: &Manifest) -> Result<()> {
        let place = self.path.join(manifest::FILE);
        let old = fs::read_to_string(&place).ok().and_then(|text| Manifest::from_yaml(&text).ok());
        self.write(manifest::FILE, |sink| sink.put(manifest.to_yaml().as_bytes()))?;
        let last = self.waiting.pop();
        if place.exists() {
            fs::remove_file(&place).map_err(io(&place))?;
        }
        self.settle()?;
        self.waiting.extend(last);
        self.settle()?;
        for name in old.iter().flat_map(|old| old.files.keys()) {
            if !self.files.contains_key(name) {
                let stale = self.path.join(name);
                fs::remove_file(&stale).map_err(io(&stale))?;
            }
        }
        Ok(())
    }

    /// Renames the files written so far to their names, durably. [`Folder::commit`] does it in the
    /// right order for a whole export.
    pub fn settle(&mut self) -> Result<()> {
        self.created = false;
        self.sync()?;
        for (name, file) in self.waiting.drain(..) {
            let path = self.path.join(&name);
            file.persist(&path).map_err(|error| Error::Io { path, source: error.error })?;
        }
        self.sync()
    }

    /// Makes renames durable.
    fn sync(&self) -> Result<()> {
        File::open(&self.path).and_then(|folder| folder.sync_all()).map_err(io(&self.path))
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

/// A file being written.
pub struct Sink {
    queue: SyncSender<Vec<u8>>,
    bytes: u64,
}

impl Sink {
    /// Appends `bytes`.
    ///
    /// # Errors
    /// [`Error::Stopped`] once writing has failed; [`Folder::write`] gives the reason.
    pub fn put(&mut self, bytes: impl Into<Vec<u8>>) -> Result<()> {
        let bytes = bytes.into();
        self.bytes += bytes.len() as u64;
        self.queue.send(bytes).map_err(|_| Error::Stopped)
    }

    /// Appends zeros up to `offset`.
    pub fn pad_to(&mut self, offset: u64) -> Result<()> {
        let gap = offset.checked_sub(self.bytes).expect("offsets grow");
        self.put(vec![0; gap as usize])
    }
}

/// Hashes and writes `pieces` until there are no more. The disk is kept busy from the start, so
/// that the sync at the end finds little left to do.
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
        // A failure is told once: the sync below would know nothing of it.
        syncing.join().expect("syncing does not panic")?;
        out.flush()
    })?;
    file.sync_all()?;
    let sha256 = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(FileEntry { bytes, sha256 })
}
