//! What an instruction set offers to the kernels, as traits on tokens.
//!
//! A token such as `Avx2` can only be had from its `detect`, so holding one proves that the CPU has
//! the instructions, and every method here is safe to call. All methods are `inline(always)`: they
//! end up inside [`Target::scan`], the one function that is compiled for the instruction set.

use super::element::{Element, Number};
use super::kernel::Kernel;

/// 64 bytes of a decoded query: as many [`Number`]s of native byte order as fit, on a cache line.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Line(pub [u8; 64]);

/// An instruction set that a whole scan can be compiled for.
pub(super) trait Target: Copy + Send + Sync + 'static {
    /// Runs `kernel` over `out.len()` rows of `vector_bytes` each, compiled for this target.
    fn scan<K: Kernel>(self, kernel: &K, vector_bytes: usize, rows: &[u8], out: &mut [f32]);
}

/// Arithmetic on one line of numbers at a time.
///
/// The sums of `i16` lines are held in 32 bits. One step adds at most 2 * 255 * 255 to each of at
/// least 16 of them, which bounds the steps before [`Arith::total`] (`kernel::PIECE_LINES`).
pub(super) trait Arith<N: Number>: Target {
    /// One line of numbers in registers.
    type Vector: Copy;
    /// Partial sums in registers.
    type Sums: Copy;

    /// Sums of nothing.
    fn zero(self) -> Self::Sums;
    /// The numbers of a query line.
    fn line(self, line: &Line) -> Self::Vector;
    /// Adds (a - b)^2.
    fn add_squares(self, sums: Self::Sums, a: Self::Vector, b: Self::Vector) -> Self::Sums;
    /// Adds a * b.
    fn add_products(self, sums: Self::Sums, a: Self::Vector, b: Self::Vector) -> Self::Sums;
    /// Adds |a - b|.
    fn add_absolutes(self, sums: Self::Sums, a: Self::Vector, b: Self::Vector) -> Self::Sums;
    /// Adds two partial sums.
    fn merge(self, a: Self::Sums, b: Self::Sums) -> Self::Sums;
    /// The sum of the partial sums, always in the same order.
    fn total(self, sums: Self::Sums) -> f64;
}

/// Turning stored bytes of an element type into one line of numbers.
pub(super) trait Decode<E: Element>: Arith<E::Number> {
    /// The numbers of one block.
    fn block(self, block: &E::Block) -> Self::Vector;

    /// The numbers of the bytes behind a row's last whole block, then zeros. `tail` is shorter than
    /// a block and holds whole elements.
    #[inline(always)]
    fn tail(self, tail: &[u8]) -> Self::Vector {
        self.block(&E::padded(tail))
    }
}

/// All element types that are numbers.
pub(super) trait DecodeAll:
    Decode<super::element::Fp32>
    + Decode<super::element::Fp16>
    + Decode<super::element::Int8>
    + Decode<super::element::Int4>
    + Decode<super::element::Int16>
{
}

impl<L> DecodeAll for L where
    L: Decode<super::element::Fp32>
        + Decode<super::element::Fp16>
        + Decode<super::element::Int8>
        + Decode<super::element::Int4>
        + Decode<super::element::Int16>
{
}

/// Counting differing bits.
pub(super) trait Differ: Target {
    /// The number of bits in which two strings of the same length differ.
    fn differing(self, a: &[u8], b: &[u8]) -> u64;
}

/// `tail` behind which zeros fill up `N` bytes.
#[inline(always)]
pub(super) fn padded<const N: usize>(tail: &[u8]) -> [u8; N] {
    let mut block = [0; N];
    block[..tail.len()].copy_from_slice(tail);
    block
}
