//! Which rows share a call of a graph.
//!
//! The rows of one request run all in one call, or each in its own where that is faster. The rows
//! of several requests run in one call where [`can_batch`] says that none of them sees the
//! difference.

use std::rc::Rc;

use hydit_graphs::config::TransformerShape;
use hydit_graphs::{Manifest, Precision, Sizes};

use super::conditioner::Condition;
use super::control::{Controls, NetCondition};
use super::cost::sizes;
use super::rows::Rows;
use super::stack::{Stacked, Stacker};
use super::transformer::Shallow;
use crate::error::Result;
use crate::request::Request;
use crate::runtime::{Backend, Provider, Value};

/// Image tokens from which the rows of a request run one after the other on a CPU.
///
/// A run of all rows reads each weight once, a run of one row keeps its activations in the
/// processor's caches: on two cores together is 5 to 15 % faster up to 256 tokens, apart 2 to 7 %
/// from 1024 on. Apart needs the memory of one row for activations, and in int8 a row's rounding
/// does not depend on its neighbours.
const APART_FROM: usize = 1024;

/// Most image tokens of the pictures that share a call on a GPU: four of 1024x1024. More would take
/// memory that one picture leaves free, and gain nothing.
const MOST_TOKENS: usize = 4 * 4096;

/// How many rows of a request share a call: all of them, or one.
pub fn rows_together(provider: Provider, sizes: &Sizes) -> usize {
    if rows_apart(provider, sizes) { 1 } else { sizes.batch }
}

fn rows_apart(provider: Provider, sizes: &Sizes) -> bool {
    provider == Provider::Cpu && sizes.grid_height * sizes.grid_width >= APART_FROM
}

/// Whether `one` and `other` can share calls, each row coming out as it would alone.
///
/// They must be of one size and have the same LoRAs, which the graphs read once for all rows of a
/// call; both must have image prompts, or else the one without would pay for what the other attends
/// to; neither may decide step by step, since a decision waits for the request's own shallow encoder;
/// and neither may have ControlNets, whose graphs all rows of a call would run through.
pub fn can_batch(manifest: &Manifest, backend: &Backend, one: &Request, other: &Request) -> bool {
    (one.width, one.height) == (other.width, other.height)
        && one.loras == other.loras
        && one.controls.is_empty()
        && other.controls.is_empty()
        && one.image_prompt.is_some() == other.image_prompt.is_some()
        && !one.cache_policy.is_reactive()
        && !other.cache_policy.is_reactive()
        && rows_mix(manifest, backend, one)
}

/// Whether rows of different requests of this size can share a call here, and each row come out as
/// it would alone but for rounding: with ONNX Runtime on the CPU in fp32, and with CUDA's kernels in
/// all precisions but int8 and fp8. In int8 the rows of a call share a scale; TensorRT's engines and
/// what CUDA graphs have captured are for numbers of rows that are known beforehand.
pub fn rows_mix(manifest: &Manifest, backend: &Backend, request: &Request) -> bool {
    match (backend.ort_provider(), manifest.precision) {
        (Some(Provider::Cpu), Precision::Fp32) => {
            !rows_apart(Provider::Cpu, &sizes(manifest, request))
        }
        (Some(Provider::Cuda), Precision::Fp32 | Precision::Fp16 | Precision::Bf16) => true,
        _ => false,
    }
}

/// How many pictures of these `sizes` may share a call: one at least.
pub fn most_images(provider: Provider, sizes: &Sizes) -> usize {
    if provider.is_on_host() {
        return usize::MAX;
    }
    (MOST_TOKENS / (sizes.grid_height * sizes.grid_width)).max(1)
}

/// The rows that share a call: those of one request, or of several that are batched.
pub struct RowGroup<'a> {
    rows: Vec<&'a mut Rows>,
    condition: Rc<Condition>,
    stacker: Rc<Stacker>,
}

/// The condition of a batch, kept by its first rows for as long as the batch stays the same.
pub(crate) struct Batched {
    members: Vec<Rc<Condition>>,
    condition: Rc<Condition>,
}

impl<'a> RowGroup<'a> {
    /// Rows of one request that share a call.
    pub(crate) fn alone(rows: &'a mut Rows) -> RowGroup<'a> {
        let (condition, stacker) = (rows.condition.clone(), rows.stacker.clone());
        RowGroup { rows: vec![rows], condition, stacker }
    }

    /// Rows of several requests, which [can be batched](can_batch).
    ///
    /// # Errors
    /// When their conditions cannot be put together.
    pub(crate) fn together(mut rows: Vec<&'a mut Rows>) -> Result<RowGroup<'a>> {
        let members: Vec<Rc<Condition>> = rows.iter().map(|rows| rows.condition.clone()).collect();
        let stacker = rows[0].stacker.clone();
        let batched = match rows[0].batched.take() {
            Some(known) if known.is_of(&members) => known,
            _ => Batched { condition: Rc::new(Condition::stacked(&members, &stacker)?), members },
        };
        let condition = batched.condition.clone();
        rows[0].batched = Some(batched);
        Ok(RowGroup { rows, condition, stacker })
    }

    /// The rows of each request in the group.
    pub(crate) fn rows(&mut self) -> impl Iterator<Item = &mut Rows> {
        self.rows.iter_mut().map(|rows| &mut **rows)
    }

    /// Whether all of the rows run the deep core at this step.
    pub(crate) fn all_refresh(&self) -> bool {
        self.rows.iter().all(|rows| rows.decision.refreshes())
    }

    pub(crate) fn condition(&self) -> &Condition {
        &self.condition
    }

    /// The ControlNets that count at this step.
    pub(crate) fn nets(&self) -> impl Iterator<Item = &NetCondition> {
        let step = self.rows[0].step;
        self.condition.nets.iter().filter(move |net| net.steps.contains(&step))
    }

    /// Bytes of the attention scores of one layer of a transformer of `shape`, where they are a
    /// tensor.
    pub(crate) fn score_bytes(&self, shape: TransformerShape) -> usize {
        let rows: usize = self.rows.iter().map(|rows| rows.count()).sum();
        let [.., height, width] = self.rows[0].latents.shape()[..] else { return 0 };
        let tokens = height * width / shape.patch_size.pow(2);
        rows * shape.num_attention_heads * tokens.pow(2) * size_of::<f32>()
    }

    pub(crate) fn latents(&self) -> Result<Stacked<'_>> {
        self.stacker.stacked(self.rows.iter().map(|rows| &rows.latents))
    }

    pub(crate) fn timestep(&self) -> Result<Stacked<'_>> {
        self.stacker.stacked(self.rows.iter().map(|rows| &rows.timestep))
    }

    /// What the decoder gets for the deep core's output at this step.
    pub(crate) fn deep(&self) -> Result<Stacked<'_>> {
        self.stacker.stacked(self.rows.iter().map(|rows| rows.deep()))
    }

    /// The deep core's output that was kept `index` refreshes ago, of a group of one.
    pub(crate) fn kept(&self, index: usize) -> &Value {
        &self.rows[0].kept[index]
    }

    /// The rows that run the deep core at this step, and what it reads of `shallow`; `None` if no
    /// rows do.
    pub(crate) fn refreshing(
        &mut self,
        shallow: &Shallow,
    ) -> Result<Option<(RowGroup<'_>, Shallow)>> {
        let (mut chosen, mut conditions) = (Vec::new(), Vec::new());
        let (mut x, mut temb) = (Vec::new(), Vec::new());
        let mut start = 0;
        for rows in &mut self.rows {
            let range = start..start + rows.count();
            start = range.end;
            if rows.decision.refreshes() {
                x.push(self.stacker.rows(shallow.x(), range.clone())?);
                temb.push(self.stacker.rows(&shallow.temb, range)?);
                conditions.push(rows.condition.clone());
                chosen.push(&mut **rows);
            }
        }
        if chosen.is_empty() {
            return Ok(None);
        }
        let stacker = self.stacker.clone();
        let skips = vec![stacker.joined(&x)?];
        let temb = stacker.joined(&temb)?;
        let condition = Rc::new(Condition::stacked(&conditions, &stacker)?);
        let shallow = Shallow { skips, temb, controls: Controls::default() };
        Ok(Some((RowGroup { rows: chosen, condition, stacker }, shallow)))
    }

    /// Has the rows that [want](Rows::remembers) it remember what the deep core read, or would have
    /// read, of `shallow`.
    pub(crate) fn remember(&mut self, shallow: Shallow) -> Result<()> {
        if !self.rows.iter().any(|rows| rows.remembers()) {
            return Ok(());
        }
        let parts = self.split(shallow.into_x())?;
        let pairs = self.rows().zip(parts).filter(|(rows, _)| rows.remembers());
        pairs.for_each(|(rows, part)| rows.remember(part));
        Ok(())
    }

    /// `value`, of all rows of the group, as one value for each member.
    pub(crate) fn split(&self, value: Value) -> Result<Vec<Value>> {
        if self.rows.len() == 1 {
            return Ok(vec![value]);
        }
        let mut start = 0;
        let mut parts = Vec::with_capacity(self.rows.len());
        for rows in &self.rows {
            parts.push(self.stacker.rows(&value, start..start + rows.count())?);
            start += rows.count();
        }
        Ok(parts)
    }
}

impl Batched {
    fn is_of(&self, members: &[Rc<Condition>]) -> bool {
        self.members.len() == members.len()
            && self.members.iter().zip(members).all(|(a, b)| Rc::ptr_eq(a, b))
    }
}
