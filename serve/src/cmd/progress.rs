//! Progress bars on standard error: a mark for each step of a request, or a bar over many requests.

use std::time::{Duration, Instant};

use hydit::Step;
use hydit::cache::{Decision, Forecast};
use hydit_terminal::plain;
use indicatif::{ProgressBar, ProgressStyle};

/// The number of marks shown at once. Of a longer run the latest are shown.
const WIDTH: usize = 50;

/// The bar is drawn again after this time: at every step it would cost more than a small model's
/// sampler does.
const PAUSE: Duration = Duration::from_millis(100);

pub struct Progress {
    bar: ProgressBar,
    marks: Vec<char>,
    drawn: Instant,
}

/// The mark of a step: full where the deep core ran.
pub fn mark(decision: &Decision) -> char {
    match decision {
        Decision::Refresh(_) => '●',
        Decision::Reuse(Forecast::LAST) => '○',
        Decision::Reuse(_) => '◌',
    }
}

impl Progress {
    /// Starts a bar behind `label`. Where standard error is not a terminal, nothing is drawn.
    pub fn new(label: &str) -> Progress {
        let style = ProgressStyle::with_template("{prefix:9} {msg} {pos}/{len}  {elapsed} + {eta}");
        let bar = ProgressBar::no_length()
            .with_prefix(label.to_string())
            .with_style(style.expect("the template is valid"));
        Progress { bar, marks: Vec::new(), drawn: Instant::now() }
    }

    /// Adds the mark of a step that is done.
    pub fn step(&mut self, step: Step) {
        self.marks.push(mark(&step.decision));
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

    /// Ends the bar, which stays on the screen.
    pub fn finish(self) {
        self.bar.abandon();
    }
}

/// A bar over many requests. It is drawn between them only, so that no request pays for it.
pub struct Turns {
    bar: ProgressBar,
    begun: usize,
}

impl Turns {
    /// Starts a bar over `total` requests. Where standard error is not a terminal, nothing is
    /// drawn.
    pub fn new(total: usize) -> Turns {
        let style =
            ProgressStyle::with_template("[{bar:30}] {pos}/{len}  {elapsed} + {eta}  {msg}");
        let style = style.expect("the template is valid").progress_chars("=> ");
        Turns { bar: ProgressBar::new(total as u64).with_style(style), begun: 0 }
    }

    /// Starts a bar over `total` requests of which `done` are done already.
    pub fn from(done: usize, total: usize) -> Turns {
        Turns { begun: done, ..Turns::new(total) }
    }

    /// Tells that the next request begins, and `what` it is.
    pub fn next(&mut self, what: &str) {
        self.bar.set_position(self.begun as u64);
        self.bar.set_message(plain(what).into_owned());
        self.bar.tick();
        self.begun += 1;
    }

    /// Ends the bar and takes it off the screen.
    pub fn finish(self) {
        self.bar.finish_and_clear();
    }
}
