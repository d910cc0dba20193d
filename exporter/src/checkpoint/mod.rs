//! A checkpoint in any of the layouts that people have: where each of its parts comes from.

mod config;
pub(crate) mod infer;
mod ip_adapter;
mod places;
mod tensors;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hydit_graphs::config::{HunyuanDitConfig, TransformerConfig};
use hydit_graphs::manifest::ModelConfig;
use safetensors::Dtype;

pub(crate) use self::ip_adapter::IpAdapter;
pub use self::places::Layout;
use self::places::{Places, Source};
pub use self::tensors::CheckpointWeights;
pub(crate) use self::tensors::Tensor;
use crate::error::{Error, Result};
use crate::tokenizer::{self, Tokenizer};
use crate::weights::{View, WeightsFile, find};
use hydit_graphs::Component;

/// The names of the tokenizers' folders in diffusers' layout.
const TOKENIZERS: [&str; 2] = ["tokenizer", "tokenizer_2"];

/// A checkpoint, and a second one from which it takes the parts that it does not have.
pub(crate) struct Checkpoint {
    /// The checkpoint, then the base.
    places: Vec<Places>,
    variant: Option<String>,
    /// The files that were opened.
    files: RefCell<BTreeMap<PathBuf, Arc<WeightsFile>>>,
}

impl Checkpoint {
    /// Finds the parts at `path`, and in `base` those that are not there.
    ///
    /// # Errors
    /// There is no checkpoint.
    pub fn find(path: &Path, base: Option<&Path>, variant: Option<&str>) -> Result<Checkpoint> {
        let places: Result<Vec<Places>> =
            [Some(path), base].into_iter().flatten().map(Places::find).collect();
        let (variant, files) = (variant.map(str::to_string), RefCell::default());
        let mut checkpoint = Checkpoint { places: places?, variant, files };
        for place in 0..checkpoint.places.len() {
            checkpoint.drop_absent(place)?;
        }
        Ok(checkpoint)
    }

    /// Forgets the parts that a file does not have.
    fn drop_absent(&mut self, place: usize) -> Result<()> {
        if self.places[place].layout != Layout::File {
            return Ok(());
        }
        let components: Vec<Component> = self.places[place].weights.keys().copied().collect();
        for component in components {
            let Some(Source::File(path)) = self.places[place].weights.get(&component).cloned()
            else {
                continue;
            };
            let file = self.open(&path)?;
            if tensors::prefix(component, file.tensors.keys(), None).is_none() {
                self.places[place].weights.remove(&component);
            }
        }
        if self.places[place].weights.is_empty() {
            let file = self.files.get_mut().values().next().expect("it was opened");
            let first = file.tensors.keys().next().map_or(String::new(), |name| {
                format!(" (its first tensor is `{}`)", name.escape_debug())
            });
            let message = format!("no part of a Hunyuan-DiT or a DiT is in it{first}");
            return Err(Error::content(&file.path)(message));
        }
        Ok(())
    }

    /// How the checkpoint is laid out.
    pub fn layout(&self) -> Layout {
        self.places[0].layout
    }

    /// The folder that the checkpoint is in, then that of the base.
    pub fn roots(&self) -> impl Iterator<Item = &Path> {
        self.places.iter().map(|places| places.root.as_path())
    }

    /// Whether the checkpoint or its base has this part.
    pub fn has(&self, component: Component) -> bool {
        self.source(component).is_some()
    }

    fn source(&self, component: Component) -> Option<&Source> {
        self.places.iter().find_map(|places| places.weights.get(&component))
    }

    /// The weights of a part.
    ///
    /// # Errors
    /// The part is missing, or its files cannot be used.
    pub fn weights(&self, component: Component) -> Result<CheckpointWeights> {
        let variant = self.variant.as_deref();
        let files = match self.source(component) {
            None => return Err(self.missing(component.folder())),
            Some(Source::File(path)) => vec![self.open(path)?],
            Some(Source::Folder(folder)) => {
                let found = find(folder, variant)?;
                found.files.iter().map(|path| self.open(path)).collect::<Result<_>>()?
            }
        };
        CheckpointWeights::of(component, files, variant)
    }

    fn open(&self, path: &Path) -> Result<Arc<WeightsFile>> {
        if let Some(file) = self.files.borrow().get(path) {
            return Ok(Arc::clone(file));
        }
        let file = Arc::new(WeightsFile::open(path)?);
        self.files.borrow_mut().insert(path.to_path_buf(), Arc::clone(&file));
        Ok(file)
    }

    /// The names by which the checkpoint goes, in lower case: those of its file or folder and what
    /// that is in, as in the Hugging Face cache; that of its pipeline; and the variant of its
    /// transformer's files.
    pub fn names(&self) -> Vec<String> {
        let path = match self.places[0].weights.get(&Component::Transformer) {
            Some(Source::Folder(path) | Source::File(path)) => path,
            None => &self.places[0].root,
        };
        let whole = path.canonicalize().unwrap_or_else(|_| path.clone());
        let parts = path.components().chain(whole.components().rev().take(4));
        let mut names: Vec<String> =
            parts.map(|part| part.as_os_str().to_string_lossy().to_lowercase()).collect();
        if let Some(Source::Folder(folder)) = self.source(Component::Transformer)
            && let Ok(found) = find(folder, self.variant.as_deref())
        {
            names.extend(found.variant);
        }
        names
    }

    /// The configs of all parts.
    ///
    /// # Errors
    /// A config cannot be read, found out or used, or they contradict each other.
    pub fn config(&self) -> Result<ModelConfig> {
        config::read(self)
    }

    fn config_path(&self, component: Component) -> Option<&Path> {
        self.places.iter().find_map(|places| places.configs.get(&component)).map(PathBuf::as_path)
    }

    /// Whether the config of a part belongs to the weights that are taken.
    fn has_own_config(&self, component: Component) -> bool {
        let first = self.places.iter().find(|places| places.weights.contains_key(&component));
        first.is_some_and(|places| places.configs.contains_key(&component))
    }

    /// The scheduler's config: the checkpoint's, or the base's if that is of the same version as
    /// `transformer`, since versions were trained with different noise.
    fn scheduler_path(&self, transformer: &TransformerConfig) -> Result<Option<&Path>> {
        if let Some(own) = &self.places[0].scheduler {
            return Ok(Some(own));
        }
        let Some(transformer) = transformer.hunyuan_dit() else { return Ok(None) };
        let Some(base) = self.places.get(1) else { return Ok(None) };
        let same = match base.configs.get(&Component::Transformer) {
            None => false,
            Some(path) => {
                let text = crate::files::read_text(path, "it was there a moment ago")?;
                let theirs = config::parse(path, &text, HunyuanDitConfig::from_json)?;
                theirs.use_style_cond_and_image_meta_size
                    == transformer.use_style_cond_and_image_meta_size
            }
        };
        Ok(base.scheduler.as_deref().filter(|_| same))
    }

    /// The tokenizer of the first (0) or the second (1) text encoder.
    ///
    /// # Errors
    /// There is none, or it cannot be used.
    pub fn tokenizer(&self, index: usize) -> Result<Tokenizer> {
        if let Some(folder) = self.tokenizer_folder(index) {
            return tokenizer::read(folder);
        }
        match self.sentencepiece()? {
            Some((file, view)) if index == 1 => {
                let bytes = file.bytes(std::slice::from_ref(&view));
                tokenizer::of_sentencepiece(&file.path, &bytes)
            }
            _ => Err(self.missing(TOKENIZERS[index])),
        }
    }

    fn tokenizer_folder(&self, index: usize) -> Option<&Path> {
        self.places.iter().find_map(|places| places.tokenizers[index].as_deref())
    }

    /// The SentencePiece model of the second text encoder that ComfyUI's files have as a tensor of
    /// bytes.
    fn sentencepiece(&self) -> Result<Option<(Arc<WeightsFile>, View)>> {
        let Some(Source::File(path)) = self.source(Component::TextEncoder2) else {
            return Ok(None);
        };
        let file = self.open(path)?;
        let model = file.tensors.iter().find(|(name, view)| {
            name.ends_with("spiece_model") && view.dtype == Dtype::U8 && view.shape.len() == 1
        });
        let view = model.map(|(_, view)| view.clone());
        Ok(view.map(|view| (file, view)))
    }

    /// Whether the transformer draws classes.
    fn draws_classes(&self) -> bool {
        let weights =
            self.has(Component::Transformer).then(|| self.weights(Component::Transformer));
        matches!(weights, Some(Ok(weights)) if weights.draws_classes())
    }

    /// The names of the parts that are neither in the checkpoint nor in its base.
    pub fn absent(&self) -> Vec<&'static str> {
        if self.draws_classes() {
            let parts = [Component::Transformer, Component::Vae].into_iter();
            return parts.filter(|part| !self.has(*part)).map(Component::folder).collect();
        }
        let parts = Component::ALL.into_iter().filter(|part| !self.has(*part));
        let in_tensors = |index| index == 1 && matches!(self.sentencepiece(), Ok(Some(_)));
        let tokenizers = (0..TOKENIZERS.len())
            .filter(|&index| self.tokenizer_folder(index).is_none() && !in_tensors(index));
        parts.map(Component::folder).chain(tokenizers.map(|index| TOKENIZERS[index])).collect()
    }

    /// The error for a part of diffusers' layout without its config.
    fn no_config(&self, component: Component) -> Error {
        let path = self.places[0].root.join(component.folder());
        if !path.is_dir() {
            return self.missing(component.folder());
        }
        let hint = "every part in diffusers' layout has one: download it again".to_string();
        Error::Missing { path: path.join("config.json"), hint }
    }

    fn missing(&self, part: &str) -> Error {
        let places = &self.places[0];
        let way_out = if self.draws_classes() {
            "name the folder of the one that it was trained with, such as sd-vae-ft-ema, with --base DIR"
        } else {
            "take it from a checkpoint that has one, with --base DIR (any Hunyuan-DiT in diffusers' or \
             Tencent's folder)"
        };
        let (path, hint) = match (places.layout, self.places.get(1)) {
            (_, Some(base)) => (
                places.path.clone(),
                format!("no {part} in it, nor in its base {}", base.path.display()),
            ),
            (Layout::Diffusers, None) => (places.root.join(part), way_out.to_string()),
            (_, None) => (places.path.clone(), format!("no {part} in it: {way_out}")),
        };
        match path.exists() {
            true => Error::Content { path, source: hint.into() },
            false => Error::Missing { path, hint },
        }
    }
}
