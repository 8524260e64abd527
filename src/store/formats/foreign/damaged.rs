//! Files that were never written to their end.

use crate::fault::Kind;
use crate::store::formats::row::{Foreign, never};

/// A file without a byte.
pub(in crate::store::formats) static EMPTY: Foreign = Foreign {
    name: "empty files",
    kind: Kind::Corrupt,
    file: |start| (start.size == 0).then(|| "is empty: it has 0 bytes".into()),
    directory: never,
    hint: "was it saved, copied or downloaded to its end? Do that again",
};

/// Space that was set aside for a file.
pub(in crate::store::formats) static ZEROS: Foreign = Foreign {
    name: "files of zeros",
    kind: Kind::Corrupt,
    file: |start| {
        let zeros = start.size >= 64 && start.bytes.iter().all(|byte| *byte == 0);
        zeros.then(|| "begins with zeros alone: its space was set aside and not filled".into())
    },
    directory: never,
    hint: "was it saved, copied or downloaded to its end? Do that again",
};
