//! What torch.save wrote before 1.6.

use crate::fault::Kind;
use crate::store::formats::row::{Foreign, never};

/// What to do with it.
const HINT: &str = "load and save it again in Python: torch.save(torch.load(FILE, weights_only=True), \
                    FILE)";

/// The magic number of torch before 1.6, pickled.
const MAGIC: &[u8] = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19\x2e";

/// What torch before 1.6 wrote.
pub(in crate::store::formats) static LEGACY: Foreign = Foreign {
    name: "old PyTorch files",
    kind: Kind::Unsupported,
    file: |start| {
        let ours = start.with(MAGIC);
        ours.then(|| "is a PyTorch file of the old kind, a pickle".into())
    },
    directory: never,
    hint: HINT,
};
