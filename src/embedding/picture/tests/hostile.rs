//! Files cut short and files changed at random: each is decoded or refused with a reason, within its limits.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::super::PictureLimits;
use super::{fixture, listed, whole};
use crate::embedding::picture::decode;

/// Files of the random test, over all formats.
const MUTATIONS: usize = 10_000;

#[test]
fn a_picture_cut_short_is_refused() {
    let mut cut_short = 0;
    for (name, _) in listed() {
        let bytes = fixture(&name);
        let picture = whole(&bytes).unwrap_or_else(|e| panic!("{name}: {e}"));
        for length in (0..bytes.len()).step_by(1 + bytes.len() / 90) {
            match whole(&bytes[..length]) {
                // What is left out is behind the pixels, as the second frame of a film.
                Ok(found) => assert_eq!(found, picture, "{name} at {length} of {}", bytes.len()),
                Err(refused) => {
                    assert!(!refused.to_string().is_empty());
                    cut_short += 1;
                }
            }
        }
        whole(&bytes[..bytes.len() / 2])
            .err()
            .or_else(|| name.contains("frames").then_some(super::PictureError::Empty))
            .unwrap_or_else(|| panic!("half of {name} is taken for a picture"));
    }
    assert!(cut_short > 3000, "{cut_short}");
}

#[test]
fn changed_files_are_decoded_or_refused_with_a_reason() {
    let files: Vec<(String, Vec<u8>)> =
        listed().into_iter().map(|(name, _)| (name.clone(), fixture(&name))).collect();
    let mut random = StdRng::seed_from_u64(5);
    // Tight, so that what a changed header claims meets them.
    let limits = PictureLimits {
        bytes_max: 1 << 20,
        pixels_max: 1 << 16,
        ratio_max: 20,
        decode_bytes_max: 2 << 20,
    };
    let (mut decoded, mut refused) = (0, 0);
    for turn in 0..MUTATIONS {
        let (name, bytes) = &files[turn % files.len()];
        let mut bytes = bytes.clone();
        for _ in 0..random.random_range(1..=8) {
            // Headers are where the harm is.
            let reach = if random.random() { bytes.len() } else { bytes.len().min(96) };
            let at = random.random_range(0..reach);
            match random.random_range(0..5) {
                0 => bytes[at] ^= 1 << random.random_range(0..8),
                1 => bytes[at] = random.random(),
                2 => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][random.random_range(0..5)],
                3 => {
                    let to = (at + random.random_range(1..=16)).min(bytes.len());
                    let copy = bytes[at..to].to_vec();
                    let onto = random.random_range(0..bytes.len() - copy.len());
                    bytes[onto..onto + copy.len()].copy_from_slice(&copy);
                }
                _ if bytes.len() > 100 => bytes.truncate(bytes.len() - random.random_range(0..64)),
                _ => {}
            }
        }
        let at_least = random.random::<bool>().then_some((8, 8));
        match decode(&bytes, &limits, at_least) {
            Ok(picture) => {
                let (width, height) = (u64::from(picture.width()), u64::from(picture.height()));
                assert!((1..=limits.pixels_max).contains(&(width * height)), "{name}");
                assert_eq!(picture.rgb().len() as u64, 3 * width * height, "{name}");
                decoded += 1;
            }
            Err(error) => {
                assert!(!error.to_string().is_empty(), "{name}");
                refused += 1;
            }
        }
    }
    // Both happen often: the files are neither untouched nor all broken in their first bytes.
    assert!(decoded > 1000 && refused > 1000, "{decoded} decoded, {refused} refused");
}
