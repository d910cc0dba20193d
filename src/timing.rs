//! Where the time of a request went.
//!
//! A [`Timer`] is shared by all that work for one backend. A graph call starts it for its
//! [`Stage`] and stops it by dropping the guard, so that no signature carries timings.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;

/// A stage of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// Loading graphs within a request, which a low-memory backend does.
    Load,
    /// Both text encoders and tokenizers.
    TextEncoders,
    /// The encoder of image prompts, for one image.
    ImageEncoder,
    /// The encoder of the image that a picture is made from.
    VaeEncoder,
    /// The conditioner, for all rows.
    Conditioner,
    /// The shallow encoder, for all rows.
    Encoder,
    /// The ControlNets, for all rows: the encoder or the core of one.
    ControlNets,
    /// What a cache policy computes: the change that it watches, and forecasts.
    Policy,
    /// The deep core, for all rows.
    Core,
    /// The shallow decoder, for all rows.
    Decoder,
    /// Guidance and sampler.
    Sampler,
    /// The image decoder, for one image.
    Vae,
    /// Encoding and writing images.
    Png,
}

impl Stage {
    /// All stages in the order they run, with their names in reports.
    pub const ALL: [(Stage, &'static str); 13] = [
        (Stage::Load, "loading"),
        (Stage::TextEncoders, "text encoders"),
        (Stage::ImageEncoder, "image encoder"),
        (Stage::VaeEncoder, "vae encoder"),
        (Stage::Conditioner, "conditioner"),
        (Stage::Encoder, "shallow encoder"),
        (Stage::ControlNets, "controlnets"),
        (Stage::Policy, "cache policy"),
        (Stage::Core, "deep core"),
        (Stage::Decoder, "shallow decoder"),
        (Stage::Sampler, "sampler"),
        (Stage::Vae, "vae decoder"),
        (Stage::Png, "png"),
    ];

    /// The stage's name in JSON, metrics and spans.
    pub fn label(self) -> &'static str {
        match self {
            Stage::Load => "load",
            Stage::TextEncoders => "text-encoders",
            Stage::ImageEncoder => "image-encoder",
            Stage::VaeEncoder => "vae-encoder",
            Stage::Conditioner => "conditioner",
            Stage::Encoder => "encoder",
            Stage::ControlNets => "control-nets",
            Stage::Policy => "policy",
            Stage::Core => "core",
            Stage::Decoder => "decoder",
            Stage::Sampler => "sampler",
            Stage::Vae => "vae",
            Stage::Png => "png",
        }
    }
}

/// Observes every call of every stage. Both methods run on the thread that makes the call.
pub trait Observer: Send + Sync {
    /// A call is about to begin.
    fn began(&self, stage: Stage);
    /// The call has ended, well or not, after `took`.
    fn ended(&self, stage: Stage, took: Duration);
}

/// The time of every call of each stage, and of the denoising loop around them.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Timings {
    stages: [Vec<Duration>; Stage::ALL.len()],
    /// When the denoising loop began; `None` if it never did.
    pub began: Option<Instant>,
    /// Wall time of the denoising loop.
    pub denoise: Duration,
}

impl Timings {
    /// Adds a call of `stage` that took `took`.
    pub fn add(&mut self, stage: Stage, took: Duration) {
        self.stages[stage as usize].push(took);
    }

    /// The time of each call of `stage`, in order.
    pub fn each(&self, stage: Stage) -> &[Duration] {
        &self.stages[stage as usize]
    }

    /// The number of calls of `stage`.
    pub fn calls(&self, stage: Stage) -> usize {
        self.each(stage).len()
    }

    /// The time of all calls of `stage`.
    pub fn of(&self, stage: Stage) -> Duration {
        self.each(stage).iter().sum()
    }

    /// The share of the denoising loop spent outside the transformer's graphs, 0 to 1.
    pub fn overhead(&self) -> f64 {
        let graphs = [Stage::Encoder, Stage::ControlNets, Stage::Core, Stage::Decoder];
        let graphs: Duration = graphs.iter().map(|&s| self.of(s)).sum();
        1.0 - graphs.as_secs_f64() / self.denoise.as_secs_f64().max(f64::MIN_POSITIVE)
    }
}

/// A stopwatch for all calls of one backend; clones are the same stopwatch.
#[derive(Clone, Default)]
pub struct Timer(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    observer: Option<Arc<dyn Observer>>,
    /// The calls since [`Timer::record`]; `None` while nobody wants them.
    recorded: Option<Timings>,
}

impl Timer {
    /// From now on `observer` observes every call.
    pub fn observe(&self, observer: Arc<dyn Observer>) {
        self.state().observer = Some(observer);
    }

    /// From now on the time of every call is kept, until [`Timer::recorded`].
    pub fn record(&self) {
        self.state().recorded = Some(Timings::default());
    }

    /// The calls since [`Timer::record`]. Keeps no more of them.
    pub fn recorded(&self) -> Timings {
        self.state().recorded.take().unwrap_or_default()
    }

    /// Starts a call of `stage`, which ends when the guard is dropped.
    pub(crate) fn start(&self, stage: Stage) -> Timed {
        let span = tracing::debug_span!("stage", name = stage.label()).entered();
        let observer = self.state().observer.clone();
        if let Some(observer) = &observer {
            observer.began(stage);
        }
        Timed { stage, start: Instant::now(), timer: self.clone(), observer, _span: span }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Each change is one assignment: a panic elsewhere leaves it whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A call under way.
#[must_use = "the call ends when this is dropped"]
pub(crate) struct Timed {
    stage: Stage,
    start: Instant,
    timer: Timer,
    observer: Option<Arc<dyn Observer>>,
    _span: tracing::span::EnteredSpan,
}

impl Drop for Timed {
    fn drop(&mut self) {
        let took = self.start.elapsed();
        if let Some(observer) = &self.observer {
            observer.ended(self.stage, took);
        }
        if let Some(timings) = &mut self.timer.state().recorded {
            timings.add(self.stage, took);
        }
    }
}
