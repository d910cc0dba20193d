//! Symbolic sizes: a dimension is a whole number times powers of a few symbols.
//!
//! Every size in our graphs has this form (`2*grid_height`, `grid_height*grid_width`, ...), so
//! shape rules are exact integer arithmetic and the cost of a graph is a polynomial.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Mul;
use std::str::FromStr;

/// The free sizes of our graphs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Symbol {
    /// Rows of the batch; with guidance two per image.
    Batch,
    /// Rows of the image-token grid: latent height / patch size.
    GridHeight,
    /// Columns of the image-token grid.
    GridWidth,
    /// Height of the latents, where the graph knows no patches (VAE).
    Height,
    /// Width of the latents, where the graph knows no patches (VAE).
    Width,
}

const SYMBOLS: [(Symbol, &str); 5] = [
    (Symbol::Batch, "batch"),
    (Symbol::GridHeight, "grid_height"),
    (Symbol::GridWidth, "grid_width"),
    (Symbol::Height, "height"),
    (Symbol::Width, "width"),
];

/// `factor * batch^a * grid_height^b * ...`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Dim {
    powers: [u8; SYMBOLS.len()],
    factor: u64,
}

impl Dim {
    /// The size 1.
    pub const ONE: Dim = Dim { powers: [0; SYMBOLS.len()], factor: 1 };

    /// The number, if no symbol is in it.
    pub fn known(self) -> Option<usize> {
        (self.powers == [0; SYMBOLS.len()]).then_some(self.factor as usize)
    }

    /// `self / by`, if that is a size.
    pub fn checked_div(self, by: Dim) -> Option<Dim> {
        let mut powers = self.powers;
        for (power, by) in powers.iter_mut().zip(by.powers) {
            *power = power.checked_sub(by)?;
        }
        let exact = by.factor != 0 && self.factor.is_multiple_of(by.factor);
        exact.then(|| Dim { powers, factor: self.factor / by.factor })
    }

    /// The value at given sizes.
    pub fn at(self, sizes: &Sizes) -> u64 {
        let values = sizes.values();
        self.powers
            .iter()
            .zip(values)
            .fold(self.factor, |product, (&power, value)| product * value.pow(u32::from(power)))
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
        let mut powers = self.powers;
        for (power, other) in powers.iter_mut().zip(other.powers) {
            *power += other;
        }
        Dim { powers, factor: self.factor * other.factor }
    }
}

impl fmt::Display for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut factors = Vec::new();
        if self.factor != 1 || self.known().is_some() {
            factors.push(self.factor.to_string());
        }
        for ((_, name), power) in SYMBOLS.iter().zip(self.powers) {
            factors.extend(std::iter::repeat_n((*name).to_string(), usize::from(power)));
        }
        f.write_str(&factors.join("*"))
    }
}

impl FromStr for Dim {
    type Err = String;

    fn from_str(text: &str) -> Result<Dim, String> {
        text.split('*').try_fold(Dim::ONE, |dim, factor| {
            let symbol = SYMBOLS.iter().find(|(_, name)| *name == factor);
            match (symbol, factor.parse::<usize>()) {
                (Some((symbol, _)), _) => Ok(dim * Dim::from(*symbol)),
                (None, Ok(n)) => Ok(dim * Dim::from(n)),
                _ => Err(format!("`{text}` is not a size: `{factor}` is no number and no symbol")),
            }
        })
    }
}

/// Values of the symbols.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Sizes {
    /// Rows of the batch.
    pub batch: usize,
    /// Rows of the token grid.
    pub grid_height: usize,
    /// Columns of the token grid.
    pub grid_width: usize,
    /// Latent height.
    pub height: usize,
    /// Latent width.
    pub width: usize,
}

impl Sizes {
    fn values(&self) -> [u64; SYMBOLS.len()] {
        [self.batch, self.grid_height, self.grid_width, self.height, self.width].map(|v| v as u64)
    }
}

/// A sum of [`Dim`]s: what a graph costs at any size.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cost(BTreeMap<[u8; SYMBOLS.len()], u64>);

impl Cost {
    /// Adds `term`.
    pub fn add(&mut self, term: Dim) {
        *self.0.entry(term.powers).or_default() += term.factor;
    }

    /// The value at given sizes.
    pub fn at(&self, sizes: &Sizes) -> u64 {
        self.terms().map(|term| term.at(sizes)).sum()
    }

    /// The terms.
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

/// Numbers stay numbers in YAML, everything else is its text.
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
                u64::try_from(n).map_err(E::custom).map(|n| Dim { factor: n, ..Dim::ONE })
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
        let tokens = Dim::from(Symbol::GridHeight) * Dim::from(Symbol::GridWidth);
        for dim in [Dim::ONE, 1408.into(), Symbol::Batch.into(), tokens, tokens * 4.into()] {
            assert_eq!(dim.to_string().parse(), Ok(dim));
        }
        assert_eq!((tokens * 4.into()).to_string(), "4*grid_height*grid_width");
        assert!("grid_depth".parse::<Dim>().is_err());
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
        let sizes = Sizes { batch: 2, grid_height: 3, grid_width: 5, height: 0, width: 0 };
        let tokens = Dim::from(Symbol::GridHeight) * Dim::from(Symbol::GridWidth);
        let cost = Cost::from_iter([tokens * 7.into(), tokens * 3.into(), Symbol::Batch.into()]);
        assert_eq!(cost.at(&sizes), 15 * 10 + 2);
        assert_eq!(cost.terms().count(), 2);
    }
}
