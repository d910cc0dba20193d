//! What `generate` did, for people and as data.

use hydit::cache::{Decision, refreshed, refreshes};
use hydit::timing::{Stage, Timings};
use hydit::{Generated, Pipeline, Request};
use serde_json::{Value, json};

use super::compare::Gain;
use crate::cmd::files::Output;
use crate::cmd::progress::mark;
use crate::cmd::timesteps;

/// One run of `generate`.
pub struct Report<'a> {
    pub request: &'a Request,
    pub made: &'a Generated,
    /// A file for each image.
    pub files: &'a [Output],
    pub gain: Option<Gain>,
    /// Seconds from the start of the program to the first denoising step.
    pub start_seconds: Option<f64>,
    /// Bytes of resident memory.
    pub peak_memory: Option<u64>,
}

impl Report<'_> {
    /// The plan, the time of each stage, memory, and the files.
    pub fn text(&self) -> String {
        let Generated { plan, timings, .. } = self.made;
        let mut out = plan_text(self.request, plan);
        out += "\n";
        out += &table(timings);
        if let Some(seconds) = self.start_seconds {
            out += &format!("first step after          {seconds:5.2} s\n");
        }
        if let Some(bytes) = self.peak_memory {
            out += &format!("peak memory               {:5} MiB\n", bytes >> 20);
        }
        out += "\n";
        if let Some(gain) = &self.gain {
            out += &gain.text();
        }
        for file in self.files {
            out += &format!("wrote {file}\n");
        }
        out
    }

    /// The same as data, with the parameters that the files hold.
    pub fn json(&self, pipeline: &Pipeline) -> Value {
        let Generated { plan, timings, timesteps, .. } = self.made;
        let stages: Vec<Value> = Stage::ALL
            .iter()
            .map(|&(stage, _)| {
                let seconds = timings.of(stage).as_secs_f64();
                json!({ "stage": stage, "calls": timings.calls(stage), "seconds": seconds })
            })
            .collect();
        let mut out = json!({
            "images": images_json(self.request, self.files),
            "parameters": self.request.parameters(pipeline.artifacts(), 0, &self.made.truncated),
            "backend": pipeline.backend().describe(),
            "steps": plan.len(),
            "core_runs": timings.calls(Stage::Core),
            "deep_on_host": self.made.deep_on_host,
            "truncated": self.made.truncated,
            "refresh": refreshed(plan),
            "timesteps": timesteps::json(timesteps),
            "stages": stages,
            "denoise_seconds": timings.denoise.as_secs_f64(),
            "overhead": timings.overhead(),
            "start_seconds": self.start_seconds,
            "peak_memory_bytes": self.peak_memory,
        });
        if let Some(gain) = &self.gain {
            out["compare"] = gain.json();
        }
        out
    }
}

/// The seeds of `request` and its plan, two lines; one more for each image that it is made with.
pub fn plan_text(request: &Request, plan: &[Decision]) -> String {
    let marks: String = plan.iter().map(mark).collect();
    let Request { seed, num_images, ref cache_policy, .. } = *request;
    let last = seed + num_images as u64 - 1;
    let seeds = if last == seed { String::new() } else { format!(" to {last}") };
    let (runs, steps) = (refreshes(plan), plan.len());
    let prompt = match &request.image_prompt {
        Some(image_prompt) => format!("image     prompt, weight {}\n", image_prompt.weight),
        None => String::new(),
    };
    let part = match &request.init_image {
        Some(init_image) => format!(
            "image     strength {}: the last {steps} of {} steps\n",
            init_image.strength, request.steps
        ),
        None => String::new(),
    };
    let guided = match request.guidance_interval.is_whole() {
        true => String::new(),
        false => {
            let guided = request.guided_steps();
            let count = guided.end.min(steps).saturating_sub(guided.start);
            format!("guidance  {}: {count} of {steps} steps\n", request.guidance_interval)
        }
    };
    let perturbed = match request.perturbed() {
        true => format!("guidance  by perturbed attention, scale {}\n", request.pag_scale),
        false => String::new(),
    };
    format!(
        "seed      {seed}{seeds}\n{prompt}{part}{guided}{perturbed}\
         plan      {marks}  {cache_policy}, {runs} of {steps} steps ran the deep core\n"
    )
}

/// The files of a request's images, with the seed of each.
pub fn images_json(request: &Request, files: &[Output]) -> Vec<Value> {
    let files = files.iter().zip(request.seed..);
    files.map(|(file, seed)| json!({ "path": file.to_string(), "seed": seed })).collect()
}

/// The calls and the time of each stage that was called.
fn table(timings: &Timings) -> String {
    let mut out = String::from("stage             calls       total    per call\n");
    for (stage, name) in Stage::ALL {
        let (calls, seconds) = (timings.calls(stage), timings.of(stage).as_secs_f64());
        if calls == 0 {
            continue;
        }
        let each = 1e3 * seconds / calls as f64;
        out += &format!("{name:16} {calls:6}  {:8.1} ms {each:8.2} ms\n", 1e3 * seconds);
    }
    out += &format!(
        "denoising loop            {:5.1} ms, {:.2}% outside the engine\n",
        1e3 * timings.denoise.as_secs_f64(),
        100.0 * timings.overhead()
    );
    out
}
