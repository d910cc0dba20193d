//! Arithmetic on image tokens in the memory of the host, as loops: what the graphs of
//! [`arithmetic`](hydit_graphs::arithmetic) compute elsewhere.

use hydit_graphs::arithmetic::NEXT_TO_NOTHING;

/// Sums side by side, so that the processor can add several numbers at once.
const LANES: usize = 16;

/// The sum of two or three tensors, each times its number, in one pass.
pub fn sum(terms: &[(&[f32], f32)]) -> Vec<f32> {
    match *terms {
        [(x, a), (y, b)] => x.iter().zip(y).map(|(x, y)| x * a + y * b).collect(),
        [(x, a), (y, b), (z, c)] => {
            x.iter().zip(y).zip(z).map(|((x, y), z)| x * a + y * b + z * c).collect()
        }
        _ => panic!("{} terms", terms.len()),
    }
}

/// The outputs `[deep, deep_before]` continued as [`align`](hydit_graphs::arithmetic::align) has it by
/// the encoder's `[now, before, earlier]`, each row of `row` numbers by itself.
pub fn aligned(
    [deep, deep_before]: [&[f32]; 2],
    [now, before, earlier]: [&[f32]; 3],
    row: usize,
) -> Vec<f32> {
    let rows = deep.chunks_exact(row).zip(deep_before.chunks_exact(row));
    let read = now.chunks_exact(row).zip(before.chunks_exact(row)).zip(earlier.chunks_exact(row));
    let mut out = Vec::with_capacity(deep.len());
    for ((deep, deep_before), ((now, before), earlier)) in rows.zip(read) {
        let share = share(now, before, earlier);
        let pairs = deep.iter().zip(deep_before);
        out.extend(pairs.map(|(deep, before)| deep + share * (before - deep)));
    }
    out
}

/// How much of the way from the latest output to the one before it is gone, backwards where
/// negative, of a row.
fn share(now: &[f32], before: &[f32], earlier: &[f32]) -> f32 {
    let [mut line, mut way, mut both] = [[0.0f32; LANES]; 3];
    let mut add = |i: usize, now: f32, before: f32, earlier: f32| {
        let (a, b) = (earlier - before, now - before);
        line[i] += a * a;
        way[i] += b * b;
        both[i] += a * b;
    };
    let (nows, now_rest) = now.as_chunks::<LANES>();
    let (befores, before_rest) = before.as_chunks::<LANES>();
    let (earliers, earlier_rest) = earlier.as_chunks::<LANES>();
    for ((now, before), earlier) in nows.iter().zip(befores).zip(earliers) {
        (0..LANES).for_each(|i| add(i, now[i], before[i], earlier[i]));
    }
    for ((now, before), earlier) in now_rest.iter().zip(before_rest).zip(earlier_rest) {
        add(0, *now, *before, *earlier);
    }
    let mean =
        |sums: [f32; LANES]| sums.iter().map(|&x| f64::from(x)).sum::<f64>() / now.len() as f64;
    let [line, way, both] = [line, way, both].map(mean);
    let least = f64::from(NEXT_TO_NOTHING);
    let agree = both * both / (line * way + least);
    (both / (line + least) * (4.0 * agree - 3.0).clamp(0.0, 1.0)) as f32
}

/// How far `now` is from `before`: root mean square of the difference over that of `before`.
pub fn distance(now: &[f32], before: &[f32]) -> f32 {
    let (mut moved, mut size) = ([0.0f32; LANES], [0.0f32; LANES]);
    let mut add = |i: usize, now: f32, before: f32| {
        moved[i] += (now - before) * (now - before);
        size[i] += before * before;
    };
    let (now, now_rest) = now.as_chunks::<LANES>();
    let (before, before_rest) = before.as_chunks::<LANES>();
    for (now, before) in now.iter().zip(before) {
        (0..LANES).for_each(|i| add(i, now[i], before[i]));
    }
    now_rest.iter().zip(before_rest).for_each(|(now, before)| add(0, *now, *before));
    let total = |sums: [f32; LANES]| sums.iter().map(|&x| f64::from(x)).sum::<f64>();
    (total(moved) / total(size)).sqrt() as f32
}
