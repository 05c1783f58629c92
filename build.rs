//! Builds what is not Rust: the C++ shim over faiss.

use std::env;
use std::path::PathBuf;

fn main() {
    compile_faiss_shim();
}

/// Compiles `src/native/shim.cpp` against the headers that `faiss-sys` installed, and links it and
/// OpenBLAS. `cc` reads the same `CXXFLAGS` that faiss was compiled with, so both use one
/// instruction set.
///
/// The order matters twice. The shim is bundled into this crate, which the linker meets before
/// `faiss-sys`, so that faiss resolves the shim's symbols. OpenBLAS is named before the `-lblas
/// -llapack` of `faiss-sys`; since the shim needs a symbol that only OpenBLAS has, the linker keeps
/// it and takes the BLAS routines from it, whatever `libblas.so` happens to be on the machine.
fn compile_faiss_shim() {
    println!("cargo:rerun-if-changed=src/native/shim.cpp");
    let root = env::var_os("DEP_FAISS_C_ROOT")
        .map(PathBuf::from)
        .expect("faiss-sys is a direct dependency with `links`, so cargo names its output folder");
    cc::Build::new()
        .cpp(true)
        .std("c++17")
        .flag("-fopenmp")
        .opt_level(3)
        .define("NDEBUG", None)
        .include(root.join("include"))
        .file("src/native/shim.cpp")
        .compile("voisin_faiss_shim");
    println!("cargo:rustc-link-lib=openblas");
}
