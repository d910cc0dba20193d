//! What a forecast adds for what the shallow encoder has seen since the core ran.
//!
//! At a step that reuses the core's output, the encoder's is fresh: how far it has moved since the
//! last refresh tells where the core would have moved. A calibration fits that relation for each
//! step as a matrix of low rank.

use std::sync::Arc;

use half::f16;
use serde::{Deserialize, Serialize};

use crate::util::{from_hex, hex};

/// The rank of all corrections: a higher one gains nothing that holds on other prompts.
pub const RANK: usize = 16;

/// `deep += (now - refreshed) · down · up`, with `now` and `refreshed` what the core would read at
/// this step, and what it read at the last refresh: `[rows, tokens, hidden]`, as is `deep`.
///
/// Its numbers are those that half precision has, as files keep them. A clone shares them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Correction {
    /// `down` `[hidden, RANK]`, and `up` `[RANK, hidden]`.
    numbers: Arc<[f32]>,
}

impl Correction {
    /// Of `down` `[hidden, RANK]` and `up` `[RANK, hidden]`, row by row, rounded; `None` unless they
    /// are of one width, and finite.
    pub fn new(down: &[f32], up: &[f32]) -> Option<Correction> {
        let fit = down.len() == up.len() && !up.is_empty() && up.len().is_multiple_of(RANK);
        let numbers = down.iter().chain(up).map(|&number| f16::from_f32(number).to_f32());
        let numbers: Arc<[f32]> = numbers.collect();
        (fit && numbers.iter().all(|number| number.is_finite())).then_some(Correction { numbers })
    }

    /// Channels of a token.
    pub fn hidden(&self) -> usize {
        self.numbers.len() / 2 / RANK
    }

    /// `[hidden, RANK]`
    pub fn down(&self) -> &[f32] {
        &self.numbers[..self.numbers.len() / 2]
    }

    /// `[RANK, hidden]`
    pub fn up(&self) -> &[f32] {
        &self.numbers[self.numbers.len() / 2..]
    }
}

/// `numbers` in half precision, little-endian.
pub(super) fn halves(numbers: &[f32]) -> Vec<u8> {
    numbers.iter().flat_map(|&number| f16::from_f32(number).to_le_bytes()).collect()
}

/// Hexadecimal, for files between two halves of a calibration.
impl From<Correction> for String {
    fn from(correction: Correction) -> String {
        hex(&halves(&correction.numbers))
    }
}

impl TryFrom<String> for Correction {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Correction, &'static str> {
        let bytes = from_hex(&text).ok_or("a correction that is not hexadecimal")?;
        let pairs = bytes.as_chunks::<2>().0.iter();
        let numbers: Vec<f32> = pairs.map(|pair| f16::from_le_bytes(*pair).to_f32()).collect();
        let (down, up) = numbers.split_at(numbers.len() / 2);
        Correction::new(down, up).ok_or("a correction of a wrong length, or not finite")
    }
}
