//! What is loaded once: a model on an engine, checked before anything is measured.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use hydit::artifacts::Artifacts;
use hydit::cache::CachePolicy;
use hydit::pipeline::batch::rows_together;
use hydit::pipeline::cost::sizes;
use hydit::runtime::{BackendChoice, Provider, RuntimeOptions};
use hydit::timing::Stage;
use hydit::{CheckedRequest, Pipeline, Request};
use hydit_graphs::manifest::GraphEntry;
use hydit_graphs::{Manifest, Sizes};

use crate::cmd::control::ControlChoice;
use crate::cmd::flags::{LoraFlags, flags_of};
use crate::engine::{self, provider_flags};

/// A model on an engine, with the request that its variants share.
pub struct Setup {
    pub artifacts: Artifacts,
    /// Never `auto`.
    pub options: RuntimeOptions,
    /// "ONNX Runtime 1.31.1, cpu provider"
    pub engine: String,
    pub threads: usize,
    pub request: Request,
    lora_dir: Option<PathBuf>,
    controls: Vec<ControlChoice>,
    /// The request with each policy.
    pub variants: Vec<CheckedRequest>,
}

/// Opens every engine once. A GPU's first: of several ONNX Runtime libraries the process loads one,
/// and one with GPU providers has the CPU as well.
pub fn check_engines(engines: &[RuntimeOptions]) -> Result<()> {
    let (cpu, gpu): (Vec<_>, Vec<_>) =
        engines.iter().partition(|options| options.provider == Provider::Cpu);
    let mut of_tract = Vec::new();
    for options in gpu.into_iter().chain(cpu) {
        if engine::open(options)?.ort_provider().is_none() {
            of_tract.push(options.threads);
        }
    }
    if of_tract.iter().any(|threads| *threads != of_tract[0]) {
        bail!("--threads: tract has one thread; give one count, or leave tract out");
    }
    Ok(())
}

impl Setup {
    /// Fails, naming the model, if the backend of `options` is not available, if its engine cannot
    /// run the model, or if the model cannot draw what `request` gives.
    pub fn new(
        model: &Path,
        options: &RuntimeOptions,
        policies: &[CachePolicy],
        loras: &LoraFlags,
        controls: &[ControlChoice],
        request: impl FnOnce(&Manifest) -> Result<Request>,
    ) -> Result<Setup> {
        let artifacts = Artifacts::open(model)?.with_loras(loras.lora_dir.as_deref())?;
        let backend = engine::open(options)?;
        artifacts.check_engine(&backend)?;
        artifacts.check_code()?;
        let name = || model.display().to_string();
        let request = request(&artifacts.manifest).with_context(name)?;
        if !request.guidance_interval.is_whole() {
            bail!(
                "--guidance-interval: bench times graphs by their calls, which are to be of one size"
            );
        }
        let mut variants = Vec::with_capacity(policies.len());
        for cache_policy in policies {
            let variant = Request { cache_policy: cache_policy.clone(), ..request.clone() };
            variants.push(variant.check(&artifacts).with_context(name)?);
        }
        let chosen = match backend.ort_provider() {
            Some(_) => BackendChoice::Ort,
            None => BackendChoice::Tract,
        };
        Ok(Setup {
            artifacts,
            options: RuntimeOptions { backend: chosen, ..options.clone() },
            engine: backend.name(),
            threads: backend.threads(),
            request,
            lora_dir: loras.lora_dir.clone(),
            controls: controls.to_vec(),
            variants,
        })
    }

    /// Loads the model.
    pub fn load(&self) -> Result<Pipeline> {
        let backend = engine::open(&self.options)?;
        Ok(Pipeline::load(&self.artifacts.path, backend)?)
    }

    pub fn manifest(&self) -> &Manifest {
        &self.artifacts.manifest
    }

    pub fn sizes(&self) -> Sizes {
        sizes(self.manifest(), &self.request)
    }

    /// Bytes of the weights that the pipeline loads.
    pub fn weights(&self) -> u64 {
        let Manifest { graphs, files, .. } = self.manifest();
        let controls = &self.request.controls;
        let used = |graph: &&GraphEntry| match graph.name.as_str() {
            "full" | "image-encoder" => false,
            "vae-encoder" => !controls.is_empty(),
            name => match name.strip_prefix("control-").and_then(|name| name.rsplit_once('-')) {
                Some((net, _)) => controls.iter().any(|control| control.name == net),
                None => true,
            },
        };
        let loaded = graphs.iter().filter(used);
        let weights: BTreeSet<&String> = loaded.flat_map(GraphEntry::weights).collect();
        weights.into_iter().map(|name| files[name].bytes).sum()
    }

    /// Operations of one call of `stage`; none for what is no graph.
    pub fn flops(&self, stage: Stage) -> Option<f64> {
        let sizes = self.sizes();
        let texts = if self.request.guided() { 2 } else { 1 };
        let (graphs, batch): (&[&str], usize) = match stage {
            Stage::TextEncoders => (&["text-encoder", "text-encoder-2"], texts),
            Stage::Conditioner => match rows_together(self.options.provider, &sizes) {
                1 => (&["conditioner"], self.request.rows_per_image()),
                all => (&["conditioner"], all),
            },
            Stage::Encoder => (&["shallow-encoder"], sizes.batch),
            Stage::Core => (&["deep-core"], sizes.batch),
            Stage::Decoder => (&["shallow-decoder"], sizes.batch),
            Stage::ImageEncoder => (&["image-encoder"], 1), // picture by picture
            Stage::VaeEncoder => (&["vae-encoder"], 1),
            Stage::Vae => (&["vae-decoder"], 1),
            // Each net has two graphs of its own.
            Stage::ControlNets => return None,
            Stage::Load | Stage::Policy | Stage::Sampler | Stage::Png => return None,
        };
        let sizes = Sizes { batch, ..sizes };
        Some(graphs.iter().map(|graph| self.manifest().flops(graph, &sizes)).sum())
    }

    /// The flags of `hydit-serve generate` that draw the picture of a variant.
    pub fn flags(&self, policy: &CachePolicy, output: &Path) -> Vec<OsString> {
        let Setup { request, options, .. } = self;
        let mut flags: Vec<OsString> = vec!["generate".into(), "--json".into()];
        flags.extend(flags_of(&Request { cache_policy: policy.clone(), ..request.clone() }));
        let mut add = |flag: &str, value: OsString| {
            let mut joined = OsString::from(format!("{flag}="));
            joined.push(value);
            flags.push(joined);
        };
        add("--model", path(&self.artifacts.path));
        add("--output", path(output));
        add("--backend", options.backend.to_string().into());
        for lora in &request.loras {
            add("--lora", format!("{}:{}", lora.name, lora.weight).into());
        }
        if !request.controls.is_empty() {
            for control in &self.controls {
                add("--control", control.to_string().into());
            }
        }
        if let Some(folder) = &self.lora_dir {
            add("--lora-dir", path(folder));
        }
        if let Some(threads) = options.threads {
            add("--threads", threads.to_string().into());
        }
        flags.extend(provider_flags(options));
        flags
    }
}

fn path(path: &Path) -> OsString {
    PathBuf::from(path).into_os_string()
}
