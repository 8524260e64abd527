//! A strategy as a file, in both forms.

use super::layouts::Strategy;
use super::{json, name, protobuf};
use crate::fault::Result;
use std::sync::Arc;

impl Strategy {
    /// The name of an entry in a file: with its stage where the file needs or couldn't do
    /// without it.
    fn entry_name(&self, prefixed: bool, name: &str, stage: u32) -> String {
        if prefixed {
            format!("{stage}-{name}")
        } else {
            name.to_string()
        }
    }

    /// Whether names are written as `<stage>-<name>`: with several stages, or where a name would be
    /// taken for one of a stage.
    fn prefixed(&self) -> bool {
        let looks_staged = |name: &Arc<str>| name::split_stage(name).0.is_some();
        self.stages() > 1 || self.names().any(looks_staged)
    }

    /// Writes the protobuf form: merged if there are several stages. One operator item a stage
    /// carries the stage, so that MindSpore's merge accepts the file.
    ///
    /// # Errors
    /// [`crate::fault::Kind::Strategy`] if a number doesn't fit the message.
    pub fn to_protobuf(&self) -> Result<Vec<u8>> {
        let prefixed = self.prefixed();
        let mut message = protobuf::ParallelStrategyMap {
            current_stage: 1,
            ..Default::default()
        };
        for stage in 0..self.stages() {
            message
                .parallel_strategy_item
                .push(protobuf::ParallelStrategyItem {
                    node_name: format!("shardloom_stage{stage}"),
                    parallel_strategys: protobuf::ParallelStrategys {
                        stage,
                        parallel_strategy: Vec::new(),
                    },
                });
        }
        for (name, layout) in self.iter() {
            let layouts = protobuf::ParallelLayouts::from_layout(&layout.layout);
            message
                .parallel_layout_item
                .push(protobuf::ParallelLayoutItem {
                    param_name: self.entry_name(prefixed, name, layout.stage),
                    parallel_layouts: layouts.map_err(|fault| fault.tensor(&**name))?,
                });
        }
        Ok(protobuf::encode(&message))
    }

    /// Writes the JSON form: merged if there are several stages.
    ///
    /// # Errors
    /// As [`Strategy::document`].
    pub fn to_json(&self) -> Result<Vec<u8>> {
        json::encode(&self.document()?)
    }

    /// What the JSON form holds.
    ///
    /// # Errors
    /// [`crate::fault::Kind::Strategy`] if several axes cut one dimension of a tensor.
    pub fn document(&self) -> Result<json::Document> {
        let prefixed = self.prefixed();
        let mut document = json::Document {
            current_stage: 1,
            ..Default::default()
        };
        for (name, layout) in self.iter() {
            let item = json::LayoutItem::from_layout(layout);
            let item = item.map_err(|fault| fault.tensor(&**name))?;
            let name = self.entry_name(prefixed, name, layout.stage);
            document.parallel_layout_item.0.push((name, item));
        }
        document
            .parallel_layout_item
            .0
            .sort_by(|a, b| a.0.cmp(&b.0));
        for stage in 0..self.stages() {
            let item = json::OperatorItem {
                parallel_strategy: Vec::new(),
                stage,
            };
            let name = format!("shardloom_stage{stage}");
            document.parallel_strategy_item.0.push((name, item));
        }
        Ok(document)
    }
}
