//! Builds what is not Rust: the wire contracts, and the C++ shim over faiss.

use std::error::Error;
use std::path::PathBuf;

use prost::Message;

fn main() -> Result<(), Box<dyn Error>> {
    compile_faiss_shim()?;
    compile_protos()
}

/// Turns the contracts under `proto/` into Rust (servers for us, clients for the tests), and keeps
/// their descriptors for gRPC reflection. The compiler is `protox`, so no `protoc` is needed.
fn compile_protos() -> Result<(), Box<dyn Error>> {
    const CONTRACTS: [&str; 2] = ["proxima/be/proxima_be.proto", "voisin/v1/voisin.proto"];
    println!("cargo::rerun-if-changed=proto");
    let descriptors = protox::compile(CONTRACTS, ["proto"])?;
    let out_dir = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out_dir.join("descriptors.bin"), descriptors.encode_to_vec())?;
    // `bytes::Bytes` lets a vector stay where it lies in the received message.
    tonic_prost_build::configure().bytes(".").compile_fds(descriptors)?;
    Ok(())
}

/// Compiles the C++ of `src/native` against the headers that `faiss-sys` installed, and links it and
/// OpenBLAS. `cc` reads the same `CXXFLAGS` that faiss was compiled with, so both use one
/// instruction set.
///
/// The order matters twice. The shim is bundled into this crate, which the linker meets before
/// `faiss-sys`, so that faiss resolves the shim's symbols. OpenBLAS is named before the `-lblas
/// -llapack` of `faiss-sys`; since the shim needs a symbol that only OpenBLAS has, the linker keeps
/// it and takes the BLAS routines from it, whatever `libblas.so` happens to be on the machine.
fn compile_faiss_shim() -> Result<(), Box<dyn Error>> {
    const SOURCES: [&str; 3] =
        ["src/native/shim.cpp", "src/native/trained.cpp", "src/native/interrupt.cpp"];
    const HEADERS: [&str; 4] = [
        "src/native/guard.hpp",
        "src/native/interrupt.hpp",
        "src/native/trained_mend.hpp",
        "src/native/trained_check.hpp",
    ];
    HEADERS.iter().for_each(|header| println!("cargo::rerun-if-changed={header}"));
    SOURCES.iter().for_each(|source| println!("cargo::rerun-if-changed={source}"));
    // faiss-sys is a direct dependency with `links`, so cargo names its output folder.
    let root = PathBuf::from(std::env::var("DEP_FAISS_C_ROOT")?);
    cc::Build::new()
        .cpp(true)
        .std("c++17")
        .flag("-fopenmp")
        .opt_level(3)
        .define("NDEBUG", None)
        .include(root.join("include"))
        .files(SOURCES)
        .try_compile("voisin_faiss_shim")?;
    println!("cargo::rustc-link-lib=openblas");
    Ok(())
}
