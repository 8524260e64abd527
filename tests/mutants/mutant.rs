//! The one mutant that is on: `SHARDLOOM_MUTANT`. With `SHARDLOOM_MUTANTS_MET` none is, and the file of that name has a
//! byte of 1 for each that was met.
#![allow(missing_docs, unreachable_pub, unsafe_code)]

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};

const NOT_READ: u32 = u32::MAX;
const ALL_MET: u32 = u32::MAX - 1;
const NONE: u32 = u32::MAX - 2;

static ON: AtomicU32 = AtomicU32::new(NOT_READ);
static MET: OnceLock<Option<memmap2::MmapRaw>> = OnceLock::new();

#[cold]
fn read() -> u32 {
    let met = MET.get_or_init(|| {
        let path = std::env::var_os("SHARDLOOM_MUTANTS_MET")?;
        let file = std::fs::OpenOptions::new().read(true).write(true).open(path).ok()?;
        memmap2::MmapRaw::map_raw(&file).ok()
    });
    let number = std::env::var("SHARDLOOM_MUTANT").ok();
    let number = number.and_then(|number| number.parse().ok()).unwrap_or(NONE);
    let on = if met.is_some() { ALL_MET } else { number };
    ON.store(on, Ordering::Relaxed);
    on
}

pub fn on(number: u32) -> bool {
    let mut on = ON.load(Ordering::Relaxed);
    if on == NOT_READ {
        on = read();
    }
    if let (ALL_MET, Some(Some(met))) = (on, MET.get()) {
        assert!((number as usize) < met.len());
        // SAFETY: it is inside of the map, and atomic for all processes that have it.
        unsafe { &*met.as_ptr().add(number as usize).cast::<AtomicU8>() }.store(1, Ordering::Relaxed);
    }
    on == number
}
