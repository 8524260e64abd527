//! A single file that a command writes: asked about before the work, there in one step after it.

use crate::destination::allowed;
use crate::fault::{Fault, Kind, Result};
use crate::source::strategy_files::read_alone;
use crate::store::Format;
use crate::store::io::{self, ReadFile, Standing};
use crate::store::single::try_single;
use std::path::Path;

/// Whether a file may be written at `output` by a command that reads `inputs`. Local.
///
/// # Errors
/// [`Kind::Usage`] if it is or lies in one of them, [`Kind::Exists`] if something stands there that isn't
/// to be overwritten.
pub(crate) fn check_output(
    output: &Path,
    overwrite: bool,
    inputs: &[(&'static str, &Path)],
) -> Result<()> {
    allowed::check_file(output, inputs)?;
    match io::standing(output)? {
        Standing::Nothing => Ok(()),
        Standing::File if overwrite => no_weights(output),
        Standing::File => Err(Fault::new(Kind::Exists, "exists")
            .file(output.display().to_string())
            .hint("--overwrite replaces it")),
        Standing::Directory | Standing::EmptyDirectory => {
            Err(Fault::new(Kind::Exists, "is a directory").file(output.display().to_string()))
        }
    }
}

/// As [`check_output`], for a strategy, which replaces only another.
///
/// # Errors
/// As [`check_output`], [`Kind::Exists`] for a file of another kind.
pub(crate) fn check_strategy(
    output: &Path,
    overwrite: bool,
    inputs: &[(&'static str, &Path)],
) -> Result<()> {
    check_output(output, overwrite, inputs)?;
    if io::standing(output)? != Standing::File {
        return Ok(());
    }
    let bytes = ReadFile::open(output)?.size();
    match read_alone(&output.to_path_buf().into()) {
        Err(_) if bytes > 0 => Err(another(output)),
        _ => Ok(()),
    }
}

/// What stands there is something else than what would be written.
fn another(output: &Path) -> Fault {
    Fault::new(Kind::Exists, "is a file of another kind, and would be lost")
        .file(output.display().to_string())
        .hint("give another name, or move it away")
}

/// Whether what stands at `output` is no weights, which no small file may replace. Local.
///
/// # Errors
/// [`Kind::Exists`] naming it.
pub(crate) fn no_weights(output: &Path) -> Result<()> {
    let weights = |file: ReadFile| Format::recognise(&file)?.read(&file);
    // What can't be opened or understood is no weights.
    if io::standing(output)? != Standing::File || ReadFile::open(output).and_then(weights).is_err()
    {
        return Ok(());
    }
    let fault = Fault::new(Kind::Exists, "is a file of weights, and would be lost");
    Err(fault
        .file(output.display().to_string())
        .hint("give another name, or move it away"))
}

/// Whether a file could be written at `output`: its directory is made, and a file in it, which goes
/// again. Local.
///
/// # Errors
/// As [`try_single`] and [`no_weights`].
pub(crate) fn try_output(output: &Path) -> Result<()> {
    no_weights(output)?;
    try_single(output)
}

/// The same for one that only replaces files which begin as it does.
///
/// # Errors
/// As [`try_output`], [`Kind::Exists`] for a file of another kind.
pub(crate) fn try_replacing(output: &Path, begins: &str) -> Result<()> {
    if io::standing(output)? == Standing::File {
        let mut start = vec![0; begins.len()];
        let file = ReadFile::open(output)?;
        let length = file.size().min(begins.len() as u64);
        start.truncate(usize::try_from(length).unwrap_or_default());
        file.read_at(&mut start, 0)?;
        if !start.is_empty() && start != begins.as_bytes() {
            return Err(another(output));
        }
    }
    try_output(output)
}
