//! Element types as the kernels see them: the size of the block that decodes to one line of numbers,
//! and a plain decoder for what is off the fast path.

use super::lanes::{Line, padded};

/// What an element is computed with.
pub(super) trait Number: Copy + Into<f64> + Send + Sync + 'static {
    /// Lines that hold `numbers`, the last one filled up with zeros.
    fn lines(numbers: &[Self]) -> Box<[Line]>;
}

macro_rules! number {
    ($number:ty, $bytes:literal) => {
        impl Number for $number {
            fn lines(numbers: &[Self]) -> Box<[Line]> {
                let line = |numbers: &[Self]| {
                    let mut line = Line([0; 64]);
                    for (bytes, number) in
                        line.0.as_chunks_mut::<$bytes>().0.iter_mut().zip(numbers)
                    {
                        *bytes = number.to_ne_bytes();
                    }
                    line
                };
                numbers.chunks(64 / $bytes).map(line).collect()
            }
        }
    };
}

number!(f32, 4);
number!(i16, 2);
number!(i32, 4);

/// An element type whose elements are numbers.
pub(super) trait Element: Send + Sync + 'static {
    /// What its elements are computed with.
    type Number: Number;
    /// True where the squares of elements may be too small for the sums.
    const IS_WIDE: bool;
    /// The stored bytes of one line of numbers.
    type Block;

    /// The whole blocks of a row and the bytes behind them.
    fn blocks(row: &[u8]) -> (&[Self::Block], &[u8]);

    /// The bytes behind a row's last whole block, filled up with zeros, which are zero elements.
    fn padded(tail: &[u8]) -> Self::Block;

    /// The numbers of a whole vector in the order in which blocks decode, each line complete but for
    /// the last; there may be zeros that the vector does not have.
    fn numbers(row: &[u8]) -> Vec<Self::Number>;
}

/// The part of [`Element`] that follows from the size of a block.
macro_rules! blocks_of {
    ($bytes:literal) => {
        type Block = [u8; $bytes];

        #[inline(always)]
        fn blocks(row: &[u8]) -> (&[Self::Block], &[u8]) {
            row.as_chunks()
        }

        #[inline(always)]
        fn padded(tail: &[u8]) -> Self::Block {
            padded(tail)
        }
    };
}

/// 32-bit floats.
pub(super) struct Fp32;

impl Element for Fp32 {
    type Number = f32;
    const IS_WIDE: bool = true;
    blocks_of!(64);

    fn numbers(row: &[u8]) -> Vec<f32> {
        row.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
    }
}

/// 16-bit floats, computed as 32-bit floats.
pub(super) struct Fp16;

impl Element for Fp16 {
    type Number = f32;
    const IS_WIDE: bool = false;
    blocks_of!(32);

    fn numbers(row: &[u8]) -> Vec<f32> {
        row.as_chunks().0.iter().map(|bytes| half::f16::from_le_bytes(*bytes).to_f32()).collect()
    }
}

/// 8-bit integers, computed as 16-bit ones, which hold any difference of two.
pub(super) struct Int8;

impl Element for Int8 {
    type Number = i16;
    const IS_WIDE: bool = false;
    blocks_of!(32);

    fn numbers(row: &[u8]) -> Vec<i16> {
        row.iter().map(|byte| i16::from(byte.cast_signed())).collect()
    }
}

/// 4-bit integers, computed as 16-bit ones: the low nibbles of a block, then its high nibbles.
pub(super) struct Int4;

impl Element for Int4 {
    type Number = i16;
    const IS_WIDE: bool = false;
    blocks_of!(16);

    fn numbers(row: &[u8]) -> Vec<i16> {
        let mut numbers = Vec::with_capacity(row.len().next_multiple_of(16) * 2);
        for block in row.chunks(16) {
            let block: [u8; 16] = padded(block);
            numbers.extend(block.map(|byte| i16::from((byte << 4).cast_signed() >> 4)));
            numbers.extend(block.map(|byte| i16::from(byte.cast_signed() >> 4)));
        }
        numbers
    }
}

/// 16-bit integers, computed as 32-bit ones.
pub(super) struct Int16;

impl Element for Int16 {
    type Number = i32;
    const IS_WIDE: bool = false;
    blocks_of!(32);

    fn numbers(row: &[u8]) -> Vec<i32> {
        row.as_chunks().0.iter().map(|bytes| i32::from(i16::from_le_bytes(*bytes))).collect()
    }
}
