//! The time of a multiprocessor: a closed network of queues (mean value analysis, Reiser and Lavenberg 1980).
//! Its warps are the customers; tensor cores, issue slots and shared memory the servers; the latency that
//! nothing hides is where they think. That gives the rate of a multiprocessor with so many blocks on it.
//! Whole blocks are dealt out, so that the last turn may leave most multiprocessors idle.

use super::Limit;
use super::gpus::Gpu;

/// Sub-cores of a multiprocessor: each has its own tensor core and issues an instruction a cycle.
const SUB_CORES: f64 = 4.0;

/// Turns a second of `customers` that need `demands` of three servers and `think` besides.
fn mean_value_analysis(demands: [f64; 3], think: f64, customers: usize) -> f64 {
    let (mut rate, mut queues) = (0.0, [0.0; 3]);
    for present in 1..=customers {
        let waits: [f64; 3] = std::array::from_fn(|i| demands[i] * (1.0 + queues[i]));
        rate = present as f64 / (think + waits.iter().sum::<f64>());
        queues = waits.map(|wait| rate * wait);
    }
    rate
}

/// What a warp needs of a sub-core for a step: cycles of its tensor core, issue slots, passes of the
/// multiprocessor's shared memory; and cycles of latency.
#[derive(Clone, Copy)]
pub(super) struct Demand {
    /// The three servers'.
    pub servers: [f64; 3],
    /// Where nothing is waited for.
    pub latency: f64,
}

impl Demand {
    /// Steps a cycle of a sub-core with so many warps, and what holds them up.
    fn rate(self, warps: usize) -> (f64, Limit) {
        let [tensor, issue, passes] = self.servers;
        // Shared memory is one server for four sub-cores: half of the others' passes stand in the way of
        // one's own.
        let demands = [tensor, issue, passes * SUB_CORES / 2.0];
        let rate = mean_value_analysis(demands, self.latency, warps.max(1));
        let bounds = [tensor, issue, passes * SUB_CORES];
        let most = bounds.iter().fold(0.0f64, |most, &bound| most.max(bound));
        let rate = if most > 0.0 { rate.min(1.0 / most) } else { rate };
        let limits = [Limit::TensorCores, Limit::Issue, Limit::SharedMemory];
        let busiest = limits.into_iter().zip(bounds).fold((Limit::Latency, 0.0), |most, (limit, bound)| {
            if bound > most.1 { (limit, bound) } else { most }
        });
        // Where the busiest server idles half of the time, it is not what is waited for.
        (rate, if rate * busiest.1 < 0.5 { Limit::Latency } else { busiest.0 })
    }
}

/// Blocks and steps of the multiprocessor that is done last, where each block goes to the one with least to
/// do.
fn busiest(multiprocessors: usize, groups: &[(usize, f64)]) -> (usize, f64) {
    let most: usize = groups.iter().map(|&(blocks, _)| blocks).sum();
    let mut loads = vec![(0.0f64, 0usize); multiprocessors.min(most.max(1))];
    for &(blocks, steps) in groups {
        // What all get alike needs no search.
        let alike = if loads.iter().all(|load| *load == loads[0]) { blocks / loads.len() } else { 0 };
        loads.iter_mut().for_each(|load| *load = (load.0 + alike as f64 * steps, load.1 + alike));
        for _ in alike * loads.len()..blocks {
            let least = loads.iter_mut().min_by(|a, b| a.0.total_cmp(&b.0)).expect("a multiprocessor");
            *least = (least.0 + steps, least.1 + 1);
        }
    }
    let last = loads.iter().max_by(|a, b| a.0.total_cmp(&b.0)).expect("a multiprocessor");
    (last.1, last.0)
}

/// How long a launch takes of the multiprocessors.
#[derive(Clone, Copy, Debug)]
pub(super) struct Makespan {
    /// Cycles until the last one is done.
    pub cycles: f64,
    /// Cycles if all were busy to the end.
    pub busy: f64,
    /// What holds it up.
    pub limit: Limit,
}

/// The cycles of groups of blocks of so many steps, `residents` at a time. `demand` is that of a step where
/// blocks have so many.
pub(super) fn makespan(
    gpu: &Gpu,
    groups: &[(usize, f64)],
    warps: usize,
    residents: usize,
    demand: impl Fn(f64) -> Demand,
) -> Makespan {
    let (blocks, steps) = busiest(gpu.multiprocessors, groups);
    if blocks == 0 {
        return Makespan { cycles: 0.0, busy: 0.0, limit: Limit::Latency };
    }
    let each = steps / blocks as f64;
    let turn = |together: usize| {
        let customers = (together * warps).div_ceil(SUB_CORES as usize);
        let (rate, limit) = demand(each).rate(customers);
        (customers as f64 * each / rate, limit)
    };
    let (full, left) = (blocks / residents, blocks % residents);
    let (mut cycles, mut limit) = if left > 0 { turn(left) } else { (0.0, Limit::Latency) };
    let (one, of_full) = turn(residents);
    if full > 0 {
        (cycles, limit) = (cycles + full as f64 * one, of_full);
    }
    let all: f64 = groups.iter().map(|&(blocks, steps)| blocks as f64 * steps).sum();
    let busy = all / each / (gpu.multiprocessors * residents) as f64 * one;
    Makespan { cycles, busy: busy.min(cycles), limit }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A customer alone never waits; many make the busiest server the limit.
    #[test]
    fn queues_have_their_limits() {
        let alone = mean_value_analysis([10.0, 5.0, 1.0], 84.0, 1);
        assert!((alone - 0.01).abs() < 1e-12, "{alone}");
        let many = mean_value_analysis([10.0, 5.0, 1.0], 84.0, 1000);
        assert!((many - 0.1).abs() < 1e-3 && many <= 0.1, "{many}");
        let rates: Vec<f64> = (1..20).map(|n| mean_value_analysis([10.0, 5.0, 1.0], 84.0, n)).collect();
        assert!(rates.is_sorted(), "{rates:?}");
    }

    /// Whole blocks: one more than all have is a turn of its own; long ones first leave the short ones to
    /// fill up.
    #[test]
    fn the_last_block_counts() {
        assert_eq!(busiest(4, &[(8, 3.0)]), (2, 6.0));
        assert_eq!(busiest(4, &[(9, 3.0)]), (3, 9.0));
        assert_eq!(busiest(4, &[(2, 4.0), (4, 2.0)]).1, 4.0);
        assert_eq!(busiest(4, &[(2, 4.0), (5, 2.0)]).1, 6.0);
        assert_eq!(busiest(4, &[(3, 1.0)]), (1, 1.0));
    }
}
