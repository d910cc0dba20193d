//! The safetensors files of a component.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::files::read_text;

/// The paths of all safetensors files in the folder of a component: those that its index names, or
/// the single one.
pub(crate) fn find(folder: &Path) -> Result<Vec<PathBuf>> {
    let missing =
        |hint: &str| Error::Missing { path: folder.to_path_buf(), hint: hint.to_string() };
    let entries = fs::read_dir(folder).map_err(|_| {
        missing("expected a component of a diffusers checkpoint (see model_index.json)")
    })?;
    let mut names: Vec<String> =
        entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
    // The plain name sorts before variants such as `model.fp16.safetensors`.
    names.sort_by_key(|name| (name.matches('.').count(), name.clone()));

    if let Some(index) = names.iter().find(|name| name.ends_with(".safetensors.index.json")) {
        return indexed(folder, index);
    }
    let single = names.iter().find(|name| {
        name.ends_with(".safetensors") && !name.contains("-of-") // a shard without its index
    });
    match single {
        Some(name) => Ok(vec![folder.join(name)]),
        None if names.iter().any(|name| name.ends_with(".bin") || name.ends_with(".pt")) => {
            Err(missing(
                "no .safetensors file; convert the pickled weights with diffusers' \
                 save_pretrained(safe_serialization=True)",
            ))
        }
        None => Err(missing("no .safetensors file and no .safetensors.index.json in it")),
    }
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
        if name.contains(['/', '\\']) || !name.ends_with(".safetensors") {
            let message = format!("shard `{name}` is not the name of a safetensors file");
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
