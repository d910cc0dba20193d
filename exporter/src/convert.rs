//! One tensor at a time: element type and transpose.

use half::{bf16, f16};
use hydit_graphs::DType;
use safetensors::Dtype;

use crate::checkpoint::Tensor;

/// Elements converted at once where no transpose needs the whole tensor.
const CHUNK: usize = 1 << 18;

/// Gives the elements of `tensor` as `dtype`, little-endian, piece by piece to `sink`. A matrix
/// `[rows, columns]` is transposed if `transposed` says its shape; then one piece holds it all.
///
/// # Errors
/// A message if an element is not finite, or too large for `dtype`; whatever `sink` returns.
pub fn convert<E: From<String>>(
    tensor: &Tensor<'_>,
    dtype: DType,
    transposed: Option<[usize; 2]>,
    mut sink: impl FnMut(&[u8]) -> Result<(), E>,
) -> Result<(), E> {
    match transposed {
        Some([rows, columns]) => {
            let values = floats(tensor.bytes, tensor.dtype);
            let mut turned = vec![0f32; values.len()];
            const TILE: usize = 32;
            for row in (0..rows).step_by(TILE) {
                for column in (0..columns).step_by(TILE) {
                    for r in row..rows.min(row + TILE) {
                        for c in column..columns.min(column + TILE) {
                            turned[c * rows + r] = values[r * columns + c];
                        }
                    }
                }
            }
            drop(values);
            turned.chunks(CHUNK).try_for_each(|piece| sink(&encode(piece, dtype)?))
        }
        None => tensor
            .bytes
            .chunks(CHUNK * width(tensor.dtype))
            .try_for_each(|piece| sink(&encode(&floats(piece, tensor.dtype), dtype)?)),
    }
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

fn encode(values: &[f32], dtype: DType) -> Result<Vec<u8>, String> {
    if let Some(bad) = values.iter().find(|v| !v.is_finite()) {
        return Err(format!("has the value {bad}; the file is damaged or training diverged"));
    }
    match dtype {
        DType::F32 => Ok(values.iter().flat_map(|v| v.to_le_bytes()).collect()),
        DType::F16 => {
            let large = f16::MAX.to_f32();
            if let Some(bad) = values.iter().find(|v| v.abs() > large) {
                return Err(format!("has the value {bad}, beyond fp16; export with --dtype fp32"));
            }
            Ok(values.iter().flat_map(|&v| f16::from_f32(v).to_le_bytes()).collect())
        }
        other => unreachable!("weights are never {other:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn converted(bytes: &[u8], from: Dtype, to: DType, shape: Option<[usize; 2]>) -> Vec<u8> {
        let mut out = Vec::new();
        let tensor = Tensor { dtype: from, bytes };
        convert::<String>(&tensor, to, shape, |piece| {
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
        let out = converted(&bytes, Dtype::F32, DType::F32, Some([rows, columns]));
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
            assert_eq!(converted(&bytes, from, DType::F32, None), value.to_le_bytes());
            assert_eq!(
                converted(&bytes, from, DType::F16, None),
                f16::from_f32(value).to_le_bytes()
            );
        }
    }

    #[test]
    fn values_that_do_not_fit_are_refused() {
        for (value, dtype) in
            [(f32::NAN, DType::F32), (f32::INFINITY, DType::F32), (7e4, DType::F16)]
        {
            let bytes = value.to_le_bytes();
            let tensor = Tensor { dtype: Dtype::F32, bytes: &bytes };
            assert!(convert::<String>(&tensor, dtype, None, |_| Ok(())).is_err(), "{value}");
        }
    }
}
