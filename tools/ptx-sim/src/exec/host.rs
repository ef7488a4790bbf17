//! What the host does for a kernel: printing, the heap, assertions.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::block::BlockState;
use super::grid::Worker;
use super::printf::{self, Arguments};
use super::registers::lanes;
use super::warp::Warp;
use crate::finding::FindingKind;
use crate::isa::{HostCall, HostFunction, LOCAL_WINDOW, SHARED_WINDOW};

/// What a GPU keeps of a launch's output.
const MOST_PRINTED: usize = 1 << 20;
/// The longest string a format or an assertion is read as.
const LONGEST: usize = 4096;
/// Bytes of the packed arguments of one `printf`.
const MOST_PACKED: usize = 1024;

/// The device's heap: what `malloc` gives out is never given out again.
#[derive(Debug, Default)]
pub struct Heap {
    pub base: u64,
    pub bytes: u64,
    pub used: AtomicU64,
}

impl Heap {
    /// The address of fresh memory; 0 if there is none left.
    fn allocate(&self, bytes: u64) -> u64 {
        let Some(taken) = bytes.max(1).checked_next_multiple_of(16).and_then(|size| size.checked_add(16))
        else {
            return 0;
        };
        let step = |used: u64| used.checked_add(taken).filter(|used| *used <= self.bytes);
        self.used.fetch_update(Relaxed, Relaxed, step).map_or(0, |start| self.base + start)
    }
}

/// One byte at a generic address, if there is one.
fn byte_at(
    worker: &mut Worker<'_>,
    block: &BlockState,
    warp: &Warp,
    address: u64,
    lane: usize,
) -> Option<u8> {
    let low = address as u32 as usize;
    match address >> 32 << 32 {
        LOCAL_WINDOW => {
            let size = worker.launch.kernel.local_bytes as usize;
            (low < size).then(|| warp.local[lane * size + low])
        }
        SHARED_WINDOW => block.shared.bytes.get(low).copied(),
        _ => {
            let index = worker.launch.memory.find(address, 1, &mut worker.hint)?;
            let allocation = worker.launch.memory.get(index);
            Some(allocation.load((address - allocation.base) as usize, 1) as u8)
        }
    }
}

fn string_at(worker: &mut Worker<'_>, block: &BlockState, warp: &Warp, address: u64, lane: usize) -> Vec<u8> {
    let byte = |at| byte_at(worker, block, warp, address.wrapping_add(at as u64), lane);
    (0..LONGEST).map_while(byte).take_while(|byte| *byte != 0).collect()
}

/// Runs a call for the lanes of `mask`; true if the block cannot go on.
pub fn run(
    worker: &mut Worker<'_>,
    block: &mut BlockState,
    warp: &mut Warp,
    call: &HostCall,
    mask: u32,
    pc: u32,
) -> bool {
    let size = worker.launch.kernel.local_bytes as usize;
    for lane in lanes(mask) {
        let argument = |warp: &Warp, place: usize| {
            let mut bytes = [0; 8];
            let at = lane * size + call.arguments[place] as usize;
            let found = warp.local.get(at..(at + 8).min(lane * size + size)).unwrap_or(&[]);
            bytes[..found.len()].copy_from_slice(found);
            u64::from_le_bytes(bytes)
        };
        let value = match call.function {
            HostFunction::Print => print(worker, block, warp, argument(warp, 0), argument(warp, 1), lane),
            HostFunction::Allocate => worker.launch.heap.allocate(argument(warp, 0)),
            HostFunction::Free => 0,
            HostFunction::AssertFail => {
                let text = |worker: &mut Worker<'_>, address| {
                    String::from_utf8_lossy(&string_at(worker, block, warp, address, lane)).into_owned()
                };
                let (what, file) = (text(worker, argument(warp, 0)), text(worker, argument(warp, 1)));
                let line = argument(warp, 2) as u32;
                worker.finding(block, warp, pc, FindingKind::Trap, lane as u32, None, || {
                    format!("assertion `{what}` failed at {file}:{line}")
                });
                return true;
            }
            HostFunction::WrongPointer => {
                let pointer = call.pointer.map_or(0, |reg| warp.wide(reg)[lane]);
                worker.finding(block, warp, pc, FindingKind::InvalidAccess, lane as u32, Some(pointer), || {
                    format!(
                        "a call to {pointer:#x}, which is no function of this signature (or one that calls itself so, \
                         which is not supported)"
                    )
                });
                return true;
            }
        };
        if let Some(place) = call.result {
            let at = lane * size + place as usize;
            let bytes = if call.function == HostFunction::Print { 4 } else { 8 };
            if let Some(slot) = warp.local.get_mut(at..at + bytes) {
                slot.copy_from_slice(&value.to_le_bytes()[..bytes]);
            }
        }
    }
    block.progress = true;
    false
}

/// Prints one lane's line; the number of arguments is what `vprintf` returns, of which nothing is known here.
fn print(
    worker: &mut Worker<'_>,
    block: &BlockState,
    warp: &Warp,
    format: u64,
    packed: u64,
    lane: usize,
) -> u64 {
    let pattern = string_at(worker, block, warp, format, lane);
    let byte = |at| byte_at(worker, block, warp, packed.wrapping_add(at as u64), lane);
    let bytes: Vec<u8> = if packed == 0 { vec![] } else { (0..MOST_PACKED).map_while(byte).collect() };
    let text = printf::format(&pattern, &mut Arguments::new(&bytes), |address| {
        string_at(worker, block, warp, address, lane)
    });
    let room = MOST_PRINTED.saturating_sub(worker.printed.len());
    worker.printed.extend_from_slice(&text[..text.len().min(room)]);
    0
}
