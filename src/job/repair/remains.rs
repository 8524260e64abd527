//! What is said of files that stay as they are.

use crate::job::outcome::BadFile;

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
    const NO_COPY: &str = "no good copy";
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
