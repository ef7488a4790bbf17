//! PTX text to a module: variables, functions and their statements, still as words.

mod lexer;

use std::collections::HashMap;

use crate::error::{Result, error};
use lexer::{Placed, Token};

/// An operand as written.
#[derive(Clone, Debug, PartialEq)]
pub enum Operand {
    /// A register, a variable, a label, a special register.
    Name(String),
    /// An integer; floats come as their bits with `float` saying how wide.
    Number { bits: u64, float: Float },
    /// `[base + offset]`, where the base may be missing.
    Address { base: Option<String>, offset: i64 },
    /// `{a, b, ...}`.
    Vector(Vec<Operand>),
    /// `d|p`: a result and a predicate.
    Pair(Box<Operand>, Box<Operand>),
    /// `!p`.
    Not(String),
    /// `(a, b)`: arguments of a call.
    List(Vec<Operand>),
}

/// What an immediate is written as.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Float {
    No,
    Single,
    Double,
}

/// An instruction as written.
#[derive(Clone, Debug)]
pub struct Statement {
    /// Opcode and modifiers, split at the dots: `["ld", "global", "v4", "u32"]`.
    pub words: Vec<String>,
    pub operands: Vec<Operand>,
    /// The guard predicate; true where it is negated.
    pub guard: Option<(String, bool)>,
    /// Line of the PTX.
    pub line: u32,
    /// Line of the source, where the compiler says so.
    pub source: Option<(u32, u32)>,
}

/// A piece of a function's body.
#[derive(Clone, Debug)]
pub enum Item {
    Label(String),
    Statement(Statement),
}

/// Where a variable lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Space {
    Global,
    Constant,
    Shared,
    Local,
    Param,
}

/// A variable.
#[derive(Clone, Debug)]
pub struct Variable {
    pub name: String,
    pub space: Space,
    pub alignment: usize,
    /// 0 for `extern` shared memory, whose size the launch gives.
    pub bytes: usize,
    /// Initial bytes, where there are some.
    pub initial: Option<Vec<u8>>,
}

/// A kernel or a function.
#[derive(Clone, Debug)]
pub struct Function {
    pub name: String,
    pub is_kernel: bool,
    /// Parameters in order; of a function, its results first.
    pub results: Vec<Variable>,
    pub parameters: Vec<Variable>,
    /// Register names with their type word, `b32`.
    pub registers: HashMap<String, String>,
    pub variables: Vec<Variable>,
    pub body: Vec<Item>,
    /// Labels of a `.branchtargets` or `.callprototype` list, by the name of the list.
    pub tables: HashMap<String, Vec<String>>,
    /// Whether a body was seen; a declaration alone has none.
    pub defined: bool,
}

/// A parsed file.
#[derive(Clone, Debug, Default)]
pub struct Module {
    pub variables: Vec<Variable>,
    pub functions: Vec<Function>,
    /// Source files by number.
    pub files: HashMap<u32, String>,
}

/// Bytes of a type word.
pub fn type_bytes(word: &str) -> Option<usize> {
    Some(match word {
        "b8" | "u8" | "s8" => 1,
        "b16" | "u16" | "s16" | "f16" | "bf16" => 2,
        "b32" | "u32" | "s32" | "f32" | "f16x2" | "bf16x2" => 4,
        "b64" | "u64" | "s64" | "f64" => 8,
        "b128" => 16,
        _ => return None,
    })
}

struct Parser<'a> {
    tokens: Vec<Placed<'a>>,
    at: usize,
    module: Module,
}

/// Parses a whole file.
///
/// # Errors
/// The line and what was expected there.
pub fn parse(text: &str) -> Result<Module> {
    let mut parser = Parser { tokens: lexer::tokens(text)?, at: 0, module: Module::default() };
    while parser.at < parser.tokens.len() {
        parser.top_level()?;
    }
    Ok(parser.module)
}

impl<'a> Parser<'a> {
    fn line(&self) -> u32 {
        let at = self.at.min(self.tokens.len().saturating_sub(1));
        self.tokens.get(at).map_or(1, |placed| placed.line)
    }

    fn peek(&self) -> Option<&Token<'a>> {
        self.tokens.get(self.at).map(|placed| &placed.token)
    }

    fn next(&mut self) -> Result<Token<'a>> {
        let token =
            self.peek().cloned().ok_or_else(|| error!("line {}: the file ends early", self.line()))?;
        self.at += 1;
        Ok(token)
    }

    fn take(&mut self, mark: char) -> bool {
        let found = self.peek() == Some(&Token::Mark(mark));
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, mark: char) -> Result<()> {
        let line = self.line();
        if self.take(mark) {
            return Ok(());
        }
        Err(error!("line {line}: expected '{mark}', found {}", self.found()))
    }

    fn found(&self) -> String {
        match self.peek() {
            Some(Token::Word(word)) => format!("'{word}'"),
            Some(Token::Text(_)) => "a string".into(),
            Some(Token::Mark(mark)) => format!("'{mark}'"),
            None => "the end of the file".into(),
        }
    }

    fn word(&mut self) -> Result<&'a str> {
        let line = self.line();
        match self.next()? {
            Token::Word(word) => Ok(word),
            other => Err(error!("line {line}: expected a word, found {other:?}")),
        }
    }

    fn take_word(&mut self, word: &str) -> bool {
        let found = self.peek() == Some(&Token::Word(word));
        self.at += usize::from(found);
        found
    }

    fn integer(&mut self) -> Result<i64> {
        let line = self.line();
        let negative = self.take('-');
        let word = self.word()?;
        let value = integer(word).ok_or_else(|| error!("line {line}: '{word}' is no integer"))? as i64;
        Ok(if negative { value.wrapping_neg() } else { value })
    }

    /// Skips to the end of a line-bound directive or of a braced block.
    fn skip_line(&mut self) {
        let line = self.tokens[self.at - 1].line;
        while self.tokens.get(self.at).is_some_and(|placed| placed.line == line) {
            self.at += 1;
        }
    }

    fn top_level(&mut self) -> Result<()> {
        let line = self.line();
        match self.next()? {
            Token::Word(".version" | ".target" | ".address_size" | ".pragma") => self.skip_line(),
            Token::Word(".file") => self.file()?,
            Token::Word(".section") => {
                while !self.take('{') {
                    self.next()?;
                }
                while !self.take('}') {
                    self.next()?;
                }
            }
            Token::Word(".visible" | ".extern" | ".weak" | ".common") => {}
            Token::Word(".entry") => self.function(true)?,
            Token::Word(".func") => self.function(false)?,
            Token::Word(space @ (".global" | ".const" | ".shared")) => {
                let space = match space {
                    ".global" => Space::Global,
                    ".const" => Space::Constant,
                    _ => Space::Shared,
                };
                let variables = self.variables(space)?;
                self.module.variables.extend(variables);
            }
            Token::Mark(';') => {}
            other => return Err(error!("line {line}: {other:?} has no meaning at the top of a file")),
        }
        Ok(())
    }

    fn file(&mut self) -> Result<()> {
        let number = self.integer()? as u32;
        let line = self.line();
        let Token::Text(name) = self.next()? else { return Err(error!("line {line}: .file without a name")) };
        self.module.files.insert(number, name.to_string());
        self.skip_line();
        Ok(())
    }

    /// `.align 4 .b8 name[12] = {...}, name2;` after the space.
    fn variables(&mut self, space: Space) -> Result<Vec<Variable>> {
        let mut alignment = 0;
        let kind = loop {
            let line = self.line();
            let word = self.word()?;
            match word {
                ".align" => alignment = self.integer()? as usize,
                ".ptr" | ".noalias" | ".attribute" => {}
                // `.ptr .global .align 4` of a kernel parameter
                ".global" | ".shared" | ".const" | ".local" => {}
                ".v2" | ".v4" => {
                    return Err(error!("line {line}: variables of vector type are not supported"));
                }
                _ => match word.strip_prefix('.').and_then(type_bytes) {
                    Some(bytes) => break bytes,
                    None => return Err(error!("line {line}: '{word}' is no type of a variable")),
                },
            }
        };
        let mut list = Vec::new();
        loop {
            // Of a kernel parameter, the pointer's properties come after the type.
            while let Some(Token::Word(word)) = self.peek() {
                match *word {
                    ".ptr" | ".global" | ".shared" | ".const" | ".local" => self.at += 1,
                    ".align" => {
                        self.at += 1;
                        self.integer()?;
                    }
                    _ => break,
                }
            }
            let name = self.word()?.to_string();
            let mut bytes = kind;
            while self.take('[') {
                if self.take(']') {
                    bytes = 0;
                    break;
                }
                bytes = bytes.saturating_mul(self.integer()?.max(0) as usize);
                self.expect(']')?;
            }
            let initial = if self.take('=') { Some(self.initialiser(kind, bytes)?) } else { None };
            let alignment = alignment.max(kind);
            list.push(Variable { name, space, alignment, bytes, initial });
            if space == Space::Param || !self.take(',') {
                break;
            }
        }
        if space != Space::Param {
            self.expect(';')?;
        }
        Ok(list)
    }

    fn initialiser(&mut self, element: usize, bytes: usize) -> Result<Vec<u8>> {
        let mut values = Vec::new();
        let mut depth = 0;
        loop {
            if self.take('{') {
                depth += 1;
            } else if self.take('}') {
                depth -= 1;
            } else if !self.take(',') {
                let line = self.line();
                match self.operand()? {
                    Operand::Number { bits, .. } => {
                        values.extend_from_slice(&bits.to_le_bytes()[..element.min(8)])
                    }
                    other => {
                        return Err(error!("line {line}: {other:?} as an initial value is not supported"));
                    }
                }
            }
            if depth == 0 {
                break;
            }
        }
        values.resize(bytes, 0);
        Ok(values)
    }

    fn parameter_list(&mut self) -> Result<Vec<Variable>> {
        let mut list = Vec::new();
        if self.take(')') {
            return Ok(list);
        }
        loop {
            let line = self.line();
            match self.word()? {
                ".param" => list.extend(self.variables(Space::Param)?),
                word => return Err(error!("line {line}: expected .param, found '{word}'")),
            }
            if !self.take(',') {
                self.expect(')')?;
                return Ok(list);
            }
        }
    }

    fn function(&mut self, is_kernel: bool) -> Result<()> {
        let results = if self.take('(') { self.parameter_list()? } else { Vec::new() };
        let name = self.word()?.to_string();
        let parameters = if self.take('(') { self.parameter_list()? } else { Vec::new() };
        let mut function = Function {
            name,
            is_kernel,
            results,
            parameters,
            registers: HashMap::new(),
            variables: Vec::new(),
            body: Vec::new(),
            tables: HashMap::new(),
            defined: false,
        };
        loop {
            if self.take(';') {
                break;
            }
            if self.take('{') {
                self.body(&mut function)?;
                function.defined = true;
                break;
            }
            // .maxntid 256, 1, 1 and the like
            self.next()?;
        }
        let earlier = self.module.functions.iter().position(|known| known.name == function.name);
        match earlier {
            Some(index) if function.defined => self.module.functions[index] = function,
            Some(_) => {}
            None => self.module.functions.push(function),
        }
        Ok(())
    }

    fn body(&mut self, function: &mut Function) -> Result<()> {
        let mut depth = 1;
        let mut source = None;
        while depth > 0 {
            let line = self.line();
            match self.next()? {
                // Scopes of inline assembly; NVRTC gives their registers names of their own.
                Token::Mark('{') => depth += 1,
                Token::Mark('}') => depth -= 1,
                Token::Mark(';') => {}
                Token::Mark('@') => {
                    let negated = self.take('!');
                    let predicate = self.word()?.to_string();
                    let word = self.word()?;
                    let statement = self.statement(word, Some((predicate, negated)), line, source)?;
                    function.body.push(Item::Statement(statement));
                }
                Token::Word(".loc") => {
                    let (file, line) = (self.integer()? as u32, self.integer()? as u32);
                    source = Some((file, line));
                    self.skip_line();
                }
                Token::Word(".reg") => self.registers(function)?,
                Token::Word(".local") => {
                    let variables = self.variables(Space::Local)?;
                    function.variables.extend(variables);
                }
                Token::Word(".shared") => {
                    let variables = self.variables(Space::Shared)?;
                    function.variables.extend(variables);
                }
                Token::Word(".param") => {
                    let variables = self.variables(Space::Param)?;
                    self.expect(';')?;
                    function.variables.extend(variables);
                }
                Token::Word(".pragma") => self.skip_line(),
                Token::Word(word) if word.starts_with('.') => {
                    return Err(error!("line {line}: the directive '{word}' is not supported"));
                }
                Token::Word(word) => {
                    if self.take(':') {
                        if self.take_word(".branchtargets") {
                            let mut labels = vec![self.word()?.to_string()];
                            while self.take(',') {
                                labels.push(self.word()?.to_string());
                            }
                            self.expect(';')?;
                            function.tables.insert(word.to_string(), labels);
                        } else if self.take_word(".callprototype") {
                            return Err(error!("line {line}: calls through pointers are not supported"));
                        } else {
                            function.body.push(Item::Label(word.to_string()));
                        }
                    } else {
                        let statement = self.statement(word, None, line, source)?;
                        function.body.push(Item::Statement(statement));
                    }
                }
                other => return Err(error!("line {line}: unexpected {other:?}")),
            }
        }
        Ok(())
    }

    fn registers(&mut self, function: &mut Function) -> Result<()> {
        let line = self.line();
        let kind = self.word()?;
        let kind =
            kind.strip_prefix('.').ok_or_else(|| error!("line {line}: '{kind}' is no register type"))?;
        if kind != "pred" && type_bytes(kind).is_none() {
            return Err(error!("line {line}: registers of type '{kind}' are not supported"));
        }
        loop {
            let name = self.word()?.to_string();
            if self.take('<') {
                let count = self.integer()?;
                self.expect('>')?;
                if !(0..1 << 20).contains(&count) {
                    return Err(error!("line {line}: {count} registers"));
                }
                for number in 0..count {
                    function.registers.insert(format!("{name}{number}"), kind.to_string());
                }
            } else {
                function.registers.insert(name, kind.to_string());
            }
            if !self.take(',') {
                break;
            }
        }
        self.expect(';')
    }

    fn statement(
        &mut self,
        word: &str,
        guard: Option<(String, bool)>,
        line: u32,
        source: Option<(u32, u32)>,
    ) -> Result<Statement> {
        let words: Vec<String> = word.split('.').map(String::from).collect();
        let mut operands = Vec::new();
        if !self.take(';') {
            loop {
                operands.push(self.operand()?);
                if self.take(';') {
                    break;
                }
                self.expect(',')?;
            }
        }
        Ok(Statement { words, operands, guard, line, source })
    }

    fn operand(&mut self) -> Result<Operand> {
        let line = self.line();
        if self.take('{') {
            let mut list = Vec::new();
            loop {
                list.push(self.operand()?);
                if self.take('}') {
                    return Ok(Operand::Vector(list));
                }
                self.expect(',')?;
            }
        }
        if self.take('(') {
            let mut list = Vec::new();
            if self.take(')') {
                return Ok(Operand::List(list));
            }
            loop {
                list.push(self.operand()?);
                if self.take(')') {
                    return Ok(Operand::List(list));
                }
                self.expect(',')?;
            }
        }
        if self.take('[') {
            return self.address();
        }
        if self.take('!') {
            return Ok(Operand::Not(self.word()?.to_string()));
        }
        if self.take('-') {
            let word = self.word()?;
            let value = integer(word).ok_or_else(|| error!("line {line}: '-{word}' is no number"))?;
            return Ok(Operand::Number { bits: value.wrapping_neg(), float: Float::No });
        }
        let word = self.word()?;
        if word.starts_with(|c: char| c.is_ascii_digit()) {
            return number(word).ok_or_else(|| error!("line {line}: '{word}' is no number"));
        }
        let name = Operand::Name(word.to_string());
        if self.take('|') {
            let second = self.operand()?;
            return Ok(Operand::Pair(Box::new(name), Box::new(second)));
        }
        Ok(name)
    }

    fn address(&mut self) -> Result<Operand> {
        let line = self.line();
        let word = self.word()?;
        let (base, mut offset) = match integer(word) {
            Some(value) if word.starts_with(|c: char| c.is_ascii_digit()) => (None, value as i64),
            _ => (Some(word.to_string()), 0),
        };
        loop {
            if self.take(']') {
                return Ok(Operand::Address { base, offset });
            }
            let term = if self.take('+') {
                self.integer()?
            } else if self.peek() == Some(&Token::Mark('-')) {
                self.integer()?
            } else {
                return Err(error!("line {line}: in an address, found {}", self.found()));
            };
            offset = offset.wrapping_add(term);
        }
    }
}

/// A decimal, hexadecimal, octal or binary integer with an optional U.
fn integer(word: &str) -> Option<u64> {
    let word = word.strip_suffix('U').unwrap_or(word);
    let (digits, radix) = match word.as_bytes() {
        [b'0', b'x' | b'X', ..] => (&word[2..], 16),
        [b'0', b'b' | b'B', ..] => (&word[2..], 2),
        [b'0', _, ..] => (&word[1..], 8),
        _ => (word, 10),
    };
    u64::from_str_radix(digits, radix).ok()
}

fn number(word: &str) -> Option<Operand> {
    let hex = |digits: &str| u64::from_str_radix(digits, 16).ok();
    match word.get(..2) {
        Some("0f" | "0F") => Some(Operand::Number { bits: hex(&word[2..])?, float: Float::Single }),
        Some("0d" | "0D") => Some(Operand::Number { bits: hex(&word[2..])?, float: Float::Double }),
        _ if word.contains('.') => {
            Some(Operand::Number { bits: word.parse::<f64>().ok()?.to_bits(), float: Float::Double })
        }
        _ => Some(Operand::Number { bits: integer(word)?, float: Float::No }),
    }
}
