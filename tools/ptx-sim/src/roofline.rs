//! The least time a GPU needs for what was counted, and what limits it.

use serde::{Deserialize, Serialize};

use crate::watch::Counters;

/// Rates of a GPU.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gpu {
    /// As people call it.
    pub name: String,
    /// Streaming multiprocessors.
    pub sms: u32,
    /// Under load.
    pub clock_hz: f64,
    /// Warp instructions one multiprocessor issues in a cycle.
    pub issues_per_cycle: f64,
    /// Dense bf16 products with f32 sums, operations a second.
    pub tensor_flops: f64,
    /// f32 arithmetic, operations a second (a fused multiplication is two).
    pub f32_flops: f64,
    /// Bytes a second from DRAM.
    pub dram_bytes: f64,
    /// Bytes a second from L2.
    pub l2_bytes: f64,
    /// Wavefronts of shared memory one multiprocessor does in a cycle.
    pub wavefronts_per_cycle: f64,
    /// Exponentials and the like one multiprocessor does in a cycle, lanes.
    pub special_per_cycle: f64,
    /// Bytes of shared memory one block may have; 227 KiB where a file does not say.
    #[serde(default = "most_shared")]
    pub block_shared_bytes: u32,
}

fn most_shared() -> u32 {
    227 << 10
}

/// The least time and why.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Prediction {
    /// The largest of the parts.
    pub seconds: f64,
    /// Its name.
    pub limit: String,
    /// What each resource alone would need.
    pub parts: Vec<(String, f64)>,
}

impl Gpu {
    /// The GPUs that are built in.
    pub fn built_in(name: &str) -> Option<Self> {
        Some(match name {
            // Rates from the data sheets; L2 is an estimate, as the makers do not state it.
            "rtx3090" => Self {
                name: "GeForce RTX 3090".into(),
                sms: 82,
                clock_hz: 1.695e9,
                issues_per_cycle: 4.0,
                tensor_flops: 71e12,
                f32_flops: 35.6e12,
                dram_bytes: 936e9,
                l2_bytes: 2.0e12,
                wavefronts_per_cycle: 1.0,
                special_per_cycle: 16.0,
                block_shared_bytes: 99 << 10,
            },
            // The tensor rate is that of wgmma; mma.sync stays below it.
            "h100" => Self {
                name: "H100 SXM".into(),
                sms: 132,
                clock_hz: 1.755e9,
                issues_per_cycle: 4.0,
                tensor_flops: 989e12,
                f32_flops: 66.9e12,
                dram_bytes: 3.35e12,
                l2_bytes: 5.5e12,
                wavefronts_per_cycle: 1.0,
                special_per_cycle: 16.0,
                block_shared_bytes: 227 << 10,
            },
            _ => return None,
        })
    }

    /// The least time for what was counted. Grids smaller than the GPU keep the rest of it idle.
    pub fn predict(&self, counters: &Counters) -> Prediction {
        let blocks = counters.blocks as f64 / counters.launches.max(1) as f64;
        let sms = f64::from(self.sms).min(blocks.max(1.0));
        let share = sms / f64::from(self.sms);
        let cycles = sms * self.clock_hz;
        let part = |name: &str, amount: u64, rate: f64| (name.to_string(), amount as f64 / rate);
        let parts = vec![
            part("tensor cores", counters.mma_flops, self.tensor_flops * share),
            part("f32 arithmetic", counters.f32_flops, self.f32_flops * share),
            part(
                "DRAM",
                32 * (counters.unique_load_sectors + counters.unique_store_sectors),
                self.dram_bytes,
            ),
            part("L2", 32 * (counters.load_sectors + counters.store_sectors), self.l2_bytes),
            part("instruction issue", counters.instructions(), self.issues_per_cycle * cycles),
            part("shared memory", counters.shared_wavefronts, self.wavefronts_per_cycle * cycles),
            part("special functions", 32 * counters.special, self.special_per_cycle * cycles),
        ];
        let (limit, seconds) = parts
            .iter()
            .fold(("nothing", 0.0), |best, (name, time)| if *time > best.1 { (name, *time) } else { best });
        Prediction { seconds, limit: limit.to_string(), parts }
    }
}
