//! Damaged files made anew.

use crate::exchange::World;
use crate::fault::Result;
use crate::front::deriving::Deriving;
use crate::job::Outcome;
use crate::job::repair::{self, Origin};
use crate::strategy::StrategyInput;
use std::path::PathBuf;

/// A repair that is being put together: made by [`repair()`], started by [`Repair::run`].
#[derive(Clone, Debug)]
#[must_use = "a repair does nothing until it is run"]
pub struct Repair {
    repair: repair::Repair,
    model: Option<PathBuf>,
}

/// The damaged files of a directory with a manifest, made anew from equal copies of their parts:
/// replicas in it, or what [`Repair::from`] names.
pub fn repair(directory: impl Into<PathBuf>) -> Repair {
    Repair {
        repair: repair::Repair {
            directory: directory.into(),
            strategy: None,
            origin: None,
            subset: None,
        },
        model: None,
    }
}

impl Repair {
    /// Another copy of the same checkpoint, in the same layout or any other. It is only read.
    pub fn from(mut self, path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        match &mut self.repair.origin {
            Some(origin) => origin.path = path,
            None => {
                self.repair.origin = Some(Origin {
                    path,
                    strategy: None,
                });
            }
        }
        self
    }

    /// The strategy that the other copy is cut by: files, a layout (`dp=2,tp=4`) or a trainer's YAML file. Left
    /// out: full weights, or the same layout.
    pub fn source_strategy(mut self, path: impl Into<PathBuf>) -> Self {
        let origin = self.repair.origin.get_or_insert_with(|| Origin {
            path: PathBuf::new(),
            strategy: None,
        });
        origin.strategy = Some(StrategyInput::from(path));
        self
    }

    /// The strategy of the damaged directory, if the other copy has another layout: as for
    /// [`Repair::source_strategy`].
    pub fn strategy(mut self, path: impl Into<PathBuf>) -> Self {
        self.repair.strategy = Some(StrategyInput::from(path));
        self
    }

    /// The model's directory, or its config.json, for strategies that are derived. Left out: the one where the
    /// weights are, or that a trainer's file names.
    pub fn model(mut self, path: impl Into<PathBuf>) -> Self {
        self.model = Some(path.into());
        self
    }

    /// Runs it. Collective; [`Outcome::repaired`] says what was made anew, [`Outcome::bad`] what could
    /// not be.
    ///
    /// # Errors
    /// The same on every process, if there is no manifest or the other copy can't be read as said.
    pub fn run(&self, world: &World) -> Result<Outcome> {
        let mut work = self.repair.clone();
        let mut deriving = Deriving {
            model: self.model.clone(),
            sources: vec![work.directory.clone()],
            ..Deriving::default()
        };
        if let Some(origin) = &mut work.origin {
            deriving = deriving.and(&origin.path);
            deriving.make(world, &mut origin.strategy)?;
        }
        deriving.make(world, &mut work.strategy)?;
        repair::repair(world, &work, &mut |_, _| {})
    }
}
