//! Whether a worker is alive: what it is at, and since when.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hydit_graphs::{Manifest, Sizes};

use crate::server::metrics;
use hydit::timing::{Observer, Stage};

/// A call may take this much longer than the slowest of its kind so far, per FLOP.
const PATIENCE: f64 = 20.0;
/// And this much longer beside: a machine may be busy.
const GRACE: Duration = Duration::from_secs(2);

/// The graph of each stage that runs one.
const GRAPHS: [(Stage, &[&str]); 6] = [
    (Stage::TextEncoders, &["text-encoder", "text-encoder-2"]),
    (Stage::Conditioner, &["conditioner"]),
    (Stage::Encoder, &["shallow-encoder"]),
    (Stage::Core, &["deep-core"]),
    (Stage::Decoder, &["shallow-decoder"]),
    (Stage::Vae, &["vae-decoder"]),
];

/// One worker's pulse. A long call is not death: how long one may take follows from the calls before
/// it, of the same graph, by FLOPs. What was never measured, and loading, may take any time.
#[derive(Default)]
pub struct Pulse(Mutex<State>);

#[derive(Default)]
struct State {
    model: String,
    /// FLOPs of each stage's call, of what is being drawn.
    costs: HashMap<&'static str, f64>,
    /// Seconds per FLOP of the slowest call so far.
    pace: HashMap<(String, &'static str), f64>,
    call: Option<Call>,
}

struct Call {
    stage: Stage,
    since: Instant,
    /// How long it may take, where that is known.
    limit: Option<Duration>,
}

impl Pulse {
    /// The calls that follow are for `model`, with tensors of `sizes`.
    pub fn work_on(&self, model: &str, manifest: &Manifest, sizes: &Sizes) {
        let cost = |graphs: &[&str]| graphs.iter().map(|graph| manifest.flops(graph, sizes)).sum();
        let mut state = self.lock();
        state.model = model.to_string();
        state.costs = GRAPHS.iter().map(|(stage, graphs)| (stage.label(), cost(graphs))).collect();
    }

    /// Nothing runs any more.
    pub fn rest(&self) {
        self.lock().call = None;
    }

    /// The stage whose call does not come back, if there is one.
    pub fn overdue(&self, now: Instant) -> Option<Stage> {
        let state = self.lock();
        let call = state.call.as_ref()?;
        let late = now.saturating_duration_since(call.since) > call.limit?;
        late.then_some(call.stage)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn cost(&self, stage: Stage) -> Option<f64> {
        self.costs.get(stage.label()).copied().filter(|&cost| cost > 0.0)
    }

    fn limit(&self, stage: Stage) -> Option<Duration> {
        let pace = self.pace.get(&(self.model.clone(), stage.label()))?;
        Some(GRACE + Duration::from_secs_f64(PATIENCE * pace * self.cost(stage)?))
    }
}

impl Observer for Pulse {
    fn began(&self, stage: Stage) {
        let mut state = self.lock();
        let limit = state.limit(stage);
        state.call = Some(Call { stage, since: Instant::now(), limit });
        drop(state);
        fault(stage);
    }

    fn ended(&self, stage: Stage, took: Duration) {
        metrics::stage(stage, took);
        let mut state = self.lock();
        let call = state.call.take();
        // From one that was too long nothing is learned: the next such would go unnoticed.
        if call.and_then(|call| call.limit).is_some_and(|limit| took > limit) {
            return;
        }
        if let Some(cost) = state.cost(stage) {
            let pace = took.as_secs_f64() / cost;
            let model = state.model.clone();
            let slowest = state.pace.entry((model, stage.label())).or_default();
            *slowest = slowest.max(pace);
        }
    }
}

/// Where a test lets the engine fail or hang.
fn fault(stage: Stage) {
    match stage {
        Stage::Core => fail::fail_point!("core"),
        Stage::Vae => fail::fail_point!("vae"),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pulse(pace: f64, cost: f64) -> Pulse {
        let pulse = Pulse::default();
        let mut state = pulse.lock();
        state.model = "m".to_string();
        state.costs.insert("core", cost);
        state.pace.insert(("m".to_string(), "core"), pace);
        drop(state);
        pulse
    }

    #[test]
    fn a_call_is_late_when_it_is_far_slower_than_those_before() {
        let pulse = pulse(0.1, 3.0);
        let now = Instant::now();
        assert_eq!(pulse.overdue(now), None, "nothing runs");
        pulse.began(Stage::Core);
        let after = |seconds: f64| Instant::now() + Duration::from_secs_f64(seconds);
        assert_eq!(pulse.overdue(after(2.0 + 20.0 * 0.3 - 0.5)), None);
        assert_eq!(pulse.overdue(after(2.0 + 20.0 * 0.3 + 0.5)), Some(Stage::Core));
        pulse.ended(Stage::Core, Duration::from_secs(3));
        assert_eq!(pulse.overdue(after(1000.0)), None, "it came back");
        pulse.began(Stage::Core);
        assert_eq!(pulse.overdue(after(2.0 + 20.0 * 3.0 - 0.5)), None, "it may be that slow again");
        pulse.ended(Stage::Core, Duration::from_secs(1000));
        pulse.began(Stage::Core);
        assert_eq!(
            pulse.overdue(after(2.0 + 20.0 * 3.0 + 0.5)),
            Some(Stage::Core),
            "but no slower"
        );
    }

    #[test]
    fn what_was_never_measured_may_take_any_time() {
        let pulse = pulse(0.1, 3.0);
        pulse.began(Stage::Load);
        assert_eq!(pulse.overdue(Instant::now() + Duration::from_secs(10_000)), None);
    }
}
