//! The gate that every system call on files passes: it counts them, and tests can end the process at
//! the n-th one (`SHARDLOOM_IO_FAULT=exit:N`), fail it (`eio:N`, `enospc:N`), or let it be interrupted
//! (`eintr:N`) or move half of its bytes (`short:N`) at first.
//!
//! Calls that not every file system has pass by [`able`] too: `SHARDLOOM_IO_LACKS=swap:EINVAL,link:EPERM`
//! makes them fail always.

use crate::course;
use rustix::io::Errno;
use std::cell::Cell;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// What `SHARDLOOM_IO_FAULT` asks for.
enum Injected {
    Nothing,
    Exit(u64),
    Error(u64, rustix::io::Errno),
    Hiccup(u64, Hiccup),
}

/// What a system call may do at any time, and a caller must cope with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hiccup {
    None,
    Interrupted,
    Short,
}

static CALLS: AtomicU64 = AtomicU64::new(0);
static INJECTED: OnceLock<Injected> = OnceLock::new();

fn injected() -> &'static Injected {
    INJECTED.get_or_init(|| {
        let Ok(text) = std::env::var("SHARDLOOM_IO_FAULT") else {
            return Injected::Nothing;
        };
        match text
            .split_once(':')
            .and_then(|(what, n)| Some((what, n.parse().ok()?)))
        {
            Some(("exit", n)) => Injected::Exit(n),
            Some(("eio", n)) => Injected::Error(n, rustix::io::Errno::IO),
            Some(("enospc", n)) => Injected::Error(n, rustix::io::Errno::NOSPC),
            Some(("eintr", n)) => Injected::Hiccup(n, Hiccup::Interrupted),
            Some(("short", n)) => Injected::Hiccup(n, Hiccup::Short),
            _ => Injected::Nothing,
        }
    })
}

static LACKS: OnceLock<String> = OnceLock::new();

/// Lets a call of the name `call` pass, unless the file system is to lack it.
pub(super) fn able(call: &str) -> Result<(), Errno> {
    let lacks = LACKS.get_or_init(|| std::env::var("SHARDLOOM_IO_LACKS").unwrap_or_default());
    let mut lacks = lacks.split(',').filter_map(|lack| lack.split_once(':'));
    match lacks
        .find(|(name, _)| *name == call)
        .map(|(_, errno)| errno)
    {
        None => Ok(()),
        Some("EINVAL") => Err(Errno::INVAL),
        Some("EPERM") => Err(Errno::PERM),
        Some("EXDEV") => Err(Errno::XDEV),
        Some("EOPNOTSUPP") => Err(Errno::OPNOTSUPP),
        Some(_) => Err(Errno::NOSYS),
    }
}

/// Whether an answer means that a file system hasn't such a call.
pub(super) fn is_lack(errno: Errno) -> bool {
    matches!(
        errno,
        Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP | Errno::PERM
    )
}

/// Lets a call pass, unless it is the one that is to fail; tells what may happen to it.
pub(super) fn gate() -> io::Result<Hiccup> {
    #[cfg(test)]
    if let Some(ill) = crate::host::cluster::at_file() {
        return befallen(ill);
    }
    course::pass();
    let call = CALLS.fetch_add(1, Ordering::Relaxed) + 1;
    match injected() {
        Injected::Nothing => Ok(Hiccup::None),
        // A death without any clean-up, as by SIGKILL.
        Injected::Exit(n) if *n == call => {
            let _ = rustix::process::kill_process(
                rustix::process::getpid(),
                rustix::process::Signal::KILL,
            );
            Ok(Hiccup::None)
        }
        Injected::Error(n, errno) if *n == call => Err((*errno).into()),
        Injected::Hiccup(n, hiccup) if *n == call => Ok(*hiccup),
        _ => Ok(Hiccup::None),
    }
}

/// What befalls a call in a virtual cluster.
#[cfg(test)]
fn befallen(ill: Option<crate::host::cluster::ill::Ill>) -> io::Result<Hiccup> {
    use crate::host::cluster::ill::Ill;
    match ill {
        None => Ok(Hiccup::None),
        Some(Ill::Interrupted) => Ok(Hiccup::Interrupted),
        Some(Ill::Short) => Ok(Hiccup::Short),
        Some(Ill::Full) => Err(Errno::NOSPC.into()),
        Some(_) => Err(Errno::IO.into()),
    }
}

/// A file whose first read or write may have a hiccup: what loops over it must cope.
pub(super) struct Wary<'a, F> {
    file: &'a F,
    hiccup: Cell<Hiccup>,
}

impl<'a, F> Wary<'a, F> {
    pub(super) fn new(file: &'a F, hiccup: Hiccup) -> Self {
        Wary {
            file,
            hiccup: Cell::new(hiccup),
        }
    }

    /// How many of `length` bytes the next call may move.
    fn share(&self, length: usize) -> io::Result<usize> {
        match self.hiccup.replace(Hiccup::None) {
            Hiccup::None => Ok(length),
            Hiccup::Interrupted => Err(rustix::io::Errno::INTR.into()),
            Hiccup::Short => Ok(length.div_ceil(2)),
        }
    }
}

impl<F: FileExt> FileExt for Wary<'_, F> {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let share = self.share(buffer.len())?;
        self.file.read_at(&mut buffer[..share], offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        let share = self.share(bytes.len())?;
        self.file.write_at(&bytes[..share], offset)
    }
}
