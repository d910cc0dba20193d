//! The pictures that a calibration learns from, drawn by one schedule after another.

use super::finite;
use super::follow::follow;
use super::schedules::Cost;
use super::search::{Judged, search};
use crate::cache::Schedule;
use crate::error::Result;
use crate::eval::statistics::relative_error;
use crate::pipeline::component::Loaded;
use crate::pipeline::denoise::{DenoiseState, SamplerState};
use crate::pipeline::transformer::Transformer;
use crate::pipeline::{Generated, Pipeline};
use crate::request::CheckedRequest;

/// Requests that are drawn to judge a list of refreshes by: more of them tell lists apart better,
/// fewer leave time to try more. What fewer say of neighbours does not hold for other pictures.
const FEW: usize = 6;

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
            state.keep_for_forecasts();
            states.push(state);
        }
        let starts = states.iter().map(DenoiseState::sampler_state).collect();
        Ok(Learned { transformer, states, starts, uncached })
    }

    /// The refreshes by which a few of the images, with the forecasts fitted to them, are nearest to
    /// the uncached ones: of `candidates`, and of the neighbours of the best, `tries` of them, if
    /// there are enough images. The first of `candidates` where none was finite.
    pub fn best<'c>(
        &mut self,
        candidates: impl Iterator<Item = &'c [usize]>,
        cost: &Cost,
        tries: usize,
    ) -> Result<Vec<usize>> {
        let few = FEW.min(self.states.len());
        let mut judge = |refresh: &[usize]| -> Result<Option<Judged>> {
            let refresh = refresh.to_vec();
            Ok(self.follow(few, &refresh, false)?.map(|(error, _)| Judged { error, refresh }))
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
            Some(best) if few < FEW => Ok(best.refresh),
            Some(best) => Ok(search(best, cost, tries, &mut judge)?.refresh),
            None => Ok(seen[0].to_vec()),
        }
    }

    /// The schedule that refreshes at `refresh`, with forecasts that suit all requests, and with
    /// corrections, if `corrected`. Nothing where no image was finite.
    pub fn fitted(&mut self, refresh: &[usize], corrected: bool) -> Result<Option<Schedule>> {
        let all = self.states.len();
        Ok(self.follow(all, refresh, corrected)?.map(|(_, schedule)| schedule))
    }

    /// How far the images of the first `count` requests are from the uncached ones when they refresh
    /// at `refresh`, as the sum of logarithms, which is that of decibels; and that schedule, with the
    /// forecasts that suit them. Nothing where a prediction was not finite.
    fn follow(
        &mut self,
        count: usize,
        refresh: &[usize],
        corrected: bool,
    ) -> Result<Option<(f64, Schedule)>> {
        let states = &mut self.states[..count];
        states.iter_mut().zip(&self.starts).for_each(|(state, start)| state.rewind(start));
        let followed = follow(&mut self.transformer, states, refresh, corrected);
        let Some(schedule) = finite(followed)? else {
            return Ok(None);
        };
        let error = |(state, uncached): (&DenoiseState, &Generated)| {
            relative_error(state.latents(), &uncached.latents).ln()
        };
        Ok(Some((states.iter().zip(self.uncached).map(error).sum(), schedule)))
    }
}
