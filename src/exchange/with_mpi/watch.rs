//! A thread that waits beside a call of the MPI library which may not come back.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::Builder;

/// The thread, for as long as this lives.
pub(super) struct Watch {
    _over: Sender<()>,
}

impl Watch {
    /// *Local.* Begins; `look` waits on what it is given, which ends with this value. Where there is no thread to be had, the
    /// library is waited for.
    pub(super) fn begin(name: &str, look: impl FnOnce(&Receiver<()>) + Send + 'static) -> Watch {
        let (sender, over) = channel();
        let thread = Builder::new().name(name.to_owned());
        if let Err(error) = thread.spawn(move || look(&over)) {
            tracing::debug!("{name}: the MPI library may be waited for in vain: {error}");
        }
        Watch { _over: sender }
    }
}
