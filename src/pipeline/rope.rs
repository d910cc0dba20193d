//! Two-dimensional rotary position tables of a resolution, made on the host and given to the graphs
//! as inputs.
//!
//! Follows diffusers' `HunyuanDiTPipeline` (`get_resize_crop_region_for_grid`,
//! `get_2d_rotary_pos_embed`) and Tencent's `hydit/modules/posemb_layers.py`. They agree on
//! everything but the positions of a non-square grid: [`RopeConvention`].

use hydit_graphs::variant::RopeConvention;

/// Tokens along each side of the grid that all others are fitted into: 512 pixels.
const BASE: f64 = 32.0;

/// The cosine and sine tables of a grid of `grid_h` by `grid_w` tokens, each `[grid_h, grid_w,
/// head_dim]` in row order.
///
/// Of a token's numbers the first half encodes its column, the second half its row; each frequency
/// comes twice in a row, for rotations of neighbouring pairs.
///
/// # Panics
/// When `head_dim` is not a positive multiple of 4 or the grid is empty.
#[track_caller]
pub fn tables(
    grid_h: usize,
    grid_w: usize,
    head_dim: usize,
    convention: RopeConvention,
) -> (Vec<f32>, Vec<f32>) {
    assert!(
        head_dim > 0 && head_dim.is_multiple_of(4),
        "head_dim {head_dim} is not a multiple of 4"
    );
    assert!(grid_h > 0 && grid_w > 0, "the grid is {grid_h} x {grid_w}");
    let (along_h, along_w) = fit(grid_h, grid_w);
    let (rows_cos, rows_sin) = axis(&positions(along_h, grid_h, convention), head_dim / 2);
    let (columns_cos, columns_sin) = axis(&positions(along_w, grid_w, convention), head_dim / 2);
    (weave(&rows_cos, &columns_cos, head_dim / 2), weave(&rows_sin, &columns_sin, head_dim / 2))
}

/// [rows, columns, 2 * dim] from [rows, dim] and [columns, dim], the column first.
fn weave(rows: &[f32], columns: &[f32], dim: usize) -> Vec<f32> {
    let mut out = Vec::with_capacity(rows.len() * columns.len() / dim * 2);
    for row in rows.chunks_exact(dim) {
        for column in columns.chunks_exact(dim) {
            out.extend_from_slice(column);
            out.extend_from_slice(row);
        }
    }
    out
}

/// Where an axis of the grid lies in the base square.
#[derive(Clone, Copy)]
struct Extent {
    start: f64,
    stop: f64,
}

/// `get_resize_crop_region_for_grid`: the grid's shape fitted into the base square, centred.
fn fit(grid_h: usize, grid_w: usize) -> (Extent, Extent) {
    let (h, w) = (grid_h as f64, grid_w as f64);
    // Python rounds halves to even: 48 x 80 starts at 6.5 -> 6, where Rust's `round` gives 7.
    let (height, width) = if h > w {
        (BASE, (BASE / h * w).round_ties_even())
    } else {
        ((BASE / w * h).round_ties_even(), BASE)
    };
    let extent = |length: f64| {
        let start = ((BASE - length) / 2.0).round_ties_even();
        Extent { start, stop: start + length }
    };
    (extent(height), extent(width))
}

/// The position of each of `n` tokens along an axis.
fn positions(Extent { start, stop }: Extent, n: usize, convention: RopeConvention) -> Vec<f32> {
    match convention {
        // torch.linspace: float32, from both ends, fused.
        RopeConvention::Diffusers => {
            let first = start as f32;
            if n == 1 {
                return vec![first];
            }
            let last = (stop * (n - 1) as f64 / n as f64) as f32;
            let stride = (last - first) / (n - 1) as f32;
            let position = |i: usize| {
                if i < n / 2 {
                    stride.mul_add(i as f32, first)
                } else {
                    stride.mul_add(-((n - 1 - i) as f32), last)
                }
            };
            (0..n).map(position).collect()
        }
        // np.linspace: double, rounded at the end.
        RopeConvention::Tencent => {
            let stride = (stop - start) / n as f64;
            (0..n).map(|i| (i as f64 * stride + start) as f32).collect()
        }
    }
}

/// `get_1d_rotary_pos_embed`: cosines and sines, each [positions, dim].
fn axis(positions: &[f32], dim: usize) -> (Vec<f32>, Vec<f32>) {
    let frequencies: Vec<f32> = (0..dim / 2)
        .map(|i| {
            let exponent = (2 * i) as f32 / dim as f32;
            1.0 / 10_000f64.powf(f64::from(exponent)) as f32
        })
        .collect();
    let angles =
        || positions.iter().flat_map(|p| frequencies.iter().map(move |f| f64::from(p * f)));
    let twice = |x: f64| [x as f32; 2];
    (
        angles().flat_map(|a| twice(a.cos())).collect(),
        angles().flat_map(|a| twice(a.sin())).collect(),
    )
}
