//! What is sent, so that it can be told what has come.

use crate::fault::Result;
use crate::fault::memory::room;
use serde::{Deserialize, Serialize};
use std::sync::OnceLock;

/// Bytes after which the pattern of a part begins again.
const PERIOD: usize = 1 << 16;

/// Adjacent parts of different processes or keys differ by this at least once in a while.
const STEPS: (u8, u8) = (31, 17);

/// A byte that is not what was sent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Wrong {
    /// The process that sent it; none for a sum, and for a file.
    pub sender: Option<u32>,
    /// The process that has it.
    pub receiver: u32,
    /// Its place in the message, or the element's in the sums.
    pub index: u64,
    /// How many bytes this process has found wrong.
    pub count: u64,
}

/// The byte that process `from` sends under `key` at `index`.
pub(super) fn byte(from: u32, key: u32, index: usize) -> u8 {
    base(from, key).wrapping_add(wave(index))
}

/// Appends the `length` bytes that process `from` sends under `key`.
///
/// # Errors
/// [`crate::fault::Kind::Memory`].
pub(super) fn append(bytes: &mut Vec<u8>, from: u32, key: u32, length: usize) -> Result<()> {
    room(bytes, bytes.len().saturating_add(length))?;
    let base = base(from, key);
    let mut left = length;
    while left > 0 {
        let block = &waves()[..left.min(PERIOD)];
        bytes.extend(block.iter().map(|value| value.wrapping_add(base)));
        left -= block.len();
    }
    Ok(())
}

/// How many bytes of `part` are not what process `from` sends under `key`, and where the first is.
pub(super) fn differing(part: &[u8], from: u32, key: u32) -> (u64, u64) {
    let base = base(from, key);
    let (mut count, mut first) = (0, 0);
    for (number, block) in (0_u64..).zip(part.chunks(PERIOD)) {
        let right = |(have, wave): (&u8, &u8)| *have == wave.wrapping_add(base);
        let mut pairs = block.iter().zip(waves());
        let Some(index) = pairs.position(|pair| !right(pair)) else {
            continue;
        };
        if count == 0 {
            first = number * PERIOD as u64 + index as u64;
        }
        count += 1 + pairs.filter(|pair| !right(*pair)).count() as u64;
    }
    (count, first)
}

/// The number that process `from` gives to a sum at `index`.
pub(super) fn word(from: u32, index: usize) -> u64 {
    u64::from(from) * 1_000_003 + index as u64 * 7 + 1
}

/// The sum of all processes' numbers at `index`.
pub(super) fn sum(processes: u32, index: usize) -> u64 {
    let all = u64::from(processes);
    1_000_003 * (all * (all.saturating_sub(1)) / 2) + all * (index as u64 * 7 + 1)
}

fn base(from: u32, key: u32) -> u8 {
    let low = |value: u32| value.to_le_bytes()[0];
    low(from)
        .wrapping_mul(STEPS.0)
        .wrapping_add(low(key).wrapping_mul(STEPS.1))
}

fn wave(index: usize) -> u8 {
    let low = index.to_le_bytes();
    low[0].wrapping_add(low[1].wrapping_mul(7))
}

/// One period.
fn waves() -> &'static [u8] {
    static WAVES: OnceLock<Vec<u8>> = OnceLock::new();
    WAVES.get_or_init(|| (0..PERIOD).map(wave).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_a_wrong_byte_where_it_is() {
        let mut bytes = vec![9];
        append(&mut bytes, 3, 5, PERIOD + 70).unwrap();
        assert_eq!(bytes.len(), PERIOD + 71);
        let part = &mut bytes[1..];
        assert!((0..part.len()).all(|index| part[index] == byte(3, 5, index)));
        assert_eq!(differing(part, 3, 5), (0, 0));
        part[PERIOD + 4] ^= 1;
        assert_eq!(differing(part, 3, 5), (1, PERIOD as u64 + 4));
        assert!(differing(part, 2, 5).0 > 65_000 && differing(part, 3, 6).0 > 65_000);
    }

    #[test]
    fn knows_the_sum_of_all() {
        for (processes, index) in [(1, 0), (3, 4), (8, 1000)] {
            let all: u64 = (0..processes).map(|from| word(from, index)).sum();
            assert_eq!(all, sum(processes, index));
        }
    }
}
