//! Values as bytes, for the log and the forward store: little-endian, lengths before contents, one
//! tag byte before each value. The decoder trusts nothing: every length is checked against what is
//! left before it is used.

use bytes::Bytes;

use super::types::{ForwardRow, LsnContext, Value};

const UNSET: u8 = 0;
const BYTES: u8 = 1;
const STRING: u8 = 2;
const BOOL: u8 = 3;
const INT32: u8 = 4;
const INT64: u8 = 5;
const UINT32: u8 = 6;
const UINT64: u8 = 7;
const FLOAT: u8 = 8;
const DOUBLE: u8 = 9;

/// Appends bytes behind their length.
pub fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
    out.extend_from_slice(bytes);
}

/// Appends all forward values of a row behind their count.
pub fn put_forward(out: &mut Vec<u8>, row: &[Option<Value>]) {
    out.extend_from_slice(&(row.len() as u32).to_le_bytes());
    for value in row {
        put_value(out, value.as_ref());
    }
}

fn put_value(out: &mut Vec<u8>, value: Option<&Value>) {
    match value {
        None => out.push(UNSET),
        Some(Value::Bytes(bytes)) => {
            out.push(BYTES);
            put_bytes(out, bytes);
        }
        Some(Value::String(text)) => {
            out.push(STRING);
            put_bytes(out, text.as_bytes());
        }
        Some(Value::Bool(flag)) => out.extend_from_slice(&[BOOL, u8::from(*flag)]),
        Some(Value::Int32(n)) => put_number(out, INT32, &n.to_le_bytes()),
        Some(Value::Int64(n)) => put_number(out, INT64, &n.to_le_bytes()),
        Some(Value::UInt32(n)) => put_number(out, UINT32, &n.to_le_bytes()),
        Some(Value::UInt64(n)) => put_number(out, UINT64, &n.to_le_bytes()),
        Some(Value::Float(n)) => put_number(out, FLOAT, &n.to_le_bytes()),
        Some(Value::Double(n)) => put_number(out, DOUBLE, &n.to_le_bytes()),
    }
}

fn put_number(out: &mut Vec<u8>, tag: u8, bytes: &[u8]) {
    out.push(tag);
    out.extend_from_slice(bytes);
}

/// Appends an LSN, or its absence.
pub fn put_lsn(out: &mut Vec<u8>, lsn: Option<&LsnContext>) {
    match lsn {
        None => out.push(0),
        Some(LsnContext { lsn, context }) => {
            out.push(1);
            out.extend_from_slice(&lsn.to_le_bytes());
            put_bytes(out, context.as_bytes());
        }
    }
}

/// Reads what the `put_` functions wrote. Slices share the input's memory.
#[derive(Debug, Clone)]
pub struct Decoder {
    rest: Bytes,
}

/// What a decoder found instead of what it was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The input ends inside a value.
    #[error("{wanted} bytes are wanted, {left} are left")]
    Truncated {
        /// Bytes the value needs.
        wanted: usize,
        /// Bytes there are.
        left: usize,
    },
    /// A byte that no encoder writes there.
    #[error("unexpected {what} {found}")]
    Unexpected {
        /// What was being read.
        what: &'static str,
        /// The byte.
        found: u8,
    },
    /// Text that is not UTF-8.
    #[error("text is not UTF-8")]
    NotUtf8,
}

type Decoded<T> = std::result::Result<T, DecodeError>;

impl Decoder {
    /// Starts at the first byte.
    pub fn new(bytes: Bytes) -> Self {
        Decoder { rest: bytes }
    }

    /// Bytes not read yet.
    pub fn left(&self) -> usize {
        self.rest.len()
    }

    /// The next `count` bytes.
    pub fn take(&mut self, count: usize) -> Decoded<Bytes> {
        if count > self.rest.len() {
            return Err(DecodeError::Truncated { wanted: count, left: self.rest.len() });
        }
        Ok(self.rest.split_to(count))
    }

    fn array<const N: usize>(&mut self) -> Decoded<[u8; N]> {
        let bytes = self.take(N)?;
        let mut array = [0; N];
        array.copy_from_slice(&bytes);
        Ok(array)
    }

    /// One byte.
    pub fn u8(&mut self) -> Decoded<u8> {
        Ok(self.array::<1>()?[0])
    }

    /// A 32-bit number.
    pub fn u32(&mut self) -> Decoded<u32> {
        self.array().map(u32::from_le_bytes)
    }

    /// A 64-bit number.
    pub fn u64(&mut self) -> Decoded<u64> {
        self.array().map(u64::from_le_bytes)
    }

    /// Bytes behind their length.
    pub fn bytes(&mut self) -> Decoded<Bytes> {
        let length = self.u32()? as usize;
        self.take(length)
    }

    /// Text behind its length.
    pub fn text(&mut self) -> Decoded<String> {
        String::from_utf8(self.bytes()?.to_vec()).map_err(|_| DecodeError::NotUtf8)
    }

    /// All forward values of a row.
    pub fn forward(&mut self) -> Decoded<ForwardRow> {
        let count = self.u32()? as usize;
        // Every value takes a byte at least.
        if count > self.left() {
            return Err(DecodeError::Truncated { wanted: count, left: self.left() });
        }
        (0..count).map(|_| self.value()).collect()
    }

    fn value(&mut self) -> Decoded<Option<Value>> {
        Ok(Some(match self.u8()? {
            UNSET => return Ok(None),
            // A copy: the value outlives the log file or message that it was read from.
            BYTES => Value::Bytes(Bytes::copy_from_slice(&self.bytes()?)),
            STRING => Value::String(self.text()?),
            BOOL => match self.u8()? {
                0 => Value::Bool(false),
                1 => Value::Bool(true),
                found => return Err(DecodeError::Unexpected { what: "truth value", found }),
            },
            INT32 => Value::Int32(i32::from_le_bytes(self.array()?)),
            INT64 => Value::Int64(i64::from_le_bytes(self.array()?)),
            UINT32 => Value::UInt32(self.u32()?),
            UINT64 => Value::UInt64(self.u64()?),
            FLOAT => Value::Float(f32::from_le_bytes(self.array()?)),
            DOUBLE => Value::Double(f64::from_le_bytes(self.array()?)),
            found => return Err(DecodeError::Unexpected { what: "value tag", found }),
        }))
    }

    /// An LSN, or its absence.
    pub fn lsn(&mut self) -> Decoded<Option<LsnContext>> {
        match self.u8()? {
            0 => Ok(None),
            1 => Ok(Some(LsnContext { lsn: self.u64()?, context: self.text()? })),
            found => Err(DecodeError::Unexpected { what: "lsn mark", found }),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(crate) fn any_value() -> impl Strategy<Value = Option<Value>> {
        prop_oneof![
            Just(None),
            proptest::collection::vec(any::<u8>(), 0..20)
                .prop_map(|b| Some(Value::Bytes(b.into()))),
            ".{0,12}".prop_map(|s| Some(Value::String(s))),
            any::<bool>().prop_map(|v| Some(Value::Bool(v))),
            any::<i32>().prop_map(|v| Some(Value::Int32(v))),
            any::<i64>().prop_map(|v| Some(Value::Int64(v))),
            any::<u32>().prop_map(|v| Some(Value::UInt32(v))),
            any::<u64>().prop_map(|v| Some(Value::UInt64(v))),
            (-1e9f32..1e9).prop_map(|v| Some(Value::Float(v))),
            (-1e9f64..1e9).prop_map(|v| Some(Value::Double(v))),
        ]
    }

    proptest! {
        #[test]
        fn forward_rows_round_trip(row in proptest::collection::vec(any_value(), 0..8)) {
            let mut out = Vec::new();
            put_forward(&mut out, &row);
            let mut decoder = Decoder::new(out.into());
            prop_assert_eq!(&decoder.forward().unwrap()[..], &row[..]);
            prop_assert_eq!(decoder.left(), 0);
        }

        #[test]
        fn no_input_makes_the_decoder_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let mut decoder = Decoder::new(bytes.into());
            let _ = decoder.forward();
            let _ = decoder.lsn();
            let _ = decoder.text();
        }
    }
}
