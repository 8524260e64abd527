//! How an output becomes visible: staged beside its place, flushed, put there by one rename.

use crate::course::{self, Leaves};
use crate::fault::{Fault, Kind, Result};
use crate::host::bug::Bug;
use crate::host::planted::planted;
use crate::store::ability;
use crate::store::aside::{Aside, Moves};
use crate::store::hidden::{OLD, PARTIAL, hidden};
use crate::store::io::{self, ReadFile, Standing};
use crate::store::lock::Lock;
use crate::store::manifest::{self, Hex, Manifest};
use crate::store::replaceable::{self, Replace};
use crate::store::resolved::resolved;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The record of what is moved.
const RECORD: &str = ".shardloom-moves";
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

/// A destination directory and the hidden one its files are staged in: a sibling, or inside it where the
/// destination is a mount point, beside which another file system is. All functions are local: one
/// process of each site calls them.
#[derive(Clone, Debug)]
pub struct Staging {
    destination: PathBuf,
    partial: PathBuf,
    /// Held for as long as a copy of this lives.
    pub(super) lock: Option<Arc<Lock>>,
    /// Whether the destination is a mount point.
    inside: bool,
}

impl Staging {
    /// Staging for `destination`: `.NAME.shardloom-partial` beside it, or `.shardloom-partial` in it.
    ///
    /// # Errors
    /// [`Kind::Usage`] for a path without a name (`/`, `..`).
    pub fn new(destination: &Path) -> Result<Staging> {
        let resolved = resolved(destination)?;
        if resolved.file_name().is_none() {
            let fault = Fault::new(Kind::Usage, "is no place for a new directory");
            return Err(fault.file(destination.display().to_string()));
        }
        let directory = io::glance(&resolved)? == Standing::Directory;
        let inside = directory && io::is_mount(&resolved)?;
        let partial = if inside {
            resolved.join(PARTIAL)
        } else {
            hidden(&resolved, PARTIAL)
        };
        Ok(Staging {
            partial,
            destination: resolved,
            lock: None,
            inside,
        })
    }

    /// Where files are written before the commit.
    #[must_use]
    pub fn partial(&self) -> &Path {
        &self.partial
    }

    /// Whether the destination is a mount point, and what is staged lies in it.
    #[must_use]
    pub fn is_inside(&self) -> bool {
        self.inside
    }

    /// The directory that what is staged lies in.
    #[must_use]
    pub fn parent(&self) -> &Path {
        if self.inside {
            return &self.destination;
        }
        io::room(&self.destination)
    }

    /// The directory that is to be replaced.
    #[must_use]
    pub fn destination(&self) -> &Path {
        &self.destination
    }

    /// Checks that the destination may be written.
    ///
    /// # Errors
    /// [`Kind::Exists`] if something stands there that isn't to be replaced, or is no directory.
    pub fn check(&self, replace: Replace) -> Result<()> {
        let exists = |message: &str| {
            Fault::new(Kind::Exists, message).file(self.destination.display().to_string())
        };
        let mut standing = io::standing(&self.destination)?;
        if self.inside && replaceable::entries(&self.destination)?.is_empty() {
            standing = Standing::EmptyDirectory;
        }
        match standing {
            Standing::Nothing | Standing::EmptyDirectory => Ok(()),
            Standing::Directory if replace == Replace::Source => Ok(()),
            Standing::Directory if replace == Replace::Results => {
                replaceable::check(&self.destination)
            }
            Standing::Directory if let Replace::Earlier(origin) = replace => {
                replaceable::check_earlier(&self.destination, origin)
            }
            Standing::Directory => Err(exists("exists and is not empty")
                .hint("--overwrite replaces it, in one step, when the new one is complete")),
            Standing::File => Err(exists("exists and is no directory")),
        }
    }

    /// Discards what an earlier, interrupted run left, and makes a staging directory for `job`.
    /// `survives` says what the written bytes survive; only a run that says the same takes them up.
    ///
    /// What is put in place of a directory takes after it; else nobody has the permissions `denied`.
    ///
    /// # Errors
    /// [`Kind::Unsupported`] for a file system that can't do what is needed, [`Kind::Io`].
    pub fn prepare(&self, job: u64, survives: &str, denied: u32) -> Result<()> {
        io::make_directory(self.parent())?;
        if !io::is_root() && io::standing(&self.destination)? == Standing::Directory {
            replaceable::check_removable(&self.destination)?;
        }
        self.clear()?;
        io::make_directory(&self.partial).map_err(|fault| self.known(fault))?;
        if io::standing(&self.destination)? != Standing::Nothing {
            io::take_after(&self.partial, &self.destination)?;
        } else if denied != 0 {
            io::restrict(&self.partial, denied)?;
        }
        if let Err(fault) = ability::check(&self.partial) {
            // It may not be possible to take it aside first.
            io::remove_directory(&self.partial)?;
            return Err(fault);
        }
        io::make_directory(&self.journals()).map_err(|fault| self.known(fault))?;
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
        if let Some(manifest) = Manifest::read_sound(&self.partial)? {
            if manifest.job != Hex(job) {
                return Ok(Left::Another);
            }
            if manifest.stands(&self.partial)? && manifest.is_sure(&self.partial, survives)? {
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

    /// The manifest of the destination if it is the complete result of `job`; `survives` says what has happened
    /// to bytes that were not flushed, as for [`Manifest::is_sure`].
    ///
    /// # Errors
    /// [`Kind::Io`].
    pub fn placed(&self, job: u64, survives: &[String]) -> Result<Option<Manifest>> {
        if io::standing(&self.destination)? != Standing::Directory {
            return Ok(None);
        }
        match Manifest::read_sound(&self.destination)? {
            Some(manifest) if manifest.job == Hex(job) => {
                let stands = manifest.stands(&self.destination)?
                    && manifest.stands_unchanged(&self.destination)?
                    && manifest.is_sure(&self.destination, survives)?;
                Ok(stands.then_some(manifest))
            }
            _ => Ok(None),
        }
    }

    /// The user knows the destination, not what is hidden beside it.
    fn known(&self, mut fault: Fault) -> Fault {
        fault.file = Some(self.destination.display().to_string());
        fault
    }

    /// Moves of which one death can leave only some, and their record.
    fn moves(&self, flush: bool) -> Aside {
        let record = match self.destination.file_name() {
            Some(name) if !self.inside => hidden(Path::new(name), RECORD),
            _ => RECORD.into(),
        };
        Aside::new(self.parent(), &record.to_string_lossy(), flush)
    }

    /// Puts right what a run has left that died while it replaced the destination.
    ///
    /// # Errors
    /// [`Kind::Exists`] if something else has taken its place meanwhile, [`Kind::Io`].
    pub fn recover(&self) -> Result<()> {
        self.moves(true).recover()
    }

    /// Puts the staged directory in place: in one step, so that readers see the old contents or the new,
    /// where the file system can swap directories; else the old goes aside first. Into a mount point
    /// its entries are moved one by one, the manifest last.
    ///
    /// # Errors
    /// [`Kind::Exists`], [`Kind::Io`].
    pub fn publish(&self, replace: Replace, flush: bool) -> Result<()> {
        self.check(replace)?;
        let placing = course::placing();
        let sealed = self.seal()?;
        let replaces = match self.put(&sealed, flush) {
            Ok(replaces) => replaces,
            Err(fault) => {
                self.back(&sealed);
                return Err(fault);
            }
        };
        // What was replaced now lies where the new was.
        let replaced = replaces.then(|| sealed.clone());
        course::leaves(Leaves::Placed(replaced));
        if flush {
            io::sync_directory(self.parent())?;
        }
        drop(placing);
        if replaces {
            match io::remove_directory(&sealed) {
                Ok(()) => course::leaves(Leaves::Placed(None)),
                Err(fault) => {
                    // The next run finds it by its usual name.
                    self.back(&sealed);
                    let (place, left) = (self.destination.display(), self.partial.display());
                    tracing::warn!(
                        "{place}: the new is in place; of the old, {left}, something is left: {}",
                        fault.message
                    );
                }
            }
        }
        Ok(())
    }

    /// Gives what is `sealed` the name of the destination; tells whether what stood there is `sealed` now.
    fn put(&self, sealed: &Path, flush: bool) -> Result<bool> {
        io::remove_directory(&sealed.join(JOURNALS))?;
        if flush {
            io::sync_directory(sealed)?;
        }
        if self.inside {
            self.back(sealed);
            self.moves(flush).make(self.entry_moves()?)?;
            io::remove_directory(&self.partial)?;
            return Ok(false);
        }
        if io::standing(&self.destination)? != Standing::Directory {
            io::rename(sealed, &self.destination)?;
            return Ok(false);
        }
        if planted(Bug::OldFirst) {
            io::remove_directory(&self.destination)?;
            io::rename(sealed, &self.destination)?;
            return Ok(false);
        }
        match io::exchange(sealed, &self.destination) {
            Ok(()) => Ok(true),
            Err(fault) if fault.kind == Kind::Unsupported => {
                self.back(sealed);
                self.moves(flush).make(self.directory_moves()?)?;
                Ok(false)
            }
            Err(fault) => Err(fault),
        }
    }

    fn directory_moves(&self) -> Result<Moves> {
        let name = self.destination.file_name().and_then(OsStr::to_str);
        let Some(name) = name else {
            let message = "can't be replaced here: its name is no UTF-8";
            return Err(self.known(Fault::new(Kind::Unsupported, message)));
        };
        let beside = |what| hidden(Path::new(name), what).to_string_lossy().into_owned();
        Ok(Moves {
            old: vec![(name.to_owned(), beside(OLD))],
            new: vec![(beside(PARTIAL), name.to_owned())],
            ..Moves::default()
        })
    }

    fn entry_moves(&self) -> Result<Moves> {
        let mut old: Vec<String> = names(replaceable::entries(&self.destination)?);
        let mut new: Vec<String> = names(io::list(&self.partial)?);
        // It is the first to go and the last to come: with it, all is there.
        old.sort_by_key(|name| name != manifest::NAME);
        new.sort_by_key(|name| name == manifest::NAME);
        Ok(Moves {
            old: old
                .into_iter()
                .map(|name| (name.clone(), format!("{OLD}/{name}")))
                .collect(),
            new: new
                .into_iter()
                .map(|name| (format!("{PARTIAL}/{name}"), name))
                .collect(),
            aside: Some(OLD.to_owned()),
            moved: false,
        })
    }
}

fn names(entries: Vec<(String, bool)>) -> Vec<String> {
    entries.into_iter().map(|(name, _)| name).collect()
}
