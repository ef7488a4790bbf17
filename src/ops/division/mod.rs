//! What a batch that is divided between processes needs: a process's own rows, the rows of all, and sums over
//! all. On a tape that is not divided, nothing is recorded.

mod gpu;
mod rows;
mod sum;

pub use rows::{GatherRows, OwnCount, OwnRows, PlaceRows};
pub use sum::{AddParts, BeginSum, EndSum, TakeFirst};

use crate::autograd::Tape;
use crate::device::{Buffer, Element, Tensor};

/// The shortest bucket of gradients that is worth an exchange of its own, and the longest: shorter ones begin
/// earlier, longer ones have fewer messages.
const SHORTEST: usize = 1 << 16;
const LONGEST: usize = 1 << 21;
/// Buckets where neither limit holds.
const BUCKETS: usize = 8;

/// Values of a bucket of `len` gradients.
pub fn bucket_len(len: usize) -> usize {
    len.div_ceil(BUCKETS).clamp(SHORTEST, LONGEST)
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

/// Sums the gradients over the processes, in the order of their ranks. Each bucket is on its way from the
/// operation on that writes the last of it, and all are there from here on.
pub fn sum_gradients(tape: &mut Tape, gradients: Buffer) {
    if !tape.share().is_divided() {
        return;
    }
    let bucket = bucket_len(gradients.len);
    // The backward pass begins at the end of the arena.
    let starts: Vec<usize> = (0..gradients.len).step_by(bucket).rev().collect();
    let part = |start: usize| gradients.part(start, bucket.min(gradients.len - start));
    for (number, &start) in starts.iter().enumerate() {
        let values = tape.persistent(part(start));
        tape.push_when_written(part(start), BeginSum { number, len: part(start).len, values });
    }
    for (number, &start) in starts.iter().enumerate() {
        let values = tape.persistent(part(start));
        tape.push(EndSum { number, len: part(start).len, values });
    }
}
