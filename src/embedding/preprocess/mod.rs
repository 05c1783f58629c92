//! Pictures to tensors, as `preprocessor_config.json` of a Hugging Face model says: resize, centre crop, rescale,
//! normalise. What comes out is what `transformers` makes with Pillow and numpy, within 1/255 of a colour.

mod config;
mod exact;
mod resize;
#[cfg(test)]
mod tests;

use config::{Crop, Recipe, Resize};
pub(crate) use resize::Accuracy;
use resize::Window;

use super::picture::Picture;

/// Longest side that a picture is resized or cropped to.
pub(crate) const SIDE_MAX: u32 = 4096;
/// Longest file that is read.
const CONFIG_BYTES_MAX: usize = 64 << 10;

/// The order of a tensor's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layout {
    /// One plane for each colour.
    Nchw,
    /// The colours of each pixel together.
    Nhwc,
}

/// What a model says of its input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct InputForm {
    pub layout: Layout,
    /// Rows, where the model fixes them.
    pub height: Option<u32>,
    /// Columns, where the model fixes them.
    pub width: Option<u32>,
}

/// Why a picture cannot be prepared for a model.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PreprocessError {
    #[error("preprocessor_config.json has {bytes} bytes, more than {CONFIG_BYTES_MAX}")]
    TooLong { bytes: usize },
    #[error("preprocessor_config.json is not JSON: {0}")]
    NotJson(String),
    #[error("preprocessor_config.json: {field} is {found}, expected {wanted}")]
    Field { field: String, found: String, wanted: &'static str },
    /// What is asked for cannot be done.
    #[error("preprocessor_config.json: {0}")]
    NotDone(String),
    #[error(
        "preprocessor_config.json makes pictures of {height} x {width} (height x width), and the model's \
         input is {input_height} x {input_width}"
    )]
    OtherInput { height: u32, width: u32, input_height: u32, input_width: u32 },
    /// Sides that are fixed by the model.
    #[error(
        "the model's input is {height} x {width} (height x width), where sides of 1 to {SIDE_MAX} are taken"
    )]
    InputSides { height: String, width: String },
    #[error("the tensor has room for {found} numbers, where {wanted} are made")]
    Room { found: usize, wanted: usize },
    #[error("the picture cannot be resized: {0}")]
    Resize(String),
}

/// What to do with a picture before a model sees it.
#[derive(Debug, Clone)]
pub(crate) struct Preprocess {
    recipe: Recipe,
    accuracy: Accuracy,
    layout: Layout,
    height: u32,
    width: u32,
    /// The number for each value of each channel of the tensor.
    numbers: Box<[[f32; 256]; 3]>,
}

impl Preprocess {
    /// Reads a `preprocessor_config.json`. What it leaves out is as `transformers` has it for its
    /// `image_processor_type` or, in older files, `feature_extractor_type`; a type that is not known, or none, is taken by
    /// what the file says, and then the size may be the model's. One that is not known must say how it normalises.
    ///
    /// Fails when the file asks for what cannot be done, or makes pictures of another size than the model's.
    pub(crate) fn from_json(
        text: &[u8],
        input: InputForm,
        accuracy: Accuracy,
    ) -> Result<Preprocess, PreprocessError> {
        if text.len() > CONFIG_BYTES_MAX {
            return Err(PreprocessError::TooLong { bytes: text.len() });
        }
        // They may be all there is to say how large a picture becomes.
        let sides = [input.height, input.width];
        if sides.iter().flatten().any(|side| !(1..=SIDE_MAX).contains(side)) {
            let [height, width] =
                sides.map(|side| side.map_or("any".to_owned(), |side| side.to_string()));
            return Err(PreprocessError::InputSides { height, width });
        }
        let recipe = Recipe::from_json(text, input)?;
        let (height, width) = match (recipe.crop, recipe.resize) {
            (Some(Crop { height, width }), _) | (None, Resize::Exact { height, width }) => {
                (height, width)
            }
            (None, Resize::Shortest { .. } | Resize::None) => {
                return Err(PreprocessError::NotDone(
                    "it makes pictures of different shapes, which no batch can hold: it needs a size of \
                     height and width, or do_center_crop with a crop_size"
                        .to_owned(),
                ));
            }
        };
        let (input_height, input_width) =
            (input.height.unwrap_or(height), input.width.unwrap_or(width));
        if (input_height, input_width) != (height, width) {
            return Err(PreprocessError::OtherInput { height, width, input_height, input_width });
        }
        let mut numbers = Box::new([[0.0; 256]; 3]);
        for (channel, numbers) in numbers.iter_mut().enumerate() {
            for (value, number) in numbers.iter_mut().enumerate() {
                let rescaled = value as f64 * recipe.factor;
                *number = ((rescaled - recipe.mean[channel]) / recipe.std[channel]) as f32;
            }
        }
        Ok(Preprocess { recipe, accuracy, layout: input.layout, height, width, numbers })
    }

    /// Height and width of the tensor.
    pub(crate) fn shape(&self) -> (u32, u32) {
        (self.height, self.width)
    }

    /// Numbers of the tensor: `3 * height * width`.
    pub(crate) fn tensor_len(&self) -> usize {
        3 * self.height as usize * self.width as usize
    }

    /// Width and height above which a picture may be decoded smaller than it is: so many percent of what resizing
    /// makes of it, so that resizing still averages over what there is. `u32::MAX` where nothing is resized.
    pub(crate) fn at_least(&self, percent: u32) -> (u32, u32) {
        let side = |side: u32| side * percent / 100;
        match self.recipe.resize {
            Resize::Exact { height, width } => (side(width), side(height)),
            Resize::Shortest { edge, .. } => (side(edge), side(edge)),
            Resize::None => (u32::MAX, u32::MAX),
        }
    }

    /// Writes the tensor of a picture: [`Preprocess::tensor_len`] numbers.
    pub(crate) fn tensor(&self, picture: &Picture, out: &mut [f32]) -> Result<(), PreprocessError> {
        if out.len() != self.tensor_len() {
            return Err(PreprocessError::Room { found: out.len(), wanted: self.tensor_len() });
        }
        let (width, height) = self.recipe.resize.sides(picture.width(), picture.height());
        let across = Span::centred(width, self.width);
        let down = Span::centred(height, self.height);
        let window =
            Window { x: across.from, y: down.from, width: across.length, height: down.length };
        let pixels =
            resize::window(picture, (width, height), window, (self.recipe.filter, self.accuracy))?;

        if across.length < self.width || down.length < self.height {
            // What the picture does not fill is black before it is rescaled and normalised.
            self.fill_black(out);
        }
        let (pixels, _) = pixels.as_chunks::<3>();
        let rows = pixels.chunks_exact(across.length as usize);
        let plane = self.height as usize * self.width as usize;
        for (y, row) in rows.enumerate() {
            let first = (down.to as usize + y) * self.width as usize + across.to as usize;
            match self.layout {
                Layout::Nchw => {
                    for (channel, numbers) in self.numbers.iter().enumerate() {
                        let source = self.source(channel);
                        let out = &mut out[channel * plane + first..][..row.len()];
                        for (number, pixel) in out.iter_mut().zip(row) {
                            *number = numbers[usize::from(pixel[source])];
                        }
                    }
                }
                Layout::Nhwc => {
                    let (out, _) = out[3 * first..][..3 * row.len()].as_chunks_mut::<3>();
                    for (numbers, pixel) in out.iter_mut().zip(row) {
                        for (channel, number) in numbers.iter_mut().enumerate() {
                            let value = pixel[self.source(channel)];
                            *number = self.numbers[channel][usize::from(value)];
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// Which of red, green and blue a channel of the tensor is.
    fn source(&self, channel: usize) -> usize {
        if self.recipe.is_bgr { 2 - channel } else { channel }
    }

    fn fill_black(&self, out: &mut [f32]) {
        let black = self.numbers.each_ref().map(|numbers| numbers[0]);
        match self.layout {
            Layout::Nchw => {
                let planes = out.chunks_exact_mut(self.height as usize * self.width as usize);
                planes.zip(black).for_each(|(plane, black)| plane.fill(black));
            }
            Layout::Nhwc => out.as_chunks_mut::<3>().0.fill(black),
        }
    }
}

/// Where a centre crop takes one side from and puts it to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Span {
    from: u32,
    to: u32,
    length: u32,
}

impl Span {
    /// As `transformers` rounds: half a pixel goes to the left when cropping, and to the right when padding.
    fn centred(side: u32, cropped: u32) -> Span {
        if side >= cropped {
            Span { from: (side - cropped) / 2, to: 0, length: cropped }
        } else {
            Span { from: 0, to: (cropped - side).div_ceil(2), length: side }
        }
    }
}
