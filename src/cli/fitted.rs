//! Hints in the words of the command that was typed: not all commands have the flags that a hint names.

use crate::fault::Fault;

/// The fault, with its hint for `command`.
pub(super) fn fitted(command: &str, mut fault: Fault) -> Fault {
    const STRATEGY: &str = "--src-strategy";
    let Some(hint) = fault.hint.take() else {
        return fault;
    };
    let hint = match command {
        "diff" => hint.replace(STRATEGY, "--a-strategy or --b-strategy"),
        "split" if hint.contains(STRATEGY) => {
            "split takes full weights; `shardloom reshard` takes rank directories and their strategy".into()
        }
        _ => hint,
    };
    fault.hint(hint)
}
