//! One of several parts of a check, for a long one that is spread over several runs.

use crate::fault::{Fault, Kind, Result};
use crate::store::manifest::Manifest;
use std::fmt;
use std::num::NonZeroU64;
use std::str::FromStr;

/// Part number so much of so many: whole files, in the manifest's order, in nearly equal parts by bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subset {
    /// From 0.
    index: u64,
    of: NonZeroU64,
}

impl Subset {
    /// The numbers of its files. Each file is in one part.
    pub(super) fn files(self, manifest: &Manifest) -> Vec<usize> {
        let total: u64 = manifest.files.iter().map(|file| file.bytes).sum();
        let mut before = 0u64;
        let mut chosen = Vec::new();
        for (number, file) in manifest.files.iter().enumerate() {
            // Where its middle lies.
            let middle = u128::from(before) * 2 + u128::from(file.bytes);
            let part = middle * u128::from(self.of.get()) / (u128::from(total.max(1)) * 2);
            if part.min(u128::from(self.of.get() - 1)) == u128::from(self.index) {
                chosen.push(number);
            }
            before += file.bytes;
        }
        chosen
    }
}

impl FromStr for Subset {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Subset> {
        let parts = text.split_once('/');
        let parts = parts.and_then(|(n, of)| Some((n.parse::<u64>().ok()?, of.parse().ok()?)));
        let parts = parts.and_then(|(n, of): (_, NonZeroU64)| Some((n.checked_sub(1)?, of)));
        match parts {
            Some((index, of)) if index < of.get() => Ok(Subset { index, of }),
            _ => Err(Fault::new(
                Kind::Usage,
                format!("'{text}' is no part: 2/5 is the second of five"),
            )),
        }
    }
}

impl fmt::Display for Subset {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}/{}", self.index + 1, self.of)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::manifest::FileRecord;

    #[test]
    fn each_file_is_in_one_part_and_parts_are_alike() {
        let sizes = [0u64, 7, 100, 3, 90, 41, 0, 60, 80, 19, 0];
        let file = |(number, bytes): (usize, &u64)| FileRecord {
            path: number.to_string(),
            bytes: *bytes,
            crc64: crate::store::manifest::Hex(0),
            structure: None,
            shards: Vec::new(),
        };
        let manifest = Manifest {
            files: sizes.iter().enumerate().map(file).collect(),
            ..Manifest::default()
        };
        for of in [1u64, 2, 3, 4, 20] {
            let mut all = Vec::new();
            for number in 1..=of {
                let subset: Subset = format!("{number}/{of}").parse().unwrap();
                let files = subset.files(&manifest);
                let bytes: u64 = files.iter().map(|file| sizes[*file]).sum();
                assert!(bytes <= 400 / of + 100, "{subset}: {bytes}");
                all.extend(files);
            }
            assert_eq!(all, (0..sizes.len()).collect::<Vec<_>>(), "{of}");
        }
        for wrong in ["", "0/3", "4/3", "1/0", "1", "a/b", "-1/2"] {
            assert!(wrong.parse::<Subset>().is_err(), "{wrong}");
        }
    }
}
