//! A name that one of several wins.

use super::gate::gate;
use super::named::named;
use super::trace;
use crate::fault::Result;
use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Gives the file at `from`, which holds `bytes`, the name `to` as well, unless that is taken; tells
/// whether it did. Where a file can't have two names another one is made.
///
/// Over a network it may have gone well all the same, if an answer got lost: whoever asks looks whether
/// `to` holds its bytes.
///
/// # Errors
/// [`crate::fault::Kind::Io`].
pub fn claim(from: &Path, to: &Path, bytes: &[u8]) -> Result<bool> {
    named("can't make", to, gate())?;
    let taken = |error: &std::io::Error| error.kind() == ErrorKind::AlreadyExists;
    match fs::hard_link(from, to) {
        Ok(()) => {
            trace::linked(to);
            return Ok(true);
        }
        Err(error) if taken(&error) => return Ok(false),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return named("can't make", to, Err(error));
        }
        Err(_) => {}
    }
    let made = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o644)
        .open(to);
    let mut file = match made {
        Err(error) if taken(&error) => return Ok(false),
        made => named("can't create", to, made)?,
    };
    trace::created(to, &file);
    let written = file.write_all(bytes);
    if written.is_err() {
        let _ = fs::remove_file(to);
        trace::gone(to);
    } else {
        trace::written(&file, 0, bytes);
    }
    named("can't write", to, written).map(|()| true)
}
