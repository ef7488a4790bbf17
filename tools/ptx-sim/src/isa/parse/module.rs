//! Directives, declarations and bodies.

use std::collections::HashMap;

use super::cursor::Cursor;
use super::instruction::{Guard, Operand, signed_offset};
use super::lexer::{self, Token};
use crate::error::{Error, Result};

/// The longest array a variable may be: what no kernel reaches and a mistyped number would.
const MOST_BYTES: u64 = 1 << 32;

/// Everything a PTX text declares.
#[derive(Debug, Default)]
pub struct Module<'t> {
    pub files: HashMap<u32, &'t str>,
    pub variables: Vec<Variable<'t>>,
    pub functions: Vec<Function<'t>>,
    /// `.alias`: the name and the function it stands for.
    pub aliases: Vec<(&'t str, &'t str)>,
}

/// State spaces a variable can be declared in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Space {
    Global,
    Const,
    Shared,
    Local,
    Param,
}

/// A variable of a module or a body.
#[derive(Clone, Debug)]
pub struct Variable<'t> {
    pub name: &'t str,
    pub space: Space,
    pub align: u64,
    pub bytes: u64,
    /// `.extern .shared x[]`: as long as the launch says.
    pub dynamic: bool,
    /// Declared `.extern`: another declaration may say more.
    pub external: bool,
    pub initial: Vec<u8>,
    /// Where in `initial` addresses go.
    pub addresses: Vec<InitialAddress<'t>>,
    pub line: u32,
}

/// The address of a variable or function in an initial value.
#[derive(Clone, Copy, Debug)]
pub struct InitialAddress<'t> {
    /// Where it goes, and how many bytes it takes there.
    pub offset: usize,
    pub bytes: usize,
    pub name: &'t str,
    pub addend: i64,
    /// `0xFF00(name)`: the bits kept, moved down to the lowest.
    pub mask: u64,
}

/// A parameter or result of a function.
#[derive(Clone, Debug)]
pub struct Param<'t> {
    pub name: &'t str,
    pub type_name: &'t str,
    pub align: u64,
    pub bytes: u64,
}

/// A kernel (`entry`) or a function.
#[derive(Debug)]
pub struct Function<'t> {
    pub name: &'t str,
    pub entry: bool,
    pub params: Vec<Param<'t>>,
    pub results: Vec<Param<'t>>,
    /// `.maxntid`, multiplied out.
    pub most_threads: Option<u64>,
    /// `.reqntid`.
    pub required_threads: Option<[u64; 3]>,
    /// Its statements, or why they cannot be understood: only who launches or calls the function needs to
    /// know.
    pub body: Option<Result<Body<'t>>>,
    pub line: u32,
}

/// Names declared between two braces.
#[derive(Debug, Default)]
pub struct Scope<'t> {
    pub parent: Option<usize>,
    /// Type by name; a count for `%r<54>`, which declares `%r0` to `%r53`.
    pub registers: HashMap<&'t str, (&'t str, Option<u64>)>,
    pub variables: HashMap<&'t str, Variable<'t>>,
    /// The statement a label stands before.
    pub labels: HashMap<&'t str, usize>,
    pub tables: HashMap<&'t str, Vec<&'t str>>,
    /// Signatures of calls through pointers.
    pub prototypes: HashMap<&'t str, Prototype>,
}

impl<'t> Scope<'t> {
    /// The type of the register of a name that the scope declares.
    pub fn type_of(&self, name: &str) -> Option<&'t str> {
        if let Some((type_name, None)) = self.registers.get(name) {
            return Some(type_name);
        }
        let (prefix, number) = name.split_at(name.trim_end_matches(|c: char| c.is_ascii_digit()).len());
        match (self.registers.get(prefix), number.parse::<u64>()) {
            (Some((type_name, Some(count))), Ok(number)) if number < *count => Some(type_name),
            _ => None,
        }
    }
}

/// `.callprototype`: bytes of each result and each parameter. `.calltargets` gives names instead.
#[derive(Clone, Debug, Default)]
pub struct Prototype {
    pub results: Vec<u64>,
    pub params: Vec<u64>,
}

/// A function's statements.
#[derive(Debug, Default)]
pub struct Body<'t> {
    pub scopes: Vec<Scope<'t>>,
    pub statements: Vec<Statement<'t>>,
    /// Registers declared, as written: for listings.
    pub registers: u64,
}

/// One instruction.
#[derive(Clone, Debug)]
pub struct Statement<'t> {
    pub guard: Option<Guard<'t>>,
    pub opcode: &'t str,
    pub operands: Vec<Operand<'t>>,
    pub scope: usize,
    pub line: u32,
    /// File number and line of the source, where `.loc` says.
    pub source: Option<(u32, u32)>,
}

impl<'t> Statement<'t> {
    /// The opcode up to its first dot.
    pub fn mnemonic(&self) -> &'t str {
        self.opcode.split('.').next().unwrap_or("")
    }
}

/// Parses a whole text.
pub fn parse(text: &str) -> Result<Module<'_>> {
    let tokens = lexer::tokens(text)?;
    Cursor { tokens: &tokens, at: 0 }.module()
}

/// Bytes of one value of a type, `.pred` excepted.
pub fn type_bytes(name: &str) -> Option<u64> {
    Some(match name {
        ".b8" | ".u8" | ".s8" => 1,
        ".b16" | ".u16" | ".s16" | ".f16" | ".bf16" => 2,
        ".b32" | ".u32" | ".s32" | ".f32" | ".f16x2" | ".bf16x2" => 4,
        ".b64" | ".u64" | ".s64" | ".f64" => 8,
        ".b128" => 16,
        _ => return None,
    })
}

impl<'t> Cursor<'_, 't> {
    fn module(mut self) -> Result<Module<'t>> {
        let mut module = Module::default();
        let mut external = false;
        loop {
            match self.peek() {
                Token::End => return Ok(module),
                Token::Word(".version") => {
                    self.next();
                    self.next();
                }
                Token::Word(".target") => {
                    self.next();
                    self.word("an architecture")?;
                    while self.take(',') {
                        self.word("a target option")?;
                    }
                }
                Token::Word(".address_size") => {
                    self.next();
                    if self.integer("64")? != 64 {
                        return Err(self.error("only 64-bit addresses are supported"));
                    }
                }
                Token::Word(".file") => self.file(&mut module)?,
                Token::Word(".section") => {
                    while !matches!(self.peek(), Token::Mark('{') | Token::End) {
                        self.next();
                    }
                    self.skip_braces()?;
                }
                Token::Word(".alias") => self.alias(&mut module)?,
                Token::Word(".pragma") => self.pragma()?,
                Token::Word(".extern") => {
                    self.next();
                    external = true;
                    continue;
                }
                Token::Word(".visible" | ".weak" | ".common") => {
                    self.next();
                    continue;
                }
                Token::Word(kind @ (".entry" | ".func")) => {
                    self.next();
                    module.functions.push(self.function(kind == ".entry")?);
                }
                Token::Word(".global" | ".const" | ".shared") => {
                    let mut variables = Vec::new();
                    self.variables(external, &mut variables)?;
                    module.variables.append(&mut variables);
                }
                Token::Mark(';') => {
                    self.next();
                }
                other => return Err(self.error(&format!("{} outside a function", other.shown()))),
            }
            external = false;
        }
    }

    /// `.file 1 "kernels/loss.cu"`, with a time and a size.
    fn file(&mut self, module: &mut Module<'t>) -> Result<()> {
        self.next();
        let index = self.integer("a file number")? as u32;
        if let (Token::Text(name), _) = self.next() {
            module.files.insert(index, name);
        }
        while self.take(',') {
            self.next();
        }
        Ok(())
    }

    fn alias(&mut self, module: &mut Module<'t>) -> Result<()> {
        self.next();
        let name = self.word("a function's name")?;
        self.expect(',')?;
        let meant = self.word("a function's name")?;
        self.expect(';')?;
        module.aliases.push((name, meant));
        Ok(())
    }

    /// Advice to compilers.
    pub fn pragma(&mut self) -> Result<()> {
        self.next();
        self.next();
        while self.take(',') {
            self.next();
        }
        self.expect(';')
    }

    /// Over all that stands between braces.
    pub fn skip_braces(&mut self) -> Result<()> {
        self.expect('{')?;
        let mut depth = 1;
        while depth > 0 {
            match self.next().0 {
                Token::Mark('{') => depth += 1,
                Token::Mark('}') => depth -= 1,
                Token::End => return Err(self.error("a function or section that never ends")),
                _ => {}
            }
        }
        Ok(())
    }

    /// `.shared .align 4 .b8 a[16], b[4];`, the cursor before the space.
    pub fn variables(&mut self, external: bool, into: &mut Vec<Variable<'t>>) -> Result<()> {
        let space = match self.word("a state space")? {
            ".global" => Space::Global,
            ".const" => Space::Const,
            ".shared" => Space::Shared,
            ".local" => Space::Local,
            ".param" => Space::Param,
            other => return Err(self.error(&format!("{other}: not a state space"))),
        };
        let (type_name, vector, align) = self.variable_type()?;
        let element = type_bytes(type_name)
            .ok_or_else(|| self.error(&format!("{type_name}: not a type a variable can have")))?;
        let align = self.checked_align(align.unwrap_or(element * vector))?;
        loop {
            let line = self.line();
            let name = self.word("a variable's name")?;
            let (bytes, dynamic) = self.array(element * vector)?;
            let mut variable = Variable {
                name,
                space,
                align,
                bytes,
                dynamic,
                external,
                initial: vec![],
                addresses: vec![],
                line,
            };
            if self.take('=') {
                self.initial(element as usize, type_name, &mut variable, 0)?;
                if variable.initial.len() as u64 > bytes && !dynamic {
                    return Err(Error::at(line, format!("{name}: more initial values than elements")));
                }
                if dynamic {
                    (variable.bytes, variable.dynamic) = (variable.initial.len() as u64, false);
                }
            }
            if variable.dynamic && !(external && space == Space::Shared) {
                return Err(Error::at(line, format!("{name}: an array without a length")));
            }
            into.push(variable);
            if !self.take(',') {
                return self.expect(';');
            }
        }
    }

    /// The type that follows a state space, how many of it a vector has, and the alignment if one is given.
    fn variable_type(&mut self) -> Result<(&'t str, u64, Option<u64>)> {
        let mut align = None;
        let (type_name, vector) = loop {
            match self.word("a type")? {
                // Handles of textures and surfaces: their names may be declared, only their use is refused.
                ".texref" | ".samplerref" | ".surfref" => break (".b64", 1),
                ".managed" | ".unified" => {}
                ".align" => align = Some(self.integer("an alignment")?),
                ".v2" => break (self.word("a type")?, 2),
                ".v4" => break (self.word("a type")?, 4),
                ".attribute" => {
                    self.expect('(')?;
                    while !self.take(')') {
                        if self.next().0 == Token::End {
                            return Err(self.error("an attribute that never ends"));
                        }
                    }
                }
                word => break (word, 1),
            }
        };
        Ok((type_name, vector, align))
    }

    fn checked_align(&self, align: u64) -> Result<u64> {
        if align.is_power_of_two() && align <= 4096 {
            return Ok(align);
        }
        Err(self.error(&format!("{align} is not an alignment")))
    }

    /// `[4][8]` after a name: bytes and whether a length is missing.
    fn array(&mut self, element: u64) -> Result<(u64, bool)> {
        let (mut bytes, mut dynamic) = (element, false);
        while self.take('[') {
            if self.take(']') {
                (bytes, dynamic) = (0, true);
                continue;
            }
            let count = self.integer("a length")?;
            bytes = bytes.checked_mul(count).filter(|bytes| *bytes <= MOST_BYTES).ok_or_else(|| {
                self.error(&format!("an array of {count} elements is longer than {MOST_BYTES} bytes"))
            })?;
            self.expect(']')?;
        }
        Ok((bytes, dynamic))
    }

    fn initial(
        &mut self,
        element: usize,
        type_name: &str,
        variable: &mut Variable<'t>,
        depth: u32,
    ) -> Result<()> {
        if depth > 16 {
            return Err(self.error("initial values nested too deeply"));
        }
        if self.take('{') {
            if self.take('}') {
                return Ok(());
            }
            loop {
                if self.peek() == Token::Mark('{') {
                    self.initial(element, type_name, variable, depth + 1)?;
                } else {
                    self.initial_value(element, type_name, variable)?;
                }
                if self.take('}') {
                    return Ok(());
                }
                self.expect(',')?;
            }
        }
        self.initial_value(element, type_name, variable)
    }

    fn initial_value(&mut self, element: usize, type_name: &str, variable: &mut Variable<'t>) -> Result<()> {
        if element > 8 {
            return Err(self.error("initial values of more than 8 bytes are not supported"));
        }
        let bits = match self.peek() {
            Token::Word(_) => {
                self.initial_address(element, u64::MAX, variable)?;
                0
            }
            _ => match Operand::parse(self, 1)? {
                // `0xFF00(name)`: some bits of an address.
                Operand::Integer(mask) if self.peek() == Token::Mark('(') => {
                    self.next();
                    self.initial_address(element, mask as u64, variable)?;
                    self.expect(')')?;
                    0
                }
                Operand::Integer(value) => value as u64,
                Operand::Float(bits) if type_name == ".f64" => f64::from(f32::from_bits(bits)).to_bits(),
                Operand::Float(bits) => u64::from(bits),
                Operand::Double(bits) if type_name == ".f32" => {
                    u64::from((f64::from_bits(bits) as f32).to_bits())
                }
                Operand::Double(bits) => bits,
                _ => return Err(self.error("this initial value is not supported")),
            },
        };
        variable.initial.extend_from_slice(&bits.to_le_bytes()[..element]);
        Ok(())
    }

    /// `name`, `name+4` or `generic(name)+4`.
    fn initial_address(&mut self, element: usize, mask: u64, variable: &mut Variable<'t>) -> Result<()> {
        let generic = self.take_word("generic");
        if generic {
            self.expect('(')?;
        }
        let name = self.word("a variable's or function's name")?;
        if generic {
            self.expect(')')?;
        }
        let addend = if matches!(self.peek(), Token::Mark('+' | '-')) { signed_offset(self)? } else { 0 };
        if mask == u64::MAX && element != 8 {
            return Err(self.error("an address takes 8 bytes"));
        }
        let offset = variable.initial.len();
        variable.addresses.push(InitialAddress { offset, bytes: element, name, addend, mask });
        Ok(())
    }

    /// `(.param .u64 a, .param .u32 b)`.
    pub fn params(&mut self) -> Result<Vec<Param<'t>>> {
        let mut params = Vec::new();
        self.expect('(')?;
        if self.take(')') {
            return Ok(params);
        }
        loop {
            let space = self.word("a parameter")?;
            if space != ".param" {
                return Err(self.error(&format!("{space} parameters are not supported, only .param")));
            }
            let (mut align, mut type_name) = (None, None);
            let name = loop {
                match self.word("a parameter's type or name")? {
                    ".align" => align = Some(self.integer("an alignment")?),
                    ".ptr" => {
                        // `.ptr .global .align 16` says what the pointer points to: a hint.
                        while let Token::Word(
                            word @ (".global" | ".shared" | ".const" | ".local" | ".align"),
                        ) = self.peek()
                        {
                            self.next();
                            if word == ".align" {
                                self.integer("an alignment")?;
                            }
                        }
                    }
                    word if word.starts_with('.') => type_name = Some(word),
                    word => break word,
                }
            };
            let type_name = type_name.ok_or_else(|| self.error(&format!("{name}: no type")))?;
            let element = type_bytes(type_name)
                .ok_or_else(|| self.error(&format!("{type_name}: not a type a parameter can have")))?;
            let (bytes, _) = self.array(element)?;
            let align = self.checked_align(align.unwrap_or(element))?;
            params.push(Param { name, type_name, align, bytes });
            if self.take(')') {
                return Ok(params);
            }
            self.expect(',')?;
        }
    }

    /// `.maxntid 256, 1, 1`.
    fn shape(&mut self) -> Result<[u64; 3]> {
        self.next();
        let mut shape = [self.integer("a thread count")?, 1, 1];
        for size in &mut shape[1..] {
            if self.take(',') {
                *size = self.integer("a thread count")?;
            }
        }
        Ok(shape)
    }

    fn function(&mut self, entry: bool) -> Result<Function<'t>> {
        let line = self.line();
        let results = if self.peek() == Token::Mark('(') { self.params()? } else { Vec::new() };
        let name = self.word("a function's name")?;
        let params = if self.peek() == Token::Mark('(') { self.params()? } else { Vec::new() };
        let mut function = Function {
            name,
            entry,
            params,
            results,
            most_threads: None,
            required_threads: None,
            body: None,
            line,
        };
        loop {
            match self.peek() {
                Token::Word(".maxntid") => {
                    let shape = self.shape()?;
                    function.most_threads = Some(shape.iter().fold(1, |all, size| all.saturating_mul(*size)));
                }
                Token::Word(".reqntid") => function.required_threads = Some(self.shape()?),
                Token::Word(".minnctapersm" | ".maxnctapersm" | ".maxnreg" | ".maxclusterrank") => {
                    self.next();
                    self.integer("a number")?;
                }
                Token::Word(".reqnctapercluster") => {
                    self.next();
                    self.integer("a number")?;
                    while self.take(',') {
                        self.integer("a number")?;
                    }
                }
                Token::Word(".noreturn" | ".explicitcluster" | ".blocksareclusters") => {
                    self.next();
                }
                Token::Word(".pragma") => self.pragma()?,
                Token::Mark(';') => {
                    self.next();
                    return Ok(function);
                }
                Token::Mark('{') => {
                    let start = self.at;
                    self.skip_braces()?;
                    let end = std::mem::replace(&mut self.at, start);
                    function.body = Some(self.body());
                    self.at = end;
                    return Ok(function);
                }
                other => return Err(self.error(&format!("{} after the head of {name}", other.shown()))),
            }
        }
    }
}
