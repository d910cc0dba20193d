use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use hydit::Request;
use hydit::image::Format;
use hydit::sampler::{SamplerKind, Spacing};
use redb::{Database, ReadableTableMetadata};
use tempfile::TempDir;

use super::*;
use crate::server::figures::Figures;
use crate::server::jobs::record::{Idempotency, JobResult, JobSpec, StepKind};
use crate::server::output::Output;
use crate::server::settings::Keep;

mod damaged;
mod earlier;
mod full_disk;

pub use earlier::told_by_an_earlier_version;

/// How long images are lent, in milliseconds.
const LIFE: u64 = 50;
const KEEP: Keep = Keep { age: Duration::from_millis(1000), bytes: 100 };

struct Place {
    folder: TempDir,
}

impl Place {
    fn new() -> Place {
        Place { folder: tempfile::tempdir().expect("a folder") }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("jobs.redb")
    }

    fn open(&self) -> Store {
        Store::open(&self.path()).expect("the store opens")
    }
}

pub fn record(client: &str) -> JobRecord {
    let request = Request {
        prompt: "蓝色背景上的猫".to_string(),
        negative_prompt: "worst quality".to_string(),
        width: 128,
        height: 64,
        steps: 5,
        guidance_scale: 5.3,
        guidance_rescale: 0.1,
        sampler: SamplerKind::Ddpm,
        spacing: Spacing::Linspace,
        seed: u64::MAX - 3,
        num_images: 2,
        init_image: None,
        image_prompt: None,
        cache_policy: "N2-700-50".parse().expect("a policy"),
        loras: Vec::new(),
        controls: Vec::new(),
        guidance_interval: Default::default(),
        pag_scale: 0.0,
        pag_adaptive_scale: 0.0,
    };
    let spec = JobSpec {
        model: "emoji".to_string(),
        manifest_sha256: "0123".to_string(),
        request,
        output: Output { format: Format::Webp, quality: 100, metadata: false },
        preview_every: Some(3),
        deadline: Some(1 << 41),
    };
    JobRecord {
        id: Uuid::new_v4(),
        number: 0,
        client: client.to_string(),
        created: 7,
        started: None,
        finished: None,
        starts: 0,
        spec,
        idempotency: None,
        outcome: None,
        unreadable: None,
    }
}

fn keyed(client: &str, key: &str) -> JobRecord {
    let idempotency = Idempotency { key: key.to_string(), body_sha256: "ab".to_string() };
    JobRecord { idempotency: Some(idempotency), ..record(client) }
}

fn done(files: &[Vec<u8>]) -> JobOutcome {
    JobOutcome::Done(JobResult {
        images: files.iter().map(|file| StoredImage::new(1, file)).collect(),
        dropped: false,
        plan: vec![StepKind::Refresh, StepKind::Reuse, StepKind::Forecast],
        step_seconds: vec![0.5, 0.25, 0.25],
        figures: Figures {
            model: "emoji".to_string(),
            seeds: vec![1],
            size: "128x64".to_string(),
            steps: 3,
            core_runs: 1,
            sampler: SamplerKind::Ddpm,
            guidance: 5.3,
            cache: "N2-700-50".to_string(),
            truncated: vec!["prompt".to_string()],
            queued_seconds: 0.25,
            drawing_seconds: 1.5,
        },
    })
}

/// Adds a job that ended at `now` with one image of `bytes`.
fn ended(store: &Store, now: u64, bytes: usize) -> JobRecord {
    let job = store.insert(record("ann"), &[]).expect("it is added");
    let pictures = [vec![now as u8; bytes]];
    store.end(job.id, now, &done(&pictures), &pictures).expect("it ends").expect("it is there")
}

/// The file of an image, whose bytes are `file` if it is there.
fn picture(store: &Store, id: Uuid, index: usize, file: &[u8]) -> Option<Vec<u8>> {
    store.image(id, index, &StoredImage::new(1, file)).expect("a read")
}

#[test]
fn what_was_written_is_there_after_a_restart() {
    let place = Place::new();
    let store = place.open();
    let mode = std::fs::metadata(place.path()).expect("it is there").permissions().mode();
    assert_eq!(mode & 0o077, 0, "others cannot read it");
    let waits = store.insert(keyed("ann", "k"), &[]).expect("it is added");
    let drawn = ended(&store, 40, 10);
    store.begun(waits.id, 33).expect("it is noted");
    drop(store);

    let store = place.open();
    let begun = JobRecord { started: Some(33), starts: 1, ..waits.clone() };
    assert_eq!(store.get(waits.id).expect("a read"), Some(begun.clone()));
    assert_eq!(store.get(drawn.id).expect("a read"), Some(drawn.clone()));
    assert_eq!(picture(&store, drawn.id, 0, &[40; 10]), Some(vec![40; 10]));
    assert_eq!(picture(&store, drawn.id, 1, &[40; 10]), None);
    assert_eq!(store.find("ann", "k").expect("a read"), Some(begun.clone()));
    assert_eq!(store.pending().expect("a read"), [begun]);
    let next = store.insert(record("ann"), &[]).expect("it is added");
    assert_eq!((waits.number, drawn.number, next.number), (0, 1, 2));
}

#[test]
fn pending_jobs_come_back_in_their_order() {
    let place = Place::new();
    let store = place.open();
    let jobs: Vec<Uuid> = (0..20)
        .map(|i| store.insert(record(["ann", "bob"][i % 2]), &[]).expect("it is added").id)
        .collect();
    store.end(jobs[3], 5, &JobOutcome::Cancelled, &[]).expect("it ends");
    let pending: Vec<Uuid> = store.pending().expect("a read").iter().map(|job| job.id).collect();
    let expected: Vec<Uuid> = jobs.iter().copied().filter(|id| *id != jobs[3]).collect();
    assert_eq!(pending, expected);
}

#[test]
fn a_job_ends_once() {
    let place = Place::new();
    let store = place.open();
    let job = store.insert(record("ann"), &[]).expect("it is added");
    let cancelled = store.end(job.id, 5, &JobOutcome::Cancelled, &[]).expect("it ends");
    let pictures = [vec![1, 2, 3]];
    let late = store.end(job.id, 6, &done(&pictures), &pictures).expect("a write");
    assert_eq!(late, cancelled);
    assert_eq!(late.expect("it is there").outcome, Some(JobOutcome::Cancelled));
    assert_eq!(picture(&store, job.id, 0, &[1, 2, 3]), None);
    assert_eq!(store.end(Uuid::new_v4(), 6, &JobOutcome::Cancelled, &[]).expect("a write"), None);
}

#[test]
fn a_client_lists_its_own_jobs_the_newest_first() {
    let place = Place::new();
    let store = place.open();
    let ann: Vec<u64> =
        (0..3).map(|_| store.insert(record("ann"), &[]).expect("it is added").number).collect();
    store.insert(record("anna"), &[]).expect("it is added");
    let numbers = |limit, below| -> Vec<u64> {
        let jobs = store.list("ann", limit, below).expect("a read");
        jobs.iter().map(|job| job.number).collect()
    };
    assert_eq!(numbers(10, u64::MAX), [ann[2], ann[1], ann[0]]);
    assert_eq!(numbers(2, u64::MAX), [ann[2], ann[1]]);
    assert_eq!(numbers(2, ann[1]), [ann[0]]);
}

#[test]
fn a_removed_job_leaves_nothing() {
    let place = Place::new();
    let store = place.open();
    let job = store.insert(keyed("ann", "k"), &[]).expect("it is added");
    assert_eq!(store.find("bob", "k").expect("a read"), None);
    let pictures = [vec![1; 10], vec![2; 10]];
    store.end(job.id, 5, &done(&pictures), &pictures).expect("it ends");
    store.remove(job.id).expect("it is removed");
    assert_eq!(store.get(job.id).expect("a read"), None);
    assert_eq!(store.find("ann", "k").expect("a read"), None);
    assert_eq!(picture(&store, job.id, 0, &[1; 10]), None);
    assert_eq!(picture(&store, job.id, 1, &[2; 10]), None);
    assert_eq!(store.list("ann", 10, u64::MAX).expect("a read"), []);
    let rows = |transaction: &redb::ReadTransaction| {
        Ok([
            transaction.open_table(JOBS)?.len()?,
            transaction.open_table(IMAGES)?.len()?,
            transaction.open_table(OWNED)?.len()?,
            transaction.open_table(KEYS)?.len()?,
            transaction.open_table(PENDING)?.len()?,
            transaction.open_table(ENDED)?.len()?,
        ])
    };
    assert_eq!(store.file.read(rows).expect("a read"), [0; 6]);
}

#[test]
fn the_oldest_pictures_go_when_there_are_too_many_bytes() {
    let place = Place::new();
    let store = place.open();
    let jobs: Vec<JobRecord> = (1..=4).map(|now| ended(&store, now, 40)).collect();
    let swept = store.sweep(10, KEEP, LIFE, MOST_ENDED).expect("a sweep");
    assert_eq!(swept, Swept { images: 2, ..Swept::default() });
    let kept: Vec<bool> = (1..)
        .zip(&jobs)
        .map(|(now, job)| picture(&store, job.id, 0, &[now; 40]).is_some())
        .collect();
    assert_eq!(kept, [false, false, true, true]);
    let dropped: Vec<bool> = jobs
        .iter()
        .map(|job| match store.get(job.id).expect("a read").expect("it is there").outcome {
            Some(JobOutcome::Done(result)) => result.dropped,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(dropped, [true, true, false, false]);
    assert_eq!(store.sweep(10, KEEP, LIFE, MOST_ENDED).expect("a sweep"), Swept::default());
}

#[test]
fn the_newest_pictures_stay_however_many_bytes_they_have() {
    let place = Place::new();
    let store = place.open();
    let first = ended(&store, 1, 200);
    let failed = store.insert(record("ann"), &[]).expect("it is added");
    store.end(failed.id, 2, &JobOutcome::Cancelled, &[]).expect("it ends");
    assert_eq!(store.sweep(10, KEEP, LIFE, MOST_ENDED).expect("a sweep"), Swept::default());
    assert!(picture(&store, first.id, 0, &[1; 200]).is_some());
    let second = ended(&store, 3, 200);
    store.sweep(10, KEEP, LIFE, MOST_ENDED).expect("a sweep");
    assert!(picture(&store, first.id, 0, &[1; 200]).is_none());
    assert!(picture(&store, second.id, 0, &[3; 200]).is_some());
}

#[test]
fn images_are_lent_until_they_are_due_and_no_others_are_there() {
    let place = Place::new();
    let store = place.open();
    assert_eq!(store.lent(7, 0, 1, LIFE).expect("a read"), None, "nothing was ever lent");
    let files = [b"one".to_vec(), b"two".to_vec()];
    store.lend(7, "png", &files, 40).expect("it is lent");
    let store = {
        drop(store);
        place.open() // a restart
    };
    for (index, file) in (0..).zip(files) {
        let image = LentImage { format: "png".to_string(), file, due: 40 };
        assert_eq!(store.lent(7, index, 39, LIFE).expect("a read"), Some(image));
        assert_eq!(store.lent(7, index, 40, LIFE).expect("a read"), None, "it is due");
    }
    assert_eq!(store.lent(7, 2, 1, LIFE).expect("a read"), None);
    assert_eq!(store.lent(8, 0, 1, LIFE).expect("a read"), None);
    let sweep = |now| store.sweep(now, KEEP, LIFE, MOST_ENDED).expect("a sweep");
    assert_eq!(sweep(39), Swept::default());
    assert_eq!(sweep(40), Swept { lent: 1, ..Swept::default() });
    assert_eq!(store.lent(7, 0, 39, LIFE).expect("a read"), None, "it is off the disk");
    // Of a clock that was a day fast.
    store.lend(9, "png", &[b"far".to_vec()], 1000).expect("it is lent");
    assert_eq!(store.lent(9, 0, 10, LIFE).expect("a read"), None);
    assert_eq!(sweep(10), Swept { lent: 1, ..Swept::default() });
}

#[test]
fn lent_images_and_those_of_jobs_have_one_bound() {
    let place = Place::new();
    let store = place.open();
    let jobs: Vec<JobRecord> = (1..=2).map(|now| ended(&store, now, 40)).collect();
    let sweep = || store.sweep(10, KEEP, LIFE, MOST_ENDED).expect("a sweep");
    assert_eq!(sweep(), Swept::default());
    store.lend(1, "png", &[vec![1; 30], vec![1; 20]], 20).expect("it is lent");
    assert_eq!(sweep(), Swept { images: 1, ..Swept::default() }, "50 and 40 bytes of 100");
    assert!(picture(&store, jobs[0].id, 0, &[1; 40]).is_none());
    assert!(picture(&store, jobs[1].id, 0, &[2; 40]).is_some());
    store.lend(2, "png", &[vec![2; 60]], 21).expect("it is lent");
    assert_eq!(sweep(), Swept { lent: 1, ..Swept::default() }, "60 and 40");
    assert_eq!(store.lent(1, 0, 10, LIFE).expect("a read"), None, "what is due first goes first");
    assert!(store.lent(2, 0, 10, LIFE).expect("a read").is_some());
    store.lend(3, "png", &[vec![3; 200]], 22).expect("it is lent");
    assert_eq!(sweep(), Swept { lent: 1, ..Swept::default() });
    assert!(store.lent(3, 0, 10, LIFE).expect("a read").is_some(), "the last stays, as of jobs");
}

#[test]
fn jobs_go_when_they_are_too_old_or_too_many() {
    let place = Place::new();
    let store = place.open();
    let waits = store.insert(record("ann"), &[]).expect("it is added");
    let jobs: Vec<JobRecord> = (1..=4).map(|now| ended(&store, now, 1)).collect();
    let left = |store: &Store| -> Vec<u64> {
        let jobs = store.list("ann", 10, u64::MAX).expect("a read");
        jobs.iter().map(|job| job.number).collect()
    };
    let swept = store.sweep(1001, KEEP, LIFE, MOST_ENDED).expect("a sweep");
    assert_eq!(swept, Swept { jobs: 1, ..Swept::default() });
    assert_eq!(left(&store), [jobs[3].number, jobs[2].number, jobs[1].number, waits.number]);
    store.sweep(10, KEEP, LIFE, 1).expect("a sweep");
    assert_eq!(left(&store), [jobs[3].number, waits.number]);
}

#[test]
fn one_process_at_a_time_has_the_store() {
    let place = Place::new();
    let store = place.open();
    let error = Store::open(&place.path()).err().expect("it is locked");
    assert!(matches!(error, JobsError::Locked { .. }), "{error:?}");
    let text = error.to_string();
    assert!(text.contains("jobs.redb") && text.contains("another process"), "{text}");
    drop(store);
    place.open();
}

/// A repair reads the whole file, which can be a gigabyte.
#[test]
fn a_store_is_opened_without_a_repair_after_a_kill() {
    let place = Place::new();
    let store = place.open();
    for now in 1..=20 {
        ended(&store, now, 2000);
    }
    let waits = store.insert(record("ann"), &[]).expect("it is added");
    // As a kill would leave it: the file of an open store.
    let killed = place.folder.path().join("killed.redb");
    std::fs::copy(place.path(), &killed).expect("it is copied");
    let opened = File::open_by(&killed, |path| {
        Database::builder().set_repair_callback(|repair| repair.abort()).open(path)
    });
    let back = Store::of(opened.expect("it opens")).expect("it opens");
    assert_eq!(back.pending().expect("a read"), [waits]);
}
