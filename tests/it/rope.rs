//! `hydit::pipeline::rope` against diffusers and Tencent; the reference file is made by
//! `tests/reference/make_rope.py`.

use std::f64::consts::TAU;

use hydit::pipeline::rope::tables;
use hydit_graphs::variant::RopeConvention;
use safetensors::SafeTensors;

const REFERENCE: &[u8] = include_bytes!("../reference/rope.safetensors");
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

// Positions, frequencies and angles are float32 in the reference and have its bits here; the cosine
// is then the float32 nearest to the true one, torch's (Sleef) is within one unit in the last place
// of it: 6e-8 below 1. Anything wrong in a position shows at 1e-3 and more.
#[test]
fn tables_are_those_of_the_references() {
    let reference = SafeTensors::deserialize(REFERENCE).expect("the reference file");
    assert_eq!(reference.len(), 14 * 2 * 2);
    for (name, tensor) in reference.tensors() {
        let parts: Vec<_> = name.split('_').collect();
        let [convention, grid, which] = parts[..] else { panic!("{name}") };
        let convention = match convention {
            "diffusers" => RopeConvention::Diffusers,
            "tencent" => RopeConvention::Tencent,
            other => panic!("{other}"),
        };
        let (h, w) = grid.split_once('x').expect("h x w");
        let (h, w) = (h.parse().expect("h"), w.parse().expect("w"));
        let (cos, sin) = tables(h, w, HEAD_DIM, convention);
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
            let b = f32::from_le_bytes(*b);
            assert!((a - b).abs() < 1e-7, "{name}: {a} is not {b}");
        }
    }
}

/// The row and the column position of a token, from its angles of frequency 1 (so modulo a turn).
fn place(h: usize, w: usize, token: usize, convention: RopeConvention) -> (f64, f64) {
    let (cos, sin) = tables(h, w, HEAD_DIM, convention);
    let angle = |i: usize| {
        let i = token * HEAD_DIM + i;
        f64::from(sin[i]).atan2(f64::from(cos[i])).rem_euclid(TAU)
    };
    (angle(HEAD_DIM / 2), angle(0))
}

// A position below a turn comes back from its angle to about 1e-7.
#[test]
fn an_offset_of_six_and_a_half_is_six() {
    for convention in [RopeConvention::Diffusers, RopeConvention::Tencent] {
        let (row, column) = place(80, 48, 0, convention);
        assert!(row < 1e-6 && (column - 6.0).abs() < 1e-6, "{convention:?}: {row}, {column}");
        let (row, column) = place(48, 80, 0, convention);
        assert!((row - 6.0).abs() < 1e-6 && column < 1e-6, "{convention:?}: {row}, {column}");
    }
}

#[test]
fn the_readings_part_by_an_eighth_of_a_position_at_1280_by_768() {
    let last = |convention| place(48, 80, 47 * 80, convention).0;
    let apart = last(RopeConvention::Tencent) - last(RopeConvention::Diffusers);
    // The end is scaled by 47/48 together with its offset of 6: 6/48 short.
    assert!((apart - 0.125).abs() < 1e-5, "{apart}");
}

#[test]
fn the_readings_agree_on_squares() {
    for n in [8, 64, 80] {
        let [a, b] =
            [RopeConvention::Diffusers, RopeConvention::Tencent].map(|r| tables(n, n, HEAD_DIM, r));
        for (a, b) in a.0.iter().chain(&a.1).zip(b.0.iter().chain(&b.1)) {
            // Positions up to 32, rounded to float32 once or twice: a few times 2e-6 apart.
            assert!((a - b).abs() < 8e-6, "{n}: {a} and {b}");
        }
    }
}

#[test]
#[should_panic(expected = "head_dim 90 is not a multiple of 4")]
fn a_head_dim_that_does_not_divide_is_refused() {
    tables(4, 4, 90, RopeConvention::Diffusers);
}
