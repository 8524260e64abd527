//! Protobuf's wire format, read through a small window.

use super::{FRAMING_BYTES_MAX, LENGTH};
use crate::fault::memory::grow;
use crate::fault::{Fault, Kind, Result};
use std::ops::Range;

/// Fills a buffer with the file's bytes from an offset on.
pub(super) type ReadAt<'a> = &'a dyn Fn(&mut [u8], u64) -> Result<()>;

/// Bytes read at once. Between two tensors there are some 100, and most files have large tensors.
const WINDOW_BYTES: u64 = 4096;

/// A fault about byte `at`.
pub(super) fn corrupt(at: u64, message: impl std::fmt::Display) -> Fault {
    Fault::new(Kind::Corrupt, format!("{message}, at byte {at}"))
}

/// A place in a file, and the bytes around it.
pub(super) struct Window<'a> {
    read_at: ReadAt<'a>,
    end: u64,
    at: u64,
    start: u64,
    buffer: Vec<u8>,
    framing_bytes: u64,
}

impl<'a> Window<'a> {
    /// The start of the first `end` bytes of a file.
    pub(super) fn new(read_at: ReadAt<'a>, end: u64) -> Self {
        Window {
            read_at,
            end,
            at: 0,
            start: 0,
            buffer: Vec::new(),
            framing_bytes: 0,
        }
    }

    /// Offset of the next byte.
    pub(super) fn at(&self) -> u64 {
        self.at
    }

    /// Moves on to `until`, without reading what lies between.
    pub(super) fn skip_to(&mut self, until: u64) {
        self.at = until;
    }

    /// The buffered bytes from the next one on, never none before `self.end`.
    fn ahead(&mut self) -> Result<&[u8]> {
        let buffered = self.start..self.start + self.buffer.len() as u64;
        if !buffered.contains(&self.at) {
            let length = WINDOW_BYTES.min(self.end.saturating_sub(self.at));
            grow(
                &mut self.buffer,
                usize::try_from(length).unwrap_or(usize::MAX),
            )?;
            self.start = self.at;
            (self.read_at)(&mut self.buffer, self.at)?;
        }
        let index = usize::try_from(self.at - self.start).unwrap_or(usize::MAX);
        Ok(self.buffer.get(index..).unwrap_or_default())
    }

    /// Counts bytes that are not tensor content.
    fn count(&mut self, bytes: u64) -> Result<()> {
        self.framing_bytes = self.framing_bytes.saturating_add(bytes);
        if self.framing_bytes > FRAMING_BYTES_MAX {
            let message = format!("more than {FRAMING_BYTES_MAX} bytes are not of tensors");
            return Err(corrupt(self.at, message));
        }
        Ok(())
    }

    /// A number of at most 64 bits that ends before `end`.
    pub(super) fn varint(&mut self, end: u64) -> Result<u64> {
        let begin = self.at;
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            if self.at >= end {
                return Err(corrupt(begin, "a number is cut short"));
            }
            let byte = self.ahead()?.first().copied().unwrap_or_default();
            self.count(1)?;
            self.at += 1;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                break;
            }
            value |= bits << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(corrupt(begin, "a number has more than 64 bits"))
    }

    /// A field's number and wire type.
    pub(super) fn key(&mut self, end: u64) -> Result<(u64, u8)> {
        let key = self.varint(end)?;
        // Three bits always fit.
        Ok((key >> 3, u8::try_from(key & 7).unwrap_or(u8::MAX)))
    }

    /// Reads the length of `what`, which ends before `end`: its byte range.
    pub(super) fn range(&mut self, what: &str, end: u64) -> Result<Range<u64>> {
        let begin = self.at;
        let length = self.varint(end)?;
        let left = end.saturating_sub(self.at);
        if length > left {
            let message = format!("{what} claims {length} bytes, {left} are left (truncated?)");
            return Err(corrupt(begin, message));
        }
        Ok(self.at..self.at + length)
    }

    /// Reads a text of at most `bytes_max` bytes that ends before `end`.
    pub(super) fn text(&mut self, what: &str, bytes_max: u64, end: u64) -> Result<String> {
        let range = self.range(what, end)?;
        let begin = range.start;
        let bytes = self.bytes(what, bytes_max, range)?;
        String::from_utf8(bytes).map_err(|_| corrupt(begin, format!("{what} is no UTF-8")))
    }

    /// Reads the bytes of `range`, at most `bytes_max`; the next byte is the one after them.
    pub(super) fn bytes(
        &mut self,
        what: &str,
        bytes_max: u64,
        range: Range<u64>,
    ) -> Result<Vec<u8>> {
        let length = range.end - range.start;
        if length > bytes_max {
            let message = format!("{what} has {length} bytes, more than {bytes_max}");
            return Err(corrupt(range.start, message));
        }
        self.count(length)?;
        self.at = range.start;
        let mut bytes = Vec::new();
        while self.at < range.end {
            let left = usize::try_from(range.end - self.at).unwrap_or(usize::MAX);
            let ahead = self.ahead()?;
            let taken = ahead.len().min(left);
            if taken == 0 {
                return Err(corrupt(range.start, format!("{what} is cut short")));
            }
            bytes.extend_from_slice(&ahead[..taken]);
            self.at += taken as u64;
        }
        Ok(bytes)
    }
}

/// A field that `message` doesn't have, or of another wire type than it should be.
pub(super) fn unknown(at: u64, message: &str, (field, wire): (u64, u8)) -> Fault {
    let form = if wire == LENGTH { "bytes" } else { "a number" };
    let text = format!("{message} has no field {field} of wire type {wire} ({form})");
    corrupt(at, text).hint("is it a ckpt file of weights? Strategy files end in .ckpt too")
}
