//! Devices.

pub mod gpu;
