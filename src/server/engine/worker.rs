//! The thread that owns models and draws: it takes orders, goes a step at a time, and lets finished
//! pictures out.

use std::sync::Arc;
use std::time::Instant;

use super::models::{Loaded, Models};
use super::order::{Drawn, Event, Failure};
use super::pulse::Pulse;
use super::queue::Waiting;
use super::running::Flag;
use super::{Health, Shared};
use crate::Step;
use crate::batch::{Batch, Member};
use crate::cache::Decision;
use crate::denoise::Walk;
use crate::dit::sizes;
use crate::error::{Error, Result};
use crate::image::Image;
use crate::report::Timings;
use crate::server::metrics;

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
    flag: Flag,
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
        while let Some(first) = self.shared.queue.wait() {
            let name = first.order.model.clone();
            match loaded.get(&name) {
                Ok(model) => self.draw(model, first),
                Err(error) => {
                    self.shared.running.begin(self.index, &first);
                    self.fail(&first.order.id, &error);
                }
            }
        }
        Ok(())
    }

    /// Draws `first` and all that can join it on the way.
    fn draw(&self, model: &mut Loaded, first: Waiting) {
        let mut batch = Batch::default();
        let mut active = Vec::new();
        self.admit(model, &mut batch, &mut active, first);
        while !active.is_empty() {
            while let Some(next) = self.next_for(model, &batch) {
                self.admit(model, &mut batch, &mut active, next);
            }
            self.step(model, &mut batch, &mut active);
        }
    }

    /// The next order, if it can join.
    fn next_for(&self, model: &Loaded, batch: &Batch) -> Option<Waiting> {
        let options = &self.shared.options;
        if options.exact || batch.members().is_empty() {
            return None;
        }
        let room = options.max_batch.saturating_sub(batch.pictures());
        let pipeline = &model.pipeline;
        self.shared.queue.next_if(|order| {
            order.model == model.name
                && order.request.batch_size <= room
                && batch.fits(pipeline.manifest(), pipeline.backend(), &order.request)
        })
    }

    /// Takes an order to its first step, into the batch.
    fn admit(
        &self,
        model: &mut Loaded,
        batch: &mut Batch,
        active: &mut Vec<Active>,
        waiting: Waiting,
    ) {
        let flag = self.shared.running.begin(self.index, &waiting);
        let begun = Instant::now();
        let span = tracing::info_span!("order", id = waiting.order.id);
        let entered = span.in_scope(|| self.enter(model, batch, &waiting));
        match entered {
            Ok(truncated) => {
                active.push(Active { waiting, begun, flag, truncated, partials: 0 });
            }
            Err(error) => self.fail(&waiting.order.id, &error),
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
        let truncated = walk.truncated.clone();
        pipeline
            .transformer(&mut timings, |backend, dit, _| batch.join(backend, dit, walk, plan))?;
        Ok(truncated)
    }

    /// One step of all that are under way; those that arrive or fail leave.
    fn step(&self, model: &mut Loaded, batch: &mut Batch, active: &mut Vec<Active>) {
        for place in (0..active.len()).rev() {
            if active[place].flag.is_up() {
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
        let stepped =
            model.pipeline.transformer(&mut timings, |_, dit, timings| batch.step(dit, timings));
        let outcomes = match stepped {
            Ok(outcomes) => outcomes,
            Err(error) => {
                active.iter().for_each(|one| self.fail(&one.waiting.order.id, &error));
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
                self.fail(&active[place].waiting.order.id, error);
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
        let send = |event| self.shared.running.tell(&order.id, event);
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
            let one = walk.clean.len() / order.request.batch_size;
            let mut images =
                model.pipeline.decode(&order.request, &walk.clean[..one], &mut timings)?;
            send(Event::Partial { index, image: images.remove(0) });
        }
        Ok(())
    }

    fn finish(&self, model: &mut Loaded, member: Member, active: Active) {
        let Waiting { order, since, .. } = &active.waiting;
        if active.flag.is_up() {
            return;
        }
        let manifest = model.pipeline.manifest();
        self.pulse.work_on(&model.name, manifest, &sizes(manifest, &order.request));
        let mut timings = Timings::observed(self.pulse.clone());
        let latents = &member.walk.place.latents;
        let images = match model.pipeline.decode(&order.request, latents, &mut timings) {
            Ok(images) => images,
            Err(error) => return self.fail(&order.id, &error),
        };
        metrics::pictures(images.len());
        model.colours.learn(&latents[..latents.len() / images.len()], &images[0]);
        let drawing = active.begun.elapsed();
        self.shared.pace.drew(drawing);
        let drawn = Drawn {
            images,
            plan: member.decisions,
            queued: active.begun - *since,
            drawing,
            truncated: active.truncated,
        };
        self.shared.running.end(&order.id, Event::Done(Box::new(drawn)));
    }

    fn fail(&self, id: &str, error: &Error) {
        let text = chain(error);
        tracing::warn!(order = id, error = text, "drawing failed");
        self.shared.running.end(id, Event::Failed(Failure::Draw(text)));
    }
}

/// The pictures of what the last prediction meant, small.
fn previews(model: &Loaded, walk: &Walk) -> Vec<Image> {
    let sizes = sizes(model.pipeline.manifest(), walk.request());
    let picture = walk.clean.len() / walk.request().batch_size;
    let show = |latents: &[f32]| model.colours.show(latents, sizes.width, sizes.height);
    walk.clean.chunks(picture).map(show).collect()
}

/// An error and what led to it.
pub fn chain(error: &Error) -> String {
    let causes = std::iter::successors(std::error::Error::source(error), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
