//! The thread that owns models and draws: it takes tasks from the queue, goes a step at a time, and
//! sends finished images.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hydit::error::{Error, Result};
use hydit::image::Image;
use hydit::pipeline::batch::{can_batch, most_images};
use hydit::pipeline::cost::sizes;
use hydit::pipeline::denoise::{DenoiseState, Step};
use hydit::util::error_chain;
use hydit_graphs::Sizes;

use super::in_flight::CancelToken;
use super::models::{Loaded, Models};
use super::queue::Queued;
use super::shared::{Shared, WorkerHealth};
use super::task::{Failure, Task, TaskEvent, TaskOutput};
use super::watchdog::Watchdog;
use crate::server::metrics;
use crate::server::told::Told;

/// One of the scheduler's threads.
pub struct Worker {
    pub index: usize,
    pub shared: Arc<Shared>,
    pub watchdog: Arc<Watchdog>,
}

/// Counts a worker among those that take tasks.
pub struct AtWork<'a>(&'a Shared);

/// A task under way.
struct Running {
    queued: Queued,
    begun: Instant,
    token: CancelToken,
    state: DenoiseState,
    /// When its last step ended.
    stepped: Instant,
    /// What each step took.
    took: Vec<Duration>,
    /// Whole images shown so far.
    partials: usize,
}

impl AtWork<'_> {
    /// From now on, until it is dropped.
    pub fn begin(shared: &Shared) -> AtWork<'_> {
        shared.at_work.send_modify(|workers| *workers += 1);
        AtWork(shared)
    }
}

impl Drop for AtWork<'_> {
    fn drop(&mut self) {
        self.0.at_work.send_modify(|workers| *workers -= 1);
    }
}

impl Worker {
    /// Loads, warms up, and draws until the queue is closed and empty.
    ///
    /// # Errors
    /// When a model that is loaded at the start cannot be.
    pub fn run(&self) -> Result<()> {
        let mut loaded = Models::new(self.shared.clone(), self.watchdog.clone());
        loaded.preload()?;
        let _at_work = AtWork::begin(&self.shared);
        self.shared.set_health(self.index, WorkerHealth::Alive);
        while let Some((first, token)) = self.shared.queue.wait(|queued| self.begin(queued)) {
            match loaded.get(&first.task.model) {
                Ok(model) => self.draw(model, first, token),
                Err(error) => self.fail(&token, &error),
            }
        }
        Ok(())
    }

    fn begin(&self, queued: &Queued) -> CancelToken {
        self.shared.in_flight.begin(self.index, queued)
    }

    /// Draws `first` and all that can join it on the way.
    fn draw(&self, model: &mut Loaded, first: Queued, token: CancelToken) {
        let mut running = Vec::new();
        running.extend(self.admit(model, first, token));
        while !running.is_empty() {
            while let Some((next, token)) = self.next_for(model, &running) {
                running.extend(self.admit(model, next, token));
            }
            self.step(model, &mut running);
        }
    }

    /// The next task, if it can join those that are under way.
    fn next_for(&self, model: &Loaded, running: &[Running]) -> Option<(Queued, CancelToken)> {
        let options = &self.shared.options;
        let first = running.first()?;
        if options.exact || running.iter().any(|one| one.queued.task.no_batching) {
            return None;
        }
        let (manifest, backend) = (model.pipeline.manifest(), model.pipeline.backend());
        let sizes = sizes(manifest, first.state.request());
        let most = most_images(backend.provider(), &sizes).min(options.max_batch);
        let room = most.saturating_sub(images(running));
        let joins = |task: &Task| {
            task.model == model.name
                && !task.no_batching
                && task.request.num_images <= room
                && can_batch(manifest, backend, first.state.request(), &task.request)
        };
        self.shared.queue.next_if(joins, |queued| self.begin(queued))
    }

    /// Takes a task to its first step, unless that fails.
    fn admit(&self, model: &mut Loaded, queued: Queued, token: CancelToken) -> Option<Running> {
        let begun = Instant::now();
        let task = &queued.task;
        let span = tracing::info_span!("order", id = task.id).entered();
        self.work_on(model, sizes(model.pipeline.manifest(), &task.request));
        let state =
            self.stopping(model, vec![token.clone()], |model| model.pipeline.begin(&task.request));
        drop(span);
        match state {
            Ok(mut state) => {
                if task.preview_every.is_some() || task.partial_images > 0 {
                    state.keep_preview();
                }
                state.track_drift();
                let (stepped, took) = (Instant::now(), Vec::new());
                Some(Running { queued, begun, token, state, stepped, took, partials: 0 })
            }
            Err(error) => {
                self.fail(&token, &error);
                None
            }
        }
    }

    /// One step of all that are under way; those that are done or fail leave.
    fn step(&self, model: &mut Loaded, running: &mut Vec<Running>) {
        running.retain(|one| !one.token.is_cancelled());
        let Some(first) = running.first() else { return };
        let rows = running.iter().map(|one| one.state.row_count()).sum();
        let sizes = sizes(model.pipeline.manifest(), first.state.request());
        self.work_on(model, Sizes { batch: rows, ..sizes });
        metrics::batch(images(running));
        let tokens = running.iter().map(|one| one.token.clone()).collect();
        let ids: Vec<&str> = running.iter().map(|one| &*one.queued.task.id).collect();
        let span = tracing::debug_span!("step", orders = ?ids).entered();
        let stepped = self.stopping(model, tokens, |model| {
            let mut states: Vec<&mut DenoiseState> =
                running.iter_mut().map(|one| &mut one.state).collect();
            model.pipeline.transformer()?.step_together(&mut states)
        });
        drop(span);
        let steps = match stepped {
            Ok(steps) => steps,
            Err(error) => {
                self.fail_together(running, &error);
                running.clear();
                return;
            }
        };
        for (mut one, step) in std::mem::take(running).into_iter().zip(steps) {
            match step.and_then(|step| self.tell(model, &mut one, step)) {
                Err(error) => self.fail(&one.token, &error),
                Ok(()) if one.state.is_done() => self.finish(model, one),
                Ok(()) => running.push(one),
            }
        }
    }

    /// Tells of a step, with previews and whole images on the way where they are wanted.
    fn tell(&self, model: &mut Loaded, running: &mut Running, step: Step) -> Result<()> {
        let Running { queued, token, state, stepped, took, partials, .. } = running;
        let now = Instant::now();
        let step_took = now - *stepped;
        *stepped = now;
        took.push(step_took);
        metrics::step(step.decision.refreshes());
        if step.decision.refreshes() {
            state.drifts().for_each(|drift| metrics::drift(f64::from(drift)));
        }
        let task = &queued.task;
        let (done, total) = (state.steps_done(), step.total);
        let send = |event| self.shared.in_flight.send(token, event);
        send(TaskEvent::Step { step, took: step_took });
        let due = task.preview_every.is_some_and(|every| done.is_multiple_of(every));
        if due && done < total {
            send(TaskEvent::Preview { steps: done, images: previews(model, state) });
        }
        let index = *partials;
        let due = (index + 1) * total / (task.partial_images + 1);
        if index < task.partial_images && (due..total).contains(&done) {
            *partials += 1;
            let image = state.preview().len() / task.request.num_images;
            let mut images = model.pipeline.decode(state.request(), &state.preview()[..image])?;
            send(TaskEvent::Partial { index, image: images.remove(0) });
        }
        Ok(())
    }

    fn finish(&self, model: &mut Loaded, running: Running) {
        let Running { queued, begun, token, state, took, .. } = running;
        if token.is_cancelled() {
            return;
        }
        self.work_on(model, sizes(model.pipeline.manifest(), state.request()));
        let decoded = self.stopping(model, vec![token.clone()], |model| {
            model.pipeline.decode(state.request(), state.latents())
        });
        let images = match decoded {
            Ok(images) => images,
            Err(error) => return self.fail(&token, &error),
        };
        metrics::pictures(images.len());
        let drawing = begun.elapsed();
        self.shared.throughput.finished(drawing, Instant::now());
        let drawn = TaskOutput {
            images,
            plan: state.decisions().to_vec(),
            took,
            queued: begun - queued.since,
            drawing,
            truncated: state.truncated().to_vec(),
        };
        self.shared.in_flight.finish(&token, TaskEvent::Done(Box::new(drawn)));
    }

    /// The calls that follow are of tensors of `sizes`.
    fn work_on(&self, model: &Loaded, sizes: Sizes) {
        self.watchdog.work_on(&model.name, model.pipeline.manifest(), &sizes);
    }

    /// Does `work`, whose graph calls are not made any more once all `tokens` are over.
    fn stopping<R>(
        &self,
        model: &mut Loaded,
        tokens: Vec<CancelToken>,
        work: impl FnOnce(&mut Loaded) -> Result<R>,
    ) -> Result<R> {
        let stop = model.pipeline.backend().stop();
        stop.when(move || tokens.iter().all(CancelToken::is_cancelled));
        let done = work(model);
        stop.never();
        done
    }

    fn fail(&self, token: &CancelToken, error: &Error) {
        if token.is_cancelled() {
            return; // what was stopped has not failed
        }
        let told = Told::of(error, token.task());
        self.shared.in_flight.finish(token, TaskEvent::Failed(Failure::Draw(told)));
    }

    /// A call for several failed: each may succeed alone.
    fn fail_together(&self, running: &[Running], error: &Error) {
        match running {
            [one] => self.fail(&one.token, error),
            _ => {
                tracing::warn!(error = error_chain(error), "a call for several orders failed");
                let failed = Failure::Worker("a call for several requests broke off");
                running.iter().for_each(|one| {
                    self.shared.in_flight.finish(&one.token, TaskEvent::Failed(failed.clone()));
                });
            }
        }
    }
}

/// The number of images that are being drawn.
fn images(running: &[Running]) -> usize {
    running.iter().map(|one| one.state.request().num_images).sum()
}

/// The images that the last prediction implies, small.
fn previews(model: &Loaded, state: &DenoiseState) -> Vec<Image> {
    let sizes = sizes(model.pipeline.manifest(), state.request());
    let image = state.preview().len() / state.request().num_images;
    let show = |latents: &[f32]| model.colours.show(latents, sizes.width, sizes.height);
    state.preview().chunks(image).map(show).collect()
}
