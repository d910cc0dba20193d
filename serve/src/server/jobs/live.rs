//! A job under way, as those who watch it see it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::record::{Mark, Record};
use hydit::pipeline::denoise::Step;

/// Bytes of previews that are kept; of more, the latest. One is kept however large it is.
const PREVIEWS: usize = 1 << 20;

/// A job that has not ended, or has only just.
pub struct Live {
    /// Tells this life of the job from those in other processes.
    pub life: u64,
    state: Mutex<State>,
    changed: watch::Sender<()>,
}

struct State {
    record: Record,
    running: bool,
    marks: Vec<Mark>,
    over: bool,
    /// Number of the next entry.
    next: u64,
    entries: VecDeque<Entry>,
    previews: usize,
}

/// Something that happened to a job, numbered from 1 without gaps, but for previews that were let go.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Its place.
    pub number: u64,
    /// What it was.
    pub what: Arc<What>,
}

/// What comes after an entry.
#[derive(Clone, Debug)]
pub enum Next {
    /// This one.
    Entry(Entry),
    /// Nothing so far.
    NotYet,
    /// Nothing any more.
    Over,
}

/// What can happen to a job before its end.
#[derive(Debug, PartialEq, Eq)]
pub enum What {
    /// A worker has begun it, perhaps not for the first time.
    Started,
    /// A step is done.
    Step {
        /// How many steps are.
        step: usize,
        /// What was done with the core.
        mark: Mark,
        /// How often the core has run.
        core_runs: usize,
    },
    /// What the latents look like.
    Preview {
        /// How many steps are done.
        step: usize,
        /// PNG files, one for each picture.
        images: Vec<Vec<u8>>,
    },
}

/// A job as it is now.
#[derive(Clone, Debug, PartialEq)]
pub struct Status {
    /// What is or will be stored.
    pub record: Record,
    /// Whether a worker is at it.
    pub running: bool,
    /// How many orders are before it, where that is known.
    pub position: Option<usize>,
    /// What was done at the steps so far.
    pub marks: Vec<Mark>,
}

impl Live {
    /// A job that waits.
    pub fn new(record: Record, life: u64) -> Live {
        let state = State {
            record,
            running: false,
            marks: Vec::new(),
            over: false,
            next: 1,
            entries: VecDeque::new(),
            previews: 0,
        };
        Live { life, state: Mutex::new(state), changed: watch::Sender::new(()) }
    }

    /// As it is now; `position` is looked up elsewhere.
    pub fn status(&self) -> Status {
        let state = self.lock();
        let State { record, running, marks, .. } = &*state;
        Status { record: record.clone(), running: *running, position: None, marks: marks.clone() }
    }

    /// What happened first after the entry `number`.
    pub fn after(&self, number: u64) -> Next {
        let state = self.lock();
        let next = state.entries.partition_point(|entry| entry.number <= number);
        match state.entries.get(next) {
            Some(entry) => Next::Entry(entry.clone()),
            None if state.over => Next::Over,
            None => Next::NotYet,
        }
    }

    /// Hears of every change from now on.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Comes back when nothing more will happen.
    pub async fn over(&self) {
        let mut changes = self.changes();
        while !self.lock().over {
            changes.changed().await.expect("this value holds the sender");
        }
    }

    /// A worker has begun it.
    pub fn start(&self, now: u64) {
        self.change(|state| {
            state.record.started = Some(now);
            state.running = true;
            state.log(What::Started);
        });
    }

    /// A step is done.
    pub fn step(&self, step: Step) {
        self.change(|state| {
            let mark = Mark::from(step.decision);
            state.marks.push(mark);
            let core_runs = state.marks.iter().filter(|mark| **mark == Mark::Refresh).count();
            state.log(What::Step { step: step.index + 1, mark, core_runs });
        });
    }

    /// Small pictures are there.
    pub fn preview(&self, step: usize, images: Vec<Vec<u8>>) {
        self.change(|state| {
            state.previews += size(&images);
            state.log(What::Preview { step, images });
            state.let_go();
        });
    }

    /// It waits again.
    pub fn wait_again(&self) {
        self.change(|state| {
            state.running = false;
            state.marks.clear();
        });
    }

    /// It has ended; what `record` says is stored.
    pub fn end(&self, record: Record) {
        self.change(|state| {
            state.record = record;
            state.running = false;
            state.over = true;
        });
    }

    /// This process will not draw it; the next may.
    pub fn leave(&self) {
        self.change(|state| {
            state.running = false;
            state.over = true;
        });
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.lock();
        if !state.over {
            change(&mut state);
        }
        drop(state);
        self.changed.send_replace(());
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn log(&mut self, what: What) {
        self.entries.push_back(Entry { number: self.next, what: Arc::new(what) });
        self.next += 1;
    }

    fn let_go(&mut self) {
        let latest = self.next - 1;
        while self.previews > PREVIEWS {
            let oldest = self.entries.iter().position(|entry| {
                entry.number < latest && matches!(*entry.what, What::Preview { .. })
            });
            match oldest.and_then(|place| self.entries.remove(place)).as_ref().map(|e| &*e.what) {
                Some(What::Preview { images, .. }) => self.previews -= size(images),
                _ => return,
            }
        }
    }
}

fn size(images: &[Vec<u8>]) -> usize {
    images.iter().map(Vec::len).sum()
}

#[cfg(test)]
mod tests {
    use super::super::store::tests::record;
    use super::*;
    use hydit::cache::{Decision, Forecast};

    fn live() -> Live {
        Live::new(record("ann"), 7)
    }

    fn since(live: &Live, mut number: u64) -> Vec<Entry> {
        let mut entries = Vec::new();
        while let Next::Entry(entry) = live.after(number) {
            number = entry.number;
            entries.push(entry);
        }
        entries
    }

    #[test]
    fn steps_carry_what_was_done_and_how_often_the_core_ran() {
        let live = live();
        live.start(5);
        let plan = [
            Decision::Refresh,
            Decision::Reuse(Forecast::LAST),
            Decision::Refresh,
            Decision::Reuse(Forecast::new(&[2.0, -1.0]).expect("it sums to 1")),
        ];
        for (index, decision) in plan.into_iter().enumerate() {
            live.step(Step { index, total: 4, decision });
        }
        let marks = [Mark::Refresh, Mark::Reuse, Mark::Refresh, Mark::Forecast];
        let step = |step: usize, core_runs| What::Step { step, mark: marks[step - 1], core_runs };
        let entries = since(&live, 1);
        let whats: Vec<&What> = entries.iter().map(|entry| &*entry.what).collect();
        assert_eq!(whats, [&step(1, 1), &step(2, 1), &step(3, 2), &step(4, 2)]);
        assert_eq!(live.status().marks, marks);
        assert!(matches!(live.after(5), Next::NotYet));
    }

    #[test]
    fn a_job_that_starts_again_goes_on_counting_its_entries() {
        let live = live();
        live.start(5);
        live.step(Step { index: 0, total: 2, decision: Decision::Refresh });
        live.wait_again();
        assert!(!live.status().running && live.status().marks.is_empty());
        live.start(6);
        let numbers: Vec<u64> = since(&live, 0).iter().map(|entry| entry.number).collect();
        assert_eq!(numbers, [1, 2, 3]);
        assert_eq!(live.status().record.started, Some(6));
    }

    #[test]
    fn the_log_does_not_grow_with_previews() {
        let live = live();
        for step in 1..=100 {
            live.step(Step { index: step - 1, total: 100, decision: Decision::Refresh });
            live.preview(step, vec![vec![0; 50_000]; 2]);
        }
        let entries = since(&live, 0);
        let previews: Vec<usize> = entries
            .iter()
            .filter_map(|entry| match &*entry.what {
                What::Preview { step, .. } => Some(*step),
                _ => None,
            })
            .collect();
        assert_eq!(previews, (91..=100).collect::<Vec<_>>());
        assert_eq!(entries.len() - previews.len(), 100, "every step is there");
        live.preview(100, vec![vec![0; 2 * PREVIEWS]]);
        assert_eq!(since(&live, 200).len(), 1, "one is kept however large it is");
    }

    #[tokio::test]
    async fn nothing_happens_to_a_job_that_is_over() {
        let live = live();
        let ended = Record { finished: Some(9), ..live.status().record };
        live.end(ended.clone());
        live.over().await;
        live.start(10);
        live.end(record("bob"));
        assert_eq!(
            live.status(),
            Status { record: ended, running: false, position: None, marks: vec![] }
        );
        assert!(matches!(live.after(0), Next::Over));
    }
}
