//! Bodies of functions: scopes, declarations, labels and instructions.

use super::cursor::Cursor;
use super::instruction::{Guard, Operand};
use super::lexer::Token;
use super::module::{Body, Param, Prototype, Scope, Statement, type_bytes};
use crate::error::{Error, Result};

/// The most registers a declaration may name: what no kernel reaches and a mistyped number would.
const MOST_REGISTERS: u64 = 1 << 20;
const DEEPEST_SCOPE: usize = 64;

/// Where an instruction stands.
struct Place<'t> {
    guard: Option<Guard<'t>>,
    scope: usize,
    line: u32,
    source: Option<(u32, u32)>,
}

impl<'t> Cursor<'_, 't> {
    /// A function's body, from its opening brace on.
    pub fn body(&mut self) -> Result<Body<'t>> {
        let mut body = Body::default();
        body.scopes.push(Scope::default());
        let mut open = vec![0usize];
        let mut source = None;
        self.expect('{')?;
        while let Some(&scope) = open.last() {
            let line = self.line();
            match self.peek() {
                Token::End => return Err(self.error("a function that never ends")),
                Token::Mark(';') => {
                    self.next();
                }
                Token::Mark('{') => {
                    self.next();
                    if open.len() >= DEEPEST_SCOPE {
                        return Err(self.error("braces nested too deeply"));
                    }
                    body.scopes.push(Scope { parent: Some(scope), ..Scope::default() });
                    open.push(body.scopes.len() - 1);
                }
                Token::Mark('}') => {
                    self.next();
                    open.pop();
                }
                Token::Word(".loc") => source = self.location()?.or(source),
                Token::Word(".pragma") => self.pragma()?,
                Token::Word(".reg") => self.registers(&mut body, scope)?,
                Token::Word(".local" | ".shared" | ".param" | ".global" | ".const") => {
                    let mut variables = Vec::new();
                    self.variables(false, &mut variables)?;
                    let named = variables.into_iter().map(|variable| (variable.name, variable));
                    body.scopes[scope].variables.extend(named);
                }
                Token::Mark('@') => {
                    self.next();
                    let negated = self.take('!');
                    let name = self.word("a guard's predicate")?;
                    let opcode = self.word("an instruction")?;
                    let guard = Some(Guard { name, negated });
                    self.statement(&mut body, opcode, Place { guard, scope, line, source })?;
                }
                Token::Word(word) => {
                    self.next();
                    if self.take(':') {
                        self.label(&mut body, scope, (word, line))?;
                    } else if word.starts_with('.') {
                        return Err(Error::at(line, format!("unknown directive {word}")));
                    } else {
                        self.statement(&mut body, word, Place { guard: None, scope, line, source })?;
                    }
                }
                other => {
                    let message = format!("{} where an instruction should stand", other.shown());
                    return Err(Error::at(line, message));
                }
            }
        }
        Ok(body)
    }

    /// `.loc`: file and line of the source. Line 0 marks code of no line, inside the line before it.
    fn location(&mut self) -> Result<Option<(u32, u32)>> {
        self.next();
        let file = self.integer("a file number")? as u32;
        let number = self.integer("a line")? as u32;
        self.integer("a column")?;
        while self.take(',') {
            match self.word("function_name or inlined_at")? {
                "function_name" => {
                    self.word("a label")?;
                    if self.take('+') {
                        self.integer("an offset")?;
                    }
                }
                "inlined_at" => {
                    for _ in 0..3 {
                        self.integer("a place")?;
                    }
                }
                other => return Err(self.error(&format!("{other} after .loc"))),
            }
        }
        Ok((number != 0).then_some((file, number)))
    }

    /// `.reg .b32 %r<54>, %x;`
    fn registers(&mut self, body: &mut Body<'t>, scope: usize) -> Result<()> {
        let line = self.line();
        self.next();
        let type_name = self.word("a register type")?;
        if type_name != ".pred" && type_bytes(type_name).is_none() {
            return Err(self.error(&format!("{type_name}: not a register type")));
        }
        loop {
            let name = self.word("a register's name")?;
            let mut count = None;
            if self.take('<') {
                let number = self.integer("a register count")?;
                self.expect('>')?;
                if number > MOST_REGISTERS {
                    return Err(Error::at(line, format!("{number} registers are too many")));
                }
                count = Some(number);
            }
            body.registers += count.unwrap_or(1);
            body.scopes[scope].registers.insert(name, (type_name, count));
            if !self.take(',') {
                return self.expect(';');
            }
        }
    }

    /// What follows a label: a table of branches or functions, a signature, or instructions.
    fn label(&mut self, body: &mut Body<'t>, scope: usize, (name, line): (&'t str, u32)) -> Result<()> {
        let at = body.statements.len();
        let scope = &mut body.scopes[scope];
        if self.take_word(".branchtargets") {
            scope.tables.insert(name, self.names("a label")?);
        } else if self.take_word(".calltargets") {
            scope.tables.insert(name, self.names("a function")?);
        } else if self.take_word(".callprototype") {
            scope.prototypes.insert(name, self.prototype()?);
        } else if scope.labels.insert(name, at).is_some() {
            return Err(Error::at(line, format!("label {name} stands twice")));
        }
        Ok(())
    }

    /// `a, b, c;`
    fn names(&mut self, what: &str) -> Result<Vec<&'t str>> {
        let mut names = vec![self.word(what)?];
        while self.take(',') {
            names.push(self.word(what)?);
        }
        self.expect(';')?;
        Ok(names)
    }

    /// `(.param .b32 _) _ (.param .b64 _);` after `.callprototype`.
    fn prototype(&mut self) -> Result<Prototype> {
        let bytes = |params: Vec<Param>| params.iter().map(|param| param.bytes).collect();
        let mut found = Prototype::default();
        if self.peek() == Token::Mark('(') {
            found.results = bytes(self.params()?);
        }
        self.word("_")?;
        if self.peek() == Token::Mark('(') {
            found.params = bytes(self.params()?);
        }
        self.take_word(".noreturn");
        self.expect(';')?;
        Ok(found)
    }

    /// An instruction's operands, after its opcode.
    fn statement(&mut self, body: &mut Body<'t>, opcode: &'t str, place: Place<'t>) -> Result<()> {
        let mut operands = Vec::new();
        if !self.take(';') {
            loop {
                operands.push(Operand::parse(self, 0)?);
                if self.take(';') {
                    break;
                }
                self.expect(',')?;
            }
        }
        let Place { guard, scope, line, source } = place;
        body.statements.push(Statement { guard, opcode, operands, scope, line, source });
        Ok(())
    }
}
