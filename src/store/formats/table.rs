//! The formats: a line each.

use super::ckpt::Ckpt;
use super::dcp::Distcp;
use super::foreign::{
    archive, damaged, deepspeed, distributed, encrypted, gguf, link, megatron, numpy, others, page,
    pickle, pointer, strategy, tensorflow, torch,
};
use super::row::{FileFormat, Foreign};
use super::safetensors::Safetensors;
use super::torch::TorchFile;

/// Formats whose files are read.
pub(super) static FILES: &[&dyn FileFormat] = &[&Safetensors, &Ckpt, &TorchFile, &Distcp];

/// What is known by sight. The first that fits is told, so the particular stands before the general.
pub(super) static FOREIGN: &[&Foreign] = &[
    &damaged::EMPTY,
    &damaged::ZEROS,
    &pointer::GIT_LFS,
    &encrypted::MINDSPORE,
    &strategy::MINDSPORE,
    &deepspeed::ZERO,
    &megatron::RANKS,
    &distributed::TORCH,
    &torch::LEGACY,
    &pickle::PICKLE,
    &gguf::GGUF,
    &numpy::NUMPY,
    &tensorflow::HDF5,
    &archive::ARCHIVE,
    &others::OTHERS,
    &page::HTML,
    &page::JSON,
    &link::LINK,
    &page::TEXT,
];
