//! The files of weights in the folder of a component.
//!
//! Their names are those that diffusers, transformers and Tencent's code write: `STEM.safetensors`,
//! `STEM.VARIANT.safetensors`, shards with an index, of which three spellings with a variant are
//! around, and the same with `.bin` or `.pt`; `pytorch_model_ema.pt` is the variant `ema`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::files::read_text;

/// Variants that Tencent's names have before the ending, most wanted first.
const TENCENT: [&str; 3] = ["ema", "module", "distill"];

/// What Tencent's code has beside the transformer, which is no transformer.
const IP_ADAPTER: &str = "ipa.pt";

/// The files of weights of a component.
pub(crate) struct Found {
    /// One file, or all shards.
    pub files: Vec<PathBuf>,
    /// The variant in their names, such as `fp16`.
    pub variant: Option<String>,
}

/// What the names of files of weights end in.
const ENDINGS: [&str; 5] = ["safetensors", "bin", "pt", "pth", "ckpt"];

/// Whether `path` has the name of a file of weights.
pub(crate) fn is_weights(path: &Path) -> bool {
    let ending = path.extension().and_then(|ending| ending.to_str());
    ending.is_some_and(|ending| ENDINGS.contains(&ending))
}

/// One way to read a component: a file or an index, by its name.
#[derive(Debug)]
struct Candidate {
    name: String,
    variant: Option<String>,
    index: bool,
    safetensors: bool,
}

/// Finds the files of weights in `folder`: those of the variant that was asked for; else those
/// without one; else those of the only variant there is. safetensors come before pickles, and an
/// index before a single file, as in diffusers.
///
/// # Errors
/// There are none, there is a choice to make, or shards are missing.
pub(crate) fn find(folder: &Path, asked: Option<&str>) -> Result<Found> {
    let refused = |hint: String| Error::content(folder)(hint);
    let entries = fs::read_dir(folder).map_err(|_| {
        let hint = "expected a component of a checkpoint, with its weights in it".to_string();
        Error::Missing { path: folder.to_path_buf(), hint }
    })?;
    let names: Vec<String> =
        entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
    let shard = names.iter().find(|name| name.contains("-of-")).cloned();
    let mut all: Vec<Candidate> = names.into_iter().filter_map(candidate).collect();
    all.sort_by_key(|one| (!one.safetensors, !one.index, one.name.clone()));
    let mut variants: Vec<&str> = all.iter().filter_map(|one| one.variant.as_deref()).collect();
    variants.sort_by_key(|name| (TENCENT.iter().position(|known| known == name), *name));
    variants.dedup();
    let plain = all.iter().any(|one| one.variant.is_none());
    let wanted = match (asked, &variants[..]) {
        (Some(asked), _) if variants.contains(&asked) => Some(asked),
        (Some(_), []) | (None, _) if plain => None,
        (None, [only]) => Some(*only),
        (None, [first, ..]) if TENCENT.contains(first) => Some(*first),
        (_, []) => {
            let hint = match shard {
                Some(shard) => format!("{shard} is in it without its index: download that too"),
                None => "expected weights in it: .safetensors, .bin or .pt, or an index of shards"
                    .to_string(),
            };
            return Err(refused(hint));
        }
        (Some(asked), _) => {
            let known = variants.join(", ");
            let message = format!("there is no `{asked}` in {}, but {known}", folder.display());
            return Err(Error::Flag { flag: "weights-variant", message });
        }
        (None, _) => {
            let hint = format!(
                "it has several variants and none without a name: choose one with \
                 --weights-variant {}",
                variants.join("|")
            );
            return Err(refused(hint));
        }
    };
    let variant = wanted.map(str::to_string);
    let one = all.iter().find(|one| one.variant == variant).expect("it was listed");
    let files = match one.index {
        true => indexed(folder, &one.name)?,
        false => vec![folder.join(&one.name)],
    };
    Ok(Found { files, variant })
}

/// What a file is by its name; `None` for a shard and for what is no weights.
fn candidate(name: String) -> Option<Candidate> {
    if name == IP_ADAPTER {
        return None;
    }
    let mut parts: Vec<&str> = name.split('.').collect();
    let ending = parts.iter().rposition(|part| ENDINGS.contains(part))?;
    let safetensors = parts[ending] == "safetensors";
    parts.remove(ending);
    let index = parts.len() > 2 && parts.pop_if(|last| *last == "json").is_some();
    if index {
        let place = parts.iter().rposition(|part| *part == "index")?;
        parts.remove(place);
    } else if ending < parts.len() || parts.iter().any(|part| part.contains("-of-")) {
        return None; // such as `x.safetensors.part`
    }
    let (stem, variant) = parts.split_first()?;
    let others = [
        "optimizer",
        "scheduler",
        "training_args",
        "random_states",
        "flax_model",
        "lora",
        "adapter_model",
        "pytorch_lora_weights",
        "openvino_model",
    ];
    if others.contains(stem) || stem.starts_with('_') || stem.is_empty() {
        return None;
    }
    let numbers = |part: &&str| part.bytes().all(|byte| byte.is_ascii_digit());
    let variant = match variant.iter().filter(|part| !numbers(part)).collect::<Vec<_>>()[..] {
        [] => stem.strip_prefix("pytorch_model_").filter(|rest| TENCENT.contains(rest)),
        [variant] => Some(*variant),
        _ => return None,
    };
    let variant = variant.map(str::to_string);
    Some(Candidate { variant, index, safetensors, name })
}

/// The paths of the shards that the file `index` of `folder` names.
fn indexed(folder: &Path, index: &str) -> Result<Vec<PathBuf>> {
    #[derive(serde::Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let path = folder.join(index);
    let text = read_text(&path, "it was there a moment ago")?;
    let index: Index = serde_json::from_str(&text).map_err(Error::content(&path))?;
    let mut names: Vec<&String> = index.weight_map.values().collect();
    names.sort();
    names.dedup();
    if names.is_empty() {
        return Err(Error::content(path)("weight_map names no shard"));
    }
    let mut shards = Vec::new();
    for name in names {
        if name.contains(['/', '\\'])
            || ![".safetensors", ".bin"].iter().any(|end| name.ends_with(end))
        {
            let message = format!("shard `{name}` is not the name of a file of weights");
            return Err(Error::content(path)(message));
        }
        let shard = folder.join(name);
        if !shard.exists() || shard.is_dir() {
            let hint = format!("{} names this shard: download it again", path.display());
            return Err(Error::Missing { path: shard, hint });
        }
        shards.push(shard);
    }
    Ok(shards)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(names: &[&str], asked: Option<&str>) -> String {
        let folder = tempfile::tempdir().expect("a folder");
        for name in names {
            let index = format!(r#"{{"weight_map": {{"x": "{}"}}}}"#, names[0]);
            let text = if name.ends_with(".json") { index } else { String::new() };
            fs::write(folder.path().join(name), text).expect("written");
        }
        match find(folder.path(), asked) {
            Err(error) => hydit_input::error_chain(&error)
                .replace(&folder.path().display().to_string(), "DIR"),
            Ok(found) => {
                let names = found.files.iter().map(|file| file.file_name().expect("a name"));
                let names: Vec<String> =
                    names.map(|name| name.to_string_lossy().into_owned()).collect();
                format!("{} {}", names.join(" "), found.variant.unwrap_or_default())
            }
        }
    }

    #[test]
    fn names_are_those_that_the_libraries_write() {
        let model = "model.safetensors";
        for (names, asked, expected) in [
            (&[model, "model.fp16.safetensors"][..], None, "model.safetensors "),
            (&[model, "model.fp16.safetensors"], Some("fp16"), "model.fp16.safetensors fp16"),
            (&["model.fp16.safetensors", "config.json"], None, "model.fp16.safetensors fp16"),
            (&[model, "pytorch_model.bin"], None, "model.safetensors "),
            (&["pytorch_model.bin", "model.onnx"], None, "pytorch_model.bin "),
            (&[model, "pytorch_model.bin"], Some("fp16"), "model.safetensors "),
            (
                &["pytorch_model_module.pt", "pytorch_model_ema.pt"],
                None,
                "pytorch_model_ema.pt ema",
            ),
            (&["ipa.pt", "pytorch_model_ema.pt"], None, "pytorch_model_ema.pt ema"),
            (&["pytorch_model_distill.pt"], None, "pytorch_model_distill.pt distill"),
            (
                &["pytorch_model_module.pt", "pytorch_model_ema.pt"],
                Some("module"),
                "pytorch_model_module.pt module",
            ),
            (&["hunyuan_dit_1.2.safetensors"], None, "hunyuan_dit_1.2.safetensors "),
            (
                &["model.safetensors.part", "model-00001-of-00002.safetensors"],
                None,
                "cannot use DIR: model-00001-of-00002.safetensors is in it without its index: download that too",
            ),
            (
                &["model.fp16.safetensors", "model.ema.safetensors"],
                Some("fp32"),
                "--weights-variant: there is no `fp32` in DIR, but fp16, ema",
            ),
        ] {
            assert_eq!(found(names, asked), expected, "{names:?} {asked:?}");
        }
        for index in [
            "m.fp16.safetensors.index.json",
            "m.safetensors.index.fp16.json",
            "m.safetensors.fp16.index.json",
        ] {
            let shard = "m.fp16-00001-of-00001.safetensors";
            assert_eq!(found(&[shard, index], None), format!("{shard} fp16"), "{index}");
            let whole = found(&[shard, index, "m.safetensors"], None);
            assert_eq!(whole, "m.safetensors ", "{index}");
        }
        let shard = "m-00001-of-00001.bin";
        assert_eq!(found(&[shard, "m.bin.index.json"], None), format!("{shard} "));
    }
}
