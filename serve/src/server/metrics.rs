//! The names of all metrics, what they mean, and their recorder.
//!
//! Labels have closed sets of values, so that no client can add series.

use std::sync::OnceLock;
use std::time::Duration;

use hydit::eval::machine::resident_memory;
use hydit::timing::Stage;
use metrics::{counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use strum::VariantArray;

const REQUESTS: &str = "hydit_requests_total";
const REQUEST_DURATION: &str = "hydit_request_duration_seconds";
const CONNECTIONS: &str = "hydit_connections";
const QUEUE_DEPTH: &str = "hydit_queue_depth";
const TASKS: &str = "hydit_orders_total";
const PICTURES: &str = "hydit_pictures_total";
const STEPS: &str = "hydit_steps_total";
const CORE_RUNS: &str = "hydit_deep_core_runs_total";
const CORE_SKIPS: &str = "hydit_deep_core_skips_total";
const STAGE_DURATION: &str = "hydit_stage_duration_seconds";
const BATCH_PICTURES: &str = "hydit_batch_pictures";
const CACHE_DRIFT: &str = "hydit_cache_drift";
const MODELS_LOADED: &str = "hydit_models_loaded";
const JOBS_UNSTORED: &str = "hydit_jobs_unstored";
const WORKER_RESTARTS: &str = "hydit_engine_restarts_total";
const HOSTS: &str = "hydit_tritons";
const REDRAWN: &str = "hydit_redrawn_total";
const RESIDENT_MEMORY: &str = "process_resident_memory_bytes";

/// How a task ended: the values of the label `outcome`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::IntoStaticStr, strum::VariantArray)]
#[strum(serialize_all = "lowercase")]
pub enum TaskOutcome {
    /// With images.
    Done,
    /// Drawing or its worker failed.
    Failed,
    /// Its client cancelled it or went away.
    Cancelled,
    /// Its deadline passed.
    Expired,
    /// The scheduler did not accept it.
    Refused,
    /// The server ended first.
    Drained,
}

/// A request to `route`, the template of a path, was answered with `status`.
pub fn request(route: &str, status: u16, duration: Duration) {
    let route = route.to_string();
    counter!(REQUESTS, "route" => route.clone(), "status" => status.to_string()).increment(1);
    histogram!(REQUEST_DURATION, "route" => route).record(duration);
}

/// A connection was opened or closed.
pub fn connection(opened: bool) {
    gauge!(CONNECTIONS).increment(if opened { 1.0 } else { -1.0 });
}

/// A task ended.
pub fn task(outcome: TaskOutcome) {
    counter!(TASKS, "outcome" => <&str>::from(outcome)).increment(1);
}

/// A step of one task was done, with the deep core or without.
pub fn step(core_ran: bool) {
    counter!(STEPS).increment(1);
    counter!(if core_ran { CORE_RUNS } else { CORE_SKIPS }).increment(1);
}

/// A stage took `duration`.
pub fn stage(stage: Stage, duration: Duration) {
    histogram!(STAGE_DURATION, "stage" => stage.label()).record(duration);
}

/// This number of images was drawn.
pub fn pictures(count: usize) {
    counter!(PICTURES).increment(count as u64);
}

/// A worker draws this number of images together.
pub fn batch(pictures: usize) {
    histogram!(BATCH_PICTURES).record(pictures as f64);
}

/// The deep core ran, and its output had changed by this ratio since it ran last.
pub fn drift(change: f64) {
    histogram!(CACHE_DRIFT).record(change);
}

/// A worker has loaded or unloaded a model.
pub fn model(loaded: bool) {
    gauge!(MODELS_LOADED).increment(if loaded { 1.0 } else { -1.0 });
}

/// This number of jobs have ended without their ends being stored so far.
pub fn unstored(jobs: usize) {
    gauge!(JOBS_UNSTORED).set(jobs as f64);
}

/// This number of Tritons draw.
pub fn hosts(up: usize) {
    gauge!(HOSTS).set(up as f64);
}

/// An order was begun again this number of times, as hosts went away that drew it.
pub fn redrawn(times: usize) {
    counter!(REDRAWN).increment(times as u64);
}

/// A thread of a worker was started again.
pub fn worker_restart() {
    counter!(WORKER_RESTARTS).increment(1);
}

static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();

/// Starts recording in this process. From now on every series is there except those of routes. A
/// second call does nothing.
pub fn start() {
    HANDLE.get_or_init(|| {
        let handle = builder().install_recorder().expect("this is the only recorder");
        describe();
        begin();
        handle
    });
}

/// Begins the series of `route`, the template of a path.
pub fn route(route: &str) {
    counter!(REQUESTS, "route" => route.to_string(), "status" => "200").increment(0);
    let _ = histogram!(REQUEST_DURATION, "route" => route.to_string());
}

/// All metrics in Prometheus' text format, with `queue_depth` waiting tasks.
pub fn text(queue_depth: usize) -> String {
    gauge!(QUEUE_DEPTH).set(queue_depth as f64);
    gauge!(RESIDENT_MEMORY).set(resident_memory().unwrap_or(0) as f64);
    HANDLE.get().map_or_else(String::new, PrometheusHandle::render)
}

/// Sums up the samples of histograms. To be called now and then: until then they keep each sample.
pub fn tidy() {
    if let Some(handle) = HANDLE.get() {
        handle.run_upkeep();
    }
}

fn builder() -> PrometheusBuilder {
    let seconds = [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0];
    let buckets: [(&str, &[f64]); 4] = [
        (REQUEST_DURATION, &[0.01, 0.1, 0.5, 1.0, 5.0, 10.0, 60.0, 300.0]),
        (STAGE_DURATION, &seconds),
        (BATCH_PICTURES, &[1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 32.0, 64.0]),
        (CACHE_DRIFT, &[0.001, 0.003, 0.01, 0.03, 0.1, 0.2, 0.3, 0.5, 1.0]),
    ];
    buckets.into_iter().fold(PrometheusBuilder::new(), |builder, (name, buckets)| {
        builder
            .set_buckets_for_metric(Matcher::Full(name.to_string()), buckets)
            .expect("there are buckets")
    })
}

fn describe() {
    describe_counter!(REQUESTS, "HTTP requests answered, by route and status");
    describe_histogram!(REQUEST_DURATION, "From a request to the end of its answer");
    describe_gauge!(CONNECTIONS, "Open connections");
    describe_gauge!(QUEUE_DEPTH, "Orders waiting");
    describe_counter!(TASKS, "Orders for pictures, by how they ended");
    describe_counter!(PICTURES, "Pictures drawn");
    describe_counter!(STEPS, "Denoising steps, of each order by itself");
    describe_counter!(CORE_RUNS, "Steps at which the deep core ran");
    describe_counter!(CORE_SKIPS, "Steps at which its kept output was used again");
    describe_histogram!(STAGE_DURATION, "Time of each call of a stage of drawing");
    describe_histogram!(BATCH_PICTURES, "Pictures that were drawn together");
    describe_histogram!(CACHE_DRIFT, "Relative change of the deep core's output between two runs");
    describe_gauge!(MODELS_LOADED, "Models in memory, of each worker by itself");
    describe_gauge!(JOBS_UNSTORED, "Jobs that have ended but cannot be stored; alert above 0");
    describe_counter!(WORKER_RESTARTS, "Times that a thread of the engine was started again");
    describe_gauge!(HOSTS, "Tritons that draw, with --backend triton");
    describe_counter!(REDRAWN, "Times that an order was begun again as a Triton went away");
    describe_gauge!(RESIDENT_MEMORY, "Resident memory of the process");
}

/// Begins every series whose labels are known.
fn begin() {
    for name in [PICTURES, STEPS, CORE_RUNS, CORE_SKIPS, WORKER_RESTARTS, REDRAWN] {
        counter!(name).increment(0);
    }
    for outcome in TaskOutcome::VARIANTS {
        counter!(TASKS, "outcome" => <&str>::from(outcome)).increment(0);
    }
    for (stage, _) in Stage::ALL {
        let _ = histogram!(STAGE_DURATION, "stage" => stage.label());
    }
    let _ = (histogram!(BATCH_PICTURES), histogram!(CACHE_DRIFT));
    gauge!(CONNECTIONS).set(0.0);
    gauge!(MODELS_LOADED).set(0.0);
    gauge!(JOBS_UNSTORED).set(0.0);
    gauge!(HOSTS).set(0.0);
}
