//! Matrix operations of a warp, with the layouts of their fragments as the PTX manual gives them.
//!
//! mma m16n8k16, lane = 4 g + t: A rows g and g+8, columns 2t, 2t+1 and those + 8; B rows as A's columns, column g; C and D rows g
//! and g+8, columns 2t and 2t+1. Products are exact in f32 (of halves), sums are taken in f32 in the order of k; the
//! hardware's order inside one instruction is not documented.

use super::Context;
use super::float::{f32_to_half, half_to_f32};
use super::shared::Shared;
use super::warp::Warp;
use crate::finding::FindingKind;
use crate::op::{Instruction, MmaType, Op, Rounding, Type};

/// f32 with the low 13 bits cut, as a tensor core reads tf32.
fn tf32(bits: u32) -> f32 {
    f32::from_bits(bits & 0xffff_e000)
}

impl Warp {
    pub(super) fn mma(
        &mut self,
        context: &mut Context<'_>,
        instruction: &Instruction,
        place: [u32; 3],
        mask: u32,
    ) {
        let Op::Mma { kind, k, half_sums, d, a, b, c } = instruction.op else { return };
        if mask != u32::MAX {
            let detail = format!("mma with lanes {mask:#010x}");
            context.report(
                FindingKind::WrongMembers,
                instruction,
                place,
                self.thread(mask.trailing_zeros()),
                detail,
            );
        }
        let depth = usize::from(k);
        let mut left = [[0f32; 16]; 16];
        let mut right = [[0f32; 8]; 16];
        let mut sums = [[0f32; 8]; 16];
        for lane in 0..32 {
            let (g, t) = (lane / 4, lane % 4);
            let word = |register: u32| self.r32[register as usize][lane];
            match kind {
                MmaType::Tf32 => {
                    // A: a0 (g, t), a1 (g+8, t), a2 (g, t+4), a3 (g+8, t+4); B: b0 (t, g), b1 (t+4, g).
                    for part in 0..depth / 4 {
                        left[g][t + 4 * part] = tf32(word(a[2 * part]));
                        left[g + 8][t + 4 * part] = tf32(word(a[2 * part + 1]));
                        right[t + 4 * part][g] = tf32(word(b[part]));
                    }
                }
                _ => {
                    let kind = if kind == MmaType::Bf16 { Type::Bf16 } else { Type::F16 };
                    for part in 0..depth / 8 {
                        for half in 0..2 {
                            let value =
                                |register: u32| half_to_f32((word(register) >> (16 * half)) as u16, kind);
                            let column = 2 * t + half + 8 * part;
                            left[g][column] = value(a[2 * part]);
                            left[g + 8][column] = value(a[2 * part + 1]);
                            right[column][g] = value(b[part]);
                        }
                    }
                }
            }
            for half in 0..2 {
                let column = 2 * t + half;
                if half_sums {
                    let value =
                        |register: u32| half_to_f32((word(register) >> (16 * half)) as u16, Type::F16);
                    sums[g][column] = value(c[0]);
                    sums[g + 8][column] = value(c[1]);
                } else {
                    sums[g][column] = f32::from_bits(word(c[half]));
                    sums[g + 8][column] = f32::from_bits(word(c[2 + half]));
                }
            }
        }
        for (row, sums) in left.iter().zip(sums.iter_mut()) {
            for (&factor, right) in row[..depth].iter().zip(&right) {
                for (sum, &value) in sums.iter_mut().zip(right) {
                    *sum += factor * value;
                }
            }
        }
        for lane in 0..32 {
            let (g, t) = (lane / 4, lane % 4);
            if half_sums {
                for (register, row) in [(d[0], g), (d[1], g + 8)] {
                    let half = |column: usize| {
                        u32::from(f32_to_half(sums[row][column], Type::F16, Rounding::Nearest))
                    };
                    self.r32[register as usize][lane] = half(2 * t + 1) << 16 | half(2 * t);
                }
            } else {
                for half in 0..2 {
                    self.r32[d[half] as usize][lane] = sums[g][2 * t + half].to_bits();
                    self.r32[d[2 + half] as usize][lane] = sums[g + 8][2 * t + half].to_bits();
                }
            }
        }
        context.counters.mma_flops += 2 * 16 * 8 * u64::from(k);
    }

    /// ldmatrix and stmatrix: lane 8 m + r names row r of matrix m; of a matrix, lane 4 r + p holds words p of row r, or, transposed,
    /// of column r.
    pub(super) fn matrix_access(
        &mut self,
        context: &mut Context<'_>,
        shared: &mut Shared,
        instruction: &Instruction,
        place: [u32; 3],
        mask: u32,
    ) {
        let (count, transposed, registers, address, load) = match instruction.op {
            Op::LoadMatrix { count, transposed, d, address } => (count, transposed, d, address, true),
            Op::StoreMatrix { count, transposed, a, address } => (count, transposed, a, address, false),
            _ => return,
        };
        if mask != u32::MAX {
            let detail = format!("a matrix access with lanes {mask:#010x}");
            context.report(
                FindingKind::WrongMembers,
                instruction,
                place,
                self.thread(mask.trailing_zeros()),
                detail,
            );
        }
        let addresses = self.addresses(&address);
        let rows = 8 * usize::from(count);
        Self::count_rows(context, &addresses[..rows]);
        for matrix in 0..usize::from(count) {
            let mut values = [[0u16; 8]; 8];
            let register = registers[matrix] as usize;
            if !load {
                for lane in 0..32 {
                    let word = self.r32[register][lane];
                    for half in 0..2 {
                        let (row, column) = (lane / 4, 2 * (lane % 4) + half);
                        let value = (word >> (16 * half)) as u16;
                        if transposed {
                            values[column][row] = value;
                        } else {
                            values[row][column] = value;
                        }
                    }
                }
            }
            for (row, values) in values.iter_mut().enumerate() {
                let lane = 8 * matrix + row;
                // A generic address of shared memory means the same here.
                let at = (addresses[lane] & 0xffff_ffff) as usize;
                let thread = self.thread(lane as u32);
                if !at.is_multiple_of(16) {
                    let detail = format!("a matrix row at {at} of shared memory, which is no multiple of 16");
                    context.report(FindingKind::Misaligned, instruction, place, thread, detail);
                    continue;
                }
                if at + 16 > shared.bytes.len() {
                    let detail =
                        format!("a matrix row at {at} of {} bytes of shared memory", shared.bytes.len());
                    context.report(FindingKind::OutOfBounds, instruction, place, thread, detail);
                    continue;
                }
                let bytes = &mut shared.bytes[at..at + 16];
                for (value, bytes) in values.iter_mut().zip(bytes.chunks_exact_mut(2)) {
                    if load {
                        *value = u16::from_le_bytes([bytes[0], bytes[1]]);
                    } else {
                        bytes.copy_from_slice(&value.to_le_bytes());
                    }
                }
                let fault = if load {
                    shared.read(self.number, at, 16)
                } else {
                    shared.write(self.number, at, 16, false)
                };
                if let Some(fault) = fault {
                    let verb = if load { "matrix read" } else { "matrix write" };
                    self.report_shared(context, instruction, place, lane as u32, at, 16, verb, fault);
                }
            }
            if load {
                for lane in 0..32 {
                    let (row, column) = (lane / 4, 2 * (lane % 4));
                    let value = |half: usize| {
                        u32::from(if transposed {
                            values[column + half][row]
                        } else {
                            values[row][column + half]
                        })
                    };
                    self.r32[register][lane] = value(1) << 16 | value(0);
                }
            }
        }
    }
}
