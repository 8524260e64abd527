//! How a new directory takes the place of an old one where the two can't be swapped in one step: the old
//! goes aside, the new comes in, the old is removed.
//!
//! A record beside them says what is to be moved where. Whoever finds one puts things right: the old comes
//! back, unless the new is wholly in place. So after a death at any point one of them is whole.

use crate::fault::{Fault, Kind, Result};
use crate::store::io::{self, ReadFile, Standing};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// Largest record that is read.
const RECORD_BYTES_MAX: u64 = 64 << 20;

/// What is moved where, by paths inside one directory.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Moves {
    /// The old: from its place, aside.
    pub(super) old: Vec<(String, String)>,
    /// The new: to its place.
    pub(super) new: Vec<(String, String)>,
    /// Where the old is gathered, to be removed in the end; none: each by itself.
    pub(super) aside: Option<String>,
    /// Whether all is moved, and the old may go.
    #[serde(default)]
    pub(super) moved: bool,
}

/// Moves inside one directory, and where they are recorded. All functions are local.
#[derive(Clone, Debug)]
pub(super) struct Aside {
    base: PathBuf,
    record: PathBuf,
    flush: bool,
}

impl Aside {
    /// Moves inside `base`, recorded in its file `record`.
    pub(super) fn new(base: &Path, record: &str, flush: bool) -> Self {
        Aside {
            base: base.to_path_buf(),
            record: base.join(record),
            flush,
        }
    }

    /// Makes the moves.
    ///
    /// # Errors
    /// [`Kind::Io`]; then the old is back in its place, if the system lets it.
    pub(super) fn make(&self, mut moves: Moves) -> Result<()> {
        self.note(&moves)?;
        if let Err(fault) = self.go(&moves) {
            return match self.undo(&moves) {
                Ok(()) => Err(fault),
                Err(worse) => Err(fault.hint(format!(
                    "the old contents are aside: the next run puts them back ({worse})"
                ))),
            };
        }
        moves.moved = true;
        self.note(&moves)?;
        self.clear(&moves)
    }

    /// Puts right what a run has left that died while it moved.
    ///
    /// # Errors
    /// [`Kind::Exists`] if something else has taken a place meanwhile, [`Kind::Io`].
    pub(super) fn recover(&self) -> Result<()> {
        io::remove(&self.draft())?;
        if io::size(&self.record)?.is_none() {
            return Ok(());
        }
        let bytes = ReadFile::open(&self.record)?.read_all(RECORD_BYTES_MAX)?;
        let moves: Moves = serde_json::from_slice(&bytes).map_err(|error| {
            let fault = Fault::new(Kind::Corrupt, format!("is no record of moves: {error}"));
            fault.file(self.record.display().to_string())
        })?;
        if moves.moved {
            self.clear(&moves)
        } else {
            self.undo(&moves)
        }
    }

    fn go(&self, moves: &Moves) -> Result<()> {
        if let Some(aside) = &moves.aside {
            io::make_directory(&self.base.join(aside))?;
        }
        let rename =
            |(from, to): &(String, String)| io::rename(&self.base.join(from), &self.base.join(to));
        moves.old.iter().try_for_each(rename)?;
        // Whoever puts things right goes by it that all of the old was aside before any of the new came.
        self.sync()?;
        moves.new.iter().try_for_each(rename)?;
        self.sync()
    }

    /// Brings the old back.
    fn undo(&self, moves: &Moves) -> Result<()> {
        let stands = |path: &str| self.stands(path);
        let mut all_aside = true;
        for (_, aside) in &moves.old {
            all_aside &= stands(aside)?;
        }
        // The new came only when all of the old was aside, and goes before any of it comes back.
        if all_aside {
            for (from, to) in moves.new.iter().rev() {
                if !stands(from)? && stands(to)? {
                    io::rename(&self.base.join(to), &self.base.join(from))?;
                }
            }
        }
        for (place, aside) in moves.old.iter().rev() {
            if !stands(aside)? {
                continue;
            }
            let home = self.base.join(place);
            match io::standing(&home)? {
                Standing::Nothing => {}
                Standing::EmptyDirectory => io::remove(&home)?,
                Standing::Directory | Standing::File => {
                    let aside = self.base.join(aside);
                    let message = format!("stands where {} belongs", aside.display());
                    let fault = Fault::new(Kind::Exists, message);
                    return Err(fault.file(home.display().to_string()).hint(
                        "a run died while it replaced that, and something else came: \
                         move one of them away",
                    ));
                }
            }
            io::rename(&self.base.join(aside), &home)?;
        }
        if let Some(aside) = &moves.aside {
            io::remove(&self.base.join(aside))?;
        }
        self.sync()?;
        io::remove(&self.record)
    }

    /// Removes the old, and the record.
    fn clear(&self, moves: &Moves) -> Result<()> {
        for aside in moves.old.iter().map(|(_, aside)| aside).chain(&moves.aside) {
            let path = self.base.join(aside);
            match io::standing(&path)? {
                Standing::File => io::remove(&path)?,
                _ => io::remove_directory(&path)?,
            }
        }
        // What were left of it without its record would stand in the way of the next replacement.
        self.sync()?;
        io::remove(&self.record)
    }

    fn stands(&self, path: &str) -> Result<bool> {
        let path = self.base.join(path);
        Ok(io::link_target(&path)?.is_some() || io::standing(&path)? != Standing::Nothing)
    }

    /// Where the record is before it is one.
    fn draft(&self) -> PathBuf {
        let mut draft = self.record.clone().into_os_string();
        draft.push("-draft");
        PathBuf::from(draft)
    }

    /// Writes the record, whole or not at all. It is always flushed: by it the old is found.
    fn note(&self, moves: &Moves) -> Result<()> {
        let bytes = serde_json::to_vec(moves)
            .map_err(|error| Fault::new(Kind::Internal, format!("no record: {error}")))?;
        let draft = self.draft();
        io::remove(&draft)?;
        io::write_small(&draft, &bytes, true)?;
        io::rename(&draft, &self.record)?;
        io::sync_directory(&self.base)
    }

    fn sync(&self) -> Result<()> {
        if self.flush {
            io::sync_directory(&self.base)
        } else {
            Ok(())
        }
    }
}
