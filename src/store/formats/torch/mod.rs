//! What `torch.save` writes: a zip archive of a pickle and of the storages that it names.
//!
//! Tensors are read by their offsets in the storages; several may share one, and lie in it with any strides.

mod archive;
mod file;
mod gather;
mod tensor;
#[cfg(test)]
mod tests;
mod zip;

pub(super) use archive::{Saved, seals_of_all};
pub(super) use file::TorchFile;
pub(super) use gather::{Shown, gather, shown};
pub(super) use tensor::{StoredTensor, dtype_of, names_of, tensor};
