//! Symbolic sizes: a dimension is a whole number times powers of a few symbols.
//!
//! Every size in our graphs has this form (`2*grid_height`, `grid_height*grid_width`, ...), so
//! shape rules are exact integer arithmetic, and the cost of a graph is a polynomial.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Mul;
use std::str::FromStr;

use strum::{Display, EnumCount, EnumString, VariantArray};

use crate::names::UnknownName;

/// A size that is free in a finished graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Display, EnumCount, EnumString, VariantArray)]
#[strum(serialize_all = "snake_case")]
#[strum(parse_err_ty = UnknownName, parse_err_fn = UnknownName::among::<Symbol>)]
pub enum Symbol {
    /// Rows of the batch: two per image with guidance.
    Batch,
    /// Rows of the grid of image tokens: latent height / patch size.
    GridHeight,
    /// Columns of the grid of image tokens: latent width / patch size.
    GridWidth,
    /// Height of the latents in a graph without patches (the image decoder).
    Height,
    /// Width of the latents in a graph without patches (the image decoder).
    Width,
    /// Rank of the LoRAs in a graph with slots for them, or of a correction.
    Rank,
    /// Tokens of a control: as many as the image has, or 1 where there is no control.
    ControlTokens,
    /// Number of tokens of an image prompt; 1 without one.
    ImageTokens,
}

/// The size of an axis: `factor * batch^a * grid_height^b * ...`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Dim {
    powers: [u8; Symbol::COUNT],
    factor: u64,
}

impl Dim {
    /// The size 1.
    pub const ONE: Dim = Dim { powers: [0; Symbol::COUNT], factor: 1 };

    /// The number of image tokens: `grid_height*grid_width`.
    pub fn tokens() -> Dim {
        Dim::from(Symbol::GridHeight) * Dim::from(Symbol::GridWidth)
    }

    /// The number that this size is, or `None` if it is symbolic.
    pub fn known(self) -> Option<usize> {
        (self.powers == [0; Symbol::COUNT]).then_some(self.factor as usize)
    }

    /// Divides by another size; `None` unless the division is exact.
    pub fn checked_div(self, by: Dim) -> Option<Dim> {
        let mut powers = self.powers;
        for (power, by) in powers.iter_mut().zip(by.powers) {
            *power = power.checked_sub(by)?;
        }
        let exact = by.factor != 0 && self.factor.is_multiple_of(by.factor);
        exact.then(|| Dim { powers, factor: self.factor / by.factor })
    }

    /// The product with another size; `None` if it is beyond what a size can be.
    pub fn checked_mul(self, other: Dim) -> Option<Dim> {
        let mut powers = self.powers;
        for (power, other) in powers.iter_mut().zip(other.powers) {
            *power = power.checked_add(other)?;
        }
        Some(Dim { powers, factor: self.factor.checked_mul(other.factor)? })
    }

    /// The number that this size is when the symbols have the values `sizes`, or the largest there
    /// is.
    pub fn at(self, sizes: &Sizes) -> u64 {
        let values = sizes.values();
        self.powers.iter().zip(values).fold(self.factor, |product, (&power, value)| {
            product.saturating_mul(value.saturating_pow(u32::from(power)))
        })
    }

    /// The symbol that this size is a multiple of, and its value where the size is `number`; `None`
    /// for a size of no or of several symbols.
    pub fn solve(self, number: usize) -> Option<(Symbol, usize)> {
        let mut present = Symbol::VARIANTS.iter().zip(self.powers).filter(|(_, power)| *power > 0);
        let ((&symbol, 1), None) = (present.next()?, present.next()) else { return None };
        let factor = usize::try_from(self.factor).ok()?;
        Some((symbol, number.checked_div(factor)?))
    }
}

impl From<usize> for Dim {
    fn from(n: usize) -> Dim {
        Dim { factor: n as u64, ..Dim::ONE }
    }
}

impl From<Symbol> for Dim {
    fn from(symbol: Symbol) -> Dim {
        let mut dim = Dim::ONE;
        dim.powers[symbol as usize] = 1;
        dim
    }
}

impl Mul for Dim {
    type Output = Dim;

    fn mul(self, other: Dim) -> Dim {
        self.checked_mul(other).expect("sizes of a graph are far below 2^64")
    }
}

impl fmt::Display for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut factors = Vec::new();
        if self.factor != 1 || self.known().is_some() {
            factors.push(self.factor.to_string());
        }
        for (symbol, power) in Symbol::VARIANTS.iter().zip(self.powers) {
            factors.extend(std::iter::repeat_n(symbol.to_string(), usize::from(power)));
        }
        f.write_str(&factors.join("*"))
    }
}

impl FromStr for Dim {
    type Err = ParseDimError;

    fn from_str(text: &str) -> Result<Dim, ParseDimError> {
        let error = |reason: String| {
            let text = text.chars().take(60).collect();
            ParseDimError { text, reason }
        };
        text.split('*').try_fold(Dim::ONE, |dim, factor| {
            let factor: Dim = match factor.parse::<usize>() {
                Ok(number) => number.into(),
                Err(_) => {
                    let symbol = factor.parse::<Symbol>();
                    symbol.map_err(|unknown| error(unknown.to_string()))?.into()
                }
            };
            dim.checked_mul(factor).ok_or_else(|| error("it is too large".to_string()))
        })
    }
}

/// A text that is not a product of numbers and [`Symbol`]s.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a size: {reason}")]
pub struct ParseDimError {
    text: String,
    reason: String,
}

/// The values of all symbols, to evaluate a [`Dim`] or a [`Cost`] with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Sizes {
    /// Value of [`Symbol::Batch`].
    pub batch: usize,
    /// Value of [`Symbol::GridHeight`].
    pub grid_height: usize,
    /// Value of [`Symbol::GridWidth`].
    pub grid_width: usize,
    /// Value of [`Symbol::Height`].
    pub height: usize,
    /// Value of [`Symbol::Width`].
    pub width: usize,
    /// Value of [`Symbol::Rank`].
    pub rank: usize,
    /// Value of [`Symbol::ControlTokens`].
    pub control_tokens: usize,
    /// Value of [`Symbol::ImageTokens`].
    pub image_tokens: usize,
}

impl Sizes {
    fn values(&self) -> [u64; Symbol::COUNT] {
        let Sizes { batch, grid_height, grid_width, height, width, rank, .. } = *self;
        let Sizes { control_tokens, image_tokens, .. } = *self;
        [batch, grid_height, grid_width, height, width, rank, control_tokens, image_tokens]
            .map(|v| v as u64)
    }
}

/// A sum of [`Dim`]s: the floating-point operations of a graph as a polynomial of its free sizes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cost(BTreeMap<[u8; Symbol::COUNT], u64>);

impl Cost {
    /// Adds a term.
    pub fn add(&mut self, term: Dim) {
        let factor = self.0.entry(term.powers).or_default();
        *factor = factor.saturating_add(term.factor);
    }

    /// The number of operations when the symbols have the values `sizes`, or the largest there is.
    pub fn at(&self, sizes: &Sizes) -> u64 {
        self.terms().map(|term| term.at(sizes)).fold(0, u64::saturating_add)
    }

    /// The terms, no two of which have the same powers.
    pub fn terms(&self) -> impl Iterator<Item = Dim> {
        self.0.iter().map(|(&powers, &factor)| Dim { powers, factor })
    }
}

impl FromIterator<Dim> for Cost {
    fn from_iter<I: IntoIterator<Item = Dim>>(terms: I) -> Cost {
        let mut cost = Cost::default();
        terms.into_iter().for_each(|term| cost.add(term));
        cost
    }
}

/// A known size is a number in YAML; any other is its text.
impl serde::Serialize for Dim {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.known() {
            Some(n) => serializer.serialize_u64(n as u64),
            None => serializer.collect_str(self),
        }
    }
}

impl<'de> serde::Deserialize<'de> for Dim {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Dim, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = Dim;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a size: a number or a product of symbols")
            }
            fn visit_u64<E>(self, n: u64) -> Result<Dim, E> {
                Ok(Dim { factor: n, ..Dim::ONE })
            }
            fn visit_i64<E: serde::de::Error>(self, n: i64) -> Result<Dim, E> {
                u64::try_from(n).map_err(E::custom).and_then(|n| self.visit_u64(n))
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Dim, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

impl serde::Serialize for Cost {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.terms())
    }
}

impl<'de> serde::Deserialize<'de> for Cost {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Cost, D::Error> {
        Ok(Vec::<Dim>::deserialize(deserializer)?.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_survives_its_text() {
        let tokens = Dim::tokens();
        for dim in [Dim::ONE, 1408.into(), Symbol::Batch.into(), tokens, tokens * 4.into()] {
            assert_eq!(dim.to_string().parse(), Ok(dim));
        }
        assert_eq!((tokens * 4.into()).to_string(), "4*grid_height*grid_width");
        assert!("grid_depth".parse::<Dim>().is_err());
    }

    #[test]
    fn a_size_beyond_all_numbers_is_refused_and_a_cost_is_the_largest() {
        for text in ["9223372036854775808*2", &"batch*".repeat(256)] {
            let error = text.trim_end_matches('*').parse::<Dim>().expect_err("a refusal");
            assert!(error.to_string().ends_with("is not a size: it is too large"), "{error}");
        }
        let sizes = Sizes {
            batch: 64,
            grid_height: 4,
            grid_width: 4,
            height: 8,
            width: 8,
            ..Sizes::default()
        };
        let half: Dim = "9223372036854775808".parse().expect("a size");
        assert_eq!(Cost::from_iter([half, half, half]).at(&sizes), u64::MAX);
        let many: Dim = "batch*batch*batch*batch*batch*batch*batch*batch*batch*batch*batch"
            .parse()
            .expect("a size");
        assert_eq!(Cost::from_iter([many, half]).at(&sizes), u64::MAX);
    }

    #[test]
    fn a_size_of_one_symbol_is_solved() {
        let height = Dim::from(Symbol::GridHeight) * 2.into();
        assert_eq!(height.solve(8), Some((Symbol::GridHeight, 4)));
        assert_eq!((Dim::tokens().solve(8), Dim::from(8).solve(8)), (None, None));
        assert_eq!("0*batch".parse::<Dim>().expect("a size").solve(8), None);
    }

    #[test]
    fn division_is_exact_or_refused() {
        let height = Dim::from(Symbol::GridHeight) * 2.into();
        assert_eq!(height.checked_div(2.into()), Some(Symbol::GridHeight.into()));
        assert_eq!(height.checked_div(3.into()), None);
        assert_eq!(height.checked_div(Symbol::Batch.into()), None);
    }

    #[test]
    fn cost_is_the_sum_of_its_terms() {
        let sizes = Sizes { batch: 2, grid_height: 3, grid_width: 5, ..Sizes::default() };
        let tokens = Dim::tokens();
        let cost = Cost::from_iter([tokens * 7.into(), tokens * 3.into(), Symbol::Batch.into()]);
        assert_eq!(cost.at(&sizes), 15 * 10 + 2);
        assert_eq!(cost.terms().count(), 2);
    }
}
