//! A store of an earlier version of the program.

use super::*;

/// A store that another version of the program has filled and was killed with.
fn of_version(version: &str) -> (Place, Store) {
    let stores = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/stores");
    let place = Place::new();
    let copied = std::fs::copy(stores.join(format!("{version}.redb")), place.path());
    copied.expect("the store is there");
    let store = place.open();
    (place, store)
}

#[test]
fn a_store_of_an_earlier_version_is_read() {
    let (_place, store) = of_version("692c81f");
    let done = store.find("anonymous", "done").expect("a read").expect("it is there");
    let request = Request {
        prompt: "蓝色背景上的猫".to_string(),
        negative_prompt: "red".to_string(),
        width: 96,
        height: 64,
        steps: 4,
        guidance_scale: 3.3,
        guidance_rescale: 0.7,
        sampler: SamplerKind::Dpmms,
        spacing: Spacing::Trailing,
        seed: 7,
        num_images: 2,
        init_image: None,
        image_prompt: None,
        cache_policy: "N2-1000-0".parse().expect("a policy"),
        loras: Vec::new(),
        controls: Vec::new(),
        guidance_interval: Default::default(),
        pag_scale: 0.0,
        pag_adaptive_scale: 0.0,
    };
    assert_eq!(done.spec.request, request);
    let output = Output { format: Format::Webp, quality: 100, metadata: false };
    assert_eq!((done.spec.output, done.spec.preview_every), (output, Some(2)));
    assert!(done.spec.deadline > Some(done.created));
    let Some(JobOutcome::Done(result)) = &done.outcome else { panic!("{done:?}") };
    let kinds = [StepKind::Refresh, StepKind::Reuse, StepKind::Refresh, StepKind::Reuse];
    assert_eq!(result.plan, kinds);
    for (index, image) in result.images.iter().enumerate() {
        let file = store.image(done.id, index, image).expect("a read").expect("it is kept");
        assert_eq!((image.seed, &file[..4]), (7 + index as u64, &b"RIFF"[..]));
    }
    let pending = store.pending().expect("a read");
    let keys: Vec<&str> =
        pending.iter().filter_map(|job| Some(&*job.idempotency.as_ref()?.key)).collect();
    assert_eq!(keys, ["runs", "waits"]);
    assert_eq!((pending[0].starts, pending[1].starts), (1, 0));
    assert_eq!(pending[1].spec.request.cache_policy.to_string(), "probe:0.1-4+taylor1");

    // What this version writes it reads as well.
    let ended = store.end(pending[1].id, 5, &JobOutcome::Cancelled, &[]).expect("a write");
    assert_eq!(store.get(pending[1].id).expect("a read"), ended);
}

/// What the earlier version said of the jobs in its store, and what this one says.
pub fn told_by_an_earlier_version() -> (serde_json::Value, Vec<JobRecord>) {
    let (_place, store) = of_version("692c81f");
    let told = include_str!("../../../../../tests/stores/692c81f.json");
    let told = serde_json::from_str(told).expect("JSON");
    (told, store.list("anonymous", 10, u64::MAX).expect("a read"))
}
