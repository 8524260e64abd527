//! What a run proves before it touches a staging directory: that the place is locked by it, and that the
//! directory is its own.
//!
//! Whatever is to be put in place or discarded is first renamed to a name that only this run uses, then
//! looked at, then moved on. So a run that stood still while another took its place never takes that
//! one's files for its own.

use crate::course;
use crate::fault::{Fault, Kind, Result};
use crate::store::ability;
use crate::store::commit::Staging;
use crate::store::io::{self, ReadFile, Standing};
use crate::store::lock::{Lock, beside, inside};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The file among the journals that says whose the directory is.
const OWNER: &str = "owner";

impl Staging {
    /// Takes the lock of the destination for `command` on the machine `host`, until the last copy of this
    /// value is dropped. What a dead run had under a name of its own gets its usual name back.
    ///
    /// # Errors
    /// [`Kind::Busy`] if another run writes there, [`Kind::Io`].
    pub fn lock(&mut self, command: &str, host: &str) -> Result<()> {
        let path = self.lock_path();
        let adopt = |token: &str| {
            let aside = self.aside(token);
            let nothing = |path: &Path| Ok(io::standing(path)? == Standing::Nothing);
            if nothing(&aside)? || !nothing(self.partial())? {
                return Ok(());
            }
            io::rename(&aside, self.partial())
        };
        let mut taken = Lock::take(&path, command, host, &adopt);
        // Who sees this directory as a mount point has its lock inside.
        let other = inside(self.destination());
        if taken.is_ok() && other != path && io::number(&other).is_some() {
            let free = Lock::take(&other, command, host, &|_| Ok(()));
            taken = free.and(taken);
        }
        // The user knows the destination, not what is hidden beside it.
        let lock = taken.map_err(|mut fault| {
            if fault.kind == Kind::Io {
                fault.file = Some(self.destination().display().to_string());
                fault.hint.get_or_insert_with(|| format!(
                    "{} is where runs leave word of each other: it must be possible to make it, and no directory or \
                     link of that name may stand there",
                    path.display()
                ));
            }
            fault
        })?;
        self.lock = Some(Arc::new(lock));
        self.gather_strays()
    }

    /// Removes what dead runs had taken aside and nobody tells of any more, as when their lock was lost with the
    /// power. A run that only stood still has lost its place by now, and finds nothing to put in it.
    fn gather_strays(&self) -> Result<()> {
        let mut beginning = self
            .partial()
            .file_name()
            .unwrap_or_default()
            .to_os_string();
        beginning.push("-");
        for stray in io::list_beginning(self.parent(), &beginning)? {
            tracing::warn!(
                "{}: was left by a run that is dead, and is removed",
                stray.display()
            );
            io::remove_directory(&stray)?;
        }
        Ok(())
    }

    /// Where the lock of the destination is: beside it, or in it where it is a mount point, since not every
    /// node may share what it is mounted on.
    #[must_use]
    pub fn lock_path(&self) -> PathBuf {
        if self.is_inside() {
            return inside(self.destination());
        }
        beside(self.destination())
    }

    /// Proves that this run has the lock, and gives it.
    ///
    /// # Errors
    /// [`Kind::Busy`] if another run has taken it over, [`Kind::Io`].
    pub(super) fn locked(&self) -> Result<&Lock> {
        let Some(lock) = &self.lock else {
            let fault = Fault::new(Kind::Internal, "is written without a lock");
            return Err(fault.file(self.destination().display().to_string()));
        };
        lock.prove()?;
        Ok(lock)
    }

    /// The name of the staging directory that only the run with `token` uses.
    fn aside(&self, token: &str) -> PathBuf {
        let mut name = self.partial().to_path_buf().into_os_string();
        name.push("-");
        name.push(token);
        name.into()
    }

    /// Makes the staging directory this run's own, with what an earlier run has left in it.
    ///
    /// # Errors
    /// [`Kind::Busy`], [`Kind::Io`].
    pub fn own(&self) -> Result<()> {
        let lock = self.locked()?;
        ability::clear(self.partial())?;
        io::make_directory(&self.journals())?;
        let path = self.journals().join(OWNER);
        io::remove(&path)?;
        io::write_small(&path, lock.token().as_bytes(), false)?;
        course::leaves(course::Leaves::Staged(self.partial().to_path_buf()));
        Ok(())
    }

    /// Whose the staging directory at `path` is; empty if nobody's.
    fn owner(&self, path: &Path) -> Result<String> {
        let path = path.join(self.owner_inside());
        if io::size(&path)?.is_none() {
            return Ok(String::new());
        }
        let bytes = ReadFile::open(&path)?.read_all(4096)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    fn owner_inside(&self) -> PathBuf {
        let journals = self.journals();
        Path::new(journals.file_name().unwrap_or_default()).join(OWNER)
    }

    /// Takes the staging directory aside, to be put in place; gives where it is now. [`Staging::back`]
    /// undoes it.
    ///
    /// # Errors
    /// [`Kind::Busy`] if the place or the directory is no longer this run's, [`Kind::Io`]; then nothing
    /// has changed.
    pub(super) fn seal(&self) -> Result<PathBuf> {
        let token = self.locked()?.token().to_owned();
        let aside = self.aside(&token);
        io::rename(self.partial(), &aside)?;
        match self.owner(&aside) {
            Ok(owner) if owner == token => Ok(aside),
            Ok(_) => {
                self.back(&aside);
                let message = "the staged files are another run's; nothing is put in place";
                Err(Fault::new(Kind::Busy, message).file(self.partial().display().to_string()))
            }
            Err(fault) => {
                self.back(&aside);
                Err(fault)
            }
        }
    }

    /// Gives a directory that was taken aside its usual name again, as well as it goes.
    pub(super) fn back(&self, aside: &Path) {
        if !matches!(io::standing(self.partial()), Ok(Standing::Nothing)) {
            return;
        }
        if let Err(fault) = io::rename(aside, self.partial()) {
            tracing::warn!("{fault}");
        }
    }

    /// Removes the staging directory, whoever has left it.
    ///
    /// # Errors
    /// [`Kind::Busy`] if the place is no longer this run's, [`Kind::Io`].
    pub(super) fn clear(&self) -> Result<()> {
        let aside = self.aside(self.locked()?.token());
        if io::standing(self.partial())? == Standing::Nothing {
            return Ok(());
        }
        io::rename(self.partial(), &aside)?;
        if let Err(fault) = self.locked() {
            self.back(&aside);
            return Err(fault);
        }
        let removed = io::remove_directory(&aside);
        if removed.is_err() {
            self.back(&aside);
        }
        removed
    }

    /// Discards the staging directory, unless it is another run's.
    ///
    /// # Errors
    /// [`Kind::Busy`] if the place is no longer this run's, [`Kind::Io`].
    pub fn discard(&self) -> Result<()> {
        let owner = self.owner(self.partial())?;
        if !owner.is_empty() && owner != self.locked()?.token() {
            let message = "is another run's, and stays";
            let fault = Fault::new(Kind::Busy, message);
            return Err(fault.file(self.partial().display().to_string()));
        }
        self.clear()?;
        course::leaves(course::Leaves::Nothing);
        Ok(())
    }
}
