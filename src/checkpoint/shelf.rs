//! Where the files of a rank's checkpoints are, and what is in them.

use crate::checkpoint::background::{Bytes, Chores, Draft};
use crate::checkpoint::monitor_config::MonitorConfig;
use crate::checkpoint::state::{Contents, State, StateTensor, content};
use crate::fault::{Fault, Kind, Result};
use crate::layout::keep::Keep;
use crate::source::meta::Name;
use crate::source::meta::{NETWORK, TRAINABLE};
use crate::store::safetensors;
use crate::strategy::Strategy;
use crate::tensor::shape::Shape;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The files of one rank, below the run's directory. All functions are local.
#[derive(Debug)]
pub(super) struct Shelf {
    config: MonitorConfig,
    root: PathBuf,
    rank: u32,
    /// Who keeps what, where redundancy is removed.
    keep: Option<Keep>,
    /// The first rank of this one's stage.
    first_rank: u32,
}

impl Shelf {
    /// That of `rank` below `root`; with a strategy, only one copy of each shard is kept.
    pub(super) fn new(
        config: &MonitorConfig,
        root: PathBuf,
        rank: u32,
        strategy: Option<&Strategy>,
    ) -> Shelf {
        let stage = |strategy: &Strategy| rank / strategy.ranks_per_stage();
        let keep = |strategy: &Strategy| {
            let layouts = strategy.iter();
            let here = layouts.filter(|(_, layout)| layout.stage == stage(strategy));
            Keep::new(here.map(|(name, layout)| (name.clone(), layout.layout.clone())))
        };
        Shelf {
            config: config.clone(),
            root,
            rank,
            keep: strategy.map(keep),
            first_rank: strategy.map_or(0, |s| stage(s) * s.ranks_per_stage()),
        }
    }

    /// The rank.
    pub(super) fn rank(&self) -> u32 {
        self.rank
    }

    /// The run's directory.
    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// The directory of this rank in that of a kind of files.
    pub(super) fn directory(&self, kind: &str) -> PathBuf {
        self.root.join(kind).join(format!("rank_{}", self.rank))
    }

    /// This rank's part in the removal of checkpoints. Local.
    pub(super) fn removal(&self, names: &[Name]) -> Chores {
        let mut chores = Chores::default();
        for name in names {
            let directory = self.directory("checkpoint");
            chores.removed.push(directory.join(name.file(self.rank)));
            if let Some((directory, file)) = self.weights_file(name) {
                chores.removed.push(directory.join(file));
            }
            if self.config.integrated_save && self.rank == 0 {
                chores.removed_directories.push(self.merged(name));
            }
        }
        chores
    }

    /// Where the weights alone are written, if they are.
    fn weights_file(&self, name: &Name) -> Option<(PathBuf, String)> {
        let (directory, kind) = if self.config.save_trainable_params {
            TRAINABLE
        } else if self.config.save_network_params {
            NETWORK
        } else {
            return None;
        };
        Some((
            self.directory(directory),
            name.weights_file(self.rank, kind),
        ))
    }

    /// Where the full weights are written.
    pub(super) fn merged(&self, name: &Name) -> PathBuf {
        let repeat = name
            .repeat
            .map_or(String::new(), |repeat| format!("_{repeat}"));
        let file = format!("{}{repeat}-{}_{}", name.prefix, name.epoch, name.step);
        self.root.join("checkpoint_integrated").join(file)
    }

    /// The files of a checkpoint on this rank. Local.
    pub(super) fn drafts<'a>(&self, name: &Name, state: &State<'a>) -> Result<Vec<Draft<'a>>> {
        let kept = |tensor: &&StateTensor<'a>| {
            let local = self.rank - self.first_rank;
            self.keep
                .as_ref()
                .is_none_or(|keep| keep.keeps(tensor.name, local))
        };
        let tensors = || state.tensors.iter().filter(kept);
        let mut contents: Contents<'a> = tensors().map(content).collect();
        for (name, dtype, dims, bytes) in state.scalars(&self.config)? {
            let scalar = (dtype, Shape(dims), Bytes::Made(bytes));
            if contents.insert(name.as_str().into(), scalar).is_some() {
                let message = "is a tensor of the state, so it can't be a scalar of append_info";
                return Err(Fault::new(Kind::Config, message).tensor(name));
            }
        }
        let directory = self.directory("checkpoint");
        let mut drafts = vec![self.draft(directory.join(name.file(self.rank)), contents)?];
        if let Some((directory, file)) = self.weights_file(name) {
            let wanted = |tensor: &&StateTensor<'a>| {
                tensor.weight && (tensor.trainable || !self.config.save_trainable_params)
            };
            let weights = tensors().filter(wanted).map(content).collect();
            drafts.push(self.draft(directory.join(file), weights)?);
        }
        Ok(drafts)
    }

    fn draft<'a>(&self, path: PathBuf, mut contents: Contents<'a>) -> Result<Draft<'a>> {
        let listing: Vec<_> = contents
            .iter()
            .map(|(name, (dtype, shape, _))| (name.clone(), *dtype, shape.clone()))
            .collect();
        let removed = if self.config.remove_redundancy {
            "True"
        } else {
            "False"
        };
        let metadata = BTreeMap::from([
            ("format".to_owned(), "ms".to_owned()),
            ("remove_redundancy".to_owned(), removed.to_owned()),
        ]);
        let schema = Arc::new(safetensors::design(&listing, &metadata)?);
        let bytes = schema.entries.iter().map(|entry| {
            contents
                .remove(&entry.name)
                .map_or(Bytes::Borrowed(&[]), |(_, _, bytes)| bytes)
        });
        Ok(Draft {
            path,
            bytes: bytes.collect(),
            schema: Arc::clone(&schema),
        })
    }
}
