//! What a replay leaves in a temporary is gone for the next one. The interpreter reports a kernel that reads
//! it; on a GPU, where nobody sees that, RECORDS_POISON=1 makes it NaN.

use records::device::gpu::Precision;
use records::device::{Device, Element, Plan, Program, Temporaries, Tensor};
use records::operations;
use records::ops::elementwise::Convert;

use crate::pair::Pair;

const LEN: usize = 100;

/// Of a temporary, a source and a result; the temporary is filled from the source before or after it is
/// copied to the result.
fn plan(fills_first: bool, device: &mut dyn Device) -> Plan {
    let buffers = ["a temporary", "a source", "a result"]
        .map(|label| device.allocate(Element::F32, LEN, label).unwrap())
        .to_vec();
    device.write_f32(buffers[0], &[2.0; LEN]).unwrap();
    device.write_f32(buffers[1], &[1.0; LEN]).unwrap();
    let copy = |from, to| Convert { len: LEN, from: Tensor(from), to: Tensor(to) };
    let operations = match fills_first {
        true => operations![copy(1, 0), copy(0, 2)],
        false => operations![copy(0, 2), copy(1, 0)],
    };
    let allocations = vec![buffers[0].allocation];
    let temporaries = Temporaries { allocations, bytes: 4 * LEN, unshared_bytes: 4 * LEN, kept: Vec::new() };
    let program = Program { temporaries, ..Program::new(operations.to_vec(), buffers) };
    Plan::record(program, device).unwrap()
}

#[test]
fn a_step_that_reads_what_the_last_one_left_is_found() {
    let device = &mut *Pair::new(Precision::F32).kernels;
    let stale = plan(false, device);
    match device.name() {
        "sim" => {
            let error = format!("{:#}", device.replay(&stale).unwrap_err());
            assert!(error.contains("uninitialised"), "{error}");
        }
        _ => {
            device.replay(&stale).unwrap();
            let values = device.read_f32(stale.buffer(Tensor(2))).unwrap();
            assert!(values.iter().all(|value| value.is_nan()), "is RECORDS_POISON=1 set? {values:?}");
        }
    }
}

#[test]
fn a_step_that_writes_before_it_reads_is_none_the_wiser() {
    let device = &mut *Pair::new(Precision::F32).kernels;
    let right = plan(true, device);
    for _ in 0..2 {
        device.replay(&right).unwrap();
        assert_eq!(device.read_f32(right.buffer(Tensor(2))).unwrap(), [1.0; LEN]);
    }
}
