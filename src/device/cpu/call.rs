//! One operation on its way through the CPU: the memory of its operands, and scratch memory.

use std::any::{Any, TypeId};
use std::cell::{Ref, RefMut};
use std::collections::HashMap;

use anyhow::Result;

use super::memory::MainMemory;
use crate::device::{Buffer, Tensor};

/// What operations keep from call to call, one value per type.
#[derive(Default)]
pub(super) struct OperationScratch(HashMap<TypeId, Box<dyn Any + Send>>);

/// The memory of an operation's operands.
///
/// A slice that is borrowed for writing overlaps no other borrowed one: that is an error, as is a tensor of another type.
pub struct Call<'a> {
    memory: &'a MainMemory,
    buffers: &'a [Buffer],
    scratch: &'a mut OperationScratch,
}

impl<'a> Call<'a> {
    pub(super) fn new(
        memory: &'a MainMemory,
        buffers: &'a [Buffer],
        scratch: &'a mut OperationScratch,
    ) -> Self {
        Self { memory, buffers, scratch }
    }

    /// The values of a tensor, to read.
    ///
    /// # Errors
    /// Where the tensor is of another type, or being written.
    pub fn f32(&self, tensor: Tensor) -> Result<Ref<'a, [f32]>> {
        self.memory.f32(self.buffers[tensor.0])
    }

    /// The values of a tensor, to write.
    ///
    /// # Errors
    /// Where the tensor is of another type, or in use.
    pub fn f32_mut(&self, tensor: Tensor) -> Result<RefMut<'a, [f32]>> {
        self.memory.f32_mut(self.buffers[tensor.0])
    }

    /// As [`Call::f32`].
    ///
    /// # Errors
    /// As there.
    pub fn i32(&self, tensor: Tensor) -> Result<Ref<'a, [i32]>> {
        self.memory.i32(self.buffers[tensor.0])
    }

    /// As [`Call::f32_mut`].
    ///
    /// # Errors
    /// As there.
    pub fn i32_mut(&self, tensor: Tensor) -> Result<RefMut<'a, [i32]>> {
        self.memory.i32_mut(self.buffers[tensor.0])
    }

    /// As [`Call::f32`].
    ///
    /// # Errors
    /// As there.
    pub fn u8(&self, tensor: Tensor) -> Result<Ref<'a, [u8]>> {
        self.memory.u8(self.buffers[tensor.0])
    }

    /// The values of a tensor that may be missing.
    ///
    /// # Errors
    /// As [`Call::f32`].
    pub fn optional(&self, tensor: Option<Tensor>) -> Result<Option<Ref<'a, [f32]>>> {
        tensor.map(|tensor| self.f32(tensor)).transpose()
    }

    /// Memory that an operation keeps from call to call to save its allocation; what it holds means nothing.
    pub fn scratch<T: Default + Send + 'static>(&mut self) -> &mut T {
        let value = self.scratch.0.entry(TypeId::of::<T>()).or_insert_with(|| Box::new(T::default()));
        value.downcast_mut().expect("the entry of a type holds a value of that type")
    }
}
