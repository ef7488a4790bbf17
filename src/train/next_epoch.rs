//! What seed and epoch alone decide of an epoch: the order of its samples and the augmentation parameters of their
//! views. A thread draws those of the next epoch while a GPU trains: drawing them is most of what the host would
//! do between epochs.

use std::thread::{self, JoinHandle};

use rayon::prelude::*;

use crate::data::augment::{View, ViewParameters};
use crate::random::philox::{Purpose, Stream};

/// The samples of a training set in the order of an epoch.
pub fn order(seed: u64, epoch: u32, samples: usize) -> Vec<u32> {
    Stream::new(seed, Purpose::Shuffle, epoch, 0, 0).permutation(samples)
}

/// Of which epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Which {
    /// The run's seed.
    pub seed: u64,
    /// The epoch.
    pub epoch: u32,
    /// Samples of the training set.
    pub samples: usize,
    /// Height and width of its images.
    pub source: [usize; 2],
    /// Height and width of a view.
    pub size: usize,
}

/// What was drawn.
#[derive(Debug)]
pub struct Drawn {
    /// The samples in the epoch's order.
    pub order: Vec<i32>,
    /// Weak view and strong view of each sample, by sample.
    pub parameters: Vec<ViewParameters>,
}

impl Which {
    /// Of the epoch after this one.
    pub fn next(self) -> Self {
        Self { epoch: self.epoch + 1, ..self }
    }

    /// Draws it, on all threads.
    pub fn draw(self) -> Drawn {
        let of_sample = |sample| self.of_sample(sample);
        let parameters = (0..self.samples).into_par_iter().flat_map_iter(of_sample).collect();
        Drawn { order: self.order(), parameters }
    }

    fn draw_on_one_thread(self) -> Drawn {
        let parameters = (0..self.samples).flat_map(|sample| self.of_sample(sample)).collect();
        Drawn { order: self.order(), parameters }
    }

    fn order(self) -> Vec<i32> {
        order(self.seed, self.epoch, self.samples).into_iter().map(|sample| sample as i32).collect()
    }

    fn of_sample(self, sample: usize) -> [ViewParameters; 2] {
        let Self { seed, epoch, source, size, .. } = self;
        let of = |view| ViewParameters::of_sample(seed, epoch, sample as u32, view, source, size);
        [of(View::Weak), of(View::Strong)]
    }
}

/// A thread that draws, or has drawn.
pub struct Drawing {
    which: Which,
    thread: JoinHandle<Drawn>,
}

impl Drawing {
    /// Begins to draw; `None` where there is no thread to be had.
    pub fn begin(which: Which) -> Option<Self> {
        let thread = thread::Builder::new().name("next epoch".into());
        let thread = thread.spawn(move || which.draw_on_one_thread()).ok()?;
        Some(Self { which, thread })
    }

    /// Of which epoch.
    pub fn which(&self) -> Which {
        self.which
    }

    /// What it has drawn, once it has; `None` if it could not.
    pub fn wait(self) -> Option<Drawn> {
        self.thread.join().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One thread or all draw the same; another epoch or seed is another draw.
    #[test]
    fn drawn_ahead_or_now_it_is_the_same() {
        let which = |seed, epoch| Which { seed, epoch, samples: 37, source: [32, 32], size: 32 };
        let bytes = |drawn: Drawn| {
            let Drawn { order, parameters } = drawn;
            [bytemuck::cast_slice::<_, u8>(&order), bytemuck::cast_slice(&parameters)].concat()
        };
        let ahead = Drawing::begin(which(1, 4).next()).unwrap();
        assert_eq!(ahead.which(), which(1, 5));
        let ahead = bytes(ahead.wait().unwrap());
        assert_eq!(ahead, bytes(which(1, 5).draw()));
        assert_ne!(ahead, bytes(which(1, 4).draw()));
        assert_ne!(ahead, bytes(which(2, 5).draw()));
    }
}
