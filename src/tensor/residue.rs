//! Bytes as polynomials: their residue, and what becomes of it with bytes that follow.

use crc_fast::{CrcAlgorithm, Digest};
use std::sync::OnceLock;

/// The polynomial of CRC-64/NVME without its highest term, lowest bit first.
const POLYNOMIAL: u64 = 0x9a6c_9329_ac4b_c9b5;

/// The polynomial 1: bits stand for powers of x, the highest bit for x^0.
pub(super) const ONE: u64 = 1 << 63;

/// Fewer bytes than this are digested by table.
const BYTES_BY_TABLE: usize = 64;

/// The residue of `bytes`; 0 for none.
#[must_use]
pub fn residue(bytes: &[u8]) -> u64 {
    if bytes.len() < BYTES_BY_TABLE {
        return short_residue(bytes);
    }
    let mut digest = Digest::new_with_init_state(CrcAlgorithm::Crc64Nvme, 0);
    digest.update(bytes);
    digest.get_state()
}

/// As [`residue`], for bytes that are too few for the long way to pay: eight at a time by table.
pub(super) fn short_residue(bytes: &[u8]) -> u64 {
    static STEPS: OnceLock<[Box<Table>; 2]> = OnceLock::new();
    let [one, eight] = STEPS.get_or_init(|| [1, 8].map(|bytes| Table::new(power(bytes))));
    let (words, rest) = bytes.as_chunks::<8>();
    let sum = words
        .iter()
        .fold(0, |sum, word| eight.times(sum ^ u64::from_le_bytes(*word)));
    rest.iter().fold(sum, |sum, byte| {
        (sum >> 8) ^ one.0[0][usize::from(sum.to_le_bytes()[0] ^ byte)]
    })
}

/// The CRC of `length` bytes whose residue is `residue`.
#[must_use]
pub fn finish(residue: u64, length: u64) -> u64 {
    !(residue ^ shift(u64::MAX, length))
}

/// The residue of `length` bytes whose CRC is `crc`.
#[must_use]
pub fn residue_of_crc(crc: u64, length: u64) -> u64 {
    !crc ^ shift(u64::MAX, length)
}

/// The CRC of `bytes`.
#[must_use]
pub fn checksum(bytes: &[u8]) -> u64 {
    finish(residue(bytes), bytes.len() as u64)
}

/// The contribution of bytes with this `residue` that end `bytes` before the end of the whole.
#[must_use]
pub fn shift(residue: u64, bytes: u64) -> u64 {
    if residue == 0 || bytes == 0 {
        residue
    } else {
        multiply(residue, power(bytes))
    }
}

fn times_x(value: u64) -> u64 {
    (value >> 1) ^ if value & 1 == 1 { POLYNOMIAL } else { 0 }
}

/// `value * x^4` of values below x^4 that are shifted out.
fn overflow() -> &'static [u64; 16] {
    static OVERFLOW: OnceLock<[u64; 16]> = OnceLock::new();
    OVERFLOW.get_or_init(|| {
        std::array::from_fn(|low| {
            let low = u64::try_from(low).unwrap_or_default();
            (0..4).fold(low, |value, _| times_x(value))
        })
    })
}

/// The product of two polynomials, modulo ours: four bits at a time.
pub(super) fn multiply(a: u64, b: u64) -> u64 {
    let overflow = overflow();
    // Multiples of `b` by polynomials below x^4; the highest of four bits is x^0.
    let mut multiples = [0u64; 16];
    let mut shifted = b;
    for bit in [8usize, 4, 2, 1] {
        multiples[bit] = shifted;
        shifted = times_x(shifted);
    }
    for at in [3usize, 5, 6, 7, 9, 10, 11, 12, 13, 14, 15] {
        let lowest = at & at.wrapping_neg();
        multiples[at] = multiples[lowest] ^ multiples[at ^ lowest];
    }
    let nibble = |value: u64| usize::try_from(value & 15).unwrap_or_default();
    let mut product = 0;
    for place in 0..16 {
        // From the lowest bits, the highest powers, upwards.
        product = (product >> 4) ^ overflow[nibble(product)];
        product ^= multiples[nibble(a >> (4 * place))];
    }
    product
}

/// x^(8 n) for n = every value of every byte of a number.
fn powers() -> &'static [[u64; 256]; 8] {
    static POWERS: OnceLock<Box<[[u64; 256]; 8]>> = OnceLock::new();
    POWERS.get_or_init(|| {
        let mut table = Box::new([[ONE; 256]; 8]);
        let mut base = ONE >> 8;
        for row in table.iter_mut() {
            for value in 1..256 {
                row[value] = multiply(row[value - 1], base);
            }
            base = multiply(row[255], base);
        }
        table
    })
}

/// x^(8 `bytes`).
pub(super) fn power(bytes: u64) -> u64 {
    let mut product = ONE;
    for (row, byte) in powers().iter().zip(bytes.to_le_bytes()) {
        if byte != 0 {
            let factor = row[usize::from(byte)];
            product = if product == ONE {
                factor
            } else {
                multiply(product, factor)
            };
        }
    }
    product
}

/// Multiplication by one constant, a byte at a time.
pub(super) struct Table([[u64; 256]; 8]);

impl Table {
    /// That by `factor`.
    pub(super) fn new(factor: u64) -> Box<Table> {
        let mut table = Box::new(Table([[0; 256]; 8]));
        let mut product = factor;
        for row in table.0.iter_mut().rev() {
            for bit in (0..8).rev() {
                row[1 << bit] = product;
                product = times_x(product);
            }
            for at in 1..256usize {
                let lowest = at & at.wrapping_neg();
                row[at] = row[lowest] ^ row[at ^ lowest];
            }
        }
        table
    }

    /// The product with `value`.
    pub(super) fn times(&self, value: u64) -> u64 {
        let bytes = value.to_le_bytes().into_iter();
        let parts = self.0.iter().zip(bytes);
        parts.fold(0, |sum, (row, byte)| sum ^ row[usize::from(byte)])
    }
}
