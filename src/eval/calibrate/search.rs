//! A local search over lists of refreshes: what dynamic programming found is moved about, and each
//! list that is tried is judged by the pictures it draws.
//!
//! Dynamic programming takes the harm of a step as if the steps before it had been exact. Where
//! refreshes are few they are not, and a neighbour of its list can draw nearer pictures. The moves
//! are those of BudCache: one refresh, a few steps earlier or later.

use std::collections::BTreeSet;

use super::schedules::{Cost, harm};
use crate::cache::Schedule;
use crate::error::Result;

/// How far a refresh is moved at most, in steps.
const FAR: usize = 3;

/// A list of refreshes with its forecasts; the smaller the error of its pictures, the better.
pub struct Judged {
    pub error: f64,
    pub schedule: Schedule,
}

/// The best list that is found from `best` by at most `tries` calls of `judge`, which is nothing
/// where a list cannot be drawn by. `cost` tells which neighbours are tried first.
pub fn search(
    mut best: Judged,
    cost: &Cost,
    tries: usize,
    judge: &mut dyn FnMut(&[usize]) -> Result<Option<Judged>>,
) -> Result<Judged> {
    let mut seen = BTreeSet::from([best.schedule.refresh.clone()]);
    for _ in 0..tries {
        let new =
            neighbours(&best.schedule.refresh, cost.len()).filter(|list| !seen.contains(list));
        let promising = new.min_by(|a, b| harm(cost, a).total_cmp(&harm(cost, b)));
        let Some(refresh) = promising else { break };
        seen.insert(refresh.clone());
        let new = judge(&refresh)?.filter(|new| new.error < best.error);
        best = new.unwrap_or(best);
    }
    Ok(best)
}

/// The lists in which one refresh, but for the first, lies up to [`FAR`] steps elsewhere between
/// its neighbours.
fn neighbours(refresh: &[usize], steps: usize) -> impl Iterator<Item = Vec<usize>> {
    (1..refresh.len()).flat_map(move |i| {
        let (before, now) = (refresh[i - 1], refresh[i]);
        let after = refresh.get(i + 1).copied().unwrap_or(steps);
        let room = (before + 1).max(now.saturating_sub(FAR))..after.min(now + FAR + 1);
        room.filter(move |&step| step != now).map(move |step| {
            let mut moved = refresh.to_vec();
            moved[i] = step;
            moved
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEPS: usize = 12;

    /// A cost by which every step matters alike, and reuse harms by its distance.
    fn cost() -> Cost {
        let distance = |i: usize| (0..STEPS).map(|j| j.saturating_sub(i) as f64).collect();
        (0..STEPS).map(distance).collect()
    }

    fn off(refresh: &[usize], goal: &[usize]) -> f64 {
        refresh.iter().zip(goal).map(|(a, b)| a.abs_diff(*b) as f64).sum()
    }

    fn judged(refresh: &[usize], goal: &[usize]) -> Judged {
        let schedule = Schedule { refresh: refresh.to_vec(), ..Schedule::default() };
        Judged { error: off(refresh, goal), schedule }
    }

    fn start(goal: &[usize]) -> Judged {
        judged(&[0, 4, 8], goal)
    }

    #[test]
    fn a_neighbour_that_draws_nearer_is_found_and_gone_on_from() {
        let goal = [0, 7, 11];
        let mut calls = 0;
        let found = search(start(&goal), &cost(), 40, &mut |refresh| {
            calls += 1;
            Ok(Some(judged(refresh, &goal)))
        });
        let found = found.expect("nothing fails");
        assert_eq!((found.schedule.refresh.as_slice(), found.error), (&goal[..], 0.0));
        assert!(calls <= 40);
    }

    #[test]
    fn nothing_is_tried_twice_nor_more_often_than_allowed() {
        let mut seen = BTreeSet::new();
        let found = search(start(&[0, 4, 8]), &cost(), 9, &mut |refresh| {
            assert!(seen.insert(refresh.to_vec()), "{refresh:?} again");
            assert!(refresh[0] == 0 && refresh.is_sorted_by(|a, b| a < b), "{refresh:?}");
            assert!(refresh.iter().all(|&step| step < STEPS));
            Ok(Some(judged(refresh, &[0, 4, 8])))
        });
        assert_eq!(found.expect("nothing fails").schedule.refresh, [0, 4, 8], "the best is kept");
        assert_eq!(seen.len(), 9);
        let none = search(start(&[0, 1, 2]), &cost(), 0, &mut |_| panic!("no tries"));
        assert_eq!(none.expect("nothing fails").schedule.refresh, [0, 4, 8]);
    }

    #[test]
    fn lists_that_cannot_be_drawn_by_are_passed_over() {
        let found = search(start(&[0, 5, 8]), &cost(), 99, &mut |refresh| {
            let hopeless = refresh[1] == 5;
            Ok((!hopeless).then(|| judged(refresh, &[0, 5, 8])))
        });
        assert_ne!(found.expect("nothing fails").schedule.refresh[1], 5);
    }
}
