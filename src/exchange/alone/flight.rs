//! What is complete as soon as it has begun.

use crate::exchange::pause::Patience;
use crate::fault::Result;

/// Buffers that nobody else uses.
pub(in crate::exchange) struct Flight<B> {
    buffers: B,
}

impl<B> Flight<B> {
    /// *Local.* A complete flight.
    pub(super) fn new(buffers: B) -> Self {
        Flight { buffers }
    }

    /// *Local.* Whether all is complete.
    #[allow(clippy::unused_self, clippy::unnecessary_wraps, reason = "as with MPI")]
    pub(in crate::exchange) fn test(&mut self) -> Result<bool> {
        Ok(true)
    }

    /// *Local.* Gives the buffers back.
    #[allow(clippy::unnecessary_wraps, reason = "as with MPI")]
    pub(in crate::exchange) fn wait(self, _: Patience) -> Result<B> {
        Ok(self.buffers)
    }
}
