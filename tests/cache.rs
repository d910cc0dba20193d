//! `hydit::cache` against the reference's rule; the table is made by `tests/reference/make_refresh.py`.

use std::collections::BTreeMap;

use hydit::cache::{CachePolicy, Decision, refreshes, speed_up};
use hydit::sampler::{NoiseSchedule, Sampler, SamplerKind, Spacing};

fn timesteps(kind: SamplerKind, steps: usize) -> Vec<u32> {
    let text = include_str!("../models/emoji/scheduler/scheduler_config.json");
    let schedule = NoiseSchedule::from_scheduler_config(text).expect("the checkpoint's config");
    let spacing = match kind {
        SamplerKind::Dpmms => Spacing::Linspace,
        SamplerKind::Ddpm | SamplerKind::Ddim => schedule.timestep_spacing,
    };
    Sampler::new(kind, &schedule, spacing, steps).expect("a sampler").timesteps().to_vec()
}

fn policy(text: &str) -> CachePolicy {
    text.parse().expect("a policy")
}

/// The steps that refresh.
fn refreshed(policy: CachePolicy, timesteps: &[u32]) -> Vec<usize> {
    let plan = policy.plan(timesteps);
    assert_eq!(plan.len(), timesteps.len());
    (0..plan.len()).filter(|&i| plan[i] == Decision::Refresh).collect()
}

#[test]
fn every_plan_is_the_one_of_the_reference() {
    let table: BTreeMap<String, Vec<String>> =
        serde_json::from_str(include_str!("reference/refresh.json")).expect("the reference file");
    assert_eq!(table.len(), 3 * 91);
    for (name, gaps) in table {
        let (kind, steps) = name.split_once(' ').expect("a sampler and steps");
        let timesteps =
            timesteps(kind.parse().expect("a sampler"), steps.parse().expect("a count"));
        for (gap, bits) in (1..).zip(gaps) {
            let bits = u128::from_str_radix(&bits, 16).expect("hexadecimal");
            let expected: Vec<_> = (0..timesteps.len()).filter(|i| bits >> i & 1 == 1).collect();
            let ours = refreshed(policy(&format!("N{gap}")), &timesteps);
            assert_eq!(ours, expected, "{name} N{gap}");
        }
    }
}

#[test]
fn plans_written_out_by_hand_are_met() {
    let even = |first: usize, last, gap: usize| (first..=last).step_by(gap);
    let n2: Vec<_> = (0..7).chain(even(8, 24, 2)).collect();
    assert_eq!(refreshed(policy("N2-700-50"), &timesteps(SamplerKind::Ddpm, 25)), n2[..]);
    let n2: Vec<_> = (0..9).chain(even(10, 24, 2)).collect();
    assert_eq!(refreshed(policy("N2-700-50"), &timesteps(SamplerKind::Dpmms, 25)), n2[..]);
    let n3: Vec<_> = (0..16).chain(even(18, 48, 3)).chain([49]).collect();
    assert_eq!(refreshed(policy("N3-700-50"), &timesteps(SamplerKind::Ddpm, 50)), n3);
    let n3: Vec<_> = (0..8).chain(even(9, 24, 3)).collect();
    assert_eq!(refreshed(policy("N3-700-50"), &timesteps(SamplerKind::Dpmms, 25)), n3);
}

#[test]
fn start_and_close_are_parameters() {
    let t: Vec<u32> = (0..10).rev().map(|k| k * 100).collect(); // 900, 800, ... 0
    assert_eq!(refreshed(policy("N4-2000-0"), &t), [0, 4, 8]);
    assert_eq!(refreshed(policy("N4-800-0"), &t), [0, 1, 4, 8]);
    assert_eq!(refreshed(policy("N4-2000-250"), &t), [0, 4, 8, 9]); // 200 at step 7 is reused, then 100 and 0 refresh
    assert_eq!(refreshed(policy("N4-0-0"), &t).len(), 10);
}

#[test]
fn off_and_n1_refresh_always() {
    let t = timesteps(SamplerKind::Ddim, 30);
    assert_eq!(policy("off").plan(&t), policy("N1").plan(&t));
    assert_eq!(refreshes(&policy("off").plan(&t)), 30);
    assert!(policy("N7").plan(&[]).is_empty());
    assert_eq!(policy("N7").plan(&[400]), [Decision::Refresh]);
}

#[test]
fn a_policy_is_read_back_as_written() {
    for text in ["off", "N1-700-50", "N2-700-50", "N6-1000-20"] {
        assert_eq!(policy(text).to_string(), text);
    }
    assert_eq!(policy("N3").to_string(), "N3-700-50");
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
    ] {
        let error = text.parse::<CachePolicy>().expect_err("an error").to_string();
        assert!(error.starts_with(&format!("cache policy {text:?} is not understood")), "{error}");
    }
}

// Block FLOPs of the large model at branch 1, 84.0 per block and 7.93 per skip_linear.
#[test]
fn the_speed_up_is_the_share_of_work_left() {
    let full = 40.0 * 84.0 + 19.0 * 7.93;
    let cached = 2.0 * 84.0 + 7.93;
    for (kind, steps, text, runs, expected) in [
        (SamplerKind::Ddpm, 100, "N2", 67, "1.46"),
        (SamplerKind::Ddpm, 50, "N6", 22, "2.14"),
        (SamplerKind::Dpmms, 25, "N3", 14, "1.72"),
        (SamplerKind::Dpmms, 20, "N5", 8, "2.33"),
    ] {
        let plan = policy(text).plan(&timesteps(kind, steps));
        assert_eq!(refreshes(&plan), runs, "{kind} {steps} {text}");
        assert_eq!(
            format!("{:.2}", speed_up(full, cached, &plan)),
            expected,
            "{kind} {steps} {text}"
        );
    }
    assert_eq!(speed_up(1.0, 0.5, &[]), 1.0);
}
