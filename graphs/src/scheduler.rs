//! The noise schedule a model was trained with, and how its prediction is read.
//!
//! Follows the constructors of diffusers' schedulers (`scheduling_ddpm.py` and its siblings).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::target::by_name;

/// How the timesteps of a run are spread over the training timesteps: diffusers' `timestep_spacing`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Spacing {
    /// Multiples of a whole stride from the low end, plus `steps_offset`.
    Leading,
    /// Evenly from the last training timestep downwards, rounded.
    Linspace,
    /// Like `leading`, but from the high end: the first is always the last training timestep.
    Trailing,
}

impl Spacing {
    /// All of them.
    pub const ALL: [Spacing; 3] = [Spacing::Leading, Spacing::Linspace, Spacing::Trailing];
}

impl fmt::Display for Spacing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Leading => "leading",
            Self::Linspace => "linspace",
            Self::Trailing => "trailing",
        })
    }
}

impl FromStr for Spacing {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        by_name(name, &Self::ALL)
    }
}

/// The spacing of the betas between `beta_start` and `beta_end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BetaSchedule {
    /// Evenly.
    Linear,
    /// Their square roots evenly: latent diffusion.
    ScaledLinear,
}

/// What the model predicts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PredictionType {
    /// The noise.
    Epsilon,
    /// `v = sqrt(a) noise - sqrt(1 - a) x0` (Progressive Distillation, arXiv 2202.00512).
    VPrediction,
}

/// The fields of a checkpoint's `scheduler_config.json` that decide a trajectory.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NoiseSchedule {
    /// Length of the table; timesteps are 0 to one below it.
    pub num_train_timesteps: usize,
    /// The first beta.
    pub beta_start: f64,
    /// The last beta.
    pub beta_end: f64,
    /// The betas between.
    pub beta_schedule: BetaSchedule,
    /// What the model predicts.
    pub prediction_type: PredictionType,
    /// Spacing of `ddpm` and `ddim`.
    pub timestep_spacing: Spacing,
    /// Added to every timestep of the `leading` spacing.
    pub steps_offset: u32,
    /// Whether the last step of `ddim` ends at the clean picture (true), or at the noise level of timestep 0.
    pub set_alpha_to_one: bool,
}

impl NoiseSchedule {
    /// The cumulative product of `1 - beta`, float32, one per training timestep.
    ///
    /// Bit for bit torch's on x86 with AVX2: `linspace` in fused float32 from both ends, the product in double.
    pub fn alphas_cumprod(&self) -> Vec<f32> {
        let n = self.num_train_timesteps;
        let scaled = self.beta_schedule == BetaSchedule::ScaledLinear;
        let end = |beta: f64| (if scaled { beta.sqrt() } else { beta }) as f32;
        let (first, last) = (end(self.beta_start), end(self.beta_end));
        let stride = (last - first) / (n - 1) as f32;
        let mut product = 1.0f64;
        (0..n)
            .map(|i| {
                let x = if i < n / 2 {
                    stride.mul_add(i as f32, first)
                } else {
                    stride.mul_add(-((n - 1 - i) as f32), last)
                };
                let beta = if scaled { x * x } else { x };
                product *= f64::from(1.0 - beta);
                product as f32
            })
            .collect()
    }

    /// Reads the text of a diffusers `scheduler_config.json` (DDPM, DDIM or DPMSolverMultistep).
    ///
    /// # Errors
    /// [`SchedulerError::Config`] lists every field that is missing, asks for something not done here (thresholding,
    /// clipping, Karras sigmas, learned variances, ...) or is not known: nothing is ignored silently.
    pub fn from_scheduler_config(text: &str) -> Result<Self, SchedulerError> {
        let mut config: Map<String, Value> = serde_json::from_str(text)?;
        let dpm = config.get("_class_name").is_some_and(|name| name == DPM);
        let spacing = if dpm { Spacing::Linspace } else { Spacing::Leading };
        let mut defaults = vec![
            ("timestep_spacing", Value::from(spacing.to_string())),
            ("steps_offset", Value::from(0)),
            ("set_alpha_to_one", Value::from(true)),
        ];
        if !dpm {
            defaults.push(("clip_sample", Value::from(true))); // the default of these classes, and refused
        }
        for (field, value) in defaults {
            config.entry(field).or_insert(value);
        }
        let missing = REQUIRED.iter().filter(|field| !config.contains_key(**field));
        let mut problems: Vec<_> = missing.map(|field| problem(field, "missing", "set")).collect();
        for (field, value) in &config {
            let (fine, expected) = check(field, value);
            if !fine {
                problems.push(problem(field, &value.to_string(), expected));
            }
        }
        if problems.is_empty() {
            Ok(serde_json::from_value(Value::Object(config))?)
        } else {
            Err(SchedulerError::Config(problems))
        }
    }
}

const DPM: &str = "DPMSolverMultistepScheduler";
const REQUIRED: [&str; 5] =
    ["num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "prediction_type"];

fn problem(field: &str, value: &str, expected: &'static str) -> ConfigProblem {
    ConfigProblem { field: field.to_owned(), value: value.to_owned(), expected }
}

/// Whether a field's value is one the samplers follow, and what would be.
fn check(field: &str, value: &Value) -> (bool, &'static str) {
    let share = |v: &Value| v.as_f64().is_some_and(|b| b > 0.0 && b < 1.0);
    match field {
        "_class_name" => {
            let known = ["DDPMScheduler", "DDIMScheduler", DPM];
            (
                known.iter().any(|name| value == name),
                "DDPMScheduler, DDIMScheduler or DPMSolverMultistepScheduler",
            )
        }
        "num_train_timesteps" => {
            (value.as_u64().is_some_and(|n| (2..=100_000).contains(&n)), "2 to 100000")
        }
        "beta_start" | "beta_end" => (share(value), "above 0 and below 1"),
        "beta_schedule" => (is::<BetaSchedule>(value), "linear or scaled_linear"),
        "prediction_type" => (is::<PredictionType>(value), "epsilon or v_prediction"),
        "timestep_spacing" => (is::<Spacing>(value), "leading, linspace or trailing"),
        "steps_offset" => (value.as_u64().is_some_and(|n| n <= 1000), "0 to 1000"),
        "set_alpha_to_one" => (value.is_boolean(), "true or false"),
        "trained_betas" => (value.is_null(), "null"),
        "variance_type" => (value.is_null() || value == "fixed_small", "fixed_small"),
        "algorithm_type" => (value == "dpmsolver++", "dpmsolver++"),
        "solver_order" => (value == 2, "2"),
        "solver_type" => (value == "midpoint", "midpoint"),
        "final_sigmas_type" => (value == "zero", "zero"),
        // Parameters of features that are off, and what the solver does anyway when it ends at sigma zero.
        "_diffusers_version"
        | "clip_sample_range"
        | "dynamic_thresholding_ratio"
        | "sample_max_value"
        | "lower_order_final"
        | "euler_at_final"
        | "flow_shift"
        | "time_shift_type" => (true, ""),
        // thresholding, clip_sample, rescale_betas_zero_snr, use_karras_sigmas, use_dynamic_shifting, ...
        _ => (value == false, "false"),
    }
}

fn is<T: for<'de> Deserialize<'de>>(value: &Value) -> bool {
    T::deserialize(value).is_ok()
}

/// Why a `scheduler_config.json` cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SchedulerError {
    /// `scheduler_config.json` asks for something the samplers do not do. All such fields at once.
    #[error("scheduler config not supported: {}", join(.0))]
    Config(Vec<ConfigProblem>),
    /// `scheduler_config.json` is not a JSON object.
    #[error("scheduler config is not a JSON object")]
    Json(#[from] serde_json::Error),
}

/// One field of a scheduler config that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} is {value}, it must be {expected}")]
pub struct ConfigProblem {
    /// The field's name in `scheduler_config.json`.
    pub field: String,
    /// Its value as JSON, or "missing".
    pub value: String,
    /// What would be accepted.
    pub expected: &'static str,
}

fn join(problems: &[ConfigProblem]) -> String {
    problems.iter().map(ConfigProblem::to_string).collect::<Vec<_>>().join("; ")
}
