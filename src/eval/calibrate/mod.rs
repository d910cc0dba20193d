//! Finds, for one model, sampler and number of steps, the best cache schedule for each number of
//! refreshes.
//!
//! 1. `record`: uncached images of the first half of the prompts tell what reusing the deep core's
//!    output of step i at step j does to the prediction, and how much an error of each step matters
//!    for the finished image.
//! 2. `schedules`: dynamic programming over the product of the two. How the errors of single steps
//!    add up is not known beforehand: as energies if they are independent, as amplitudes if they
//!    point the same way. So there are a few candidates.
//! 3. `follow`, with `fit`: forecasts for each candidate, fitted while following it, to what the core
//!    makes and to lead back towards the uncached images; the one that then draws some of the learned
//!    images best is taken.
//! 4. `search`: neighbours of that one are tried in the same way, for errors add up in ways that no
//!    sum foretells.
//! 5. `correct`, with `low_rank`: corrections of the best one's forecasts by what the shallow encoder
//!    sees, at those steps where they serve pictures that they were not fitted to.
//! 6. Real runs on the second half of the prompts measure each schedule with its forecasts and
//!    corrections, with the forecasts that it was found with, and without; the best is kept.

mod correct;
mod fit;
mod follow;
mod learned;
mod low_rank;
mod partial;
mod record;
mod schedules;
mod search;
mod step;

use std::path::Path;

use self::learned::Learned;
use self::partial::Partial;
use super::compare::{Summary, compare};
use crate::cache::{Decision, Measured, Plan, Schedule};
use crate::error::{Error, Result};
use crate::pipeline::{Generated, Pipeline};
use crate::request::{CheckedRequest, Request};

/// Powers of a step's error that are summed over the steps: 1 adds energies, 1/2 amplitudes.
const POWERS: [f64; 3] = [1.0, 0.7, 0.4];

/// That of the costs which tell what to try first.
const SEARCHED: f64 = POWERS[1];

/// Requests that tell how much an error at each step matters.
const SENSITIVE: usize = 6;

/// The PSNR of equal pictures in a file.
const EQUAL: f64 = 99.0;

/// What to calibrate for.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Sampler, steps, size, guidance; its seed is the first, its batch the seeds of each prompt.
    pub request: Request,
    /// To learn from.
    pub learn: Vec<String>,
    /// To measure on.
    pub check: Vec<String>,
    /// Numbers of core runs.
    pub runs: Vec<usize>,
    /// Schedules that are tried beside the best for each number of core runs.
    pub tries: usize,
    /// Whether forecasts may be corrected by what the shallow encoder sees.
    pub corrections: bool,
}

/// How far it is: `done` of `total` parts of about equal length, and what comes next.
pub struct Progress {
    /// Parts done.
    pub done: usize,
    /// Parts in all.
    pub total: usize,
    /// The next part.
    pub next: String,
}

/// The default numbers of core runs for `steps` steps, from 4 to three quarters of them: each about a
/// third above the one before.
pub fn default_runs(steps: usize) -> Vec<usize> {
    let next = |&runs: &usize| Some((runs + 1).max((runs as f64 * 1.35) as usize));
    std::iter::successors(Some(4), next).take_while(|runs| 4 * runs <= 3 * steps).collect()
}

/// Calibrates. What is done is kept in the file `partial`, and taken up from there if it is of the
/// same model, settings and version; the caller removes it when the schedules are safe.
///
/// # Errors
/// [`Error::Request`] if a field is out of range, [`Error::Write`] if `partial` cannot be
/// written, or what the backend says.
/// Reuse that gives a prediction that is not finite is no error, but a schedule that is not taken.
pub fn calibrate(
    pipeline: &mut Pipeline,
    settings: &Settings,
    partial: &Path,
    on_part: &mut dyn FnMut(Progress),
) -> Result<Vec<Schedule>> {
    let Settings { request, runs, .. } = settings;
    let steps = request.steps;
    let (learn, check) = settings.check(pipeline)?;
    let mut state = Partial::open(partial, pipeline, settings);
    let total = learn.len() + 1 + runs.len();
    let mut tell = |done, next: String| on_part(Progress { done, total, next });

    for (i, request) in learn.iter().enumerate().skip(state.recorded) {
        tell(i, format!("learning from prompt {} of {}", i + 1, learn.len()));
        let (prompt, images) = (pipeline.encode_prompt(request)?, pipeline.encode(request)?);
        let mut transformer = pipeline.transformer()?;
        let first = transformer.begin(request, &prompt, &images)?;
        state.record.add(&mut transformer, first, i < SENSITIVE)?;
        drop(transformer);
        state.recorded = i + 1;
        state.save(partial)?;
    }
    tell(learn.len(), "drawing what to compare with".to_string());
    let trajectories = learned::trajectories(pipeline, &learn)?;
    let uncached = draw(pipeline, &check, &vec![Decision::REFRESH; steps])?;
    let candidates = POWERS.map(|power| schedules::schedules(&state.record.cost(power)));
    for (i, &runs) in runs.iter().enumerate().skip(state.tried) {
        tell(learn.len() + 1 + i, format!("{runs} core runs"));
        let candidates = candidates.iter().map(|best| best[runs - 1].as_slice());
        let mut learned = Learned::new(pipeline, &learn, &trajectories)?;
        let found = learned.best(candidates, &state.record.cost(SEARCHED), settings.tries)?;
        let fitted = learned.fitted(&found.refresh, settings.corrections)?;
        let plain = Schedule { refresh: found.refresh.clone(), ..Schedule::default() };
        let mut schedules: Vec<Schedule> = fitted.into_iter().chain([found, plain]).collect();
        schedules.dedup();
        let mut measured: Vec<(Measured, Schedule)> = Vec::new();
        for schedule in schedules {
            if let Some(found) = finite(measure(pipeline, &schedule, &check, &uncached))? {
                measured.push((found, schedule));
            }
        }
        let best =
            measured.into_iter().max_by(|(a, _), (b, _)| a.quality().total_cmp(&b.quality()));
        // Without one nothing is known of so few refreshes, and they are left out.
        state.tried = i + 1;
        state
            .schedules
            .extend(best.map(|(found, schedule)| Schedule { measured: Some(found), ..schedule }));
        state.save(partial)?;
    }
    Ok(state.schedules)
}

impl Settings {
    /// The requests to learn from, and those to measure on.
    fn check(&self, pipeline: &Pipeline) -> Result<(Vec<CheckedRequest>, Vec<CheckedRequest>)> {
        let Settings { request, learn, check, runs, .. } = self;
        let refuse = |field, message: String| Err(Error::Request { field, message });
        let prompts = learn.len() + check.len();
        if learn.is_empty() || check.is_empty() {
            return refuse("prompts", format!("{prompts}; expected 2 or more"));
        }
        if !request.guidance_interval.is_whole() {
            let message = "a calibration is made with guidance at every step; what it finds serves \
                           requests with an interval too";
            return refuse("guidance_interval", message.to_string());
        }
        if let Some(runs) = runs.iter().find(|runs| !(1..=request.steps).contains(*runs)) {
            let steps = request.steps;
            return refuse(
                "runs",
                format!("{runs} core runs of {steps} steps; expected 1 to {steps}"),
            );
        }
        if request.seed.checked_add((prompts * request.num_images) as u64).is_none() {
            return refuse("seed", format!("{} + all pictures passes 2^64", request.seed));
        }
        let checked = |(i, prompt): (usize, &String)| {
            let seed = request.seed + (i * request.num_images) as u64; // no seed twice
            Request { prompt: prompt.clone(), seed, ..request.clone() }.check(pipeline.artifacts())
        };
        let all = learn.iter().chain(check).enumerate().map(checked);
        let mut learn: Vec<CheckedRequest> = all.collect::<Result<_>>()?;
        let check = learn.split_off(self.learn.len());
        Ok((learn, check))
    }
}

/// Nothing where a prediction was not finite.
fn finite<T>(result: Result<T>) -> Result<Option<T>> {
    match result {
        Err(Error::NotFinite { .. }) => Ok(None),
        other => other.map(Some),
    }
}

fn draw(
    pipeline: &mut Pipeline,
    requests: &[CheckedRequest],
    decisions: &[Decision],
) -> Result<Vec<Generated>> {
    let mut drawn = Vec::with_capacity(requests.len());
    for request in requests {
        let request = request.with_plan(Plan::Planned(decisions.to_vec()));
        drawn.push(pipeline.generate(&request, &mut |_| {})?);
    }
    Ok(drawn)
}

/// Draws `requests` by `schedule` and compares with the uncached images.
fn measure(
    pipeline: &mut Pipeline,
    schedule: &Schedule,
    requests: &[CheckedRequest],
    uncached: &[Generated],
) -> Result<Measured> {
    let mut comparisons = Vec::new();
    let drawn = draw(pipeline, requests, &schedule.plan(requests[0].steps))?;
    for (made, uncached) in drawn.iter().zip(uncached) {
        comparisons.extend(compare(uncached, made)?);
    }
    let Summary { psnr, psnr_p10, ssim, latent_error } = Summary::of(&comparisons);
    Ok(Measured { psnr: psnr.min(EQUAL), psnr_p10: psnr_p10.min(EQUAL), ssim, latent_error })
}
