//! The noise schedule that a model was trained with, and the meaning of its prediction.
//!
//! Follows the constructors of diffusers' schedulers (`scheduling_ddpm.py` and its siblings).

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use strum::{Display, EnumString, VariantArray};

use crate::config::{ConfigError, field, range};
use crate::names::UnknownName;

/// How the timesteps of a request are spread over those of the training: diffusers'
/// `timestep_spacing`.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Hash,
    Serialize,
    Deserialize,
    Display,
    EnumString,
    VariantArray,
)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
#[strum(parse_err_ty = UnknownName, parse_err_fn = UnknownName::among::<Spacing>)]
pub enum Spacing {
    /// Multiples of an integer stride, counted from timestep 0, plus `steps_offset`.
    Leading,
    /// Evenly spaced from the last training timestep downwards, rounded.
    Linspace,
    /// Multiples of a stride, counted downwards from the last training timestep.
    Trailing,
    /// Noise levels of Karras et al. (arXiv 2206.00364, equation 5) over the range of the training, and the
    /// timesteps that have them: diffusers' `use_karras_sigmas`.
    Karras,
}

impl Spacing {
    /// All spacings.
    pub const ALL: &[Spacing] = Spacing::VARIANTS;

    /// Whether it is a `timestep_spacing`, with which a scheduler config can ask for it.
    fn is_of_config(self) -> bool {
        self != Spacing::Karras
    }
}

/// How the betas are spread between `beta_start` and `beta_end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BetaSchedule {
    /// The betas are evenly spaced.
    Linear,
    /// The square roots of the betas are evenly spaced, as in latent diffusion.
    ScaledLinear,
}

/// The quantity that the model predicts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PredictionType {
    /// The model predicts the noise.
    Epsilon,
    /// The model predicts `v = sqrt(a) noise - sqrt(1 - a) x0` (Progressive Distillation, arXiv
    /// 2202.00512).
    VPrediction,
}

/// How much noise the ancestral step of DDPM adds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VarianceType {
    /// As much as the schedule says.
    #[default]
    FixedSmall,
    /// As much as the model predicts, between two limits of the schedule (Improved Denoising
    /// Diffusion Probabilistic Models, arXiv 2102.09672, equation 15).
    LearnedRange,
}

impl VarianceType {
    /// Whether it is that of a config which says none.
    fn is_usual(&self) -> bool {
        *self == VarianceType::FixedSmall
    }
}

/// The fields of a checkpoint's `scheduler_config.json` on which a trajectory depends.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NoiseSchedule {
    /// Number of training timesteps, which are counted from 0.
    pub num_train_timesteps: usize,
    /// Beta of the first training timestep.
    pub beta_start: f64,
    /// Beta of the last training timestep.
    pub beta_end: f64,
    /// How the betas are spread between the two.
    pub beta_schedule: BetaSchedule,
    /// The quantity that the model predicts.
    pub prediction_type: PredictionType,
    /// How much noise the ancestral step of DDPM adds.
    #[serde(default, skip_serializing_if = "VarianceType::is_usual")]
    pub variance_type: VarianceType,
    /// Spacing of the timesteps of `ddpm` and `ddim`.
    pub timestep_spacing: Spacing,
    /// Offset of every timestep of the `leading` spacing.
    pub steps_offset: u32,
    /// Whether the last step of `ddim` ends at the clean image; if not, it ends at the noise level
    /// of timestep 0.
    pub set_alpha_to_one: bool,
}

impl NoiseSchedule {
    /// The cumulative product of `1 - beta` for every training timestep.
    ///
    /// It is bit for bit that of PyTorch on x86 with AVX2: `linspace` in fused float32 from both
    /// ends, and the product in float64.
    pub fn alphas_cumprod(&self) -> Vec<f32> {
        let n = self.num_train_timesteps;
        let scaled = self.beta_schedule == BetaSchedule::ScaledLinear;
        let [first, last] = [self.beta_start, self.beta_end]
            .map(|beta| (if scaled { beta.sqrt() } else { beta }) as f32);
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

    /// Checks that timesteps and noise levels can be computed.
    ///
    /// # Errors
    /// The first field that is out of range.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let NoiseSchedule { num_train_timesteps, beta_start, beta_end, steps_offset, .. } = *self;
        let timestep_spacing = self.timestep_spacing;
        range("num_train_timesteps", num_train_timesteps, 2, 100_000)?;
        for (name, beta) in [("beta_start", beta_start), ("beta_end", beta_end)] {
            if !(beta > 0.0 && beta < 1.0) {
                return field(name, beta, "expected a number above 0 and below 1");
            }
        }
        if !timestep_spacing.is_of_config() {
            return field(
                "timestep_spacing",
                timestep_spacing,
                "expected leading, linspace or trailing",
            );
        }
        range("steps_offset", steps_offset as usize, 0, 1000)
    }

    /// Parses the text of a diffusers `scheduler_config.json` (DDPM, DDIM or DPMSolverMultistep).
    ///
    /// # Errors
    /// [`SchedulerError::Config`] lists every field that is missing, unknown, or asks for something
    /// that the samplers do not do (thresholding, clipping, Karras sigmas, learned variances, ...).
    /// No field is ignored silently.
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
            // The default of these classes, which `check` refuses.
            defaults.push(("clip_sample", Value::from(true)));
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
        config.retain(|field, value| field != "variance_type" || !value.is_null());
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

/// Whether the samplers can follow `value`, and the values that they can follow.
fn check(field: &str, value: &Value) -> (bool, &'static str) {
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
        "beta_start" | "beta_end" => {
            (value.as_f64().is_some_and(|beta| beta > 0.0 && beta < 1.0), "above 0 and below 1")
        }
        "beta_schedule" => (is::<BetaSchedule>(value), "linear or scaled_linear"),
        "prediction_type" => (is::<PredictionType>(value), "epsilon or v_prediction"),
        "timestep_spacing" => (
            Spacing::deserialize(value).is_ok_and(Spacing::is_of_config),
            "leading, linspace or trailing",
        ),
        "steps_offset" => (value.as_u64().is_some_and(|n| n <= 1000), "0 to 1000"),
        "set_alpha_to_one" => (value.is_boolean(), "true or false"),
        "trained_betas" => (value.is_null(), "null"),
        "variance_type" => (value.is_null() || value == "fixed_small", "fixed_small"),
        "algorithm_type" => (value == "dpmsolver++", "dpmsolver++"),
        // Python's JSON has a minus infinity, which readers of it give as a text.
        "lambda_min_clipped" => (value == "-Infinity" || value.is_null(), "-Infinity"),
        "solver_order" => (value == 2, "2"),
        "solver_type" => (value == "midpoint", "midpoint"),
        "final_sigmas_type" => (value == "zero", "zero"),
        // Parameters of features that are off, and what the solver does anyway when it ends at
        // sigma zero.
        "_diffusers_version"
        | "clip_sample_range"
        | "dynamic_thresholding_ratio"
        | "sample_max_value"
        | "lower_order_final"
        | "euler_at_final"
        | "flow_shift"
        | "time_shift_type" => (true, ""),
        // thresholding, clip_sample, rescale_betas_zero_snr, use_karras_sigmas,
        // use_dynamic_shifting, ...
        _ => (value == false, "false"),
    }
}

fn is<T: for<'de> Deserialize<'de>>(value: &Value) -> bool {
    T::deserialize(value).is_ok()
}

/// The reason why a `scheduler_config.json` cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SchedulerError {
    /// Fields are missing, unknown, or ask for something that the samplers do not do.
    #[error("scheduler config not supported: {}", join(.0))]
    Config(Vec<ConfigProblem>),
    /// The text is not a JSON object.
    #[error("scheduler config is not a JSON object")]
    Json(#[from] serde_json::Error),
}

/// One field of a scheduler config that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} is {value}, it must be {expected}")]
pub struct ConfigProblem {
    /// Name of the field in `scheduler_config.json`.
    pub field: String,
    /// Value of the field as JSON, or "missing".
    pub value: String,
    /// The values that would be accepted.
    pub expected: &'static str,
}

fn join(problems: &[ConfigProblem]) -> String {
    problems.iter().map(ConfigProblem::to_string).collect::<Vec<_>>().join("; ")
}
