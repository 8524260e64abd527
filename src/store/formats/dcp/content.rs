//! What `.metadata` says of one file.

use crate::catalog::{Entry, Part};
use std::collections::BTreeMap;
use std::ops::Range;

/// What a file has: chunks, and values with their bytes.
#[derive(Clone, Debug, Default)]
pub struct Content {
    pub(super) entries: Vec<Entry>,
    pub(super) parts: BTreeMap<u32, Part>,
    pub(super) values: Vec<(String, Range<u64>)>,
}
