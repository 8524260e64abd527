//! A simulation as a page.

use crate::fault::plain::counted;
use crate::measure::simulate::Simulated;
use crate::report::shares::{counts, processes, tensors, traffic};
use crate::report::sheet::{Sheet, Table};
use crate::report::text::bytes;

/// The page.
pub(super) fn page(simulated: &Simulated) -> String {
    let s = simulated;
    let mut sheet = Sheet::new("shardloom simulate");
    sheet.say(&format!(
        "Planned {} from {} to {}, on {} of {}: {} read, {} received, {} written; about {:.2} s on this machine. \
         Nothing was moved.",
        counted(s.tensors, "tensor"),
        counted(s.source_ranks.into(), "rank"),
        counted(s.destination_ranks.into(), "rank"),
        counted(s.processes.into(), "process"),
        counted(s.nodes.into(), "node"),
        bytes(s.bytes.read),
        bytes(s.bytes.received),
        bytes(s.bytes.written),
        s.plan.seconds_estimated
    ));
    let b = &s.bytes;
    let rows = [
        ("needed", b.read_unique),
        ("read", b.read),
        ("received", b.received),
        ("from the same node", b.received_same_node),
        ("from other nodes", b.received_other_nodes),
        ("must cross nodes", b.sent_lower_bound),
        ("written", b.written),
    ];
    let planned = counted(s.processes_planned.into(), "process");
    let caption = format!("Bytes of {planned} together");
    counts(&mut sheet, "bytes by what becomes of them", &caption, &rows);
    let mut table = Table::new(&["of the plan", ""]);
    table.row(["transfers".to_owned(), s.plan.transfers.to_string()]);
    table.row(["rounds".to_owned(), s.plan.rounds.to_string()]);
    table.row([
        "partners of a process, at most".to_owned(),
        s.partners_max.to_string(),
    ]);
    table.row([
        "largest share of a process, of the mean".to_owned(),
        format!("{:.2}", s.balance_max_over_mean),
    ]);
    sheet.table("Of the plan", &table);
    if let Some(account) = &s.account {
        processes(&mut sheet, account);
        traffic(&mut sheet, account);
        tensors(&mut sheet, &account.sketches);
    }
    sheet.finish()
}
