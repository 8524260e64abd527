//! Two counts, one over the other.

/// `value / of`, or 1 of nothing.
#[must_use]
#[allow(clippy::cast_precision_loss)]
pub fn ratio(value: u64, of: u64) -> f64 {
    if of == 0 {
        1.0
    } else {
        value as f64 / of as f64
    }
}
