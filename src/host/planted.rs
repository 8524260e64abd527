//! Whether a bug is planted: in the crate's own tests, to see that they find it; in a program never.

use super::bug::Bug;

/// Whether `bug` is planted.
#[must_use]
#[inline]
pub fn planted(bug: Bug) -> bool {
    #[cfg(test)]
    return super::cluster::planted() == Some(bug);
    #[cfg(not(test))]
    {
        let _ = bug;
        false
    }
}
