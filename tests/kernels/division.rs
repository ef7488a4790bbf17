//! What a divided batch needs beside the exchanges: copies and sums whose bits must be the CPU's.

use records::collective::Share;
use records::device::Tensor;
use records::device::gpu::Precision;
use records::ops::division::{AddParts, OwnCount, OwnRows, PlaceRows};

use super::pair::{PRECISIONS, Pair, Random, Value};

/// Ranks of so many, as shares.
fn shares(size: usize) -> impl Iterator<Item = Share> {
    (0..size).map(move |rank| Share { rank, size, joint_batchnorm: true })
}

#[test]
fn a_process_has_its_own_rows() {
    for precision in PRECISIONS {
        let mut pair = Pair::new(precision);
        for [groups, count, len, size] in [[1, 5, 8, 2], [2, 7, 4, 3], [3, 64, 6, 4], [2, 300, 2, 1]] {
            for share in shares(size) {
                let what = format!("{precision:?} {groups} x {count} x {len}, {share:?}");
                let mut random = Random::new(&what);
                let (all, own) = (groups * count * len, groups * share.of(count).len() * len);
                let own_rows =
                    |is_whole| OwnRows { groups, count, len, share, is_whole, x: Tensor(0), out: Tensor(1) };
                let values = [Value::Activations(random.normal(all, 1.0)), Value::ActivationOutput(own)];
                pair.run(&[own_rows(false)], &values).assert_equal(&what, Tensor(1));
                let values = [Value::I32(random.distinct(all, all)), Value::IntegerOutput(own)];
                pair.run(&[own_rows(true)], &values).assert_equal(&what, Tensor(1));
            }
        }
    }
}

#[test]
fn own_rows_among_the_first_are_counted() {
    let mut pair = Pair::new(Precision::F32);
    for (rows, counts) in [(0..5, [-1, 0, 3, 5, 9]), (5..9, [0, 5, 6, 9, 100])] {
        for count in counts {
            let values = [Value::I32(vec![count]), Value::IntegerOutput(1)];
            let operation = OwnCount { rows: rows.clone(), count: Tensor(0), out: Tensor(1) };
            pair.run(&[operation], &values).assert_equal(&format!("{count} of {rows:?}"), Tensor(1));
        }
    }
}

#[test]
fn rows_of_all_come_to_their_places() {
    let mut pair = Pair::new(Precision::F32);
    for [groups, count, len, ranks] in
        [[1, 5, 3, 2], [2, 7, 5, 3], [4, 64, 10, 4], [2, 300, 3, 8], [2, 3, 1, 5]]
    {
        let what = format!("{groups} x {count} x {len} of {ranks}");
        let all = groups * count * len;
        let values = [Value::F32(Random::new(&what).normal(all, 1.0)), Value::Output(all)];
        let place = PlaceRows { groups, count, len, ranks, gathered: Tensor(0), out: Tensor(1) };
        pair.run(&[place], &values).assert_equal(&what, Tensor(1));
    }
}

/// Of three or more in the order of the ranks, wherever this process stands: another order has other bits.
#[test]
fn parts_are_added_in_the_order_of_the_ranks() {
    let mut pair = Pair::new(Precision::F32);
    for (len, ranks) in [(1, 1), (5, 2), (1000, 3), (257, 8)] {
        for rank in 0..ranks {
            let what = format!("{len} values of {ranks}, rank {rank}");
            let mut random = Random::new(&what);
            let values = [Value::F32(random.normal(ranks * len, 1.0)), Value::F32(random.normal(len, 1.0))];
            let add = AddParts { len, rank, ranks, received: Tensor(0), values: Tensor(1) };
            pair.run(&[add], &values).assert_equal(&what, Tensor(1));
        }
    }
}
