//! Finds, for one model, sampler and number of steps, the best cache schedule for each number of core runs.
//!
//! 1. `record`: uncached pictures of the first half of the prompts tell what reusing the core's output of step i at
//!    step j does to the prediction, and how much an error of each step matters for the finished picture.
//! 2. `schedules`: dynamic programming over the product of the two. How the errors of single steps add up is not
//!    known beforehand: as energies if they are independent, as amplitudes if they point the same way. So there are a
//!    few candidates.
//! 3. `follow`, with `fit`: forecasts for each candidate, fitted while following it; the one that then draws the
//!    learned pictures best is taken.
//! 4. Real runs on the second half of the prompts measure each schedule with and without its forecasts; the better one
//!    is kept.

mod fit;
mod follow;
mod record;
mod schedules;
mod walk;

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::cache::{Decision, KEPT, Measured, Plan, Schedule};
use crate::error::{Error, Result};
use crate::eval::statistics::{mean, mean_psnr, percentile};
use crate::eval::verify::relative_error;
use crate::eval::{Judged, judge};
use crate::pipeline::denoise::Place;
use crate::timing::Timings;
use crate::util::write_whole;
use crate::{Generated, Pipeline, Request};
use record::Record;

/// Powers of a step's error that are summed over the steps: 1 adds energies, 1/2 amplitudes.
const POWERS: [f64; 3] = [1.0, 0.7, 0.4];

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

/// What is kept between an interrupted calibration and the next.
#[derive(Serialize, Deserialize)]
struct Partial {
    /// Of what.
    key: String,
    record: Record,
    recorded: usize,
    /// How many of the numbers of core runs.
    tried: usize,
    schedules: Vec<Schedule>,
}

/// The default numbers of core runs for `steps` steps: each about a tenth above the one before.
pub fn default_runs(steps: usize) -> Vec<usize> {
    let next = |&runs: &usize| Some((runs + 1).max((runs as f64 * 1.1) as usize));
    std::iter::successors(Some(4), next).take_while(|runs| 4 * runs <= 3 * steps).collect()
}

/// Calibrates. What is done is kept in the file `partial`, and taken up from there if it is of the
/// same model, settings and version; the caller removes it when the schedules are safe.
///
/// # Errors
/// [`Error::Request`] if a field is out of range, [`Error::Io`] of `partial`, or what the engine says.
/// Reuse that gives a prediction that is not finite is no error, but a schedule that is not taken.
pub fn calibrate(
    pipeline: &mut Pipeline,
    settings: &Settings,
    partial: &Path,
    told: &mut dyn FnMut(Progress),
) -> Result<Vec<Schedule>> {
    let Settings { request, learn, check, runs } = settings;
    let steps = request.steps;
    settings.check(pipeline)?;
    let mut state = Partial::open(partial, pipeline, settings);
    let checks = requests(request, check, learn.len());
    let learn = requests(request, learn, 0);
    let total = learn.len() + 1 + runs.len();
    let mut tell = |done, next: String| told(Progress { done, total, next });

    for (i, request) in learn.iter().enumerate().skip(state.recorded) {
        tell(i, format!("learning from prompt {} of {}", i + 1, learn.len()));
        let one = std::slice::from_ref(request);
        pipeline.walks(one, &mut Timings::default(), |_, dit, walks, _| {
            walks.into_iter().try_for_each(|walk| state.record.add(dit, walk))
        })?;
        state.recorded = i + 1;
        state.save(partial)?;
    }
    tell(learn.len(), "drawing what to compare with".to_string());
    let full = vec![Decision::Refresh; steps];
    let learned = draw(pipeline, &learn, &full)?;
    let uncached = draw(pipeline, &checks, &full)?;
    let candidates = POWERS.map(|power| schedules::schedules(&state.record.cost(power)));
    for (i, &runs) in runs.iter().enumerate().skip(state.tried) {
        tell(learn.len() + 1 + i, format!("{runs} core runs"));
        let candidates = candidates.iter().map(|best| &best[runs - 1]);
        let fitted = best(pipeline, candidates, &learn, &learned)?;
        let plain = Schedule { refresh: fitted.refresh.clone(), ..Schedule::default() };
        let mut measured: Vec<(Measured, Schedule)> = Vec::new();
        for schedule in [fitted, plain] {
            if let Some(found) = finite(measure(pipeline, &schedule, &checks, &uncached))? {
                measured.push((found, schedule));
            }
        }
        let best =
            measured.into_iter().max_by(|(a, _), (b, _)| a.quality().total_cmp(&b.quality()));
        // Without one nothing is known of so few runs, and they are left out.
        state.tried = i + 1;
        state
            .schedules
            .extend(best.map(|(found, schedule)| Schedule { measured: Some(found), ..schedule }));
        state.save(partial)?;
    }
    Ok(state.schedules)
}

impl Settings {
    fn check(&self, pipeline: &Pipeline) -> Result<()> {
        let Settings { request, learn, check, runs } = self;
        let refuse = |field, message: String| Err(Error::Request { field, message });
        let prompts = learn.len() + check.len();
        if learn.is_empty() || check.is_empty() {
            return refuse("prompts", format!("{prompts}; expected 2 or more"));
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
        for prompt in learn.iter().chain(check) {
            Request { prompt: prompt.clone(), ..request.clone() }.check(pipeline.manifest())?;
        }
        Ok(())
    }
}

/// Nothing where a prediction was not finite.
fn finite<T>(result: Result<T>) -> Result<Option<T>> {
    match result {
        Err(Error::NotFinite { .. }) => Ok(None),
        other => other.map(Some),
    }
}

/// `request` for each prompt, no seed twice; `first` prompts come before them.
fn requests(request: &Request, prompts: &[String], first: usize) -> Vec<Request> {
    let seed = |i: usize| request.seed + ((first + i) * request.num_images) as u64;
    let request = |(i, prompt): (usize, &String)| Request {
        prompt: prompt.clone(),
        seed: seed(i),
        ..request.clone()
    };
    prompts.iter().enumerate().map(request).collect()
}

fn draw(
    pipeline: &mut Pipeline,
    requests: &[Request],
    decisions: &[Decision],
) -> Result<Vec<Generated>> {
    let plan = || Plan::Planned(decisions.to_vec());
    requests.iter().map(|request| pipeline.draw(request, plan(), &mut |_| {})).collect()
}

/// The one of some lists of refreshes whose pictures of `requests`, with the forecasts fitted to them, are nearest to
/// the uncached ones.
fn best<'a>(
    pipeline: &mut Pipeline,
    candidates: impl Iterator<Item = &'a Vec<usize>>,
    requests: &[Request],
    uncached: &[Generated],
) -> Result<Schedule> {
    let mut plain = Schedule::default();
    let tried =
        pipeline.walks(requests, &mut Timings::default(), |backend, dit, mut walks, _| {
            dit.prepare(backend, KEPT, false)?;
            let starts: Vec<Place> = walks.iter().map(|walk| walk.place.clone()).collect();
            let mut tried: Vec<(f64, Schedule)> = Vec::new();
            for refresh in candidates {
                if tried.iter().any(|(_, tried)| tried.refresh == *refresh) {
                    continue;
                }
                plain.refresh.clone_from(refresh);
                walks.iter_mut().zip(&starts).for_each(|(walk, start)| walk.go_back(start));
                let followed = follow::follow(dit, &mut walks, refresh);
                let Some(schedule) = finite(followed)? else { continue };
                // The mean of logarithms is that of decibels.
                let pairs = walks.iter().zip(uncached);
                let errors = pairs.map(|(walk, uncached)| {
                    relative_error(&walk.place.latents, &uncached.latents).ln()
                });
                tried.push((errors.sum(), schedule));
            }
            Ok(tried)
        })?;
    let best = tried.into_iter().min_by(|a, b| a.0.total_cmp(&b.0));
    Ok(best.map_or(plain, |(_, schedule)| schedule))
}

/// Draws `requests` by `schedule` and compares with the uncached pictures.
fn measure(
    pipeline: &mut Pipeline,
    schedule: &Schedule,
    requests: &[Request],
    uncached: &[Generated],
) -> Result<Measured> {
    let mut judged = Vec::new();
    let made = draw(pipeline, requests, &schedule.plan(requests[0].steps))?;
    for (made, uncached) in made.into_iter().zip(uncached) {
        judged.extend(judge(uncached, made)?);
    }
    let all = |of: fn(&Judged) -> f64| judged.iter().map(of).collect::<Vec<f64>>();
    let psnrs = all(|picture| picture.psnr);
    Ok(Measured {
        psnr: mean_psnr(&psnrs).min(EQUAL),
        psnr_p10: percentile(&psnrs, 10).min(EQUAL),
        ssim: mean(&all(|picture| picture.ssim)),
        latent_error: mean(&all(|picture| picture.latent_error)),
    })
}

impl Partial {
    /// What `path` holds of the same calibration, or nothing done yet.
    fn open(path: &Path, pipeline: &Pipeline, settings: &Settings) -> Partial {
        let Settings { request, learn, check, runs } = settings;
        let hash = &pipeline.artifacts().hash;
        let engine = pipeline.backend().describe();
        let version = env!("CARGO_PKG_VERSION");
        let key = format!("{version} {hash} {engine} {request:?} {learn:?} {check:?} {runs:?}");
        let found = std::fs::read(path).ok();
        let found = found.and_then(|bytes| serde_json::from_slice::<Partial>(&bytes).ok());
        found.filter(|found| found.key == key).unwrap_or_else(|| Partial {
            key,
            record: Record::new(request.steps),
            recorded: 0,
            tried: 0,
            schedules: Vec::new(),
        })
    }

    fn save(&self, path: &Path) -> Result<()> {
        let io = |source| Error::Io { path: path.to_path_buf(), source };
        let bytes = serde_json::to_vec(self).map_err(|error| io(error.into()))?;
        write_whole(path, &bytes).map_err(io)
    }
}
