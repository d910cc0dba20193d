//! The timesteps of a run: `set_timesteps` of diffusers' schedulers (`scheduling_ddpm.py`,
//! `scheduling_ddim.py`, `scheduling_dpmsolver_multistep.py`), in numpy's double precision
//! arithmetic.

use crate::scheduler::{NoiseSchedule, Spacing};

/// `steps` training timesteps, descending; `None` if `spacing` does not give as many different ones
/// that were trained.
///
/// One that `drops_lowest` spreads one timestep more and drops the lowest: dpmms, whose last step
/// goes on to sigma 0 by itself.
pub fn timesteps(
    schedule: &NoiseSchedule,
    spacing: Spacing,
    steps: usize,
    drops_lowest: bool,
) -> Option<Vec<u32>> {
    let max = schedule.num_train_timesteps;
    if steps == 0 || steps > max {
        return None;
    }
    let points = steps + usize::from(drops_lowest);
    let mut timesteps = match spacing {
        Spacing::Leading => leading(max, points, schedule.steps_offset),
        Spacing::Linspace => linspace(max, points),
        Spacing::Trailing => trailing(max, steps),
    };
    timesteps.truncate(steps);
    let in_table = timesteps.iter().all(|&t| (t as usize) < max);
    let descending = timesteps.windows(2).all(|pair| pair[0] > pair[1]);
    (in_table && descending).then_some(timesteps)
}

fn leading(max: usize, points: usize, offset: u32) -> Vec<u32> {
    let stride = max / points;
    (0..points).rev().map(|k| (k * stride) as u32 + offset).collect()
}

/// `np.linspace(0, max - 1, points).round()`, reversed; numpy rounds halves to even.
fn linspace(max: usize, points: usize) -> Vec<u32> {
    let stop = (max - 1) as f64;
    if points == 1 {
        return vec![0];
    }
    let stride = stop / (points - 1) as f64;
    let inner = (0..points - 1).rev().map(|k| k as f64 * stride);
    std::iter::once(stop).chain(inner).map(|t| t.round_ties_even() as u32).collect()
}

/// `np.arange(max, 0, -max / steps).round() - 1`. For some counts (61, 103, ...) numpy's arange
/// holds one element more, next to 0, and diffusers then takes a step at timestep -1; here there
/// are `steps` timesteps always.
fn trailing(max: usize, steps: usize) -> Vec<u32> {
    let start = max as f64;
    // numpy fills from the difference of the first two elements, not from the stride itself.
    let stride = (start - start / steps as f64) - start;
    (0..steps)
        .map(|k| ((start + k as f64 * stride).round_ties_even() as u32).wrapping_sub(1))
        .collect()
}
