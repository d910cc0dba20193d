//! The pictures that a calibration learns from, drawn by one schedule after another.

use super::finite;
use super::follow::follow;
use super::schedules::Cost;
use super::search::{Judged, search};
use crate::cache::{Decision, Plan, Schedule};
use crate::error::Result;
use crate::eval::statistics::relative_error;
use crate::pipeline::Pipeline;
use crate::pipeline::component::Loaded;
use crate::pipeline::denoise::{DenoiseState, SamplerState};
use crate::pipeline::transformer::Transformer;
use crate::request::CheckedRequest;

/// Requests that are drawn to judge a list of refreshes by: more of them tell lists apart better,
/// fewer leave time to try more. What fewer say of neighbours does not hold for other pictures.
const FEW: usize = 6;

/// The latents of a request after each step.
pub type Trajectory = Vec<Vec<f32>>;

/// A request that goes by one schedule after another from its first step to its last.
pub struct Learning<'a> {
    pub state: DenoiseState,
    start: SamplerState,
    /// Where it gets to without a cache.
    pub uncached: &'a Trajectory,
}

/// Requests that do.
pub struct Learned<'a> {
    transformer: Loaded<'a, Transformer>,
    all: Vec<Learning<'a>>,
}

/// Where each of `requests` gets to without a cache.
pub fn trajectories(
    pipeline: &mut Pipeline,
    requests: &[CheckedRequest],
) -> Result<Vec<Trajectory>> {
    let mut all = Vec::with_capacity(requests.len());
    for request in requests {
        let request = request.with_plan(Plan::Planned(vec![Decision::REFRESH; request.steps]));
        let (prompt, images) = (pipeline.encode_prompt(&request)?, pipeline.encode(&request)?);
        let mut transformer = pipeline.transformer()?;
        let mut state = transformer.begin(&request, &prompt, &images)?;
        let mut trajectory = Trajectory::with_capacity(state.steps());
        while !state.is_done() {
            transformer.step(&mut state)?;
            trajectory.push(state.latents().to_vec());
        }
        all.push(trajectory);
    }
    Ok(all)
}

impl<'a> Learned<'a> {
    /// `requests`, and where they get to without a cache.
    pub fn new(
        pipeline: &'a mut Pipeline,
        requests: &[CheckedRequest],
        uncached: &'a [Trajectory],
    ) -> Result<Learned<'a>> {
        let mut encoded = Vec::with_capacity(requests.len());
        for request in requests {
            encoded.push((pipeline.encode_prompt(request)?, pipeline.encode(request)?));
        }
        let mut transformer = pipeline.transformer()?;
        let mut all = Vec::with_capacity(requests.len());
        for ((request, (prompt, images)), uncached) in requests.iter().zip(&encoded).zip(uncached) {
            let mut state = transformer.begin(request, prompt, images)?;
            state.keep_for_forecasts();
            all.push(Learning { start: state.sampler_state(), state, uncached });
        }
        Ok(Learned { transformer, all })
    }

    /// The schedule by which a few of the images, with the forecasts fitted to them, are nearest to
    /// the uncached ones: of those that refresh at `candidates`, and of the neighbours of the best,
    /// `tries` of them, if there are enough images. The first of `candidates`, without forecasts,
    /// where none was finite.
    pub fn best<'c>(
        &mut self,
        candidates: impl Iterator<Item = &'c [usize]>,
        cost: &Cost,
        tries: usize,
    ) -> Result<Schedule> {
        let few = FEW.min(self.all.len());
        let mut drawn: Vec<Schedule> = Vec::new();
        let mut judge = |refresh: &[usize]| -> Result<Option<Judged>> {
            let judged = self.follow(few, refresh, false, &begun(&drawn, refresh, cost.len()))?;
            drawn.extend(judged.iter().map(|judged| judged.schedule.clone()));
            Ok(judged)
        };
        let mut seen: Vec<&[usize]> = Vec::new();
        let mut best: Option<Judged> = None;
        for refresh in candidates {
            if !seen.contains(&refresh) {
                seen.push(refresh);
                let new = judge(refresh)?;
                best = best.into_iter().chain(new).min_by(|a, b| a.error.total_cmp(&b.error));
            }
        }
        match best {
            Some(best) if few < FEW => Ok(best.schedule),
            Some(best) => Ok(search(best, cost, tries, &mut judge)?.schedule),
            None => Ok(Schedule { refresh: seen[0].to_vec(), ..Schedule::default() }),
        }
    }

    /// The schedule that refreshes at `refresh`, with forecasts that suit all requests, and with
    /// corrections, if `corrected`. Nothing where no image was finite.
    pub fn fitted(&mut self, refresh: &[usize], corrected: bool) -> Result<Option<Schedule>> {
        Ok(self.follow(self.all.len(), refresh, corrected, &[])?.map(|judged| judged.schedule))
    }

    /// The schedule that refreshes at `refresh`, with the forecasts that suit the first `count`
    /// requests, of which those at the first steps are `known`; and how far their images are from
    /// the uncached ones, as the sum of logarithms, which is that of decibels. Nothing where a
    /// prediction was not finite.
    fn follow(
        &mut self,
        count: usize,
        refresh: &[usize],
        corrected: bool,
        known: &[Decision],
    ) -> Result<Option<Judged>> {
        let some = &mut self.all[..count];
        some.iter_mut().for_each(|one| one.state.rewind(&one.start));
        let followed = follow(&mut self.transformer, some, refresh, corrected, known);
        let Some(schedule) = finite(followed)? else {
            return Ok(None);
        };
        let last = |one: &Learning<'_>| one.uncached.last().cloned().unwrap_or_default();
        let error = |one: &Learning<'_>| relative_error(one.state.latents(), &last(one)).ln();
        let error = some.iter().map(error).sum();
        Ok(Some(Judged { error, schedule }))
    }
}

/// What a schedule that refreshes at `refresh` does at its first steps, as far as one of `drawn`
/// refreshes alike: the same requests come to the same forecasts.
fn begun(drawn: &[Schedule], refresh: &[usize], steps: usize) -> Vec<Decision> {
    let alike = |schedule: &Schedule| {
        let parted = schedule.refresh.iter().zip(refresh).find(|(a, b)| a != b);
        parted.map_or(steps, |(a, b)| *a.min(b))
    };
    let nearest = drawn.iter().max_by_key(|schedule| alike(schedule));
    nearest.map_or_else(Vec::new, |nearest| {
        let mut plan = nearest.plan(steps);
        plan.truncate(alike(nearest));
        plan
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::Forecast;

    const STEPS: usize = 8;

    fn schedule(refresh: &[usize], older: f32) -> Schedule {
        let reused = (0..STEPS).filter(|step| !refresh.contains(step));
        let forecast = reused.map(|step| (step, vec![1.0 - older, older])).collect();
        Schedule { refresh: refresh.to_vec(), forecast, ..Schedule::default() }
    }

    #[test]
    fn steps_before_the_first_other_refresh_are_known() {
        let drawn = [schedule(&[0, 1, 3, 7], 0.25), schedule(&[0, 1, 4, 6], 0.5)];
        let forecast = Decision::Reuse(Forecast::new(&[0.5, 0.5]).expect("two weights"));
        let (refresh, reuse) = (|| Decision::REFRESH, || forecast.clone());
        let moved = begun(&drawn, &[0, 1, 4, 7], STEPS);
        let until_5 = [refresh(), refresh(), reuse(), reuse(), refresh(), reuse()];
        assert_eq!(moved, until_5, "of the second, which parts at step 6");
        assert_eq!(begun(&drawn, &[0, 2, 4, 6], STEPS), [refresh()]);
        assert_eq!(begun(&drawn, &[0, 1, 3, 7], STEPS), drawn[0].plan(STEPS), "all of it");
        assert_eq!(begun(&[], &[0, 1, 3, 7], STEPS), []);
    }
}
