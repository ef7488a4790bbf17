//! What an operation sees of the CPU device: the memory of its operands, and scratch memory.

use std::any::{Any, TypeId};
use std::cell::{Ref, RefCell, RefMut};
use std::collections::HashMap;

use anyhow::Result;

use super::memory::MainMemory;
use super::rounding::Rounding;
use crate::collective::World;
use crate::device::{Buffer, Element, Tensor};

/// Memory that operations keep between calls, one value per type.
#[derive(Default)]
pub(super) struct OperationScratch(HashMap<TypeId, Box<dyn Any + Send>>);

/// The memory of an operation's operands.
///
/// A slice borrowed for writing must not overlap any other borrowed slice, and a tensor must be read as its
/// own type; either mistake is an error.
pub struct Call<'a> {
    memory: &'a MainMemory,
    buffers: &'a [Buffer],
    scratch: &'a mut OperationScratch,
    rounded: RefCell<Vec<Tensor>>,
    world: &'a World,
}

impl<'a> Call<'a> {
    pub(super) fn new(
        memory: &'a MainMemory,
        buffers: &'a [Buffer],
        scratch: &'a mut OperationScratch,
        world: &'a World,
    ) -> Self {
        Self { memory, buffers, scratch, rounded: RefCell::default(), world }
    }

    /// The tensors that the operation has rounded itself.
    pub(super) fn rounded(self) -> Vec<Tensor> {
        self.rounded.into_inner()
    }

    /// The type of a tensor. One of bf16 or f16 has its values in f32 ([`RoundedCpu`](super::RoundedCpu)).
    pub fn element(&self, tensor: Tensor) -> Element {
        self.buffers[tensor.0].element
    }

    /// The processes that share the batch.
    pub fn world(&self) -> &'a World {
        self.world
    }

    /// The values of an f32 tensor, for reading.
    ///
    /// # Errors
    /// If the tensor is of another type, or is being written.
    pub fn f32(&self, tensor: Tensor) -> Result<Ref<'a, [f32]>> {
        self.memory.f32(self.buffers[tensor.0])
    }

    /// The values of an f32 tensor, for writing.
    ///
    /// # Errors
    /// If the tensor is of another type, or is in use.
    pub fn f32_mut(&self, tensor: Tensor) -> Result<RefMut<'a, [f32]>> {
        self.memory.f32_mut(self.buffers[tensor.0])
    }

    /// The same for an operation that rounds what it writes while it is in the caches, as it must then, with
    /// the rounding. What [`Call::f32_mut`] gives, the device rounds afterwards.
    ///
    /// # Errors
    /// As [`Call::f32_mut`].
    pub fn rounded_mut(&self, tensor: Tensor) -> Result<(RefMut<'a, [f32]>, Rounding)> {
        self.rounded.borrow_mut().push(tensor);
        Ok((self.f32_mut(tensor)?, Rounding::of(self.element(tensor))))
    }

    /// The values of an i32 tensor, for reading.
    ///
    /// # Errors
    /// As [`Call::f32`].
    pub fn i32(&self, tensor: Tensor) -> Result<Ref<'a, [i32]>> {
        self.memory.i32(self.buffers[tensor.0])
    }

    /// The values of an i32 tensor, for writing.
    ///
    /// # Errors
    /// As [`Call::f32_mut`].
    pub fn i32_mut(&self, tensor: Tensor) -> Result<RefMut<'a, [i32]>> {
        self.memory.i32_mut(self.buffers[tensor.0])
    }

    /// The values of a u8 tensor, for reading.
    ///
    /// # Errors
    /// As [`Call::f32`].
    pub fn u8(&self, tensor: Tensor) -> Result<Ref<'a, [u8]>> {
        self.memory.u8(self.buffers[tensor.0])
    }

    /// The values of a u8 tensor, for writing.
    ///
    /// # Errors
    /// As [`Call::f32_mut`].
    pub fn u8_mut(&self, tensor: Tensor) -> Result<RefMut<'a, [u8]>> {
        self.memory.u8_mut(self.buffers[tensor.0])
    }

    /// The values of an optional tensor, for reading.
    ///
    /// # Errors
    /// As [`Call::f32`].
    pub fn optional(&self, tensor: Option<Tensor>) -> Result<Option<Ref<'a, [f32]>>> {
        tensor.map(|tensor| self.f32(tensor)).transpose()
    }

    /// Memory that an operation keeps between calls to avoid reallocating it; its contents are undefined.
    pub fn scratch<T: Default + Send + 'static>(&mut self) -> &mut T {
        let value = self.scratch.0.entry(TypeId::of::<T>()).or_insert_with(|| Box::new(T::default()));
        value.downcast_mut().expect("the entry of a type holds a value of that type")
    }
}
