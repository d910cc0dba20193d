//! Where a new export is written, and how it takes the place of an older one.
//!
//! The new files go into a folder beside the artifact folder. When all are there, the two folders
//! are exchanged in one step: whenever a process is killed, the older export is whole or the new
//! one is. What is not of an export, such as calibrations, is linked into the new folder before.
//! Where folders cannot be exchanged, the files are moved one by one, the manifest last; what they
//! replace is kept until then, and put back if a move fails.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};

use hydit_graphs::manifest;
use rustix::fs::{CWD, RenameFlags, renameat_with};

use crate::error::{Error, Result};
use crate::left;
use crate::lock::{LOCK, Lock};

/// Prefix of the names that an artifact folder has only while an export is written.
pub(crate) const PREFIX: &str = ".hydit-export-";
/// The file that marks a folder that is being written and was never an artifact folder.
pub(crate) const UNFINISHED: &str = ".hydit-export-unfinished";
/// The folder for new files in an artifact folder, where there can be none beside it.
pub(crate) const INSIDE: &str = ".hydit-export-new";
/// The folder for the files that new ones replace, beside these.
pub(crate) const REPLACED: &str = ".hydit-export-replaced";

/// An artifact folder that no other export writes to, and a folder for the files to put into it.
pub(crate) struct Staging {
    out: PathBuf,
    new: PathBuf,
    /// Whether `new` lies beside `out`, and may be exchanged for it.
    beside: bool,
    /// Whether `new` holds new files, to be removed if they do not get their places.
    unfinished: bool,
    /// The names of the older export's files, where there is one whose manifest can be read.
    older: Option<BTreeSet<String>>,
    lock: Lock,
    /// That of `new`, for when it is exchanged for `out`.
    second: Lock,
}

impl Staging {
    /// Locks the folder `out`, which is new, empty or an older export, cleans up what a killed
    /// export has left, and makes a folder for the new files.
    ///
    /// # Errors
    /// Another export writes to `out`, it has files that are no export, or it is write-protected.
    pub fn begin(out: &Path) -> Result<Staging> {
        let lock = Lock::of(out)?;
        let out = out.canonicalize().map_err(Error::reading(out))?;
        // The lock tells whose folder this is, also when it lies beside after a power loss.
        sync(&out)?;
        let beside = beside(&out);
        let left = left::clean_up(&out, beside.as_deref())?;
        let older = left::files_of_export(&out);
        if !left && !out.join(manifest::FILE).exists() {
            check_empty(&out)?;
        }
        let exchangeable = beside.filter(|new| make_alike(&out, new).is_ok());
        let new = exchangeable.clone().unwrap_or_else(|| out.join(INSIDE));
        if exchangeable.is_none() {
            fs::create_dir(&new).map_err(Error::writing(&new))?;
        }
        // The mark is on the disk before anything that it marks.
        let marked = File::create(new.join(UNFINISHED)).and_then(|_| sync_folder(&new));
        marked.map_err(Error::writing(&new))?;
        let second = Lock::of(&new)?;
        let beside = exchangeable.is_some();
        Ok(Staging { out, new, beside, unfinished: true, older, lock, second })
    }

    /// The path of the file `name` in the artifact folder.
    pub fn place(&self, name: &str) -> PathBuf {
        self.out.join(name)
    }

    /// The path for the new file `name` until it gets its place.
    ///
    /// # Errors
    /// Something else is in that place.
    pub fn path(&self, name: &str) -> Result<PathBuf> {
        let place = self.place(name);
        let Ok(found) = fs::symlink_metadata(&place) else { return Ok(self.new.join(name)) };
        let ours =
            name == manifest::FILE || self.older.as_ref().is_none_or(|older| older.contains(name));
        if ours && (found.is_file() || found.is_symlink()) {
            return Ok(self.new.join(name));
        }
        let what = if found.is_dir() { "a folder" } else { "not of the export in it" };
        let message = format!(
            "{} is {what}, where a file of the export goes: move it away, or choose another folder",
            place.display()
        );
        Err(Error::Flag { flag: "out", message })
    }

    /// Puts the new files `names` in their places, durably; the manifest, if it is among them, must
    /// be the last. Files that only an older export had go, all others stay.
    ///
    /// Gives the folder of what is left of the older export, if it cannot be removed.
    ///
    /// # Errors
    /// A file cannot be put in its place; then all are where they were.
    pub fn put_in_place(&mut self, names: &[String]) -> Result<Option<PathBuf>> {
        names.iter().try_for_each(|name| self.path(name).map(drop))?;
        sync(&self.new)?;
        if self.beside && self.keep_others(names).and_then(|()| self.exchange()).is_ok() {
            self.unfinished = false;
            self.lock.keep_folder();
            self.lock.exchange_folders(&mut self.second);
            // Before the exchange is on the disk, the older files must stay there, and the mark.
            let synced = self.out.parent().map_or(Ok(()), sync_folder);
            let _ = fs::remove_file(self.out.join(UNFINISHED));
            let ours = |name: &str| self.is_ours(name, names);
            let removed = synced.and_then(|()| left::give_back(&self.new, &self.out, &ours));
            return Ok(removed.err().map(|_| self.new.clone()));
        }
        self.lock.keep_folder();
        self.move_each(names)?;
        let removed = fs::remove_dir_all(&self.new);
        self.unfinished = false;
        Ok(removed.err().map(|_| self.new.clone()))
    }

    /// Whether the file `name` is of the older export, or in the place of one of the new files
    /// `names`.
    fn is_ours(&self, name: &str, names: &[String]) -> bool {
        let older = self.older.as_ref().is_some_and(|older| older.contains(name));
        older || names.iter().any(|new| new == name) || name.starts_with(PREFIX)
    }

    /// Links all that is not of an export into the new folder.
    fn keep_others(&self, names: &[String]) -> io::Result<()> {
        for entry in fs::read_dir(&self.out)? {
            let entry = entry?;
            let name = entry.file_name();
            let ours = name.to_str().is_some_and(|name| self.is_ours(name, names));
            if !ours || entry.file_type()?.is_dir() {
                link_all(&entry.path(), &self.new.join(name))?;
            }
        }
        sync_folder(&self.new)
    }

    fn exchange(&self) -> io::Result<()> {
        Ok(renameat_with(CWD, &self.new, CWD, &self.out, RenameFlags::EXCHANGE)?)
    }

    /// Moves the new files to their places, and those of the older export away before.
    fn move_each(&mut self, names: &[String]) -> Result<()> {
        let replaced = self.new.join(REPLACED);
        fs::create_dir(&replaced).map_err(Error::writing(&replaced))?;
        let older = self.older.iter().flatten().chain(names);
        let older: BTreeSet<&str> = older.map(String::as_str).collect();
        let is_file = |name: &&str| {
            fs::symlink_metadata(self.out.join(name)).is_ok_and(|found| !found.is_dir())
        };
        let away = std::iter::once(manifest::FILE)
            .chain(older.into_iter().filter(|name| *name != manifest::FILE))
            .filter(is_file)
            .map(|name| (self.out.join(name), replaced.join(name)));
        let home = names.iter().map(|name| (self.new.join(name), self.out.join(name)));
        let moves: Vec<(PathBuf, PathBuf)> = away.chain(home).collect();
        for (done, (from, to)) in moves.iter().enumerate() {
            let last = to.ends_with(manifest::FILE);
            let synced = if last { sync_folder(&self.out) } else { Ok(()) };
            if let Err(source) = synced.and_then(|()| fs::rename(from, to)) {
                let back =
                    moves[..done].iter().rev().try_for_each(|(from, to)| fs::rename(to, from));
                // What cannot be put back now is put back by the next export.
                self.unfinished = back.is_ok();
                return Err(Error::Write { path: to.clone(), source });
            }
        }
        sync(&self.out)
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if self.unfinished {
            let _ = fs::remove_dir_all(&self.new);
        }
    }
}

/// The path for a folder beside `out`. There is none for the root of a file system, nor for the
/// folder that this process works in: who started it would be left in the older one.
fn beside(out: &Path) -> Option<PathBuf> {
    let here = std::env::current_dir().is_ok_and(|here| here.starts_with(out));
    let mut name = std::ffi::OsString::from(".");
    name.push(out.file_name().filter(|_| !here)?);
    name.push(".hydit-export");
    Some(out.with_file_name(name))
}

/// Checks that a folder that is no export is empty.
fn check_empty(out: &Path) -> Result<()> {
    for entry in fs::read_dir(out).map_err(Error::reading(out))? {
        let name = entry.map_err(Error::reading(out))?.file_name();
        if name != LOCK {
            let message = format!(
                "{} holds {} but no {}: choose a new or empty folder",
                out.display(),
                name.to_string_lossy(),
                manifest::FILE
            );
            return Err(Error::Flag { flag: "out", message });
        }
    }
    Ok(())
}

/// Makes the folder `new` with the owner and the permissions of `out`, from which files can be
/// moved into `out`.
fn make_alike(out: &Path, new: &Path) -> io::Result<()> {
    fs::create_dir(new)?;
    let alike = copy_owner(out, new).and_then(|()| {
        let [probe, moved] = [new, out].map(|folder| folder.join(UNFINISHED));
        File::create(&probe)?;
        fs::rename(&probe, &moved)?;
        fs::remove_file(&moved)
    });
    if alike.is_err() {
        let _ = fs::remove_dir_all(new);
    }
    alike
}

fn copy_owner(from: &Path, to: &Path) -> io::Result<()> {
    let wanted = fs::metadata(from)?;
    let found = fs::metadata(to)?;
    if (found.uid(), found.gid()) != (wanted.uid(), wanted.gid()) {
        chown(to, Some(wanted.uid()), Some(wanted.gid()))?;
    }
    fs::set_permissions(to, wanted.permissions())
}

/// Links the file `from` to `to`, or all files of the folder `from` into a new one.
fn link_all(from: &Path, to: &Path) -> io::Result<()> {
    if !fs::symlink_metadata(from)?.is_dir() {
        return fs::hard_link(from, to);
    }
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        link_all(&entry.path(), &to.join(entry.file_name()))?;
    }
    copy_owner(from, to)?;
    sync_folder(to)
}

/// Makes changes of the entries of `folder` durable.
fn sync(folder: &Path) -> Result<()> {
    sync_folder(folder).map_err(Error::writing(folder))
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(folder: &Path, files: &[(&str, &str)]) {
        fs::create_dir_all(folder).expect("a folder");
        files.iter().for_each(|(name, text)| fs::write(folder.join(name), text).expect("written"));
    }

    fn read(folder: &Path) -> Vec<(String, String)> {
        let entries = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry"));
        let mut files: Vec<_> = entries
            .map(|entry| {
                let name = entry.file_name().into_string().expect("a name");
                (name, fs::read_to_string(entry.path()).expect("a file"))
            })
            .collect();
        files.sort();
        files
    }

    const OLDER: [(&str, &str); 4] = [
        ("a.onnx", "older a"),
        ("b.onnx", "older b"),
        ("manifest.yaml", "files: {a.onnx: {}, b.onnx: {}}"),
        ("notes.txt", "mine"),
    ];

    fn older(root: &Path) -> PathBuf {
        let out = root.join("out");
        write(&out, &OLDER);
        out
    }

    /// The new files a and c, and a manifest.
    fn stage(staging: &Staging) -> Vec<String> {
        let names = ["a.onnx", "c.onnx", manifest::FILE].map(String::from);
        names.iter().for_each(|name| {
            fs::write(staging.path(name).expect("a path"), format!("new {name}")).expect("written");
        });
        names.to_vec()
    }

    #[test]
    fn files_are_moved_one_by_one_where_folders_cannot_be_exchanged() {
        let root = tempfile::tempdir().expect("a folder");
        let out = older(root.path());
        let mut staging = Staging::begin(&out).expect("a staging folder");
        assert!(staging.beside, "folders of one file system can be exchanged");
        staging.beside = false;
        let names = stage(&staging);
        staging.put_in_place(&names).expect("moved");
        drop(staging);
        let found = read(&out);
        let names: Vec<&str> = found.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["a.onnx", "c.onnx", "manifest.yaml", "notes.txt"]);
        assert_eq!(found[0].1, "new a.onnx");
        assert_eq!(fs::read_dir(root.path()).expect("a folder").count(), 1);
    }

    #[test]
    fn a_move_that_fails_puts_all_files_back() {
        for (beside, missing) in [(true, 0), (true, 1), (true, 2), (false, 1), (false, 2)] {
            let root = tempfile::tempdir().expect("a folder");
            let out = older(root.path());
            let before = read(&out);
            let mut staging = Staging::begin(&out).expect("a staging folder");
            if !beside {
                staging.new = out.join(INSIDE);
                write(&staging.new, &[(UNFINISHED, "")]);
            }
            staging.beside = false;
            let names = stage(&staging);
            fs::remove_file(staging.new.join(&names[missing])).expect("removed");
            let error = staging.put_in_place(&names).expect_err("nothing to move");
            assert!(error.to_string().contains(&names[missing]), "{error}");
            drop(staging);
            assert_eq!(read(&out), before);
        }
    }

    #[test]
    fn what_was_moved_before_a_kill_is_moved_back() {
        let root = tempfile::tempdir().expect("a folder");
        let out = older(root.path());
        let before = read(&out);
        for moved in 0..=2 {
            let new = out.join(INSIDE);
            write(&new, &[(UNFINISHED, ""), ("a.onnx", "new a"), ("c.onnx", "new c")]);
            write(&new, &[("manifest.yaml", "files: {a.onnx: {}, c.onnx: {}}")]);
            let replaced = new.join(REPLACED);
            fs::create_dir(&replaced).expect("a folder");
            for (name, _) in OLDER.iter().filter(|(name, _)| *name != "notes.txt") {
                fs::rename(out.join(name), replaced.join(name)).expect("moved");
            }
            for name in &["a.onnx", "c.onnx"][..moved] {
                fs::rename(new.join(name), out.join(name)).expect("moved");
            }
            drop(Staging::begin(&out).expect("a staging folder"));
            assert_eq!(read(&out), before, "{moved} moved");
        }
    }

    #[test]
    fn what_came_into_the_older_folder_late_is_given_back() {
        let root = tempfile::tempdir().expect("a folder");
        let out = older(root.path());
        let before = read(&out);
        // Killed right after the exchange: the older folder lies beside, its other files in both.
        let beside = root.path().join(".out.hydit-export");
        write(&beside, &[(LOCK, ""), ("a.onnx", "oldest a"), ("d.onnx", "oldest d")]);
        write(&beside, &[("manifest.yaml", "files: {a.onnx: {}, d.onnx: {}}")]);
        fs::hard_link(out.join("notes.txt"), beside.join("notes.txt")).expect("a link");
        write(&beside.join("late"), &[("more.txt", "mine too")]);
        drop(Staging::begin(&out).expect("a staging folder"));
        assert_eq!(read(&out.join("late")), [("more.txt".to_string(), "mine too".to_string())]);
        fs::remove_dir_all(out.join("late")).expect("removed");
        assert_eq!(read(&out), before);
        assert!(!beside.exists());

        // Two files of one name: none is dropped.
        write(&beside, &[(LOCK, ""), ("manifest.yaml", "files: {}"), ("notes.txt", "others")]);
        let error = Staging::begin(&out).err().expect("a refusal").to_string();
        assert!(error.contains("notes.txt is there already"), "{error}");
        assert_eq!(fs::read_to_string(beside.join("notes.txt")).expect("a file"), "others");
        assert_eq!(read(&out), before);
    }

    #[test]
    fn a_folder_beside_that_is_not_of_an_export_is_left_alone() {
        let root = tempfile::tempdir().expect("a folder");
        let out = older(root.path());
        let beside = root.path().join(".out.hydit-export");
        write(&beside, &[("thesis.tex", "chapter one")]);
        let error = Staging::begin(&out).err().expect("a refusal").to_string();
        assert!(error.contains("is in the way") && error.contains(".out.hydit-export"), "{error}");
        assert_eq!((read(&beside).len(), read(&out).len()), (1, 4));
        fs::remove_file(beside.join("thesis.tex")).expect("removed");
        drop(Staging::begin(&out).expect("an empty folder is no obstacle"));
        assert!(!beside.exists());
    }
}
