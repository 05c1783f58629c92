//! Writes a graph as the faiss index file that [`super::format`] describes, row by row, so that no
//! second copy of the vectors is ever in memory.

use std::io::{self, BufWriter, Write};

use half::f16;

use super::error::NativeResult;
use super::format::{self, LEVELS_MAX};
use super::graph::GraphParams;
use super::layout::{FaissMetric, Layout, Storage};
use crate::schema::{ElementType, decode_floats};

/// faiss's own default, for whoever searches the file with it.
const EF_SEARCH: i32 = 16;
/// Links are written in pieces of about this size.
const BUFFER_BYTES: usize = 1 << 16;

/// A graph to be written.
#[derive(Debug, Clone, Copy)]
pub struct GraphFile<'a> {
    /// What it is built over.
    pub params: &'a GraphParams,
    /// Number of levels of each row, 1 and up.
    pub levels: &'a [u8],
    /// The row that searches begin with, one of the highest level.
    pub entry: Option<u32>,
}

impl GraphFile<'_> {
    /// Writes the file: `links` are those of all rows in order, each row's by level, unused places last
    /// as `u32::MAX`; `rows` the vectors as the column stores them. Refuses parameters outside their
    /// ranges; an error of `out` is passed on within.
    pub fn write(
        &self,
        out: &mut impl Write,
        links: impl Iterator<Item = u32>,
        rows: impl Iterator<Item = impl AsRef<[u8]>> + Clone,
    ) -> NativeResult<io::Result<()>> {
        let (layout, _, _) = self.params.spec()?;
        Ok(self.write_as(&layout, &mut BufWriter::with_capacity(BUFFER_BYTES, out), links, rows))
    }

    fn write_as(
        &self,
        layout: &Layout,
        out: &mut impl Write,
        links: impl Iterator<Item = u32>,
        rows: impl Iterator<Item = impl AsRef<[u8]>> + Clone,
    ) -> io::Result<()> {
        let (graph_kind, storage_kind) = format::kinds(layout);
        out.write_all(graph_kind)?;
        self.write_header(layout, out)?;
        self.write_graph(out, links)?;
        out.write_all(storage_kind)?;
        self.write_header(layout, out)?;
        self.write_rows(layout, out, rows)?;
        out.flush()
    }

    fn write_header(&self, layout: &Layout, out: &mut impl Write) -> io::Result<()> {
        let dimension = self.params.dimension;
        out.write_all(&dimension.to_le_bytes())?;
        let is_bits = layout.storage == Storage::Bits;
        if is_bits {
            out.write_all(&(dimension / 8).to_le_bytes())?;
        }
        out.write_all(&(self.levels.len() as i64).to_le_bytes())?;
        if !is_bits {
            out.write_all(&(1i64 << 20).to_le_bytes())?;
            out.write_all(&(1i64 << 20).to_le_bytes())?;
        }
        out.write_all(&[1])?;
        out.write_all(&(layout.metric as i32).to_le_bytes())?;
        if layout.metric == FaissMetric::L1 {
            out.write_all(&0f32.to_le_bytes())?;
        }
        Ok(())
    }

    fn write_graph(
        &self,
        out: &mut impl Write,
        links: impl Iterator<Item = u32>,
    ) -> io::Result<()> {
        let width = self.params.max_neighbor_count as usize;
        let probabilities = level_probabilities(self.params.max_neighbor_count);
        out.write_all(&(probabilities.len() as u64).to_le_bytes())?;
        for probability in &probabilities {
            out.write_all(&probability.to_le_bytes())?;
        }
        out.write_all(&(probabilities.len() as u64 + 1).to_le_bytes())?;
        for level in 0..=probabilities.len() {
            let below = if level == 0 { 0 } else { (level + 1) * width };
            out.write_all(&(below as i32).to_le_bytes())?;
        }
        out.write_all(&(self.levels.len() as u64).to_le_bytes())?;
        for levels in self.levels {
            out.write_all(&i32::from(*levels).to_le_bytes())?;
        }
        out.write_all(&(self.levels.len() as u64 + 1).to_le_bytes())?;
        let mut offset = 0u64;
        out.write_all(&offset.to_le_bytes())?;
        for levels in self.levels {
            offset += (u64::from(*levels) + 1) * width as u64;
            out.write_all(&offset.to_le_bytes())?;
        }
        out.write_all(&offset.to_le_bytes())?;
        for link in links {
            out.write_all(&link.to_le_bytes())?;
        }
        // No row is -1, as is the level above which there are none.
        let highest = self.levels.iter().copied().max().unwrap_or(0);
        out.write_all(&self.entry.unwrap_or(u32::MAX).to_le_bytes())?;
        for number in [i32::from(highest) - 1, self.params.ef_construction as i32, EF_SEARCH, 1] {
            out.write_all(&number.to_le_bytes())?;
        }
        Ok(())
    }

    fn write_rows(
        &self,
        layout: &Layout,
        out: &mut impl Write,
        rows: impl Iterator<Item = impl AsRef<[u8]>> + Clone,
    ) -> io::Result<()> {
        let (count, dimension) = (self.levels.len() as u64, u64::from(self.params.dimension));
        let ranges = match layout.storage {
            Storage::Bytes => Ranges::of(self.params, layout, rows.clone()),
            _ => Ranges::default(),
        };
        let mut quantizer = |kind: i32, code_bytes: u64| -> io::Result<()> {
            out.write_all(&kind.to_le_bytes())?;
            out.write_all(&0i32.to_le_bytes())?;
            out.write_all(&0f32.to_le_bytes())?;
            out.write_all(&dimension.to_le_bytes())?;
            out.write_all(&code_bytes.to_le_bytes())?;
            let numbers = ranges.lowest.iter().chain(&ranges.widths);
            out.write_all(&(numbers.clone().count() as u64).to_le_bytes())?;
            numbers.into_iter().try_for_each(|number| out.write_all(&number.to_le_bytes()))
        };
        let elements = match layout.storage {
            Storage::Floats => dimension,
            Storage::Bits => dimension / 8,
            Storage::Halves => {
                quantizer(format::QUANTIZER_HALVES, dimension * 2)?;
                dimension * 2
            }
            Storage::Bytes => {
                quantizer(format::QUANTIZER_BYTES, dimension)?;
                dimension
            }
            Storage::SignedBytes => {
                quantizer(format::QUANTIZER_SIGNED_BYTES, dimension)?;
                dimension
            }
        };
        out.write_all(&(count * elements).to_le_bytes())?;
        let mut floats = Vec::new();
        let mut bytes = Vec::new();
        for row in rows {
            let row = row.as_ref();
            let is_float = self.params.element == ElementType::Fp32 && !layout.normalised;
            if layout.storage == Storage::Bits || (is_float && layout.storage == Storage::Floats) {
                out.write_all(row)?;
                continue;
            }
            let dimension = dimension as usize;
            decode_floats(row, self.params.element, dimension, layout.normalised, &mut floats);
            bytes.clear();
            match layout.storage {
                Storage::Floats => bytes.extend(floats.iter().flat_map(|x| x.to_le_bytes())),
                Storage::Halves => {
                    bytes.extend(floats.iter().flat_map(|x| f16::from_f32(*x).to_le_bytes()));
                }
                // Whole numbers from -128 to 127.
                Storage::SignedBytes => bytes.extend(floats.iter().map(|x| (*x + 128.0) as u8)),
                Storage::Bytes => ranges.encode(&floats, &mut bytes),
                Storage::Bits => {}
            }
            out.write_all(&bytes)?;
        }
        Ok(())
    }
}

/// The range of each dimension, which bytes divide into 255 steps.
#[derive(Debug, Default)]
struct Ranges {
    lowest: Vec<f32>,
    widths: Vec<f32>,
}

impl Ranges {
    fn of(
        params: &GraphParams,
        layout: &Layout,
        rows: impl Iterator<Item = impl AsRef<[u8]>>,
    ) -> Ranges {
        let dimension = params.dimension as usize;
        let mut lowest = vec![f32::INFINITY; dimension];
        let mut highest = vec![f32::NEG_INFINITY; dimension];
        let mut floats = Vec::new();
        for row in rows {
            decode_floats(row.as_ref(), params.element, dimension, layout.normalised, &mut floats);
            for ((low, high), x) in lowest.iter_mut().zip(&mut highest).zip(&floats) {
                (*low, *high) = (low.min(*x), high.max(*x));
            }
        }
        let width = |(low, high): (&f32, &f32)| (high - low).clamp(0.0, f32::MAX);
        let widths = lowest.iter().zip(&highest).map(width).collect();
        // Without rows there is no range.
        lowest.iter_mut().filter(|low| !low.is_finite()).for_each(|low| *low = 0.0);
        Ranges { lowest, widths }
    }

    fn encode(&self, floats: &[f32], bytes: &mut Vec<u8>) {
        let ranges = self.lowest.iter().zip(&self.widths);
        bytes.extend(floats.iter().zip(ranges).map(|(x, (low, width))| {
            let share = if *width > 0.0 { ((x - low) / width).clamp(0.0, 1.0) } else { 0.0 };
            (255.0 * share) as u8
        }));
    }
}

/// Levels that a graph of a width (2 and up) can have.
pub fn levels_max(max_neighbor_count: u32) -> usize {
    level_probabilities(max_neighbor_count).len()
}

/// The share of rows that have each number of levels, down to one in a thousand million.
fn level_probabilities(width: u32) -> Vec<f64> {
    let width = f64::from(width);
    let first = 1.0 - 1.0 / width;
    std::iter::successors(Some(first), |probability| Some(probability / width))
        .take_while(|probability| *probability >= 1e-9)
        .take(LEVELS_MAX)
        .collect()
}
