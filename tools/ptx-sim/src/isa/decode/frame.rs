//! A kernel under construction, and the names in force in the function being copied into it.

use std::collections::HashMap;

use super::{MOST_STEPS, Names};
use crate::error::{Error, Result};
use crate::isa::Class;
use crate::isa::parse::{self, Base, Body, Module, Operand, Prototype};
use crate::isa::{
    Address, Constant, Guard, LOCAL_WINDOW, Op, PARAM_WINDOW, Reg, RegisterFile, SHARED_GAP, SHARED_WINDOW,
    SharedLabel, Space, Special, Step, Type,
};

/// Shared variables of a kernel that lie apart from each other; more of them are neighbours.
const MOST_APART: usize = 64;

/// One copy of a function's body.
pub struct Frame<'a, 't> {
    pub body: &'a Body<'t>,
    /// Where parameters and results lie: among the kernel's parameters, or in local memory.
    params: HashMap<&'t str, u32>,
    pub entry: bool,
    registers: HashMap<(usize, &'t str), Reg>,
    variables: HashMap<(usize, &'t str), u32>,
    /// Branches to resolve: step, place among a table's targets, scope, label.
    pub branches: Vec<(usize, usize, usize, &'t str)>,
    /// Branches to the end: returns of a called function.
    pub returns: Vec<usize>,
}

impl<'a, 't> Frame<'a, 't> {
    pub fn new(body: &'a Body<'t>, params: HashMap<&'t str, u32>, entry: bool) -> Self {
        Self {
            body,
            params,
            entry,
            registers: HashMap::new(),
            variables: HashMap::new(),
            branches: Vec::new(),
            returns: Vec::new(),
        }
    }
}

/// What a name stands for.
#[derive(Clone, Copy, Debug)]
pub enum Symbol {
    Register(Reg),
    Shared(u32),
    DynamicShared,
    Local(u32),
    Frame(u32),
    Param(u32),
    Variable(usize),
    /// At this address.
    Function(u64),
}

/// What the builder makes of a kernel's body.
pub struct Assembled {
    pub steps: Vec<Step>,
    /// Rows in each register file.
    pub rows: [u32; 3],
    pub constants: Vec<(Reg, Constant)>,
    pub shared_bytes: u32,
    pub shared_gaps: u32,
    pub local_bytes: u32,
    pub shared_labels: Vec<SharedLabel>,
}

/// A kernel under construction.
pub struct Builder<'a, 't> {
    module: &'a Module<'t>,
    pub names: &'a Names<'a, 't>,
    pub steps: Vec<Step>,
    rows: [u32; 3],
    constants: HashMap<(RegisterFile, Constant), u32>,
    shared: HashMap<*const parse::Variable<'t>, u32>,
    shared_labels: Vec<SharedLabel>,
    shared_bytes: u64,
    /// What the gaps between shared variables add to their places.
    shared_gaps: u64,
    local_bytes: u64,
    pub calls: Vec<&'t str>,
    pub frame: Frame<'a, 't>,
    /// Of the statement being decoded.
    pub guard: Guard,
    pub class: Class,
    pub at: (u32, Option<(u32, u32)>),
}

impl<'a, 't> Builder<'a, 't> {
    pub fn new(module: &'a Module<'t>, names: &'a Names<'a, 't>) -> Self {
        static EMPTY: Body<'static> = Body { scopes: Vec::new(), statements: Vec::new(), registers: 0 };
        Self {
            module,
            names,
            steps: Vec::new(),
            rows: [0; 3],
            constants: HashMap::new(),
            shared: HashMap::new(),
            shared_labels: Vec::new(),
            shared_bytes: 0,
            shared_gaps: 0,
            local_bytes: 0,
            calls: Vec::new(),
            frame: Frame::new(&EMPTY, HashMap::new(), true),
            guard: Guard::ALWAYS,
            class: Class::Other,
            at: (0, None),
        }
    }

    /// What was built.
    ///
    /// # Errors
    /// More shared memory than any kernel has.
    pub fn finish(self) -> Result<Assembled> {
        if self.shared_bytes > 1 << 20 {
            return Err(Error::new(format!("{} bytes of static shared memory", self.shared_bytes)));
        }
        let mut constants: Vec<_> = self
            .constants
            .into_iter()
            .map(|((file, constant), index)| (Reg { file, index, bits: 0 }, constant))
            .collect();
        constants.sort_by_key(|(reg, _)| (reg.file as u8, reg.index));
        let mut shared_labels = self.shared_labels;
        shared_labels.sort_by_key(|label| label.offset);
        Ok(Assembled {
            steps: self.steps,
            rows: self.rows,
            constants,
            shared_bytes: self.shared_bytes as u32,
            shared_gaps: self.shared_gaps as u32,
            local_bytes: self.local_bytes.next_multiple_of(16) as u32,
            shared_labels,
        })
    }

    /// Copies a function's body in; afterwards the frame before it is in force again.
    pub fn function(&mut self, frame: Frame<'a, 't>) -> Result<()> {
        let outer = std::mem::replace(&mut self.frame, frame);
        let body = self.frame.body;
        if self.frame.entry {
            // All shared memory an entry declares is its own, used or not.
            for scope in &body.scopes {
                let mut declared: Vec<_> =
                    scope.variables.values().filter(|v| v.space == parse::Space::Shared).collect();
                declared.sort_by_key(|variable| (variable.line, variable.name));
                for variable in declared {
                    self.shared_place(variable)?;
                }
            }
        }
        let mut starts = Vec::with_capacity(body.statements.len() + 1);
        for statement in &body.statements {
            starts.push(self.steps.len() as u32);
            self.at = (statement.line, statement.source);
            self.statement(statement)
                .map_err(|error| Error::at(statement.line, format!("{}: {error}", statement.opcode)))?;
            if self.steps.len() > MOST_STEPS {
                return Err(Error::at(statement.line, "too many instructions after copying calls in"));
            }
        }
        let end = self.steps.len() as u32;
        starts.push(end);
        for step in std::mem::take(&mut self.frame.returns) {
            if let Op::Branch(target, _) = &mut self.steps[step].op {
                *target = end;
            }
        }
        for (step, place, scope, label) in std::mem::take(&mut self.frame.branches) {
            let target = self.label(scope, label).and_then(|statement| starts.get(statement)).copied();
            let line = self.steps[step].line;
            let target = target.ok_or_else(|| Error::at(line, format!("no label {label}")))?;
            match &mut self.steps[step].op {
                Op::Branch(to, _) => *to = target,
                Op::BranchTable(table) => table.targets[place] = target,
                _ => {}
            }
        }
        self.frame = outer;
        Ok(())
    }

    fn label(&self, scope: usize, name: &str) -> Option<usize> {
        self.up(scope).find_map(|scope| self.frame.body.scopes[scope].labels.get(name)).copied()
    }

    /// A table of branch targets and the scope its labels are looked up in.
    pub fn table(&self, scope: usize, name: &str) -> Option<(&'a Vec<&'t str>, usize)> {
        let body = self.frame.body;
        self.up(scope).find_map(|scope| body.scopes[scope].tables.get(name).map(|table| (table, scope)))
    }

    /// The signature that a call through a pointer names.
    pub fn prototype(&self, scope: usize, name: &str) -> Option<&'a Prototype> {
        let body = self.frame.body;
        self.up(scope).find_map(|scope| body.scopes[scope].prototypes.get(name))
    }

    /// A scope and those around it.
    pub fn up(&self, scope: usize) -> impl Iterator<Item = usize> + use<'a, 't> {
        let body = self.frame.body;
        std::iter::successors(Some(scope), |scope| body.scopes[*scope].parent)
    }

    /// Appends a step.
    pub fn emit(&mut self, op: Op) {
        let (line, source) = self.at;
        self.steps.push(Step { op, guard: self.guard, class: self.class, line, source });
    }

    /// Appends the return of a body that runs off its end.
    pub fn emit_end(&mut self, line: u32) {
        let source = self.steps.last().and_then(|step| step.source);
        self.steps.push(Step { op: Op::Exit, guard: Guard::ALWAYS, class: Class::Control, line, source });
    }

    fn row(&mut self, file: RegisterFile) -> u32 {
        let rows = &mut self.rows[file as usize];
        *rows += 1;
        *rows - 1
    }

    /// A register nothing else uses.
    pub fn scratch(&mut self, file: RegisterFile) -> Reg {
        Reg { file, index: self.row(file), bits: file.bits() }
    }

    /// A register that holds a constant.
    pub fn constant(&mut self, file: RegisterFile, constant: Constant) -> Reg {
        let index = match self.constants.get(&(file, constant)) {
            Some(index) => *index,
            None => {
                let index = self.row(file);
                self.constants.insert((file, constant), index);
                index
            }
        };
        Reg { file, index, bits: file.bits() }
    }

    fn shared_place(&mut self, variable: &'a parse::Variable<'t>) -> Result<u32> {
        if let Some(place) = self.shared.get(&std::ptr::from_ref(variable)) {
            return Ok(*place);
        }
        let real = self.shared_bytes.next_multiple_of(variable.align);
        self.shared_bytes = real + variable.bytes;
        if (1..MOST_APART).contains(&self.shared_labels.len()) {
            self.shared_gaps += u64::from(SHARED_GAP);
        }
        self.shared_gaps = self.shared_gaps.next_multiple_of(variable.align);
        let place = (real + self.shared_gaps) as u32;
        self.shared.insert(variable, place);
        let name = plain_name(variable.name).to_string();
        self.shared_labels.push(SharedLabel { offset: place, bytes: variable.bytes as u32, name });
        Ok(place)
    }

    /// Local memory of a thread, for a variable or a call's parameters.
    pub fn local_place(&mut self, bytes: u64, align: u64) -> Result<u32> {
        let place = self.local_bytes.next_multiple_of(align);
        self.local_bytes = place + bytes;
        if self.local_bytes > 512 << 10 {
            return Err(Error::new("more than 512 KB of local memory"));
        }
        Ok(place as u32)
    }

    /// What a name stands for in a scope; special registers excepted.
    pub fn symbol(&mut self, scope: usize, name: &'t str) -> Result<Symbol> {
        let body = self.frame.body;
        for scope in self.up(scope) {
            if let Some(reg) = self.frame.registers.get(&(scope, name)) {
                return Ok(Symbol::Register(*reg));
            }
            let names = &body.scopes[scope];
            if let Some(type_name) = names.type_of(name) {
                return self.new_register(scope, name, type_name);
            }
            if let Some(variable) = names.variables.get(name) {
                return self.inner_variable(scope, name, variable);
            }
        }
        if let Some(place) = self.frame.params.get(name) {
            return Ok(if self.frame.entry { Symbol::Param(*place) } else { Symbol::Frame(*place) });
        }
        let Some(index) = self.names.variables.get(name) else {
            return match self.names.function_address(name) {
                Some(address) => Ok(Symbol::Function(address)),
                None => Err(Error::new(format!("unknown name {name}"))),
            };
        };
        let variable = &self.module.variables[*index];
        Ok(match variable.space {
            parse::Space::Shared if variable.dynamic => Symbol::DynamicShared,
            parse::Space::Shared => Symbol::Shared(self.shared_place(variable)?),
            _ => Symbol::Variable(*index),
        })
    }

    fn new_register(&mut self, scope: usize, name: &'t str, type_name: &str) -> Result<Symbol> {
        let (file, bits) = match parse::type_bytes(type_name) {
            None => (RegisterFile::Predicate, 1),
            Some(8) => (RegisterFile::D, 64),
            Some(16) => return Err(Error::new(format!("{name}: 128-bit registers are not supported"))),
            Some(bytes) => (RegisterFile::W, 8 * bytes as u8),
        };
        let reg = Reg { file, index: self.row(file), bits };
        self.frame.registers.insert((scope, name), reg);
        Ok(Symbol::Register(reg))
    }

    /// A variable that the body declares.
    fn inner_variable(
        &mut self,
        scope: usize,
        name: &'t str,
        variable: &'a parse::Variable<'t>,
    ) -> Result<Symbol> {
        match variable.space {
            parse::Space::Shared => return Ok(Symbol::Shared(self.shared_place(variable)?)),
            parse::Space::Local | parse::Space::Param => {}
            _ => return Err(Error::new(format!("{name}: global variables inside functions"))),
        }
        let place = match self.frame.variables.get(&(scope, name)) {
            Some(place) => *place,
            None => {
                let place = self.local_place(variable.bytes, variable.align)?;
                self.frame.variables.insert((scope, name), place);
                place
            }
        };
        let local = variable.space == parse::Space::Local;
        Ok(if local { Symbol::Local(place) } else { Symbol::Frame(place) })
    }

    /// The address of a variable as `mov` gives it: in its own space.
    pub fn address_of(&mut self, symbol: Symbol, file: RegisterFile, addend: i64) -> Option<Reg> {
        let constant = match symbol {
            Symbol::Register(_) => return None,
            Symbol::Shared(place) | Symbol::Local(place) | Symbol::Frame(place) | Symbol::Param(place) => {
                Constant::Value(i64::from(place).wrapping_add(addend) as u64)
            }
            Symbol::DynamicShared => Constant::DynamicShared(addend),
            Symbol::Function(address) => Constant::Value(address.wrapping_add(addend as u64)),
            Symbol::Variable(index) => Constant::Variable(index, addend),
        };
        Some(self.constant(file, constant))
    }

    /// A memory operand in the space an instruction names.
    pub fn address(&mut self, scope: usize, operand: &Operand<'t>, space: Space) -> Result<(Address, Space)> {
        let Operand::Memory(base, offset) = operand else {
            return Err(Error::new("an operand that is no address"));
        };
        let Base::Name(name) = base else {
            return Ok((Address { base: None, offset: *offset }, space));
        };
        if let Some(special) = special(name) {
            let base = self.constant(RegisterFile::W, Constant::Special(special));
            return Ok((Address { base: Some(base), offset: *offset }, space));
        }
        let symbol = self.symbol(scope, name)?;
        let at = |place: u32| Address { base: None, offset: i64::from(place).wrapping_add(*offset) };
        let in_window = |window: u64, place: u32| Address {
            base: None,
            offset: (window as i64 + i64::from(place)).wrapping_add(*offset),
        };
        Ok(match (symbol, space) {
            (Symbol::Register(reg), _) if reg.file == RegisterFile::Predicate || reg.bits < 32 => {
                return Err(Error::new(format!("{name} cannot hold an address")));
            }
            (Symbol::Register(reg), _) => (Address { base: Some(reg), offset: *offset }, space),
            (Symbol::Shared(place), Space::Shared) => (at(place), space),
            (Symbol::Shared(place), Space::Generic) => (in_window(SHARED_WINDOW, place), space),
            (Symbol::Local(place), Space::Local) => (at(place), space),
            (Symbol::Local(place), Space::Generic) => (in_window(LOCAL_WINDOW, place), space),
            (Symbol::Frame(place), Space::Param) => (at(place), Space::Frame),
            (Symbol::Param(place), Space::Param) => (at(place), space),
            (Symbol::Param(place), Space::Generic) => (in_window(PARAM_WINDOW, place), space),
            (Symbol::DynamicShared, Space::Shared) => {
                let base = self.constant(RegisterFile::D, Constant::DynamicShared(0));
                (Address { base: Some(base), offset: *offset }, space)
            }
            (Symbol::Variable(index), Space::Global | Space::Const | Space::Generic) => {
                let base = self.constant(RegisterFile::D, Constant::Variable(index, 0));
                (Address { base: Some(base), offset: *offset }, space)
            }
            _ => return Err(Error::new(format!("{name} does not lie in the space the instruction names"))),
        })
    }

    /// The register of a name, special registers included.
    pub fn named(&mut self, scope: usize, name: &'t str) -> Result<Reg> {
        if let Some(special) = special(name) {
            return Ok(self.constant(RegisterFile::W, Constant::Special(special)));
        }
        match self.symbol(scope, name)? {
            Symbol::Register(reg) => Ok(reg),
            _ => Err(Error::new(format!("{name} is not a register"))),
        }
    }

    /// A result: a register of a file; of the lower one, with 32 bits.
    pub fn result(&mut self, scope: usize, operand: &Operand<'t>, file: RegisterFile) -> Result<Reg> {
        self.result_of(scope, operand, file, 32)
    }

    /// A result: a register of a file and, of the lower one, a width.
    pub fn result_of(
        &mut self,
        scope: usize,
        operand: &Operand<'t>,
        file: RegisterFile,
        bits: u32,
    ) -> Result<Reg> {
        let Operand::Name(name, 0) = operand else {
            return Err(Error::new("a result that is no register"));
        };
        match self.symbol(scope, name)? {
            Symbol::Register(reg)
                if reg.file == file && (file != RegisterFile::W || u32::from(reg.bits) == bits) =>
            {
                Ok(reg)
            }
            Symbol::Register(_) => Err(wrong_register(name, file, bits)),
            _ => Err(Error::new(format!("{name} is not a register"))),
        }
    }

    /// An operand's value as a type: a register, a number or an address.
    pub fn value(
        &mut self,
        scope: usize,
        operand: &Operand<'t>,
        file: RegisterFile,
        bits: u32,
    ) -> Result<Reg> {
        let kept = if bits >= 64 { u64::MAX } else { (1 << bits) - 1 };
        let value = match operand {
            Operand::Name(name, addend) => {
                if let Some(special) = special(name) {
                    let reg = self.constant(RegisterFile::W, Constant::Special(special));
                    return if file == RegisterFile::W {
                        Ok(reg)
                    } else {
                        Err(wrong_register(name, file, bits))
                    };
                }
                let symbol = self.symbol(scope, name)?;
                if let Symbol::Register(reg) = symbol {
                    let narrow = file == RegisterFile::W && u32::from(reg.bits) != bits;
                    if reg.file != file || narrow || *addend != 0 {
                        return Err(wrong_register(name, file, bits));
                    }
                    return Ok(reg);
                }
                return self
                    .address_of(symbol, file, *addend)
                    .ok_or_else(|| Error::new(format!("{name} has no address")));
            }
            Operand::Integer(value) if file == RegisterFile::Predicate => {
                if *value == 0 {
                    0
                } else {
                    u64::from(u32::MAX)
                }
            }
            Operand::Integer(value) => *value as u64 & kept,
            Operand::Float(bits) if file == RegisterFile::D => f64::from(f32::from_bits(*bits)).to_bits(),
            Operand::Float(value) => u64::from(*value) & kept,
            Operand::Double(value) if file == RegisterFile::W && bits == 32 => {
                u64::from((f64::from_bits(*value) as f32).to_bits())
            }
            Operand::Double(value) if file == RegisterFile::D => *value,
            Operand::Nothing => return Err(Error::new("_ where a value is read")),
            _ => return Err(Error::new("an operand of another kind where a value should stand")),
        };
        Ok(self.constant(file, Constant::Value(value)))
    }

    /// A predicate operand, and whether it is negated.
    pub fn predicate(&mut self, scope: usize, operand: &Operand<'t>) -> Result<(Reg, bool)> {
        match operand {
            Operand::Not(name) => {
                let reg = self.named(scope, name)?;
                if reg.file != RegisterFile::Predicate {
                    return Err(wrong_register(name, RegisterFile::Predicate, 1));
                }
                Ok((reg, true))
            }
            other => Ok((self.value(scope, other, RegisterFile::Predicate, 1)?, false)),
        }
    }
}

/// A variable's name as the source has it: `part` of `_ZZ5totalE4part`.
pub fn plain_name(name: &str) -> &str {
    let Some((_, last)) = name.strip_prefix("_Z").and_then(|rest| rest.rsplit_once('E')) else { return name };
    let digits = last.len() - last.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (len, rest) = last.split_at(digits);
    len.parse().ok().and_then(|len: usize| rest.get(..len)).unwrap_or(name)
}

fn wrong_register(name: &str, file: RegisterFile, bits: u32) -> Error {
    let wanted = match file {
        RegisterFile::W => format!("of {bits} bits"),
        RegisterFile::D => "of 64 bits".into(),
        RegisterFile::Predicate => "that is a predicate".into(),
    };
    Error::new(format!("{name}: the instruction takes a register {wanted} here"))
}

/// The file and width of the types in the tables.
pub fn lane_type(name: &str) -> (RegisterFile, u32) {
    match name {
        "u8" | "i8" => (RegisterFile::W, 8),
        "u16" | "i16" | "F16" | "Bf16" => (RegisterFile::W, 16),
        "u64" | "i64" | "f64" => (RegisterFile::D, 64),
        _ => (RegisterFile::W, 32),
    }
}

/// The file a type's values lie in.
pub fn file_of(value: Type) -> RegisterFile {
    match value {
        Type::Pred => RegisterFile::Predicate,
        _ if value.bytes() == 8 => RegisterFile::D,
        _ => RegisterFile::W,
    }
}

/// Special registers by name.
pub fn special(name: &str) -> Option<Special> {
    let axis = |rest: &str| match rest {
        ".x" => Some(0),
        ".y" => Some(1),
        ".z" => Some(2),
        _ => None,
    };
    Some(match name {
        "%laneid" => Special::Lane,
        "%warpid" => Special::Warp,
        "%nwarpid" => Special::Warps,
        "%smid" => Special::Sm,
        "%nsmid" => Special::Sms,
        "%gridid" => Special::Grid,
        "%lanemask_eq" => Special::MaskEq,
        "%lanemask_le" => Special::MaskLe,
        "%lanemask_lt" => Special::MaskLt,
        "%lanemask_ge" => Special::MaskGe,
        "%lanemask_gt" => Special::MaskGt,
        "%dynamic_smem_size" => Special::DynamicShared,
        "%total_smem_size" | "%aggr_smem_size" => Special::TotalShared,
        "%envreg1" => Special::WorkspaceHigh,
        "%envreg2" => Special::WorkspaceLow,
        "%is_explicit_cluster"
        | "%cluster_ctarank"
        | "%reserved_smem_offset_begin"
        | "%reserved_smem_offset_end" => Special::Zero,
        "%cluster_nctarank" => Special::One,
        _ if name
            .strip_prefix("%envreg")
            .is_some_and(|digits| digits.parse::<u32>().is_ok_and(|n| n < 32)) =>
        {
            Special::Zero
        }
        _ if name.starts_with("%pm") && name.len() <= 4 => Special::Zero,
        _ => {
            if let Some(rest) = name.strip_prefix("%tid") {
                Special::Tid(axis(rest)?)
            } else if let Some(rest) = name.strip_prefix("%ntid") {
                Special::Ntid(axis(rest)?)
            } else if let Some(rest) = name.strip_prefix("%ctaid") {
                Special::Ctaid(axis(rest)?)
            } else if let Some(rest) = name.strip_prefix("%nctaid").or(name.strip_prefix("%nclusterid")) {
                Special::Nctaid(axis(rest)?)
            } else if let Some(rest) = name.strip_prefix("%clusterid") {
                Special::Ctaid(axis(rest)?)
            } else if let Some(rest) = name.strip_prefix("%cluster_ctaid") {
                axis(rest).map(|_| Special::Zero)?
            } else if let Some(rest) = name.strip_prefix("%cluster_nctaid") {
                axis(rest).map(|_| Special::One)?
            } else {
                return None;
            }
        }
    })
}
