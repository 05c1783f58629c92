//! Resizing to the very pixels of Pillow, in its fixed-point numbers: a model sees what it was trained on. A
//! picture that is one step of 255 off here and there moves vectors by more than 1e-4.

use super::resize::{Axis, Filter};
use crate::embedding::picture::Picture;

/// Bits behind the point of a weight: a sum of them with bytes fits into 32 bits.
const WEIGHT_BITS: u32 = 22;

/// What of one side's pixels goes into each wanted pixel.
struct Weights {
    /// First pixel and weights by wanted pixel.
    taps: Vec<(usize, Vec<i32>)>,
}

impl Weights {
    /// Those of a convolution whose filter widens as the side shrinks.
    fn new(axis: Axis, filter: Filter) -> Weights {
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
        Weights { taps: taps.collect() }
    }

    /// The pixels that any wanted one is made of, from and to.
    fn sources(&self) -> (usize, usize) {
        let first = self.taps.iter().map(|(first, _)| *first).min().unwrap_or(0);
        let end = self.taps.iter().map(|(first, weights)| first + weights.len()).max();
        (first, end.unwrap_or(0))
    }
}

fn rounded(sum: i32) -> u8 {
    (sum >> WEIGHT_BITS).clamp(0, 255) as u8
}

/// Half a step, so that cutting rounds.
const HALF: i32 = 1 << (WEIGHT_BITS - 1);

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
        let low = down_columns(picture.rgb(), line, 0, &Weights::new(down, filter));
        return row_part(&low, line, across, filter);
    }
    let columns = (down.side != down.resized).then(|| Weights::new(down, filter));
    let (first, end) = match &columns {
        Some(weights) => weights.sources(),
        None => (down.at as usize, (down.at + down.length) as usize),
    };
    let rows = &picture.rgb()[first * line..end * line];
    let narrow = row_part(rows, line, across, filter);
    match columns {
        Some(weights) => down_columns(&narrow, 3 * across.length as usize, first, &weights),
        None => narrow,
    }
}

/// The wanted part of each row.
fn row_part(rows: &[u8], line: usize, across: Axis, filter: Filter) -> Vec<u8> {
    if across.side != across.resized {
        return along_rows(rows, line, &Weights::new(across, filter));
    }
    let part = 3 * across.at as usize..3 * (across.at + across.length) as usize;
    rows.chunks_exact(line).flat_map(|row| &row[part.clone()]).copied().collect()
}

fn along_rows(rows: &[u8], line: usize, weights: &Weights) -> Vec<u8> {
    let mut out = Vec::with_capacity(rows.len() / line.max(1) * weights.taps.len() * 3);
    for row in rows.chunks_exact(line) {
        let (pixels, _) = row.as_chunks::<3>();
        for (first, weights) in &weights.taps {
            let mut sums = [HALF; 3];
            for (pixel, weight) in pixels[*first..].iter().zip(weights) {
                for (sum, sample) in sums.iter_mut().zip(pixel) {
                    *sum = sum.wrapping_add(i32::from(*sample).wrapping_mul(*weight));
                }
            }
            out.extend(sums.map(rounded));
        }
    }
    out
}

/// `rows` begin with number `begin` of the picture.
fn down_columns(rows: &[u8], line: usize, begin: usize, weights: &Weights) -> Vec<u8> {
    let mut out = Vec::with_capacity(weights.taps.len() * line);
    let mut sums = vec![0; line];
    for (first, weights) in &weights.taps {
        sums.fill(HALF);
        let rows = rows[(first - begin) * line..].chunks_exact(line);
        for (row, weight) in rows.zip(weights) {
            for (sum, sample) in sums.iter_mut().zip(row) {
                *sum = sum.wrapping_add(i32::from(*sample).wrapping_mul(*weight));
            }
        }
        out.extend(sums.iter().map(|sum| rounded(*sum)));
    }
    out
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
