//! Runs the PTX that NVRTC emits on the CPU: exactly, with checks, with counters.
//!
//! ```
//! use ptx_sim::{Launch, Machine, Program, Settings};
//!
//! let program = Program::parse(
//!     ".version 7.0
//!      .target sm_80
//!      .address_size 64
//!      .visible .entry double(.param .u64 data) {
//!          .reg .b32 %r<3>;
//!          .reg .b64 %rd<4>;
//!          ld.param.u64 %rd1, [data];
//!          mov.u32 %r1, %tid.x;
//!          mul.wide.u32 %rd2, %r1, 4;
//!          add.s64 %rd3, %rd1, %rd2;
//!          ld.global.u32 %r2, [%rd3];
//!          shl.b32 %r2, %r2, 1;
//!          st.global.u32 [%rd3], %r2;
//!          ret;
//!      }",
//! )?;
//! let mut machine = Machine::new(Settings::default());
//! let data = machine.allocate(32 * 4, "data");
//! machine.write(data, &7u32.to_le_bytes().repeat(32))?;
//! let arguments = data.to_le_bytes();
//! let launch = Launch {
//!     grid: [1, 1, 1],
//!     block: [32, 1, 1],
//!     shared_bytes: 0,
//!     cooperative: false,
//!     arguments: &arguments,
//! };
//! let report = machine.launch(&program, "double", &launch)?;
//! assert!(report.findings.is_empty());
//! let mut out = [0; 4];
//! machine.read(data, &mut out)?;
//! assert_eq!(u32::from_le_bytes(out), 14);
//! # Ok::<(), ptx_sim::Error>(())
//! ```

mod error;
mod exec;
mod isa;
mod lanes;
mod machine;
mod memory;
mod monitor;
mod roofline;
mod watch;

pub use error::Error;
pub use isa::{Description, Parameter, Program};
pub use machine::{GraphLaunch, Launch, Machine, Report, Settings};
pub use roofline::{Gpu, Prediction};
pub use watch::{Counters, Finding, FindingKind, SourceLine};

/// A number rounded to f16, as its bits.
pub fn f16_bits(value: f64) -> u16 {
    exec::F16::from_odd(value).0
}

/// A number rounded to bf16, as its bits.
pub fn bf16_bits(value: f64) -> u16 {
    exec::Bf16::from_odd(value).0
}
