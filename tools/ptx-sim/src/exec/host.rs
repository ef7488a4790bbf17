//! What the host does for a kernel: printing, the heap, assertions.

use super::printf::{self, Arguments};
use super::site::Site;
use crate::isa::{HostCall, HostFunction, LOCAL_WINDOW, SHARED_WINDOW};
use crate::lanes::lanes;
use crate::monitor::{Fault, Monitor};

/// What a GPU keeps of a launch's output.
const MOST_PRINTED: usize = 1 << 20;
/// The longest string a format or an assertion is read as.
const LONGEST: usize = 4096;
/// Bytes of the packed arguments of one `printf`.
const MOST_PACKED: usize = 1024;

/// One byte at a lane's generic address, if there is one.
fn byte_at<M: Monitor>(site: &mut Site<'_, M>, lane: usize, address: u64) -> Option<u8> {
    let low = address as u32 as usize;
    match address >> 32 << 32 {
        LOCAL_WINDOW => {
            let size = site.launch.kernel.local_bytes as usize;
            (low < size).then(|| site.warp.local[lane * size + low])
        }
        SHARED_WINDOW => site.block.shared.byte(low),
        _ => {
            let memory = site.launch.memory;
            let index = memory.find(address, 1, &mut site.worker.hint)?;
            let allocation = memory.get(index);
            Some(allocation.load((address - allocation.base) as usize, 1) as u8)
        }
    }
}

fn string_at<M: Monitor>(site: &mut Site<'_, M>, lane: usize, address: u64) -> Vec<u8> {
    let byte = |at| byte_at(site, lane, address.wrapping_add(at as u64));
    (0..LONGEST).map_while(byte).take_while(|byte| *byte != 0).collect()
}

/// Runs a call for the lanes of the site; false if the block cannot go on.
pub fn run<M: Monitor>(site: &mut Site<'_, M>, call: &HostCall) -> bool {
    for lane in lanes(site.mask) {
        let value = match call.function {
            HostFunction::Print => print(site, call, lane),
            HostFunction::Allocate => site.launch.heap.allocate(argument(site, call, lane, 0)),
            HostFunction::Free => 0,
            HostFunction::AssertFail => {
                fail(site, call, lane);
                return false;
            }
            HostFunction::WrongPointer => {
                let pointer = call.pointer.map_or(0, |reg| site.warp.wide(reg)[lane]);
                site.fault(lane, Some(pointer), Fault::WrongPointer);
                return false;
            }
        };
        if let Some(place) = call.result {
            let at = lane * site.launch.kernel.local_bytes as usize + place as usize;
            let bytes = if call.function == HostFunction::Print { 4 } else { 8 };
            if let Some(slot) = site.warp.local.get_mut(at..at + bytes) {
                slot.copy_from_slice(&value.to_le_bytes()[..bytes]);
            }
        }
    }
    site.block.progress = true;
    true
}

/// An argument, from the call's frame in local memory.
fn argument<M: Monitor>(site: &Site<'_, M>, call: &HostCall, lane: usize, place: usize) -> u64 {
    let size = site.launch.kernel.local_bytes as usize;
    let mut bytes = [0; 8];
    let at = lane * size + call.arguments[place] as usize;
    let found = site.warp.local.get(at..(at + 8).min(lane * size + size)).unwrap_or(&[]);
    bytes[..found.len()].copy_from_slice(found);
    u64::from_le_bytes(bytes)
}

/// `__assertfail`.
fn fail<M: Monitor>(site: &mut Site<'_, M>, call: &HostCall, lane: usize) {
    let [what, file] = [0, 1].map(|place| {
        let address = argument(site, call, lane, place);
        String::from_utf8_lossy(&string_at(site, lane, address)).into_owned()
    });
    let line = argument(site, call, lane, 2) as u32;
    site.fault(lane, None, Fault::AssertionFailed { what: &what, file: &file, line });
}

/// Prints one lane's line; the number of arguments is what `vprintf` returns, of which nothing is known here.
fn print<M: Monitor>(site: &mut Site<'_, M>, call: &HostCall, lane: usize) -> u64 {
    let (format, packed) = (argument(site, call, lane, 0), argument(site, call, lane, 1));
    let pattern = string_at(site, lane, format);
    let byte = |at| byte_at(site, lane, packed.wrapping_add(at as u64));
    let bytes: Vec<u8> = if packed == 0 { vec![] } else { (0..MOST_PACKED).map_while(byte).collect() };
    let text =
        printf::format(&pattern, &mut Arguments::new(&bytes), |address| string_at(site, lane, address));
    let printed = &mut site.worker.printed;
    let room = MOST_PRINTED.saturating_sub(printed.len());
    printed.extend_from_slice(&text[..text.len().min(room)]);
    0
}
