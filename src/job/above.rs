//! The manifest that tells of a directory: its own, or, of a rank's directory that is read by itself,
//! that of the checkpoint which it is a part of.

use crate::fault::Result;
use crate::source::look;
use crate::store::io::{self, Standing};
use crate::store::manifest::Manifest;
use crate::store::rank_dir::rank_of;
use std::path::Path;

/// The manifest in `directory`, or what the one above a rank's directory says of its files, named from there. Local.
///
/// # Errors
/// As [`look`].
pub(super) fn look_above(directory: &Path) -> Result<Option<Manifest>> {
    let own = look(directory)?;
    if own.is_some() {
        return Ok(own);
    }
    let directory = match directory.as_os_str().is_empty() {
        true => Path::new("."),
        false => directory,
    };
    if io::glance(directory)? == Standing::Nothing {
        // On another node's disk.
        return Ok(None);
    }
    let place = io::resolve(directory)?;
    let name = place.file_name().and_then(|name| name.to_str());
    let (Some(name), Some(above)) = (name.filter(|name| rank_of(name).is_some()), place.parent())
    else {
        return Ok(None);
    };
    let Some(mut manifest) = look(above)? else {
        return Ok(None);
    };
    let inside = format!("{name}/");
    manifest.files.retain_mut(|file| {
        let rest = file.path.strip_prefix(&inside).map(str::to_owned);
        rest.map(|rest| file.path = rest).is_some()
    });
    Ok((!manifest.files.is_empty()).then_some(manifest))
}
