//! Tests of pictures: pixels against Pillow's, limits from headers, and files that mean harm.

mod bombs;
mod hostile;
mod kinds;
mod limits;
mod vp8l;

use std::path::PathBuf;

use super::{Picture, PictureError, PictureLimits, decode};

/// Limits that no honest test picture reaches.
pub(super) const ROOMY: PictureLimits = PictureLimits {
    bytes_max: 1 << 20,
    pixels_max: 1 << 20,
    ratio_max: 100,
    decode_bytes_max: 64 << 20,
};

pub(super) fn whole(bytes: &[u8]) -> Result<Picture, PictureError> {
    decode(bytes, &ROOMY, None)
}

pub(in crate::embedding) fn fixture(name: &str) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/pictures").join(name);
    std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

pub(in crate::embedding) fn fixture_picture(name: &str) -> Picture {
    whole(&fixture(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
}

/// Pictures that Pillow wrote, with the names of Pillow's pixels.
pub(super) fn listed() -> Vec<(String, String)> {
    let listed: Vec<serde_json::Value> =
        serde_json::from_slice(&fixture("pictures.json")).expect("the list is JSON");
    let text = |value: &serde_json::Value| value.as_str().expect("a name").to_owned();
    listed.iter().map(|entry| (text(&entry["picture"]), text(&entry["pixels"]))).collect()
}

/// A picture with few repeats.
pub(in crate::embedding) fn scene(width: u32, height: u32) -> Picture {
    let pixel = |x: u32, y: u32| [x * 5 + y, y * 7, x * y].map(|value| value as u8);
    let rgb = (0..height).flat_map(|y| (0..width).flat_map(move |x| pixel(x, y))).collect();
    Picture { width, height, rgb, full_size: (width, height) }
}

pub(super) fn encoded(picture: &Picture, format: image::ImageFormat) -> Vec<u8> {
    let pixels = image::RgbImage::from_raw(picture.width, picture.height, picture.rgb.clone());
    let mut out = std::io::Cursor::new(Vec::new());
    pixels.expect("as many bytes as pixels").write_to(&mut out, format).expect("it is written");
    out.into_inner()
}

pub(super) fn jpeg(picture: &Picture, is_progressive: bool) -> Vec<u8> {
    let pixels = turbojpeg::Image {
        pixels: picture.rgb(),
        width: picture.width as usize,
        pitch: 3 * picture.width as usize,
        height: picture.height as usize,
        format: turbojpeg::PixelFormat::RGB,
    };
    let mut compressor = turbojpeg::Compressor::new().expect("a compressor");
    compressor.set_quality(90).expect("a quality");
    compressor.set_subsamp(turbojpeg::Subsamp::Sub2x2).expect("a subsampling");
    compressor.set_progressive(is_progressive).expect("a kind");
    compressor.compress_to_vec(pixels).expect("it is written")
}

/// The JPEG with another segment right after its first marker.
pub(super) fn with_segment(jpeg: &[u8], marker: u8, body: &[u8]) -> Vec<u8> {
    let length = (2 + body.len() as u16).to_be_bytes();
    [&jpeg[..2], &[0xff, marker], &length, body, &jpeg[2..]].concat()
}
