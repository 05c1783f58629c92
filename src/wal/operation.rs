//! One logged operation. Operations are resolved before they are logged: applying one never fails
//! and never depends on what the caller asked for.

use bytes::Bytes;

use crate::schema::encoding::{DecodeError, Decoder, put_bytes, put_forward, put_lsn};
use crate::schema::{Document, LsnContext};

const PUT: u8 = 1;
const DELETE: u8 = 2;
const SEEN: u8 = 3;
const NO_VECTOR: u32 = u32::MAX;

/// What an accepted row does.
#[derive(Debug, Clone, PartialEq)]
pub enum LogOperation {
    /// The key holds this document from now on, whatever it held before.
    Put {
        /// The primary key.
        key: u64,
        /// The whole row.
        document: Document,
        /// Present in repository collections.
        lsn: Option<LsnContext>,
    },
    /// The key holds nothing from now on.
    Delete {
        /// The primary key.
        key: u64,
        /// Present in repository collections.
        lsn: Option<LsnContext>,
    },
    /// A repository row that changed nothing, for its LSN.
    Seen {
        /// The LSN.
        lsn: LsnContext,
    },
}

impl LogOperation {
    /// The LSN, where there is one.
    pub fn lsn(&self) -> Option<&LsnContext> {
        match self {
            LogOperation::Put { lsn, .. } | LogOperation::Delete { lsn, .. } => lsn.as_ref(),
            LogOperation::Seen { lsn } => Some(lsn),
        }
    }

    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            LogOperation::Put { key, document, lsn } => {
                out.push(PUT);
                out.extend_from_slice(&key.to_le_bytes());
                put_lsn(out, lsn.as_ref());
                out.extend_from_slice(&(document.vectors.len() as u32).to_le_bytes());
                for vector in &document.vectors {
                    match vector {
                        None => out.extend_from_slice(&NO_VECTOR.to_le_bytes()),
                        Some(bytes) => put_bytes(out, bytes),
                    }
                }
                put_forward(out, &document.forward);
            }
            LogOperation::Delete { key, lsn } => {
                out.push(DELETE);
                out.extend_from_slice(&key.to_le_bytes());
                put_lsn(out, lsn.as_ref());
            }
            LogOperation::Seen { lsn } => {
                out.push(SEEN);
                put_lsn(out, Some(lsn));
            }
        }
    }

    fn decode(decoder: &mut Decoder) -> Result<Self, DecodeError> {
        Ok(match decoder.u8()? {
            PUT => {
                let key = decoder.u64()?;
                let lsn = decoder.lsn()?;
                let count = decoder.u32()? as usize;
                if count > decoder.left() {
                    return Err(DecodeError::Truncated { wanted: count, left: decoder.left() });
                }
                let vectors = (0..count)
                    .map(|_| match decoder.u32()? {
                        NO_VECTOR => Ok(None),
                        length => decoder.take(length as usize).map(Some),
                    })
                    .collect::<Result<Box<[Option<Bytes>]>, DecodeError>>()?;
                let forward = decoder.forward()?;
                LogOperation::Put { key, document: Document { vectors, forward }, lsn }
            }
            DELETE => LogOperation::Delete { key: decoder.u64()?, lsn: decoder.lsn()? },
            SEEN => match decoder.lsn()? {
                Some(lsn) => LogOperation::Seen { lsn },
                None => return Err(DecodeError::Unexpected { what: "lsn mark", found: 0 }),
            },
            found => return Err(DecodeError::Unexpected { what: "operation", found }),
        })
    }
}

/// Encodes the operations of one request as a record's payload.
pub(super) fn encode_all(operations: &[LogOperation], out: &mut Vec<u8>) {
    out.extend_from_slice(&(operations.len() as u32).to_le_bytes());
    for operation in operations {
        operation.encode(out);
    }
}

/// Decodes a record's payload, which must hold the operations and nothing more.
pub(super) fn decode_all(payload: Bytes) -> Result<Vec<LogOperation>, DecodeError> {
    let mut decoder = Decoder::new(payload);
    let count = decoder.u32()? as usize;
    if count > decoder.left() {
        return Err(DecodeError::Truncated { wanted: count, left: decoder.left() });
    }
    let operations =
        (0..count).map(|_| LogOperation::decode(&mut decoder)).collect::<Result<Vec<_>, _>>()?;
    match decoder.left() {
        0 => Ok(operations),
        left => Err(DecodeError::Truncated { wanted: 0, left }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::Value;

    #[test]
    fn operations_round_trip() {
        let lsn = LsnContext { lsn: 7, context: "file;4;7;inc".into() };
        let document = Document {
            vectors: vec![Some(Bytes::from_static(&[1, 2, 3, 4])), None].into(),
            forward: vec![Some(Value::String("a.jpg".into())), None].into(),
        };
        let operations = vec![
            LogOperation::Put { key: 1, document, lsn: None },
            LogOperation::Delete { key: u64::MAX - 1, lsn: Some(lsn.clone()) },
            LogOperation::Seen { lsn },
        ];
        let mut payload = Vec::new();
        encode_all(&operations, &mut payload);
        assert_eq!(decode_all(payload.clone().into()).unwrap(), operations);
        for cut in 0..payload.len() {
            assert!(decode_all(payload[..cut].to_vec().into()).is_err(), "cut at {cut}");
        }
    }
}
