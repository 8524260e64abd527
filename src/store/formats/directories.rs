//! The formats of directories: a line each; and one of them as the rest of the program holds it.

use super::checkpoint2::Checkpoint2;
use super::dcp::{Dcp, HuggingFace, HyperParallel};
use super::deepspeed::{Universal, Zero};
use super::directory::DirectoryFormat;
use super::megatron::{Megatron, MegatronRanks};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::fmt;
use std::ops::Deref;

/// Directories that tell their own layout. The first that recognises one has it.
static DIRECTORIES: &[&dyn DirectoryFormat] = &[
    &Checkpoint2,
    &Megatron,
    &MegatronRanks,
    &HyperParallel,
    &Dcp,
    &HuggingFace,
    &Zero,
    &Universal,
];

/// A format of directories.
#[derive(Clone, Copy)]
pub struct Directory(&'static dyn DirectoryFormat);

impl Directory {
    /// All there are.
    pub fn all() -> impl Iterator<Item = Directory> {
        DIRECTORIES.iter().map(|row| Directory(*row))
    }

    /// The format of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Directory> {
        Directory::all().find(|format| format.name() == name)
    }
}

impl Deref for Directory {
    type Target = dyn DirectoryFormat;

    fn deref(&self) -> &Self::Target {
        self.0
    }
}

impl PartialEq for Directory {
    fn eq(&self, other: &Self) -> bool {
        self.name() == other.name()
    }
}

impl Eq for Directory {}

impl fmt::Debug for Directory {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name())
    }
}

impl Serialize for Directory {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl<'a> Deserialize<'a> for Directory {
    fn deserialize<D: Deserializer<'a>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        Directory::named(&name).ok_or_else(|| de::Error::custom("no format of directories"))
    }
}
