//! Every kind of picture, against Pillow's pixels and against what was put in.

use image::ImageFormat;

use super::super::Picture;
use super::{encoded, fixture, fixture_picture, jpeg, listed, scene, whole, with_segment};
use crate::embedding::picture::decode;
use crate::embedding::picture::tests::ROOMY;

/// The largest difference of a sample.
fn difference(a: &Picture, b: &Picture) -> u8 {
    assert_eq!((a.width, a.height), (b.width, b.height));
    a.rgb.iter().zip(&b.rgb).map(|(a, b)| a.abs_diff(*b)).max().expect("a picture has pixels")
}

#[test]
fn pixels_are_those_of_pillow() {
    let mut listed = listed();
    assert!(listed.len() > 50);
    // Reference first, so that a wrong PNG decoder shows itself there.
    listed.sort_by_key(|(picture, _)| !picture.starts_with("png_rgb"));
    let wrong: Vec<String> = listed
        .iter()
        .filter_map(|(picture, pixels)| {
            let found = match whole(&fixture(picture)) {
                Ok(found) => found,
                Err(error) => return Some(format!("{picture}: {error}")),
            };
            let reference = image::load_from_memory(&fixture(pixels)).expect("a PNG").into_rgb8();
            let (width, height) = reference.dimensions();
            let most = difference(
                &found,
                &Picture { width, height, rgb: reference.into_raw(), full_size: (width, height) },
            );
            (most > 0).then(|| format!("{picture}: samples differ by {most}"))
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_orientation_turns_a_picture_as_exif_says() {
    // By hand: where the pixel of a place in the upright picture is stored.
    let stored = scene(24, 16);
    let (w, h) = (stored.width, stored.height);
    type Place = fn(u32, u32, u32, u32) -> (u32, u32);
    let places: [Place; 8] = [
        |x, y, _, _| (x, y),
        |x, y, w, _| (w - 1 - x, y),
        |x, y, w, h| (w - 1 - x, h - 1 - y),
        |x, y, _, h| (x, h - 1 - y),
        |x, y, _, _| (y, x),
        |x, y, _, h| (y, h - 1 - x),
        |x, y, w, h| (w - 1 - y, h - 1 - x),
        |x, y, w, _| (w - 1 - y, x),
    ];
    let plain = jpeg(&stored, false);
    let decoded = whole(&plain).expect("a picture");
    let pixel = |picture: &Picture, x: u32, y: u32| {
        let at = 3 * (y * picture.width + x) as usize;
        [picture.rgb[at], picture.rgb[at + 1], picture.rgb[at + 2]]
    };
    for (orientation, place) in (1..).zip(places) {
        for is_little in [true, false] {
            let exif = exif(orientation, is_little);
            let found = whole(&with_segment(&plain, 0xe1, &exif)).expect("a picture");
            let sides = if orientation >= 5 { (h, w) } else { (w, h) };
            assert_eq!((found.width, found.height), sides, "orientation {orientation}");
            for (x, y) in (0..sides.0).flat_map(|x| (0..sides.1).map(move |y| (x, y))) {
                let (from_x, from_y) = place(x, y, w, h);
                assert_eq!(pixel(&found, x, y), pixel(&decoded, from_x, from_y), "{orientation}");
            }
        }
    }
    // One that does not exist says nothing.
    for orientation in [0, 9, 0x0106] {
        let found = whole(&with_segment(&plain, 0xe1, &exif(orientation, true)));
        assert_eq!(found.expect("a picture"), decoded);
    }
}

/// An EXIF segment that holds nothing but an orientation.
fn exif(orientation: u16, is_little: bool) -> Vec<u8> {
    let short = |v: u16| if is_little { v.to_le_bytes() } else { v.to_be_bytes() };
    let long = |v: u32| if is_little { v.to_le_bytes() } else { v.to_be_bytes() };
    [
        b"Exif\0\0",
        &(if is_little { *b"II" } else { *b"MM" })[..],
        &short(42),
        &long(8),
        &short(1),
        &short(0x0112),
        &short(3),
        &long(1),
        &short(orientation),
        &short(0),
        &long(0),
    ]
    .concat()
}

#[test]
fn formats_without_loss_give_back_what_was_put_in() {
    for (width, height) in [(1, 1), (1, 9), (9, 1), (31, 17)] {
        let picture = scene(width, height);
        for format in [ImageFormat::Png, ImageFormat::Bmp, ImageFormat::WebP] {
            let found = whole(&encoded(&picture, format)).expect("a picture");
            assert_eq!(found, picture, "{format:?}");
        }
    }
}

#[test]
fn a_jpeg_is_decoded_smaller_where_that_is_enough() {
    let bytes = jpeg(&scene(200, 120), false);
    for (at_least, sides) in [
        (Some((25, 15)), (25, 15)),
        (Some((26, 15)), (50, 30)),
        (Some((25, 31)), (100, 60)),
        (Some((101, 1)), (200, 120)),
        (Some((u32::MAX, u32::MAX)), (200, 120)),
        (Some((0, 0)), (25, 15)),
        (None, (200, 120)),
    ] {
        let found = decode(&bytes, &ROOMY, at_least).expect("a picture");
        assert_eq!((found.width(), found.height()), sides, "{at_least:?}");
        assert_eq!(found.rgb().len(), 3 * (sides.0 * sides.1) as usize);
    }
    // It is the upright picture that stays so large.
    let turned = with_segment(&bytes, 0xe1, &exif(6, true));
    let found = decode(&turned, &ROOMY, Some((15, 25))).expect("a picture");
    assert_eq!((found.width(), found.height()), (15, 25));
    let found = decode(&turned, &ROOMY, Some((25, 15))).expect("a picture");
    assert_eq!((found.width(), found.height()), (30, 50));
}

#[test]
fn a_flaw_that_pillow_shows_is_shown() {
    // Bytes between the pixels and the end, as some cameras write.
    let bytes = jpeg(&scene(32, 32), false);
    let (pixels, end) = bytes.split_at(bytes.len() - 2);
    let found = whole(&[pixels, &[1, 2, 3, 4, 5], end].concat()).expect("a picture");
    assert_eq!(found, whole(&bytes).expect("a picture"));
    // And anything behind the end.
    let found = whole(&[&bytes[..], b"a second picture, or a film"].concat()).expect("a picture");
    assert_eq!(found, whole(&bytes).expect("a picture"));
}

#[test]
fn thumbnails_are_small_jpegs_of_the_same_shape() {
    let picture = fixture_picture("source_150x107.png");
    for (side_max, sides) in
        [(64, (64, 46)), (150, (150, 107)), (4000, (150, 107)), (1, (1, 1)), (0, (1, 1))]
    {
        let bytes = picture.thumbnail(side_max).expect("a thumbnail");
        let found = whole(&bytes).expect("a picture");
        assert_eq!((found.width(), found.height()), sides, "{side_max}");
        assert!(bytes.starts_with(&[0xff, 0xd8, 0xff]));
    }
    // It looks like the picture: the mean of each colour stays.
    let mean = |picture: &Picture, channel: usize| {
        let values = picture.rgb.iter().skip(channel).step_by(3);
        values.map(|&value| f64::from(value)).sum::<f64>() / (picture.rgb.len() / 3) as f64
    };
    let small = whole(&picture.thumbnail(64).expect("a thumbnail")).expect("a picture");
    for channel in 0..3 {
        assert!((mean(&small, channel) - mean(&picture, channel)).abs() < 2.0);
    }
    // The narrowest one keeps a pixel.
    let found = whole(&scene(1, 90).thumbnail(10).expect("a thumbnail")).expect("a picture");
    assert_eq!((found.width(), found.height()), (1, 10));
}
