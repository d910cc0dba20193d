//! The options of an export, and the observer that follows it.

use std::path::{Path, PathBuf};

use hydit_graphs::variant::RopeConvention;
use hydit_graphs::{Precision, Target};
use hydit_lora::Weighted;

use crate::control::ControlNet;
use crate::lora::Merged;

/// The checkpoint to export, and how.
#[derive(Clone, Debug)]
pub struct Options {
    /// Checkpoint: a folder in diffusers' or Tencent's layout, that of one part, or a file.
    pub checkpoint: PathBuf,
    /// A second checkpoint, for the parts that the first one does not have.
    pub base: Option<PathBuf>,
    /// The variant in the names of files of weights, such as `fp16` or `ema`, where there are
    /// several.
    pub weights_variant: Option<String>,
    /// The reference to follow where they differ; `None` for the one that the layout belongs to.
    pub reading: Option<RopeConvention>,
    /// Artifact folder to write.
    pub out: PathBuf,
    /// Blocks before the deep core, and after it: 1 to depth / 2 - 1; the variant's if `None`.
    pub cache_at_branch: Option<usize>,
    /// The number format of the large matrices.
    pub precision: Precision,
    /// The runtime that the transformer's graphs are built for.
    pub target: Target,
    /// The LoRAs to merge into the weights: files, or folders of PEFT.
    pub loras: Vec<Weighted>,
    /// The largest rank of LoRAs that requests may name; `None` for graphs without slots.
    pub lora_slots: Option<usize>,
    /// The blocks, ascending, that perturbed-attention guidance perturbs; none for graphs without.
    pub pag_layers: Vec<usize>,
    /// The ControlNets that requests may name. They need the image encoder, which is written too.
    pub controls: Vec<ControlNet>,
    /// The IP-Adapter by which requests may have image prompts: its file, or a folder with it.
    pub ip_adapter: Option<PathBuf>,
    /// The image encoder of the IP-Adapter, a folder or a file; `None` for that beside it.
    pub image_encoder: Option<PathBuf>,
    /// Where the weights are.
    pub weights: WeightsPlace,
    /// Whether to write the image encoder too, with which image to image begins.
    pub image_to_image: bool,
    /// Whether to write the whole transformer as one graph besides.
    pub full: bool,
    /// Whether to write the whole pipeline as one graph besides, with the others' weights.
    pub single: bool,
    /// Name or YAML file of the variant; `None` for the one that matches the config.
    pub variant: Option<String>,
}

impl Options {
    /// The options of a portable fp32 export that is cut where the variant says.
    pub fn new(checkpoint: impl Into<PathBuf>, out: impl Into<PathBuf>) -> Options {
        Options {
            checkpoint: checkpoint.into(),
            base: None,
            weights_variant: None,
            reading: None,
            out: out.into(),
            cache_at_branch: None,
            precision: Precision::Fp32,
            target: Target::Portable,
            loras: Vec::new(),
            lora_slots: None,
            pag_layers: Vec::new(),
            controls: Vec::new(),
            ip_adapter: None,
            image_encoder: None,
            weights: WeightsPlace::Copy,
            image_to_image: false,
            full: false,
            single: false,
            variant: None,
        }
    }

    /// Whether the image encoder is written.
    pub(crate) fn has_image_encoder(&self) -> bool {
        self.image_to_image || !self.controls.is_empty()
    }
}

/// Where the graphs of an export read their weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WeightsPlace {
    /// In files of the artifact folder, in the type and the order of axes that engines read.
    Copy,
    /// In the checkpoint's own files, which get a second name in the artifact folder. Engines turn
    /// and convert what they read at every start.
    InPlace,
}

/// An observer of an export. All methods do nothing by default; `()` is an observer that ignores
/// everything.
pub trait Progress {
    /// Weights of so many bytes in all are about to be written.
    fn total(&mut self, _bytes: u64) {}

    /// The graph of this name is about to be written.
    fn graph(&mut self, _name: &str) {}

    /// Another so many bytes of weights have been written.
    fn wrote(&mut self, _bytes: u64) {}

    /// This LoRA fits the checkpoint, and is about to be merged.
    fn merging(&mut self, _lora: &Merged) {}

    /// So many bytes of weights that shall stay in place had to be copied, because the checkpoint
    /// has them in another order than graphs read, or a LoRA changes them.
    fn copied(&mut self, _bytes: u64) {}

    /// The checkpoint has these tensors, which no graph uses.
    fn unused(&mut self, _tensors: &[String]) {}

    /// The export is done, but this folder with files of the older one cannot be removed.
    fn left(&mut self, _folder: &Path) {}
}

impl Progress for () {}
