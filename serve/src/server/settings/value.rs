//! How settings are written: `30s`, `256KiB`, `ort`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A length of time: a whole number and `ms`, `s`, `m`, `h` or `d`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Period(pub Duration);

/// A number of bytes: a whole number and `B`, `KiB`, `MiB` or `GiB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Size(pub u64);

const PERIODS: [(&str, u64); 5] =
    [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];
const SIZES: [(&str, u64); 4] = [("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];

impl FromStr for Period {
    type Err = String;

    fn from_str(text: &str) -> Result<Period, String> {
        let length = measure(text, &PERIODS);
        let length = length.ok_or_else(|| {
            format!("{text:?}; expected a number and ms, s, m, h or d, such as 30s")
        })?;
        Ok(Period(Duration::from_millis(length)))
    }
}

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Size, String> {
        let size = measure(text, &SIZES);
        let size = size.ok_or_else(|| {
            format!("{text:?}; expected a number and B, KiB, MiB or GiB, such as 256KiB")
        })?;
        Ok(Size(size))
    }
}

fn measure(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let end = text.find(|letter: char| !letter.is_ascii_digit())?;
    let (number, unit) = text.split_at(end);
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

/// Writes `value` in the largest unit that gives a whole number.
fn write(f: &mut fmt::Formatter<'_>, value: u64, units: &[(&str, u64)]) -> fmt::Result {
    let mut largest_first = units.iter().rev();
    let (unit, factor) = largest_first
        .find(|(_, factor)| value != 0 && value.is_multiple_of(*factor))
        .unwrap_or(&units[0]);
    write!(f, "{}{unit}", value / factor)
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write(f, self.0.as_millis() as u64, &PERIODS)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write(f, self.0, &SIZES)
    }
}

/// Lets serde read and write a type as the text that it is parsed from and displayed as.
macro_rules! as_text {
    ($($kind:ty),*) => {$(
        impl TryFrom<String> for $kind {
            type Error = String;

            fn try_from(text: String) -> Result<$kind, String> {
                text.parse()
            }
        }

        impl From<$kind> for String {
            fn from(value: $kind) -> String {
                value.to_string()
            }
        }
    )*};
}
pub(super) use as_text;

as_text!(Period, Size);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn periods_and_sizes_are_read_as_they_are_written() {
        for text in ["1ms", "1500ms", "30s", "10m", "23h", "3d", "0ms"] {
            assert_eq!(text.parse::<Period>().map(|period| period.to_string()), Ok(text.into()));
        }
        for text in ["0B", "100B", "256KiB", "1GiB"] {
            assert_eq!(text.parse::<Size>().map(|size| size.to_string()), Ok(text.into()));
        }
        assert_eq!("90s".parse(), Ok(Period(Duration::from_secs(90))));
        assert_eq!("1024KiB".parse(), Ok(Size(1 << 20)));
    }

    #[test]
    fn what_is_no_period_or_size_is_refused() {
        for text in ["", "30", "s", "-1s", "1.5s", "30 s", "30S", "99999999999999999999s", "１s"] {
            assert!(text.parse::<Period>().is_err(), "{text}");
        }
        for text in ["256", "KiB", "256kb", "18446744073709551615GiB"] {
            assert!(text.parse::<Size>().is_err(), "{text}");
        }
    }
}
