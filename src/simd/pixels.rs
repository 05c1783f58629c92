//! Weighted sums of pixels in fixed point, for resizing. All instruction sets give the same bytes: sums are taken
//! modulo 2^32, in whatever order.

use super::SimdLevel;

/// Bits behind the point of a weight: a sum of them with bytes fits into 32 bits.
pub const WEIGHT_BITS: u32 = 22;
/// Half a step, so that cutting rounds.
const HALF: i32 = 1 << (WEIGHT_BITS - 1);
/// Samples of a line that are summed at a time.
const LANES: usize = 32;

/// What of a line of pixels goes into each wanted pixel.
#[derive(Debug)]
pub struct Weights {
    /// First pixel and weights by wanted pixel.
    taps: Vec<(usize, Vec<i32>)>,
}

impl Weights {
    /// Takes first pixel and weights by wanted pixel.
    pub fn new(taps: Vec<(usize, Vec<i32>)>) -> Weights {
        Weights { taps }
    }

    /// The pixels that any wanted one is made of, from and to.
    pub fn sources(&self) -> (usize, usize) {
        let first = self.taps.iter().map(|(first, _)| *first).min().unwrap_or(0);
        let end = self.taps.iter().map(|(first, weights)| first + weights.len()).max();
        (first, end.unwrap_or(0))
    }

    /// Sums pixels along rows of `line` bytes, 3 for a pixel, and rounds them to bytes: so many pixels a row as
    /// there are weights for.
    ///
    /// # Panics
    ///
    /// Where [`Weights::sources`] end behind a row.
    pub fn along_rows(&self, rows: &[u8], line: usize) -> Vec<u8> {
        self.along_rows_with(SimdLevel::detect(), rows, line)
    }

    fn along_rows_with(&self, level: SimdLevel, rows: &[u8], line: usize) -> Vec<u8> {
        assert!(3 * self.sources().1 <= line, "{:?} in a row of {line} bytes", self.sources());
        #[cfg(target_arch = "x86_64")]
        if level <= SimdLevel::Avx2
            && let Some(pairs) = x86::Pairs::new(self)
        {
            return pairs.along_rows(self, rows, line);
        }
        let _ = level;
        let mut out = Vec::with_capacity(rows.len() / line.max(1) * self.taps.len() * 3);
        for row in rows.chunks_exact(line) {
            out.extend(
                self.taps.iter().flat_map(|(first, weights)| one_pixel(&row[3 * first..], weights)),
            );
        }
        out
    }

    /// Sums rows of `line` bytes, sample by sample, and rounds them to bytes: so many rows as there are weights
    /// for. `rows` begin with number `begin`.
    ///
    /// # Panics
    ///
    /// Where [`Weights::sources`] are not among these rows.
    pub fn down_columns(&self, rows: &[u8], line: usize, begin: usize) -> Vec<u8> {
        self.down_columns_with(SimdLevel::detect(), rows, line, begin)
    }

    fn down_columns_with(
        &self,
        level: SimdLevel,
        rows: &[u8],
        line: usize,
        begin: usize,
    ) -> Vec<u8> {
        #[cfg(target_arch = "x86_64")]
        if level <= SimdLevel::Avx2 {
            return x86::down_columns(self, rows, line, begin);
        }
        let _ = level;
        self.down_columns_inlined(rows, line, begin)
    }

    #[inline(always)]
    fn down_columns_inlined(&self, rows: &[u8], line: usize, begin: usize) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.taps.len() * line);
        for (first, weights) in &self.taps {
            let rows = &rows[(first - begin) * line..][..weights.len() * line];
            let whole = line - line % LANES;
            for at in (0..whole).step_by(LANES) {
                let mut sums = [HALF; LANES];
                for (row, weight) in rows.chunks_exact(line).zip(weights) {
                    for (sum, sample) in sums.iter_mut().zip(&row[at..at + LANES]) {
                        *sum = sum.wrapping_add(i32::from(*sample).wrapping_mul(*weight));
                    }
                }
                out.extend(sums.map(rounded));
            }
            for at in whole..line {
                let column = rows[at..].iter().step_by(line).zip(weights);
                let sum = column.fold(HALF, |sum, (sample, weight)| {
                    sum.wrapping_add(i32::from(*sample).wrapping_mul(*weight))
                });
                out.push(rounded(sum));
            }
        }
        out
    }
}

fn rounded(sum: i32) -> u8 {
    (sum >> WEIGHT_BITS).clamp(0, 255) as u8
}

/// The pixel that these begin with and weights make.
fn one_pixel(samples: &[u8], weights: &[i32]) -> [u8; 3] {
    let mut sums = [HALF; 3];
    for (pixel, weight) in samples.as_chunks::<3>().0.iter().zip(weights) {
        for (sum, sample) in sums.iter_mut().zip(pixel) {
            *sum = sum.wrapping_add(i32::from(*sample).wrapping_mul(*weight));
        }
    }
    sums.map(rounded)
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::{HALF, WEIGHT_BITS, Weights, one_pixel};

    /// Bits of the lower half of a weight.
    const LOW_BITS: i32 = 12;
    /// Pixels summed at a time, and their bytes.
    const GROUP: usize = 4;
    const GROUP_BYTES: usize = 3 * GROUP;

    /// Weights in two halves of 16 bits, as the instruction takes them that multiplies pairs and adds them.
    pub(super) struct Pairs {
        /// First and end of its groups, by wanted pixel.
        groups: Vec<(usize, usize)>,
        /// Upper halves of the weights of four pixels, then the lower ones: for the first two pixels four times the
        /// pair, and so for the other two.
        halves: Vec<[[i16; 16]; 2]>,
    }

    impl Pairs {
        /// `None` where this CPU has no AVX2, or an upper half does not fit.
        pub(super) fn new(weights: &Weights) -> Option<Pairs> {
            if !is_x86_feature_detected!("avx2") {
                return None;
            }
            let mut pairs = Pairs { groups: Vec::new(), halves: Vec::new() };
            for (_, weights) in &weights.taps {
                let begin = pairs.halves.len();
                for group in weights.chunks(GROUP) {
                    let mut halves = [[0; 16]; 2];
                    for (at, weight) in group.iter().enumerate() {
                        let upper = i16::try_from(weight >> LOW_BITS).ok()?;
                        let lower = (weight & ((1 << LOW_BITS) - 1)) as i16;
                        for place in (0..4).map(|channel| at / 2 * 8 + channel * 2 + at % 2) {
                            halves[0][place] = upper;
                            halves[1][place] = lower;
                        }
                    }
                    pairs.halves.push(halves);
                }
                pairs.groups.push((begin, pairs.halves.len()));
            }
            Some(pairs)
        }

        pub(super) fn along_rows(&self, weights: &Weights, rows: &[u8], line: usize) -> Vec<u8> {
            let mut out = Vec::with_capacity(rows.len() / line.max(1) * weights.taps.len() * 3);
            for at in (0..rows.len() / line).map(|row| row * line) {
                for ((first, weights), groups) in weights.taps.iter().zip(&self.groups) {
                    let samples = &rows[at + 3 * first..];
                    let halves = &self.halves[groups.0..groups.1];
                    // SAFETY: there are no pairs without AVX2.
                    let sums = unsafe { sums(samples, halves) };
                    let pixel = sums.unwrap_or_else(|| one_pixel(samples, weights));
                    out.extend_from_slice(&pixel);
                }
            }
            out
        }
    }

    /// The pixel that these samples begin with make; `None` too close to their end to read whole groups.
    #[target_feature(enable = "avx2")]
    fn sums(samples: &[u8], halves: &[[[i16; 16]; 2]]) -> Option<[u8; 3]> {
        // Of 16 bytes the first 12 in 16 bits each: red, green and blue of two pixels side by side, in each half.
        let spread = _mm256_setr_epi8(
            0, -1, 3, -1, 1, -1, 4, -1, 2, -1, 5, -1, -1, -1, -1, -1, //
            6, -1, 9, -1, 7, -1, 10, -1, 8, -1, 11, -1, -1, -1, -1, -1,
        );
        let readable = halves.len() * GROUP_BYTES + size_of::<__m128i>() - GROUP_BYTES;
        let samples = samples.get(..readable)?;
        let (mut upper, mut lower) = (_mm256_setzero_si256(), _mm256_setzero_si256());
        for (group, [high, low]) in halves.iter().enumerate() {
            // SAFETY: 16 bytes from each group on were checked to be there, and 16 numbers of 16 bits are 32 bytes.
            let (pixels, high, low) = unsafe {
                (
                    _mm_loadu_si128(samples.as_ptr().add(group * GROUP_BYTES).cast()),
                    _mm256_loadu_si256(high.as_ptr().cast()),
                    _mm256_loadu_si256(low.as_ptr().cast()),
                )
            };
            let pixels = _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(pixels), spread);
            upper = _mm256_add_epi32(upper, _mm256_madd_epi16(pixels, high));
            lower = _mm256_add_epi32(lower, _mm256_madd_epi16(pixels, low));
        }
        let both = _mm256_add_epi32(_mm256_slli_epi32::<LOW_BITS>(upper), lower);
        let sums = _mm_add_epi32(_mm256_castsi256_si128(both), _mm256_extracti128_si256::<1>(both));
        let steps =
            _mm_srai_epi32::<{ WEIGHT_BITS as i32 }>(_mm_add_epi32(sums, _mm_set1_epi32(HALF)));
        let words = _mm_packs_epi32(steps, steps);
        let [red, green, blue, _] = _mm_cvtsi128_si32(_mm_packus_epi16(words, words)).to_le_bytes();
        Some([red, green, blue])
    }

    pub(super) fn down_columns(
        weights: &Weights,
        rows: &[u8],
        line: usize,
        begin: usize,
    ) -> Vec<u8> {
        if !is_x86_feature_detected!("avx2") {
            return weights.down_columns_inlined(rows, line, begin);
        }
        // SAFETY: AVX2 is there.
        unsafe { down_columns_avx2(weights, rows, line, begin) }
    }

    #[target_feature(enable = "avx2")]
    fn down_columns_avx2(weights: &Weights, rows: &[u8], line: usize, begin: usize) -> Vec<u8> {
        weights.down_columns_inlined(rows, line, begin)
    }
}

#[cfg(test)]
mod tests {
    use rand::{Rng, RngCore, SeedableRng, rngs::StdRng};

    use super::*;

    /// As the words say it, with numbers that cannot overflow.
    fn plainly(samples: impl Iterator<Item = u8>, weights: &[i32]) -> u8 {
        let sum: i64 = samples.zip(weights).map(|(s, w)| i64::from(s) * i64::from(*w)).sum();
        ((sum + i64::from(HALF)) >> WEIGHT_BITS).clamp(0, 255) as u8
    }

    #[test]
    fn every_level_sums_pixels_as_the_words_say() {
        let mut random = StdRng::seed_from_u64(1);
        for turn in 0..300 {
            let (width, height) = (random.random_range(1..90), random.random_range(1..40));
            let line = 3 * width;
            let mut picture = vec![0; line * height];
            random.fill_bytes(&mut picture);
            let mut weights = |side: usize| {
                let taps = (0..random.random_range(1..30)).map(|_| {
                    let first = random.random_range(0..side);
                    let count = random.random_range(1..=(side - first).min(25));
                    // Sums beyond 0 and 255, too, as sharp filters make them.
                    let most = (2 << WEIGHT_BITS) / count as i32;
                    (first, (0..count).map(|_| random.random_range(-most / 2..=most)).collect())
                });
                Weights::new(taps.collect())
            };
            let (across, down) = (weights(width), weights(height));
            let (begin, end) = down.sources();
            let columns = &picture[begin * line..end * line];
            let mut along = Vec::new();
            for row in picture.chunks_exact(line) {
                for (first, weights) in &across.taps {
                    along.extend((0..3).map(|channel| {
                        plainly(row[3 * first + channel..].iter().step_by(3).copied(), weights)
                    }));
                }
            }
            let mut low = Vec::new();
            for (first, weights) in &down.taps {
                low.extend((0..line).map(|at| {
                    plainly(picture[first * line + at..].iter().step_by(line).copied(), weights)
                }));
            }
            for level in SimdLevel::ALL.into_iter().filter(|level| level.is_supported()) {
                assert_eq!(
                    across.along_rows_with(level, &picture, line),
                    along,
                    "{turn} {level:?}"
                );
                let made = down.down_columns_with(level, columns, line, begin);
                assert_eq!(made, low, "{turn} {level:?}");
            }
        }
    }

    #[test]
    fn weights_that_no_pair_holds_are_summed_all_the_same() {
        let weights = Weights::new(vec![(0, vec![i32::MAX, i32::MIN, 1])]);
        let row = [3, 0, 1, 3, 0, 1, 255, 255, 255];
        let scalar = weights.along_rows_with(SimdLevel::Scalar, &row, 9);
        assert_eq!(weights.along_rows(&row, 9), scalar);
    }
}
