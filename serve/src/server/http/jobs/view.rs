//! Jobs as JSON. What the fields mean is in `openapi.yaml`.

use hydit::{InitImage, Request};
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::server::figures::Figures;
use crate::server::http::image::api_name;
use crate::server::jobs::{JobOutcome, JobRecord, JobResult, JobSnapshot, JobSpec, StepKind};

#[derive(Serialize)]
pub struct JobView {
    id: String,
    object: &'static str,
    status: &'static str,
    created_at: f64,
    started_at: Option<f64>,
    finished_at: Option<f64>,
    queue_position: Option<usize>,
    step: usize,
    steps: usize,
    core_runs: usize,
    plan: Vec<StepKind>,
    request: Map<String, Value>,
    result: Option<ResultView>,
    error: Option<FailureView>,
}

#[derive(Serialize)]
struct ResultView {
    pictures: Vec<ImageView>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    step_seconds: Vec<f64>,
    hydit: Figures,
}

#[derive(Serialize)]
struct ImageView {
    url: String,
    seed: u64,
    content_type: &'static str,
    bytes: u64,
    sha256: String,
    kept: bool,
}

#[derive(Serialize)]
struct FailureView {
    code: String,
    message: String,
}

#[derive(Serialize)]
pub struct JobList {
    pub object: &'static str,
    pub data: Vec<JobView>,
    pub has_more: bool,
}

impl From<JobSnapshot> for JobView {
    fn from(snapshot: JobSnapshot) -> JobView {
        let JobSnapshot { record, running, position, mut plan } = snapshot;
        let (mut result, mut error) = (None, None);
        match &record.outcome {
            Some(JobOutcome::Done(done)) => {
                plan.clone_from(&done.plan);
                result = Some(result_view(&record, done));
            }
            Some(JobOutcome::Failed { code, message }) => {
                error = Some(FailureView { code: code.clone(), message: message.clone() });
            }
            Some(JobOutcome::Cancelled) | None => {}
        }
        let under_way = if running { "running" } else { "queued" };
        JobView {
            id: record.id.to_string(),
            object: "job",
            status: record.outcome.as_ref().map_or(under_way, JobOutcome::name),
            created_at: seconds(record.created),
            started_at: record.started.map(seconds),
            finished_at: record.finished.map(seconds),
            queue_position: position,
            step: plan.len(),
            steps: record.spec.request.steps_taken(),
            core_runs: plan.iter().filter(|kind| **kind == StepKind::Refresh).count(),
            plan,
            request: request_view(&record),
            result,
            error,
        }
    }
}

/// The request of a job under the names of the APIs. What this version does not understand of it is
/// as it was asked for.
fn request_view(record: &JobRecord) -> Map<String, Value> {
    let JobSpec { model, request, output, preview_every, .. } = &record.spec;
    // As text, in which numbers have as many digits as they need: 5.3 as f32 is 5.300000190734863
    // as f64.
    let cache_policy = request.cache_policy.without_folder();
    let init_image = &request.init_image;
    let request = &Request { cache_policy, init_image: None, ..request.clone() };
    let text = serde_json::to_string(request).expect("strings and numbers are valid JSON");
    let mut fields: Map<String, Value> =
        serde_json::from_str(&text).expect("it was written as JSON");
    let image_prompt = fields.remove("image_prompt");
    let mut view = Map::new();
    view.insert("model".to_string(), json!(model));
    view.extend(fields.into_iter().map(|(field, value)| (api_name(&field).to_string(), value)));
    if let Some(unreadable) = &record.unreadable {
        let fields = unreadable.fields.iter();
        view.extend(fields.map(|(field, value)| (api_name(field).to_string(), value.clone())));
    }
    if let Some(InitImage { strength, sha256, mask_sha256, .. }) = init_image {
        view.insert("strength".to_string(), json!(strength));
        view.insert("image".to_string(), json!(sha256));
        view.insert("mask".to_string(), json!(mask_sha256));
    }
    if let Some(image_prompt) = image_prompt {
        view.insert("image_prompt".to_string(), image_prompt["sha256"].clone());
        view.insert("image_prompt_weight".to_string(), image_prompt["weight"].clone());
    }
    view.insert("size".to_string(), json!(format!("{}x{}", request.width, request.height)));
    view.insert("n".to_string(), json!(request.num_images));
    view.insert("output_format".to_string(), json!(output.format));
    view.insert("output_compression".to_string(), json!(output.quality));
    view.insert("metadata".to_string(), json!(output.metadata));
    view.insert("preview_every".to_string(), json!(preview_every));
    view
}

fn result_view(record: &JobRecord, result: &JobResult) -> ResultView {
    let images = result.images.iter().enumerate().map(|(index, image)| ImageView {
        url: format!("/v1/jobs/{}/pictures/{index}", record.id),
        seed: image.seed,
        content_type: record.spec.output.format.media_type(),
        bytes: image.bytes,
        sha256: image.sha256.clone(),
        kept: !result.dropped,
    });
    ResultView {
        pictures: images.collect(),
        step_seconds: result.step_seconds.clone(),
        hydit: result.figures.clone(),
    }
}

fn seconds(milliseconds: u64) -> f64 {
    milliseconds as f64 / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::jobs::told_by_an_earlier_version;

    #[test]
    fn jobs_of_an_earlier_version_look_as_they_did() {
        let (told, records) = told_by_an_earlier_version();
        let told = told["data"].as_array().expect("a list");
        assert_eq!((told.len(), records.len()), (4, 4));
        for (told, record) in told.iter().zip(records) {
            let ended = record.outcome.is_some();
            let job = JobSnapshot { record, running: false, position: None, plan: Vec::new() };
            let view = serde_json::to_string(&JobView::from(job)).expect("plain values");
            let view: Value = serde_json::from_str(&view).expect("JSON");
            assert_eq!(view["request"], told["request"]);
            let same = ["id", "object", "created_at", "started_at", "steps"];
            let same_at_the_end =
                ["status", "finished_at", "step", "core_runs", "plan", "result", "error"];
            for key in same.iter().chain(same_at_the_end.iter().filter(|_| ended)) {
                assert_eq!(view[*key], told[*key], "{key}");
            }
            let keys = |value: &Value| value.as_object().map(|all| all.keys().cloned().collect());
            let keys: [Option<std::collections::BTreeSet<String>>; 2] = [keys(&view), keys(told)];
            assert_eq!(keys[0], keys[1]);
        }
    }
}
