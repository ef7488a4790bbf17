//! What one lane does by itself and no table has: predicates, selections, packing, carries, rounding modes,
//! clocks.

use super::convert;
use super::float;
use super::packed;
use super::registers::RowW;
use super::warp::Warp;
use crate::isa::{
    Carry, CarryKind, Clock, Convert, LOCAL_WINDOW, Logic, NumberTest, Op, PARAM_WINDOW, Reg, RegisterFile,
    Rounded, SHARED_WINDOW, SetPredicate, Space,
};
use crate::lanes::{LANES, lanes, mask_of, row};

/// Runs an instruction that only changes registers of its lanes; `now` is what clocks show.
pub fn run(warp: &mut Warp, op: &Op, mask: u32, now: u64) {
    match op {
        Op::SetPredicate(set) => {
            let (yes, no) = test(warp, set);
            set.result.iter().for_each(|p| warp.set_predicate(*p, yes, mask));
            set.inverse.iter().for_each(|q| warp.set_predicate(*q, no, mask));
        }
        Op::SetValue(set) => {
            let (yes, _) = test(warp, &set.test);
            let values = row(|lane| if yes >> lane & 1 != 0 { set.one } else { 0 });
            warp.set_word(set.result, &values, mask);
        }
        Op::SelectW([d, a, b, p]) => {
            let r = &warp.registers;
            let t = choose(&r.w[*a as usize], &r.w[*b as usize], r.p[*p as usize]);
            warp.set_word(*d, &t, mask);
        }
        Op::SelectD([d, a, b, p]) => {
            let r = &mut warp.registers;
            let t = choose(&r.d[*a as usize], &r.d[*b as usize], r.p[*p as usize]);
            super::registers::store(&mut r.d[*d as usize], &t, mask);
        }
        Op::Logic(logic, [d, a, b]) => {
            let (a, b) = (warp.registers.p[*a as usize], warp.registers.p[*b as usize]);
            warp.set_predicate(*d, combine(*logic, a, b), mask);
        }
        Op::Not([d, a]) => warp.set_predicate(*d, !warp.registers.p[*a as usize], mask),
        Op::MovPredicate([d, a]) => warp.set_predicate(*d, warp.registers.p[*a as usize], mask),
        Op::TestNumber(it) => test_number(warp, **it, mask),
        Op::Pack(it) => pack(warp, it.0, &it.1, mask),
        Op::Unpack(it) => unpack(warp, &it.0, it.1, mask),
        Op::Lop3(it) => {
            let ([d, a, b, c], table) = **it;
            let w = &warp.registers.w;
            let t = lop3(&w[a as usize], &w[b as usize], &w[c as usize], table);
            warp.set_word(d, &t, mask);
        }
        Op::Insert(it) => insert(warp, it.0, it.1, mask),
        Op::Rounded(it) => rounded(warp, it, mask),
        Op::Carry(it) => carry(warp, it, mask),
        Op::Convert(it) => convert_row(warp, it, mask),
        Op::ActiveMask(d) => warp.set_word(*d, &[warp.mask; LANES], mask),
        Op::Clock(clock, d) => show_clock(warp, *clock, *d, now, mask),
        Op::IsSpace(it) => {
            let (space, d, a) = **it;
            let addresses = &warp.registers.d[a as usize];
            let bits = mask_of(|lane| lies_in(space, addresses[lane]));
            warp.set_predicate(d, bits, mask);
        }
        Op::HalfMath(it) => packed::half_math(warp, it, mask),
        Op::HalfTest(it) => packed::half_test(warp, it, mask),
        Op::Video(it) => packed::video(warp, it, mask),
        // Everything else is run by the warp's loop.
        _ => {}
    }
}

/// `testp`: the test, whether of an f64, and the registers of its result and operand.
fn test_number(warp: &mut Warp, (test, double, d, a): (NumberTest, bool, u32, u32), mask: u32) {
    let r = &warp.registers;
    let bits = match double {
        true => mask_of(|lane| wide_test(test, f64::from_bits(r.d[a as usize][lane]))),
        false => mask_of(|lane| number_test(test, f32::from_bits(r.w[a as usize][lane]))),
    };
    warp.set_predicate(d, bits, mask);
}

/// The highest bit of the result's register says that it is one of 64 bits.
fn show_clock(warp: &mut Warp, clock: Clock, d: u32, now: u64, mask: u32) {
    let value = if clock == Clock::High { now >> 32 } else { now };
    let file = if d >> 31 == 0 { RegisterFile::W } else { RegisterFile::D };
    warp.set(Reg { file, index: d & !(1 << 31), bits: file.bits() }, &[value; LANES], mask);
}

/// A bit of the table for each combination of bits, a's the highest.
fn lop3(a: &RowW, b: &RowW, c: &RowW, table: u8) -> RowW {
    let term = |bit: usize| if table >> bit & 1 != 0 { u32::MAX } else { 0 };
    let terms: [u32; 8] = std::array::from_fn(term);
    row(|lane| {
        let (x, y, z) = (a[lane], b[lane], c[lane]);
        terms[0] & !x & !y & !z
            | terms[1] & !x & !y & z
            | terms[2] & !x & y & !z
            | terms[3] & !x & y & z
            | terms[4] & x & !y & !z
            | terms[5] & x & !y & z
            | terms[6] & x & y & !z
            | terms[7] & x & y & z
    })
}

fn rounded(warp: &mut Warp, it: &Rounded, mask: u32) {
    let [a, b, c] = it.operands;
    for lane in lanes(mask) {
        if it.double {
            let d = &mut warp.registers.d;
            let at = |row: u32| f64::from_bits(d[row as usize][lane]);
            let value = float::double(it.operation, it.round, [at(a), at(b), at(c)]);
            let value = if it.saturate { float::saturate_double(value) } else { value };
            d[it.result as usize][lane] = value.to_bits();
        } else {
            let w = &mut warp.registers.w;
            let at = |row: u32| f32::from_bits(w[row as usize][lane]);
            let value = float::single(it.operation, it.round, it.ftz, it.saturate, [at(a), at(b), at(c)]);
            w[it.result as usize][lane] = value.to_bits();
        }
    }
}

fn convert_row(warp: &mut Warp, it: &Convert, mask: u32) {
    let a = warp.wide(it.a);
    let mut t = [0; LANES];
    match it.b {
        None => lanes(mask).for_each(|lane| t[lane] = convert::convert(it, a[lane])),
        Some(b) => {
            let b = warp.wide(b);
            lanes(mask).for_each(|lane| t[lane] = convert::pair(it, a[lane], b[lane]));
        }
    }
    warp.set(it.result, &t, mask);
}

/// Whether a generic address lies in a space's window.
fn lies_in(space: Space, address: u64) -> bool {
    let window = address >> 32;
    match space {
        Space::Shared => window == SHARED_WINDOW >> 32,
        Space::Local => window == LOCAL_WINDOW >> 32,
        Space::Param => window == PARAM_WINDOW >> 32,
        Space::Global => window < SHARED_WINDOW >> 32,
        _ => false,
    }
}

fn choose<T: Copy + Default>(a: &[T; LANES], b: &[T; LANES], p: u32) -> [T; LANES] {
    row(|lane| if p >> lane & 1 != 0 { a[lane] } else { b[lane] })
}

fn combine(logic: Logic, a: u32, b: u32) -> u32 {
    match logic {
        Logic::And => a & b,
        Logic::Or => a | b,
        Logic::Xor => a ^ b,
    }
}

/// The comparison and its complement, each combined with the third operand.
fn test(warp: &Warp, set: &SetPredicate) -> (u32, u32) {
    let bits = set.compare.run(&warp.registers, [set.a, set.b], false);
    match set.combine {
        None => (bits, !bits),
        Some((logic, p, negated)) => {
            let p = warp.registers.p[p as usize] ^ if negated { u32::MAX } else { 0 };
            (combine(logic, bits, p), combine(logic, !bits, p))
        }
    }
}

fn wide_test(test: NumberTest, value: f64) -> bool {
    match test {
        NumberTest::Finite => value.is_finite(),
        NumberTest::Infinite => value.is_infinite(),
        NumberTest::Number => !value.is_nan(),
        NumberTest::NotANumber => value.is_nan(),
        NumberTest::Normal => value.is_normal(),
        NumberTest::Subnormal => value.is_subnormal(),
    }
}

fn number_test(test: NumberTest, value: f32) -> bool {
    match test {
        NumberTest::Normal => value.is_normal(),
        NumberTest::Subnormal => value.is_subnormal(),
        test => wide_test(test, f64::from(value)),
    }
}

fn pack(warp: &mut Warp, d: Reg, parts: &[Reg], mask: u32) {
    let whole = if d.file == RegisterFile::D { 64 } else { u32::from(d.bits) };
    let bits = whole / parts.len() as u32;
    let kept = if bits >= 64 { u64::MAX } else { (1 << bits) - 1 };
    let mut t = [0u64; LANES];
    for (place, part) in parts.iter().enumerate() {
        let values = warp.wide(*part);
        for lane in 0..LANES {
            t[lane] |= (values[lane] & kept) << (bits * place as u32);
        }
    }
    warp.set(d, &t, mask);
}

fn unpack(warp: &mut Warp, parts: &[Option<Reg>], a: Reg, mask: u32) {
    let whole = if a.file == RegisterFile::D { 64 } else { u32::from(a.bits) };
    let bits = whole / parts.len() as u32;
    let kept = if bits >= 64 { u64::MAX } else { (1 << bits) - 1 };
    let values = warp.wide(a);
    for (place, part) in parts.iter().enumerate() {
        if let Some(part) = part {
            warp.set(*part, &row(|lane| values[lane] >> (bits * place as u32) & kept), mask);
        }
    }
}

fn insert(warp: &mut Warp, [d, a, b, position, length]: [u32; 5], wide: bool, mask: u32) {
    let width = if wide { 64 } else { 32 };
    for lane in lanes(mask) {
        let r = &mut warp.registers;
        let position = r.w[position as usize][lane] & 255;
        let length = r.w[length as usize][lane] & 255;
        let (a, b) = if wide {
            (r.d[a as usize][lane], r.d[b as usize][lane])
        } else {
            (u64::from(r.w[a as usize][lane]), u64::from(r.w[b as usize][lane]))
        };
        let value = if position >= width {
            b
        } else {
            let kept = if length >= 64 { u64::MAX } else { (1 << length) - 1 };
            b & !(kept << position) | (a & kept) << position
        };
        if wide {
            r.d[d as usize][lane] = value;
        } else {
            r.w[d as usize][lane] = value as u32;
        }
    }
}

fn carry(warp: &mut Warp, it: &Carry, mask: u32) {
    let bits = if it.wide { 64 } else { 32 };
    for lane in lanes(mask) {
        let r = &mut warp.registers;
        let carry = u128::from(it.carry_in && r.carry >> lane & 1 != 0);
        let [a, b, c] = it.operands.map(|row| {
            if it.wide { u128::from(r.d[row as usize][lane]) } else { u128::from(r.w[row as usize][lane]) }
        });
        let kept = (1u128 << bits) - 1;
        let signed = |x: u128| (x << (128 - bits)) as i128 >> (128 - bits);
        let product = if it.signed { (signed(a).wrapping_mul(signed(b))) as u128 } else { a.wrapping_mul(b) };
        let wide = match it.kind {
            CarryKind::Add => a + b + carry,
            // The carry flag of a subtraction is its borrow.
            CarryKind::Sub => a.wrapping_sub(b).wrapping_sub(carry),
            CarryKind::MadLo => (product & kept) + c + carry,
            CarryKind::MadHi => (product >> bits & kept) + c + carry,
        };
        if it.carry_out {
            r.carry = r.carry & !(1 << lane) | ((wide >> bits & 1) as u32) << lane;
        }
        let value = (wide & kept) as u64;
        if it.wide {
            r.d[it.result as usize][lane] = value;
        } else {
            r.w[it.result as usize][lane] = value as u32;
        }
    }
}
