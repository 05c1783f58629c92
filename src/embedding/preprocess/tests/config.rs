//! What configurations say, what they leave out, and what is refused.

use super::super::config::{Crop, Recipe, Resize};
use super::super::resize::Filter;
use super::ANY;
use crate::embedding::preprocess::{Accuracy, InputForm, Layout, Preprocess};

fn recipe(text: &str) -> Recipe {
    Recipe::from_json(text.as_bytes(), ANY).unwrap_or_else(|e| panic!("{text}: {e}"))
}

fn refusal(text: &str) -> String {
    match Preprocess::from_json(text.as_bytes(), ANY, Accuracy::Exact) {
        Ok(_) => panic!("{text} is taken"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn what_a_type_leaves_out_is_as_transformers_has_it() {
    let short = |edge| Resize::Shortest { edge, longest: None };
    let exact = |side| Resize::Exact { height: side, width: side };
    let crop = |side| Some(Crop { height: side, width: side });
    for (name, resize, filter, cropped, mean) in [
        ("CLIPImageProcessor", short(224), Filter::Bicubic, crop(224), 0.48145466),
        ("CLIPImageProcessorFast", short(224), Filter::Bicubic, crop(224), 0.48145466),
        ("CLIPFeatureExtractor", short(224), Filter::Bicubic, crop(224), 0.48145466),
        ("BitImageProcessor", short(224), Filter::Bicubic, crop(224), 0.48145466),
        ("ViTImageProcessor", exact(224), Filter::Bilinear, None, 0.5),
        ("ViTFeatureExtractor", exact(224), Filter::Bilinear, None, 0.5),
        ("DeiTImageProcessor", exact(256), Filter::Bicubic, crop(224), 0.5),
        ("ConvNextImageProcessor", exact(384), Filter::Bilinear, None, 0.5),
        ("SiglipImageProcessor", exact(224), Filter::Bicubic, None, 0.5),
        ("MobileNetV2ImageProcessor", short(256), Filter::Bilinear, crop(224), 0.5),
        ("MobileViTImageProcessor", short(224), Filter::Bilinear, crop(256), 0.0),
        ("EfficientNetImageProcessor", exact(346), Filter::Nearest, None, 0.5),
    ] {
        let field = if name.ends_with("Extractor") {
            "feature_extractor_type"
        } else {
            "image_processor_type"
        };
        let found = recipe(&format!(r#"{{"{field}": "{name}", "size": null}}"#));
        assert_eq!((found.resize, found.filter, found.crop), (resize, filter, cropped), "{name}");
        assert_eq!(found.mean[0], mean, "{name}");
        assert_eq!(found.factor, 1.0 / 255.0, "{name}");
        assert_eq!(found.is_bgr, name.starts_with("MobileViT"), "{name}");
    }
    assert_eq!(recipe(r#"{"image_processor_type": "EfficientNetImageProcessor"}"#).std, [0.25; 3]);
    assert_eq!(recipe(r#"{"image_processor_type": "MobileViTImageProcessor"}"#).std, [1.0; 3]);
}

#[test]
fn a_size_means_what_the_type_means_by_it() {
    let resize = |name: &str, size: &str| {
        recipe(&format!(r#"{{"image_processor_type": "{name}ImageProcessor", "size": {size}}}"#))
            .resize
    };
    let short = |edge| Resize::Shortest { edge, longest: None };
    assert_eq!(resize("ViT", "64"), Resize::Exact { height: 64, width: 64 });
    assert_eq!(resize("CLIP", "64"), short(64));
    assert_eq!(resize("CLIP", r#"{"shortest_edge": 32}"#), short(32));
    assert_eq!(
        resize("CLIP", r#"{"height": 32, "width": 48}"#),
        Resize::Exact { height: 32, width: 48 }
    );
    assert_eq!(resize("CLIP", "[32, 48]"), Resize::Exact { height: 32, width: 48 });
    assert_eq!(
        resize("CLIP", r#"{"shortest_edge": 32, "longest_edge": 40}"#),
        Resize::Shortest { edge: 32, longest: Some(40) }
    );
    // ConvNext's crop is a share of what it resizes to, up to a size.
    let found = recipe(
        r#"{"image_processor_type": "ConvNextImageProcessor", "size": 224, "crop_pct": 0.95}"#,
    );
    assert_eq!((found.resize, found.crop), (short(235), Some(Crop { height: 224, width: 224 })));
    assert_eq!(resize("ConvNext", "384"), Resize::Exact { height: 384, width: 384 });
    // Of no known type: the short side before a crop, else both.
    assert_eq!(recipe(r#"{"size": 256, "crop_size": 224}"#).resize, short(256));
    assert_eq!(recipe(r#"{"size": 256}"#).resize, Resize::Exact { height: 256, width: 256 });
    assert_eq!(recipe(r#"{"size": 224, "crop_pct": 0.875}"#).resize, short(256));
}

#[test]
fn sides_are_rounded_as_python_rounds_them() {
    let short = Resize::Shortest { edge: 224, longest: None };
    assert_eq!(short.sides(640, 480), (298, 224));
    assert_eq!(short.sides(480, 640), (224, 298));
    assert_eq!(short.sides(500, 500), (224, 224));
    let bounded = Resize::Shortest { edge: 800, longest: Some(1333) };
    // int(1333 * 800 / 2400)
    assert_eq!(bounded.sides(3000, 1000), (1333, 444));
    assert_eq!(bounded.sides(1000, 1200), (800, 960));
    assert_eq!(Resize::Shortest { edge: 1, longest: Some(2) }.sides(1, 5000), (1, 2));
    assert_eq!(Resize::None.sides(7, 9), (7, 9));
}

#[test]
fn a_jpeg_may_be_decoded_down_to_a_share_of_what_is_made_of_it() {
    let at_least = |text: &str| {
        Preprocess::from_json(text.as_bytes(), ANY, Accuracy::Exact)
            .expect("a configuration")
            .at_least(200)
    };
    assert_eq!(at_least(r#"{"size": {"height": 30, "width": 40}}"#), (80, 60));
    assert_eq!(at_least(r#"{"size": {"shortest_edge": 30}, "crop_size": 20}"#), (60, 60));
    assert_eq!(at_least(r#"{"do_resize": false, "crop_size": 20}"#), (u32::MAX, u32::MAX));
}

#[test]
fn a_file_without_a_size_has_the_models() {
    let form = InputForm { layout: Layout::Nhwc, height: Some(20), width: Some(30) };
    let found =
        Preprocess::from_json(br#"{"image_mean": 0.5, "image_std": 0.5}"#, form, Accuracy::Exact);
    assert_eq!(found.expect("a configuration").shape(), (20, 30));
    let refused = Preprocess::from_json(br#"{"size": 224}"#, form, Accuracy::Exact)
        .expect_err("another size");
    assert_eq!(
        refused.to_string(),
        "preprocessor_config.json makes pictures of 224 x 224 (height x width), and the model's input is 20 x 30"
    );
    assert!(refusal("{}").contains("it makes pictures of different shapes"), "{}", refusal("{}"));
}

#[test]
fn a_type_that_is_not_known_must_say_how_it_normalises() {
    for field in ["image_processor_type", "feature_extractor_type"] {
        let file = |rest: &str| format!(r#"{{"{field}": "NewImageProcessor", "size": 9{rest}}}"#);
        let words = format!(
            r#"preprocessor_config.json: {field} is "NewImageProcessor", of which is not known how it normalises: "#
        );
        for rest in
            ["", r#", "image_mean": 0.5"#, r#", "image_std": 0.5"#, r#", "do_normalize": true"#]
        {
            let refused = refusal(&file(rest));
            assert!(refused.starts_with(&words), "{refused}");
            assert!(
                refused.ends_with("image_mean and image_std, or do_normalize = false"),
                "{refused}"
            );
        }
        assert_eq!(recipe(&file(r#", "do_normalize": false"#)).std, [1.0; 3]);
        let found = recipe(&file(r#", "image_mean": 0.25, "image_std": 0.5"#));
        assert_eq!((found.mean, found.std), ([0.25; 3], [0.5; 3]));
    }
    assert!(
        refusal(r#"{"size": 9, "image_processor_type": "ImageProcessor"}"#)
            .contains("how it normalises")
    );
    // Without a type, a file is what it says.
    assert_eq!(recipe(r#"{"size": 9}"#).std, [1.0; 3]);
    let long = refusal(&format!(r#"{{"size": 9, "image_processor_type": "{}"}}"#, "x".repeat(500)));
    assert!(long.len() < 300, "{long}");
}

#[test]
fn what_changes_pixels_and_is_not_done_is_refused_by_its_name() {
    for (field, value) in [
        ("mean", "[0.5, 0.5, 0.5]"),
        ("std", "0.5"),
        ("interpolation", "\"bicubic\""),
        ("resize_mode", "\"shortest\""),
        ("pretrained_cfg", "{}"),
        ("size_divisor", "32"),
    ] {
        for kind in ["", r#""image_processor_type": "ViTImageProcessor", "#] {
            let refused = refusal(&format!(r#"{{{kind}"size": 9, "{field}": {value}}}"#));
            let words = format!("preprocessor_config.json: {field} is given, and ");
            assert!(refused.starts_with(&words), "{refused}");
            recipe(&format!(r#"{{{kind}"size": 9, "{field}": null}}"#));
        }
    }
    for field in ["keep_aspect_ratio", "do_thumbnail", "do_align_long_axis", "do_pad"] {
        let file = |value: &str| format!(r#"{{"size": 9, "{field}": {value}}}"#);
        let refused = refusal(&file("true"));
        let words = format!("preprocessor_config.json: {field} is true, and ");
        assert!(refused.starts_with(&words), "{refused}");
        recipe(&file("false"));
    }
    let refused = refusal(r#"{"size": 9, "ensure_multiple_of": 32}"#);
    assert!(refused.contains("ensure_multiple_of is not 1"), "{refused}");
    recipe(r#"{"size": 9, "ensure_multiple_of": 1}"#);
}

#[test]
fn a_model_of_huge_pictures_is_refused() {
    let form = |height, width| InputForm { layout: Layout::Nchw, height, width };
    let made = |text: &str, form| Preprocess::from_json(text.as_bytes(), form, Accuracy::Exact);
    for (sides, words) in [
        (form(Some(100_000), Some(100_000)), "100000 x 100000"),
        (form(Some(4097), None), "4097 x any"),
        (form(None, Some(u32::MAX)), "any x 4294967295"),
        (form(Some(0), Some(8)), "0 x 8"),
    ] {
        for text in ["{}", r#"{"size": 8}"#] {
            let refused = made(text, sides).expect_err("huge").to_string();
            assert_eq!(
                refused,
                format!(
                    "the model's input is {words} (height x width), where sides of 1 to 4096 are taken"
                )
            );
        }
    }
    assert_eq!(made("{}", form(Some(4096), Some(1))).expect("a form").shape(), (4096, 1));
}

#[test]
fn what_cannot_be_is_refused_with_the_field_and_the_value() {
    for (text, words) in [
        ("[1]", "is not JSON"),
        ("{", "is not JSON"),
        (r#"{"size": 0}"#, "size is 0, expected a whole number from 1 to 4096"),
        (r#"{"size": 4097}"#, "size is 4097,"),
        (r#"{"size": 2.5}"#, "size is 2.5,"),
        (r#"{"size": -1}"#, "size is -1,"),
        (r#"{"size": "big"}"#, "size is \"big\","),
        (r#"{"size": {"longest_edge": 5}}"#, "size is {\"longest_edge\":5},"),
        (r#"{"size": {"height": 5}}"#, "size is {\"height\":5},"),
        (
            r#"{"size": {"height": 5, "width": 5000}}"#,
            "size.width is 5000, expected a whole number",
        ),
        (
            r#"{"size": {"shortest_edge": 9, "longest_edge": 9}}"#,
            "size.longest_edge is 9, expected more than",
        ),
        (r#"{"size": [1, 2, 3]}"#, "size is [1,2,3],"),
        (r#"{"size": {"shortest_edge": 9}}"#, "pictures of different shapes"),
        (r#"{"size": 9, "do_resize": false}"#, "pictures of different shapes"),
        (r#"{"size": 9, "do_resize": 1}"#, "do_resize is 1, expected true or false"),
        (r#"{"size": 9, "crop_size": {"height": 5}}"#, "crop_size.width is missing"),
        (r#"{"size": 9, "crop_size": 0}"#, "crop_size is 0,"),
        (r#"{"size": 9, "do_center_crop": true}"#, "crop_size is missing"),
        (r#"{"size": 9, "resample": 6}"#, "resample is 6, expected a number from 0 to 5"),
        (r#"{"size": 9, "resample": "bicubic"}"#, "resample is \"bicubic\","),
        (
            r#"{"size": 9, "rescale_factor": 0}"#,
            "rescale_factor is 0, expected a number greater than 0",
        ),
        (r#"{"size": 9, "rescale_factor": 1e999}"#, "is not JSON"),
        (
            r#"{"size": 9, "do_normalize": true}"#,
            "image_mean is missing, expected three finite numbers",
        ),
        (r#"{"size": 9, "image_mean": [0, 0, 0]}"#, "image_std is missing"),
        (r#"{"size": 9, "image_mean": [0, 0], "image_std": 1}"#, "image_mean is [0,0],"),
        (r#"{"size": 9, "image_mean": [0, 0, "a"], "image_std": 1}"#, "image_mean is [0,0,\"a\"],"),
        (
            r#"{"size": 9, "image_mean": [0, 0, 1e300], "image_std": 1}"#,
            "image_mean is [0,0,1e+300]",
        ),
        (
            r#"{"size": 9, "image_mean": 0, "image_std": [1, 1, 0]}"#,
            "image_std is [1,1,0], expected three numbers other",
        ),
        (r#"{"size": 9, "image_processor_type": 7}"#, "image_processor_type is 7, expected a name"),
        (r#"{"size": 9, "do_pad": true}"#, "do_pad is true"),
        (r#"{"size": 9, "rescale_offset": true}"#, "rescale_offset is true"),
        (r#"{"image_processor_type": "LevitImageProcessor"}"#, "Levit's image processor"),
        (r#"{"size": 9, "crop_pct": 0}"#, "crop_pct is 0,"),
        (r#"{"size": 300, "crop_pct": 0.01}"#, "crop_pct is 0.01,"),
    ] {
        let refused = refusal(text);
        assert!(refused.starts_with("preprocessor_config.json"), "{refused}");
        assert!(refused.contains(words), "{text}: {refused}");
    }
    let long = format!(r#"{{"size": "{}"}}"#, "x".repeat(70_000));
    assert_eq!(refusal(&long), "preprocessor_config.json has 70012 bytes, more than 65536");
    let shown = refusal(&format!(r#"{{"size": "{}"}}"#, "x".repeat(500)));
    assert!(shown.len() < 300 && shown.contains("..."), "{shown}");
}

#[test]
fn a_standard_deviation_too_small_for_the_tensor_is_refused() {
    let refused = refusal(r#"{"size": 9, "image_mean": 0, "image_std": 1e-60}"#);
    assert!(refused.contains("image_std is 1e-60"), "{refused}");
}
