//! Object headers of HDF5 files, as far as the library does not tell what is in them: which messages are
//! there, and where. Nothing here takes memory for more than there is in the file.
//! <https://support.hdfgroup.org/documentation/hdf5/latest/_f_m_t4.html>

use hdf5_pure::Superblock;

use super::super::{Fault, Read};
use super::view::View;

/// Longest part of a header, and most parts and messages.
const PART_BYTES_MAX: u64 = 16 << 20;
const PARTS_MAX: usize = 1_024;
const MESSAGES_MAX: usize = 65_536;

const CONTINUATION: u16 = 0x10;

/// How numbers of a file are written.
#[derive(Debug, Clone, Copy)]
pub(super) struct Frame {
    /// Bytes of an address, and of a length.
    pub address: usize,
    pub length: usize,
    /// What addresses are counted from.
    pub base: u64,
}

impl Frame {
    pub fn of(superblock: &Superblock) -> Frame {
        Frame {
            address: superblock.offset_size.into(),
            length: superblock.length_size.into(),
            base: superblock.base_address.get(),
        }
    }

    /// The place in the file of an address that is written somewhere.
    pub fn place(&self, address: u64) -> Read<u64> {
        self.base.checked_add(address).ok_or_else(|| Fault::new("an address beyond all files"))
    }
}

/// Reads numbers one after the other.
pub(super) struct Fields<'a>(pub &'a [u8]);

impl<'a> Fields<'a> {
    pub fn bytes(&mut self, count: usize) -> Read<&'a [u8]> {
        let parts = self.0.split_at_checked(count);
        let (taken, rest) = parts.ok_or_else(|| Fault::new("a header that is cut short"))?;
        self.0 = rest;
        Ok(taken)
    }

    /// A number of so many bytes, at most 8.
    pub fn number(&mut self, bytes: usize) -> Read<u64> {
        let mut number = [0; 8];
        let found = self.bytes(bytes)?;
        let place = number.get_mut(..bytes).ok_or_else(|| Fault::new("a number of many bytes"))?;
        place.copy_from_slice(found);
        Ok(u64::from_le_bytes(number))
    }

    /// An address; none where it is the mark of nothing.
    pub fn address(&mut self, frame: &Frame) -> Read<Option<u64>> {
        let address = self.number(frame.address)?;
        let nothing = u64::MAX >> (64 - 8 * frame.address.clamp(1, 8));
        Ok((address != nothing).then_some(address))
    }
}

/// A message of a header.
#[derive(Debug)]
pub(super) struct Message {
    pub kind: u16,
    /// It says where the message is, instead of being it.
    pub is_shared: bool,
    /// The place of its first byte in the file.
    pub at: u64,
    pub bytes: Vec<u8>,
}

/// A part of a header, with a checksum behind it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Part {
    pub start: u64,
    pub bytes: u64,
}

/// The header of an object.
#[derive(Debug, Default)]
pub(super) struct Header {
    pub messages: Vec<Message>,
    /// Those that have checksums.
    pub parts: Vec<Part>,
}

impl Header {
    pub fn read(view: &View, frame: &Frame, at: u64) -> Read<Header> {
        let mut header = Header::default();
        match view.read(at, 4)?.as_slice() {
            b"OHDR" => header.read_second(view, frame, at)?,
            [1, ..] => header.read_first(view, frame, at)?,
            _ => return Err(Fault::new("no object header where the library found one")),
        }
        Ok(header)
    }

    /// The message of that kind, of which there is one at most.
    pub fn message(&self, kind: u16) -> Option<&Message> {
        self.messages.iter().find(|message| message.kind == kind)
    }

    /// Version 1.
    fn read_first(&mut self, view: &View, frame: &Frame, at: u64) -> Read<()> {
        let prefix = view.read(at, 16)?;
        let mut fields = Fields(&prefix[8..]);
        let mut left = vec![(at.saturating_add(16), fields.number(4)?)];
        for _ in 0..PARTS_MAX {
            let Some((start, bytes)) = left.pop() else { return Ok(()) };
            let part = read_part(view, start, bytes)?;
            let mut fields = Fields(&part);
            while fields.0.len() >= 8 {
                let (kind, length) = (fields.number(2)? as u16, fields.number(2)? as usize);
                let flags = fields.number(1)?;
                fields.bytes(3)?;
                let at = start + (part.len() - fields.0.len()) as u64;
                left.extend(self.push(frame, kind, flags, at, fields.bytes(length)?)?);
            }
        }
        Err(Fault::new("a header of too many parts"))
    }

    /// Version 2.
    fn read_second(&mut self, view: &View, frame: &Frame, at: u64) -> Read<()> {
        let flags = view.read(at, 6)?[5];
        let times = if flags & 0x20 == 0 { 0 } else { 16 };
        let phases = if flags & 0x10 == 0 { 0 } else { 4 };
        let size = 1usize << (flags & 3);
        let prefix = 6 + times + phases + size;
        let start = view.read(at, prefix)?;
        let bytes = Fields(&start[prefix - size..]).number(size)?;
        let mut left = vec![(at, prefix, (prefix as u64).saturating_add(bytes))];
        for _ in 0..PARTS_MAX {
            let Some((start, prefix, bytes)) = left.pop() else { return Ok(()) };
            let part = read_part(view, start, bytes)?;
            self.parts.push(Part { start, bytes });
            let mut fields = Fields(&part);
            fields.bytes(prefix)?;
            let order = if flags & 4 == 0 { 0 } else { 2 };
            // What is too short for a message is a gap.
            while fields.0.len() >= 4 + order {
                let (kind, length) = (fields.number(1)? as u16, fields.number(2)? as usize);
                let message_flags = fields.number(1)?;
                fields.bytes(order)?;
                let at = start + (part.len() - fields.0.len()) as u64;
                let bytes = fields.bytes(length)?;
                let more = self.push(frame, kind, message_flags, at, bytes)?;
                // A signature before the messages, and a checksum behind them.
                left.extend(more.map(|(start, bytes)| (start, 4, bytes.saturating_sub(4))));
            }
        }
        Err(Fault::new("a header of too many parts"))
    }

    /// Takes a message, or gives the place and bytes of a further part.
    fn push(
        &mut self,
        frame: &Frame,
        kind: u16,
        flags: u64,
        at: u64,
        bytes: &[u8],
    ) -> Read<Option<(u64, u64)>> {
        if kind == CONTINUATION {
            let mut fields = Fields(bytes);
            let address = fields.number(frame.address)?;
            return Ok(Some((frame.place(address)?, fields.number(frame.length)?)));
        }
        if self.messages.len() == MESSAGES_MAX {
            return Err(Fault::new("a header of too many messages"));
        }
        self.messages.push(Message { kind, is_shared: flags & 2 != 0, at, bytes: bytes.to_vec() });
        Ok(None)
    }
}

fn read_part(view: &View, start: u64, bytes: u64) -> Read<Vec<u8>> {
    if bytes > PART_BYTES_MAX {
        return Err(Fault::new(format!("a header of {bytes} bytes")));
    }
    view.read(start, bytes as usize)
}
