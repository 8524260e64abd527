//! Simulations and measurements for people.

use crate::fault::plain::{Text, counted};
use crate::measure::simulate::Simulated;
use crate::report::text::{bytes, crossing, uneven};

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
        "  received   {}: {} from the same node, {} from others{}",
        bytes(b.received),
        bytes(b.received_same_node),
        bytes(b.received_other_nodes),
        crossing(s.nodes, b.sent_lower_bound)
    ));
    out.line(format_args!("  sent       {}", bytes(b.sent)));
    out.line(format_args!(
        "  written    {}{}",
        bytes(b.written),
        uneven(s.balance_max_over_mean)
    ));
    out.line(format_args!(
        "  plan       {}, {} at most, {}; about {:.2} s on this machine",
        counted(s.plan.transfers, "transfer"),
        counted(s.partners_max, "partner"),
        counted(s.plan.rounds, "round"),
        s.plan.seconds_estimated
    ));
    for p in s.per_process.iter().take(8) {
        out.line(format_args!(
            "  process {:<5} reads {}, receives {} from {}, writes {}, {}, {}",
            p.process,
            bytes(p.read),
            bytes(p.received),
            counted(p.partners, "process"),
            bytes(p.written),
            counted(p.transfers, "transfer"),
            counted(p.rounds, "round")
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
