//! HDF5 files in the layout of ann-benchmarks: datasets `train` and `test`, perhaps `neighbors` and
//! `distances`, and the attribute `distance`. <https://github.com/erikbern/ann-benchmarks>
//!
//! The library reads any file, ours or hostile, without unsafe code; what it would take memory for is
//! held against the size of the file first.

use std::path::Path;

use half::f16;
use hdf5_pure::{AttrValue, DType, Dataset, Datatype, DatatypeByteOrder, File, Layout};

use super::{Cut, Given, Matrix, Neighbours, Read, checked_shape, together};

/// Bytes that one byte of a file can at most stand for; deflate makes a thousand of one.
const EXPANSION_MAX: u64 = 2_048;
/// Elements that any chunk may have. Larger ones may have as many as there are.
const CHUNK_ELEMENTS: u64 = 1 << 20;

/// Reads the first rows and queries, or all, and what there is about them.
pub(super) fn read(path: &Path, cut: Cut) -> Read<Given> {
    let file = File::open_streaming(path).map_err(|cause| cause.to_string())?;
    let there = file.root().datasets().map_err(|cause| cause.to_string())?;
    for name in ["train", "test"] {
        if !there.iter().any(|found| found == name) {
            return Err(format!("no dataset {name:?}, but {there:?}"));
        }
    }
    let train = floats(&file, "train", cut.rows)?;
    let test = floats(&file, "test", cut.queries)?;
    if train.dimension != test.dimension {
        return Err(format!(
            "train has dimension {}, and test has {}",
            train.dimension, test.dimension
        ));
    }
    let rows = train.elements.len() / train.dimension;
    let queries = test.elements.len() / test.dimension;
    let is_whole = shape(&file, "train")?.first() == Some(&(rows as u64));
    let neighbours = match there.iter().any(|name| name == "neighbors") && is_whole {
        true => {
            let distances = there.iter().any(|name| name == "distances");
            Some(neighbours(&file, rows, queries, distances)?)
        }
        false => None,
    };
    Ok(Given { vectors: together(train, test), distance: distance(&file)?, neighbours })
}

/// The attribute that names the metric.
fn distance(file: &File) -> Read<Option<String>> {
    let mut attributes = file.root().attrs().map_err(|cause| cause.to_string())?;
    match attributes.remove("distance") {
        None => Ok(None),
        Some(
            AttrValue::String(name) | AttrValue::AsciiString(name) | AttrValue::VarLenString(name),
        ) => Ok(Some(name.trim_end_matches('\0').to_owned())),
        Some(other) => Err(format!("the attribute distance is {other:?}, where text is wanted")),
    }
}

fn neighbours(file: &File, rows: usize, queries: usize, distances: bool) -> Read<Neighbours> {
    let of = |cause: String| format!("neighbors: {cause}");
    let (dataset, given, count) = open(file, "neighbors", Some(queries))?;
    if given < queries {
        return Err(of(format!("of {given} queries, and there are {queries}")));
    }
    let read = match dataset.dtype() {
        Ok(
            DType::I8
            | DType::I16
            | DType::I32
            | DType::I64
            | DType::U8
            | DType::U16
            | DType::U32
            | DType::U64,
        ) => dataset.read_i64_rows(0, queries as u64).map_err(|cause| of(cause.to_string()))?,
        Ok(other) => {
            return Err(of(format!("elements of type {other}, where integers are wanted")));
        }
        Err(cause) => return Err(of(cause.to_string())),
    };
    let mut keys = Vec::with_capacity(read.len());
    for (place, key) in read.into_iter().enumerate() {
        match usize::try_from(key) {
            Ok(row) if row < rows => keys.push(row as u64),
            _ => {
                let query = place / count;
                return Err(of(format!("query {query} names row {key}, and there are {rows}")));
            }
        }
    }
    if keys.len() != queries * count {
        return Err(of(format!("{} numbers, where {queries} x {count} are wanted", keys.len())));
    }
    let distances = match distances {
        true => {
            let distances = floats(file, "distances", Some(queries))?;
            if distances.dimension != count || distances.elements.len() != keys.len() {
                return Err("neighbors and distances are of different shapes".into());
            }
            Some(distances.elements)
        }
        false => None,
    };
    Ok(Neighbours { count, keys, distances })
}

fn shape(file: &File, name: &str) -> Read<Vec<u64>> {
    let dataset = file.dataset(name).and_then(|dataset| dataset.shape());
    dataset.map_err(|cause| format!("{name}: {cause}"))
}

/// The first rows of a dataset of floats, or all.
fn floats(file: &File, name: &str, cut: Option<usize>) -> Read<Matrix> {
    let (dataset, rows, dimension) = open(file, name, cut)?;
    let of = |cause: hdf5_pure::Error| format!("{name}: {cause}");
    let elements = match dataset.dtype().map_err(of)? {
        DType::F32 | DType::F64 => dataset.read_f32_rows(0, rows as u64).map_err(of)?,
        DType::Other(other) if let Some(order) = half_order(&other) => {
            let bytes = dataset.read_raw_rows(0, rows as u64).map_err(of)?;
            let from = match order {
                DatatypeByteOrder::BigEndian => f16::from_be_bytes,
                _ => f16::from_le_bytes,
            };
            bytes.as_chunks().0.iter().map(|bytes| from(*bytes).to_f32()).collect()
        }
        other => {
            return Err(format!("{name}: elements of type {other}, where floats are wanted"));
        }
    };
    if elements.len() != rows * dimension {
        return Err(format!("{name}: {} numbers, not {rows} x {dimension}", elements.len()));
    }
    let matrix = Matrix { dimension, elements };
    matrix.finite().map_err(|cause| format!("{name}: {cause}"))
}

/// The byte order of IEEE floats of 16 bits.
fn half_order(datatype: &Datatype) -> Option<DatatypeByteOrder> {
    match datatype {
        Datatype::FloatingPoint { size: 2, byte_order, layout }
            if layout.exponent_size == 5 && layout.mantissa_size == 10 =>
        {
            Some(*byte_order)
        }
        _ => None,
    }
}

/// A dataset of two dimensions that can be as large as it says: with the rows wanted, and columns.
fn open(file: &File, name: &str, cut: Option<usize>) -> Read<(Dataset, usize, usize)> {
    let of = |cause: String| format!("{name}: {cause}");
    let failed = |cause: hdf5_pure::Error| format!("{name}: {cause}");
    let dataset = file.dataset(name).map_err(failed)?;
    let shape = dataset.shape().map_err(failed)?;
    let (rows, columns) = checked_shape(&shape, cut).map_err(of)?;
    // Two dimensions that memory has room for: no product of theirs overflows.
    let elements: u128 = shape.iter().map(|side| u128::from(*side)).product();
    let bytes = elements.saturating_mul(dataset.element_size().map_err(failed)?.into());
    let there = file.file_size();
    let most = match dataset.layout().map_err(failed)? {
        Layout::Chunked { chunk_shape, .. } => {
            check_chunks(file, &dataset, &shape, &chunk_shape).map_err(of)?;
            there.saturating_mul(EXPANSION_MAX)
        }
        _ => there,
    };
    if bytes > most.into() {
        return Err(of(format!(
            "{bytes} bytes of numbers, more than a file of {there} bytes holds"
        )));
    }
    Ok((dataset, rows, columns))
}

/// Where chunks are and how large: the library takes memory for what the file says.
fn check_chunks(file: &File, dataset: &Dataset, shape: &[u64], chunk_shape: &[u64]) -> Read<()> {
    let product = |sides: &[u64]| sides.iter().try_fold(1u64, |all, side| all.checked_mul(*side));
    let allowed = product(shape).unwrap_or(u64::MAX).max(CHUNK_ELEMENTS);
    if product(chunk_shape).is_none_or(|elements| elements > allowed) {
        return Err(format!("chunks of shape {chunk_shape:?}, and an array of shape {shape:?}"));
    }
    let there = file.file_size();
    for chunk in dataset.chunks().map_err(|cause| cause.to_string())? {
        let end = chunk.address.checked_add(chunk.storage_size);
        if end.is_none_or(|end| end > there) {
            return Err(format!(
                "a chunk of {} bytes at byte {}, beyond the end of the file",
                chunk.storage_size, chunk.address
            ));
        }
        if chunk.offset.len() != shape.len()
            || chunk.offset.iter().zip(shape).any(|(offset, side)| offset >= side)
        {
            return Err(format!("a chunk at {:?}, and an array of shape {shape:?}", chunk.offset));
        }
    }
    Ok(())
}
