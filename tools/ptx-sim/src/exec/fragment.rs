//! Matrices spread over a warp's registers: which lane holds what, `wmma` loads and stores, and products of
//! any type.
//!
//! The layout is that of `mma`, which PTX documents; `wmma` leaves it open, and here it is put together of
//! the same tiles: 16 by 8 for the sums.

use super::float::{self, narrow};
use super::matrix::everyone;
use super::memory;
use super::registers::{Bf16, F16};
use super::site::Site;
use super::warp::Warp;
use crate::isa::{
    Access, Address, Element, Fragment, FragmentMove, Order, Part, Product, ProductKind, Reg, Round,
    SHARED_WINDOW, Scope, Space, Type,
};
use crate::lanes::{FULL, LANES, row};
use crate::monitor::{Event, Monitor};

/// Rows and columns of a matrix of a product.
fn size_of(part: Part, [m, n, k]: [usize; 3]) -> (usize, usize) {
    match part {
        Part::A => (m, k),
        Part::B => (k, n),
        Part::Sum => (m, n),
    }
}

impl Fragment {
    /// Registers that hold different elements; more of them repeat these.
    fn distinct(&self) -> usize {
        let (rows, columns) = size_of(self.part, self.shape);
        (rows * columns / LANES / self.element.each()).clamp(1, self.registers.len().max(1))
    }

    /// Row and column of part `place` of a register of a lane.
    fn place(&self, lane: usize, register: usize, place: usize) -> (usize, usize) {
        let [m, n, k] = self.shape;
        let (group, thread, each) = (lane / 4, lane % 4, self.element.each());
        // A register holds `each` neighbours along k, and four threads a row of them.
        let deep = (k / (4 * each)).max(1);
        let register = register % self.distinct();
        match self.part {
            Part::A if m >= 16 => {
                let (tile, inside) = (register / (2 * deep), register % (2 * deep));
                (16 * tile + 8 * (inside % 2) + group, 4 * each * (inside / 2) + each * thread + place)
            }
            Part::A => (group, 4 * each * register + each * thread + place),
            Part::B => (4 * each * (register % deep) + each * thread + place, 8 * (register / deep) + group),
            Part::Sum => {
                let value = register * each + place;
                let (pair, right) = (value / 2, value % 2);
                let column = |tile: usize| 8 * tile + 2 * thread + right;
                if m < 16 {
                    return (group, column(pair));
                }
                let (tile, below) = (pair / 2, pair % 2);
                (16 * (tile / (n / 8)) + 8 * below + group, column(tile % (n / 8)))
            }
        }
    }

    /// The matrix, row by row.
    fn read(&self, warp: &Warp) -> Vec<f64> {
        let (rows, columns) = size_of(self.part, self.shape);
        let mut values = vec![0.0; rows * columns];
        for (index, reg) in self.registers.iter().take(self.distinct()).enumerate() {
            let bits = warp.wide(*reg);
            for (lane, bits) in bits.iter().enumerate() {
                for part in 0..self.element.each() {
                    let (row, column) = self.place(lane, index, part);
                    let shift = if self.element == Element::F64 { 0 } else { self.element.bits() * part };
                    values[row * columns + column] = value(self.element, bits >> shift);
                }
            }
        }
        values
    }

    /// Spreads a matrix over the registers.
    fn write(&self, warp: &mut Warp, values: &[f64], mask: u32) {
        let (_, columns) = size_of(self.part, self.shape);
        for (index, reg) in self.registers.iter().enumerate() {
            let bits: [u64; LANES] = row(|lane| {
                (0..self.element.each()).fold(0, |bits, part| {
                    let (row, column) = self.place(lane, index, part);
                    bits | bits_of(self.element, values[row * columns + column])
                        << (self.element.bits() * part % 64)
                })
            });
            warp.set(*reg, &bits, mask);
        }
    }
}

/// The number that the low bits are.
fn value(element: Element, bits: u64) -> f64 {
    match element {
        Element::F16 => f64::from(F16(bits as u16).to_f32()),
        Element::Bf16 => f64::from(Bf16(bits as u16).to_f32()),
        // The hardware reads the upper 19 bits.
        Element::Tf32 => f64::from(f32::from_bits(bits as u32 & !0x1FFF)),
        Element::F32 => f64::from(f32::from_bits(bits as u32)),
        Element::F64 => f64::from_bits(bits),
        Element::E4m3 => float::from_e4m3(bits as u8),
        Element::E5m2 => f64::from(F16((bits as u16) << 8).to_f32()),
        Element::S8 => f64::from(bits as i8),
        Element::U8 => f64::from(bits as u8),
        Element::S4 => f64::from((bits as i8) << 4 >> 4),
        Element::U4 => (bits & 15) as f64,
        Element::B1 => (bits & 1) as f64,
        Element::S32 => f64::from(bits as i32),
    }
}

/// The bits of a sum, which its type holds exactly or is rounded to.
fn bits_of(element: Element, value: f64) -> u64 {
    match element {
        Element::F16 => u64::from(narrow(value, float::HALF, Round::Nearest)),
        Element::S32 => u64::from(value as i32 as u32),
        Element::F64 => value.to_bits(),
        _ => u64::from((value as f32).to_bits()),
    }
}

/// One sum: products are exact, and each addition rounds to nearest, in the order of k.
fn sum_of(kind: ProductKind, element: Element, start: f64, terms: impl Iterator<Item = (f64, f64)>) -> f64 {
    match (kind, element) {
        (ProductKind::XorPopc, _) => {
            terms.fold(start as i32, |sum, (x, y)| sum.wrapping_add(i32::from(x != y))).into()
        }
        (ProductKind::AndPopc, _) => {
            terms.fold(start as i32, |sum, (x, y)| sum.wrapping_add(i32::from(x * y != 0.0))).into()
        }
        (_, Element::S32) => {
            let exact = terms.fold(start as i64, |sum, (x, y)| sum + (x * y) as i64);
            let clamped = exact.clamp(i64::from(i32::MIN), i64::from(i32::MAX));
            f64::from(if kind == ProductKind::Saturating { clamped as i32 } else { exact as i32 })
        }
        (_, Element::F64) => terms.fold(start, |sum, (x, y)| x.mul_add(y, sum)),
        _ => f64::from(terms.fold(start as f32, |sum, (x, y)| sum + (x * y) as f32)),
    }
}

/// `mma` and `wmma.mma` of any shape and type.
pub fn multiply<M: Monitor>(site: &mut Site<'_, M>, it: &Product) {
    everyone(site);
    site.together(FULL, true);
    let [m, n, k] = it.d.shape;
    site.event(Event::MatrixFlops(2 * (m * n * k) as u64));
    let (a, b, mut sums) = (it.a.read(site.warp), it.b.read(site.warp), it.c.read(site.warp));
    for i in 0..m {
        for j in 0..n {
            let terms = (0..k).map(|depth| (a[i * k + depth], b[depth * n + j]));
            sums[i * n + j] = sum_of(it.kind, it.d.element, sums[i * n + j], terms);
        }
    }
    it.d.write(site.warp, &sums, site.mask);
}

/// The type of one access, and whether it is a whole register.
fn access_type(element: Element, whole: bool) -> Type {
    match (element, whole) {
        (Element::F64, _) => Type::B64,
        (_, true) => Type::B32,
        (_, false) if element.bits() == 16 => Type::B16,
        _ => Type::B8,
    }
}

/// The space of a warp's matrix: that of its first lane's address, for all lanes give the same.
fn resolve<M: Monitor>(site: &mut Site<'_, M>, it: &FragmentMove, address: u64) -> (Space, u64) {
    if it.space != Space::Generic || address >> 32 << 32 != SHARED_WINDOW {
        return (if it.space == Space::Generic { Space::Global } else { it.space }, address);
    }
    site.event(if it.load { Event::SharedLoad } else { Event::SharedStore });
    (Space::Shared, address - SHARED_WINDOW)
}

/// `wmma.load` and `wmma.store`: one access for each register, or for each element where its elements are not
/// neighbours.
pub fn transfer<M: Monitor>(site: &mut Site<'_, M>, it: &FragmentMove) {
    everyone(site);
    let (fragment, mask, lane) = (&it.fragment, site.mask, site.first());
    let address = site.warp.addresses(&it.address)[lane];
    let (space, base) = resolve(site, it, address);
    let (rows, columns) = size_of(fragment.part, fragment.shape);
    let packed = if it.row_major { columns } else { rows };
    let stride = it.stride.map_or(packed as u64, |reg| u64::from(site.warp.word(reg)[lane]));
    let along = if fragment.part == Part::B { !it.row_major } else { it.row_major };
    let each = fragment.element.each();
    let whole = each == 1 || along;
    let (address, scratch) = it.scratch;
    let one = |data: Reg| Access {
        space,
        value: access_type(fragment.element, whole),
        order: Order::Weak,
        scope: Scope::Device,
        read_only: false,
        waits: false,
        address: Address { base: Some(address), offset: 0 },
        registers: vec![Some(data)],
    };
    for (index, reg) in fragment.registers.iter().enumerate() {
        let steps = if whole { 1 } else { each };
        let old = if it.load { [0; LANES] } else { site.warp.wide(*reg) };
        let mut joined = [0u64; LANES];
        for part in 0..steps {
            let places: [u64; LANES] = row(|lane| {
                let (row, column) = fragment.place(lane, index, part);
                let (major, minor) = if it.row_major { (row, column) } else { (column, row) };
                let at = stride.wrapping_mul(major as u64).wrapping_add(minor as u64);
                base.wrapping_add(at.wrapping_mul(fragment.element.bits() as u64) / 8)
            });
            site.warp.set(address, &places, mask);
            let (used, shift) = if whole { (*reg, 0) } else { (scratch, fragment.element.bits() * part) };
            if it.load {
                memory::load(site, &one(used));
            } else {
                if !whole {
                    site.warp.set(scratch, &row(|lane| old[lane] >> shift), mask);
                }
                memory::store(site, &one(used));
            }
            let values = site.warp.wide(used);
            joined = row(|lane| joined[lane] | values[lane] << shift);
        }
        if it.load && !whole {
            site.warp.set(*reg, &joined, mask);
        }
    }
    if it.load {
        site.together(FULL, true);
    }
}
