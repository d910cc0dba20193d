//! One tensor at a time: element type and transpose.

use half::{bf16, f16};
use hydit_graphs::{DType, Transform};
use safetensors::Dtype;

use crate::checkpoint::Tensor;

/// Elements converted at once where no transpose needs the whole tensor.
const CHUNK: usize = 1 << 18;

/// Gives the elements of `tensor`, of shape `dims`, transformed and as `dtype`, little-endian, piece
/// by piece to `sink`. All but [`Transform::Keep`] need the whole tensor in memory.
///
/// # Errors
/// A message if an element is not finite, or too large for `dtype`; whatever `sink` returns.
pub fn convert<E: From<String>>(
    tensor: &Tensor<'_>,
    dims: &[usize],
    transform: Transform,
    dtype: DType,
    mut sink: impl FnMut(&[u8]) -> Result<(), E>,
) -> Result<(), E> {
    if transform == Transform::Keep {
        let mut pieces = tensor.bytes.chunks(CHUNK * width(tensor.dtype));
        return pieces.try_for_each(|piece| sink(&encode(&floats(piece, tensor.dtype), dtype)?));
    }
    let values = floats(tensor.bytes, tensor.dtype);
    let (rows, columns) = (dims[0], dims[1]);
    let scales = || -> Result<Vec<f32>, String> {
        check_finite(&values)?;
        Ok(values.chunks(columns).map(scale).collect())
    };
    match transform {
        Transform::Scales => sink(&encode(&scales()?, dtype)?),
        Transform::Quantize => {
            let scales = scales()?;
            let quantized: Vec<i8> = values
                .chunks(columns)
                .zip(&scales)
                .flat_map(|(row, scale)| row.iter().map(move |v| (v / scale).round() as i8))
                .collect();
            let bytes: Vec<u8> =
                transpose(&quantized, rows, columns).iter().map(|&v| v as u8).collect();
            sink(&bytes)
        }
        _ => {
            let turned = transpose(&values, rows, columns);
            drop(values);
            turned.chunks(CHUNK).try_for_each(|piece| sink(&encode(piece, dtype)?))
        }
    }
}

/// The step of an output channel quantized to -127..=127; 1 for a channel of zeros.
fn scale(channel: &[f32]) -> f32 {
    let largest = channel.iter().fold(0f32, |largest, v| largest.max(v.abs()));
    if largest == 0.0 { 1.0 } else { largest / 127.0 }
}

/// `[rows, columns]` -> `[columns, rows]`, by tiles that stay in the cache.
fn transpose<T: Copy + Default>(values: &[T], rows: usize, columns: usize) -> Vec<T> {
    const TILE: usize = 32;
    let mut turned = vec![T::default(); values.len()];
    for row in (0..rows).step_by(TILE) {
        for column in (0..columns).step_by(TILE) {
            for r in row..rows.min(row + TILE) {
                for c in column..columns.min(column + TILE) {
                    turned[c * rows + r] = values[r * columns + c];
                }
            }
        }
    }
    turned
}

fn width(dtype: Dtype) -> usize {
    if dtype == Dtype::F32 { 4 } else { 2 }
}

fn floats(bytes: &[u8], dtype: Dtype) -> Vec<f32> {
    match dtype {
        Dtype::F32 => elements(bytes, f32::from_le_bytes),
        Dtype::F16 => elements(bytes, |b| f16::from_le_bytes(b).to_f32()),
        Dtype::BF16 => elements(bytes, |b| bf16::from_le_bytes(b).to_f32()),
        other => unreachable!("{other:?} was refused before"),
    }
}

fn elements<const N: usize>(bytes: &[u8], read: impl Fn([u8; N]) -> f32) -> Vec<f32> {
    bytes.as_chunks::<N>().0.iter().map(|bytes| read(*bytes)).collect()
}

fn check_finite(values: &[f32]) -> Result<(), String> {
    match values.iter().find(|v| !v.is_finite()) {
        Some(bad) => Err(format!("has the value {bad}; the file is damaged or training diverged")),
        None => Ok(()),
    }
}

fn encode(values: &[f32], dtype: DType) -> Result<Vec<u8>, String> {
    check_finite(values)?;
    match dtype {
        DType::F32 => Ok(values.iter().flat_map(|v| v.to_le_bytes()).collect()),
        DType::F16 => narrow(values, "fp16", f16::from_f32, f16::is_finite, f16::to_le_bytes),
        DType::BF16 => narrow(values, "bf16", bf16::from_f32, bf16::is_finite, bf16::to_le_bytes),
        other => unreachable!("weights are never {other:?}"),
    }
}

/// Rounds to the nearest of a narrower type, to the even one of two; what becomes infinite is refused.
fn narrow<T: Copy>(
    values: &[f32],
    name: &str,
    round: impl Fn(f32) -> T,
    is_finite: impl Fn(T) -> bool,
    bytes: impl Fn(T) -> [u8; 2],
) -> Result<Vec<u8>, String> {
    let mut narrow = Vec::with_capacity(2 * values.len());
    for &value in values {
        let rounded = round(value);
        if !is_finite(rounded) {
            return Err(format!("has the value {value}, beyond {name}; export with --dtype fp32"));
        }
        narrow.extend(bytes(rounded));
    }
    Ok(narrow)
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
        let tensor = Tensor { dtype: from, bytes };
        convert::<String>(&tensor, dims, transform, to, |piece| {
            out.extend_from_slice(piece);
            Ok(())
        })
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
            let tensor = Tensor { dtype: Dtype::F32, bytes: &bytes };
            assert!(
                convert::<String>(&tensor, &[1], Transform::Keep, dtype, |_| Ok(())).is_err(),
                "{value}"
            );
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
}
