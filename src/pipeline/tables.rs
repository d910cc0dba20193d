//! A request as the inputs of [`single`](hydit_graphs::single), the pipeline in one file: for hosts
//! that have no tokenizer of their own, no sampler and no cache policy.

use std::borrow::Cow;
use std::sync::Arc;

use hydit_graphs::Manifest;
use hydit_graphs::lora::GRAPHS;
use hydit_graphs::single::slot_name;
use hydit_input::tokenizer::{PaddedTokenizer, Tokens};

use super::cost::sizes;
use super::lora::{Matrices, matrices};
use super::{conditioner, rope, text};
use crate::artifacts::Artifacts;
use crate::cache::{Correction, Decision, Forecast, KEPT, RANK};
use crate::error::{Error, Result};
use crate::request::CheckedRequest;
use crate::sampler::TorchGenerator;

/// An input.
#[derive(Clone, Debug, PartialEq)]
pub struct Table {
    /// Name of the input.
    pub name: Cow<'static, str>,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Its numbers, row by row.
    pub numbers: Numbers,
}

/// The numbers of a [`Table`].
#[derive(Clone, Debug, PartialEq)]
pub enum Numbers {
    /// 32-bit floats.
    F32(Vec<f32>),
    /// 64-bit integers.
    I64(Vec<i64>),
    /// Truth values.
    Bool(Vec<bool>),
}

impl Numbers {
    /// Row by row, little-endian; a truth value is a byte.
    pub fn to_bytes(&self) -> Vec<u8> {
        match self {
            Numbers::F32(numbers) => numbers.iter().flat_map(|n| n.to_le_bytes()).collect(),
            Numbers::I64(numbers) => numbers.iter().flat_map(|n| n.to_le_bytes()).collect(),
            Numbers::Bool(numbers) => numbers.iter().map(|&n| u8::from(n)).collect(),
        }
    }
}

/// Makes the tables of requests for one model: it has the tokenizers, and needs no graph.
pub struct Tabulator {
    artifacts: Arc<Artifacts>,
    tokenizers: [Arc<PaddedTokenizer>; 2],
}

impl Tabulator {
    /// Reads the tokenizers of `artifacts`.
    ///
    /// # Errors
    /// When one is missing, was changed, or is of no use, or the model reads no texts.
    pub fn open(artifacts: impl Into<Arc<Artifacts>>) -> Result<Tabulator> {
        let artifacts = artifacts.into();
        artifacts.check_tokenizers()?;
        let tokenizers = text::tokenizers(&artifacts)?;
        Ok(Tabulator { artifacts, tokenizers })
    }

    /// The model.
    pub fn artifacts(&self) -> &Artifacts {
        &self.artifacts
    }

    /// The inputs of `request`, in the order in which the graph has them, and the fields whose text
    /// was longer than a tokenizer takes. A step without guidance has a guidance of 1, which
    /// gives the same image at twice the cost.
    ///
    /// # Errors
    /// [`Error::Tokenizer`], [`Error::Reactive`], or [`Error::Request`] for a picture that is made
    /// with ControlNets, an image prompt or perturbed attention.
    ///
    /// # Panics
    /// When the request was checked against another model.
    #[track_caller]
    pub fn tables(&self, request: &CheckedRequest) -> Result<(Vec<Table>, Vec<&'static str>)> {
        let Tabulator { artifacts, tokenizers: [bert, t5] } = self;
        assert!(request.is_for(artifacts), "the request was checked against another model");
        if !request.controls.is_empty() {
            let message = "the pipeline in one file has no inputs for ControlNets".to_string();
            return Err(Error::Request { field: "controls", message });
        }
        if request.image_prompt.is_some() {
            let message = "the pipeline in one file has no inputs for image prompts".to_string();
            return Err(Error::Request { field: "image_prompt", message });
        }
        if request.perturbed() {
            let message = "the pipeline in one file has no perturbed rows".to_string();
            return Err(Error::Request { field: "pag_scale", message });
        }
        let plan = request.planned()?;
        let manifest = &artifacts.manifest;
        let dit = manifest.model.transformer.hunyuan_dit().expect("it has tokenizers");
        let (images, sizes) = (request.num_images, sizes(manifest, request));
        let steps = request.sampler().timesteps().len();
        let mut tables = Vec::new();
        let mut table = |name, shape: &[usize], numbers| {
            tables.push(Table { name: Cow::from(name), shape: shape.to_vec(), numbers });
        };

        let mut cut = [false; 2];
        let prompts = [request.negative_prompt.as_str(), request.prompt.as_str()];
        let texts: Vec<&str> = prompts.into_iter().flat_map(|text| vec![text; images]).collect();
        for (tokenizer, ids_name, mask_name) in
            [(bert, "input_ids", "attention_mask"), (t5, "input_ids_t5", "attention_mask_t5")]
        {
            let Tokens { ids, mask, truncated } =
                tokenizer.tokenize(&texts).map_err(Error::Tokenizer)?;
            let shape = [2 * images, tokenizer.length()];
            table(ids_name, &shape, Numbers::I64(ids));
            table(mask_name, &shape, Numbers::I64(mask));
            cut = [0, 1].map(|i| cut[i] || truncated[i * images]);
        }
        if let Some((size, style)) = conditioner::style(manifest, request, 2 * images) {
            table("image_meta_size", &[2 * images, 6], Numbers::F32(size));
            table("style", &[2 * images], Numbers::I64(style));
        }

        let seeds = (0..images as u64).map(|image| TorchGenerator::new(request.seed + image));
        let mut generators: Vec<TorchGenerator> = seeds.collect();
        let shape = [images, dit.in_channels, sizes.height, sizes.width];
        let image = shape[1..].iter().product();
        // A generator draws all that it draws for the first latents before it goes on.
        let (mut sample, mut latents) = (Vec::new(), Vec::new());
        for generator in &mut generators {
            if request.init_image.is_some() {
                sample.extend(generator.randn(image));
            }
            latents.extend(generator.randn(image));
        }
        table("latents", &shape, Numbers::F32(latents));
        let mut draw = || generators.iter_mut().flat_map(|g| g.randn(image)).collect::<Vec<f32>>();
        let mut first = [request.sampler().init_noise_sigma()];
        request.sampler().scale_model_input(0, &mut first);
        table("init_noise_sigma", &[1], Numbers::F32(first.to_vec()));
        let coefficients = request.sampler().coefficients();
        let draws = coefficients.iter().any(|[.., noise]| *noise != 0.0);
        let noise: Vec<f32> = match draws {
            true => coefficients
                .iter()
                .flat_map(|&[.., noise]| match noise {
                    0.0 => vec![0.0; images * image],
                    _ => draw(),
                })
                .collect(),
            false => vec![0.0; images * image],
        };

        let grid = [sizes.grid_height, sizes.grid_width, dit.attention_head_dim];
        let (cos, sin) = rope::tables(grid[0], grid[1], grid[2], manifest.variant.rope_convention);
        table("cos", &grid, Numbers::F32(cos));
        table("sin", &grid, Numbers::F32(sin));
        let timesteps = request.sampler().timesteps();
        table("timesteps", &[steps], Numbers::F32(timesteps.to_vec()));
        let refresh = plan.iter().map(|decision| decision.refreshes()).collect();
        table("refresh", &[steps], Numbers::Bool(refresh));
        let stand_ins = plan.iter().flat_map(stand_in).collect();
        table("stand_ins", &[steps, KEPT], Numbers::F32(stand_ins));
        let aligned = Decision::Reuse(Forecast::ALIGNED);
        let aligned = plan.iter().map(|decision| *decision == aligned).collect();
        table("aligned", &[steps], Numbers::Bool(aligned));
        for (name, shape, numbers) in corrections(plan, dit.hidden_size) {
            table(name, &shape, numbers);
        }
        let width = coefficients[0].len();
        table("coefficients", &[steps, width], Numbers::F32(coefficients.concat()));
        let guided = request.guided_steps();
        let at_each = |inside: f32, outside: f32| {
            let at = |step| if guided.contains(&step) { inside } else { outside };
            Numbers::F32((0..steps).map(at).collect())
        };
        table("guidance", &[steps], at_each(request.guidance_scale, 1.0));
        table("guidance_rescale", &[steps], at_each(request.guidance_rescale, 0.0));
        let rows = if draws { steps } else { 1 };
        table("noise", &[&[rows], &shape[..]].concat(), Numbers::F32(noise));
        if manifest.has_image_encoder() {
            sample.resize(images * image, 0.0);
            table("sample", &shape, Numbers::F32(sample));
            tables.extend(from_image(manifest, request, first[0], [shape[2], shape[3]]));
        }
        for Matrices { graph, name, shape, numbers } in matrices(manifest, request.chosen_loras()) {
            let name = Cow::from(slot_name(GRAPHS[graph], name));
            tables.push(Table { name, shape: shape.to_vec(), numbers: Numbers::F32(numbers) });
        }
        let fields = ["negative_prompt", "prompt"].into_iter().zip(cut);
        let truncated = fields.filter(|(_, cut)| *cut).map(|(field, _)| field).collect();
        Ok((tables, truncated))
    }
}

/// The inputs for the image that `request` is made from, of latents of the size `[h, w]`; what stands
/// for one, where it is made from none. Latents that are noise alone are `alone` times the noise.
fn from_image(
    manifest: &Manifest,
    request: &CheckedRequest,
    alone: f32,
    [h, w]: [usize; 2],
) -> Vec<Table> {
    let (vae, levels) = (&manifest.model.vae, request.sampler().levels());
    let (mut shape, mut planes) = ([1, 3, vae.factor(), vae.factor()], None);
    let (mut begin, mut repaint) = ([0.0, alone], None);
    if let Some(init_image) = &request.init_image {
        let pixels = init_image.pixels();
        shape = [1, 3, request.height, request.width];
        planes = Some(pixels.planes());
        repaint = pixels.repaint_latents(vae.factor());
        if repaint.is_none() || init_image.strength < 1.0 {
            begin = levels[0];
        }
    }
    let planes = planes.unwrap_or_else(|| vec![0.0; shape.iter().product()]);
    let repaint = repaint.unwrap_or_else(|| vec![true; h * w]);
    let outside = levels[1..].iter().chain([&[1.0, 0.0]]).flatten().copied().collect();
    [
        ("from_image", vec![1], Numbers::Bool(vec![request.init_image.is_some()])),
        ("init_image", shape.to_vec(), Numbers::F32(planes)),
        ("begin", vec![2], Numbers::F32(begin.to_vec())),
        ("repaint", vec![1, 1, h, w], Numbers::Bool(repaint)),
        ("outside", vec![levels.len(), 2], Numbers::F32(outside)),
    ]
    .into_iter()
    .map(|(name, shape, numbers)| Table { name: Cow::from(name), shape, numbers })
    .collect()
}

/// The weights of the deep core's last outputs at a step.
fn stand_in(decision: &Decision) -> [f32; KEPT] {
    let mut weights = [0.0; KEPT];
    let used = decision.forecast().weights();
    weights[..used.len()].copy_from_slice(used);
    weights
}

/// What corrects the stand-ins of `plan`, a row a step; a row of zeros if nothing does.
fn corrections(plan: &[Decision], hidden: usize) -> [(&'static str, [usize; 3], Numbers); 2] {
    let found: Vec<Option<&Correction>> = plan.iter().map(Decision::correction).collect();
    let (rows, rank) = match found.iter().any(Option::is_some) {
        true => (plan.len(), RANK),
        false => (1, 1),
    };
    let numbers = |factor: fn(&Correction) -> &[f32]| {
        let mut numbers = vec![0.0; rows * hidden * rank];
        for (row, correction) in numbers.chunks_exact_mut(hidden * rank).zip(&found) {
            if let Some(correction) = correction {
                row.copy_from_slice(factor(correction));
            }
        }
        Numbers::F32(numbers)
    };
    [
        ("correction_down", [rows, hidden, rank], numbers(Correction::down)),
        ("correction_up", [rows, rank, hidden], numbers(Correction::up)),
    ]
}
