//! From the settings' words to a device.

use anyhow::Result;

use crate::device::Device;
use crate::device::cpu::CpuDevice;
use crate::device::gpu::{self, DriverKind};
use crate::settings::{DeviceChoice, Precision};
use crate::usage;

/// A chosen device and the reason for the choice.
pub struct Chosen {
    pub device: Box<dyn Device>,
    pub reason: String,
}

/// Opens a device. `threads` = 0 takes every core.
///
/// # Errors
/// A usage error that says what is missing on this machine, or that the CPU computes in f32 only.
pub fn open(choice: DeviceChoice, precision: Precision, threads: usize) -> Result<Chosen> {
    let gpu_precision = match precision {
        Precision::F32 => gpu::Precision::F32,
        Precision::Bf16 | Precision::Auto => gpu::Precision::Bf16,
    };
    let open_cpu = |reason: String| {
        if precision == Precision::Bf16 {
            return Err(usage!("--precision bf16: the CPU computes in f32; take --device cuda or sim"));
        }
        Ok(Chosen { device: Box::new(CpuDevice::new(threads)?), reason })
    };
    let open_gpu = |kind: DriverKind, reason: &str| {
        let device = gpu::open(kind, gpu_precision)?;
        Ok(Chosen { device: Box::new(device), reason: reason.into() })
    };
    match choice {
        DeviceChoice::Cpu => open_cpu("asked for with --device cpu".into()),
        DeviceChoice::Cuda => open_gpu(DriverKind::Cuda, "asked for with --device cuda"),
        DeviceChoice::Sim => open_gpu(DriverKind::Sim, "asked for with --device sim"),
        DeviceChoice::Auto => match gpu::probe::usable() {
            Ok(_) => open_gpu(DriverKind::Cuda, "the best there is"),
            Err(missing) => open_cpu(format!("no GPU to use: {}", missing.what)),
        },
    }
}
