//! `hydit-serve bench` on the small model: its figures agree with each other and with the plan.

use hydit_graphs::{GraphOptions, Precision, Target};
use hydit_testing::emoji;
use serde_json::Value;

use crate::program::{plain, serve, text};

fn json(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).expect("JSON")
}

/// What `bench` prints, and the file it writes.
fn bench(arguments: &[&str]) -> (String, Value) {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("bench.json");
    let output = serve(&[&["bench", "--json", plain(&file)], arguments].concat());
    assert!(output.status.success(), "{}", text(&output.stderr));
    let written = std::fs::read(&file).expect("the file it was asked for");
    assert_eq!(folder.path().read_dir().expect("readable").count(), 1, "temporary files stayed");
    (text(&output.stdout), json(&written))
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number"))
}

fn list(value: &Value) -> &[Value] {
    value.as_array().unwrap_or_else(|| panic!("{value} is no list"))
}

fn sum(values: &Value) -> f64 {
    list(values).iter().map(number).sum()
}

/// Of two, which is what the tests have rounds.
fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

#[track_caller]
fn close(a: f64, b: f64) {
    assert!((a - b).abs() <= 1e-9 * b.abs(), "{a} and {b}");
}

#[test]
fn figures_agree_with_the_samples_and_with_the_plan() {
    let artifacts = emoji::artifacts();
    let model = plain(&artifacts);
    let request = ["--model", model, "--sampler", "dpmms", "--infer-steps", "4"];
    let more = ["--backend", "ort", "--rounds", "2", "--policy", "off", "--policy", "N4-1000-0"];
    let (shown, told) = bench(&[&request[..], &more].concat());

    let variants = list(&told["variants"]);
    assert_eq!(variants.len(), 2);
    for (variant, policy) in variants.iter().zip(["off", "N4-1000-0"]) {
        assert_eq!(variant["policy"], policy);
        let asked = [&["plan", "--json", "--cache-policy", policy], &request[..]].concat();
        let plan = json(&serve(&asked).stdout);
        assert_eq!(variant["refresh"], plan["refresh"]);
        assert_eq!(variant["core_runs"], plan["core_runs"]);
        check_samples(variant);
        let weights = number(&told["setups"][0]["weights_bytes"]);
        let peak = number(&variant["peak_memory_bytes"]);
        assert!(weights > 1e6 && peak >= weights, "{peak} for {weights} bytes of weights");
        close(number(&variant["peak_over_weights"]), peak / weights);
        assert!(number(&variant["start_seconds"]) > 0.0);
        assert_eq!(variant["pictures_repeat"], true);
    }
    let [off, cached] = variants else { unreachable!("two variants") };
    for end in ["median", "low", "high"] {
        assert_eq!(off["speed_up"][end], 1.0);
    }
    assert!(off["cache"].is_null());

    let loops = |variant: &Value| -> Vec<f64> {
        list(&variant["samples"]).iter().map(|sample| number(&sample["denoise_seconds"])).collect()
    };
    let pairs = loops(off).into_iter().zip(loops(cached));
    let speed_up = mean(&pairs.map(|(off, cached)| off / cached).collect::<Vec<_>>());
    close(number(&cached["speed_up"]["median"]), speed_up);
    let against = &cached["cache"]["against_off"];
    let allowed = number(&cached["cache"]["speed_up_allowed"]);
    assert!(allowed > 2.0, "{allowed}");
    close(number(&against["reached"]), speed_up / allowed);
    assert!(number(&against["psnr"]) < 60.0 && number(&against["ssim"]) < 1.0);

    check_setup(&told["setups"][0], variants);
    for part in ["N4-1000-0", "4 of 4", "1 of 4", "deep core", "peak / weights", "of MatMul"] {
        assert!(shown.contains(part), "{part} is missing:\n{shown}");
    }
    assert!(
        !shown.contains("| model") && !shown.contains("| engine"),
        "one needs no name:\n{shown}"
    );
}

/// Calls are those of the plan, and no part is longer than the whole.
fn check_samples(variant: &Value) {
    let samples = list(&variant["samples"]);
    assert_eq!(samples.len(), 2);
    for sample in samples {
        let stages = &sample["stages"];
        assert_eq!(list(&stages["core"]).len() as u64, variant["core_runs"]);
        for stage in ["encoder", "decoder", "sampler"] {
            assert_eq!(list(&stages[stage]).len() as u64, variant["steps"], "{stage}");
        }
        let engine = sum(&stages["encoder"]) + sum(&stages["core"]) + sum(&stages["decoder"]);
        let denoise = number(&sample["denoise_seconds"]);
        assert!(engine > 0.0 && engine + sum(&stages["sampler"]) <= denoise);
        close(number(&sample["overhead"]), 1.0 - engine / denoise);
        assert!(denoise < number(&sample["total_seconds"]));
    }
    let of = |name: &str| -> Vec<f64> { samples.iter().map(|s| number(&s[name])).collect() };
    let (denoise, total) = (mean(&of("denoise_seconds")), mean(&of("total_seconds")));
    close(number(&variant["denoise_seconds"]["median"]), denoise);
    close(number(&variant["steps_per_second"]), 4.0 / denoise);
    close(number(&variant["images_per_second"]), 1.0 / total);
}

/// Every call of every variant is counted, and rates follow from times.
fn check_setup(setup: &Value, variants: &[Value]) {
    let product = &setup["matmul"];
    assert_eq!(product["shape"], serde_json::json!([128, 2048, 2048]));
    let limit = number(&product["gflops"]);
    close(limit, 2.0 * 128.0 * 2048.0 * 2048.0 / 1e9 / number(&product["median_seconds"]));
    assert_eq!(list(&setup["graphs"]).len(), 6);
    for graph in list(&setup["graphs"]) {
        let stage = graph["stage"].as_str().expect("a name");
        let samples = variants.iter().flat_map(|variant| list(&variant["samples"]));
        let calls: usize = samples.map(|sample| list(&sample["stages"][stage]).len()).sum();
        assert_eq!(graph["calls"], calls, "{stage}");
        let (median, p95) = (number(&graph["median_seconds"]), number(&graph["p95_seconds"]));
        assert!(median > 0.0 && p95 >= median, "{stage}: {median} and {p95}");
        let rate = number(&graph["gflop"]) / median;
        close(number(&graph["gflops"]), rate);
        match stage {
            "encoder" | "core" | "decoder" => close(number(&graph["of_matmul"]), rate / limit),
            _ => assert!(graph["of_matmul"].is_null(), "{stage}"),
        }
    }
}

#[test]
fn two_models_are_named_apart_and_the_second_is_held_against_the_first() {
    let [fp32, int8] = [Precision::Fp32, Precision::Int8].map(emoji::artifacts_for);
    let (first, second) = (plain(&fp32), plain(&int8));
    let models = ["--model", first, "--model", second, "--backend", "ort", "--policy", "off"];
    let (shown, told) = bench(&[&models[..], &["--infer-steps", "2", "--rounds", "1"]].concat());
    for folder in [&fp32, &int8] {
        let name = folder.file_name().expect("a name").to_string_lossy();
        assert!(shown.contains(&format!("| {name} ")), "{name} is missing:\n{shown}");
    }
    let precisions = list(&told["setups"]).iter().map(|setup| &setup["precision"]);
    assert_eq!(precisions.collect::<Vec<_>>(), ["fp32", "int8"]);
    let [a, b] = list(&told["variants"]) else { panic!("two variants") };
    let time = |variant: &Value| number(&variant["samples"][0]["denoise_seconds"]);
    close(number(&b["speed_up"]["median"]), time(a) / time(b));
    assert!(b["cache"].is_null());
}

#[test]
fn what_cannot_be_measured_is_refused_by_name_and_leaves_nothing() {
    let target = GraphOptions::from((Precision::Fp32, Target::OrtCpu));
    let (portable, fused) = (emoji::artifacts(), emoji::artifacts_for(target));
    let (portable, fused) = (plain(&portable), plain(&fused));
    let out = tempfile::tempdir().expect("a folder");
    let file = out.path().join("bench.json");
    let (folder, file) = (plain(out.path()), plain(&file));
    let start = ["bench", "--json", file, "--infer-steps", "2", "--model", portable];
    let cases: [(&[&str], &str); 10] = [
        (&["--model", fused, "--backend", "ort", "--backend", "tract"], "form ort-cpu"),
        (&["--provider", "cpu", "--provider", "cuda"], "the cuda provider cannot be used"),
        (&["--backend", "tract", "--provider", "cuda"], "tract computes on the CPU only"),
        (&["--backend", "tract", "--threads", "1", "--threads", "2"], "tract has one thread"),
        (&["--model", folder], "manifest.yaml: not found"),
        (&["--image-size", "100", "128"], "height: 100 is not a multiple of 16"),
        (&["--policy", "N0"], "N0"),
        (&["--rounds", "0"], "--rounds"),
        (&["--use-cache"], "--use-cache"),
        (&["--cache-policy", "N2"], "--cache-policy"),
    ];
    for (more, expected) in cases {
        let output = serve(&[&start[..], more].concat());
        let error = text(&output.stderr);
        assert!(!output.status.success(), "{more:?}");
        assert!(error.contains(expected), "{more:?}: {error}");
        assert!(!error.contains("panicked") && error.lines().count() <= 6, "{error}");
    }
    let output = serve(&["bench", "--model", portable, "--json", folder]);
    assert!(text(&output.stderr).contains("--json:"), "{}", text(&output.stderr));
    assert_eq!(out.path().read_dir().expect("readable").count(), 0);
}

#[test]
fn a_picture_tells_when_it_started_and_what_memory_it_took() {
    let artifacts = emoji::artifacts();
    let out = tempfile::tempdir().expect("a folder");
    let file = out.path().join("cat.png");
    let draw = ["generate", "--model", plain(&artifacts), "--prompt", "a cat"];
    let draw =
        [&draw[..], &["--backend", "ort", "--infer-steps", "2", "-o", plain(&file)]].concat();
    let told = json(&serve(&[&draw[..], &["--json"]].concat()).stdout);
    assert!(number(&told["start_seconds"]) > 0.0);
    assert!(number(&told["peak_memory_bytes"]) > 1e7);
    let shown = text(&serve(&draw).stdout);
    assert!(shown.contains("peak memory ") && shown.contains("first step after "), "{shown}");

    // The uncached picture was first: there is no start to tell.
    let compared = [&draw[..], &["--json", "--compare", "--use-cache"]].concat();
    assert!(json(&serve(&compared).stdout)["start_seconds"].is_null());
}
