//! Rows of a call: what is kept of them between the steps of the denoising loop.

use std::collections::VecDeque;
use std::rc::Rc;

use super::batch::Batched;
use super::conditioner::Condition;
use super::device_math::change_on_host;
use super::stack::Stacker;
use crate::cache::{Compared, Decision, Forecast};
use crate::runtime::Value;

/// Rows of one request that share a call, and what is kept of them between steps.
pub struct Rows {
    pub(crate) condition: Rc<Condition>,
    /// `[rows, channels, h, w]`, written before each step.
    pub(crate) latents: Value,
    /// `[rows]`, likewise.
    pub(crate) timestep: Value,
    /// Index of the step under way.
    pub(crate) step: usize,
    /// What the step under way does.
    pub(crate) decision: Decision,
    /// How many outputs of the deep core the plan needs.
    pub(crate) keeps: usize,
    /// The outputs of the deep core, `[rows, tokens, hidden]`, the latest first.
    pub(crate) kept: VecDeque<Value>,
    /// What the decoder gets at the step under way, if not the deep core's latest output.
    pub(crate) forecast: Option<Value>,
    /// What the plan has the shallow encoder's output compared with.
    pub(crate) compares: Compared,
    /// That: what the deep core read, or would have read, at the step before or the last refresh.
    pub(crate) before: Option<Value>,
    /// What it read at the refresh before the last, if the plan compares with that.
    pub(crate) earlier: Option<Value>,
    /// What puts these rows together with others.
    pub(crate) stacker: Rc<Stacker>,
    /// The condition of the batch whose first rows these are.
    pub(crate) batched: Option<Batched>,
    /// Whether the drift of the outputs is asked for, for which one more is kept.
    pub(super) tracked: bool,
    /// How far the latest output is from the one before it.
    pub(super) drift: Option<f32>,
}

impl Rows {
    pub(crate) fn count(&self) -> usize {
        self.condition.rows()
    }

    /// What the decoder gets for the deep core's output at the step under way.
    pub(crate) fn deep(&self) -> &Value {
        self.forecast.as_ref().unwrap_or(&self.kept[0])
    }

    /// The forecast that the step under way needs, if it is not the latest output as it is.
    pub(crate) fn wants_forecast(&self) -> Option<&Forecast> {
        Some(self.decision.forecast()).filter(|forecast| **forecast != Forecast::LAST)
    }

    /// Whether what the deep core reads, or would read, at the step under way is to be remembered.
    pub(crate) fn remembers(&self) -> bool {
        match self.compares {
            Compared::Nothing => false,
            Compared::StepBefore => true,
            Compared::LastRefresh | Compared::LastTwoRefreshes => self.decision.refreshes(),
        }
    }

    /// Remembers `read`, what the deep core reads, or would read, at the step under way.
    pub(crate) fn remember(&mut self, read: Value) {
        let before = self.before.replace(read);
        if self.compares == Compared::LastTwoRefreshes {
            self.earlier = before;
        }
    }

    /// Before the deep core runs: frees what the plan does not need any more, so that its memory
    /// serves the new output.
    pub(crate) fn make_room(&mut self) {
        if !self.tracked {
            self.kept.truncate(self.keeps - 1);
        }
    }

    /// Keeps an output of the deep core beside those before it.
    pub(crate) fn keep(&mut self, deep: Value) {
        let latest = self.kept.front().filter(|_| self.tracked);
        self.drift = latest.and_then(|before| change_on_host(&deep, before));
        self.kept.truncate(self.keeps - 1);
        self.kept.push_front(deep);
    }
}
