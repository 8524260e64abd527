//! A sink into buffers that the caller owns.

use crate::catalog::{Catalog, Entry, Place};
use crate::fault::{Fault, Kind, Result, nearest};
use crate::tensor::dtype::Dtype;
use crate::transport::sink::Sink;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// A tensor of the caller's that is to be filled with a rank's shard.
#[derive(Debug)]
#[non_exhaustive]
pub struct Buffer<'a> {
    /// Name of the tensor, as the destination has it.
    pub name: String,
    /// Element type that the bytes will have.
    pub dtype: Dtype,
    /// Shape of the rank's shard, in elements: `[rows, columns]` …
    pub shape: Vec<u64>,
    /// Where the shard goes: row-major, exactly as long as the shape says.
    pub bytes: &'a mut [u8],
}

impl<'a> Buffer<'a> {
    /// A buffer for the shard of `name`.
    pub fn new(name: &str, dtype: Dtype, shape: &[u64], bytes: &'a mut [u8]) -> Self {
        Buffer {
            name: name.to_owned(),
            dtype,
            shape: shape.to_vec(),
            bytes,
        }
    }
}

/// Puts the bytes of a rank's tensors into buffers.
pub struct MemorySink<'a> {
    places: HashMap<Place, Mutex<&'a mut [u8]>>,
}

impl<'a> MemorySink<'a> {
    /// Pairs the tensors that `catalog` has for `rank` with `buffers`, by name.
    ///
    /// # Errors
    /// [`Kind::UnknownTensor`] for a buffer that no tensor fills and for a tensor without a buffer,
    /// [`Kind::Dtype`] and [`Kind::Shape`] if they don't fit each other, [`Kind::Usage`] for two
    /// buffers of one name.
    pub fn new(catalog: &Catalog, rank: u32, buffers: &'a mut [Buffer<'_>]) -> Result<Self> {
        let mut places = HashMap::new();
        for buffer in buffers {
            let name = buffer.name.as_str();
            let place = catalog.find(rank, name).ok_or_else(|| {
                let known = catalog.ranks.values().flatten();
                let known = known.flat_map(|file| file.schema.entries.iter().map(|e| &*e.name));
                let hint = format!("nearest names: {}", nearest(name, known).join(", "));
                let message = "is no tensor of this rank: nothing would fill its buffer";
                Fault::new(Kind::UnknownTensor, message)
                    .tensor(name)
                    .rank(rank)
                    .hint(hint)
            })?;
            fits(buffer, catalog.entry(place)).map_err(|f| f.tensor(name).rank(rank))?;
            if places
                .insert(place, Mutex::new(&mut *buffer.bytes))
                .is_some()
            {
                let fault = Fault::new(Kind::Usage, "two buffers have this name");
                return Err(fault.tensor(buffer.name.as_str()));
            }
        }
        let files = catalog.ranks.get(&rank).into_iter().flatten();
        for entry in files.flat_map(|file| &file.schema.entries) {
            let place = catalog.find(rank, &entry.name);
            if !place.is_some_and(|place| places.contains_key(&place)) {
                let fault = Fault::new(Kind::UnknownTensor, "has no buffer to go to");
                let fault = fault.tensor(&*entry.name).rank(rank);
                return Err(fault.hint("give each tensor a buffer, or leave it out by its name"));
            }
        }
        Ok(MemorySink { places })
    }
}

fn fits(buffer: &Buffer<'_>, entry: &Entry) -> Result<()> {
    let (dtype, shape, bytes) = (entry.dtype, &entry.shape.0, entry.bytes());
    if buffer.dtype != dtype {
        let message = format!("is {dtype}, its buffer is for {}", buffer.dtype);
        return Err(Fault::new(Kind::Dtype, message));
    }
    if buffer.shape != *shape || buffer.bytes.len() as u64 != bytes {
        let message = format!(
            "this rank's shard is {shape:?} of {bytes} bytes, its buffer is {:?} of {} bytes",
            buffer.shape,
            buffer.bytes.len()
        );
        return Err(Fault::new(Kind::Shape, message));
    }
    Ok(())
}

impl Sink for MemorySink<'_> {
    fn put(&self, place: Place, offset: u64, bytes: &[u8]) -> Result<()> {
        let outside = || Fault::new(Kind::Internal, "bytes outside a buffer").rank(place.rank);
        let buffer = self.places.get(&place).ok_or_else(outside)?;
        let mut buffer = buffer.lock().unwrap_or_else(PoisonError::into_inner);
        let begin = usize::try_from(offset).map_err(|_| outside())?;
        let end = begin.checked_add(bytes.len()).ok_or_else(outside)?;
        let target = buffer.get_mut(begin..end).ok_or_else(outside)?;
        target.copy_from_slice(bytes);
        Ok(())
    }
}
