//! Checkpoints as people have them: what became of each kind, and of its siblings.

use std::collections::BTreeMap;
use std::fs;

use hydit_export::export;
use safetensors::Dtype;
use serde_json::{Value, json};

use crate::checkpoint::{Place, Tensors, Told, files, message, read_tensors, write_tensors};

const DIT: &str = "transformer/diffusion_pytorch_model.safetensors";
const BERT: &str = "text_encoder/model.safetensors";
const T5: &str = "text_encoder_2/model.safetensors";
const VAE: &str = "vae/diffusion_pytorch_model.safetensors";
const SCHEDULER: &str = "scheduler/scheduler_config.json";
const POINTER: &str =
    "version https://git-lfs.github.com/spec/v1\noid sha256:2f7b0adf\nsize 14544096\n";

/// A name, what is done to a checkpoint, and what is told, if it is refused.
type Case = (&'static str, Box<dyn Fn(&Place)>, &'static [&'static str]);

fn case(name: &'static str, change: impl Fn(&Place) + 'static) -> Case {
    (name, Box::new(change), &[])
}

fn refused(
    name: &'static str,
    change: impl Fn(&Place) + 'static,
    told: &'static [&'static str],
) -> Case {
    (name, Box::new(change), told)
}

fn rename(place: &Place, file: &str, to: impl Fn(&str) -> String) {
    place.edit_tensors(file, |tensors| {
        let renamed = std::mem::take(tensors).into_iter().map(|(name, t)| (to(&name), t));
        tensors.extend(renamed);
    });
}

fn moved(place: &Place, from: &str, to: &str) {
    fs::rename(place.file(from), place.file(to)).expect("renamed");
}

/// Parts the weights in `file` into two shards `name` (with `{}` for the number) with an `index`.
fn shard(place: &Place, file: &str, name: &str, index: &str) {
    let path = place.file(file);
    let folder = path.parent().expect("a folder").to_path_buf();
    let tensors = read_tensors(&path);
    let mut map = BTreeMap::new();
    for part in 0..2 {
        let shard = name.replace("{}", &format!("{:05}-of-00002", part + 1));
        let half = tensors.iter().enumerate().filter(|(i, _)| i % 2 == part);
        let half: Tensors =
            half.map(|(_, (name, tensor))| (name.clone(), tensor.clone())).collect();
        map.extend(half.keys().map(|name| (name.clone(), shard.clone())));
        write_tensors(&folder.join(shard), &half);
    }
    let json = json!({ "metadata": {}, "weight_map": map });
    fs::write(folder.join(index), json.to_string()).expect("written");
    fs::remove_file(path).expect("removed");
}

fn set(place: &Place, file: &str, key: &str, value: Value) {
    place.edit_json(file, |json| json[key] = value);
}

/// Replaces a piece of a file's text.
fn edit(place: &Place, file: &str, from: &str, to: &str) {
    let text = fs::read_to_string(place.file(file)).expect("text");
    assert!(text.contains(from), "{file}");
    fs::write(place.file(file), text.replacen(from, to, 1)).expect("written");
}

fn fused(place: &Place, attention: &str, parts: &[&str], into: &str) {
    let (attention, into) = (format!(".{attention}."), into.to_string());
    let parts: Vec<String> = parts.iter().map(|part| format!("to_{part}")).collect();
    place.edit_tensors(DIT, |tensors| {
        let first = format!("{attention}{}.", parts[0]);
        let names: Vec<String> = tensors.keys().filter(|n| n.contains(&first)).cloned().collect();
        for name in names {
            let mut joined = (Dtype::F32, vec![0], Vec::new());
            for part in &parts {
                let (dtype, shape, bytes) =
                    tensors.remove(&name.replace(&parts[0], part)).expect("a tensor");
                let rows = joined.1[0] + shape[0];
                (joined.0, joined.1) = (dtype, shape);
                joined.1[0] = rows;
                joined.2.extend(bytes);
            }
            tensors.insert(name.replace(&parts[0], &into), joined);
        }
    });
}

fn spare(place: &Place, file: &str, names: &[&str]) {
    place.edit_tensors(file, |tensors| {
        let any = tensors.values().next().expect("a tensor").clone();
        tensors.extend(names.iter().map(|name| (name.to_string(), any.clone())));
    });
}

fn dpm(infinity: &str) -> String {
    format!(
        r#"{{"_class_name": "DPMSolverMultistepScheduler", "_diffusers_version": "0.42.1",
        "algorithm_type": "dpmsolver++", "beta_end": 0.018, "beta_schedule": "scaled_linear",
        "beta_start": 0.00085, "clip_sample": false, "clip_sample_range": 1.0,
        "dynamic_thresholding_ratio": 0.995, "euler_at_final": false, "final_sigmas_type": "zero",
        "flow_shift": 1.0, "lambda_min_clipped": {infinity}, "lower_order_final": true,
        "num_train_timesteps": 1000, "prediction_type": "v_prediction",
        "rescale_betas_zero_snr": false, "sample_max_value": 1.0, "solver_order": 2,
        "solver_type": "midpoint", "steps_offset": 1, "thresholding": false,
        "time_shift_type": "exponential", "timestep_spacing": "leading", "trained_betas": null,
        "use_beta_sigmas": false, "use_dynamic_shifting": false, "use_exponential_sigmas": false,
        "use_flow_sigmas": false, "use_karras_sigmas": false, "use_lu_lambdas": false,
        "variance_type": null}}"#
    )
}

fn names_of_files() -> Vec<Case> {
    vec![
        case("fp16 names only", |p| {
            moved(p, DIT, "transformer/diffusion_pytorch_model.fp16.safetensors");
            moved(p, VAE, "vae/diffusion_pytorch_model.fp16.safetensors");
        }),
        case("shards, index of a variant as transformers writes it", |p| {
            shard(p, T5, "model.fp16-{}.safetensors", "model.safetensors.index.fp16.json");
        }),
        case("the same for diffusers", |p| {
            let name = "diffusion_pytorch_model.fp16-{}.safetensors";
            shard(p, DIT, name, "diffusion_pytorch_model.safetensors.index.fp16.json");
        }),
        case("the variant before index", |p| {
            shard(p, DIT, "m-{}.fp16.safetensors", "m.safetensors.fp16.index.json");
        }),
        case("the variant before safetensors", |p| {
            shard(p, DIT, "m.bf16-{}.safetensors", "m.bf16.safetensors.index.json");
        }),
        case("plain shards", |p| {
            shard(p, BERT, "model-{}.safetensors", "model.safetensors.index.json");
        }),
        case("a leftover of a variant beside it", |p| {
            fs::write(
                p.file("transformer/diffusion_pytorch_model.fp16.safetensors"),
                "half a file",
            )
            .expect("written");
        }),
        case("a download under way beside it", |p| {
            fs::write(p.file("transformer/x.safetensors.incomplete"), "half").expect("written");
        }),
        case("optimizer states beside it", |p| {
            fs::write(p.file("transformer/optimizer.bin"), "PK").expect("written");
        }),
        refused(
            "two variants and none without",
            |p| {
                fs::copy(p.file(VAE), p.file("vae/d.bf16.safetensors")).expect("copied");
                moved(p, VAE, "vae/d.fp16.safetensors");
            },
            &["vae: it has several variants", "--weights-variant bf16|fp16"],
        ),
        refused(
            "shards without their index",
            |p| {
                shard(p, T5, "model-{}.safetensors", "i.json");
                fs::remove_file(p.file("text_encoder_2/i.json")).expect("removed");
            },
            &["text_encoder_2", "model-0000", "without its index: download that too"],
        ),
        refused(
            "one shard missing",
            |p| {
                shard(p, T5, "model-{}.safetensors", "model.safetensors.index.json");
                fs::remove_file(p.file("text_encoder_2/model-00002-of-00002.safetensors"))
                    .expect("removed");
            },
            &["model-00002-of-00002.safetensors: not found", "download it again"],
        ),
    ]
}

fn pointers() -> Vec<Case> {
    let pointer =
        |file: &'static str| move |p: &Place| fs::write(p.file(file), POINTER).expect("written");
    let mut cases = Vec::new();
    for file in [
        DIT,
        T5,
        VAE,
        "model_index.json",
        "transformer/config.json",
        "tokenizer/vocab.txt",
        "tokenizer_2/tokenizer.json",
        SCHEDULER,
        "LICENSE.txt",
    ] {
        let told: &'static [&'static str] =
            Box::leak(Box::new([file, "a Git LFS pointer", "git lfs pull"]));
        cases.push(refused(file, pointer(file), told));
    }
    cases
}

fn names_of_tensors() -> Vec<Case> {
    let prefixed = |file: &'static str, prefix: &'static str| {
        move |p: &Place| rename(p, file, |name| format!("{prefix}{name}"))
    };
    vec![
        case("BERT with its head", |p| {
            rename(p, BERT, |name| format!("bert.{name}"));
            spare(p, BERT, &["cls.predictions.bias", "cls.seq_relationship.weight"]);
        }),
        case("BERT with a pooler and position ids", |p| {
            spare(p, BERT, &["pooler.dense.weight", "embeddings.position_ids"]);
        }),
        case("BERT in its first years", |p| {
            rename(p, BERT, |name| {
                name.replace("LayerNorm.weight", "LayerNorm.gamma")
                    .replace("LayerNorm.bias", "LayerNorm.beta")
            });
        }),
        case("both at once", |p| {
            rename(p, BERT, |name| {
                format!("bert.{}", name.replace("LayerNorm.weight", "LayerNorm.gamma"))
            });
        }),
        case("a whole mT5", |p| {
            p.edit_tensors(T5, |tensors| {
                let shared = tensors["shared.weight"].clone();
                for name in ["encoder.embed_tokens", "decoder.embed_tokens", "lm_head"] {
                    tensors.insert(format!("{name}.weight"), shared.clone());
                }
            });
            spare(p, T5, &["decoder.block.0.layer.0.SelfAttention.k.weight"]);
        }),
        case("an mT5 that names its embedding once, otherwise", |p| {
            rename(p, T5, |name| name.replace("shared.", "encoder.embed_tokens."));
        }),
        case("an mT5 within another model", prefixed(T5, "text_model.")),
        case("a compiled transformer", prefixed(DIT, "_orig_mod.")),
        case("a transformer of DistributedDataParallel", prefixed(DIT, "module.")),
        case("both", prefixed(DIT, "module._orig_mod.")),
        case("a transformer of a training script", prefixed(DIT, "model.diffusion_model.")),
        case("a compiled image decoder", prefixed(VAE, "_orig_mod.")),
        case("an image decoder with its encoder", |p| {
            spare(p, VAE, &["encoder.conv_in.weight", "quant_conv.weight"]);
        }),
        case("an older image decoder", |p| {
            let pairs = [("to_q", "query"), ("to_k", "key"), ("to_v", "value")];
            rename(p, VAE, |name| {
                let name = name.replace("to_out.0", "proj_attn");
                pairs.iter().fold(name, |name, (new, old)| name.replace(new, old))
            });
        }),
        case("fused projections", |p| {
            fused(p, "attn1", &["q", "k", "v"], "to_qkv");
            fused(p, "attn2", &["k", "v"], "to_kv");
        }),
        refused(
            "a LoRA that is not merged",
            |p| {
                rename(p, DIT, |name| name.replace(".to_q.", ".to_q.base_layer."));
                spare(p, DIT, &["blocks.0.attn1.to_q.lora_A.default.weight"]);
            },
            &["a LoRA is in it that is not merged", "merge_and_unload()", "more (--verbose names"],
        ),
        refused(
            "an adapter around it",
            |p| rename(p, DIT, |name| name.replace(".to_k.", ".to_k.base_layer.")),
            &["an adapter around it"],
        ),
        refused(
            "a ControlNet",
            |p| {
                rename(p, DIT, |name| name.replace("norm_out.", "controlnet_blocks.0."));
            },
            &["it is a ControlNet"],
        ),
        refused(
            "quantized by bitsandbytes",
            |p| rename(p, DIT, |name| name.replace("to_q.weight", "to_q.weight.quant_map")),
            &["quantized by bitsandbytes"],
        ),
        refused(
            "a text encoder of another kind",
            |p| rename(p, BERT, |name| name.replace("encoder.layer.0.", "text_model.layers.0.")),
            &["does not fit its config", "missing: text_encoder: encoder.layer.0."],
        ),
    ]
}

fn configs() -> Vec<Case> {
    vec![
        case("a scheduler with Python's infinity", |p| {
            fs::write(p.file(SCHEDULER), dpm("-Infinity")).expect("written");
        }),
        case("the same as a text", |p| {
            fs::write(p.file(SCHEDULER), dpm("\"-Infinity\"")).expect("written");
        }),
        case("the same as nothing", |p| {
            fs::write(p.file(SCHEDULER), dpm("null")).expect("written");
        }),
        case("Python's constants where nobody reads", |p| {
            edit(p, "vae/config.json", "{", r#"{"eps": NaN, "range": [-Infinity, Infinity],"#);
        }),
        case("keys of other versions", |p| {
            for file in ["transformer", "vae", "text_encoder", "text_encoder_2"] {
                let file = format!("{file}/config.json");
                set(p, &file, "dtype", json!("float16"));
                set(p, &file, "torch_dtype", json!("float16"));
                set(p, &file, "_some_future_key", json!({ "a": [1, 2] }));
                set(p, &file, "quantization_config", Value::Null);
            }
            set(p, "model_index.json", "_class_name", json!("HunyuanDiTPAGPipeline"));
        }),
        case("no model_index.json", |p| {
            fs::remove_file(p.file("model_index.json")).expect("removed");
        }),
        refused(
            "a scheduler that clips",
            |p| fs::write(p.file(SCHEDULER), dpm("-5.1")).expect("written"),
            &["lambda_min_clipped is -5.1, it must be -Infinity"],
        ),
        refused(
            "a text encoder that was not downloaded",
            |p| fs::remove_dir_all(p.file("text_encoder_2")).expect("removed"),
            &["text_encoder_2: not found", "--base DIR"],
        ),
        refused(
            "a config that was not downloaded",
            |p| fs::remove_file(p.file("vae/config.json")).expect("removed"),
            &["vae/config.json: not found", "download it again"],
        ),
        refused(
            "a token without a row",
            |p| edit(p, "tokenizer/vocab.txt", "[PAD]", &format!("[PAD]{}", "\nmore".repeat(256))),
            &["tokenizer/vocab.txt", "256 rows"],
        ),
    ]
}

#[test]
fn checkpoints_as_people_have_them_export_or_are_refused_in_a_line() {
    let plain = Place::new();
    plain.export().expect("an export");
    let expected = files(&plain.out());
    let all = [names_of_files(), pointers(), names_of_tensors(), configs()];
    let cases: Vec<Case> = all.into_iter().flatten().collect();
    assert!(cases.len() > 45, "{}", cases.len());
    for (name, change, refusal) in cases {
        let place = Place::new();
        change(&place);
        let mut told = Told::default();
        match export(&place.options(), &mut told) {
            Ok(_) => {
                assert!(refusal.is_empty(), "{name}: exported");
                assert!(told.unused.is_empty(), "{name}: {:?}", told.unused);
                let found = files(&place.out());
                for (file, bytes) in expected.iter().filter(|(file, _)| file.contains(".onnx")) {
                    assert!(bytes == &found[file], "{name}: {file} differs");
                }
            }
            Err(error) => {
                let message = message(&error);
                assert!(!refusal.is_empty(), "{name}: {message}");
                for part in refusal {
                    assert!(message.contains(part), "{name}: {part} is not in {message}");
                }
                assert!(!place.out().exists(), "{name}: something stays");
            }
        }
    }
}
