//! The JSON form of a strategy file (names that end in `.json`).
//!
//! The compiler flattens several axes of one dimension here: `[[-1], [1, 0]]` of a tensor
//! `[48, 24]` becomes `"tensor_map": [-1, 1, 0]` with `"tensor_shape": [48, 2, 12]`. The shape is
//! kept, so that [`super::StageLayout::fit_full`] can merge the dimensions again.

use super::stage_layout::StageLayout;
use crate::fault::plain::counted;
use crate::fault::{Fault, Kind, Result};
use crate::layout::{Layout, OptimizerShard};
use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::HashSet;
use std::fmt;
use std::marker::PhantomData;

/// A strategy file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Document {
    /// Not the pipeline stage; nobody reads it.
    #[serde(default)]
    pub current_stage: u32,
    /// One entry a parameter, named `<stage>-<parameter>` in a merged file.
    #[serde(default)]
    pub parallel_layout_item: Entries<LayoutItem>,
    /// One entry an operator; the first one tells the stage of an unmerged file.
    #[serde(default)]
    pub parallel_strategy_item: Entries<OperatorItem>,
}

/// How one parameter is cut. All but the last three keys are required, as in MindSpore 2.10.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayoutItem {
    /// Sizes of the mesh axes, the last one varying fastest.
    pub dev_matrix: Vec<u64>,
    /// Ignored; 0.
    pub field: i64,
    /// Pieces of the optimizer shard; -1 for all replicas, 0 if there is none.
    pub opt_weight_shard_size: i64,
    /// Distance between consecutive ranks of an optimizer shard; 0 if there is none.
    pub opt_weight_shard_step: i64,
    /// One axis a (flattened) dimension, numbered from the right; -1 cuts nothing.
    pub tensor_map: Vec<i64>,
    /// Full shape, flattened as the map.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tensor_shape: Option<Vec<i64>>,
    /// Ignored, as MindSpore's tools do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub param_split_shape: Option<serde_json::Value>,
    /// Ignored, as MindSpore's tools do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub indices_offset: Option<serde_json::Value>,
}

/// How one operator is cut.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperatorItem {
    /// Pieces of each dimension of each input.
    #[serde(default)]
    pub parallel_strategy: Vec<Vec<u32>>,
    /// Pipeline stage, from 0.
    pub stage: u32,
}

/// An object's entries in the order of the file; a key given twice is an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entries<T>(pub Vec<(String, T)>);

impl<T> Default for Entries<T> {
    fn default() -> Self {
        Entries(Vec::new())
    }
}

impl<T: Serialize> Serialize for Entries<T> {
    fn serialize<S: Serializer>(&self, out: S) -> std::result::Result<S::Ok, S::Error> {
        out.collect_map(self.0.iter().map(|(key, value)| (key, value)))
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Entries<T> {
    fn deserialize<D: Deserializer<'de>>(input: D) -> std::result::Result<Self, D::Error> {
        input.deserialize_map(EntriesVisitor(PhantomData))
    }
}

struct EntriesVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for EntriesVisitor<T> {
    type Value = Entries<T>;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(
        self,
        mut map: A,
    ) -> std::result::Result<Self::Value, A::Error> {
        let mut entries: Vec<(String, T)> = Vec::new();
        let mut seen = HashSet::new();
        while let Some(key) = map.next_key::<String>()? {
            if !seen.insert(key.clone()) {
                return Err(A::Error::custom(format!("'{key}' is given twice")));
            }
            let value = map
                .next_value()
                .map_err(|error| A::Error::custom(format!("'{key}': {error}")))?;
            entries.push((key, value));
        }
        Ok(Entries(entries))
    }
}

/// Reads a strategy file in JSON form. It may turn out to hold no layouts.
///
/// # Errors
/// [`Kind::Strategy`] if the file is empty or isn't such a document.
pub fn decode(bytes: &[u8]) -> Result<Document> {
    if bytes.is_empty() {
        return Err(Fault::new(Kind::Strategy, "the strategy file is empty"));
    }
    if !bytes.trim_ascii_start().starts_with(b"{") {
        let fault = Fault::new(
            Kind::Strategy,
            "not a strategy file in JSON form: no object",
        );
        return Err(fault.hint("a strategy file in protobuf form must not end in .json"));
    }
    serde_json::from_slice(bytes).map_err(|error| {
        if error.is_eof() {
            let message = format!(
                "is cut off: it ends after {}, in the middle",
                counted(bytes.len() as u64, "byte")
            );
            return Fault::new(Kind::Strategy, message).hint("copy it again");
        }
        Fault::new(
            Kind::Strategy,
            format!("not a strategy file in JSON form: {error}"),
        )
        .hint("a strategy file whose name ends in .json is read as JSON, any other as protobuf")
    })
}

/// Writes a strategy file in JSON form: no spaces, no newline, entries in their order.
///
/// # Errors
/// [`Kind::Internal`] if the document can't be serialised (it always can).
pub fn encode(document: &Document) -> Result<Vec<u8>> {
    serde_json::to_vec(document).map_err(|error| Fault::new(Kind::Internal, error.to_string()))
}

impl LayoutItem {
    /// The layout of the (flattened) dimensions, and their full sizes if the file tells them.
    ///
    /// # Errors
    /// As [`Layout::new`].
    pub fn layout(&self) -> Result<(Layout, Option<Vec<u64>>)> {
        let map: Vec<Vec<i64>> = self.tensor_map.iter().map(|axis| vec![*axis]).collect();
        let optimizer = OptimizerShard {
            step: self.opt_weight_shard_step,
            size: self.opt_weight_shard_size,
        };
        let layout = Layout::new(&self.dev_matrix, &map, Some(optimizer))?;
        let shape = self.tensor_shape.as_ref();
        let shape = shape.filter(|shape| shape.len() == map.len());
        let shape = shape.and_then(|s| s.iter().map(|size| u64::try_from(*size).ok()).collect());
        Ok((layout, shape))
    }

    /// The entry for `layout`.
    ///
    /// # Errors
    /// [`Kind::Strategy`] if several axes cut one dimension: the flattened form needs the shape.
    pub fn from_layout(layout: &StageLayout) -> Result<Self> {
        let mut tensor_map = Vec::new();
        for axes in layout.layout.axis_numbers() {
            let [axis] = axes[..] else {
                let message = format!("JSON can't hold several axes {axes:?} of one dimension");
                return Err(Fault::new(Kind::Strategy, message).hint("write the protobuf form"));
            };
            tensor_map.push(axis);
        }
        let shape = layout.expanded_shape.as_ref();
        let shape = shape.and_then(|s| s.iter().map(|size| i64::try_from(*size).ok()).collect());
        let shard = layout.layout.optimizer();
        let shard = shard.unwrap_or(OptimizerShard { step: 0, size: 0 });
        Ok(LayoutItem {
            dev_matrix: layout.layout.mesh().to_vec(),
            field: 0,
            opt_weight_shard_size: shard.size,
            opt_weight_shard_step: shard.step,
            tensor_map,
            tensor_shape: shape,
            param_split_shape: None,
            indices_offset: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ITEM: &str = r#"{"dev_matrix":[2,4],"field":0,"opt_weight_shard_size":0,
        "opt_weight_shard_step":0,"tensor_map":[-1,0],"tensor_shape":[48,24]}"#;

    #[test]
    fn keeps_the_shape_beside_the_layout() {
        let text = format!(r#"{{"current_stage":2,"parallel_layout_item":{{"w":{ITEM}}}}}"#);
        let document = decode(text.as_bytes()).unwrap();
        let (layout, shape) = document.parallel_layout_item.0[0].1.layout().unwrap();
        assert_eq!(layout.parts(), [1, 4]);
        assert_eq!(shape.unwrap(), [48, 24]);
    }

    #[test]
    fn refuses_a_parameter_given_twice_and_a_missing_key() {
        let twice = format!(r#"{{"parallel_layout_item":{{"w":{ITEM},"w":{ITEM}}}}}"#);
        assert!(
            decode(twice.as_bytes())
                .unwrap_err()
                .message
                .contains("twice")
        );
        let missing = br#"{"parallel_layout_item":{"w":{"dev_matrix":[2]}}}"#;
        let fault = decode(missing).unwrap_err();
        assert!(fault.message.contains("'w': missing field"), "{fault}");
        for bytes in [&b""[..], b"{not json", b"[]", b"\xff"] {
            assert_eq!(decode(bytes).unwrap_err().kind, Kind::Strategy);
        }
    }
}
