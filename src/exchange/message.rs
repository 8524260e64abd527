//! A control message.

/// A control message that has arrived.
pub(super) struct Message {
    /// The process that sent it.
    pub(super) source: u32,
    /// What it sent.
    pub(super) bytes: Vec<u8>,
}
