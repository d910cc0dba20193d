//! What the rules of `hydit::cache` plan, against the reference; the table is made by
//! `tests/reference/make_refresh.py`.

use std::collections::BTreeMap;
use std::path::Path;

use hydit::cache::{
    CachePolicy, Compared, Decision, Forecast, Plan, PolicyInput, refreshed, refreshes,
};
use hydit::sampler::{NoiseSchedule, Sampler, SamplerKind, Spacing};
use hydit_graphs::variant::CacheDefaults;

fn timesteps(kind: SamplerKind, steps: usize) -> Vec<f32> {
    let text = include_str!("../../models/emoji/scheduler/scheduler_config.json");
    let schedule = NoiseSchedule::from_scheduler_config(text).expect("the checkpoint's config");
    let spacing = match kind {
        SamplerKind::Dpmms => Spacing::Linspace,
        _ => schedule.timestep_spacing,
    };
    Sampler::new(kind, &schedule, spacing, steps).expect("a sampler").timesteps().to_vec()
}

pub fn policy(text: &str) -> CachePolicy {
    text.parse().expect("a policy")
}

/// What a policy that is no file does.
fn plan(text: &str, timesteps: &[f32]) -> Vec<Decision> {
    let plan = policy(text).plan(&run(timesteps, Path::new("no folder"))).expect("a plan");
    plan.planned().expect("known before the first step").to_vec()
}

pub fn run<'a>(timesteps: &'a [f32], folder: &'a Path) -> PolicyInput<'a> {
    let (sampler, spacing) = (SamplerKind::Dpmms, Spacing::Linspace);
    PolicyInput {
        timesteps,
        skipped: 0,
        sampler,
        spacing,
        guidance_scale: 5.0,
        folder,
        manifest_sha256: "1234",
    }
}

/// The steps at which it runs the core.
fn runs(text: &str, timesteps: &[f32]) -> Vec<usize> {
    let plan = plan(text, timesteps);
    assert_eq!(plan.len(), timesteps.len());
    refreshed(&plan)
}

#[test]
fn every_plan_is_the_one_of_the_reference() {
    let table: BTreeMap<String, Vec<String>> =
        serde_json::from_str(include_str!("../reference/refresh.json"))
            .expect("the reference file");
    assert_eq!(table.len(), 3 * 91);
    for (name, gaps) in table {
        let (kind, steps) = name.split_once(' ').expect("a sampler and steps");
        let timesteps =
            timesteps(kind.parse().expect("a sampler"), steps.parse().expect("a count"));
        for (gap, bits) in (1..).zip(gaps) {
            let bits = u128::from_str_radix(&bits, 16).expect("hexadecimal");
            let expected: Vec<_> = (0..timesteps.len()).filter(|i| bits >> i & 1 == 1).collect();
            let ours = runs(&format!("N{gap}"), &timesteps);
            assert_eq!(ours, expected, "{name} N{gap}");
        }
    }
}

#[test]
fn plans_written_out_by_hand_are_met() {
    let even = |first: usize, last, gap: usize| (first..=last).step_by(gap);
    let n2: Vec<_> = (0..7).chain(even(8, 24, 2)).collect();
    assert_eq!(runs("N2-700-50", &timesteps(SamplerKind::Ddpm, 25)), n2[..]);
    let n2: Vec<_> = (0..9).chain(even(10, 24, 2)).collect();
    assert_eq!(runs("N2-700-50", &timesteps(SamplerKind::Dpmms, 25)), n2[..]);
    let n3: Vec<_> = (0..16).chain(even(18, 48, 3)).chain([49]).collect();
    assert_eq!(runs("N3-700-50", &timesteps(SamplerKind::Ddpm, 50)), n3);
    let n3: Vec<_> = (0..8).chain(even(9, 24, 3)).collect();
    assert_eq!(runs("N3-700-50", &timesteps(SamplerKind::Dpmms, 25)), n3);
}

#[test]
fn start_and_close_are_parameters() {
    let t: Vec<f32> = (0..10u8).rev().map(|k| 100.0 * f32::from(k)).collect(); // 900, ... 0
    assert_eq!(runs("N4-2000-0", &t), [0, 4, 8]);
    assert_eq!(runs("N4-800-0", &t), [0, 1, 4, 8]);
    assert_eq!(runs("N4-2000-250", &t), [0, 4, 8, 9]); // 200 at step 7 is reused, then 100 and 0 refresh
    assert_eq!(runs("N4-0-0", &t).len(), 10);
}

#[test]
fn off_and_n1_refresh_always() {
    let t = timesteps(SamplerKind::Ddim, 30);
    assert_eq!(plan("off", &t), plan("N1", &t));
    assert_eq!(refreshes(&plan("off", &t)), 30);
    assert!(plan("N7", &[]).is_empty());
    assert_eq!(plan("N7", &[400.0]), [Decision::REFRESH]);
}

#[test]
fn a_policy_is_read_back_as_written() {
    for text in [
        "off",
        "N1-700-50",
        "N2-700-50",
        "N6-1000-20",
        "N3-700-50+taylor1",
        "N3-700-50+align",
        "auto:8runs+align",
        "probe:0.3-4",
        "probe:0.3-4+taylor2",
        "schedule:my folder/a.yaml",
        "schedule:a.yaml#8",
        "auto:35dB",
        "auto:32.5dB",
        "auto:8runs",
    ] {
        assert_eq!(policy(text).to_string(), text);
    }
    assert_eq!(policy("N3").to_string(), "N3");
    assert_eq!(policy("N3").settled(&CacheDefaults::default()), policy("N3-700-50"));
    let own = CacheDefaults { branch: 4, start: 1000, close: 20 };
    assert_eq!(policy("N3+taylor1").settled(&own), policy("N3-1000-20+taylor1"));
    assert_eq!(policy("N3-700-50").settled(&own), policy("N3-700-50"));
    assert_eq!(policy("probe:0.30").to_string(), "probe:0.3-4");
}

#[test]
fn a_policy_that_is_not_one_is_refused() {
    for text in [
        "",
        "N",
        "N0",
        "N0-700-50",
        "n2",
        "2",
        "N2-700",
        "N2-700-50-1",
        "N-2",
        "N+2",
        "N2--50",
        "N2-700-",
        "N2-7x-5",
        "N99999999999",
        "on",
        "Off",
        " N2",
        "N2 ",
        "N٣",
        "N3+taylor0",
        "N3+taylor3",
        "N3+taylor",
        "N3+taylor+1",
        "off+taylor1",
        "off+align",
        "probe:0.3+align",
        "N3+align1",
        "N3+align+taylor1",
        "N3+taylor1+align",
        "+taylor1",
        "probe:",
        "probe:0",
        "probe:-1",
        "probe:inf",
        "probe:nan",
        "probe:0.3-0",
        "schedule:",
        "auto:",
        "auto:35",
        "auto:dB",
        "auto:-3dB",
        "auto:nandB",
        "auto:0runs",
        "auto:+8runs",
        "probe:0.3-+4",
    ] {
        let error = text.parse::<CachePolicy>().expect_err("an error").to_string();
        assert!(error.starts_with(&format!("cache policy {text:?} is not understood")), "{error}");
    }
}

#[test]
fn plans_refresh_as_often_as_the_reference() {
    for (kind, steps, text, count) in [
        (SamplerKind::Ddpm, 100, "N2", 67),
        (SamplerKind::Ddpm, 50, "N6", 22),
        (SamplerKind::Dpmms, 25, "N3", 14),
        (SamplerKind::Dpmms, 20, "N5", 8),
    ] {
        let plan = plan(text, &timesteps(kind, steps));
        assert_eq!(refreshes(&plan), count, "{kind} {steps} {text}");
    }
}

/// Like a run's first step: what is kept of the steps before is not used.
#[test]
fn a_plan_is_renewed_where_rows_join() {
    let t = timesteps(SamplerKind::Ddim, 10);
    let mut renewed = policy("N4-1000-0+taylor1").plan(&run(&t, Path::new(""))).expect("a plan");
    renewed.renew_at(5);
    let renewed = renewed.planned().expect("known before the first step");
    let plain = plan("N4-1000-0+taylor1", &t);
    assert_eq!(refreshed(&plain), [0, 4, 8]);
    assert_eq!(refreshed(renewed), [0, 4, 5, 8]);
    assert_eq!(renewed[..5], plain[..5]);
    assert_eq!([weights(&renewed[6]), weights(&renewed[7])], [[1.0], [1.0]].map(Vec::from));
    assert_eq!(weights(&renewed[9]).len(), 2, "both outputs are from after it");
    let of = |weights: &[f32]| Decision::Refresh(Forecast::new(weights).expect("weights"));
    let (two, three) = (of(&[1.5, -0.5]), of(&[1.5, -0.75, 0.25]));
    let mut plan = Plan::Planned(vec![Decision::REFRESH, two.clone(), three, two.clone()]);
    assert_eq!(plan.keeps(), 3);
    plan.renew_at(1);
    let expected = [Decision::REFRESH, Decision::REFRESH, Decision::REFRESH, two];
    assert_eq!(plan.planned(), Some(&expected[..]), "as many as there are from after it");
    let mut watch = policy("probe:9-9+taylor1").plan(&run(&t, Path::new(""))).expect("a plan");
    watch.renew_at(3);
    let Plan::Reactive(mut watch) = watch else { panic!("it decides step by step") };
    let decisions: Vec<Decision> = (0..6).map(|step| watch.decide(step, 0.0)).collect();
    assert_eq!(refreshed(&decisions), [0, 3]);
    assert_eq!(weights(&decisions[4]), [1.0], "a line needs two outputs from after it");
}

/// Those of what the decoder gets; none for the new output as it is.
pub fn weights(decision: &Decision) -> Vec<f32> {
    match decision {
        Decision::Refresh(Forecast::LAST) => vec![],
        decision => decision.forecast().weights().to_vec(),
    }
}

#[test]
fn what_is_reused_is_aligned_from_the_second_refresh_on() {
    let t: Vec<f32> = (0..6).rev().map(|step| step as f32 * 100.0).collect();
    let aligned = |policy: &str| -> Vec<usize> {
        let wanted = Decision::Reuse(Forecast::ALIGNED);
        let plan = plan(policy, &t).into_iter().enumerate();
        plan.filter(|(_, decision)| *decision == wanted).map(|(step, _)| step).collect()
    };
    assert_eq!(aligned("N2-0-0+align"), [0; 0], "every step refreshes");
    assert_eq!(aligned("N2-1000-0+align"), [3, 5]);
    assert_eq!(aligned("N2-1000-0"), [0; 0]);
    let of = |text: &str| policy(text).plan(&run(&t, Path::new(""))).expect("a plan");
    let mut renewed = of("N2-1000-0+align");
    assert_eq!((renewed.keeps(), renewed.compares()), (2, Compared::LastTwoRefreshes));
    assert_eq!(of("N2-1000-0").compares(), Compared::Nothing);
    renewed.renew_at(2);
    let after = renewed.planned().expect("known before").to_vec();
    assert_eq!(after[3], Decision::Reuse(Forecast::LAST), "one output is kept");
    assert_eq!(after[5], Decision::Reuse(Forecast::ALIGNED));
}

#[test]
fn taylor_continues_the_polynomial_through_the_last_refreshes() {
    let t: Vec<f32> = (0..10u8).rev().map(|k| 100.0 * f32::from(k)).collect(); // 900, ... 0
    let line = plan("N2-2000-0+taylor1", &t);
    assert_eq!(refreshed(&line), runs("N2-2000-0", &t), "the rule is the same");
    assert_eq!(weights(&line[1]), [1.0], "one refresh so far");
    assert_eq!(weights(&line[3]), [1.5, -0.5]); // 600 from 700 and 900
    let parabola = plan("N2-2000-0+taylor2", &t);
    assert_eq!(weights(&parabola[3]), [1.5, -0.5], "two refreshes so far");
    assert_eq!(weights(&parabola[5]), [1.875, -1.25, 0.375]); // 400 from 500, 700, 900
}

/// The decisions of a reactive policy that sees `changes`.
fn watch(text: &str, changes: &[f32]) -> Vec<Decision> {
    let t: Vec<f32> = (0..changes.len()).rev().map(|k| 10.0 * k as f32).collect();
    let plan = policy(text).plan(&run(&t, Path::new("no folder"))).expect("a plan");
    let Plan::Reactive(mut watch) = plan else { panic!("{text} decides step by step") };
    changes.iter().enumerate().map(|(step, change)| watch.decide(step, *change)).collect()
}

#[test]
fn a_probe_refreshes_when_enough_has_changed() {
    let changes = [0.0, 0.2, 0.2, 0.2, 0.1, 0.1, 0.1, 0.1, 9.0, 0.1];
    assert_eq!(refreshed(&watch("probe:0.5-9", &changes)), [0, 3, 8]);
    assert_eq!(refreshed(&watch("probe:0.5-2", &changes)), [0, 3, 6, 8], "two reuses at most");
    assert_eq!(refreshed(&watch("probe:0.5", &[0.0; 11])), [0, 5, 10], "four, where not said");
    assert_eq!(refreshed(&watch("probe:0.5", &[0.0, f32::NAN, 0.1, 0.1])), [0, 1]);
}

#[test]
fn a_probe_can_forecast() {
    let decisions = watch("probe:0.5-2+taylor1", &[0.0; 6]);
    assert_eq!(refreshed(&decisions), [0, 3]);
    assert_eq!(weights(&decisions[2]), [1.0]);
    let near = |a: f32, b: f32| (a - b).abs() < 1e-6;
    let [latest, older] = weights(&decisions[4])[..] else { panic!("two weights") };
    assert!(near(latest, 4.0 / 3.0) && near(older, -1.0 / 3.0), "{latest} {older}");
}
