//! MindSpore's ckpt format: files found and designed.
//!
//! A file is a run of protobuf messages without any index, walked by hand so that tensor bytes are
//! skipped, never read:
//!
//! ```text
//! Checkpoint     { value (1, repeated Value) }
//! Value          { tag (1) = the name; tensor (2) or maptensor (3) }
//! TensorProto    { dims (1, repeated int64); tensor_type (2); tensor_content (3) }
//! ```
//!
//! - *Blocks*: consecutive values of one tag, each with the full dims, are one tensor; their
//!   contents follow one another.
//! - *Scalars* have no dims; dims `[0]` with the bytes of one element are a scalar too. Dims `[0]`
//!   without bytes stay an empty tensor.
//! - *Strings* (type `str`, UTF-32) are no tensors: string `note` is found, and written, as
//!   metadata `ckpt.str.note`.
//! - *Packed 4-bit integers* (type `Int4`): dims count bytes of two elements. They are I8 tensors
//!   with metadata `<name>: "Int4"`, as in MindSpore's own safetensors files.
//! - *Trailer*: `crc_num` and a CRC-32 may follow the last message; see [`seal()`]. It is no
//!   metadata: safetensors' `crc_num` is the CRC of something else.
//!
//! A file that was cut exactly between two messages looks whole; only its CRC can tell.

mod crc;
mod design;
mod format;
#[cfg(test)]
mod properties;
mod read;
#[cfg(test)]
mod tests;
mod window;

pub use crc::{TRAILER_BYTES, crc_trailer, seal};
pub use design::{BLOCK_BYTES_MAX, design};
pub use format::Ckpt;
pub use read::{encryption, parse, read};

/// Most values (blocks of tensors, and strings) of a file.
pub const VALUES_MAX: usize = 1 << 20;
/// Most bytes of a file that are not tensor content.
pub const FRAMING_BYTES_MAX: u64 = 100_000_000;
/// Longest name of a tensor or string, in bytes.
pub const NAME_BYTES_MAX: u64 = 64 << 10;
/// Longest string, in bytes of UTF-32.
pub const TEXT_BYTES_MAX: u64 = 1 << 20;
/// Most dimensions of a tensor.
pub const DIMS_MAX: usize = 64;

/// What precedes a string's name in the metadata.
pub const TEXT_PREFIX: &str = "ckpt.str.";
/// `tensor_type` of a string.
const TEXT: &str = "str";
/// `tensor_type` of packed 4-bit integers, and the metadata that marks them.
const INT4: &str = "Int4";
/// Wire type of a number.
const VARINT: u8 = 0;
/// Wire type of bytes and messages: a length, then as many bytes.
const LENGTH: u8 = 2;
