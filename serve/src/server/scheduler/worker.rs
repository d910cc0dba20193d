//! The thread that owns models and draws: it takes orders, goes a step at a time, and lets finished
//! pictures out.

use std::sync::Arc;
use std::time::Instant;

use hydit::Step;
use hydit::cache::Decision;
use hydit::error::{Error, Result};
use hydit::image::Image;
use hydit::pipeline::batch::{Batch, Member};
use hydit::pipeline::denoise::Walk;
use hydit::pipeline::transformer::sizes;
use hydit::timing::Timings;

use super::in_flight::CancelToken;
use super::models::{Loaded, Models};
use super::queue::Queued;
use super::shared::{Shared, WorkerHealth};
use super::task::{Failure, Task, TaskEvent, TaskOutput};
use super::watchdog::Watchdog;
use crate::server::metrics;

/// One of the engine's threads.
pub struct Worker {
    pub index: usize,
    pub shared: Arc<Shared>,
    pub watchdog: Arc<Watchdog>,
}

/// An order under way; its place among these is that of its member in the batch.
struct Running {
    queued: Queued,
    begun: Instant,
    token: CancelToken,
    truncated: Vec<&'static str>,
    partials: usize,
}

impl Worker {
    /// Loads, warms up, and draws until the queue is closed and empty.
    ///
    /// # Errors
    /// When a model that is loaded at the start cannot be.
    pub fn run(&self) -> Result<()> {
        let mut loaded = Models::new(self.shared.clone(), self.watchdog.clone());
        loaded.preload()?;
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
        let mut batch = Batch::default();
        let mut running = Vec::new();
        self.admit(model, &mut batch, &mut running, first, token);
        while !running.is_empty() {
            while let Some((next, token)) = self.next_for(model, &batch, &running) {
                self.admit(model, &mut batch, &mut running, next, token);
            }
            self.step(model, &mut batch, &mut running);
        }
    }

    /// The next order, if it can join.
    fn next_for(
        &self,
        model: &Loaded,
        batch: &Batch,
        running: &[Running],
    ) -> Option<(Queued, CancelToken)> {
        let options = &self.shared.options;
        let alone = running.iter().any(|one| one.queued.task.no_batching);
        if options.exact || alone || batch.members().is_empty() {
            return None;
        }
        let room = options.max_batch.saturating_sub(batch.pictures());
        let pipeline = &model.pipeline;
        let joins = |task: &Task| {
            task.model == model.name
                && !task.no_batching
                && task.request.num_images <= room
                && batch.fits(pipeline.manifest(), pipeline.backend(), &task.request)
        };
        self.shared.queue.next_if(joins, |queued| self.begin(queued))
    }

    /// Takes an order to its first step, into the batch.
    fn admit(
        &self,
        model: &mut Loaded,
        batch: &mut Batch,
        running: &mut Vec<Running>,
        queued: Queued,
        token: CancelToken,
    ) {
        let begun = Instant::now();
        let span = tracing::info_span!("order", id = queued.task.id);
        let tokens = vec![token.clone()];
        let entered = span
            .in_scope(|| self.stopping(model, tokens, |model| self.enter(model, batch, &queued)));
        match entered {
            Ok(truncated) => {
                running.push(Running { queued, begun, token, truncated, partials: 0 });
            }
            Err(error) => self.fail(&token, &error),
        }
    }

    fn enter(
        &self,
        model: &mut Loaded,
        batch: &mut Batch,
        queued: &Queued,
    ) -> Result<Vec<&'static str>> {
        let task = &queued.task;
        let pipeline = &mut model.pipeline;
        self.watchdog.work_on(
            &model.name,
            pipeline.manifest(),
            &sizes(pipeline.manifest(), &task.request),
        );
        let mut timings = Timings::observed(self.watchdog.clone());
        let (_, plan) = task.request.plan(pipeline.artifacts())?;
        let mut walk = pipeline.enter(&task.request, &mut timings)?;
        walk.shown = task.preview_every.is_some() || task.partial_images > 0;
        walk.lanes.iter_mut().for_each(|lane| lane.watched = true);
        let truncated = walk.truncated.clone();
        pipeline
            .transformer(&mut timings, |backend, dit, _| batch.join(backend, dit, walk, plan))?;
        Ok(truncated)
    }

    /// One step of all that are under way; those that arrive or fail leave.
    fn step(&self, model: &mut Loaded, batch: &mut Batch, running: &mut Vec<Running>) {
        for place in (0..running.len()).rev() {
            if running[place].token.is_cancelled() {
                running.remove(place);
                batch.leave(place);
            }
        }
        let Some(first) = batch.members().first() else { return };
        let manifest = model.pipeline.manifest();
        let mut rows = sizes(manifest, first.walk.request());
        rows.batch = batch.members().iter().map(|member| member.walk.rows()).sum();
        self.watchdog.work_on(&model.name, manifest, &rows);
        metrics::batch(batch.pictures());
        let mut timings = Timings::observed(self.watchdog.clone());
        let tokens = running.iter().map(|one| one.token.clone()).collect();
        let ids = || running.iter().map(|one| &*one.queued.task.id).collect::<Vec<_>>();
        let stepped = tracing::debug_span!("step", orders = ?ids()).in_scope(|| {
            self.stopping(model, tokens, |model| {
                model.pipeline.transformer(&mut timings, |_, dit, timings| batch.step(dit, timings))
            })
        });
        let outcomes = match stepped {
            Ok(outcomes) => outcomes,
            Err(error) => {
                self.fail_together(running, &error);
                running.clear();
                *batch = Batch::default();
                return;
            }
        };
        for (place, outcome) in outcomes.into_iter().enumerate().rev() {
            let ended = match outcome {
                Ok(decision) => {
                    self.tell(model, &batch.members()[place].walk, &mut running[place], decision)
                }
                Err(error) => Err(error),
            };
            let done = batch.members()[place].walk.is_done();
            if let Err(error) = &ended {
                self.fail(&running[place].token, error);
            }
            if done || ended.is_err() {
                let member = batch.leave(place);
                let one = running.remove(place);
                if ended.is_ok() {
                    self.finish(model, member, one);
                }
            }
        }
    }

    /// Tells of a step, with previews and pictures on the way where they are wanted.
    fn tell(
        &self,
        model: &mut Loaded,
        walk: &Walk,
        running: &mut Running,
        decision: Decision,
    ) -> Result<()> {
        metrics::step(decision == Decision::Refresh);
        if decision == Decision::Refresh {
            let drifts = walk.lanes.iter().filter_map(|lane| lane.drift);
            drifts.for_each(|drift| metrics::drift(f64::from(drift)));
        }
        let task = &running.queued.task;
        let (steps, total) = (walk.place.step, walk.steps());
        let send = |event| self.shared.in_flight.send(&running.token, event);
        send(TaskEvent::Step(Step { index: steps - 1, total, decision }));
        let due = task.preview_every.is_some_and(|every| steps.is_multiple_of(every));
        if due && steps < total {
            send(TaskEvent::Preview { steps, images: previews(model, walk) });
        }
        let index = running.partials;
        let due = (index + 1) * total / (task.partial_images + 1);
        if index < task.partial_images && (due..total).contains(&steps) {
            running.partials += 1;
            let mut timings = Timings::observed(self.watchdog.clone());
            let one = walk.clean.len() / task.request.num_images;
            let mut images =
                model.pipeline.decode(&task.request, &walk.clean[..one], &mut timings)?;
            send(TaskEvent::Partial { index, image: images.remove(0) });
        }
        Ok(())
    }

    fn finish(&self, model: &mut Loaded, member: Member, running: Running) {
        let Queued { task, since, .. } = &running.queued;
        if running.token.is_cancelled() {
            return;
        }
        let manifest = model.pipeline.manifest();
        self.watchdog.work_on(&model.name, manifest, &sizes(manifest, &task.request));
        let mut timings = Timings::observed(self.watchdog.clone());
        let latents = &member.walk.place.latents;
        let decoded = self.stopping(model, vec![running.token.clone()], |model| {
            model.pipeline.decode(&task.request, latents, &mut timings)
        });
        let images = match decoded {
            Ok(images) => images,
            Err(error) => return self.fail(&running.token, &error),
        };
        metrics::pictures(images.len());
        let drawing = running.begun.elapsed();
        self.shared.throughput.finished(drawing, Instant::now());
        let drawn = TaskOutput {
            images,
            plan: member.decisions,
            queued: running.begun - *since,
            drawing,
            truncated: running.truncated,
        };
        self.shared.in_flight.finish(&running.token, TaskEvent::Done(Box::new(drawn)));
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
        let text = chain(error);
        tracing::warn!(order = token.task(), error = text, "drawing failed");
        self.shared.in_flight.finish(token, TaskEvent::Failed(Failure::Draw(text)));
    }

    /// A call for several failed: each may succeed alone.
    fn fail_together(&self, running: &[Running], error: &Error) {
        match running {
            [one] => self.fail(&one.token, error),
            _ => running.iter().for_each(|one| {
                let failed = Failure::Worker(chain(error));
                self.shared.in_flight.finish(&one.token, TaskEvent::Failed(failed));
            }),
        }
    }
}

/// The pictures of what the last prediction meant, small.
fn previews(model: &Loaded, walk: &Walk) -> Vec<Image> {
    let sizes = sizes(model.pipeline.manifest(), walk.request());
    let picture = walk.clean.len() / walk.request().num_images;
    let show = |latents: &[f32]| model.colours.show(latents, sizes.width, sizes.height);
    walk.clean.chunks(picture).map(show).collect()
}

/// An error and what led to it.
pub fn chain(error: &Error) -> String {
    let causes = std::iter::successors(std::error::Error::source(error), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
