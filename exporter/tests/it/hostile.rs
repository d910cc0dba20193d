//! Damaged checkpoints: each must get an error that names what is wrong, and nothing may stay where
//! the export would have gone.

use serde_json::Value;

use crate::checkpoint::{Place, message};

/// What is damaged, how, and what the message must say.
pub type Case = (&'static str, fn(&Place), &'static [&'static str]);

/// Damages a fresh checkpoint for each case; the export must fail and leave nothing.
pub fn check(cases: &[Case]) {
    for (what, damage, expected) in cases {
        let place = Place::new();
        damage(&place);
        let error = match place.export() {
            Ok(_) => panic!("{what}: exported"),
            Err(error) => message(&error),
        };
        for part in *expected {
            assert!(error.contains(part), "{what}: `{part}` is not in: {error}");
        }
        assert!(!error.contains('\n'), "{what}: more than a line: {error}");
        assert!(!place.out().exists(), "{what}: something stays");
    }
}

/// Sets a field of a JSON file.
pub fn edit(place: &Place, file: &str, pointer: &str, value: Value) {
    place.edit_json(file, |json| *json.pointer_mut(pointer).expect("a field") = value);
}
