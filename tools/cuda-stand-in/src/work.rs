//! What can be put into a stream, and doing it.

use std::sync::Arc;

use ptx_sim::{Gpu, Launch, Machine, Program};

use crate::code::{Code, Result};
use crate::log;
use crate::module::Shape;
use crate::nccl::Exchange;

/// Seconds that a launch takes whatever it does.
const LAUNCH_SECONDS: f64 = 2e-6;
/// Bytes a second between host and GPU.
const COPY_RATE: f64 = 12e9;

/// A piece of work. Host memory is kept as its address, as the driver does.
#[derive(Clone, Debug)]
pub enum Work {
    Kernel { name: String, program: Arc<Program>, shape: Shape, arguments: Vec<u8> },
    ToDevice { to: u64, from: usize, bytes: usize },
    FromDevice { to: usize, from: u64, bytes: usize },
    Within { to: u64, from: u64, bytes: usize },
    Fill { at: u64, value: u8, bytes: usize },
    Exchange(Arc<Exchange>),
}

impl Work {
    /// Does it, and says how many seconds the GPU would need at least.
    ///
    /// # Errors
    /// Launch failed where the interpreter finds something; an illegal address where a copy leaves its
    /// allocation; not ready where an exchange never ends.
    ///
    /// # Safety
    /// Host memory named in it must be valid for as many bytes.
    pub unsafe fn perform(&self, machine: &mut Machine, gpu: Option<&Gpu>) -> Result<f64> {
        let outside = |error: ptx_sim::Error| {
            log::note(&error.to_string());
            Code::ILLEGAL_ADDRESS
        };
        match *self {
            Self::Kernel { ref name, ref program, shape, ref arguments } => {
                launch(machine, gpu, (name, program), shape, arguments)
            }
            Self::ToDevice { to, from, bytes } => {
                // SAFETY: the caller's promise.
                let host = unsafe { std::slice::from_raw_parts(from as *const u8, bytes) };
                machine.write(to, host).map_err(outside)?;
                Ok(bytes as f64 / COPY_RATE)
            }
            Self::FromDevice { to, from, bytes } => {
                // SAFETY: the caller's promise.
                let host = unsafe { std::slice::from_raw_parts_mut(to as *mut u8, bytes) };
                machine.read(from, host).map_err(outside)?;
                Ok(bytes as f64 / COPY_RATE)
            }
            Self::Within { to, from, bytes } => {
                machine.copy(from, to, bytes).map_err(outside)?;
                Ok(LAUNCH_SECONDS)
            }
            Self::Fill { at, value, bytes } => {
                machine.fill(at, bytes, value).map_err(outside)?;
                Ok(LAUNCH_SECONDS)
            }
            Self::Exchange(ref exchange) => {
                exchange.perform(machine)?;
                Ok(LAUNCH_SECONDS)
            }
        }
    }
}

fn launch(
    machine: &mut Machine,
    gpu: Option<&Gpu>,
    (name, program): (&str, &Program),
    shape: Shape,
    arguments: &[u8],
) -> Result<f64> {
    if log::on("STAND_IN_SKIP") {
        return Ok(LAUNCH_SECONDS);
    }
    let Shape { grid, block, dynamic, cooperative } = shape;
    let launch = Launch { grid, block, shared_bytes: dynamic, cooperative, arguments };
    let report = machine.launch(program, name, &launch).map_err(|error| {
        log::note(&format!("kernel {name}: {error}"));
        Code::LAUNCH_FAILED
    })?;
    if !report.printed.is_empty() {
        print!("{}", report.printed);
    }
    if let Some(first) = report.findings.first() {
        log::note(&format!("kernel {name}: {first} ({} findings in this launch)", report.findings_total));
        return Err(Code::LAUNCH_FAILED);
    }
    Ok(LAUNCH_SECONDS + gpu.map_or(0.0, |gpu| gpu.predict(&report.counters).seconds))
}
