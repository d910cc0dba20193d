//! Flags that subcommands share. They become a [`Request`] and [`RuntimeOptions`].

use std::ffi::OsString;
use std::num::NonZeroU32;
use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::Args;
use hydit::artifacts::Artifacts;
use hydit::cache::{CachePolicy, GAP};
use hydit::class_label::Classes;
use hydit::guidance::GuidanceInterval;
use hydit::lora::LoraChoice;
use hydit::request::{Parameters, spacing_of};
use hydit::runtime::{PluginOptions, Provider, RuntimeOptions};
use hydit::sampler::{SamplerKind, Spacing};
use hydit::{Pipeline, Request};
use hydit_graphs::Manifest;
use hydit_terminal::note;
use serde::Serialize;
use serde_json::{Map, Value};

use super::init_image::InitFiles;
use crate::backend::Backend;
use crate::choice::choice;
use crate::engine::{self, PluginFlags, provider};
use crate::seed;
use crate::triton::Address;

/// What to draw and when the deep core runs. Where a flag is not given, the picture of `--from` or
/// the model's defaults hold.
#[derive(Args)]
pub struct RequestFlags {
    #[command(flatten)]
    image: ImageFlags,
    #[command(flatten)]
    cache: CacheFlags,
}

/// What to draw. But for the size, a field has the name of the [`Request`]'s field that it sets.
#[derive(Args, Serialize)]
pub struct ImageFlags {
    /// Picture size in pixels, multiples of 16.
    #[arg(long, num_args = 2, value_names = ["HEIGHT", "WIDTH"])]
    #[serde(skip)]
    image_size: Option<Vec<usize>>,
    /// Draw the size that the model was trained for and whose shape is nearest to --image-size.
    #[arg(long)]
    #[serde(skip)]
    snap_size: bool,
    /// Denoising steps.
    #[arg(long = "infer-steps", value_name = "N")]
    steps: Option<usize>,
    /// Guidance scale; at 1 or below the negative prompt is not used.
    #[arg(long = "cfg-scale", value_name = "SCALE", value_parser = finite)]
    guidance_scale: Option<f32>,
    /// Share of the guided prediction rescaled to the conditional one's spread, 0 to 1.
    #[arg(long, value_name = "SHARE", value_parser = finite)]
    guidance_rescale: Option<f32>,
    /// Part of the steps that are guided, as shares of all; at the others the negative half is not
    /// computed.
    #[arg(long, value_name = "START:STOP")]
    guidance_interval: Option<GuidanceInterval>,
    /// Scale of perturbed-attention guidance, such as 3: a third more work a guided step. The model
    /// must have been exported with --pag-layers.
    #[arg(long, value_name = "SCALE", value_parser = finite)]
    pag_scale: Option<f32>,
    /// How much less --pag-scale is for each timestep below 1000, down to 0, such as 0.003: the last
    /// steps are left alone [default: 0].
    #[arg(long, value_name = "SCALE", value_parser = finite)]
    pag_adaptive_scale: Option<f32>,
    /// Sampler.
    #[arg(long, value_parser = choice::<SamplerKind>())]
    sampler: Option<SamplerKind>,
    /// Timestep spacing of the sampler: leading, linspace, trailing or karras, which is for dpmms, unipc
    /// and euler; lcm has trailing alone.
    #[arg(long)]
    spacing: Option<Spacing>,
    /// Seed of the first picture, as torch.Generator("cpu").manual_seed, or -1 for one at random;
    /// picture i has seed + i.
    #[arg(long, value_parser = seed::parse, allow_hyphen_values = true)]
    seed: Option<u64>,
    /// Pictures, each of its own seed.
    #[arg(long = "batch-size", visible_alias = "seeds", value_name = "N")]
    num_images: Option<usize>,
}

/// When the deep core runs.
#[derive(Args)]
pub struct CacheFlags {
    /// Reuse the deep core's output between refresh steps (Skip-Cache). With nothing more said:
    /// auto:35dB if the model was calibrated for the sampler and the steps, else N2.
    #[arg(long)]
    pub use_cache: bool,
    /// Refresh every N-th step [default: 2].
    #[arg(long, value_name = "N", requires = "use_cache")]
    cache_step: Option<NonZeroU32>,
    /// Refresh all steps at this timestep or above [default: 700, of DiTs 1000].
    #[arg(long, value_name = "T", requires = "use_cache")]
    cache_start: Option<u32>,
    /// Refresh all steps after one at this timestep or below [default: 50, of DiTs 20].
    #[arg(long, value_name = "T", requires = "use_cache")]
    cache_close: Option<u32>,
    /// Any policy: off, N2-700-50, auto:35dB, auto:8runs, schedule:FILE, probe:0.3; all but off may
    /// end in +taylor1 or +taylor2, and all but off and probe in +align.
    #[arg(long, value_name = "POLICY", conflicts_with = "use_cache")]
    cache_policy: Option<CachePolicy>,
}

impl CacheFlags {
    /// The policy that the flags name for `request` of the model of `artifacts`; none without a
    /// flag.
    fn policy(&self, artifacts: &Artifacts, request: &Request) -> Option<CachePolicy> {
        if !self.use_cache {
            return self.cache_policy.clone();
        }
        let (folder, defaults) = (&artifacts.path, &artifacts.manifest.variant.cache);
        let (step, start, close) = (self.cache_step, self.cache_start, self.cache_close);
        if step.is_none() && start.is_none() && close.is_none() {
            let Request { sampler, spacing, steps, .. } = *request;
            let skipped = steps - request.steps_taken();
            return Some(CachePolicy::usual(folder, defaults, sampler, spacing, steps, skipped));
        }
        Some(CachePolicy::interval(
            step.unwrap_or(GAP),
            start.unwrap_or(defaults.start),
            close.unwrap_or(defaults.close),
        ))
    }
}

impl RequestFlags {
    /// Makes the request that the flags ask of the model of `artifacts`, from the image in `init` if
    /// there is one; what no flag names is as in `from`, or as the model's defaults.
    pub fn request(
        &self,
        artifacts: &Artifacts,
        prompt: &str,
        negative: Option<&str>,
        from: Option<&Parameters>,
        init: Option<&InitFiles>,
    ) -> Result<Request> {
        let manifest = &artifacts.manifest;
        let mut request = match from {
            Some(from) => Request { prompt: prompt.to_string(), ..from.request.clone() },
            None => Request::new(manifest, prompt)?,
        };
        if let (Some(init), None) = (init, from) {
            init.set_size(&mut request, artifacts);
        }
        if manifest.model.draws_classes() {
            let named = Classes::named(&request.prompt).count();
            request.num_images = request.num_images.max(named);
        }
        self.image.set(&mut request, manifest, negative)?;
        request.check_size(manifest)?;
        request.init_image = init.map(|init| init.fit(&request));
        if let Some(policy) = self.cache.policy(artifacts, &request) {
            request.cache_policy = policy;
        } else if let Some(file) = request.cache_policy.file() {
            // Whoever made the image may have named any file of this machine.
            bail!(
                "--from: the image was drawn by a schedule in the file {file:?}, which is not opened \
                 for an image: name it with --cache-policy schedule:FILE, or another policy"
            );
        }
        Ok(request)
    }
}

impl ImageFlags {
    /// Sets what the flags name in `request`, which is for the model of `manifest`.
    ///
    /// # Errors
    /// The size shall be snapped, and the model was trained for none that is known.
    pub fn set(
        &self,
        request: &mut Request,
        manifest: &Manifest,
        negative: Option<&str>,
    ) -> Result<()> {
        if let Some(negative) = negative {
            request.negative_prompt = negative.to_string();
        }
        if let Some([height, width]) = self.image_size.as_deref() {
            (request.height, request.width) = (*height, *width);
        }
        if self.snap_size {
            snap(request, manifest)?;
        }
        if let Some(sampler) = self.sampler {
            request.sampler = sampler;
            request.spacing = spacing_of(manifest, sampler);
        }
        let mut fields = fields_of(request);
        fields.extend(fields_of(self).into_iter().filter(|(_, value)| !value.is_null()));
        *request = serde_json::from_value(Value::Object(fields))
            .expect("a flag has the type of the field that it sets");
        Ok(())
    }
}

/// Gives `request` the nearest size that the model was trained for, and says so.
fn snap(request: &mut Request, manifest: &Manifest) -> Result<()> {
    let asked = [request.height, request.width];
    let Some(size) = manifest.variant.nearest_size(asked) else {
        bail!("--snap-size: the variant {} names no sizes to choose from", manifest.variant.name);
    };
    if size != asked {
        let [[asked_height, asked_width], [height, width]] = [asked, size];
        note(format_args!("note: {asked_height}x{asked_width} becomes {height}x{width}"));
        [request.height, request.width] = size;
    }
    Ok(())
}

/// The flags of `hydit-serve generate` that ask for `request`.
pub fn flags_of(request: &Request) -> Vec<OsString> {
    let size = [request.height, request.width].map(|side| side.to_string().into());
    let mut flags = vec![OsString::from("--image-size")];
    flags.extend(size);
    for (field, value) in fields_of(request) {
        let flag = match field.as_str() {
            "width" | "height" | "loras" | "controls" | "image_prompt" => continue,
            "negative_prompt" => "negative".to_string(),
            "steps" => "infer-steps".to_string(),
            "guidance_scale" => "cfg-scale".to_string(),
            "num_images" => "batch-size".to_string(),
            field => field.replace('_', "-"),
        };
        // Joined by `=`, since a prompt may begin with a dash.
        flags.push(match value {
            Value::String(text) => format!("--{flag}={text}").into(),
            number => format!("--{flag}={number}").into(),
        });
    }
    flags
}

fn fields_of(value: &impl Serialize) -> Map<String, Value> {
    match serde_json::to_value(value).expect("strings and numbers are valid JSON") {
        Value::Object(fields) => fields,
        _ => unreachable!("a struct is an object"),
    }
}

/// `text` without the weight behind its last colon, and that weight; all of it, where no number is
/// there.
pub fn split_weight(text: &str) -> (&str, Option<f32>) {
    let weighted =
        text.rsplit_once(':').and_then(|(rest, weight)| Some((rest, weight.parse().ok()?)));
    weighted.map_or((text, None), |(rest, weight)| (rest, Some(weight)))
}

fn finite(text: &str) -> Result<f32, String> {
    match text.parse::<f32>() {
        Ok(number) if number.is_finite() => Ok(number),
        _ => Err("expected a number".to_string()),
    }
}

/// The LoRAs of a request.
#[derive(Args)]
pub struct LoraFlags {
    /// LoRA to draw with, by its name in --lora-dir, with its weight after a colon if that is not 1;
    /// again for each. The model must have been exported with --lora-slots.
    #[arg(long, value_name = "NAME[:WEIGHT]")]
    lora: Vec<LoraChoice>,
    /// Folder of LoRAs: NAME.safetensors, or a folder NAME in which PEFT saved one.
    #[arg(long, value_name = "DIR")]
    pub lora_dir: Option<PathBuf>,
}

impl LoraFlags {
    /// Sets the LoRAs of `request`, if any are named.
    pub fn set(&self, request: &mut Request) {
        if !self.lora.is_empty() {
            request.loras.clone_from(&self.lora);
        }
    }
}

/// What to run on.
#[derive(Args)]
pub struct EngineFlags {
    /// Engine: ONNX Runtime where it is found, else tract; or one of them and nothing else.
    #[arg(long, value_parser = choice::<Backend>(), default_value_t = Backend::Auto)]
    backend: Backend,
    /// Where ONNX Runtime computes: cpu, cuda, cuda:graphs, tensorrt, or a plugin: openvino,
    /// openvino:bf16, tensorrt-rtx, webgpu, or another with --ep-library.
    #[arg(long, value_parser = provider, default_value_t = Provider::Cpu)]
    provider: Provider,
    #[command(flatten)]
    plugin: PluginFlags,
    /// Folder of engines that hydit-serve compile has made of the model, for the plugin that --provider
    /// names or for tensorrt: it starts in a part of the time.
    #[arg(long, value_name = "DIR")]
    engines: Option<PathBuf>,
    /// With --provider tensorrt: draw pictures that --engines has no engines for, after minutes in which
    /// TensorRT builds them in that folder.
    #[arg(long, requires = "engines")]
    allow_build: bool,
    /// Threads of ONNX Runtime; all physical cores if not given.
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// Memory before speed: hold one part of the model at a time, load each when it is needed.
    #[arg(long)]
    low_memory: bool,
}

impl EngineFlags {
    /// The engine, and the model of `artifacts` on it, compiled ahead if the flags say so.
    ///
    /// # Errors
    /// As [`EngineFlags::options`] and [`EngineFlags::with_engines`]; the engine is not available, or the
    /// compiled graphs are not for it.
    pub fn load(&self, artifacts: Artifacts) -> Result<Pipeline> {
        let artifacts = self.with_engines(artifacts)?;
        let backend = engine::open(&self.options()?)?;
        note(format_args!("engine    {}", backend.describe()));
        let artifacts = engine::renewed(artifacts, &backend, |line| note(line))?;
        Ok(Pipeline::open(artifacts, backend)?)
    }

    /// The same `artifacts` with the engines that the flags name, of which requests should know.
    ///
    /// # Errors
    /// The folder has none, or the provider builds none.
    pub fn with_engines(&self, artifacts: Artifacts) -> Result<Artifacts> {
        if self.allow_build && self.provider != Provider::TensorRt {
            bail!("--allow-build: only --provider tensorrt builds engines while it draws");
        }
        let artifacts = artifacts.with_engines(self.engines.as_deref())?;
        Ok(artifacts.allowing_builds(self.allow_build))
    }

    /// The flags as options of the runtime.
    ///
    /// # Errors
    /// Tritons shall draw, and not an engine in this program.
    pub fn options(&self) -> Result<RuntimeOptions> {
        let EngineFlags { backend, provider, threads, low_memory, .. } = *self;
        let plugin = self.plugin.options();
        let Some(backend) = backend.engine() else {
            bail!(
                "--backend triton: Triton draws whole pictures and tells nothing of their steps; only \
                 generate and serve take it"
            );
        };
        Ok(RuntimeOptions { backend, provider, plugin, threads, low_memory, engines: None })
    }
}

/// Which Tritons draw.
#[derive(Args)]
pub struct TritonFlags {
    /// With --backend triton: where the Tritons are that have a repository of hydit-export triton.
    /// Repeatable, or separated by commas.
    #[arg(long, value_name = "grpc://HOST:PORT", value_delimiter = ',')]
    triton: Vec<Address>,
}

impl TritonFlags {
    /// The addresses, if Tritons shall draw.
    ///
    /// # Errors
    /// When flags are given that go together with another backend only.
    pub fn addresses(&self, engine: &EngineFlags) -> Result<Option<&[Address]>> {
        let EngineFlags { backend, provider, threads, low_memory, .. } = *engine;
        match (backend, self.triton.is_empty()) {
            (Backend::Triton, true) => {
                bail!("--backend triton: name a Triton, by --triton grpc://HOST:8001")
            }
            (Backend::Triton, false) => {
                let local = [
                    ("--provider", provider != Provider::Cpu),
                    ("--ep-*", engine.plugin.options() != PluginOptions::default()),
                    ("--engines", engine.engines.is_some()),
                    ("--threads", threads.is_some()),
                    ("--low-memory", low_memory),
                ];
                if let Some((flag, _)) = local.iter().find(|(_, given)| *given) {
                    bail!(
                        "{flag} is for an engine in this program: leave it out with --backend triton"
                    );
                }
                Ok(Some(&self.triton))
            }
            (_, true) => Ok(None),
            (_, false) => bail!("--triton: add --backend triton"),
        }
    }
}
