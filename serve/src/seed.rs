//! Seeds as people write them: a number, or -1 for one at random.

use uuid::Uuid;

/// A seed at random, small enough for any program to read.
pub fn random() -> u64 {
    u64::from(Uuid::new_v4().as_u128() as u32)
}

/// Reads the value of a flag.
///
/// # Errors
/// When it is no seed.
pub fn parse(text: &str) -> Result<u64, String> {
    match text {
        "-1" => Ok(random()),
        number => number.parse().map_err(|_| {
            format!("expected a whole number from 0 to {}, or -1 for one at random", u64::MAX)
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn minus_one_is_a_seed_at_random_and_no_other_negative_number_is_one() {
        assert_ne!(parse("-1"), parse("-1"));
        assert_eq!(parse("18446744073709551615"), Ok(u64::MAX));
        for text in ["-2", "-0", "1.0", "", "18446744073709551616", "random"] {
            let refused = parse(text).expect_err(text);
            assert!(refused.contains("or -1"), "{refused}");
        }
    }
}
