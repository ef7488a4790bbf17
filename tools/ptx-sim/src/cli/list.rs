//! `ptx-sim list`.

use std::fmt::Write as _;
use std::path::PathBuf;

use super::Failure;

#[derive(clap::Args)]
pub struct List {
    /// PTX as text
    file: PathBuf,
}

impl List {
    pub fn execute(&self) -> Result<u8, Failure> {
        let program = super::program(&self.file)?;
        let mut text = String::new();
        for name in program.kernels() {
            if let Some(error) = program.unsupported(name) {
                let _ = writeln!(text, "{name}\n  not supported: {error}");
                continue;
            }
            let Some(kernel) = program.describe(name) else { continue };
            let _ = writeln!(
                text,
                "{name}\n  {} instructions, {} virtual registers, {} bytes shared, {} bytes local a thread",
                kernel.instructions, kernel.registers, kernel.shared_bytes, kernel.local_bytes
            );
            if let Some(threads) = kernel.most_threads {
                let _ = writeln!(text, "  at most {threads} threads a block");
            }
            for parameter in &kernel.parameters {
                let _ = writeln!(
                    text,
                    "  {:>4} {:>3} bytes {:<4} {}",
                    parameter.offset, parameter.bytes, parameter.type_name, parameter.name
                );
            }
        }
        if text.is_empty() {
            text.push_str("no kernels\n");
        }
        super::print(&text)?;
        Ok(0)
    }
}
