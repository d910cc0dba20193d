//! Image prompts -> image states: the image encoder, and the rows that the blocks read.

use std::sync::Arc;

use hydit_graphs::{DType, Manifest};

use super::stack::Stacker;
use crate::artifacts::Artifacts;
use crate::error::{Error, Result};
use crate::request::Request;
use crate::runtime::{Backend, Session, Value};
use crate::timing::Stage;

/// The states of a request's image prompt, on the host.
pub(crate) struct ImageEmbeds {
    /// `[2, tokens, channels]`: those that the negative prompt gets, then those of the image.
    states: Vec<f32>,
    weight: f32,
}

/// What the graphs of a step read of image prompts, where the backend computes.
pub(crate) struct ImageInputs {
    /// `[rows, tokens, channels]`, of one token where there is no image.
    states: Value,
    /// `[rows]`, 0 where there is no image.
    scale: Value,
}

/// Loads the image encoder.
pub(crate) fn load(artifacts: &Arc<Artifacts>, backend: &Backend) -> Result<Session> {
    let mut encoder = artifacts.load_seldom("image-encoder", backend)?;
    encoder.outputs_to_host(&["image_states"])?;
    Ok(encoder)
}

impl ImageEmbeds {
    /// Encodes the image prompt of `request`, which has one, by `encoder`.
    ///
    /// # Errors
    /// When a number is not finite, or what the backend says.
    pub fn encode(
        manifest: &Manifest,
        backend: &Backend,
        encoder: &mut Session,
        request: &Request,
    ) -> Result<ImageEmbeds> {
        let (Some(config), Some(prompt)) = (&manifest.ip_adapter, &request.image_prompt) else {
            unreachable!("a checked request with an image prompt is for a model that takes one");
        };
        let side = config.image_encoder.image_size;
        let pixels = backend.tensor_f32(&[1, 3, side, side], &prompt.pixel_values(config))?;
        let _timed = backend.timer().start(Stage::ImageEncoder);
        let states = encoder.run_single(&[("pixel_values", &pixels)])?.read_f32()?.to_vec();
        if !states.iter().all(|value| value.is_finite()) {
            return Err(Error::NotEncoded);
        }
        Ok(ImageEmbeds { states, weight: prompt.weight })
    }
}

impl ImageInputs {
    /// The inputs for the rows `rows`, each of which is of the negative prompt or not; `embeds` is
    /// the image, if there is one. `None` where the graphs of `manifest` have no such inputs.
    pub fn new(
        manifest: &Manifest,
        backend: &Backend,
        embeds: Option<&ImageEmbeds>,
        negative: &[bool],
    ) -> Result<Option<ImageInputs>> {
        let dit = manifest.model.transformer.hunyuan_dit();
        let (Some(config), Some(dit)) = (&manifest.ip_adapter, dit) else { return Ok(None) };
        let (rows, channels) = (negative.len(), dit.cross_attention_dim);
        let (tokens, weight) = embeds.map_or((1, 0.0), |one| (config.image_tokens, one.weight));
        let row = tokens * channels;
        let numbers: Vec<f32> = match embeds {
            None => vec![0.0; rows * row],
            Some(ImageEmbeds { states, .. }) => {
                let (theirs, ours) = states.split_at(row);
                negative
                    .iter()
                    .flat_map(|negative| if *negative { theirs } else { ours })
                    .copied()
                    .collect()
            }
        };
        let shape = [rows, tokens, channels];
        let states = match manifest.precision.compute() {
            DType::F16 => backend.tensor_f16(&shape, &numbers)?,
            DType::BF16 => backend.tensor_bf16(&shape, &numbers)?,
            _ => backend.tensor_f32(&shape, &numbers)?,
        };
        let scale = backend.tensor_f32(&[rows], &vec![weight; rows])?;
        let (states, scale) = (backend.to_device(states)?, backend.to_device(scale)?);
        Ok(Some(ImageInputs { states, scale }))
    }

    /// One for the rows of all `parts`, of which all have an image or none.
    pub fn stacked<'a>(
        parts: impl Iterator<Item = &'a ImageInputs>,
        stacker: &Stacker,
    ) -> Result<ImageInputs> {
        let (states, scale): (Vec<&Value>, Vec<&Value>) =
            parts.map(|part| (&part.states, &part.scale)).unzip();
        Ok(ImageInputs { states: stacker.joined(states)?, scale: stacker.joined(scale)? })
    }

    /// Names and values.
    pub fn inputs(&self) -> [(&'static str, &Value); 2] {
        [("image_states", &self.states), ("image_scale", &self.scale)]
    }
}
