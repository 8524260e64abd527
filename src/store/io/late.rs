//! Waiting for what another node has made, which this one may not see at once.

use crate::host::bug::Bug;
use crate::host::clock;
use crate::host::identity::is_late;
use crate::host::planted::planted;
use std::io;
use std::time::Duration;

/// How long what must be there may be absent.
const PATIENCE: Duration = Duration::from_secs(20);
/// Between the first two tries; doubled from try to try.
const PAUSE: Duration = Duration::from_millis(5);
const PAUSE_MAX: Duration = Duration::from_millis(500);

/// Calls `open` until it doesn't say that nothing is there, or for so long.
pub(super) fn patiently<T>(mut open: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    let (begin, mut pause) = (clock::now(), PAUSE);
    loop {
        match seen(&mut open) {
            Err(error)
                if error.kind() == io::ErrorKind::NotFound
                    && clock::since(begin) < PATIENCE
                    && !planted(Bug::NoPatience) =>
            {
                clock::sleep(pause);
                pause = (pause * 2).min(PAUSE_MAX);
            }
            opened => return opened,
        }
    }
}

/// What `open` finds, unless it is made to come too early.
fn seen<T>(open: &mut impl FnMut() -> io::Result<T>) -> io::Result<T> {
    if is_late() {
        return Err(io::ErrorKind::NotFound.into());
    }
    open()
}
