//! Vectors of arrays: lists of numbers, or bytes as vectors are stored, in the form that a column has; or
//! lists of these, for rows with several.
//! Floats are rounded to the column's; whole numbers are never changed: one that the column cannot hold
//! is a fault of its row.

use arrow_array::cast::AsArray;
use arrow_array::types::{
    Float16Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type,
    UInt16Type, UInt32Type, UInt64Type,
};
use arrow_array::{Array, ArrayRef};
use arrow_schema::DataType;
use half::f16;

use crate::schema::ElementType;

/// What vectors of a type are like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Lists of numbers, with the dimension where it is the same for all, and the element type that a
    /// column for them has.
    Numbers(Option<u32>, ElementType),
    /// Bytes, as columns of INT4 and of bits are stored; so many where it is the same for all.
    Bytes(Option<u32>),
}

/// What vectors of that type are like, or those in lists of that type; `None` where it is no type of
/// vectors.
pub fn form(data_type: &DataType) -> Option<Form> {
    form_of_one(several(data_type).unwrap_or(data_type))
}

/// The type of the vectors where a type is that of lists of vectors, as rows with several have.
pub fn several(data_type: &DataType) -> Option<&DataType> {
    match data_type {
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
            form_of_one(item.data_type()).map(|_| item.data_type())
        }
        _ => None,
    }
}

fn form_of_one(data_type: &DataType) -> Option<Form> {
    let element = |item: &DataType| match item {
        DataType::Float16 => Some(ElementType::Fp16),
        DataType::Int8 => Some(ElementType::Int8),
        DataType::Int16 => Some(ElementType::Int16),
        // Doubles are rounded; bytes without sign and wider numbers fit no smaller type.
        item if item.is_numeric() && !is_decimal(item) => Some(ElementType::Fp32),
        _ => None,
    };
    match data_type {
        DataType::FixedSizeList(item, size) => {
            Some(Form::Numbers(Some(u32::try_from(*size).ok()?), element(item.data_type())?))
        }
        DataType::List(item) | DataType::LargeList(item) => {
            Some(Form::Numbers(None, element(item.data_type())?))
        }
        DataType::FixedSizeBinary(size) => Some(Form::Bytes(u32::try_from(*size).ok())),
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => Some(Form::Bytes(None)),
        _ => None,
    }
}

fn is_decimal(data_type: &DataType) -> bool {
    matches!(
        data_type,
        DataType::Decimal32(..)
            | DataType::Decimal64(..)
            | DataType::Decimal128(..)
            | DataType::Decimal256(..)
    )
}

/// The vectors of an array.
#[derive(Debug, Default)]
pub struct Vectors {
    /// One vector after the other, as columns store them; one of zeros for rows that are faulty.
    pub bytes: Vec<u8>,
    /// Vectors of each row: none where it is unset, several where the array is of lists of vectors.
    pub counts: Vec<u32>,
}

/// The vectors of an array for a column of that element type and dimension, of which vectors there can
/// be. `fault` is called for rows whose vector does not fit. Fails where none can.
pub fn vectors(
    array: &ArrayRef,
    element: ElementType,
    dimension: u32,
    mut fault: impl FnMut(usize, String),
) -> std::result::Result<Vectors, String> {
    let vector_bytes = element.vector_bytes(dimension).ok_or("no vectors have this dimension")?;
    let mut bytes = Vec::with_capacity(array.len() * vector_bytes);
    let mut counts = Vec::with_capacity(array.len());
    let of_rows = Rows::of(of_each(array))?;
    for row in 0..array.len() {
        let start = bytes.len();
        match of_rows.encode_all(array, row, element, dimension, &mut bytes) {
            Ok(count) => counts.push(count),
            Err(why) => {
                fault(row, why);
                bytes.truncate(start);
                bytes.resize(start + vector_bytes, 0);
                counts.push(1);
            }
        }
    }
    Ok(Vectors { bytes, counts })
}

/// The vectors of an array, which may be of lists of them.
fn of_each(array: &ArrayRef) -> &ArrayRef {
    match several(array.data_type()) {
        Some(_) => items(array).unwrap_or(array),
        None => array,
    }
}

/// The items of an array of lists.
fn items(array: &ArrayRef) -> Option<&ArrayRef> {
    Some(match array.data_type() {
        DataType::FixedSizeList(..) => array.as_fixed_size_list().values(),
        DataType::List(_) => array.as_list::<i32>().values(),
        DataType::LargeList(_) => array.as_list::<i64>().values(),
        _ => return None,
    })
}

/// Where the items of a row of an array of lists begin; those of the row after the last where all end.
fn start(array: &ArrayRef, row: usize) -> usize {
    match array.data_type() {
        DataType::List(_) => array.as_list::<i32>().value_offsets()[row] as usize,
        DataType::LargeList(_) => array.as_list::<i64>().value_offsets()[row] as usize,
        _ => row * usize::try_from(array.as_fixed_size_list().value_length()).unwrap_or(0),
    }
}

/// The places of a row's vectors in what [`of_each`] gives.
fn places(array: &ArrayRef, row: usize) -> std::ops::Range<usize> {
    match several(array.data_type()) {
        Some(_) if array.is_null(row) => 0..0,
        Some(_) => start(array, row)..start(array, row + 1),
        None => row..row + 1,
    }
}

/// All whole numbers of an array of lists, which must have no others.
pub fn integers(array: &ArrayRef) -> std::result::Result<Vec<i64>, String> {
    let not = || format!("elements of type {}, where integers are wanted", array.data_type());
    let Rows::Lists(lists) = Rows::of(array)? else { return Err(not()) };
    if matches!(lists.numbers, Numbers::F16(_) | Numbers::F32(_) | Numbers::F64(_)) {
        return Err(not());
    }
    (start(array, 0)..start(array, array.len()))
        .map(|at| i64::try_from(lists.numbers.integer(at)?).ok())
        .collect::<Option<_>>()
        .ok_or_else(not)
}

/// Where each row's vector is.
enum Rows<'a> {
    Lists(Lists<'a>),
    Bytes(&'a ArrayRef),
}

/// Lists of numbers.
struct Lists<'a> {
    array: &'a ArrayRef,
    numbers: Numbers<'a>,
    items: &'a ArrayRef,
}

impl<'a> Rows<'a> {
    fn of(array: &'a ArrayRef) -> std::result::Result<Self, String> {
        let Some(items) = items(array) else {
            return match array.data_type() {
                // A column of a file whose rows may differ, without any value here.
                DataType::Null => Ok(Rows::Bytes(array)),
                data_type if form_of_one(data_type).is_some() => Ok(Rows::Bytes(array)),
                other => Err(format!("of type {other}, where vectors are wanted")),
            };
        };
        let numbers = Numbers::of(items)
            .ok_or_else(|| format!("lists of {}, where numbers are wanted", items.data_type()))?;
        Ok(Rows::Lists(Lists { array, numbers, items }))
    }

    fn is_missing(&self, row: usize) -> bool {
        match self {
            Rows::Lists(lists) => lists.array.is_null(row),
            Rows::Bytes(array) => *array.data_type() == DataType::Null || array.is_null(row),
        }
    }

    /// The vectors of a row of the array that these are of, and how many.
    fn encode_all(
        &self,
        array: &ArrayRef,
        row: usize,
        element: ElementType,
        dimension: u32,
        out: &mut Vec<u8>,
    ) -> std::result::Result<u32, String> {
        if several(array.data_type()).is_none() {
            if self.is_missing(row) {
                return Ok(0);
            }
            return self.encode(row, element, dimension, out).map(|()| 1);
        }
        let places = places(array, row);
        for (number, at) in places.clone().enumerate() {
            let of_vector = |why: String| format!("vector {number}: {why}");
            if self.is_missing(at) {
                return Err(of_vector("it is null".to_owned()));
            }
            self.encode(at, element, dimension, out).map_err(of_vector)?;
        }
        u32::try_from(places.len()).map_err(|_| format!("{} vectors", places.len()))
    }

    fn encode(
        &self,
        row: usize,
        element: ElementType,
        dimension: u32,
        out: &mut Vec<u8>,
    ) -> std::result::Result<(), String> {
        match self {
            Rows::Bytes(array) => encode_bytes(array, row, element, dimension, out),
            Rows::Lists(lists) => lists.encode(row, element, dimension, out),
        }
    }
}

fn bytes_at(array: &ArrayRef, row: usize) -> &[u8] {
    match array.data_type() {
        DataType::FixedSizeBinary(_) => array.as_fixed_size_binary().value(row),
        DataType::Binary => array.as_binary::<i32>().value(row),
        DataType::LargeBinary => array.as_binary::<i64>().value(row),
        _ => array.as_binary_view().value(row),
    }
}

fn encode_bytes(
    array: &ArrayRef,
    row: usize,
    element: ElementType,
    dimension: u32,
    out: &mut Vec<u8>,
) -> std::result::Result<(), String> {
    if !element.is_binary() && element != ElementType::Int4 {
        return Err(format!("bytes, where numbers for {} are wanted", element.name()));
    }
    let bytes = bytes_at(array, row);
    let wanted = element.vector_bytes(dimension).unwrap_or(0);
    if bytes.len() != wanted {
        return Err(format!("a vector of {} bytes, and {wanted} are wanted", bytes.len()));
    }
    out.extend_from_slice(bytes);
    Ok(())
}

impl Lists<'_> {
    fn encode(
        &self,
        row: usize,
        element: ElementType,
        dimension: u32,
        out: &mut Vec<u8>,
    ) -> std::result::Result<(), String> {
        let (start, end) = (start(self.array, row), start(self.array, row + 1));
        // Bits come in words.
        let wanted = match element {
            ElementType::Binary32 => dimension / 32,
            ElementType::Binary64 => dimension / 64,
            _ => dimension,
        };
        if end - start != wanted as usize {
            return Err(format!("a vector of {} numbers, and {wanted} are wanted", end - start));
        }
        if self.items.null_count() > 0
            && let Some(at) = (start..end).find(|at| self.items.is_null(*at))
        {
            return Err(format!("element {} is null", at - start));
        }
        let numbers = &self.numbers;
        let fails = |at: usize, why: String| format!("element {} is {why}", at - start);
        match element {
            ElementType::Fp32 => {
                if let Numbers::F32(all) = numbers {
                    out.extend(all[start..end].iter().flat_map(|x| x.to_le_bytes()));
                    let wrong = all[start..end].iter().position(|x| !x.is_finite());
                    return wrong.map_or(Ok(()), |at| {
                        Err(fails(start + at, not_finite(all[start + at].into(), element)))
                    });
                }
                for at in start..end {
                    let x = numbers.float(at, element).map_err(|why| fails(at, why))? as f32;
                    check_exact(numbers, at, x.into(), element).map_err(|why| fails(at, why))?;
                    out.extend(x.to_le_bytes());
                }
            }
            ElementType::Fp16 => {
                for at in start..end {
                    let x = numbers.float(at, element).map_err(|why| fails(at, why))?;
                    let x = f16::from_f64(x);
                    check_exact(numbers, at, x.to_f64(), element).map_err(|why| fails(at, why))?;
                    out.extend(x.to_le_bytes());
                }
            }
            ElementType::Int8 => self.wholes(start..end, element, i8::to_le_bytes, out)?,
            ElementType::Int16 => self.wholes(start..end, element, i16::to_le_bytes, out)?,
            ElementType::Binary32 => self.wholes(start..end, element, u32::to_le_bytes, out)?,
            ElementType::Binary64 => self.wholes(start..end, element, u64::to_le_bytes, out)?,
            ElementType::Int4 => {
                for pair in (start..end).step_by(2) {
                    let mut byte = 0;
                    for (at, shift) in [(pair, 0), (pair + 1, 4)] {
                        let x: i8 = numbers.whole(at, element).map_err(|why| fails(at, why))?;
                        if !(-8..=7).contains(&x) {
                            return Err(fails(at, format!("{x}, which INT4 does not hold")));
                        }
                        byte |= (x as u8 & 0x0f) << shift;
                    }
                    out.push(byte);
                }
            }
        }
        Ok(())
    }

    /// Whole numbers of these places, or words for the first that is none of its type.
    fn wholes<T: TryFrom<i128>, const N: usize>(
        &self,
        places: std::ops::Range<usize>,
        element: ElementType,
        bytes: impl Fn(T) -> [u8; N],
        out: &mut Vec<u8>,
    ) -> std::result::Result<(), String> {
        for (number, at) in places.enumerate() {
            let x: T = self
                .numbers
                .whole(at, element)
                .map_err(|why| format!("element {number} is {why}"))?;
            out.extend(bytes(x));
        }
        Ok(())
    }
}

fn not_finite(x: f64, element: ElementType) -> String {
    // Not `{x}`, which writes out 300 digits.
    format!("{x:?}, not a finite number of {}", element.name())
}

/// A float that was rounded must still be one, and a whole number must still be itself.
fn check_exact(
    numbers: &Numbers<'_>,
    at: usize,
    stored: f64,
    element: ElementType,
) -> std::result::Result<(), String> {
    if !stored.is_finite() {
        return Err(match numbers.integer(at) {
            Some(number) => format!("{number}, which {} does not hold", element.name()),
            None => not_finite(numbers.float(at, element)?, element),
        });
    }
    match numbers.integer(at) {
        Some(number) if stored as i128 != number => {
            Err(format!("{number}, which {} does not hold exactly", element.name()))
        }
        _ => Ok(()),
    }
}

/// Numbers of any type.
enum Numbers<'a> {
    F16(&'a [f16]),
    F32(&'a [f32]),
    F64(&'a [f64]),
    I8(&'a [i8]),
    I16(&'a [i16]),
    I32(&'a [i32]),
    I64(&'a [i64]),
    U8(&'a [u8]),
    U16(&'a [u16]),
    U32(&'a [u32]),
    U64(&'a [u64]),
}

impl<'a> Numbers<'a> {
    fn of(array: &'a ArrayRef) -> Option<Self> {
        Some(match array.data_type() {
            DataType::Float16 => Numbers::F16(array.as_primitive::<Float16Type>().values()),
            DataType::Float32 => Numbers::F32(array.as_primitive::<Float32Type>().values()),
            DataType::Float64 => Numbers::F64(array.as_primitive::<Float64Type>().values()),
            DataType::Int8 => Numbers::I8(array.as_primitive::<Int8Type>().values()),
            DataType::Int16 => Numbers::I16(array.as_primitive::<Int16Type>().values()),
            DataType::Int32 => Numbers::I32(array.as_primitive::<Int32Type>().values()),
            DataType::Int64 => Numbers::I64(array.as_primitive::<Int64Type>().values()),
            DataType::UInt8 => Numbers::U8(array.as_primitive::<UInt8Type>().values()),
            DataType::UInt16 => Numbers::U16(array.as_primitive::<UInt16Type>().values()),
            DataType::UInt32 => Numbers::U32(array.as_primitive::<UInt32Type>().values()),
            DataType::UInt64 => Numbers::U64(array.as_primitive::<UInt64Type>().values()),
            _ => return None,
        })
    }

    /// The whole number of a type of whole numbers.
    fn integer(&self, at: usize) -> Option<i128> {
        Some(match self {
            Numbers::I8(all) => all[at].into(),
            Numbers::I16(all) => all[at].into(),
            Numbers::I32(all) => all[at].into(),
            Numbers::I64(all) => all[at].into(),
            Numbers::U8(all) => all[at].into(),
            Numbers::U16(all) => all[at].into(),
            Numbers::U32(all) => all[at].into(),
            Numbers::U64(all) => all[at].into(),
            Numbers::F16(_) | Numbers::F32(_) | Numbers::F64(_) => return None,
        })
    }

    /// The number as a float, which must be finite.
    fn float(&self, at: usize, element: ElementType) -> std::result::Result<f64, String> {
        let x = match self {
            Numbers::F16(all) => all[at].to_f64(),
            Numbers::F32(all) => all[at].into(),
            Numbers::F64(all) => all[at],
            integers => integers.integer(at).unwrap_or(0) as f64,
        };
        if x.is_finite() { Ok(x) } else { Err(not_finite(x, element)) }
    }

    /// The number as a whole one of a narrower type, which it must be.
    fn whole<T: TryFrom<i128>>(
        &self,
        at: usize,
        element: ElementType,
    ) -> std::result::Result<T, String> {
        let number = match self.integer(at) {
            Some(number) => number,
            None => {
                let x = self.float(at, element)?;
                if x.fract() != 0.0 {
                    return Err(format!("{x:?}, and {} holds whole numbers", element.name()));
                }
                x as i128
            }
        };
        T::try_from(number).map_err(|_| format!("{number}, which {} does not hold", element.name()))
    }
}

/// Elements, or bytes, of the first vector of an array; `None` where there is none.
pub fn first_length(array: &ArrayRef) -> Option<usize> {
    let all = of_each(array);
    let rows = Rows::of(all).ok()?;
    let mut places = (0..array.len()).flat_map(|row| places(array, row));
    let first = places.find(|at| !rows.is_missing(*at))?;
    Some(match &rows {
        Rows::Lists(_) => start(all, first + 1) - start(all, first),
        Rows::Bytes(array) => bytes_at(array, first).len(),
    })
}
