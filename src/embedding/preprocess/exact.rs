//! Resizing to the very pixels of Pillow, in its fixed-point numbers: a model sees what it was trained on. A
//! picture that is one step of 255 off here and there moves vectors by more than 1e-4.

use super::resize::{Axis, Filter};
use crate::embedding::picture::Picture;
use crate::simd::{WEIGHT_BITS, Weights};

/// The weights of a convolution whose filter widens as the side shrinks.
fn weights(axis: Axis, filter: Filter) -> Weights {
    let (kernel, reach) = filter.kernel();
    let scale = axis.scale();
    let widened = scale.max(1.0);
    let support = reach * widened;
    let taps = (axis.at..axis.at + axis.length).map(|place| {
        let centre = (f64::from(place) + 0.5) * scale;
        // Towards zero, as Pillow cuts.
        let first = (centre - support + 0.5).max(0.0) as usize;
        let end = ((centre + support + 0.5) as usize).min(axis.side as usize);
        let weight = |at: usize| kernel((at as f64 - centre + 0.5) * (1.0 / widened));
        let weights: Vec<f64> = (first..end).map(weight).collect();
        let sum: f64 = weights.iter().sum();
        let fixed = |weight: &f64| {
            let share = if sum == 0.0 { *weight } else { weight / sum };
            (share * f64::from(1u32 << WEIGHT_BITS)).round() as i32
        };
        (first, weights.iter().map(fixed).collect())
    });
    Weights::new(taps.collect())
}

/// Whether columns are resized before rows: Pillow does so since its version 13 where the height loses more than twice as many
/// pixels as the width. The colours between the two are rounded, and cut at 0 and 255, so the order can be seen.
/// <https://github.com/python-pillow/Pillow/pull/9549>
pub(super) fn is_down_first(across: Axis, down: Axis) -> bool {
    let loss = |axis: Axis| i64::from(axis.side) - i64::from(axis.resized);
    loss(down) > 0 && loss(down) > 2 * loss(across)
}

/// The wanted part of a picture, one direction after the other, rounded to 8 bits in between.
pub(super) fn resized(picture: &Picture, across: Axis, down: Axis, filter: Filter) -> Vec<u8> {
    let line = 3 * picture.width() as usize;
    if is_down_first(across, down) {
        let low = weights(down, filter).down_columns(picture.rgb(), line, 0);
        return row_part(&low, line, across, filter);
    }
    let columns = (down.side != down.resized).then(|| weights(down, filter));
    let (first, end) = match &columns {
        Some(weights) => weights.sources(),
        None => (down.at as usize, (down.at + down.length) as usize),
    };
    let rows = &picture.rgb()[first * line..end * line];
    let narrow = row_part(rows, line, across, filter);
    match columns {
        Some(weights) => weights.down_columns(&narrow, 3 * across.length as usize, first),
        None => narrow,
    }
}

/// The wanted part of each row.
fn row_part(rows: &[u8], line: usize, across: Axis, filter: Filter) -> Vec<u8> {
    if across.side != across.resized {
        return weights(across, filter).along_rows(rows, line);
    }
    let part = 3 * across.at as usize..3 * (across.at + across.length) as usize;
    rows.chunks_exact(line).flat_map(|row| &row[part.clone()]).copied().collect()
}

/// The filters of Pillow: their weight at a distance in pixels, and how far they reach.
impl Filter {
    fn kernel(self) -> (fn(f64) -> f64, f64) {
        match self {
            // Never convolved: it takes pixels as they are.
            Filter::Nearest | Filter::Box => (boxed, 0.5),
            Filter::Bilinear => (triangle, 1.0),
            Filter::Hamming => (hamming, 1.0),
            Filter::Bicubic => (cubic, 2.0),
            Filter::Lanczos => (lanczos, 3.0),
        }
    }
}

fn boxed(x: f64) -> f64 {
    if x > -0.5 && x <= 0.5 { 1.0 } else { 0.0 }
}

fn triangle(x: f64) -> f64 {
    (1.0 - x.abs()).max(0.0)
}

fn sinc(x: f64) -> f64 {
    let x = x * std::f64::consts::PI;
    if x == 0.0 { 1.0 } else { x.sin() / x }
}

fn hamming(x: f64) -> f64 {
    let x = x.abs();
    match x {
        0.0 => 1.0,
        _ if x >= 1.0 => 0.0,
        _ => sinc(x) * (0.54 + 0.46 * (x * std::f64::consts::PI).cos()),
    }
}

/// Keys (1981) with a = -0.5.
fn cubic(x: f64) -> f64 {
    const A: f64 = -0.5;
    let x = x.abs();
    match x {
        _ if x < 1.0 => ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0,
        _ if x < 2.0 => (((x - 5.0) * x + 8.0) * x - 4.0) * A,
        _ => 0.0,
    }
}

fn lanczos(x: f64) -> f64 {
    if (-3.0..3.0).contains(&x) { sinc(x) * sinc(x / 3.0) } else { 0.0 }
}
