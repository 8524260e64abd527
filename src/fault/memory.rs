//! Memory that the system may refuse.
//!
//! What is large is asked for by [`zeroed`], [`provide`] and [`grow`], and a refusal is a fault like any other. Of
//! what is small nobody can be asked at each place: a program whose allocator is [`Careful`] ends with
//! an error where it would else be aborted. A library in C that is refused memory aborts by itself:
//! what it is asked for then is said as well.

use crate::fault::{Fault, Kind, Result};
use rustix::mm::{Advice, MapFlags, ProtFlags};
use signal_hook::consts::SIGABRT;
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io::Write;
use std::os::fd::AsFd;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Once, OnceLock};
use std::time::Duration;

/// What to do where memory is refused.
const HINT: &str = "a smaller --memory, fewer --threads, or fewer processes on a node; `ulimit -v` and \
                    a container's limits say how much there may be";

/// What the system calls a huge page, on most processors.
const LARGE_PAGE: usize = 2 << 20;

/// That the system gives no `bytes` more.
#[must_use]
pub fn refused(bytes: usize) -> Fault {
    let message = format!("the system refuses {bytes} more bytes of memory");
    Fault::new(Kind::Memory, message).hint(HINT)
}

/// `length` zeros.
///
/// # Errors
/// [`Kind::Memory`].
pub fn zeroed(length: usize) -> Result<Vec<u8>> {
    // The system gives them as they are written to.
    ASKS.set(true);
    let given = bytemuck::allocation::try_zeroed_vec(length);
    ASKS.set(false);
    let mut given = given.map_err(|()| refused(length))?;
    in_large_pages(&mut given);
    Ok(given)
}

/// Asks the system to give `bytes` in large pages: as they are written to the first time there are fewer interruptions.
fn in_large_pages(bytes: &mut [u8]) {
    let first = bytes.as_ptr().align_offset(LARGE_PAGE);
    let Some(within) = bytes.get_mut(first..) else {
        return;
    };
    let length = within.len() / LARGE_PAGE * LARGE_PAGE;
    if length == 0 {
        return;
    }
    let place = within.as_mut_ptr().cast();
    #[allow(unsafe_code, reason = "the system is told a place in memory")]
    // SAFETY: whole pages inside of `bytes`; what is in them stays.
    let advised = unsafe { rustix::mm::madvise(place, length, Advice::LinuxHugepage) };
    if let Err(error) = advised {
        tracing::trace!("no large pages: {error}");
    }
}

/// Makes `bytes` at least as long as `length`; what is in them is lost.
///
/// # Errors
/// [`Kind::Memory`].
pub fn provide(bytes: &mut Vec<u8>, length: usize) -> Result<()> {
    if bytes.len() < length {
        // Not both at once.
        drop(std::mem::take(bytes));
        // What isn't written to takes no memory, and buffers that grow a little every time would be new each time.
        let more = length.checked_next_power_of_two().unwrap_or(length);
        *bytes = zeroed(more).or_else(|_| zeroed(length))?;
    }
    Ok(())
}

/// Makes `values` as long as `length`, with zeros where they are longer than before.
///
/// # Errors
/// [`Kind::Memory`]; then they are as before.
pub fn grow<T: Clone + Default>(values: &mut Vec<T>, length: usize) -> Result<()> {
    room(values, length)?;
    values.resize(length, T::default());
    Ok(())
}

/// Makes room in `values` for `length` of them altogether.
///
/// # Errors
/// [`Kind::Memory`]; then they are as before.
pub fn room<T>(values: &mut Vec<T>, length: usize) -> Result<()> {
    let more = length.saturating_sub(values.len());
    ASKS.set(true);
    let given = values.try_reserve_exact(more);
    ASKS.set(false);
    given.map_err(|_| refused(length.saturating_mul(size_of::<T>())))
}

/// Whether the system would give `bytes` more. They are not touched.
///
/// # Errors
/// [`Kind::Memory`].
pub fn spare(bytes: usize) -> Result<()> {
    room(&mut Vec::<u8>::new(), bytes)
}

thread_local! {
    /// Whether this thread can bear that memory is refused.
    static ASKS: Cell<bool> = const { Cell::new(false) };
}

/// Whether a thread says the last words.
static ENDING: AtomicBool = AtomicBool::new(false);

/// What is said where memory is refused: on stderr, before and after the number of bytes; on stdout.
static LAST_WORDS: [OnceLock<[String; 3]>; 2] = [const { OnceLock::new() }; 2];

/// Prepares what the end by [`Careful`] says, while there is memory for it: to stderr what `error`
/// makes of a fault, and `result` of one on stdout. Once before the process is known, and once after.
pub fn prepare(error: impl Fn(&Fault) -> String, result: impl Fn(&Fault) -> Option<String>) {
    // A number that stands nowhere else in the text.
    let mark = usize::MAX;
    let said = error(&refused(mark));
    let (before, after) = said.split_once(&mark.to_string()).unwrap_or((&said, ""));
    let fault = Fault::new(Kind::Memory, "the system refuses more memory").hint(HINT);
    let told = result(&fault).unwrap_or_default();
    let words = [before.to_owned(), after.to_owned(), told];
    let free = LAST_WORDS.iter().find(|words| words.get().is_none());
    if let Some(free) = free {
        // What is there already stays.
        let _ = free.set(words);
    }
    // Its buffer is made now.
    let _ = std::io::stdout().flush();
    static HEARS: Once = Once::new();
    HEARS.call_once(hear_aborts);
}

/// How much memory is asked for to know whether an abort comes of a refusal, in bytes: what the C
/// library takes at once for a thread's small allocations.
const ARENA: usize = 64 << 20;

/// Ends the process with an error where a library aborts it because the system gives no more memory, as
/// the C library does for a few bytes of a thread's own. Other aborts stay what they are.
#[allow(unsafe_code, reason = "what a handler of a signal may do is a promise")]
fn hear_aborts() {
    let refused = || {
        // SAFETY: a new mapping that nobody uses; the call is the kernel's, no lock is taken.
        let given = unsafe {
            let flags = MapFlags::PRIVATE;
            rustix::mm::mmap_anonymous(null_mut(), ARENA, ProtFlags::READ, flags)
        };
        if given.is_err() {
            end(ARENA);
        }
    };
    // SAFETY: neither memory nor a lock is asked for: a mapping, writes to descriptors and an exit. The
    // process dies behind it in any case.
    let heard = unsafe { signal_hook::low_level::register(SIGABRT, refused) };
    if let Err(error) = heard {
        tracing::debug!("an abort for want of memory will not be said: {error}");
    }
}

/// The system's allocator, but that a refusal which nobody can bear ends the process with code 1.
#[derive(Debug)]
pub struct Careful;

impl Careful {
    fn checked(place: *mut u8, bytes: usize) -> *mut u8 {
        if place.is_null() && !ASKS.try_with(Cell::get).unwrap_or_default() {
            end(bytes);
        }
        place
    }
}

/// Says the last words, without any memory, and ends this process; its launcher ends the others.
#[cold]
fn end(bytes: usize) {
    if ENDING.swap(true, Ordering::Relaxed) {
        // Another thread speaks, and ends this one too.
        std::thread::sleep(Duration::from_secs(60));
    }
    let known = LAST_WORDS.iter().rev().find_map(OnceLock::get);
    let Some([before, after, told]) = known else {
        return;
    };
    let mut text = [0_u8; 2048];
    let whole = text.len();
    let mut rest = &mut text[..];
    let _ = write!(rest, "{before}{bytes}{after}");
    let left = rest.len();
    let _ = rustix::io::write(std::io::stderr().as_fd(), &text[..whole - left]);
    if !told.is_empty() {
        let _ = rustix::io::write(std::io::stdout().as_fd(), told.as_bytes());
    }
    signal_hook::low_level::exit(1);
}

#[allow(unsafe_code, reason = "an allocator is a promise to the compiler")]
// SAFETY: every call is the system allocator's; a null that it gives is given on, or the process ends.
unsafe impl GlobalAlloc for Careful {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as the caller promises.
        Careful::checked(unsafe { System.alloc(layout) }, layout.size())
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as the caller promises.
        Careful::checked(unsafe { System.alloc_zeroed(layout) }, layout.size())
    }

    unsafe fn realloc(&self, place: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as the caller promises.
        Careful::checked(unsafe { System.realloc(place, layout, size) }, size)
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(place, layout) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // proves P69
    #[test]
    fn a_refusal_is_a_fault_and_changes_nothing() {
        let mut bytes = vec![1_u8, 2, 3];
        for length in [usize::MAX, usize::MAX / 2 - 7, 1 << 60] {
            let fault = grow(&mut bytes, length).unwrap_err();
            assert_eq!(fault.kind, Kind::Memory);
            assert!(fault.message.contains(&length.to_string()), "{fault}");
            assert_eq!(bytes, [1, 2, 3]);
        }
        grow(&mut bytes, 5).unwrap();
        assert_eq!(bytes, [1, 2, 3, 0, 0]);
        assert_eq!(zeroed(3).unwrap(), [0; 3]);
        assert_eq!(zeroed(0).unwrap(), [0; 0]);
        for length in [usize::MAX, usize::MAX / 2 - 7, 1 << 60] {
            assert_eq!(zeroed(length).unwrap_err().kind, Kind::Memory);
        }
        for length in [7, 2, 9] {
            provide(&mut bytes, length).unwrap();
            assert!(bytes.len() >= length);
        }
    }
}
