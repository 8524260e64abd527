//! Who may do what with files and directories.

use crate::fault::Result;
use crate::store::io::gate::gate;
use crate::store::io::late::patiently;
use crate::store::io::named::named;
use crate::store::io::trace;
use rustix::fs::{Access, AtFlags, CWD, Gid, StatxAttributes, StatxFlags, Uid, XattrFlags};
use rustix::io::Errno;
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

/// Largest extended attribute, and list of their names, that is taken over.
const ATTRIBUTE_BYTES_MAX: usize = 64 << 10;
/// Set-group-ID.
const SETGID: u32 = 0o2000;

/// The permissions of what stands at `path`, through links: twelve bits.
///
/// # Errors
/// [`crate::fault::Kind::Io`].
pub fn mode(path: &Path) -> Result<u32> {
    named("can't look at", path, gate())?;
    let metadata = named("can't look at", path, patiently(|| fs::metadata(path)))?;
    Ok(metadata.mode() & 0o7777)
}

/// Whether this user may make and remove entries of directory `path`. Local.
pub fn may_change(path: &Path) -> bool {
    let asked = Access::WRITE_OK | Access::EXEC_OK;
    let answer = rustix::fs::accessat(CWD, path, asked, AtFlags::EACCESS);
    !matches!(answer, Err(Errno::ACCESS | Errno::PERM | Errno::ROFS))
}

/// Takes the permissions `denied` away from `path`.
///
/// # Errors
/// [`crate::fault::Kind::Io`].
pub fn restrict(path: &Path, denied: u32) -> Result<()> {
    if denied == 0 {
        return Ok(());
    }
    let mode = mode(path)?;
    if mode & denied == 0 {
        return Ok(());
    }
    named("can't set permissions", path, gate())?;
    let set = fs::set_permissions(path, Permissions::from_mode(mode & !denied));
    named("can't set permissions", path, set)?;
    trace::changed_mode(path);
    Ok(())
}

/// Gives directory `path` the permissions, the group, the owner and the extended attributes (access
/// lists, striping) of directory `model`, as far as this user may.
///
/// # Errors
/// [`crate::fault::Kind::Io`].
pub fn take_after(path: &Path, model: &Path) -> Result<()> {
    named("can't look at", model, gate())?;
    let wanted = named("can't look at", model, fs::metadata(model))?;
    let own = named("can't look at", path, patiently(|| fs::metadata(path)))?;
    let mut mode = wanted.mode() & 0o7777;
    if own.uid() != wanted.uid() {
        let owner = Some(Uid::from_raw(wanted.uid()));
        if let Err(error) = rustix::fs::chown(path, owner, None) {
            tracing::debug!("{}: the owner isn't kept: {error}", model.display());
        }
    }
    if own.gid() != wanted.gid() {
        let group = Some(Gid::from_raw(wanted.gid()));
        if let Err(error) = rustix::fs::chown(path, None, group) {
            tracing::warn!("{}: its group can't be kept: {error}", model.display());
            mode &= !SETGID;
        }
    }
    copy_attributes(path, model);
    named("can't set permissions", path, gate())?;
    let set = fs::set_permissions(path, Permissions::from_mode(mode));
    named("can't set permissions", path, set)?;
    trace::changed_mode(path);
    Ok(())
}

/// Copies what extended attributes can be copied: which these are, the file system decides.
fn copy_attributes(path: &Path, model: &Path) {
    let mut names = vec![0u8; ATTRIBUTE_BYTES_MAX];
    let Ok(length) = rustix::fs::listxattr(model, &mut names[..]) else {
        return;
    };
    let mut value = vec![0u8; ATTRIBUTE_BYTES_MAX];
    for name in names[..length].split(|byte| *byte == 0) {
        if name.is_empty() {
            continue;
        }
        let Ok(length) = rustix::fs::getxattr(model, name, &mut value[..]) else {
            continue;
        };
        let flags = XattrFlags::empty();
        if let Err(error) = rustix::fs::setxattr(path, name, &value[..length], flags) {
            let name = String::from_utf8_lossy(name);
            tracing::debug!("{}: {name} isn't kept: {error}", model.display());
        }
    }
}

/// Whether `path` is where a file system is mounted.
///
/// # Errors
/// [`crate::fault::Kind::Io`].
pub fn is_mount(path: &Path) -> Result<bool> {
    named("can't look at", path, gate())?;
    if let Ok(found) = rustix::fs::statx(CWD, path, AtFlags::empty(), StatxFlags::BASIC_STATS)
        && found
            .stx_attributes_mask
            .contains(StatxAttributes::MOUNT_ROOT)
    {
        return Ok(found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT));
    }
    let Some(parent) = path.parent() else {
        return Ok(true);
    };
    let own = named("can't look at", path, fs::metadata(path))?;
    let above = named("can't look at", parent, fs::metadata(parent))?;
    Ok(own.dev() != above.dev())
}
