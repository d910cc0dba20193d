//! Several requests a step at a time: their rows run through the shallow graphs together, each at
//! its own timestep, and those whose plans refresh run through the core together. A request joins and
//! leaves between steps; its sampler, noise and kept outputs are its own.

use std::ops::Range;
use std::rc::Rc;

use hydit_graphs::{Manifest, Precision};

use crate::cache::{Decision, Forecast, Plan};
use crate::error::Result;
use crate::pipeline::denoise::Walk;
use crate::pipeline::transformer::{Condition, Dit, Lane, Shallow, rows_apart, sizes};
use crate::request::Request;
use crate::runtime::{Backend, Provider, Value};
use crate::timing::{Stage, Timings};

/// A request in a batch.
pub struct Member {
    /// Where it is.
    pub walk: Walk,
    /// What it does at each step.
    pub plan: Plan,
    /// What it has done.
    pub decisions: Vec<Decision>,
}

/// Requests that run together.
#[derive(Default)]
pub struct Batch {
    members: Vec<Member>,
    /// The conditions of all rows, as long as nobody joins or leaves.
    condition: Option<Rc<Condition>>,
}

impl Batch {
    /// Those in it, in the order of their rows.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// Pictures in all.
    pub fn pictures(&self) -> usize {
        self.members.iter().map(|member| member.walk.request().num_images).sum()
    }

    /// Whether `request` can run together with those in it.
    pub fn fits(&self, manifest: &Manifest, backend: &Backend, request: &Request) -> bool {
        let Some(first) = self.members.first() else { return true };
        let of = first.walk.request();
        (request.width, request.height) == (of.width, of.height)
            && !of.cache_policy.is_reactive()
            && !request.cache_policy.is_reactive()
            && rows_mix(manifest, backend, request)
    }

    /// Takes `walk` in at its next step.
    ///
    /// # Errors
    /// When what its plan needs cannot be loaded.
    pub fn join(&mut self, backend: &Backend, dit: &mut Dit, walk: Walk, plan: Plan) -> Result<()> {
        dit.prepare(backend, plan.keeps(), plan.planned().is_none())?;
        self.condition = None;
        self.members.push(Member { walk, plan, decisions: Vec::new() });
        Ok(())
    }

    /// Lets the member at `index` go, wherever it is.
    ///
    /// # Panics
    /// When there is no such member.
    pub fn leave(&mut self, index: usize) -> Member {
        self.condition = None;
        self.members.remove(index)
    }

    /// One step of every member; what became of each, in their order.
    ///
    /// # Errors
    /// When a graph fails, for all of them.
    pub fn step(&mut self, dit: &mut Dit, timings: &mut Timings) -> Result<Vec<Result<Decision>>> {
        let outcomes = match self.members.as_mut_slice() {
            [Member { walk, plan, .. }] => vec![walk.step(dit, plan, timings)],
            _ => self.step_together(dit, timings)?,
        };
        for (member, outcome) in self.members.iter_mut().zip(&outcomes) {
            member.decisions.extend(outcome.as_ref().ok());
        }
        Ok(outcomes)
    }

    fn step_together(
        &mut self,
        dit: &mut Dit,
        timings: &mut Timings,
    ) -> Result<Vec<Result<Decision>>> {
        let Batch { members, condition } = self;
        members.iter_mut().try_for_each(|member| member.walk.arrive())?;
        if condition.is_none() {
            let lanes: Vec<&Lane> = members.iter().map(Member::lane).collect();
            *condition = Some(Rc::new(together(&lanes)?));
        }
        let condition = condition.clone().expect("made above");
        let lane = Lane::new(condition, stack(members, |member| &member.lane().latents)?);
        let timestep = stack(members, |member| &member.walk.timestep)?;
        let encoded = timings.time(Stage::Encoder, || dit.encode(&lane, &timestep))?;
        let decisions: Vec<Decision> = members.iter().map(Member::decision).collect();
        let deep = deep(members, &decisions, dit, &lane, &encoded, timings)?;
        let predictions = timings.time(Stage::Decoder, || dit.decode(&lane, &encoded, &deep))?;
        let mut outcomes = Vec::with_capacity(members.len());
        let rows = rows(members);
        for ((member, rows), decision) in members.iter_mut().zip(rows).zip(decisions) {
            let prediction = predictions.rows(rows)?;
            outcomes.push(member.walk.follow(&[prediction], timings).map(|()| decision));
        }
        Ok(outcomes)
    }
}

/// Whether rows of different requests can run in one call here, and each row come out as it would
/// alone: on ONNX Runtime's CPU provider in fp32. In int8 the rows of a call share a scale; elsewhere
/// the tensors to be put together lie on a device, and one picture fills it.
pub fn rows_mix(manifest: &Manifest, backend: &Backend, request: &Request) -> bool {
    backend.ort_provider() == Some(Provider::Cpu)
        && manifest.precision == Precision::Fp32
        && !rows_apart(Provider::Cpu, &sizes(manifest, request))
}

impl Member {
    /// Rows that mix are in one lane.
    fn lane(&self) -> &Lane {
        &self.walk.lanes[0]
    }

    fn decision(&self) -> Decision {
        self.plan.planned().expect("planned members only")[self.walk.place.step]
    }
}

/// What the decoder gets for the core's output, in the rows of all members.
fn deep(
    members: &mut [Member],
    decisions: &[Decision],
    dit: &mut Dit,
    lane: &Lane,
    encoded: &Shallow,
    timings: &mut Timings,
) -> Result<Value> {
    let refresh = |i: &usize| decisions[*i] == Decision::Refresh;
    let refreshing: Vec<usize> = (0..members.len()).filter(refresh).collect();
    let all = refreshing.len() == members.len();
    if !refreshing.is_empty() {
        let deep = timings.time(Stage::Core, || match all {
            true => dit.core(lane, encoded),
            false => {
                let (lane, encoded) = only(members, &refreshing, lane, encoded)?;
                dit.core(&lane, &encoded)
            }
        })?;
        let mut start = 0;
        for &i in &refreshing {
            let Member { walk, plan, .. } = &mut members[i];
            let rows = start..start + walk.rows();
            start = rows.end;
            walk.lanes[0].keep(deep.rows(rows)?, plan.keeps());
        }
        if all {
            return Ok(deep);
        }
    }
    let forecasts: Vec<Option<Value>> = timings.time(Stage::Policy, || {
        let forecast = |(member, decision): (&Member, &Decision)| match *decision {
            Decision::Refresh | Decision::Reuse(Forecast::LAST) => Ok(None),
            Decision::Reuse(forecast) => dit.forecast(member.lane(), forecast).map(Some),
        };
        members.iter().zip(decisions).map(forecast).collect::<Result<_>>()
    })?;
    let deep: Vec<&Value> = members
        .iter()
        .zip(&forecasts)
        .map(|(member, forecast)| forecast.as_ref().unwrap_or(&member.lane().kept()[0]))
        .collect();
    Ok(Value::stacked(&deep)?)
}

/// What the core reads of the members at `chosen`.
fn only(
    members: &[Member],
    chosen: &[usize],
    lane: &Lane,
    encoded: &Shallow,
) -> Result<(Lane, Shallow)> {
    let rows = rows(members);
    let take = |value: &Value| -> Result<Value> {
        let parts: Vec<Value> =
            chosen.iter().map(|&i| Ok(value.rows(rows[i].clone())?)).collect::<Result<_>>()?;
        Ok(Value::stacked(&parts.iter().collect::<Vec<_>>())?)
    };
    let lanes: Vec<&Lane> = chosen.iter().map(|&i| members[i].lane()).collect();
    let latents = take(&lane.latents)?;
    let shallow = Shallow(vec![take(encoded.x())?, take(encoded.temb())?]);
    Ok((Lane::new(Rc::new(together(&lanes)?), latents), shallow))
}

/// One condition for the rows of all `lanes`, which are of one size.
fn together(lanes: &[&Lane]) -> Result<Condition> {
    let stacked = |part: fn(&Condition) -> &Value| {
        Value::stacked(&lanes.iter().map(|lane| part(&lane.condition)).collect::<Vec<_>>())
    };
    let Condition { cos, sin, .. } = &*lanes[0].condition;
    Ok(Condition {
        text_states: stacked(|condition| &condition.text_states)?,
        extra: stacked(|condition| &condition.extra)?,
        cos: cos.clone(),
        sin: sin.clone(),
    })
}

/// Where the rows of each member are among those of all.
fn rows(members: &[Member]) -> Vec<Range<usize>> {
    let mut start = 0;
    let range = |member: &Member| {
        let rows = start..start + member.walk.rows();
        start = rows.end;
        rows
    };
    members.iter().map(range).collect()
}

fn stack(members: &[Member], part: fn(&Member) -> &Value) -> Result<Value> {
    Ok(Value::stacked(&members.iter().map(part).collect::<Vec<_>>())?)
}
