//! Pictures of every precision and form against the plain fp32 ones, over many prompts.

use hydit::Request;
use hydit::artifacts::Artifacts;
use hydit::eval::compare::{psnr, ssim};
use hydit::pipeline::text::tokenizers;
use hydit::runtime::BackendChoice;
use hydit::sampler::{SamplerKind, Spacing};
use hydit_export::synth::{self, HunyuanDit, Shape};
use hydit_graphs::{GraphDef, GraphOptions, Precision, Target, bert, hunyuan_dit, t5, vae};
use hydit_testing::emoji;

const COLOURS: [(&str, &str); 4] =
    [("blue", "蓝"), ("yellow", "黄"), ("white", "白"), ("green", "绿")];

/// Every third subject of `model`, on four backgrounds in turn, in English and Chinese in turn.
fn prompts(model: &str) -> Vec<String> {
    let subjects = std::fs::read_to_string(emoji::models().join(model).join("subjects.tsv"));
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
fn quality(model: &str, target: GraphOptions) -> (f64, f64, f64) {
    let [mut plain, mut other] = [GraphOptions::from(Precision::Fp32), target]
        .map(|target| emoji::pipeline(&emoji::shared(model, 1, target), BackendChoice::Ort));
    let (mut levels, mut similarities) = (Vec::new(), Vec::new());
    for (seed, prompt) in prompts(model).into_iter().enumerate() {
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
    assert!(levels.len() >= 8, "{} prompts", levels.len());
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let lowest = levels.iter().copied().fold(f64::INFINITY, f64::min);
    let quality = (mean(&levels), lowest, mean(&similarities));
    let GraphOptions { precision, target, .. } = target;
    println!(
        "{model} {precision} {target}, {} prompts: PSNR {:.1} dB (lowest {:.1}), SSIM {:.4}",
        levels.len(),
        quality.0,
        quality.1,
        quality.2
    );
    quality
}

#[test]
fn fused_attention_draws_the_same_pictures() {
    let (_, lowest, _) = quality("emoji", GraphOptions::from((Precision::Fp32, Target::OrtCpu)));
    assert!(lowest >= 60.0, "{lowest}"); // only roundings of fp32 differ
}

#[test]
fn int8_pictures_stay_close() {
    for target in [Target::Portable, Target::OrtCpu] {
        int8_stays_close("emoji", target);
    }
}

#[test]
fn int8_pictures_of_the_deeper_model_stay_close() {
    int8_stays_close("badges", Target::OrtCpu);
}

fn int8_stays_close(model: &str, target: Target) {
    let (mean, _, similarity) = quality(model, GraphOptions::from((Precision::Int8, target)));
    assert!(mean >= 30.0 && similarity >= 0.97, "{mean} dB, {similarity}");
    assert!(mean < 60.0, "{mean} dB is too good for int8");
}

#[test]
fn int8_text_states_point_where_those_of_fp32_do() {
    for model in ["emoji", "badges"] {
        let [plain, narrow] = [Precision::Fp32, Precision::Int8].map(|precision| {
            Artifacts::open(&emoji::shared(model, 1, precision)).expect("an export")
        });
        let encoders = tokenizers(&plain).expect("tokenizers").into_iter();
        for (tokenizer, graph) in encoders.zip(["text-encoder", "text-encoder-2"]) {
            let texts = prompts(model);
            let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
            let tokens = tokenizer.tokenize(&texts).expect("tokens");
            for engine in [BackendChoice::Ort, BackendChoice::Tract] {
                let backend = emoji::backend(engine);
                let shape = [texts.len(), tokenizer.length()];
                let ids = backend.tensor_i64(&shape, &tokens.ids).expect("ids");
                let mask = backend.tensor_i64(&shape, &tokens.mask).expect("a mask");
                let inputs = [("input_ids", &ids), ("attention_mask", &mask)];
                let [a, b] = [&plain, &narrow].map(|artifacts| {
                    let mut session = artifacts.load(graph, &backend).expect("it loads");
                    session.run_single(&inputs).expect("it runs").read_f32().expect("f32").to_vec()
                });
                let width = a.len() / (shape[0] * shape[1]);
                let states = a.chunks(width).zip(b.chunks(width)).zip(&tokens.mask);
                let cosines = states.filter(|(_, is_token)| **is_token == 1);
                let cosines: Vec<f64> = cosines.map(|((a, b), _)| cosine(a, b)).collect();
                let mean = cosines.iter().sum::<f64>() / cosines.len() as f64;
                let lowest = cosines.into_iter().fold(1.0, f64::min);
                println!("{model} {graph} {engine}: cosine {mean:.6}, lowest {lowest:.6}");
                assert!(mean >= 0.999 && lowest >= 0.99, "{model} {graph}: {mean}, {lowest}");
                assert!(mean < 0.999_999_9, "{mean} is too good for 8 bits");
            }
        }
    }
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
    };
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

/// The bytes of each graph's weights in an export of v1.2's shape.
fn weights_of_v1_2(precision: Precision) -> Vec<(String, u64)> {
    let model = synth::model("hunyuan-dit-v1.2", &Shape::default()).expect("a shape");
    let HunyuanDit { transformer: dit, text_encoder: bert, text_encoder_2: t5, vae, .. } = &model;
    let graphs = [
        bert::text_encoder(bert, dit.text_len, precision),
        t5::text_encoder_2(t5, dit.text_len_t5, precision),
        hunyuan_dit::conditioner(dit, precision),
        hunyuan_dit::shallow_encoder(dit, 1, precision),
        hunyuan_dit::deep_core(dit, 1, precision),
        hunyuan_dit::shallow_decoder(dit, 1, precision),
        vae::vae_decoder(vae, Precision::Fp32),
    ];
    let bytes = |graph: &GraphDef| {
        graph.layout().last().map_or(0, |(_, extent)| extent.offset + extent.length)
    };
    graphs.iter().map(|graph| (graph.name.clone(), bytes(graph))).collect()
}

#[test]
fn an_int8_export_of_v1_2_takes_a_third_of_one_in_fp32() {
    let gib = |precision| {
        let graphs = weights_of_v1_2(precision);
        let gib = |bytes: u64| bytes as f64 / f64::from(1 << 30);
        let total = gib(graphs.iter().map(|(_, bytes)| bytes).sum());
        let parts = graphs.iter().map(|(name, bytes)| format!("{name} {:.2}", gib(*bytes)));
        println!("{precision} {total:.2} GiB: {}", parts.collect::<Vec<_>>().join(", "));
        total
    };
    let [fp32, fp16, int8] = [Precision::Fp32, Precision::Fp16, Precision::Int8].map(gib);
    let fp8 = gib(Precision::Fp8);
    assert!(int8 <= 5.0 && int8 < fp32 / 2.8 && int8 < fp16, "{int8} GiB");
    assert!(int8 > fp32 / 4.0, "{int8} GiB is too little for 8 bits");
    assert!(fp8 < 0.85 * fp16 && fp8 > fp16 / 2.0, "{fp8} GiB");
}

#[test]
fn fp16_pictures_stay_close() {
    for target in [Target::Portable, Target::OrtCuda] {
        let (mean, lowest, _) = quality("emoji", GraphOptions::from((Precision::Fp16, target)));
        assert!(mean >= 50.0 && lowest >= 40.0, "{mean}, {lowest} dB");
        assert!(mean < 80.0, "{mean} dB is too good for fp16");
    }
}

#[test]
fn fp8_pictures_stay_close() {
    for model in ["emoji", "badges"] {
        let (mean, _, similarity) = quality(model, Precision::Fp8.into());
        assert!(mean >= 25.0 && similarity >= 0.9, "{mean} dB, {similarity}");
        assert!(mean < 50.0, "{mean} dB is too good for fp8");
    }
}

#[test]
fn an_engine_without_the_operators_is_refused_by_name() {
    let target = |precision, target| GraphOptions::from((precision, target));
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
            target(Precision::Fp8, Target::TensorRt),
            BackendChoice::Tract,
            ["written in fp8, which tract does not compute in", "--dtype fp16"],
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
