//! Files of schedules, and what `auto` and `schedule:FILE` make of them.

use std::path::Path;

use hydit::cache::{CachePolicy, Decision, PolicyInput, Schedules, calibration_file, refreshed};
use hydit::sampler::{SamplerKind, Spacing};
use hydit_graphs::variant::CacheDefaults;

use crate::cache::{policy, run, weights};

const SCHEDULES: &str = "sampler: dpmms
spacing: linspace
steps: 6
guidance_scale: 5.0
manifest_sha256: \"1234\"
schedules:
- refresh: [0, 3]
  measured: {psnr: 31.0, psnr_p10: 27.0, ssim: 0.9, latent_error: 0.1}
- refresh: [0, 2, 4]
  forecast: {3: [1.25, -0.25], 4: [1.5, -0.5], 5: [1.5, -0.75, 0.25]}
  measured: {psnr: 33.0, psnr_p10: 31.0, ssim: 0.95, latent_error: 0.05}
";
const SIX: [f32; 6] = [900.0, 700.0, 500.0, 300.0, 100.0, 0.0];

/// What `text`, FOLDER standing for a folder, makes of a calibration file in it.
fn with_file(text: &str, file: &str, timesteps: &[f32]) -> Result<Vec<Decision>, String> {
    let folder = tempfile::tempdir().expect("a folder");
    let path =
        calibration_file(folder.path(), SamplerKind::Dpmms, Spacing::Linspace, timesteps.len());
    std::fs::write(&path, file).expect("it is written");
    let text = text.replace("FILE", path.to_str().expect("a plain path"));
    let plan = policy(&text).plan(&run(timesteps, folder.path())).map_err(|e| e.to_string())?;
    Ok(plan.planned().expect("known before the first step").to_vec())
}

#[test]
fn a_schedule_is_read_from_its_file() {
    let two = with_file("schedule:FILE#2", SCHEDULES, &SIX).expect("a plan");
    assert_eq!(refreshed(&two), [0, 3]);
    assert!(two[1..3].iter().all(|d| weights(d) == [1.0]), "{two:?}");
    let three = with_file("schedule:FILE#3", SCHEDULES, &SIX).expect("a plan");
    let found: Vec<_> = three.iter().map(weights).collect();
    let expected: [&[f32]; 6] =
        [&[], &[1.0], &[], &[1.25, -0.25], &[1.5, -0.5], &[1.5, -0.75, 0.25]];
    assert_eq!(found, expected);
    let hand_made = "steps: 6\nschedules: [{refresh: [0, 5]}]";
    let plan = with_file("schedule:FILE", hand_made, &SIX).expect("a plan");
    assert_eq!(refreshed(&plan), [0, 5], "a file of one schedule and nothing else");
}

#[test]
fn a_run_that_begins_late_refreshes_first_and_forecasts_from_its_own_outputs() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = calibration_file(folder.path(), SamplerKind::Dpmms, Spacing::Linspace, 6);
    std::fs::write(&path, SCHEDULES).expect("it is written");
    let late = |text: &str, skipped: usize| {
        let input = PolicyInput { skipped, ..run(&SIX[skipped..], folder.path()) };
        let plan = policy(text).plan(&input).expect("a plan");
        let plan = plan.planned().expect("known before the first step").to_vec();
        plan.iter().map(weights).collect::<Vec<_>>()
    };
    let (refresh, last, line) = (vec![], vec![1.0], vec![1.5, -0.5]);
    // Of [0, 2, 4]: at 3 the outputs of 2 and 0 are summed, at 4 those of 4 and 2, at 5 all three.
    for (skipped, expected) in [
        (1, vec![&refresh, &refresh, &last, &line, &last]),
        (2, vec![&refresh, &last, &line, &last]),
        (3, vec![&refresh, &refresh, &last]),
        (5, vec![&refresh]),
    ] {
        let expected: Vec<_> = expected.into_iter().cloned().collect();
        assert_eq!(late("auto:3runs", skipped), expected, "{skipped}");
    }
    let refused = policy("auto:29dB")
        .plan(&PolicyInput { skipped: 1, ..run(&SIX[1..], folder.path()) })
        .expect_err("a refusal")
        .to_string();
    assert!(refused.contains("nothing is known of one from an image: name the core"), "{refused}");
    let usual = |skipped| {
        let (sampler, spacing) = (SamplerKind::Dpmms, Spacing::Linspace);
        let defaults = CacheDefaults::default();
        CachePolicy::usual(folder.path(), &defaults, sampler, spacing, 6, skipped).to_string()
    };
    assert_eq!([usual(0), usual(1)], ["auto:35dB", "N2-700-50"]);
    let file = "steps: 6\nschedules: [{refresh: [0, 2, 4], forecast: {5: [1.5, -0.5]}}]";
    std::fs::write(&path, file).expect("it is written");
    let text = format!("schedule:{}", path.display());
    assert_eq!(late(&text, 2)[3], [1.5, -0.5], "both outputs are its own");
    assert_eq!(late(&text, 3)[2], last, "one is not");
    assert_eq!(late("N2-1000-0", 3), [&refresh, &last, &refresh].map(Vec::clone));
    let other = PolicyInput { skipped: 2, ..run(&SIX[3..], folder.path()) };
    let refused = policy(&text).plan(&other).expect_err("a refusal").to_string();
    assert!(refused.contains("made for steps 6, not 5"), "{refused}");
}

#[test]
fn auto_takes_the_fewest_core_runs_that_keep_the_quality() {
    let taken = |text| refreshed(&with_file(text, SCHEDULES, &SIX).expect("a plan"));
    assert_eq!(taken("auto:29dB"), [0, 3]);
    assert_eq!(taken("auto:30dB"), [0, 2, 4], "one picture in ten of the other is below 28 dB");
    assert_eq!(taken("auto:33dB"), [0, 2, 4]);
    let refused = with_file("auto:34dB", SCHEDULES, &SIX).expect_err("a refusal");
    assert!(refused.contains("the best schedule has 33.0 dB, and 31.0 dB for nine"), "{refused}");
    assert_eq!(taken("auto:3runs"), [0, 2, 4]);
    assert_eq!(taken("auto:2runs"), [0, 3]);
    let refused = with_file("auto:1runs", SCHEDULES, &SIX).expect_err("a refusal");
    assert!(
        refused.contains("the fewest core runs it has a schedule for are 2: take auto:2runs"),
        "{refused}"
    );

    let worse = SCHEDULES.replace("psnr: 33.0, psnr_p10: 31.0", "psnr: 30.0, psnr_p10: 26.0");
    let best = with_file("auto:3runs", &worse, &SIX).expect("a plan");
    assert_eq!(refreshed(&best), [0, 3], "more runs that measured worse are not better");
    for nothing in ["auto:3dB", "auto:3runs", "schedule:FILE"] {
        let error = with_file(nothing, "steps: 6\nschedules: []", &SIX).expect_err("a refusal");
        assert!(error.contains("schedule in it") || error.contains("has no schedule"), "{error}");
    }
}

#[test]
fn auto_promises_no_quality_for_more_guidance_than_was_calibrated_with() {
    let timid = SCHEDULES.replace("guidance_scale: 5.0", "guidance_scale: 4.0");
    let refused = with_file("auto:29dB", &timid, &SIX).expect_err("a refusal");
    assert!(refused.contains("made with guidance 4, and guidance 5 multiplies"), "{refused}");
    assert!(with_file("auto:2runs", &timid, &SIX).is_ok(), "that promises nothing");
    let bold = SCHEDULES.replace("guidance_scale: 5.0", "guidance_scale: 7.5");
    assert!(with_file("auto:29dB", &bold, &SIX).is_ok(), "less guidance is easier");
}

#[test]
fn a_schedule_keeps_its_own_forecasts_under_taylor() {
    let plan = with_file("schedule:FILE#3+taylor1", SCHEDULES, &SIX);
    // The suffix of a schedule's name would be its runs, so its taylor stands behind them.
    let plan = plan.expect("a plan");
    assert_eq!(weights(&plan[5]), [1.5, -0.75, 0.25], "the file's");
    assert_eq!(weights(&plan[1]), [1.0]);
    let two = with_file("schedule:FILE#2+taylor1", SCHEDULES, &SIX).expect("a plan");
    assert_eq!(weights(&two[4]), [1.0 + 200.0 / 600.0, -200.0 / 600.0], "a line where it has none");
}

#[test]
fn a_schedule_that_does_not_fit_is_refused() {
    let changed = |old: &str, new: &str| {
        assert!(SCHEDULES.contains(old), "{old}");
        with_file("schedule:FILE#3", &SCHEDULES.replace(old, new), &SIX).expect_err(new)
    };
    for (old, new, expected) in [
        ("sampler: dpmms", "sampler: ddim", "made for the sampler ddim, not dpmms"),
        ("linspace", "trailing", "made for the spacing trailing, not linspace"),
        ("steps: 6", "steps: 7", "made for steps 7, not 6"),
        ("1234", "99", "made for the export with the manifest hash 99, not 1234"),
        ("[0, 2, 4]", "[2, 4]", "schedules[1]: refresh: the first step, 0"),
        ("[0, 2, 4]", "[0, 4, 2]", "expected ascending steps below 6"),
        ("[0, 2, 4]", "[0, 2, 6]", "expected ascending steps below 6"),
        ("3: [1.25", "6: [1.25", "forecast: step 6 is not below 6"),
        ("4: [1.5", "0: [1.5", "step 0 has [1.5, -0.5]; expected 1 to 1 weights"),
        ("-0.25]", "-0.5]", "step 3 has [1.25, -0.5]; expected 1 to 2 weights that sum to 1"),
        ("3: [1.25", "1: [1.25", "step 1 has [1.25, -0.25]; expected 1 to 1 weights"),
        ("[1.25, -0.25]", "[.nan, -0.25]", "step 3 has [NaN, -0.25]; expected"),
        ("[0, 3]", "[0, 2, 5]", "another schedule has 3 core runs already"),
        ("refresh", "fresh", "fresh"),
    ] {
        let error = changed(old, new);
        assert!(error.starts_with("cache policy schedule:"), "{error}");
        assert!(error.contains("calibration-dpmms-linspace-6.yaml"), "{error}");
        assert!(error.contains(expected), "{error}");
    }
    let several = with_file("schedule:FILE", SCHEDULES, &SIX).expect_err("two schedules");
    assert!(several.contains("#<n> with n = 2, 3"), "{several}");
    let none = with_file("schedule:FILE#9", SCHEDULES, &SIX).expect_err("no such schedule");
    assert!(none.contains("no schedule with 9 core runs, but with: 2, 3"), "{none}");
    let whole = "steps: 6\nschedules: [{refresh: [0, 5], forecast: {1: [1.0004]}}]";
    let plan = with_file("schedule:FILE", whole, &SIX).expect("a plan");
    assert_eq!(weights(&plan[1]), [1.0], "no sum of one term");
}

#[test]
fn a_missing_calibration_is_told_with_the_command_that_makes_it() {
    let plan = policy("auto:35dB").plan(&run(&SIX, Path::new("some/model")));
    let error = plan.expect_err("a refusal").to_string();
    assert_eq!(
        error,
        "cache policy auto:35dB: no calibration for dpmms with linspace spacing and 6 steps: make one \
         with hydit-serve calibrate --model some/model --prompts FILE --sampler dpmms --spacing linspace \
         --infer-steps 6"
    );
}

#[test]
fn a_calibration_is_read_back_as_written() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("schedules.yaml");
    let read = |text: &str| {
        std::fs::write(&path, text).expect("it is written");
        Schedules::read(&path, &run(&SIX, folder.path())).expect("it fits")
    };
    let mut found = read(SCHEDULES);
    found.made_with.insert("prompts".into(), "a \"red\" cat: 猫; \\ #1\n".into());
    assert_eq!(read(&found.to_yaml()), found);
}
