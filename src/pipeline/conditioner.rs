//! What stays the same through a request: the conditioner's output and the rotary tables.

use std::rc::Rc;
use std::sync::Arc;

use hydit_graphs::Manifest;
use hydit_graphs::variant::RopeConvention;

use super::batch::rows_together;
use super::cost::sizes;
use super::lora::LoraInputs;
use super::rope;
use super::text::{Encoded, PromptEmbeds};
use crate::artifacts::Artifacts;
use crate::error::Result;
use crate::request::Request;
use crate::runtime::{Backend, Session, Value};
use crate::timing::Stage;

/// The conditioner graph.
pub(crate) struct Conditioner {
    session: Session,
    artifacts: Arc<Artifacts>,
    backend: Backend,
}

/// What the graphs of a step read beside latents and timestep, for rows that share a call. It lies
/// where the backend computes.
pub(crate) struct Condition {
    /// `[rows, tokens, channels]`: both prompts' states as the blocks attend to them.
    pub text_states: Value,
    /// `[rows, channels]`: what is added to the timestep's embedding.
    pub extra: Value,
    /// `[grid height, grid width, head_dim]`: cosines of the rotary positions.
    pub cos: Rc<Value>,
    /// Sines, of the same shape.
    pub sin: Rc<Value>,
    /// The LoRAs, the same for all rows: the inputs of graphs with slots have no axis for rows.
    pub loras: Rc<LoraInputs>,
}

impl Condition {
    /// The number of rows.
    pub fn rows(&self) -> usize {
        self.extra.shape()[0]
    }

    /// One condition for the rows of all `parts`, which are of one size.
    pub fn stacked(parts: &[Rc<Condition>]) -> Result<Condition> {
        let states: Vec<&Value> = parts.iter().map(|part| &part.text_states).collect();
        let extra: Vec<&Value> = parts.iter().map(|part| &part.extra).collect();
        Ok(Condition {
            text_states: Value::stacked(&states)?,
            extra: Value::stacked(&extra)?,
            cos: parts[0].cos.clone(),
            sin: parts[0].sin.clone(),
            loras: parts[0].loras.clone(),
        })
    }
}

impl Conditioner {
    pub fn load(artifacts: &Arc<Artifacts>, backend: &Backend) -> Result<Conditioner> {
        let session = artifacts.load_seldom("conditioner", backend)?;
        Ok(Conditioner { session, artifacts: artifacts.clone(), backend: backend.clone() })
    }

    /// One condition for the whole batch `[negative rows, positive rows]`; or where each row runs
    /// [alone](rows_together) one for each text, negative first, which the images share.
    pub fn run(
        &mut self,
        request: &Request,
        prompt: &PromptEmbeds,
        loras: &Rc<LoraInputs>,
    ) -> Result<Vec<Rc<Condition>>> {
        let manifest = &self.artifacts.manifest;
        let sizes = sizes(manifest, request);
        let texts = 0..prompt.bert.shape[0];
        let calls: Vec<Vec<usize>> = match rows_together(self.backend.provider(), &sizes) {
            1 => texts.map(|text| vec![text]).collect(),
            _ => vec![texts.flat_map(|text| vec![text; request.num_images]).collect()],
        };
        let head_dim = manifest.model.transformer.attention_head_dim;
        let shape = [sizes.grid_height, sizes.grid_width, head_dim];
        let (cos, sin) =
            rope::tables(shape[0], shape[1], head_dim, manifest.variant.rope_convention);
        let [cos, sin] = [self.table(&shape, &cos)?, self.table(&shape, &sin)?];
        let _timed = self.backend.timer().start(Stage::Conditioner);
        let mut conditions = Vec::with_capacity(calls.len());
        for rows in calls {
            let [text_states, extra] = self.condition(request, prompt, &rows, loras)?;
            let (cos, sin, loras) = (cos.clone(), sin.clone(), loras.clone());
            conditions.push(Rc::new(Condition { text_states, extra, cos, sin, loras }));
        }
        Ok(conditions)
    }

    fn table(&self, shape: &[usize], numbers: &[f32]) -> Result<Rc<Value>> {
        Ok(Rc::new(self.backend.to_device(self.backend.tensor_f32(shape, numbers)?)?))
    }

    /// `text_states` and `extra` of one call, whose rows are `rows` of `prompt`.
    fn condition(
        &mut self,
        request: &Request,
        prompt: &PromptEmbeds,
        rows: &[usize],
        loras: &LoraInputs,
    ) -> Result<[Value; 2]> {
        let (bert, bert_mask) = self.rows_of(&prompt.bert, rows)?;
        let (t5, t5_mask) = self.rows_of(&prompt.t5, rows)?;
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
        inputs.extend(loras.of_graph("conditioner"));
        let mut outputs = self.session.run_by_name(&inputs)?;
        Ok([outputs.take("text_states")?, outputs.take("extra")?])
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
        let Some((size, style)) = style(&self.artifacts.manifest, request, rows) else {
            return Ok(None);
        };
        let size = self.backend.tensor_f32(&[rows, 6], &size)?;
        Ok(Some((size, self.backend.tensor_i64(&[rows], &style)?)))
    }
}

/// The size and style conditions of models up to v1.1, `[rows, 6]` and `[rows]`: size trained on,
/// size wanted in the reference's order, crop; and style 0.
pub(crate) fn style(
    manifest: &Manifest,
    request: &Request,
    rows: usize,
) -> Option<(Vec<f32>, Vec<i64>)> {
    if !manifest.model.transformer.use_style_cond_and_image_meta_size {
        return None;
    }
    let (height, width) = (request.height as f32, request.width as f32);
    let [first, second] = match manifest.variant.rope_convention {
        RopeConvention::Diffusers => [height, width],
        RopeConvention::Tencent => [width, height],
    };
    Some(([1024.0, 1024.0, first, second, 0.0, 0.0].repeat(rows), vec![0; rows]))
}
