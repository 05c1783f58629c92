//! What lossless WebP streams declare before their pixels, and what they may not.

use image::ImageFormat;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::super::vp8l::memory;
use super::super::{PictureError, PictureLimits, webp_header};
use super::{ROOMY, encoded, fixture, listed, scene, whole};
use crate::embedding::picture::decode;

/// 64 x 64 pixels of 256 colours that Pillow wrote, with several groups.
const GROUPED: &[u8] = include_bytes!("grouped.webp");

fn of_file(bytes: &[u8]) -> Vec<u64> {
    let header = webp_header::read(bytes).expect("chunks");
    header.streams.into_iter().map(|stream| memory(stream).expect("a stream")).collect()
}

/// Bits, the lowest of each byte first.
#[derive(Default)]
struct Writer {
    bits: Vec<bool>,
}

impl Writer {
    fn put(&mut self, value: u32, count: u32) {
        self.bits.extend((0..count).map(|bit| value >> bit & 1 == 1));
    }

    fn one_symbol(&mut self, symbol: u32) {
        self.put(0b101, 3);
        self.put(symbol, 8);
    }

    /// A code of 11 symbols with lengths of 1 to 10, for which a decoder makes a table of 1024 entries.
    fn long_code(&mut self) {
        self.put(0, 1);
        // Lengths 1 to 6 are written with three bits, 7 to 10 with four, and there is no other.
        let written = [0, 0, 0, 3, 3, 3, 3, 3, 0, 3, 4, 4, 4, 4];
        self.put(written.len() as u32 - 4, 4);
        written.iter().for_each(|&length| self.put(length, 3));
        // Eleven lengths.
        self.put(1, 1);
        self.put(1, 3);
        self.put(11 - 2, 4);
        for length in [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 10u32] {
            // The upper bit of a code comes first.
            let (code, count) = if length <= 6 { (length - 1, 3) } else { (12 + length - 7, 4) };
            (0..count).rev().for_each(|bit| self.put(code >> bit & 1, 1));
        }
    }

    /// One pixel that is of the last of so many groups.
    fn groups(&mut self, groups: u32) {
        // Neither transforms nor remembered colours; groups for blocks of 4 x 4.
        self.put(0b100, 3);
        self.put(0, 3 + 1);
        let last = groups - 1;
        for symbol in [last & 255, last >> 8, 0, 0, 0] {
            self.one_symbol(symbol);
        }
        (0..5 * groups).for_each(|_| self.long_code());
        // The pixel: four codes of one bit.
        self.put(0, 32);
    }

    fn bytes(&self) -> Vec<u8> {
        let byte = |bits: &[bool]| (0..).zip(bits).map(|(at, &bit)| u8::from(bit) << at).sum();
        self.bits.chunks(8).map(byte).collect()
    }
}

/// A lossless stream of 1 x 1.
fn stream(groups: u32) -> Vec<u8> {
    let mut writer = Writer::default();
    writer.put(0x2f, 8);
    writer.put(0, 14 + 14 + 1 + 3);
    writer.groups(groups);
    writer.bytes()
}

fn alpha(groups: u32) -> Vec<u8> {
    let mut writer = Writer::default();
    writer.put(1, 8);
    writer.groups(groups);
    writer.bytes()
}

fn chunk(name: &[u8; 4], body: &[u8]) -> Vec<u8> {
    let padding = &[0][..body.len() % 2];
    [name, &(body.len() as u32).to_le_bytes()[..], body, padding].concat()
}

fn riff(chunks: &[Vec<u8>]) -> Vec<u8> {
    chunk(b"RIFF", &[b"WEBP", &chunks.concat()[..]].concat())
}

/// The header of a file of 1 x 1.
fn header(flags: u8) -> Vec<u8> {
    chunk(b"VP8X", &[flags, 0, 0, 0, 0, 0, 0, 0, 0, 0])
}

fn frame(chunks: &[Vec<u8>]) -> Vec<u8> {
    chunk(b"ANMF", &[&[0; 16][..], &chunks.concat()].concat())
}

#[test]
fn what_encoders_write_is_read() {
    let mut seen = 0;
    for (name, _) in listed().into_iter().filter(|(name, _)| name.ends_with(".webp")) {
        let found = of_file(&fixture(&name));
        assert!(found.iter().all(|&memory| memory < 1 << 20), "{name}: {found:?}");
        seen += found.len();
    }
    assert!(seen > 1, "{seen}");
    let found = of_file(&encoded(&scene(64, 48), ImageFormat::WebP));
    assert_eq!(found.len(), 1);

    let [found] = of_file(GROUPED)[..] else { panic!("one stream") };
    let picture = whole(GROUPED).expect("a picture");
    // Its memory is that of its pixels and that of its groups, and no byte less.
    let pixels = u64::from(picture.width() * picture.height());
    let needed = (3 + 8) * pixels + found;
    let limits = PictureLimits { decode_bytes_max: needed, ..ROOMY };
    assert_eq!(decode(GROUPED, &limits, None), Ok(picture));
    let limits = PictureLimits { decode_bytes_max: needed - 1, ..ROOMY };
    let refused = decode(GROUPED, &limits, None);
    assert_eq!(refused, Err(PictureError::TooMuchMemory { bytes: needed, max: needed - 1 }));
}

#[test]
fn as_many_groups_as_fit_are_decoded_and_more_refused() {
    // Of each code 4 KiB.
    let few = riff(&[chunk(b"VP8L", &stream(300))]);
    let [found] = of_file(&few)[..] else { panic!("one stream") };
    assert!((300 * 5 * 4096..300 * 5 * 4400).contains(&found), "{found}");
    let picture = whole(&few).expect("a picture");
    assert_eq!((picture.width(), picture.height()), (1, 1));

    let many = 3300;
    let pixels = chunk(b"VP8 ", &[0x10, 0, 0, 0x9d, 1, 0x2a, 1, 0, 1, 0]);
    let anim = chunk(b"ANIM", &[0; 6]);
    for (name, bytes) in [
        ("alone", riff(&[chunk(b"VP8L", &stream(many))])),
        ("extended", riff(&[header(0), chunk(b"VP8L", &stream(many))])),
        ("alpha", riff(&[header(0x10), chunk(b"ALPH", &alpha(many)), pixels.clone()])),
        // A stream behind the end of what the decoder looks at hides nothing.
        (
            "alpha beside",
            riff(&[
                header(0x10),
                chunk(b"ALPH", &alpha(many)),
                pixels.clone(),
                chunk(b"VP8L", &stream(1)),
            ]),
        ),
        ("frame", riff(&[header(2), anim.clone(), frame(&[chunk(b"VP8L", &stream(many))])])),
        (
            "alpha of a frame",
            riff(&[header(0x12), anim, frame(&[chunk(b"ALPH", &alpha(many)), pixels.clone()])]),
        ),
    ] {
        assert!(bytes.len() < ROOMY.bytes_max, "{name}");
        match whole(&bytes) {
            Err(PictureError::TooMuchMemory { bytes, .. }) => {
                assert!(bytes > u64::from(many) * 5 * 4096, "{name}: {bytes}");
            }
            // The decoder itself refuses two kinds of pixels in one file.
            Err(PictureError::Damaged { .. }) if name == "alpha beside" => {}
            other => panic!("{name}: {other:?}"),
        }
    }
    // The decoder would take the alpha within the frame for the picture's.
    let refused = whole(&riff(&[header(0x10), pixels, frame(&[chunk(b"ALPH", &alpha(9))])]));
    assert!(refused.expect_err("a bomb").to_string().contains("it has frames"));
}

#[test]
fn changed_streams_are_read_or_refused() {
    let files =
        [GROUPED.to_vec(), riff(&[chunk(b"VP8L", &stream(20))]), fixture("webp_alpha.webp")];
    let mut random = StdRng::seed_from_u64(11);
    let (mut read, mut refused) = (0, 0);
    for turn in 0..900 {
        let mut bytes = files[turn % files.len()].clone();
        for _ in 0..random.random_range(1..=3) {
            let reach = if random.random() { bytes.len() } else { bytes.len().min(120) };
            let at = random.random_range(12..reach);
            bytes[at] ^= 1 << random.random_range(0..8);
        }
        let cut = if turn % 5 == 0 { random.random_range(30..bytes.len()) } else { bytes.len() };
        bytes.truncate(cut);
        let size = (bytes.len() as u32 - 8).to_le_bytes();
        bytes[4..8].copy_from_slice(&size);
        let Ok(header) = webp_header::read(&bytes) else { continue };
        // As a decoder would do before that.
        if u64::from(header.width) * u64::from(header.height) > ROOMY.pixels_max {
            continue;
        }
        for stream in header.streams {
            match memory(stream) {
                Ok(_) => read += 1,
                Err(flaw) => {
                    assert!(!flaw.is_empty());
                    refused += 1;
                }
            }
        }
    }
    assert!(read > 50 && refused > 50, "{read} read, {refused} refused");
}
