//! `hydit::rope` against diffusers and Tencent; the reference file is made by `tests/reference/make_rope.py`.

use hydit::rope::{RopeReading, tables};
use safetensors::SafeTensors;

const REFERENCE: &[u8] = include_bytes!("reference/rope.safetensors");
const HEAD_DIM: usize = 88;

/// `make_rope.py::rows`.
fn rows(h: usize, w: usize) -> Vec<usize> {
    let pick = |n: usize| {
        let mut picked: Vec<_> = (0..5).map(|i| i * (n - 1) / 4).collect();
        picked.dedup();
        picked
    };
    let first_row = pick(w).into_iter().map(|x| (0, x));
    let last_column = pick(h).into_iter().map(|y| (y, w - 1));
    let diagonal = (0..5).map(|i| (i * (h - 1) / 4, i * (w - 1) / 4));
    first_row.chain(last_column).chain(diagonal).map(|(y, x)| y * w + x).collect()
}

// Positions, frequencies and angles are float32 in the reference and have its bits here; the cosine is then the float32
// nearest to the true one, torch's (Sleef) is within one unit in the last place of it: 6e-8 below 1. Anything wrong in
// a position shows at 1e-3 and more.
#[test]
fn tables_are_those_of_the_references() {
    let reference = SafeTensors::deserialize(REFERENCE).expect("the reference file");
    assert_eq!(reference.len(), 14 * 2 * 2);
    for (name, tensor) in reference.tensors() {
        let parts: Vec<_> = name.split('_').collect();
        let [reading, grid, which] = parts[..] else { panic!("{name}") };
        let reading = match reading {
            "diffusers" => RopeReading::Diffusers,
            "tencent" => RopeReading::Tencent,
            other => panic!("{other}"),
        };
        let (h, w) = grid.split_once('x').expect("h x w");
        let (h, w) = (h.parse().expect("h"), w.parse().expect("w"));
        let (cos, sin) = tables(h, w, HEAD_DIM, reading);
        assert_eq!((cos.len(), sin.len()), (h * w * HEAD_DIM, h * w * HEAD_DIM), "{name}");
        let table = if which == "cos" { cos } else { sin };
        for pair in table.as_chunks().0 {
            let [a, b]: [f32; 2] = *pair;
            assert_eq!(a, b, "{name}");
        }
        let ours = rows(h, w).into_iter().flat_map(|row| {
            let token = &table[row * HEAD_DIM..][..HEAD_DIM];
            token.iter().copied().step_by(4).collect::<Vec<_>>()
        });
        let (theirs, _) = tensor.data().as_chunks();
        assert_eq!(ours.clone().count(), theirs.len(), "{name}");
        for (a, b) in ours.zip(theirs) {
            worst = worst.max((a - f32::from_le_bytes(*b)).abs());
        }
    }
    println!("{worst:e}");
    panic!()
}
