//! The order in which the gradients of recorded operations come: the reverse of theirs, but where one is to follow
//! at once ([`Differentiable::follows_at_once`](super::Differentiable::follows_at_once)).

use crate::device::{Access, Operand};

/// A recorded operation.
pub(super) struct Recorded {
    pub operands: Vec<Operand>,
    /// Whether its gradient is to come right behind that of an operation that reads its result.
    pub follows: bool,
}

impl Recorded {
    /// Whether the gradient of this one can come before that of `other` and nothing changes: they have no tensor
    /// in common, so neither adds to a gradient of the other, nor makes it.
    fn is_apart_from(&self, other: &Self) -> bool {
        self.operands.iter().all(|own| other.operands.iter().all(|operand| operand.tensor != own.tensor))
    }
}

/// The operation whose gradient comes next, after that of number `last`, before its turn: the latest whose result
/// that one reads, if it is to follow at once and has nothing in common with those of higher numbers that are not
/// `done` yet. None follows one that has followed itself: a kernel does a part of one, not of two.
pub(super) fn before_its_turn(recorded: &[Recorded], done: &[bool], last: usize) -> Option<usize> {
    let reader = &recorded[last];
    if reader.follows {
        return None;
    }
    let is_read = |result: &Operand| {
        result.access == Access::Write
            && reader.operands.iter().any(|read| read.access != Access::Write && read.tensor == result.tensor)
    };
    let follows =
        |&at: &usize| !done[at] && recorded[at].follows && recorded[at].operands.iter().any(is_read);
    let next = (0..last).rev().find(follows)?;
    let mut waiting = (next + 1..recorded.len()).filter(|&at| !done[at]);
    waiting.all(|at| recorded[next].is_apart_from(&recorded[at])).then_some(next)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Tensor;

    fn recorded(reads: &[usize], writes: usize, follows: bool) -> Recorded {
        let reads = reads.iter().map(|&tensor| Operand::read(Tensor(tensor)));
        Recorded { operands: reads.chain([Operand::write(Tensor(writes))]).collect(), follows }
    }

    /// All in the order in which their gradients come.
    fn order(recorded: &[Recorded]) -> Vec<usize> {
        let (mut done, mut order) = (vec![false; recorded.len()], Vec::new());
        for turn in (0..recorded.len()).rev() {
            let mut next = (!done[turn]).then_some(turn);
            while let Some(at) = next {
                done[at] = true;
                order.push(at);
                next = before_its_turn(recorded, &done, at);
            }
        }
        order
    }

    /// A residual block with a convolution in its shortcut: the batchnorm before the second convolution follows
    /// it, and what is left comes in reverse.
    #[test]
    fn a_batchnorm_follows_the_convolution_behind_it() {
        let (convolution, batchnorm) = (false, true);
        let block = [
            recorded(&[0], 1, convolution),
            recorded(&[1, 20], 2, batchnorm),
            recorded(&[0], 3, convolution),
            recorded(&[3, 21], 4, batchnorm),
            recorded(&[2], 5, convolution),
            recorded(&[5, 4, 22], 6, batchnorm),
        ];
        assert_eq!(order(&block), [5, 4, 1, 3, 2, 0]);
    }

    /// Not before another that reads the same result, that adds to the same gradient, or that has the same
    /// parameter.
    #[test]
    fn nothing_overtakes_what_it_has_in_common_with() {
        for between in [[2, 9], [1, 9], [20, 9]] {
            let [read, other] = between;
            let all = [
                recorded(&[0], 1, false),
                recorded(&[1, 20], 2, true),
                recorded(&[read, other], 3, false),
                recorded(&[2], 4, false),
            ];
            assert_eq!(order(&all), [3, 2, 1, 0], "{between:?}");
        }
        let apart = [
            recorded(&[0], 1, false),
            recorded(&[1, 20], 2, true),
            recorded(&[0, 9], 3, false),
            recorded(&[2], 4, false),
        ];
        assert_eq!(order(&apart), [3, 1, 2, 0]);
    }
}
