//! What the native code of this binary really is: for the log line at start-up.

use super::error::NativeResult;
use super::ffi;

/// The native code this binary was linked with, in its own words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuildInfo {
    /// faiss's version, such as "1.12.0".
    pub faiss_version: String,
    /// `faiss::get_compile_options()`, such as "OPTIMIZE AVX512". The function's body is inside
    /// libfaiss.a and chosen there by the preprocessor, so it is the archive's own evidence of the
    /// flags its files were compiled with. "GENERIC" means none: SSE2 on x86-64.
    pub compile_options: String,
    /// The instruction set the shim was compiled for, in the same words. It comes from the same
    /// `CXXFLAGS`; should it differ from `compile_options`, one of the two was built stale.
    pub shim_simd: String,
    /// OpenBLAS's version, options and chosen core. Reference BLAS cannot answer this: without
    /// OpenBLAS the binary does not link.
    pub blas: String,
}

impl BuildInfo {
    /// The widest instruction set faiss was compiled for: "AVX512", "AVX2", "SVE", "NEON" or "GENERIC".
    pub fn simd(&self) -> &'static str {
        widest(&self.compile_options)
    }
}

/// Asks faiss and OpenBLAS what they are. Fails only when memory does.
pub fn build_info() -> NativeResult<BuildInfo> {
    let text = ffi::build_info()?;
    let mut lines = text.lines().map(|line| line.trim().to_owned());
    let mut next = || lines.next().unwrap_or_default();
    Ok(BuildInfo {
        faiss_version: next(),
        compile_options: next(),
        shim_simd: next(),
        blas: next(),
    })
}

fn widest(options: &str) -> &'static str {
    ["AVX512", "AVX2", "SVE", "NEON"]
        .into_iter()
        .find(|name| options.split_whitespace().any(|word| word == *name))
        .unwrap_or("GENERIC")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_instruction_set_faiss_reports() {
        assert_eq!(widest("OPTIMIZE AVX512"), "AVX512");
        assert_eq!(widest("OPTIMIZE SVE NEON"), "SVE");
        assert_eq!(widest("OPTIMIZE GENERIC"), "GENERIC");
    }

    #[test]
    fn libfaiss_and_the_shim_were_compiled_alike_and_optimised() {
        let info = build_info().expect("build info");
        assert_eq!(info.faiss_version, "1.12.0");
        assert!(info.compile_options.contains("OPTIMIZE"), "{info:?}");
        assert_eq!(info.simd(), widest(&info.shim_simd), "{info:?}");
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn libfaiss_uses_avx2_where_the_cpu_has_it() {
        if std::arch::is_x86_feature_detected!("avx2") {
            let info = build_info().expect("build info");
            assert!(matches!(info.simd(), "AVX2" | "AVX512"), "CXXFLAGS lacks -march: {info:?}");
        }
    }

    #[test]
    fn blas_is_openblas() {
        let info = build_info().expect("build info");
        assert!(info.blas.contains("OpenBLAS"), "{info:?}");
    }
}
