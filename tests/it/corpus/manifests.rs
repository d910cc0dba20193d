//! Forged manifests, and folders that hold something else.

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;

use hydit::artifacts::Artifacts;
use hydit::runtime::BackendChoice;
use hydit::{Pipeline, Request};
use hydit_testing::emoji;
use hydit_testing::hostile::{check_message, not_a_count, not_the_file};
use serde_json::{Value, json};

use super::{Place, refusal};

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
        ("variant/defaults/sampler", json!("heun"), "`defaults.sampler` is heun"),
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
