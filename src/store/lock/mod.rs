//! One run at a destination: a hidden file beside it says who writes there.
//!
//! It works without the locks of the operating system, which network file systems don't all have: the
//! file is written under a name of its own and then linked to the lock's name, which goes well for one
//! run only. It names the process that holds it, and the time of its last change is a sign of life.
//! What a dead run has left is taken over: a run of this machine is dead if its process is gone, one
//! of another machine if it gives no sign of life for a minute during which it is watched, so clocks
//! that differ don't matter.
//!
//! *Absent on purpose*: MPI; what is written at the destination.

mod heart;
mod holder;
mod names;
mod seen;
#[cfg(test)]
mod tests;

use crate::fault::{Fault, Kind, Result};
use crate::host::bug::Bug;
use crate::host::planted::planted;
use crate::host::{clock, identity};
use crate::store::hidden::{LOCK, hidden};
use crate::store::io;
use heart::Heart;
use holder::{Holder, Life};
pub use holder::{date, token};
use rustix::fs::{AtFlags, CWD};
use rustix::io::Errno;
use seen::Seen;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// How long a run of another machine is watched before it is taken for dead.
const SILENCE: Duration = Duration::from_secs(60);
/// How often it is looked at meanwhile.
const LOOK: Duration = Duration::from_millis(200);
/// How often it is tried to take what others are taking, too.
const ATTEMPTS: u32 = 200;

/// The locks, and their other names, that this process must remove when it ends.
static HELD: Mutex<Vec<(PathBuf, Vec<u8>)>> = Mutex::new(Vec::new());

/// A lock that this process holds, until it is dropped.
#[derive(Debug)]
pub struct Lock {
    path: PathBuf,
    bytes: Vec<u8>,
    holder: Holder,
    /// Directories that were made for it, the outermost first.
    made: Vec<PathBuf>,
    heart: Option<Heart>,
}

impl Lock {
    /// Takes the lock at `path` for `command` on the machine `host`; the directories above it are made.
    /// What a dead run has left is taken over with a warning; `adopt` is given its token first. Waits
    /// only where a run of another machine has to be watched.
    ///
    /// # Errors
    /// [`Kind::Busy`] if another run holds it, [`Kind::Io`].
    pub fn take(
        path: &Path,
        command: &str,
        host: &str,
        adopt: &dyn Fn(&str) -> Result<()>,
    ) -> Result<Lock> {
        let holder = Holder::of_this_process(command, host);
        let bytes = holder.to_bytes()?;
        let mut lock = Lock {
            path: path.to_path_buf(),
            bytes,
            holder,
            made: missing_parents(path)?,
            heart: None,
        };
        if let Some(parent) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
            io::make_directory_for_good(parent)?;
        }
        let own = lock.named(&lock.holder.token);
        remember(&own, &lock.bytes);
        let written = io::write_small(&own, &lock.bytes, false);
        let taken = written.and_then(|()| lock.contend(&own, adopt));
        names::unlink(&own);
        forget(&own);
        taken?;
        lock.clear_graves();
        lock.heart = Heart::start(&lock.path);
        Ok(lock)
    }

    /// The word by which this run's things are known.
    #[must_use]
    pub fn token(&self) -> &str {
        &self.holder.token
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Proves that it is still held.
    ///
    /// # Errors
    /// [`Kind::Busy`] if another run has taken it over, or somebody has removed it; [`Kind::Io`].
    pub fn prove(&self) -> Result<()> {
        let message = match Seen::at(&self.path)? {
            Some(seen) if seen.bytes == self.bytes => return Ok(()),
            Some(seen) => format!("another run has taken over: {}", seen.who()),
            None => "the lock of this run has been removed".to_owned(),
        };
        let fault = Fault::new(Kind::Busy, format!("{message}; nothing is put in place"));
        Err(fault.file(self.path.display().to_string()))
    }

    /// A name beside the lock.
    fn named(&self, ending: &str) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push("-");
        name.push(ending);
        name.into()
    }

    /// Takes the lock as soon as it is nobody's.
    fn contend(&self, own: &Path, adopt: &dyn Fn(&str) -> Result<()>) -> Result<()> {
        for _ in 0..ATTEMPTS {
            remember(&self.path, &self.bytes);
            match self.link(own, &self.path) {
                Ok(true) => return Ok(()),
                Ok(false) => forget(&self.path),
                Err(fault) => return Err(fault),
            }
            let Some(seen) = Seen::at(&self.path)? else {
                continue;
            };
            match judge(&self.path, &seen, &self.holder)? {
                Verdict::Lives(seen) => return Err(self.busy(&seen)),
                Verdict::Changed => {}
                Verdict::Dead(seen, why) => self.take_over(own, &seen, why, adopt)?,
            }
        }
        let fault = Fault::new(Kind::Busy, "other runs are taking this place over and over");
        Err(fault.file(self.path.display().to_string()))
    }

    /// Gives `own` the name `to` unless it is taken; tells whether that went well.
    fn link(&self, own: &Path, to: &Path) -> Result<bool> {
        let claimed = match io::claim(own, to, &self.bytes) {
            // As long as it was being written another run took it for what a dead one has left.
            Err(_) if Seen::at(own)?.is_none() => {
                io::write_small(own, &self.bytes, false)?;
                io::claim(own, to, &self.bytes)?
            }
            claimed => claimed?,
        };
        // Over a network an answer may get lost, and what went well be tried again.
        Ok(claimed || Seen::at(to)?.is_some_and(|seen| seen.bytes == self.bytes))
    }

    /// Clears a dead run's lock away, unless another run is doing so. Whoever comes first has it then.
    fn take_over(
        &self,
        own: &Path,
        dead: &Seen,
        why: &str,
        adopt: &dyn Fn(&str) -> Result<()>,
    ) -> Result<()> {
        // The right to do so is a file of its own, named for the dead.
        let right = self.named(&format!("{}-heir", dead.key()));
        remember(&right, &self.bytes);
        if !self.link(own, &right)? {
            forget(&right);
            clock::sleep(Duration::from_millis(10));
            if let Some(heir) = Seen::at(&right)?
                && let Verdict::Dead(heir, _) = judge(&right, &heir, &self.holder)?
            {
                self.bury(&right, &heir);
            }
            return Ok(());
        }
        let done = match Seen::at(&self.path)? {
            Some(now) if now.bytes == dead.bytes && now.beat == dead.beat => {
                tracing::warn!(
                    "{}: takes over from a run that is dead ({why}): {}",
                    self.path.display(),
                    dead.who()
                );
                let token = dead.holder.as_ref().map(|holder| holder.token.as_str());
                let adopted = token.map_or(Ok(()), adopt);
                if adopted.is_ok() {
                    self.bury(&self.path, dead);
                }
                adopted
            }
            _ => Ok(()),
        };
        names::unlink(&right);
        forget(&right);
        done
    }

    /// Removes what runs have left beside the lock, under names of their own, that died while they took it.
    fn clear_graves(&self) {
        for path in names::beside(&self.path) {
            let Ok(Some(seen)) = Seen::at(&path) else {
                continue;
            };
            let left = match seen.holder {
                Some(_) => seen.life(&self.holder) == Some(Life::Gone),
                // One that is just being written is so only for a moment.
                None => {
                    clock::sleep(LOOK);
                    matches!(Seen::at(&path), Ok(Some(now)) if now.bytes == seen.bytes)
                }
            };
            if left {
                self.bury(&path, &seen);
            }
        }
    }

    /// Removes `path` if it is still what was `seen` there, without harm to what may have come since.
    fn bury(&self, path: &Path, seen: &Seen) {
        bury(
            path,
            &seen.bytes,
            &self.named(&format!("{}-dead", self.holder.token)),
        );
    }

    fn busy(&self, seen: &Seen) -> Fault {
        let place = self.path.display().to_string();
        let place = place.strip_suffix(LOCK).map_or(place.clone(), shown);
        let message = format!("another run is writing here: {}", seen.who());
        Fault::new(Kind::Busy, message)
            .file(place)
            .hint("wait until it has ended, or end it; a run that is dead is taken over by itself")
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        drop(self.heart.take());
        if !identity::is_alive() {
            return forget(&self.path);
        }
        let grave = self.named(&format!("{}-dead", self.holder.token));
        bury(&self.path, &self.bytes, &grave);
        forget(&self.path);
        for directory in self.made.iter().rev() {
            names::rmdir(directory);
        }
    }
}

/// Where the lock of the directory at `path` is: `.NAME.shardloom-lock` beside it.
#[must_use]
pub fn beside(path: &Path) -> PathBuf {
    hidden(path, LOCK)
}

/// Where it is of a directory that is a mount point: `.shardloom-lock` in it.
#[must_use]
pub fn inside(path: &Path) -> PathBuf {
    path.join(LOCK)
}

/// The directory that a lock without its ending is of.
fn shown(hidden: &str) -> String {
    if let Some(inside) = hidden.strip_suffix('/') {
        return inside.to_owned();
    }
    match hidden.rsplit_once("/.") {
        Some((parent, name)) => format!("{parent}/{name}"),
        None => hidden.trim_start_matches('.').to_owned(),
    }
}

/// Removes all locks of this process, which is about to end. For the thread that hears of signals.
pub fn release_all() {
    let held = std::mem::take(&mut *HELD.lock().unwrap_or_else(PoisonError::into_inner));
    for (path, bytes) in held {
        let mut grave = path.clone().into_os_string();
        grave.push("-dead");
        bury(&path, &bytes, &PathBuf::from(grave));
    }
}

/// Whether something stands at `path`; no step that tests can fail.
#[must_use]
pub fn stands(path: &Path) -> bool {
    rustix::fs::statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW).is_ok()
}

fn remember(path: &Path, bytes: &[u8]) {
    let mut held = HELD.lock().unwrap_or_else(PoisonError::into_inner);
    held.push((path.to_path_buf(), bytes.to_vec()));
}

fn forget(path: &Path) {
    let mut held = HELD.lock().unwrap_or_else(PoisonError::into_inner);
    held.retain(|(known, _)| known != path);
}

/// Removes the file at `path` if its content is `bytes`: it is taken aside first, and put back if it is
/// another.
fn bury(path: &Path, bytes: &[u8], grave: &Path) {
    let ours = |path: &Path| matches!(Seen::at(path), Ok(Some(seen)) if seen.bytes == bytes);
    if !ours(path) {
        return;
    }
    if let Err(errno) = names::rename(path, grave) {
        // Where nothing can be renamed nobody else can take it over either.
        if errno != Errno::NOENT && ours(path) {
            names::unlink(path);
        }
        return;
    }
    if !ours(grave) {
        names::link(grave, path);
    }
    names::unlink(grave);
}

/// The directories above `path` that don't exist, the outermost first.
fn missing_parents(path: &Path) -> Result<Vec<PathBuf>> {
    let mut missing = Vec::new();
    for parent in path.ancestors().skip(1) {
        if parent.as_os_str().is_empty() || io::standing(parent)? != io::Standing::Nothing {
            break;
        }
        missing.push(parent.to_path_buf());
    }
    missing.reverse();
    Ok(missing)
}

/// What a lock that stands is.
enum Verdict {
    /// Held by a run that lives.
    Lives(Seen),
    /// Another by now, or gone.
    Changed,
    /// Left by a run that is dead, and why that is known.
    Dead(Seen, &'static str),
}

/// Looks whether the run that holds a lock lives, and waits where only time can tell.
fn judge(path: &Path, first: &Seen, asks: &Holder) -> Result<Verdict> {
    match first.life(asks) {
        Some(Life::Lives) => return Ok(Verdict::Lives(first.clone())),
        Some(Life::Gone) if !planted(Bug::LockForEver) => {
            return Ok(Verdict::Dead(first.clone(), "its process is gone"));
        }
        Some(Life::Gone) => return Ok(Verdict::Lives(first.clone())),
        None => {}
    }
    let silence = silence();
    tracing::warn!(
        "{}: waits up to {} s for a sign of life of another run: {}",
        path.display(),
        silence.as_secs(),
        first.who()
    );
    let begun = clock::now();
    while clock::since(begun) < silence {
        clock::sleep(LOOK);
        match Seen::at(path)? {
            Some(now) if now.bytes != first.bytes => return Ok(Verdict::Changed),
            Some(now) if now.beat != first.beat => return Ok(Verdict::Lives(now)),
            Some(_) => {}
            None => return Ok(Verdict::Changed),
        }
    }
    Ok(Verdict::Dead(first.clone(), "it gave no sign of life"))
}

/// How long to watch; tests make it shorter.
fn silence() -> Duration {
    let text = std::env::var("SHARDLOOM_LOCK_SECONDS").ok();
    let seconds = text.and_then(|text| text.parse().ok());
    seconds.map_or(SILENCE, Duration::from_secs)
}
