//! `hydit-serve compile`: the graphs of a model, compiled ahead for a plugin provider or TensorRT, so that
//! whatever draws with them starts faster.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::Args;
use hydit::artifacts::Artifacts;
use hydit::engines::{Compiled, Pictures, compile};
use hydit::runtime::{BackendChoice, Profile, Provider, RuntimeOptions};
use hydit_terminal::{note, say};

use crate::engine::{self, PluginFlags, provider};

#[derive(Args)]
pub struct Compile {
    /// Artifact folder of hydit-export.
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// What compiles: tensorrt, or a plugin: openvino, openvino:bf16, tensorrt-rtx; any other with
    /// --ep-library.
    #[arg(long, value_parser = provider)]
    provider: Provider,
    #[command(flatten)]
    plugin: PluginFlags,
    /// Picture size that TensorRT builds engines for; again for each, the most usual first. The model's
    /// own size if none is given.
    #[arg(long, num_args = 2, value_names = ["HEIGHT", "WIDTH"])]
    image_size: Vec<usize>,
    /// Most pictures of a request that TensorRT builds engines for; 1 if not given.
    #[arg(long, value_name = "N")]
    images: Option<usize>,
    /// Folder for the engines: new, empty, or of older ones, which stay until all new ones are there.
    #[arg(long, value_name = "DIR", required_unless_present = "profiles")]
    engines: Option<PathBuf>,
    /// Build nothing: print the shapes that TensorRT would build each graph for, as JSON.
    #[arg(long, conflicts_with = "engines")]
    profiles: bool,
}

impl Compile {
    pub fn run(self) -> Result<()> {
        let artifacts = Artifacts::open(&self.model)?;
        let pictures = self.pictures(&artifacts)?;
        let (Some(folder), false) = (&self.engines, self.profiles) else {
            let Some(pictures) = pictures else {
                bail!("--profiles: they are TensorRT's: add --provider tensorrt");
            };
            let manifest = &artifacts.manifest;
            let profile = |graph| pictures.profile(manifest, graph);
            let profiles: BTreeMap<&str, Profile> =
                manifest.graphs.iter().map(|graph| (&graph.name[..], profile(graph))).collect();
            return Ok(say(serde_json::to_string_pretty(&profiles)?)?);
        };
        let (backend, provider) = (BackendChoice::Ort, self.provider);
        let plugin = self.plugin.options();
        let backend =
            engine::open(&RuntimeOptions { backend, provider, plugin, ..Default::default() })?;
        note(format_args!("engine    {}", backend.describe()));
        let mut bytes = 0;
        let made = compile(&artifacts, &backend, pictures.as_ref(), folder, |compiled| {
            let Compiled { graph, took, bytes: size } = compiled;
            bytes += size;
            note(format_args!(
                "compiled  {graph:18} {:7.2} s {:9.1} MB",
                took.as_secs_f64(),
                size as f64 / 1e6
            ));
        })?;
        let folder = folder.display();
        match made {
            Some(engines) => say(format_args!(
                "wrote {folder}: {:.1} MB for {}",
                bytes as f64 / 1e6,
                engines.compiled_for()
            ))?,
            None => say(format_args!("{folder} has just these engines already"))?,
        }
        Ok(())
    }

    /// The pictures that TensorRT builds for; none for plugins, whose engines are for any.
    fn pictures(&self, artifacts: &Artifacts) -> Result<Option<Pictures>> {
        let sizes: Vec<[usize; 2]> =
            self.image_size.chunks_exact(2).map(|size| [size[0], size[1]]).collect();
        if self.provider == Provider::TensorRt {
            let images = self.images.unwrap_or(1);
            return Ok(Some(Pictures::new(&artifacts.manifest, sizes, images)?));
        }
        if !sizes.is_empty() || self.images.is_some() {
            bail!(
                "--image-size and --images are for --provider tensorrt: engines of {} are for pictures of any \
                 size; leave them out",
                self.provider
            );
        }
        Ok(None)
    }
}
