//! The CPU device's allocations in main memory. Each is borrow-checked at run time, so an operation that
//! reads memory while writing it is an error instead of a silent race.

use std::cell::{Ref, RefCell, RefMut};

use anyhow::{Context as _, Result, anyhow, bail};

use super::pages;
use crate::device::{Buffer, Element};
use crate::{memory, usage};

#[derive(Debug)]
enum Allocation {
    F32(Vec<f32>),
    I32(Vec<i32>),
    U8(Vec<u8>),
}

/// All allocations, by number.
#[derive(Debug, Default)]
pub(super) struct MainMemory {
    allocations: Vec<RefCell<Allocation>>,
}

/// The remedy named when a network or its step does not fit.
pub(super) const REMEDY: &str = "take a smaller --batch-size, --width or --image-size, or another --arch";

/// `len` zeros, or an error where an ordinary allocation would abort the program or have the system kill it.
fn zeros<T: Clone + Default>(len: usize, label: &str) -> Result<Vec<T>> {
    let bytes = memory::product(&[len, size_of::<T>()]);
    memory::ensure_room(bytes, label, REMEDY)?;
    let mut values: Vec<T> = Vec::new();
    values
        .try_reserve_exact(len)
        .map_err(|_| usage!("not enough memory: {label}: {} MiB wanted; {REMEDY}", bytes >> 20))?;
    pages::prefer_large(values.spare_capacity_mut());
    values.resize(len, T::default());
    Ok(values)
}

macro_rules! accessors {
    ($read:ident, $write:ident, $variant:ident, $type:ty) => {
        pub(super) fn $read(&self, buffer: Buffer) -> Result<Ref<'_, [$type]>> {
            let storage = self.cell(buffer)?.try_borrow().context("the memory read here is being written")?;
            Ref::filter_map(storage, |storage| match storage {
                Allocation::$variant(values) => values.get(buffer.offset..buffer.offset + buffer.len),
                _ => None,
            })
            .map_err(|_| anyhow!("{buffer:?} does not fit its allocation"))
        }

        pub(super) fn $write(&self, buffer: Buffer) -> Result<RefMut<'_, [$type]>> {
            let storage = self.cell(buffer)?.try_borrow_mut().context("the memory written here is in use")?;
            RefMut::filter_map(storage, |storage| match storage {
                Allocation::$variant(values) => values.get_mut(buffer.offset..buffer.offset + buffer.len),
                _ => None,
            })
            .map_err(|_| anyhow!("{buffer:?} does not fit its allocation"))
        }
    };
}

impl MainMemory {
    pub(super) fn allocate(&mut self, element: Element, len: usize, label: &str) -> Result<Buffer> {
        let storage = match element {
            Element::F32 => Allocation::F32(zeros(len, label)?),
            Element::Bf16 | Element::F16 => {
                bail!("the CPU device computes in f32: no {element:?} memory for {label}")
            }
            Element::I32 => Allocation::I32(zeros(len, label)?),
            Element::U8 => Allocation::U8(zeros(len, label)?),
        };
        self.allocations.push(RefCell::new(storage));
        Ok(Buffer { allocation: self.allocations.len() - 1, offset: 0, len, element })
    }

    fn cell(&self, buffer: Buffer) -> Result<&RefCell<Allocation>> {
        let Some(cell) = self.allocations.get(buffer.allocation) else {
            bail!("{buffer:?} was never allocated")
        };
        Ok(cell)
    }

    accessors!(f32, f32_mut, F32, f32);
    accessors!(i32, i32_mut, I32, i32);
    accessors!(u8, u8_mut, U8, u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_beside_a_read_of_the_same_allocation_is_an_error() {
        let mut memory = MainMemory::default();
        let buffer = memory.allocate(Element::F32, 8, "test").unwrap();
        let other = memory.allocate(Element::F32, 8, "test").unwrap();
        let read = memory.f32(buffer).unwrap();
        assert!(memory.f32_mut(buffer).is_err());
        assert!(memory.f32_mut(other).is_ok());
        drop(read);
        assert!(memory.f32_mut(buffer).is_ok());
    }

    #[test]
    fn a_buffer_of_another_type_or_length_is_an_error() {
        let mut memory = MainMemory::default();
        let buffer = memory.allocate(Element::I32, 8, "test").unwrap();
        assert!(memory.f32(buffer).is_err());
        assert!(memory.i32(Buffer { len: 9, ..buffer }).is_err());
        assert!(memory.i32(Buffer { allocation: 1, ..buffer }).is_err());
    }

    #[test]
    fn exhausted_memory_is_an_error() {
        let error =
            MainMemory::default().allocate(Element::F32, usize::MAX / 16, "a test").unwrap_err().to_string();
        assert!(error.contains("a test") && error.contains("--batch-size"), "{error}");
    }
}
