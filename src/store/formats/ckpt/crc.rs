//! The checksum that may follow the last message.

use super::window::ReadAt;
use crate::fault::{Fault, Kind, Result};
use crate::store::formats::seal::Seal;
use crate::store::io::ReadFile;
use crc_fast::{CrcAlgorithm, Digest};

const MARK: &[u8; 7] = b"crc_num";
/// Length of the trailer: `crc_num`, then the CRC in 10 bytes, highest first.
pub const TRAILER_BYTES: u64 = 17;
/// Bytes read at once for a checksum.
const CHUNK_BYTES: usize = 1 << 20;

/// Where the messages of a file of `size` bytes end, and the trailer if there is one.
pub(super) fn find_trailer(size: u64, read_at: ReadAt<'_>) -> Result<(u64, Option<[u8; 17]>)> {
    let mut trailer = [0; 17];
    let Some(end) = size.checked_sub(TRAILER_BYTES) else {
        return Ok((size, None));
    };
    read_at(&mut trailer, end)?;
    if trailer.starts_with(MARK) {
        Ok((end, Some(trailer)))
    } else {
        Ok((size, None))
    }
}

/// What the CRC at the end of a file says of the rest of it; none if it has none.
///
/// # Errors
/// [`Kind::Corrupt`] if what stands there is no CRC, [`Kind::Io`].
pub fn seal(file: &ReadFile) -> Result<Option<Seal>> {
    let read_at = |buffer: &mut [u8], offset| file.read_at(buffer, offset);
    let (end, Some(found)) = find_trailer(file.size(), &read_at)? else {
        return Ok(None);
    };
    let number = found[MARK.len()..].iter().try_fold(0u64, |sum, byte| {
        let sum = sum.checked_mul(256)?;
        sum.checked_add(u64::from(*byte))
    });
    let crc = number.and_then(|number| u32::try_from(number).ok());
    let crc = crc
        .ok_or_else(|| Fault::new(Kind::Corrupt, "what ends it is no CRC; the file is damaged"))?;
    Ok(Some(Seal::of(0..end, crc, None)))
}

/// The trailer for the first `length` bytes of a finished file, to be put after them. Reads them
/// in chunks.
///
/// # Errors
/// [`Kind::Io`].
pub fn crc_trailer(file: &ReadFile, length: u64) -> Result<[u8; 17]> {
    let mut digest = Digest::new(CrcAlgorithm::Crc32IsoHdlc);
    let mut buffer = vec![0; CHUNK_BYTES.min(usize::try_from(length).unwrap_or(CHUNK_BYTES))];
    let mut at = 0;
    while at < length {
        let left = usize::try_from(length - at).unwrap_or(CHUNK_BYTES);
        let chunk = &mut buffer[..CHUNK_BYTES.min(left)];
        file.read_at(chunk, at)?;
        digest.update(chunk);
        at += chunk.len() as u64;
    }
    let mut trailer = [0; 17];
    trailer[..7].copy_from_slice(MARK);
    trailer[9..].copy_from_slice(&digest.finalize().to_be_bytes());
    Ok(trailer)
}
