//! Loads, stores, atomics and asynchronous copies: where each lane goes, what stands against it, what it costs.

use super::Context;
use super::shared::{self, Shared};
use super::warp::{Copy, Warp};
use crate::finding::FindingKind;
use crate::memory::{Fault, LOCAL_BASE, PARAM_BASE, SHARED_BASE, Touch};
use crate::op::*;

/// The memory a lane's address lies in, and the address inside it.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Place {
    Global(u64),
    Shared(u64),
    Local(u64),
    Param(u64),
}

fn place_of(space: Space, address: u64) -> Place {
    match space {
        Space::Shared => Place::Shared(address),
        Space::Local => Place::Local(address),
        Space::Param => Place::Param(address.wrapping_sub(PARAM_BASE)),
        _ if address >= PARAM_BASE => Place::Param(address - PARAM_BASE),
        Space::Global => Place::Global(address),
        Space::Generic if address >= LOCAL_BASE => Place::Local(address - LOCAL_BASE),
        Space::Generic if address >= SHARED_BASE => Place::Shared(address - SHARED_BASE),
        Space::Generic => Place::Global(address),
    }
}

/// Sectors of 32 bytes that the lanes' ranges touch, and the least number that could hold as many different bytes.
fn sectors(addresses: &[u64; 32], len: u64, mask: u32) -> (u64, u64) {
    let mut list = [0u64; 32];
    let mut count = 0;
    let mut sorted = true;
    for lane in 0..32 {
        if mask >> lane & 1 != 0 {
            sorted &= count == 0 || list[count - 1] <= addresses[lane];
            list[count] = addresses[lane];
            count += 1;
        }
    }
    let list = &mut list[..count];
    if !sorted {
        list.sort_unstable();
    }
    let (mut touched, mut bytes) = (0, 0);
    let (mut next_sector, mut next_byte) = (0, 0);
    for &address in list.iter() {
        let (first, last) = (address / 32, (address + len - 1) / 32);
        let first = first.max(next_sector);
        if last >= first {
            touched += last - first + 1;
            next_sector = last + 1;
        }
        let start = address.max(next_byte);
        if address + len > start {
            bytes += address + len - start;
            next_byte = address + len;
        }
    }
    (touched, bytes.div_ceil(32))
}

/// Passes through shared memory that a warp's access takes, and the least: lanes with 8 bytes go in halves, with 16 in quarters; in a
/// pass each of the 32 banks gives one word to any number of lanes.
fn wavefronts(addresses: &[u64; 32], len: usize, mask: u32) -> (u64, u64) {
    let group = match len {
        0..=4 => 32,
        5..=8 => 16,
        _ => 8,
    };
    let (mut passes, mut least) = (0, 0);
    for first in (0..32).step_by(group) {
        let mut words = [0u64; 32];
        let mut count = 0;
        for lane in first..first + group {
            if mask >> lane & 1 != 0 {
                for word in addresses[lane] / 4..=(addresses[lane] + len as u64 - 1) / 4 {
                    if count < 32 {
                        words[count] = word;
                        count += 1;
                    }
                }
            }
        }
        if count == 0 {
            continue;
        }
        least += 1;
        let words = &mut words[..count];
        words.sort_unstable();
        let mut banks = [0u8; 32];
        let mut most = 0;
        let mut previous = u64::MAX;
        for &word in words.iter() {
            if word != previous {
                let bank = &mut banks[word as usize & 31];
                *bank += 1;
                most = most.max(*bank);
                previous = word;
            }
        }
        passes += u64::from(most);
    }
    (passes, least)
}

impl Warp {
    pub(super) fn addresses(&self, address: &Address) -> [u64; 32] {
        let offset = address.offset as u64;
        if address.wide {
            self.r64[address.base as usize].map(|base| base.wrapping_add(offset))
        } else {
            self.r32[address.base as usize].map(|base| u64::from(base.wrapping_add(offset as u32)))
        }
    }

    fn count_shared(context: &mut Context<'_>, addresses: &[u64; 32], len: usize, mask: u32) {
        let (passes, least) = wavefronts(addresses, len, mask);
        context.counters.shared_wavefronts += passes;
        context.counters.bank_conflicts += passes - least;
    }

    fn count_global(context: &mut Context<'_>, addresses: &[u64; 32], len: usize, mask: u32, load: bool) {
        let (touched, least) = sectors(addresses, len as u64, mask);
        let counters = &mut context.counters;
        if load {
            counters.load_sectors += touched;
            counters.load_sectors_least += least;
        } else {
            counters.store_sectors += touched;
            counters.store_sectors_least += least;
        }
    }

    fn misaligned(address: u64, len: usize) -> bool {
        !address.is_multiple_of(len.next_power_of_two() as u64)
    }

    /// One lane's bytes for reading; zeros where it may not read.
    #[allow(clippy::too_many_arguments, reason = "a lane's whole situation")]
    fn fetch(
        &mut self,
        context: &mut Context<'_>,
        shared: &mut Shared,
        instruction: &Instruction,
        block_place: [u32; 3],
        block: u32,
        lane: u32,
        place: Place,
        strong: bool,
        out: &mut [u8],
    ) {
        let len = out.len();
        let thread = self.thread(lane);
        let report = |context: &mut Context<'_>, kind, detail: String| {
            context.report(kind, instruction, block_place, thread, detail);
        };
        let (Place::Global(address) | Place::Shared(address) | Place::Local(address) | Place::Param(address)) =
            place;
        if Self::misaligned(address, len) {
            report(context, FindingKind::Misaligned, format!("{len} bytes at {address:#x}"));
            out.fill(0);
            return;
        }
        match place {
            Place::Global(address) => {
                let touch = if strong { Touch::StrongRead } else { Touch::Read };
                let mut cached = context.cached;
                let fault = match context.memory.touch(block, address, len, touch, &mut cached) {
                    Ok((bytes, fault)) => {
                        out.copy_from_slice(bytes);
                        fault
                    }
                    Err(fault) => {
                        out.fill(0);
                        Some(fault)
                    }
                };
                context.cached = cached;
                if let Some(fault) = fault {
                    self.report_global(context, instruction, block_place, lane, address, len, "read", &fault);
                }
            }
            Place::Shared(address) => {
                let at = address as usize;
                if at.checked_add(len).is_none_or(|end| end > shared.bytes.len()) {
                    out.fill(0);
                    let detail = format!(
                        "read of {len} bytes at {at} of {} bytes of shared memory",
                        shared.bytes.len()
                    );
                    return report(context, FindingKind::OutOfBounds, detail);
                }
                out.copy_from_slice(&shared.bytes[at..at + len]);
                if let Some(fault) = shared.read(self.number, at, len) {
                    self.report_shared(context, instruction, block_place, lane, at, len, "read", fault);
                }
            }
            Place::Local(address) => {
                let (at, size) = (address as usize, self.local.len() / 32);
                if at.checked_add(len).is_none_or(|end| end > size) {
                    out.fill(0);
                    let detail = format!("read of {len} bytes at {at} of {size} bytes of local memory");
                    return report(context, FindingKind::OutOfBounds, detail);
                }
                let from = lane as usize * size + at;
                out.copy_from_slice(&self.local[from..from + len]);
                if self.local_written[from..from + len].iter().any(|&written| !written) {
                    report(
                        context,
                        FindingKind::Uninitialised,
                        format!("{len} bytes at {at} of local memory"),
                    );
                }
            }
            Place::Param(address) => {
                let at = address as usize;
                let arguments = context.launch.arguments;
                match at.checked_add(len).and_then(|end| arguments.get(at..end)) {
                    Some(bytes) => out.copy_from_slice(bytes),
                    None => {
                        out.fill(0);
                        let detail =
                            format!("read of {len} bytes at {at} of {} bytes of parameters", arguments.len());
                        report(context, FindingKind::OutOfBounds, detail);
                    }
                }
            }
        }
    }

    #[allow(clippy::too_many_arguments, reason = "a lane's whole situation")]
    fn report_global(
        &self,
        context: &mut Context<'_>,
        instruction: &Instruction,
        place: [u32; 3],
        lane: u32,
        address: u64,
        len: usize,
        verb: &str,
        fault: &Fault,
    ) {
        let whose = context.memory.describe(address);
        let (kind, detail) = match fault {
            Fault::Outside => (FindingKind::OutOfBounds, format!("{verb} of {len} bytes at {whose}")),
            Fault::Unwritten { bytes } => {
                (FindingKind::Uninitialised, format!("{bytes} of {len} bytes at {whose} were never written"))
            }
            Fault::Race { other, wrote } => {
                let other = match *other {
                    0 | u32::MAX => "other blocks".to_string(),
                    number => format!("block number {}", number - 1),
                };
                let did = if *wrote { "wrote" } else { "read" };
                (
                    FindingKind::GlobalRace,
                    format!("{verb} of {len} bytes at {whose}, which {other} {did} in this launch"),
                )
            }
        };
        context.report(kind, instruction, place, self.thread(lane), detail);
    }

    #[allow(clippy::too_many_arguments, reason = "a lane's whole situation")]
    pub(super) fn report_shared(
        &self,
        context: &mut Context<'_>,
        instruction: &Instruction,
        place: [u32; 3],
        lane: u32,
        at: usize,
        len: usize,
        verb: &str,
        fault: shared::Fault,
    ) {
        let (kind, detail) = match fault {
            shared::Fault::Unwritten => (
                FindingKind::Uninitialised,
                format!("{verb} of {len} bytes at {at} of shared memory, never written"),
            ),
            shared::Fault::Race(warp) => (
                FindingKind::SharedRace,
                format!(
                    "{verb} of {len} bytes at {at} of shared memory, which warp {warp} used since the last barrier"
                ),
            ),
            shared::Fault::Pending => (
                FindingKind::AsyncCopyRace,
                format!("{verb} of {len} bytes at {at} of shared memory before the wait for its copy"),
            ),
        };
        context.report(kind, instruction, place, self.thread(lane), detail);
    }

    #[allow(clippy::too_many_arguments, reason = "an instruction's whole situation")]
    pub(super) fn load(
        &mut self,
        context: &mut Context<'_>,
        shared: &mut Shared,
        instruction: &Instruction,
        place: [u32; 3],
        block: u32,
        access: &Access,
        mask: u32,
    ) {
        let addresses = self.addresses(&access.address);
        let (size, count) = (usize::from(access.bytes), usize::from(access.count));
        let len = size * count;
        // A parameter is the same for all lanes.
        if access.space == Space::Param {
            let mut bytes = [0u8; 32];
            let lane = mask.trailing_zeros();
            let from = place_of(Space::Param, addresses[lane as usize]);
            let uniform =
                (0..32).all(|other| mask >> other & 1 == 0 || addresses[other] == addresses[lane as usize]);
            if uniform {
                self.fetch(context, shared, instruction, place, block, lane, from, false, &mut bytes[..len]);
                for element in 0..count {
                    self.keep(access, element, &bytes[element * size..][..size], mask);
                }
                return;
            }
        }
        let (mut global, mut near) = (0u32, 0u32);
        for lane in 0..32u32 {
            if mask >> lane & 1 == 0 {
                continue;
            }
            let from = place_of(access.space, addresses[lane as usize]);
            match from {
                Place::Global(_) => global |= 1 << lane,
                Place::Shared(_) => near |= 1 << lane,
                Place::Local(_) => context.counters.local_bytes += len as u64,
                Place::Param(_) => {}
            }
            let mut bytes = [0u8; 32];
            self.fetch(
                context,
                shared,
                instruction,
                place,
                block,
                lane,
                from,
                access.strong,
                &mut bytes[..len],
            );
            for element in 0..count {
                self.keep(access, element, &bytes[element * size..][..size], 1 << lane);
            }
        }
        if global != 0 {
            Self::count_global(context, &addresses, len, global, true);
        }
        if near != 0 {
            Self::count_shared(context, &addresses, len, near);
        }
    }

    /// Puts loaded bytes into an element's register.
    #[inline(always)]
    fn keep(&mut self, access: &Access, element: usize, bytes: &[u8], mask: u32) {
        let mut value = [0u8; 8];
        value[..bytes.len()].copy_from_slice(bytes);
        let mut value = u64::from_le_bytes(value);
        if access.extend == Extend::Sign && bytes.len() < 8 {
            let shift = 64 - 8 * bytes.len() as u32;
            value = ((value << shift) as i64 >> shift) as u64;
        }
        let register = access.registers[element] as usize;
        let mut rest = mask;
        while rest != 0 {
            let lane = rest.trailing_zeros() as usize;
            rest &= rest - 1;
            if access.wide {
                self.r64[register][lane] = value;
            } else {
                // A 16-bit register holds its value without the sign's copies.
                self.r32[register][lane] =
                    if bytes.len() == 2 { value as u32 & 0xffff } else { value as u32 };
            }
        }
    }

    #[allow(clippy::too_many_arguments, reason = "an instruction's whole situation")]
    pub(super) fn store(
        &mut self,
        context: &mut Context<'_>,
        shared: &mut Shared,
        instruction: &Instruction,
        place: [u32; 3],
        block: u32,
        access: &Access,
        mask: u32,
    ) {
        let addresses = self.addresses(&access.address);
        let (size, count) = (usize::from(access.bytes), usize::from(access.count));
        let len = size * count;
        let (mut global, mut near) = (0u32, 0u32);
        for lane in 0..32u32 {
            if mask >> lane & 1 == 0 {
                continue;
            }
            let mut bytes = [0u8; 32];
            for element in 0..count {
                let register = access.registers[element] as usize;
                let value = if access.wide {
                    self.r64[register][lane as usize]
                } else {
                    u64::from(self.r32[register][lane as usize])
                };
                bytes[element * size..][..size].copy_from_slice(&value.to_le_bytes()[..size]);
            }
            let bytes = &bytes[..len];
            let thread = self.thread(lane);
            let to = place_of(access.space, addresses[lane as usize]);
            let (Place::Global(address)
            | Place::Shared(address)
            | Place::Local(address)
            | Place::Param(address)) = to;
            if Self::misaligned(address, len) {
                let detail = format!("{len} bytes at {address:#x}");
                context.report(FindingKind::Misaligned, instruction, place, thread, detail);
                continue;
            }
            match to {
                Place::Global(address) => {
                    global |= 1 << lane;
                    let touch = if access.strong { Touch::StrongWrite } else { Touch::Write };
                    let mut cached = context.cached;
                    let fault = match context.memory.touch(block, address, len, touch, &mut cached) {
                        Ok((memory, fault)) => {
                            memory.copy_from_slice(bytes);
                            fault
                        }
                        Err(fault) => Some(fault),
                    };
                    context.cached = cached;
                    if let Some(fault) = fault {
                        self.report_global(context, instruction, place, lane, address, len, "write", &fault);
                    }
                }
                Place::Shared(address) => {
                    near |= 1 << lane;
                    let at = address as usize;
                    if at.checked_add(len).is_none_or(|end| end > shared.bytes.len()) {
                        let detail = format!(
                            "write of {len} bytes at {at} of {} bytes of shared memory",
                            shared.bytes.len()
                        );
                        context.report(FindingKind::OutOfBounds, instruction, place, thread, detail);
                        continue;
                    }
                    // Lanes of one store that meet at an address must agree.
                    let clash = (0..lane).find(|&other| {
                        near >> other & 1 != 0
                            && addresses[other as usize] == addresses[lane as usize]
                            && shared.bytes[at..at + len] != *bytes
                    });
                    shared.bytes[at..at + len].copy_from_slice(bytes);
                    if let Some(other) = clash {
                        let detail = format!(
                            "lanes {other} and {lane} write different values to byte {at} of shared memory"
                        );
                        context.report(FindingKind::SharedRace, instruction, place, thread, detail);
                    }
                    if let Some(fault) = shared.write(self.number, at, len, false) {
                        self.report_shared(context, instruction, place, lane, at, len, "write", fault);
                    }
                }
                Place::Local(address) => {
                    context.counters.local_bytes += len as u64;
                    let (at, size) = (address as usize, self.local.len() / 32);
                    if at.checked_add(len).is_none_or(|end| end > size) {
                        let detail = format!("write of {len} bytes at {at} of {size} bytes of local memory");
                        context.report(FindingKind::OutOfBounds, instruction, place, thread, detail);
                        continue;
                    }
                    let to = lane as usize * size + at;
                    self.local[to..to + len].copy_from_slice(bytes);
                    self.local_written[to..to + len].fill(true);
                }
                Place::Param(_) => {
                    let detail = "a write to a parameter".to_string();
                    context.report(FindingKind::OutOfBounds, instruction, place, thread, detail);
                }
            }
        }
        if global != 0 {
            Self::count_global(context, &addresses, len, global, false);
        }
        if near != 0 {
            Self::count_shared(context, &addresses, len, near);
        }
    }

    pub(super) fn atomic(
        &mut self,
        context: &mut Context<'_>,
        shared: &mut Shared,
        instruction: &Instruction,
        place: [u32; 3],
        block: u32,
        mask: u32,
    ) {
        let Op::Atomic { op, kind, space, address, d, a, b, wide, fences } = instruction.op else { return };
        let addresses = self.addresses(&address);
        let len = if wide { 8 } else { 4 };
        if fences {
            context.memory.order.fence(block);
        }
        let (mut global, mut near) = (0u32, 0u32);
        for lane in 0..32u32 {
            if mask >> lane & 1 == 0 {
                continue;
            }
            let l = lane as usize;
            let operand = |register: u32| {
                if wide { self.r64[register as usize][l] } else { u64::from(self.r32[register as usize][l]) }
            };
            let (a, b) = (operand(a), operand(b));
            let thread = self.thread(lane);
            let to = place_of(space, addresses[l]);
            let (Place::Global(at) | Place::Shared(at) | Place::Local(at) | Place::Param(at)) = to;
            if Self::misaligned(at, len) {
                let detail = format!("{len} bytes at {at:#x}");
                context.report(FindingKind::Misaligned, instruction, place, thread, detail);
                continue;
            }
            let mut bytes = [0u8; 8];
            match to {
                Place::Global(at) => {
                    global |= 1 << lane;
                    let mut cached = context.cached;
                    let fault = match context.memory.touch(block, at, len, Touch::Atomic, &mut cached) {
                        Ok((memory, fault)) => {
                            bytes[..len].copy_from_slice(memory);
                            let new = combine(op, kind, u64::from_le_bytes(bytes), a, b);
                            memory.copy_from_slice(&new.to_le_bytes()[..len]);
                            fault
                        }
                        Err(fault) => Some(fault),
                    };
                    context.cached = cached;
                    if let Some(fault) = fault {
                        self.report_global(context, instruction, place, lane, at, len, "atomic", &fault);
                    }
                }
                Place::Shared(at) => {
                    near |= 1 << lane;
                    let at = at as usize;
                    let Some(memory) = at.checked_add(len).and_then(|end| shared.bytes.get_mut(at..end))
                    else {
                        let detail = format!("atomic on {len} bytes at {at} of shared memory");
                        context.report(FindingKind::OutOfBounds, instruction, place, thread, detail);
                        continue;
                    };
                    bytes[..len].copy_from_slice(memory);
                    let new = combine(op, kind, u64::from_le_bytes(bytes), a, b);
                    memory.copy_from_slice(&new.to_le_bytes()[..len]);
                    if let Some(fault) = shared.write(self.number, at, len, true) {
                        self.report_shared(context, instruction, place, lane, at, len, "atomic", fault);
                    }
                }
                _ => {
                    let detail = "an atomic outside global and shared memory".to_string();
                    context.report(FindingKind::OutOfBounds, instruction, place, thread, detail);
                }
            }
            if let Some(d) = d {
                let old = u64::from_le_bytes(bytes);
                if wide {
                    self.r64[d as usize][l] = old;
                } else {
                    self.r32[d as usize][l] = old as u32;
                }
            }
        }
        if fences {
            context.memory.order.fence(block);
        }
        if global != 0 {
            Self::count_global(context, &addresses, len, global, true);
            Self::count_global(context, &addresses, len, global, false);
        }
        if near != 0 {
            Self::count_shared(context, &addresses, len, near);
        }
    }

    pub(super) fn async_copy(
        &mut self,
        context: &mut Context<'_>,
        shared: &mut Shared,
        instruction: &Instruction,
        place: [u32; 3],
        block: u32,
        mask: u32,
    ) {
        let Op::AsyncCopy { to, from, bytes, given } = instruction.op else { return };
        let (targets, sources) = (self.addresses(&to), self.addresses(&from));
        let len = usize::from(bytes);
        let mut reading = 0u32;
        for lane in 0..32u32 {
            if mask >> lane & 1 == 0 {
                continue;
            }
            let l = lane as usize;
            let take = given.map_or(len, |given| (self.r32[given as usize][l] as usize).min(len));
            let thread = self.thread(lane);
            let at = targets[l] as usize;
            if Self::misaligned(targets[l], len) || (take > 0 && Self::misaligned(sources[l], len)) {
                let detail =
                    format!("asynchronous copy of {len} bytes from {:#x} to {:#x}", sources[l], targets[l]);
                context.report(FindingKind::Misaligned, instruction, place, thread, detail);
                continue;
            }
            if at.checked_add(len).is_none_or(|end| end > shared.bytes.len()) {
                let detail =
                    format!("copy of {len} bytes to {at} of {} bytes of shared memory", shared.bytes.len());
                context.report(FindingKind::OutOfBounds, instruction, place, thread, detail);
                continue;
            }
            let mut data = vec![0u8; len];
            if take > 0 {
                reading |= 1 << lane;
                // The bytes are taken now; a kernel that changes them before the wait has a race that is not looked for.
                let source = Place::Global(sources[l]);
                let mut bytes = [0u8; 16];
                let whole = take == len;
                if whole {
                    self.fetch(
                        context,
                        shared,
                        instruction,
                        place,
                        block,
                        lane,
                        source,
                        false,
                        &mut bytes[..len],
                    );
                } else {
                    for (offset, byte) in bytes[..take].iter_mut().enumerate() {
                        let source = Place::Global(sources[l] + offset as u64);
                        let one = std::slice::from_mut(byte);
                        self.fetch(context, shared, instruction, place, block, lane, source, false, one);
                    }
                }
                data[..take].copy_from_slice(&bytes[..take]);
            }
            if let Some(fault) = shared.begin_copy(self.number, at, len) {
                self.report_shared(context, instruction, place, lane, at, len, "copy", fault);
            }
            self.open_copies.push(Copy { to: at, data });
        }
        if reading != 0 {
            Self::count_global(context, &sources, len, reading, true);
        }
        Self::count_shared(context, &targets, len, mask);
    }

    pub(super) fn async_wait(&mut self, shared: &mut Shared, pending: u32) {
        while self.copy_groups.len() > pending as usize {
            for copy in self.copy_groups.pop_front().into_iter().flatten() {
                shared.end_copy(self.number, copy.to, &copy.data);
            }
        }
    }

    /// Counts rows of 16 bytes that a matrix access touches, eight at a time.
    pub(super) fn count_rows(context: &mut Context<'_>, rows: &[u64]) {
        for eight in rows.chunks(8) {
            let mut addresses = [0; 32];
            addresses[..eight.len()].copy_from_slice(eight);
            Self::count_shared(context, &addresses, 16, (1 << eight.len()) - 1);
        }
    }
}

/// What an atomic leaves.
fn combine(op: AtomicOp, kind: Type, old: u64, a: u64, b: u64) -> u64 {
    match kind {
        Type::F32 => {
            let (x, y) = (f32::from_bits(old as u32), f32::from_bits(a as u32));
            match op {
                AtomicOp::Add => u64::from((x + y).to_bits()),
                _ => a,
            }
        }
        Type::F64 => match op {
            AtomicOp::Add => (f64::from_bits(old) + f64::from_bits(a)).to_bits(),
            _ => a,
        },
        Type::Int(width) => {
            let wide = width.is_64();
            let keep = |value: u64| if wide { value } else { value & 0xffff_ffff };
            let less = |x: u64, y: u64| match width {
                Width::S64 => (x as i64) < (y as i64),
                Width::S32 => (x as i32) < (y as i32),
                _ => x < y,
            };
            keep(match op {
                AtomicOp::Add => old.wrapping_add(a),
                AtomicOp::Min => {
                    if less(a, old) {
                        a
                    } else {
                        old
                    }
                }
                AtomicOp::Max => {
                    if less(old, a) {
                        a
                    } else {
                        old
                    }
                }
                AtomicOp::And => old & a,
                AtomicOp::Or => old | a,
                AtomicOp::Xor => old ^ a,
                AtomicOp::Exchange => a,
                AtomicOp::CompareAndSwap => {
                    if old == a {
                        b
                    } else {
                        old
                    }
                }
                AtomicOp::Increment => {
                    if old >= a {
                        0
                    } else {
                        old + 1
                    }
                }
                AtomicOp::Decrement => {
                    if old == 0 || old > a {
                        a
                    } else {
                        old - 1
                    }
                }
            })
        }
        _ => old,
    }
}
