//! What a picture may cost. Checked by its header, before anything is allocated for its pixels.

use super::PictureError;

/// How large a picture may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PictureLimits {
    /// Bytes of the file.
    pub bytes_max: usize,
    /// Pixels that its header claims.
    pub pixels_max: u64,
    /// How many times its long side may be as long as the short one.
    pub ratio_max: u32,
    /// Bytes of memory at the moment of decoding that takes most.
    pub decode_bytes_max: u64,
}

impl PictureLimits {
    pub(super) fn check_bytes(&self, bytes: usize) -> Result<(), PictureError> {
        let max = self.bytes_max;
        if bytes > max { Err(PictureError::TooManyBytes { bytes, max }) } else { Ok(()) }
    }

    /// Checks sides of at least 1.
    pub(super) fn check_shape(&self, width: u32, height: u32) -> Result<(), PictureError> {
        if u64::from(width) * u64::from(height) > self.pixels_max {
            return Err(PictureError::TooManyPixels { width, height, max: self.pixels_max });
        }
        let (short, long) = (width.min(height), width.max(height));
        if u64::from(long) > u64::from(short) * u64::from(self.ratio_max) {
            return Err(PictureError::TooNarrow { width, height, max: self.ratio_max });
        }
        Ok(())
    }

    /// Checks the memory that decoding takes; the rest of what it may take.
    pub(super) fn check_memory(&self, bytes: u64) -> Result<u64, PictureError> {
        let max = self.decode_bytes_max;
        max.checked_sub(bytes).ok_or(PictureError::TooMuchMemory { bytes, max })
    }
}
