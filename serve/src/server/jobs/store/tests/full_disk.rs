//! A disk that has no room.

use std::collections::HashSet;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use parking_lot::Mutex;
use redb::StorageBackend;
use redb::backends::FileBackend;

use super::*;

/// A file on a disk with room for so many blocks. What was never written takes none.
#[derive(Debug)]
struct SmallDisk {
    file: FileBackend,
    written: Mutex<HashSet<u64>>,
    room: Arc<AtomicUsize>,
}

const BLOCK: u64 = 4096;

impl StorageBackend for SmallDisk {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.written.lock().retain(|block| block * BLOCK < len);
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut written = self.written.lock();
        written.extend(offset / BLOCK..(offset + data.len() as u64).div_ceil(BLOCK));
        if written.len() > self.room.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.file.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.file.close()
    }
}

/// A store on a disk with room for 256 blocks, and that number.
fn on_small_disk(place: &Place) -> (Store, Arc<AtomicUsize>) {
    let room = Arc::new(AtomicUsize::new(256));
    let disk = room.clone();
    let file = File::open_by(&place.path(), move |path| {
        let mut options = std::fs::OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false).open(path)?;
        let (file, room) = (FileBackend::new(file)?, disk.clone());
        let backend = SmallDisk { file, written: Mutex::default(), room };
        Database::builder().create_with_backend(backend)
    });
    (Store::of(file.expect("it opens")).expect("it opens"), room)
}

#[test]
fn a_full_disk_is_told_and_the_store_goes_on() {
    let place = Place::new();
    let (store, room) = on_small_disk(&place);
    let first = ended(&store, 1, 1000);
    let job = store.insert(record("ann"), &[]).expect("it is added");
    let pictures = [vec![9; 2 << 20]];
    let error = store.end(job.id, 5, &done(&pictures), &pictures).expect_err("it does not fit");
    assert!(matches!(error, JobsError::DiskFull { .. }), "{error:?}");
    assert!(error.to_string().contains("the disk is full"), "{error}");

    assert_eq!(picture(&store, first.id, 0, &[1; 1000]), Some(vec![1; 1000]));
    assert_eq!(store.pending().expect("a read"), std::slice::from_ref(&job));
    let small = ended(&store, 6, 1000);
    assert_eq!(picture(&store, small.id, 0, &[6; 1000]), Some(vec![6; 1000]));

    room.store(usize::MAX, Ordering::Relaxed);
    let end = store.end(job.id, 7, &done(&pictures), &pictures).expect("it fits now");
    assert_eq!(end.expect("it is there").finished, Some(7));
}

#[test]
fn a_full_disk_lets_no_other_process_in_and_disturbs_no_reader() {
    let place = Place::new();
    let (store, _room) = on_small_disk(&place);
    let first = ended(&store, 1, 1000);
    let job = store.insert(record("ann"), &[]).expect("it is added");
    let pictures = [vec![9; 2 << 20]];
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    let read = store.get(first.id).expect("it can be read");
                    assert_eq!(read.as_ref(), Some(&first));
                }
            });
        }
        for _ in 0..50 {
            let error = store.end(job.id, 5, &done(&pictures), &pictures).expect_err("it is full");
            assert!(matches!(error, JobsError::DiskFull { .. }), "{error:?}");
            let error = Store::open(&place.path()).err().expect("it is locked");
            assert!(matches!(error, JobsError::Locked { .. }), "{error:?}");
        }
        over.store(true, Ordering::Relaxed);
    });
}
