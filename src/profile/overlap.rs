//! What the branches of a recorded step gain by running side by side ([`crate::device::gpu::branches`]).
//!
//! A GPU hands out the blocks of a kernel before those of one that was launched later, so most of two kernels
//! runs one after the other; but where the last turn of a kernel leaves multiprocessors idle, the other
//! branch's blocks run. Gaps between the launches aside are hidden as well.
//!
//! | time | assumed |
//! |---|---|
//! | best | multiprocessors, L2 and DRAM are each as busy as all launches make them, and nothing else waits |
//! | expected | launches in turn, without what their last turns leave idle and without the gaps aside |
//! | at worst | all launches in turn |
//!
//! None is less than either branch alone takes. How far two kernels of different limits really overlap is
//! known only by measuring.

use super::gpus::Gpu;
use super::model::Time;
use super::{Timed, in_turn};
use crate::device::gpu::branches::{Place, Stretch, stretches};

/// The time of launches in their places.
pub(super) fn time(gpu: &Gpu, timed: &[Timed]) -> Time {
    let places: Vec<Place> = timed.iter().map(|timed| timed.planned.place).collect();
    let stretch = |stretch| match stretch {
        Stretch::Ordered(range) => in_turn(gpu, &timed[range]),
        Stretch::Unordered(range) => side_by_side(gpu, &timed[range]),
    };
    stretches(&places).into_iter().map(stretch).sum()
}

fn side_by_side(gpu: &Gpu, timed: &[Timed]) -> Time {
    let (aside, main): (Vec<Timed>, Vec<Timed>) =
        timed.iter().cloned().partition(|timed| timed.planned.place.aside);
    let gaps = gpu.gap * aside.len() as f64;
    let [all, main, aside] = [timed, &main, &aside].map(|launches| in_turn(gpu, launches));
    let sum = |of: &dyn Fn(&Timed) -> f64| timed.iter().map(of).sum::<f64>();
    let busiest = (0..3).map(|i| sum(&|timed| timed.predicted.busy[i])).fold(0.0, f64::max);
    let idle = sum(&|timed| timed.predicted.expected_idle());
    Time {
        best: busiest.max(main.best).max(aside.best),
        expected: (all.expected - idle - gaps).max(main.expected).max(aside.expected),
        pessimistic: all.pessimistic,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::data::Given;
    use crate::profile::{Profile, Sequence};
    use crate::settings::Settings;

    /// A step with branches is never slower than in turn, nor faster than a branch or its busiest
    /// resource; without branches it takes the sum.
    #[test]
    fn branches_gain_what_is_idle() {
        let gpu = Gpu::find("rtx3090").unwrap();
        let settings = Settings { batch_size: 64, ..Settings::default() };
        let Profile { step, .. } = Profile::new(&settings, Given::default(), &gpu).unwrap();
        let aside = step.launches.iter().filter(|timed| timed.planned.place.aside).count();
        assert!(aside > 20, "{aside} launches aside");
        let turns = in_turn(&gpu, &step.launches);
        assert!((step.time.pessimistic - turns.pessimistic).abs() < 1e-12);
        assert!(step.time.best < step.time.expected && step.time.expected < turns.expected);
        let tensor: f64 = step.launches.iter().map(|timed| timed.predicted.busy[0]).sum();
        assert!(step.time.best > tensor, "{} of {tensor}", step.time.best);
        let mut ordered = step.launches.clone();
        ordered.iter_mut().for_each(|timed| timed.planned.place = Place::default());
        let Sequence { time, .. } = Sequence::of(&gpu, ordered);
        assert!((time.expected - turns.expected).abs() < 1e-12);
    }
}
