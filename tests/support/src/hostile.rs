//! Hostile input: what anybody may put where a file or a number is expected.

use serde_json::{Value, json};

/// Values that no count, size or index has.
pub fn not_a_count() -> [Value; 10] {
    [
        json!(0),
        json!(-1),
        json!(u64::MAX),
        json!(1u64 << 40),
        json!(0.5),
        json!(1e300),
        json!("x"),
        json!(null),
        json!([]),
        json!({}),
    ]
}

/// Files in place of `good`, which is not empty: cut off, overwritten, or of another kind.
pub fn not_the_file(good: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let half = good.len() / 2;
    let replaced = |byte: u8| {
        let mut bytes = good.to_vec();
        bytes[..half.min(64)].fill(byte);
        bytes
    };
    vec![
        ("nothing", Vec::new()),
        ("a byte", good[..1].to_vec()),
        ("half", good[..half].to_vec()),
        ("all but a byte", good[..good.len() - 1].to_vec()),
        ("zeros at the front", replaced(0)),
        ("ones at the front", replaced(0xFF)),
        ("zeros", vec![0; 4096]),
        ("ones", vec![0xFF; 4096]),
        ("a web page", b"<!DOCTYPE html><html><body>404 Not Found</body></html>\n".to_vec()),
        (
            "a pointer of Git LFS",
            b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n".to_vec(),
        ),
        ("a zip file", b"PK\x03\x04\x14\0\0\0\x08\0".to_vec()),
        ("deep brackets", vec![b'['; 100_000]),
        ("deep braces", b"{\"a\":".repeat(50_000)),
        ("an anchor bomb", yaml_bomb()),
        ("a line of 1 MiB", vec![b'x'; 1 << 20]),
    ]
}

/// YAML that is ten to the ninth lists of one letter, if aliases are followed.
fn yaml_bomb() -> Vec<u8> {
    let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for i in 1..10 {
        let aliases = vec![format!("*a{}", i - 1); 10].join(", ");
        text += &format!("a{i}: &a{i} [{aliases}]\n");
    }
    text.into_bytes()
}

/// Checks that `message` is one line that names what it is about, and has `parts` in it.
///
/// # Panics
/// If not.
#[track_caller]
pub fn check_message(case: &str, message: &str, parts: &[&str]) {
    for part in parts {
        assert!(message.contains(part), "{case}: `{part}` is not in: {message}");
    }
    assert!(!message.contains('\n'), "{case}: more than a line: {message}");
    assert!(message.len() < 1500, "{case}: {} bytes: {message}", message.len());
}
