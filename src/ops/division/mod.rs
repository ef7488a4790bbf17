//! What a batch that is divided between processes needs: a process's own rows, the rows of all, and sums over
//! all. On a tape that is not divided, nothing is recorded.

mod gpu;
mod rows;
mod sum;

pub use rows::{GatherRows, OwnCount, OwnRows, PlaceRows};
pub use sum::{AddParts, AddPass, BeginSum, EndSum, TakeFirst};

use crate::autograd::{Add, Tape};
use crate::device::{Buffer, Element, Tensor};

/// The shortest bucket of gradients that is worth an exchange of its own, and the longest: shorter ones begin
/// earlier, longer ones have fewer messages.
const SHORTEST: usize = 1 << 16;
const LONGEST: usize = 1 << 21;
/// Buckets where neither limit holds.
const BUCKETS: usize = 8;

/// Values of a bucket of `len` gradients: whole vectors of 16 bytes, so that kernels find each bucket aligned.
pub fn bucket_len(len: usize) -> usize {
    len.div_ceil(BUCKETS).clamp(SHORTEST, LONGEST).next_multiple_of(4)
}

/// This process's rows of x `[groups count, len]`, `count` of which are a batch.
pub fn own_rows(tape: &mut Tape, [groups, count]: [usize; 2], x: Tensor) -> Tensor {
    let share = tape.share();
    if !share.is_divided() {
        return x;
    }
    let len = tape.len_of(x) / (groups * count);
    let element = tape.element_of(x);
    let out = tape.temporary(element, groups * share.of(count).len() * len);
    tape.push(OwnRows { groups, count, len, share, is_whole: element == Element::I32, x, out });
    out
}

/// The rows `[groups count, len]` of all processes, from this one's, f32; it has a gradient.
pub fn gather_rows(tape: &mut Tape, [groups, count]: [usize; 2], x: Tensor) -> Tensor {
    let share = tape.share();
    if !share.is_divided() {
        return x;
    }
    let len = tape.len_of(x) / (groups * share.of(count).len());
    let out = tape.result(Element::F32, groups * count * len);
    tape.record(GatherRows { groups, count, len, share, x, out });
    out
}

/// How many of this process's rows are among the first ones of all `of`, whose number is in `count` i32
/// `[1]`.
pub fn own_count(tape: &mut Tape, of: usize, count: Tensor) -> Tensor {
    let share = tape.share();
    if !share.is_divided() {
        return count;
    }
    let out = tape.temporary(Element::I32, 1);
    tape.push(OwnCount { rows: share.of(of), count, out });
    out
}

/// Sums the gradients over the processes, in the order of their ranks: `gradients`, those of a step's first forward
/// pass, to which the `further` passes' are added before. Each bucket is on its way from the operation on that
/// writes the last of it, and all are there from here on.
///
/// That operation is one of the first pass: the backward pass has gone through the further ones before it.
pub fn sum_gradients(tape: &mut Tape, gradients: Buffer, further: &[Buffer]) {
    let bucket = bucket_len(gradients.len);
    // The backward pass begins at the end of the arena.
    let starts: Vec<usize> = (0..gradients.len).step_by(bucket).rev().collect();
    let part = |of: Buffer, start: usize| of.part(start, bucket.min(of.len - start));
    for (number, &start) in starts.iter().enumerate() {
        let own = part(gradients, start);
        let (len, values) = (own.len, tape.persistent(own));
        for &further in further {
            let x = tape.persistent(part(further, start));
            tape.push_when_written(own, AddPass(Add { len, x, into: values }));
        }
        tape.push_when_written(own, BeginSum { number, len, values });
    }
    for (number, &start) in starts.iter().enumerate() {
        let values = tape.persistent(part(gradients, start));
        tape.push(EndSum { number, len: part(gradients, start).len, values });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Device as _;
    use crate::device::cpu::CpuDevice;

    /// The buckets of a step of two passes leave one by one, each once both passes have written it, and their sum is
    /// that of the passes.
    #[test]
    fn buckets_of_several_passes_leave_when_they_are_written() {
        let mut device = CpuDevice::new(1).unwrap();
        let len = 2 * SHORTEST + 6;
        let mut with = |value: f32| {
            let buffer = device.allocate(Element::F32, len, "a test").unwrap();
            device.write_f32(buffer, &vec![value; len]).unwrap();
            buffer
        };
        let [ones, gradients, further] = [1.0, 2.0, 4.0].map(&mut with);
        let mut tape = Tape::new(Element::F32);
        // The backward pass: the further pass, then the first one, each from its end.
        for (arena, times) in [(further, 1), (gradients, 2)] {
            for start in [2 * SHORTEST, SHORTEST, 0] {
                for _ in 0..times {
                    let of = |buffer: Buffer| buffer.part(start, SHORTEST.min(len - start));
                    let [x, into] = [of(ones), of(arena)].map(|buffer| tape.persistent(buffer));
                    tape.push(Add { len: of(ones).len, x, into });
                }
            }
        }
        sum_gradients(&mut tape, gradients, &[further]);
        let plan = tape.finish(&mut device).unwrap();
        let names: Vec<_> = plan.operations().iter().map(|operation| operation.name()).collect();
        let bucket = ["add", "add", "add pass", "begin sum"];
        let expected = [&["add"; 3][..], &bucket, &bucket, &bucket, &["end sum"; 3]].concat();
        assert_eq!(names, expected);
        device.replay(&plan).unwrap();
        assert!(device.read_f32(gradients).unwrap().iter().all(|sum| *sum == 9.0));
    }

    #[test]
    fn buckets_are_aligned() {
        for len in [1, 44_622, 11_173_962, 23_500_001, 100_000_003] {
            let bucket = bucket_len(len);
            assert!(bucket.is_multiple_of(4) && (SHORTEST..=LONGEST).contains(&bucket), "{len}: {bucket}");
            assert!(len.div_ceil(bucket) <= BUCKETS || bucket == LONGEST, "{len}: {bucket}");
        }
    }
}
