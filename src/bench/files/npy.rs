//! `.npy`: what `numpy.save` writes of a two-dimensional array of floats, in C order, of either byte
//! order. The header is a Python literal of one fixed form, so nothing else of Python is read.
//! <https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html>

use std::fs::File;
use std::io::{BufReader, Read as _};
use std::path::Path;

use half::f16;

use super::{Matrix, Read, checked_shape};

const MAGIC: &[u8; 6] = b"\x93NUMPY";
/// Longest header: numpy itself reads no longer ones.
const HEADER_BYTES_MAX: usize = 10_000;
/// Bytes read at once, whole elements of every type.
const BLOCK_BYTES: usize = 1 << 20;

/// Reads the first rows, or all.
pub(super) fn read(path: &Path, cut: Option<usize>) -> Read<Matrix> {
    let file = File::open(path).map_err(|cause| cause.to_string())?;
    let bytes = file.metadata().map_err(|cause| cause.to_string())?.len();
    let mut reader = BufReader::new(file);
    let (header, header_bytes) = read_header(&mut reader)?;
    let element = Element::new(&header.descr)?;
    let (rows, dimension) = checked_shape(&header.shape, cut)?;
    if header.is_fortran {
        return Err("columns lie one after the other (Fortran order); save it with \
                    numpy.ascontiguousarray"
            .into());
    }
    // Not the product of the shape: of a cut array only the rows wanted need be there.
    let mut left = (rows * dimension * element.bytes()) as u64;
    let there = bytes.saturating_sub(header_bytes);
    if there < left {
        return Err(format!("cut short: {there} bytes of numbers, where {left} are wanted"));
    }
    let mut elements = Vec::with_capacity(rows * dimension);
    let mut block = vec![0; BLOCK_BYTES];
    while left > 0 {
        let part = &mut block[..left.min(BLOCK_BYTES as u64) as usize];
        reader.read_exact(part).map_err(|cause| cause.to_string())?;
        element.decode(part, &mut elements);
        left -= part.len() as u64;
    }
    Ok(Matrix { dimension, elements })
}

/// A number's type.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Element {
    width: Width,
    is_big_endian: bool,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Width {
    F16,
    F32,
    F64,
}

impl Element {
    fn new(descr: &str) -> Read<Element> {
        let (order, kind) = descr.split_at_checked(1).unwrap_or_default();
        let width = match (order, kind) {
            ("<" | ">", "f2") => Width::F16,
            ("<" | ">", "f4") => Width::F32,
            ("<" | ">", "f8") => Width::F64,
            _ => {
                return Err(format!(
                    "elements of type {descr:?}, where floats of 16, 32 or 64 bits are wanted"
                ));
            }
        };
        Ok(Element { width, is_big_endian: order == ">" })
    }

    fn bytes(self) -> usize {
        match self.width {
            Width::F16 => 2,
            Width::F32 => 4,
            Width::F64 => 8,
        }
    }

    /// Numbers that 32 bits do not hold become infinite, and are refused with what is not finite.
    fn decode(self, bytes: &[u8], elements: &mut Vec<f32>) {
        match (self.width, self.is_big_endian) {
            (Width::F16, false) => {
                elements.extend(bytes.as_chunks().0.iter().map(|b| f16::from_le_bytes(*b).to_f32()))
            }
            (Width::F16, true) => {
                elements.extend(bytes.as_chunks().0.iter().map(|b| f16::from_be_bytes(*b).to_f32()))
            }
            (Width::F32, false) => {
                elements.extend(bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)))
            }
            (Width::F32, true) => {
                elements.extend(bytes.as_chunks().0.iter().map(|b| f32::from_be_bytes(*b)))
            }
            (Width::F64, false) => {
                elements.extend(bytes.as_chunks().0.iter().map(|b| f64::from_le_bytes(*b) as f32))
            }
            (Width::F64, true) => {
                elements.extend(bytes.as_chunks().0.iter().map(|b| f64::from_be_bytes(*b) as f32))
            }
        }
    }
}

/// What the header says.
#[derive(Debug, PartialEq)]
struct Header {
    descr: String,
    is_fortran: bool,
    shape: Vec<u64>,
}

/// The header, and at which byte the numbers begin.
fn read_header(reader: &mut impl std::io::Read) -> Read<(Header, u64)> {
    let cut = |cause: std::io::Error| format!("the header is cut short: {cause}");
    let mut start = [0; 8];
    reader.read_exact(&mut start).map_err(cut)?;
    if start[..6] != *MAGIC {
        return Err("it does not begin as .npy files do".into());
    }
    let mut length = [0; 4];
    let length_bytes = match start[6] {
        1 => 2,
        2 | 3 => 4,
        version => return Err(format!("version {version} of the format, and 1 to 3 are known")),
    };
    reader.read_exact(&mut length[..length_bytes]).map_err(cut)?;
    let length = u32::from_le_bytes(length) as usize;
    if length > HEADER_BYTES_MAX {
        return Err(format!("a header of {length} bytes, and {HEADER_BYTES_MAX} are allowed"));
    }
    let mut text = vec![0; length];
    reader.read_exact(&mut text).map_err(cut)?;
    let text = String::from_utf8_lossy(&text);
    let header = parse(&text).ok_or_else(|| format!("not a header: {:?}", text.trim_end()))?;
    Ok((header, (start.len() + length_bytes + length) as u64))
}

/// Reads `{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }`, in any order.
fn parse(text: &str) -> Option<Header> {
    let mut rest = text.trim().strip_prefix('{')?.strip_suffix('}')?.trim();
    let (mut descr, mut is_fortran, mut shape) = (None, None, None);
    while !rest.is_empty() {
        let (key, after) = quoted(rest)?;
        rest = after.trim_start().strip_prefix(':')?.trim_start();
        match key {
            "descr" if rest.starts_with('[') => {
                // Named fields: shown as they are, and refused with the type.
                let (fields, after) = rest.split_at(rest.find("],")? + 1);
                (descr, rest) = (Some(fields.to_owned()), after);
            }
            "descr" => {
                let (value, after) = quoted(rest)?;
                (descr, rest) = (Some(value.to_owned()), after);
            }
            "fortran_order" => {
                let word = ["False", "True"].into_iter().find(|word| rest.starts_with(word))?;
                (is_fortran, rest) = (Some(word == "True"), &rest[word.len()..]);
            }
            "shape" => {
                let (numbers, after) = rest.strip_prefix('(')?.split_once(')')?;
                let numbers = numbers.trim().trim_end_matches(',').split(',').map(str::trim);
                let numbers = numbers.filter(|number| !number.is_empty());
                shape = Some(numbers.map(|number| number.parse().ok()).collect::<Option<_>>()?);
                rest = after;
            }
            _ => return None,
        }
        rest = rest.trim_start();
        rest = match rest.strip_prefix(',') {
            Some(after) => after.trim_start(),
            None if rest.is_empty() => rest,
            None => return None,
        };
    }
    Some(Header { descr: descr?, is_fortran: is_fortran?, shape: shape? })
}

/// A quoted word without escapes at the start of a text, and what follows it.
fn quoted(text: &str) -> Option<(&str, &str)> {
    let quote = text.chars().next().filter(|first| matches!(first, '\'' | '"'))?;
    text[1..].split_once(quote)
}
