//! The exported functions, under the names and with the signatures of CUDA's driver interface.
//!
//! Handles are numbers, so what C declares as a pointer to a hidden structure is a `usize` here, and a place
//! for a result is an `Option<&mut MaybeUninit<_>>`, null being none.

#![allow(non_snake_case, reason = "the names are CUDA's")]

mod device;
mod event;
mod graph;
mod launch;
mod memory;
mod module;
pub mod nccl;
mod stream;

#[cfg(test)]
pub use {device::*, event::*, graph::*, launch::*, memory::*, module::*, stream::*};

use std::mem::MaybeUninit;

use crate::code::{Code, Result};

/// Where a call's result goes.
pub type Out<'a, T> = Option<&'a mut MaybeUninit<T>>;

/// Writes a result.
///
/// # Errors
/// Invalid value where there is no place for it.
fn put<T>(out: Out<'_, T>, value: T) -> Result<()> {
    out.ok_or(Code::INVALID_VALUE)?.write(value);
    Ok(())
}
