//! Whether an adapter's file is what the manifest beside it says.

use crate::exchange::{Topology, World, agree};
use crate::fault::{Fault, Kind, Result};
use crate::job::verify::bad_shards;
use crate::source::look;
use crate::source::seals::check_file;
use crate::source::{Reading, Verify};
use crate::store::io;
use std::path::Path;

/// Checks the adapter that is merged into what `reading` reads, if it has a file: a process of each node
/// reads it once more. Collective.
///
/// # Errors
/// The same on every process: [`Kind::Corrupt`] naming the tensor and the file.
pub(super) fn check(world: &World, topology: &Topology, reading: &Reading) -> Result<()> {
    let lora = reading.derived.lora.as_ref();
    let Some(path) = lora.and_then(|lora| lora.file.as_deref()) else {
        return Ok(());
    };
    if matches!(reading.verify, Verify::None) {
        return Ok(());
    }
    let checked = if topology.leads(world.process()) {
        check_file(path, None, false).and_then(|()| as_written(path))
    } else {
        Ok(())
    };
    agree(world, checked)
}

/// Whether the file at `path` is as it was written, as far as a manifest tells. Local.
fn as_written(path: &Path) -> Result<()> {
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
        return Ok(());
    };
    let Some(manifest) = look(directory)? else {
        return Ok(());
    };
    let name = name.to_string_lossy();
    // A file of another size is not the one that was written then.
    let bytes = io::size(path)?;
    let mut files = manifest.files.iter();
    let Some(record) = files.find(|file| file.path == name && Some(file.bytes) == bytes) else {
        return Ok(());
    };
    let bad = bad_shards(directory, &manifest, record, &|_| true);
    let Some(first) = bad.into_iter().next() else {
        return Ok(());
    };
    let message = "its bytes are not as they were when the adapter was written";
    let fault = Fault::new(Kind::Corrupt, message).file(path.display().to_string());
    let fault = fault.hint(
        "nothing was put in place; if it was changed on purpose, --verify none takes it as it is",
    );
    Err(match first.tensor {
        Some(tensor) => fault.tensor(&*tensor),
        None => fault,
    })
}
