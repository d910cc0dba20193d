//! An IP-Adapter with its image encoder: which files they are, and what these say of their sizes.
//!
//! Tencent ships `ipa.pt`, and `clip_img_encoder.pt` in the names of OpenAI's CLIP. Others may have the
//! encoder as transformers saves it, in a folder with its configs.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hydit_graphs::config::{ClipVisionConfig, HunyuanDitConfig, ImageProcessor, IpAdapterConfig};

use super::Checkpoint;
use super::config::from_file;
use super::infer;
use super::places::files_of_weights;
use super::tensors::{CheckpointWeights, prefix};
use crate::error::{Error, Result};
use crate::options::Options;
use crate::weights::{WeightsFile, find};
use hydit_graphs::Component;
use hydit_graphs::naming::Naming;

/// The file of an adapter where several files of weights are in a folder.
const FILE: &str = "ipa.pt";

/// Where the image encoder is, in the folder of the adapter or in that above.
const ENCODERS: [&str; 3] = ["image_encoder", "clip_img_encoder", "clip_img_encoder.pt"];

/// An IP-Adapter, and the encoder of its images.
pub(crate) struct IpAdapter {
    pub config: IpAdapterConfig,
    /// The folder of the adapter.
    pub root: PathBuf,
    adapter: CheckpointWeights,
    encoder: CheckpointWeights,
}

impl IpAdapter {
    /// Finds what `options` name, and checks that it is for `transformer`; `None` if they name none.
    ///
    /// # Errors
    /// A file is missing or cannot be used.
    pub fn find(options: &Options, transformer: &HunyuanDitConfig) -> Result<Option<IpAdapter>> {
        let Some(path) = &options.ip_adapter else {
            if options.image_encoder.is_none() {
                return Ok(None);
            }
            let message = "there is no --ip-adapter whose images it would encode".to_string();
            return Err(Error::Flag { flag: "image-encoder", message });
        };
        let file = adapter_file(path)?;
        let root = file.parent().filter(|folder| !folder.as_os_str().is_empty());
        let root = root.unwrap_or(Path::new(".")).to_path_buf();
        let adapter = opened(Component::IpAdapter, vec![file], "an IP-Adapter of Hunyuan-DiT")?;
        let place = match &options.image_encoder {
            Some(place) => place.clone(),
            None => beside(&root)?,
        };
        let encoder = Encoder::find(&place)?;
        let image_tokens = check(&adapter, transformer, &encoder.config)?;
        let config = IpAdapterConfig {
            image_tokens,
            image_encoder: encoder.config,
            image_processor: encoder.processor,
        };
        config.validate().map_err(Error::content(place))?;
        Ok(Some(IpAdapter { config, root, adapter, encoder: encoder.weights }))
    }

    /// The weights of a component of `checkpoint`, or of the image encoder, and beside them those of
    /// the adapter that belong there.
    ///
    /// # Errors
    /// The part is missing, or its files cannot be used.
    pub fn weights(
        &self,
        component: Component,
        checkpoint: &Checkpoint,
    ) -> Result<CheckpointWeights> {
        let (mut weights, projection) = match component {
            Component::ImageEncoder => (self.encoder.clone(), true),
            Component::Transformer => (checkpoint.weights(component)?, false),
            _ => return checkpoint.weights(component),
        };
        weights.take(&self.adapter, |name| name.starts_with("image_projection.") == projection);
        Ok(weights)
    }
}

/// An image encoder with its configs.
struct Encoder {
    weights: CheckpointWeights,
    config: ClipVisionConfig,
    processor: ImageProcessor,
}

impl Encoder {
    fn find(place: &Path) -> Result<Encoder> {
        let found = fs::metadata(place).map_err(|_| Error::Missing {
            path: place.to_path_buf(),
            hint: "expected the image encoder: a folder, or a file of weights".to_string(),
        })?;
        let files =
            if found.is_dir() { find(place, None)?.files } else { vec![place.to_path_buf()] };
        let weights = opened(Component::ImageEncoder, files, "the image encoder of a CLIP")?;
        let beside = |name: &str| Some(place.join(name)).filter(|path| path.is_file());
        let config = match beside("config.json") {
            Some(path) => from_file(&path, ClipVisionConfig::from_json)?,
            None => infer::image_encoder(&weights)?,
        };
        let size = config.image_size;
        let processor = beside("preprocessor_config.json")
            .or_else(|| beside("../feature_extractor/preprocessor_config.json"));
        let processor = match (processor, weights.naming()) {
            (Some(path), _) => from_file(&path, |text| ImageProcessor::from_json(text, size))?,
            // Tencent's code stretches images to the square.
            (None, Naming::OpenAi) => ImageProcessor::of_clip(None),
            // diffusers takes the image processor's defaults.
            (None, _) => ImageProcessor::of_clip(Some(size)),
        };
        Ok(Encoder { weights, config, processor })
    }
}

/// The weights of `component` in `files`, which must have some; `what` it is.
fn opened(component: Component, files: Vec<PathBuf>, what: &str) -> Result<CheckpointWeights> {
    let first = files[0].clone();
    let files: Vec<Arc<WeightsFile>> =
        files.iter().map(|path| WeightsFile::open(path).map(Arc::new)).collect::<Result<_>>()?;
    let names = files.iter().flat_map(|file| file.tensors.keys());
    if prefix(component, names, None).is_none() {
        let name = files[0].tensors.keys().next().map(|name| name.escape_debug().to_string());
        let name = name.unwrap_or_default();
        let message = format!("it is not {what} (its first tensor is `{name}`)");
        return Err(Error::content(first)(message));
    }
    CheckpointWeights::of(component, files, None)
}

/// The file of the adapter at `path`.
fn adapter_file(path: &Path) -> Result<PathBuf> {
    let missing = |path: &Path| Error::Missing {
        path: path.to_path_buf(),
        hint: format!("expected an IP-Adapter: its file, such as {FILE}, or a folder with it"),
    };
    if !fs::metadata(path).map_err(|_| missing(path))?.is_dir() {
        return Ok(path.to_path_buf());
    }
    let mut files = files_of_weights(path)?;
    files.retain(|file| !ENCODERS.iter().any(|name| file.ends_with(name)));
    if let Some(usual) = files.iter().find(|file| file.ends_with(FILE)) {
        return Ok(usual.clone());
    }
    match &files[..] {
        [only] => Ok(only.clone()),
        [] => Err(missing(&path.join(FILE))),
        [first, ..] => {
            let message = format!(
                "{} has several files of weights: name one of them, such as {}",
                path.display(),
                first.display()
            );
            Err(Error::Flag { flag: "ip-adapter", message })
        }
    }
}

/// The image encoder in the folder of the adapter, or in that above.
fn beside(root: &Path) -> Result<PathBuf> {
    let folders = [root.to_path_buf(), root.join("..")];
    let places = folders.iter().flat_map(|folder| ENCODERS.map(|name| folder.join(name)));
    places.into_iter().find(|place| place.exists()).ok_or_else(|| {
        let hint = "expected the image encoder beside the adapter: name its folder or file with \
                    --image-encoder";
        Error::Missing { path: root.join(ENCODERS[0]), hint: hint.to_string() }
    })
}

/// Checks that `adapter` fits `transformer` and `encoder`. Gives the number of tokens per image.
fn check(
    adapter: &CheckpointWeights,
    transformer: &HunyuanDitConfig,
    encoder: &ClipVisionConfig,
) -> Result<usize> {
    let path = adapter.files().next().map(|file| file.path.clone()).unwrap_or_default();
    let refused = |message: String| Err(Error::content(path)(message));
    let shape = |name: &str| adapter.shape(name).unwrap_or_default();
    let blocks = infer::count(adapter, "blocks.*.attn2.norm_k_ip.weight");
    let found = (blocks, shape("blocks.0.attn2.to_k_ip.weight"));
    let HunyuanDitConfig { num_layers, hidden_size, cross_attention_dim: cross, .. } = *transformer;
    if found != (num_layers, &[hidden_size, cross]) {
        return refused(format!(
            "it is for {} blocks with keys of {:?}, and the transformer has {num_layers} with \
             {hidden_size} by {cross}: take the adapter that was made for it",
            found.0, found.1
        ));
    }
    let projection = shape("image_projection.image_embeds.weight");
    match *projection {
        [_, width] if width != encoder.projection_dim => refused(format!(
            "it reads image embeddings of {width} numbers, and the image encoder makes {}: \
             take the encoder that belongs to it",
            encoder.projection_dim
        )),
        [rows, _] if rows > 0 && rows.is_multiple_of(cross) => Ok(rows / cross),
        _ => refused(format!(
            "`ip_adapter_clip_len_trans_block.weight` is {projection:?}; expected a multiple of \
             {cross} rows"
        )),
    }
}
