//! A tiny checkpoint with made-up weights, ways to damage it, and its export.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use hydit_export::synth::{self, HunyuanDit, Shape, Storage};
use hydit_export::{Error, Options, Progress, export};
use hydit_graphs::Manifest;
use safetensors::SafeTensors;
use safetensors::tensor::TensorView;
use serde_json::Value;
use tempfile::TempDir;

/// Every component, as small as it gets.
pub fn config() -> HunyuanDit {
    let shape = Shape {
        depth: Some(6),
        heads: Some(2),
        head_dim: Some(8),
        image_size: Some(32),
        small_text: true,
    };
    let mut config = synth::model("hunyuan-dit-v1.2", &shape).expect("a valid shape");
    let HunyuanDit { transformer, text_encoder, text_encoder_2, vae, .. } = &mut config;
    (text_encoder.hidden_size, text_encoder.num_attention_heads) = (12, 2);
    (text_encoder.intermediate_size, text_encoder.num_hidden_layers) = (20, 1);
    (text_encoder_2.d_model, text_encoder_2.d_kv, text_encoder_2.num_heads) = (16, 4, 2);
    (text_encoder_2.d_ff, text_encoder_2.num_layers) = (20, 1);
    (vae.block_out_channels, vae.norm_num_groups) = (vec![8, 8], 4);
    vae.down_block_types.truncate(2);
    vae.up_block_types.truncate(2);
    (transformer.text_len, transformer.text_len_t5) = (5, 6);
    (transformer.cross_attention_dim, transformer.cross_attention_dim_t5) = (12, 16);
    (transformer.pooled_projection_dim, transformer.sample_size) = (10, 16);
    config
}

/// A folder with a checkpoint in `checkpoint`; exports go to `out`.
pub struct Place {
    root: TempDir,
}

impl Place {
    /// A checkpoint of [`config`], with a licence.
    pub fn new() -> Place {
        Place::stored(&Storage::default())
    }

    pub fn stored(storage: &Storage) -> Place {
        Place::with(&config(), storage)
    }

    /// A checkpoint of another model.
    pub fn of(config: &HunyuanDit) -> Place {
        Place::with(config, &Storage::default())
    }

    fn with(config: &HunyuanDit, storage: &Storage) -> Place {
        let place = Place { root: tempfile::tempdir().expect("a folder") };
        synth::checkpoint(config, &place.checkpoint(), storage).expect("a checkpoint");
        fs::write(place.file("LICENSE.txt"), "Use it well.\n").expect("a licence");
        place
    }

    pub fn path(&self) -> &Path {
        self.root.path()
    }

    pub fn checkpoint(&self) -> PathBuf {
        self.root.path().join("checkpoint")
    }

    pub fn out(&self) -> PathBuf {
        self.root.path().join("out")
    }

    /// A file of the checkpoint.
    pub fn file(&self, name: &str) -> PathBuf {
        self.checkpoint().join(name)
    }

    pub fn options(&self) -> Options {
        Options::new(self.checkpoint(), self.out())
    }

    pub fn export(&self) -> Result<Manifest, Error> {
        export(&self.options(), &mut Told::default())
    }

    /// Changes a JSON file of the checkpoint.
    pub fn edit_json(&self, name: &str, edit: impl FnOnce(&mut Value)) {
        let path = self.file(name);
        let text = fs::read_to_string(&path).expect("a JSON file");
        let mut json = serde_json::from_str(&text).expect("JSON");
        edit(&mut json);
        fs::write(path, json.to_string()).expect("written");
    }

    /// Changes the tensors of a safetensors file of the checkpoint.
    pub fn edit_tensors(&self, name: &str, edit: impl FnOnce(&mut Tensors)) {
        let path = self.file(name);
        let mut tensors = read_tensors(&path);
        edit(&mut tensors);
        write_tensors(&path, &tensors);
    }

    /// Changes the bytes of a file of the checkpoint.
    pub fn edit_bytes(&self, name: &str, edit: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = fs::read(self.file(name)).expect("a file");
        edit(&mut bytes);
        fs::write(self.file(name), bytes).expect("written");
    }
}

/// Element type, shape and bytes by name.
pub type Tensors = BTreeMap<String, (safetensors::Dtype, Vec<usize>, Vec<u8>)>;

pub fn read_tensors(path: &Path) -> Tensors {
    let bytes = fs::read(path).expect("a file");
    let file = SafeTensors::deserialize(&bytes).expect("a safetensors file");
    let owned = |view: TensorView<'_>| (view.dtype(), view.shape().to_vec(), view.data().to_vec());
    file.tensors().into_iter().map(|(name, view)| (name, owned(view))).collect()
}

pub fn write_tensors(path: &Path, tensors: &Tensors) {
    let views = tensors.iter().map(|(name, (dtype, shape, bytes))| {
        (name, TensorView::new(*dtype, shape.clone(), bytes).expect("a tensor"))
    });
    fs::write(path, safetensors::serialize(views, None).expect("serializes")).expect("written");
}

/// An error with its causes, as the program prints it.
pub fn message(error: &Error) -> String {
    let causes = std::iter::successors(Some(error as &dyn std::error::Error), |e| e.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// Every file of a folder: its name and bytes.
pub fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry"));
    entries
        .map(|entry| {
            let name = entry.file_name().into_string().expect("a name");
            (name, fs::read(entry.path()).expect("a file"))
        })
        .collect()
}

/// What an export told.
#[derive(Default)]
pub struct Told {
    pub total: u64,
    pub wrote: u64,
    pub unused: Vec<String>,
}

impl Progress for Told {
    fn total(&mut self, bytes: u64) {
        self.total = bytes;
    }
    fn wrote(&mut self, bytes: u64) {
        self.wrote += bytes;
    }
    fn unused(&mut self, tensors: &[String]) {
        self.unused = tensors.to_vec();
    }
}
