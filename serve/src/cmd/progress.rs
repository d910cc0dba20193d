//! Progress bars: of a request, one mark a step, full where the deep core ran; of many requests.

use std::time::{Duration, Instant};

use hydit::Step;
use hydit::cache::{Decision, Forecast};
use indicatif::{ProgressBar, ProgressStyle};

/// Marks shown at once; of a longer run the latest.
const WIDTH: usize = 50;

/// Time between two drawings: drawing at every step would cost more than a small model's sampler.
const PAUSE: Duration = Duration::from_millis(100);

pub struct Progress {
    bar: ProgressBar,
    marks: Vec<char>,
    drawn: Instant,
}

/// The mark of a step.
pub fn mark(decision: Decision) -> char {
    match decision {
        Decision::Refresh => '●',
        Decision::Reuse(Forecast::LAST) => '○',
        Decision::Reuse(_) => '◌',
    }
}

impl Progress {
    /// A bar on standard error; nothing where that is no terminal.
    pub fn new(label: &str) -> Progress {
        let style = ProgressStyle::with_template("{prefix:9} {msg} {pos}/{len}  {elapsed} + {eta}");
        let bar = ProgressBar::no_length()
            .with_prefix(label.to_string())
            .with_style(style.expect("the template is valid"));
        Progress { bar, marks: Vec::new(), drawn: Instant::now() }
    }

    /// One step is done.
    pub fn step(&mut self, step: Step) {
        self.marks.push(mark(step.decision));
        if self.drawn.elapsed() < PAUSE && step.index + 1 < step.total {
            return;
        }
        self.drawn = Instant::now();
        let first = self.marks.len().saturating_sub(WIDTH);
        let done: String = self.marks[first..].iter().collect();
        let open = step.total.min(WIDTH) - (self.marks.len() - first);
        self.bar.set_length(step.total as u64);
        self.bar.set_message(format!("{done}{}", "·".repeat(open)));
        self.bar.set_position(step.index as u64 + 1);
    }

    /// Leaves the finished bar on the screen.
    pub fn finish(self) {
        self.bar.abandon();
    }
}

/// The bar of many requests. It is drawn between them only, so that it costs none of them time.
pub struct Turns {
    bar: ProgressBar,
    begun: usize,
}

impl Turns {
    /// A bar of `total` requests on standard error; nothing where that is no terminal.
    pub fn new(total: usize) -> Turns {
        let style =
            ProgressStyle::with_template("[{bar:30}] {pos}/{len}  {elapsed} + {eta}  {msg}");
        let style = style.expect("the template is valid").progress_chars("=> ");
        Turns { bar: ProgressBar::new(total as u64).with_style(style), begun: 0 }
    }

    /// A bar of which a part is done already.
    pub fn from(done: usize, total: usize) -> Turns {
        Turns { begun: done, ..Turns::new(total) }
    }

    /// The next request begins.
    pub fn next(&mut self, what: &str) {
        self.bar.set_position(self.begun as u64);
        self.bar.set_message(what.to_string());
        self.bar.tick();
        self.begun += 1;
    }

    /// Takes the bar off the screen.
    pub fn finish(self) {
        self.bar.finish_and_clear();
    }
}
