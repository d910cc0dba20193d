//! Pictures of every precision and form against the plain fp32 ones, over many prompts.

use hydit::Request;
use hydit::eval::compare::{psnr, ssim};
use hydit::runtime::BackendChoice;
use hydit::sampler::{SamplerKind, Spacing};
use hydit_graphs::{GraphOptions, Precision, Target};
use hydit_testing::emoji;

const COLOURS: [(&str, &str); 4] =
    [("blue", "蓝"), ("yellow", "黄"), ("white", "白"), ("green", "绿")];

/// Every third subject of the model, on four backgrounds in turn, in English and Chinese in turn.
fn prompts() -> Vec<String> {
    let subjects = std::fs::read_to_string(emoji::checkpoint().join("subjects.tsv"));
    let subjects = subjects.expect("the model's subjects");
    let names = subjects.lines().filter_map(|line| line.split_once('\t'));
    let prompt = |(i, (english, chinese)): (usize, (&str, &str))| {
        let (colour, character) = COLOURS[i % COLOURS.len()];
        match i % 2 {
            0 => format!("a {english} on a {colour} background"),
            _ => format!("{character}色背景上的{chinese}"),
        }
    };
    names.step_by(3).enumerate().map(prompt).collect()
}

/// Mean and lowest PSNR, mean SSIM of the pictures of `target` against the plain fp32 ones.
fn quality(target: GraphOptions) -> (f64, f64, f64) {
    let [mut plain, mut other] = [GraphOptions::from(Precision::Fp32), target]
        .map(|target| emoji::pipeline(&emoji::artifacts_for(target), BackendChoice::Ort));
    let (mut levels, mut similarities) = (Vec::new(), Vec::new());
    for (seed, prompt) in prompts().into_iter().enumerate() {
        let request = Request {
            prompt,
            sampler: SamplerKind::Dpmms,
            spacing: Spacing::Linspace,
            seed: seed as u64,
            ..emoji::cat(plain.manifest(), 10)
        };
        let draw = |pipeline: &mut hydit::Pipeline| {
            pipeline
                .generate(&emoji::checked(pipeline, &request), &mut emoji::ignore)
                .expect("it draws")
                .images
                .remove(0)
        };
        let (a, b) = (draw(&mut plain), draw(&mut other));
        levels.push(psnr(&a, &b).expect("one size").min(99.0));
        similarities.push(ssim(&a, &b).expect("one size"));
    }
    assert!(levels.len() >= 20, "{} prompts", levels.len());
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let lowest = levels.iter().copied().fold(f64::INFINITY, f64::min);
    let quality = (mean(&levels), lowest, mean(&similarities));
    let GraphOptions { precision, target } = target;
    println!(
        "{precision} {target}, {} prompts: PSNR {:.1} dB (lowest {:.1}), SSIM {:.4}",
        levels.len(),
        quality.0,
        quality.1,
        quality.2
    );
    quality
}

#[test]
fn fused_attention_draws_the_same_pictures() {
    let (_, lowest, _) =
        quality(GraphOptions { precision: Precision::Fp32, target: Target::OrtCpu });
    assert!(lowest >= 60.0, "{lowest}"); // only roundings of fp32 differ
}

#[test]
fn int8_pictures_stay_close() {
    for target in [Target::Portable, Target::OrtCpu] {
        let (mean, _, similarity) = quality(GraphOptions { precision: Precision::Int8, target });
        assert!(mean >= 30.0 && similarity >= 0.97, "{mean} dB, {similarity}");
        assert!(mean < 60.0, "{mean} dB is too good for int8");
    }
}

#[test]
fn fp16_pictures_stay_close() {
    for target in [Target::Portable, Target::OrtCuda] {
        let (mean, lowest, _) = quality(GraphOptions { precision: Precision::Fp16, target });
        assert!(mean >= 50.0 && lowest >= 40.0, "{mean}, {lowest} dB");
        assert!(mean < 80.0, "{mean} dB is too good for fp16");
    }
}

#[test]
fn an_engine_without_the_operators_is_refused_by_name() {
    let target = |precision, target| GraphOptions { precision, target };
    for (target, engine, expected) in [
        (
            target(Precision::Int8, Target::OrtCpu),
            BackendChoice::Tract,
            ["written for ONNX Runtime (form ort-cpu), which tract is not", "--backend ort"],
        ),
        (
            target(Precision::Fp16, Target::OrtCuda),
            BackendChoice::Tract,
            ["written for ONNX Runtime (form ort-cuda)", "--optimize-for portable"],
        ),
        (
            target(Precision::Bf16, Target::TensorRt),
            BackendChoice::Tract,
            ["written in bf16, which tract does not compute in", "--provider cuda"],
        ),
        (
            target(Precision::Bf16, Target::OrtCuda),
            BackendChoice::Ort,
            ["written in bf16, which ONNX Runtime's CPU provider does not", "--dtype fp32"],
        ),
    ] {
        let folder = emoji::artifacts_for(target);
        let loaded = hydit::Pipeline::load(&folder, emoji::backend(engine));
        let error = loaded.err().expect("a refusal").to_string();
        assert!(expected.iter().all(|part| error.contains(part)), "{error}");
    }
}
