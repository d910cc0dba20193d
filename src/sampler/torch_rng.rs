//! Gaussian noise as `torch.randn` draws it on a CPU generator, so that a seed means the same
//! picture here and there.
//!
//! Follows PyTorch's `ATen/core/MT19937RNGEngine.h` (the generator),
//! `ATen/native/cpu/DistributionTemplates.h` (`NormalFill16`, for 16 numbers and more) and
//! `ATen/core/DistributionsHelper.h` (`normal_distribution<double>`, for fewer). The fill is the
//! one of x86 with AVX2, whose float32 logarithm, sine and cosine are the polynomials of the Cephes
//! library: they are evaluated here in the same order with the same fused operations. PyTorch's own
//! scalar fill (other processors) differs from that by up to 1.5e-6.

use std::f64::consts::TAU;

const WORDS: usize = 624;
const MIDDLE: usize = 397;

/// `torch.Generator("cpu").manual_seed(seed)`: a stream of normal numbers, one per picture.
#[derive(Clone, Debug)]
pub struct TorchGenerator {
    state: [u32; WORDS],
    /// The next word of `state` to hand out; `WORDS` when the state is spent.
    next: usize,
    /// The second number of the last pair of the scalar path, kept for the next scalar draw.
    cached: Option<f64>,
}

impl TorchGenerator {
    /// Seeds the generator. PyTorch uses the low 32 bits only: seeds 2^32 apart give the same
    /// stream.
    pub fn new(seed: u64) -> Self {
        let mut state = [seed as u32; WORDS];
        for j in 1..WORDS {
            let last = state[j - 1];
            state[j] = 1_812_433_253u32.wrapping_mul(last ^ (last >> 30)).wrapping_add(j as u32);
        }
        Self { state, next: WORDS, cached: None }
    }

    /// `torch.randn(n)` in float32: the next `n` standard normal numbers of the stream.
    ///
    /// The shape does not matter, the number of elements does: below 16 PyTorch draws pairs in
    /// double precision, else it fills blocks of 16 and, when a remainder is left, draws the last
    /// 16 again: `randn(17)` is not `randn(16)` and one more.
    pub fn randn(&mut self, n: usize) -> Vec<f32> {
        if n < 16 {
            return (0..n).map(|_| self.normal() as f32).collect();
        }
        let mut out: Vec<f32> = (0..n).map(|_| self.uniform()).collect();
        for block in out.as_chunks_mut().0 {
            fill_16(block);
        }
        if !n.is_multiple_of(16) {
            // The last 16 are drawn again, although the first of them belong to a block already
            // filled.
            let mut block = [0.0; 16];
            block.fill_with(|| self.uniform());
            fill_16(&mut block);
            out[n - 16..].copy_from_slice(&block);
        }
        out
    }

    /// `normal_distribution<double>(0, 1)`: Box-Muller, the sine kept for the next call.
    fn normal(&mut self) -> f64 {
        if let Some(kept) = self.cached.take() {
            return kept;
        }
        let u1 = self.uniform_f64();
        let u2 = self.uniform_f64();
        let radius = (-2.0 * (-u2).ln_1p()).sqrt();
        let (sin, cos) = (TAU * u1).sin_cos();
        self.cached = Some(radius * sin);
        radius * cos
    }

    /// Uniform in [0, 1), 24 bits.
    fn uniform(&mut self) -> f32 {
        (self.word() & 0x00ff_ffff) as f32 * (1.0 / (1 << 24) as f32)
    }

    /// Uniform in [0, 1), 53 bits; the first word is the high one.
    fn uniform_f64(&mut self) -> f64 {
        let bits = (u64::from(self.word()) << 32) | u64::from(self.word());
        (bits & ((1 << 53) - 1)) as f64 * (1.0 / (1u64 << 53) as f64)
    }

    /// The next 32 bits of mt19937.
    fn word(&mut self) -> u32 {
        if self.next == WORDS {
            self.refill();
        }
        let mut y = self.state[self.next];
        self.next += 1;
        y ^= y >> 11;
        y ^= (y << 7) & 0x9d2c_5680;
        y ^= (y << 15) & 0xefc6_0000;
        y ^ (y >> 18)
    }

    fn refill(&mut self) {
        let s = &mut self.state;
        for j in 0..WORDS {
            let (u, v) = (s[j], s[(j + 1) % WORDS]);
            let mixed = (u & 0x8000_0000) | (v & 0x7fff_ffff);
            let twisted = (mixed >> 1) ^ if v & 1 == 1 { 0x9908_b0df } else { 0 };
            s[j] = s[(j + MIDDLE) % WORDS] ^ twisted;
        }
        self.next = 0;
    }
}

/// Box-Muller on 8 pairs: uniforms j and j + 8 become normals j and j + 8.
fn fill_16(block: &mut [f32; 16]) {
    let (first, second) = block.split_at_mut(8);
    for (a, b) in first.iter_mut().zip(second) {
        // 1 - u is in (0, 1], safe for the logarithm.
        let radius = (-2.0 * log(1.0 - *a)).sqrt();
        let (sin, cos) = sin_cos(TAU as f32 * *b);
        (*a, *b) = (radius * cos, radius * sin);
    }
}

/// Cephes `logf` for normal `x` in (0, 1].
fn log(x: f32) -> f32 {
    let bits = x.to_bits();
    let mut e = (bits >> 23) as i32 as f32 - 126.0;
    let mut x = f32::from_bits((bits & 0x007f_ffff) | 0x3f00_0000); // the fraction, in [0.5, 1)
    if x < std::f32::consts::FRAC_1_SQRT_2 {
        e -= 1.0;
        x += x;
    }
    x -= 1.0;
    let z = x * x;
    let mut y = 7.037_683_6e-2f32;
    for c in [
        -1.151_461e-1,
        1.167_699_8e-1,
        -1.242_014_1e-1,
        1.424_932_3e-1,
        -1.666_805_8e-1,
        2.000_071_4e-1,
        -2.499_999_4e-1,
        3.333_333e-1,
    ] {
        y = y.mul_add(x, c);
    }
    y = (y * x).mul_add(z, e * -2.121_944_4e-4);
    y = z.mul_add(-0.5, y);
    e.mul_add(0.693_359_4, x + y)
}

/// Cephes `sinf` and `cosf` for `x` in [0, 2 pi].
fn sin_cos(x: f32) -> (f32, f32) {
    let octant = ((x * 1.273_239_5) as i32 + 1) & !1;
    let y = octant as f32;
    // pi/4 in three parts keeps the reduced argument exact.
    let x = y.mul_add(-0.785_156_25, x);
    let x = y.mul_add(-2.418_756_5e-4, x);
    let x = y.mul_add(-3.774_895e-8, x);
    let z = x * x;
    let cos = 2.443_315_7e-5f32.mul_add(z, -1.388_731_6e-3).mul_add(z, 4.166_664_6e-2);
    let cos = (cos * z).mul_add(z, z * -0.5) + 1.0;
    let sin = (-1.951_529_6e-4f32).mul_add(z, 8.332_161e-3).mul_add(z, -1.666_665_5e-1);
    let sin = (sin * z).mul_add(x, x);
    let (s, c) = if octant & 2 == 0 { (sin, cos) } else { (cos, sin) };
    (if octant & 4 == 0 { s } else { -s }, if (octant - 2) & 4 == 0 { -c } else { c })
}
