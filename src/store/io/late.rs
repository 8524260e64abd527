//! Waiting for what another node has made, which this one may not see at once.

use std::io;
use std::time::{Duration, Instant};

/// How long what must be there may be absent.
const PATIENCE: Duration = Duration::from_secs(20);
/// Between the first two tries; doubled from try to try.
const PAUSE: Duration = Duration::from_millis(5);
const PAUSE_MAX: Duration = Duration::from_millis(500);

/// Calls `open` until it doesn't say that nothing is there, or for so long.
pub(super) fn patiently<T>(mut open: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    let (begin, mut pause) = (Instant::now(), PAUSE);
    loop {
        match open() {
            Err(error) if error.kind() == io::ErrorKind::NotFound && begin.elapsed() < PATIENCE => {
                std::thread::sleep(pause);
                pause = (pause * 2).min(PAUSE_MAX);
            }
            opened => return opened,
        }
    }
}
