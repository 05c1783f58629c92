//! The kernels' arithmetic in plain Rust, in arrays of the width of a line, which compilers vectorise
//! with what every CPU of the architecture has. Also the reference for the other levels.

use super::element::{Fp16, Fp32, Int4, Int8, Int16};
use super::kernel::{Kernel, scan_rows};
use super::lanes::{Arith, Decode, Differ, Line, Target};

/// The token of the portable level, which is always there.
#[derive(Clone, Copy)]
pub(super) struct Portable;

impl Target for Portable {
    fn scan<K: Kernel>(self, kernel: &K, vector_bytes: usize, rows: &[u8], out: &mut [f32]) {
        scan_rows(kernel, vector_bytes, rows, out);
    }
}

impl Arith<f32> for Portable {
    type Vector = [f32; 16];
    type Sums = [f32; 16];

    #[inline(always)]
    fn zero(self) -> [f32; 16] {
        [0.0; 16]
    }

    #[inline(always)]
    fn line(self, line: &Line) -> [f32; 16] {
        bytemuck::cast(line.0)
    }

    #[inline(always)]
    fn add_squares(self, mut sums: [f32; 16], a: [f32; 16], b: [f32; 16]) -> [f32; 16] {
        for i in 0..16 {
            sums[i] += (a[i] - b[i]) * (a[i] - b[i]);
        }
        sums
    }

    #[inline(always)]
    fn add_products(self, mut sums: [f32; 16], a: [f32; 16], b: [f32; 16]) -> [f32; 16] {
        for i in 0..16 {
            sums[i] += a[i] * b[i];
        }
        sums
    }

    #[inline(always)]
    fn add_absolutes(self, mut sums: [f32; 16], a: [f32; 16], b: [f32; 16]) -> [f32; 16] {
        for i in 0..16 {
            sums[i] += (a[i] - b[i]).abs();
        }
        sums
    }

    #[inline(always)]
    fn merge(self, mut a: [f32; 16], b: [f32; 16]) -> [f32; 16] {
        for i in 0..16 {
            a[i] += b[i];
        }
        a
    }

    #[inline(always)]
    fn total(self, mut sums: [f32; 16]) -> f64 {
        for half in [8, 4, 2, 1] {
            for i in 0..half {
                sums[i] += sums[i + half];
            }
        }
        f64::from(sums[0])
    }
}

impl Arith<i16> for Portable {
    type Vector = [i16; 32];
    type Sums = [i32; 16];

    #[inline(always)]
    fn zero(self) -> [i32; 16] {
        [0; 16]
    }

    #[inline(always)]
    fn line(self, line: &Line) -> [i16; 32] {
        bytemuck::cast(line.0)
    }

    #[inline(always)]
    fn add_squares(self, sums: [i32; 16], a: [i16; 32], b: [i16; 32]) -> [i32; 16] {
        let mut difference = a;
        for i in 0..32 {
            difference[i] -= b[i];
        }
        Arith::<i16>::add_products(self, sums, difference, difference)
    }

    #[inline(always)]
    fn add_products(self, mut sums: [i32; 16], a: [i16; 32], b: [i16; 32]) -> [i32; 16] {
        for i in 0..16 {
            sums[i] += i32::from(a[2 * i]) * i32::from(b[2 * i])
                + i32::from(a[2 * i + 1]) * i32::from(b[2 * i + 1]);
        }
        sums
    }

    #[inline(always)]
    fn add_absolutes(self, mut sums: [i32; 16], a: [i16; 32], b: [i16; 32]) -> [i32; 16] {
        for i in 0..16 {
            sums[i] += i32::from((a[i] - b[i]).abs()) + i32::from((a[i + 16] - b[i + 16]).abs());
        }
        sums
    }

    #[inline(always)]
    fn merge(self, mut a: [i32; 16], b: [i32; 16]) -> [i32; 16] {
        for i in 0..16 {
            a[i] += b[i];
        }
        a
    }

    #[inline(always)]
    fn total(self, sums: [i32; 16]) -> f64 {
        sums.into_iter().map(i64::from).sum::<i64>() as f64
    }
}

impl Arith<i32> for Portable {
    type Vector = [i32; 16];
    type Sums = [i64; 16];

    #[inline(always)]
    fn zero(self) -> [i64; 16] {
        [0; 16]
    }

    #[inline(always)]
    fn line(self, line: &Line) -> [i32; 16] {
        bytemuck::cast(line.0)
    }

    #[inline(always)]
    fn add_squares(self, sums: [i64; 16], a: [i32; 16], b: [i32; 16]) -> [i64; 16] {
        let mut difference = a;
        for i in 0..16 {
            difference[i] -= b[i];
        }
        Arith::<i32>::add_products(self, sums, difference, difference)
    }

    #[inline(always)]
    fn add_products(self, mut sums: [i64; 16], a: [i32; 16], b: [i32; 16]) -> [i64; 16] {
        for i in 0..16 {
            sums[i] += i64::from(a[i]) * i64::from(b[i]);
        }
        sums
    }

    #[inline(always)]
    fn add_absolutes(self, mut sums: [i64; 16], a: [i32; 16], b: [i32; 16]) -> [i64; 16] {
        for i in 0..16 {
            sums[i] += i64::from((a[i] - b[i]).abs());
        }
        sums
    }

    #[inline(always)]
    fn merge(self, mut a: [i64; 16], b: [i64; 16]) -> [i64; 16] {
        for i in 0..16 {
            a[i] += b[i];
        }
        a
    }

    #[inline(always)]
    fn total(self, sums: [i64; 16]) -> f64 {
        sums.into_iter().sum::<i64>() as f64
    }
}

impl Decode<Fp32> for Portable {
    #[inline(always)]
    fn block(self, block: &[u8; 64]) -> [f32; 16] {
        let mut numbers = [0.0; 16];
        for (number, bytes) in numbers.iter_mut().zip(block.as_chunks().0) {
            *number = f32::from_le_bytes(*bytes);
        }
        numbers
    }
}

impl Decode<Fp16> for Portable {
    #[inline(always)]
    fn block(self, block: &[u8; 32]) -> [f32; 16] {
        let mut numbers = [0.0; 16];
        for (number, bytes) in numbers.iter_mut().zip(block.as_chunks().0) {
            *number = half::f16::from_le_bytes(*bytes).to_f32();
        }
        numbers
    }
}

impl Decode<Int8> for Portable {
    #[inline(always)]
    fn block(self, block: &[u8; 32]) -> [i16; 32] {
        block.map(|byte| i16::from(byte.cast_signed()))
    }
}

impl Decode<Int4> for Portable {
    #[inline(always)]
    fn block(self, block: &[u8; 16]) -> [i16; 32] {
        let mut numbers = [0; 32];
        for i in 0..16 {
            numbers[i] = i16::from((block[i] << 4).cast_signed() >> 4);
            numbers[i + 16] = i16::from(block[i].cast_signed() >> 4);
        }
        numbers
    }
}

impl Decode<Int16> for Portable {
    #[inline(always)]
    fn block(self, block: &[u8; 32]) -> [i32; 16] {
        let mut numbers = [0; 16];
        for (number, bytes) in numbers.iter_mut().zip(block.as_chunks().0) {
            *number = i32::from(i16::from_le_bytes(*bytes));
        }
        numbers
    }
}

impl Differ for Portable {
    #[inline(always)]
    fn differing(self, a: &[u8], b: &[u8]) -> u64 {
        differing(a, b)
    }
}

/// Differing bits, word by word; one instruction per word where the caller is compiled with POPCNT.
#[inline(always)]
pub(super) fn differing(a: &[u8], b: &[u8]) -> u64 {
    let (a_words, a_rest) = a.as_chunks::<8>();
    let (b_words, b_rest) = b.as_chunks::<8>();
    let mut count = 0;
    for (a, b) in a_words.iter().zip(b_words) {
        count += u64::from((u64::from_ne_bytes(*a) ^ u64::from_ne_bytes(*b)).count_ones());
    }
    for (a, b) in a_rest.iter().zip(b_rest) {
        count += u64::from((a ^ b).count_ones());
    }
    count
}
