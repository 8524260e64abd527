//! What the system tells of itself: room on a file system, memory, texts of `/proc`.

use crate::fault::Result;
use crate::store::io::gate::gate;
use crate::store::io::named::named;
use std::fs;
use std::io;
use std::path::Path;

/// Bytes free for us on the file system of `path`.
///
/// # Errors
/// [`crate::fault::Kind::Io`].
pub fn free_bytes(path: &Path) -> Result<u64> {
    named("can't ask for free space", path, gate())?;
    let stat = rustix::fs::statvfs(path).map_err(io::Error::from);
    let stat = named("can't ask for free space", path, stat)?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// Files that the file system of `path` has room for; none where it has no limit.
///
/// # Errors
/// [`crate::fault::Kind::Io`].
pub fn free_files(path: &Path) -> Result<Option<u64>> {
    named("can't ask for free space", path, gate())?;
    let stat = rustix::fs::statvfs(path).map_err(io::Error::from);
    let stat = named("can't ask for free space", path, stat)?;
    Ok((stat.f_files > 0).then_some(stat.f_favail))
}

/// A small text file of the system's (`/proc`), whose size isn't known before it is read.
///
/// # Errors
/// [`crate::fault::Kind::Io`].
pub fn read_text(path: &str) -> Result<String> {
    named("can't read", Path::new(path), fs::read_to_string(path))
}

/// Bytes of this machine's memory.
#[must_use]
pub fn memory_bytes() -> u64 {
    let info = rustix::system::sysinfo();
    info.totalram.saturating_mul(u64::from(info.mem_unit))
}

/// Largest resident memory that this process has had, in bytes; 0 where the system doesn't tell.
#[must_use]
pub fn peak_memory_bytes() -> u64 {
    let status = read_text("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line
        .and_then(|line| line.trim().strip_suffix("kB"))
        .map(str::trim);
    kib.and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) * 1024
}
