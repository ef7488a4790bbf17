//! Statements to instructions: names to register numbers, words to operations.
//!
//! Calls are expanded where they stand. Constants and special registers become registers that hold their value from the start, so
//! that an operation reads registers only.

use std::collections::HashMap;

use crate::error::{Result, error};
use crate::flow;
use crate::op::*;
use crate::parse::{self, Float, Function, Item, Module, Operand, Statement, Variable, type_bytes};
use crate::program::{Kernel, Parameter, Preset, Special};

/// How deep calls may be nested.
const DEEPEST_CALL: usize = 32;
/// How many instructions a kernel may have after expansion.
const LONGEST_KERNEL: usize = 1 << 20;

/// Where the module's variables lie.
pub struct Layout {
    offsets: HashMap<String, u64>,
    /// Their initial bytes.
    pub bytes: Vec<u8>,
    /// Shared variables outside functions: offset, or `None` for the dynamic block.
    shared: HashMap<String, Option<usize>>,
    shared_bytes: usize,
}

impl Layout {
    /// Lays out the module's variables.
    pub fn of(module: &Module) -> Result<Self> {
        let mut layout =
            Layout { offsets: HashMap::new(), bytes: Vec::new(), shared: HashMap::new(), shared_bytes: 0 };
        for variable in &module.variables {
            if variable.space == parse::Space::Shared {
                let offset = place(&mut layout.shared_bytes, variable)?;
                layout.shared.insert(variable.name.clone(), (variable.bytes > 0).then_some(offset));
                continue;
            }
            let mut at = layout.bytes.len();
            let offset = place(&mut at, variable)?;
            layout.bytes.resize(offset, 0);
            let zeros = vec![0; variable.bytes];
            layout.bytes.extend_from_slice(variable.initial.as_deref().unwrap_or(&zeros));
            layout.offsets.insert(variable.name.clone(), offset as u64);
        }
        Ok(layout)
    }
}

/// The aligned offset of a variable placed at `at`, which moves behind it.
fn place(at: &mut usize, variable: &Variable) -> Result<usize> {
    let alignment = variable.alignment.max(1);
    if !alignment.is_power_of_two() || variable.bytes > 1 << 30 {
        return Err(error!("variable {}: alignment {alignment}, {} bytes", variable.name, variable.bytes));
    }
    let offset = at.next_multiple_of(alignment);
    *at = offset + variable.bytes;
    Ok(offset)
}

/// A name's meaning inside a function.
#[derive(Clone, Copy, Debug)]
enum Meaning {
    Register {
        number: u32,
        bytes: u8,
    },
    Predicate(u32),
    /// An address in a space, as a constant.
    Place(Space, u64),
    Variable(u64),
    DynamicShared,
}

struct Scope<'a> {
    function: &'a Function,
    names: HashMap<String, Meaning>,
    labels: HashMap<String, u32>,
    /// Branches whose label is not yet placed.
    pending: Vec<(usize, Vec<String>)>,
    /// Returns to be sent to the end of the expansion; of a kernel they are exits.
    returns: Vec<usize>,
}

struct Decoder<'a> {
    module: &'a Module,
    layout: &'a Layout,
    code: Vec<Instruction>,
    counts: [usize; 3],
    constants32: HashMap<u32, u32>,
    constants64: HashMap<u64, u32>,
    constant_predicates: [Option<Pred>; 2],
    specials32: HashMap<Special, u32>,
    specials64: HashMap<Special, u32>,
    variables64: HashMap<u64, u32>,
    presets32: Vec<(u32, Preset)>,
    presets64: Vec<(u32, Preset)>,
    local_bytes: usize,
    shared_bytes: usize,
    granule: usize,
    depth: usize,
}

/// Decodes a kernel.
pub fn kernel(module: &Module, layout: &Layout, function: &Function) -> Result<Kernel> {
    let mut decoder = Decoder {
        module,
        layout,
        code: Vec::new(),
        counts: [0; 3],
        constants32: HashMap::new(),
        constants64: HashMap::new(),
        constant_predicates: [None; 2],
        specials32: HashMap::new(),
        specials64: HashMap::new(),
        variables64: HashMap::new(),
        presets32: Vec::new(),
        presets64: Vec::new(),
        local_bytes: 0,
        shared_bytes: layout.shared_bytes,
        granule: 4,
        depth: 0,
    };
    let mut parameters = Vec::new();
    let mut at = 0;
    let mut names = HashMap::new();
    for parameter in &function.parameters {
        let offset = place(&mut at, parameter)?;
        names.insert(parameter.name.clone(), Meaning::Place(Space::Param, offset as u64));
        parameters.push(Parameter { name: parameter.name.clone(), offset, bytes: parameter.bytes });
    }
    decoder.function(function, names)?;
    let exit = |line| Instruction {
        op: Op::Exit,
        class: Class::Control,
        guard: None,
        meet: flow::NEVER,
        line,
        source: None,
    };
    let last = decoder.code.last().map_or(0, |instruction| instruction.line);
    decoder.code.push(exit(last));
    flow::place_meeting_points(&mut decoder.code);
    let shared_bytes = decoder.shared_bytes;
    Ok(Kernel {
        name: function.name.clone(),
        parameters,
        parameter_bytes: at,
        shared_bytes,
        dynamic_shared: shared_bytes.next_multiple_of(16),
        local_bytes: decoder.local_bytes,
        registers: decoder.counts,
        presets32: decoder.presets32,
        presets64: decoder.presets64,
        true_predicate: decoder.constant_predicates[1],
        code: decoder.code,
        shared_granule: decoder.granule,
    })
}

/// A word of a statement with its place, for errors.
fn unsupported(statement: &Statement) -> crate::Error {
    error!("line {}: the instruction '{}' is not supported", statement.line, statement.words.join("."))
}

fn width_of(word: &str) -> Option<Width> {
    Some(match word {
        "s16" => Width::S16,
        "u16" | "b16" => Width::U16,
        "s32" => Width::S32,
        "u32" | "b32" => Width::U32,
        "s64" => Width::S64,
        "u64" | "b64" => Width::U64,
        _ => return None,
    })
}

fn type_of(word: &str) -> Option<Type> {
    Some(match word {
        "s8" => Type::S8,
        "u8" | "b8" => Type::U8,
        "f16" => Type::F16,
        "bf16" => Type::Bf16,
        "f32" => Type::F32,
        "f64" => Type::F64,
        _ => Type::Int(width_of(word)?),
    })
}

fn is_64(kind: Type) -> bool {
    match kind {
        Type::F64 => true,
        Type::Int(width) => width.is_64(),
        _ => false,
    }
}

fn compare_of(word: &str) -> Option<(Compare, bool)> {
    // lo, ls, hi, hs are unsigned by name.
    Some(match word {
        "eq" => (Compare::Eq, false),
        "ne" => (Compare::Ne, false),
        "lt" => (Compare::Lt, false),
        "le" => (Compare::Le, false),
        "gt" => (Compare::Gt, false),
        "ge" => (Compare::Ge, false),
        "lo" => (Compare::Lt, true),
        "ls" => (Compare::Le, true),
        "hi" => (Compare::Gt, true),
        "hs" => (Compare::Ge, true),
        "equ" => (Compare::Equ, false),
        "neu" => (Compare::Neu, false),
        "ltu" => (Compare::Ltu, false),
        "leu" => (Compare::Leu, false),
        "gtu" => (Compare::Gtu, false),
        "geu" => (Compare::Geu, false),
        "num" => (Compare::Num, false),
        "nan" => (Compare::Nan, false),
        _ => return None,
    })
}

fn bool_of(word: &str) -> Option<Bool> {
    Some(match word {
        "and" => Bool::And,
        "or" => Bool::Or,
        "xor" => Bool::Xor,
        _ => return None,
    })
}

fn special_of(name: &str) -> Option<Special> {
    let axis = |rest: &str| match rest {
        "x" => Some(0),
        "y" => Some(1),
        "z" => Some(2),
        _ => None,
    };
    Some(match name {
        "%laneid" => Special::Lane,
        "%warpid" => Special::Warp,
        "%nwarpid" => Special::Warps,
        "%smid" => Special::Multiprocessor,
        "%lanemask_eq" => Special::LaneMask("eq"),
        "%lanemask_lt" => Special::LaneMask("lt"),
        "%lanemask_le" => Special::LaneMask("le"),
        "%lanemask_gt" => Special::LaneMask("gt"),
        "%lanemask_ge" => Special::LaneMask("ge"),
        "%dynamic_smem_size" => Special::DynamicShared,
        "%total_smem_size" => Special::TotalShared,
        _ => {
            let (register, rest) = name.split_once('.')?;
            match register {
                "%tid" => Special::Thread(axis(rest)?),
                "%ntid" => Special::Threads(axis(rest)?),
                "%ctaid" => Special::Block(axis(rest)?),
                "%nctaid" => Special::Blocks(axis(rest)?),
                _ => return None,
            }
        }
    })
}

impl<'a> Decoder<'a> {
    fn push(
        &mut self,
        statement: &Statement,
        guard: Option<(Pred, bool)>,
        class: Class,
        op: Op,
    ) -> Result<usize> {
        if self.code.len() >= LONGEST_KERNEL {
            return Err(error!("line {}: more than {LONGEST_KERNEL} instructions", statement.line));
        }
        self.code.push(Instruction {
            op,
            class,
            guard,
            meet: flow::NEVER,
            line: statement.line,
            source: statement.source,
        });
        Ok(self.code.len() - 1)
    }

    fn constant32(&mut self, value: u32) -> u32 {
        let next = self.counts[0] as u32;
        let number = *self.constants32.entry(value).or_insert(next);
        if number == next {
            self.counts[0] += 1;
            self.presets32.push((number, Preset::Value(u64::from(value))));
        }
        number
    }

    fn constant64(&mut self, value: u64) -> u32 {
        let next = self.counts[1] as u32;
        let number = *self.constants64.entry(value).or_insert(next);
        if number == next {
            self.counts[1] += 1;
            self.presets64.push((number, Preset::Value(value)));
        }
        number
    }

    fn special(&mut self, special: Special, wide: bool) -> u32 {
        let next = self.counts[usize::from(wide)] as u32;
        let table = if wide { &mut self.specials64 } else { &mut self.specials32 };
        let number = *table.entry(special).or_insert(next);
        if number == next {
            self.counts[usize::from(wide)] += 1;
            let presets = if wide { &mut self.presets64 } else { &mut self.presets32 };
            presets.push((number, Preset::Special(special)));
        }
        number
    }

    fn variable(&mut self, offset: u64) -> u32 {
        let next = self.counts[1] as u32;
        let number = *self.variables64.entry(offset).or_insert(next);
        if number == next {
            self.counts[1] += 1;
            self.presets64.push((number, Preset::Variable(offset)));
        }
        number
    }

    /// Expands a function whose parameters are already named.
    fn function(&mut self, function: &'a Function, mut names: HashMap<String, Meaning>) -> Result<()> {
        for (name, kind) in &function.registers {
            let meaning = if kind == "pred" {
                self.counts[2] += 1;
                Meaning::Predicate(self.counts[2] as u32 - 1)
            } else {
                let bytes = type_bytes(kind).unwrap_or(4) as u8;
                if bytes > 8 {
                    return Err(error!("registers of type '{kind}' are not supported"));
                }
                let file = usize::from(bytes == 8);
                self.counts[file] += 1;
                Meaning::Register { number: self.counts[file] as u32 - 1, bytes }
            };
            names.insert(name.clone(), meaning);
        }
        for variable in &function.variables {
            let meaning = match variable.space {
                parse::Space::Local | parse::Space::Param => {
                    Meaning::Place(Space::Local, place(&mut self.local_bytes, variable)? as u64)
                }
                parse::Space::Shared if variable.bytes == 0 => Meaning::DynamicShared,
                parse::Space::Shared => {
                    Meaning::Place(Space::Shared, place(&mut self.shared_bytes, variable)? as u64)
                }
                _ => return Err(error!("variable {} in a function", variable.name)),
            };
            names.insert(variable.name.clone(), meaning);
        }
        let mut scope =
            Scope { function, names, labels: HashMap::new(), pending: Vec::new(), returns: Vec::new() };
        for item in &function.body {
            match item {
                Item::Label(label) => {
                    scope.labels.insert(label.clone(), self.code.len() as u32);
                }
                Item::Statement(statement) => self.statement(&mut scope, statement)?,
            }
        }
        // A label may stand at the end; there must be something for it to name.
        let end = self.code.len() as u32;
        for (at, labels) in std::mem::take(&mut scope.pending) {
            let find =
                |label: &String| scope.labels.get(label).copied().ok_or_else(|| error!("no label {label}"));
            let targets = labels.iter().map(find).collect::<Result<Vec<u32>>>()?;
            match &mut self.code[at].op {
                Op::Branch { target } => *target = targets[0],
                Op::BranchTable { targets: list, .. } => *list = targets,
                _ => {}
            }
        }
        if self.depth > 0 {
            for at in scope.returns {
                self.code[at].op = Op::Branch { target: end };
            }
        }
        if self.depth > 0 || scope.labels.values().any(|&at| at == end) {
            let nothing = Instruction {
                op: Op::Nothing,
                class: Class::Control,
                guard: None,
                meet: flow::NEVER,
                line: self.code.last().map_or(0, |instruction| instruction.line),
                source: None,
            };
            self.code.push(nothing);
        }
        Ok(())
    }

    fn meaning(&self, scope: &Scope<'_>, name: &str) -> Option<Meaning> {
        if let Some(&meaning) = scope.names.get(name) {
            return Some(meaning);
        }
        if let Some(&offset) = self.layout.offsets.get(name) {
            return Some(Meaning::Variable(offset));
        }
        self.layout.shared.get(name).map(|place| match place {
            Some(offset) => Meaning::Place(Space::Shared, *offset as u64),
            None => Meaning::DynamicShared,
        })
    }

    /// The bytes of an address constant in the generic or its own space.
    fn place_value(space: Space, offset: u64) -> u64 {
        match space {
            Space::Param => crate::memory::PARAM_BASE + offset,
            _ => offset,
        }
    }

    /// A 32-bit operand (also 16-bit).
    fn r32(
        &mut self,
        scope: &Scope<'_>,
        statement: &Statement,
        operand: &Operand,
        kind: Type,
    ) -> Result<u32> {
        let line = statement.line;
        match operand {
            Operand::Number { bits, float } => {
                let value = match (float, kind) {
                    (Float::No, Type::Int(Width::S16 | Width::U16) | Type::F16 | Type::Bf16) => {
                        *bits as u32 & 0xffff
                    }
                    (Float::No, Type::F32) => (*bits as i64 as f32).to_bits(),
                    (Float::No | Float::Single, _) => *bits as u32,
                    (Float::Double, _) => (f64::from_bits(*bits) as f32).to_bits(),
                };
                Ok(self.constant32(value))
            }
            Operand::Name(name) => match self.meaning(scope, name) {
                Some(Meaning::Register { number, bytes }) if bytes <= 4 => Ok(number),
                Some(Meaning::Place(space, offset)) => {
                    let value = Self::place_value(space, offset) as u32;
                    Ok(self.constant32(value))
                }
                Some(Meaning::DynamicShared) => {
                    Err(error!("line {line}: dynamic shared memory's address as a value"))
                }
                Some(_) => Err(error!("line {line}: '{name}' is no 32-bit register")),
                None => match name.as_str() {
                    "WARP_SZ" => Ok(self.constant32(32)),
                    _ => {
                        let special =
                            special_of(name).ok_or_else(|| error!("line {line}: '{name}' is not known"))?;
                        Ok(self.special(special, false))
                    }
                },
            },
            other => Err(error!("line {line}: {other:?} is no 32-bit operand")),
        }
    }

    fn r64(&mut self, scope: &Scope<'_>, statement: &Statement, operand: &Operand) -> Result<u32> {
        let line = statement.line;
        match operand {
            Operand::Number { bits, float } => {
                let value = match float {
                    Float::Single => f64::from(f32::from_bits(*bits as u32)).to_bits(),
                    _ => *bits,
                };
                Ok(self.constant64(value))
            }
            Operand::Name(name) => match self.meaning(scope, name) {
                Some(Meaning::Register { number, bytes: 8 }) => Ok(number),
                Some(Meaning::Place(space, offset)) => Ok(self.constant64(Self::place_value(space, offset))),
                Some(Meaning::Variable(offset)) => Ok(self.variable(offset)),
                Some(Meaning::DynamicShared) => {
                    Err(error!("line {line}: dynamic shared memory's address as a value"))
                }
                Some(_) => Err(error!("line {line}: '{name}' is no 64-bit register")),
                None => {
                    let special =
                        special_of(name).ok_or_else(|| error!("line {line}: '{name}' is not known"))?;
                    Ok(self.special(special, true))
                }
            },
            other => Err(error!("line {line}: {other:?} is no 64-bit operand")),
        }
    }

    /// An operand of a type, in the file of its width.
    fn value(
        &mut self,
        scope: &Scope<'_>,
        statement: &Statement,
        operand: &Operand,
        kind: Type,
    ) -> Result<u32> {
        if is_64(kind) {
            self.r64(scope, statement, operand)
        } else {
            self.r32(scope, statement, operand, kind)
        }
    }

    fn predicate(
        &mut self,
        scope: &Scope<'_>,
        statement: &Statement,
        operand: &Operand,
    ) -> Result<(Pred, bool)> {
        let line = statement.line;
        let (name, negated) = match operand {
            Operand::Name(name) => (name, false),
            Operand::Not(name) => (name, true),
            Operand::Number { bits, float: Float::No } => {
                return Ok((self.constant_predicate(*bits != 0), false));
            }
            other => return Err(error!("line {line}: {other:?} is no predicate")),
        };
        match self.meaning(scope, name) {
            Some(Meaning::Predicate(number)) => Ok((number, negated)),
            _ => Err(error!("line {line}: '{name}' is no predicate")),
        }
    }

    /// A predicate that is always true or always false.
    fn constant_predicate(&mut self, value: bool) -> Pred {
        let next = self.counts[2] as u32;
        let number = *self.constant_predicates[usize::from(value)].get_or_insert(next);
        if number == next {
            self.counts[2] += 1;
        }
        number
    }

    /// A destination: `_` has a register nobody reads.
    fn result32(&mut self, scope: &Scope<'_>, statement: &Statement, operand: &Operand) -> Result<u32> {
        match operand {
            Operand::Name(name) if name == "_" => {
                self.counts[0] += 1;
                Ok(self.counts[0] as u32 - 1)
            }
            _ => self.register(scope, statement, operand, false),
        }
    }

    fn register(
        &mut self,
        scope: &Scope<'_>,
        statement: &Statement,
        operand: &Operand,
        wide: bool,
    ) -> Result<u32> {
        let line = statement.line;
        if let Operand::Name(name) = operand {
            if let Some(Meaning::Register { number, bytes }) = self.meaning(scope, name)
                && (bytes == 8) == wide
            {
                return Ok(number);
            }
        }
        Err(error!("line {line}: {operand:?} is no {}-bit register to write", if wide { 64 } else { 32 }))
    }

    fn address(
        &mut self,
        scope: &Scope<'_>,
        statement: &Statement,
        operand: &Operand,
    ) -> Result<(Address, Option<Space>)> {
        let line = statement.line;
        let Operand::Address { base, offset } = operand else {
            return Err(error!("line {line}: {operand:?} is no address"));
        };
        let Some(name) = base else {
            let base = self.constant64(0);
            return Ok((Address { base, wide: true, offset: *offset }, None));
        };
        Ok(match self.meaning(scope, name) {
            Some(Meaning::Register { number, bytes }) if bytes >= 4 => {
                (Address { base: number, wide: bytes == 8, offset: *offset }, None)
            }
            Some(Meaning::Place(space, place)) => {
                let base = self.constant64(Self::place_value(space, place));
                (Address { base, wide: true, offset: *offset }, Some(space))
            }
            Some(Meaning::Variable(place)) => {
                let base = self.variable(place);
                (Address { base, wide: true, offset: *offset }, Some(Space::Global))
            }
            _ => return Err(error!("line {line}: '{name}' is no address")),
        })
    }

    fn statement(&mut self, scope: &mut Scope<'a>, statement: &Statement) -> Result<()> {
        let guard = match &statement.guard {
            None => None,
            Some((name, negated)) => {
                let (number, _) = self.predicate(scope, statement, &Operand::Name(name.clone()))?;
                Some((number, *negated))
            }
        };
        let words: Vec<&str> = statement.words.iter().map(String::as_str).collect();
        let operands = &statement.operands;
        match (words[0], operands.as_slice()) {
            ("bra", [Operand::Name(label)]) => {
                let at = self.push(statement, guard, Class::Control, Op::Branch { target: 0 })?;
                scope.pending.push((at, vec![label.clone()]));
                return Ok(());
            }
            ("brx", [index, Operand::Name(table)]) => {
                let labels = scope
                    .function
                    .tables
                    .get(table)
                    .ok_or_else(|| error!("line {}: no table {table}", statement.line))?
                    .clone();
                let index = self.r32(scope, statement, index, Type::Int(Width::U32))?;
                let op = Op::BranchTable { targets: Vec::new(), index };
                let at = self.push(statement, guard, Class::Control, op)?;
                scope.pending.push((at, labels));
                return Ok(());
            }
            ("ret", []) => {
                let at = self.push(statement, guard, Class::Control, Op::Exit)?;
                scope.returns.push(at);
                return Ok(());
            }
            ("exit", []) => {
                self.push(statement, guard, Class::Control, Op::Exit)?;
                return Ok(());
            }
            ("call", _) => return self.call(scope, statement, guard),
            _ => {}
        }
        let (class, op) = self.operation(scope, statement, &words)?;
        self.push(statement, guard, class, op)?;
        Ok(())
    }

    fn call(&mut self, scope: &Scope<'a>, statement: &Statement, guard: Option<(Pred, bool)>) -> Result<()> {
        let line = statement.line;
        let operands: Vec<&Operand> = statement.operands.iter().collect();
        let (results, name, arguments): (&[Operand], &String, &[Operand]) = match operands[..] {
            [Operand::List(results), Operand::Name(name), Operand::List(arguments)] => {
                (results, name, arguments)
            }
            [Operand::Name(name), Operand::List(arguments)] => (&[], name, arguments),
            [Operand::List(results), Operand::Name(name)] => (results, name, &[]),
            [Operand::Name(name)] => (&[], name, &[]),
            _ => return Err(unsupported(statement)),
        };
        if guard.is_some() {
            return Err(error!("line {line}: a guarded call is not supported"));
        }
        let module = self.module;
        let callee = module
            .functions
            .iter()
            .find(|function| function.name == *name && function.defined)
            .ok_or_else(|| error!("line {line}: the function {name} is not in the file"))?;
        if self.depth >= DEEPEST_CALL {
            return Err(error!(
                "line {line}: calls nested deeper than {DEEPEST_CALL}, or recursive, are not supported"
            ));
        }
        let formal = callee.results.iter().chain(&callee.parameters);
        let actual = results.iter().chain(arguments);
        if callee.results.len() != results.len() || callee.parameters.len() != arguments.len() {
            return Err(error!("line {line}: {name} takes other arguments"));
        }
        let mut names = HashMap::new();
        for (formal, actual) in formal.zip(actual) {
            let Operand::Name(actual) = actual else { return Err(unsupported(statement)) };
            let meaning =
                self.meaning(scope, actual).ok_or_else(|| error!("line {line}: '{actual}' is not known"))?;
            names.insert(formal.name.clone(), meaning);
        }
        self.depth += 1;
        let result = self.function(callee, names);
        self.depth -= 1;
        result
    }

    fn operation(&mut self, scope: &Scope<'_>, statement: &Statement, words: &[&str]) -> Result<(Class, Op)> {
        let none = || unsupported(statement);
        let last = *words.last().unwrap_or(&"");
        let has = |word: &str| words[1..].contains(&word);
        let mode = Mode { ftz: has("ftz"), sat: has("sat") };
        let o: Vec<&Operand> = statement.operands.iter().collect();
        let rounding = || {
            if has("rz") || has("rzi") {
                Rounding::Zero
            } else if has("rm") || has("rmi") {
                Rounding::Down
            } else if has("rp") || has("rpi") {
                Rounding::Up
            } else {
                Rounding::Nearest
            }
        };
        // Words that change nothing here, and those read above.
        let known = |allowed: &[&str]| {
            let ignored = |word: &&str| allowed.contains(word) || word.is_empty();
            if words[1..].iter().all(|word| ignored(word) || type_bytes(word).is_some() || *word == "pred") {
                Ok(())
            } else {
                Err(none())
            }
        };
        macro_rules! arity {
            ($n:expr) => {
                if o.len() != $n {
                    return Err(error!(
                        "line {}: '{}' with {} operands",
                        statement.line,
                        words.join("."),
                        o.len()
                    ));
                }
            };
        }
        let u32_type = Type::Int(Width::U32);
        Ok(match words[0] {
            "mov" => {
                arity!(2);
                known(&[])?;
                return self.mov(scope, statement, last);
            }
            "cvta" => {
                arity!(2);
                let from_generic = has("to");
                let space = if has("shared") || has("shared::cta") {
                    Space::Shared
                } else if has("local") {
                    Space::Local
                } else if has("param") {
                    Space::Param
                } else if has("global") || has("const") {
                    Space::Global
                } else {
                    return Err(none());
                };
                let wide = last == "u64";
                let d = self.register(scope, statement, o[0], wide)?;
                let a = self.value(scope, statement, o[1], type_of(last).ok_or_else(none)?)?;
                (Class::Move, Op::ToSpace { from_generic, space, wide, d, a })
            }
            "isspacep" => {
                arity!(2);
                let space = match last {
                    "shared" => Space::Shared,
                    "global" => Space::Global,
                    "local" => Space::Local,
                    _ => return Err(none()),
                };
                let (d, _) = self.predicate(scope, statement, o[0])?;
                (Class::Move, Op::IsSpace { space, d, a: self.r64(scope, statement, o[1])? })
            }
            "add" | "sub" | "addc" | "subc" if width_of(last).is_some() => {
                arity!(3);
                known(&["cc", "sat"])?;
                let width = width_of(last).ok_or_else(none)?;
                if mode.sat {
                    return Err(none());
                }
                let kind = Type::Int(width);
                let d = self.register(scope, statement, o[0], width.is_64())?;
                let a = self.value(scope, statement, o[1], kind)?;
                let b = self.value(scope, statement, o[2], kind)?;
                let (take, give) = (words[0].ends_with('c'), has("cc"));
                let subtract = words[0].starts_with("sub");
                if take || give {
                    (Class::Integer, Op::Carry { width, subtract, d, a, b, take, give })
                } else {
                    let op = if subtract { Int::Sub } else { Int::Add };
                    (Class::Integer, Op::Int { op, width, d, a, b })
                }
            }
            "mul" | "mul24" if width_of(last).is_some() => {
                arity!(3);
                known(&["lo", "hi", "wide"])?;
                if words[0] == "mul24" {
                    return Err(none());
                }
                let width = width_of(last).ok_or_else(none)?;
                let kind = Type::Int(width);
                let a = self.value(scope, statement, o[1], kind)?;
                let b = self.value(scope, statement, o[2], kind)?;
                if has("wide") {
                    let d =
                        self.register(scope, statement, o[0], matches!(width, Width::S32 | Width::U32))?;
                    (Class::Integer, Op::MulWide { width, d, a, b, c: None })
                } else {
                    let d = self.register(scope, statement, o[0], width.is_64())?;
                    let op = if has("hi") { Int::MulHigh } else { Int::Mul };
                    (Class::Integer, Op::Int { op, width, d, a, b })
                }
            }
            "mad" | "madc" if width_of(last).is_some() => {
                arity!(4);
                known(&["lo", "hi", "wide", "cc"])?;
                let width = width_of(last).ok_or_else(none)?;
                let kind = Type::Int(width);
                let a = self.value(scope, statement, o[1], kind)?;
                let b = self.value(scope, statement, o[2], kind)?;
                let (take, give) = (words[0] == "madc", has("cc"));
                if has("wide") {
                    let wide = matches!(width, Width::S32 | Width::U32);
                    let d = self.register(scope, statement, o[0], wide)?;
                    let c_kind = if wide { Type::Int(Width::U64) } else { u32_type };
                    let c = self.value(scope, statement, o[3], c_kind)?;
                    (Class::Integer, Op::MulWide { width, d, a, b, c: Some(c) })
                } else {
                    let d = self.register(scope, statement, o[0], width.is_64())?;
                    let c = self.value(scope, statement, o[3], kind)?;
                    if take || give {
                        if width != Width::U32 {
                            return Err(none());
                        }
                        (Class::Integer, Op::MadCarry { high: has("hi"), d, a, b, c, take, give })
                    } else if has("hi") {
                        (Class::Integer, Op::MadHigh { width, d, a, b, c })
                    } else {
                        (Class::Integer, Op::Mad { width, d, a, b, c })
                    }
                }
            }
            "div" | "rem" | "min" | "max" if width_of(last).is_some() => {
                arity!(3);
                known(&[])?;
                let width = width_of(last).ok_or_else(none)?;
                let kind = Type::Int(width);
                let d = self.register(scope, statement, o[0], width.is_64())?;
                let a = self.value(scope, statement, o[1], kind)?;
                let b = self.value(scope, statement, o[2], kind)?;
                let op = match words[0] {
                    "div" => Int::Div,
                    "rem" => Int::Rem,
                    "min" => Int::Min,
                    _ => Int::Max,
                };
                (Class::Integer, Op::Int { op, width, d, a, b })
            }
            "and" | "or" | "xor" => {
                arity!(3);
                known(&[])?;
                if last == "pred" {
                    let (d, _) = self.predicate(scope, statement, o[0])?;
                    let (a, _) = self.predicate(scope, statement, o[1])?;
                    let (b, _) = self.predicate(scope, statement, o[2])?;
                    return Ok((
                        Class::Move,
                        Op::Predicate { op: bool_of(words[0]).ok_or_else(none)?, d, a, b },
                    ));
                }
                let width = width_of(last).ok_or_else(none)?;
                let d = self.register(scope, statement, o[0], width.is_64())?;
                let a = self.value(scope, statement, o[1], Type::Int(width))?;
                let b = self.value(scope, statement, o[2], Type::Int(width))?;
                let op = match words[0] {
                    "and" => Int::And,
                    "or" => Int::Or,
                    _ => Int::Xor,
                };
                (Class::Integer, Op::Int { op, width, d, a, b })
            }
            "shl" | "shr" => {
                arity!(3);
                known(&[])?;
                let width = width_of(last).ok_or_else(none)?;
                let d = self.register(scope, statement, o[0], width.is_64())?;
                let a = self.value(scope, statement, o[1], Type::Int(width))?;
                let b = self.r32(scope, statement, o[2], u32_type)?;
                let op = if words[0] == "shl" { Int::Shl } else { Int::Shr };
                (Class::Integer, Op::Int { op, width, d, a, b })
            }
            "not" | "neg" | "abs" | "clz" | "popc" | "brev" | "cnot"
                if last == "pred" || width_of(last).is_some() =>
            {
                arity!(2);
                known(&[])?;
                if last == "pred" {
                    let (d, _) = self.predicate(scope, statement, o[0])?;
                    let (a, _) = self.predicate(scope, statement, o[1])?;
                    return Ok((Class::Move, Op::PredicateMove { d, a, negated: true }));
                }
                let width = width_of(last).ok_or_else(none)?;
                let op = match words[0] {
                    "not" => IntUnary::Not,
                    "neg" => IntUnary::Neg,
                    "abs" => IntUnary::Abs,
                    "clz" => IntUnary::Clz,
                    "popc" => IntUnary::Popc,
                    "brev" => IntUnary::Brev,
                    _ => IntUnary::Cnot,
                };
                let counts = matches!(op, IntUnary::Clz | IntUnary::Popc);
                let d = self.register(scope, statement, o[0], width.is_64() && !counts)?;
                let a = self.value(scope, statement, o[1], Type::Int(width))?;
                (Class::Integer, Op::IntUnary { op, width, d, a })
            }
            "bfe" => {
                arity!(4);
                let width = width_of(last).ok_or_else(none)?;
                let d = self.register(scope, statement, o[0], width.is_64())?;
                let a = self.value(scope, statement, o[1], Type::Int(width))?;
                let b = self.r32(scope, statement, o[2], u32_type)?;
                let c = self.r32(scope, statement, o[3], u32_type)?;
                (Class::Integer, Op::Bfe { width, d, a, b, c })
            }
            "bfi" => {
                arity!(5);
                let width = width_of(last).ok_or_else(none)?;
                let kind = Type::Int(width);
                let d = self.register(scope, statement, o[0], width.is_64())?;
                let a = self.value(scope, statement, o[1], kind)?;
                let b = self.value(scope, statement, o[2], kind)?;
                let c = self.r32(scope, statement, o[3], u32_type)?;
                let e = self.r32(scope, statement, o[4], u32_type)?;
                (Class::Integer, Op::Bfi { wide: width.is_64(), d, a, b, c, e })
            }
            "bfind" => {
                arity!(2);
                let width = width_of(last).ok_or_else(none)?;
                let d = self.register(scope, statement, o[0], false)?;
                let a = self.value(scope, statement, o[1], Type::Int(width))?;
                (Class::Integer, Op::Bfind { width, shift: has("shiftamt"), d, a })
            }
            "prmt" => {
                arity!(4);
                let mode = match words.get(2).copied().unwrap_or("") {
                    "" => 0,
                    "f4e" => 1,
                    "b4e" => 2,
                    "rc8" => 3,
                    "ecl" => 4,
                    "ecr" => 5,
                    "rc16" => 6,
                    _ => return Err(none()),
                };
                let d = self.register(scope, statement, o[0], false)?;
                let [a, b, c] = self.three32(scope, statement, &o)?;
                (Class::Integer, Op::Permute { d, a, b, c, mode })
            }
            "lop3" => {
                arity!(5);
                if last != "b32" {
                    return Err(none());
                }
                let d = self.register(scope, statement, o[0], false)?;
                let [a, b, c] = self.three32(scope, statement, &o)?;
                let Operand::Number { bits, .. } = o[4] else { return Err(none()) };
                (Class::Integer, Op::Lop3 { d, a, b, c, table: *bits as u8 })
            }
            "shf" => {
                arity!(4);
                let d = self.register(scope, statement, o[0], false)?;
                let [a, b, c] = self.three32(scope, statement, &o)?;
                (Class::Integer, Op::Funnel { left: has("l"), clamp: has("clamp"), d, a, b, c })
            }
            "sad" => {
                arity!(4);
                let width = width_of(last).ok_or_else(none)?;
                if !matches!(width, Width::S32 | Width::U32) {
                    return Err(none());
                }
                let d = self.register(scope, statement, o[0], false)?;
                let [a, b, c] = self.three32(scope, statement, &o)?;
                (Class::Integer, Op::Sad { signed: width.is_signed(), d, a, b, c })
            }
            "dp4a" | "dp2a" => {
                arity!(4);
                let types = &words[words.len() - 2..];
                let signed = [types[0] == "s32", types[1] == "s32"];
                let d = self.register(scope, statement, o[0], false)?;
                let [a, b, c] = self.three32(scope, statement, &o)?;
                let elements = if words[0] == "dp4a" { 4 } else { 2 };
                (Class::Integer, Op::Dot { elements, high: has("hi"), signed, d, a, b, c })
            }
            "setp" => {
                let (compare, unsigned) = compare_of(words.get(1).copied().unwrap_or("")).ok_or_else(none)?;
                let mut kind = type_of(last).ok_or_else(none)?;
                if let (Type::Int(width), true) = (kind, unsigned) {
                    kind = Type::Int(match width {
                        Width::S16 => Width::U16,
                        Width::S32 => Width::U32,
                        Width::S64 => Width::U64,
                        same => same,
                    });
                }
                let combine = words.get(2).and_then(|word| bool_of(word));
                if o.len() != 3 + usize::from(combine.is_some()) {
                    return Err(none());
                }
                let (d, other) = match o[0] {
                    Operand::Pair(d, other) => (
                        self.predicate(scope, statement, d)?.0,
                        Some(self.predicate(scope, statement, other)?.0),
                    ),
                    single => (self.predicate(scope, statement, single)?.0, None),
                };
                let a = self.value(scope, statement, o[1], kind)?;
                let b = self.value(scope, statement, o[2], kind)?;
                let combine = match combine {
                    None => None,
                    Some(op) => {
                        let (p, negated) = self.predicate(scope, statement, o[3])?;
                        Some((op, p, negated))
                    }
                };
                (Class::Move, Op::SetPredicate { compare, kind, d, other, a, b, combine })
            }
            "set" => {
                arity!(3);
                let (compare, _) = compare_of(words.get(1).copied().unwrap_or("")).ok_or_else(none)?;
                let kind = type_of(last).ok_or_else(none)?;
                let to = words[words.len() - 2];
                if !matches!(to, "u32" | "s32" | "f32") {
                    return Err(none());
                }
                let d = self.register(scope, statement, o[0], false)?;
                let a = self.value(scope, statement, o[1], kind)?;
                let b = self.value(scope, statement, o[2], kind)?;
                (Class::Move, Op::Set { compare, kind, float: to == "f32", d, a, b })
            }
            "selp" => {
                arity!(4);
                let kind = type_of(last).ok_or_else(none)?;
                let d = self.register(scope, statement, o[0], is_64(kind))?;
                let a = self.value(scope, statement, o[1], kind)?;
                let b = self.value(scope, statement, o[2], kind)?;
                let (p, negated) = self.predicate(scope, statement, o[3])?;
                if is_64(kind) {
                    (Class::Move, Op::Select64 { d, a, b, p, negated })
                } else {
                    (Class::Move, Op::Select32 { d, a, b, p, negated })
                }
            }
            "cvt" => return self.convert(scope, statement, words),
            "add" | "sub" | "mul" | "div" | "min" | "max" | "copysign" => {
                arity!(3);
                known(&["rn", "rz", "rm", "rp", "ftz", "sat", "full", "approx", "NaN"])?;
                let nan = has("NaN");
                let op = match words[0] {
                    "add" => FloatBinary::Add,
                    "sub" => FloatBinary::Sub,
                    "mul" => FloatBinary::Mul,
                    "div" => FloatBinary::Div,
                    "min" if nan => FloatBinary::MinNan,
                    "max" if nan => FloatBinary::MaxNan,
                    "min" => FloatBinary::Min,
                    "max" => FloatBinary::Max,
                    _ => FloatBinary::Copysign,
                };
                match last {
                    "f32" => {
                        let d = self.register(scope, statement, o[0], false)?;
                        let a = self.r32(scope, statement, o[1], Type::F32)?;
                        let b = self.r32(scope, statement, o[2], Type::F32)?;
                        (Class::Float, Op::Float { op, mode, rounding: rounding(), d, a, b })
                    }
                    "f64" => {
                        if rounding() != Rounding::Nearest {
                            return Err(none());
                        }
                        let d = self.register(scope, statement, o[0], true)?;
                        let a = self.r64(scope, statement, o[1])?;
                        let b = self.r64(scope, statement, o[2])?;
                        (Class::Double, Op::Double { op, d, a, b })
                    }
                    "bf16" | "bf16x2" | "f16" | "f16x2" => {
                        let kind = if last.starts_with('b') { Type::Bf16 } else { Type::F16 };
                        let d = self.register(scope, statement, o[0], false)?;
                        let a = self.r32(scope, statement, o[1], Type::F16)?;
                        let b = self.r32(scope, statement, o[2], Type::F16)?;
                        (Class::Float, Op::Halves { op, kind, single: !last.ends_with("x2"), d, a, b })
                    }
                    _ => return Err(none()),
                }
            }
            "fma" | "mad" => {
                arity!(4);
                known(&["rn", "rz", "rm", "rp", "ftz", "sat", "relu"])?;
                if last != "f32" && rounding() != Rounding::Nearest {
                    return Err(none());
                }
                match last {
                    "f32" => {
                        let d = self.register(scope, statement, o[0], false)?;
                        let [a, b, c] = self.three(scope, statement, &o, Type::F32)?;
                        (Class::Float, Op::Fma { mode, rounding: rounding(), d, a, b, c })
                    }
                    "f64" => {
                        let d = self.register(scope, statement, o[0], true)?;
                        let [a, b, c] = self.three(scope, statement, &o, Type::F64)?;
                        (Class::Double, Op::DoubleFma { d, a, b, c })
                    }
                    "bf16" | "bf16x2" | "f16" | "f16x2" => {
                        let kind = if last.starts_with('b') { Type::Bf16 } else { Type::F16 };
                        let d = self.register(scope, statement, o[0], false)?;
                        let [a, b, c] = self.three(scope, statement, &o, Type::F16)?;
                        let single = !last.ends_with("x2");
                        (Class::Float, Op::HalvesFma { kind, single, relu: has("relu"), d, a, b, c })
                    }
                    _ => return Err(none()),
                }
            }
            "neg" | "abs" | "sqrt" | "rcp" | "rsqrt" | "ex2" | "lg2" | "sin" | "cos" | "tanh" => {
                arity!(2);
                known(&["rn", "ftz", "approx"])?;
                let op = match words[0] {
                    "neg" => FloatUnary::Neg,
                    "abs" => FloatUnary::Abs,
                    "sqrt" => FloatUnary::Sqrt,
                    "rcp" => FloatUnary::Rcp,
                    "rsqrt" => FloatUnary::Rsqrt,
                    "ex2" => FloatUnary::Ex2,
                    "lg2" => FloatUnary::Lg2,
                    "sin" => FloatUnary::Sin,
                    "cos" => FloatUnary::Cos,
                    _ => FloatUnary::Tanh,
                };
                let class = match op {
                    FloatUnary::Neg | FloatUnary::Abs => Class::Float,
                    _ => Class::Special,
                };
                match last {
                    "f32" => {
                        let d = self.register(scope, statement, o[0], false)?;
                        (
                            class,
                            Op::FloatUnary { op, mode, d, a: self.r32(scope, statement, o[1], Type::F32)? },
                        )
                    }
                    "f64" => {
                        let d = self.register(scope, statement, o[0], true)?;
                        (Class::Double, Op::DoubleUnary { op, d, a: self.r64(scope, statement, o[1])? })
                    }
                    "bf16" | "bf16x2" | "f16" | "f16x2" => {
                        let kind = if last.starts_with('b') { Type::Bf16 } else { Type::F16 };
                        let d = self.register(scope, statement, o[0], false)?;
                        let a = self.r32(scope, statement, o[1], Type::F16)?;
                        (class, Op::HalvesUnary { op, kind, single: !last.ends_with("x2"), d, a })
                    }
                    _ => return Err(none()),
                }
            }
            "testp" => {
                arity!(2);
                let what = match words.get(1).copied().unwrap_or("") {
                    "finite" => "finite",
                    "infinite" => "infinite",
                    "number" => "number",
                    "notanumber" => "notanumber",
                    "normal" => "normal",
                    "subnormal" => "subnormal",
                    _ => return Err(none()),
                };
                let kind = type_of(last).ok_or_else(none)?;
                let (d, _) = self.predicate(scope, statement, o[0])?;
                let a = self.value(scope, statement, o[1], kind)?;
                (Class::Float, Op::TestNumber { what, wide: is_64(kind), d, a })
            }
            "ld" | "ldu" | "st" => return self.load_store(scope, statement, words),
            "atom" | "red" => return self.atomic(scope, statement, words),
            "shfl" => {
                let mode = match words.iter().find(|w| matches!(**w, "up" | "down" | "bfly" | "idx")) {
                    Some(&"up") => Shuffle::Up,
                    Some(&"down") => Shuffle::Down,
                    Some(&"bfly") => Shuffle::Butterfly,
                    Some(_) => Shuffle::Index,
                    None => return Err(none()),
                };
                arity!(4 + usize::from(has("sync")));
                let (d, p) = match o[0] {
                    Operand::Pair(d, p) => {
                        (self.result32(scope, statement, d)?, Some(self.predicate(scope, statement, p)?.0))
                    }
                    single => (self.result32(scope, statement, single)?, None),
                };
                let [a, b, c] = self.three32(scope, statement, &o)?;
                let members = match o.get(4) {
                    Some(members) => self.r32(scope, statement, members, u32_type)?,
                    None => self.constant32(u32::MAX),
                };
                (Class::Exchange, Op::Shuffle { mode, d, p, a, b, c, members })
            }
            "vote" => {
                arity!(2 + usize::from(has("sync")));
                let mode = if has("all") {
                    Vote::All
                } else if has("any") {
                    Vote::Any
                } else if has("uni") {
                    Vote::Uniform
                } else if has("ballot") {
                    Vote::Ballot
                } else {
                    return Err(none());
                };
                let d = match mode {
                    Vote::Ballot => self.register(scope, statement, o[0], false)?,
                    _ => self.predicate(scope, statement, o[0])?.0,
                };
                let (a, negated) = self.predicate(scope, statement, o[1])?;
                let members = match o.get(2) {
                    Some(members) => self.r32(scope, statement, members, u32_type)?,
                    None => self.constant32(u32::MAX),
                };
                (Class::Exchange, Op::Vote { mode, d, a, negated, members })
            }
            "match" => {
                arity!(3);
                let (d, p) = match o[0] {
                    Operand::Pair(d, p) => {
                        (self.result32(scope, statement, d)?, Some(self.predicate(scope, statement, p)?.0))
                    }
                    single => (self.result32(scope, statement, single)?, None),
                };
                let wide = last == "b64";
                let a = self.value(scope, statement, o[1], type_of(last).ok_or_else(none)?)?;
                let members = self.r32(scope, statement, o[2], u32_type)?;
                (Class::Exchange, Op::Match { all: has("all"), wide, d, p, a, members })
            }
            "activemask" => {
                arity!(1);
                (Class::Exchange, Op::ActiveMask { d: self.register(scope, statement, o[0], false)? })
            }
            "elect" => {
                arity!(2);
                let Operand::Pair(d, p) = o[0] else { return Err(none()) };
                let d = Some(self.result32(scope, statement, d)?);
                let (p, _) = self.predicate(scope, statement, p)?;
                (Class::Exchange, Op::Elect { d, p, members: self.r32(scope, statement, o[1], u32_type)? })
            }
            "redux" => {
                arity!(3);
                let op = match words.get(2).copied().unwrap_or("") {
                    "add" => AtomicOp::Add,
                    "min" => AtomicOp::Min,
                    "max" => AtomicOp::Max,
                    "and" => AtomicOp::And,
                    "or" => AtomicOp::Or,
                    "xor" => AtomicOp::Xor,
                    _ => return Err(none()),
                };
                let d = self.register(scope, statement, o[0], false)?;
                let a = self.r32(scope, statement, o[1], u32_type)?;
                let members = self.r32(scope, statement, o[2], u32_type)?;
                (Class::Exchange, Op::Reduce { op, signed: last == "s32", d, a, members })
            }
            "bar" | "barrier" => return self.barrier(scope, statement, words),
            "membar" | "fence" => (Class::Barrier, Op::Fence),
            "cp" => return self.async_copy(scope, statement, words),
            "ldmatrix" | "stmatrix" => {
                arity!(2);
                known(&["sync", "aligned", "m8n8", "x1", "x2", "x4", "trans", "shared", "shared::cta"])?;
                let count = if has("x4") {
                    4
                } else if has("x2") {
                    2
                } else {
                    1
                };
                let (list, place) = if words[0] == "ldmatrix" { (o[0], o[1]) } else { (o[1], o[0]) };
                let Operand::Vector(list) = list else { return Err(none()) };
                if list.len() != count {
                    return Err(none());
                }
                let mut registers = [0; 4];
                for (slot, operand) in registers.iter_mut().zip(list) {
                    *slot = self.register(scope, statement, operand, false)?;
                }
                let (address, _) = self.address(scope, statement, place)?;
                let (count, transposed) = (count as u8, has("trans"));
                if words[0] == "ldmatrix" {
                    (Class::Ldmatrix, Op::LoadMatrix { count, transposed, d: registers, address })
                } else {
                    (Class::Ldmatrix, Op::StoreMatrix { count, transposed, a: registers, address })
                }
            }
            "mma" => return self.mma(scope, statement, words),
            "trap" | "brkpt" => (Class::Control, Op::Trap),
            "nanosleep" | "pragma" | "discard" | "prefetch" | "prefetchu" | "applypriority"
            | "griddepcontrol" | "setmaxnreg" => (Class::Control, Op::Nothing),
            _ => return Err(none()),
        })
    }

    fn three(
        &mut self,
        scope: &Scope<'_>,
        statement: &Statement,
        o: &[&Operand],
        kind: Type,
    ) -> Result<[u32; 3]> {
        Ok([
            self.value(scope, statement, o[1], kind)?,
            self.value(scope, statement, o[2], kind)?,
            self.value(scope, statement, o[3], kind)?,
        ])
    }

    fn three32(&mut self, scope: &Scope<'_>, statement: &Statement, o: &[&Operand]) -> Result<[u32; 3]> {
        self.three(scope, statement, o, Type::Int(Width::U32))
    }

    fn mov(&mut self, scope: &Scope<'_>, statement: &Statement, kind: &str) -> Result<(Class, Op)> {
        let (to, from) = (&statement.operands[0], &statement.operands[1]);
        let none = || unsupported(statement);
        if kind == "pred" {
            let (d, _) = self.predicate(scope, statement, to)?;
            let (a, negated) = self.predicate(scope, statement, from)?;
            return Ok((Class::Move, Op::PredicateMove { d, a, negated }));
        }
        if let Operand::Name(name) = from
            && matches!(
                name.as_str(),
                "%clock" | "%clock_hi" | "%clock64" | "%globaltimer" | "%globaltimer_lo"
            )
        {
            let wide = matches!(kind, "u64" | "b64");
            return Ok((Class::Move, Op::Clock { d: self.register(scope, statement, to, wide)?, wide }));
        }
        if let Operand::Name(name) = from
            && matches!(self.meaning(scope, name), Some(Meaning::DynamicShared))
        {
            // Dynamic shared memory begins behind everything static, which is known when all is decoded; a special register
            // filled at the launch stands for it.
            let wide = matches!(kind, "u64" | "b64");
            let d = self.register(scope, statement, to, wide)?;
            let a = self.special(Special::DynamicStart, wide);
            return Ok((Class::Move, if wide { Op::Move64 { d, a } } else { Op::Move32 { d, a } }));
        }
        let bits = Type::Int(Width::U32);
        match (type_bytes(kind), to, from) {
            (Some(8), Operand::Vector(list), _) => {
                let [low, high] = &list[..] else { return Err(none()) };
                let mut half = |operand: &Operand| match operand {
                    Operand::Name(name) if name == "_" => Ok(None),
                    _ => self.register(scope, statement, operand, false).map(Some),
                };
                let (low, high) = (half(low)?, half(high)?);
                Ok((Class::Move, Op::Unpack { low, high, a: self.r64(scope, statement, from)? }))
            }
            (Some(8), _, Operand::Vector(list)) => {
                let [low, high] = &list[..] else { return Err(none()) };
                let low = self.r32(scope, statement, low, bits)?;
                let high = self.r32(scope, statement, high, bits)?;
                Ok((Class::Move, Op::Pack { d: self.register(scope, statement, to, true)?, low, high }))
            }
            (Some(4), Operand::Vector(list), _) => {
                let [low, high] = &list[..] else { return Err(none()) };
                let mut half = |operand: &Operand| match operand {
                    Operand::Name(name) if name == "_" => Ok(None),
                    _ => self.register(scope, statement, operand, false).map(Some),
                };
                let (low, high) = (half(low)?, half(high)?);
                Ok((Class::Move, Op::Unpack16 { low, high, a: self.r32(scope, statement, from, bits)? }))
            }
            (Some(4), _, Operand::Vector(list)) => {
                let [low, high] = &list[..] else { return Err(none()) };
                let low = self.r32(scope, statement, low, Type::Int(Width::U16))?;
                let high = self.r32(scope, statement, high, Type::Int(Width::U16))?;
                Ok((Class::Move, Op::Pack16 { d: self.register(scope, statement, to, false)?, low, high }))
            }
            (Some(8), _, _) => {
                let d = self.register(scope, statement, to, true)?;
                Ok((Class::Move, Op::Move64 { d, a: self.r64(scope, statement, from)? }))
            }
            (Some(2 | 4), _, _) => {
                let d = self.register(scope, statement, to, false)?;
                let kind = type_of(kind).ok_or_else(none)?;
                Ok((Class::Move, Op::Move32 { d, a: self.r32(scope, statement, from, kind)? }))
            }
            _ => Err(none()),
        }
    }

    fn convert(&mut self, scope: &Scope<'_>, statement: &Statement, words: &[&str]) -> Result<(Class, Op)> {
        let none = || unsupported(statement);
        let has = |word: &str| words[1..].contains(&word);
        let [.., to, from] = words else { return Err(none()) };
        let mode = Mode { ftz: has("ftz"), sat: has("sat") };
        let modifiers = &words[1..words.len() - 2];
        let allowed =
            ["rn", "rz", "rm", "rp", "rni", "rzi", "rmi", "rpi", "ftz", "sat", "relu", "rna", "satfinite"];
        if !modifiers.iter().all(|word| allowed.contains(word)) || has("rna") || has("satfinite") {
            return Err(none());
        }
        let integral = has("rni") || has("rzi") || has("rmi") || has("rpi");
        let rounding = if has("rz") || has("rzi") {
            Rounding::Zero
        } else if has("rm") || has("rmi") {
            Rounding::Down
        } else if has("rp") || has("rpi") {
            Rounding::Up
        } else {
            Rounding::Nearest
        };
        let o = &statement.operands;
        if let ("bf16x2" | "f16x2", "f32", [d, high, low]) = (*to, *from, &o[..]) {
            let kind = if to.starts_with('b') { Type::Bf16 } else { Type::F16 };
            let d = self.register(scope, statement, d, false)?;
            let high = self.r32(scope, statement, high, Type::F32)?;
            let low = self.r32(scope, statement, low, Type::F32)?;
            let relu = has("relu");
            return Ok((Class::Conversion, Op::PackHalves { to: kind, rounding, relu, d, high, low }));
        }
        let [d, a] = &o[..] else { return Err(none()) };
        let (to, from) = (type_of(to).ok_or_else(none)?, type_of(from).ok_or_else(none)?);
        if has("relu") {
            return Err(none());
        }
        let d_wide = match d {
            // A conversion to a narrow integer may write a wider register.
            Operand::Name(name) => {
                matches!(self.meaning(scope, name), Some(Meaning::Register { bytes: 8, .. }))
            }
            _ => return Err(none()),
        };
        if d_wide != is_64(to) {
            return Err(none());
        }
        let d = self.register(scope, statement, d, d_wide)?;
        let a = match (a, is_64(from)) {
            (Operand::Name(name), false)
                if matches!(self.meaning(scope, name), Some(Meaning::Register { bytes: 8, .. })) =>
            {
                return Err(none());
            }
            _ => self.value(scope, statement, a, from)?,
        };
        Ok((Class::Conversion, Op::Convert { from, to, rounding, integral, mode, d, a }))
    }

    fn load_store(
        &mut self,
        scope: &Scope<'_>,
        statement: &Statement,
        words: &[&str],
    ) -> Result<(Class, Op)> {
        let none = || unsupported(statement);
        let o = &statement.operands;
        if o.len() != 2 {
            return Err(none());
        }
        let mut space = Space::Generic;
        let (mut count, mut strong) = (1u8, false);
        let last = *words.last().ok_or_else(none)?;
        for word in &words[1..words.len() - 1] {
            match *word {
                "global" | "const" => space = Space::Global,
                "shared" | "shared::cta" => space = Space::Shared,
                "local" => space = Space::Local,
                "param" | "param::entry" | "param::func" => space = Space::Param,
                "v2" => count = 2,
                "v4" => count = 4,
                "volatile" | "relaxed" | "acquire" | "release" => strong = true,
                "nc" | "ca" | "cg" | "cs" | "lu" | "cv" | "wb" | "wt" | "weak" | "gpu" | "cta" | "sys"
                | "uni" => {}
                word if word.starts_with("L1::") || word.starts_with("L2::") => {}
                _ => return Err(none()),
            }
        }
        let bytes = type_bytes(last).ok_or_else(none)?;
        if bytes > 8 {
            return Err(none());
        }
        let extend = if last.starts_with('s') { Extend::Sign } else { Extend::Zero };
        let load = words[0] != "st";
        let (value, place) = if load { (&o[0], &o[1]) } else { (&o[1], &o[0]) };
        let list: Vec<&Operand> = match value {
            Operand::Vector(list) => list.iter().collect(),
            single => vec![single],
        };
        if list.len() != usize::from(count) || list.len() > 4 {
            return Err(none());
        }
        // Narrow values may be loaded into and stored from wider registers.
        let wide = match list[0] {
            Operand::Name(name) => match self.meaning(scope, name) {
                Some(Meaning::Register { bytes, .. }) => bytes == 8,
                _ => bytes == 8,
            },
            _ => bytes == 8,
        };
        let mut registers = [0; 4];
        for (slot, operand) in registers.iter_mut().zip(&list) {
            *slot = if load {
                match operand {
                    Operand::Name(name) if name == "_" && !wide => {
                        self.result32(scope, statement, operand)?
                    }
                    _ => self.register(scope, statement, operand, wide)?,
                }
            } else if wide {
                self.r64(scope, statement, operand)?
            } else {
                self.r32(scope, statement, operand, type_of(last).unwrap_or(Type::Int(Width::U32)))?
            };
        }
        let (address, place) = self.address(scope, statement, place)?;
        // Parameters of an expanded call lie in local memory.
        let space = match (space, place) {
            (Space::Param, Some(Space::Local)) => Space::Local,
            (Space::Param | Space::Generic, Some(Space::Param)) => Space::Param,
            (space, _) => space,
        };
        if space == Space::Shared && !load || space == Space::Generic && !load {
            self.granule = self.granule.min(bytes);
        }
        let access = Access { space, address, bytes: bytes as u8, count, registers, wide, extend, strong };
        let class = match (space, load) {
            (Space::Shared, true) => Class::SharedLoad,
            (Space::Shared, false) => Class::SharedStore,
            (Space::Local, _) => Class::Local,
            (Space::Param, _) => Class::Parameter,
            (_, true) => Class::GlobalLoad,
            (_, false) => Class::GlobalStore,
        };
        Ok((class, if load { Op::Load(access) } else { Op::Store(access) }))
    }

    fn atomic(&mut self, scope: &Scope<'_>, statement: &Statement, words: &[&str]) -> Result<(Class, Op)> {
        let none = || unsupported(statement);
        let mut space = Space::Generic;
        let (mut op, mut fences) = (None, false);
        let last = *words.last().ok_or_else(none)?;
        for word in &words[1..words.len() - 1] {
            match *word {
                "global" => space = Space::Global,
                "shared" | "shared::cta" => space = Space::Shared,
                "acquire" | "release" | "acq_rel" => fences = true,
                "relaxed" | "gpu" | "cta" | "sys" => {}
                "add" => op = Some(AtomicOp::Add),
                "min" => op = Some(AtomicOp::Min),
                "max" => op = Some(AtomicOp::Max),
                "and" => op = Some(AtomicOp::And),
                "or" => op = Some(AtomicOp::Or),
                "xor" => op = Some(AtomicOp::Xor),
                "exch" => op = Some(AtomicOp::Exchange),
                "cas" => op = Some(AtomicOp::CompareAndSwap),
                "inc" => op = Some(AtomicOp::Increment),
                "dec" => op = Some(AtomicOp::Decrement),
                _ => return Err(none()),
            }
        }
        let op = op.ok_or_else(none)?;
        let kind = type_of(last).ok_or_else(none)?;
        if !matches!(
            kind,
            Type::Int(Width::S32 | Width::U32 | Width::S64 | Width::U64) | Type::F32 | Type::F64
        ) {
            return Err(none());
        }
        let wide = is_64(kind);
        let o: Vec<&Operand> = statement.operands.iter().collect();
        let returns = words[0] == "atom";
        let expected = 2 + usize::from(returns) + usize::from(op == AtomicOp::CompareAndSwap);
        if o.len() != expected {
            return Err(none());
        }
        let d = match (returns, o[0]) {
            (false, _) => None,
            (true, Operand::Name(name)) if name == "_" => None,
            (true, operand) => Some(self.register(scope, statement, operand, wide)?),
        };
        let rest = &o[usize::from(returns)..];
        let (address, _) = self.address(scope, statement, rest[0])?;
        let a = self.value(scope, statement, rest[1], kind)?;
        let b = match rest.get(2) {
            Some(operand) => self.value(scope, statement, operand, kind)?,
            None => a,
        };
        Ok((Class::Atomic, Op::Atomic { op, kind, space, address, d, a, b, wide, fences }))
    }

    fn barrier(&mut self, scope: &Scope<'_>, statement: &Statement, words: &[&str]) -> Result<(Class, Op)> {
        let none = || unsupported(statement);
        let o: Vec<&Operand> = statement.operands.iter().collect();
        let bits = Type::Int(Width::U32);
        let has = |word: &str| words[1..].contains(&word);
        if has("warp") {
            let [members] = o[..] else { return Err(none()) };
            return Ok((
                Class::Barrier,
                Op::WarpBarrier { members: self.r32(scope, statement, members, bits)? },
            ));
        }
        if has("cluster") {
            return Err(none());
        }
        let (mut d, mut a, mut negated) = (0, 0, false);
        let (kind, numbers): (BarrierKind, Vec<&Operand>) = if has("red") {
            let (kind, count) = if has("popc") {
                (BarrierKind::Count, true)
            } else if has("and") {
                (BarrierKind::All, false)
            } else if has("or") {
                (BarrierKind::Any, false)
            } else {
                return Err(none());
            };
            let [result, .., predicate] = o[..] else { return Err(none()) };
            d = if count {
                self.register(scope, statement, result, false)?
            } else {
                self.predicate(scope, statement, result)?.0
            };
            (a, negated) = self.predicate(scope, statement, predicate)?;
            (kind, o[1..o.len() - 1].to_vec())
        } else if has("arrive") {
            (BarrierKind::Arrive, o)
        } else if has("sync") {
            (BarrierKind::Sync, o)
        } else {
            return Err(none());
        };
        let (id, count) = match numbers[..] {
            [id] => (id, None),
            [id, count] => (id, Some(self.r32(scope, statement, count, bits)?)),
            _ => return Err(none()),
        };
        let id = self.r32(scope, statement, id, bits)?;
        Ok((Class::Barrier, Op::Barrier { kind, id, count, d, a, negated }))
    }

    fn async_copy(
        &mut self,
        scope: &Scope<'_>,
        statement: &Statement,
        words: &[&str],
    ) -> Result<(Class, Op)> {
        let none = || unsupported(statement);
        let o: Vec<&Operand> = statement.operands.iter().collect();
        if words.get(1) != Some(&"async") {
            return Err(none());
        }
        let number = |operand: &Operand| match operand {
            Operand::Number { bits, float: Float::No } => Ok(*bits),
            _ => Err(none()),
        };
        match words.get(2).copied() {
            Some("commit_group") => Ok((Class::AsyncCopy, Op::AsyncCommit)),
            Some("wait_group") => {
                let [count] = o[..] else { return Err(none()) };
                Ok((Class::AsyncCopy, Op::AsyncWait { pending: number(count)? as u32 }))
            }
            Some("wait_all") => Ok((Class::AsyncCopy, Op::AsyncWait { pending: 0 })),
            Some("ca" | "cg") => {
                let known = |word: &&str| {
                    matches!(*word, "shared" | "shared::cta" | "global") || word.starts_with("L2::")
                };
                if !words[3..].iter().all(|word| known(&word)) || !(3..=4).contains(&o.len()) {
                    return Err(none());
                }
                let (to, _) = self.address(scope, statement, o[0])?;
                let (from, _) = self.address(scope, statement, o[1])?;
                let bytes = number(o[2])?;
                if !matches!(bytes, 4 | 8 | 16) {
                    return Err(none());
                }
                let given = match o.get(3) {
                    None => None,
                    Some(Operand::Name(name))
                        if matches!(self.meaning(scope, name), Some(Meaning::Predicate(_))) =>
                    {
                        return Err(none());
                    }
                    Some(operand) => Some(self.r32(scope, statement, operand, Type::Int(Width::U32))?),
                };
                Ok((Class::AsyncCopy, Op::AsyncCopy { to, from, bytes: bytes as u8, given }))
            }
            _ => Err(none()),
        }
    }

    fn mma(&mut self, scope: &Scope<'_>, statement: &Statement, words: &[&str]) -> Result<(Class, Op)> {
        let none = || unsupported(statement);
        let tail: Vec<&str> = words.iter().rev().take(4).rev().copied().collect();
        let has = |word: &str| words[1..].contains(&word);
        if !has("row") || !has("col") {
            return Err(none());
        }
        let (kind, half_sums) = match tail[..] {
            ["f32", "bf16", "bf16", "f32"] => (MmaType::Bf16, false),
            ["f32", "f16", "f16", "f32"] => (MmaType::F16, false),
            ["f16", "f16", "f16", "f16"] => (MmaType::F16, true),
            ["f32", "tf32", "tf32", "f32"] => (MmaType::Tf32, false),
            _ => return Err(none()),
        };
        let k = match (words.iter().find(|word| word.starts_with("m16n8k")), kind) {
            (Some(&"m16n8k16"), MmaType::F16 | MmaType::Bf16) => 16,
            (Some(&"m16n8k8"), _) => 8,
            (Some(&"m16n8k4"), MmaType::Tf32) => 4,
            _ => return Err(none()),
        };
        // Registers of A: one holds two halves or one tf32 of eight columns.
        let a_len = match (kind, k) {
            (MmaType::Tf32, 8) | (_, 16) => 4,
            _ => 2,
        };
        let d_len = if half_sums { 2 } else { 4 };
        let o = &statement.operands;
        let [Operand::Vector(d), Operand::Vector(a), Operand::Vector(b), Operand::Vector(c)] = &o[..] else {
            return Err(none());
        };
        if d.len() != d_len || a.len() != a_len || b.len() != a_len / 2 || c.len() != d_len {
            return Err(none());
        }
        let mut fill = |list: &[Operand], write: bool| -> Result<[u32; 4]> {
            let mut registers = [0; 4];
            for (slot, operand) in registers.iter_mut().zip(list) {
                *slot = if write {
                    self.register(scope, statement, operand, false)?
                } else {
                    self.r32(scope, statement, operand, Type::F32)?
                };
            }
            Ok(registers)
        };
        let (d, a, b, c) = (fill(d, true)?, fill(a, false)?, fill(b, false)?, fill(c, false)?);
        Ok((Class::Mma, Op::Mma { kind, k, half_sums, d, a, b: [b[0], b[1]], c }))
    }
}
