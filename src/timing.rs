//! Where the time of a request went.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;

/// A stage of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// Loading graphs within a request, which a low-memory engine does.
    Load,
    /// Both text encoders and tokenizers.
    TextEncoders,
    /// The conditioner.
    Conditioner,
    /// The shallow encoder.
    Encoder,
    /// What a cache policy computes: the change that it watches, and forecasts.
    Policy,
    /// The deep core.
    Core,
    /// The shallow decoder.
    Decoder,
    /// Guidance and sampler.
    Sampler,
    /// The image decoder.
    Vae,
    /// Encoding and writing pictures.
    Png,
}

impl Stage {
    /// All stages in the order they run.
    pub const ALL: [(Stage, &'static str); 10] = [
        (Stage::Load, "loading"),
        (Stage::TextEncoders, "text encoders"),
        (Stage::Conditioner, "conditioner"),
        (Stage::Encoder, "shallow encoder"),
        (Stage::Policy, "cache policy"),
        (Stage::Core, "deep core"),
        (Stage::Decoder, "shallow decoder"),
        (Stage::Sampler, "sampler"),
        (Stage::Vae, "vae decoder"),
        (Stage::Png, "png"),
    ];

    /// A word for programs.
    pub fn label(self) -> &'static str {
        match self {
            Stage::Load => "load",
            Stage::TextEncoders => "text-encoders",
            Stage::Conditioner => "conditioner",
            Stage::Encoder => "encoder",
            Stage::Policy => "policy",
            Stage::Core => "core",
            Stage::Decoder => "decoder",
            Stage::Sampler => "sampler",
            Stage::Vae => "vae",
            Stage::Png => "png",
        }
    }
}

/// Hears of every call while it is made.
pub trait Observer: Send + Sync {
    /// A call begins.
    fn began(&self, stage: Stage);
    /// It has ended.
    fn ended(&self, stage: Stage, took: Duration);
}

/// Every call of each stage, and the denoising loop around them.
#[derive(Clone, Default)]
pub struct Timings {
    stages: [Vec<Duration>; Stage::ALL.len()],
    observer: Option<Arc<dyn Observer>>,
    /// When the denoising loop began.
    pub began: Option<Instant>,
    /// Wall time of the denoising loop.
    pub denoise: Duration,
}

impl Timings {
    /// `observer` hears of every call.
    pub fn observed(observer: Arc<dyn Observer>) -> Timings {
        Timings { observer: Some(observer), ..Timings::default() }
    }

    /// Runs `work` and books its time under `stage`.
    pub fn time<T>(&mut self, stage: Stage, work: impl FnOnce() -> T) -> T {
        let _span = tracing::debug_span!("stage", name = stage.label()).entered();
        if let Some(observer) = &self.observer {
            observer.began(stage);
        }
        let start = Instant::now();
        let result = work();
        let took = start.elapsed();
        if let Some(observer) = &self.observer {
            observer.ended(stage, took);
        }
        self.stages[stage as usize].push(took);
        result
    }

    /// The time of each call of `stage`.
    pub fn each(&self, stage: Stage) -> &[Duration] {
        &self.stages[stage as usize]
    }

    /// Calls of `stage`.
    pub fn calls(&self, stage: Stage) -> usize {
        self.each(stage).len()
    }

    /// Time of `stage`.
    pub fn of(&self, stage: Stage) -> Duration {
        self.each(stage).iter().sum()
    }

    /// Share of the denoising loop spent outside the engine.
    pub fn overhead(&self) -> f64 {
        let engine: Duration =
            [Stage::Encoder, Stage::Core, Stage::Decoder].iter().map(|&s| self.of(s)).sum();
        1.0 - engine.as_secs_f64() / self.denoise.as_secs_f64().max(f64::MIN_POSITIVE)
    }
}
