//! Memory that is kept between calls: for the whole operation, and for each thread.

use std::sync::{Mutex, MutexGuard};

use super::tile::{Offsets, Steps};
use crate::device::cpu::pages;

/// A cache line. Vectors that straddle two lines take twice as long to load.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C, align(64))]
struct Line([f32; 16]);

/// Values of four bytes that begin on a cache line.
#[derive(Default)]
pub(super) struct Aligned(Vec<Line>);

impl Aligned {
    /// The first `len` values, of undefined contents; grown if necessary.
    pub(super) fn take(&mut self, len: usize) -> &mut [f32] {
        self.take_as(len)
    }

    /// As [`Aligned::take`], for another type of the same size.
    pub(super) fn take_as<T: bytemuck::Pod>(&mut self, len: usize) -> &mut [T] {
        const { assert!(size_of::<T>() == size_of::<f32>()) };
        let lines = len.div_ceil(16);
        if self.0.len() < lines {
            // What was there is not needed, so it is not copied.
            self.0 = Vec::new();
            self.0.reserve_exact(lines);
            pages::prefer_large(self.0.spare_capacity_mut());
            self.0.resize(lines, bytemuck::Zeroable::zeroed());
        }
        &mut bytemuck::cast_slice_mut(&mut self.0)[..len]
    }
}

/// What an operation keeps between calls.
#[derive(Default)]
pub struct Workspace {
    pub(super) packed: Aligned,
    pub(super) transformed: Aligned,
    pub(super) partial: Aligned,
    pub(super) threads: Threads,
}

/// One [`Task`] for each thread of the pool.
#[derive(Default)]
pub(super) struct Threads(Vec<Mutex<Task>>);

impl Threads {
    /// Makes one for each thread of the current pool.
    pub(super) fn prepare(&mut self) -> &Self {
        let threads = rayon::current_num_threads().max(self.0.len());
        self.0.resize_with(threads, Mutex::default);
        self
    }

    /// That of the current thread. Holders start no parallel work, so nobody waits.
    pub(super) fn mine(&self) -> MutexGuard<'_, Task> {
        let thread = rayon::current_thread_index().unwrap_or(0) % self.0.len();
        self.0[thread].lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// The scratch memory of a thread.
#[derive(Default)]
pub(super) struct Task {
    /// A block of the source with the zeros around it.
    pub padded: Aligned,
    /// A block of the output's gradient with the zeros around it.
    pub padded_gradient: Aligned,
    /// Transformed tiles and their products.
    pub transformed: Aligned,
    pub transformed_gradient: Aligned,
    pub products: Aligned,
    /// Weights in the order in which they are transformed.
    pub gathered: Aligned,
    pub sources: Offsets,
    pub targets: Offsets,
    pub steps: Steps,
}
