//! Tells whether a worker is alive by what it is doing and since when.

use std::collections::HashMap;
use std::time::Duration;

use hydit::timing::{Observer, Stage};
use hydit_graphs::control::Part;
use hydit_graphs::{Manifest, Sizes};
use parking_lot::Mutex;

use crate::server::metrics;

/// How much longer than the slowest of its kind so far, per FLOP, a call may take.
const PATIENCE: f64 = 20.0;
/// Added to the limit of every call: the machine may be busy.
const GRACE: Duration = Duration::from_secs(2);
/// Longest time that one look counts, twice what is usual between two of them.
pub const COUNTED: Duration = Duration::from_millis(100);

/// The graphs that each stage runs, but for ControlNets, of which the largest graph counts.
const GRAPHS: [(Stage, &[&str]); 8] = [
    (Stage::TextEncoders, &["text-encoder", "text-encoder-2"]),
    (Stage::ImageEncoder, &["image-encoder"]),
    (Stage::VaeEncoder, &["vae-encoder"]),
    (Stage::Conditioner, &["conditioner"]),
    (Stage::Encoder, &["shallow-encoder"]),
    (Stage::Core, &["deep-core"]),
    (Stage::Decoder, &["shallow-decoder"]),
    (Stage::Vae, &["vae-decoder"]),
];

/// Watches one worker. How long a graph call may take follows from the calls of the same graph
/// before it, by FLOPs: a long call is not a dead one. What was never measured, and loading, may
/// take any time. The time of a call is counted by the looks at it, so that time in which the
/// process did not run is none.
#[derive(Default)]
pub struct Watchdog(Mutex<State>);

#[derive(Default)]
struct State {
    model: String,
    /// FLOPs of a call of each stage for what is being drawn, by the stage's label.
    costs: HashMap<&'static str, f64>,
    /// Seconds per FLOP of the slowest call so far, by model and the stage's label.
    seconds_per_flop: HashMap<(String, &'static str), f64>,
    call: Option<Call>,
}

/// The call under way.
struct Call {
    stage: Stage,
    /// Time that looks have counted since it began.
    seen: Duration,
    /// How long it may take, where that is known.
    limit: Option<Duration>,
}

impl Watchdog {
    /// Says that the calls that follow are for `model`, with tensors of `sizes`.
    pub fn work_on(&self, model: &str, manifest: &Manifest, sizes: &Sizes) {
        let costs = GRAPHS.iter().map(|(stage, graphs)| {
            let flops = graphs.iter().map(|graph| manifest.flops(graph, sizes));
            (stage.label(), flops.sum())
        });
        let nets = manifest.controls.iter().flat_map(|net| net.graphs(manifest.cache_at_branch));
        let steps = nets.filter(|(part, _)| *part != Part::Conditioner);
        let net = steps.map(|(_, graph)| manifest.flops(&graph, sizes)).fold(0.0, f64::max);
        let costs = costs.chain([(Stage::ControlNets.label(), net)]);
        let mut state = self.0.lock();
        state.model = model.to_string();
        state.costs = costs.collect();
    }

    /// Forgets the call under way: its thread has ended.
    pub fn rest(&self) {
        self.0.lock().call = None;
    }

    /// Counts `ran`, the time since the last look. Gives the stage whose call should have returned
    /// by now, if there is one.
    pub fn look(&self, ran: Duration) -> Option<Stage> {
        let mut state = self.0.lock();
        let call = state.call.as_mut()?;
        call.seen += ran;
        (call.seen > call.limit?).then_some(call.stage)
    }
}

impl State {
    fn cost(&self, stage: Stage) -> Option<f64> {
        self.costs.get(stage.label()).copied().filter(|&cost| cost > 0.0)
    }

    fn limit(&self, stage: Stage) -> Option<Duration> {
        let slowest = self.seconds_per_flop.get(&(self.model.clone(), stage.label()))?;
        Some(GRACE + Duration::from_secs_f64(PATIENCE * slowest * self.cost(stage)?))
    }
}

impl Observer for Watchdog {
    fn began(&self, stage: Stage) {
        let mut state = self.0.lock();
        let limit = state.limit(stage);
        state.call = Some(Call { stage, seen: Duration::ZERO, limit });
        drop(state);
        #[cfg(feature = "failpoints")]
        fault(stage);
    }

    fn ended(&self, stage: Stage, took: Duration) {
        metrics::stage(stage, took);
        let mut state = self.0.lock();
        let call = state.call.take();
        // No look may have come since it began; more than that passed only if the process ran.
        let took = call.as_ref().map_or(took, |call| took.min(call.seen + COUNTED));
        // Nothing is learned from a call that was too long: the next such would go unnoticed.
        if call.and_then(|call| call.limit).is_some_and(|limit| took > limit) {
            return;
        }
        if let Some(cost) = state.cost(stage) {
            let model = state.model.clone();
            let slowest = state.seconds_per_flop.entry((model, stage.label())).or_default();
            *slowest = slowest.max(took.as_secs_f64() / cost);
        }
    }
}

/// Where a test lets a worker fail or hang.
#[cfg(feature = "failpoints")]
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

    /// One whose core has `cost` FLOPs and has taken `slowest` seconds per FLOP.
    fn watchdog(slowest: f64, cost: f64) -> Watchdog {
        let watchdog = Watchdog::default();
        let mut state = watchdog.0.lock();
        state.model = "m".to_string();
        state.costs.insert("core", cost);
        state.seconds_per_flop.insert(("m".to_string(), "core"), slowest);
        drop(state);
        watchdog
    }

    /// Looks in their usual turn, for `time`. Gives what the last has seen.
    fn watch(watchdog: &Watchdog, time: Duration) -> Option<Stage> {
        let turn = COUNTED / 2;
        let turns = time.div_duration_f64(turn).round() as usize;
        (0..turns).map(|_| watchdog.look(turn)).last().flatten()
    }

    #[test]
    fn a_call_is_late_when_it_is_far_slower_than_those_before() {
        let watchdog = watchdog(0.1, 3.0);
        let seconds = Duration::from_secs;
        assert_eq!(watch(&watchdog, seconds(9)), None, "nothing runs");
        let limit = Duration::from_secs_f64(2.0 + 20.0 * 0.3);
        watchdog.began(Stage::Core);
        assert_eq!(watch(&watchdog, limit), None);
        assert_eq!(watchdog.look(Duration::from_millis(1)), Some(Stage::Core));
        watchdog.ended(Stage::Core, limit + seconds(1));
        assert_eq!(watch(&watchdog, seconds(1000)), None, "it came back");
        watchdog.began(Stage::Core);
        assert_eq!(watch(&watchdog, seconds(3)), None);
        watchdog.ended(Stage::Core, seconds(3));
        watchdog.began(Stage::Core);
        let limit = seconds(2 + 20 * 3);
        assert_eq!(watch(&watchdog, limit), None, "it may be that slow again");
        assert_eq!(watchdog.look(seconds(1)), Some(Stage::Core), "but no slower");
        watchdog.ended(Stage::Core, seconds(1000));
        watchdog.began(Stage::Core);
        assert_eq!(watch(&watchdog, limit + seconds(1)), Some(Stage::Core), "nothing was learned");
    }

    #[test]
    fn time_in_which_nobody_looked_counts_for_nothing() {
        let watchdog = watchdog(0.1, 3.0);
        watchdog.began(Stage::Core);
        // The process was stopped for an hour between two looks, of which one counts.
        assert_eq!(watchdog.look(COUNTED), None);
        watchdog.ended(Stage::Core, Duration::from_secs(3600));
        watchdog.began(Stage::Core);
        let limit = Duration::from_secs_f64(2.0 + 20.0 * 0.3);
        assert_eq!(watch(&watchdog, limit), None);
        let late = watchdog.look(Duration::from_millis(1));
        assert_eq!(late, Some(Stage::Core), "no call was that slow");
    }

    #[test]
    fn what_was_never_measured_may_take_any_time() {
        let watchdog = watchdog(0.1, 3.0);
        watchdog.began(Stage::Load);
        assert_eq!(watch(&watchdog, Duration::from_secs(10_000)), None);
    }
}
