//! Why a header is none of a file's.

use crate::fault::{Fault, Kind};
use ::safetensors::SafeTensorError;
use ::safetensors::tensor::TensorInfo;

/// Why a header's tensors don't make a file; two that are of the same bytes are named.
pub(super) fn refused(tensors: &[(String, TensorInfo)], error: &SafeTensorError) -> Fault {
    let corrupt = |message| Fault::new(Kind::Corrupt, message);
    if let Some((name, why)) = tensors.iter().find_map(misfit) {
        return corrupt(format!("header is wrong: {why}")).tensor(name);
    }
    let other = || format!("header is wrong: {error}");
    let SafeTensorError::InvalidOffset(name) = error else {
        return corrupt(other());
    };
    let Some((_, this)) = tensors.iter().find(|(known, _)| known == name) else {
        return corrupt(other());
    };
    let (begin, end) = this.data_offsets;
    let shares = |(known, that): &&(String, TensorInfo)| {
        let (from, to) = that.data_offsets;
        known != name && from < end && begin < to
    };
    let Some((second, that)) = tensors.iter().find(shares) else {
        return corrupt(other());
    };
    let which = match that.data_offsets == this.data_offsets {
        true => "the same bytes",
        false => "some of the same bytes",
    };
    corrupt(format!(
        "header is wrong: '{name}' and '{second}' are of {which}"
    ))
    .hint("save each with bytes of its own: save_file(…) of a clone of one, or save_model(…)")
}

/// A tensor that doesn't fill its own bytes, and why.
fn misfit((name, info): &(String, TensorInfo)) -> Option<(&str, String)> {
    let (begin, end) = info.data_offsets;
    let elements = info
        .shape
        .iter()
        .try_fold(1_usize, |all, size| all.checked_mul(*size));
    let bits = elements.and_then(|elements| elements.checked_mul(info.dtype.bitsize()));
    let is = format!("a tensor {} of {:?}", info.dtype, info.shape);
    let why = match bits {
        None => format!("{is} is larger than any file"),
        Some(bits) if bits % 8 != 0 => format!("{is} doesn't fill whole bytes"),
        Some(bits) if end.checked_sub(begin) != Some(bits / 8) => {
            format!(
                "{is} has {} bytes, its place is from byte {begin} to {end}",
                bits / 8
            )
        }
        Some(_) => return None,
    };
    Some((name, why))
}
