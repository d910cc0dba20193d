//! What the decoder gets for the core's output.

use super::Correction;

/// Most outputs of the core that are kept.
pub const KEPT: usize = hydit_graphs::single::KEPT;

/// How far the weights of a forecast may be from summing to 1.
const TOLERANCE: f32 = 1e-3;

/// A weighted sum of the core's last outputs, and what is added for what the shallow encoder sees
/// at this step. The weights sum to 1, so that outputs that are equal are forecast to stay.
#[derive(Clone, Debug, PartialEq)]
pub struct Forecast {
    /// Of the latest output first; those not used are 0.
    weights: [f32; KEPT],
    correction: Option<Correction>,
    /// Whether the weights of the last two outputs are found at the step itself.
    aligned: bool,
}

impl Forecast {
    /// The latest output as it is.
    pub const LAST: Forecast =
        Forecast { weights: [1.0, 0.0, 0.0], correction: None, aligned: false };

    /// The last two outputs, with weights that are found at the step: from how the output of the
    /// shallow encoder has moved since the refreshes.
    pub const ALIGNED: Forecast = Forecast { aligned: true, ..Forecast::LAST };

    /// `None` unless there are 1 to [`KEPT`] finite weights, the latest output's first, that sum
    /// to 1.
    pub fn new(weights: &[f32]) -> Option<Forecast> {
        let fit = (1..=KEPT).contains(&weights.len())
            && (weights.iter().sum::<f32>() - 1.0).abs() <= TOLERANCE;
        if !fit {
            return None;
        }
        // A latest output that is all but whole is whole.
        if weights[1..].iter().all(|weight| *weight == 0.0) {
            return Some(Forecast::LAST);
        }
        let mut all = [0.0; KEPT];
        all[..weights.len()].copy_from_slice(weights);
        Some(Forecast { weights: all, ..Forecast::LAST })
    }

    /// The same with `correction` added.
    pub fn corrected(self, correction: Option<Correction>) -> Forecast {
        Forecast { correction, ..self }
    }

    /// The weights of the outputs it needs, the latest first: at least one.
    pub fn weights(&self) -> &[f32] {
        let used = self.weights.iter().rposition(|&w| w != 0.0).unwrap_or(0);
        &self.weights[..=used]
    }

    /// How many of the core's outputs it is made of.
    pub fn needs(&self) -> usize {
        if self.aligned { 2 } else { self.weights().len() }
    }

    /// What is added to the weighted sum.
    pub fn correction(&self) -> Option<&Correction> {
        self.correction.as_ref()
    }
}
