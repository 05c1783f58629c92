//! `preprocessor_config.json`: what Hugging Face's image processors write and read, and what each of them means
//! by what it leaves out.
//! <https://huggingface.co/docs/transformers/main_classes/image_processor>

use serde_json::{Map, Value};

use super::resize::Filter;
use super::{InputForm, PreprocessError, SIDE_MAX};

const HALF: [f64; 3] = [0.5; 3];
const CLIP_MEAN: [f64; 3] = [0.48145466, 0.4578275, 0.40821073];
const CLIP_STD: [f64; 3] = [0.26862954, 0.26130258, 0.27577711];

/// From this short side on, ConvNext's processor resizes to a square instead of cropping.
const CONVNEXT_SQUARE: u32 = 384;

/// How a picture is resized.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Resize {
    None,
    Exact {
        height: u32,
        width: u32,
    },
    /// In proportion, so that the short side is this long, or less where the long one would be too long.
    Shortest {
        edge: u32,
        longest: Option<u32>,
    },
}

impl Resize {
    /// Width and height of the resized picture.
    pub(super) fn sides(self, width: u32, height: u32) -> (u32, u32) {
        let (edge, longest) = match self {
            Resize::None => return (width, height),
            Resize::Exact { height, width } => return (width, height),
            Resize::Shortest { edge, longest } => (edge, longest),
        };
        let (short, long) = (width.min(height), width.max(height));
        let scaled = |by: u32, side: u32, to: u32| {
            // Rounded as Python rounds `int(by * side / to)`; never 0.
            ((f64::from(by) * f64::from(side) / f64::from(to)) as u32).max(1)
        };
        let (mut new_short, mut new_long) = (edge, scaled(edge, long, short));
        if let Some(longest) = longest.filter(|&longest| longest < new_long) {
            (new_short, new_long) = (scaled(longest, new_short, new_long), longest);
        }
        if width <= height { (new_short, new_long) } else { (new_long, new_short) }
    }
}

/// The middle of the resized picture.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Crop {
    pub height: u32,
    pub width: u32,
}

/// What a file says, with what it leaves out.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Recipe {
    pub resize: Resize,
    pub filter: Filter,
    pub crop: Option<Crop>,
    /// What a colour of 0 to 255 is multiplied with; 1 when it is not.
    pub factor: f64,
    /// Of the tensor's channels, in their order.
    pub mean: [f64; 3],
    pub std: [f64; 3],
    pub is_bgr: bool,
}

/// What a type of processor has where a file says nothing.
struct Defaults {
    /// Whether a single number as `size` is both sides, and not the short one.
    is_square: bool,
    size: u32,
    filter: Filter,
    /// The crop's side, and whether it crops when nothing is said.
    crop: Option<(u32, bool)>,
    /// Mean and standard deviation; none where it does not normalise.
    normal: Option<([f64; 3], [f64; 3])>,
    is_bgr: bool,
}

/// What processors are called, without what their names end with, and what they have by default.
fn defaults(name: &str) -> Option<Defaults> {
    let half = Some((HALF, HALF));
    let common = Defaults {
        is_square: false,
        size: 224,
        filter: Filter::Bilinear,
        crop: None,
        normal: half,
        is_bgr: false,
    };
    Some(match name {
        "CLIP" | "Bit" => Defaults {
            filter: Filter::Bicubic,
            crop: Some((224, true)),
            normal: Some((CLIP_MEAN, CLIP_STD)),
            ..common
        },
        "ViT" => Defaults { is_square: true, ..common },
        "DeiT" | "Beit" => Defaults {
            is_square: true,
            size: 256,
            filter: Filter::Bicubic,
            crop: Some((224, true)),
            ..common
        },
        "Siglip" => Defaults { is_square: true, filter: Filter::Bicubic, ..common },
        "ConvNext" => Defaults { size: 384, ..common },
        "MobileNetV1" | "MobileNetV2" => Defaults { size: 256, crop: Some((224, true)), ..common },
        "MobileViT" => Defaults { crop: Some((256, true)), normal: None, is_bgr: true, ..common },
        "EfficientNet" => Defaults {
            is_square: true,
            size: 346,
            filter: Filter::Nearest,
            crop: Some((289, false)),
            ..common
        },
        _ => return None,
    })
}

/// Processors that do something of their own, which would be left out without a word.
const NOT_DONE: &[&str] =
    &["ImageGPT", "Levit", "Perceiver", "Pix2Struct", "PoolFormer", "Siglip2"];

impl Recipe {
    pub(super) fn from_json(text: &[u8], input: InputForm) -> Result<Recipe, PreprocessError> {
        let fields: Map<String, Value> =
            serde_json::from_slice(text).map_err(|e| PreprocessError::NotJson(e.to_string()))?;
        let file = File { fields: &fields, within: "" };
        let name = file.processor()?;
        if NOT_DONE.contains(&name.as_str()) {
            return Err(PreprocessError::NotDone(format!(
                "{name}'s image processor prepares pictures in a way of its own, which is not known here"
            )));
        }
        file.refuse_what_is_not_done()?;
        let known = defaults(&name);
        if known.is_none() && file.get(file.type_field()).is_some() {
            file.refuse_an_unknown_type()?;
        }

        let crop = file.crop(known.as_ref())?;
        let size = file.size(known.as_ref(), crop.is_some(), input)?;
        let says_size = file.get("size").is_some();
        let does_resize = file.flag("do_resize")?.unwrap_or(known.is_some() || says_size);
        let by_share = name == "ConvNext" || known.is_none() && file.get("crop_pct").is_some();
        let (resize, crop) = match (does_resize, size) {
            (true, Some(size)) if by_share => file.by_share(size)?,
            (true, Some(size)) => (size, crop),
            (true, None) => return Err(file.wrong("size", "a size")),
            (false, Some(Resize::Exact { height, width })) if !says_size && crop.is_none() => {
                // Nothing but the model says how large: that is how large.
                (Resize::Exact { height, width }, None)
            }
            (false, _) => (Resize::None, crop),
        };
        let filter = match file.get("resample") {
            None => known.as_ref().map_or(Filter::Bilinear, |known| known.filter),
            Some(number) => number.as_u64().and_then(Filter::from_pillow).ok_or_else(|| {
                file.wrong("resample", "a number from 0 to 5, as Pillow has them")
            })?,
        };
        let factor = match file.flag("do_rescale")? {
            Some(false) => 1.0,
            _ => file.number("rescale_factor", |factor| factor > 0.0)?.unwrap_or(1.0 / 255.0),
        };
        let (mean, mut std) = file.normal(known.as_ref())?;
        if file.flag("include_top")?.unwrap_or(name == "EfficientNet") {
            // Its processor divides by the deviation once more.
            std = std.map(|std| std * std);
        }
        let is_bgr = file
            .flag("do_flip_channel_order")?
            .unwrap_or(known.as_ref().is_some_and(|known| known.is_bgr));
        Ok(Recipe { resize, filter, crop, factor, mean, std, is_bgr })
    }
}

/// The fields of a file, or of an object within.
struct File<'a> {
    fields: &'a Map<String, Value>,
    /// Names the object in errors, with a dot.
    within: &'static str,
}

impl File<'_> {
    /// A field; none where it is null.
    fn get(&self, field: &str) -> Option<&Value> {
        self.fields.get(field).filter(|value| !value.is_null())
    }

    fn wrong(&self, field: &str, wanted: &'static str) -> PreprocessError {
        let found = self.shown(field);
        PreprocessError::Field { field: format!("{}{field}", self.within), found, wanted }
    }

    /// What a field is, in words of bounded length.
    fn shown(&self, field: &str) -> String {
        self.get(field).map_or("missing".to_owned(), |value| {
            let text = value.to_string();
            let shown: String = text.chars().take(80).collect();
            if shown.len() < text.len() { shown + "..." } else { shown }
        })
    }

    fn flag(&self, field: &str) -> Result<Option<bool>, PreprocessError> {
        let flag =
            |value: &Value| value.as_bool().ok_or_else(|| self.wrong(field, "true or false"));
        self.get(field).map(flag).transpose()
    }

    fn number(
        &self,
        field: &str,
        fits: impl Fn(f64) -> bool,
    ) -> Result<Option<f64>, PreprocessError> {
        let number = |value: &Value| {
            let fitting = value.as_f64().filter(|number| number.is_finite() && fits(*number));
            fitting.ok_or_else(|| self.wrong(field, "a number greater than 0"))
        };
        self.get(field).map(number).transpose()
    }

    fn side(&self, field: &str) -> Result<Option<u32>, PreprocessError> {
        let side = |value: &Value| {
            as_side(value).ok_or_else(|| self.wrong(field, "a whole number from 1 to 4096"))
        };
        self.get(field).map(side).transpose()
    }

    /// The processor's name without what it ends with; empty where none is given.
    fn processor(&self) -> Result<String, PreprocessError> {
        let field = self.type_field();
        let Some(value) = self.get(field) else { return Ok(String::new()) };
        let name = value.as_str().ok_or_else(|| self.wrong(field, "a name"))?;
        let name = name.strip_suffix("Fast").unwrap_or(name);
        let ends = ["ImageProcessor", "FeatureExtractor"];
        let name = ends.iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
        Ok(if name == "ConvNeXT" { "ConvNext".to_owned() } else { name.to_owned() })
    }

    /// Where the processor's name is.
    fn type_field(&self) -> &'static str {
        match self.get("image_processor_type") {
            Some(_) => "image_processor_type",
            None => "feature_extractor_type",
        }
    }

    fn refuse_what_is_not_done(&self) -> Result<(), PreprocessError> {
        for (field, what) in [
            ("do_pad", "padding to the largest of a batch is not done"),
            ("rescale_offset", "rescaling around 0 is not done"),
            ("keep_aspect_ratio", "resizing to about a size in proportion is not done"),
            ("do_thumbnail", "making a thumbnail before resizing is not done"),
            ("do_align_long_axis", "turning the long side to that of the size is not done"),
        ] {
            if self.flag(field)? == Some(true) {
                return Err(PreprocessError::NotDone(format!("{field} is true, and {what}")));
            }
        }
        if !matches!(self.get("ensure_multiple_of").and_then(Value::as_u64), None | Some(1)) {
            let words = "ensure_multiple_of is not 1, and rounding sides is not done";
            return Err(PreprocessError::NotDone(words.to_owned()));
        }
        for (field, what) in [
            ("mean", "it is image_mean that is read"),
            ("std", "it is image_std that is read"),
            ("interpolation", "it is resample that is read"),
            ("resize_mode", "it is size and crop_size that are read"),
            ("pretrained_cfg", "settings of timm are not read"),
            ("size_divisor", "rounding sides to multiples is not done"),
        ] {
            if self.get(field).is_some() {
                return Err(PreprocessError::NotDone(format!("{field} is given, and {what}")));
            }
        }
        Ok(())
    }

    /// Refuses a type whose own way is not known, unless the file says what its numbers are: those of another way
    /// make vectors that are wrong without a word.
    fn refuse_an_unknown_type(&self) -> Result<(), PreprocessError> {
        let says_all = self.get("image_mean").is_some() && self.get("image_std").is_some();
        if says_all || self.flag("do_normalize")? == Some(false) {
            return Ok(());
        }
        let field = self.type_field();
        let found = self.shown(field);
        Err(PreprocessError::NotDone(format!(
            "{field} is {found}, of which is not known how it normalises: the file must have image_mean and \
             image_std, or do_normalize = false"
        )))
    }

    /// The size to resize to, or what a short side is.
    fn size(
        &self,
        known: Option<&Defaults>,
        does_crop: bool,
        input: InputForm,
    ) -> Result<Option<Resize>, PreprocessError> {
        let one = |side: u32, is_square: bool| {
            if is_square {
                Resize::Exact { height: side, width: side }
            } else {
                Resize::Shortest { edge: side, longest: None }
            }
        };
        const WANTED: &str =
            "a whole number from 1 to 4096, or an object with height and width, or shortest_edge";
        let size = match (self.get("size"), known) {
            (None, Some(known)) => one(known.size, known.is_square),
            (None, None) => match (input.height, input.width) {
                (Some(height), Some(width)) => Resize::Exact { height, width },
                _ => return Ok(None),
            },
            (Some(Value::Object(fields)), _) => {
                let size = File { fields, within: "size." };
                match (size.side("height")?, size.side("width")?, size.side("shortest_edge")?) {
                    (Some(height), Some(width), None) => Resize::Exact { height, width },
                    (None, None, Some(edge)) => {
                        let longest = size.side("longest_edge")?;
                        if longest.is_some_and(|longest| longest <= edge) {
                            return Err(size.wrong("longest_edge", "more than size.shortest_edge"));
                        }
                        Resize::Shortest { edge, longest }
                    }
                    _ => return Err(self.wrong("size", WANTED)),
                }
            }
            (Some(Value::Array(sides)), _) => {
                match sides.iter().map(as_side).collect::<Vec<_>>()[..] {
                    [Some(height), Some(width)] => Resize::Exact { height, width },
                    _ => return Err(self.wrong("size", WANTED)),
                }
            }
            (Some(side), known) => {
                let side = as_side(side).ok_or_else(|| self.wrong("size", WANTED))?;
                // A type that is not known means by it what torchvision does, who resizes the short side when it
                // crops after that.
                one(side, known.map_or(!does_crop, |known| known.is_square))
            }
        };
        Ok(Some(size))
    }

    fn crop(&self, known: Option<&Defaults>) -> Result<Option<Crop>, PreprocessError> {
        let default = known.and_then(|known| known.crop);
        let does_crop = match self.flag("do_center_crop")? {
            Some(does_crop) => does_crop,
            None => match (known, default) {
                (Some(_), default) => default.is_some_and(|(_, does_crop)| does_crop),
                (None, _) => self.get("crop_size").is_some(),
            },
        };
        if !does_crop {
            return Ok(None);
        }
        let square = |side| Some(Crop { height: side, width: side });
        match self.get("crop_size") {
            None => match default {
                Some((side, _)) => Ok(square(side)),
                None => Err(self.wrong("crop_size", "the size of the centre crop")),
            },
            Some(Value::Object(fields)) => {
                let size = File { fields, within: "crop_size." };
                let missing = |field| size.wrong(field, "a whole number from 1 to 4096");
                let height = size.side("height")?.ok_or_else(|| missing("height"))?;
                let width = size.side("width")?.ok_or_else(|| missing("width"))?;
                Ok(Some(Crop { height, width }))
            }
            Some(side) => {
                match as_side(side) {
                    Some(side) => Ok(square(side)),
                    None => Err(self
                        .wrong("crop_size", "a whole number from 1 to 4096, or height and width")),
                }
            }
        }
    }

    /// ConvNext's way, which ResNet's files have too: the crop is a share of the resized picture.
    fn by_share(&self, size: Resize) -> Result<(Resize, Option<Crop>), PreprocessError> {
        let edge = match size {
            Resize::Shortest { edge, longest: None } => edge,
            Resize::Exact { height, width } if height == width => height,
            _ => return Err(self.wrong("size", "a shortest_edge, as crop_pct needs it")),
        };
        if edge >= CONVNEXT_SQUARE {
            return Ok((Resize::Exact { height: edge, width: edge }, None));
        }
        let share = self.number("crop_pct", |share| share > 0.0)?.unwrap_or(224.0 / 256.0);
        let resized = f64::from(edge) / share;
        if !(1.0..=f64::from(SIDE_MAX)).contains(&resized) {
            return Err(self.wrong("crop_pct", "a share that makes a size from 1 to 4096"));
        }
        let resize = Resize::Shortest { edge: resized as u32, longest: None };
        Ok((resize, Some(Crop { height: edge, width: edge })))
    }

    /// Mean and standard deviation; 0 and 1 where nothing is normalised.
    fn normal(&self, known: Option<&Defaults>) -> Result<([f64; 3], [f64; 3]), PreprocessError> {
        let default = known.and_then(|known| known.normal);
        let says = self.get("image_mean").is_some() || self.get("image_std").is_some();
        let does = match (self.flag("do_normalize")?, known) {
            (Some(does), _) => does,
            (None, Some(known)) => known.normal.is_some(),
            (None, None) => says,
        };
        if !does {
            return Ok(([0.0; 3], [1.0; 3]));
        }
        let mean = self.three("image_mean", default.map(|(mean, _)| mean))?;
        let std = self.three("image_std", default.map(|(_, std)| std))?;
        // As the tensor's numbers they must be neither 0 nor make infinity of a colour.
        if std.iter().any(|std| !((255.0 / std) as f32).is_finite()) {
            return Err(self.wrong("image_std", "three numbers other than 0"));
        }
        Ok((mean, std))
    }

    fn three(&self, field: &str, default: Option<[f64; 3]>) -> Result<[f64; 3], PreprocessError> {
        let wrong = || self.wrong(field, "three finite numbers");
        let numbers = match self.get(field) {
            None => return default.ok_or_else(wrong),
            Some(Value::Array(numbers)) => numbers.iter().map(Value::as_f64).collect(),
            Some(number) => number.as_f64().map(|number| vec![number; 3]),
        };
        let numbers: Option<[f64; 3]> = numbers.and_then(|numbers| numbers.try_into().ok());
        // Numbers that a tensor can hold.
        numbers.filter(|n| n.iter().all(|n| (*n as f32).is_finite())).ok_or_else(wrong)
    }
}

fn as_side(value: &Value) -> Option<u32> {
    let side = u32::try_from(value.as_u64()?).ok()?;
    (1..=SIDE_MAX).contains(&side).then_some(side)
}
