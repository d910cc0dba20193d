//! At which steps a picture is drawn away from the negative prompt.
//!
//! Follows Kynkäänniemi et al., "Applying Guidance in a Limited Interval" (arXiv 2404.07724), with
//! the interval given as diffusers' guiders have it: `start` and `stop` as shares of the steps.

use std::fmt;
use std::ops::Range;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The part of the steps that are guided. At the others the negative prompt is not used, and its
/// rows are not computed.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct GuidanceInterval {
    start: f64,
    stop: f64,
}

/// A text that is no interval.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no guidance interval: expected START:STOP, shares of the steps from 0 to 1, such as 0.2:0.8"
)]
pub struct ParseIntervalError(String);

impl GuidanceInterval {
    /// All steps.
    pub const WHOLE: GuidanceInterval = GuidanceInterval { start: 0.0, stop: 1.0 };

    /// Whether all steps are in it.
    pub fn is_whole(&self) -> bool {
        *self == GuidanceInterval::WHOLE
    }

    /// Those of `steps` steps that are in it.
    pub fn of(&self, steps: usize) -> Range<usize> {
        let step = |share: f64| (share * steps as f64) as usize;
        step(self.start)..step(self.stop)
    }
}

impl Default for GuidanceInterval {
    fn default() -> GuidanceInterval {
        GuidanceInterval::WHOLE
    }
}

impl fmt::Display for GuidanceInterval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.start, self.stop)
    }
}

impl FromStr for GuidanceInterval {
    type Err = ParseIntervalError;

    fn from_str(text: &str) -> Result<GuidanceInterval, ParseIntervalError> {
        let share = |text: &str| text.parse().ok().filter(|share| (0.0..=1.0).contains(share));
        let shares = text.split_once(':').and_then(|(a, b)| Some((share(a)?, share(b)?)));
        match shares {
            Some((start, stop)) if start < stop => Ok(GuidanceInterval { start, stop }),
            _ => Err(ParseIntervalError(text.chars().take(40).collect())),
        }
    }
}

impl From<GuidanceInterval> for String {
    fn from(interval: GuidanceInterval) -> String {
        interval.to_string()
    }
}

impl TryFrom<String> for GuidanceInterval {
    type Error = ParseIntervalError;

    fn try_from(text: String) -> Result<GuidanceInterval, ParseIntervalError> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_steps_are_those_of_diffusers_guiders() {
        // int(start * steps) <= step < int(stop * steps) in Python.
        for (text, steps, range) in [
            ("0:1", 25, 0..25),
            ("0.2:0.8", 25, 5..20),
            ("0.29:0.9", 100, 28..90),
            ("0.5:0.51", 10, 5..5),
            ("0:0.3", 1, 0..0),
        ] {
            let interval: GuidanceInterval = text.parse().expect(text);
            assert_eq!(interval.of(steps), range, "{text} of {steps}");
            assert_eq!(interval.to_string(), text);
        }
        for text in ["", "0.5", "0.8:0.2", "0.5:0.5", "-0.1:1", "0:1.1", "a:b", "NaN:1", "0:1:1"] {
            let refused = text.parse::<GuidanceInterval>().expect_err(text).to_string();
            assert!(refused.contains("expected START:STOP"), "{refused}");
        }
    }
}
