//! Two counts, one over the other; and a share of a third one.

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

/// `total * part / of`, rounded down; nothing of nothing. So equal parts that follow one another meet, and
/// cover all.
#[must_use]
pub fn portion(total: u64, part: u64, of: u64) -> u64 {
    let whole = u128::from(total) * u128::from(part);
    let portion = whole.checked_div(u128::from(of)).unwrap_or_default();
    u64::try_from(portion).unwrap_or(u64::MAX)
}
