//! A folder that must stay as it is while an engine reads from it.
//!
//! Engines open files by their names. Between a check and that, a file can be exchanged for another
//! or for a link that leads elsewhere, and back again. The system notes every such change while it
//! happens, so that what was loaded in the meantime can be thrown away.

use std::io::{Error, Result};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::inotify::{CreateFlags, ReadFlags, Reader, WatchFlags, add_watch, init};
use rustix::io::Errno;

/// The changes of a folder since it was made.
pub(crate) struct Watch(OwnedFd);

impl Watch {
    /// Watches `folder` from now on.
    ///
    /// # Errors
    /// What the system says: there is no such folder, or too much is watched already.
    pub fn of(folder: &Path) -> Result<Watch> {
        let inotify = init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        let changes = WatchFlags::CREATE
            | WatchFlags::DELETE
            | WatchFlags::MOVE
            | WatchFlags::MODIFY
            | WatchFlags::DELETE_SELF
            | WatchFlags::MOVE_SELF
            | WatchFlags::ONLYDIR;
        add_watch(&inotify, folder, changes)?;
        Ok(Watch(inotify))
    }

    /// Whether one of the files `names`, or the folder itself, was changed or exchanged.
    ///
    /// # Errors
    /// What the system says.
    pub fn changed(&self, names: &[&str]) -> Result<bool> {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut events = Reader::new(&self.0, &mut buffer);
        loop {
            let event = match events.next() {
                Ok(event) => event,
                Err(Errno::AGAIN) => return Ok(false),
                Err(error) => return Err(Error::from(error)),
            };
            // Without a name it is of the folder itself, or there were more than were kept.
            let Some(name) = event.file_name() else { return Ok(true) };
            if names.iter().any(|known| known.as_bytes() == name.to_bytes()) {
                return Ok(true);
            }
            let all = ReadFlags::QUEUE_OVERFLOW | ReadFlags::IGNORED | ReadFlags::UNMOUNT;
            if event.events().intersects(all) {
                return Ok(true);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn what_is_exchanged_and_back_is_noticed() {
        let root = tempfile::tempdir().expect("a folder");
        let folder = root.path().join("folder");
        fs::create_dir(&folder).expect("a folder");
        let [file, away] = ["file", "away"].map(|name| folder.join(name));
        fs::write(&file, "a").expect("written");
        let watch = Watch::of(&folder).expect("a watch");
        fs::write(folder.join("other"), "b").expect("written");
        assert!(!watch.changed(&["file"]).expect("events"));
        fs::rename(&file, &away).expect("moved");
        symlink("away", &file).expect("a link");
        fs::rename(&away, &file).expect("moved back");
        assert!(watch.changed(&["file"]).expect("events"));
        let watch = Watch::of(&folder).expect("a watch");
        fs::rename(&folder, root.path().join("moved")).expect("moved");
        assert!(watch.changed(&["file"]).expect("events"));
    }
}
