//! The file of the queries that are kept: their vectors, and the filters that they came with.

use bytes::Bytes;

use crate::schema::encoding::{DecodeError, Decoder, put_bytes, put_forward};
use crate::schema::{FilterParam, RawFilter};

const MAGIC: &[u8; 8] = b"voisinq2";
/// Of files without filters.
const MAGIC_FIRST: &[u8; 8] = b"voisinq1";
/// More than any query comes with: its own, and that of the rows it is asked among.
const FILTERS_MAX: usize = 8;
/// Tells one value from a list.
const ONE: u8 = 0;
const LIST: u8 = 1;

/// A query in the file.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Entry {
    /// The place of its column.
    pub column: u32,
    /// Its vector, as stored ones are.
    pub vector: Bytes,
    /// All of these must let a row through; without any, all may be found.
    pub filters: Vec<RawFilter>,
}

/// What the file holds.
pub(super) fn encode(entries: impl Iterator<Item = Entry>) -> Vec<u8> {
    let mut file = MAGIC.to_vec();
    for entry in entries {
        file.extend_from_slice(&entry.column.to_le_bytes());
        put_bytes(&mut file, &entry.vector);
        file.extend_from_slice(&(entry.filters.len() as u32).to_le_bytes());
        entry.filters.iter().for_each(|filter| put_filter(&mut file, filter));
    }
    let sum = crc32c::crc32c(&file);
    file.extend_from_slice(&sum.to_le_bytes());
    file
}

/// What [`encode`] wrote, or an earlier version; `None` for anything else.
pub(super) fn decode(file: &[u8]) -> Option<Vec<Entry>> {
    let (head, sum) = file.split_at_checked(file.len().checked_sub(4)?)?;
    if crc32c::crc32c(head) != u32::from_le_bytes(sum.try_into().ok()?) {
        return None;
    }
    let (magic, rest) = head.split_first_chunk::<8>()?;
    let has_filters = match magic {
        MAGIC => true,
        MAGIC_FIRST => false,
        _ => return None,
    };
    let mut decoder = Decoder::new(Bytes::copy_from_slice(rest));
    let mut entries = Vec::new();
    while decoder.left() > 0 {
        entries.push(entry(&mut decoder, has_filters).ok()?);
    }
    Some(entries)
}

fn entry(decoder: &mut Decoder, has_filters: bool) -> Result<Entry, DecodeError> {
    let column = decoder.u32()?;
    // A copy: it outlives the file.
    let vector = Bytes::copy_from_slice(&decoder.bytes()?);
    let count = if has_filters { count(decoder, FILTERS_MAX)? } else { 0 };
    let filters = (0..count).map(|_| filter(decoder)).collect::<Result<_, _>>()?;
    Ok(Entry { column, vector, filters })
}

/// A number of things, so many at most.
fn count(decoder: &mut Decoder, most: usize) -> Result<usize, DecodeError> {
    let count = decoder.u32()? as usize;
    match count > most {
        true => Err(DecodeError::Truncated { wanted: count, left: most }),
        false => Ok(count),
    }
}

fn put_filter(file: &mut Vec<u8>, filter: &RawFilter) {
    put_bytes(file, filter.text.as_bytes());
    file.extend_from_slice(&(filter.params.len() as u32).to_le_bytes());
    for (name, param) in &filter.params {
        put_bytes(file, name.as_bytes());
        let (kind, values) = match param {
            FilterParam::One(value) => (ONE, std::slice::from_ref(value)),
            FilterParam::List(values) => (LIST, &values[..]),
        };
        file.push(kind);
        let values: Vec<_> = values.iter().cloned().map(Some).collect();
        put_forward(file, &values);
    }
}

fn filter(decoder: &mut Decoder) -> Result<RawFilter, DecodeError> {
    let text = decoder.text()?;
    // Each takes a byte at least.
    let most = decoder.left();
    let count = count(decoder, most)?;
    let params = (0..count).map(|_| param(decoder)).collect::<Result<_, _>>()?;
    Ok(RawFilter { text, params })
}

fn param(decoder: &mut Decoder) -> Result<(String, FilterParam), DecodeError> {
    let name = decoder.text()?;
    let kind = decoder.u8()?;
    let values = decoder.forward()?;
    let mut values = values.iter().flatten().cloned();
    let param = match (kind, values.next()) {
        (ONE, Some(value)) => FilterParam::One(value),
        (LIST, first) => FilterParam::List(first.into_iter().chain(values).collect()),
        (found, _) => return Err(DecodeError::Unexpected { what: "parameter", found }),
    };
    Ok((name, param))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::schema::Value;

    fn entries() -> Vec<Entry> {
        let one = |value| FilterParam::One(value);
        let params = [
            ("a", one(Value::Int64(-5))),
            ("b", one(Value::Bytes(Bytes::from_static(b"\xff")))),
            ("c", FilterParam::List(vec![Value::String("x".into()), Value::Bool(true)])),
            ("d", FilterParam::List(Vec::new())),
        ];
        let params = params.map(|(name, param)| (name.to_owned(), param)).to_vec();
        let filter = |text: &str, params| RawFilter { text: text.to_owned(), params };
        let filters = vec![filter("a < {a}", params), filter("b = 'ö'", Vec::new())];
        let vector = Bytes::from_static(b"abcd");
        vec![
            Entry { column: 0, vector: vector.clone(), filters: Vec::new() },
            Entry { column: 3, vector, filters },
        ]
    }

    fn with_sum(mut head: Vec<u8>) -> Vec<u8> {
        let sum = crc32c::crc32c(&head);
        head.extend_from_slice(&sum.to_le_bytes());
        head
    }

    #[test]
    fn what_was_written_is_read() {
        assert_eq!(decode(&encode(entries().into_iter())), Some(entries()));
        assert_eq!(decode(&encode(std::iter::empty())), Some(Vec::new()));
    }

    #[test]
    fn files_without_filters_are_read() {
        let file = [&b"voisinq1"[..], &2u32.to_le_bytes(), &3u32.to_le_bytes(), b"abc"].concat();
        let vector = Bytes::from_static(b"abc");
        assert_eq!(
            decode(&with_sum(file)),
            Some(vec![Entry { column: 2, vector, filters: Vec::new() }])
        );
    }

    #[test]
    fn more_filters_than_a_query_has_are_no_file() {
        let filter = RawFilter { text: "a".into(), params: Vec::new() };
        let with =
            |count| Entry { column: 0, vector: Bytes::new(), filters: vec![filter.clone(); count] };
        assert!(decode(&encode([with(FILTERS_MAX)].into_iter())).is_some());
        assert_eq!(decode(&encode([with(FILTERS_MAX + 1)].into_iter())), None);
    }

    #[test]
    fn every_cut_and_every_changed_byte_is_seen() {
        let file = encode(entries().into_iter());
        for length in 0..file.len() {
            assert_eq!(decode(&file[..length]), None, "cut to {length}");
            let mut changed = file.clone();
            changed[length] ^= 0x10;
            assert_eq!(decode(&changed), None, "changed at {length}");
        }
    }

    proptest! {
        #[test]
        fn no_file_makes_it_panic(rest in proptest::collection::vec(0u8..4, 0..64)) {
            for magic in [MAGIC, MAGIC_FIRST] {
                let _ = decode(&with_sum([magic, &rest[..]].concat()));
            }
        }
    }
}
