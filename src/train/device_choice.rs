//! Opening the device that the settings name.

use anyhow::Result;

use crate::device::Device;
use crate::device::cpu::CpuDevice;
use crate::device::gpu::{self, DriverKind};
use crate::settings::{DeviceChoice, PrecisionChoice};
use crate::usage;

/// An open device and the reason for its choice.
pub struct ChosenDevice {
    /// The device.
    pub device: Box<dyn Device>,
    /// Why this one, for the log.
    pub reason: String,
}

/// Opens a device. `threads` is for the CPU; 0 takes every core.
///
/// # Errors
/// A usage error that names what is missing on this machine, or says that the CPU computes in f32 only.
pub fn open(choice: DeviceChoice, precision: PrecisionChoice, threads: usize) -> Result<ChosenDevice> {
    let gpu_precision = match precision {
        PrecisionChoice::F32 => gpu::Precision::F32,
        PrecisionChoice::Bf16 | PrecisionChoice::Auto => gpu::Precision::Bf16,
    };
    let open_cpu = |reason: String| {
        if precision == PrecisionChoice::Bf16 {
            return Err(usage!("--precision bf16: the CPU computes in f32; take --device cuda or sim"));
        }
        Ok(ChosenDevice { device: Box::new(CpuDevice::new(threads)?), reason })
    };
    let open_gpu = |kind: DriverKind, reason: &str| {
        let device = gpu::open(kind, gpu_precision)?;
        Ok(ChosenDevice { device: Box::new(device), reason: reason.into() })
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
