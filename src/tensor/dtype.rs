//! Element types: how many bits, and how each format spells them.

use crate::fault::{Fault, Kind, Result};
use serde::{Deserialize, Serialize};

/// Every element type of safetensors 0.8, plus what MindSpore's ckpt adds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[allow(missing_docs, non_camel_case_types)]
#[non_exhaustive]
pub enum Dtype {
    Bool,
    F4,
    F6_E2M3,
    F6_E3M2,
    U8,
    I8,
    F8_E5M2,
    F8_E4M3,
    F8_E8M0,
    F8_E4M3FNUZ,
    F8_E5M2FNUZ,
    I16,
    U16,
    F16,
    BF16,
    I32,
    U32,
    F32,
    C64,
    F64,
    I64,
    U64,
}

/// One row of the table below: type, bits per element, safetensors' name, ckpt's name if it has one.
type Row = (Dtype, u32, &'static str, Option<&'static str>);

const TABLE: [Row; 22] = [
    (Dtype::Bool, 8, "BOOL", Some("Bool")),
    (Dtype::F4, 4, "F4", None),
    (Dtype::F6_E2M3, 6, "F6_E2M3", None),
    (Dtype::F6_E3M2, 6, "F6_E3M2", None),
    (Dtype::U8, 8, "U8", Some("UInt8")),
    (Dtype::I8, 8, "I8", Some("Int8")),
    (Dtype::F8_E5M2, 8, "F8_E5M2", Some("Float8E5M2")),
    (Dtype::F8_E4M3, 8, "F8_E4M3", Some("Float8E4M3FN")),
    (Dtype::F8_E8M0, 8, "F8_E8M0", None),
    (Dtype::F8_E4M3FNUZ, 8, "F8_E4M3FNUZ", None),
    (Dtype::F8_E5M2FNUZ, 8, "F8_E5M2FNUZ", None),
    (Dtype::I16, 16, "I16", Some("Int16")),
    (Dtype::U16, 16, "U16", Some("UInt16")),
    (Dtype::F16, 16, "F16", Some("Float16")),
    (Dtype::BF16, 16, "BF16", Some("BFloat16")),
    (Dtype::I32, 32, "I32", Some("Int32")),
    (Dtype::U32, 32, "U32", Some("UInt32")),
    (Dtype::F32, 32, "F32", Some("Float32")),
    (Dtype::C64, 64, "C64", Some("Complex64")),
    (Dtype::F64, 64, "F64", Some("Float64")),
    (Dtype::I64, 64, "I64", Some("Int64")),
    (Dtype::U64, 64, "U64", Some("UInt64")),
];

impl Dtype {
    fn row(self) -> &'static Row {
        &TABLE[self as usize]
    }

    /// Bits one element takes (4 and 6 for the packed types).
    #[must_use]
    pub fn bits(self) -> u32 {
        self.row().1
    }

    /// The name in a safetensors header.
    #[must_use]
    pub fn safetensors_name(self) -> &'static str {
        self.row().2
    }

    /// The `tensor_type` in a MindSpore ckpt file (spec/checkpoints section 7), if it has one.
    #[must_use]
    pub fn ckpt_name(self) -> Option<&'static str> {
        self.row().3
    }

    /// Reads a safetensors header's name.
    ///
    /// # Errors
    /// [`Kind::Dtype`] for a name that safetensors 0.8 doesn't know.
    pub fn from_safetensors(name: &str) -> Result<Self> {
        TABLE
            .iter()
            .find(|row| row.2 == name)
            .map(|row| row.0)
            .ok_or_else(|| Fault::new(Kind::Dtype, format!("dtype '{name}' is unknown")))
    }

    /// Reads a ckpt file's `tensor_type`.
    #[must_use]
    pub fn from_ckpt(name: &str) -> Option<Self> {
        TABLE
            .iter()
            .find(|row| row.3 == Some(name))
            .map(|row| row.0)
    }

    /// Position in the order in which the safetensors library lays tensors out in a file: wide
    /// types first (spec/checkpoints section 2).
    #[must_use]
    pub fn file_order(self) -> usize {
        TABLE.len() - self as usize
    }
}

impl std::fmt::Display for Dtype {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(self.safetensors_name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_is_in_the_order_of_the_enum() {
        for (index, row) in TABLE.iter().enumerate() {
            assert_eq!(row.0 as usize, index);
            assert_eq!(Dtype::from_safetensors(row.2), Ok(row.0));
            assert!(
                row.3
                    .is_none_or(|name| Dtype::from_ckpt(name) == Some(row.0))
            );
        }
    }

    #[test]
    fn bits_agree_with_the_safetensors_crate() {
        for row in &TABLE {
            let theirs: safetensors::Dtype =
                serde_json::from_value(serde_json::Value::String(row.2.into())).unwrap();
            assert_eq!(theirs.bitsize(), row.1 as usize, "{}", row.2);
        }
    }
}
