//! Damaged files made anew.

use crate::exchange::World;
use crate::fault::Result;
use crate::job::Outcome;
use crate::job::repair::{self, Origin};
use crate::strategy::StrategyInput;
use std::path::PathBuf;

/// A repair that is being put together: made by [`repair()`], started by [`Repair::run`].
#[derive(Clone, Debug)]
#[must_use = "a repair does nothing until it is run"]
pub struct Repair {
    repair: repair::Repair,
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

    /// The strategy that the other copy is cut by. Left out: full weights, or the same layout.
    pub fn source_strategy(mut self, path: impl Into<PathBuf>) -> Self {
        let origin = self.repair.origin.get_or_insert_with(|| Origin {
            path: PathBuf::new(),
            strategy: None,
        });
        origin.strategy = Some(StrategyInput::from(path));
        self
    }

    /// The strategy of the damaged directory, if the other copy has another layout.
    pub fn strategy(mut self, path: impl Into<PathBuf>) -> Self {
        self.repair.strategy = Some(StrategyInput::from(path));
        self
    }

    /// Runs it. Collective; [`Outcome::repaired`] says what was made anew, [`Outcome::bad`] what could
    /// not be.
    ///
    /// # Errors
    /// The same on every process, if there is no manifest or the other copy can't be read as said.
    pub fn run(&self, world: &World) -> Result<Outcome> {
        repair::repair(world, &self.repair)
    }
}
