//! Cache policies on the trained model: what is forecast, and that decisions and pictures repeat.

use std::collections::VecDeque;

use hydit::cache::{CachePolicy, Compared, Correction, Decision, RANK, refreshed};
use hydit::pipeline::device_math::DeviceMath;
use hydit::runtime::{Backend, BackendChoice, Value};
use hydit::sampler::SamplerKind;
use hydit::timing::Stage;
use hydit::{Generated, Pipeline, Request};
use hydit_graphs::Manifest;
use hydit_testing::emoji;

fn policy(text: &str) -> CachePolicy {
    text.parse().expect("a policy")
}

fn draw(pipeline: &mut Pipeline, request: &Request) -> Generated {
    pipeline.generate(&emoji::checked(pipeline, request), &mut emoji::ignore).expect("it draws")
}

fn request(pipeline: &Pipeline, cache: &str, steps: usize) -> Request {
    let cat = emoji::cat(pipeline.manifest(), steps);
    Request { sampler: SamplerKind::Ddim, cache_policy: policy(cache), ..cat }
}

#[test]
fn forecasts_and_changes_are_those_computed_by_hand() {
    let artifacts = emoji::artifacts();
    for choice in [BackendChoice::Ort, BackendChoice::Tract] {
        let pipeline = emoji::pipeline(&artifacts, choice);
        check(pipeline.backend(), pipeline.manifest());
    }
}

fn check(backend: &Backend, manifest: &Manifest) {
    let mut features = DeviceMath::new(manifest, backend);
    features.prepare(3, Compared::StepBefore).expect("the graphs load");
    let shape = [2, 5, manifest.model.transformer.shape().hidden_size];
    let size: usize = shape.iter().product();
    let wave = |k: usize| (0..size).map(move |i| ((i * (k + 3)) % 17) as f32 / 8.0 - 1.0);
    let value = |k: usize| -> Value {
        let numbers: Vec<f32> = wave(k).collect();
        backend.tensor_f32(&shape, &numbers).expect("a tensor")
    };
    let kept: VecDeque<Value> = (0..3).map(value).collect();
    let bound = 1e-6;
    for weights in [&[1.5, -0.5][..], &[1.75, -1.0, 0.25], &[0.5, 0.5], &[2.0, -1.5, 0.5]] {
        let blend = features.blend(&kept, weights).expect("it runs");
        let blend = blend.read_f32().expect("numbers");
        for i in 0..size {
            let exact: f32 = weights
                .iter()
                .enumerate()
                .map(|(k, w)| w * wave(k).nth(i).expect("a number"))
                .sum();
            assert!((blend[i] - exact).abs() <= bound, "{} for {exact}", blend[i]);
        }
    }
    let hidden = shape[2];
    let factor = |k: usize| wave(k).cycle().take(hidden * RANK).collect::<Vec<f32>>();
    let correction = Correction::new(&factor(3), &factor(4)).expect("of one width");
    let corrected = features.correct(&kept[0], &correction, &kept[1], &kept[2]).expect("it runs");
    let corrected = corrected.read_f32().expect("numbers");
    let [deep, now, before] = [0, 1, 2].map(|k| wave(k).collect::<Vec<f32>>());
    for (i, found) in corrected.iter().enumerate() {
        let token = i / hidden * hidden;
        let along = |r: usize| -> f32 {
            let moved = |c: usize| now[token + c] - before[token + c];
            (0..hidden).map(|c| moved(c) * correction.down()[c * RANK + r]).sum()
        };
        let added: f32 =
            (0..RANK).map(|r| along(r) * correction.up()[r * hidden + i % hidden]).sum();
        assert!((found - deep[i] - added).abs() <= 1e-4 * added.abs().max(1.0), "{found}, {added}");
    }
    let square = |x: f32| x * x;
    let moved: f32 = wave(0).zip(wave(1)).map(|(a, b)| square(a - b)).sum();
    let exact = (moved / wave(1).map(square).sum::<f32>()).sqrt();
    let found = features.change(&kept[0], &kept[1]).expect("it runs");
    assert!((found - exact).abs() <= bound, "{found} for {exact}");
}

#[test]
fn a_schedule_draws_what_the_rule_with_the_same_decisions_draws() {
    let artifacts = emoji::artifacts();
    let mut pipeline = emoji::pipeline(&artifacts, BackendChoice::Ort);
    let off = request(&pipeline, "off", 12);
    for rule in ["N3", "N3+taylor1", "N3+taylor2"] {
        let by_rule = Request { cache_policy: policy(rule), ..off.clone() };
        let rule = draw(&mut pipeline, &by_rule);
        let weights: Vec<String> = (0..12)
            .filter_map(|step| match &rule.plan[step] {
                Decision::Reuse(forecast) => Some(format!("{step}: {:?}", forecast.weights())),
                Decision::Refresh(_) => None,
            })
            .collect();
        let (refresh, forecast) = (refreshed(&rule.plan), weights.join(", "));
        let text =
            format!("steps: 12\nschedules: [{{refresh: {refresh:?}, forecast: {{{forecast}}}}}]");
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), text).expect("it is written");
        let schedule = format!("schedule:{}", file.path().display());
        let by_schedule = Request { cache_policy: policy(&schedule), ..off.clone() };
        let drawn = draw(&mut pipeline, &by_schedule);
        assert_eq!(drawn.plan, rule.plan);
        assert!(drawn.images == rule.images, "{schedule}");
    }
}

#[test]
fn at_a_refresh_the_decoder_gets_what_the_schedule_weighs() {
    let artifacts = emoji::artifacts();
    for choice in [BackendChoice::Ort, BackendChoice::Tract] {
        let mut pipeline = emoji::pipeline(&artifacts, choice);
        let mut drawn = |steps: usize, schedule: &str| {
            let file = tempfile::NamedTempFile::new().expect("a file");
            let text = format!("steps: {steps}\nschedules: [{schedule}]");
            std::fs::write(file.path(), text).expect("it is written");
            let policy = format!("schedule:{}", file.path().display());
            let asked = request(&pipeline, &policy, steps);
            draw(&mut pipeline, &asked).images
        };
        let older = "refresh: [0, 2], forecast: {2: [0.0, 1.0]}";
        assert!(drawn(3, &format!("{{{older}}}")) == drawn(3, "{refresh: [0]}"), "the older one");
        let kept = drawn(4, &format!("{{{older}}}"));
        assert!(kept != drawn(4, "{refresh: [0]}"), "the new one is kept beside it");
        assert!(kept != drawn(4, "{refresh: [0, 2]}"), "and was not what the decoder got");
    }
}

#[test]
fn a_probe_decides_by_the_picture_and_again_the_same() {
    let artifacts = emoji::artifacts();
    let mut pipeline = emoji::pipeline(&artifacts, BackendChoice::Ort);
    let cat = request(&pipeline, "probe:0.4-6+taylor1", 20);
    let first = draw(&mut pipeline, &cat);
    let runs = refreshed(&first.plan);
    assert!((3..20).contains(&runs.len()), "{runs:?}");
    assert_eq!(first.timings.calls(Stage::Core), runs.len());
    assert_eq!(first.plan[0], Decision::REFRESH);

    let other = Request { prompt: "a rocket on a black background".into(), seed: 3, ..cat.clone() };
    let other = draw(&mut pipeline, &other);
    let again = draw(&mut pipeline, &cat);
    assert_eq!(first.plan, again.plan);
    assert!(first.images == again.images, "the same bytes after another request");
    assert_ne!(first.plan, other.plan, "another picture moves otherwise");

    let never = Request { cache_policy: policy("probe:1000000-99"), ..cat.clone() };
    assert_eq!(refreshed(&draw(&mut pipeline, &never).plan), [0]);
    let always = Request { cache_policy: policy("probe:0.000001"), ..cat.clone() };
    let off = Request { cache_policy: CachePolicy::off(), ..cat };
    let (always, off) = (draw(&mut pipeline, &always), draw(&mut pipeline, &off));
    assert!(always.images == off.images, "every step refreshed is no cache");
}
