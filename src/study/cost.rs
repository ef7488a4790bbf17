//! What a rung costs: counted by the interpreter with a time predicted from that, or measured on a GPU.

use std::sync::Arc;

use anyhow::Result;
use serde::Serialize;

#[cfg(feature = "sim")]
use crate::device::gpu::sim::{Costs, MODELLED, SimDriver};
use crate::device::gpu::{self, DriverKind, GpuDevice, Precision};
use crate::device::{Buffer, Device, Operation, Plan, Program};

/// Multiprocessors of the GPU's part that times are predicted for: so many as a problem fills that the interpreter
/// does in a second.
pub const MULTIPROCESSORS: usize = 4;

/// What a rung cost.
#[derive(Clone, Debug, Serialize)]
pub struct RungCost {
    /// Predicted from the counts, or measured.
    pub seconds: f64,
    /// What was counted, by the interpreter.
    #[serde(flatten)]
    pub counted: Option<Counted>,
}

/// What the interpreter counted of a rung's launches.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Counted {
    /// Instructions of warps.
    pub instructions: u64,
    /// Floating-point operations, on the tensor cores and off.
    pub flops: u64,
    /// Instructions of the tensor cores.
    pub mma: u64,
    /// Bytes of the sectors that loads and stores asked for.
    pub requested_bytes: u64,
    /// Bytes of the distinct sectors of each launch: what a cache that forgets nothing leaves to DRAM.
    pub dram_bytes: u64,
    /// Passes through shared memory.
    pub shared_wavefronts: u64,
    /// Those of them that bank conflicts cost.
    pub bank_conflicts: u64,
    /// What the predicted time is bound by.
    pub limit: String,
}

/// A device and how costs are found on it.
pub struct Meter {
    device: GpuDevice,
    /// What the times are of.
    pub about: String,
    /// How many times the multiprocessors that are modelled the device has.
    pub times: usize,
    #[cfg(feature = "sim")]
    counted: Option<Costs>,
}

impl Meter {
    /// Opens it.
    ///
    /// # Errors
    /// A usage error that says what is missing and how to get it.
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

    /// What an operation cost that was the last to run on these buffers; where it is measured, it runs again.
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

/// The GPU that is modelled, with `share` of all that it has.
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

/// The cost of launches one after the other.
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
