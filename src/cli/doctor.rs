//! doctor
use anyhow::Result;
use clap::Args;
#[derive(Args, Clone, Debug, Default)]
pub struct DoctorArguments {}
pub fn run(_a: &DoctorArguments) -> Result<()> { Ok(()) }
