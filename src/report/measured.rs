//! Simulations and measurements for people.

use crate::fault::plain::{Text, counted};
use crate::measure::simulate::Simulated;
use crate::report::text::bytes;

/// What a simulation found.
pub(super) fn simulated(simulated: &Simulated) -> Text {
    let mut out = Text::default();
    let s = simulated;
    out.line(format_args!(
        "simulate: {} to {}, {}; {} on {}, {} planned",
        s.source_ranks,
        counted(s.destination_ranks.into(), "rank"),
        counted(s.tensors, "tensor"),
        counted(s.processes.into(), "process"),
        counted(s.nodes.into(), "node"),
        s.processes_planned
    ));
    let b = &s.bytes;
    out.line(format_args!(
        "  read       {} ({} needed)",
        bytes(b.read),
        bytes(b.read_unique)
    ));
    out.line(format_args!(
        "  received   {}: {} from the same node, {} from others (at least {})",
        bytes(b.received),
        bytes(b.received_same_node),
        bytes(b.received_other_nodes),
        bytes(b.sent_lower_bound)
    ));
    out.line(format_args!("  sent       {}", bytes(b.sent)));
    out.line(format_args!(
        "  written    {} (largest share of all bytes {:.2} of the mean)",
        bytes(b.written),
        s.balance_max_over_mean
    ));
    out.line(format_args!(
        "  plan       {} transfers, {} partners at most, {} rounds; about {:.2} s on this machine",
        s.plan.transfers, s.partners_max, s.plan.rounds, s.plan.seconds_estimated
    ));
    for p in s.per_process.iter().take(8) {
        out.line(format_args!(
            "  process {:<5} reads {}, receives {} from {}, writes {}, {} transfers, {} rounds",
            p.process,
            bytes(p.read),
            bytes(p.received),
            p.partners,
            bytes(p.written),
            p.transfers,
            p.rounds
        ));
    }
    if s.per_process.len() > 8 {
        out.line(format_args!("  …          {} in all", s.processes_planned));
    }
    out.line(format_args!("  planning   {:.3} s for one process at most ({:.3} s reading, {:.3} s in all), {} of memory",
        s.seconds.plan,
        s.seconds.discover,
        s.seconds.total,
        bytes(s.memory_peak_bytes_max)));
    out
}
