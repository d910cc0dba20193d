//! Every target over its corpus, and over mutations of it: a short run of what `scripts/fuzz` does
//! for long. A fault that was found stays in the corpus.

use std::fs;
use std::path::Path;

/// Mutations of each file of a corpus, and fewer of what a connection takes time for.
const MUTATIONS: u64 = 400;
const FEW: u64 = 50;

fn run(name: &str, target: fn(&[u8]), mutations: u64) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
    let mut files: Vec<_> = fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.expect("a file").path())
        .collect();
    files.sort();
    assert!(files.len() >= 3, "{}: few seeds", folder.display());
    for path in files {
        let bytes = fs::read(&path).expect("a file");
        target(&bytes);
        for seed in 0..mutations {
            target(&mutated(&bytes, seed));
        }
    }
}

/// `bytes` with one to four changes: a bit, a byte, a piece cut, doubled or moved, an end cut off.
fn mutated(bytes: &[u8], seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ bytes.len() as u64;
    let mut below = |end: usize| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % end.max(1)
    };
    let mut bytes = bytes.to_vec();
    for _ in 0..=below(4) {
        if bytes.is_empty() {
            break;
        }
        let at = below(bytes.len());
        let end = (at + 1 + below(16)).min(bytes.len());
        match below(6) {
            0 => bytes[at] ^= 1 << below(8),
            1 => bytes[at] = [0, 0x7f, 0xff, b'0', b'9', b'-', b'"', b'\n'][below(8)],
            2 => drop(bytes.drain(at..end)),
            3 => {
                let piece = bytes[at..end].to_vec();
                let to = below(bytes.len());
                bytes.splice(to..to, piece);
            }
            4 => bytes.truncate(at),
            _ => {
                let other = below(bytes.len());
                bytes.swap(at, other);
            }
        }
    }
    bytes
}

macro_rules! corpora {
    ($($name:ident $mutations:ident),*) => {$(
        #[test]
        fn $name() {
            run(stringify!($name), hydit_fuzz::$name, $mutations);
        }
    )*

    #[test]
    fn every_target_is_run() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("targets");
        let files = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("a file").path());
        let mut names: Vec<_> = files.map(|file| file.with_extension("")).collect();
        names.sort();
        let names: Vec<_> = names.iter().filter_map(|name| name.file_name()?.to_str()).collect();
        let mut run = [$(stringify!($name)),*];
        run.sort_unstable();
        assert_eq!(names, run);
    }
    };
}

corpora!(
    safetensors MUTATIONS, lora MUTATIONS, pickle MUTATIONS, config MUTATIONS, tokenizer MUTATIONS, spiece MUTATIONS, manifest MUTATIONS,
    schedule MUTATIONS, png MUTATIONS, http FEW, oip FEW
);
