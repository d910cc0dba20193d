//! The thread that owns models and draws: it takes orders, goes a step at a time, and lets finished
//! pictures out.

use std::sync::Arc;
use std::time::Instant;

use super::models::{Loaded, Models};
use super::order::{Drawn, Event, Failure, Order};
use super::pulse::Pulse;
use super::queue::Waiting;
use super::running::Run;
use super::shared::{Health, Shared};
use crate::server::metrics;
use hydit::Step;
use hydit::cache::Decision;
use hydit::error::{Error, Result};
use hydit::image::Image;
use hydit::pipeline::batch::{Batch, Member};
use hydit::pipeline::denoise::Walk;
use hydit::pipeline::transformer::sizes;
use hydit::timing::Timings;

/// One of the engine's threads.
pub struct Worker {
    pub index: usize,
    pub shared: Arc<Shared>,
    pub pulse: Arc<Pulse>,
}

/// An order under way; its place among these is that of its member in the batch.
struct Active {
    waiting: Waiting,
    begun: Instant,
    run: Run,
    truncated: Vec<&'static str>,
    partials: usize,
}

impl Worker {
    /// Loads, warms up, and draws until the queue is closed and empty.
    ///
    /// # Errors
    /// When a model that is loaded at the start cannot be.
    pub fn run(&self) -> Result<()> {
        let mut loaded = Models::new(self.shared.clone(), self.pulse.clone());
        loaded.preload()?;
        self.shared.set_health(self.index, Health::Alive);
        while let Some((first, run)) = self.shared.queue.wait(|waiting| self.begin(waiting)) {
            match loaded.get(&first.order.model) {
                Ok(model) => self.draw(model, first, run),
                Err(error) => self.fail(&run, &error),
            }
        }
        Ok(())
    }

    fn begin(&self, waiting: &Waiting) -> Run {
        self.shared.running.begin(self.index, waiting)
    }

    /// Draws `first` and all that can join it on the way.
    fn draw(&self, model: &mut Loaded, first: Waiting, run: Run) {
        let mut batch = Batch::default();
        let mut active = Vec::new();
        self.admit(model, &mut batch, &mut active, first, run);
        while !active.is_empty() {
            while let Some((next, run)) = self.next_for(model, &batch, &active) {
                self.admit(model, &mut batch, &mut active, next, run);
            }
            self.step(model, &mut batch, &mut active);
        }
    }

    /// The next order, if it can join.
    fn next_for(&self, model: &Loaded, batch: &Batch, active: &[Active]) -> Option<(Waiting, Run)> {
        let options = &self.shared.options;
        let alone = active.iter().any(|one| one.waiting.order.alone);
        if options.exact || alone || batch.members().is_empty() {
            return None;
        }
        let room = options.max_batch.saturating_sub(batch.pictures());
        let pipeline = &model.pipeline;
        let joins = |order: &Order| {
            order.model == model.name
                && !order.alone
                && order.request.num_images <= room
                && batch.fits(pipeline.manifest(), pipeline.backend(), &order.request)
        };
        self.shared.queue.next_if(joins, |waiting| self.begin(waiting))
    }

    /// Takes an order to its first step, into the batch.
    fn admit(
        &self,
        model: &mut Loaded,
        batch: &mut Batch,
        active: &mut Vec<Active>,
        waiting: Waiting,
        run: Run,
    ) {
        let begun = Instant::now();
        let span = tracing::info_span!("order", id = waiting.order.id);
        let runs = vec![run.clone()];
        let entered = span
            .in_scope(|| self.stopping(model, runs, |model| self.enter(model, batch, &waiting)));
        match entered {
            Ok(truncated) => {
                active.push(Active { waiting, begun, run, truncated, partials: 0 });
            }
            Err(error) => self.fail(&run, &error),
        }
    }

    fn enter(
        &self,
        model: &mut Loaded,
        batch: &mut Batch,
        waiting: &Waiting,
    ) -> Result<Vec<&'static str>> {
        let order = &waiting.order;
        let pipeline = &mut model.pipeline;
        self.pulse.work_on(
            &model.name,
            pipeline.manifest(),
            &sizes(pipeline.manifest(), &order.request),
        );
        let mut timings = Timings::observed(self.pulse.clone());
        let (_, plan) = order.request.plan(pipeline.artifacts())?;
        let mut walk = pipeline.enter(&order.request, &mut timings)?;
        walk.shown = order.preview_every.is_some() || order.partials > 0;
        walk.lanes.iter_mut().for_each(|lane| lane.watched = true);
        let truncated = walk.truncated.clone();
        pipeline
            .transformer(&mut timings, |backend, dit, _| batch.join(backend, dit, walk, plan))?;
        Ok(truncated)
    }

    /// One step of all that are under way; those that arrive or fail leave.
    fn step(&self, model: &mut Loaded, batch: &mut Batch, active: &mut Vec<Active>) {
        for place in (0..active.len()).rev() {
            if active[place].run.is_over() {
                active.remove(place);
                batch.leave(place);
            }
        }
        let Some(first) = batch.members().first() else { return };
        let manifest = model.pipeline.manifest();
        let mut rows = sizes(manifest, first.walk.request());
        rows.batch = batch.members().iter().map(|member| member.walk.rows()).sum();
        self.pulse.work_on(&model.name, manifest, &rows);
        metrics::batch(batch.pictures());
        let mut timings = Timings::observed(self.pulse.clone());
        let runs = active.iter().map(|one| one.run.clone()).collect();
        let ids = || active.iter().map(|one| &*one.waiting.order.id).collect::<Vec<_>>();
        let stepped = tracing::debug_span!("step", orders = ?ids()).in_scope(|| {
            self.stopping(model, runs, |model| {
                model.pipeline.transformer(&mut timings, |_, dit, timings| batch.step(dit, timings))
            })
        });
        let outcomes = match stepped {
            Ok(outcomes) => outcomes,
            Err(error) => {
                self.fail_together(active, &error);
                active.clear();
                *batch = Batch::default();
                return;
            }
        };
        for (place, outcome) in outcomes.into_iter().enumerate().rev() {
            let ended = match outcome {
                Ok(decision) => {
                    self.tell(model, &batch.members()[place].walk, &mut active[place], decision)
                }
                Err(error) => Err(error),
            };
            let done = batch.members()[place].walk.is_done();
            if let Err(error) = &ended {
                self.fail(&active[place].run, error);
            }
            if done || ended.is_err() {
                let member = batch.leave(place);
                let one = active.remove(place);
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
        active: &mut Active,
        decision: Decision,
    ) -> Result<()> {
        metrics::step(decision == Decision::Refresh);
        if decision == Decision::Refresh {
            let drifts = walk.lanes.iter().filter_map(|lane| lane.drift);
            drifts.for_each(|drift| metrics::drift(f64::from(drift)));
        }
        let order = &active.waiting.order;
        let (steps, total) = (walk.place.step, walk.steps());
        let send = |event| self.shared.running.tell(&active.run, event);
        send(Event::Step(Step { index: steps - 1, total, decision }));
        let due = order.preview_every.is_some_and(|every| steps.is_multiple_of(every));
        if due && steps < total {
            send(Event::Preview { steps, images: previews(model, walk) });
        }
        let index = active.partials;
        let due = (index + 1) * total / (order.partials + 1);
        if index < order.partials && (due..total).contains(&steps) {
            active.partials += 1;
            let mut timings = Timings::observed(self.pulse.clone());
            let one = walk.clean.len() / order.request.num_images;
            let mut images =
                model.pipeline.decode(&order.request, &walk.clean[..one], &mut timings)?;
            send(Event::Partial { index, image: images.remove(0) });
        }
        Ok(())
    }

    fn finish(&self, model: &mut Loaded, member: Member, active: Active) {
        let Waiting { order, since, .. } = &active.waiting;
        if active.run.is_over() {
            return;
        }
        let manifest = model.pipeline.manifest();
        self.pulse.work_on(&model.name, manifest, &sizes(manifest, &order.request));
        let mut timings = Timings::observed(self.pulse.clone());
        let latents = &member.walk.place.latents;
        let decoded = self.stopping(model, vec![active.run.clone()], |model| {
            model.pipeline.decode(&order.request, latents, &mut timings)
        });
        let images = match decoded {
            Ok(images) => images,
            Err(error) => return self.fail(&active.run, &error),
        };
        metrics::pictures(images.len());
        let drawing = active.begun.elapsed();
        self.shared.pace.drew(drawing);
        let drawn = Drawn {
            images,
            plan: member.decisions,
            queued: active.begun - *since,
            drawing,
            truncated: active.truncated,
        };
        self.shared.running.finish(&active.run, Event::Done(Box::new(drawn)));
    }

    /// Does `work`, whose graph calls are not made any more once all `runs` are over.
    fn stopping<R>(
        &self,
        model: &mut Loaded,
        runs: Vec<Run>,
        work: impl FnOnce(&mut Loaded) -> Result<R>,
    ) -> Result<R> {
        let stop = model.pipeline.backend().stop();
        stop.when(move || runs.iter().all(Run::is_over));
        let done = work(model);
        stop.never();
        done
    }

    fn fail(&self, run: &Run, error: &Error) {
        if run.is_over() {
            return; // what was stopped has not failed
        }
        let text = chain(error);
        tracing::warn!(order = run.id(), error = text, "drawing failed");
        self.shared.running.finish(run, Event::Failed(Failure::Draw(text)));
    }

    /// A call for several failed: each may succeed alone.
    fn fail_together(&self, active: &[Active], error: &Error) {
        match active {
            [one] => self.fail(&one.run, error),
            _ => active.iter().for_each(|one| {
                let failed = Failure::Engine(chain(error));
                self.shared.running.finish(&one.run, Event::Failed(failed));
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
