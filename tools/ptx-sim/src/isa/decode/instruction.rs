//! Arithmetic, moves, predicates, conversions and control flow. Memory is in `memory`, warp-wide instructions
//! in `warp`.

use super::frame::{Builder, file_of, lane_type, special};
use super::mods::Mods;
use super::packed::half_type;
use crate::error::{Error, Result};
use crate::isa::Class;
use crate::isa::parse::{Operand, Statement};
use crate::isa::{Arithmetic, Round};
use crate::isa::{Binary, Compare, Ternary, Unary};
use crate::isa::{
    Carry, CarryKind, Clock, Constant, Convert, END, Guard, LOCAL_WINDOW, Logic, NumberTest, Op,
    PARAM_WINDOW, Reg, RegisterFile, Rounded, SHARED_WINDOW, SetPredicate, SetValue, Space, Table, Type,
};

/// How a statement becomes a step.
type Decode = for<'b, 'a, 't, 's> fn(&'b mut Builder<'a, 't>, &'s Statement<'t>) -> Result<()>;

/// Instructions by mnemonic: the class they count in, and how they are decoded. Those not here are a row of
/// `isa::tables`, or arithmetic with modifiers no row has.
const INSTRUCTIONS: &[(&[&str], Class, Decode)] = &[
    (&["bra"], Class::Control, |it, statement| it.branch(statement)),
    (&["brx"], Class::Control, |it, statement| it.branch_table(statement)),
    (&["call"], Class::Control, |it, statement| it.call(statement)),
    (&["ret", "exit"], Class::Control, |it, statement| it.leave(statement)),
    (&["trap", "brkpt"], Class::Control, |it, _| it.plain(Op::Trap)),
    (&["nanosleep", "prefetch", "prefetchu", "griddepcontrol", "pmevent"], Class::Other, |it, _| {
        it.plain(Op::Nop)
    }),
    (&["applypriority", "discard", "setmaxnreg"], Class::Integer, |it, _| it.plain(Op::Nop)),
    (&["mov"], Class::MoveLogic, |it, statement| it.mov(statement)),
    (&["selp"], Class::MoveLogic, |it, statement| it.select(statement)),
    (&["cvta"], Class::MoveLogic, |it, statement| it.convert_address(statement)),
    (&["isspacep"], Class::MoveLogic, |it, statement| it.is_space(statement)),
    (&["lop3"], Class::MoveLogic, |it, statement| it.lop3(statement)),
    (&["cvt"], Class::Conversion, |it, statement| it.convert(statement)),
    (&["bfi"], Class::Integer, |it, statement| it.insert(statement)),
    (&["createpolicy"], Class::Integer, |it, statement| it.create_policy(statement)),
    (&["addc", "subc", "madc"], Class::Integer, |it, statement| it.carry(statement)),
    (&["ld", "ldu", "st"], Class::Integer, |it, statement| it.access(statement)),
    (&["atom", "red"], Class::Atomic, |it, statement| it.atomic(statement)),
    (&["membar", "fence"], Class::Barrier, |it, statement| it.fence(statement)),
    (&["bar", "barrier"], Class::Barrier, |it, statement| it.barrier(statement)),
    (&["mbarrier"], Class::Barrier, |it, statement| it.mbarrier(statement)),
    (&["cp"], Class::CopyAsync, |it, statement| it.copy_async(statement)),
    (&["shfl"], Class::Shuffle, |it, statement| it.shuffle(statement)),
    (&["vote"], Class::Shuffle, |it, statement| it.vote(statement)),
    (&["match"], Class::Shuffle, |it, statement| it.matching(statement)),
    (&["redux"], Class::Shuffle, |it, statement| it.reduce(statement)),
    (&["elect"], Class::Shuffle, |it, statement| it.elect(statement)),
    (&["activemask"], Class::Shuffle, |it, statement| it.active_mask(statement)),
    (&["mma"], Class::Mma, |it, statement| it.matrix_multiply(statement)),
    (&["wmma"], Class::Mma, |it, statement| it.wmma(statement)),
    (&["ldmatrix", "stmatrix"], Class::MatrixMove, |it, statement| it.matrix_move(statement)),
    (&["tex", "tld4", "txq", "suld", "sust", "sured", "suq", "istypep"], Class::Other, |_, _| {
        Err(Error::new("textures and surfaces are not supported"))
    }),
];

const ROUNDS: [(&str, Round); 5] = [
    ("rn", Round::Nearest),
    ("rna", Round::Away),
    ("rz", Round::Zero),
    ("rm", Round::Down),
    ("rp", Round::Up),
];
const INTEGRAL: [(&str, Round); 4] =
    [("rni", Round::Nearest), ("rzi", Round::Zero), ("rmi", Round::Down), ("rpi", Round::Up)];

impl<'t> Builder<'_, 't> {
    /// Decodes one statement.
    pub fn statement(&mut self, statement: &Statement<'t>) -> Result<()> {
        if statement.opcode.contains(".L2::cache_hint") {
            return self.without_policy(statement);
        }
        self.plain_statement(statement)
    }

    fn plain_statement(&mut self, statement: &Statement<'t>) -> Result<()> {
        self.guard = match statement.guard {
            None => Guard::ALWAYS,
            Some(guard) => {
                let reg = self.named(statement.scope, guard.name)?;
                if reg.file != RegisterFile::Predicate {
                    return Err(Error::new(format!("guard {} is not a predicate", guard.name)));
                }
                Guard(2 * reg.index + u32::from(guard.negated))
            }
        };
        self.check_kinds(statement)?;
        let mnemonic = statement.mnemonic();
        let found = INSTRUCTIONS.iter().find(|(names, ..)| names.contains(&mnemonic));
        match found {
            Some((_, class, decode)) => {
                self.class = *class;
                decode(self, statement)
            }
            None => {
                self.class = class(mnemonic, statement.opcode);
                match mnemonic {
                    "setp" => self.set_predicate(statement),
                    "set" => self.set_value(statement),
                    "testp" => self.test_number(statement),
                    _ if is_video(mnemonic) => self.video(statement),
                    _ => self.tabled(statement),
                }
            }
        }
    }

    fn plain(&mut self, op: Op) -> Result<()> {
        self.emit(op);
        Ok(())
    }

    /// `ret` and `exit`.
    fn leave(&mut self, statement: &Statement<'t>) -> Result<()> {
        Mods::of(statement.opcode).finish_after(&["uni"])?;
        Self::count(statement, 0)?;
        if statement.mnemonic() == "ret" && !self.frame.entry {
            self.frame.returns.push(self.steps.len());
            self.emit(Op::Branch(0, END));
        } else {
            self.emit(Op::Exit);
        }
        Ok(())
    }

    fn active_mask(&mut self, statement: &Statement<'t>) -> Result<()> {
        let d = self.result(statement.scope, self.nth(statement, 0)?, RegisterFile::W)?;
        self.emit(Op::ActiveMask(d.index));
        Ok(())
    }

    /// Drops the last operand, a cache policy, which changes no result.
    fn without_policy(&mut self, statement: &Statement<'t>) -> Result<()> {
        let (policy, operands) =
            statement.operands.split_last().ok_or_else(|| Error::new("an operand is missing"))?;
        self.value(statement.scope, policy, RegisterFile::D, 64)?;
        self.plain_statement(&Statement { operands: operands.to_vec(), ..statement.clone() })
    }

    /// `createpolicy`: any value will do.
    fn create_policy(&mut self, statement: &Statement<'t>) -> Result<()> {
        let d = self.result(statement.scope, self.nth(statement, 0)?, RegisterFile::D)?;
        let zero = self.constant(RegisterFile::D, Constant::Value(0));
        let mov = Unary::find("mov.b64").ok_or_else(|| Error::new("no such move"))?;
        self.emit(Op::Unary(mov, [d.index, zero.index]));
        Ok(())
    }

    /// An operand.
    ///
    /// # Errors
    /// There are fewer.
    pub fn nth<'s>(&self, statement: &'s Statement<'t>, index: usize) -> Result<&'s Operand<'t>> {
        statement.operands.get(index).ok_or_else(|| Error::new("an operand is missing"))
    }

    /// # Errors
    /// There are not that many operands.
    pub fn count(statement: &Statement<'t>, count: usize) -> Result<()> {
        let found = statement.operands.len();
        if found == count {
            Ok(())
        } else {
            Err(Error::new(format!("{found} operands where {count} belong")))
        }
    }

    /// Instructions that are one row of a table.
    fn tabled(&mut self, statement: &Statement<'t>) -> Result<()> {
        let (scope, opcode) = (statement.scope, statement.opcode);
        match statement.mnemonic() {
            "and" | "or" | "xor" | "not" if opcode.ends_with(".pred") => return self.logic(statement),
            "add" | "sub" | "mad" if opcode.contains(".cc") => return self.carry(statement),
            _ => {}
        }
        let mut at = [0; 4];
        let mut load = |it: &mut Self, types: &[&str]| -> Result<()> {
            Self::count(statement, types.len())?;
            // Logic of 16 bits shares the rows of 32.
            let half = types.iter().all(|name| *name == "u32") && opcode.ends_with(".b16");
            for (place, name) in types.iter().enumerate() {
                let (file, bits) = if half { (RegisterFile::W, 16) } else { lane_type(name) };
                let operand = &statement.operands[place];
                at[place] = match (place, operand) {
                    (0, Operand::Nothing) => it.scratch(file).index,
                    (0, _) => it.result_of(scope, operand, file, bits)?.index,
                    _ => it.value(scope, operand, file, bits)?.index,
                };
            }
            Ok(())
        };
        if let Some(found) = Unary::find(opcode) {
            load(self, &found.types())?;
            self.emit(Op::Unary(found, [at[0], at[1]]));
        } else if let Some(found) = Binary::find(opcode) {
            load(self, &found.types())?;
            self.emit(Op::Binary(found, [at[0], at[1], at[2]]));
        } else if let Some(found) = Ternary::find(opcode) {
            load(self, &found.types())?;
            self.emit(Op::Ternary(found, at));
        } else {
            return self.rounded(statement);
        }
        Ok(())
    }

    /// Floating-point arithmetic with a rounding mode or saturation.
    fn rounded(&mut self, statement: &Statement<'t>) -> Result<()> {
        if is_half(statement.opcode) {
            return self.half_math(statement);
        }
        let (scope, opcode) = (statement.scope, statement.opcode);
        let unknown = || Error::new("this instruction or form of it is not supported");
        let (operation, operands) = match statement.mnemonic() {
            "add" => (Arithmetic::Add, 2),
            "sub" => (Arithmetic::Sub, 2),
            "mul" => (Arithmetic::Mul, 2),
            "div" => (Arithmetic::Div, 2),
            "fma" | "mad" => (Arithmetic::Fma, 3),
            "rcp" => (Arithmetic::Rcp, 1),
            "sqrt" => (Arithmetic::Sqrt, 1),
            _ => return Err(unknown()),
        };
        let mut mods = Mods::of(opcode);
        let double = match mods.last_type() {
            Ok(Type::F32) => false,
            Ok(Type::F64) => true,
            _ => return Err(unknown()),
        };
        let round = mods.one_of(&ROUNDS).unwrap_or(Round::Nearest);
        let (ftz, saturate) = (mods.take("ftz"), mods.take("sat"));
        mods.finish()?;
        Self::count(statement, operands + 1)?;
        let (file, bits) = if double { (RegisterFile::D, 64) } else { (RegisterFile::W, 32) };
        let result = self.result(scope, &statement.operands[0], file)?.index;
        let mut at = [0; 3];
        for (place, operand) in at.iter_mut().zip(&statement.operands[1..]) {
            *place = self.value(scope, operand, file, bits)?.index;
        }
        for place in operands..3 {
            at[place] = at[0];
        }
        self.emit(Op::Rounded(Box::new(Rounded {
            operation,
            round,
            ftz,
            saturate,
            double,
            result,
            operands: at,
        })));
        Ok(())
    }

    fn mov(&mut self, statement: &Statement<'t>) -> Result<()> {
        Self::count(statement, 2)?;
        let scope = statement.scope;
        let mut mods = Mods::of(statement.opcode);
        let value = mods.last_type()?;
        mods.finish()?;
        let (to, from) = (&statement.operands[0], &statement.operands[1]);
        if value == Type::Pred {
            let d = self.result(scope, to, RegisterFile::Predicate)?.index;
            let a = self.value(scope, from, RegisterFile::Predicate, 1)?.index;
            self.emit(Op::MovPredicate([d, a]));
            return Ok(());
        }
        let file = file_of(value);
        if let Operand::Vector(parts) = to {
            return self.unpack(scope, value, parts, from);
        }
        let d = self.result_of(scope, to, file, 8 * value.bytes())?;
        if let Operand::Vector(parts) = from {
            return self.pack(scope, value, d, parts);
        }
        let clock = match from {
            Operand::Name("%clock" | "%clock_lo", 0) => Some(Clock::Low),
            Operand::Name("%clock_hi", 0) => Some(Clock::High),
            Operand::Name("%clock64", 0) => Some(Clock::Wide),
            Operand::Name("%globaltimer" | "%globaltimer_lo", 0) => Some(Clock::GlobalTimer),
            _ => None,
        };
        if let Some(clock) = clock {
            self.class = Class::Other;
            self.emit(Op::Clock(clock, d.index + if file == RegisterFile::D { 1 << 31 } else { 0 }));
            return Ok(());
        }
        if let Operand::Name(name, _) = from
            && special(name).is_some()
            && file == RegisterFile::D
        {
            // `mov.u64 %rd, %tid.x`: widened.
            let a = self.named(scope, name)?;
            let widen = Unary::find("cvt.u64.u32").ok_or_else(|| Error::new("no widening move"))?;
            self.emit(Op::Unary(widen, [d.index, a.index]));
            return Ok(());
        }
        let a = self.value(scope, from, file, 8 * value.bytes())?;
        let key = if file == RegisterFile::D { "mov.b64" } else { "mov.b32" };
        let mov = Unary::find(key).ok_or_else(|| Error::new("no such move"))?;
        self.emit(Op::Unary(mov, [d.index, a.index]));
        Ok(())
    }

    /// `mov.b64 {a, b}, c`.
    fn unpack(&mut self, scope: usize, value: Type, parts: &[Operand<'t>], from: &Operand<'t>) -> Result<()> {
        let a = self.value(scope, from, file_of(value), 8 * value.bytes())?;
        let register = |part: &Operand<'t>| match part {
            Operand::Nothing => Ok(None),
            Operand::Name(name, 0) => self.named(scope, name).map(Some),
            _ => Err(Error::new("a result that is no register")),
        };
        let registers = parts.iter().map(register).collect::<Result<Vec<_>>>()?;
        self.check_parts(value, registers.len(), registers.iter().flatten().copied())?;
        self.emit(Op::Unpack(Box::new((registers, a))));
        Ok(())
    }

    /// `mov.b64 c, {a, b}`.
    fn pack(&mut self, scope: usize, value: Type, d: Reg, parts: &[Operand<'t>]) -> Result<()> {
        let bits = 8 * value.bytes() / parts.len().max(1) as u32;
        let file = if bits > 32 { RegisterFile::D } else { RegisterFile::W };
        let register = |part: &Operand<'t>| self.value(scope, part, file, bits.max(1));
        let registers = parts.iter().map(register).collect::<Result<Vec<_>>>()?;
        self.check_parts(value, registers.len(), [])?;
        self.emit(Op::Pack(Box::new((d, registers))));
        Ok(())
    }

    fn check_parts(&self, value: Type, count: usize, parts: impl IntoIterator<Item = Reg>) -> Result<()> {
        let bits = 8 * value.bytes();
        if count != 2 && count != 4 || bits / (count as u32) < 8 {
            return Err(Error::new(format!("{count} parts of {bits} bits")));
        }
        for part in parts {
            if u32::from(part.bits) < bits / count as u32 {
                return Err(Error::new("a register too narrow for its part"));
            }
        }
        Ok(())
    }

    fn select(&mut self, statement: &Statement<'t>) -> Result<()> {
        Self::count(statement, 4)?;
        let scope = statement.scope;
        let mut mods = Mods::of(statement.opcode);
        let value = mods.last_type()?;
        mods.finish()?;
        let (file, bits) = (file_of(value), 8 * value.bytes());
        let d = self.result_of(scope, &statement.operands[0], file, bits)?.index;
        let a = self.value(scope, &statement.operands[1], file, bits)?.index;
        let b = self.value(scope, &statement.operands[2], file, bits)?.index;
        let (p, negated) = self.predicate(scope, &statement.operands[3])?;
        let (a, b) = if negated { (b, a) } else { (a, b) };
        let at = [d, a, b, p.index];
        self.emit(match file {
            RegisterFile::D => Op::SelectD(at),
            RegisterFile::W => Op::SelectW(at),
            RegisterFile::Predicate => return Err(Error::new("selp.pred is not supported")),
        });
        Ok(())
    }

    fn logic_of(name: &str) -> Option<Logic> {
        match name {
            "and" => Some(Logic::And),
            "or" => Some(Logic::Or),
            "xor" => Some(Logic::Xor),
            _ => None,
        }
    }

    /// The comparison of `setp` and `set`: the operands start at `first`.
    fn comparison(
        &mut self,
        statement: &Statement<'t>,
        mut mods: Mods<'t>,
        first: usize,
    ) -> Result<SetPredicate> {
        let scope = statement.scope;
        let combine = mods.one_of(&[("and", Logic::And), ("or", Logic::Or), ("xor", Logic::Xor)]);
        let spelling = mods.rest.join(".");
        let compare = Compare::find(&spelling)
            .ok_or_else(|| Error::new(format!("comparison .{spelling} is not supported")))?;
        let (file, bits) = lane_type(compare.operand());
        Self::count(statement, first + 2 + usize::from(combine.is_some()))?;
        let a = self.value(scope, &statement.operands[first], file, bits)?.index;
        let b = self.value(scope, &statement.operands[first + 1], file, bits)?.index;
        let combine = match combine {
            None => None,
            Some(logic) => {
                let (p, negated) = self.predicate(scope, &statement.operands[first + 2])?;
                Some((logic, p.index, negated))
            }
        };
        Ok(SetPredicate { compare, a, b, result: None, inverse: None, combine })
    }

    fn set_predicate(&mut self, statement: &Statement<'t>) -> Result<()> {
        let (_, spelling) = statement.opcode.split_once('.').unwrap_or_default();
        if is_half(statement.opcode) && Compare::find(spelling).is_none() {
            return self.half_test(statement, false);
        }
        let scope = statement.scope;
        let mut set = self.comparison(statement, Mods::of(statement.opcode), 1)?;
        let destination = |it: &mut Self, name: &'t str| -> Result<Option<u32>> {
            if name == "_" {
                return Ok(None);
            }
            Ok(Some(it.result(scope, &Operand::Name(name, 0), RegisterFile::Predicate)?.index))
        };
        match &statement.operands[0] {
            Operand::Pair(p, q) => {
                set.result = destination(self, p)?;
                set.inverse = destination(self, q)?;
            }
            Operand::Name(p, 0) => set.result = destination(self, p)?,
            _ => return Err(Error::new("a result that is no predicate")),
        }
        self.emit(match set {
            SetPredicate { compare, a, b, result: Some(result), inverse: None, combine: None } => {
                Op::Compare(compare, [result, a, b])
            }
            set => Op::SetPredicate(Box::new(set)),
        });
        Ok(())
    }

    fn set_value(&mut self, statement: &Statement<'t>) -> Result<()> {
        if is_half(statement.opcode) {
            return self.half_test(statement, true);
        }
        let mut mods = Mods::of(statement.opcode);
        // `set.lt.u32.s32`: the result's type stands before the operands'.
        let to = mods.rest.len().checked_sub(2).map(|at| mods.rest.remove(at)).unwrap_or("");
        let one = match to {
            "u32" | "s32" | "b32" => u32::MAX,
            "f32" => 1f32.to_bits(),
            _ => return Err(Error::new(format!("set with a result of type .{to} is not supported"))),
        };
        let test = self.comparison(statement, mods, 1)?;
        let result = self.result(statement.scope, &statement.operands[0], RegisterFile::W)?.index;
        self.emit(Op::SetValue(Box::new(SetValue { test, result, one })));
        Ok(())
    }

    fn logic(&mut self, statement: &Statement<'t>) -> Result<()> {
        let scope = statement.scope;
        let name = statement.mnemonic();
        if statement.opcode != format!("{name}.pred") {
            return Err(Error::new("this form is not supported"));
        }
        let d = self.result(scope, self.nth(statement, 0)?, RegisterFile::Predicate)?.index;
        let a = self.value(scope, self.nth(statement, 1)?, RegisterFile::Predicate, 1)?.index;
        match Self::logic_of(name) {
            None => {
                Self::count(statement, 2)?;
                self.emit(Op::Not([d, a]));
            }
            Some(logic) => {
                Self::count(statement, 3)?;
                let b = self.value(scope, &statement.operands[2], RegisterFile::Predicate, 1)?.index;
                self.emit(Op::Logic(logic, [d, a, b]));
            }
        }
        Ok(())
    }

    fn convert(&mut self, statement: &Statement<'t>) -> Result<()> {
        let (scope, opcode) = (statement.scope, statement.opcode);
        let mut mods = Mods::of(opcode);
        let from = mods.last_type()?;
        let to = mods.last_type()?;
        if from == Type::Pred || to == Type::Pred {
            return Err(Error::new("predicates cannot be converted"));
        }
        let eight = |value: Type| matches!(value, Type::E4m3x2 | Type::E5m2x2);
        let pairs =
            matches!(to, Type::F16x2 | Type::Bf16x2) && !eight(from) || eight(to) && from == Type::F32;
        Self::count(statement, if pairs { 3 } else { 2 })?;
        let source = |it: &mut Self, operand: &Operand<'t>| -> Result<Reg> {
            match operand {
                Operand::Name(name, 0) => it.named(scope, name),
                other => it.value(scope, other, file_of(from), 8 * from.bytes()),
            }
        };
        let a = source(self, &statement.operands[1])?;
        let b = if pairs { Some(source(self, &statement.operands[2])?) } else { None };
        let Operand::Name(name, 0) = &statement.operands[0] else {
            return Err(Error::new("a result that is no register"));
        };
        let result = self.named(scope, name)?;
        let fits = |reg: Reg, value: Type| {
            reg.file != RegisterFile::Predicate && u32::from(reg.bits) >= 8 * value.bytes()
        };
        if !fits(a, from) || !fits(result, to) || b.is_some_and(|b| !fits(b, from)) {
            return Err(Error::new("a register narrower than its type"));
        }
        if let Some(op) = conversion_row(opcode, result, a, b) {
            self.emit(op);
            return Ok(());
        }
        let integral = mods.one_of(&INTEGRAL);
        let round = mods.one_of(&ROUNDS).unwrap_or(Round::Nearest);
        let (ftz, saturate, relu) = (mods.take("ftz"), mods.take("sat"), mods.take("relu"));
        let plain = !eight(to) && !eight(from);
        if !plain {
            let narrows = eight(to) && (pairs || from == Type::F16x2) && mods.take("satfinite");
            let widens = eight(from) && to == Type::F16x2;
            if !(narrows || widens) || round != Round::Nearest {
                return Err(Error::new("this conversion is not supported"));
            }
        }
        mods.finish()?;
        let wide = matches!(from, Type::F16x2 | Type::Bf16x2 | Type::Tf32);
        if plain && (wide || pairs && from != Type::F32) {
            return Err(Error::new("this conversion is not supported"));
        }
        let to = match to {
            Type::F16x2 if plain => Type::F16,
            Type::Bf16x2 if plain => Type::Bf16,
            to => to,
        };
        let it = Convert { to, from, round, integral, saturate, ftz, relu, result, a, b };
        self.emit(Op::Convert(Box::new(it)));
        Ok(())
    }

    fn space(mods: &mut Mods<'t>) -> Option<Space> {
        mods.one_of(&[
            ("global", Space::Global),
            ("shared", Space::Shared),
            ("shared::cta", Space::Shared),
            ("local", Space::Local),
            ("param", Space::Param),
            ("param::entry", Space::Param),
            ("const", Space::Const),
        ])
    }

    /// `cvta` and `cvta.to`: adds or takes away the start of the space's window.
    fn convert_address(&mut self, statement: &Statement<'t>) -> Result<()> {
        Self::count(statement, 2)?;
        let scope = statement.scope;
        let mut mods = Mods::of(statement.opcode);
        let value = mods.last_type()?;
        let to_space = mods.take("to");
        let space = Self::space(&mut mods).ok_or_else(|| Error::new("no state space"))?;
        mods.finish()?;
        if file_of(value) != RegisterFile::D {
            return Err(Error::new("only 64-bit addresses are supported"));
        }
        let d = self.result(scope, &statement.operands[0], RegisterFile::D)?.index;
        let a = self.value(scope, &statement.operands[1], RegisterFile::D, 64)?.index;
        let window = match space {
            Space::Shared => SHARED_WINDOW,
            Space::Local => LOCAL_WINDOW,
            Space::Param => PARAM_WINDOW,
            _ => 0,
        };
        let name = if to_space { "sub.u64" } else { "add.u64" };
        let window = self.constant(RegisterFile::D, Constant::Value(window)).index;
        let op = Binary::find(name).ok_or_else(|| Error::new("no such instruction"))?;
        self.emit(Op::Binary(op, [d, a, window]));
        Ok(())
    }

    fn is_space(&mut self, statement: &Statement<'t>) -> Result<()> {
        Self::count(statement, 2)?;
        let mut mods = Mods::of(statement.opcode);
        let space = Self::space(&mut mods).ok_or_else(|| Error::new("no state space"))?;
        mods.finish()?;
        let d = self.result(statement.scope, &statement.operands[0], RegisterFile::Predicate)?.index;
        let a = self.value(statement.scope, &statement.operands[1], RegisterFile::D, 64)?.index;
        self.emit(Op::IsSpace(Box::new((space, d, a))));
        Ok(())
    }

    fn lop3(&mut self, statement: &Statement<'t>) -> Result<()> {
        Self::count(statement, 5)?;
        if statement.opcode != "lop3.b32" {
            return Err(Error::new("only lop3.b32 is supported"));
        }
        let scope = statement.scope;
        let mut at = [self.result(scope, &statement.operands[0], RegisterFile::W)?.index, 0, 0, 0];
        for (place, operand) in at.iter_mut().zip(&statement.operands).skip(1) {
            *place = self.value(scope, operand, RegisterFile::W, 32)?.index;
        }
        let Operand::Integer(table @ 0..=255) = statement.operands[4] else {
            return Err(Error::new("the table is a number from 0 to 255"));
        };
        self.emit(Op::Lop3(Box::new((at, table as u8))));
        Ok(())
    }

    fn insert(&mut self, statement: &Statement<'t>) -> Result<()> {
        Self::count(statement, 5)?;
        let scope = statement.scope;
        let file = match statement.opcode {
            "bfi.b32" => RegisterFile::W,
            "bfi.b64" => RegisterFile::D,
            _ => return Err(Error::new("this form is not supported")),
        };
        let bits = if file == RegisterFile::D { 64 } else { 32 };
        let at = [
            self.result(scope, &statement.operands[0], file)?.index,
            self.value(scope, &statement.operands[1], file, bits)?.index,
            self.value(scope, &statement.operands[2], file, bits)?.index,
            self.value(scope, &statement.operands[3], RegisterFile::W, 32)?.index,
            self.value(scope, &statement.operands[4], RegisterFile::W, 32)?.index,
        ];
        self.emit(Op::Insert(Box::new((at, file == RegisterFile::D))));
        Ok(())
    }

    fn test_number(&mut self, statement: &Statement<'t>) -> Result<()> {
        Self::count(statement, 2)?;
        let mut mods = Mods::of(statement.opcode);
        let value = mods.last_type()?;
        let test = mods
            .one_of(&[
                ("finite", NumberTest::Finite),
                ("infinite", NumberTest::Infinite),
                ("number", NumberTest::Number),
                ("notanumber", NumberTest::NotANumber),
                ("normal", NumberTest::Normal),
                ("subnormal", NumberTest::Subnormal),
            ])
            .ok_or_else(|| Error::new("no test named"))?;
        mods.finish()?;
        if !matches!(value, Type::F32 | Type::F64) {
            return Err(Error::new("only f32 and f64 can be tested"));
        }
        let file = file_of(value);
        let d = self.result(statement.scope, &statement.operands[0], RegisterFile::Predicate)?.index;
        let a = self.value(statement.scope, &statement.operands[1], file, 8 * value.bytes())?.index;
        self.emit(Op::TestNumber(Box::new((test, file == RegisterFile::D, d, a))));
        Ok(())
    }

    fn carry(&mut self, statement: &Statement<'t>) -> Result<()> {
        let scope = statement.scope;
        let mnemonic = statement.mnemonic();
        let mut mods = Mods::of(statement.opcode);
        let value = mods.last_type()?;
        let kind = match mnemonic {
            "add" | "addc" => CarryKind::Add,
            "sub" | "subc" => CarryKind::Sub,
            _ if mods.take("hi") => CarryKind::MadHi,
            _ if mods.take("lo") => CarryKind::MadLo,
            _ => return Err(Error::new("neither .lo nor .hi")),
        };
        let carry_out = mods.take("cc");
        mods.finish()?;
        if !matches!(value, Type::U32 | Type::S32 | Type::U64 | Type::S64) {
            return Err(Error::new("a type that carries do not have"));
        }
        let operands = if matches!(kind, CarryKind::Add | CarryKind::Sub) { 2 } else { 3 };
        Self::count(statement, operands + 1)?;
        let (file, bits) = (file_of(value), 8 * value.bytes());
        let result = self.result(scope, &statement.operands[0], file)?.index;
        let mut at = [0; 3];
        for (place, operand) in at.iter_mut().zip(&statement.operands[1..]) {
            *place = self.value(scope, operand, file, bits)?.index;
        }
        if operands == 2 {
            at[2] = at[1];
        }
        self.emit(Op::Carry(Box::new(Carry {
            kind,
            wide: file == RegisterFile::D,
            signed: value.is_signed(),
            carry_in: mnemonic.ends_with('c'),
            carry_out,
            result,
            operands: at,
        })));
        Ok(())
    }

    fn branch(&mut self, statement: &Statement<'t>) -> Result<()> {
        Self::count(statement, 1)?;
        Mods::of(statement.opcode).finish_after(&["uni"])?;
        let Operand::Name(label, 0) = statement.operands[0] else {
            return Err(Error::new("a branch to no label"));
        };
        self.frame.branches.push((self.steps.len(), 0, statement.scope, label));
        self.emit(Op::Branch(0, END));
        Ok(())
    }

    fn branch_table(&mut self, statement: &Statement<'t>) -> Result<()> {
        Self::count(statement, 2)?;
        Mods::of(statement.opcode).finish_after(&["idx", "uni"])?;
        let index = self.value(statement.scope, &statement.operands[0], RegisterFile::W, 32)?;
        let Operand::Name(name, 0) = statement.operands[1] else {
            return Err(Error::new("no table of targets"));
        };
        let (labels, scope) = self
            .table(statement.scope, name)
            .ok_or_else(|| Error::new(format!("no table of targets {name}")))?;
        for (place, label) in labels.iter().enumerate() {
            self.frame.branches.push((self.steps.len(), place, scope, label));
        }
        let targets = vec![0; labels.len()];
        self.emit(Op::BranchTable(Box::new(Table { index, targets, join: END })));
        Ok(())
    }
}

/// The row of the tables for a conversion, if registers are as wide as their types.
fn conversion_row(opcode: &str, result: Reg, a: Reg, b: Option<Reg>) -> Option<Op> {
    let Some(b) = b else {
        let row = Unary::find(opcode)?;
        let [to, from] = row.types().map(lane_type);
        let exact = result.file == to.0
            && (u32::from(result.bits) == to.1 || to == (RegisterFile::W, 32))
            && from.0 == a.file;
        return exact.then_some(Op::Unary(row, [result.index, a.index]));
    };
    let row = Binary::find(opcode)?;
    let words = [result, a, b].iter().all(|reg| reg.file == RegisterFile::W);
    words.then_some(Op::Binary(row, [result.index, a.index, b.index]))
}

/// Whether the last type is f16, bf16 or a pair of them.
fn is_half(opcode: &str) -> bool {
    opcode.rsplit('.').next().and_then(Type::find).is_some_and(|value| half_type(value).is_some())
}

fn is_video(mnemonic: &str) -> bool {
    let name = mnemonic.trim_end_matches(['2', '4']);
    ["vadd", "vsub", "vabsdiff", "vavrg", "vmin", "vmax", "vshl", "vshr", "vmad", "vset"].contains(&name)
}

/// The class that arithmetic counts in.
fn class(mnemonic: &str, opcode: &str) -> Class {
    match mnemonic {
        "and" | "or" | "xor" | "not" | "cnot" | "shl" | "shr" | "shf" | "prmt" | "slct" => Class::MoveLogic,
        "ex2" | "lg2" | "sin" | "cos" | "tanh" | "rcp" | "sqrt" | "rsqrt" if !opcode.ends_with("f64") => {
            Class::SpecialFunction
        }
        "div" if opcode.ends_with("f32") => Class::SpecialFunction,
        _ if opcode.ends_with("f64") => Class::Double,
        _ if opcode.ends_with("f32")
            || opcode.ends_with("f16")
            || opcode.ends_with("f16x2")
            || opcode.contains(".bf16") =>
        {
            Class::Float
        }
        _ => Class::Integer,
    }
}
