//! Canny's edges, as `cv2.Canny(image, 100, 200)` of OpenCV finds them, to the pixel: what the
//! ControlNets of the field were trained on. Follows `modules/imgproc/src/canny.cpp`.

use super::Image;

/// Gradients above `LOW` are edges where they go on from one above `HIGH`; what everyone passes.
const LOW: i32 = 100;
const HIGH: i32 = 200;

/// The tangent of 22.5 degrees, times 2^15.
const TANGENT: i32 = 13573;

/// The edges of `image`, white on black.
pub fn canny(image: &Image) -> Image {
    let Image { width, height, .. } = *image;
    let gradients = gradients(image);
    let size = |x: i64, y: i64| -> i32 {
        let inside = (0..width as i64).contains(&x) && (0..height as i64).contains(&y);
        if !inside {
            return 0;
        }
        let (dx, dy) = gradients[y as usize * width + x as usize];
        dx.abs() + dy.abs()
    };
    // Whether each pixel is the top of a ridge, and no lower than LOW.
    let mut candidate = vec![false; width * height];
    let mut edges = vec![false; width * height];
    let mut strong = Vec::new();
    for (place, &(dx, dy)) in gradients.iter().enumerate() {
        let (x, y) = ((place % width) as i64, (place / width) as i64);
        let here = size(x, y);
        if here <= LOW {
            continue;
        }
        let (across, along) = (dx.abs(), i64::from(dy.abs()) << 15);
        let low = i64::from(across) * i64::from(TANGENT);
        let high = low + (i64::from(across) << 16);
        candidate[place] = if along < low {
            here > size(x - 1, y) && here >= size(x + 1, y)
        } else if along > high {
            here > size(x, y - 1) && here >= size(x, y + 1)
        } else {
            let side = if (dx ^ dy) < 0 { -1 } else { 1 };
            here > size(x - side, y - 1) && here > size(x + side, y + 1)
        };
        if candidate[place] && here > HIGH {
            edges[place] = true;
            strong.push(place);
        }
    }
    while let Some(place) = strong.pop() {
        let (x, y) = (place % width, place / width);
        for y in y.saturating_sub(1)..(y + 2).min(height) {
            for x in x.saturating_sub(1)..(x + 2).min(width) {
                let place = y * width + x;
                if candidate[place] && !edges[place] {
                    edges[place] = true;
                    strong.push(place);
                }
            }
        }
    }
    let rgb = edges.into_iter().flat_map(|edge| [if edge { 255 } else { 0 }; 3]).collect();
    Image { width, height, rgb }
}

/// Sobel's derivatives to the right and down, of the channel in which their sum is largest; the
/// pixels at the border go on beyond it.
fn gradients(image: &Image) -> Vec<(i32, i32)> {
    let Image { width, height, rgb } = image;
    let value = |x: i64, y: i64, channel: usize| {
        let (x, y) = (x.clamp(0, *width as i64 - 1), y.clamp(0, *height as i64 - 1));
        i32::from(rgb[3 * (y as usize * width + x as usize) + channel])
    };
    let at = |x: i64, y: i64| {
        let of_channel = |channel| {
            let p = |dx, dy| value(x + dx, y + dy, channel);
            let right = p(1, -1) + 2 * p(1, 0) + p(1, 1);
            let left = p(-1, -1) + 2 * p(-1, 0) + p(-1, 1);
            let below = p(-1, 1) + 2 * p(0, 1) + p(1, 1);
            let above = p(-1, -1) + 2 * p(0, -1) + p(1, -1);
            (right - left, below - above)
        };
        let first = |best: (i32, i32), next: (i32, i32)| {
            let larger = next.0.abs() + next.1.abs() > best.0.abs() + best.1.abs();
            if larger { next } else { best }
        };
        (0..3).map(of_channel).reduce(first).expect("three channels")
    };
    let (width, height) = (*width as i64, *height as i64);
    (0..height).flat_map(|y| (0..width).map(move |x| at(x, y))).collect()
}
