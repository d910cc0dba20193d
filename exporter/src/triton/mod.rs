//! A model repository for Triton from an artifact folder: the pipeline in one file under its ONNX
//! Runtime backend, a model in Python that makes the pipeline's inputs of a prompt and a seed, and an
//! ensemble of both, prompt in and image out.
//!
//! Tokenizers are in no backend of Triton, so the first step is in Python; the loop is not.

mod config;
mod plan;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use hydit_graphs::onnx::{GraphProto, ModelProto};
use hydit_graphs::{Manifest, manifest, single};
use hydit_input::file;
use prost::Message;
use sha2::{Digest, Sha256};

use self::plan::Plan;
use crate::error::{Error, Result};
use crate::files::{check_folder, read_text};
use crate::inspect;
use crate::writer::hex;

/// The largest ONNX file that is read; the graphs of the released models have a few MiB.
const MAX_GRAPH: u64 = 256 << 20;

/// Where Triton runs the pipeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Provider {
    /// ONNX Runtime on the CPU.
    Cpu,
    /// ONNX Runtime's CUDA provider.
    Cuda,
    /// ONNX Runtime's TensorRT provider.
    TensorRt,
}

/// The repository to write.
#[derive(Clone, Debug)]
pub struct Options {
    /// Artifact folder, exported with the pipeline in one file.
    pub model: PathBuf,
    /// Plans of `hydit-serve plan --tensors`: the image sizes, samplers and cache policies that the
    /// repository offers, under the names of the files.
    pub plans: Vec<PathBuf>,
    /// Model repository to write: a new or empty folder.
    pub out: PathBuf,
    /// Name of the ensemble; those of its steps begin with it.
    pub name: String,
    /// Where the pipeline runs.
    pub provider: Provider,
}

/// Writes a model repository; returns the names of its models, the ensemble first.
///
/// # Errors
/// The artifact folder has no pipeline in one file, a plan is not for it, or the folder cannot be
/// written. Nothing is left then.
pub fn export(options: &Options) -> Result<[String; 3]> {
    let Options { model, plans, out, name, provider } = options;
    check_folder(out)?;
    check_name("name", name)?;
    let manifest = inspect::read(model)?;
    let pipeline = pipeline(model, &manifest)?;
    let plans = plan::read(plans, &pipeline)?;
    let names = [name.clone(), format!("{name}-request"), format!("{name}-pipeline")];
    let [ensemble, request, single] = &names;

    let staged = Staged::beside(out)?;
    let version = staged.folder(&format!("{ensemble}/1"))?;
    // Folders without a file get lost in object stores and archives.
    staged.write(&version.join(".keep"), b"")?;
    let interface = config::interface(&pipeline);
    staged.config(ensemble, &config::ensemble(&names, &interface))?;

    let Some(tokenizers) = &manifest.tokenizers else {
        return Err(Error::content(model)("it has no tokenizers: it draws classes, not texts"));
    };
    let version = staged.folder(&format!("{request}/1"))?;
    let script = include_str!("request.py")
        .replace("__PAD_ID__", &tokenizers.text_encoder.pad_id.to_string())
        .replace("__PAD_ID_2__", &tokenizers.text_encoder_2.pad_id.to_string());
    staged.write(&version.join("model.py"), script.as_bytes())?;
    for (entry, file) in [
        (&tokenizers.text_encoder, "tokenizer.json"),
        (&tokenizers.text_encoder_2, "tokenizer_2.json"),
    ] {
        staged.link(&model.join(&entry.file), &version.join(file))?;
    }
    for Plan { name, path, .. } in &plans {
        staged.link(path, &version.join(format!("{name}.safetensors")))?;
    }
    staged.config(request, &config::request(request, &interface))?;

    let version = staged.folder(&format!("{single}/1"))?;
    let weights = manifest.graphs.iter().flat_map(|graph| graph.weights());
    let mut files: Vec<&str> = weights.map(String::as_str).chain([single::FILE]).collect();
    files.sort_unstable();
    files.dedup();
    for file in files.into_iter().filter(|file| manifest.files[*file].bytes > 0) {
        staged.link(&model.join(file), &version.join(file))?;
    }
    let warm_up = staged.folder(&format!("{single}/warmup"))?;
    for plan in &plans {
        for (input, bytes) in plan.first_step() {
            staged.write(&warm_up.join(plan.warm_up_file(input)), &bytes)?;
        }
    }
    let hash = &manifest.files[single::FILE].sha256[..12];
    let text = read_text(&model.join(manifest::FILE), "it was there just now")?;
    let export = hex(Sha256::new_with_prefix(text));
    let text = config::pipeline(single, &interface, &plans, *provider, [hash, &export]);
    staged.config(single, &text)?;
    staged.settle(out)?;
    Ok(names)
}

/// The graph of the pipeline in one file.
fn pipeline(model: &Path, manifest: &Manifest) -> Result<GraphProto> {
    let file = model.join(single::FILE);
    if !manifest.files.contains_key(single::FILE) {
        let hint = "export the checkpoint with --single".to_string();
        return Err(Error::Missing { path: file, hint });
    }
    let bytes = file::read(&file, MAX_GRAPH).map_err(Error::reading(&file))?;
    let decoded = ModelProto::decode(&bytes[..]).map_err(Error::content(&file))?;
    decoded.graph.ok_or_else(|| Error::content(&file)("it has no graph"))
}

/// Checks a name that becomes one of folders, of addresses and of text in quotes.
fn check_name(flag: &'static str, name: &str) -> Result<()> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if !name.is_empty() && !name.starts_with('.') && name.len() <= 100 && name.chars().all(plain) {
        return Ok(());
    }
    let message = format!(
        "{:?} is no name for Triton: expected letters, digits, -, _ and .",
        name.chars().take(100).collect::<String>()
    );
    Err(Error::Flag { flag, message })
}

/// A repository that is being written beside its place; dropped before it is settled, it goes.
struct Staged(Option<PathBuf>);

impl Staged {
    fn beside(out: &Path) -> Result<Staged> {
        if fs::read_dir(out).is_ok_and(|mut entries| entries.next().is_some()) {
            let message = format!("{} is not empty: choose a new or empty folder", out.display());
            return Err(Error::Flag { flag: "out", message });
        }
        let mut name = std::ffi::OsString::from(".");
        name.push(out.file_name().unwrap_or_default());
        name.push(format!(".hydit-triton-{}", std::process::id()));
        let folder = out.with_file_name(name);
        fs::create_dir_all(&folder).map_err(Error::writing(&folder))?;
        Ok(Staged(Some(folder)))
    }

    fn root(&self) -> &Path {
        self.0.as_deref().expect("it is not settled yet")
    }

    fn folder(&self, name: &str) -> Result<PathBuf> {
        let folder = self.root().join(name);
        fs::create_dir_all(&folder).map_err(Error::writing(&folder))?;
        Ok(folder)
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> Result<()> {
        fs::write(path, bytes).map_err(Error::writing(path))
    }

    fn config(&self, model: &str, text: &str) -> Result<()> {
        self.write(&self.root().join(model).join("config.pbtxt"), text.as_bytes())
    }

    /// The file `from` at `to` besides: linked where that is possible, else copied.
    fn link(&self, from: &Path, to: &Path) -> Result<()> {
        let real = from.canonicalize().map_err(Error::reading(from))?;
        let linked: io::Result<()> = fs::hard_link(&real, to);
        linked.or_else(|_| fs::copy(&real, to).map(drop)).map_err(Error::writing(to))
    }

    fn settle(mut self, out: &Path) -> Result<()> {
        fs::rename(self.root(), out).map_err(Error::writing(out))?;
        self.0 = None;
        Ok(())
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if let Some(folder) = &self.0 {
            let _ = fs::remove_dir_all(folder);
        }
    }
}
