//! How an output becomes visible: staged beside its place, flushed, put there by one rename.

use crate::fault::{Fault, Kind, Result};
use crate::store::io::{self, Standing};
use std::path::{Path, PathBuf};

/// A destination directory and the hidden sibling its files are staged in. All functions are local:
/// one process of each site calls them.
#[derive(Clone, Debug)]
pub struct Staging {
    destination: PathBuf,
    partial: PathBuf,
}

impl Staging {
    /// Staging for `destination`: `.NAME.shardloom-partial` beside it.
    ///
    /// # Errors
    /// [`Kind::Usage`] for a path without a name (`/`, `..`).
    pub fn new(destination: &Path) -> Result<Staging> {
        let resolved = match io::standing(destination)? {
            Standing::Nothing => destination.to_path_buf(),
            _ => io::resolve(destination)?,
        };
        let Some(name) = resolved.file_name() else {
            let fault = Fault::new(Kind::Usage, "is no place for a new directory");
            return Err(fault.file(destination.display().to_string()));
        };
        let mut hidden = std::ffi::OsString::from(".");
        hidden.push(name);
        hidden.push(".shardloom-partial");
        Ok(Staging {
            partial: resolved.with_file_name(hidden),
            destination: resolved,
        })
    }

    /// Where files are written before the commit.
    #[must_use]
    pub fn partial(&self) -> &Path {
        &self.partial
    }

    /// The directory that both lie in.
    #[must_use]
    pub fn parent(&self) -> &Path {
        match self.destination.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        }
    }

    /// Checks that the destination may be written.
    ///
    /// # Errors
    /// [`Kind::Exists`] if something stands there and `overwrite` isn't given, or it is no directory.
    pub fn check(&self, overwrite: bool) -> Result<()> {
        let exists = |message: &str| {
            Fault::new(Kind::Exists, message).file(self.destination.display().to_string())
        };
        match io::standing(&self.destination)? {
            Standing::Nothing | Standing::EmptyDirectory => Ok(()),
            Standing::Directory if overwrite => Ok(()),
            Standing::Directory => Err(exists("exists and is not empty")
                .hint("--overwrite replaces it, in one step, when the new one is complete")),
            Standing::File => Err(exists("exists and is no directory")),
        }
    }

    /// Discards what an earlier, interrupted run left, and makes an empty staging directory.
    ///
    /// # Errors
    /// [`Kind::Io`].
    pub fn prepare(&self) -> Result<()> {
        io::make_directory(self.parent())?;
        io::remove_directory(&self.partial)?;
        // The user knows the destination, not what is beside it.
        let destination = self.destination.display().to_string();
        io::make_directory(&self.partial).map_err(|mut fault| {
            fault.file = Some(destination);
            fault
        })
    }

    /// Discards the staging directory.
    ///
    /// # Errors
    /// [`Kind::Io`].
    pub fn discard(&self) -> Result<()> {
        io::remove_directory(&self.partial)
    }

    /// Puts the staged directory in place, in one step: readers see the old contents or the new.
    ///
    /// # Errors
    /// [`Kind::Exists`], [`Kind::Unsupported`] where the file system can't swap directories,
    /// [`Kind::Io`].
    pub fn publish(&self, overwrite: bool, flush: bool) -> Result<()> {
        self.check(overwrite)?;
        let replaces = io::standing(&self.destination)? == Standing::Directory;
        if replaces {
            io::exchange(&self.partial, &self.destination)?;
        } else {
            io::rename(&self.partial, &self.destination)?;
        }
        if flush {
            io::sync_directory(self.parent())?;
        }
        // What was replaced now lies in the staging directory.
        if replaces {
            io::remove_directory(&self.partial)
        } else {
            Ok(())
        }
    }
}
