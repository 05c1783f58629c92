//! `.fvecs`: for each vector, its dimension as an i32 and its elements, little-endian.

use std::fs::File;
use std::io::{BufReader, BufWriter, Read as _, Write};
use std::path::Path;

use super::{DIMENSION_MAX, Matrix, Read, memory_max};

/// Reads the first vectors, or all.
pub(super) fn read(path: &Path, cut: Option<usize>) -> Read<Matrix> {
    let file = File::open(path).map_err(|cause| cause.to_string())?;
    let bytes = file.metadata().map_err(|cause| cause.to_string())?.len();
    let mut reader = BufReader::with_capacity(1 << 20, file);
    let (memory_max, mut header) = (memory_max(), [0; 4]);
    let (mut dimension, mut elements, mut vector) = (0, Vec::new(), Vec::new());
    let (mut at, mut count) = (0u64, 0);
    while at < bytes && cut.is_none_or(|cut| count < cut) {
        reader.read_exact(&mut header).map_err(|cause| short(at, &cause))?;
        let found = i32::from_le_bytes(header);
        let expected = if dimension == 0 { 1..=DIMENSION_MAX } else { dimension..=dimension };
        match u64::try_from(found) {
            Ok(fits) if expected.contains(&fits) => dimension = fits,
            _ => {
                return Err(format!(
                    "the vector at byte {at} has dimension {found}, expected {} to {}",
                    expected.start(),
                    expected.end()
                ));
            }
        }
        vector.resize(dimension as usize * 4, 0);
        reader.read_exact(&mut vector).map_err(|cause| short(at, &cause))?;
        elements.extend(vector.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)));
        at += 4 + vector.len() as u64;
        count += 1;
        if at > memory_max {
            return Err(format!("more than {memory_max} bytes, which memory may be taken for"));
        }
    }
    if count == 0 {
        return Err("no rows".into());
    }
    Ok(Matrix { dimension: dimension as usize, elements })
}

fn short(at: u64, cause: &std::io::Error) -> String {
    format!("the vector at byte {at} is cut short: {cause}")
}

/// Writes what [`read`] reads.
pub(super) fn write(path: &Path, dimension: usize, vectors: &[f32]) -> std::io::Result<()> {
    let mut writer = BufWriter::with_capacity(1 << 20, File::create(path)?);
    for vector in vectors.chunks(dimension) {
        writer.write_all(&(dimension as i32).to_le_bytes())?;
        for x in vector {
            writer.write_all(&x.to_le_bytes())?;
        }
    }
    writer.flush()
}
