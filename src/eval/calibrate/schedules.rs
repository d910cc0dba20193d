//! The best schedule for each number of core runs, by dynamic programming (DPCache, arXiv
//! 2602.22654, in its two dimensional form).

/// What reusing costs: `cost[i][j]` is the harm to the finished picture of using at step j > i the
/// core's output of step i.
pub type Cost = Vec<Vec<f64>>;

/// For each number of core runs from 1 to the number of steps, the steps that run the core so that
/// the sum of the costs of all others is least. Step 0 is always one of them.
pub fn schedules(cost: &Cost) -> Vec<Vec<usize>> {
    let steps = cost.len();
    // harm[p][r]: of the steps p + 1 .. r, all reusing step p.
    let harm: Vec<Vec<f64>> = (0..steps)
        .map(|p| {
            let mut sum = 0.0;
            let mut stretch = vec![0.0; steps + 1];
            for j in p + 1..steps {
                sum += cost[p][j];
                stretch[j + 1] = sum;
            }
            stretch
        })
        .collect();
    // Of the steps before r, a run at r being the next: the least harm, and the run before r.
    let mut best: Vec<Option<(f64, usize)>> = vec![None; steps + 1];
    best[0] = Some((0.0, 0));
    let mut before = Vec::new();
    let mut found = Vec::new();
    for runs in 1..=steps {
        let next: Vec<Option<(f64, usize)>> = (0..=steps)
            .map(|r| {
                let from = |p: usize| best[p].map(|(sum, _)| (sum + harm[p][r], p));
                (0..r).filter_map(from).min_by(|a, b| a.0.total_cmp(&b.0))
            })
            .collect();
        before.push(next.clone());
        let mut schedule = Vec::with_capacity(runs);
        let mut end = steps;
        for layer in before.iter().rev() {
            end = layer[end].expect("there are at least as many steps as runs").1;
            schedule.push(end);
        }
        schedule.reverse();
        found.push(schedule);
        best = next;
    }
    found
}

/// The sum of the costs of all steps but those of `schedule`, each reusing the one before it.
///
/// # Panics
/// When step 0 is not one of them.
pub fn harm(cost: &Cost, schedule: &[usize]) -> f64 {
    let last = |j: usize| schedule.iter().copied().filter(|&i| i <= j).max().expect("step 0");
    (0..cost.len()).map(|j| cost[last(j)][j]).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All schedules of `runs` runs among `steps` steps, tried one by one.
    fn least(cost: &Cost, runs: usize) -> f64 {
        let steps = cost.len();
        (0..1usize << steps)
            .filter(|set| set & 1 == 1 && set.count_ones() as usize == runs)
            .map(|set| harm(cost, &(0..steps).filter(|i| set >> i & 1 == 1).collect::<Vec<_>>()))
            .fold(f64::INFINITY, f64::min)
    }

    #[test]
    fn no_other_schedule_is_better() {
        let steps = 9;
        let mut state = 7u64;
        let mut random = || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 40) as f64
        };
        for _ in 0..20 {
            let row = |i: usize, random: &mut dyn FnMut() -> f64| -> Vec<f64> {
                (0..steps).map(|j| if j > i { random() } else { 0.0 }).collect()
            };
            let cost: Cost = (0..steps).map(|i| row(i, &mut random)).collect();
            for (runs, schedule) in (1..).zip(schedules(&cost)) {
                assert_eq!((schedule[0], schedule.len()), (0, runs));
                assert!(schedule.is_sorted_by(|a, b| a < b), "{schedule:?}");
                assert_eq!(harm(&cost, &schedule), least(&cost, runs), "{schedule:?}");
            }
        }
    }
}
