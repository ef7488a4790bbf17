//! The augmentation parameters of an epoch's views. They are a function of seed and epoch alone, so a thread
//! draws those of the next epoch while a GPU trains: drawing them is most of what the host does between epochs.

use std::thread::{self, JoinHandle};

use rayon::prelude::*;

use crate::data::augment::{View, ViewParameters};

/// Which parameters.
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

impl Which {
    /// Weak view and strong view of a sample.
    fn of_sample(self, sample: usize) -> [ViewParameters; 2] {
        let Self { seed, epoch, source, size, .. } = self;
        let of = |view| ViewParameters::of_sample(seed, epoch, sample as u32, view, source, size);
        [of(View::Weak), of(View::Strong)]
    }

    /// All, by sample.
    fn draw(self) -> Vec<ViewParameters> {
        (0..self.samples).into_par_iter().flat_map_iter(|sample| self.of_sample(sample)).collect()
    }
}

/// Parameters that are drawn before they are asked for.
#[derive(Default)]
pub struct Ahead {
    drawing: Option<(Which, JoinHandle<Vec<ViewParameters>>)>,
}

impl Ahead {
    /// Those that are asked for: drawn now, unless they have been.
    pub fn take(&mut self, which: Which) -> Vec<ViewParameters> {
        let ahead = self.drawing.take().filter(|(drawn, _)| *drawn == which);
        ahead.and_then(|(_, thread)| thread.join().ok()).unwrap_or_else(|| which.draw())
    }

    /// Begins to draw those of the epoch after `which`, on one thread. Where there is none to be had, they are
    /// drawn when they are asked for.
    pub fn begin_next(&mut self, which: Which) {
        let next = Which { epoch: which.epoch + 1, ..which };
        let draw = move || (0..next.samples).flat_map(|sample| next.of_sample(sample)).collect();
        let thread = thread::Builder::new().name("augmentation parameters".into()).spawn(draw);
        self.drawing = thread.ok().map(|thread| (next, thread));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What was drawn ahead is what is drawn now; what was drawn for another epoch or seed is not taken.
    #[test]
    fn drawn_ahead_or_now_they_are_the_same() {
        let which = |seed, epoch| Which { seed, epoch, samples: 37, source: [32, 32], size: 32 };
        let bytes = |parameters: &[ViewParameters]| bytemuck::cast_slice::<_, u8>(parameters).to_vec();
        let mut ahead = Ahead::default();
        for (asked, drawn) in
            [(which(1, 5), which(1, 4)), (which(1, 7), which(1, 3)), (which(2, 4), which(1, 3))]
        {
            ahead.begin_next(drawn);
            assert_eq!(bytes(&ahead.take(asked)), bytes(&asked.draw()));
            assert!(ahead.drawing.is_none());
        }
        assert_ne!(bytes(&which(1, 5).draw()), bytes(&which(1, 4).draw()));
    }
}
