//! How an output becomes visible: staged beside its place, flushed, put there by one rename.

use crate::course::{self, Leaves};
use crate::fault::{Fault, Kind, Result};
use crate::store::io::{self, ReadFile, Standing};
use crate::store::lock::Lock;
use crate::store::manifest::{Hex, Manifest};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The directory of journals, inside the staging directory.
const JOURNALS: &str = ".shardloom-journal";
/// The file in it that says of which job they are.
const JOB: &str = "job";

/// What an interrupted run left.
#[derive(Clone, Debug)]
pub enum Left {
    /// Nothing.
    Nothing,
    /// Something that died before it had a name, or while it was discarded: nothing of use.
    Unknown,
    /// Files of another job.
    Another,
    /// Files of this job, and journals of what is done.
    Begun,
    /// All files of this job, ready to be put in place.
    Complete(Box<Manifest>),
}

/// A destination directory and the hidden sibling its files are staged in. All functions are local:
/// one process of each site calls them.
#[derive(Clone, Debug)]
pub struct Staging {
    destination: PathBuf,
    partial: PathBuf,
    /// Held for as long as a copy of this lives.
    pub(super) lock: Option<Arc<Lock>>,
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
            lock: None,
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

    /// The directory that is to be replaced.
    #[must_use]
    pub fn destination(&self) -> &Path {
        &self.destination
    }

    /// Checks that directories can be swapped in one step here, and that the destination isn't a
    /// place that can't be moved.
    ///
    /// # Errors
    /// [`Kind::Unsupported`], [`Kind::Io`].
    pub fn check_swap(&self) -> Result<()> {
        let mut one = self.partial.clone().into_os_string();
        one.push("-swap");
        let (one, other) = (PathBuf::from(&one), PathBuf::from(one).join("inner"));
        let (here, there) = (other.join("a"), other.join("b"));
        io::make_directory(&here)?;
        io::make_directory(&there)?;
        let swapped = io::exchange(&here, &there);
        io::remove_directory(&one)?;
        swapped.map_err(|fault| match fault.kind {
            Kind::Unsupported => {
                let message = "directories can't be swapped in one step on this file system";
                Fault::new(Kind::Unsupported, message)
                    .file(self.destination.display().to_string())
                    .hint("write into another directory with --dst")
            }
            _ => fault,
        })
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

    /// Discards what an earlier, interrupted run left, and makes a staging directory for `job`.
    /// `survives` says what the written bytes survive; only a run that says the same takes them up.
    ///
    /// # Errors
    /// [`Kind::Io`].
    pub fn prepare(&self, job: u64, survives: &str) -> Result<()> {
        io::make_directory(self.parent())?;
        self.clear()?;
        // The user knows the destination, not what is hidden beside it.
        io::make_directory(&self.journals()).map_err(|mut fault| {
            fault.file = Some(self.destination.display().to_string());
            fault
        })?;
        let text = format!("{} {survives}", Hex(job));
        io::write_small(&self.journals().join(JOB), text.as_bytes(), false)?;
        self.own()
    }

    /// Where the processes keep journals of what is done, while files are being written.
    #[must_use]
    pub fn journals(&self) -> PathBuf {
        self.partial.join(JOURNALS)
    }

    /// What an interrupted run left in the staging directory.
    ///
    /// # Errors
    /// [`Kind::Io`].
    pub fn left(&self, job: u64, survives: &[String]) -> Result<Left> {
        match io::standing(&self.partial)? {
            Standing::Nothing | Standing::EmptyDirectory => return Ok(Left::Nothing),
            Standing::File => return Ok(Left::Another),
            Standing::Directory => {}
        }
        let path = self.journals().join(JOB);
        let text = match io::size(&path)? {
            None => String::new(),
            Some(_) => {
                String::from_utf8_lossy(&ReadFile::open(&path)?.read_all(4096)?).into_owned()
            }
        };
        let (begun, found) = text.split_once(' ').unwrap_or_default();
        if begun == Hex(job).to_string() && !survives.iter().any(|known| known == found) {
            return Ok(Left::Unknown);
        }
        // A manifest is the last file written; one that is cut short is as good as none.
        if let Ok(Some(manifest)) = Manifest::read(&self.partial) {
            if manifest.job != Hex(job) {
                return Ok(Left::Another);
            }
            if manifest.stands(&self.partial)? {
                return Ok(Left::Complete(Box::new(manifest)));
            }
        }
        Ok(if begun.is_empty() {
            Left::Unknown
        } else if begun == Hex(job).to_string() {
            Left::Begun
        } else {
            Left::Another
        })
    }

    /// The manifest of the destination if it is the complete result of `job`.
    ///
    /// # Errors
    /// [`Kind::Io`].
    pub fn placed(&self, job: u64) -> Result<Option<Manifest>> {
        if io::standing(&self.destination)? != Standing::Directory {
            return Ok(None);
        }
        match Manifest::read(&self.destination) {
            Ok(Some(manifest)) if manifest.job == Hex(job) => {
                let stands = manifest.stands(&self.destination)?
                    && manifest.stands_unchanged(&self.destination)?;
                Ok(stands.then_some(manifest))
            }
            _ => Ok(None),
        }
    }

    /// Puts the staged directory in place, in one step: readers see the old contents or the new.
    ///
    /// # Errors
    /// [`Kind::Exists`], [`Kind::Unsupported`] where the file system can't swap directories,
    /// [`Kind::Io`].
    pub fn publish(&self, overwrite: bool, flush: bool) -> Result<()> {
        self.check(overwrite)?;
        let placing = course::placing();
        let aside = self.seal()?;
        let replaces = match self.put(&aside) {
            Ok(replaces) => replaces,
            Err(fault) => {
                self.back(&aside);
                return Err(fault);
            }
        };
        if replaces {
            // What was replaced now lies aside.
            self.back(&aside);
        }
        let replaced = replaces.then(|| self.partial.clone());
        course::leaves(Leaves::Placed(replaced));
        if flush {
            io::sync_directory(self.parent())?;
        }
        drop(placing);
        if replaces {
            io::remove_directory(&self.partial)?;
            course::leaves(Leaves::Placed(None));
        }
        Ok(())
    }

    /// Gives what lies `aside` the name of the destination; tells whether something stood there.
    fn put(&self, aside: &Path) -> Result<bool> {
        io::remove_directory(&aside.join(JOURNALS))?;
        let replaces = io::standing(&self.destination)? == Standing::Directory;
        if replaces {
            io::exchange(aside, &self.destination)?;
        } else {
            io::rename(aside, &self.destination)?;
        }
        Ok(replaces)
    }
}
