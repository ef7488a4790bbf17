//! A launch: blocks over host threads, or all of them in turns if it is cooperative.

use std::sync::atomic::Ordering::Relaxed;

use super::block::Block;
use super::launch::LaunchState;
use super::site::Worker;
use super::warp::Standing;
use crate::monitor::Monitor;

/// Runs a launch on `threads` host threads, each with a monitor of its own: those monitors, and what the
/// kernel printed.
pub fn run<M: Monitor + Send>(
    launch: &LaunchState<'_>,
    threads: usize,
    monitor: impl Fn() -> M + Sync,
) -> Vec<(M, Vec<u8>)> {
    let threads = if launch.cooperative || launch.alone { 1 } else { threads };
    let work = |running| {
        let mut worker = Worker::new(monitor());
        if launch.cooperative {
            run_cooperative(launch, &mut worker);
        } else {
            run_blocks(launch, &mut worker);
        }
        drop(running);
        (worker.monitor, worker.printed)
    };
    if threads == 1 {
        return vec![work(launch.waits.enter())];
    }
    std::thread::scope(|scope| {
        // All have entered before the first of them can wait for another.
        let running: Vec<_> = (0..threads).map(|_| launch.waits.enter()).collect();
        let work = &work;
        let handles: Vec<_> = running.into_iter().map(|running| scope.spawn(move || work(running))).collect();
        let parts = handles.into_iter().map(|handle| handle.join());
        parts.map(|part| part.unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
    })
}

/// Blocks one after the other, until none is left.
fn run_blocks<M: Monitor>(launch: &LaunchState<'_>, worker: &mut Worker<M>) {
    let mut block = Block::new();
    loop {
        let place = launch.next.fetch_add(1, Relaxed);
        if place >= launch.blocks() || launch.stop.load(Relaxed) {
            return;
        }
        block.start(launch, worker, launch.number_of(place));
        let mut changes = launch.waits.changes();
        loop {
            match block.round(launch, worker) {
                Standing::Ready => {}
                Standing::Done => break,
                Standing::Waiting(_) => {
                    block.report_stuck(worker);
                    break;
                }
                Standing::Aborted => return launch.stop.store(true, Relaxed),
            }
            if block.only_spins() == Some(true) {
                let now = launch.waits.changes();
                if now == changes && !launch.waits.wait(now, &launch.stop) {
                    block.report_spinning(launch, worker);
                    return launch.stop.store(true, Relaxed);
                }
                if launch.stop.load(Relaxed) {
                    return;
                }
                changes = now;
                block.forget_spins();
            }
        }
    }
}

/// All blocks alive, a round for each in turn.
fn run_cooperative<M: Monitor>(launch: &LaunchState<'_>, worker: &mut Worker<M>) {
    let mut blocks: Vec<Block<M>> = Vec::new();
    for number in 0..launch.blocks() {
        let mut block = Block::new();
        block.start(launch, worker, number);
        blocks.push(block);
    }
    while !blocks.is_empty() {
        let (mut stuck, mut aborted, mut changed) = (0, false, false);
        blocks.retain_mut(|block| {
            if aborted {
                return true;
            }
            let standing = block.round(launch, worker);
            changed |= block.changed();
            stuck += usize::from(matches!(standing, Standing::Waiting(_)));
            aborted = standing == Standing::Aborted;
            standing != Standing::Done
        });
        if aborted {
            return;
        }
        if changed {
            blocks.iter_mut().for_each(Block::forget_spins);
        }
        if stuck == blocks.len() && stuck > 0 {
            return blocks.iter().for_each(|block| block.report_stuck(worker));
        }
        let spins = blocks.iter().filter_map(Block::only_spins);
        if spins.reduce(|all, one| all && one) == Some(true) {
            return blocks.iter().for_each(|block| block.report_spinning(launch, worker));
        }
    }
}
