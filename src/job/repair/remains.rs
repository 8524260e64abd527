//! What is said of what stays damaged.

use crate::job::outcome::BadFile;
use crate::job::repair::relayout::Origin;

/// What is said of what can't be mended.
const NO_COPY: &str = "no good copy";

/// Whether something of these has no good copy.
pub(super) fn lacks_copy(bad: &[BadFile]) -> bool {
    bad.iter().any(|bad| bad.reason.ends_with(NO_COPY))
}

/// What to do where there is no good copy, neither here nor at `origin`; whether the directory's own
/// strategy is known.
pub(super) fn advice(origin: Option<&Origin>, known: bool) -> Option<String> {
    let words = match (origin, known) {
        (None, _) => {
            "what has no good copy here can be taken from another copy of the checkpoint, in whatever layout: \
             --from DIR"
        }
        (Some(origin), false) if origin.strategy.is_none() => {
            "copies are told by a part's name, size and CRC: if --from has another layout, --strategy tells that of \
             this directory, and --from-strategy that of --from"
        }
        _ => return None,
    };
    Some(words.to_owned())
}

/// What is said of a file that couldn't be written.
pub(super) fn not_repaired(message: &str) -> String {
    format!("it could not be repaired: {message}")
}

/// What is wrong with a file that stays as it is: `found` with a word on why, and the missing tensors.
pub(super) fn remaining(
    path: &str,
    mut found: Vec<BadFile>,
    missing: &[Option<String>],
    why: &str,
) -> Vec<BadFile> {
    for entry in &mut found {
        let lacks = missing.contains(&entry.tensor);
        let why = if lacks || (entry.tensor.is_none() && !missing.is_empty()) {
            NO_COPY
        } else {
            why
        };
        entry.reason.push_str("; ");
        entry.reason.push_str(why);
    }
    for tensor in missing {
        if !found.iter().any(|entry| entry.tensor == *tensor) {
            found.push(BadFile {
                file: path.to_owned(),
                tensor: tensor.clone(),
                reason: NO_COPY.into(),
            });
        }
    }
    if found.is_empty() {
        found.push(BadFile {
            file: path.to_owned(),
            tensor: None,
            reason: why.to_owned(),
        });
    }
    found
}
