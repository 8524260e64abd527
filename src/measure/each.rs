//! Plans for many destinations of one source, several at a time. Local.

use crate::fault::Result;
use crate::measure::simulate::{Question, plan_telling};
use crate::measure::simulated::Simulated;
use crate::plan::simulate::Shapes;
use crate::strategy::Strategy;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread;

/// How far one plan is, of this: parts of it.
const WHOLE: u64 = 1000;

/// What is heard of a plan.
enum Heard {
    Part(usize, u64),
    Done(usize, Box<Result<Simulated>>),
}

/// Plans for `count` destinations, of which `make` gives the strategies, by as many threads as there are cores;
/// `tell` is told how much of it all is done, of how much. Local.
///
/// # Errors
/// Those of the first plan that fails, and of its strategy.
pub fn plan_each(
    question: &Question,
    shapes: &Shapes,
    source: Option<&Strategy>,
    count: usize,
    make: &(dyn Fn(usize) -> Result<Strategy> + Sync),
    tell: &mut dyn FnMut(u64, u64),
) -> Result<Vec<Simulated>> {
    let next = AtomicUsize::new(0);
    let work = |heard: Sender<Heard>| {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= count {
                break;
            }
            let mut part = |done: u64, of: u64| {
                // Nobody need hear it.
                let _ = heard.send(Heard::Part(number, done * WHOLE / of.max(1)));
            };
            let planned = make(number).and_then(|destination| {
                plan_telling(question, shapes, source, Some(destination), &mut part)
            });
            let failed = planned.is_err();
            let _ = heard.send(Heard::Done(number, Box::new(planned)));
            if failed {
                next.store(count, Ordering::Relaxed);
            }
        }
    };
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let (heard, told) = channel();
    let mut parts = vec![0; count];
    let mut planned: BTreeMap<usize, Result<Simulated>> = BTreeMap::new();
    thread::scope(|scope| {
        for _ in 0..threads.min(count) {
            let heard = heard.clone();
            scope.spawn(|| work(heard));
        }
        drop(heard);
        for heard in told {
            let (number, part) = match heard {
                Heard::Part(number, part) => (number, part),
                Heard::Done(number, done) => {
                    planned.insert(number, *done);
                    (number, WHOLE)
                }
            };
            if let Some(known) = parts.get_mut(number) {
                *known = part;
            }
            tell(parts.iter().sum(), WHOLE * count as u64);
        }
    });
    planned.into_values().collect()
}
