//! How large the tensors of a request are, and what its steps cost.

use hydit_graphs::control::Part;
use hydit_graphs::{Manifest, Sizes};

use crate::cache::{Decision, speed_up};
use crate::request::Request;

/// The sizes of a request's tensors, which give the shapes and costs of all graphs.
///
/// `batch` counts rows: two for each image with guidance, one without.
pub fn sizes(manifest: &Manifest, request: &Request) -> Sizes {
    let factor = manifest.model.vae.factor();
    let patch = manifest.model.transformer.patch_size;
    let (height, width) = (request.height / factor, request.width / factor);
    Sizes {
        batch: request.num_images * if request.guided() { 2 } else { 1 },
        grid_height: height / patch,
        grid_width: width / patch,
        height,
        width,
        image_tokens: match (&manifest.ip_adapter, &request.image_prompt) {
            (Some(config), Some(_)) => config.image_tokens,
            _ => 1,
        },
        ..Sizes::default()
    }
}

/// What a step of a request costs, in FLOPs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepCosts {
    /// A step that runs the deep core.
    pub full: f64,
    /// A step that reuses the deep core's output.
    pub cached: f64,
}

impl StepCosts {
    /// The costs of the steps of `request` on the model of `manifest`. A ControlNet that counts for a
    /// share of the steps costs that share at each.
    pub fn of(manifest: &Manifest, request: &Request) -> StepCosts {
        let sizes = sizes(manifest, request);
        let mut cached =
            manifest.flops("shallow-encoder", &sizes) + manifest.flops("shallow-decoder", &sizes);
        let mut core = manifest.flops("deep-core", &sizes);
        let steps = request.steps_taken();
        for control in &request.controls {
            let share = control.steps(steps).len() as f64 / steps.max(1) as f64;
            let of = |part: Part| share * manifest.flops(&part.graph(&control.name), &sizes);
            cached += of(Part::Encoder);
            core += of(Part::Core);
        }
        StepCosts { full: cached + core, cached }
    }

    /// How many times faster than an uncached loop `plan` can be.
    pub fn speed_up(&self, plan: &[Decision]) -> f64 {
        speed_up(self.full, self.cached, plan)
    }
}
