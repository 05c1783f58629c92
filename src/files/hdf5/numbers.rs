//! What elements of data sets are: numbers as every processor has them, which the library reads; floats
//! whose parts lie elsewhere or whose exponents begin elsewhere, which are computed here, because the
//! library takes those of 32 and 64 bits for the usual ones; text. What neither knows is refused by name.

use arrow_schema::DataType;
use hdf5_pure::{
    DType, Datatype, DatatypeByteOrder, FixedPointLayout, FloatingPointLayout as Layout,
};

use super::super::{Fault, Read};
use super::header::{Fields, Frame, Header};
use super::view::View;

const DATATYPE: u16 = 3;
/// The class of floats, and what their highest bit is: always 1, and not written.
const FLOAT: u64 = 1;
const IMPLIED: u64 = 2;

/// What one element of a dataset is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Item {
    F16(Order),
    F32,
    F64,
    /// Floats of any other form.
    Float(Float),
    I8,
    I16,
    I32,
    I64,
    U8,
    U16,
    U32,
    U64,
    Bool,
    /// So many bytes of text.
    Bytes(usize),
    /// Text of any length.
    Text,
}

/// In which order bytes lie.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Order {
    Little,
    Big,
}

/// A float whose parts lie where they say.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Float {
    bytes: usize,
    order: Order,
    sign_at: u32,
    exponent_at: u32,
    exponent_bits: u32,
    mantissa_at: u32,
    mantissa_bits: u32,
    bias: i64,
}

impl Item {
    /// `details` are what the library does not tell.
    pub fn of(dtype: &DType, datatype: &Datatype, details: &Details, bytes: usize) -> Read<Item> {
        let refused = |what: String| {
            Err(Fault::new(format!("elements of type {what}, where numbers or text are wanted")))
        };
        match datatype {
            Datatype::FixedPoint { size, byte_order, layout } => {
                let FixedPointLayout { signed, bit_offset, bit_precision } = *layout;
                let is_usual = bit_offset == 0 && u32::from(bit_precision) == 8 * size;
                if !is_usual || order_of(*byte_order).is_none() {
                    return refused(format!(
                        "integer of {bit_precision} bits at bit {bit_offset} of {size} bytes ({byte_order:?})"
                    ));
                }
                return match (signed, size) {
                    (true, 1) => Ok(Item::I8),
                    (true, 2) => Ok(Item::I16),
                    (true, 4) => Ok(Item::I32),
                    (true, 8) => Ok(Item::I64),
                    (false, 1) => Ok(Item::U8),
                    (false, 2) => Ok(Item::U16),
                    (false, 4) => Ok(Item::U32),
                    (false, 8) => Ok(Item::U64),
                    _ => refused(format!("integer of {size} bytes")),
                };
            }
            Datatype::FloatingPoint { size, byte_order, layout } => {
                return float(*size, *byte_order, layout, details).or_else(refused);
            }
            Datatype::Enumeration { members, .. } => {
                // What h5py makes of truth values.
                let values: Vec<(&str, &[u8])> =
                    members.iter().map(|one| (one.name.as_str(), &one.value[..])).collect();
                if bytes == 1 && values == [("FALSE", &[0][..]), ("TRUE", &[1][..])] {
                    return Ok(Item::Bool);
                }
            }
            _ => {}
        }
        match dtype {
            DType::String if bytes > 0 => Ok(Item::Bytes(bytes)),
            DType::VariableLengthString => Ok(Item::Text),
            other => refused(other.to_string()),
        }
    }

    pub fn data_type(self) -> DataType {
        match self {
            Item::F16(_) => DataType::Float16,
            Item::F32 => DataType::Float32,
            Item::F64 | Item::Float(_) => DataType::Float64,
            Item::I8 => DataType::Int8,
            Item::I16 => DataType::Int16,
            Item::I32 => DataType::Int32,
            Item::I64 => DataType::Int64,
            Item::U8 => DataType::UInt8,
            Item::U16 => DataType::UInt16,
            Item::U32 => DataType::UInt32,
            Item::U64 => DataType::UInt64,
            Item::Bool => DataType::Boolean,
            Item::Bytes(_) | Item::Text => DataType::LargeUtf8,
        }
    }
}

/// What the library does not tell of floats.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Details {
    /// The bit of the sign, and whether the highest bit of the mantissa is left out; none where that could
    /// not be found out.
    float: Option<(u32, bool)>,
}

impl Details {
    /// What a header says of the elements of its data set.
    pub fn of(view: &View, frame: &Frame, header: &Header) -> Read<Details> {
        let Some(message) = header.message(DATATYPE) else { return Ok(Details::default()) };
        if !message.is_shared {
            return Self::of_bytes(&message.bytes);
        }
        // A type that lies in the file by itself, of which three versions of messages tell the place.
        let mut fields = Fields(&message.bytes);
        let (version, kind) = (fields.number(1)?, fields.number(1)?);
        let is_by_itself = match version {
            1 => fields.bytes(6).is_ok(),
            2 => true,
            3 => kind == 2,
            _ => false,
        };
        if !is_by_itself {
            return Ok(Details::default());
        }
        let place = frame.place(fields.number(frame.address)?)?;
        let header = Header::read(view, frame, place)?;
        match header.message(DATATYPE).filter(|message| !message.is_shared) {
            Some(message) => Self::of_bytes(&message.bytes),
            None => Ok(Details::default()),
        }
    }

    fn of_bytes(bytes: &[u8]) -> Read<Details> {
        let mut fields = Fields(bytes);
        if fields.number(1)? & 0x0f != FLOAT {
            return Ok(Details::default());
        }
        let (flags, sign_at) = (fields.number(1)?, fields.number(1)?);
        Ok(Details { float: Some((sign_at as u32, (flags >> 4) & 3 == IMPLIED)) })
    }
}

fn order_of(order: DatatypeByteOrder) -> Option<Order> {
    match order {
        DatatypeByteOrder::LittleEndian => Some(Order::Little),
        DatatypeByteOrder::BigEndian => Some(Order::Big),
        DatatypeByteOrder::Vax => None,
    }
}

/// A float, or the words for one that is not read.
fn float(
    size: u32,
    order: DatatypeByteOrder,
    layout: &Layout,
    details: &Details,
) -> Result<Item, String> {
    let words = |why: &str| {
        Err(format!(
            "float of {size} bytes with {} bits of exponent (bias {}) and {} of mantissa, {why}",
            layout.exponent_size, layout.exponent_bias, layout.mantissa_size
        ))
    };
    let Some(order) = order_of(order) else { return words("in the byte order of a VAX") };
    let usual_half = Layout {
        bit_offset: 0,
        bit_precision: 16,
        exponent_location: 10,
        exponent_size: 5,
        mantissa_location: 0,
        mantissa_size: 10,
        exponent_bias: 15,
    };
    let usual = match (size, layout) {
        (2, layout) if *layout == usual_half => Some(Item::F16(order)),
        (4, &Layout::IEEE754_BINARY32) => Some(Item::F32),
        (8, &Layout::IEEE754_BINARY64) => Some(Item::F64),
        _ => None,
    };
    let (sign_at, is_implied) = match (details.float, usual) {
        (Some(found), _) => found,
        // The library found the same parts.
        (None, Some(usual)) => return Ok(usual),
        (None, None) => return words("whose sign is not told"),
    };
    if !is_implied {
        return words("whose mantissas are written whole");
    }
    if let Some(usual) = usual.filter(|_| sign_at == 8 * size - 1) {
        return Ok(usual);
    }
    let found = Float {
        bytes: size as usize,
        order,
        sign_at,
        exponent_at: layout.exponent_location.into(),
        exponent_bits: layout.exponent_size.into(),
        mantissa_at: layout.mantissa_location.into(),
        mantissa_bits: layout.mantissa_size.into(),
        bias: layout.exponent_bias.into(),
    };
    match found.fits() {
        true => Ok(Item::Float(found)),
        false => words("which no double holds"),
    }
}

impl Float {
    /// True where every such float is a double, and all its parts lie in it.
    fn fits(&self) -> bool {
        let bits = 8 * self.bytes as u32;
        let parts = [
            (self.sign_at, 1),
            (self.exponent_at, self.exponent_bits),
            (self.mantissa_at, self.mantissa_bits),
        ];
        (1..=8).contains(&self.bytes)
            && parts.iter().all(|(at, count)| at + count <= bits)
            && (2..=11).contains(&self.exponent_bits)
            && (1..=52).contains(&self.mantissa_bits)
            && self.exponent(self.exponent_max() - 1) <= 1023
            && self.exponent(1) - i64::from(self.mantissa_bits) >= -1074
    }

    fn exponent_max(&self) -> u64 {
        (1 << self.exponent_bits) - 1
    }

    /// The power of two that an exponent stands for.
    fn exponent(&self, written: u64) -> i64 {
        written as i64 - self.bias
    }

    /// The float in these bytes, of which there are as many as it has.
    fn read(&self, bytes: &[u8]) -> f64 {
        let push = |all: u64, byte: &u8| (all << 8) | u64::from(*byte);
        let bits = match self.order {
            Order::Little => bytes.iter().rev().fold(0, push),
            Order::Big => bytes.iter().fold(0, push),
        };
        let part = |at: u32, count: u32| (bits >> at) & ((1u64 << count) - 1);
        let exponent = part(self.exponent_at, self.exponent_bits);
        let mantissa = part(self.mantissa_at, self.mantissa_bits);
        let size = match (exponent, mantissa) {
            (written, 0) if written == self.exponent_max() => f64::INFINITY,
            (written, _) if written == self.exponent_max() => f64::NAN,
            (0, mantissa) => self.scaled(mantissa, 1),
            (written, mantissa) => self.scaled(mantissa | 1 << self.mantissa_bits, written),
        };
        if part(self.sign_at, 1) == 1 { -size } else { size }
    }

    /// A mantissa times its power of two. Both steps are exact: the first where it is a usual double, and
    /// the second where it is one too small to be usual.
    fn scaled(&self, mantissa: u64, written: u64) -> f64 {
        let power = self.exponent(written) - i64::from(self.mantissa_bits);
        let first = power.max(-1000);
        let power_of_two = |power: i64| 2f64.powi(i32::try_from(power).unwrap_or(i32::MIN));
        mantissa as f64 * power_of_two(first) * power_of_two(power - first)
    }

    /// All floats in these bytes.
    pub fn read_all(&self, bytes: &[u8]) -> Vec<f64> {
        bytes.chunks_exact(self.bytes).map(|bytes| self.read(bytes)).collect()
    }
}

#[cfg(test)]
mod tests {
    use half::{bf16, f16};

    use super::*;

    fn item(size: u32, layout: Layout, sign_at: u32) -> Item {
        let details = Details { float: Some((sign_at, true)) };
        float(size, DatatypeByteOrder::LittleEndian, &layout, &details).expect("it is read")
    }

    fn layout(exponent: (u8, u8), mantissa: (u8, u8), bias: u32) -> Layout {
        Layout {
            bit_offset: 0,
            bit_precision: 32,
            exponent_location: exponent.0,
            exponent_size: exponent.1,
            mantissa_location: mantissa.0,
            mantissa_size: mantissa.1,
            exponent_bias: bias,
        }
    }

    #[test]
    fn floats_of_other_forms_are_what_they_stand_for() {
        let Item::Float(brain) = item(2, layout((7, 8), (0, 7), 127), 15) else {
            panic!("no usual float")
        };
        for bits in 0..=u16::MAX {
            let (found, expected) = (brain.read(&bits.to_le_bytes()), bf16::from_bits(bits));
            assert!(found == expected.to_f64() || found.is_nan() && expected.is_nan(), "{bits}");
        }
        // The usual half, read as if it were none.
        let half = Float {
            bytes: 2,
            order: Order::Big,
            sign_at: 15,
            exponent_at: 10,
            exponent_bits: 5,
            mantissa_at: 0,
            mantissa_bits: 10,
            bias: 15,
        };
        for bits in 0..=u16::MAX {
            let (found, expected) = (half.read(&bits.to_be_bytes()), f16::from_bits(bits));
            assert!(found == expected.to_f64() || found.is_nan() && expected.is_nan(), "{bits}");
        }
        let Item::Float(moved) = item(4, layout((23, 8), (0, 23), 130), 31) else {
            panic!("another bias")
        };
        for number in [1.0f32, -2.5, 1e-38, f32::MIN_POSITIVE / 8.0, f32::MAX] {
            assert_eq!(moved.read(&number.to_le_bytes()), f64::from(number) / 8.0);
        }
        // Doubles that are too small to be usual.
        let Item::Float(tiny) = item(4, layout((23, 8), (0, 23), 1022), 31) else {
            panic!("another bias")
        };
        for number in [1.0f32, -3.0, f32::MIN_POSITIVE, f32::from_bits(1), f32::from_bits(12_345)] {
            let expected = f64::from(number) * 2f64.powi(-895);
            assert_eq!(tiny.read(&number.to_le_bytes()), expected);
        }
    }

    #[test]
    fn what_no_double_holds_is_refused() {
        let refused = |size, layout: Layout, details, order| {
            float(size, order, &layout, &details).expect_err("it is refused")
        };
        let little = DatatypeByteOrder::LittleEndian;
        let details = Details { float: Some((31, true)) };
        for odd in [
            layout((23, 8), (0, 23), 2000),
            layout((23, 8), (0, 23), u32::MAX),
            layout((23, 12), (0, 19), 2047),
            layout((30, 8), (0, 23), 127),
        ] {
            assert!(refused(4, odd, details, little).contains("which no double holds"));
        }
        let usual = Layout::IEEE754_BINARY32;
        assert!(refused(4, usual, details, DatatypeByteOrder::Vax).contains("VAX"));
        let whole = Details { float: Some((31, false)) };
        assert!(refused(4, usual, whole, little).contains("written whole"));
        let moved = layout((23, 8), (0, 23), 130);
        assert!(refused(4, moved, Details::default(), little).contains("sign is not told"));
        assert_eq!(float(4, little, &usual, &Details::default()), Ok(Item::F32));
        assert!(matches!(item(4, usual, 7), Item::Float(_)));
    }
}
