//! Every limit refuses what is beyond it, and takes what is at it.

use image::ImageFormat;

use super::super::PictureLimits;
use super::{ROOMY, encoded, jpeg, scene};
use crate::embedding::picture::decode;

fn words(bytes: &[u8], limits: PictureLimits) -> String {
    decode(bytes, &limits, None).expect_err("a refusal").to_string()
}

#[test]
fn what_is_no_picture_is_refused_with_the_formats_that_are_taken() {
    assert_eq!(
        words(b"", ROOMY),
        "the picture has no bytes, where JPEG, PNG, WebP, GIF, BMP or TIFF is wanted"
    );
    assert_eq!(
        words(b"%PDF-1.7 and so on", ROOMY),
        "the bytes are no picture: they begin with 25 50 44 46 2d 31 2e 37, not as JPEG, PNG, WebP, \
         GIF, BMP or TIFF"
    );
    assert!(words(&[0], ROOMY).contains("they begin with 00,"));
    assert_eq!(
        words(b"\0\0\0\x20ftypavif and so on", ROOMY),
        "the picture is Avif, where JPEG, PNG, WebP, GIF, BMP or TIFF is wanted"
    );
}

#[test]
fn a_picture_at_a_limit_is_taken_and_one_beyond_it_refused_with_the_setting() {
    let picture = scene(40, 10);
    let files = [
        encoded(&picture, ImageFormat::Png),
        encoded(&picture, ImageFormat::Bmp),
        encoded(&picture, ImageFormat::Gif),
        encoded(&picture, ImageFormat::WebP),
        jpeg(&picture, false),
        jpeg(&picture, true),
    ];
    for bytes in &files {
        let at = PictureLimits { bytes_max: bytes.len(), pixels_max: 400, ratio_max: 4, ..ROOMY };
        decode(bytes, &at, None).expect("it is at its limits");
        let size = bytes.len();
        assert_eq!(
            words(bytes, PictureLimits { bytes_max: size - 1, ..at }),
            format!(
                "the picture has {size} bytes, more than limits.picture_bytes_max = {}",
                size - 1
            )
        );
        assert_eq!(
            words(bytes, PictureLimits { pixels_max: 399, ..at }),
            "the picture is 40 x 10, 400 pixels, more than limits.picture_pixels_max = 399"
        );
        assert_eq!(
            words(bytes, PictureLimits { ratio_max: 3, ..at }),
            "the picture is 40 x 10: one side is more than limits.picture_ratio_max = 3 times the other"
        );
        let refused = words(bytes, PictureLimits { decode_bytes_max: 1199, ..at });
        assert!(refused.starts_with("decoding the picture takes "), "{refused}");
        assert!(refused.ends_with("more than limits.picture_decode_bytes_max = 1199"), "{refused}");
    }
}

#[test]
fn a_smaller_scale_takes_less_memory() {
    let bytes = jpeg(&scene(400, 400), false);
    let limits = PictureLimits { decode_bytes_max: 3 * 100 * 100, ..ROOMY };
    assert!(words(&bytes, limits).contains("takes 480000 bytes of memory"));
    decode(&bytes, &limits, Some((100, 100))).expect("a quarter of the size fits");
    // Coefficients of a progressive one are all held, whatever the scale.
    let progressive = jpeg(&scene(400, 400), true);
    let refused = decode(&progressive, &limits, Some((100, 100))).expect_err("a refusal");
    // Blocks of 8 x 8 in groups of 16 x 16: 4 + 1 + 1 of 128 bytes in 25 x 25 groups.
    let needed = 3 * 100 * 100 + 25 * 25 * 6 * 128;
    assert!(refused.to_string().contains(&format!("takes {needed} bytes")), "{refused}");
}
