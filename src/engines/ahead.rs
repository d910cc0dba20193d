//! Hashes of files, which a thread computes before they are asked for.

use std::collections::BTreeMap;
use std::io::Result;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use hydit_input::file;

use crate::runtime::watch::Watch;
use crate::util::sha256;

/// Files of a folder that are hashed ahead.
pub struct Ahead {
    names: Vec<String>,
    /// Of the folder, from before the first file was read.
    watch: Watch,
    shared: Arc<Shared>,
}

/// What the thread shares.
struct Shared {
    /// The files whose hash was neither taken nor given up.
    files: Mutex<BTreeMap<String, Hash>>,
    /// Told of every file that is done.
    done: Condvar,
}

enum Hash {
    Waiting,
    Begun,
    Done(String),
}

impl Ahead {
    /// Begins to hash files of `folder`, the largest first: sizes and names.
    ///
    /// # Errors
    /// The folder cannot be watched, or there is no thread.
    pub fn begin(folder: &Path, mut sized: Vec<(u64, String)>) -> Result<Ahead> {
        sized.sort_unstable_by(|one, other| other.cmp(one));
        let names: Vec<String> = sized.into_iter().map(|(_, name)| name).collect();
        let watch = Watch::of(folder)?;
        let waiting = names.iter().map(|name| (name.clone(), Hash::Waiting)).collect();
        let shared = Arc::new(Shared { files: Mutex::new(waiting), done: Condvar::new() });
        let (theirs, in_order, folder) = (shared.clone(), names.clone(), folder.to_path_buf());
        let thread = thread::Builder::new().name("hashes".to_string());
        thread.spawn(move || theirs.compute(&folder, &in_order))?;
        Ok(Ahead { names, watch, shared })
    }

    /// SHA-256 of the file `name` as it is, once; waits for it while it is computed. `None` where it
    /// was not begun, and now will not be, or where a file was changed since.
    pub fn take(&self, name: &str) -> Option<String> {
        let mut files = self.shared.files();
        let hash = loop {
            match files.remove(name)? {
                Hash::Waiting => return None,
                Hash::Done(hash) => break hash,
                Hash::Begun => {
                    files.insert(name.to_string(), Hash::Begun);
                    let waited = self.shared.done.wait(files);
                    files = waited.unwrap_or_else(PoisonError::into_inner);
                }
            }
        };
        let names: Vec<&str> = self.names.iter().map(String::as_str).collect();
        if self.watch.changed(&names).unwrap_or(true) {
            // A change is told once, and may be of a file that others ask for.
            files.clear();
            return None;
        }
        Some(hash)
    }
}

impl Drop for Ahead {
    /// The thread ends with the file that it reads.
    fn drop(&mut self) {
        self.shared.files().clear();
    }
}

impl Shared {
    fn files(&self) -> MutexGuard<'_, BTreeMap<String, Hash>> {
        // Under the lock no more than one entry changes, or all go.
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn compute(&self, folder: &Path, names: &[String]) {
        for name in names {
            match self.files().get_mut(name) {
                Some(waiting) => *waiting = Hash::Begun,
                None => continue,
            }
            let hash = file::open(&folder.join(name)).and_then(|mut file| sha256(&mut file));
            let mut files = self.files();
            match (files.get_mut(name), hash) {
                (Some(begun), Ok(hash)) => *begun = Hash::Done(hash),
                // Who asks for it reads it, and tells what is wrong with it.
                _ => drop(files.remove(name)),
            }
            drop(files);
            self.done.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a folder");
        for (name, size) in [("large", 3 << 20), ("small", 100)] {
            fs::write(folder.path().join(name), vec![7; size]).expect("written");
        }
        folder
    }

    fn begun(folder: &Path) -> Ahead {
        let sized = [(100, "small"), (3 << 20, "large"), (1, "missing")];
        let sized = sized.map(|(size, name)| (size, name.to_string()));
        Ahead::begin(folder, sized.into()).expect("it begins")
    }

    fn hash(size: usize) -> Option<String> {
        Some(sha256(&mut &vec![7; size][..]).expect("bytes are read"))
    }

    /// Waits until nothing is left to hash.
    fn settle(ahead: &Ahead) {
        let is_done = |hash: &Hash| matches!(hash, Hash::Done(_));
        while !ahead.shared.files().values().all(is_done) {
            thread::yield_now();
        }
    }

    #[test]
    fn a_hash_is_given_once_and_what_is_not_there_has_none() {
        let folder = folder();
        let ahead = begun(folder.path());
        settle(&ahead);
        assert_eq!(ahead.take("large"), hash(3 << 20));
        assert_eq!(
            [ahead.take("large"), ahead.take("missing"), ahead.take("other")],
            [None, None, None]
        );
        assert_eq!(ahead.take("small"), hash(100));
    }

    #[test]
    fn what_was_changed_since_has_no_hash_nor_has_anything_else() {
        for change in [
            |folder: &Path| fs::write(folder.join("small"), vec![7; 100]).expect("written"),
            |folder: &Path| fs::rename(folder.join("large"), folder.join("away")).expect("moved"),
            |folder: &Path| fs::rename(folder, folder.with_extension("away")).expect("moved"),
        ] {
            let root = folder();
            let folder = root.path().join("folder");
            fs::create_dir(&folder).expect("a folder");
            for name in ["large", "small"] {
                fs::rename(root.path().join(name), folder.join(name)).expect("moved");
            }
            let ahead = begun(&folder);
            settle(&ahead);
            change(&folder);
            assert_eq!([ahead.take("large"), ahead.take("small")], [None, None]);
        }
    }

    #[test]
    fn a_hash_that_is_begun_is_waited_for() {
        let folder = folder();
        let ahead = begun(folder.path());
        settle(&ahead);
        // A thread takes longer to start than a lock to be taken: nearly always it is late.
        for round in 0..100 {
            let shared = ahead.shared.clone();
            shared.files().insert("small".to_string(), Hash::Begun);
            let thread = thread::spawn(move || {
                shared.files().insert("small".to_string(), Hash::Done("its".to_string()));
                shared.done.notify_all();
            });
            assert_eq!(ahead.take("small"), Some("its".to_string()), "round {round}");
            thread.join().expect("no panic");
        }
    }
}
