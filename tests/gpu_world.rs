//! The exchanges between GPUs on one GPU, which does them with itself: a world of one, through NCCL, in a
//! captured graph. With RECORDS_TEST_DEVICE=cuda on this machine's GPU, as `tools/gpu_check` runs it; else on
//! the stand-in for the driver and NCCL.
#![cfg(target_os = "linux")]

#[path = "support/stand_in.rs"]
mod stand_in;

use std::process::Command;
use std::sync::Arc;

use records::collective::{Share, World};
use records::device::cpu::CpuDevice;
use records::device::gpu::{self, DriverKind, Precision};
use records::device::{Buffer, Device, Element, Operation, Plan, Program, Tensor};
use records::operations;
use records::ops::batchnorm::{BatchNorm, JointBatchNorm};
use records::ops::division::{BeginSum, EndSum, GatherRows, TakeFirst};

const GROUPS: usize = 2;
/// Rows of a group, and values of a row.
const COUNT: usize = 5;
const LEN: usize = 12;
/// Of a batchnorm.
const ROWS: usize = 30;
const CHANNELS: usize = 4;
/// Values that are summed over all GPUs.
const SUMMED: usize = 1000;

/// The lengths of the operations' tensors, and whether they begin with values.
const TENSORS: [(usize, bool); 9] = [
    (GROUPS * COUNT * LEN, true),
    (GROUPS * COUNT * LEN, false),
    (GROUPS * COUNT * LEN, false),
    (SUMMED, true),
    (ROWS * CHANNELS, true),
    (2 * CHANNELS, true),
    (2 * CHANNELS, true),
    (2 * CHANNELS, false),
    (ROWS * CHANNELS, false),
];

fn operations() -> Vec<Arc<dyn Operation>> {
    let share = Share::default();
    let [x, two_groups, one_group, values, rows, affine, running, batch, y] = std::array::from_fn(Tensor);
    let (residual, relu, valid) = (None, true, None);
    let batchnorm = BatchNorm {
        rows: ROWS,
        channels: CHANNELS,
        x: rows,
        affine,
        running,
        batch,
        residual,
        relu,
        valid,
        y,
        positive: None,
    };
    operations![
        GatherRows { groups: GROUPS, count: COUNT, len: LEN, share, x, out: two_groups },
        GatherRows { groups: 1, count: GROUPS * COUNT, len: LEN, share, x, out: one_group },
        BeginSum { number: 0, len: SUMMED, values },
        TakeFirst { len: 2 * CHANNELS, values: running },
        JointBatchNorm(batchnorm),
        EndSum { number: 0, len: SUMMED, values },
    ]
    .into()
}

/// What two replays leave in each tensor.
fn replayed(device: &mut dyn Device) -> Vec<Vec<f32>> {
    let mut buffers: Vec<Buffer> = Vec::new();
    for (number, (len, has_values)) in TENSORS.into_iter().enumerate() {
        let buffer = device.allocate(Element::F32, len, "a test operand").unwrap();
        if has_values {
            let value = |i: usize| ((i * 7919 + 31 * number) % 101) as f32 / 50.0 - 0.9;
            device.write_f32(buffer, &(0..len).map(value).collect::<Vec<_>>()).unwrap();
        }
        buffers.push(buffer);
    }
    let plan = Plan::record(Program::new(operations(), buffers.clone()), device).unwrap();
    for _ in 0..2 {
        device.replay(&plan).unwrap_or_else(|error| panic!("{error:#}"));
    }
    buffers.into_iter().map(|buffer| device.read_f32(buffer).unwrap()).collect()
}

#[test]
fn a_gpu_exchanges_with_itself() {
    if std::env::var_os("RECORDS_TEST_DEVICE").is_none_or(|device| device != "cuda") {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.env("RECORDS_TEST_DEVICE", "cuda").env("RECORDS_GPU_CODE", "ptx").env("RECORDS_POISON", "1");
        let output = command.env("LD_LIBRARY_PATH", stand_in::stand_in()).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
        assert!(text.contains("test result: ok. 1 passed"), "{text}");
        return;
    }
    let mut gpu = gpu::open(DriverKind::Cuda, Precision::F32).unwrap_or_else(|error| panic!("{error:#}"));
    gpu.join_gpus(World::default()).unwrap_or_else(|error| panic!("{error:#}"));
    let (on_gpu, on_cpu) = (replayed(&mut gpu), replayed(&mut CpuDevice::new(1).unwrap()));
    for (number, (gpu, cpu)) in on_gpu.iter().zip(&on_cpu).enumerate() {
        // What is only moved has the same bits; a batchnorm of values near 1 some roundings of f32.
        let allowed = if number < 6 { 0.0 } else { 1e-6 };
        for (at, (gpu, cpu)) in gpu.iter().zip(cpu).enumerate() {
            assert!((gpu - cpu).abs() <= allowed * cpu.abs().max(1.0), "tensor {number}, {at}: {gpu} {cpu}");
        }
    }
}
