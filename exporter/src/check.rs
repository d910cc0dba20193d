//! The command `check`: from headers alone, what a checkpoint is and what its export would need.

use std::fmt::Write;
use std::path::Path;

use hydit_graphs::config::TransformerConfig;
use hydit_graphs::lora::stacks;
use hydit_graphs::manifest::ModelConfig;
use hydit_graphs::{GraphDef, Precision};
use hydit_input::{error_chain, quoted};
use hydit_lora::{Adapter, Change, Layers, MOST_UNFIT};
use serde::Serialize;

use crate::checkpoint::{Checkpoint, Layout};
use crate::error::Result;
use crate::inspect::scaled;
use crate::options::Options;
use crate::report::TensorReport;
use crate::{classes, graphs, lora, variants};
use hydit_graphs::Component;
use hydit_graphs::naming::Naming;

/// What a checkpoint is.
#[derive(Debug, Serialize)]
pub struct Summary {
    /// The path that was given.
    pub checkpoint: String,
    /// The base that was given, which has what the checkpoint lacks.
    pub base: Option<String>,
    /// The `--weights-variant` that was given.
    pub weights_variant: Option<String>,
    /// How it is laid out: `diffusers`, `tencent`, `part` or `file`.
    pub layout: Layout,
    /// The variant as which it would be exported, if its configs tell.
    pub variant: Option<String>,
    /// The transformer's number of blocks and width, and the reference that is followed.
    pub model: Option<Model>,
    /// The parts with weights, as far as they are there.
    pub parts: Vec<Part>,
    /// The parts that are missing.
    pub missing: Vec<String>,
    /// What else keeps it from being exported, one line each.
    pub problems: Vec<String>,
    /// The LoRAs that were named, beside the layers of the checkpoint. There are none where the
    /// checkpoint cannot be exported.
    pub loras: Vec<Lora>,
    /// The bytes of an export, by number format.
    pub exports: Vec<Weight>,
}

/// What a LoRA would change.
#[derive(Debug, Serialize)]
pub struct Lora {
    /// The path that was given.
    pub file: String,
    /// The largest rank of its changes.
    pub rank: usize,
    /// The components that it changes.
    pub changes: Vec<Changes>,
    /// Whether all that it changes has slots, so that requests can choose it.
    pub fits_slots: bool,
    /// What changes no layer of the checkpoint, a line for each of the first 20 layers of the file.
    pub unfit: Vec<String>,
}

/// How much of a component a LoRA changes.
#[derive(Debug, Serialize)]
pub struct Changes {
    /// Its name in diffusers' layout.
    pub component: &'static str,
    /// Number of layers that are changed.
    pub layers: usize,
    /// Number of all its layers.
    pub of: usize,
}

/// What the configs say.
#[derive(Debug, Serialize)]
pub struct Model {
    /// Number of blocks of the transformer.
    pub blocks: usize,
    /// Width of the residual stream.
    pub width: usize,
    /// Number of classes, of a model that draws them.
    pub classes: Option<usize>,
    /// Noise of the last training step.
    pub beta_end: f64,
    /// The reference that the export follows where the two differ.
    pub reading: hydit_graphs::variant::RopeConvention,
    /// Size of the image by default, `[height, width]` in pixels.
    pub image_size: [usize; 2],
    /// Number of steps by default.
    pub steps: usize,
}

/// A part with weights.
#[derive(Debug, Serialize)]
pub struct Part {
    /// Its name in diffusers' layout.
    pub name: &'static str,
    /// The first of its files.
    pub file: String,
    /// Number of its files.
    pub files: usize,
    /// Number of elements that text-to-image needs.
    pub parameters: u64,
    /// Their element types, such as `F16`.
    pub dtypes: Vec<String>,
    /// Whose names its tensors have.
    pub names: Naming,
}

/// The size of an export.
#[derive(Debug, Serialize)]
pub struct Weight {
    /// The number format of the large matrices.
    pub dtype: Precision,
    /// Bytes of its weights.
    pub bytes: u64,
}

/// Looks at the checkpoint of `options` and its base.
///
/// # Errors
/// There is no checkpoint at all.
pub fn check(options: &Options) -> Result<Summary> {
    let Options { base, weights_variant, .. } = options;
    let checkpoint =
        Checkpoint::find(&options.checkpoint, base.as_deref(), weights_variant.as_deref())?;
    let mut summary = Summary {
        checkpoint: options.checkpoint.display().to_string(),
        base: base.as_ref().map(|base| base.display().to_string()),
        weights_variant: weights_variant.clone(),
        layout: checkpoint.layout(),
        variant: None,
        model: None,
        parts: Vec::new(),
        missing: checkpoint.absent().into_iter().map(str::to_string).collect(),
        problems: Vec::new(),
        loras: Vec::new(),
        exports: Vec::new(),
    };
    for lora in &options.loras {
        lora::check_there(Path::new(&lora.name))?;
    }
    let mut weights = Vec::new();
    for component in Component::ALL.into_iter().filter(|part| checkpoint.has(*part)) {
        match checkpoint.weights(component) {
            Err(error) => summary.problems.push(error_chain(&error)),
            Ok(opened) => {
                summary.parts.push(part(&opened));
                weights.push(opened);
            }
        }
    }
    let config = match checkpoint.config() {
        _ if !summary.missing.is_empty() => return Ok(summary),
        Err(error) => {
            summary.problems.push(error_chain(&error));
            return Ok(summary);
        }
        Ok(config) => config,
    };
    let naming = summary.parts.iter().find(|part| part.name == "transformer");
    let naming = naming.map_or(Naming::Diffusers, |part| part.names);
    let mut n = 1;
    match variants::choose(options, &config, &checkpoint.names()) {
        Err(error) => summary.problems.push(error_chain(&error)),
        Ok(variant) => {
            let variant = variants::read_as(options, naming, variant);
            n = variants::cut(options, &config, &variant);
            summary.model = Some(Model {
                blocks: config.transformer.shape().num_layers,
                width: config.transformer.shape().hidden_size,
                classes: config.transformer.shape().num_classes,
                beta_end: config.scheduler.beta_end,
                reading: variant.rope_convention,
                image_size: variant.defaults.image_size,
                steps: variant.defaults.steps,
            });
            summary.variant = Some(variant.name);
        }
    }
    let mut report = TensorReport::default();
    let graphs = graphs::build(options, &config, n, None);
    for (component, graphs) in &graphs {
        if let Some(found) = weights.iter().find(|found| found.component() == *component) {
            found.compare(graphs.iter(), &mut report);
        }
    }
    let layers = lora::layers(&graphs);
    for lora in &options.loras {
        summary.loras.push(check_lora(&lora.name, &layers, &config.transformer)?);
    }
    if let Err(report) = report.check() {
        summary.problems.push(report.to_string());
    }
    if let Some(count) = config.transformer.shape().num_classes {
        let named = classes::names(&checkpoint, count);
        summary.problems.extend(named.err().map(|error| error_chain(&error)));
    }
    let texts = config.hunyuan_dit().map(|(dit, bert, t5)| {
        [(0, dit.text_len, bert.vocab_size), (1, dit.text_len_t5, t5.vocab_size)]
    });
    for (index, length, rows) in texts.into_iter().flatten() {
        let checked = checkpoint.tokenizer(index).and_then(|one| one.check(length, rows));
        summary.problems.extend(checked.err().map(|error| error_chain(&error)));
    }
    summary.exports =
        Precision::ALL.iter().map(|&dtype| weight(options, &config, n, dtype)).collect();
    Ok(summary)
}

/// Holds the LoRA at `path` against the `layers` of the checkpoint.
fn check_lora(path: &str, layers: &Layers, transformer: &TransformerConfig) -> Result<Lora> {
    let (adapter, unfit) = Adapter::survey(Path::new(path), layers)?;
    let slots: Vec<String> = ["conditioner", "full"]
        .iter()
        .flat_map(|graph| transformer.hunyuan_dit().map(|dit| stacks(graph, dit, 1)))
        .flatten()
        .flat_map(|stack| stack.modules)
        .collect();
    let has_slot = |change: &Change| slots.contains(&change.module);
    let changes = lora::changed(&adapter, layers).into_iter();
    Ok(Lora {
        file: path.to_string(),
        rank: adapter.rank(),
        changes: changes
            .map(|(part, layers, of)| Changes { component: part.folder(), layers, of })
            .collect(),
        fits_slots: unfit.is_empty() && adapter.changes.iter().all(has_slot),
        unfit,
    })
}

fn part(weights: &crate::CheckpointWeights) -> Part {
    let parameters = weights.parameters();
    let mut files = weights.files();
    Part {
        name: weights.component().folder(),
        file: files.next().map_or(String::new(), |file| file.path.display().to_string()),
        files: 1 + files.count(),
        parameters: parameters.values().sum(),
        dtypes: parameters.into_keys().collect(),
        names: weights.naming(),
    }
}

fn weight(options: &Options, config: &ModelConfig, n: usize, precision: Precision) -> Weight {
    let options = Options { precision, ..options.clone() };
    let graphs = graphs::build(&options, config, n, None);
    let end = |graph: &GraphDef| graph.layout().last().map(|(_, end)| end.offset + end.length);
    let ends = graphs.iter().flat_map(|(_, graphs)| graphs).filter_map(end);
    Weight { dtype: precision, bytes: ends.sum() }
}

impl Summary {
    /// Whether it can be exported as it is.
    pub fn is_whole(&self) -> bool {
        self.missing.is_empty() && self.problems.is_empty()
    }

    /// A screen for people.
    pub fn text(&self) -> String {
        let mut out = format!("{}: {}\n", self.checkpoint, self.headline());
        if let Some(model) = &self.model {
            let [height, width] = model.image_size;
            let _ = writeln!(
                out,
                "{} blocks of width {}, trained with beta_end {}; by default {height}x{width} in \
                 {} steps, as {} does",
                model.blocks,
                model.width,
                model.beta_end,
                model.steps,
                match model.reading {
                    hydit_graphs::variant::RopeConvention::Diffusers => "diffusers",
                    hydit_graphs::variant::RopeConvention::Tencent => "Tencent's code",
                }
            );
        }
        out.push('\n');
        for Part { name, file, files, parameters, dtypes, .. } in &self.parts {
            let count = scaled(*parameters as f64, ["", " K", " M", " G"], 1000.0);
            let more = if *files > 1 { format!(" and {} more", files - 1) } else { String::new() };
            let dtypes = dtypes.join("+").to_lowercase();
            let _ = writeln!(out, "  {name:16}{count:>9}  {dtypes:10}  {file}{more}");
        }
        for name in &self.missing {
            let _ = writeln!(out, "  {name:16}  missing");
        }
        if !self.missing.is_empty() {
            out.push_str(
                "\nTake what is missing from a checkpoint that has it: --base DIR (any Hunyuan-DiT \
                 in diffusers' or Tencent's folder)\n",
            );
        }
        for problem in &self.problems {
            let _ = writeln!(out, "\nproblem: {problem}");
        }
        for lora in &self.loras {
            out.push('\n');
            out += &lora.text();
        }
        if self.is_whole() {
            out.push_str("\nAn export weighs, with --dtype\n");
            for Weight { dtype, bytes } in &self.exports {
                let size = scaled(*bytes as f64, [" B", " KiB", " MiB", " GiB"], 1024.0);
                let _ = writeln!(out, "  {:6}{size:>10}", dtype.to_string());
            }
            let _ = write!(out, "\nNext:\n{}", self.commands());
        }
        out
    }

    fn headline(&self) -> String {
        let layout = match self.layout {
            Layout::Diffusers => "in diffusers' layout",
            Layout::Tencent => "in Tencent's layout",
            Layout::Part => "the folder of one part",
            Layout::File if self.parts.len() > 1 => "one file with several parts",
            Layout::File => "a file with one part",
        };
        let name = match self.variant.as_deref() {
            // Nothing but the name of their repository tells the two apart.
            Some("hunyuan-dit-v1.1") => "Hunyuan-DiT v1.0 or v1.1",
            Some("hunyuan-dit-v1.2") => "Hunyuan-DiT v1.2",
            Some("hunyuan-dit-v1.1-distilled") => "Hunyuan-DiT v1.1, distilled",
            Some("hunyuan-dit-v1.2-distilled") => "Hunyuan-DiT v1.2, distilled",
            Some("dit") => "DiT, class to image",
            Some("skip-dit") => "Skip-DiT, class to image",
            Some("generic") => "a Hunyuan-DiT of another shape",
            Some(other) => other,
            None => "a Hunyuan-DiT",
        };
        format!("{name}, {layout}")
    }

    /// The commands that lead to a picture.
    fn commands(&self) -> String {
        let name = Path::new(&self.checkpoint).file_stem().map(|name| name.to_string_lossy());
        let name =
            name.filter(|name| name.chars().all(|c| c.is_alphanumeric() || "-_.".contains(c)));
        let name = name.as_deref().unwrap_or("model");
        let given = [("base", &self.base), ("weights-variant", &self.weights_variant)];
        let given = given.into_iter().filter_map(|(flag, value)| {
            value.as_ref().map(|value| format!(" --{flag} {}", quoted(value)))
        });
        let checkpoint = quoted(&self.checkpoint) + &given.collect::<String>();
        let out = Path::new("artifacts").join(name);
        let draw = draw(&out, self.model.as_ref().is_some_and(|model| model.classes.is_some()));
        let out = quoted(&out.to_string_lossy());
        format!("  hydit-export --checkpoint {checkpoint} --out {out}\n  {draw}\n")
    }
}

impl Lora {
    /// Some lines for people.
    fn text(&self) -> String {
        let Lora { file, rank, changes, fits_slots, unfit } = self;
        let changes: Vec<String> = changes
            .iter()
            .map(|Changes { component, layers, of }| {
                format!("{layers} of {of} layers of the {component}")
            })
            .collect();
        let changes =
            if changes.is_empty() { "nothing here".to_string() } else { changes.join(", ") };
        let mut out = format!("{file}: rank {rank}, changes {changes}\n");
        for line in unfit {
            let _ = writeln!(out, "  fits nowhere: {line}");
        }
        if unfit.len() == MOST_UNFIT {
            out += "  and nothing was looked at behind that\n";
        }
        out += match (unfit.is_empty(), fits_slots) {
            (false, _) => "  is of another model, or of layers that cannot be changed\n",
            (true, true) => "  can be merged (--lora), or chosen by requests (--lora-slots)\n",
            (true, false) => "  can be merged (--lora); requests cannot choose it\n",
        };
        out
    }
}

/// The command that draws with the artifact folder `out`: a cat, in the language of `LANG`, or the
/// first class of a model that draws `classes`.
pub fn draw(out: &Path, classes: bool) -> String {
    if classes {
        let model = quoted(&out.to_string_lossy());
        return format!("hydit-serve generate --model {model} --class 0 -o class-0.png");
    }
    format!("hydit-serve generate {} -o cat.png", request(out))
}

/// The command that writes a request for the pipeline in one file of the artifact folder `out`.
pub fn plan(out: &Path) -> String {
    format!("hydit-serve plan {} --tensors cat.safetensors", request(out))
}

fn request(out: &Path) -> String {
    let chinese = std::env::var("LANG").is_ok_and(|language| language.starts_with("zh"));
    let prompt = if chinese { "一只猫坐在雪地里" } else { "a cat sitting in the snow" };
    format!("--model {} --prompt '{prompt}'", quoted(&out.to_string_lossy()))
}
