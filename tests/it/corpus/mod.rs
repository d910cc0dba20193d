//! Hundreds of hostile artifact folders, schedules and PNGs. Each must be refused in one line that
//! names the thing, without a panic and without waiting.

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use hydit::artifacts::Artifacts;
use hydit::cache::CachePolicy;
use hydit::eval::verify::Tensors;
use hydit::image::{decode_png, read_png, read_texts};
use hydit::request::Parameters;
use hydit::runtime::{BackendChoice, Session};
use hydit::util::{error_chain, hex};
use hydit::{Error, Pipeline, Request};
use hydit_graphs::{Graph, Precision, parse_yaml};
use hydit_testing::emoji;
use hydit_testing::hostile::{check_message, not_a_count, not_the_file};
use hydit_testing::protobuf::{self, Field, Value as Proto};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

/// A copy of the small model's export, to make hostile.
struct Place {
    folder: TempDir,
    manifest: Value,
}

impl Place {
    fn new() -> Place {
        let folder = emoji::own_artifacts();
        let text = fs::read_to_string(folder.path().join("manifest.yaml")).expect("a manifest");
        Place { folder, manifest: parse_yaml(&text).expect("YAML") }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes `manifest`, as JSON, which is YAML too.
    fn write_manifest(&self, manifest: &Value) {
        fs::write(self.file("manifest.yaml"), manifest.to_string()).expect("written");
    }

    /// Writes a file of the export, and its size and hash into the manifest.
    fn write(&mut self, name: &str, bytes: &[u8]) {
        fs::write(self.file(name), bytes).expect("written");
        self.manifest["files"][name] =
            json!({ "bytes": bytes.len(), "sha256": hex(&Sha256::digest(bytes)) });
        self.write_manifest(&self.manifest);
    }
}

fn refusal<T>(case: &str, result: Result<T, Error>) -> String {
    match result {
        Ok(_) => panic!("{case}: taken"),
        Err(error) => error_chain(&error),
    }
}

#[test]
fn no_number_of_a_manifest_is_taken_on_trust() {
    let place = Place::new();
    let counts = [
        "cache_at_branch",
        "model/transformer/num_layers",
        "model/transformer/hidden_size",
        "model/transformer/num_attention_heads",
        "model/transformer/attention_head_dim",
        "model/transformer/patch_size",
        "model/transformer/in_channels",
        "model/transformer/sample_size",
        "model/transformer/text_len",
        "model/transformer/text_len_t5",
        "model/transformer/cross_attention_dim",
        "model/transformer/cross_attention_dim_t5",
        "model/transformer/pooled_projection_dim",
        "model/text_encoder/vocab_size",
        "model/text_encoder/hidden_size",
        "model/text_encoder/max_position_embeddings",
        "model/text_encoder_2/vocab_size",
        "model/text_encoder_2/d_model",
        "model/text_encoder_2/relative_attention_num_buckets",
        "model/vae/latent_channels",
        "model/vae/norm_num_groups",
        "model/vae/layers_per_block",
        "model/vae/out_channels",
        "model/scheduler/num_train_timesteps",
        "variant/defaults/infer_steps",
        "variant/defaults/image_size/0",
        "variant/sizes/0/1",
        "tokenizers/text_encoder/length",
        "tokenizers/text_encoder_2/length",
        "graphs/0/inputs/0/shape/0",
        "graphs/3/outputs/0/shape/2",
        "graphs/6/outputs/0/shape/1",
    ];
    let mut cases = 0;
    for pointer in counts {
        for value in not_a_count() {
            let mut manifest = place.manifest.clone();
            *manifest.pointer_mut(&format!("/{pointer}")).expect(pointer) = value.clone();
            place.write_manifest(&manifest);
            let case = format!("{pointer} = {value}");
            let error = refusal(&case, Artifacts::open(place.folder.path()));
            check_message(&case, &error, &["manifest.yaml"]);
            cases += 1;
        }
    }
    assert_eq!(cases, 320);
}

#[test]
fn a_field_of_a_manifest_that_is_out_of_range_is_named() {
    let place = Place::new();
    let big = "9223372036854775808*2";
    let cases: Vec<(&str, Value, &str)> = vec![
        ("schema", json!(0), "schema 0, expected 1"),
        ("model/transformer/patch_size", json!(0), "model.transformer: `patch_size` is 0"),
        ("model/text_encoder/vocab_size", json!(0), "model.text_encoder: `vocab_size` is 0"),
        ("model/scheduler/beta_start", json!(0), "model.scheduler: `beta_start` is 0"),
        ("model/scheduler/beta_end", json!(7), "`beta_end` is 7"),
        ("model/scheduler/steps_offset", json!(5000), "`steps_offset` is 5000"),
        ("model/scheduler/steps_offset", json!(999), "`defaults.infer_steps` is 50"),
        ("model/vae/scaling_factor", json!(0), "`scaling_factor` is 0"),
        ("model/vae/scaling_factor", json!(1e300), "floating point"),
        ("model/vae/block_out_channels", json!([]), "levels"),
        ("model/vae/latent_channels", json!(8), "configs disagree"),
        ("model/text_encoder/hidden_size", json!(32), "configs disagree"),
        ("cache_at_branch", json!(0), "`cache_at_branch` is 0; expected 1 to 5"),
        ("cache_at_branch", json!(6), "`cache_at_branch` is 6; expected 1 to 5"),
        ("cache_at_branch", json!(2), "of the graph"),
        ("precision", json!("fp16"), "of the graph"),
        ("precision", json!("fp4"), "fp4"),
        ("form", json!("abacus"), "abacus"),
        ("variant/defaults/sampler", json!("euler"), "`defaults.sampler` is euler"),
        ("variant/defaults/cfg_scale", json!(-1), "`defaults.cfg_scale`"),
        ("variant/name", json!(""), "`name`"),
        ("variant/name", json!("a\nb"), "`name`"),
        ("tokenizers/text_encoder/length", json!(5), "`tokenizers.text_encoder.length` is 5"),
        ("tokenizers/text_encoder/pad_id", json!(2200), "`tokenizers.text_encoder.pad_id` is 2200"),
        ("tokenizers/text_encoder/file", json!("../x"), "`../x`"),
        ("tokenizers/text_encoder_2/file", json!("none.json"), "`none.json`"),
        ("graphs", json!([]), "`text-encoder` is missing"),
        ("graphs/0/name", json!("text-encoder-2"), "`text-encoder` is missing"),
        ("graphs/0/name", json!("a\nb"), "`text-encoder` is missing"),
        ("graphs/0/file", json!("/etc/passwd"), "`/etc/passwd`"),
        ("graphs/0/data", json!("manifest.yaml"), "`manifest.yaml`"),
        ("graphs/0/inputs", json!([]), "`inputs[0] of the graph text-encoder` is missing"),
        ("graphs/0/outputs", json!([]), "`outputs[0] of the graph text-encoder` is missing"),
        ("graphs/0/inputs/0/name", json!("ids"), "`inputs[0] of the graph text-encoder`"),
        ("graphs/0/inputs/0/dtype", json!("f32"), "`inputs[0] of the graph text-encoder`"),
        ("graphs/0/inputs/0/shape", json!([]), "`inputs[0] of the graph text-encoder`"),
        ("graphs/3/outputs/0/name", json!("temb"), "`outputs[0] of the graph shallow-encoder`"),
        ("graphs/3/inputs/0/shape/0", json!(1u64 << 40), "`inputs[0] of the graph"),
        ("graphs/3/inputs/0/shape/0", json!(big), "it is too large"),
        ("graphs/3/inputs/0/shape/0", json!("depth"), "`depth`"),
        ("graphs/0/flops", json!([big]), "it is too large"),
        ("graphs/0/flops", json!(["batch*".repeat(999) + "2"]), "it is too large"),
        ("graphs/0/flops", json!(-1), "manifest.yaml"),
        ("graphs/0/parameters", json!(-1), "manifest.yaml"),
        ("files", json!({}), "is not listed"),
        ("files/deep-core.onnx/bytes", json!(u64::MAX), "`files.deep-core.onnx.bytes`"),
        ("files/deep-core.onnx/bytes", json!(1u64 << 62), "`files.deep-core.onnx.bytes`"),
        ("files/deep-core.onnx/sha256", json!(""), "`files.deep-core.onnx.sha256`"),
        ("files/deep-core.onnx/sha256", json!("z".repeat(64)), "64 hexadecimal digits"),
    ];
    for (pointer, value, part) in cases {
        let mut manifest = place.manifest.clone();
        *manifest.pointer_mut(&format!("/{pointer}")).expect(pointer) = value.clone();
        place.write_manifest(&manifest);
        let case = format!("{pointer} = {value:.60}");
        let error = refusal(&case, Artifacts::open(place.folder.path()));
        check_message(&case, &error, &["manifest.yaml", part]);
    }
    // Costs beyond all numbers are only shown.
    let mut manifest = place.manifest.clone();
    manifest["graphs"][4]["flops"] = json!(["9223372036854775807*batch", "9223372036854775807"]);
    place.write_manifest(&manifest);
    let artifacts = Artifacts::open(place.folder.path()).expect("a manifest");
    let request = Request::new(&artifacts.manifest, "a cat").expect("a request");
    let costs = hydit::pipeline::cost::StepCosts::of(&artifacts.manifest, &request);
    assert!(costs.full > 1e19 && costs.full.is_finite());
}

#[test]
fn what_is_no_manifest_is_refused_by_name() {
    let place = Place::new();
    let path = place.file("manifest.yaml");
    let good = fs::read(&path).expect("a manifest");
    for (case, bytes) in not_the_file(good.trim_ascii_end()) {
        fs::write(&path, bytes).expect("written");
        let error = refusal(case, Artifacts::open(place.folder.path()));
        check_message(case, &error, &["manifest.yaml"]);
    }
}

#[test]
fn only_regular_files_are_read_of_an_artifact_folder() {
    let place = Place::new();
    let backend = emoji::backend(BackendChoice::Tract);
    let names =
        ["manifest.yaml", "tokenizer.json", "tokenizer_2.json", "deep-core.onnx", "LICENSE"];
    for name in names {
        let (path, kept) = (place.file(name), place.file("kept"));
        fs::rename(&path, &kept).expect("moved");
        let make: [(&str, &dyn Fn()); 4] = [
            ("a named pipe", &|| {
                let made = std::process::Command::new("mkfifo").arg(&path).status();
                assert!(made.expect("it runs").success());
            }),
            ("a socket", &|| drop(UnixListener::bind(&path).expect("a socket"))),
            ("a folder", &|| fs::create_dir(&path).expect("a folder")),
            ("a link", &|| symlink("/dev/zero", &path).expect("a link")),
        ];
        for (what, make) in make {
            make();
            let loaded = Artifacts::open(place.folder.path())
                .and_then(|artifacts| Pipeline::open(artifacts, backend.clone()).map(drop));
            let case = format!("{name} is {what}");
            let expected =
                if name == "manifest.yaml" && what == "a link" { "a device" } else { what };
            check_message(&case, &refusal(&case, loaded), &[name, expected]);
            fs::remove_file(&path).or_else(|_| fs::remove_dir(&path)).expect("removed");
        }
        fs::rename(&kept, &path).expect("moved back");
    }
}

#[test]
fn weights_on_another_disk_by_links_are_refused_with_the_way_out() {
    let (place, other) = (Place::new(), tempfile::tempdir().expect("a folder"));
    for name in ["deep-core.onnx.data", "vae-decoder.onnx.data"] {
        let elsewhere = other.path().join(name);
        fs::rename(place.file(name), &elsewhere).expect("moved");
        symlink(&elsewhere, place.file(name)).expect("a link");
    }
    for engine in [BackendChoice::Ort, BackendChoice::Tract] {
        let loaded = Pipeline::load(place.folder.path(), emoji::backend(engine));
        let error = refusal("links", loaded);
        let parts = ["deep-core.onnx.data: a link", "or link the folder as a whole"];
        check_message("links", &error, &parts);
    }
    // A link to the folder is fine.
    let whole = other.path().join("model");
    symlink(emoji::artifacts(), &whole).expect("a link");
    emoji::pipeline(&whole, BackendChoice::Tract);
}

/// A forgery of an ONNX file.
type Forge<'a> = (&'a str, Box<dyn Fn(&mut Vec<Field>)>);

/// Forgeries of the `GraphProto` of a graph.
fn forgeries() -> Vec<Forge<'static>> {
    const NODE: u32 = 1;
    const INITIALIZER: u32 = 5;
    const INPUT: u32 = 11;
    const OUTPUT: u32 = 12;
    let without = |number: u32| move |fields: &mut Vec<Field>| fields.retain(|(n, _)| *n != number);
    let twice = |number: u32| {
        move |fields: &mut Vec<Field>| {
            let first = fields.iter().find(|(n, _)| *n == number).cloned();
            fields.extend(first);
        }
    };
    let renamed = |number: u32| {
        move |fields: &mut Vec<Field>| {
            let value = fields.iter_mut().find(|(n, _)| *n == number);
            let Some((_, Proto::Bytes(info))) = value else { panic!("no field {number}") };
            let mut inner = protobuf::read(info);
            inner.iter_mut().find(|(n, _)| *n == 1).expect("a name").1 =
                Proto::Bytes(b"other".to_vec());
            *info = protobuf::write(&inner);
        }
    };
    let retyped = |number: u32| {
        // ValueInfoProto.type (2) . tensor_type (1) . elem_type (1)
        move |fields: &mut Vec<Field>| {
            let value = fields.iter_mut().find(|(n, _)| *n == number);
            let Some((_, Proto::Bytes(info))) = value else { panic!("no field {number}") };
            *info = protobuf::edit(info, 2, |kind| {
                for (_, value) in kind.iter_mut() {
                    if let Proto::Bytes(tensor) = value {
                        let mut tensor_fields = protobuf::read(tensor);
                        tensor_fields[0].1 = Proto::Number(11); // f64
                        *tensor = protobuf::write(&tensor_fields);
                    }
                }
            });
        }
    };
    vec![
        ("no nodes", Box::new(without(NODE))),
        ("no weights", Box::new(without(INITIALIZER))),
        ("no inputs", Box::new(without(INPUT))),
        ("no outputs", Box::new(without(OUTPUT))),
        ("an output twice", Box::new(twice(OUTPUT))),
        ("another input", Box::new(renamed(INPUT))),
        ("another output", Box::new(renamed(OUTPUT))),
        ("an input of f64", Box::new(retyped(INPUT))),
        ("an output of f64", Box::new(retyped(OUTPUT))),
    ]
}

/// Changes where the external data of all weights lie.
fn relocated(onnx: &[u8], key: &'static str, value: &'static str) -> Vec<u8> {
    protobuf::edit(onnx, 7, |graph| {
        for (number, initializer) in graph.iter_mut() {
            if let (5, Proto::Bytes(bytes)) = (*number, initializer) {
                *bytes = protobuf::edit(bytes, 13, |entry| {
                    if entry[0].1 == Proto::Bytes(key.as_bytes().to_vec()) {
                        entry[1].1 = Proto::Bytes(value.as_bytes().to_vec());
                    }
                });
            }
        }
    })
}

#[test]
fn forged_graphs_with_the_right_hash_are_refused_by_name() {
    let mut place = Place::new();
    let secret = tempfile::tempdir().expect("a folder");
    let graph = "conditioner";
    let name = format!("{graph}.onnx");
    let good = fs::read(place.file(&name)).expect("a graph");
    let data = fs::read(place.file(&format!("{name}.data"))).expect("weights");
    fs::write(secret.path().join("data"), &data).expect("written");
    symlink(secret.path().join("data"), place.file("link")).expect("a link");

    let mut cases = not_the_file(&good);
    for (case, forge) in forgeries() {
        cases.push((case, protobuf::edit(&good, 7, |fields| forge(fields))));
    }
    cases.extend([
        ("weights above", relocated(&good, "location", "../data")),
        ("weights far away", relocated(&good, "location", "/etc/passwd")),
        ("weights that are gone", relocated(&good, "location", "none")),
        ("weights behind a link", relocated(&good, "location", "link")),
        ("weights beyond the end", relocated(&good, "offset", "99999999999")),
        ("weights before the start", relocated(&good, "offset", "-1")),
        ("an offset beyond numbers", relocated(&good, "offset", "99999999999999999999999999")),
        ("an offset of letters", relocated(&good, "offset", "abc")),
        ("more weights than there are", relocated(&good, "length", "9999999999")),
    ]);
    let backends = [BackendChoice::Ort, BackendChoice::Tract].map(emoji::backend);
    let mut taken = Vec::new();
    for (case, bytes) in &cases {
        place.write(&name, bytes);
        let artifacts = Artifacts::open(place.folder.path()).expect("a manifest");
        artifacts.check_code().expect("the hashes are right");
        for (backend, engine) in backends.iter().zip(["ort", "tract"]) {
            match artifacts.load(graph, backend) {
                Ok(_) => taken.push(format!("{case} by {engine}")),
                Err(error) => {
                    check_message(case, &error_chain(&error), &[&name]);
                }
            }
        }
    }
    assert!(taken.is_empty(), "{taken:?}");
}

/// Ends a thread that looks at it.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Loads on each engine while links come and go, unless `SOAK_RACES` says.
const RACES: usize = 1000;

#[test]
fn no_weights_are_read_through_a_link_that_is_there_for_a_moment() {
    let races = std::env::var("SOAK_RACES").map_or(RACES, |races| races.parse().expect("a number"));
    // A core of one matrix, which loads in no time.
    let mut place = Place::new();
    let artifacts = Artifacts::open(place.folder.path()).expect("a manifest");
    let width = artifacts.manifest.model.transformer.hidden_size;
    let graph = Graph::new("deep-core", Precision::Fp32);
    let inputs = artifacts.entry("deep-core").expect("an entry").inputs.iter();
    let inputs: Vec<_> =
        inputs.map(|spec| graph.input(&spec.name, spec.dtype, &spec.shape)).collect();
    let numbers: Vec<f32> = (0..width * width).map(|i| (i as f32).sin()).collect();
    graph.output("deep", inputs[0].matmul(graph.floats("weights", &[width; 2], &numbers)));
    let core = graph.finish();
    let weights: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
    place.write(&core.file(), &core.encode());
    place.write(&core.data_file(), &weights);

    let graph = "deep-core";
    let artifacts = Artifacts::open(place.folder.path()).expect("a manifest");
    let elsewhere = tempfile::tempdir().expect("a folder");
    let theirs = elsewhere.path().join("weights");
    fs::write(&theirs, vec![0; weights.len()]).expect("written");
    let [data, away] = ["deep-core.onnx.data", "away"].map(|name| place.file(name));
    for engine in [BackendChoice::Ort, BackendChoice::Tract] {
        let backend = emoji::backend(engine);
        let entry = artifacts.entry(graph).expect("an entry");
        let run = |mut session: Session| {
            let mut tensors =
                Tensors::random(&artifacts.manifest, entry, &backend).expect("inputs");
            tensors.run(&mut session).expect("a run")
        };
        let load = || artifacts.load(graph, &backend);
        let expected = run(load().expect("a graph"));
        let (tried, done) = (AtomicUsize::new(0), AtomicBool::new(false));
        let (mut good, mut refused) = (0, 0);
        // However this ends, the other thread must.
        let stop = Stop(&done);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut swaps = 0;
                while !done.load(Ordering::Relaxed) {
                    // Two swaps for three loads: some are disturbed, and some are not.
                    while swaps > tried.load(Ordering::Relaxed) * 2 / 3
                        && !done.load(Ordering::Relaxed)
                    {
                        std::thread::yield_now();
                    }
                    fs::rename(&data, &away).expect("moved away");
                    symlink(&theirs, &data).expect("a link");
                    (0..swaps % 64).for_each(|_| std::thread::yield_now());
                    fs::rename(&away, &data).expect("moved back");
                    swaps += 1;
                }
            });
            while tried.load(Ordering::Relaxed) < races {
                tried.fetch_add(1, Ordering::Relaxed);
                match load() {
                    Ok(session) => {
                        good += 1;
                        let error = expected.error(&run(session));
                        assert!(error < 1e-6, "other weights were read: {error}");
                    }
                    Err(Error::Artifact { .. } | Error::Read { .. }) => refused += 1,
                    Err(error) => {
                        // The engine found no file.
                        assert!(error_chain(&error).contains("deep-core.onnx"), "{error}");
                        refused += 1;
                    }
                }
            }
            drop(stop);
        });
        println!(
            "{engine}: {races} loads while links come and go: {good} as they should be, {refused} refused"
        );
        assert!(good > 0 && refused > 0, "{good} loaded, {refused} refused");
    }
}

#[test]
fn schedules_and_calibrations_that_do_not_fit_are_refused_by_name() {
    let place = Place::new();
    let artifacts = Artifacts::open(place.folder.path()).expect("a manifest");
    let request = Request { steps: 10, ..emoji::cat(&artifacts.manifest, 10) };
    let good = json!({
        "sampler": request.sampler, "spacing": request.spacing, "steps": 10,
        "made_with": {}, "schedules": [{
            "refresh": [0, 3, 6], "forecast": { "7": [0.5, 0.5] },
            "measured": { "psnr": 40.0, "psnr_p10": 39.0, "ssim": 0.9, "latent_error": 0.1 }
        }]
    });
    let mut cases: Vec<(String, Vec<u8>)> = not_the_file(good.to_string().as_bytes())
        .into_iter()
        .map(|(case, bytes)| (case.to_string(), bytes))
        .collect();
    for (pointer, value) in [
        ("/steps", json!(9)),
        ("/steps", json!(u64::MAX)),
        ("/steps", json!(-1)),
        ("/sampler", json!("euler")),
        ("/sampler", json!("dpmms")),
        ("/spacing", json!("trailing")),
        ("/manifest_sha256", json!("00")),
        ("/guidance_scale", json!("much")),
        ("/schedules", json!([])),
        ("/schedules", json!({})),
        ("/schedules/0/refresh", json!([])),
        ("/schedules/0/refresh", json!([1, 2])),
        ("/schedules/0/refresh", json!([0, 3, 3])),
        ("/schedules/0/refresh", json!([0, 6, 3])),
        ("/schedules/0/refresh", json!([0, 10])),
        ("/schedules/0/refresh", json!([0, u64::MAX])),
        ("/schedules/0/refresh", json!([0, -1])),
        ("/schedules/0/forecast", json!({ "3": [0.5, 0.5] })),
        ("/schedules/0/forecast", json!({ "11": [1.0] })),
        ("/schedules/0/forecast", json!({ "7": [] })),
        ("/schedules/0/forecast", json!({ "7": [9.0, 9.0] })),
        ("/schedules/0/forecast", json!({ "7": [0.25, 0.25, 0.25, 0.25] })),
        ("/schedules/0/forecast", json!({ "1": [0.5, 0.5] })),
        ("/schedules/0/forecast", json!({ "7": [1e300, -1e300] })),
        ("/schedules/0/measured", json!({ "psnr": 1.0 })),
        ("/colour", json!(1)),
    ] {
        let mut forged = good.clone();
        match forged.pointer_mut(pointer) {
            Some(field) => *field = value.clone(),
            None => forged[&pointer[1..]] = value.clone(),
        }
        cases.push((format!("{pointer} = {value}"), forged.to_string().into_bytes()));
    }
    let calibration = format!("calibration-{}-{}-10.yaml", request.sampler, request.spacing);
    for name in ["schedule.yaml", &calibration] {
        let path = place.file(name);
        let policy = if name == "schedule.yaml" {
            format!("schedule:{}", path.display())
        } else {
            "auto:3runs".to_string()
        };
        let policy: CachePolicy = policy.parse().expect("a policy");
        let request = Request { cache_policy: policy, ..request.clone() };
        for (case, bytes) in &cases {
            fs::write(&path, bytes).expect("written");
            let error = refusal(case, request.check(&artifacts));
            check_message(case, &error, &["cache policy "]);
        }
        fs::write(&path, good.to_string()).expect("written");
        request.check(&artifacts).expect("the schedule itself is good");
        fs::remove_file(&path).expect("removed");
        symlink("/dev/zero", &path).expect("a link");
        let error = refusal("a device", request.check(&artifacts));
        check_message("a device", &error, &["a device; expected a regular file"]);
    }
}

/// A chunk of a PNG.
fn chunk(kind: &[u8; 4], data: &[u8]) -> Vec<u8> {
    let mut body = kind.to_vec();
    body.extend(data);
    let step = |crc: u32, _| if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 };
    let crc = !body.iter().fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), step));
    [&(data.len() as u32).to_be_bytes()[..], &body, &crc.to_be_bytes()].concat()
}

/// A PNG of one pixel with some chunks before it.
fn png_with(chunks: &[Vec<u8>]) -> Vec<u8> {
    let header = chunk(b"IHDR", &[0, 0, 0, 1, 0, 0, 0, 1, 8, 2, 0, 0, 0]);
    let pixels = chunk(b"IDAT", &zlib(&[0, 0, 0, 0]));
    let parts =
        [b"\x89PNG\r\n\x1a\n".to_vec(), header, chunks.concat(), pixels, chunk(b"IEND", b"")];
    parts.concat()
}

/// A zlib stream of one stored block.
fn zlib(data: &[u8]) -> Vec<u8> {
    let (a, b) = data.iter().fold((1u32, 0u32), |(a, b), byte| {
        let a = (a + u32::from(*byte)) % 65521;
        (a, (b + a) % 65521)
    });
    let length = data.len() as u16;
    let block = [&[0x78, 1, 1][..], &length.to_le_bytes(), &(!length).to_le_bytes(), data].concat();
    [&block[..], &(b << 16 | a).to_be_bytes()].concat()
}

#[test]
fn texts_of_a_png_are_unpacked_within_bounds() {
    let packed = |texts: &[(&str, usize)]| {
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, 1, 1);
        for (key, length) in texts {
            encoder.add_ztxt_chunk(key.to_string(), " ".repeat(*length)).expect("a text");
        }
        let mut writer = encoder.write_header().expect("a header");
        writer.write_image_data(&[0]).expect("data");
        writer.finish().expect("an end");
        bytes
    };
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("a.png");
    fs::write(&path, packed(&[("much", 4 << 20)])).expect("written");
    assert_eq!(read_texts(&path).expect("as much as there is room for")[0].1.len(), 4 << 20);
    fs::write(&path, packed(&[("bomb", (4 << 20) + 1)])).expect("written");
    for error in [read_texts(&path).map(drop), read_png(&path).map(drop)] {
        let error = error_chain(&error.expect_err("a refusal"));
        let parts = ["a.png: ", "the text \"bomb\"", "4194304 bytes or less"];
        check_message("a bomb", &error, &parts);
    }
    // Many that are small enough each.
    let parts = ["a", "b", "c", "d", "e", "f", "g", "h", "ninth"].map(|key| (key, 1 << 19));
    let error = error_chain(&decode_png(&packed(&parts)).expect_err("a refusal"));
    check_message("parts", &error, &["the text \"ninth\""]);
}

#[test]
fn forged_pngs_are_refused_by_name() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("a.png");
    let text = |json: &str| chunk(b"tEXt", format!("hydit\0{json}").as_bytes());
    let artifacts = Artifacts::open(&emoji::artifacts()).expect("a manifest");
    let good = emoji::cat(&artifacts.manifest, 4).parameters(&artifacts, 0, &[]);
    let good = serde_json::to_value(good).expect("JSON");
    let with = |field: &str, value: Value| {
        let mut forged = good.clone();
        forged[field] = value;
        png_with(&[text(&forged.to_string())])
    };
    let mut cases: Vec<(String, Vec<u8>)> =
        not_the_file(&png_with(&[text(&good.to_string())])[..60])
            .into_iter()
            .map(|(case, bytes)| (case.to_string(), bytes))
            .collect();
    for field in ["prompt", "width", "height", "steps", "sampler", "spacing", "seed"] {
        for value in [json!(-1), json!([]), json!(null), json!({ "a": 1 }), json!(1e300)] {
            cases.push((format!("{field} = {value}"), with(field, value.clone())));
        }
    }
    for (case, value) in [
        ("no policy", json!("")),
        ("a policy of others", json!("turbo")),
        ("a policy beyond numbers", json!("N99999999999")),
        ("a probe of nothing", json!("probe:NaN")),
        ("a file of no name", json!("schedule:")),
    ] {
        cases.push((case.to_string(), with("cache_policy", value)));
    }
    let header = |data: &[u8]| {
        let parts = [b"\x89PNG\r\n\x1a\n".to_vec(), chunk(b"IHDR", data), chunk(b"IEND", b"")];
        parts.concat()
    };
    cases.extend([
        ("no text".to_string(), png_with(&[])),
        ("no JSON".to_string(), png_with(&[text("{")])),
        ("deep JSON".to_string(), png_with(&[text(&"[".repeat(100_000))])),
        ("a packed text that is none".to_string(), png_with(&[chunk(b"zTXt", b"hydit\0\0xyz")])),
        ("a text without an end".to_string(), png_with(&[chunk(b"iTXt", b"hydit")])),
        ("no pixels".to_string(), header(&[0, 0, 0, 0, 0, 0, 0, 0, 8, 2, 0, 0, 0])),
        (
            "vast".to_string(),
            header(&[0x7F, 0xFF, 0xFF, 0xFF, 0x7F, 0xFF, 0xFF, 0xFF, 8, 2, 0, 0, 0]),
        ),
        ("a depth of 77".to_string(), header(&[0, 0, 0, 1, 0, 0, 0, 1, 77, 2, 0, 0, 0])),
        ("a chunk of 4 GiB".to_string(), {
            let mut bytes = png_with(&[]);
            bytes[33..37].fill(0xFF);
            bytes
        }),
    ]);
    for (case, bytes) in cases {
        fs::write(&path, &bytes).expect("written");
        let read = read_texts(&path).and_then(|texts| Parameters::from_texts(&texts));
        let error = error_chain(&read.expect_err(&case));
        check_message(&case, &error, &[]);
    }
    fs::write(&path, png_with(&[text(&good.to_string())])).expect("written");
    Parameters::from_texts(&read_texts(&path).expect("texts")).expect("the PNG itself is good");
    for what in ["/dev/zero", "/proc"] {
        let error = error_chain(&read_texts(Path::new(what)).expect_err(what));
        check_message(what, &error, &[what, "expected a regular file"]);
    }
}
