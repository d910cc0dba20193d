//! The pictures that a calibration learns from, drawn by one schedule after another.

use super::finite;
use super::follow::follow;
use super::schedules::Cost;
use super::search::{Judged, search};
use crate::cache::{KEPT, Schedule};
use crate::error::Result;
use crate::eval::statistics::relative_error;
use crate::pipeline::component::Loaded;
use crate::pipeline::denoise::{DenoiseState, SamplerState};
use crate::pipeline::transformer::Transformer;
use crate::pipeline::{Generated, Pipeline};
use crate::request::CheckedRequest;

/// Requests that a search draws for each of its tries: more of them tell schedules apart better,
/// fewer leave time for more tries.
const FEW: usize = 8;

/// Requests that go by one schedule after another from their first step to their last.
pub struct Learned<'a> {
    transformer: Loaded<'a, Transformer>,
    states: Vec<DenoiseState>,
    starts: Vec<SamplerState>,
    uncached: &'a [Generated],
}

impl<'a> Learned<'a> {
    /// `requests`, and their images without a cache.
    pub fn new(
        pipeline: &'a mut Pipeline,
        requests: &[CheckedRequest],
        uncached: &'a [Generated],
    ) -> Result<Learned<'a>> {
        let mut encoded = Vec::with_capacity(requests.len());
        for request in requests {
            encoded.push((pipeline.encode_prompt(request)?, pipeline.encode(request)?));
        }
        let mut transformer = pipeline.transformer()?;
        let mut states: Vec<DenoiseState> = Vec::with_capacity(requests.len());
        for (request, (prompt, images)) in requests.iter().zip(&encoded) {
            let mut state = transformer.begin(request, prompt, images)?;
            state.keep_outputs(KEPT);
            states.push(state);
        }
        let starts = states.iter().map(DenoiseState::sampler_state).collect();
        Ok(Learned { transformer, states, starts, uncached })
    }

    /// The schedule whose images, with the forecasts fitted to them, are nearest to the uncached
    /// ones: of `candidates`, and of the neighbours of the best, `tries` of them. Without forecasts
    /// where no image was finite.
    pub fn best<'c>(
        &mut self,
        candidates: impl Iterator<Item = &'c [usize]>,
        cost: &Cost,
        tries: usize,
    ) -> Result<Schedule> {
        let all = self.states.len();
        let mut plain = Schedule::default();
        let mut best: Option<(f64, Schedule)> = None;
        let mut seen = Vec::new();
        for refresh in candidates {
            if seen.contains(&refresh) {
                continue;
            }
            seen.push(refresh);
            plain.refresh = refresh.to_vec();
            let new = self.judge(all, refresh)?;
            best = [best, new].into_iter().flatten().min_by(|a, b| a.0.total_cmp(&b.0));
        }
        let Some((error, best)) = best else { return Ok(plain) };
        let few = FEW.min(all);
        let Some((few_error, _)) = self.judge(few, &best.refresh)? else { return Ok(best) };
        let start = Judged { error: few_error, refresh: best.refresh.clone() };
        let found = search(start, cost, tries, &mut |refresh| {
            Ok(self.judge(few, refresh)?.map(|(error, _)| error))
        })?;
        if found.refresh == best.refresh {
            return Ok(best);
        }
        let found = self.judge(all, &found.refresh)?.filter(|(found, _)| *found < error);
        Ok(found.map_or(best, |(_, schedule)| schedule))
    }

    /// How far the images of the first `count` requests are from the uncached ones when they refresh
    /// at `refresh`, as the sum of logarithms, which is that of decibels; and that schedule, with the
    /// forecasts that suit them. Nothing where a prediction was not finite.
    fn judge(&mut self, count: usize, refresh: &[usize]) -> Result<Option<(f64, Schedule)>> {
        let states = &mut self.states[..count];
        states.iter_mut().zip(&self.starts).for_each(|(state, start)| state.rewind(start));
        let Some(schedule) = finite(follow(&mut self.transformer, states, refresh))? else {
            return Ok(None);
        };
        let error = |(state, uncached): (&DenoiseState, &Generated)| {
            relative_error(state.latents(), &uncached.latents).ln()
        };
        Ok(Some((states.iter().zip(self.uncached).map(error).sum(), schedule)))
    }
}
