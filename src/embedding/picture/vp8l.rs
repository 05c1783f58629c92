//! What a lossless WebP stream makes its decoder hold beside the pixels. A stream may declare 65,536 groups of prefix
//! codes whatever the size of its picture, and the decoder makes tables of each before it comes to a pixel: a few
//! bytes for a kilobyte. So it is read here up to its pixels, and the tables are added up and not made.
//!
//! It is read as `image-webp` reads it, and what only that one lets pass, such as codes that overlap, is refused.
//! <https://developers.google.com/speed/webp/docs/webp_lossless_bitstream_specification>

/// Longest side: the header has 14 bits for it.
const SIDE_MAX: u32 = 1 << 14;

/// How many symbols each code of a group has, without those for colours of the cache, which the first one has too.
const ALPHABETS: [usize; 5] = [256 + LENGTHS, 256, 256, 256, 40];
/// Symbols of the first code that begin a copy.
const LENGTHS: usize = 24;
const LONGEST_CODE: usize = 15;

/// The order in which the lengths of the code for lengths are written.
const LENGTH_ORDER: [usize; 19] =
    [17, 18, 0, 1, 2, 3, 4, 5, 16, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];

/// Where the nearest pixels are: rows up in the upper half, and 8 less the columns left in the lower one.
const NEAR: [u8; 120] = [
    0x18, 0x07, 0x17, 0x19, 0x28, 0x06, 0x27, 0x29, 0x16, 0x1a, 0x26, 0x2a, 0x38, 0x05, 0x37, 0x39,
    0x15, 0x1b, 0x36, 0x3a, 0x25, 0x2b, 0x48, 0x04, 0x47, 0x49, 0x14, 0x1c, 0x35, 0x3b, 0x46, 0x4a,
    0x24, 0x2c, 0x58, 0x45, 0x4b, 0x34, 0x3c, 0x03, 0x57, 0x59, 0x13, 0x1d, 0x56, 0x5a, 0x23, 0x2d,
    0x44, 0x4c, 0x55, 0x5b, 0x33, 0x3d, 0x68, 0x02, 0x67, 0x69, 0x12, 0x1e, 0x66, 0x6a, 0x22, 0x2e,
    0x54, 0x5c, 0x43, 0x4d, 0x65, 0x6b, 0x32, 0x3e, 0x78, 0x01, 0x77, 0x79, 0x53, 0x5d, 0x11, 0x1f,
    0x64, 0x6c, 0x42, 0x4e, 0x76, 0x7a, 0x21, 0x2f, 0x75, 0x7b, 0x31, 0x3f, 0x63, 0x6d, 0x52, 0x5e,
    0x00, 0x74, 0x7c, 0x41, 0x4f, 0x10, 0x20, 0x62, 0x6e, 0x30, 0x73, 0x7d, 0x51, 0x5f, 0x40, 0x72,
    0x7e, 0x61, 0x6f, 0x50, 0x71, 0x7f, 0x60, 0x70,
];

/// Codes up to this long are looked up in a table of the decoder, and longer ones in a tree behind it.
const TABLE_BITS: usize = 10;
/// Bytes for each symbol in the tree: two nodes of 16, and what an allocator rounds up.
const TREE_BYTES: u64 = 40;
/// Bytes of any code that is not one symbol alone: the nodes for two symbols, which are made for such a code only.
const CODE_BYTES: u64 = 48;
/// Bytes of a group itself: five codes of 56, in a list that holds up to three times as many while it grows, and that
/// begins with four.
const GROUP_BYTES: u64 = 3 * 5 * 56;
const LIST_BYTES: u64 = 4 * 5 * 56;
/// Bytes of a pixel of a small image, and of the groups' image, which is copied to numbers of two bytes.
const PIXEL_BYTES: u64 = 4;
const GROUP_PIXEL_BYTES: u64 = 4 + 2;

/// Why a stream cannot be read.
pub(super) type Flaw = &'static str;

const CUT_SHORT: Flaw = "its bits end before its pixels";

/// A lossless stream within a file.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stream<'a> {
    pub bytes: &'a [u8],
    /// Width and height, where it has no header that gives them: those of the pixels whose alpha it is.
    pub shape: Option<(u32, u32)>,
}

/// Bytes that decoding a stream holds for codes and small images: not less than it takes, and little more. Reads it up
/// to its pixels, which takes a quarter byte for each of them, and time in proportion to them and to its bytes.
pub(super) fn memory(stream: Stream<'_>) -> Result<u64, Flaw> {
    let mut reader = Reader { bits: Bits { bytes: stream.bytes, at: 0 }, memory: LIST_BYTES };
    let (width, height) = match stream.shape {
        Some(shape) => shape,
        None => reader.header()?,
    };
    if !(1..=SIDE_MAX).contains(&width) || !(1..=SIDE_MAX).contains(&height) {
        return Err("one of its sides is longer than 16384");
    }
    let (mut width, height) = (width as usize, height as usize);

    let mut seen = [false; 4];
    while reader.bits.take(1)? == 1 {
        let kind = reader.bits.take(2)?;
        if std::mem::replace(&mut seen[kind], true) {
            return Err("it has a transform twice");
        }
        match kind {
            // Predictors and factors of colours, for blocks of pixels.
            0 | 1 => {
                let (wide, high) = reader.blocks(width, height)?;
                reader.small_image(wide, high, PIXEL_BYTES)?;
            }
            // Green is added, which takes nothing.
            2 => {}
            // A palette. With few colours, a byte holds several pixels.
            _ => {
                let colours = 1 + reader.bits.take(8)?;
                reader.small_image(colours, 1, PIXEL_BYTES)?;
                width = width.div_ceil(match colours {
                    1..=2 => 8,
                    3..=4 => 4,
                    5..=16 => 2,
                    _ => 1,
                });
            }
        }
    }

    let cached = reader.cached_colours()?;
    let mut groups = 1;
    if reader.bits.take(1)? == 1 {
        let (wide, high) = reader.blocks(width, height)?;
        let pixels = reader.small_image(wide, high, GROUP_PIXEL_BYTES)?;
        let group = |[red, green, ..]: [u8; 4]| u32::from(u16::from_be_bytes([red, green]));
        groups = 1 + pixels.into_iter().map(group).max().unwrap_or(0);
    }
    for _ in 0..groups {
        reader.group(cached)?;
    }
    Ok(reader.memory)
}

struct Reader<'a> {
    bits: Bits<'a>,
    /// Bytes that the decoder would have made so far.
    memory: u64,
}

impl Reader<'_> {
    /// Width and height.
    fn header(&mut self) -> Result<(u32, u32), Flaw> {
        if self.bits.take(8)? != 0x2f {
            return Err("its pixels do not begin with 2f");
        }
        let (width, height) = (1 + self.bits.take(14)?, 1 + self.bits.take(14)?);
        let _has_alpha = self.bits.take(1)?;
        if self.bits.take(3)? != 0 {
            return Err("its pixels are of a version that is not known");
        }
        Ok((width as u32, height as u32))
    }

    /// How many blocks of a size that follows there are each way.
    fn blocks(&mut self, width: usize, height: usize) -> Result<(usize, usize), Flaw> {
        let side = 4 << self.bits.take(3)?;
        Ok((width.div_ceil(side), height.div_ceil(side)))
    }

    /// How many colours are remembered, to be named by a number; 0 for none.
    fn cached_colours(&mut self) -> Result<usize, Flaw> {
        if self.bits.take(1)? == 0 {
            return Ok(0);
        }
        match self.bits.take(4)? {
            bits @ 1..=11 => Ok(1 << bits),
            _ => Err("its cache of colours has a size that cannot be"),
        }
    }

    /// The image of a transform, or of which group is for which block: red, green, blue and alpha.
    fn small_image(
        &mut self,
        width: usize,
        height: usize,
        pixel_bytes: u64,
    ) -> Result<Vec<[u8; 4]>, Flaw> {
        let cached = self.cached_colours()?;
        let mut cache = vec![[0; 4]; cached];
        let [green, red, blue, alpha, distance] = self.group(cached)?;

        let length = width * height;
        self.memory += pixel_bytes * length as u64;
        let mut pixels: Vec<[u8; 4]> = Vec::with_capacity(length);
        while pixels.len() < length {
            let symbol = self.bits.symbol(&green)?;
            if let Ok(green) = u8::try_from(symbol) {
                let red = self.bits.symbol(&red)? as u8;
                let blue = self.bits.symbol(&blue)? as u8;
                let alpha = self.bits.symbol(&alpha)? as u8;
                let pixel = [red, green, blue, alpha];
                remember(&mut cache, pixel);
                pixels.push(pixel);
            } else if symbol < ALPHABETS[0] {
                let count = self.bits.number(symbol - 256)?;
                let distance = self.bits.symbol(&distance)?;
                let distance = pixels_back(self.bits.number(distance)?, width);
                if distance > pixels.len() || count > length - pixels.len() {
                    return Err("it copies pixels from or to outside of it");
                }
                let from = pixels.len() - distance;
                for at in from..from + count {
                    let pixel = pixels[at];
                    // The pixel before it is remembered already.
                    if distance > 1 {
                        remember(&mut cache, pixel);
                    }
                    pixels.push(pixel);
                }
            } else {
                let pixel = cache.get(symbol - ALPHABETS[0]);
                pixels.push(*pixel.ok_or("it names a colour that is not in its cache")?);
            }
        }
        Ok(pixels)
    }

    /// Five codes: for green with lengths and remembered colours, red, blue, alpha and distances.
    fn group(&mut self, cached: usize) -> Result<[Code; 5], Flaw> {
        self.memory += GROUP_BYTES;
        let [green, red, blue, alpha, distance] = ALPHABETS;
        Ok([
            self.code(green + cached)?,
            self.code(red)?,
            self.code(blue)?,
            self.code(alpha)?,
            self.code(distance)?,
        ])
    }

    fn code(&mut self, alphabet: usize) -> Result<Code, Flaw> {
        let code = if self.bits.take(1)? == 1 {
            self.short_code(alphabet)?
        } else {
            Code::of_lengths(&self.lengths(alphabet)?)?
        };
        self.memory += code.memory();
        Ok(code)
    }

    /// A code of one symbol or two.
    fn short_code(&mut self, alphabet: usize) -> Result<Code, Flaw> {
        let has_two = self.bits.take(1)? == 1;
        let is_byte = self.bits.take(1)? == 1;
        let mut symbols = vec![self.bits.take(if is_byte { 8 } else { 1 })? as u16];
        if has_two {
            symbols.push(self.bits.take(8)? as u16);
        }
        if symbols.iter().any(|&symbol| usize::from(symbol) >= alphabet) {
            return Err("a code has a symbol that does not exist");
        }
        let mut counts = [0; LONGEST_CODE + 1];
        counts[1] = symbols.len() as u16;
        Ok(Code { counts, symbols })
    }

    /// The length of each symbol's code, 0 for those that do not occur.
    fn lengths(&mut self, alphabet: usize) -> Result<Vec<u8>, Flaw> {
        let mut of_lengths = [0; LENGTH_ORDER.len()];
        let written = 4 + self.bits.take(4)?;
        for &place in LENGTH_ORDER.iter().take(written) {
            of_lengths[place] = self.bits.take(3)? as u8;
        }
        let code = Code::of_lengths(&of_lengths)?;

        let mut left = alphabet;
        if self.bits.take(1)? == 1 {
            let bits = 2 + 2 * self.bits.take(3)? as u32;
            left = 2 + self.bits.take(bits)?;
            if left > alphabet {
                return Err("a code has more symbols than there are");
            }
        }
        let mut lengths = vec![0; alphabet];
        let (mut at, mut last) = (0, 8);
        while at < alphabet && left > 0 {
            left -= 1;
            let (length, times) = match self.bits.symbol(&code)? {
                16 => (last, 3 + self.bits.take(2)?),
                17 => (0, 3 + self.bits.take(3)?),
                18 => (0, 11 + self.bits.take(7)?),
                length => (length as u8, 1),
            };
            let run = lengths.get_mut(at..at + times);
            run.ok_or("a code has more symbols than there are")?.fill(length);
            at += times;
            if length != 0 {
                last = length;
            }
        }
        Ok(lengths)
    }
}

/// A complete prefix code: every row of bits is one of its symbols.
struct Code {
    /// How many symbols have a code of each length.
    counts: [u16; LONGEST_CODE + 1],
    /// The symbols, those of shorter codes first. One alone has a code of no bits.
    symbols: Vec<u16>,
}

impl Code {
    fn of_lengths(lengths: &[u8]) -> Result<Code, Flaw> {
        let mut counts = [0; LONGEST_CODE + 1];
        for &length in lengths {
            counts[usize::from(length)] += 1;
        }
        counts[0] = 0;
        // Where the symbols of each length begin.
        let mut places = [0; LONGEST_CODE + 1];
        let (mut all, mut share) = (0, 0);
        for (length, &count) in counts.iter().enumerate() {
            places[length] = all;
            all += usize::from(count);
            share += u32::from(count) << (LONGEST_CODE - length);
        }
        if all != 1 && share != 1 << LONGEST_CODE {
            return Err("a code leaves some bits without a symbol, or gives them two");
        }
        let mut symbols = vec![0; all];
        for (symbol, &length) in (0..).zip(lengths) {
            if length > 0 {
                let place = &mut places[usize::from(length)];
                symbols[*place] = symbol;
                *place += 1;
            }
        }
        Ok(Code { counts, symbols })
    }

    /// Bytes of the decoder's table and tree.
    fn memory(&self) -> u64 {
        if self.symbols.len() == 1 {
            return 0;
        }
        let longest = self.counts.iter().rposition(|&count| count > 0).unwrap_or(0);
        let in_tree: u64 =
            self.counts[TABLE_BITS + 1..].iter().map(|&count| u64::from(count)).sum();
        CODE_BYTES + (4 << longest.min(TABLE_BITS)) + TREE_BYTES * in_tree
    }
}

/// Keeps a colour where its number leads.
fn remember(cache: &mut [[u8; 4]], [red, green, blue, alpha]: [u8; 4]) {
    if !cache.is_empty() {
        let hash = 0x1e35_a7bd_u32.wrapping_mul(u32::from_be_bytes([alpha, red, green, blue]));
        // As many of its upper bits as the cache has colours, which are a power of two.
        let place = (u64::from(hash) * cache.len() as u64) >> 32;
        cache[place as usize] = [red, green, blue, alpha];
    }
}

/// How many pixels back a number for a distance means: the first ones are near in both directions.
fn pixels_back(number: usize, width: usize) -> usize {
    match NEAR.get(number - 1) {
        Some(&near) => {
            (usize::from(near >> 4) * width + 8).saturating_sub(usize::from(near & 15)).max(1)
        }
        None => number - NEAR.len(),
    }
}

/// Bits of bytes, the lowest of each first.
struct Bits<'a> {
    bytes: &'a [u8],
    /// Bits before the next one.
    at: usize,
}

impl Bits<'_> {
    /// The next bits, at least 25 of them, with zeros behind the last.
    fn peek(&self) -> u32 {
        let rest = self.bytes.get(self.at / 8..).unwrap_or_default();
        let next = match rest.first_chunk() {
            Some(four) => u32::from_le_bytes(*four),
            None => rest.iter().rev().fold(0, |bits, &byte| bits << 8 | u32::from(byte)),
        };
        next >> (self.at % 8)
    }

    fn skip(&mut self, count: u32) -> Result<(), Flaw> {
        self.at += count as usize;
        if self.at <= 8 * self.bytes.len() { Ok(()) } else { Err(CUT_SHORT) }
    }

    /// A number of at most 25 bits.
    fn take(&mut self, count: u32) -> Result<usize, Flaw> {
        let bits = self.peek() & ((1 << count) - 1);
        self.skip(count)?;
        Ok(bits as usize)
    }

    fn symbol(&mut self, code: &Code) -> Result<usize, Flaw> {
        if let [symbol] = code.symbols[..] {
            return Ok(usize::from(symbol));
        }
        let mut bits = self.peek();
        // The code so far, the first code of this length, and the place of its symbol.
        let (mut found, mut first, mut place) = (0, 0, 0);
        for (length, &count) in (1..).zip(&code.counts[1..]) {
            found = found << 1 | (bits & 1) as usize;
            bits >>= 1;
            let count = usize::from(count);
            if found < first + count {
                self.skip(length)?;
                let symbol = code.symbols.get(place + found - first);
                return symbol.map(|&symbol| usize::from(symbol)).ok_or(CUT_SHORT);
            }
            place += count;
            first = (first + count) << 1;
        }
        Err("its bits are no symbol")
    }

    /// A length or a distance, of which the symbol says how many bits it has: from 1 on.
    fn number(&mut self, symbol: usize) -> Result<usize, Flaw> {
        if symbol < 4 {
            return Ok(symbol + 1);
        }
        let bits = (symbol - 2) >> 1;
        Ok(((2 + (symbol & 1)) << bits) + self.take(bits as u32)? + 1)
    }
}
