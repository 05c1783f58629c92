//! Checks the bytes of a faiss HNSW index before faiss reads them, and reads its links.
//!
//! faiss trusts its files: it allocates by the sizes it finds, and searches follow links without
//! looking. So every size, level, offset and link is checked here first, in safe code, against what
//! faiss 1.12 writes (`write_index`, `write_HNSW` in its impl/index_write.cpp), down to the last
//! byte. All numbers are little-endian; a vector is a u64 count and its elements.
//!
//! ```text
//! kind  header  HNSW  storage kind  header  [quantizer]  rows
//! header: d i32 [code size i32 | ] rows i64 [| 1<<20 i64 twice] trained u8 metric i32 [| argument f32 for L1]
//!         (before the bar: binary indexes; after it: the others)
//! HNSW:   level probabilities f64[], cumulated links per level i32[], levels i32[], offsets u64[],
//!         links i32[], entry point i32, top level i32, ef construction, ef search, 1: i32
//! ```

use super::error::{NativeError, NativeResult};
use super::graph::ROWS_MAX;
use super::layout::{FaissMetric, Layout, Storage};

/// faiss gives up on levels less likely than 1e-9; with 2 links per node that is after 29 of them.
pub const LEVELS_MAX: usize = 64;
/// `faiss::ScalarQuantizer::QuantizerType` of bytes with ranges, of halves and of signed bytes.
pub(super) const QUANTIZER_BYTES: i32 = 0;
pub(super) const QUANTIZER_HALVES: i32 = 4;
pub(super) const QUANTIZER_SIGNED_BYTES: i32 = 8;

/// The links of an index file in which every link leads to a row that exists on the link's level.
#[derive(Debug)]
pub struct HnswLinks<'a> {
    levels: Vec<u8>,
    /// Links of a row below each level, and below the end of the last.
    cumulated: Vec<usize>,
    /// The links of all rows, each row's by level.
    links: &'a [u8],
    entry: Option<u32>,
}

/// The links of one row on one level.
#[derive(Debug, Clone, Copy)]
pub struct LinkList<'a> {
    /// The row.
    pub row: u32,
    /// The level, from 0.
    pub level: usize,
    places: &'a [u8],
}

impl<'a> HnswLinks<'a> {
    /// The number of levels that each row is on, 1 and up.
    pub fn levels(&self) -> &[u8] {
        &self.levels
    }

    /// The row that searches begin with; `None` for a graph without rows.
    pub fn entry(&self) -> Option<u32> {
        self.entry
    }

    /// Places for links that a row has on a level.
    pub fn width(&self, level: usize) -> usize {
        self.cumulated.get(level + 1).map_or(0, |end| end - self.cumulated[level])
    }

    /// Every list of links, row by row and each row's from level 0 up.
    pub fn lists(&self) -> impl Iterator<Item = LinkList<'a>> {
        let mut rest = self.links;
        let places = self.levels.iter().enumerate().flat_map(|(row, levels)| {
            (0..usize::from(*levels)).map(move |level| (row as u32, level))
        });
        places.map(move |(row, level)| {
            let (places, after) = rest.split_at(self.width(level) * 4);
            rest = after;
            LinkList { row, level, places }
        })
    }
}

impl LinkList<'_> {
    /// The rows linked to.
    pub fn links(&self) -> impl Iterator<Item = u32> {
        let links = self.places.as_chunks().0.iter().map(|bytes| i32::from_le_bytes(*bytes));
        links.map_while(|link| u32::try_from(link).ok())
    }
}

/// Checks that `bytes` are one whole index of that layout, dimension and links per node, in which
/// every link leads to a row that exists on the link's level. Takes time in the number of links and
/// memory of one byte per row.
pub(super) fn check<'a>(
    bytes: &'a [u8],
    layout: &Layout,
    dimension: u32,
    max_neighbor_count: u32,
) -> NativeResult<HnswLinks<'a>> {
    let mut input = Input { bytes, at: 0 };
    let (graph_kind, storage_kind) = kinds(layout);
    input.expect("index type", graph_kind)?;
    let rows = read_header(&mut input, layout, dimension)?;
    let graph = check_graph(&mut input, rows, max_neighbor_count as usize)?;
    input.expect("storage type", storage_kind)?;
    let start = input.at;
    let stored = read_header(&mut input, layout, dimension)?;
    if stored != rows {
        return Err(damaged(start, format!("the graph has {rows} rows, the storage {stored}")));
    }
    check_storage(&mut input, layout, dimension, rows)?;
    if input.at != bytes.len() {
        return Err(damaged(input.at, format!("{} bytes after the end", bytes.len() - input.at)));
    }
    Ok(graph)
}

/// The four letters that open the index and its storage.
pub(super) fn kinds(layout: &Layout) -> (&'static [u8; 4], &'static [u8; 4]) {
    match (layout.storage, layout.metric) {
        (Storage::Bits, _) => (b"IBHf", b"IBxF"),
        (Storage::Halves | Storage::SignedBytes | Storage::Bytes, _) => (b"IHNs", b"IxSQ"),
        (Storage::Floats, FaissMetric::InnerProduct) => (b"IHNf", b"IxFI"),
        (Storage::Floats, FaissMetric::L2) => (b"IHNf", b"IxF2"),
        (Storage::Floats, FaissMetric::L1) => (b"IHNf", b"IxFl"),
    }
}

fn read_header(input: &mut Input<'_>, layout: &Layout, dimension: u32) -> NativeResult<usize> {
    input.expect("dimension", &dimension.to_le_bytes())?;
    let is_bits = layout.storage == Storage::Bits;
    if is_bits {
        input.expect("code size", &(dimension / 8).to_le_bytes())?;
    }
    let start = input.at;
    let rows = i64::from_le_bytes(input.array()?);
    let rows = usize::try_from(rows)
        .ok()
        .filter(|rows| *rows <= ROWS_MAX)
        .ok_or_else(|| damaged(start, format!("{rows} rows")))?;
    if !is_bits {
        input.expect("filler", &(1i64 << 20).to_le_bytes())?;
        input.expect("filler", &(1i64 << 20).to_le_bytes())?;
    }
    input.expect("trained", &[1])?;
    input.expect("metric", &(layout.metric as i32).to_le_bytes())?;
    if layout.metric == FaissMetric::L1 {
        input.expect("metric argument", &0f32.to_le_bytes())?;
    }
    Ok(rows)
}

fn check_graph<'a>(
    input: &mut Input<'a>,
    rows: usize,
    links: usize,
) -> NativeResult<HnswLinks<'a>> {
    let level_count = check_probabilities(input, links)?;
    let cumulated = check_links_per_level(input, level_count, links)?;
    let levels = read_levels(input, rows, level_count)?;
    let link_count = check_offsets(input, &levels, &cumulated)?;
    let links = check_links(input, &levels, &cumulated, link_count)?;

    let start = input.at;
    let entry = i32::from_le_bytes(input.array()?);
    let top_level = i32::from_le_bytes(input.array()?);
    // `levels` counts from 1 and the top level from 0, with -1 for a graph without rows.
    let highest = levels.iter().copied().max().unwrap_or(0);
    let entry_level = match usize::try_from(entry) {
        Ok(entry) => levels.get(entry).copied(),
        Err(_) if entry == -1 && rows == 0 => Some(0),
        Err(_) => None,
    };
    if entry_level != Some(highest) || top_level != i32::from(highest) - 1 {
        return Err(damaged(
            start,
            format!("entry point {entry} on level {top_level}; the highest level is {highest} - 1"),
        ));
    }
    for what in ["ef construction", "ef search"] {
        let start = input.at;
        let value = i32::from_le_bytes(input.array()?);
        if value < 1 {
            return Err(damaged(start, format!("{what} is {value}")));
        }
    }
    input.expect("beam", &1i32.to_le_bytes())?;
    Ok(HnswLinks { levels, cumulated, links, entry: u32::try_from(entry).ok() })
}

/// Checks the probabilities of the levels, from which the levels of later rows are drawn: each
/// level is 1/M as likely as the one below. Returns their number.
fn check_probabilities(input: &mut Input<'_>, links: usize) -> NativeResult<usize> {
    let start = input.at;
    let data = input.vector("level probabilities", 8)?;
    let count = data.len() / 8;
    if !(1..=LEVELS_MAX).contains(&count) {
        return Err(damaged(start, format!("{count} levels")));
    }
    let mut expected = 1.0 - 1.0 / links as f64;
    for (level, bytes) in data.as_chunks().0.iter().enumerate() {
        let probability = f64::from_le_bytes(*bytes);
        // Written so that NaN is refused too; faiss computes them as 32-bit floats.
        let is_near = (probability - expected).abs() <= expected * 1e-4;
        if !is_near {
            let detail = format!("probability {probability} of level {level}, not {expected}");
            return Err(damaged(start, detail));
        }
        expected /= links as f64;
    }
    if expected >= 1.001e-9 {
        return Err(damaged(start, format!("only {count} levels")));
    }
    Ok(count)
}

/// Checks that level 0 has twice as many links as the others. Returns the links of a row below each
/// level, and below the end of the last.
fn check_links_per_level(
    input: &mut Input<'_>,
    level_count: usize,
    links: usize,
) -> NativeResult<Vec<usize>> {
    let start = input.at;
    let data = input.vector("links per level", 4)?;
    let expected: Vec<usize> =
        (0..=level_count).map(|level| if level == 0 { 0 } else { (level + 1) * links }).collect();
    let mut found = data.as_chunks().0.iter().map(|bytes| i32::from_le_bytes(*bytes));
    if data.len() / 4 != expected.len()
        || !expected.iter().all(|links| found.next() == i32::try_from(*links).ok())
    {
        return Err(damaged(start, format!("links per level are not those of M = {links}")));
    }
    Ok(expected)
}

/// Reads the number of levels of each row, 1 and up.
fn read_levels(input: &mut Input<'_>, rows: usize, level_count: usize) -> NativeResult<Vec<u8>> {
    let data = input.vector_of("levels", 4, rows)?;
    let start = input.at - data.len();
    let mut levels = Vec::with_capacity(rows);
    for (row, bytes) in data.as_chunks().0.iter().enumerate() {
        let level = i32::from_le_bytes(*bytes);
        match u8::try_from(level) {
            Ok(level) if (1..=level_count).contains(&usize::from(level)) => levels.push(level),
            _ => return Err(damaged(start + row * 4, format!("row {row} has {level} levels"))),
        }
    }
    Ok(levels)
}

/// Checks that the links of each row follow those of the row before. Returns the number of links.
fn check_offsets(input: &mut Input<'_>, levels: &[u8], cumulated: &[usize]) -> NativeResult<usize> {
    let data = input.vector_of("offsets", 8, levels.len() + 1)?;
    let start = input.at - data.len();
    let mut expected = 0usize;
    for (row, bytes) in data.as_chunks().0.iter().enumerate() {
        let offset = u64::from_le_bytes(*bytes);
        if offset != expected as u64 {
            let detail = format!("the links of row {row} start at {offset}, not {expected}");
            return Err(damaged(start + row * 8, detail));
        }
        expected += levels.get(row).map_or(0, |level| cumulated[usize::from(*level)]);
    }
    Ok(expected)
}

/// Checks that every link leads to a row that exists on the link's level, and that unused places
/// are at the end of each level's: faiss, adding a row, takes a used last place for a full list.
fn check_links<'a>(
    input: &mut Input<'a>,
    levels: &[u8],
    cumulated: &[usize],
    link_count: usize,
) -> NativeResult<&'a [u8]> {
    let data = input.vector_of("links", 4, link_count)?;
    let start = input.at - data.len();
    let mut links = data.as_chunks().0.iter().enumerate();
    for (row, row_levels) in levels.iter().enumerate() {
        for level in 0..usize::from(*row_levels) {
            let mut has_ended = false;
            for (place, bytes) in links.by_ref().take(cumulated[level + 1] - cumulated[level]) {
                let link = i32::from_le_bytes(*bytes);
                let is_sound = match usize::try_from(link) {
                    Ok(_) if has_ended => false,
                    Ok(to) if level == 0 => to < levels.len(),
                    Ok(to) => levels.get(to).is_some_and(|levels| usize::from(*levels) > level),
                    Err(_) => link == -1,
                };
                if !is_sound {
                    let detail = format!("row {row} links to {link} on level {level}");
                    return Err(damaged(start + place * 4, detail));
                }
                has_ended = link == -1;
            }
        }
    }
    Ok(data)
}

fn check_storage(
    input: &mut Input<'_>,
    layout: &Layout,
    dimension: u32,
    rows: usize,
) -> NativeResult<()> {
    let dimension = dimension as usize;
    let elements = |per_row: usize| {
        rows.checked_mul(per_row)
            .ok_or_else(|| damaged(input.at, format!("{rows} rows of {per_row} elements")))
    };
    match layout.storage {
        Storage::Floats => input.vector_of("rows", 4, elements(dimension)?)?,
        Storage::Bits => input.vector_of("rows", 1, elements(dimension / 8)?)?,
        Storage::Halves => {
            let codes = elements(dimension * 2)?;
            check_quantizer(input, QUANTIZER_HALVES, dimension, dimension * 2, 0)?;
            input.vector_of("rows", 1, codes)?
        }
        Storage::SignedBytes => {
            let codes = elements(dimension)?;
            check_quantizer(input, QUANTIZER_SIGNED_BYTES, dimension, dimension, 0)?;
            input.vector_of("rows", 1, codes)?
        }
        Storage::Bytes => {
            let codes = elements(dimension)?;
            check_quantizer(input, QUANTIZER_BYTES, dimension, dimension, 2 * dimension)?;
            input.vector_of("rows", 1, codes)?
        }
    };
    Ok(())
}

/// Checks the description of a scalar quantizer that was trained to so many numbers. `kind` is a
/// `faiss::ScalarQuantizer::QuantizerType`.
fn check_quantizer(
    input: &mut Input<'_>,
    kind: i32,
    dimension: usize,
    code_bytes: usize,
    trained: usize,
) -> NativeResult<()> {
    input.expect("quantizer type", &kind.to_le_bytes())?;
    input.expect("range statistic", &0i32.to_le_bytes())?;
    input.expect("range argument", &0f32.to_le_bytes())?;
    input.expect("quantizer dimension", &(dimension as u64).to_le_bytes())?;
    input.expect("code size", &(code_bytes as u64).to_le_bytes())?;
    input.vector_of("training", 4, trained).map(|_| ())
}

fn damaged(offset: usize, detail: String) -> NativeError {
    NativeError::Damaged { offset: offset as u64, detail }
}

/// The bytes and how far they were read.
struct Input<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Input<'a> {
    fn take(&mut self, count: usize) -> NativeResult<&'a [u8]> {
        let rest = &self.bytes[self.at..];
        let Some((taken, _)) = rest.split_at_checked(count) else {
            let left = rest.len();
            return Err(damaged(self.at, format!("{count} bytes expected, {left} are left")));
        };
        self.at += count;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> NativeResult<[u8; N]> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    fn expect(&mut self, what: &str, expected: &[u8]) -> NativeResult<()> {
        let start = self.at;
        let found = self.take(expected.len())?;
        if found != expected {
            let (found, expected) = (found.escape_ascii(), expected.escape_ascii());
            return Err(damaged(start, format!("{what} is {found}, not {expected}")));
        }
        Ok(())
    }

    /// The elements of a vector of any length that the bytes can hold.
    fn vector(&mut self, what: &str, element_bytes: usize) -> NativeResult<&'a [u8]> {
        let start = self.at;
        let count = u64::from_le_bytes(self.array()?);
        let bytes = usize::try_from(count).ok().and_then(|count| count.checked_mul(element_bytes));
        match bytes {
            Some(bytes) if bytes <= self.bytes.len() - self.at => self.take(bytes),
            _ => Err(damaged(start, format!("{count} {what}, more than the file holds"))),
        }
    }

    /// The elements of a vector of exactly `count`.
    fn vector_of(
        &mut self,
        what: &str,
        element_bytes: usize,
        count: usize,
    ) -> NativeResult<&'a [u8]> {
        let start = self.at;
        let data = self.vector(what, element_bytes)?;
        let found = data.len() / element_bytes;
        if found != count {
            return Err(damaged(start, format!("{found} {what}, not {count}")));
        }
        Ok(data)
    }
}
