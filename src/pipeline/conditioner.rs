//! What stays the same through a request: the conditioner's output and the rotary tables.

use std::rc::Rc;
use std::sync::Arc;

use hydit_graphs::config::HunyuanDitConfig;
use hydit_graphs::control;
use hydit_graphs::manifest::ControlEntry;
use hydit_graphs::variant::RopeConvention;
use hydit_graphs::{Manifest, Sizes};

use super::batch::rows_together;
use super::control::{NetCondition, Nets};
use super::cost::sizes;
use super::image_prompt::ImageInputs;
use super::images::EncodedImages;
use super::lora::LoraInputs;
use super::perturbed::PerturbedRows;
use super::rope;
use super::stack::Stacker;
use super::text::{Encoded, PromptEmbeds, Read};
use crate::artifacts::Artifacts;
use crate::error::Result;
use crate::request::Request;
use crate::runtime::{Backend, Outputs, Session, Value};
use crate::timing::Stage;

/// The conditioner graph of the transformer, or of a ControlNet.
pub(crate) struct Conditioner {
    session: Session,
    /// Whether it reads size and style.
    styled: bool,
    artifacts: Arc<Artifacts>,
    backend: Backend,
}

/// What the graphs of a step read beside latents and timestep, for rows that share a call. It lies
/// where the backend computes.
pub(crate) struct Condition {
    /// What is read of texts, by a model that reads some.
    pub texts: Option<TextInputs>,
    /// `[rows, channels]`: what is added to the timestep's embedding.
    pub extra: Value,
    /// The image prompts of the rows, where the graphs read some.
    pub image: Option<ImageInputs>,
    /// Which rows are perturbed, where the graphs read that.
    pub perturbed: Option<PerturbedRows>,
    /// The LoRAs, the same for all rows: the inputs of graphs with slots have no axis for rows.
    pub loras: Rc<LoraInputs>,
    /// The ControlNets of the request.
    pub nets: Vec<NetCondition>,
    /// `[rows, 1, hidden]`: zeros, which stand for the controls where no ControlNet counts; `None`,
    /// of an export without ControlNets.
    pub no_control: Option<Rc<Value>>,
}

/// What blocks read that attend to texts.
pub(crate) struct TextInputs {
    /// `[rows, tokens, channels]`: both prompts' states as the blocks attend to them.
    pub text_states: Value,
    /// `[grid height, grid width, head_dim]`: cosines of the rotary positions.
    pub cos: Rc<Value>,
    /// Sines, of the same shape.
    pub sin: Rc<Value>,
}

impl Condition {
    /// What all graphs of a step read of texts, names and values.
    pub fn texts(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.texts.iter().flat_map(|TextInputs { text_states, cos, sin }| {
            [("text_states", text_states), ("cos", &**cos), ("sin", &**sin)]
        })
    }

    /// The rotary tables, which ControlNets read too.
    pub fn rotary(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.texts().skip(1)
    }

    /// What the graph `graph` of a step reads of image prompts, LoRAs and perturbed rows, names and
    /// values.
    pub fn adapters(&self, graph: &str) -> Vec<(&str, &Value)> {
        let mut inputs = Vec::new();
        if let Some(image) = &self.image {
            inputs.extend(image.inputs());
        }
        inputs.extend(self.loras.of_graph(graph));
        inputs.extend(self.perturbed.as_ref().and_then(|rows| rows.of_graph(graph)));
        inputs
    }

    /// The number of rows.
    pub fn rows(&self) -> usize {
        self.extra.shape()[0]
    }

    /// One condition for the rows of all `parts`, which are of one size and without ControlNets.
    pub fn stacked(parts: &[Rc<Condition>], stacker: &Stacker) -> Result<Condition> {
        let extra: Vec<&Value> = parts.iter().map(|part| &part.extra).collect();
        let zeros: Vec<&Value> =
            parts.iter().filter_map(|part| part.no_control.as_deref()).collect();
        let no_control = if zeros.is_empty() { None } else { Some(stacker.joined(zeros)?) };
        let image = match &parts[0].image {
            Some(_) => {
                let images = parts.iter().flat_map(|part| &part.image);
                Some(ImageInputs::stacked(images, stacker)?)
            }
            None => None,
        };
        let perturbed = match &parts[0].perturbed {
            Some(_) => {
                let rows = parts.iter().flat_map(|part| &part.perturbed);
                Some(PerturbedRows::stacked(rows, stacker)?)
            }
            None => None,
        };
        let texts = match &parts[0].texts {
            Some(TextInputs { cos, sin, .. }) => {
                let texts = parts.iter().flat_map(|part| &part.texts);
                let text_states = stacker.joined(texts.map(|texts| &texts.text_states))?;
                Some(TextInputs { text_states, cos: cos.clone(), sin: sin.clone() })
            }
            None => None,
        };
        Ok(Condition {
            texts,
            extra: stacker.joined(extra)?,
            image,
            perturbed,
            loras: parts[0].loras.clone(),
            nets: Vec::new(),
            no_control: no_control.map(Rc::new),
        })
    }
}

impl Conditioner {
    pub fn load(artifacts: &Arc<Artifacts>, backend: &Backend) -> Result<Conditioner> {
        let config = artifacts.manifest.model.transformer.hunyuan_dit();
        Conditioner::open("conditioner", config, artifacts, backend)
    }

    /// That of a ControlNet.
    pub fn of_net(
        net: &ControlEntry,
        artifacts: &Arc<Artifacts>,
        backend: &Backend,
    ) -> Result<Conditioner> {
        Conditioner::open(
            &control::Part::Conditioner.graph(&net.name),
            Some(&net.config),
            artifacts,
            backend,
        )
    }

    fn open(
        graph: &str,
        config: Option<&HunyuanDitConfig>,
        artifacts: &Arc<Artifacts>,
        backend: &Backend,
    ) -> Result<Conditioner> {
        let session = artifacts.load_seldom(graph, backend)?;
        let styled = config.is_some_and(|config| config.use_style_cond_and_image_meta_size);
        Ok(Conditioner { session, styled, artifacts: artifacts.clone(), backend: backend.clone() })
    }

    /// One condition for the whole batch `[negative rows, positive rows, perturbed rows]`, of which
    /// a request may lack the first and the last; or one for each of these parts: where each row runs
    /// [alone](rows_together), which the images share if their prompt is the same, and where some steps are
    /// [not guided](crate::guidance), with a row for each image.
    pub fn run(
        &mut self,
        request: &Request,
        prompt: &PromptEmbeds,
        loras: &Rc<LoraInputs>,
        images: &EncodedImages,
        nets: &mut Nets,
    ) -> Result<Vec<Rc<Condition>>> {
        let artifacts = self.artifacts.clone();
        let manifest = &artifacts.manifest;
        let sizes = sizes(manifest, request);
        let parts = parts(request, prompt.rows());
        let times = |part: Part| -> Vec<Part> {
            (0..request.num_images).map(|image| part.of_image(image, prompt)).collect()
        };
        let calls: Vec<Vec<Part>> = match rows_together(self.backend.provider(), &sizes) {
            1 if prompt.positive() > 1 => {
                parts.into_iter().flat_map(times).map(|part| vec![part]).collect()
            }
            1 => parts.into_iter().map(|part| vec![part]).collect(),
            _ if !request.guidance_interval.is_whole() => parts.into_iter().map(times).collect(),
            _ => vec![parts.into_iter().flat_map(times).collect()],
        };
        let rotary = match manifest.model.transformer.hunyuan_dit() {
            Some(dit) => {
                let shape = [sizes.grid_height, sizes.grid_width, dit.attention_head_dim];
                let [rows, columns, head_dim] = shape;
                let (cos, sin) =
                    rope::tables(rows, columns, head_dim, manifest.variant.rope_convention);
                Some([self.table(&shape, &cos)?, self.table(&shape, &sin)?])
            }
            None => None,
        };
        let _timed = self.backend.timer().start(Stage::Conditioner);
        let mut conditions = Vec::with_capacity(calls.len());
        for call in calls {
            let rows: Vec<usize> = call.iter().map(|part| part.text).collect();
            let loras_here = loras.of_graph("conditioner").collect();
            let mut outputs = self.condition(request, prompt, &rows, loras_here)?;
            let texts = match &rotary {
                Some([cos, sin]) => Some(TextInputs {
                    text_states: outputs.take("text_states")?,
                    cos: cos.clone(),
                    sin: sin.clone(),
                }),
                None => None,
            };
            let extra = outputs.take("extra")?;
            drop(outputs);
            let no_control = if manifest.controls.is_empty() {
                None
            } else {
                let hidden = manifest.model.transformer.shape().hidden_size;
                let zeros = vec![0.0; rows.len() * hidden];
                Some(self.table(&[rows.len(), 1, hidden], &zeros)?)
            };
            let nets = self.nets(request, prompt, &rows, &sizes, images, nets)?;
            let negative: Vec<bool> =
                rows.iter().map(|text| request.guided() && *text == 0).collect();
            let image = prompt.image.as_ref();
            let image = ImageInputs::new(manifest, &self.backend, image, &negative)?;
            let perturbed: Vec<bool> = call.iter().map(|part| part.perturbed).collect();
            let perturbed = PerturbedRows::new(manifest, &self.backend, &perturbed)?;
            let loras = loras.clone();
            conditions.push(Rc::new(Condition {
                texts,
                extra,
                image,
                perturbed,
                loras,
                nets,
                no_control,
            }));
        }
        Ok(conditions)
    }

    /// What the ControlNets of `request` read at every step of one call.
    fn nets(
        &self,
        request: &Request,
        prompt: &PromptEmbeds,
        rows: &[usize],
        sizes: &Sizes,
        images: &EncodedImages,
        nets: &mut Nets,
    ) -> Result<Vec<NetCondition>> {
        let channels = self.artifacts.manifest.model.transformer.shape().in_channels;
        let shape = [rows.len(), channels, sizes.height, sizes.width];
        let mut conditions = Vec::with_capacity(request.controls.len());
        for (control, latents) in request.controls.iter().zip(&images.controls) {
            let latents = self.backend.tensor_f32(&shape, &latents.repeat(rows.len()))?;
            let more = vec![("control_latents", &latents)];
            let conditioner = nets.conditioner(&control.name);
            let mut outputs = conditioner.condition(request, prompt, rows, more)?;
            let scales = vec![control.weight; rows.len()];
            let scale = self.backend.tensor_f32(&[rows.len(), 1, 1], &scales)?;
            conditions.push(NetCondition {
                name: control.name.clone(),
                steps: control.steps(request.steps_taken()),
                text_states: outputs.take("text_states")?,
                extra: outputs.take("extra")?,
                hint: outputs.take("hint")?,
                scale: self.backend.to_device(scale)?,
            });
        }
        Ok(conditions)
    }

    fn table(&self, shape: &[usize], numbers: &[f32]) -> Result<Rc<Value>> {
        Ok(Rc::new(self.backend.to_device(self.backend.tensor_f32(shape, numbers)?)?))
    }

    /// The outputs of one call, whose rows are `rows` of `prompt`, and which reads `more` besides.
    fn condition<'a>(
        &'a mut self,
        request: &Request,
        prompt: &PromptEmbeds,
        rows: &[usize],
        more: Vec<(&str, &Value)>,
    ) -> Result<Outputs<'a>> {
        let (bert, t5) = match &prompt.read {
            Read::Texts { bert, t5 } => (bert, t5),
            Read::Labels(labels) => {
                let all: Vec<i64> =
                    labels.negative.iter().chain(&labels.positive).copied().collect();
                let labels: Vec<i64> = rows.iter().map(|&row| all[row]).collect();
                let labels = self.backend.tensor_i64(&[rows.len()], &labels)?;
                return Ok(self.session.run_by_name(&[("class_labels", &labels)])?);
            }
        };
        let (bert, bert_mask) = self.rows_of(bert, rows)?;
        let (t5, t5_mask) = self.rows_of(t5, rows)?;
        let mut inputs = vec![
            ("encoder_hidden_states", &bert),
            ("text_embedding_mask", &bert_mask),
            ("encoder_hidden_states_t5", &t5),
            ("text_embedding_mask_t5", &t5_mask),
        ];
        let style = self.style(request, rows.len())?;
        if let Some((size, style)) = &style {
            inputs.extend([("image_meta_size", size), ("style", style)]);
        }
        inputs.extend(more);
        Ok(self.session.run_by_name(&inputs)?)
    }

    /// States `[rows, length, width]` and mask `[rows, length]` of some `rows` of `encoded`.
    fn rows_of(&self, encoded: &Encoded, rows: &[usize]) -> Result<(Value, Value)> {
        let [_, length, width] = encoded.shape;
        let states = |&row: &usize| &encoded.states[row * length * width..][..length * width];
        let mask = |&row: &usize| &encoded.mask[row * length..][..length];
        let states: Vec<f32> = rows.iter().flat_map(states).copied().collect();
        let mask: Vec<i64> = rows.iter().flat_map(mask).copied().collect();
        let states = self.backend.tensor_f32(&[rows.len(), length, width], &states)?;
        Ok((states, self.backend.tensor_i64(&[rows.len(), length], &mask)?))
    }

    fn style(&self, request: &Request, rows: usize) -> Result<Option<(Value, Value)>> {
        if !self.styled {
            return Ok(None);
        }
        let (size, style) = style_of(&self.artifacts.manifest, request, rows);
        let size = self.backend.tensor_f32(&[rows, 6], &size)?;
        Ok(Some((size, self.backend.tensor_i64(&[rows], &style)?)))
    }
}

/// A row of a picture.
#[derive(Clone, Copy)]
struct Part {
    /// The row of the prompts' states.
    text: usize,
    perturbed: bool,
}

impl Part {
    /// Its like of picture `image`, which has one of several positive prompts.
    fn of_image(self, image: usize, prompt: &PromptEmbeds) -> Part {
        let is_positive = self.text + 1 == prompt.rows();
        let text = self.text + if is_positive { image % prompt.positive() } else { 0 };
        Part { text, ..self }
    }
}

/// The rows of each picture of `request`, whose prompts have `texts` states: the last is the positive
/// one, which the perturbed row has too.
fn parts(request: &Request, texts: usize) -> Vec<Part> {
    let part = |text| Part { text, perturbed: false };
    let perturbed = request.perturbed().then_some(Part { text: texts - 1, perturbed: true });
    (0..texts).map(part).chain(perturbed).collect()
}

/// The size and style conditions of a model that has them: [`style_of`].
pub(crate) fn style(
    manifest: &Manifest,
    request: &Request,
    rows: usize,
) -> Option<(Vec<f32>, Vec<i64>)> {
    let dit = manifest.model.transformer.hunyuan_dit();
    let styled = dit.is_some_and(|dit| dit.use_style_cond_and_image_meta_size);
    styled.then(|| style_of(manifest, request, rows))
}

/// The size and style conditions of models up to v1.1, `[rows, 6]` and `[rows]`: size trained on,
/// size wanted in the reference's order, crop; and style 0.
fn style_of(manifest: &Manifest, request: &Request, rows: usize) -> (Vec<f32>, Vec<i64>) {
    let (height, width) = (request.height as f32, request.width as f32);
    let [first, second] = match manifest.variant.rope_convention {
        RopeConvention::Diffusers => [height, width],
        RopeConvention::Tencent => [width, height],
    };
    ([1024.0, 1024.0, first, second, 0.0, 0.0].repeat(rows), vec![0; rows])
}
