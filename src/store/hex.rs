//! Fingerprints and checksums as a manifest has them.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// 64 bits, in JSON sixteen hexadecimal digits: numbers of that size get lost in JSON.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Hex(pub u64);

impl std::fmt::Display for Hex {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{:016x}", self.0)
    }
}

impl Serialize for Hex {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Hex {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let value = u64::from_str_radix(&text, 16).ok();
        value
            .filter(|_| text.len() == 16)
            .map(Hex)
            .ok_or_else(|| serde::de::Error::custom("is no number of 16 hexadecimal digits"))
    }
}
