//! Moves the bytes of a process's share: directly, or in rounds with the others.

use crate::exchange::{Alarm, Progress, agree};
use crate::fault::Result;
use crate::transport::exchange::Exchange;
use crate::transport::mover::{Moved, Mover, Observer};

/// Moves everything. Collective; `exchange` says, the same on all processes, whether anything
/// has to be sent.
///
/// # Errors
/// The same on every process.
pub fn run(
    mover: &Mover<'_>,
    exchange: Option<Exchange>,
    observer: &mut Observer<'_>,
) -> Result<Moved> {
    let mut progress = Progress::start(mover.world);
    let alarm = Alarm::of(mover.world);
    let result = match exchange {
        None => mover.direct(&alarm, &mut progress, observer),
        Some(exchange) => mover.in_rounds(exchange, &mut progress, observer),
    };
    let result = result.and_then(|moved| mover.sink.finish().map(|()| moved));
    if exchange.is_none() && result.is_err() {
        alarm.raise();
    }
    let moved = agree(mover.world, result);
    // What was reported is heard, whatever has come of it: no message stays under way.
    let told = progress.finish();
    let moved = moved?;
    // What wasn't moved now was there already.
    let whole = told?.max(mover.total_bytes);
    observer(whole, whole);
    Ok(moved)
}
