//! SentencePiece's `precompiled_charsmap`: the strings that a normaliser replaces, as a double array
//! of the Darts library, and what it puts in their place.
//!
//! The `tokenizers` crate follows the array without looking whether it leads out of itself, so it
//! is followed here first, along all ways that there are.

/// The longest replacement that is taken; the longest of Unicode's NFKC has 33 bytes.
const MAX_REPLACEMENT: usize = 256;

/// A table in which every way ends.
#[derive(Clone, Debug)]
pub struct Charsmap<'a> {
    units: &'a [[u8; 4]],
    /// Replacements, each up to a zero byte.
    replacements: &'a str,
}

impl Charsmap<'_> {
    /// Reads and checks a table.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(bytes: &[u8]) -> Result<Charsmap<'_>, &'static str> {
        let (size, rest) = bytes.split_first_chunk::<4>().ok_or("it is cut off")?;
        let (units, rest) =
            rest.split_at_checked(u32::from_le_bytes(*size) as usize).ok_or("it is cut off")?;
        let (units, []) = units.as_chunks::<4>() else {
            return Err("its size is no number of units");
        };
        let replacements = str::from_utf8(rest).map_err(|_| "its replacements are not UTF-8")?;
        let map = Charsmap { units, replacements };
        map.check()?;
        Ok(map)
    }

    /// What the shortest beginning of `text` that is in the table is replaced by.
    pub fn replacement(&self, text: &str) -> Option<&str> {
        let mut base = offset(self.unit(0)?);
        for byte in text.bytes() {
            let place = base ^ usize::from(byte);
            let unit = self.unit(place).filter(|unit| label(*unit) == u32::from(byte))?;
            base = place ^ offset(unit);
            if has_leaf(unit) {
                return self.entry(self.unit(base)?);
            }
        }
        None
    }

    fn unit(&self, place: usize) -> Option<u32> {
        self.units.get(place).map(|bytes| u32::from_le_bytes(*bytes))
    }

    /// The replacement that a leaf points to.
    fn entry(&self, leaf: u32) -> Option<&str> {
        let entry = self.replacements.get((leaf & !(1 << 31)) as usize..)?;
        Some(entry.split('\0').next().unwrap_or_default())
    }

    fn check(&self) -> Result<(), &'static str> {
        const OUT: &str = "it leads out of itself";
        let mut seen = vec![false; self.units.len()];
        let mut waiting = vec![offset(self.unit(0).ok_or("it is empty")?)];
        while let Some(base) = waiting.pop() {
            if std::mem::replace(seen.get_mut(base).ok_or(OUT)?, true) {
                continue;
            }
            for byte in 1..=255 {
                let place = base ^ byte;
                let unit = self.unit(place).ok_or(OUT)?;
                if label(unit) as usize != byte {
                    continue;
                }
                let next = place ^ offset(unit);
                if has_leaf(unit) {
                    let entry = self.unit(next).and_then(|leaf| self.entry(leaf)).ok_or(OUT)?;
                    if entry.len() > MAX_REPLACEMENT {
                        return Err("a replacement in it is too long");
                    }
                }
                waiting.push(next);
            }
        }
        Ok(())
    }
}

fn offset(unit: u32) -> usize {
    ((unit >> 10) << ((unit & (1 << 9)) >> 6)) as usize
}

/// The byte that leads to a unit. That of a leaf is none.
fn label(unit: u32) -> u32 {
    unit & (1 << 31 | 0xFF)
}

fn has_leaf(unit: u32) -> bool {
    unit >> 8 & 1 == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A table that replaces "a" by "xyz" and nothing else.
    fn table() -> Vec<u8> {
        let mut units = [0u32; 512];
        units[0] = 1 << 10; // the children of the root are in 1 ^ byte
        let a = 1 ^ usize::from(b'a');
        // Its own children, and its leaf, are from 256 on.
        units[a] = u32::from(b'a') | 1 << 8 | ((a as u32) ^ 256) << 10;
        units[256] = 1 << 31 | 1; // the replacement at 1
        let units: Vec<u8> = units.iter().flat_map(|unit| unit.to_le_bytes()).collect();
        [&(units.len() as u32).to_le_bytes()[..], &units, b"\0xyz\0"].concat()
    }

    #[test]
    fn a_table_is_followed_to_its_leaves() {
        let bytes = table();
        let map = Charsmap::parse(&bytes).expect("a good table");
        assert_eq!(map.replacement("abc"), Some("xyz"));
        assert_eq!(map.replacement("b"), None);
        assert_eq!(map.replacement(""), None);
    }

    #[test]
    fn tables_that_lead_out_of_themselves_are_refused() {
        type Damage = fn(&mut Vec<u8>);
        let cases: [(&str, Damage); 7] = [
            ("cut off", Vec::clear),
            ("cut off", |t| t.truncate(100)),
            ("cut off", |t| t[3] = 0xFF),
            ("no number of units", |t| t[0] = 1),
            ("not UTF-8", |t| *t.last_mut().expect("a byte") = 0xFF),
            ("leads out", |t| t[4..8].copy_from_slice(&(1u32 << 20).to_le_bytes())),
            ("leads out", |t| {
                let leaf = 4 + 4 * 256;
                t[leaf..leaf + 4].copy_from_slice(&(1u32 << 31 | 999).to_le_bytes());
            }),
        ];
        for (expected, damage) in cases {
            let mut bytes = table();
            damage(&mut bytes);
            let error = Charsmap::parse(&bytes).expect_err("a refusal");
            assert!(error.contains(expected), "{expected}: {error}");
        }
        let mut long = table();
        long.splice(long.len() - 1.., "y".repeat(300).bytes());
        assert!(Charsmap::parse(&long).expect_err("a refusal").contains("too long"));
    }
}
