//! `+align`: between refreshes the line through the core's last two outputs is continued as far as
//! the shallow encoder's output, which is computed at every step, has moved along its own line. The
//! trajectory alignment of DiCache (arXiv 2508.17356), made as strong as the two lines agree.

use super::{Decision, Forecast};

/// `plan`, its reuses aligned from the second refresh on.
pub(super) fn align(plan: Vec<Decision>) -> Vec<Decision> {
    let mut refreshes = 0;
    let aligned = plan.into_iter().map(|decision| {
        refreshes += usize::from(decision.refreshes());
        match decision {
            Decision::Reuse(Forecast::LAST) if refreshes > 1 => Decision::Reuse(Forecast::ALIGNED),
            other => other, // a schedule's own
        }
    });
    aligned.collect()
}
