//! Buffers with one part for each process.

use crate::fault::memory::zeroed;
use crate::fault::{Fault, Kind, Result};
use std::ops::Range;

/// Where the parts of a buffer lie that belong to the processes, in C integers.
#[derive(Debug)]
pub(super) struct Parts {
    /// Bytes of each process.
    pub(super) counts: Vec<i32>,
    /// Where they start.
    pub(super) offsets: Vec<i32>,
    /// All together.
    pub(super) total: usize,
}

impl Parts {
    /// *Local.* Parts that follow each other in the order of the processes; together they must
    /// stay below 2^31 bytes.
    pub(super) fn new(counts: impl Iterator<Item = usize>) -> Result<Self> {
        let (mut total, mut parts) = (0_i32, (Vec::new(), Vec::new()));
        for count in counts {
            let next = i32::try_from(count)
                .ok()
                .and_then(|count| Some((count, total.checked_add(count)?)));
            let Some((count, end)) = next else {
                return Err(Fault::new(
                    Kind::Internal,
                    "a round carries 2^31 bytes or more; MPI counts in C integers",
                ));
            };
            parts.0.push(count);
            parts.1.push(total);
            total = end;
        }
        Ok(Parts {
            counts: parts.0,
            offsets: parts.1,
            total: usize::try_from(total).map_err(|_| out_of_range())?,
        })
    }

    /// *Local.* The bytes of `process`.
    pub(super) fn range(&self, process: usize) -> Result<Range<usize>> {
        let (Some(offset), Some(count)) = (self.offsets.get(process), self.counts.get(process))
        else {
            return Err(out_of_range());
        };
        let start = usize::try_from(*offset).map_err(|_| out_of_range())?;
        let length = usize::try_from(*count).map_err(|_| out_of_range())?;
        Ok(start..start + length)
    }

    /// *Local.* The processes with any bytes, without `myself`, and their bytes.
    #[cfg(any(feature = "mpi", test))]
    pub(super) fn others(&self, myself: usize) -> Result<Vec<(usize, Range<usize>)>> {
        let counts = self.counts.iter().enumerate();
        counts
            .filter(|(process, count)| *process != myself && **count != 0)
            .map(|(process, _)| Ok((process, self.range(process)?)))
            .collect()
    }
}

/// A buffer and the parts in it.
#[derive(Debug)]
pub(super) struct Parted {
    /// At least as long as all parts together.
    pub(super) bytes: Vec<u8>,
    /// The parts, all inside `bytes`.
    pub(super) parts: Parts,
}

impl Parted {
    /// *Local.* The parts must lie in the buffer.
    pub(super) fn new(bytes: Vec<u8>, parts: Parts) -> Result<Self> {
        if parts.total <= bytes.len() {
            return Ok(Parted { bytes, parts });
        }
        let (need, have) = (parts.total, bytes.len());
        Err(Fault::new(
            Kind::Internal,
            format!("the parts of a round need {need} bytes, its buffer has {have}"),
        ))
    }
}

/// *Local.* Zeros for what is to come. A process without memory for it leaves the others in the call: it
/// is a fault as one of MPI's, which ends all.
pub(super) fn buffer(length: usize) -> Result<Vec<u8>> {
    zeroed(length).map_err(|fault| Fault {
        kind: Kind::Mpi,
        ..fault
    })
}

fn out_of_range() -> Fault {
    Fault::new(Kind::Internal, "the parts of a round are out of range")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_to_the_last_byte_a_c_integer_can() {
        let most = usize::try_from(i32::MAX).unwrap();
        let parts = Parts::new([1, most - 3, 0, 2].into_iter()).unwrap();
        assert_eq!(parts.total, most);
        assert_eq!(parts.range(3).unwrap(), most - 2..most);
        assert!(parts.range(4).is_err());
        assert!(Parts::new([1, most - 3, 0, 3].into_iter()).is_err());
        assert!(Parts::new([most + 1].into_iter()).is_err());
        assert!(Parted::new(vec![0; 2], Parts::new([3].into_iter()).unwrap()).is_err());
    }
}
