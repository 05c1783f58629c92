//! Rows of 8-bit codes and their integer distances to a query's codes: what a graph search ranks by.
//!
//! A code is a signed byte, stored with 128 added: the instructions that multiply bytes want one
//! operand without sign and one with it. What that adds to a sum is taken off again.

use super::SimdLevel;
use super::lanes::Line;
use super::memory::{LINE_BYTES, large_vec, prefetch};

/// Highest dimension of a code row: up to here no sum of products leaves 32 bits.
pub const CODE_DIMENSION_MAX: usize = i32::MAX as usize / (255 * 128);

/// Highest dimension at which no sum of squared differences leaves 32 bits.
const DISTANCE_DIMENSION_MAX: usize = i32::MAX as usize / (255 * 255);

/// Rows of 8-bit codes, each beginning on a cache line of its own.
pub struct CodeRows {
    lines: Vec<Line>,
    lines_per_row: usize,
    dimension: usize,
}

impl CodeRows {
    /// Room for `rows` rows of `dimension` codes, without any yet.
    pub fn with_capacity(dimension: usize, rows: usize) -> Self {
        let lines_per_row = dimension.div_ceil(LINE_BYTES).max(1);
        CodeRows { lines: large_vec(lines_per_row * rows), lines_per_row, dimension }
    }

    /// Appends a row of `dimension` codes.
    pub fn push(&mut self, codes: &[i8]) {
        let end = self.lines.len() + self.lines_per_row;
        for codes in codes.chunks(LINE_BYTES).take(self.lines_per_row) {
            let mut line = Line([0; LINE_BYTES]);
            line.0.iter_mut().zip(codes).for_each(|(byte, code)| *byte = unsigned(*code));
            self.lines.push(line);
        }
        self.lines.resize(end, Line([0; LINE_BYTES]));
    }

    /// Rows.
    pub fn len(&self) -> usize {
        self.lines.len() / self.lines_per_row
    }

    /// True when there is no row.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// Bytes of memory held.
    pub fn memory_bytes(&self) -> usize {
        self.lines.capacity() * LINE_BYTES
    }

    /// Asks the CPU to fetch a row that will soon be ranked.
    #[inline]
    pub fn prefetch(&self, row: u32) {
        let start = row as usize * self.lines_per_row;
        // Long rows are read in order, which the CPU notices by itself.
        for line in self.lines.iter().skip(start).take(self.lines_per_row.min(8)) {
            prefetch(line);
        }
    }

    /// One code of a row.
    pub fn code(&self, row: u32, dimension: u32) -> i8 {
        let place = dimension as usize;
        (self.row(row)[place / LINE_BYTES].0[place % LINE_BYTES] ^ 0x80).cast_signed()
    }

    #[inline(always)]
    fn row(&self, row: u32) -> &[Line] {
        let start = row as usize * self.lines_per_row;
        &self.lines[start..start + self.lines_per_row]
    }
}

/// The byte that a code is stored as.
fn unsigned(code: i8) -> u8 {
    code.cast_unsigned() ^ 0x80
}

/// What is summed over the codes of two rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CodeMeasure {
    /// Products.
    Products,
    /// Absolute differences.
    Absolutes,
}

/// A query's codes, ready to be compared with rows.
pub struct CodeQuery {
    kernel: Kernel,
    measure: CodeMeasure,
    /// As the kernel wants them.
    lines: Box<[Line]>,
    /// What a kernel's sum has too much.
    excess: i32,
    /// What the codes that fill up the last line add to a sum of squares.
    padding: i32,
}

/// An instruction set with a measure.
#[derive(Clone, Copy)]
enum Kernel {
    #[cfg(target_arch = "x86_64")]
    VnniProducts(x86::Vnni),
    #[cfg(target_arch = "x86_64")]
    Avx2Products(x86::Avx2),
    #[cfg(target_arch = "x86_64")]
    Avx2Absolutes(x86::Avx2),
    Products,
    Absolutes,
}

impl CodeQuery {
    /// Prepares the codes of a query.
    pub fn new(measure: CodeMeasure, codes: &[i8]) -> Self {
        Self::with_level(SimdLevel::detect(), measure, codes)
    }

    /// [`CodeQuery::new`] at most at a given level.
    pub(super) fn with_level(level: SimdLevel, measure: CodeMeasure, codes: &[i8]) -> Self {
        let kernel = Kernel::choose(level, measure);
        let bytes: Vec<u8> = match kernel {
            #[cfg(target_arch = "x86_64")]
            Kernel::Avx2Products(_) => {
                codes.iter().flat_map(|code| i16::from(*code).to_ne_bytes()).collect()
            }
            #[cfg(target_arch = "x86_64")]
            Kernel::Avx2Absolutes(_) => codes.iter().map(|code| unsigned(*code)).collect(),
            #[cfg(target_arch = "x86_64")]
            Kernel::VnniProducts(_) => codes.iter().map(|code| code.cast_unsigned()).collect(),
            Kernel::Products => codes.iter().map(|code| code.cast_unsigned()).collect(),
            Kernel::Absolutes => codes.iter().map(|code| unsigned(*code)).collect(),
        };
        let line = |bytes: &[u8]| {
            let mut line = Line([0; LINE_BYTES]);
            line.0[..bytes.len()].copy_from_slice(bytes);
            line
        };
        let excess = match measure {
            CodeMeasure::Products => codes.iter().map(|code| 128 * i32::from(*code)).sum(),
            CodeMeasure::Absolutes => 0,
        };
        let padded = codes.len().next_multiple_of(LINE_BYTES) - codes.len();
        CodeQuery {
            kernel,
            measure,
            lines: bytes.chunks(LINE_BYTES).map(line).collect(),
            excess,
            padding: padded as i32 * 128 * 128,
        }
    }

    /// Makes a row of `rows`, which are of the dimension this query was made with, the query.
    ///
    /// # Panics
    ///
    /// When `row` is not below `rows.len()`.
    pub fn set_row(&mut self, rows: &CodeRows, row: u32) {
        let mut left = rows.dimension;
        let mut sum = 0i32;
        let mut own = self.lines.iter_mut();
        for line in rows.row(row) {
            let count = left.min(LINE_BYTES);
            left -= count;
            let mut codes = line.0.map(|byte| (byte ^ 0x80).cast_signed());
            codes[count..].fill(0);
            sum += codes.iter().map(|code| i32::from(*code)).sum::<i32>();
            match self.kernel {
                #[cfg(target_arch = "x86_64")]
                Kernel::Avx2Products(_) => {
                    for half in codes.as_chunks::<{ LINE_BYTES / 2 }>().0 {
                        let Some(own) = own.next() else { break };
                        let wide = own.0.as_chunks_mut().0.iter_mut();
                        wide.zip(half).for_each(|(w, code)| *w = i16::from(*code).to_ne_bytes());
                    }
                }
                #[cfg(target_arch = "x86_64")]
                Kernel::VnniProducts(_) => own
                    .next()
                    .into_iter()
                    .for_each(|own| own.0 = codes.map(|code| code.cast_unsigned())),
                #[cfg(target_arch = "x86_64")]
                Kernel::Avx2Absolutes(_) => own.next().into_iter().for_each(|own| *own = *line),
                Kernel::Products => own
                    .next()
                    .into_iter()
                    .for_each(|own| own.0 = codes.map(|code| code.cast_unsigned())),
                Kernel::Absolutes => own.next().into_iter().for_each(|own| *own = *line),
            }
        }
        if self.measure == CodeMeasure::Products {
            self.excess = 128 * sum;
        }
    }

    /// Measures rows, one sum for each id.
    ///
    /// # Panics
    ///
    /// When an id is not below `rows.len()`.
    #[inline]
    pub fn measure(&self, rows: &CodeRows, ids: &[u32], out: &mut [i32]) {
        self.sum(rows, ids, out);
        for sum in out {
            *sum -= self.excess;
        }
    }

    /// True where [`CodeQuery::distances`] is there and pays: a row's squares are summed sooner than
    /// they are fetched from another place in memory.
    pub fn has_distances(&self) -> bool {
        #[cfg(target_arch = "x86_64")]
        if let Kernel::VnniProducts(_) = self.kernel {
            return self.lines.len() * LINE_BYTES <= DISTANCE_DIMENSION_MAX;
        }
        false
    }

    /// For each id, the sum of the squares of the row's codes minus twice the products with the query's:
    /// less than the sum of squared differences by what is the same for every row. Zeros unless
    /// [`CodeQuery::has_distances`].
    ///
    /// # Panics
    ///
    /// When an id is not below `rows.len()`.
    #[inline]
    pub fn distances(&self, rows: &CodeRows, ids: &[u32], out: &mut [i32]) {
        #[cfg(target_arch = "x86_64")]
        if let Kernel::VnniProducts(cpu) = self.kernel {
            cpu.distances(&self.lines, rows, ids, out);
            let excess = self.excess.wrapping_mul(2).wrapping_sub(self.padding);
            out.iter_mut().for_each(|sum| *sum = sum.wrapping_add(excess));
            return;
        }
        let _ = (rows, ids);
        out.fill(0);
    }

    #[inline]
    fn sum(&self, rows: &CodeRows, ids: &[u32], out: &mut [i32]) {
        match self.kernel {
            #[cfg(target_arch = "x86_64")]
            Kernel::VnniProducts(cpu) => cpu.products(&self.lines, rows, ids, out),
            #[cfg(target_arch = "x86_64")]
            Kernel::Avx2Products(cpu) => cpu.products(&self.lines, rows, ids, out),
            #[cfg(target_arch = "x86_64")]
            Kernel::Avx2Absolutes(cpu) => cpu.absolutes(&self.lines, rows, ids, out),
            Kernel::Products => {
                self.each(rows, ids, out, |a, b| i32::from(a) * i32::from(b.cast_signed()));
            }
            Kernel::Absolutes => self.each(rows, ids, out, |a, b| i32::from(a.abs_diff(b))),
        }
    }

    fn each(&self, rows: &CodeRows, ids: &[u32], out: &mut [i32], term: impl Fn(u8, u8) -> i32) {
        for (id, out) in ids.iter().zip(out) {
            let lines = rows.row(*id).iter().zip(&self.lines);
            let of_line = |(row, query): (&Line, &Line)| -> i32 {
                row.0.iter().zip(&query.0).map(|(a, b)| term(*a, *b)).sum()
            };
            *out = lines.map(of_line).sum();
        }
    }
}

impl Kernel {
    fn choose(level: SimdLevel, measure: CodeMeasure) -> Kernel {
        #[cfg(target_arch = "x86_64")]
        {
            if level == SimdLevel::Avx512
                && measure == CodeMeasure::Products
                && let Some(cpu) = x86::Vnni::detect()
            {
                return Kernel::VnniProducts(cpu);
            }
            if matches!(level, SimdLevel::Avx512 | SimdLevel::Avx2)
                && let Some(cpu) = x86::Avx2::detect()
            {
                return match measure {
                    CodeMeasure::Products => Kernel::Avx2Products(cpu),
                    CodeMeasure::Absolutes => Kernel::Avx2Absolutes(cpu),
                };
            }
        }
        let _ = level;
        match measure {
            CodeMeasure::Products => Kernel::Products,
            CodeMeasure::Absolutes => Kernel::Absolutes,
        }
    }
}

impl std::fmt::Debug for CodeRows {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CodeRows").field("rows", &self.len()).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for CodeQuery {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CodeQuery").finish_non_exhaustive()
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::{CodeRows, Line};

    /// Proof that the CPU has AVX-512 F, BW and VNNI.
    #[derive(Clone, Copy)]
    pub(super) struct Vnni(());

    /// Proof that the CPU has AVX2.
    #[derive(Clone, Copy)]
    pub(super) struct Avx2(());

    impl Vnni {
        pub(super) fn detect() -> Option<Self> {
            let all = is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512vnni");
            all.then_some(Vnni(()))
        }

        #[inline]
        pub(super) fn products(
            self,
            query: &[Line],
            rows: &CodeRows,
            ids: &[u32],
            out: &mut [i32],
        ) {
            // SAFETY: the token proves that the CPU has the instructions.
            unsafe { vnni_products(query, rows, ids, out) }
        }

        #[inline]
        pub(super) fn distances(
            self,
            query: &[Line],
            rows: &CodeRows,
            ids: &[u32],
            out: &mut [i32],
        ) {
            // SAFETY: the token proves that the CPU has the instructions.
            unsafe { vnni_distances(query, rows, ids, out) }
        }
    }

    impl Avx2 {
        pub(super) fn detect() -> Option<Self> {
            is_x86_feature_detected!("avx2").then_some(Avx2(()))
        }

        #[inline]
        pub(super) fn products(
            self,
            query: &[Line],
            rows: &CodeRows,
            ids: &[u32],
            out: &mut [i32],
        ) {
            // SAFETY: the token proves that the CPU has the instructions.
            unsafe { avx2_products(query, rows, ids, out) }
        }

        #[inline]
        pub(super) fn absolutes(
            self,
            query: &[Line],
            rows: &CodeRows,
            ids: &[u32],
            out: &mut [i32],
        ) {
            // SAFETY: the token proves that the CPU has the instructions.
            unsafe { avx2_absolutes(query, rows, ids, out) }
        }
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    fn load512(line: &Line) -> __m512i {
        // SAFETY: a line is 64 readable bytes, and loads may be unaligned.
        unsafe { _mm512_loadu_si512(line.0.as_ptr().cast()) }
    }

    /// The `part`-th 32 bytes of a line.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn load256(line: &Line, part: usize) -> __m256i {
        let half: &[u8; 32] = &line.0.as_chunks().0[part];
        // SAFETY: the reference is to 32 readable bytes, and loads may be unaligned.
        unsafe { _mm256_loadu_si256(half.as_ptr().cast()) }
    }

    /// Four rows at a time: each product waits for the one before it in its row.
    #[target_feature(enable = "avx512f,avx512bw,avx512vnni,avx2")]
    fn vnni_products(query: &[Line], rows: &CodeRows, ids: &[u32], out: &mut [i32]) {
        let (fours, rest) = ids.as_chunks::<4>();
        let (out_fours, out_rest) = out.as_chunks_mut::<4>();
        for (ids, out) in fours.iter().zip(out_fours) {
            let lines = ids.map(|id| rows.row(id));
            let mut sums = [_mm512_setzero_si512(); 4];
            for (at, query) in query.iter().enumerate() {
                let query = load512(query);
                for (sum, lines) in sums.iter_mut().zip(&lines) {
                    *sum = _mm512_dpbusd_epi32(*sum, load512(&lines[at]), query);
                }
            }
            let [a, b, c, d] = sums;
            *out = totals([halved(a), halved(b), halved(c), halved(d)]);
        }
        for (id, out) in rest.iter().zip(out_rest) {
            let mut sum = _mm512_setzero_si512();
            for (row, query) in rows.row(*id).iter().zip(query) {
                sum = _mm512_dpbusd_epi32(sum, load512(row), load512(query));
            }
            *out = _mm512_reduce_add_epi32(sum);
        }
    }

    /// Squares minus twice the products. A stored byte u is a code s with 128 added, so the square of s
    /// is u s - 128 s.
    #[target_feature(enable = "avx512f,avx512bw,avx512vnni,avx2")]
    fn vnni_distances(query: &[Line], rows: &CodeRows, ids: &[u32], out: &mut [i32]) {
        let (fours, rest) = ids.as_chunks::<4>();
        let (out_fours, out_rest) = out.as_chunks_mut::<4>();
        for (ids, out) in fours.iter().zip(out_fours) {
            let lines = ids.map(|id| rows.row(id));
            let mut squares = [_mm512_setzero_si512(); 4];
            let mut products = [_mm512_setzero_si512(); 4];
            let added = _mm512_set1_epi8(i8::MIN);
            for (at, query) in query.iter().enumerate() {
                let query = load512(query);
                for row in 0..4 {
                    let stored = load512(&lines[row][at]);
                    let codes = _mm512_xor_si512(stored, added);
                    products[row] = _mm512_dpbusd_epi32(products[row], stored, query);
                    // 128 without sign, and the code.
                    let less = _mm512_dpbusd_epi32(_mm512_setzero_si512(), added, codes);
                    squares[row] = _mm512_dpbusd_epi32(squares[row], stored, codes);
                    squares[row] = _mm512_sub_epi32(squares[row], less);
                }
            }
            let of_row = |row: usize| -> __m256i {
                let twice = _mm512_slli_epi32::<1>(products[row]);
                halved(_mm512_sub_epi32(squares[row], twice))
            };
            *out = totals([of_row(0), of_row(1), of_row(2), of_row(3)]);
        }
        for (id, out) in rest.iter().zip(out_rest) {
            let mut sum = _mm512_setzero_si512();
            let added = _mm512_set1_epi8(i8::MIN);
            for (row, query) in rows.row(*id).iter().zip(query) {
                let stored = load512(row);
                let codes = _mm512_xor_si512(stored, added);
                let zero = _mm512_setzero_si512();
                let twice =
                    _mm512_slli_epi32::<1>(_mm512_dpbusd_epi32(zero, stored, load512(query)));
                let less = _mm512_dpbusd_epi32(zero, added, codes);
                let squares = _mm512_dpbusd_epi32(zero, stored, codes);
                sum = _mm512_add_epi32(sum, _mm512_sub_epi32(squares, less));
                sum = _mm512_sub_epi32(sum, twice);
            }
            *out = _mm512_reduce_add_epi32(sum);
        }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx2")]
    fn halved(sum: __m512i) -> __m256i {
        _mm256_add_epi32(_mm512_castsi512_si256(sum), _mm512_extracti64x4_epi64::<1>(sum))
    }

    /// The sums of four registers.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn totals(sums: [__m256i; 4]) -> [i32; 4] {
        let [a, b, c, d] = sums;
        let pairs = _mm256_hadd_epi32(_mm256_hadd_epi32(a, b), _mm256_hadd_epi32(c, d));
        let four =
            _mm_add_epi32(_mm256_castsi256_si128(pairs), _mm256_extracti128_si256::<1>(pairs));
        [
            _mm_extract_epi32::<0>(four),
            _mm_extract_epi32::<1>(four),
            _mm_extract_epi32::<2>(four),
            _mm_extract_epi32::<3>(four),
        ]
    }

    #[target_feature(enable = "avx2")]
    fn avx2_products(query: &[Line], rows: &CodeRows, ids: &[u32], out: &mut [i32]) {
        // The query's codes are 16 bits wide: two of its lines to one of a row. A row of 33 codes has
        // a line whose second half meets no line of the query, and is zero there.
        for (id, out) in ids.iter().zip(out) {
            let mut sums = [_mm256_setzero_si256(); 2];
            for (row, query) in rows.row(*id).iter().zip(query.chunks(2)) {
                for (half, query) in query.iter().enumerate() {
                    let bytes = load256(row, half);
                    let low = _mm256_cvtepu8_epi16(_mm256_castsi256_si128(bytes));
                    let high = _mm256_cvtepu8_epi16(_mm256_extracti128_si256::<1>(bytes));
                    let low = _mm256_madd_epi16(low, load256(query, 0));
                    let high = _mm256_madd_epi16(high, load256(query, 1));
                    sums[0] = _mm256_add_epi32(sums[0], low);
                    sums[1] = _mm256_add_epi32(sums[1], high);
                }
            }
            let zero = _mm256_setzero_si256();
            *out = totals([_mm256_add_epi32(sums[0], sums[1]), zero, zero, zero])[0];
        }
    }

    #[target_feature(enable = "avx2")]
    fn avx2_absolutes(query: &[Line], rows: &CodeRows, ids: &[u32], out: &mut [i32]) {
        for (id, out) in ids.iter().zip(out) {
            let mut sum = _mm256_setzero_si256();
            for (row, query) in rows.row(*id).iter().zip(query) {
                for half in 0..2 {
                    let bytes = _mm256_sad_epu8(load256(row, half), load256(query, half));
                    sum = _mm256_add_epi32(sum, bytes);
                }
            }
            let zero = _mm256_setzero_si256();
            *out = totals([sum, zero, zero, zero])[0];
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    use super::*;

    fn random(dimension: usize, rng: &mut StdRng) -> Vec<i8> {
        // The ends of the range often: there sums are largest.
        let mut code = || match rng.random_range(0..4) {
            0 => i8::MIN,
            1 => i8::MAX,
            _ => rng.random(),
        };
        (0..dimension).map(|_| code()).collect()
    }

    #[test]
    fn every_level_measures_as_plain_sums_do() {
        let mut rng = StdRng::seed_from_u64(1);
        for dimension in [1, 2, 31, 32, 33, 63, 64, 65, 96, 100, 128, 200, 512, 960, 2048] {
            let codes: Vec<Vec<i8>> = (0..11).map(|_| random(dimension, &mut rng)).collect();
            let mut rows = CodeRows::with_capacity(dimension, codes.len());
            codes.iter().for_each(|codes| rows.push(codes));
            assert_eq!(rows.len(), 11);
            let query = random(dimension, &mut rng);
            let ids: Vec<u32> = (0..11).rev().chain([3, 3]).collect();
            let sum = |id: u32, term: &dyn Fn(i32, i32) -> i32| -> i32 {
                let pairs = codes[id as usize].iter().zip(&query);
                pairs.map(|(a, b)| term(i32::from(*a), i32::from(*b))).sum()
            };
            for level in SimdLevel::ALL.into_iter().filter(|level| level.is_supported()) {
                for count in 0..=ids.len() {
                    let ids = &ids[..count];
                    let mut out = vec![0; count];
                    CodeQuery::with_level(level, CodeMeasure::Products, &query)
                        .measure(&rows, ids, &mut out);
                    let expected: Vec<i32> = ids.iter().map(|id| sum(*id, &|a, b| a * b)).collect();
                    assert_eq!(out, expected, "products of {dimension} at {level:?}");
                    CodeQuery::with_level(level, CodeMeasure::Absolutes, &query)
                        .measure(&rows, ids, &mut out);
                    let expected: Vec<i32> =
                        ids.iter().map(|id| sum(*id, &|a, b| (a - b).abs())).collect();
                    assert_eq!(out, expected, "absolutes of {dimension} at {level:?}");
                }
                let own = CodeQuery::with_level(level, CodeMeasure::Products, &query);
                for count in 0..=ids.len() * usize::from(own.has_distances()) {
                    let ids = &ids[..count];
                    let mut out = vec![0; count];
                    own.distances(&rows, ids, &mut out);
                    let expected: Vec<i32> =
                        ids.iter().map(|id| sum(*id, &|a, b| a * a - 2 * a * b)).collect();
                    assert_eq!(out, expected, "distances of {dimension} at {level:?}");
                }
                for measure in [CodeMeasure::Products, CodeMeasure::Absolutes] {
                    let mut own = CodeQuery::with_level(level, measure, &query);
                    own.set_row(&rows, 5);
                    let (mut by_row, mut by_codes) = (vec![0; 11], vec![0; 11]);
                    own.measure(&rows, &ids[..11], &mut by_row);
                    let other = CodeQuery::with_level(level, measure, &codes[5]);
                    other.measure(&rows, &ids[..11], &mut by_codes);
                    assert_eq!(by_row, by_codes, "{measure:?} of {dimension} at {level:?}");
                }
            }
        }
    }

    #[test]
    fn the_largest_sums_fit() {
        let codes = vec![i8::MAX; CODE_DIMENSION_MAX];
        let mut rows = CodeRows::with_capacity(codes.len(), 1);
        rows.push(&codes);
        for level in SimdLevel::ALL.into_iter().filter(|level| level.is_supported()) {
            let query = vec![i8::MIN; CODE_DIMENSION_MAX];
            let mut out = [0];
            CodeQuery::with_level(level, CodeMeasure::Products, &query).measure(
                &rows,
                &[0],
                &mut out,
            );
            assert_eq!(i64::from(out[0]), -(CODE_DIMENSION_MAX as i64) * 127 * 128);
        }
    }
}
