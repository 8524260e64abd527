//! A strategy file where weights are meant: both end in .ckpt.

use crate::fault::Kind;
use crate::store::formats::row::{Foreign, Start, never};

/// A strategy that MindSpore has written, as protobuf.
pub(in crate::store::formats) static MINDSPORE: Foreign = Foreign {
    name: "MindSpore strategies",
    kind: Kind::Unsupported,
    file: told,
    directory: never,
    hint: "weights are meant here: a strategy is given beside them, by a flag of its own",
};

/// A number (field 1), then a message (2 or 3) that begins with a name.
fn told(start: &Start<'_>) -> Option<String> {
    let rest = start.bytes.strip_prefix(b"\x08")?;
    let after = |bytes: &[u8]| 1 + bytes.iter().take_while(|byte| **byte >= 0x80).count();
    let rest = rest.get(after(rest)..)?;
    let rest = rest
        .strip_prefix(b"\x12")
        .or_else(|| rest.strip_prefix(b"\x1a"))?;
    let rest = rest.get(after(rest)..)?;
    rest.starts_with(b"\x0a")
        .then(|| "is a MindSpore strategy: layouts, no weights".into())
}
