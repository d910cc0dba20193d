//! Where the parts of a checkpoint are: the layouts that people have.
//!
//! - diffusers' folder: `model_index.json`, and a folder for each part.
//! - Tencent's folder: `t2i/model/pytorch_model_ema.pt`, `clip_text_encoder`, `mt5`,
//!   `sdxl-vae-fp16-fix`, `tokenizer`.
//! - The folder of one part, with its `config.json`.
//! - A file with several parts, such as ComfyUI's `hunyuan_dit_1.2.safetensors`, or with one.
//!
//! A folder of the Hugging Face cache stands for the snapshot in it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::Value;

use super::config::parse;
use crate::error::{Error, Result};
use crate::files::read_text;
use crate::weights::is_weights;
use hydit_graphs::Component;

/// How a checkpoint is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Layout {
    /// diffusers' folder.
    Diffusers,
    /// The folder of Tencent's own code.
    Tencent,
    /// The folder of one part.
    Part,
    /// A file.
    File,
}

/// Where the weights of a part are.
#[derive(Clone, Debug)]
pub(crate) enum Source {
    /// In a folder, by the names that libraries give such files.
    Folder(PathBuf),
    /// In this file, with other parts or alone.
    File(PathBuf),
}

/// Where the parts of a checkpoint are.
#[derive(Debug)]
pub(crate) struct Places {
    pub layout: Layout,
    /// The folder or the file.
    pub path: PathBuf,
    /// The folder, or that of the file.
    pub root: PathBuf,
    /// The parts with weights. Those of a file are known only when it is opened.
    pub weights: BTreeMap<Component, Source>,
    /// The `config.json` of parts that have one.
    pub configs: BTreeMap<Component, PathBuf>,
    /// The folders of the tokenizers.
    pub tokenizers: [Option<PathBuf>; 2],
    /// `scheduler_config.json`.
    pub scheduler: Option<PathBuf>,
}

impl Places {
    /// Looks at what is at `path`.
    ///
    /// # Errors
    /// There is nothing, or nothing that is known.
    pub fn find(path: &Path) -> Result<Places> {
        let hint = "expected a checkpoint: a folder or a file with its weights".to_string();
        let found =
            fs::metadata(path).map_err(|_| Error::Missing { path: path.to_path_buf(), hint })?;
        if !found.is_dir() {
            return Ok(Places::file(path));
        }
        let root = snapshot(path)?.unwrap_or_else(|| path.to_path_buf());
        let has = |name: &str| root.join(name).exists();
        if has("model_index.json") || has("transformer") {
            return Places::diffusers(&root);
        }
        let t2i = root.join("t2i");
        let tencent = if t2i.is_dir() { &t2i } else { &root };
        if tencent.join("model").is_dir() || tencent.join("clip_text_encoder").is_dir() {
            return Ok(Places::tencent(tencent, &root));
        }
        if has("config.json") {
            return Places::part(&root);
        }
        match &files_of_weights(&root)?[..] {
            [only] => Ok(Places { root: root.clone(), ..Places::file(only) }),
            [] => Err(Error::Missing {
                path: root.join("model_index.json"),
                hint: "expected a checkpoint: diffusers' folder, Tencent's (t2i/), or one file of \
                       weights"
                    .to_string(),
            }),
            [first, ..] => Err(Error::Missing {
                path: root.join("model_index.json"),
                hint: format!(
                    "the folder has several files of weights: name one of them, such as {}",
                    first.display()
                ),
            }),
        }
    }

    fn empty(layout: Layout, root: &Path) -> Places {
        Places {
            layout,
            path: root.to_path_buf(),
            root: root.to_path_buf(),
            weights: BTreeMap::new(),
            configs: BTreeMap::new(),
            tokenizers: [None, None],
            scheduler: None,
        }
    }

    fn file(path: &Path) -> Places {
        let source = Source::File(path.to_path_buf());
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let folder = folder.unwrap_or(Path::new("."));
        Places {
            path: path.to_path_buf(),
            weights: components().map(|component| (component, source.clone())).collect(),
            ..Places::empty(Layout::File, folder)
        }
    }

    fn diffusers(root: &Path) -> Result<Places> {
        let index = root.join("model_index.json");
        if index.exists() {
            check_class(&index)?;
        }
        let mut places = Places::empty(Layout::Diffusers, root);
        for component in components() {
            places.take(component, root.join(component.folder()));
        }
        places.tokenizers = ["tokenizer", "tokenizer_2"].map(|name| folder(root.join(name)));
        let scheduler = root.join("scheduler/scheduler_config.json");
        places.scheduler = scheduler.exists().then_some(scheduler);
        Ok(places)
    }

    fn tencent(t2i: &Path, root: &Path) -> Places {
        let mut places = Places::empty(Layout::Tencent, root);
        places.take(Component::Transformer, t2i.join("model"));
        places.take(Component::TextEncoder, t2i.join("clip_text_encoder"));
        places.take(Component::TextEncoder2, t2i.join("mt5"));
        let names = ["sdxl-vae-fp16-fix", "sdxl-vae", "vae"];
        let vae = names.map(|name| t2i.join(name)).into_iter().find(|path| path.is_dir());
        if let Some(vae) = vae {
            places.take(Component::Vae, vae);
        }
        places.tokenizers = ["tokenizer", "mt5"].map(|name| folder(t2i.join(name)));
        places
    }

    /// The folder of one part, which its config names.
    fn part(root: &Path) -> Result<Places> {
        let path = root.join("config.json");
        let text = read_text(&path, "it was there a moment ago")?;
        let config: Value = parse(&path, &text, |text| serde_json::from_str(text))?;
        let component = match config["_class_name"].as_str() {
            Some("HunyuanDiT2DModel" | "DiTTransformer2DModel" | "Transformer2DModel") => {
                Component::Transformer
            }
            Some("AutoencoderKL") => Component::Vae,
            Some("HunyuanDiT2DControlNetModel") => Component::ControlNet,
            _ => match config["model_type"].as_str() {
                Some("bert") => Component::TextEncoder,
                Some("t5" | "mt5" | "umt5") => Component::TextEncoder2,
                _ => {
                    let message = "it tells of no part of a Hunyuan-DiT or a DiT: expected \
                                   `_class_name` HunyuanDiT2DModel, HunyuanDiT2DControlNetModel, \
                                   DiTTransformer2DModel or AutoencoderKL, or `model_type` bert or \
                                   mt5";
                    return Err(Error::content(path)(message));
                }
            },
        };
        let mut places = Places::empty(Layout::Part, root);
        places.take(component, root.to_path_buf());
        Ok(places)
    }

    /// Takes the folder as that of `component`, if it is one.
    fn take(&mut self, component: Component, folder: PathBuf) {
        if !folder.is_dir() {
            return;
        }
        let config = folder.join("config.json");
        if config.exists() {
            self.configs.insert(component, config);
        }
        self.weights.insert(component, Source::Folder(folder));
    }
}

/// The components that may be at one place.
fn components() -> impl Iterator<Item = Component> {
    Component::ALL.into_iter().chain([Component::ControlNet])
}

fn folder(path: PathBuf) -> Option<PathBuf> {
    path.is_dir().then_some(path)
}

/// Checks that a pipeline is of a Hunyuan-DiT or a DiT.
fn check_class(path: &Path) -> Result<()> {
    let text = read_text(path, "it was there a moment ago")?;
    let index: Value = parse(path, &text, |text| serde_json::from_str(text))?;
    let class = index["_class_name"].as_str().unwrap_or_default();
    if class.starts_with("HunyuanDiT") || class == "DiTPipeline" {
        return Ok(());
    }
    let message = format!("`_class_name` is `{class}`; expected HunyuanDiTPipeline or DiTPipeline");
    Err(Error::content(path)(message))
}

/// The snapshot in a folder of the Hugging Face cache: that of `refs/main`, or the only one.
fn snapshot(path: &Path) -> Result<Option<PathBuf>> {
    let snapshots = path.join("snapshots");
    if !snapshots.is_dir() || path.join("model_index.json").exists() {
        return Ok(None);
    }
    let main = path.join("refs/main");
    if main.exists() {
        let name = read_text(&main, "it was there a moment ago")?;
        let snapshot = snapshots.join(name.trim());
        let plain = !name.trim().contains(['/', '\\']) && name.trim() != "..";
        if plain && snapshot.is_dir() {
            return Ok(Some(snapshot));
        }
    }
    let entries = fs::read_dir(&snapshots).map_err(Error::reading(&snapshots))?;
    let folders: Vec<PathBuf> =
        entries.filter_map(|entry| Some(entry.ok()?.path()).filter(|path| path.is_dir())).collect();
    match &folders[..] {
        [only] => Ok(Some(only.clone())),
        _ => Err(Error::Missing {
            path: main,
            hint: format!("{} snapshots are in this cache: name one of them", folders.len()),
        }),
    }
}

/// The files of weights that lie in `folder` itself.
pub(super) fn files_of_weights(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).map_err(Error::reading(folder))?;
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let mut files: Vec<PathBuf> = paths.filter(|path| is_weights(path)).collect();
    files.sort();
    Ok(files)
}
