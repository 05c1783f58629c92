//! From the bytes of a picture to the numbers that a model takes.
#![cfg_attr(not(test), expect(dead_code, reason = "used by the calls that embed pictures"))]

pub(crate) mod picture;
pub(crate) mod preprocess;
