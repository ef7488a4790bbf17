//! The cost of a rung: counted by the interpreter, with a time predicted from the counts, or measured on a
//! GPU.

use std::sync::Arc;

use anyhow::Result;
use serde::Serialize;

#[cfg(feature = "sim")]
use crate::device::gpu::sim::{Costs, MODELLED, SimDriver};
use crate::device::gpu::{self, DriverKind, GpuDevice, Precision};
use crate::device::{Buffer, Device, Operation, Plan, Program};

/// Times are predicted for this many multiprocessors: the interpreter simulates a problem that fills them in
/// about a second.
pub const MULTIPROCESSORS: usize = 4;

/// The cost of a rung.
#[derive(Clone, Debug, Serialize)]
pub struct RungCost {
    /// Predicted from the counts, or measured.
    pub seconds: f64,
    /// The interpreter's counts; `None` for a measurement.
    #[serde(flatten)]
    pub counted: Option<Counted>,
}

/// The interpreter's counts over a rung's launches.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Counted {
    /// Warp instructions.
    pub instructions: u64,
    /// Floating-point operations, including those of the tensor cores.
    pub flops: u64,
    /// Tensor-core instructions.
    pub mma: u64,
    /// Bytes of the sectors requested by loads and stores.
    pub requested_bytes: u64,
    /// Bytes of the distinct sectors of each launch: the DRAM traffic behind an unlimited cache.
    pub dram_bytes: u64,
    /// Wavefronts of shared-memory accesses.
    pub shared_wavefronts: u64,
    /// The additional wavefronts caused by bank conflicts.
    pub bank_conflicts: u64,
    /// The resource that bounds the predicted time.
    pub limit: String,
}

/// A device on which costs are counted or measured.
pub struct Meter {
    device: GpuDevice,
    /// A description of the times, for reports.
    pub about: String,
    /// The device's multiprocessors as a multiple of the four that are modelled, rounded up.
    pub times: usize,
    #[cfg(feature = "sim")]
    counted: Option<Costs>,
}

impl Meter {
    /// Opens the device of the given kind.
    ///
    /// # Errors
    /// A usage error that names what is missing and how to get it.
    pub fn open(kind: DriverKind) -> Result<Self> {
        #[cfg(feature = "sim")]
        if kind == DriverKind::Sim {
            let driver = SimDriver::open(gpu::warp_seed()?)?;
            let counted = Some(driver.costs());
            let whole = modelled(1.0);
            let about = format!(
                "counted by the interpreter; times predicted for {MULTIPROCESSORS} of the {} \
                 multiprocessors of a {} and their share of its bandwidths",
                whole.sms, whole.name
            );
            return Ok(Self {
                device: GpuDevice::new(Box::new(driver), Precision::Bf16),
                about,
                times: 1,
                counted,
            });
        }
        let driver = gpu::open_driver(kind)?;
        let about = format!("times measured on {}", driver.gpu().name);
        let times = driver.gpu().multiprocessors.div_ceil(MULTIPROCESSORS);
        Ok(Self {
            device: GpuDevice::new(driver, Precision::Bf16),
            about,
            times,
            #[cfg(feature = "sim")]
            counted: None,
        })
    }

    /// The device.
    pub fn device(&mut self) -> &mut dyn Device {
        &mut self.device
    }

    /// The cost of the operation that last ran on these buffers; a GPU runs it again to measure it.
    pub(super) fn cost(&mut self, operation: &Arc<dyn Operation>, buffers: Vec<Buffer>) -> Result<RungCost> {
        #[cfg(feature = "sim")]
        if let Some(costs) = &self.counted {
            return Ok(predict(costs.take().into_values()));
        }
        let plan = Plan::record(Program::new([operation.clone()], buffers), &mut self.device)?;
        let seconds = self.device.kernel_times(&plan)?.iter().map(|time| time.seconds).sum();
        Ok(RungCost { seconds, counted: None })
    }
}

/// The modelled GPU, reduced to `share` of its resources.
#[cfg(feature = "sim")]
fn modelled(share: f64) -> ptx_sim::Gpu {
    let whole = ptx_sim::Gpu::built_in(MODELLED).expect("the interpreter knows the GPU it stands for");
    ptx_sim::Gpu {
        sms: (share * f64::from(whole.sms)).round() as u32,
        tensor_flops: share * whole.tensor_flops,
        f32_flops: share * whole.f32_flops,
        dram_bytes: share * whole.dram_bytes,
        l2_bytes: share * whole.l2_bytes,
        ..whole
    }
}

/// The cost of consecutive launches.
#[cfg(feature = "sim")]
fn predict(launches: impl Iterator<Item = ptx_sim::Counters>) -> RungCost {
    let part = modelled(MULTIPROCESSORS as f64 / f64::from(modelled(1.0).sms));
    let (mut all, mut seconds, mut longest) = (ptx_sim::Counters::default(), 0.0, (0.0, String::new()));
    for counters in launches {
        let prediction = part.predict(&counters);
        seconds += prediction.seconds;
        if prediction.seconds > longest.0 {
            longest = (prediction.seconds, prediction.limit);
        }
        all += counters;
    }
    let counted = Counted {
        instructions: all.instructions(),
        flops: all.f32_flops + all.mma_flops,
        mma: all.mma,
        requested_bytes: 32 * (all.load_sectors + all.store_sectors),
        dram_bytes: 32 * (all.unique_load_sectors + all.unique_store_sectors),
        shared_wavefronts: all.shared_wavefronts,
        bank_conflicts: all.bank_conflicts,
        limit: longest.1,
    };
    RungCost { seconds, counted: Some(counted) }
}
