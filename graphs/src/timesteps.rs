//! Where a run goes: `set_timesteps` of diffusers' schedulers (`scheduling_ddpm.py`,
//! `scheduling_ddim.py`, `scheduling_dpmsolver_multistep.py`, `scheduling_unipc_multistep.py`,
//! `scheduling_euler_discrete.py`, `scheduling_lcm.py`), in numpy's double precision arithmetic.

use crate::sampler::SamplerKind;
use crate::scheduler::{NoiseSchedule, Spacing};

/// The exponent of [`Spacing::Karras`]: the paper's value.
const RHO: f64 = 7.0;

/// `original_inference_steps` of diffusers' `LCMScheduler`: the steps of the run that a checkpoint
/// for `lcm` was distilled from.
pub const LCM_STEPS: usize = 50;

/// The steps of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct NoiseLevels {
    /// The timestep that the model is told at each step, descending.
    pub timesteps: Vec<f32>,
    /// How much noise there is at each step: the standard deviation of the noise over that of the
    /// image, `sqrt((1 - a) / a)`. Then that at the end, 0.
    pub sigmas: Vec<f32>,
}

impl NoiseLevels {
    /// Those of `steps` steps of a sampler; `None` if `spacing` does not give as many different ones
    /// within those that were trained.
    ///
    /// With [`Spacing::Karras`] two noise levels that lie close together can have one timestep:
    /// `dpmms` and `unipc` round it.
    pub fn new(
        schedule: &NoiseSchedule,
        kind: SamplerKind,
        spacing: Spacing,
        steps: usize,
    ) -> Option<NoiseLevels> {
        let max = schedule.num_train_timesteps;
        if steps == 0 || steps > max {
            return None;
        }
        let table: Vec<f32> =
            schedule.alphas_cumprod().iter().map(|a| ((1.0 - a) / a).sqrt()).collect();
        let (timesteps, sigmas) = match spacing {
            Spacing::Karras => karras(&table, kind, steps),
            _ => {
                let timesteps = spaced(schedule, kind, spacing, steps)?;
                let sigmas = timesteps.iter().map(|&t| interpolated(&table, t) as f32).collect();
                (timesteps, sigmas)
            }
        };
        let in_table = timesteps.iter().all(|t| (0.0..=(max - 1) as f32).contains(t));
        let descending = |values: &[f32]| values.windows(2).all(|pair| pair[0] > pair[1]);
        let chosen = if spacing == Spacing::Karras { &sigmas } else { &timesteps };
        if !(in_table && descending(chosen)) {
            return None;
        }
        let sigmas = sigmas.into_iter().chain([0.0]).collect();
        Some(NoiseLevels { timesteps, sigmas })
    }
}

/// The timesteps of a spacing that chooses among them.
fn spaced(
    schedule: &NoiseSchedule,
    kind: SamplerKind,
    spacing: Spacing,
    steps: usize,
) -> Option<Vec<f32>> {
    let max = schedule.num_train_timesteps;
    let points = match kind {
        // Their last step goes on to sigma 0 by itself: of one timestep more the lowest is dropped.
        SamplerKind::Dpmms | SamplerKind::UniPc => steps + 1,
        SamplerKind::Lcm => return distilled(max, steps),
        _ => steps,
    };
    let euler = matches!(kind, SamplerKind::Euler | SamplerKind::EulerAncestral);
    let mut timesteps = match spacing {
        Spacing::Leading => leading(max, points, schedule.steps_offset),
        Spacing::Trailing => trailing(max, steps),
        // These take timesteps between two of the training.
        _ if euler => linspace(max, points),
        _ => linspace(max, points).into_iter().map(f64::round_ties_even).collect(),
    };
    timesteps.truncate(steps);
    Some(timesteps.into_iter().map(|t| t as f32).collect())
}

/// Multiples of an integer stride plus `offset`, descending.
fn leading(max: usize, points: usize, offset: u32) -> Vec<f64> {
    let stride = max / points;
    (0..points).rev().map(|k| (k * stride) as f64 + f64::from(offset)).collect()
}

/// `np.linspace(0, max - 1, points)`, reversed.
fn linspace(max: usize, points: usize) -> Vec<f64> {
    let stop = (max - 1) as f64;
    if points == 1 {
        return vec![0.0];
    }
    let stride = stop / (points - 1) as f64;
    let inner = (0..points - 1).rev().map(|k| k as f64 * stride);
    std::iter::once(stop).chain(inner).collect()
}

/// `np.arange(max, 0, -max / steps).round() - 1`. For some counts (61, 103, ...) numpy's arange
/// holds one element more, next to 0, and diffusers then takes a step at timestep -1; here there
/// are `steps` timesteps always.
fn trailing(max: usize, steps: usize) -> Vec<f64> {
    let start = max as f64;
    // numpy fills from the difference of the first two elements, not from the stride itself.
    let stride = (start - start / steps as f64) - start;
    (0..steps).map(|k| (start + k as f64 * stride).round_ties_even() - 1.0).collect()
}

/// Some of the timesteps of the run that was distilled, evenly spaced from the last one downwards.
fn distilled(max: usize, steps: usize) -> Option<Vec<f32>> {
    let stride = max / LCM_STEPS;
    if steps > LCM_STEPS || stride == 0 {
        return None;
    }
    let origin: Vec<usize> = (1..=LCM_STEPS).rev().map(|k| k * stride - 1).collect();
    let share = LCM_STEPS as f64 / steps as f64;
    Some((0..steps).map(|i| origin[(i as f64 * share) as usize] as f32).collect())
}

/// `_convert_to_karras` and `_sigma_to_t`: noise levels whose 1/7th powers are evenly spaced, and the
/// timesteps, fractional unless the sampler rounds them, that have these levels in the training's
/// `table`.
fn karras(table: &[f32], kind: SamplerKind, steps: usize) -> (Vec<f32>, Vec<f32>) {
    let (least, most) = match (kind, steps) {
        // diffusers takes the ends of the run before, which for one step are the same.
        (SamplerKind::Euler, 1) => (table[0], table[0]),
        _ => (table[0], table[table.len() - 1]),
    };
    let [least, most] = [least, most].map(|sigma| f64::from(sigma).powf(1.0 / RHO));
    let level = |k: usize| {
        let share = if k == 0 { 0.0 } else { k as f64 * (1.0 / (steps - 1) as f64) };
        let share = if k > 0 && k == steps - 1 { 1.0 } else { share };
        (most + share * (least - most)).powf(RHO)
    };
    let logs: Vec<f32> = table.iter().map(|&sigma| f64::from(sigma).ln() as f32).collect();
    let timestep = |sigma: f64| {
        let log = sigma.max(1e-10).ln();
        let low = logs.partition_point(|&l| f64::from(l) <= log).saturating_sub(1);
        let low = low.min(logs.len() - 2);
        let (below, above) = (logs[low], logs[low + 1]);
        let share = (f64::from(below) - log) / f64::from(below - above);
        let share = share.clamp(0.0, 1.0);
        let t = (1.0 - share) * low as f64 + share * (low + 1) as f64;
        if kind == SamplerKind::Euler { t } else { t.round_ties_even() }
    };
    let sigmas: Vec<f64> = (0..steps).map(level).collect();
    let timesteps = sigmas.iter().map(|&sigma| timestep(sigma) as f32).collect();
    (timesteps, sigmas.into_iter().map(|sigma| sigma as f32).collect())
}

/// `np.interp` of `table` at `t`.
fn interpolated(table: &[f32], t: f32) -> f64 {
    let (t, last) = (f64::from(t), table.len() - 1);
    let low = (t as usize).min(last);
    let value = f64::from(table[low]);
    if low == last || t == low as f64 {
        return value;
    }
    (f64::from(table[low + 1]) - value) * (t - low as f64) + value
}
