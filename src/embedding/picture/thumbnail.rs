//! Small JPEG pictures to show in place of large ones.

use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer, images};

use super::{Picture, PictureError};

/// Quality of the JPEG, of 100.
const QUALITY: i32 = 85;

impl Picture {
    /// A JPEG of the picture, of at most `side_max` pixels a side (taken as 1 where it is 0) and as wide in proportion,
    /// never enlarged.
    pub(crate) fn thumbnail(&self, side_max: u32) -> Result<Vec<u8>, PictureError> {
        let (width, height) = self.shape_within(side_max.max(1));
        let failed = |error: &dyn std::fmt::Display| PictureError::Thumbnail(error.to_string());
        let stored = images::ImageRef::new(self.width, self.height, &self.rgb, PixelType::U8x3)
            .map_err(|e| failed(&e))?;
        let mut small = images::Image::new(width, height, PixelType::U8x3);
        let options = ResizeOptions::new()
            .resize_alg(ResizeAlg::Convolution(FilterType::Lanczos3))
            .use_alpha(false);
        Resizer::new().resize(&stored, &mut small, &options).map_err(|e| failed(&e))?;

        let pixels = turbojpeg::Image {
            pixels: small.buffer(),
            width: width as usize,
            pitch: 3 * width as usize,
            height: height as usize,
            format: turbojpeg::PixelFormat::RGB,
        };
        let compress = || {
            let mut compressor = turbojpeg::Compressor::new()?;
            compressor.set_quality(QUALITY)?;
            compressor.set_subsamp(turbojpeg::Subsamp::Sub2x2)?;
            compressor.compress_to_vec(pixels)
        };
        compress().map_err(|e| failed(&e))
    }

    fn shape_within(&self, side_max: u32) -> (u32, u32) {
        let (width, height) = (self.width, self.height);
        let long = width.max(height);
        if long <= side_max {
            return (width, height);
        }
        let side = |side: u32| {
            let (side, long) = (u64::from(side) * u64::from(side_max), u64::from(long));
            // At most `side_max`, since no side is longer than the long one.
            ((side + long / 2) / long).max(1) as u32
        };
        (side(width), side(height))
    }
}
