//! Lanes and warps that do not meet where they must, and those that wait for ever: what is said of them.

use super::finding::FindingKind;
use crate::monitor::Fault;

/// The kind and message of such a fault; None if it is of another kind.
pub fn describe(fault: Fault<'_>) -> Option<(FindingKind, String)> {
    use FindingKind::{DivergentBarrier, DivergentWarp, NeverEnds};
    Some(match fault {
        Fault::DividedAtBarrier { here, missing } => (
            DivergentBarrier,
            format!("lanes {here:#010x} of the warp reach the barrier, lanes {missing:#010x} do not"),
        ),
        Fault::OtherMembers { named, here } => (
            DivergentWarp,
            format!("members {named:#010x} but the lanes that execute this together are {here:#010x}"),
        ),
        Fault::DividedMatrix { here } => {
            (DivergentWarp, format!("a matrix instruction executed by lanes {here:#010x} only"))
        }
        Fault::Stuck { waiting, id, wanted, arrived } => {
            let list: Vec<_> =
                waiting.iter().map(|(warp, id)| format!("warp {warp} at barrier {id}")).collect();
            let wanted = wanted.map_or("all threads".to_string(), |wanted| format!("{wanted} threads"));
            let list = list.join(", ");
            (
                DivergentBarrier,
                format!("the block is stuck: {list}; barrier {id} waits for {wanted} and {arrived} arrived"),
            )
        }
        Fault::Spinning { cooperative } => {
            let how = if cooperative {
                "no warp of the launch changes anything any more"
            } else {
                "only another block could write it, which the launch does not promise to run at the same \
                 time (it is not cooperative)"
            };
            (NeverEnds, format!("waits for a value to change: {how}"))
        }
        Fault::BudgetUsed => (NeverEnds, "the launch used up its budget of instructions".into()),
        _ => return None,
    })
}
