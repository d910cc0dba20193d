//! `calibrate`: what it writes is what `auto` follows; what was interrupted goes on.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use hydit::cache::Schedule;
use hydit::eval::calibrate::{Settings, calibrate, default_runs};
use hydit::runtime::{Backend, BackendChoice, RuntimeOptions};
use hydit::sampler::SamplerKind;
use hydit::util::hex;
use hydit::{Pipeline, Request};
use hydit_graphs::Precision;
use hydit_testing::emoji;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

const PROMPTS: &str = "# two to learn from, two to measure on\na rocket on a black background\n\n蓝色背景上的猫\n\
                       a star on a red background\n绿色背景上的狗\n";

#[test]
fn an_interrupted_calibration_goes_on_where_it_was() {
    let artifacts = emoji::artifacts();
    let mut pipeline = emoji::pipeline(&artifacts, BackendChoice::Ort);
    let request = Request { sampler: SamplerKind::Dpmms, ..emoji::cat(pipeline.manifest(), 7) };
    let prompts = |from, to| PROMPTS.lines().filter(|l| !l.is_empty()).skip(from).take(to);
    let settings = Settings {
        request,
        learn: prompts(1, 2).map(String::from).collect(),
        check: prompts(3, 1).map(String::from).collect(),
        runs: vec![3, 5],
        tries: 2,
        corrections: true,
    };
    let folder = tempfile::tempdir().expect("a folder");
    let partial = folder.path().join("partial.json");
    let all = |stop: Option<usize>, settings: &Settings, pipeline: &mut Pipeline| {
        let mut begun = Vec::new();
        let run = catch_unwind(AssertUnwindSafe(|| {
            calibrate(pipeline, settings, &partial, &mut |progress| {
                begun.push(progress.done);
                assert_eq!(progress.total, 5);
                assert_ne!(Some(progress.done), stop, "stopped");
            })
        }));
        (begun, run.ok().map(|found| found.expect("it calibrates")))
    };
    let (begun, whole) = all(None, &settings, &mut pipeline);
    assert_eq!(begun, [0, 1, 2, 3, 4]);
    let whole = whole.expect("schedules");
    assert_eq!(whole.iter().map(|s| s.refresh.len()).collect::<Vec<_>>(), [3, 5]);
    let weighs = |s: &Schedule| s.forecast.keys().any(|step| s.refresh.contains(step));
    assert!(whole.iter().any(weighs), "a refresh makes up for what was forecast: {whole:?}");
    std::fs::remove_file(&partial).expect("it is the caller's to remove");

    assert_eq!(all(Some(1), &settings, &mut pipeline).0, [0, 1]);
    assert_eq!(all(Some(4), &settings, &mut pipeline).0, [1, 2, 3, 4]);
    let other = Settings { runs: vec![3, 4], ..settings.clone() };
    let (begun, rest) = all(None, &settings, &mut pipeline);
    assert_eq!(begun, [2, 4], "the pictures to compare with are drawn again");
    assert_eq!(rest.expect("schedules"), whole);
    assert_eq!(all(None, &settings, &mut pipeline).0, [2], "all is there until it is removed");

    // What was changed or forged in the meantime is not taken up.
    let kept = std::fs::read_to_string(&partial).expect("the record");
    let (_, json) = kept.split_once('\n').expect("a seal and a record");
    let sealed = |json: &str| format!("{}\n{json}", hex(&Sha256::digest(json)));
    assert_eq!(sealed(json), kept);
    let forged = |pointer: &str, value: Value| {
        let mut record: Value = serde_json::from_str(json).expect("JSON");
        *record.pointer_mut(pointer).expect(pointer) = value;
        sealed(&record.to_string())
    };
    let forgeries = [
        kept.replacen("\"psnr\":", "\"psnr\":1", 1),
        kept[..kept.len() / 2].to_string(),
        json.to_string(),
        "{\"key\": ".to_string(),
        forged("/recorded", json!(3)),
        forged("/tried", json!(3)),
        forged("/recorded", json!(0)),
        forged("/record/errors", json!([])),
        forged("/record/errors/6", json!([0.0])),
        forged("/record/errors/0/1", json!(-1.0)),
        forged("/record/sensitivity", json!([])),
        forged("/record/sensitivity/0/0", json!(99)),
        forged("/schedules/0/refresh", json!([])),
        forged("/schedules/0/refresh", json!([0, 99, 100])),
        forged("/schedules/0/refresh", json!([0, 1])),
        forged("/schedules/0/measured", json!(null)),
        forged("/schedules/1/forecast", json!({ "6": [7.0] })),
    ];
    for forged in forgeries {
        std::fs::write(&partial, &forged).expect("written");
        let (begun, _) = all(Some(0), &settings, &mut pipeline);
        assert_eq!(begun, [0], "{forged}");
    }
    std::fs::write(&partial, &kept).expect("written");
    assert_eq!(all(None, &settings, &mut pipeline).0, [2], "the record itself is good");

    std::fs::write(&partial, "{\"key\": ").expect("a torn file");
    all(Some(1), &settings, &mut pipeline);
    assert_eq!(all(None, &other, &mut pipeline).0, [0, 1, 2, 3, 4], "of other settings");
}

/// Rows apart, half precision, no guidance, several seeds, one part in memory at a time.
#[test]
fn calibration_works_wherever_pictures_are_drawn() {
    let artifacts = emoji::artifacts_for(Precision::Fp16);
    let options = RuntimeOptions { low_memory: true, ..RuntimeOptions::default() };
    let backend = Backend::open(&options).expect("an engine");
    let mut pipeline = Pipeline::load(&artifacts, backend).expect("it loads");
    let cat = emoji::cat(pipeline.manifest(), 6);
    let small = Request { guidance_scale: 1.0, num_images: 2, ..cat.clone() };
    let apart = Request { height: 512, width: 512, ..cat };
    for request in [small, apart] {
        let settings = Settings {
            request,
            learn: vec!["a cat on a red background".into()],
            check: vec!["a dog on a red background".into()],
            runs: vec![3],
            tries: 1,
            corrections: true,
        };
        let folder = tempfile::tempdir().expect("a folder");
        let partial = folder.path().join("partial.json");
        let found = calibrate(&mut pipeline, &settings, &partial, &mut |_| {});
        let found = found.expect("it calibrates");
        let measured = found[0].measured.expect("it is measured");
        assert!(measured.psnr > 15.0 && measured.latent_error < 1.0, "{measured:?}");
    }
}

#[test]
fn prompts_to_judge_by_are_not_calibrated_with() {
    let read = |name: &str| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("bench/cache/prompts").join(name);
        let text = std::fs::read_to_string(path).expect("the file");
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        lines.map(String::from).collect::<BTreeSet<_>>()
    };
    for model in ["emoji", "badges"] {
        let held_out = read(&format!("{model}-heldout.txt"));
        assert_eq!(held_out.len(), 50);
        assert!(held_out.is_disjoint(&read(&format!("{model}-calibrate.txt"))), "{model}");
    }
}

#[test]
fn core_runs_grow_by_a_third_from_four() {
    assert_eq!(default_runs(25), [4, 5, 6, 8, 10, 13, 17]);
    assert_eq!(default_runs(50)[6..], [17, 22, 29]);
    assert_eq!(default_runs(6), [4]);
    assert!(default_runs(5).is_empty());
}
