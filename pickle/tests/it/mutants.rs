//! Files in which some bytes were changed at random: nothing may panic, hang, take much memory, or
//! give a tensor that is outside of its file.

use hydit_pickle::{Error, read};

use crate::build::{archive, file, one, tensor};
use crate::goldens::golden;
use crate::memory::{BOUND, measured};

/// A small generator of random numbers (SplitMix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }
}

/// Instructions of pickles, and the bytes that signatures and large numbers consist of.
const TELLING: &[u8] =
    b"}])(NRbQtsueacqhrjKMJGX.02\x80\x81\x85\x86\x87\x88\x89\x8a\x8c\x8d\x8f\x90\x93\
    \x94\x95PK\x01\x02\x03\x04\x05\x06\x07\x08\x00\xff\x7f";

/// Changes up to four places of `bytes` in `range`; the length may change if it `may_move`.
fn mutate(random: &mut Random, bytes: &mut Vec<u8>, range: std::ops::Range<usize>, may_move: bool) {
    for _ in 0..1 + random.below(4) {
        let at = range.start + random.below(range.len().min(bytes.len() - range.start));
        match random.below(if may_move { 6 } else { 4 }) {
            0 => bytes[at] = random.next() as u8,
            1 => bytes[at] ^= 1 << random.below(8),
            2 => bytes[at] = TELLING[random.below(TELLING.len())],
            3 => {
                let from = range.start + random.below(range.len().min(bytes.len() - range.start));
                let count = (1 + random.below(16)).min(bytes.len() - at.max(from));
                bytes.copy_within(from..from + count, at);
            }
            4 => bytes.insert(at, TELLING[random.below(TELLING.len())]),
            _ if bytes.len() > range.start + 1 => {
                bytes.remove(at);
            }
            _ => {}
        }
    }
}

/// Reads `count` mutants; returns how many could be read.
fn read_mutants(seed: u64, count: usize) -> usize {
    let built = file(&one(&tensor("0", 0, &[2, 3], &[3, 1])));
    let bases = [
        built,
        golden("plain.pt"),
        golden("views.pt"),
        golden("tensor.pt"),
        golden("torch-1.6.pt"),
    ];
    let pickles: Vec<Vec<u8>> = bases.iter().map(|base| pickle_of(base).to_vec()).collect();
    let mut random = Random(seed);
    let mut mutant = Vec::new();
    (0..count)
        .filter(|number| {
            let base = random.below(bases.len());
            match number % 3 {
                // Anything but most of the pickle: headers and the directory.
                0 => {
                    mutant.clone_from(&bases[base]);
                    let directory = pickles[base].len() + 64;
                    let range = if random.below(4) == 0 { 0..64 } else { directory..mutant.len() };
                    let may_move = random.below(8) == 0;
                    mutate(&mut random, &mut mutant, range, may_move);
                }
                // The pickle, in its place.
                1 => {
                    mutant.clone_from(&bases[base]);
                    let pickle = 64..64 + pickles[base].len();
                    mutate(&mut random, &mut mutant, pickle, false);
                }
                // The pickle, in a new archive.
                _ => {
                    let mut pickle = pickles[0].clone();
                    let length = pickle.len();
                    mutate(&mut random, &mut pickle, 0..length, true);
                    mutant = archive(&[("data.pkl", &pickle), ("data/0", &[0; 24])]);
                }
            }
            let (result, peak) = measured(|| check(&mutant));
            assert!(peak <= BOUND, "seed {seed}, mutant {number}: {peak} bytes were allocated");
            if let Err(error) = &result {
                let message = error.to_string();
                assert!(!message.contains('\n') && message.len() < 4000, "{message}");
            }
            result.is_ok()
        })
        .count()
}

/// The pickle of a file, which torch puts at byte 64.
fn pickle_of(file: &[u8]) -> &[u8] {
    let end = file.windows(4).position(|window| window == b"PK\x07\x08").expect("its end");
    &file[64..end]
}

fn check(file: &[u8]) -> Result<(), Error> {
    let value = read(file)?;
    for tensor in value.tensors()?.values() {
        assert!(tensor.storage.end <= file.len() as u64, "{tensor:?}");
        let size = tensor.dtype.size() as u64;
        for offset in tensor.offsets() {
            assert!(offset >= tensor.storage.start && offset + size <= tensor.storage.end);
        }
    }
    Ok(())
}

#[test]
fn a_million_mutants_do_no_harm() {
    const MUTANTS: usize = 1_000_000;
    let halves = [1, 2].map(|seed| std::thread::spawn(move || read_mutants(seed, MUTANTS / 2)));
    let good: usize = halves.map(|half| half.join().expect("no panic")).into_iter().sum();
    // Some change values only, most break something.
    assert!(good > MUTANTS / 100 && good < MUTANTS / 2, "{good} of {MUTANTS} could be read");
}
