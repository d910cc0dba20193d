//! A LoRA and its weight, as people write them.

use std::str::FromStr;

/// The largest weight, up or down. Weights that draw well are near 1; one that is far larger is a
/// slip, and draws noise.
const LARGEST: f32 = 100.0;

/// A file or a name, and the weight of its LoRA: `style:0.8`. The weight is what follows the last
/// colon, and 1 where no number does.
#[derive(Clone, Debug, PartialEq)]
pub struct Weighted {
    /// The path or the name.
    pub name: String,
    /// The factor of the LoRA: 1 is its own scale, 0 leaves the model as it is.
    pub weight: f32,
}

impl Weighted {
    /// A LoRA with a checked weight.
    ///
    /// # Errors
    /// The weight is no number between -100 and 100.
    pub fn new(name: impl Into<String>, weight: f32) -> Result<Weighted, String> {
        let name = name.into();
        if !(-LARGEST..=LARGEST).contains(&weight) {
            return Err(format!("weight {weight}: expected a number from -{LARGEST} to {LARGEST}"));
        }
        if name.is_empty() {
            return Err("no name before the weight".to_string());
        }
        Ok(Weighted { name, weight })
    }
}

impl FromStr for Weighted {
    type Err = String;

    fn from_str(text: &str) -> Result<Weighted, String> {
        match text.rsplit_once(':').map(|(name, weight)| (name, weight.parse())) {
            Some((name, Ok(weight))) => Weighted::new(name, weight),
            _ => Weighted::new(text, 1.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_weight_follows_the_last_colon() {
        for (text, name, weight) in [
            ("style", "style", 1.0),
            ("style:0.8", "style", 0.8),
            ("a:b/c.safetensors:-2", "a:b/c.safetensors", -2.0),
            ("a:b.safetensors", "a:b.safetensors", 1.0),
            ("style:", "style:", 1.0),
            ("style:0", "style", 0.0),
        ] {
            assert_eq!(text.parse(), Ok(Weighted { name: name.to_string(), weight }), "{text}");
        }
        for text in ["style:nan", "style:inf", "style:101", "style:-1e9", ":0.5", ""] {
            assert!(text.parse::<Weighted>().is_err(), "{text}");
        }
    }
}
