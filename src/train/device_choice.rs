//! Opening the device that the settings name.

use anyhow::Result;

use crate::device::cpu::{CpuDevice, RoundedCpu};
use crate::device::gpu::{self, DriverKind};
use crate::device::{Device, Element};
use crate::settings::{DeviceChoice, PrecisionChoice};

/// An open device and the reason for its choice.
pub struct ChosenDevice {
    /// The device.
    pub device: Box<dyn Device>,
    /// Why this one, for the log.
    pub reason: String,
}

/// How a GPU stores activations for a setting.
pub fn precision_on_gpu(precision: PrecisionChoice) -> gpu::Precision {
    match precision {
        PrecisionChoice::F32 => gpu::Precision::F32,
        PrecisionChoice::F16 => gpu::Precision::F16,
        PrecisionChoice::Bf16 | PrecisionChoice::Auto => gpu::Precision::Bf16,
    }
}

/// Opens a device. `threads` is for the CPU; 0 takes every core.
///
/// # Errors
/// A usage error that names what is missing on this machine.
pub fn open(choice: DeviceChoice, precision: PrecisionChoice, threads: usize) -> Result<ChosenDevice> {
    open_nth(choice, precision, threads, 0)
}

/// The same for the process that is `number`th on its machine, which takes that GPU.
///
/// # Errors
/// As [`open`].
pub fn open_nth(
    choice: DeviceChoice,
    precision: PrecisionChoice,
    threads: usize,
    number: usize,
) -> Result<ChosenDevice> {
    let gpu_precision = precision_on_gpu(precision);
    let open_cpu = |reason: String| {
        let cpu = CpuDevice::new(threads)?;
        let device: Box<dyn Device> = match precision {
            PrecisionChoice::Auto | PrecisionChoice::F32 => Box::new(cpu),
            PrecisionChoice::Bf16 => Box::new(RoundedCpu::new(cpu, Element::Bf16)),
            PrecisionChoice::F16 => Box::new(RoundedCpu::new(cpu, Element::F16)),
        };
        Ok(ChosenDevice { device, reason })
    };
    let open_gpu = |kind: DriverKind, reason: &str| {
        let device = gpu::open_nth(kind, gpu_precision, number)?;
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
