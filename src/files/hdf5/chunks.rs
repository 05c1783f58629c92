//! What HDF5 2.0 writes of chunks otherwise than the library knows it: layout messages of version 5, which
//! are those of version 4 but for their number (the library takes the width of sizes from the index), and
//! B-trees of version 2, where more than one dimension may grow. Such an index is shown as an array behind
//! the end of the file, as one of a data set that cannot grow has it.
//! <https://support.hdfgroup.org/documentation/hdf5/latest/_f_m_t4.html>

use super::super::layout::check_memory;
use super::super::{Fault, Read};
use super::header::{Fields, Frame, Header};
use super::view::{Changes, View};

const DATASPACE: u16 = 1;
const LAYOUT: u16 = 8;

/// The class of layouts in chunks, and the kinds of their indexes.
const CHUNKED: u8 = 2;
const FIXED_ARRAY: u8 = 3;
const BTREE: u8 = 5;

/// Kinds of records in the trees: chunks as they are, and chunks that went through filters.
const PLAIN: u64 = 10;
const FILTERED: u64 = 11;

/// Bytes of a node besides records and links, and most bytes of one.
const NODE_BYTES: usize = 10;
const NODE_BYTES_MAX: u64 = 16 << 20;
const DEPTH_MAX: usize = 32;

/// Places for chunks that there may be for each chunk, and besides.
const SPARSE_MAX: u64 = 4_096;

/// Adds what the library must be shown to read a data set.
pub(super) fn show(view: &View, frame: &Frame, header: &Header, changes: &mut Changes) -> Read<()> {
    let Some(layout) = header.message(LAYOUT) else { return Ok(()) };
    let mut fields = Fields(&layout.bytes);
    let (version, class) = (fields.number(1)?, fields.number(1)? as u8);
    let mut own = Changes::default();
    if version == 5 {
        own.put(layout.at, &[4]);
    }
    if matches!(version, 4 | 5) && class == CHUNKED {
        fields.bytes(1)?;
        let (sides, width) = (fields.number(1)? as usize, fields.number(1)? as usize);
        let chunk: Vec<u64> = (0..sides).map(|_| fields.number(width)).collect::<Read<_>>()?;
        let place = layout.at + (layout.bytes.len() - fields.0.len()) as u64;
        if fields.number(1)? as u8 == BTREE {
            fields.bytes(6)?;
            if let Some(address) = fields.address(frame)? {
                let behind = view.bytes + changes.behind.len() as u64;
                let array = Array::of_tree(view, frame, header, address, &chunk)?;
                own.behind = array.write(frame, behind)?;
                // No more than there was: a tree has more to be said about it.
                own.put(place, &[FIXED_ARRAY, ONE_PAGE]);
                own.put(place + 2, &stored(frame, behind)?);
                own.put(array.flags.0, &[array.flags.1]);
            }
        }
    }
    if own.is_empty() {
        return Ok(());
    }
    for part in &header.parts {
        let mut bytes = view.read(part.start, part.bytes as usize)?;
        let changed = own.bytes.range(part.start..part.start + part.bytes);
        let changed: Vec<(usize, u8)> =
            changed.map(|(at, byte)| ((at - part.start) as usize, *byte)).collect();
        if !changed.is_empty() {
            changed.into_iter().for_each(|(at, byte)| bytes[at] = byte);
            own.put(part.start + part.bytes, &checksum(&bytes).to_le_bytes());
        }
    }
    changes.bytes.extend(own.bytes);
    changes.behind.extend(own.behind);
    Ok(())
}

/// The power of two of the entries of a page: all of them in one.
const ONE_PAGE: u8 = 40;

/// A place in the file as an address is written.
fn stored(frame: &Frame, place: u64) -> Read<Vec<u8>> {
    let address = place.checked_sub(frame.base).map(u64::to_le_bytes);
    let bytes = address.as_ref().and_then(|bytes| bytes.split_at_checked(frame.address));
    match bytes {
        Some((bytes, rest)) if rest.iter().all(|byte| *byte == 0) => Ok(bytes.to_vec()),
        _ => Err(Fault::new("an index of chunks that has no address")),
    }
}

/// Chunks in the order of their places.
struct Array {
    is_filtered: bool,
    entry_bytes: usize,
    entries: Vec<u8>,
    /// The place of the flags of the data set's shape, and what they are where it cannot grow.
    flags: (u64, u8),
}

impl Array {
    fn of_tree(
        view: &View,
        frame: &Frame,
        header: &Header,
        address: u64,
        chunk: &[u64],
    ) -> Read<Array> {
        let of_shape = || Fault::new("chunks in a tree, and a shape that is not told beside them");
        let space = header.message(DATASPACE).filter(|space| !space.is_shared);
        let space = space.ok_or_else(of_shape)?;
        let mut fields = Fields(&space.bytes);
        let (version, rank) = (fields.number(1)?, fields.number(1)? as usize);
        let flags = fields.number(1)? as u8;
        fields.bytes(if version == 1 { 5 } else { 1 })?;
        let shape: Vec<u64> =
            (0..rank).map(|_| fields.number(frame.length)).collect::<Read<_>>()?;
        // The last side of a chunk is that of an element.
        if chunk.len() != rank + 1 || chunk.contains(&0) {
            return Err(Fault::new(format!(
                "chunks of shape {chunk:?}, and an array of {shape:?}"
            )));
        }
        let counts: Vec<u64> =
            shape.iter().zip(chunk).map(|(side, chunk)| side.div_ceil(*chunk)).collect();
        let tree = Tree::read(view, frame, address, rank)?;
        let entry_bytes = tree.record_bytes - 8 * rank;
        let most = tree.records.saturating_mul(SPARSE_MAX).saturating_add(SPARSE_MAX);
        let all = counts.iter().try_fold(1u64, |all, count| all.checked_mul(*count));
        let all = all.filter(|all| *all <= most).ok_or_else(|| {
            Fault::new(format!("chunks of shape {chunk:?} in a tree, too far apart in {shape:?}"))
        })?;
        let bytes = all.saturating_mul(entry_bytes as u64);
        check_memory("an index of chunks", bytes)?;
        let mut entries = vec![0xff; usize::try_from(bytes).map_err(Fault::new)?];
        tree.visit(view, frame, |record| {
            let (entry, places) = record.split_at(entry_bytes);
            let mut fields = Fields(places);
            let mut number = 0u64;
            for count in &counts {
                let place = fields.number(8)?;
                if place >= *count {
                    return Err(Fault::new("a chunk that lies outside of the array"));
                }
                number = number * count + place;
            }
            let start = number as usize * entry_bytes;
            entries[start..start + entry_bytes].copy_from_slice(entry);
            Ok(())
        })?;
        let flags = (space.at + 2, flags & !1);
        Ok(Array { is_filtered: tree.is_filtered, entry_bytes, entries, flags })
    }

    /// The array as it lies at a place.
    fn write(&self, frame: &Frame, place: u64) -> Read<Vec<u8>> {
        let client = u8::from(self.is_filtered);
        let count = (self.entries.len() / self.entry_bytes) as u64;
        let header_bytes = 8 + frame.length + frame.address + 4;
        let block = place + header_bytes as u64;
        let entry_bytes = u8::try_from(self.entry_bytes).map_err(Fault::new)?;
        let mut bytes = b"FAHD\0".to_vec();
        bytes.extend([client, entry_bytes, ONE_PAGE]);
        let length = count.to_le_bytes();
        bytes.extend(length.get(..frame.length).unwrap_or(&length));
        bytes.extend(stored(frame, block)?);
        bytes.extend(checksum(&bytes).to_le_bytes());
        let start = bytes.len();
        bytes.extend(b"FADB\0");
        bytes.push(client);
        bytes.extend(stored(frame, place)?);
        bytes.extend(&self.entries);
        bytes.extend(checksum(&bytes[start..]).to_le_bytes());
        Ok(bytes)
    }
}

/// A B-tree of chunks.
struct Tree {
    is_filtered: bool,
    record_bytes: usize,
    node_bytes: usize,
    depth: usize,
    root: u64,
    root_records: usize,
    /// All records, as the tree says.
    records: u64,
    /// Bytes of the number of records of a node, and by depth of that of all below.
    own_width: usize,
    all_width: Vec<usize>,
}

impl Tree {
    fn read(view: &View, frame: &Frame, address: u64, rank: usize) -> Read<Tree> {
        let bytes = 4 + 2 + 4 + 2 + 2 + 2 + frame.address + 2 + frame.length;
        let header = checked(view.read(frame.place(address)?, bytes + 4)?, bytes)?;
        let mut fields = Fields(&header);
        if fields.bytes(5)? != b"BTHD\0" {
            return Err(Fault::new("no B-tree where one of chunks should be"));
        }
        let kind = fields.number(1)?;
        let node_bytes = fields.number(4)?;
        let (record_bytes, depth) = (fields.number(2)? as usize, fields.number(2)? as usize);
        fields.bytes(2)?;
        let root = fields.number(frame.address)?;
        let root_records = fields.number(2)? as usize;
        let records = fields.number(frame.length)?;
        // An address, and where the chunk went through filters its size in 1 to 8 bytes, and a mask.
        let entry = record_bytes.saturating_sub(8 * rank);
        let size = entry.saturating_sub(frame.address + 4);
        let fits = match kind {
            PLAIN => entry == frame.address,
            FILTERED => (1..=8).contains(&size),
            _ => false,
        };
        if !fits || depth > DEPTH_MAX || node_bytes > NODE_BYTES_MAX {
            return Err(Fault::new("a B-tree of no known form"));
        }
        if records.saturating_mul(record_bytes as u64) > view.bytes {
            return Err(Fault::new(format!(
                "a B-tree of {records} chunks, more than fit in a file"
            )));
        }
        let node_bytes = node_bytes as usize;
        let leaf = (node_bytes.saturating_sub(NODE_BYTES) / record_bytes) as u64;
        let own_width = width(leaf);
        // Leaves do not tell what is below them; other nodes have room for the most that may be.
        let (mut below, mut all_width) = (leaf, vec![0]);
        for level in 0..depth {
            let link = frame.address + own_width + all_width[level];
            let room = node_bytes.saturating_sub(NODE_BYTES + link);
            let own = (room / (record_bytes + link)) as u64;
            below = own.saturating_add(1).saturating_mul(below).saturating_add(own);
            all_width.push(width(below));
        }
        let is_filtered = kind == FILTERED;
        Ok(Tree {
            is_filtered,
            record_bytes,
            node_bytes,
            depth,
            root,
            root_records,
            records,
            own_width,
            all_width,
        })
    }

    /// Gives every record.
    fn visit(
        &self,
        view: &View,
        frame: &Frame,
        mut each: impl FnMut(&[u8]) -> Read<()>,
    ) -> Read<()> {
        let mut left = vec![(self.root, self.root_records, self.depth)];
        let mut seen = 0u64;
        while let Some((address, count, level)) = left.pop() {
            seen = seen.saturating_add(count as u64);
            // A node without records is no node: the walk ends.
            if count == 0 && self.records > 0 || seen > self.records {
                return Err(Fault::new("a B-tree that has other chunks than it says"));
            }
            if count == 0 {
                continue;
            }
            // What a node says of those below it, and how many there are.
            let below = level.checked_sub(1).and_then(|below| self.all_width.get(below));
            let link = below.map_or(0, |width| frame.address + self.own_width + width);
            let children = if level == 0 { 0 } else { count + 1 };
            let bytes = NODE_BYTES - 4 + count * self.record_bytes + children * link;
            if bytes + 4 > self.node_bytes {
                return Err(Fault::new("a B-tree with a node that has too many chunks"));
            }
            let node = checked(view.read(frame.place(address)?, bytes + 4)?, bytes)?;
            let mut fields = Fields(&node);
            let signature = if level == 0 { b"BTLF\0" } else { b"BTIN\0" };
            if fields.bytes(5)? != signature {
                return Err(Fault::new("no node of a B-tree where one should be"));
            }
            fields.bytes(1)?;
            for _ in 0..count {
                each(fields.bytes(self.record_bytes)?)?;
            }
            for _ in 0..children {
                let mut fields = Fields(fields.bytes(link)?);
                let child = fields.number(frame.address)?;
                left.push((child, fields.number(self.own_width)? as usize, level - 1));
            }
        }
        Ok(())
    }
}

/// Bytes that a number up to this one takes.
fn width(most: u64) -> usize {
    (u64::BITS - most.max(1).leading_zeros()).div_ceil(8) as usize
}

/// Bytes without the checksum behind them, which must be theirs.
fn checked(mut all: Vec<u8>, bytes: usize) -> Read<Vec<u8>> {
    let stored = all.split_off(bytes);
    match stored == checksum(&all).to_le_bytes() {
        true => Ok(all),
        false => Err(Fault::new("an index of chunks that does not have its checksum")),
    }
}

/// The checksum of HDF5's metadata: lookup3 of Bob Jenkins.
/// <https://burtleburtle.net/bob/c/lookup3.c>
fn checksum(bytes: &[u8]) -> u32 {
    let start = 0xdead_beef_u32.wrapping_add(bytes.len() as u32);
    let [mut a, mut b, mut c] = [start; 3];
    let mut blocks = bytes.chunks(12).peekable();
    while let Some(block) = blocks.next() {
        let mut words = [0; 12];
        words[..block.len()].copy_from_slice(block);
        let word = |at: usize| u32::from_le_bytes([0, 1, 2, 3].map(|byte| words[at + byte]));
        (a, b, c) = (a.wrapping_add(word(0)), b.wrapping_add(word(4)), c.wrapping_add(word(8)));
        let turn = |x: &mut u32, y: &mut u32, z: &mut u32, by: u32| {
            *x = x.wrapping_sub(*z) ^ z.rotate_left(by);
            *z = z.wrapping_add(*y);
        };
        let last = |x: &mut u32, y: u32, by: u32| *x = (*x ^ y).wrapping_sub(y.rotate_left(by));
        if blocks.peek().is_some() {
            turn(&mut a, &mut b, &mut c, 4);
            turn(&mut b, &mut c, &mut a, 6);
            turn(&mut c, &mut a, &mut b, 8);
            turn(&mut a, &mut b, &mut c, 16);
            turn(&mut b, &mut c, &mut a, 19);
            turn(&mut c, &mut a, &mut b, 4);
        } else {
            last(&mut c, b, 14);
            last(&mut a, c, 11);
            last(&mut b, a, 25);
            last(&mut c, b, 16);
            last(&mut a, c, 4);
            last(&mut b, a, 14);
            last(&mut c, b, 24);
        }
    }
    c
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_that_of_its_inventor() {
        // From the file named above: the driver5 of lookup3.c.
        assert_eq!(checksum(b""), 0xdead_beef);
        assert_eq!(checksum(b"Four score and seven years ago"), 0x1777_0551);
    }

    #[test]
    fn numbers_take_the_bytes_that_the_largest_takes() {
        assert_eq!([0, 1, 255, 256, 65_535, 65_536, u64::MAX].map(width), [1, 1, 1, 2, 2, 3, 8]);
    }
}
