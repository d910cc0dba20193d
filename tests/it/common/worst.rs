//! The largest error of each kind of output, printed at the end: shown by `cargo test --
//! --nocapture`.

use std::collections::BTreeMap;

/// The largest error by kind, and where it was.
pub struct Worst {
    title: String,
    errors: BTreeMap<String, (f64, String)>,
}

impl Worst {
    /// Nothing yet; `title` starts every line.
    pub fn new(title: impl Into<String>) -> Worst {
        Worst { title: title.into(), errors: BTreeMap::new() }
    }

    /// Another error of `kind`, found `at`.
    pub fn add(&mut self, kind: String, error: f64, at: &str) {
        let worst = self.errors.entry(kind).or_default();
        if error >= worst.0 {
            *worst = (error, at.to_string());
        }
    }
}

impl Drop for Worst {
    fn drop(&mut self) {
        for (kind, (error, at)) in &self.errors {
            println!("{}{kind:42} {error:.1e}  {at}", self.title);
        }
    }
}
