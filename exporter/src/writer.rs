//! The artifact folder: its files, written, hashed and synced one by one, and put in place together.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::thread;

use hydit_graphs::manifest::{self, FileEntry, Manifest};
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};
use crate::staging::Staging;

/// Number of bytes that are hashed and written at once: they stay in the processor's cache in
/// between.
const CHUNK: usize = 1 << 18;

/// Number of bytes of a file after which they are synced while the next ones are written.
const SYNC_EVERY: u64 = 128 << 20;

/// A folder that is being written. Its files get their places together; if it is dropped before,
/// nothing stays, and an older export in the folder is as it was.
pub struct Folder {
    staging: Staging,
    names: Vec<String>,
    files: BTreeMap<String, FileEntry>,
}

impl Folder {
    /// Prepares a new or empty folder, or one with an older export to replace.
    ///
    /// # Errors
    /// The folder has files that are no export, another export writes to it, or it is
    /// write-protected.
    pub fn prepare(path: &Path) -> Result<Folder> {
        let staging = Staging::begin(path)?;
        Ok(Folder { staging, names: Vec::new(), files: BTreeMap::new() })
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
        let place = self.staging.place(name);
        let staged = self.staging.path(name)?;
        let file = File::create_new(staged).map_err(Error::writing(&place))?;
        // The next piece is computed while this one is hashed and written.
        let (queue, pieces) = mpsc::sync_channel(2);
        let (filled, written) = thread::scope(|scope| {
            let writer = scope.spawn(|| write(&file, pieces));
            let filled = fill(&mut Sink { queue, bytes: 0, failed: false });
            (filled, writer.join().expect("writing does not panic"))
        });
        let entry = written.map_err(Error::writing(&place))?;
        filled?;
        self.files.insert(name.to_string(), entry);
        self.names.push(name.to_string());
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

    /// Gives the file `path` the name `name` besides: one file in two folders.
    ///
    /// # Errors
    /// It cannot be read, or not be in two folders.
    pub(crate) fn link(&mut self, name: &str, path: &Path) -> Result<()> {
        let staged = self.staging.path(name)?;
        let linked = path.canonicalize().and_then(|path| fs::hard_link(path, &staged));
        linked.map_err(|source| Error::Link {
            path: path.to_path_buf(),
            out: self.staging.place(name),
            source,
        })?;
        let entry = hash(&staged).map_err(Error::reading(path))?;
        self.files.insert(name.to_string(), entry);
        self.names.push(name.to_string());
        Ok(())
    }

    /// The files that were written so far, by name.
    pub(crate) fn files(&self) -> &BTreeMap<String, FileEntry> {
        &self.files
    }

    /// Puts every file in its place, the manifest with them, and removes files that only an older
    /// export had. Gives the folder of the older export's files, if it cannot be removed.
    ///
    /// # Errors
    /// A file cannot be written or put in its place; the older export is as it was.
    pub(crate) fn commit(mut self, manifest: &Manifest) -> Result<Option<PathBuf>> {
        self.write_bytes(manifest::FILE, manifest.to_yaml())?;
        self.staging.put_in_place(&self.names)
    }

    /// Puts the files in their places without a manifest.
    ///
    /// # Errors
    /// A file cannot be put in its place.
    pub fn settle(mut self) -> Result<()> {
        self.staging.put_in_place(&self.names).map(drop)
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
    Ok(FileEntry { bytes, sha256: hex(hash) })
}

/// Hashes what is in the file `path`.
fn hash(path: &Path) -> std::io::Result<FileEntry> {
    let (mut file, mut hash, mut bytes) = (File::open(path)?, Sha256::new(), 0);
    let mut chunk = vec![0; CHUNK];
    loop {
        match file.read(&mut chunk)? {
            0 => return Ok(FileEntry { bytes, sha256: hex(hash) }),
            n => {
                hash.update(&chunk[..n]);
                bytes += n as u64;
            }
        }
    }
}

/// A hash in hexadecimal digits.
pub fn hex(hash: Sha256) -> String {
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}
