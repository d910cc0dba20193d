//! A job under way, as those who watch it see it.

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::body::Bytes;
use hydit::Step;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::record::{JobRecord, StepKind};

/// Maximum bytes of previews that are kept. When there are more, the oldest go; the latest always
/// stays.
const PREVIEWS: usize = 1 << 20;

/// A job that has not ended, or only just: its state, and the log of what happened to it.
pub struct JobFeed {
    /// Tells this run of the job from those in other processes.
    pub epoch: u64,
    state: Mutex<State>,
    changed: watch::Sender<()>,
}

struct State {
    record: JobRecord,
    running: bool,
    plan: Vec<StepKind>,
    over: bool,
    /// Number of the next entry.
    next: u64,
    entries: VecDeque<FeedEntry>,
    /// Bytes of the previews among the entries.
    preview_bytes: usize,
}

/// Something that happened to a job. Entries are numbered from 1; only dropped previews leave gaps.
#[derive(Clone, Debug)]
pub struct FeedEntry {
    /// Number of the entry.
    pub number: u64,
    /// What happened.
    pub event: Arc<JobEvent>,
    /// The same as readers get it, written by the first of them.
    pub text: Arc<OnceLock<Bytes>>,
}

/// What follows an entry.
#[derive(Clone, Debug)]
pub enum Next {
    /// This entry.
    Entry(FeedEntry),
    /// Nothing so far.
    NotYet,
    /// Nothing any more.
    Over,
}

/// What can happen to a job before its end.
#[derive(Debug, PartialEq, Eq)]
pub enum JobEvent {
    /// A worker has begun it, perhaps not for the first time.
    Started,
    /// A step is done.
    Step {
        /// Number of steps done.
        step: usize,
        /// What was done with the core.
        kind: StepKind,
        /// How often the core has run.
        refreshes: usize,
        /// What the step took.
        took: Duration,
    },
    /// What the latents look like.
    Preview {
        /// Number of steps done.
        step: usize,
        /// PNG files, one for each image.
        images: Vec<Vec<u8>>,
    },
}

/// A job as it is now.
#[derive(Clone, Debug, PartialEq)]
pub struct JobSnapshot {
    /// What is or will be stored.
    pub record: JobRecord,
    /// Whether a worker is drawing it.
    pub running: bool,
    /// Number of tasks before it, where that is known.
    pub position: Option<usize>,
    /// What was done at the steps so far.
    pub plan: Vec<StepKind>,
}

impl JobFeed {
    /// The feed of a job that waits.
    pub fn new(record: JobRecord, epoch: u64) -> JobFeed {
        let state = State {
            record,
            running: false,
            plan: Vec::new(),
            over: false,
            next: 1,
            entries: VecDeque::new(),
            preview_bytes: 0,
        };
        JobFeed { epoch, state: Mutex::new(state), changed: watch::Sender::new(()) }
    }

    /// The job as it is now, without its position in the queue.
    pub fn snapshot(&self) -> JobSnapshot {
        let State { record, running, plan, .. } = &*self.state.lock();
        JobSnapshot {
            record: record.clone(),
            running: *running,
            position: None,
            plan: plan.clone(),
        }
    }

    /// What follows the entry `number`, or is first after it.
    pub fn after(&self, number: u64) -> Next {
        let state = self.state.lock();
        let next = state.entries.partition_point(|entry| entry.number <= number);
        match state.entries.get(next) {
            Some(entry) => Next::Entry(entry.clone()),
            None if state.over => Next::Over,
            None => Next::NotYet,
        }
    }

    /// A receiver that is notified of every change from now on.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Waits until nothing more will happen.
    pub async fn over(&self) {
        let mut changes = self.changes();
        while !self.state.lock().over {
            changes.changed().await.expect("this value holds the sender");
        }
    }

    /// A worker has begun the job at `now`.
    pub fn start(&self, now: u64) {
        self.change(|state| {
            state.record.started = Some(now);
            state.running = true;
            state.log(JobEvent::Started);
        });
    }

    /// A step is done, which took so long.
    pub fn step(&self, step: Step, took: Duration) {
        self.change(|state| {
            let kind = StepKind::from(&step.decision);
            state.plan.push(kind);
            let refreshes = state.plan.iter().filter(|kind| **kind == StepKind::Refresh).count();
            state.log(JobEvent::Step { step: step.index + 1, kind, refreshes, took });
        });
    }

    /// Previews of the latents after `step` steps were made.
    pub fn preview(&self, step: usize, images: Vec<Vec<u8>>) {
        self.change(|state| {
            state.preview_bytes += size(&images);
            state.log(JobEvent::Preview { step, images });
            state.drop_previews();
        });
    }

    /// The job waits again.
    pub fn wait_again(&self) {
        self.change(|state| {
            state.running = false;
            state.plan.clear();
        });
    }

    /// The job has ended, and `record` is stored.
    pub fn end(&self, record: JobRecord) {
        self.change(|state| {
            state.record = record;
            state.running = false;
            state.over = true;
        });
    }

    /// The job is left to the next process.
    pub fn leave(&self) {
        self.change(|state| {
            state.running = false;
            state.over = true;
        });
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.state.lock();
        if !state.over {
            change(&mut state);
        }
        drop(state);
        self.changed.send_replace(());
    }
}

impl State {
    fn log(&mut self, event: JobEvent) {
        let (event, text) = (Arc::new(event), Arc::default());
        self.entries.push_back(FeedEntry { number: self.next, event, text });
        self.next += 1;
    }

    fn drop_previews(&mut self) {
        let latest = self.next - 1;
        while self.preview_bytes > PREVIEWS {
            let oldest = self.entries.iter().position(|entry| {
                entry.number < latest && matches!(*entry.event, JobEvent::Preview { .. })
            });
            let dropped = oldest.and_then(|index| self.entries.remove(index));
            match dropped.as_ref().map(|entry| &*entry.event) {
                Some(JobEvent::Preview { images, .. }) => self.preview_bytes -= size(images),
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
    use hydit::cache::{Decision, Forecast};

    use super::super::store::tests::record;
    use super::*;

    const TOOK: Duration = Duration::from_millis(3);

    fn feed() -> JobFeed {
        JobFeed::new(record("ann"), 7)
    }

    fn since(feed: &JobFeed, mut number: u64) -> Vec<FeedEntry> {
        let mut entries = Vec::new();
        while let Next::Entry(entry) = feed.after(number) {
            number = entry.number;
            entries.push(entry);
        }
        entries
    }

    #[test]
    fn steps_carry_what_was_done_and_how_often_the_core_ran() {
        let feed = feed();
        feed.start(5);
        let plan = [
            Decision::REFRESH,
            Decision::Reuse(Forecast::LAST),
            Decision::REFRESH,
            Decision::Reuse(Forecast::new(&[2.0, -1.0]).expect("it sums to 1")),
        ];
        for (index, decision) in plan.into_iter().enumerate() {
            feed.step(Step { index, total: 4, decision }, TOOK);
        }
        let kinds = [StepKind::Refresh, StepKind::Reuse, StepKind::Refresh, StepKind::Forecast];
        let step = |step: usize, refreshes| JobEvent::Step {
            step,
            kind: kinds[step - 1],
            refreshes,
            took: TOOK,
        };
        let entries = since(&feed, 1);
        let events: Vec<&JobEvent> = entries.iter().map(|entry| &*entry.event).collect();
        assert_eq!(events, [&step(1, 1), &step(2, 1), &step(3, 2), &step(4, 2)]);
        assert_eq!(feed.snapshot().plan, kinds);
        assert!(matches!(feed.after(5), Next::NotYet));
    }

    #[test]
    fn a_job_that_starts_again_goes_on_counting_its_entries() {
        let feed = feed();
        feed.start(5);
        feed.step(Step { index: 0, total: 2, decision: Decision::REFRESH }, TOOK);
        feed.wait_again();
        assert!(!feed.snapshot().running && feed.snapshot().plan.is_empty());
        feed.start(6);
        let numbers: Vec<u64> = since(&feed, 0).iter().map(|entry| entry.number).collect();
        assert_eq!(numbers, [1, 2, 3]);
        assert_eq!(feed.snapshot().record.started, Some(6));
    }

    #[test]
    fn the_log_does_not_grow_with_previews() {
        let feed = feed();
        for step in 1..=100 {
            feed.step(Step { index: step - 1, total: 100, decision: Decision::REFRESH }, TOOK);
            feed.preview(step, vec![vec![0; 50_000]; 2]);
        }
        let entries = since(&feed, 0);
        let previews: Vec<usize> = entries
            .iter()
            .filter_map(|entry| match &*entry.event {
                JobEvent::Preview { step, .. } => Some(*step),
                _ => None,
            })
            .collect();
        assert_eq!(previews, (91..=100).collect::<Vec<_>>());
        assert_eq!(entries.len() - previews.len(), 100, "every step is there");
        feed.preview(100, vec![vec![0; 2 * PREVIEWS]]);
        assert_eq!(since(&feed, 200).len(), 1, "one is kept however large it is");
    }

    #[tokio::test]
    async fn nothing_happens_to_a_job_that_is_over() {
        let feed = feed();
        let ended = JobRecord { finished: Some(9), ..feed.snapshot().record };
        feed.end(ended.clone());
        feed.over().await;
        feed.start(10);
        feed.end(record("bob"));
        let expected = JobSnapshot { record: ended, running: false, position: None, plan: vec![] };
        assert_eq!(feed.snapshot(), expected);
        assert!(matches!(feed.after(0), Next::Over));
    }
}
