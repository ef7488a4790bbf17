//! Accesses outside memory or out of line, and uses that a state space does not have: what is said of them.

use super::finding::FindingKind;
use super::report::Subject;
use crate::monitor::Fault;

/// The kind and message of such a fault at an address; None if it is of another kind.
pub fn describe(
    subject: &Subject<'_>,
    address: Option<u64>,
    fault: Fault<'_>,
) -> Option<(FindingKind, String)> {
    use FindingKind::{InvalidAccess, Misaligned, OutOfBounds, Trap};
    let address = address.unwrap_or(0);
    Some(match fault {
        Fault::Misaligned { bytes } => {
            (Misaligned, format!("{bytes} bytes at {address:#x}, which is not a multiple of {bytes}"))
        }
        Fault::OutsideGlobal { what, bytes } => {
            let near = subject.memory.explain(address);
            (OutOfBounds, format!("{what} of {bytes} bytes at {address:#x}: {near}"))
        }
        Fault::PastEnd { what, bytes, allocation } => {
            let label = &subject.memory.get(allocation).label;
            (OutOfBounds, format!("{what} of {bytes} bytes past the end of {label:?}"))
        }
        Fault::OutsideShared { what, bytes } => {
            let name = subject.shared_name(address as usize);
            (OutOfBounds, format!("{what} of {bytes} bytes of shared memory at {name}"))
        }
        Fault::OutsideLocal { bytes, size } => {
            (OutOfBounds, format!("{bytes} bytes at byte {address} of {size} of local memory"))
        }
        Fault::OutsideParameters { bytes, size } => {
            (OutOfBounds, format!("a load of {bytes} bytes at byte {address} of {size} of parameters"))
        }
        Fault::Invalid(what) => (InvalidAccess, what.into()),
        Fault::InvalidMbarrier(what) => {
            let name = subject.shared_name(address as usize);
            (InvalidAccess, format!("mbarrier at {name} of shared memory: {what}"))
        }
        Fault::NoBarrier { id } => (InvalidAccess, format!("barrier {id}: there are 16")),
        Fault::WrongPointer => (
            InvalidAccess,
            format!(
                "a call to {address:#x}, which is no function of this signature (or one that calls itself \
                 so, which is not supported)"
            ),
        ),
        Fault::Trap => (Trap, "the kernel stopped itself".into()),
        Fault::AssertionFailed { what, file, line } => {
            (Trap, format!("assertion `{what}` failed at {file}:{line}"))
        }
        _ => return None,
    })
}
