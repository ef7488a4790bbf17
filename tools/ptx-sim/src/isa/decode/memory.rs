//! Loads, stores, atomics, fences and asynchronous copies.

use super::frame::{Builder, Symbol, file_of};
use super::mods::Mods;
use crate::error::{Error, Result};
use crate::isa::Class;
use crate::isa::parse::{Operand, Statement};
use crate::isa::{Access, Atomic, AtomicKind, CopyAsync, Op, Order, Reg, RegisterFile, Scope, Space, Type};

/// The scope named, the whole device where none is. A cluster is a block: there are none here.
fn scope_of(mods: &mut Mods<'_>) -> Scope {
    mods.one_of(&[
        ("cta", Scope::Block),
        ("cluster", Scope::Block),
        ("gpu", Scope::Device),
        ("sys", Scope::Device),
    ])
    .unwrap_or(Scope::Device)
}

/// The state space named; generic where none is.
pub fn space(mods: &mut Mods<'_>) -> Space {
    mods.one_of(&[
        ("global", Space::Global),
        ("shared", Space::Shared),
        ("shared::cta", Space::Shared),
        ("local", Space::Local),
        ("param", Space::Param),
        ("param::entry", Space::Param),
        ("param::func", Space::Param),
        ("const", Space::Const),
    ])
    .unwrap_or(Space::Generic)
}

/// Whether there is an atomic operation of this kind on values of this type.
fn has_atomic(value: Type, kind: AtomicKind) -> bool {
    use AtomicKind::{Add, CompareSwap, Decrement, Increment, Max, Min};
    match value {
        Type::U32 | Type::S32 | Type::U64 | Type::S64 => true,
        Type::B32 | Type::B64 => !matches!(kind, Add | Min | Max | Increment | Decrement),
        Type::F32 | Type::F64 | Type::F16x2 | Type::Bf16x2 | Type::F16 | Type::Bf16 => kind == Add,
        Type::B16 => kind == CompareSwap,
        _ => false,
    }
}

const ATOMICS: [(&str, AtomicKind); 10] = [
    ("add", AtomicKind::Add),
    ("min", AtomicKind::Min),
    ("max", AtomicKind::Max),
    ("and", AtomicKind::And),
    ("or", AtomicKind::Or),
    ("xor", AtomicKind::Xor),
    ("exch", AtomicKind::Exchange),
    ("cas", AtomicKind::CompareSwap),
    ("inc", AtomicKind::Increment),
    ("dec", AtomicKind::Decrement),
];

impl<'t> Builder<'_, 't> {
    /// `ld`, `ldu` and `st`.
    pub fn access(&mut self, statement: &Statement<'t>) -> Result<()> {
        Self::count(statement, 2)?;
        let scope = statement.scope;
        let mut mods = Mods::of(statement.opcode);
        let value = mods.last_type()?;
        let named = space(&mut mods);
        let elements = mods.one_of(&[("v2", 2usize), ("v4", 4)]).unwrap_or(1);
        let order = mods
            .one_of(&[
                ("weak", Order::Weak),
                ("volatile", Order::Volatile),
                ("relaxed", Order::Relaxed),
                ("acquire", Order::Acquire),
                ("release", Order::Release),
            ])
            .unwrap_or(Order::Weak);
        let seen_by = scope_of(&mut mods);
        let read_only = mods.take("nc");
        mods.drop_hints();
        mods.finish()?;
        if matches!(value, Type::Pred | Type::F16x2 | Type::Bf16x2 | Type::Tf32) {
            return Err(Error::new("a type that memory instructions do not have"));
        }
        let load = statement.mnemonic() != "st";
        let (address, data) = if load { (1, 0) } else { (0, 1) };
        let (address, space) = self.address(scope, &statement.operands[address], named)?;
        let parts: &[Operand<'t>] = match &statement.operands[data] {
            Operand::Vector(parts) => parts,
            single => std::slice::from_ref(single),
        };
        if parts.len() != elements || elements * value.bytes() as usize > 16 {
            return Err(Error::new(format!("{} elements where {elements} belong", parts.len())));
        }
        let registers =
            parts.iter().map(|part| self.moved(scope, part, value, load)).collect::<Result<Vec<_>>>()?;
        self.class = match (space, load) {
            (Space::Shared, true) => Class::LoadShared,
            (Space::Shared, false) => Class::StoreShared,
            (Space::Local, _) => Class::Local,
            (Space::Frame, _) => Class::MoveLogic,
            (Space::Param | Space::Const, true) => Class::Constant,
            (Space::Param | Space::Const, false) => return Err(Error::new("a store to read-only memory")),
            (_, true) => Class::LoadGlobal,
            (_, false) => Class::StoreGlobal,
        };
        let access = Box::new(Access {
            space,
            value,
            order,
            scope: seen_by,
            read_only,
            waits: false,
            address,
            registers,
        });
        self.emit(if load { Op::Load(access) } else { Op::Store(access) });
        Ok(())
    }

    /// The register that an element is loaded into or stored from; none where it is dropped.
    fn moved(&mut self, scope: usize, part: &Operand<'t>, value: Type, load: bool) -> Result<Option<Reg>> {
        let reg = match part {
            Operand::Nothing if load => None,
            Operand::Name(name, 0) if load => match self.symbol(scope, name)? {
                Symbol::Register(reg) => Some(reg),
                _ => return Err(Error::new(format!("{name} is not a register"))),
            },
            Operand::Name(name, 0) => Some(match self.symbol_or_special(scope, name)? {
                Ok(reg) => reg,
                Err(symbol) => self
                    .address_of(symbol, file_of(value), 0)
                    .ok_or_else(|| Error::new(format!("{name} cannot be stored")))?,
            }),
            other => Some(self.value(scope, other, file_of(value), 8 * value.bytes())?),
        };
        if let Some(Reg { file, bits, .. }) = reg
            && (file == RegisterFile::Predicate || bits != 0 && u32::from(bits) < 8 * value.bytes())
        {
            return Err(Error::new("a register narrower than the type"));
        }
        Ok(reg)
    }

    /// A register, special registers included, or what else the name stands for.
    fn symbol_or_special(&mut self, scope: usize, name: &'t str) -> Result<std::result::Result<Reg, Symbol>> {
        if super::frame::special(name).is_some() {
            return self.named(scope, name).map(Ok);
        }
        Ok(match self.symbol(scope, name)? {
            Symbol::Register(reg) => Ok(reg),
            other => Err(other),
        })
    }

    /// `atom` and `red`.
    pub fn atomic(&mut self, statement: &Statement<'t>) -> Result<()> {
        let scope = statement.scope;
        let mut mods = Mods::of(statement.opcode);
        let value = mods.last_type()?;
        let named = space(&mut mods);
        let order = mods
            .one_of(&[
                ("relaxed", Order::Relaxed),
                ("acquire", Order::Acquire),
                ("release", Order::Release),
                ("acq_rel", Order::Both),
            ])
            .unwrap_or(Order::Relaxed);
        let seen_by = scope_of(&mut mods);
        mods.take("noftz");
        let kind = mods.one_of(&ATOMICS).ok_or_else(|| Error::new("no operation named"))?;
        mods.drop_hints();
        mods.finish()?;
        if !has_atomic(value, kind) {
            return Err(Error::new("an operation this type does not have"));
        }
        let result = statement.mnemonic() == "atom";
        let first = usize::from(result);
        let two = kind == AtomicKind::CompareSwap;
        Self::count(statement, first + 2 + usize::from(two))?;
        let (file, bits) = (file_of(value), 8 * value.bytes());
        let result = match (result, &statement.operands[0]) {
            (false, _) | (true, Operand::Nothing) => None,
            (true, operand) => Some(self.result_of(scope, operand, file, bits)?),
        };
        let (address, space) = self.address(scope, &statement.operands[first], named)?;
        if !matches!(space, Space::Generic | Space::Global | Space::Shared) {
            return Err(Error::new("atomics on this state space"));
        }
        let operand = self.value(scope, &statement.operands[first + 1], file, bits)?;
        let second = match two {
            false => None,
            true => Some(self.value(scope, &statement.operands[first + 2], file, bits)?),
        };
        self.emit(Op::Atomic(Box::new(Atomic {
            kind,
            space,
            value,
            order,
            scope: seen_by,
            waits: false,
            address,
            result,
            operand,
            second,
        })));
        Ok(())
    }

    /// `fence` and `membar`.
    pub fn fence(&mut self, statement: &Statement<'t>) -> Result<()> {
        Self::count(statement, 0)?;
        let mut mods = Mods::of(statement.opcode);
        for name in ["sc", "acq_rel", "acquire", "release"] {
            mods.take(name);
        }
        let device = ["gl", "gpu", "sys"].iter().any(|name| mods.take(name));
        if !device && !mods.take("cta") && !mods.take("cluster") {
            return Err(Error::new("this fence is not supported"));
        }
        mods.finish()?;
        self.emit(Op::Fence(if device { Scope::Device } else { Scope::Block }));
        Ok(())
    }

    /// `cp.async` and what waits for it.
    pub fn copy_async(&mut self, statement: &Statement<'t>) -> Result<()> {
        let mut mods = Mods::of(statement.opcode);
        if !mods.take("async") {
            return Err(Error::new("this instruction is not supported"));
        }
        if mods.take("mbarrier") {
            return self.copies_arrive(statement, mods);
        }
        if mods.take("commit_group") {
            mods.finish()?;
            Self::count(statement, 0)?;
            self.emit(Op::CopyCommit);
            return Ok(());
        }
        if mods.take("wait_all") {
            mods.finish()?;
            Self::count(statement, 0)?;
            self.emit(Op::CopyWait(None));
            return Ok(());
        }
        if mods.take("wait_group") {
            mods.finish()?;
            Self::count(statement, 1)?;
            let Operand::Integer(groups) = statement.operands[0] else {
                return Err(Error::new("the number of groups is a constant"));
            };
            // More groups than there can be: none needs to have arrived.
            self.emit(Op::CopyWait(Some(u32::try_from(groups).unwrap_or(u32::MAX))));
            return Ok(());
        }
        self.start_copy(statement, mods)
    }

    /// `cp.async.ca` and `cp.async.cg`.
    fn start_copy(&mut self, statement: &Statement<'t>, mut mods: Mods<'t>) -> Result<()> {
        let scope = statement.scope;
        let global_only = mods.take("cg");
        if !global_only && !mods.take("ca") {
            return Err(Error::new("this asynchronous copy is not supported"));
        }
        mods.drop_hints();
        let shared = mods.take("shared") || mods.take("shared::cta");
        if !shared || !mods.take("global") {
            return Err(Error::new("only copies from global to shared memory are supported"));
        }
        mods.finish()?;
        if !(3..=4).contains(&statement.operands.len()) {
            return Err(Error::new("3 or 4 operands belong here"));
        }
        let (to, _) = self.address(scope, &statement.operands[0], Space::Shared)?;
        let (from, _) = self.address(scope, &statement.operands[1], Space::Global)?;
        let bytes = match statement.operands[2] {
            Operand::Integer(16) => 16,
            Operand::Integer(bytes @ (4 | 8)) if !global_only => bytes as u32,
            _ => return Err(Error::new("copies have 4, 8 or 16 bytes, and .cg only 16")),
        };
        let (mut source_bytes, mut ignore) = (None, None);
        if let Some(operand) = statement.operands.get(3) {
            let predicate = match operand {
                Operand::Not(_) => true,
                Operand::Name(name, 0) => self.named(scope, name)?.file == RegisterFile::Predicate,
                _ => false,
            };
            if predicate {
                ignore = Some(self.predicate(scope, operand)?);
            } else {
                source_bytes = Some(self.value(scope, operand, RegisterFile::W, 32)?);
            }
        }
        self.emit(Op::CopyAsync(Box::new(CopyAsync { to, from, bytes, source_bytes, ignore })));
        Ok(())
    }
}
