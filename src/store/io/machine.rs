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

/// Which file system `path` is on, by the name that `mount` has for it (or its number).
///
/// # Errors
/// [`crate::fault::Kind::Io`].
pub fn file_system(path: &Path) -> Result<String> {
    named("can't ask for its file system", path, gate())?;
    let stat = rustix::fs::statfs(path).map_err(io::Error::from);
    let kind = named("can't ask for its file system", path, stat)?.f_type;
    // Of linux/magic.h and the file systems' own headers.
    let known = [
        (0xef53, "ext4"),
        (0x0102_1994, "tmpfs"),
        (0x5846_5342, "xfs"),
        (0x9123_683e, "btrfs"),
        (0x794c_7630, "overlay"),
        (0x6969, "nfs"),
        (0x0bd0_0bd0, "lustre"),
        (0x4750_4653, "gpfs"),
        (0x6573_5546, "fuse"),
        (0x00c3_6400, "ceph"),
        (0x1983_0326, "beegfs"),
        (0x2fc1_2fc1, "zfs"),
        (0x0102_1997, "9p"),
        (0xff53_4d42, "cifs"),
        (0x8584_58f6, "ramfs"),
    ];
    let name = known.iter().find(|(magic, _)| *magic == kind);
    Ok(name.map_or_else(
        || format!("number {kind:#x}"),
        |(_, name)| (*name).to_owned(),
    ))
}

/// Whether `path` is on a disk or in memory of this machine, whose times of change can be relied on.
///
/// # Errors
/// [`crate::fault::Kind::Io`].
pub fn is_own_disk(path: &Path) -> Result<bool> {
    let own = ["ext4", "xfs", "btrfs", "zfs", "tmpfs"];
    Ok(own.contains(&file_system(path)?.as_str()))
}

/// Whether this process runs as root.
#[must_use]
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A small text file of the system's (`/proc`), whose size isn't known before it is read.
///
/// # Errors
/// [`crate::fault::Kind::Io`].
pub fn read_text(path: &str) -> Result<String> {
    named("can't read", Path::new(path), fs::read_to_string(path))
}

/// What tells this start of the machine from others; empty where that isn't told. Tests say another one
/// (`SHARDLOOM_BOOT`).
#[must_use]
pub fn boot() -> String {
    let told = std::env::var("SHARDLOOM_BOOT").ok();
    let text = told.or_else(|| read_text("/proc/sys/kernel/random/boot_id").ok());
    text.unwrap_or_default().trim().to_owned()
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

/// The machine's name, as the system has it.
#[must_use]
pub fn host_name() -> String {
    let name = rustix::system::uname();
    name.nodename().to_string_lossy().into_owned()
}
