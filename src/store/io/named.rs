//! Errors of system calls, with the file's name.

use crate::fault::{Fault, Kind, Result};
use std::io;
use std::path::Path;

/// `result`, its error as ours: what was tried (`action`), and with which file.
pub(super) fn named<T>(action: &str, path: &Path, result: io::Result<T>) -> Result<T> {
    result.map_err(|error| {
        let fault = Fault::io(action, &error).file(path.display().to_string());
        if error.kind() == io::ErrorKind::NotFound
            && let Ok(target) = std::fs::read_link(path)
        {
            let message = format!("is a link to {}, where nothing is", target.display());
            let fault = Fault::new(Kind::MissingShard, message).file(path.display().to_string());
            return fault
                .hint("was what it leads to moved, or not downloaded? Copy or download it again");
        }
        let looks = ["can't open", "can't look at"].contains(&action);
        if error.kind() == io::ErrorKind::NotFound && looks {
            return fault.hint(
                "is the path right on every node? What was there a moment ago another job, or a training that keeps a \
                 few checkpoints, has replaced or removed: start again",
            );
        }
        let makes = ["can't create", "can't make", "can't rename"];
        let makes = makes.iter().any(|made| action.starts_with(made));
        if !makes || error.kind() != io::ErrorKind::PermissionDenied {
            return fault;
        }
        // Of what is made with all that leads to it: the last that is there.
        let mut above = path.ancestors().skip(1).map(|directory| {
            if directory.as_os_str().is_empty() {
                Path::new(".")
            } else {
                directory
            }
        });
        match above.find(|directory| directory.exists()) {
            None => fault,
            Some(directory) => fault.hint(format!(
                "this user may not write into {}",
                directory.display()
            )),
        }
    })
}
