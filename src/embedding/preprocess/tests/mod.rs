//! Tests of preparing pictures: tensors against Pillow and numpy, and what configurations say.

mod config;

use super::super::picture::tests::{fixture, fixture_picture};
use super::{Accuracy, InputForm, Layout, Preprocess, PreprocessError, Span};

pub(super) const ANY: InputForm = InputForm { layout: Layout::Nchw, height: None, width: None };

fn tensor(preprocess: &Preprocess, picture: &str) -> Vec<f32> {
    let mut out = vec![f32::NAN; preprocess.tensor_len()];
    preprocess.tensor(&fixture_picture(picture), &mut out).expect("a tensor");
    out
}

#[test]
fn tensors_are_those_of_pillow_and_numpy() {
    let listed: Vec<serde_json::Value> =
        serde_json::from_slice(&fixture("tensors.json")).expect("the list is JSON");
    assert!(listed.len() > 25);
    let mut wrong = Vec::new();
    for entry in &listed {
        let text = |field: &str| entry[field].as_str().expect("a text");
        let config = entry["config"].to_string();
        for accuracy in [Accuracy::Exact, Accuracy::Step] {
            let preprocess =
                Preprocess::from_json(config.as_bytes(), ANY, accuracy).expect("a configuration");
            let reference = fixture_picture(text("colours"));
            let (height, width) = preprocess.shape();
            assert_eq!(
                (reference.height(), reference.width()),
                (height, width),
                "{}",
                text("name")
            );

            let found = tensor(&preprocess, text("picture"));
            let plane = height as usize * width as usize;
            let recipe = &preprocess.recipe;
            let (mut most, mut same) = (0.0f64, 0);
            for (at, colour) in reference.rgb().iter().enumerate() {
                let (pixel, channel) = (at / 3, at % 3);
                // Back to what it was before it was normalised.
                let number = f64::from(found[channel * plane + pixel]);
                let rescaled = number * recipe.std[channel] + recipe.mean[channel];
                let differs = (rescaled - f64::from(*colour) * recipe.factor).abs();
                most = most.max(differs);
                same += usize::from(differs < 1e-5);
            }
            // Steps of a colour, and what floats leave out.
            let allowed = match accuracy {
                Accuracy::Exact => 1e-6,
                Accuracy::Step => 2.0 / 255.0 + 1e-6,
            };
            if most > allowed {
                let (name, steps) = (text("name"), most * 255.0);
                let same = same as f64 / (3 * plane) as f64;
                wrong.push(format!(
                    "{name}, {accuracy:?}: {steps:.2} steps of a colour, {same:.5} the same"
                ));
            }

            // The arithmetic is numpy's too.
            for (corner, pixel) in [(0, 0), (1, plane - 1)] {
                for channel in 0..3 {
                    let wanted = entry["corners"][corner][channel].as_f64().expect("a number");
                    let number = f64::from(found[channel * plane + pixel]);
                    let allowed = allowed / recipe.std[channel].abs() + 1e-6;
                    assert!((number - wanted).abs() <= allowed, "{}", text("name"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn layouts_and_colour_orders_hold_the_same_numbers() {
    let file = |flips: bool| {
        format!(
            r#"{{"image_processor_type": "ViTImageProcessor", "size": {{"height": 8, "width": 6}},
                "image_mean": [0.1, 0.2, 0.3], "image_std": [0.5, 1, 2], "do_flip_channel_order": {flips}}}"#
        )
    };
    let of = |layout, flips| {
        let form = InputForm { layout, height: Some(8), width: Some(6) };
        let made = Preprocess::from_json(file(flips).as_bytes(), form, Accuracy::Exact)
            .expect("a configuration");
        tensor(&made, "source_37x29.png")
    };
    let planes = of(Layout::Nchw, false);
    let pixels = of(Layout::Nhwc, false);
    for (at, &number) in planes.iter().enumerate() {
        assert_eq!(number.to_bits(), pixels[at % 48 * 3 + at / 48].to_bits());
    }
    // The tensor's first channel is blue; mean and deviation are in the tensor's order.
    let flipped = of(Layout::Nchw, true);
    let colour = |tensor: &[f32], channel: usize, at: usize| {
        let (mean, std) = ([0.1, 0.2, 0.3][channel], [0.5, 1.0, 2.0][channel]);
        tensor[48 * channel + at] * std + mean
    };
    for (channel, at) in (0..3).flat_map(|channel| (0..48).map(move |at| (channel, at))) {
        assert!((colour(&flipped, channel, at) - colour(&planes, 2 - channel, at)).abs() < 1e-6);
    }
    let flipped_pixels = of(Layout::Nhwc, true);
    for (at, &number) in flipped.iter().enumerate() {
        assert_eq!(number.to_bits(), flipped_pixels[at % 48 * 3 + at / 48].to_bits());
    }
}

#[test]
fn a_crop_larger_than_the_picture_is_black_around_it() {
    let file =
        br#"{"do_resize": false, "crop_size": {"height": 32, "width": 40}, "do_center_crop": true,
                    "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}"#;
    for layout in [Layout::Nchw, Layout::Nhwc] {
        let preprocess = Preprocess::from_json(file, InputForm { layout, ..ANY }, Accuracy::Exact)
            .expect("a configuration");
        // 37 x 29 in 40 x 32: two columns and rows before it, one behind.
        let found = tensor(&preprocess, "source_37x29.png");
        assert!(found.iter().all(|number| (-1.0..=1.0).contains(number)));
        let number = |channel: usize, y: usize, x: usize| match layout {
            Layout::Nchw => found[(channel * 32 + y) * 40 + x],
            Layout::Nhwc => found[(y * 40 + x) * 3 + channel],
        };
        for channel in 0..3 {
            assert!((0..40).all(|x| [0, 1, 31].iter().all(|&y| number(channel, y, x) == -1.0)));
            assert!((0..32).all(|y| [0, 1, 39].iter().all(|&x| number(channel, y, x) == -1.0)));
        }
    }
    assert_eq!(Span::centred(7, 4), Span { from: 1, to: 0, length: 4 });
    assert_eq!(Span::centred(4, 7), Span { from: 0, to: 2, length: 4 });
}

#[test]
fn a_tensor_without_room_for_all_is_refused() {
    let preprocess =
        Preprocess::from_json(br#"{"size": 8}"#, ANY, Accuracy::Exact).expect("a configuration");
    let refused = preprocess.tensor(&fixture_picture("source_37x29.png"), &mut [0.0; 191]);
    assert_eq!(refused, Err(PreprocessError::Room { found: 191, wanted: 192 }));
}

#[test]
fn a_long_picture_costs_its_crop_and_no_more() {
    // The whole resized picture would have 4096 x 409600 pixels.
    let picture = crate::embedding::picture::tests::scene(1, 100);
    let file = br#"{"image_processor_type": "CLIPImageProcessor", "size": 4096, "crop_size": 16}"#;
    let preprocess = Preprocess::from_json(file, ANY, Accuracy::Exact).expect("a configuration");
    assert_eq!(preprocess.recipe.resize.sides(1, 100), (4096, 409_600));
    let mut out = vec![f32::NAN; preprocess.tensor_len()];
    preprocess.tensor(&picture, &mut out).expect("a tensor");
    assert!(out.iter().all(|number| number.is_finite()));
}
