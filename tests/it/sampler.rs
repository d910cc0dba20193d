//! `hydit::sampler` against diffusers' schedulers; the reference files are made by
//! `tests/reference/make_samplers.py`.

use hydit::sampler::TorchGenerator;
use hydit::sampler::{NoiseSchedule, PredictionType, Sampler, SamplerError, SamplerKind, Spacing};
use hydit_graphs::scheduler::VarianceType;
use safetensors::SafeTensors;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use strum::VariantArray;

const TABLES: &str = include_str!("../reference/samplers.json");
const TENSORS: &[u8] = include_bytes!("../reference/samplers.safetensors");

#[derive(Deserialize)]
struct Reference {
    schedules: Vec<Map<String, Value>>,
    counts: Map<String, Value>,
    runs: Vec<Run>,
}

#[derive(Deserialize)]
struct Run {
    sampler: SamplerKind,
    spacing: Spacing,
    steps: usize,
    eta: f32,
    schedule: Map<String, Value>,
    timesteps: Vec<f32>,
}

fn reference() -> Reference {
    serde_json::from_str(TABLES).expect("the reference file")
}

fn tensor(name: &str) -> Vec<f32> {
    let tensors = SafeTensors::deserialize(TENSORS).expect("the reference file");
    let bytes = tensors.tensor(name).expect(name).data();
    bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
}

/// What the script passes to the constructors, as a `scheduler_config.json`.
fn schedule(fields: &Map<String, Value>) -> NoiseSchedule {
    let mut config = json!({"num_train_timesteps": 1000, "clip_sample": false, "steps_offset": 1});
    let config_fields = config.as_object_mut().expect("an object");
    config_fields.extend(fields.clone());
    // Checkpoints of texts have none that is learned; those of classes come without a config.
    let learned = config_fields.remove("variance_type").is_some();
    let schedule = NoiseSchedule::from_scheduler_config(&config.to_string());
    let schedule = schedule.expect("a good config");
    let variance_type = if learned { VarianceType::LearnedRange } else { VarianceType::FixedSmall };
    NoiseSchedule { variance_type, ..schedule }
}

fn emoji() -> NoiseSchedule {
    let text = include_str!("../../models/emoji/scheduler/scheduler_config.json");
    NoiseSchedule::from_scheduler_config(text).expect("the checkpoint's config")
}

/// The script's model, operation by operation.
fn model(latents: &[f32], t: f32) -> Vec<f32> {
    let shift = t / 1000.0 * 0.1;
    let wave = |x: &f32| {
        let u = x - x.round_ties_even();
        (u * 1.2) * (1.0 - u.abs() * 2.0) + shift
    };
    latents.iter().map(wave).collect()
}

/// Every run of the reference with its name, its noise schedule and a sampler at its first step.
fn runs() -> impl Iterator<Item = (String, Run, NoiseSchedule, Sampler)> {
    reference().runs.into_iter().enumerate().map(|(i, run)| {
        let name = format!("run{i}: {} {} {}", run.sampler, run.spacing, run.steps);
        let schedule = schedule(&run.schedule);
        let sampler = Sampler::with_eta(run.sampler, &schedule, run.spacing, run.steps, run.eta);
        let sampler = sampler.expect(&name);
        (name, run, schedule, sampler)
    })
}

/// Noise for the first latents of a run.
fn first(sampler: &Sampler, noise: &mut [TorchGenerator], size: usize) -> Vec<f32> {
    let drawn = noise.iter_mut().flat_map(|g| g.randn(size));
    drawn.map(|z| z * sampler.init_noise_sigma()).collect()
}

/// What the model makes of the latents at a step, when it is told the timestep `t`.
fn predict(sampler: &Sampler, index: usize, latents: &[f32], t: f32) -> Vec<f32> {
    let mut read = latents.to_vec();
    sampler.scale_model_input(index, &mut read);
    model(&read, t)
}

// Two readings of the reference. With sqrt, log, exp, expm1 and solve rounded correctly in the script
// nothing is left to differ: no tolerance. As torch runs by itself, they are off by one unit
// in the last place for some arguments (6e-8 of a coefficient): dozens of steps add that up to
// 3.5e-6 in latents of size 3. An epsilon model divides by sqrt(a), about 0.06 at the first step,
// in latents of size 20: 3.5e-5. By the schedule of DiT it is 0.006, and latents are of size 190: as
// much in relation.
//
// euler's timesteps with karras come of numpy's logarithm in float32, of up to 4 units in the last
// place, by which a timestep moves less than 1e-3.
#[test]
fn timesteps_and_trajectories_are_those_of_diffusers() {
    for (i, (name, run, schedule, mut sampler)) in runs().enumerate() {
        let fractional = run.spacing == Spacing::Karras && run.sampler == SamplerKind::Euler;
        let near = if fractional { 1e-3 } else { 0.0 };
        let pairs = sampler.timesteps().iter().zip(&run.timesteps);
        assert_eq!(sampler.timesteps().len(), run.timesteps.len(), "{name}");
        for (ours, theirs) in pairs {
            assert!((ours - theirs).abs() <= near, "{name}: {ours} is not {theirs}");
        }
        let mut noise = [TorchGenerator::new(42), TorchGenerator::new(43)];
        let mut latents = first(&sampler, &mut noise, 16);
        let states = tensor(&format!("run{i}"));
        let mut states = states.chunks_exact(latents.len());
        for (index, &t) in run.timesteps.iter().enumerate() {
            let mut output = predict(&sampler, index, &latents, t);
            if sampler.learns_variance() {
                let halves: Vec<f32> = latents.iter().map(|x| x * 0.5).collect();
                output.extend(model(&halves, t).iter().map(|v| v * 4.0));
            }
            sampler.step(index, &output, &mut latents, &mut noise);
            if run.steps < 50 || index % 10 == 9 {
                assert_eq!(Some(&latents[..]), states.next(), "{name} after step {index}");
            }
        }
        assert!(states.next().is_none(), "{name} has more steps in the reference");
        let epsilon = schedule.prediction_type == PredictionType::Epsilon;
        let plain = tensor(&format!("plain{i}"));
        let size = plain.iter().fold(20.0_f32, |size, x| size.max(x.abs()));
        let tolerance = if epsilon { size * 5e-6 } else { 1e-5 };
        for (ours, theirs) in latents.iter().zip(plain) {
            assert!((ours - theirs).abs() < tolerance, "{name}: {ours} is not {theirs}");
        }
    }
}

// The factors of a step are products of what the sampler computes with one after the other: each
// is rounded once more, and an epsilon model's are large, as above. They are for latents of the size
// that the model reads.
#[test]
fn coefficients_take_the_steps_of_the_sampler() {
    // No factor of a step tells the noise that a model has learned.
    let fixed = runs().filter(|(_, _, _, sampler)| !sampler.learns_variance());
    for (name, run, schedule, mut sampler) in fixed {
        let coefficients = sampler.coefficients();
        assert_eq!(coefficients.len(), run.steps, "{name}");
        let mut noise = [TorchGenerator::new(42)];
        let mut latents = first(&sampler, &mut noise, 32);
        let mut own = latents.clone();
        sampler.scale_model_input(0, &mut own);
        let (mut before, mut before_that) = (vec![0.0; 32], vec![0.0; 32]);
        for (index, (&t, k)) in run.timesteps.iter().zip(&coefficients).enumerate() {
            let draws = if k[7] == 0.0 { vec![0.0; 32] } else { noise.clone()[0].randn(32) };
            let output = predict(&sampler, index, &latents, t);
            sampler.step(index, &output, &mut latents, &mut noise);
            let output = model(&own, t);
            for i in 0..32 {
                let now = k[0] * own[i] + k[1] * output[i];
                let past = k[5] * before[i] + k[6] * before_that[i];
                own[i] = k[2] * own[i] + k[3] * now + k[4] * output[i] + past + k[7] * draws[i];
                (before[i], before_that[i]) = (now, before[i]);
            }
        }
        let epsilon = schedule.prediction_type == PredictionType::Epsilon;
        let tolerance = if epsilon { 1e-3 } else { 2e-5 };
        for (ours, theirs) in own.iter().zip(&latents) {
            assert!((ours - theirs).abs() < tolerance, "{name}: {ours} is not {theirs}");
        }
    }
}

#[test]
fn alphas_cumprod_has_the_bits_of_torch() {
    for (i, fields) in reference().schedules.iter().enumerate() {
        assert_eq!(schedule(fields).alphas_cumprod(), tensor(&format!("alphas_cumprod{i}")), "{i}");
    }
}

/// `make_samplers.py::fnv`.
fn fnv(hash: u64, number: f32) -> u64 {
    let step = |h: u64, byte: &u8| (h ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
    number.to_le_bytes().iter().fold(hash, step)
}

#[test]
fn every_step_count_has_diffusers_timesteps_or_an_error() {
    let Reference { schedules, counts, .. } = reference();
    let schedule = schedule(&schedules[0]);
    for (name, expected) in counts {
        let (kind, spacing) = name.split_once(' ').expect("a sampler and a spacing");
        let (kind, spacing) =
            (kind.parse().expect("a sampler"), spacing.parse().expect("a spacing"));
        let (mut hash, mut wrong) = (0xcbf2_9ce4_8422_2325, Vec::new());
        for steps in 1..=1000 {
            match Sampler::new(kind, &schedule, spacing, steps) {
                Ok(sampler) => hash = sampler.timesteps().iter().copied().fold(hash, fnv),
                Err(SamplerError::Timesteps { .. }) => wrong.push(steps),
                Err(other) => panic!("{name} {steps}: {other}"),
            }
        }
        assert_eq!(json!(wrong), expected["wrong"], "{name}");
        assert_eq!(format!("{hash:016x}"), expected["fnv"], "{name}");
    }
}

#[test]
fn pictures_of_a_batch_are_those_made_alone() {
    for &kind in SamplerKind::VARIANTS {
        let spacing = kind.own_spacing().unwrap_or(Spacing::Leading);
        let run = |seeds: &[u64]| {
            let mut sampler = Sampler::new(kind, &emoji(), spacing, 6).expect("a sampler");
            let mut noise: Vec<_> = seeds.iter().map(|&seed| TorchGenerator::new(seed)).collect();
            let mut latents = first(&sampler, &mut noise, 20);
            for index in 0..6 {
                let output = predict(&sampler, index, &latents, sampler.timesteps()[index]);
                sampler.step(index, &output, &mut latents, &mut noise);
            }
            latents
        };
        assert_eq!(run(&[42, 43, 44]), [run(&[42]), run(&[43]), run(&[44])].concat(), "{kind}");
    }
}

#[test]
fn steps_and_eta_out_of_range_are_refused_by_name() {
    let message = |kind, steps, eta| {
        Sampler::with_eta(kind, &emoji(), Spacing::Leading, steps, eta)
            .expect_err("an error")
            .to_string()
    };
    let range = "it must be 1 to 1000, the number of training timesteps";
    assert_eq!(message(SamplerKind::Ddpm, 0, 0.0), format!("steps is 0: {range}"));
    assert_eq!(message(SamplerKind::Dpmms, 1001, 0.0), format!("steps is 1001: {range}"));
    assert_eq!(
        message(SamplerKind::Dpmms, 999, 0.0),
        "dpmms with leading spacing has no 999 different timesteps below 1000: take fewer steps or another timestep \
         spacing"
    );
    assert!(message(SamplerKind::Ddim, 10, 1.5).starts_with("eta is 1.5 with the ddim sampler"));
    assert!(message(SamplerKind::Ddpm, 10, 0.5).starts_with("eta is 0.5 with the ddpm sampler"));
    assert!(message(SamplerKind::Ddim, 10, f32::NAN).starts_with("eta is NaN"));
}

#[test]
fn a_spacing_that_diffusers_does_not_have_for_a_sampler_is_refused() {
    for &kind in SamplerKind::VARIANTS {
        for &spacing in Spacing::ALL {
            let made = Sampler::new(kind, &emoji(), spacing, 4);
            assert_eq!(made.is_ok(), kind.spacings().contains(&spacing), "{kind} {spacing}");
        }
    }
    let error = Sampler::new(SamplerKind::Ddim, &emoji(), Spacing::Karras, 4).expect_err("none");
    let words = "karras is no spacing of the ddim sampler: take leading, linspace, trailing";
    assert_eq!(error.to_string(), words);
    let error = Sampler::new(SamplerKind::Lcm, &emoji(), Spacing::Trailing, 51).expect_err("none");
    assert!(error.to_string().starts_with("lcm with trailing spacing has no 51"), "{error}");
}

// A late start has nothing to remember: its first step is of order 1, as in diffusers after
// `set_begin_index`.
#[test]
fn a_late_start_is_the_run_of_its_own_noise_levels() {
    for kind in [SamplerKind::Dpmms, SamplerKind::UniPc] {
        let whole = Sampler::new(kind, &emoji(), Spacing::Linspace, 9).expect("a sampler");
        let first = |sampler: &Sampler| sampler.coefficients()[0];
        let late = whole.clone().begin_at(4);
        assert_eq!(late.timesteps(), &whole.timesteps()[4..]);
        assert_eq!(first(&late)[5..], [0.0; 3], "{kind}: nothing of the steps before");
        assert_ne!(first(&late), whole.coefficients()[4], "{kind}");
        assert_eq!(late.coefficients()[4], whole.coefficients()[8], "{kind}: the last ones agree");
    }
}

#[test]
fn names_are_read_back_as_written() {
    for name in ["ddpm", "ddim", "dpmms", "unipc", "euler", "euler-ancestral", "lcm"] {
        assert_eq!(json!(name.parse::<SamplerKind>().expect(name)), json!(name));
        assert_eq!(name.parse::<SamplerKind>().expect(name).to_string(), name);
    }
    for name in ["leading", "linspace", "trailing", "karras"] {
        assert_eq!(name.parse::<Spacing>().expect(name).to_string(), name);
    }
    let error = "heun".parse::<SamplerKind>().expect_err("an error");
    let known = "ddpm, ddim, dpmms, unipc, euler, euler-ancestral, lcm";
    assert_eq!(error.to_string(), format!("`heun` is not one of {known}"));
}

/// The checkpoint's config with fields replaced (null: removed), and what is said about it.
fn complaint(changes: Value) -> String {
    let text = include_str!("../../models/emoji/scheduler/scheduler_config.json");
    let mut config: Map<String, Value> = serde_json::from_str(text).expect("JSON");
    for (field, value) in changes.as_object().expect("an object") {
        if value.is_null() {
            config.shift_remove(field)
        } else {
            config.insert(field.clone(), value.clone())
        };
    }
    let config = Value::Object(config).to_string();
    NoiseSchedule::from_scheduler_config(&config).map_or_else(|e| e.to_string(), |_| "fine".into())
}

#[test]
fn a_scheduler_config_with_unsupported_fields_is_refused_with_all_of_them() {
    assert_eq!(complaint(json!({})), "fine");
    assert_eq!(complaint(json!({"use_karras_sigmas": false, "solver_order": 2})), "fine");
    assert_eq!(
        complaint(json!({"thresholding": true, "variance_type": "learned", "beta_start": null})),
        "scheduler config not supported: beta_start is missing, it must be set; thresholding is true, it must be \
         false; variance_type is \"learned\", it must be fixed_small"
    );
    for (field, value) in [
        ("clip_sample", json!(true)),
        ("clip_sample", Value::Null), // true by default
        ("use_karras_sigmas", json!(true)),
        ("rescale_betas_zero_snr", json!(true)),
        ("trained_betas", json!([0.1, 0.2])),
        ("prediction_type", json!("sample")),
        ("beta_schedule", json!("squaredcos_cap_v2")),
        ("timestep_spacing", json!("karras")),
        ("algorithm_type", json!("sde-dpmsolver++")),
        ("solver_order", json!(3)),
        ("num_train_timesteps", json!(1)),
        ("steps_offset", json!(-1)),
        ("beta_end", json!("0.02")),
        ("_class_name", json!("EulerDiscreteScheduler")),
        ("a_new_trick", json!(0.3)),
    ] {
        let said = complaint(json!({field: value}));
        assert!(said.contains(&format!(": {field} is ")), "{field}: {said}");
    }
    assert!(NoiseSchedule::from_scheduler_config("[]").is_err());
}

#[test]
#[should_panic(expected = "dpmms remembers the step before")]
fn dpmms_refuses_steps_out_of_order() {
    let mut sampler =
        Sampler::new(SamplerKind::Dpmms, &emoji(), Spacing::Linspace, 5).expect("a sampler");
    sampler.step(1, &[0.0], &mut [0.0], &mut []);
}
