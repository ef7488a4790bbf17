//! Matrix products and fragments: `mma` and `wmma`.

use super::frame::Builder;
use super::mods::Mods;
use crate::error::{Error, Result};
use crate::isa::Class;
use crate::isa::parse::{Operand, Statement};
use crate::isa::{
    Element, Fragment, FragmentMove, MatrixMultiply, MatrixType, Op, Part, Product, ProductKind, Reg,
    RegisterFile, Space,
};

fn unknown() -> Error {
    Error::new("this form is not supported")
}

/// `m16n8k16` in numbers.
fn shape_of(text: &str) -> Option<[usize; 3]> {
    let (m, rest) = text.strip_prefix('m')?.split_once('n')?;
    let (n, k) = rest.split_once('k')?;
    Some([m.parse().ok()?, n.parse().ok()?, k.parse().ok()?])
}

/// Takes the shape out of the modifiers.
fn take_shape(mods: &mut Mods<'_>) -> Result<[usize; 3]> {
    mods.take_map(shape_of).ok_or_else(|| Error::new("no shape named"))
}

/// Whether there is a `mma` of these.
fn has_mma(shape: [usize; 3], a: Element, b: Element, d: Element, c: Element) -> bool {
    use Element::{B1, Bf16, E4m3, E5m2, F16, F32, F64, S4, S8, S32, Tf32, U4, U8};
    let inputs = |kinds: &[Element]| kinds.contains(&a) && kinds.contains(&b);
    let sums = d == S32 && c == S32;
    match shape {
        [8, 8, 4] => inputs(&[F64]) && d == F64 && c == F64,
        [16, 8, 4 | 8 | 16] if a == F64 => b == F64 && d == F64 && c == F64,
        [8, 8, 16] | [16, 8, 16] if inputs(&[S8, U8]) => sums,
        [16, 8, 32] if inputs(&[S8, U8]) => sums,
        [8, 8, 32] | [16, 8, 32 | 64] if inputs(&[S4, U4]) => sums,
        [8, 8, 128] | [16, 8, 128 | 256] => inputs(&[B1]) && sums,
        [16, 8, 16 | 32] if inputs(&[E4m3, E5m2]) => d == c && matches!(c, F16 | F32),
        [16, 8, 8 | 16] if a == F16 && b == F16 => matches!(d, F16 | F32) && matches!(c, F16 | F32),
        [16, 8, 8 | 16] if a == Bf16 && b == Bf16 => d == F32 && c == F32,
        [16, 8, 4 | 8] if a == Tf32 && b == Tf32 => d == F32 && c == F32,
        _ => false,
    }
}

/// Whether there is a `wmma` of this shape for elements of a or b.
fn has_wmma(shape: [usize; 3], element: Element) -> bool {
    use Element::{B1, Bf16, F16, F64, S4, S8, Tf32, U4, U8};
    match element {
        F16 | Bf16 | S8 | U8 => matches!(shape, [16, 16, 16] | [32, 8, 16] | [8, 32, 16]),
        Tf32 => shape == [16, 16, 8],
        F64 => shape == [8, 8, 4],
        S4 | U4 => shape == [8, 8, 32],
        B1 => shape == [8, 8, 128],
        _ => false,
    }
}

/// Registers of a fragment. Those of f16 for `wmma` are as many for every shape: some hold nothing new.
fn register_count(part: Part, element: Element, [m, n, k]: [usize; 3], wmma: bool) -> usize {
    let values = match part {
        Part::A if wmma && element == Element::F16 => return 8,
        Part::B if wmma && element == Element::F16 => return 8,
        Part::A => m * k,
        Part::B => k * n,
        Part::Sum => m * n,
    };
    values / 32 / element.each()
}

impl<'t> Builder<'_, 't> {
    /// `mma` of the shapes that most kernels use, which run fast.
    pub fn matrix_multiply(&mut self, statement: &Statement<'t>) -> Result<()> {
        Self::count(statement, 4)?;
        let scope = statement.scope;
        let unknown = || Error::new("this form is not supported");
        let parts: Vec<&str> = statement.opcode.split('.').collect();
        let [_, "sync", "aligned", shape, "row", "col", d, a, b, c] = parts[..] else {
            return self.product(statement);
        };
        let input = match a {
            "f16" => MatrixType::F16,
            "bf16" => MatrixType::Bf16,
            "tf32" => MatrixType::Tf32,
            _ => return self.product(statement),
        };
        // Depth, registers of a and of b.
        let (depth, rows, columns) = match (shape, input) {
            ("m16n8k16", MatrixType::F16 | MatrixType::Bf16) => (16, 4, 2),
            ("m16n8k8", MatrixType::F16 | MatrixType::Bf16) => (8, 2, 1),
            ("m16n8k8", MatrixType::Tf32) => (8, 4, 2),
            ("m16n8k4", MatrixType::Tf32) => (4, 2, 1),
            _ => return Err(unknown()),
        };
        let half_sum = match (d, c, input) {
            ("f32", "f32", _) => false,
            ("f16", "f16", MatrixType::F16) => true,
            _ => return Err(unknown()),
        };
        if a != b {
            return Err(unknown());
        }
        let sums = if half_sum { 2 } else { 4 };
        let it = MatrixMultiply {
            depth,
            input,
            half_sum,
            d: self.words(scope, &statement.operands[0], sums, true)?,
            a: self.words(scope, &statement.operands[1], rows, false)?,
            b: self.words(scope, &statement.operands[2], columns, false)?,
            c: self.words(scope, &statement.operands[3], sums, false)?,
        };
        self.emit(Op::MatrixMultiply(Box::new(it)));
        Ok(())
    }

    /// A fragment's registers: results, or values that are read.
    fn fragment(
        &mut self,
        scope: usize,
        operand: &Operand<'t>,
        (part, element, shape, wmma): (Part, Element, [usize; 3], bool),
        result: bool,
    ) -> Result<Fragment> {
        let count = register_count(part, element, shape, wmma);
        let registers = if element == Element::F64 {
            self.doubles(scope, operand, count, result)?
        } else {
            self.words(scope, operand, count, result)?
        };
        Ok(Fragment { part, element, shape, registers })
    }

    fn doubles(
        &mut self,
        scope: usize,
        operand: &Operand<'t>,
        count: usize,
        result: bool,
    ) -> Result<Vec<Reg>> {
        let parts: &[Operand<'t>] = match operand {
            Operand::Vector(parts) => parts,
            single => std::slice::from_ref(single),
        };
        if parts.len() != count {
            return Err(Error::new(format!("{} registers where {count} belong", parts.len())));
        }
        let one = |part| match result {
            true => self.result(scope, part, RegisterFile::D),
            false => self.value(scope, part, RegisterFile::D, 64),
        };
        parts.iter().map(one).collect()
    }

    /// `mma` of any other shape and type.
    fn product(&mut self, statement: &Statement<'t>) -> Result<()> {
        let mut mods = Mods::of(statement.opcode);
        if !mods.take("sync") || !mods.take("aligned") || !mods.take("row") || !mods.take("col") {
            return Err(unknown());
        }
        let shape = take_shape(&mut mods)?;
        let kind = product_kind(&mut mods)?;
        let [d, a, b, c] = four_elements(&mut mods)?;
        mods.finish()?;
        if !has_mma(shape, a, b, d, c) {
            return Err(unknown());
        }
        self.emit_product(statement, kind, shape, [d, a, b, c], false)
    }

    fn emit_product(
        &mut self,
        statement: &Statement<'t>,
        kind: ProductKind,
        shape: [usize; 3],
        [d, a, b, c]: [Element; 4],
        wmma: bool,
    ) -> Result<()> {
        Self::count(statement, 4)?;
        let bits = a == Element::B1;
        if bits != matches!(kind, ProductKind::XorPopc | ProductKind::AndPopc)
            || kind == ProductKind::Saturating && d != Element::S32
        {
            return Err(unknown());
        }
        let (scope, operands) = (statement.scope, &statement.operands);
        let product = Product {
            kind,
            d: self.fragment(scope, &operands[0], (Part::Sum, d, shape, wmma), true)?,
            a: self.fragment(scope, &operands[1], (Part::A, a, shape, wmma), false)?,
            b: self.fragment(scope, &operands[2], (Part::B, b, shape, wmma), false)?,
            c: self.fragment(scope, &operands[3], (Part::Sum, c, shape, wmma), false)?,
        };
        self.emit(Op::Product(Box::new(product)));
        Ok(())
    }

    /// `wmma`.
    pub fn wmma(&mut self, statement: &Statement<'t>) -> Result<()> {
        let mut mods = Mods::of(statement.opcode);
        if mods.take("mma") {
            return self.wmma_multiply(statement, mods);
        }
        let load = mods.take("load");
        if !load && !mods.take("store") || !mods.take("sync") || !mods.take("aligned") {
            return Err(unknown());
        }
        let shape = take_shape(&mut mods)?;
        let part = mods
            .one_of(&[("a", Part::A), ("b", Part::B), (if load { "c" } else { "d" }, Part::Sum)])
            .ok_or_else(unknown)?;
        if !load && part != Part::Sum {
            return Err(unknown());
        }
        let row_major = mods.one_of(&[("row", true), ("col", false)]).ok_or_else(unknown)?;
        let space = super::memory::space(&mut mods);
        let element = mods.take_map(Element::find).ok_or_else(unknown)?;
        mods.finish()?;
        let summed = matches!(element, Element::F16 | Element::F32 | Element::F64 | Element::S32);
        let packed = element.bits() < 8;
        let known = match part {
            Part::Sum => summed,
            Part::A => has_wmma(shape, element) && (!packed || row_major),
            Part::B => has_wmma(shape, element) && (!packed || !row_major),
        };
        if !known
            || part == Part::Sum && !matches!(shape, [16, 16, 16 | 8] | [32, 8, 16] | [8, 32, 16] | [8, 8, _])
        {
            return Err(unknown());
        }
        self.fragment_move(statement, (part, element, shape, true), (load, row_major, space))
    }

    fn fragment_move(
        &mut self,
        statement: &Statement<'t>,
        what: (Part, Element, [usize; 3], bool),
        (load, row_major, space): (bool, bool, Space),
    ) -> Result<()> {
        let (scope, operands) = (statement.scope, &statement.operands);
        if !(2..=3).contains(&operands.len()) {
            return Err(Error::new("2 or 3 operands belong here"));
        }
        let (data, memory) = if load { (0, 1) } else { (1, 0) };
        let fragment = self.fragment(scope, &operands[data], what, load)?;
        let (address, space) = self.address(scope, &operands[memory], space)?;
        let stride = match operands.get(2) {
            Some(operand) => Some(self.value(scope, operand, RegisterFile::W, 32)?),
            None => None,
        };
        self.class = match (space, load) {
            (Space::Shared, true) => Class::LoadShared,
            (Space::Shared, false) => Class::StoreShared,
            (_, true) => Class::LoadGlobal,
            (_, false) => Class::StoreGlobal,
        };
        let scratch = (self.scratch(RegisterFile::D), self.scratch(RegisterFile::W));
        let it = FragmentMove { fragment, load, row_major, space, address, stride, scratch };
        self.emit(Op::FragmentMove(Box::new(it)));
        Ok(())
    }

    fn wmma_multiply(&mut self, statement: &Statement<'t>, mut mods: Mods<'t>) -> Result<()> {
        if !mods.take("sync") || !mods.take("aligned") {
            return Err(unknown());
        }
        let shape = take_shape(&mut mods)?;
        // A fragment's place in memory is behind it: what the layouts were matters to loads alone.
        for _ in 0..2 {
            mods.one_of(&[("row", ()), ("col", ())]).ok_or_else(unknown)?;
        }
        mods.take("rn");
        let kind = product_kind(&mut mods)?;
        let [d, a, b, c] = match four_elements(&mut mods) {
            Ok(four) => four,
            // f16 names the sums alone.
            Err(_) => {
                let d = mods.take_map(Element::find).ok_or_else(unknown)?;
                let c = mods.take_map(Element::find).ok_or_else(unknown)?;
                [d, Element::F16, Element::F16, c]
            }
        };
        mods.finish()?;
        let sums = match a {
            Element::F16 => matches!((d, c), (Element::F16 | Element::F32, Element::F16 | Element::F32)),
            Element::Bf16 | Element::Tf32 => (d, c) == (Element::F32, Element::F32),
            Element::F64 => (d, c) == (Element::F64, Element::F64),
            _ => (d, c) == (Element::S32, Element::S32),
        };
        if !has_wmma(shape, a) || a != b || !sums {
            return Err(unknown());
        }
        self.emit_product(statement, kind, shape, [d, a, b, c], true)
    }
}

fn product_kind(mods: &mut Mods<'_>) -> Result<ProductKind> {
    if mods.take("satfinite") {
        return Ok(ProductKind::Saturating);
    }
    let bits = mods.one_of(&[("xor", ProductKind::XorPopc), ("and", ProductKind::AndPopc)]);
    match bits {
        Some(kind) if mods.take("popc") => Ok(kind),
        Some(_) => Err(unknown()),
        None => Ok(ProductKind::MultiplyAdd),
    }
}

/// The types of d, a, b and c, if all four are named.
fn four_elements(mods: &mut Mods<'_>) -> Result<[Element; 4]> {
    let all = mods.all_map(Element::find);
    let four = <[Element; 4]>::try_from(all).map_err(|_| unknown())?;
    while mods.take_map(Element::find).is_some() {}
    Ok(four)
}
