//! MPI's return codes made faults.

#![allow(unsafe_code)]

use crate::fault::{Fault, Kind, Result};
use mpi::ffi;

/// *Local.* Makes MPI's return code of `call` a fault.
pub(super) fn check(code: i32, call: &str) -> Result<()> {
    if code == 0 {
        return Ok(());
    }
    let mut text = vec![0_u8; 4096];
    let mut length = 0;
    // SAFETY: 4096 is more than any MPI's MPI_MAX_ERROR_STRING.
    unsafe { ffi::MPI_Error_string(code, text.as_mut_ptr().cast(), &raw mut length) };
    text.truncate(usize::try_from(length).unwrap_or(0));
    let text = String::from_utf8_lossy(&text).into_owned();
    Err(Fault::new(Kind::Mpi, format!("{call}: {text} ({code})")))
}
