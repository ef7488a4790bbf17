//! The choice among ways to do the same.

use super::key;
use super::times::Times;
use crate::device::gpu::launch::Launch;
use crate::device::gpu::lower::Lowering;
use crate::device::gpu::model::gpus::Gpu;
use crate::device::gpu::model::{Estimate, Model};

/// What launches run beside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beside {
    /// Nothing: forward.
    Nothing,
    /// Those of the other branch: backward. Whether there are branches is not asked, so that a step has the
    /// same bits with and without.
    OtherBranch,
}

/// How much longer than the fastest a way may take that keeps the GPU less busy: a branch must not become the
/// longer.
const LONGER: f64 = 1.1;

/// One way.
#[derive(Clone, Debug)]
pub struct Way {
    /// Its launches, in turn.
    pub launches: Vec<Launch>,
    /// Bytes of workspace that they use, from its start on.
    pub workspace: usize,
    /// What they take by the model.
    pub estimate: Estimate,
}

impl Way {
    /// What was lowered apart from all else, on a GPU of these rates.
    pub fn of(apart: Lowering<'_>, gpu: &Gpu) -> Self {
        let workspace = apart.workspace_used();
        let launches = apart.into_launches();
        // A kernel that nothing is known of is taken where there is no other.
        let unknown = Estimate { whole: f64::INFINITY, busy: f64::INFINITY };
        let estimate = Model::estimate(gpu, &launches).unwrap_or(unknown);
        Self { launches, workspace, estimate }
    }

    /// What its measured time is found by again.
    pub fn key(&self) -> String {
        key::of(&self.launches)
    }

    /// What it takes if it was measured to take so many seconds. How much of that keeps the GPU busy is not
    /// measured: the share that the model says, since a way that is slower than the model has it is so while
    /// it computes, as far as anybody knows.
    fn measured(&self, seconds: f64) -> Estimate {
        let Estimate { whole, busy } = self.estimate;
        let share = if whole.is_finite() && whole > 0.0 { busy / whole } else { 1.0 };
        Estimate { whole: seconds, busy: seconds * share }
    }
}

/// What one way is taken of.
#[derive(Clone, Debug)]
pub struct Decision {
    /// The operation that it is about, or the first of two that are done together.
    pub operation: &'static str,
    /// What it runs beside.
    pub beside: Beside,
    /// At least one.
    pub ways: Vec<Way>,
}

impl Decision {
    /// Among `ways`.
    pub fn new(beside: Beside, ways: Vec<Way>) -> Self {
        Self { operation: "", beside, ways }
    }

    /// The measured seconds of each way, where there are some for all.
    pub fn measured(&self, times: &Times) -> Option<Vec<f64>> {
        self.ways.iter().map(|way| times.get(&way.key())).collect()
    }

    /// The number of the way that is taken: the fastest as measured, if all ways were, otherwise by the
    /// model, for a measured time beside an estimate says nothing. Beside others, of those that take little
    /// longer, the one that keeps the GPU least busy: what the last turns of blocks leave idle, others fill.
    /// The first of equals.
    ///
    /// # Panics
    /// Without a way.
    pub fn taken(&self, times: Option<&Times>) -> usize {
        let measured = times.and_then(|times| self.measured(times));
        let estimates: Vec<Estimate> = match measured {
            None => self.ways.iter().map(|way| way.estimate).collect(),
            Some(seconds) => self.ways.iter().zip(seconds).map(|(way, one)| way.measured(one)).collect(),
        };
        let least = estimates.iter().fold(f64::INFINITY, |least, estimate| least.min(estimate.whole));
        let seconds = |estimate: &Estimate| match self.beside {
            Beside::Nothing => estimate.whole,
            Beside::OtherBranch if estimate.whole <= LONGER * least => estimate.busy,
            Beside::OtherBranch => f64::INFINITY,
        };
        let best =
            (0..estimates.len()).min_by(|&a, &b| seconds(&estimates[a]).total_cmp(&seconds(&estimates[b])));
        best.expect("there is a way for all shapes")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::gpu::kernels::batch::{ADVANCE_STEP, AdvanceStep};
    use crate::device::gpu::launch::Address;
    use crate::device::gpu::tiles::MeasuredOn;

    /// Ways of one launch of so many blocks, whole and busy as given.
    fn decision(beside: Beside, estimates: &[[f64; 2]]) -> Decision {
        let way = |(number, &[whole, busy]): (usize, &[f64; 2])| Way {
            launches: vec![ADVANCE_STEP.linear(
                number + 1,
                1,
                AdvanceStep { modulus: 1, step: Address::NULL },
            )],
            workspace: 0,
            estimate: Estimate { whole, busy },
        };
        Decision::new(beside, estimates.iter().enumerate().map(way).collect())
    }

    /// Times of the first ways of a decision.
    fn times(decision: &Decision, seconds: &[f64]) -> Times {
        let mut times = Times::none(MeasuredOn::default());
        decision.ways.iter().zip(seconds).for_each(|(way, &seconds)| times.insert(way.key(), seconds));
        times
    }

    #[test]
    fn measured_times_take_the_place_of_the_model_s_where_all_ways_have_one() {
        let forward = decision(Beside::Nothing, &[[3.0, 1.0], [1.0, 1.0], [2.0, 1.0]]);
        assert_eq!(forward.taken(None), 1);
        assert_eq!(forward.taken(Some(&times(&forward, &[5.0, 6.0, 4.0]))), 2);
        assert_eq!(forward.taken(Some(&times(&forward, &[5.0, 6.0]))), 1, "one way was not measured");
        assert_eq!(forward.taken(Some(&times(&forward, &[4.0, 6.0, 4.0]))), 0, "the first of equals");
    }

    /// Of those within a tenth of the fastest, the least busy: the model's share of the measured time.
    #[test]
    fn beside_others_the_least_busy_is_taken() {
        let backward = decision(Beside::OtherBranch, &[[1.0, 0.9], [1.05, 0.6], [1.2, 0.1]]);
        assert_eq!(backward.taken(None), 1);
        // The second is as busy as the first now, and the third within the tenth.
        assert_eq!(backward.taken(Some(&times(&backward, &[2.0, 4.0, 2.1]))), 2);
        assert_eq!(backward.taken(Some(&times(&backward, &[2.0, 4.0, 2.3]))), 0);
        // 0.9 of 1 beside 0.57 of 1.09.
        assert_eq!(backward.taken(Some(&times(&backward, &[1.0, 1.09, 9.0]))), 1);
    }

    #[test]
    fn a_way_that_the_model_does_not_know_is_busy_all_the_time_it_takes() {
        let odd = decision(Beside::OtherBranch, &[[f64::INFINITY, f64::INFINITY], [1.0, 0.5]]);
        assert_eq!(odd.taken(None), 1);
        assert_eq!(odd.taken(Some(&times(&odd, &[1.0, 1.0]))), 1);
        assert_eq!(odd.taken(Some(&times(&odd, &[1.0, 3.0]))), 0);
    }
}
