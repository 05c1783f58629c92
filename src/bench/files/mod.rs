//! Vectors from files: which file holds what, and what all of them must keep. One file for each format
//! knows its bytes; nothing there takes memory by a number of the file that was not checked.

mod fvecs;
mod hdf5;
mod npy;

use std::collections::HashSet;
use std::fmt::Display;
use std::path::{Path, PathBuf};

use super::data::Vectors;
use super::{BenchError, Result};
use crate::memory::MemoryLimit;
use crate::schema::Metric;

/// Highest dimension that a file may have.
const DIMENSION_MAX: u64 = 65_536;

/// What a file's reader says is wrong; the path is put before it.
type Read<T> = std::result::Result<T, String>;

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
        match name.to_ascii_lowercase().as_str() {
            // The root changes no order.
            "euclidean" | "l2" => Ok(Some(Metric::SquaredEuclidean)),
            "angular" | "cosine" => Ok(Some(Metric::Cosine)),
            "ip" | "dot" => Ok(Some(Metric::InnerProduct)),
            "manhattan" | "l1" => Ok(Some(Metric::Manhattan)),
            _ => Err(failed(
                path,
                format!(
                    "its distance is {name:?}, and euclidean, angular, ip and manhattan are known; \
                     --metric sets another"
                ),
            )),
        }
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
}

impl Matrix {
    /// The vectors if all elements are finite.
    fn finite(self) -> Read<Matrix> {
        match self.elements.iter().position(|x| !x.is_finite()) {
            None => Ok(self),
            Some(place) => Err(format!(
                "element {} of vector {} is {}, not a finite number of 32 bits",
                place % self.dimension,
                place / self.dimension,
                self.elements[place]
            )),
        }
    }
}

fn failed(path: &Path, cause: impl Display) -> BenchError {
    BenchError(format!("{}: {cause}", path.display()))
}

/// Rows wanted and dimension of an array, if memory may be taken for them.
fn checked_shape(shape: &[u64], cut: Option<usize>) -> Read<(usize, usize)> {
    let &[rows, dimension] = shape else {
        return Err(format!("an array of shape {shape:?}, where rows and columns are wanted"));
    };
    if rows == 0 {
        return Err("no rows".into());
    }
    if !(1..=DIMENSION_MAX).contains(&dimension) {
        return Err(format!("dimension {dimension}, expected 1 to {DIMENSION_MAX}"));
    }
    let rows = rows.min(cut.map_or(u64::MAX, |cut| cut as u64));
    let (bytes, limit) = (u128::from(rows) * u128::from(dimension) * 4, memory_max());
    if bytes > u128::from(limit) {
        return Err(format!(
            "{rows} vectors of dimension {dimension} take {bytes} bytes of memory, and {limit} may \
             be taken; --rows and --queries read fewer"
        ));
    }
    // Both fit: they are below a number of bytes that fits into memory.
    Ok((rows as usize, dimension as usize))
}

/// Bytes that vectors may take.
fn memory_max() -> u64 {
    MemoryLimit::new(0).limit()
}

/// Reads a file of the ann-benchmarks layout, or `base` and `query` of a folder.
pub(super) fn read(path: &Path, cut: Cut) -> Result<Given> {
    let metadata = std::fs::metadata(path).map_err(|cause| failed(path, cause))?;
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    let given = match (metadata.is_dir(), extension) {
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
            Given::made(together(rows, queries))
        }
        (false, "hdf5" | "h5") => hdf5::read(path, cut).map_err(|cause| failed(path, cause))?,
        (false, _) => {
            let wanted = "a folder with base and query (.fvecs or .npy), or an .hdf5 or .h5 file";
            return Err(failed(path, format!("{wanted} is wanted")));
        }
    };
    Ok(given)
}

fn together(rows: Matrix, queries: Matrix) -> Vectors {
    Vectors { dimension: rows.dimension, rows: rows.elements, queries: queries.elements }
}

fn read_of_folder(folder: &Path, name: &str, cut: Option<usize>) -> Result<(PathBuf, Matrix)> {
    let [fvecs, npy] = ["fvecs", "npy"].map(|end| folder.join(format!("{name}.{end}")));
    let (path, read) = match (fvecs.exists(), npy.exists()) {
        (true, false) => (fvecs, fvecs::read(&folder.join(format!("{name}.fvecs")), cut)),
        (false, true) => (npy, npy::read(&folder.join(format!("{name}.npy")), cut)),
        (true, true) => {
            return Err(failed(folder, format!("both {name}.fvecs and {name}.npy are there")));
        }
        (false, false) => {
            return Err(failed(folder, format!("neither {name}.fvecs nor {name}.npy is there")));
        }
    };
    let matrix = read.and_then(Matrix::finite).map_err(|cause| failed(&path, cause))?;
    Ok((path, matrix))
}

/// Writes `base.fvecs` and `query.fvecs` into a folder, which is made if need be.
pub(super) fn write(vectors: &Vectors, folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder).map_err(|cause| failed(folder, cause))?;
    for (name, elements) in [("base", &vectors.rows), ("query", &vectors.queries)] {
        let path = folder.join(format!("{name}.fvecs"));
        fvecs::write(&path, vectors.dimension, elements).map_err(|cause| failed(&path, cause))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
