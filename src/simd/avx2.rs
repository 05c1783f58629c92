//! The kernels' arithmetic in AVX2 with FMA and F16C. A line is two registers.

use std::arch::x86_64::*;

use super::element::{Fp16, Fp32, Int4, Int8, Int16};
use super::kernel::{Kernel, scan_rows};
use super::lanes::{Arith, Decode, Differ, Line, Target};
use super::portable;

/// The token of the AVX2 level: proof that the CPU has AVX2, FMA, F16C and POPCNT.
#[derive(Clone, Copy)]
pub(super) struct Avx2(());

impl Avx2 {
    /// The token, where the CPU has the instructions.
    pub(super) fn detect() -> Option<Self> {
        let all = is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c")
            && is_x86_feature_detected!("popcnt");
        all.then_some(Avx2(()))
    }
}

/// Intrinsics in a method of the token, or in a function that takes it.
macro_rules! cpu {
    ($body:expr) => {{
        // SAFETY: an `Avx2` is in hand, which only `detect` makes, so the CPU has the instructions.
        // Loads read within the reference they are given, unaligned; a masked load reads only the
        // elements its mask selects, which lie within the slice its length made the mask from.
        unsafe { $body }
    }};
}

impl Target for Avx2 {
    fn scan<K: Kernel>(self, kernel: &K, vector_bytes: usize, rows: &[u8], out: &mut [f32]) {
        #[target_feature(enable = "avx2,fma,f16c,popcnt")]
        fn compiled<K: Kernel>(kernel: &K, vector_bytes: usize, rows: &[u8], out: &mut [f32]) {
            scan_rows(kernel, vector_bytes, rows, out);
        }
        cpu!(compiled(kernel, vector_bytes, rows, out))
    }
}

impl Arith<f32> for Avx2 {
    type Vector = [__m256; 2];
    type Sums = [__m256; 2];

    #[inline(always)]
    fn zero(self) -> Self::Sums {
        cpu!([_mm256_setzero_ps(), _mm256_setzero_ps()])
    }

    #[inline(always)]
    fn line(self, line: &Line) -> Self::Vector {
        floats(self, &line.0)
    }

    #[inline(always)]
    fn add_squares(self, s: Self::Sums, a: Self::Vector, b: Self::Vector) -> Self::Sums {
        cpu!({
            let d = [_mm256_sub_ps(a[0], b[0]), _mm256_sub_ps(a[1], b[1])];
            [_mm256_fmadd_ps(d[0], d[0], s[0]), _mm256_fmadd_ps(d[1], d[1], s[1])]
        })
    }

    #[inline(always)]
    fn add_products(self, s: Self::Sums, a: Self::Vector, b: Self::Vector) -> Self::Sums {
        cpu!([_mm256_fmadd_ps(a[0], b[0], s[0]), _mm256_fmadd_ps(a[1], b[1], s[1])])
    }

    #[inline(always)]
    fn add_absolutes(self, s: Self::Sums, a: Self::Vector, b: Self::Vector) -> Self::Sums {
        cpu!({
            let sign = _mm256_set1_ps(-0.0);
            let d = [_mm256_sub_ps(a[0], b[0]), _mm256_sub_ps(a[1], b[1])];
            [
                _mm256_add_ps(s[0], _mm256_andnot_ps(sign, d[0])),
                _mm256_add_ps(s[1], _mm256_andnot_ps(sign, d[1])),
            ]
        })
    }

    #[inline(always)]
    fn merge(self, a: Self::Sums, b: Self::Sums) -> Self::Sums {
        cpu!([_mm256_add_ps(a[0], b[0]), _mm256_add_ps(a[1], b[1])])
    }

    #[inline(always)]
    fn total(self, sums: Self::Sums) -> f64 {
        cpu!({
            let eight = _mm256_add_ps(sums[0], sums[1]);
            let four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
            let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
            let one = _mm_add_ss(two, _mm_movehdup_ps(two));
            f64::from(_mm_cvtss_f32(one))
        })
    }
}

impl Arith<i16> for Avx2 {
    type Vector = [__m256i; 2];
    type Sums = [__m256i; 2];

    #[inline(always)]
    fn zero(self) -> Self::Sums {
        cpu!([_mm256_setzero_si256(), _mm256_setzero_si256()])
    }

    #[inline(always)]
    fn line(self, line: &Line) -> Self::Vector {
        integers(self, line)
    }

    #[inline(always)]
    fn add_squares(self, s: Self::Sums, a: Self::Vector, b: Self::Vector) -> Self::Sums {
        let d = cpu!([_mm256_sub_epi16(a[0], b[0]), _mm256_sub_epi16(a[1], b[1])]);
        Arith::<i16>::add_products(self, s, d, d)
    }

    #[inline(always)]
    fn add_products(self, s: Self::Sums, a: Self::Vector, b: Self::Vector) -> Self::Sums {
        cpu!([
            _mm256_add_epi32(s[0], _mm256_madd_epi16(a[0], b[0])),
            _mm256_add_epi32(s[1], _mm256_madd_epi16(a[1], b[1])),
        ])
    }

    #[inline(always)]
    fn add_absolutes(self, s: Self::Sums, a: Self::Vector, b: Self::Vector) -> Self::Sums {
        let (d, ones) = cpu!((
            [
                _mm256_abs_epi16(_mm256_sub_epi16(a[0], b[0])),
                _mm256_abs_epi16(_mm256_sub_epi16(a[1], b[1])),
            ],
            _mm256_set1_epi16(1)
        ));
        Arith::<i16>::add_products(self, s, d, [ones, ones])
    }

    #[inline(always)]
    fn merge(self, a: Self::Sums, b: Self::Sums) -> Self::Sums {
        cpu!([_mm256_add_epi32(a[0], b[0]), _mm256_add_epi32(a[1], b[1])])
    }

    #[inline(always)]
    fn total(self, sums: Self::Sums) -> f64 {
        let longs = cpu!({
            let eight = _mm256_add_epi32(sums[0], sums[1]);
            [
                _mm256_cvtepi32_epi64(_mm256_castsi256_si128(eight)),
                _mm256_cvtepi32_epi64(_mm256_extracti128_si256(eight, 1)),
            ]
        });
        Arith::<i32>::total(self, longs)
    }
}

impl Arith<i32> for Avx2 {
    type Vector = [__m256i; 2];
    type Sums = [__m256i; 2];

    #[inline(always)]
    fn zero(self) -> Self::Sums {
        Arith::<i16>::zero(self)
    }

    #[inline(always)]
    fn line(self, line: &Line) -> Self::Vector {
        integers(self, line)
    }

    #[inline(always)]
    fn add_squares(self, s: Self::Sums, a: Self::Vector, b: Self::Vector) -> Self::Sums {
        let d = cpu!([_mm256_sub_epi32(a[0], b[0]), _mm256_sub_epi32(a[1], b[1])]);
        Arith::<i32>::add_products(self, s, d, d)
    }

    #[inline(always)]
    fn add_products(self, mut s: Self::Sums, a: Self::Vector, b: Self::Vector) -> Self::Sums {
        // The 64-bit multiplication reads the even numbers; shifts bring the odd ones there.
        for i in 0..2 {
            s[i] = cpu!({
                let odd =
                    _mm256_mul_epi32(_mm256_srli_epi64(a[i], 32), _mm256_srli_epi64(b[i], 32));
                _mm256_add_epi64(_mm256_add_epi64(s[i], _mm256_mul_epi32(a[i], b[i])), odd)
            });
        }
        s
    }

    #[inline(always)]
    fn add_absolutes(self, mut s: Self::Sums, a: Self::Vector, b: Self::Vector) -> Self::Sums {
        for i in 0..2 {
            s[i] = cpu!({
                let d = _mm256_abs_epi32(_mm256_sub_epi32(a[i], b[i]));
                let even = _mm256_and_si256(d, _mm256_set1_epi64x(0xffff_ffff));
                _mm256_add_epi64(_mm256_add_epi64(s[i], even), _mm256_srli_epi64(d, 32))
            });
        }
        s
    }

    #[inline(always)]
    fn merge(self, a: Self::Sums, b: Self::Sums) -> Self::Sums {
        cpu!([_mm256_add_epi64(a[0], b[0]), _mm256_add_epi64(a[1], b[1])])
    }

    #[inline(always)]
    fn total(self, sums: Self::Sums) -> f64 {
        cpu!({
            let four = _mm256_add_epi64(sums[0], sums[1]);
            let two =
                _mm_add_epi64(_mm256_castsi256_si128(four), _mm256_extracti128_si256(four, 1));
            let one = _mm_add_epi64(two, _mm_unpackhi_epi64(two, two));
            _mm_cvtsi128_si64(one) as f64
        })
    }
}

impl Decode<Fp32> for Avx2 {
    #[inline(always)]
    fn block(self, block: &[u8; 64]) -> [__m256; 2] {
        floats(self, block)
    }

    #[inline(always)]
    fn tail(self, tail: &[u8]) -> [__m256; 2] {
        let count = (tail.len() / 4).min(16) as i32;
        // A load from nowhere is slow even where its mask selects nothing, so it stays in the tail.
        let second = tail.get(32..).unwrap_or(tail);
        cpu!({
            let lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
            let masks = [
                _mm256_cmpgt_epi32(_mm256_set1_epi32(count), lanes),
                _mm256_cmpgt_epi32(_mm256_set1_epi32(count - 8), lanes),
            ];
            [
                _mm256_maskload_ps(tail.as_ptr().cast(), masks[0]),
                _mm256_maskload_ps(second.as_ptr().cast(), masks[1]),
            ]
        })
    }
}

impl Decode<Fp16> for Avx2 {
    #[inline(always)]
    fn block(self, block: &[u8; 32]) -> [__m256; 2] {
        let [low, high] = halves(self, block);
        cpu!([_mm256_cvtph_ps(low), _mm256_cvtph_ps(high)])
    }
}

impl Decode<Int8> for Avx2 {
    #[inline(always)]
    fn block(self, block: &[u8; 32]) -> [__m256i; 2] {
        let [low, high] = halves(self, block);
        cpu!([_mm256_cvtepi8_epi16(low), _mm256_cvtepi8_epi16(high)])
    }
}

impl Decode<Int4> for Avx2 {
    #[inline(always)]
    fn block(self, block: &[u8; 16]) -> [__m256i; 2] {
        cpu!({
            // A sign-extended byte shifted right is its high nibble; its low one goes up and down.
            let bytes = _mm256_cvtepi8_epi16(_mm_loadu_si128(block.as_ptr().cast()));
            let low = _mm256_srai_epi16(_mm256_slli_epi16(bytes, 12), 12);
            [low, _mm256_srai_epi16(bytes, 4)]
        })
    }
}

impl Decode<Int16> for Avx2 {
    #[inline(always)]
    fn block(self, block: &[u8; 32]) -> [__m256i; 2] {
        let [low, high] = halves(self, block);
        cpu!([_mm256_cvtepi16_epi32(low), _mm256_cvtepi16_epi32(high)])
    }
}

impl Differ for Avx2 {
    #[inline(always)]
    fn differing(self, a: &[u8], b: &[u8]) -> u64 {
        portable::differing(a, b)
    }
}

#[inline(always)]
fn floats(_: Avx2, bytes: &[u8; 64]) -> [__m256; 2] {
    let [low, high] = split::<32>(bytes);
    cpu!([_mm256_loadu_ps(low.as_ptr().cast()), _mm256_loadu_ps(high.as_ptr().cast())])
}

#[inline(always)]
fn integers(_: Avx2, line: &Line) -> [__m256i; 2] {
    let [low, high] = split::<32>(&line.0);
    cpu!([_mm256_loadu_si256(low.as_ptr().cast()), _mm256_loadu_si256(high.as_ptr().cast())])
}

#[inline(always)]
fn halves(_: Avx2, block: &[u8; 32]) -> [__m128i; 2] {
    let [low, high] = split::<16>(block);
    cpu!([_mm_loadu_si128(low.as_ptr().cast()), _mm_loadu_si128(high.as_ptr().cast())])
}

/// The two halves of a block of 2 * `HALF` bytes.
#[inline(always)]
fn split<const HALF: usize>(block: &[u8]) -> [&[u8; HALF]; 2] {
    let (halves, _) = block.as_chunks::<HALF>();
    [&halves[0], &halves[1]]
}
