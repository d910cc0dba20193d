//! What cannot be read: files, records, pictures.

use super::*;

#[test]
fn a_file_that_is_no_store_is_named() {
    for bytes in [vec![b'x'; 100], vec![0; 1 << 16]] {
        let place = Place::new();
        std::fs::write(place.path(), bytes).expect("it is written");
        let error = Store::open(&place.path()).err().expect("it is no store");
        assert!(matches!(error, JobsError::Damaged { .. }), "{error:?}");
        assert!(error.to_string().contains("jobs.redb"), "{error}");
    }
}

#[test]
fn a_damaged_store_is_named_and_no_panic() {
    let place = Place::new();
    let store = place.open();
    for now in 1..=50 {
        ended(&store, now, 2000);
    }
    drop(store);
    let whole = std::fs::read(place.path()).expect("it is there");
    for (what, bytes) in [
        ("cut", whole[..whole.len() / 2].to_vec()),
        ("zeros behind the header", [&whole[..4096], &vec![0; whole.len() - 4096]].concat()),
    ] {
        std::fs::write(place.path(), bytes).expect("it is written");
        let error = Store::open(&place.path()).and_then(|store| store.pending()).err();
        let error = error.unwrap_or_else(|| panic!("{what}: it opens"));
        assert!(matches!(error, JobsError::Damaged { .. }), "{what}: {error:?}");
    }
}

#[test]
fn a_picture_that_was_changed_is_not_given_out() {
    let place = Place::new();
    let store = place.open();
    let job = ended(&store, 1, 100);
    let change = |transaction: &WriteTransaction| {
        transaction.open_table(IMAGES)?.insert((job.id.as_u128(), 0), [2; 100].as_slice())?;
        Ok(())
    };
    store.file.write(change).expect("it is written");
    let error = store.image(job.id, 0, &StoredImage::new(1, &[1; 100])).expect_err("it is another");
    assert!(matches!(error, JobsError::ImageDamaged { index: 0, .. }), "{error:?}");
}

#[test]
fn a_store_of_another_layout_is_refused() {
    let place = Place::new();
    let store = place.open();
    let write = |transaction: &WriteTransaction| {
        transaction.open_table(META)?.insert("schema", SCHEMA + 1)?;
        Ok(())
    };
    store.file.write(write).expect("it is written");
    drop(store);
    let error = Store::open(&place.path()).err().expect("it is refused").to_string();
    assert!(error.contains("its layout is 2, this version's is 1"), "{error}");
}

/// Overwrites the record of a job.
fn damage(store: &Store, id: Uuid, json: &[u8]) {
    let write = |transaction: &WriteTransaction| {
        transaction.open_table(JOBS)?.insert(id.as_u128(), json)?;
        Ok(())
    };
    store.file.write(write).expect("it is written");
}

#[test]
fn one_record_that_cannot_be_read_is_told_and_the_others_go_on() {
    let place = Place::new();
    let store = place.open();
    let jobs: Vec<JobRecord> = (0..3)
        .map(|i| store.insert(keyed("ann", &i.to_string()), &[]).expect("it is added"))
        .collect();
    let broken = jobs[1].id;
    damage(&store, broken, b"{\"asked");
    drop(store);

    let store = place.open();
    let pending = store.pending().expect("a read");
    let read: Vec<(Uuid, u64, bool)> =
        pending.iter().map(|job| (job.id, job.number, job.unreadable.is_some())).collect();
    assert_eq!(read, [(jobs[0].id, 0, false), (broken, 1, true), (jobs[2].id, 2, false)]);
    assert_eq!(store.find("ann", "1").expect("a read").expect("it is there").client, "ann");
    store.begun(broken, 3).expect("a write");
    let failed = JobOutcome::Failed { code: "x".to_string(), message: "y".to_string() };
    let ended = store.end(broken, 5, &failed, &[]).expect("a write").expect("it is there");
    assert_eq!(ended.outcome, Some(failed));
    let pending = store.pending().expect("a read");
    assert_eq!(pending, [jobs[0].clone(), jobs[2].clone()]);
    let listed = store.list("ann", 10, u64::MAX).expect("a read");
    assert_eq!(
        listed.iter().map(|job| job.id).collect::<Vec<_>>(),
        [jobs[2].id, broken, jobs[0].id]
    );
    assert_eq!(
        store.sweep(2000, KEEP, LIFE, MOST_ENDED).expect("a sweep"),
        Swept { jobs: 1, ..Swept::default() }
    );
    assert_eq!(store.get(broken).expect("a read"), None);
}

#[test]
fn a_job_that_is_listed_but_not_there_is_passed_over() {
    let place = Place::new();
    let store = place.open();
    let jobs: Vec<JobRecord> =
        (0..2).map(|_| store.insert(record("ann"), &[]).expect("it is added")).collect();
    let lose = |transaction: &WriteTransaction| {
        transaction.open_table(JOBS)?.remove(jobs[0].id.as_u128())?;
        Ok(())
    };
    store.file.write(lose).expect("it is written");
    assert_eq!(store.pending().expect("a read"), jobs[1..]);
    assert_eq!(store.list("ann", 10, u64::MAX).expect("a read"), jobs[1..]);
}
