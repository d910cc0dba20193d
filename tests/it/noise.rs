//! `hydit::sampler` against torch.randn; the reference file is made by
//! `tests/reference/make_noise.py`.

use hydit::sampler::TorchGenerator;
use safetensors::SafeTensors;

const REFERENCE: &[u8] = include_bytes!("../reference/noise.safetensors");

/// `make_noise.py::sample`.
fn sample(x: &[f32]) -> Vec<f32> {
    let n = x.len();
    if n <= 192 {
        return x.to_vec();
    }
    let strided = (0..64).map(|i| x[i * n / 64]);
    x[..64].iter().copied().chain(strided).chain(x[n - 64..].iter().copied()).collect()
}

/// `seed42_3_17` -> (42, [3, 17]); `seed0_1x4x16x16` -> (0, [1024]).
fn parse(name: &str) -> (u64, Vec<usize>) {
    let mut parts = name.strip_prefix("seed").expect("a stream is named after its seed").split('_');
    let seed = parts.next().expect("a seed").parse().expect("a seed");
    let sizes = parts
        .map(|shape| shape.split('x').map(|d| d.parse::<usize>().expect("a size")).product())
        .collect();
    (seed, sizes)
}

// No tolerance. The block fill repeats torch's float32 operations one by one, so nothing is left to
// differ. The path for fewer than 16 numbers is double precision, rounded to float32 at the end:
// the last bit of a platform's ln, sin or cos does not survive that.
#[test]
fn every_stream_has_the_bits_of_torch_randn() {
    let reference = SafeTensors::deserialize(REFERENCE).expect("the reference file");
    assert_eq!(reference.len(), 24);
    for (name, tensor) in reference.tensors() {
        let (seed, sizes) = parse(&name);
        let mut generator = TorchGenerator::new(seed);
        let ours: Vec<f32> = sizes.iter().flat_map(|&n| sample(&generator.randn(n))).collect();
        let (theirs, rest) = tensor.data().as_chunks();
        assert!(rest.is_empty() && ours.len() == theirs.len(), "{name}: {} numbers", ours.len());
        for (i, (a, b)) in ours.iter().zip(theirs).enumerate() {
            let b = f32::from_le_bytes(*b);
            assert_eq!(a.to_bits(), b.to_bits(), "{name}[{i}]: {a} is not torch's {b}");
        }
    }
}

#[test]
fn only_a_remainder_of_16_redraws_the_end() {
    let whole = TorchGenerator::new(42).randn(32);
    let mut generator = TorchGenerator::new(42);
    let halves = [generator.randn(16), generator.randn(16)].concat();
    // Without a remainder the stream is the same block by block.
    assert_eq!(whole, halves);
    // With one, the last 16 are drawn again after everything else: numbers of the first block
    // change.
    let odd = TorchGenerator::new(42).randn(17);
    assert_eq!(odd[0], whole[0]);
    assert_ne!(odd[1..16], whole[1..16]);
}

#[test]
fn seeds_2_to_the_32_apart_are_one_stream() {
    let draw = |seed| TorchGenerator::new(seed).randn(16);
    assert_eq!(draw(42), draw(42 + (1 << 32)));
    assert_ne!(draw(42), draw(43));
}
