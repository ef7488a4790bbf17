//! Which block knows of which other block's work: vector clocks kept as logs.
//!
//! Every global address that is used to signal has a log of *releases*: (block, epoch) pairs. A block that then reads the
//! address atomically knows all releases before, and whatever those blocks knew when they released. A block's knowledge is
//! therefore one log position for each signalling address.
//!
//! An atomic operation or volatile, relaxed or release store is a release if the warp has run a device-wide fence since its
//! last plain global store (or if the instruction itself says release). Any atomic operation and any volatile, relaxed or
//! acquire load is an acquire: rather a race missed than a false one.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// A block's knowledge: how much of each address's log it has seen.
#[derive(Clone, Debug, Default)]
pub struct Knowledge {
    seen: Vec<(u64, u32)>,
    /// Epochs found known before: block and epoch.
    certain: HashMap<u32, u32>,
}

#[derive(Debug, Default)]
struct Log {
    len: u32,
    /// For each block its releases: position and epoch.
    releases: HashMap<u32, Vec<(u32, u32)>>,
    /// What releasing blocks knew: position here, the other address, its position.
    inherited: Vec<(u32, u64, u32)>,
}

/// The logs of one launch.
#[derive(Debug, Default)]
pub struct Signals {
    any: AtomicBool,
    logs: Mutex<HashMap<u64, Log>>,
}

impl Signals {
    /// An atomic access of `address`: acquires, and releases `epoch` if `release`.
    pub fn access(&self, address: u64, block: u32, release: Option<u32>, knowledge: &mut Knowledge) {
        if release.is_none() && !self.any.load(Relaxed) {
            return;
        }
        let Ok(mut logs) = self.logs.lock() else { return };
        let log =
            if release.is_some() { Some(logs.entry(address).or_default()) } else { logs.get_mut(&address) };
        let Some(log) = log else { return };
        if log.len > 0 {
            match knowledge.seen.iter_mut().find(|(other, _)| *other == address) {
                Some((_, position)) => *position = log.len,
                None => knowledge.seen.push((address, log.len)),
            }
        }
        if let Some(epoch) = release {
            self.any.store(true, Relaxed);
            let own = log.releases.entry(block).or_default();
            if own.last().is_some_and(|(_, last)| *last == epoch) {
                return;
            }
            own.push((log.len, epoch));
            for (other, position) in &knowledge.seen {
                if *other != address {
                    log.inherited.push((log.len, *other, *position));
                }
            }
            log.len += 1;
        }
    }

    /// Whether a block that knows `knowledge` knows that `block` ended `epoch`.
    pub fn known(&self, knowledge: &mut Knowledge, block: u32, epoch: u32) -> bool {
        if knowledge.certain.get(&block).is_some_and(|certain| *certain >= epoch) {
            return true;
        }
        if knowledge.seen.is_empty() {
            return false;
        }
        let Ok(logs) = self.logs.lock() else { return true };
        let mut reach: HashMap<u64, u32> = HashMap::new();
        let mut open = knowledge.seen.clone();
        let mut best = None;
        while let Some((address, position)) = open.pop() {
            let reached = reach.entry(address).or_default();
            if *reached >= position {
                continue;
            }
            let before = std::mem::replace(reached, position);
            let Some(log) = logs.get(&address) else { continue };
            if let Some(own) = log.releases.get(&block) {
                let last = own.iter().take_while(|(at, _)| *at < position).last();
                best = best.max(last.map(|(_, epoch)| *epoch));
            }
            open.extend(
                log.inherited
                    .iter()
                    .filter(|(at, _, _)| *at < position && *at >= before)
                    .map(|(_, address, position)| (*address, *position)),
            );
        }
        let Some(best) = best else { return false };
        knowledge.certain.insert(block, best);
        best >= epoch
    }
}
