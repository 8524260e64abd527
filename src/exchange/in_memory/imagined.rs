//! A process alone in a world of many: the others are imagined. They tell what a test has them tell, and the same as
//! this process where it has them tell nothing else; what is sent to them is lost, and nothing comes from them.

use std::any::type_name;
use std::cell::{Cell, RefCell};
use std::time::{Duration, Instant};

/// What another process tells, as bytes, where this one tells `mine`, a value of the type that is named (or `bytes`); none:
/// the same.
pub(crate) type Others = dyn FnMut(&'static str, u32, &[u8]) -> Option<Vec<u8>>;

thread_local! {
    static OTHERS: RefCell<Option<Box<Others>>> = const { RefCell::new(None) };
    static SPOKEN_OF: Cell<Option<&'static str>> = const { Cell::new(None) };
    static SPENT: Cell<Duration> = const { Cell::new(Duration::ZERO) };
}

/// Has all other processes of this thread's be imagined from now on.
pub(crate) fn imagine(others: Box<Others>) {
    OTHERS.set(Some(others));
}

/// The time that imagining them has taken so far: the thread's own, where it isn't kept waiting.
pub(crate) fn imagining() -> Duration {
    SPENT.get()
}

/// Whether they are.
pub(super) fn is_alone() -> bool {
    OTHERS.with_borrow(Option::is_some)
}

/// What is gathered next are values of this type, after a byte.
pub(in crate::exchange) fn speak_of<T>() {
    SPOKEN_OF.set(Some(type_name::<T>()));
}

/// What all processes tell where this one, number `process` of `size`, tells `mine`; none if the others are real.
pub(in crate::exchange) fn told(process: u32, size: u32, mine: &[u8]) -> Option<Vec<Vec<u8>>> {
    let spoken_of = SPOKEN_OF.take();
    OTHERS.with_borrow_mut(|others| {
        let others = others.as_mut()?;
        let (mark, value) = mine.split_at(usize::from(spoken_of.is_some()).min(mine.len()));
        let of = spoken_of.unwrap_or("bytes");
        let told = |other: u32| match others(of, other, value) {
            Some(bytes) if other != process => [mark, &bytes[..]].concat(),
            _ => mine.to_vec(),
        };
        let begun = Instant::now();
        let all = (0..size).map(told).collect();
        SPENT.set(SPENT.get() + begun.elapsed());
        Some(all)
    })
}
