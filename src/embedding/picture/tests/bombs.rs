//! Small files that claim to be huge, or keep a decoder busy: all are refused by what their headers say.

use flate2::Compression;
use flate2::write::ZlibEncoder;
use image::ImageFormat;
use std::borrow::Cow;
use std::io::Write;

use super::super::png_chunks::strip;
use super::super::{Format, PictureError, PictureLimits};
use super::{encoded, jpeg, listed, scene, whole};
use crate::embedding::picture::decode;
use crate::embedding::picture::tests::{ROOMY, fixture};

/// The file with other bytes at a position.
fn patched(bytes: &[u8], at: usize, with: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[at..at + with.len()].copy_from_slice(with);
    bytes
}

fn png_chunk(name: &[u8; 4], body: &[u8]) -> Vec<u8> {
    let mut sum = flate2::Crc::new();
    sum.update(name);
    sum.update(body);
    [&(body.len() as u32).to_be_bytes()[..], name, body, &sum.sum().to_be_bytes()].concat()
}

/// A PNG of grey pixels with these chunks before them.
fn png(width: u32, height: u32, chunks: &[u8], packed: &[u8]) -> Vec<u8> {
    let header = [&width.to_be_bytes()[..], &height.to_be_bytes(), &[8, 0, 0, 0, 0]].concat();
    let parts = [
        b"\x89PNG\r\n\x1a\n".to_vec(),
        png_chunk(b"IHDR", &header),
        chunks.to_vec(),
        png_chunk(b"IDAT", packed),
        png_chunk(b"IEND", b""),
    ];
    parts.concat()
}

fn zeros(bytes: usize) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(&vec![0; bytes]).expect("memory takes all");
    encoder.finish().expect("memory takes all")
}

#[test]
fn headers_that_claim_huge_pictures_are_refused() {
    let picture = scene(16, 16);
    let bmp = encoded(&picture, ImageFormat::Bmp);
    let gif = encoded(&picture, ImageFormat::Gif);
    let webp = encoded(&picture, ImageFormat::WebP);
    let mut tiff = fixture("tiff_rgb.tif");
    for (tag, at) in tiff_entries(&tiff) {
        // Width, height and rows of the strip.
        if matches!(tag, 256 | 257 | 278) {
            tiff = patched(&tiff, at + 8, &60_000u32.to_le_bytes());
            // Four bytes for the value.
            tiff = patched(&tiff, at + 2, &4u16.to_le_bytes());
        }
    }
    let frame = jpeg(&picture, false);
    let sof = frame.windows(2).position(|pair| pair == [0xff, 0xc0]).expect("a frame");
    let progressive = jpeg(&picture, true);
    let sof2 = progressive.windows(2).position(|pair| pair == [0xff, 0xc2]).expect("a frame");
    let huge = [0xea, 0x60, 0xea, 0x60];
    let bombs = [
        ("png", png(60_000, 60_000, &[], &zeros(1 << 20))),
        ("gif", patched(&gif, 6, &[0x60, 0xea, 0x60, 0xea])),
        ("bmp", patched(&bmp, 18, &[60_000u32.to_le_bytes(), 60_000u32.to_le_bytes()].concat())),
        ("webp", patched(&webp, 21, &[0xfe, 0xbf, 0xff, 0x0f])),
        ("tiff", tiff),
        ("jpeg", patched(&frame, sof + 5, &huge)),
        ("progressive jpeg", patched(&progressive, sof2 + 5, &huge)),
    ];
    for (name, bytes) in &bombs {
        let refused = whole(bytes).expect_err(name);
        assert!(matches!(refused, PictureError::TooManyPixels { .. }), "{name}: {refused}");
        // With all pixels allowed, it is the memory that is not there.
        let limits = PictureLimits { pixels_max: u64::MAX, ..ROOMY };
        let refused = decode(bytes, &limits, None).expect_err(name);
        assert!(matches!(refused, PictureError::TooMuchMemory { .. }), "{name}: {refused}");
    }
}

/// Tags of a little-endian TIFF's first directory, and where their entries are.
fn tiff_entries(bytes: &[u8]) -> Vec<(u16, usize)> {
    let short = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
    let directory = u32::from_le_bytes(bytes[4..8].try_into().expect("four bytes")) as usize;
    let entries = 0..usize::from(short(directory));
    entries.map(|entry| directory + 2 + 12 * entry).map(|at| (short(at), at)).collect()
}

#[test]
fn a_picture_within_that_claims_more_than_its_header_is_refused() {
    let simple = encoded(&scene(16, 16), ImageFormat::WebP);
    // A canvas of 16 x 16, and pixels that say 16384 x 16384.
    let stream = patched(&simple[12..], 9, &[0xff, 0xff, 0xff, 0x0f]);
    let canvas = [&b"VP8X"[..], &10u32.to_le_bytes(), &[0, 0, 0, 0, 15, 0, 0, 15, 0, 0]].concat();
    let riff = |chunks: &[u8]| {
        let size = (4 + chunks.len() as u32).to_le_bytes();
        [b"RIFF", &size[..], b"WEBP", chunks].concat()
    };
    let refused = whole(&riff(&[canvas.clone(), stream.clone()].concat())).expect_err("a bomb");
    assert!(refused.to_string().contains("16384 x 16384"), "{refused}");

    // The same within the frame of an animation.
    let frame = [&[0; 6][..], &[15, 0, 0, 15, 0, 0], &[0; 4], &stream].concat();
    let animated = [
        patched(&canvas, 8, &[2]),
        [&b"ANIM"[..], &6u32.to_le_bytes(), &[0; 6]].concat(),
        [&b"ANMF"[..], &(frame.len() as u32).to_le_bytes(), &frame].concat(),
    ];
    let refused = whole(&riff(&animated.concat())).expect_err("a bomb");
    assert!(refused.to_string().contains("16384 x 16384"), "{refused}");

    // A frame that is larger than the screen of a GIF is decoded in a buffer of its own.
    let gif = encoded(&scene(16, 16), ImageFormat::Gif);
    let frame =
        gif.windows(9).position(|w| w == [0x2c, 0, 0, 0, 0, 16, 0, 16, 0]).expect("a frame");
    let refused = whole(&patched(&gif, frame + 5, &[0xff, 0xff, 0xff, 0xff])).expect_err("a bomb");
    assert!(!refused.to_string().is_empty());
}

#[test]
fn tiles_that_claim_more_than_the_picture_are_refused() {
    // 16 x 16 of grey in one tile of 65520 x 65520.
    let entries: [(u16, u16, u32); 9] = [
        (256, 4, 16),
        (257, 4, 16),
        (258, 3, 8),
        (259, 3, 8),
        (262, 3, 1),
        (322, 4, 65_520),
        (323, 4, 65_520),
        (324, 4, 8),
        (325, 4, 8),
    ];
    let mut bytes = [&b"II*\0"[..], &16u32.to_le_bytes(), &[0; 8], &9u16.to_le_bytes()].concat();
    for (tag, kind, value) in entries {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(kind.to_le_bytes());
        bytes.extend(1u32.to_le_bytes());
        bytes.extend(value.to_le_bytes());
    }
    bytes.extend(0u32.to_le_bytes());
    let refused = whole(&bytes).expect_err("a bomb").to_string();
    assert_eq!(
        refused,
        "the TIFF picture has tiles of 65520 x 65520 for 16 x 16 pixels, which is not taken"
    );
}

#[test]
fn chunks_that_unpack_to_much_are_not_unpacked() {
    let packed = zeros(200 << 20);
    let profile = png_chunk(b"iCCP", &[b"x\0\0", &packed[..]].concat());
    let packed_text = png_chunk(b"zTXt", &[b"x\0\0", &packed[..]].concat());
    let text = png_chunk(b"iTXt", &[b"x\0\x01\0\0\0", &packed[..]].concat());
    let long = png_chunk(b"tEXt", &[b"x\0", &vec![b'x'; 500_000][..]].concat());
    let pixels = zeros(5 * 4);
    let plain = png(4, 4, &[], &pixels);
    let picture = whole(&plain).expect("a picture");
    for (name, chunk) in
        [("profile", profile.clone()), ("packed", packed_text), ("text", text), ("long", long)]
    {
        let bytes = png(4, 4, &chunk, &pixels);
        // The decoder is not even shown it, and unpacks nothing.
        let stripped = strip(&bytes).expect("chunks");
        assert_eq!(stripped.bytes, plain, "{name}");
        // So there need be no room but for the pixels and for the file without it.
        let limits = PictureLimits { decode_bytes_max: plain.len() as u64 + 64, ..ROOMY };
        assert_eq!(decode(&bytes, &limits, None).as_ref(), Ok(&picture), "{name}");
    }

    // A file without such chunks is not copied, and other chunks stay.
    assert!(matches!(strip(&plain).expect("chunks").bytes, Cow::Borrowed(_)));
    let gamma = png_chunk(b"gAMA", &[0, 0, 0, 1]);
    let bytes = png(4, 4, &[&gamma[..], &profile, &gamma].concat(), &pixels);
    let stripped = strip(&bytes).expect("chunks");
    assert_eq!(stripped.bytes, png(4, 4, &[&gamma[..], &gamma].concat(), &pixels));
    // One that says that it is longer than the file.
    let cut = [&plain[..33], &patched(&profile, 0, &[0x7f, 0xff, 0xff, 0xff])].concat();
    assert_eq!(whole(&cut), Err(PictureError::CutShort { format: Format::Png }));

    // More pixels than there is room for are not looked at.
    let picture = whole(&png(4, 4, &[], &zeros(50 << 20))).expect("the first rows are the picture");
    assert_eq!(picture.rgb(), [0; 3 * 16]);
}

#[test]
fn a_png_is_turned_as_its_exif_says_whatever_is_around_it() {
    // One field: an orientation of 6.
    let exif =
        [&b"MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0"[..], &[0; 4]].concat();
    let (exif, profile) = (png_chunk(b"eXIf", &exif), png_chunk(b"iCCP", b"x\0\0"));
    let pixels = zeros(5 * 2);
    let sides = |chunks: &[&[u8]]| {
        let picture = whole(&png(4, 2, &chunks.concat(), &pixels)).expect("a picture");
        (picture.width(), picture.height())
    };
    assert_eq!(sides(&[]), (4, 2));
    assert_eq!(sides(&[&exif]), (2, 4));
    assert_eq!(sides(&[&profile, &exif, &profile]), (2, 4));
    // The first one that is whole counts.
    let broken = patched(&exif, exif.len() - 1, &[!exif[exif.len() - 1]]);
    assert_eq!(sides(&[&broken]), (4, 2));
    assert_eq!(sides(&[&broken, &exif]), (2, 4));
}

#[test]
fn a_jpeg_of_very_many_scans_is_refused() {
    let bytes = jpeg(&scene(64, 64), true);
    let scan = bytes.windows(2).rposition(|pair| pair == [0xff, 0xda]).expect("a scan");
    let (before, last) = bytes[..bytes.len() - 2].split_at(scan);
    let with_scans = |times: usize| [before, &last.repeat(times), &[0xff, 0xd9]].concat();
    let own = bytes.windows(2).filter(|pair| pair == &[0xff, 0xda]).count();

    let refused = whole(&with_scans(1000)).expect_err("a bomb").to_string();
    assert_eq!(
        refused,
        format!("the picture is {} scans of 64 x 64, where 100 are taken of this size", own + 999)
    );
    // A large picture may have fewer.
    let limits = PictureLimits { pixels_max: 64 * 64, ..ROOMY };
    decode(&bytes, &limits, None).expect("as many as encoders make");
    let refused = decode(&with_scans(50), &limits, None).expect_err("a bomb").to_string();
    assert!(refused.ends_with("where 24 are taken of this size"), "{refused}");
}

#[test]
fn claims_of_any_size_are_answered() {
    // Every field of two and four bytes in the first part of each fixture, as large as can be.
    for (name, _) in listed() {
        let bytes = fixture(&name);
        let head = bytes.len().min(64);
        for at in 2..head - 4 {
            for value in [&[0xff, 0xff][..], &[0xff; 4], &[0x7f, 0xff, 0xff, 0xff]] {
                if let Err(refused) = whole(&patched(&bytes, at, value)) {
                    assert!(!refused.to_string().is_empty(), "{name} at {at}");
                }
            }
        }
    }
}
