//! What the texts of policies are made of.

/// A whole number in digits only: `str::parse` alone would take a sign.
pub(super) fn number(text: &str) -> Option<u32> {
    if text.bytes().all(|b| b.is_ascii_digit()) { text.parse().ok() } else { None }
}
