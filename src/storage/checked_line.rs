//! Small files of one checksummed line.
//!
//! ```text
//! file = line  "\n"  "crc32c=" 8 hex digits of the CRC-32C of the line  "\n"
//! ```

/// The content of a file with this line.
pub fn with_checksum(line: &str) -> String {
    format!("{line}\ncrc32c={:08x}\n", crc32c::crc32c(line.as_bytes()))
}

/// The line of a file, or what is wrong with the file.
pub fn checked_line(content: &[u8]) -> Result<&str, String> {
    let text = std::str::from_utf8(content).map_err(|_| "not UTF-8")?;
    let (line, rest) = text.split_once('\n').ok_or("cut short")?;
    let expected = format!("crc32c={:08x}\n", crc32c::crc32c(line.as_bytes()));
    match rest == expected {
        true => Ok(line),
        false => Err(format!("the checksum line is {rest:?}, the content needs {expected:?}")),
    }
}
