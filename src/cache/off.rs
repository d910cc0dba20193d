//! `off`: every step runs the core.

use std::fmt;

use super::{Decision, Plan, PolicyError, Rule, Run};

#[derive(Debug)]
pub(super) struct Off;

/// `off`.
pub(super) fn parse(text: &str) -> Option<Off> {
    (text == "off").then_some(Off)
}

impl fmt::Display for Off {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("off")
    }
}

impl Rule for Off {
    fn plan(&self, run: &Run<'_>) -> Result<Plan, PolicyError> {
        Ok(Plan::Planned(vec![Decision::Refresh; run.timesteps.len()]))
    }

    fn is_off(&self) -> bool {
        true
    }
}
