//! Vectors from files to measure with: which file holds what. `crate::files` reads them.

use std::collections::HashSet;
use std::fmt::Display;
use std::path::{Path, PathBuf};

use arrow_schema::DataType;

use super::data::Vectors;
use super::{BenchError, Result};
use crate::files::{self, FileError, Form, Reader, Wanted};
use crate::schema::{ElementType, Metric};

/// Rows read at once.
const BLOCK_ROWS: usize = 8_192;

impl From<FileError> for BenchError {
    fn from(cause: FileError) -> Self {
        BenchError(cause.to_string())
    }
}

/// How much of the files is wanted; all where nothing is said.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Cut {
    pub rows: Option<usize>,
    pub queries: Option<usize>,
}

/// What files hold.
#[derive(Debug)]
pub(super) struct Given {
    pub vectors: Vectors,
    /// How the file says that vectors are compared.
    pub distance: Option<String>,
    /// The nearest rows as the file has them; none when rows were left out.
    pub neighbours: Option<Neighbours>,
}

impl Given {
    /// Vectors that nothing more is known about.
    pub fn made(vectors: Vectors) -> Given {
        Given { vectors, distance: None, neighbours: None }
    }

    /// The metric that the files name, if they do.
    pub fn metric(&self, path: &Path) -> Result<Option<Metric>> {
        let Some(name) = &self.distance else { return Ok(None) };
        files::metric_of(name).map(Some).ok_or_else(|| {
            failed(
                path,
                format!(
                    "its distance is {name:?}, and euclidean, angular, ip and manhattan are known; \
                     --metric sets another"
                ),
            )
        })
    }
}

/// The nearest rows of each query, nearest first.
#[derive(Debug, PartialEq)]
pub(super) struct Neighbours {
    /// Of each query.
    count: usize,
    keys: Vec<u64>,
    /// As many, where the file has them.
    distances: Option<Vec<f32>>,
}

impl Neighbours {
    /// The `k` nearest of each query and those as far as the last of them, if there are as many.
    pub fn nearest(&self, k: usize) -> Option<Vec<HashSet<u64>>> {
        if k == 0 || k > self.count {
            return None;
        }
        let of_query = |(query, keys): (usize, &[u64])| {
            let distances = self.distances.as_deref().map(|all| &all[query * self.count..]);
            let is_in = |place: usize| {
                place < k || distances.is_some_and(|distances| distances[place] == distances[k - 1])
            };
            (0..self.count).take_while(|place| is_in(*place)).map(|place| keys[place]).collect()
        };
        Some(self.keys.chunks(self.count).enumerate().map(of_query).collect())
    }
}

/// Vectors of one dimension, one after the other.
#[derive(Debug)]
struct Matrix {
    dimension: usize,
    elements: Vec<f32>,
    /// True when the file has no more.
    is_whole: bool,
}

fn failed(path: &Path, cause: impl Display) -> BenchError {
    BenchError(format!("{}: {cause}", path.display()))
}

/// A column of vectors: that of the name, or the only one.
fn open(path: &Path, name: Option<&str>) -> Result<(Reader, u32, DataType)> {
    let names = name.map(str::to_owned).into_iter().collect();
    let wanted = Wanted { names, ..Wanted::default() };
    let mut reader = Reader::open(path, None, &wanted)?;
    let fields = reader.schema().fields().clone();
    let at = match name {
        None => 0,
        Some(name) => fields.iter().position(|field| field.name() == name).ok_or_else(|| {
            let there: Vec<&String> = fields.iter().map(|field| field.name()).collect();
            failed(path, format!("no dataset {name:?}, but {there:?}"))
        })?,
    };
    let field = &fields[at];
    if let Some(why) = files::unreadable(field) {
        return Err(failed(path, format!("{}: {why}", field.name())));
    }
    let item = match field.data_type() {
        DataType::FixedSizeList(item, _) => item.data_type().clone(),
        other => other.clone(),
    };
    if files::several(field.data_type()).is_some() {
        return Err(failed(path, format!("{}: lists of vectors", field.name())));
    }
    let Some(Form::Numbers(Some(dimension), _)) = files::form(field.data_type()) else {
        let why = "one number a row, where vectors are wanted";
        return Err(failed(path, format!("{}: {why}", field.name())));
    };
    if reader.rows() == 0 {
        return Err(failed(path, "no rows"));
    }
    reader.select(&[at])?;
    Ok((reader, dimension, item))
}

/// The first vectors of a file, or all.
fn floats(path: &Path, name: Option<&str>, cut: Option<usize>) -> Result<Matrix> {
    let (mut reader, dimension, item) = open(path, name)?;
    if !item.is_floating() {
        let name = name.unwrap_or("it");
        let why = format!("{name} has elements of type {item}, where floats are wanted");
        return Err(failed(path, why));
    }
    let rows = reader.rows().min(cut.map_or(u64::MAX, |cut| cut as u64));
    let (bytes, limit) = (u128::from(rows) * u128::from(dimension) * 4, files::memory_max());
    if bytes > u128::from(limit) {
        return Err(failed(
            path,
            format!(
                "{rows} vectors of dimension {dimension} take {bytes} bytes of memory, and {limit} \
                 may be taken; --rows and --queries read fewer"
            ),
        ));
    }
    let is_whole = rows == reader.rows();
    let mut elements = Vec::new();
    while reader.at() < rows {
        let (first, left) = (reader.at(), rows - reader.at());
        let rows_max = usize::try_from(left).unwrap_or(BLOCK_ROWS).min(BLOCK_ROWS);
        let Some(block) = reader.read(rows_max)? else { break };
        let mut wrong = None;
        let read = files::vectors(&block.columns[0], ElementType::Fp32, dimension, |row, why| {
            wrong.get_or_insert((row, why));
        });
        let read = read.map_err(|why| failed(path, why))?;
        let missing = read.counts.iter().position(|count| *count == 0);
        let missing = missing.map(|row| (row, "no vector".to_owned()));
        if let Some((row, why)) = wrong.or(missing) {
            let name = name.unwrap_or("it");
            return Err(failed(path, format!("{name}: row {}: {why}", first + row as u64)));
        }
        elements.extend(read.bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)));
    }
    Ok(Matrix { dimension: dimension as usize, elements, is_whole })
}

/// Reads a file of the ann-benchmarks layout, or `base` and `query` of a folder.
pub(super) fn read(path: &Path, cut: Cut) -> Result<Given> {
    let metadata = std::fs::metadata(path).map_err(|cause| failed(path, cause))?;
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    match (metadata.is_dir(), extension) {
        (true, _) => {
            let (rows_path, rows) = read_of_folder(path, "base", cut.rows)?;
            let (queries_path, queries) = read_of_folder(path, "query", cut.queries)?;
            if rows.dimension != queries.dimension {
                return Err(failed(
                    &queries_path,
                    format!(
                        "dimension {}, but {} has dimension {}",
                        queries.dimension,
                        rows_path.display(),
                        rows.dimension
                    ),
                ));
            }
            Ok(Given::made(together(rows, queries)))
        }
        (false, "hdf5" | "h5") => ann_benchmarks(path, cut),
        (false, _) => {
            let wanted = "a folder with base and query (.fvecs or .npy), or an .hdf5 or .h5 file";
            Err(failed(path, format!("{wanted} is wanted")))
        }
    }
}

/// Datasets `train` and `test`, perhaps `neighbors` and `distances`, and the attribute `distance`.
fn ann_benchmarks(path: &Path, cut: Cut) -> Result<Given> {
    let train = floats(path, Some("train"), cut.rows)?;
    let test = floats(path, Some("test"), cut.queries)?;
    if train.dimension != test.dimension {
        let (rows, queries) = (train.dimension, test.dimension);
        return Err(failed(path, format!("train has dimension {rows}, and test has {queries}")));
    }
    let rows = train.elements.len() / train.dimension;
    let queries = test.elements.len() / test.dimension;
    let has = |name: &str| files::has_dataset(path, name).map_err(|cause| failed(path, cause));
    let neighbours = match train.is_whole && has("neighbors")? {
        true => Some(neighbours(path, rows, queries, has("distances")?)?),
        false => None,
    };
    let distance = files::distance(path).map_err(|cause| failed(path, cause))?;
    Ok(Given { vectors: together(train, test), distance, neighbours })
}

fn neighbours(path: &Path, rows: usize, queries: usize, distances: bool) -> Result<Neighbours> {
    let of = |cause: String| failed(path, format!("neighbors: {cause}"));
    let (mut reader, count, _) = open(path, Some("neighbors"))?;
    let (given, count) = (reader.rows(), count as usize);
    if given < queries as u64 {
        return Err(of(format!("of {given} queries, and there are {queries}")));
    }
    let mut keys = Vec::new();
    while reader.at() < queries as u64 {
        let rows_max = (queries as u64 - reader.at()) as usize;
        let Some(block) = reader.read(rows_max.min(BLOCK_ROWS))? else { break };
        for key in files::integers(&block.columns[0]).map_err(of)? {
            match usize::try_from(key) {
                Ok(row) if row < rows => keys.push(row as u64),
                _ => {
                    let query = keys.len() / count;
                    let there = format!("query {query} names row {key}, and there are {rows}");
                    return Err(of(there));
                }
            }
        }
    }
    let distances = match distances {
        true => {
            let distances = floats(path, Some("distances"), Some(queries))?;
            if distances.dimension != count || distances.elements.len() != keys.len() {
                return Err(failed(path, "neighbors and distances are of different shapes"));
            }
            Some(distances.elements)
        }
        false => None,
    };
    Ok(Neighbours { count, keys, distances })
}

fn together(rows: Matrix, queries: Matrix) -> Vectors {
    Vectors { dimension: rows.dimension, rows: rows.elements, queries: queries.elements }
}

fn read_of_folder(folder: &Path, name: &str, cut: Option<usize>) -> Result<(PathBuf, Matrix)> {
    let [fvecs, npy] = ["fvecs", "npy"].map(|end| folder.join(format!("{name}.{end}")));
    let path = match (fvecs.exists(), npy.exists()) {
        (true, false) => fvecs,
        (false, true) => npy,
        (true, true) => {
            return Err(failed(folder, format!("both {name}.fvecs and {name}.npy are there")));
        }
        (false, false) => {
            return Err(failed(folder, format!("neither {name}.fvecs nor {name}.npy is there")));
        }
    };
    let matrix = floats(&path, None, cut)?;
    Ok((path, matrix))
}

/// Writes `base.fvecs` and `query.fvecs` into a folder, which is made if need be.
pub(super) fn write(vectors: &Vectors, folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder).map_err(|cause| failed(folder, cause))?;
    for (name, elements) in [("base", &vectors.rows), ("query", &vectors.queries)] {
        let path = folder.join(format!("{name}.fvecs"));
        files::write_vecs(&path, vectors.dimension, elements)
            .map_err(|cause| failed(&path, cause))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
