//! The protobuf form of a strategy file: MindSpore's `node_strategy.proto` as derived structs.
//!
//! Syntax proto2, package `mindspore.straspb`. Repeated numbers are written unpacked, as MindSpore
//! does, and read packed or unpacked. Every file without the extension `.json` is in this form.

use crate::fault::plain::counted;
use crate::fault::{Fault, Kind, Result};
use crate::layout::{Layout, OptimizerShard};
use prost::Message;

/// A strategy file.
#[derive(Clone, PartialEq, Message)]
pub struct ParallelStrategyMap {
    /// Not the pipeline stage (the compiler writes 2, the merger 1); nobody reads it.
    #[prost(uint32, required, tag = "1")]
    pub current_stage: u32,
    /// One entry an operator; the first one tells the stage of an unmerged file.
    #[prost(message, repeated, tag = "2")]
    pub parallel_strategy_item: Vec<ParallelStrategyItem>,
    /// One entry a parameter, in no meaningful order.
    #[prost(message, repeated, tag = "3")]
    pub parallel_layout_item: Vec<ParallelLayoutItem>,
}

/// How one operator is cut.
#[derive(Clone, PartialEq, Message)]
pub struct ParallelStrategyItem {
    /// Name of the operator.
    #[prost(string, required, tag = "1")]
    pub node_name: String,
    /// Its stage and cuts.
    #[prost(message, required, tag = "2")]
    pub parallel_strategys: ParallelStrategys,
}

/// Stage and cuts of one operator.
#[derive(Clone, PartialEq, Message)]
pub struct ParallelStrategys {
    /// Pipeline stage, from 0.
    #[prost(uint32, required, tag = "1")]
    pub stage: u32,
    /// One entry an input; none for an operator cut through a layout object.
    #[prost(message, repeated, tag = "2")]
    pub parallel_strategy: Vec<ParallelStrategy>,
}

/// Number of pieces of each dimension of one operator input.
#[derive(Clone, PartialEq, Message)]
pub struct ParallelStrategy {
    /// Pieces along each dimension.
    #[prost(uint32, repeated, packed = "false", tag = "1")]
    pub dim: Vec<u32>,
}

/// How one parameter is cut.
#[derive(Clone, PartialEq, Message)]
pub struct ParallelLayoutItem {
    /// Name of the parameter, with `<stage>-` before it in a merged file.
    #[prost(string, required, tag = "1")]
    pub param_name: String,
    /// Its layout.
    #[prost(message, required, tag = "2")]
    pub parallel_layouts: ParallelLayouts,
}

/// Layout of one parameter.
#[derive(Clone, PartialEq, Message)]
pub struct ParallelLayouts {
    /// Exactly one device matrix.
    #[prost(message, repeated, tag = "1")]
    pub dev_matrix: Vec<DevMatrix>,
    /// One message: an axis a dimension. Several: a list of axes a dimension.
    #[prost(message, repeated, tag = "2")]
    pub tensor_map: Vec<TensorMap>,
    /// One empty message; what it may say is ignored, as MindSpore's tools do.
    #[prost(message, repeated, tag = "3")]
    pub param_split_shape: Vec<ParamSplitShape>,
    /// One empty message; ignored too.
    #[prost(message, repeated, tag = "4")]
    pub indices_offset: Vec<IndicesOffset>,
    /// Ignored; 0.
    #[prost(int32, required, tag = "5")]
    pub field: i32,
    /// Distance between consecutive ranks of an optimizer shard; 0 if there is none.
    #[prost(int32, required, tag = "6")]
    pub opt_weight_shard_step: i32,
    /// Pieces of the optimizer shard; -1 for all replicas, 0 if there is none.
    #[prost(int32, required, tag = "7")]
    pub opt_weight_shard_size: i32,
}

/// Sizes of the mesh axes, the last one varying fastest.
#[derive(Clone, PartialEq, Message)]
pub struct DevMatrix {
    /// One size an axis.
    #[prost(uint32, repeated, packed = "false", tag = "1")]
    pub dim: Vec<u32>,
}

/// Mesh axes, numbered from the right; -1 cuts nothing.
#[derive(Clone, PartialEq, Message)]
pub struct TensorMap {
    /// Axis numbers.
    #[prost(int32, repeated, packed = "false", tag = "1")]
    pub dim: Vec<i32>,
}

/// Uneven splits of an old mode; empty.
#[derive(Clone, PartialEq, Message)]
pub struct ParamSplitShape {
    /// Sizes.
    #[prost(int64, repeated, packed = "false", tag = "1")]
    pub dim: Vec<i64>,
}

/// Offsets of an old mode; empty.
#[derive(Clone, PartialEq, Message)]
pub struct IndicesOffset {
    /// Offsets.
    #[prost(int64, repeated, packed = "false", tag = "1")]
    pub dim: Vec<i64>,
}

/// A "group info" file, which MindSpore writes beside strategies.
#[derive(Clone, PartialEq, Message)]
pub struct ParallelGroupMap {
    /// Communication groups.
    #[prost(message, repeated, tag = "1")]
    pub parallel_group_item: Vec<ParallelGroupItem>,
    /// Ranks whose checkpoint is the same as this rank's.
    #[prost(message, required, tag = "2")]
    pub ckpt_restore_rank_list: ParallelGroupRanks,
}

/// One communication group.
#[derive(Clone, PartialEq, Message)]
pub struct ParallelGroupItem {
    /// Its name.
    #[prost(string, required, tag = "1")]
    pub group_name: String,
    /// Its ranks.
    #[prost(message, required, tag = "2")]
    pub parallel_group_ranks: ParallelGroupRanks,
}

/// A list of ranks.
#[derive(Clone, PartialEq, Message)]
pub struct ParallelGroupRanks {
    /// Global ranks.
    #[prost(uint32, repeated, packed = "false", tag = "1")]
    pub dim: Vec<u32>,
}

/// Reads a strategy file in protobuf form. It may turn out to hold no layouts.
///
/// # Errors
/// [`Kind::Strategy`] if the file is empty or isn't the message.
pub fn decode(bytes: &[u8]) -> Result<ParallelStrategyMap> {
    if bytes.is_empty() {
        return Err(Fault::new(Kind::Strategy, "the strategy file is empty"));
    }
    ParallelStrategyMap::decode(bytes).map_err(|error| {
        // A strategy begins with its stage, field 1.
        let told = error.to_string();
        let ends = ["underflow", "invalid varint"];
        if bytes.starts_with(b"\x08") && ends.iter().any(|end| told.contains(end)) {
            let message = format!(
                "is cut off or damaged: it ends after {}, in the middle of a layout",
                counted(bytes.len() as u64, "byte")
            );
            return Fault::new(Kind::Strategy, message).hint("copy it again");
        }
        let fault = Fault::new(
            Kind::Strategy,
            format!("not a strategy file in protobuf form: {error}"),
        );
        if bytes.trim_ascii_start().starts_with(b"{") {
            return fault.hint("it looks like JSON; such a file's name must end in .json");
        }
        fault.hint("a strategy file whose name doesn't end in .json is read as protobuf")
    })
}

/// Writes a strategy file in protobuf form.
#[must_use]
pub fn encode(strategy: &ParallelStrategyMap) -> Vec<u8> {
    strategy.encode_to_vec()
}

impl ParallelLayouts {
    /// The layout that the message describes.
    ///
    /// More than one [`TensorMap`] means a list of axes a dimension (empty messages are dropped);
    /// exactly one means an axis a dimension. As MindSpore 2.10 reads it; see docs/formats.md.
    ///
    /// # Errors
    /// [`Kind::Strategy`] for anything but one device matrix, and as [`Layout::new`].
    pub fn layout(&self) -> Result<Layout> {
        let [mesh] = &self.dev_matrix[..] else {
            let message = format!("{} device matrices in place of one", self.dev_matrix.len());
            return Err(Fault::new(Kind::Strategy, message));
        };
        let mesh: Vec<u64> = mesh.dim.iter().map(|size| u64::from(*size)).collect();
        let map: Vec<Vec<i64>> = match &self.tensor_map[..] {
            [plain] => plain.dim.iter().map(|a| vec![i64::from(*a)]).collect(),
            several => several
                .iter()
                .filter(|dimension| !dimension.dim.is_empty())
                .map(|dimension| dimension.dim.iter().map(|a| i64::from(*a)).collect())
                .collect(),
        };
        let optimizer = OptimizerShard {
            step: i64::from(self.opt_weight_shard_step),
            size: i64::from(self.opt_weight_shard_size),
        };
        Layout::new(&mesh, &map, Some(optimizer))
    }

    /// The message for `layout`: the plain form where each dimension has at most one axis.
    ///
    /// # Errors
    /// [`Kind::Strategy`] if a number doesn't fit the message.
    pub fn from_layout(layout: &Layout) -> Result<Self> {
        let too_large = |_| Fault::new(Kind::Strategy, "a number is too large for a strategy file");
        let dim = layout.mesh().iter().map(|size| u32::try_from(*size));
        let dim = dim.collect::<std::result::Result<_, _>>();
        let map = layout.axis_numbers();
        let map = map
            .iter()
            .map(|axes| axes.iter().map(|axis| i32::try_from(*axis)).collect())
            .collect::<std::result::Result<Vec<Vec<i32>>, _>>()
            .map_err(too_large)?;
        let mut tensor_map: Vec<TensorMap>;
        if map.iter().all(|axes| axes.len() == 1) {
            let dim = map.concat();
            tensor_map = vec![TensorMap { dim }];
        } else {
            tensor_map = map.into_iter().map(|dim| TensorMap { dim }).collect();
            if tensor_map.len() == 1 {
                // A second, empty message tells several axes of one dimension from a plain map.
                tensor_map.push(TensorMap::default());
            }
        }
        let shard = layout.optimizer();
        let shard = shard.unwrap_or(OptimizerShard { step: 0, size: 0 });
        Ok(ParallelLayouts {
            dev_matrix: vec![DevMatrix {
                dim: dim.map_err(too_large)?,
            }],
            tensor_map,
            param_split_shape: vec![ParamSplitShape::default()],
            indices_offset: vec![IndicesOffset::default()],
            field: 0,
            opt_weight_shard_step: i32::try_from(shard.step).map_err(too_large)?,
            opt_weight_shard_size: i32::try_from(shard.size).map_err(too_large)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // proves P97
    #[test]
    fn reads_packed_and_writes_unpacked_numbers() {
        let packed = [0x0a, 0x02, 0x02, 0x04];
        let matrix = DevMatrix::decode(&packed[..]).unwrap();
        assert_eq!(matrix.dim, [2, 4]);
        assert_eq!(matrix.encode_to_vec(), [0x08, 0x02, 0x08, 0x04]);
    }

    #[test]
    fn minus_one_takes_ten_bytes() {
        let map = TensorMap { dim: vec![-1] };
        assert_eq!(map.encode_to_vec().len(), 11);
        assert_eq!(TensorMap::decode(&map.encode_to_vec()[..]).unwrap(), map);
    }

    #[test]
    fn several_axes_of_the_only_dimension_survive() {
        let layout = Layout::new(&[2, 2], &[vec![1, 0]], None).unwrap();
        let message = ParallelLayouts::from_layout(&layout).unwrap();
        assert_eq!(message.tensor_map.len(), 2);
        assert_eq!(message.layout().unwrap(), layout);
    }

    #[test]
    fn refuses_empty_files_and_garbage() {
        for bytes in [&b""[..], b"not a strategy", b"{}", &[0xff; 9]] {
            assert_eq!(decode(bytes).unwrap_err().kind, Kind::Strategy);
        }
        assert!(decode(b"{}").unwrap_err().hint.unwrap().contains(".json"));
    }
}
