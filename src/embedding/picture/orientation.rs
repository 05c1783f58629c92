//! Upright pictures: what EXIF says of how the camera was held.

use image::metadata::Orientation;
use image::{DynamicImage, RgbImage};

use super::{Format, Picture, PictureError};

/// What EXIF data begins with where it is not alone, as in JPEG.
pub(super) const EXIF_MARK: &[u8] = b"Exif\0\0";

/// The orientation that EXIF data gives; upright when it gives none, or one that does not exist.
pub(super) fn of_exif(exif: Option<&[u8]>) -> Orientation {
    let tiff = exif.map(|exif| exif.strip_prefix(EXIF_MARK).unwrap_or(exif));
    tiff.and_then(Orientation::from_exif_chunk).unwrap_or(Orientation::NoTransforms)
}

/// Whether width and height change places.
pub(super) fn turns(orientation: Orientation) -> bool {
    use Orientation::{Rotate90, Rotate90FlipH, Rotate270, Rotate270FlipH};
    matches!(orientation, Rotate90 | Rotate90FlipH | Rotate270 | Rotate270FlipH)
}

/// Bytes of the second copy of the pixels that setting them upright takes.
pub(super) fn memory(orientation: Orientation, pixels: u64) -> u64 {
    if turns(orientation) { 3 * pixels } else { 0 }
}

/// Makes a picture of pixels as they are stored.
pub(super) fn upright(
    format: Format,
    (width, height): (u32, u32),
    rgb: Vec<u8>,
    orientation: Orientation,
) -> Result<Picture, PictureError> {
    let stored = RgbImage::from_raw(width, height, rgb)
        .ok_or_else(|| PictureError::damaged(format, "it has fewer pixels than its header says"))?;
    let mut picture = DynamicImage::ImageRgb8(stored);
    picture.apply_orientation(orientation);
    let (width, height) = (picture.width(), picture.height());
    Ok(Picture { width, height, rgb: picture.into_bytes(), full_size: (width, height) })
}
