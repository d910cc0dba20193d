//! The conversion of one tensor at a time: element type, transpose, quantization.

use std::borrow::Cow;
use std::thread;

use half::{bf16, f16, vec::HalfFloatVecExt};
use hydit_graphs::{DType, Transform};
use hydit_input::safetensors::floats;
use safetensors::Dtype;

use crate::checkpoint::Tensor;
use crate::error::ValueError;
use crate::float8;

/// Number of elements that are converted at once if no transpose needs the whole tensor.
const CHUNK: usize = 1 << 20;

/// Side of the tiles by which a matrix is transposed.
const TILE: usize = 32;

/// Transforms the elements of `tensor`, of shape `dims`, converts them to `dtype` and passes them
/// piece by piece to `sink`, little-endian. All but [`Transform::Keep`] need the whole tensor in
/// memory.
///
/// # Errors
/// An element is not finite, or too large for `dtype`.
pub(crate) fn convert(
    tensor: &Tensor<'_>,
    dims: &[usize],
    transform: Transform,
    dtype: DType,
    mut sink: impl FnMut(Vec<u8>),
) -> Result<(), ValueError> {
    let (stored, bytes) = (tensor.dtype, &*tensor.bytes);
    match transform {
        Transform::Keep => {
            for piece in bytes.chunks(CHUNK * width(stored)) {
                sink(encoded(piece, stored, dtype)?.into_owned());
            }
        }
        Transform::Transpose => {
            let (bytes, [rows, columns]) = (encoded(bytes, stored, dtype)?, [dims[0], dims[1]]);
            sink(if dtype.size() == 2 {
                transpose(bytes.as_chunks::<2>().0, rows, columns).into_flattened()
            } else {
                transpose(bytes.as_chunks::<4>().0, rows, columns).into_flattened()
            });
        }
        Transform::Scales => {
            let values = finite(bytes, stored)?;
            let scales: Vec<f32> = values.chunks(dims[1]).map(scale).collect();
            sink(encode(&scales, dtype)?);
        }
        Transform::Quantize => {
            let values = finite(bytes, stored)?;
            let quantized: Vec<u8> = values.chunks(dims[1]).flat_map(quantize).collect();
            sink(transpose(&quantized, dims[0], dims[1]));
        }
        Transform::NarrowScale => {
            let values = finite(bytes, stored)?;
            sink(encode(&[float8::scale(&values)], dtype)?);
        }
        Transform::Narrow => {
            let values = finite(bytes, stored)?;
            let scale = float8::scale(&values);
            let narrow: Vec<u8> = values.iter().map(|v| float8::encode(v / scale)).collect();
            sink(transpose(&narrow, dims[0], dims[1]));
        }
    }
    Ok(())
}

/// The elements of an output channel divided by its scale and rounded to 8-bit integers.
fn quantize(channel: &[f32]) -> impl Iterator<Item = u8> {
    let scale = scale(channel);
    channel.iter().map(move |value| (value / scale).round() as i8 as u8)
}

/// The scale with which an output channel is quantized to -127..=127; 1 for a channel of zeros.
fn scale(channel: &[f32]) -> f32 {
    let largest = channel.iter().fold(0f32, |largest, v| largest.max(v.abs()));
    if largest == 0.0 { 1.0 } else { largest / 127.0 }
}

/// Transposes `[rows, columns]` to `[columns, rows]`, on all cores and by tiles that stay in their
/// caches.
fn transpose<T: Copy + Default + Send + Sync>(values: &[T], rows: usize, columns: usize) -> Vec<T> {
    let mut turned = vec![T::default(); values.len()];
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let share = columns.div_ceil(threads).next_multiple_of(TILE);
    thread::scope(|scope| {
        for (i, turned) in turned.chunks_mut(share * rows).enumerate() {
            scope.spawn(move || transpose_columns(values, [rows, columns], i * share, turned));
        }
    });
    turned
}

/// Fills `turned` with the columns of `values`, `[rows, columns]`, from column `first` on.
fn transpose_columns<T: Copy + Default>(
    values: &[T],
    [rows, columns]: [usize; 2],
    first: usize,
    turned: &mut [T],
) {
    for (band, turned) in turned.chunks_mut(TILE * rows).enumerate() {
        let column = first + band * TILE;
        for row in (0..rows).step_by(TILE) {
            let mut tile = [[T::default(); TILE]; TILE];
            let (height, width) = (TILE.min(rows - row), TILE.min(columns - column));
            for (r, line) in tile.iter_mut().take(height).enumerate() {
                let start = (row + r) * columns + column;
                line[..width].copy_from_slice(&values[start..start + width]);
            }
            for (c, line) in turned.chunks_exact_mut(rows).enumerate() {
                let line = &mut line[row..row + height];
                line.iter_mut().zip(&tile).for_each(|(slot, from)| *slot = from[c]);
            }
        }
    }
}

fn width(dtype: Dtype) -> usize {
    if dtype == Dtype::F32 { 4 } else { 2 }
}

/// The same numbers as elements of type `to`, little-endian.
fn encoded(bytes: &[u8], from: Dtype, to: DType) -> Result<Cow<'_, [u8]>, ValueError> {
    let same = matches!(
        (from, to),
        (Dtype::F32, DType::F32) | (Dtype::F16, DType::F16) | (Dtype::BF16, DType::BF16)
    );
    if same && all_finite(bytes, to) {
        return Ok(Cow::Borrowed(bytes));
    }
    encode(&finite(bytes, from)?, to).map(Cow::Owned)
}

/// Whether no number is infinite or NaN, whose exponents are all ones.
fn all_finite(bytes: &[u8], dtype: DType) -> bool {
    // Folds instead of `any`: a loop without an early end is vectorized.
    let halves = |exponent: u16| {
        let words = bytes.as_chunks::<2>().0.iter().map(|b| u16::from_le_bytes(*b));
        words.fold(true, |finite, word| finite & (word & exponent != exponent))
    };
    match dtype {
        DType::F16 => halves(0x7c00),
        DType::BF16 => halves(0x7f80),
        _ => {
            let words = bytes.as_chunks::<4>().0.iter().map(|b| u32::from_le_bytes(*b));
            words.fold(true, |finite, word| finite & (word & 0x7f80_0000 != 0x7f80_0000))
        }
    }
}

/// The numbers as 32-bit floats.
///
/// # Errors
/// One of them is not finite.
fn finite(bytes: &[u8], dtype: Dtype) -> Result<Vec<f32>, ValueError> {
    let values = floats(bytes, dtype);
    match values.iter().find(|v| !v.is_finite()) {
        Some(value) => Err(ValueError::NotFinite(*value)),
        None => Ok(values),
    }
}

/// Rounds finite `values` to the nearest number of type `dtype`, halfway to the even one.
///
/// # Errors
/// One of them becomes infinite.
fn encode(values: &[f32], dtype: DType) -> Result<Vec<u8>, ValueError> {
    let (name, bytes) = match dtype {
        DType::F32 => return Ok(bytes_of(values.iter().map(|v| v.to_le_bytes()))),
        DType::F16 => {
            let halves = Vec::<f16>::from_f32_slice(values);
            ("fp16", bytes_of(halves.iter().map(|v| v.to_le_bytes())))
        }
        DType::BF16 => ("bf16", bytes_of(values.iter().map(|v| bf16::from_f32(*v).to_le_bytes()))),
        other => unreachable!("weights are never {other:?}"),
    };
    if all_finite(&bytes, dtype) {
        return Ok(bytes);
    }
    let largest = values.iter().copied().max_by(|a, b| a.abs().total_cmp(&b.abs()));
    let value = largest.expect("an infinite value");
    Err(ValueError::TooLarge { value, dtype: name })
}

fn bytes_of<const N: usize>(values: impl Iterator<Item = [u8; N]>) -> Vec<u8> {
    values.collect::<Vec<_>>().into_flattened()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn converted(
        bytes: &[u8],
        from: Dtype,
        to: DType,
        dims: &[usize],
        transform: Transform,
    ) -> Vec<u8> {
        let mut out = Vec::new();
        let tensor = Tensor { dtype: from, bytes: bytes.into() };
        convert(&tensor, dims, transform, to, |piece| out.extend_from_slice(&piece))
            .expect("converts");
        out
    }

    #[test]
    fn a_transpose_swaps_rows_and_columns_beyond_one_tile() {
        let (rows, columns) = (37, 70);
        let value = |r: usize, c: usize| (r * 1000 + c) as f32;
        let bytes: Vec<u8> = (0..rows * columns)
            .flat_map(|i| value(i / columns, i % columns).to_le_bytes())
            .collect();
        let out = converted(&bytes, Dtype::F32, DType::F32, &[rows, columns], Transform::Transpose);
        let expected: Vec<u8> =
            (0..rows * columns).flat_map(|i| value(i % rows, i / rows).to_le_bytes()).collect();
        assert_eq!(out, expected);
    }

    #[test]
    fn half_types_convert_by_value() {
        let value = 1.5f32;
        for (from, bytes) in [
            (Dtype::F32, value.to_le_bytes().to_vec()),
            (Dtype::F16, f16::from_f32(value).to_le_bytes().to_vec()),
            (Dtype::BF16, bf16::from_f32(value).to_le_bytes().to_vec()),
        ] {
            assert_eq!(
                converted(&bytes, from, DType::F32, &[1], Transform::Keep),
                value.to_le_bytes()
            );
            assert_eq!(
                converted(&bytes, from, DType::F16, &[1], Transform::Keep),
                f16::from_f32(value).to_le_bytes()
            );
            assert_eq!(
                converted(&bytes, from, DType::BF16, &[1], Transform::Keep),
                bf16::from_f32(value).to_le_bytes()
            );
        }
    }

    #[test]
    fn narrow_types_round_to_the_nearest_and_halfway_to_the_even_one() {
        // bf16 has 7 bits behind the point, fp16 has 10.
        for (dtype, step) in [(DType::BF16, 2f32.powi(-7)), (DType::F16, 2f32.powi(-10))] {
            let steps = [0.4f32, 0.5, 0.6, 1.4, 1.5, 1.6, 2.5];
            let rounded = [0.0, 0.0, 1.0, 1.0, 2.0, 2.0, 2.0];
            for (given, expected) in steps.into_iter().zip(rounded) {
                let bytes = (1.0 + given * step).to_le_bytes();
                let out = converted(&bytes, Dtype::F32, dtype, &[1], Transform::Keep);
                let out: [u8; 2] = out.try_into().expect("two bytes");
                let found = match dtype {
                    DType::BF16 => bf16::from_le_bytes(out).to_f32(),
                    _ => f16::from_le_bytes(out).to_f32(),
                };
                assert_eq!(found, 1.0 + expected * step, "{given} steps of {dtype:?}");
            }
        }
    }

    #[test]
    fn values_that_do_not_fit_are_refused() {
        for (value, dtype) in [
            (f32::NAN, DType::F32),
            (f32::INFINITY, DType::F32),
            (7e4, DType::F16),
            (f32::NAN, DType::BF16),
            (-f32::MAX, DType::BF16),
        ] {
            let bytes = value.to_le_bytes();
            let tensor = Tensor { dtype: Dtype::F32, bytes: bytes[..].into() };
            assert!(convert(&tensor, &[1], Transform::Keep, dtype, |_| {}).is_err(), "{value}");
        }
    }

    #[test]
    fn each_output_channel_is_quantized_by_its_own_scale() {
        // Two channels of three: the largest magnitude of each becomes 127.
        let values = [0.5f32, -1.0, 0.25, 8.0, 0.0, -4.0];
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        let scales = converted(&bytes, Dtype::F32, DType::F32, &[2, 3], Transform::Scales);
        let expected = [1.0f32 / 127.0, 8.0 / 127.0];
        assert_eq!(scales, expected.map(f32::to_le_bytes).concat());
        let quantized = converted(&bytes, Dtype::F32, DType::I8, &[2, 3], Transform::Quantize);
        let quantized: Vec<i8> = quantized.iter().map(|&v| v as i8).collect();
        assert_eq!(quantized, [64, 127, -127, 0, 32, -64]); // transposed: [in, out]
    }

    #[test]
    fn a_matrix_is_narrowed_by_one_power_of_two() {
        let values = [0.5f32, -1.0, 0.26, 900.0, 0.0, -4.0];
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        let scale = converted(&bytes, Dtype::F32, DType::F16, &[2, 3], Transform::NarrowScale);
        assert_eq!(scale, f16::from_f32(4.0).to_le_bytes()); // 900 / 2 is above 448
        let narrow = converted(&bytes, Dtype::F32, DType::F8E4M3FN, &[2, 3], Transform::Narrow);
        // 0.125, 225 which becomes 224, -0.25, 0, 0.065 which becomes 0.0625, -1; [in, out].
        assert_eq!(narrow, [0x20, 0x76, 0xa8, 0x00, 0x18, 0xb8]);
    }
}
