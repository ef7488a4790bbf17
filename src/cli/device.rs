//! The flags that choose a device, the same for every command that computes.

use anyhow::Result;
use clap::Args;

use super::output;
use crate::device::Device;
use crate::device::cpu::threads;
use crate::device::gpu::tiles::Tiles;
use crate::settings::{DeviceChoice, MOST_THREADS, PrecisionChoice, allowed, quoted_where_odd};
use crate::train::device_choice;
use crate::usage;

/// `--device`, `--precision`, `--threads`.
#[derive(Args, Clone, Debug)]
pub struct DeviceArguments {
    /// Where to compute: auto, cpu, cuda, or sim (the CUDA kernels on the CPU, checked)
    #[arg(long, value_name = "WORD", default_value = "auto")]
    device: String,
    /// How activations are stored: auto (bf16 on a GPU, f32 on the CPU), bf16, f16, or f32
    #[arg(long, value_name = "WORD", default_value = "auto")]
    precision: String,
    /// CPU threads; 0 takes all cores (0 to 1024; at most four per core, or 16, are started)
    #[arg(long, default_value_t = 0)]
    threads: usize,
}

impl DeviceArguments {
    /// Opens the device.
    ///
    /// # Errors
    /// A usage error for an unknown word or a device that cannot be used.
    pub fn open(&self) -> Result<Box<dyn Device>> {
        let refuse = |flag: &'static str, word: &str| {
            let word = quoted_where_odd(word);
            usage!("--{flag} {word}: must be {}", allowed(flag).unwrap_or_default())
        };
        if self.threads > MOST_THREADS {
            return Err(refuse("threads", &self.threads.to_string()));
        }
        let device = DeviceChoice::from_word(&self.device).ok_or_else(|| refuse("device", &self.device))?;
        let precision = PrecisionChoice::from_word(&self.precision)
            .ok_or_else(|| refuse("precision", &self.precision))?;
        threads::limit_other_work(self.threads);
        let device = device_choice::open(device, precision, self.threads)?.device;
        device.tiles().and_then(Tiles::problem).iter().for_each(|problem| output::note(problem));
        Ok(device)
    }
}
