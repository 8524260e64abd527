//! A manifest that is damaged or gone, and is lent by a copy of the directory.

use crate::fault::{Fault, Kind, Result};
use crate::job::outcome::Repaired;
use crate::job::repair::relayout::Origin;
use crate::job::verify::checked::Checked;
use crate::job::verify::found::{Found, look};
use crate::store::io::{self, ReadFile, Standing};
use crate::store::manifest::{BYTES_MAX, Manifest, NAME};
use std::path::{Path, PathBuf};

/// What the name of a file ends with that is made beside another.
const ENDING: &str = ".shardloom-repair";

/// The manifest of a copy, for a directory that has none any more.
pub(super) struct Lent {
    /// What it says.
    pub(super) manifest: Manifest,
    /// Where it is from.
    pub(super) from: PathBuf,
    /// Whether what is left of the directory's own is of the same job.
    pub(super) same_job: bool,
    /// Its own bytes.
    pub(super) bytes: Vec<u8>,
}

/// The manifest that `origin` lends to `directory`, if that needs one and has files of those that it
/// tells of. Local.
///
/// # Errors
/// [`Kind::Io`].
pub(super) fn lent(directory: &Path, origin: Option<&Origin>) -> Result<Option<Lent>> {
    let Some(origin) = origin else {
        return Ok(None);
    };
    if matches!(look(directory)?, Found::Manifest(_))
        || io::standing(&origin.path)? != Standing::Directory
    {
        return Ok(None);
    }
    let Found::Manifest(manifest) = look(&origin.path)? else {
        return Ok(None);
    };
    let mut stands = false;
    for file in manifest
        .files
        .iter()
        .filter(|file| file.structure.is_some())
    {
        stands = io::standing(&directory.join(&file.path))? == Standing::File;
        if stands {
            break;
        }
    }
    if !stands {
        return Ok(None);
    }
    let own = directory.join(NAME);
    let left = match io::standing(&own)? {
        Standing::File => ReadFile::open(&own)?.read_all(BYTES_MAX)?,
        _ => Vec::new(),
    };
    let job = format!("\"job\":\"{}\"", manifest.job);
    let from = origin.path.join(NAME);
    Ok(Some(Lent {
        bytes: ReadFile::open(&from)?.read_all(BYTES_MAX)?,
        same_job: left.windows(job.len()).any(|part| part == job.as_bytes()),
        manifest: *manifest,
        from,
    }))
}

impl Lent {
    /// Whether it is one of these files: `all` of them are looked at and as it says, or what is left of
    /// their own is of the same job. Else `checked` forgets it. Local: the same on all that see the directory.
    pub(super) fn is_believed(&self, checked: &mut Checked, all: bool) -> bool {
        let others = checked.suspects.len() as u64;
        if self.same_job || (all && others == 0) {
            return true;
        }
        let from = self.from.display();
        checked.forget(match others {
            0 => format!(
                "the manifest is damaged or gone; {from} stands for it only if all files are compared"
            ),
            _ => format!(
                "the manifest is damaged or gone, and {from} is none of these files: {} not as it says",
                if others == 1 {
                    "1 of them is".to_owned()
                } else {
                    format!("{others} of them are")
                }
            ),
        });
        false
    }

    /// Puts it in the place of the directory's own, in one step. Local.
    ///
    /// # Errors
    /// [`Kind::Io`], [`Kind::NoSpace`].
    pub(super) fn place(&self, directory: &Path) -> Result<Repaired> {
        if Manifest::parse(&self.bytes)? != self.manifest {
            let fault = Fault::new(Kind::Io, "has changed while it was read");
            return Err(fault.file(self.from.display().to_string()));
        }
        let path = directory.join(NAME);
        let staged = directory.join(format!(".{NAME}{ENDING}"));
        io::remove(&staged)?;
        io::write_small(&staged, &self.bytes, true)?;
        let mut models = [&path, &self.from].into_iter();
        let model = models.find(|path| matches!(io::standing(path), Ok(Standing::File)));
        model.map_or(Ok(()), |model| io::take_after(&staged, model))?;
        io::rename(&staged, &path)?;
        io::sync_directory(directory)?;
        Ok(Repaired {
            file: NAME.into(),
            tensor: None,
            from: self.from.display().to_string(),
        })
    }
}
