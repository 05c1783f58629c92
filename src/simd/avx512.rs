//! The kernels' arithmetic in AVX-512. A line is one register, and tails are read under a mask.

use std::arch::x86_64::*;

use super::element::{Fp16, Fp32, Int4, Int8, Int16};
use super::kernel::{Kernel, scan_rows};
use super::lanes::{Arith, Decode, Differ, Line, Target};

/// The token of the AVX-512 level: proof that the CPU has AVX-512 F, BW, DQ and VL.
#[derive(Clone, Copy)]
pub(super) struct Avx512(());

impl Avx512 {
    /// The token, where the CPU has the instructions.
    pub(super) fn detect() -> Option<Self> {
        let all = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl");
        all.then_some(Avx512(()))
    }
}

/// The token of AVX-512 for the bit types: proof that the CPU has AVX-512 F, BW and VPOPCNTDQ.
#[derive(Clone, Copy)]
pub(super) struct Avx512Popcount(());

impl Avx512Popcount {
    /// The token, where the CPU has the instructions.
    pub(super) fn detect() -> Option<Self> {
        let all = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vpopcntdq");
        all.then_some(Avx512Popcount(()))
    }
}

/// Intrinsics in a method of a token, or in a function that takes it.
macro_rules! cpu {
    ($body:expr) => {{
        // SAFETY: a token is in hand, which only its `detect` makes, so the CPU has the
        // instructions. Loads read within the reference they are given, unaligned; a masked load
        // reads only what its mask selects, which lies within the slice its length made the mask from.
        unsafe { $body }
    }};
}

/// The lowest `count` bits of 64, at most all of them.
#[inline(always)]
fn low_bits(count: usize) -> u64 {
    if count < 64 { (1 << count) - 1 } else { u64::MAX }
}

impl Target for Avx512 {
    fn scan<K: Kernel>(self, kernel: &K, vector_bytes: usize, rows: &[u8], out: &mut [f32]) {
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
        fn compiled<K: Kernel>(kernel: &K, vector_bytes: usize, rows: &[u8], out: &mut [f32]) {
            scan_rows(kernel, vector_bytes, rows, out);
        }
        cpu!(compiled(kernel, vector_bytes, rows, out))
    }
}

impl Target for Avx512Popcount {
    fn scan<K: Kernel>(self, kernel: &K, vector_bytes: usize, rows: &[u8], out: &mut [f32]) {
        #[target_feature(enable = "avx512f,avx512bw,avx512vpopcntdq")]
        fn compiled<K: Kernel>(kernel: &K, vector_bytes: usize, rows: &[u8], out: &mut [f32]) {
            scan_rows(kernel, vector_bytes, rows, out);
        }
        cpu!(compiled(kernel, vector_bytes, rows, out))
    }
}

impl Arith<f32> for Avx512 {
    type Vector = __m512;
    type Sums = __m512;

    #[inline(always)]
    fn zero(self) -> __m512 {
        cpu!(_mm512_setzero_ps())
    }

    #[inline(always)]
    fn line(self, line: &Line) -> __m512 {
        cpu!(_mm512_loadu_ps(line.0.as_ptr().cast()))
    }

    #[inline(always)]
    fn add_squares(self, sums: __m512, a: __m512, b: __m512) -> __m512 {
        cpu!({
            let difference = _mm512_sub_ps(a, b);
            _mm512_fmadd_ps(difference, difference, sums)
        })
    }

    #[inline(always)]
    fn add_products(self, sums: __m512, a: __m512, b: __m512) -> __m512 {
        cpu!(_mm512_fmadd_ps(a, b, sums))
    }

    #[inline(always)]
    fn add_absolutes(self, sums: __m512, a: __m512, b: __m512) -> __m512 {
        cpu!(_mm512_add_ps(sums, _mm512_abs_ps(_mm512_sub_ps(a, b))))
    }

    #[inline(always)]
    fn merge(self, a: __m512, b: __m512) -> __m512 {
        cpu!(_mm512_add_ps(a, b))
    }

    #[inline(always)]
    fn total(self, sums: __m512) -> f64 {
        // Not `_mm512_reduce_add_ps`, which leaves the order of its additions to the compiler.
        cpu!({
            let high = _mm512_extractf32x8_ps(sums, 1);
            let eight = _mm256_add_ps(_mm512_castps512_ps256(sums), high);
            let four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
            let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
            let one = _mm_add_ss(two, _mm_movehdup_ps(two));
            f64::from(_mm_cvtss_f32(one))
        })
    }
}

impl Arith<i16> for Avx512 {
    type Vector = __m512i;
    type Sums = __m512i;

    #[inline(always)]
    fn zero(self) -> __m512i {
        cpu!(_mm512_setzero_si512())
    }

    #[inline(always)]
    fn line(self, line: &Line) -> __m512i {
        cpu!(_mm512_loadu_si512(line.0.as_ptr().cast()))
    }

    #[inline(always)]
    fn add_squares(self, sums: __m512i, a: __m512i, b: __m512i) -> __m512i {
        cpu!({
            let difference = _mm512_sub_epi16(a, b);
            _mm512_add_epi32(sums, _mm512_madd_epi16(difference, difference))
        })
    }

    #[inline(always)]
    fn add_products(self, sums: __m512i, a: __m512i, b: __m512i) -> __m512i {
        cpu!(_mm512_add_epi32(sums, _mm512_madd_epi16(a, b)))
    }

    #[inline(always)]
    fn add_absolutes(self, sums: __m512i, a: __m512i, b: __m512i) -> __m512i {
        cpu!({
            let difference = _mm512_abs_epi16(_mm512_sub_epi16(a, b));
            _mm512_add_epi32(sums, _mm512_madd_epi16(difference, _mm512_set1_epi16(1)))
        })
    }

    #[inline(always)]
    fn merge(self, a: __m512i, b: __m512i) -> __m512i {
        cpu!(_mm512_add_epi32(a, b))
    }

    #[inline(always)]
    fn total(self, sums: __m512i) -> f64 {
        cpu!({
            let low = _mm512_cvtepi32_epi64(_mm512_castsi512_si256(sums));
            let high = _mm512_cvtepi32_epi64(_mm512_extracti64x4_epi64(sums, 1));
            _mm512_reduce_add_epi64(_mm512_add_epi64(low, high)) as f64
        })
    }
}

impl Arith<i32> for Avx512 {
    type Vector = __m512i;
    type Sums = __m512i;

    #[inline(always)]
    fn zero(self) -> __m512i {
        cpu!(_mm512_setzero_si512())
    }

    #[inline(always)]
    fn line(self, line: &Line) -> __m512i {
        cpu!(_mm512_loadu_si512(line.0.as_ptr().cast()))
    }

    #[inline(always)]
    fn add_squares(self, sums: __m512i, a: __m512i, b: __m512i) -> __m512i {
        let difference = cpu!(_mm512_sub_epi32(a, b));
        Arith::<i32>::add_products(self, sums, difference, difference)
    }

    #[inline(always)]
    fn add_products(self, sums: __m512i, a: __m512i, b: __m512i) -> __m512i {
        // The 64-bit multiplication reads the even numbers; shifts bring the odd ones there.
        cpu!({
            let odd = _mm512_mul_epi32(_mm512_srli_epi64(a, 32), _mm512_srli_epi64(b, 32));
            _mm512_add_epi64(_mm512_add_epi64(sums, _mm512_mul_epi32(a, b)), odd)
        })
    }

    #[inline(always)]
    fn add_absolutes(self, sums: __m512i, a: __m512i, b: __m512i) -> __m512i {
        cpu!({
            let difference = _mm512_abs_epi32(_mm512_sub_epi32(a, b));
            let even = _mm512_and_si512(difference, _mm512_set1_epi64(0xffff_ffff));
            _mm512_add_epi64(_mm512_add_epi64(sums, even), _mm512_srli_epi64(difference, 32))
        })
    }

    #[inline(always)]
    fn merge(self, a: __m512i, b: __m512i) -> __m512i {
        cpu!(_mm512_add_epi64(a, b))
    }

    #[inline(always)]
    fn total(self, sums: __m512i) -> f64 {
        cpu!(_mm512_reduce_add_epi64(sums) as f64)
    }
}

impl Decode<Fp32> for Avx512 {
    #[inline(always)]
    fn block(self, block: &[u8; 64]) -> __m512 {
        cpu!(_mm512_loadu_ps(block.as_ptr().cast()))
    }

    #[inline(always)]
    fn tail(self, tail: &[u8]) -> __m512 {
        let mask = low_bits(tail.len() / 4) as u16;
        cpu!(_mm512_maskz_loadu_ps(mask, tail.as_ptr().cast()))
    }
}

impl Decode<Fp16> for Avx512 {
    #[inline(always)]
    fn block(self, block: &[u8; 32]) -> __m512 {
        cpu!(_mm512_cvtph_ps(_mm256_loadu_si256(block.as_ptr().cast())))
    }

    #[inline(always)]
    fn tail(self, tail: &[u8]) -> __m512 {
        cpu!(_mm512_cvtph_ps(tail_of_half_line(self, tail)))
    }
}

impl Decode<Int8> for Avx512 {
    #[inline(always)]
    fn block(self, block: &[u8; 32]) -> __m512i {
        cpu!(_mm512_cvtepi8_epi16(_mm256_loadu_si256(block.as_ptr().cast())))
    }

    #[inline(always)]
    fn tail(self, tail: &[u8]) -> __m512i {
        cpu!(_mm512_cvtepi8_epi16(tail_of_half_line(self, tail)))
    }
}

impl Decode<Int4> for Avx512 {
    #[inline(always)]
    fn block(self, block: &[u8; 16]) -> __m512i {
        nibbles(self, cpu!(_mm_loadu_si128(block.as_ptr().cast())))
    }

    #[inline(always)]
    fn tail(self, tail: &[u8]) -> __m512i {
        let mask = low_bits(tail.len()) as u16;
        nibbles(self, cpu!(_mm_maskz_loadu_epi8(mask, tail.as_ptr().cast())))
    }
}

impl Decode<Int16> for Avx512 {
    #[inline(always)]
    fn block(self, block: &[u8; 32]) -> __m512i {
        cpu!(_mm512_cvtepi16_epi32(_mm256_loadu_si256(block.as_ptr().cast())))
    }

    #[inline(always)]
    fn tail(self, tail: &[u8]) -> __m512i {
        cpu!(_mm512_cvtepi16_epi32(tail_of_half_line(self, tail)))
    }
}

/// Fewer than 32 bytes, then zeros.
#[inline(always)]
fn tail_of_half_line(_: Avx512, tail: &[u8]) -> __m256i {
    let mask = low_bits(tail.len()) as u32;
    cpu!(_mm256_maskz_loadu_epi8(mask, tail.as_ptr().cast()))
}

/// The low nibbles of 16 bytes, then their high nibbles: each goes up to the top of its 16 bits and
/// comes down with its sign.
#[inline(always)]
fn nibbles(_: Avx512, bytes: __m128i) -> __m512i {
    cpu!({
        let twice = _mm512_cvtepi8_epi16(_mm256_broadcastsi128_si256(bytes));
        let up = _mm512_inserti64x4(_mm512_set1_epi16(12), _mm256_set1_epi16(8), 1);
        _mm512_srai_epi16(_mm512_sllv_epi16(twice, up), 12)
    })
}

impl Differ for Avx512Popcount {
    #[inline(always)]
    fn differing(self, a: &[u8], b: &[u8]) -> u64 {
        let (a_blocks, a_tail) = a.as_chunks::<64>();
        let (b_blocks, b_tail) = b.as_chunks::<64>();
        let mut sums = cpu!(_mm512_setzero_si512());
        for (a, b) in a_blocks.iter().zip(b_blocks) {
            sums = cpu!({
                let a = _mm512_loadu_si512(a.as_ptr().cast());
                let b = _mm512_loadu_si512(b.as_ptr().cast());
                _mm512_add_epi64(sums, _mm512_popcnt_epi64(_mm512_xor_si512(a, b)))
            });
        }
        let mask = low_bits(a_tail.len().min(b_tail.len()));
        if mask != 0 {
            sums = cpu!({
                let a = _mm512_maskz_loadu_epi8(mask, a_tail.as_ptr().cast());
                let b = _mm512_maskz_loadu_epi8(mask, b_tail.as_ptr().cast());
                _mm512_add_epi64(sums, _mm512_popcnt_epi64(_mm512_xor_si512(a, b)))
            });
        }
        cpu!(_mm512_reduce_add_epi64(sums) as u64)
    }
}
