//! Damaged and hostile files of each format: refused in words that name the file, or read; never a panic,
//! never memory by a made-up number.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;

/// Most anonymous memory of this process so far.
fn peak_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

/// Reads a file and all that can be made of its columns.
fn read_all(path: &Path) -> std::result::Result<(), FileError> {
    let mut reader = open(path)?;
    while let Some(block) = reader.read(64)? {
        for array in &block.columns {
            keys(array, |_, _| ());
            let _ = values(array, |_, _| ());
            let _ = vectors(array, ElementType::Fp32, DIMENSION as u32, |_, _| ());
        }
        // A file may say that it has any number of rows without columns that take room.
        if reader.at() > 100_000 {
            break;
        }
    }
    Ok(())
}

/// Changes of a few bytes, and cuts. Each is refused or read.
fn check_damage(name: &str, times: usize, seed: u64, write: impl FnOnce(&Path)) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join(name);
    write(&path);
    read_all(&path).expect("it is good");
    let bytes = std::fs::read(&path).expect("bytes");
    let mut rng = StdRng::seed_from_u64(seed);
    let (mut refused, before) = (0, peak_bytes());
    for _ in 0..times {
        let mut damaged = bytes.clone();
        for _ in 0..rng.random_range(1..4) {
            // What describes the rows is at the ends.
            let end = bytes.len().min(2_000);
            let at = match rng.random_range(0..3) {
                0 => rng.random_range(0..bytes.len()),
                1 => rng.random_range(0..end),
                _ => bytes.len() - 1 - rng.random_range(0..end),
            };
            let width = [1, 1, 2, 4, 8][rng.random_range(0..5)].min(bytes.len() - at);
            let value = match rng.random_range(0..4) {
                0 => u64::MAX,
                1 => 1 << rng.random_range(0..64),
                2 => rng.random_range(0..300),
                _ => rng.random(),
            };
            damaged[at..at + width].copy_from_slice(&value.to_le_bytes()[..width]);
        }
        if rng.random_range(0..5) == 0 {
            damaged.truncate(rng.random_range(0..bytes.len()));
        }
        std::fs::write(&path, &damaged).expect("written");
        if let Err(error) = read_all(&path) {
            refused += 1;
            assert!(error.to_string().contains(name), "{error}");
        }
    }
    assert!(refused > times / 50, "only {refused} of {times} were refused");
    let taken = peak_bytes().saturating_sub(before);
    assert!(taken < 1 << 30, "{name}: {taken} bytes of memory were taken");
}

#[test]
fn damaged_arrow_files_are_refused_or_read() {
    check_damage("a.arrow", 1_000, 1, |path| write_ipc(path, &table(), None));
    let lz4 = Some(CompressionType::LZ4_FRAME);
    check_damage("b.feather", 1_000, 2, |path| write_ipc(path, &table(), lz4));
    let zstd = Some(CompressionType::ZSTD);
    check_damage("c.feather", 1_000, 3, |path| write_ipc(path, &table(), zstd));
    check_damage("d.arrows", 1_000, 4, |path| write_stream(path, &table()));
}

#[test]
fn damaged_parquet_files_are_refused_or_read() {
    let snappy = Compression::SNAPPY;
    check_damage("a.parquet", 1_000, 1, |path| write_parquet(path, &table(), snappy));
    let zstd = Compression::ZSTD(ZstdLevel::default());
    check_damage("b.parquet", 1_000, 2, |path| write_parquet(path, &table(), zstd));
    let none = Compression::UNCOMPRESSED;
    check_damage("c.parquet", 1_000, 3, |path| write_parquet(path, &table(), none));
}

#[test]
fn damaged_files_of_numpy_are_refused_or_read() {
    check_damage("a.npz", 1_000, 1, |path| write_npz(path, true, &npz_arrays()[..3]));
    check_damage("b.npz", 1_000, 2, |path| write_npz(path, false, &npz_arrays()[..3]));
    let (_, array) = npz_arrays().swap_remove(1);
    check_damage("c.npy", 1_000, 3, |path| std::fs::write(path, &array).expect("written"));
}

#[test]
fn damaged_vecs_and_hdf5_and_json_files_are_refused_or_read() {
    let numbers: Vec<f32> = (0..200).map(|n| n as f32).collect();
    check_damage("a.fvecs", 1_000, 1, |path| write_vecs(path, 4, &numbers).expect("written"));
    let bytes = [&[5, 0, 0, 0, 1, 2, 3, 4, 5][..]; 40].concat();
    check_damage("a.bvecs", 1_000, 2, |path| std::fs::write(path, &bytes).expect("written"));
    check_damage("a.h5", 1_000, 3, |path| write_hdf5(path, true));
    check_damage("b.h5", 1_000, 4, |path| write_hdf5(path, false));
    // A line that is wrong does not make a file wrong, unless there is no other.
    check_damage("a.jsonl", 1_000, 5, |path| write_json(path, &table().slice(0, 1)));
}

/// Sizes that a file declares and does not have.
#[test]
fn nothing_is_allocated_for_sizes_that_are_only_declared() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).expect("written");
        open(&path).and_then(|mut reader| reader.read(10)).expect_err(name).to_string()
    };
    let before = peak_bytes();
    let error = at("a.fvecs", &[0xff, 0xff, 0xff, 0x7f, 0, 0, 0, 0]);
    assert!(error.contains("dimension 2147483647, expected 1 to 65536"), "{error}");
    let error = at("a.npy", &npy("<f4", "(4000000000, 65536)", &[0; 64]));
    assert!(error.contains("cut short"), "{error}");
    let error = at("b.npy", &npy("<U999999999", "(2,)", &[0; 64]));
    assert!(error.contains("where numbers or text are wanted"), "{error}");
    let mut hostile = b"ARROW1\0\0".to_vec();
    hostile.extend(b"\xff\xff\xff\x7fARROW1");
    let error = at("a.arrow", &hostile);
    assert!(error.contains("does not end as Arrow files do"), "{error}");
    // A message of Arrow with a description of 2 GiB, and a body of 8 EiB.
    let error = at("a.arrows", b"\xff\xff\xff\xff\xff\xff\xff\x7f12345678");
    assert!(error.contains("does not begin as Arrow files"), "{error}");
    // The metadata of a Parquet file, said to be of 4 GiB.
    let error = at("a.parquet", b"PAR1xxxxxxxx\xff\xff\xff\xffPAR1");
    assert!(error.contains("a.parquet"), "{error}");
    assert!(peak_bytes() - before < 256 << 20);
}
