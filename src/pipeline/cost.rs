//! How large the tensors of a request are, and what its steps cost.

use std::ops::Range;

use hydit_graphs::control::Part;
use hydit_graphs::{Manifest, Sizes};

use crate::cache::Decision;
use crate::request::Request;

/// The sizes of a request's tensors, which give the shapes and costs of all graphs.
///
/// `batch` counts rows: those of a guided step, also if only some steps are guided.
pub fn sizes(manifest: &Manifest, request: &Request) -> Sizes {
    let factor = manifest.model.vae.factor();
    let patch = manifest.model.transformer.shape().patch_size;
    let (height, width) = (request.height / factor, request.width / factor);
    Sizes {
        batch: request.num_images * request.rows_per_image(),
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

/// What the steps of a request cost, in FLOPs.
#[derive(Clone, Debug, PartialEq)]
pub struct StepCosts {
    /// A guided step that runs the deep core; any step where none is guided.
    pub full: f64,
    /// The same of a step that reuses the deep core's output.
    pub cached: f64,
    /// A step that is not guided, with the deep core and without.
    unguided: [f64; 2],
    /// The steps that are guided.
    guided: Range<usize>,
}

impl StepCosts {
    /// The costs of the steps of `request` on the model of `manifest`. A ControlNet that counts for a
    /// share of the steps costs that share at each.
    pub fn of(manifest: &Manifest, request: &Request) -> StepCosts {
        let steps = request.steps_taken();
        let of = |sizes: &Sizes| {
            let mut cached =
                manifest.flops("shallow-encoder", sizes) + manifest.flops("shallow-decoder", sizes);
            let mut core = manifest.flops("deep-core", sizes);
            for control in &request.controls {
                let share = control.steps(steps).len() as f64 / steps.max(1) as f64;
                let of = |part: Part| share * manifest.flops(&part.graph(&control.name), sizes);
                cached += of(Part::Encoder);
                core += of(Part::Core);
            }
            [cached + core, cached]
        };
        let sizes = sizes(manifest, request);
        let [full, cached] = of(&sizes);
        let unguided = of(&Sizes { batch: request.num_images, ..sizes });
        StepCosts { full, cached, unguided, guided: request.guided_steps() }
    }

    /// What a run by `plan` costs.
    pub fn run(&self, plan: &[Decision]) -> f64 {
        let step = |(step, decision): (usize, &Decision)| {
            let [full, cached] =
                if self.guided.contains(&step) { [self.full, self.cached] } else { self.unguided };
            if decision.refreshes() { full } else { cached }
        };
        plan.iter().enumerate().map(step).sum()
    }

    /// How many times faster than an uncached loop `plan` can be: 1 for an empty plan.
    pub fn speed_up(&self, plan: &[Decision]) -> f64 {
        let uncached = vec![Decision::REFRESH; plan.len()];
        if plan.is_empty() { 1.0 } else { self.run(&uncached) / self.run(plan) }
    }

    /// How many times faster than a loop that is guided throughout one by `plan` can be.
    pub fn guidance_speed_up(&self, plan: &[Decision]) -> f64 {
        let throughout = StepCosts { guided: 0..plan.len(), ..self.clone() };
        throughout.run(plan) / self.run(plan)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::Forecast;

    fn plan(refreshes: usize, steps: usize) -> Vec<Decision> {
        let mut plan = vec![Decision::Reuse(Forecast::LAST); steps];
        plan[..refreshes].fill(Decision::REFRESH);
        plan
    }

    // Block FLOPs of the large model at branch 1, 84.0 per block and 7.93 per skip_linear.
    #[test]
    fn the_speed_up_is_the_share_of_work_left() {
        let (full, cached) = (40.0 * 84.0 + 19.0 * 7.93, 2.0 * 84.0 + 7.93);
        let unguided = [full / 2.0, cached / 2.0];
        let costs = StepCosts { full, cached, unguided, guided: 0..100 };
        for (refreshes, steps, expected) in
            [(67, 100, "1.46"), (22, 50, "2.14"), (14, 25, "1.72"), (8, 20, "2.33")]
        {
            assert_eq!(format!("{:.2}", costs.speed_up(&plan(refreshes, steps))), expected);
        }
        assert_eq!(costs.speed_up(&[]), 1.0);
        // Half of the steps at half of the cost.
        let costs = StepCosts { full: 20.0, cached: 2.0, unguided: [10.0, 1.0], guided: 2..7 };
        assert_eq!(costs.run(&plan(10, 10)), 150.0);
        assert_eq!(costs.guidance_speed_up(&plan(10, 10)), 200.0 / 150.0);
        assert_eq!(costs.run(&plan(3, 10)), 10.0 + 10.0 + 20.0 + 4.0 * 2.0 + 3.0);
    }
}
