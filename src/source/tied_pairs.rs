//! The pairs of an adapter for a head and an embedding that are one.

use crate::catalog::{Entry, FileSchema};
use crate::fault::memory::zeroed;
use crate::fault::{Fault, Kind, Result};
use crate::plan::lora_tied::{Tied, Turned, for_both};
use crate::store::io::ReadFile;
use std::collections::BTreeSet;

/// Most bytes of a tensor that are looked at in one go.
const BLOCK_BYTES: u64 = 4 << 20;

/// Takes the head's pair out of `schema`, where `tied` keeps head and embedding one and the file has a pair for each:
/// A of the one must be B of the other, transposed, as where an adapter was trained as one for both. Local.
///
/// # Errors
/// [`Kind::Unsupported`] if they are others, or the head's is alone, naming it; [`Kind::Io`].
pub(super) fn joined(file: &ReadFile, schema: FileSchema, tied: &Tied) -> Result<FileSchema> {
    let [head, embedding] = tied.pairs(&schema);
    let Some([a, b]) = head.filter(|_| !tied.parted) else {
        return Ok(schema);
    };
    let one = "by tie_word_embeddings of config.json the two are one";
    let refuse = |message: String| {
        let fault = Fault::new(Kind::Unsupported, message).tensor(&*a.name);
        fault.hint(
            "--untie gives the model a head of its own, as PEFT says to do before such is merged",
        )
    };
    let Some([embedding_a, embedding_b]) = embedding else {
        return Err(refuse(format!(
            "is for '{}', and there is none for '{}': {one}, and the change would be lost",
            tied.head, tied.embedding
        )));
    };
    if !turned(file, a, embedding_b)? || !turned(file, embedding_a, b)? {
        return Err(refuse(format!(
            "is for '{}', and there is another pair for '{}': {one}",
            tied.head, tied.embedding
        )));
    }
    schema.without(&BTreeSet::from([&*a.name, &*b.name]))
}

/// Takes what `schema` has for a head out of it, if that is what it has for the embedding, too; `None` if it isn't. Local.
///
/// # Errors
/// [`Kind::Io`].
pub(super) fn one_for_both(file: &ReadFile, schema: &FileSchema) -> Result<Option<FileSchema>> {
    let Some(all) = for_both(schema) else {
        return Ok(None);
    };
    for both in &all {
        let alike = match both.turned {
            Turned::No => same(file, both.head, both.embedding)?,
            Turned::Wide => turned(file, both.head, both.embedding)?,
            Turned::Tall => turned(file, both.embedding, both.head)?,
        };
        if !alike {
            return Ok(None);
        }
    }
    let heads = all.iter().map(|both| &*both.head.name).collect();
    schema.without(&heads).map(Some)
}

/// Whether two tensors are the same, bit for bit. Local.
fn same(file: &ReadFile, one: &Entry, other: &Entry) -> Result<bool> {
    if (&one.shape, one.dtype) != (&other.shape, other.dtype) {
        return Ok(false);
    }
    let end = one.bytes();
    for begin in (0..end).step_by(index(BLOCK_BYTES)) {
        let range = [begin, end.min(begin + BLOCK_BYTES)];
        if read(file, one, range)? != read(file, other, range)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether a matrix is the other one transposed, bit for bit. Local.
fn turned(file: &ReadFile, wide: &Entry, tall: &Entry) -> Result<bool> {
    turned_in(BLOCK_BYTES, file, wide, tall)
}

/// The same, looking at so many bytes in one go.
fn turned_in(block: u64, file: &ReadFile, wide: &Entry, tall: &Entry) -> Result<bool> {
    let ([rank, columns], [rows, width]) = (&wide.shape.0[..], &tall.shape.0[..]) else {
        return Ok(false);
    };
    if (rank, columns, wide.dtype) != (width, rows, tall.dtype) || *rank == 0 {
        return Ok(false);
    }
    let bytes = u64::from(wide.dtype.bits() / 8);
    let each = (block / (rank * bytes).max(1)).max(1);
    for from in (0..*columns).step_by(usize::try_from(each).unwrap_or(usize::MAX)) {
        let to = columns.min(&(from + each)).to_owned();
        let below = read(file, tall, [from * rank * bytes, to * rank * bytes])?;
        for row in 0..*rank {
            let begin = row * columns * bytes;
            let beside = read(file, wide, [begin + from * bytes, begin + to * bytes])?;
            let (size, step, first) = (index(bytes), index(rank * bytes), index(row * bytes));
            let same = |(number, element): (usize, &[u8])| {
                let begin = number * step + first;
                below.get(begin..begin + size) == Some(element)
            };
            if !beside.chunks(size.max(1)).enumerate().all(same) {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

/// A length that fits memory, as all that is read here does.
fn index(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

/// Bytes of a tensor. Local.
fn read(file: &ReadFile, entry: &Entry, [begin, end]: [u64; 2]) -> Result<Vec<u8>> {
    let mut bytes = zeroed(index(end.saturating_sub(begin)))?;
    entry.locate(begin..end, |at, range| {
        let part = index(range.start - begin)..index(range.end - begin);
        match bytes.get_mut(part) {
            Some(part) => file.read_at(part, at),
            None => Ok(()),
        }
    })?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Format;
    use safetensors::tensor::TensorView;

    #[test]
    fn a_matrix_is_the_other_one_turned_however_many_blocks_it_takes() {
        let wide: Vec<u8> = (0..3 * 10 * 2).collect();
        let element = |row: usize, column: usize| &wide[(row * 10 + column) * 2..][..2];
        let all = (0..10).flat_map(|column| (0..3).map(move |row| (row, column)));
        let tall: Vec<u8> = all
            .flat_map(|(row, column)| element(row, column).to_vec())
            .collect();
        let room = tempfile::tempdir().unwrap();
        let path = room.path().join("pair.safetensors");
        // Each element is another one once.
        for odd in (0..=30).map(|odd| (odd < 30).then_some(odd)) {
            let mut tall = tall.clone();
            if let Some(odd) = odd {
                tall[odd * 2 + 1] ^= 1;
            }
            let view = |shape: [usize; 2], bytes| {
                TensorView::new(safetensors::Dtype::F16, shape.to_vec(), bytes).unwrap()
            };
            let tensors = [
                ("wide", view([3, 10], &wide)),
                ("tall", view([10, 3], &tall)),
            ];
            safetensors::serialize_to_file(tensors, None, &path).unwrap();
            let file = ReadFile::open(&path).unwrap();
            let schema = Format::recognise(&file).unwrap().read(&file).unwrap();
            let [wide, tall] = ["wide", "tall"].map(|name| schema.get(name).unwrap());
            for block in [1, 6, 12, 24, 1000] {
                let found = turned_in(block, &file, wide, tall).unwrap();
                assert_eq!(found, odd.is_none(), "{odd:?} in blocks of {block} bytes");
            }
            assert_eq!(turned(&file, tall, wide).unwrap(), odd.is_none(), "{odd:?}");
        }
    }
}
