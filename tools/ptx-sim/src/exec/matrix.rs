//! Matrix fragments: `ldmatrix`, `stmatrix` and `mma`, by the layouts of the PTX ISA.
//!
//! With g = lane / 4 and t = lane % 4, a 16x8 accumulator has (g, 2t), (g, 2t+1), (g+8, 2t), (g+8, 2t+1) in a
//! lane's four values. 16-bit inputs come two a register: a's registers hold rows g and g+8 at columns 2t,
//! 2t+1, then the same eight columns on; b's registers hold rows 2t, 2t+1 of column g, then eight rows on.
//! tf32 inputs come one a register, with column t and then four columns on.

use super::float::{self, narrow};
use super::memory::{self, Addresses};
use super::registers::{Bf16, F16, RowW};
use super::site::Site;
use crate::isa::{MatrixMove, MatrixMultiply, MatrixType, Round, SHARED_WINDOW, Space};
use crate::lanes::{FULL, LANES, lanes, row};
use crate::monitor::{Event, Fault, Monitor, Semantics};

/// A matrix instruction is one of all lanes.
pub fn everyone<M: Monitor>(site: &mut Site<'_, M>) {
    if site.mask != FULL {
        site.fault(site.first(), None, Fault::DividedMatrix { here: site.mask });
    }
}

/// Shared-memory offsets of the rows, checked; the mask has a bit for each row-giving lane that is right.
fn rows<M: Monitor>(site: &mut Site<'_, M>, it: &MatrixMove) -> (Addresses, u32) {
    let mut addresses = site.warp.addresses(&it.address);
    if it.space == Space::Generic {
        addresses = row(|lane| addresses[lane].wrapping_sub(SHARED_WINDOW));
    }
    let count = 8 * it.registers.len();
    let mask = if count == LANES { FULL } else { (1 << count) - 1 };
    let mask = memory::shared_place(site, &addresses, mask, 16, "a matrix row");
    for matrix in 0..it.registers.len() {
        let chosen: Vec<u64> = lanes(mask & 0xFF << (8 * matrix)).map(|lane| addresses[lane]).collect();
        site.worker.monitor.matrix_rows(&chosen);
    }
    (addresses, mask)
}

/// Where the two values of a lane's register lie in an 8x8 matrix.
fn pair_of(lane: usize, transposed: bool) -> [(usize, usize); 2] {
    let (g, t) = (lane / 4, lane % 4);
    if transposed { [(2 * t, g), (2 * t + 1, g)] } else { [(g, 2 * t), (g, 2 * t + 1)] }
}

/// `ldmatrix`.
pub fn load<M: Monitor>(site: &mut Site<'_, M>, it: &MatrixMove) {
    everyone(site);
    let (addresses, right) = rows(site, it);
    let access = site.access(Semantics::WEAK);
    for (matrix, reg) in it.registers.iter().enumerate() {
        let mut values = [[0u16; 8]; 8];
        for lane in lanes(right & 0xFF << (8 * matrix)) {
            let offset = addresses[lane] as usize;
            site.read_shared(access, lane, offset, 16);
            for (column, value) in values[lane % 8].iter_mut().enumerate() {
                *value = site.block.shared.get(offset + 2 * column, 2) as u16;
            }
        }
        let t = row(|lane| {
            let [low, high] = pair_of(lane, it.transposed).map(|(row, column)| values[row][column]);
            u32::from(high) << 16 | u32::from(low)
        });
        site.warp.set_word(reg.index, &t, site.mask);
    }
    // Its lanes have met, whatever each of them reads by this.
    site.together(FULL, true);
}

/// `stmatrix`.
pub fn store<M: Monitor>(site: &mut Site<'_, M>, it: &MatrixMove) {
    everyone(site);
    let (addresses, right) = rows(site, it);
    let access = site.access(Semantics::WEAK);
    for (matrix, reg) in it.registers.iter().enumerate() {
        let mut values = [[0u16; 8]; 8];
        for (lane, pair) in site.warp.word(*reg).iter().enumerate() {
            let [low, high] = pair_of(lane, it.transposed);
            values[low.0][low.1] = *pair as u16;
            values[high.0][high.1] = (pair >> 16) as u16;
        }
        for lane in lanes(right & 0xFF << (8 * matrix)) {
            let offset = addresses[lane] as usize;
            site.write_shared(access, lane, offset, 16);
            for (column, value) in values[lane % 8].iter().enumerate() {
                site.block.shared.put(offset + 2 * column, 2, u64::from(*value));
            }
        }
    }
    site.block.progress = true;
}

/// What a kind of product reads from a register: one value or two.
trait Input {
    const EACH: usize;
    fn value(word: u32, place: usize) -> f32;
}

struct Halves;
struct Brains;
struct Tensors;

impl Input for Halves {
    const EACH: usize = 2;
    #[inline(always)]
    fn value(word: u32, place: usize) -> f32 {
        F16((word >> (16 * place)) as u16).to_f32()
    }
}

impl Input for Brains {
    const EACH: usize = 2;
    #[inline(always)]
    fn value(word: u32, place: usize) -> f32 {
        Bf16((word >> (16 * place)) as u16).to_f32()
    }
}

impl Input for Tensors {
    const EACH: usize = 1;
    #[inline(always)]
    fn value(word: u32, _: usize) -> f32 {
        // The hardware reads the upper 19 bits.
        f32::from_bits(word & !0x1FFF)
    }
}

/// Sums, row by row.
type Sums = [[f32; 8]; 16];

/// Adds a b to `sum`. Products are exact in f32 (at most 22 bits), so that a fused multiplication would give
/// the same.
#[inline(always)]
fn add_product<I: Input>(a: &[&RowW], b: &[&RowW], sum: &mut Sums) {
    let (mut left, mut right) = ([[0f32; 16]; 16], [[0f32; 8]; 16]);
    for (place, row) in a.iter().enumerate() {
        let (below, start) = (8 * (place & 1), 4 * I::EACH * (place / 2));
        for lane in 0..LANES {
            for part in 0..I::EACH {
                left[lane / 4 + below][I::EACH * (lane % 4) + part + start] = I::value(row[lane], part);
            }
        }
    }
    for (place, row) in b.iter().enumerate() {
        for lane in 0..LANES {
            for part in 0..I::EACH {
                right[I::EACH * (lane % 4) + part + 4 * I::EACH * place][lane / 4] =
                    I::value(row[lane], part);
            }
        }
    }
    // One term of every sum after the other, in the order of k.
    let depth = 4 * I::EACH * b.len();
    for (left, sum) in left.iter().zip(sum) {
        let mut total = *sum;
        for (x, right) in left.iter().zip(&right).take(depth) {
            for (total, y) in total.iter_mut().zip(right) {
                *total += x * y;
            }
        }
        *sum = total;
    }
}

fn add_product_of(input: MatrixType, a: &[&RowW], b: &[&RowW], sum: &mut Sums, fast: bool) {
    #[inline(always)]
    fn any(input: MatrixType, a: &[&RowW], b: &[&RowW], sum: &mut Sums) {
        match input {
            MatrixType::F16 => add_product::<Halves>(a, b, sum),
            MatrixType::Bf16 => add_product::<Brains>(a, b, sum),
            MatrixType::Tf32 => add_product::<Tensors>(a, b, sum),
        }
    }
    #[cfg(target_arch = "x86_64")]
    if fast {
        #[target_feature(enable = "avx2,fma")]
        fn with_features(input: MatrixType, a: &[&RowW], b: &[&RowW], sum: &mut Sums) {
            any(input, a, b, sum);
        }
        // SAFETY: `fast` comes from `alu::fast()`, which found these features on this machine.
        return unsafe { with_features(input, a, b, sum) };
    }
    let _ = fast;
    any(input, a, b, sum);
}

/// `mma` of the common shapes.
pub fn multiply<M: Monitor>(site: &mut Site<'_, M>, it: &MatrixMultiply) {
    everyone(site);
    site.together(FULL, true);
    site.event(Event::MatrixFlops(2 * 16 * 8 * it.depth as u64));
    let w = &site.warp.registers.w;
    let mut sum = read_sums(w, it);
    let first = &w[it.a[0].index as usize];
    let (mut a, mut b) = ([first; 4], [first; 2]);
    for (row, reg) in a.iter_mut().zip(&it.a) {
        *row = &w[reg.index as usize];
    }
    for (row, reg) in b.iter_mut().zip(&it.b) {
        *row = &w[reg.index as usize];
    }
    add_product_of(it.input, &a[..it.a.len()], &b[..it.b.len()], &mut sum, site.launch.fast);
    for (place, reg) in it.d.iter().enumerate() {
        let t = if it.half_sum {
            row(|lane| {
                let sums = &sum[lane / 4 + 8 * place];
                let part = |j: usize| narrow(f64::from(sums[j]), float::HALF, Round::Nearest);
                part(2 * (lane % 4) + 1) << 16 | part(2 * (lane % 4))
            })
        } else {
            let (below, right) = (8 * (place / 2), place % 2);
            row(|lane| sum[lane / 4 + below][2 * (lane % 4) + right].to_bits())
        };
        site.warp.set_word(reg.index, &t, site.mask);
    }
}

/// What a product is added to.
fn read_sums(w: &[RowW], it: &MatrixMultiply) -> Sums {
    let mut sum: Sums = [[0f32; 8]; 16];
    for (place, reg) in it.c.iter().enumerate() {
        let row = &w[reg.index as usize];
        if it.half_sum {
            for (lane, pair) in row.iter().enumerate() {
                let (i, j) = (lane / 4 + 8 * place, 2 * (lane % 4));
                (sum[i][j], sum[i][j + 1]) = (F16(*pair as u16).to_f32(), F16((pair >> 16) as u16).to_f32());
            }
        } else {
            let (below, right) = (8 * (place / 2), place % 2);
            for (lane, bits) in row.iter().enumerate() {
                sum[lane / 4 + below][2 * (lane % 4) + right] = f32::from_bits(*bits);
            }
        }
    }
    sum
}
