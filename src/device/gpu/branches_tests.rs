//! Places of launches by the memory of their operations.

use anyhow::Result;

use super::*;
use crate::device::cpu::Call;
use crate::device::gpu::lower::Lowering;
use crate::device::{Element, Operand, Tensor};

/// Reads a tensor and writes another.
#[derive(Debug)]
struct Copy(usize, usize);

/// The same with other GPUs.
#[derive(Debug)]
struct Exchange(usize, usize);

impl Operation for Copy {
    fn name(&self) -> &'static str {
        "copy"
    }

    fn operands(&self) -> Vec<Operand> {
        vec![Operand::read(Tensor(self.0)), Operand::write(Tensor(self.1))]
    }

    fn run(&self, _: &mut Call<'_>) -> Result<()> {
        unreachable!("only its operands matter here")
    }

    fn lower(&self, _: &mut Lowering<'_>) -> Result<()> {
        unreachable!("only its operands matter here")
    }
}

impl Operation for Exchange {
    fn name(&self) -> &'static str {
        "exchange"
    }

    fn operands(&self) -> Vec<Operand> {
        Copy(self.0, self.1).operands()
    }

    fn is_exchange(&self) -> bool {
        true
    }

    fn run(&self, _: &mut Call<'_>) -> Result<()> {
        unreachable!("only its operands matter here")
    }

    fn lower(&self, _: &mut Lowering<'_>) -> Result<()> {
        unreachable!("only its operands matter here")
    }
}

/// Places for copies, each of one launch: (from, to, whether aside).
fn places(buffers: &[Buffer], copies: &[(usize, usize, bool)]) -> Vec<Place> {
    let mut placing = Placing::default();
    for &(from, to, aside) in copies {
        placing.place(Used::by(&[&Copy(from, to)], buffers), 1, aside);
    }
    placing.places().to_vec()
}

fn apart(count: usize) -> Vec<Buffer> {
    (0..count).map(|allocation| Buffer { allocation, offset: 0, len: 8, element: Element::F32 }).collect()
}

const fn main(after: Option<usize>) -> Place {
    Place { aside: false, after }
}

const fn aside(after: Option<usize>) -> Place {
    Place { aside: true, after }
}

#[test]
fn the_main_branch_waits_for_what_it_needs_and_for_no_more() {
    // 1 -> 2 aside; then something else, then a reader of 2.
    let found =
        places(&apart(6), &[(0, 1, false), (1, 2, true), (1, 3, false), (2, 4, false), (2, 5, false)]);
    assert_eq!(found, [main(None), aside(Some(0)), main(None), main(Some(1)), main(None)]);
    assert_eq!(stretches(&found), [Stretch::Ordered(0..1), Stretch::Unordered(1..3), Stretch::Ordered(3..5)]);
    let none: [&[usize]; 2] = [&[], &[]];
    assert_eq!(predecessors(&found, 1..3), none);
}

#[test]
fn memory_given_to_another_tensor_is_waited_for() {
    // Tensor 3 lies where tensor 1 does, which is read aside; tensor 4 beside it in the same allocation.
    let mut buffers = apart(5);
    buffers[1].len = 4;
    buffers[3] = buffers[1];
    buffers[4] = Buffer { offset: 4, ..buffers[1] };
    let found = places(&buffers, &[(0, 1, false), (1, 2, true), (0, 4, false), (0, 3, false)]);
    assert_eq!(found, [main(None), aside(Some(0)), main(None), main(Some(1))]);
}

#[test]
fn waiting_for_one_aside_is_waiting_for_those_before_it() {
    let copies = [
        (0, 1, true),
        (0, 2, true),
        (0, 3, false),
        (0, 4, true),
        (2, 5, false),
        (1, 6, false),
        (4, 7, false),
    ];
    let found = places(&apart(8), &copies);
    let expected =
        [aside(None), aside(None), main(None), aside(Some(2)), main(Some(1)), main(None), main(Some(3))];
    assert_eq!(found, expected);
    assert_eq!(stretches(&found), [Stretch::Unordered(0..6), Stretch::Ordered(6..7)]);
    let before: [&[usize]; 6] = [&[], &[0], &[], &[1, 2], &[2, 1], &[4]];
    assert_eq!(predecessors(&found, 0..6), before);
}

/// Even where nothing needs what runs aside, the branches meet before there are more launches than the
/// interpreter takes.
#[test]
fn branches_meet_in_long_sequences() {
    let copies: Vec<_> = (0..1000).map(|number| (0, 1 + number, number % 3 == 0)).collect();
    let found = places(&apart(1001), &copies);
    let parts = stretches(&found);
    assert!(found.iter().filter(|place| place.aside).count() >= 325);
    assert!(parts.len() >= 1000 / MOST_UNORDERED && parts.len() < 12, "{parts:?}");
    for part in parts {
        let (Stretch::Ordered(range) | Stretch::Unordered(range)) = part;
        assert!(range.len() <= MOST_UNORDERED, "{range:?}");
    }
}

/// Two exchanges with nothing in common are in one order all the same, which a copy between them is not:
/// another GPU must not do the second first.
#[test]
fn exchanges_keep_their_order() {
    let mut placing = Placing::default();
    let buffers = apart(8);
    placing.place(Used::by(&[&Copy(0, 1)], &buffers), 1, false);
    placing.place(Used::by(&[&Exchange(1, 2)], &buffers), 3, true);
    placing.place(Used::by(&[&Copy(0, 3)], &buffers), 1, false);
    placing.place(Used::by(&[&Exchange(3, 4)], &buffers), 2, false);
    placing.place(Used::by(&[&Exchange(5, 6)], &buffers), 1, true);
    let expected = [
        main(None),
        aside(Some(0)),
        aside(None),
        aside(None),
        main(None),
        main(Some(3)),
        main(None),
        aside(Some(6)),
    ];
    assert_eq!(placing.places(), expected);
}
