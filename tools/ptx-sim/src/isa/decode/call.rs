//! Calls: functions copied in where they are called, by name or through a pointer, and what the host does for
//! a kernel.

use std::collections::HashMap;

use super::DEEPEST_CALL;
use super::frame::{Builder, Frame, Symbol};
use crate::error::{Error, Result};
use crate::isa::Class;
use crate::isa::Compare;
use crate::isa::parse::{Function, Operand, Statement};
use crate::isa::{Constant, END, Guard, HostCall, HostFunction, Op, RegisterFile};

/// What a call statement says.
struct Call<'s, 't> {
    results: &'s [Operand<'t>],
    callee: &'t str,
    arguments: &'s [Operand<'t>],
    /// Of a call through a pointer.
    prototype: Option<&'t str>,
}

impl<'s, 't> Call<'s, 't> {
    fn of(statement: &'s Statement<'t>) -> Result<Self> {
        let mut rest = statement.operands.as_slice();
        let list = |rest: &mut &'s [Operand<'t>]| match *rest {
            [Operand::List(items), more @ ..] => {
                *rest = more;
                items.as_slice()
            }
            _ => &[],
        };
        let results = list(&mut rest);
        let [Operand::Name(callee, 0), after @ ..] = rest else {
            return Err(Error::new("no function named"));
        };
        rest = after;
        let arguments = list(&mut rest);
        let prototype = match rest {
            [] => None,
            [Operand::Name(name, 0)] => Some(*name),
            _ => return Err(Error::new("too many operands")),
        };
        Ok(Self { results, callee, arguments, prototype })
    }
}

/// Functions that the driver or the compiler brings and PTX only declares.
fn host_function(name: &str) -> Option<(HostFunction, usize)> {
    Some(match name {
        "vprintf" => (HostFunction::Print, 2),
        "malloc" => (HostFunction::Allocate, 1),
        "free" => (HostFunction::Free, 1),
        "__assertfail" => (HostFunction::AssertFail, 5),
        _ => return None,
    })
}

impl<'a, 't> Builder<'a, 't> {
    /// Decodes a call: copies the function in, or every function the pointer may mean.
    pub fn call(&mut self, statement: &Statement<'t>) -> Result<()> {
        let call = Call::of(statement)?;
        // A guarded call jumps over the copy.
        let guard = std::mem::replace(&mut self.guard, Guard::ALWAYS);
        self.class = Class::Control;
        let skip = (guard != Guard::ALWAYS).then(|| self.jump(Guard(guard.0 ^ 1)));
        if let Some(function) = self.names.functions.get(call.callee).copied() {
            self.call_function(statement.scope, &call, function)?;
        } else {
            self.call_pointer(statement.scope, &call)?;
        }
        if let Some(skip) = skip {
            self.land(skip);
        }
        Ok(())
    }

    /// A branch to be [landed](Self::land) further on.
    fn jump(&mut self, guard: Guard) -> usize {
        self.guard = guard;
        self.class = Class::Control;
        self.emit(Op::Branch(0, END));
        self.guard = Guard::ALWAYS;
        self.steps.len() - 1
    }

    /// Makes a branch lead to what comes next.
    fn land(&mut self, jump: usize) {
        let here = self.steps.len() as u32;
        if let Op::Branch(target, _) = &mut self.steps[jump].op {
            *target = here;
        }
    }

    fn call_function(&mut self, scope: usize, call: &Call<'_, 't>, function: &'a Function<'t>) -> Result<()> {
        let name = function.name;
        let body = match &function.body {
            Some(body) => body.as_ref().map_err(|error| Error::new(format!("function {name}, {error}")))?,
            None => return self.call_host(scope, call),
        };
        if self.calls.contains(&name) {
            return Err(Error::new(format!("{name} calls itself: recursion is not supported")));
        }
        if self.calls.len() >= DEEPEST_CALL {
            return Err(Error::new("calls nested too deeply"));
        }
        if call.results.len() != function.results.len() || call.arguments.len() != function.params.len() {
            return Err(Error::new(format!("{name}: not the number of parameters it declares")));
        }
        let mut places = HashMap::new();
        let results = call.results.iter().zip(&function.results);
        for (actual, formal) in results.chain(call.arguments.iter().zip(&function.params)) {
            places.insert(formal.name, self.frame_place(scope, name, actual)?);
        }
        self.calls.push(name);
        let at = self.at;
        let done = self.function(Frame::new(body, places, false));
        self.at = at;
        self.calls.pop();
        done
    }

    /// Where a `.param` variable that a call names lies.
    fn frame_place(&mut self, scope: usize, name: &str, actual: &Operand<'t>) -> Result<u32> {
        let Operand::Name(actual, 0) = actual else {
            return Err(Error::new(format!("{name}: arguments that are not .param variables")));
        };
        match self.symbol(scope, actual)? {
            Symbol::Frame(place) => Ok(place),
            _ => Err(Error::new(format!("{name}: {actual} is not a .param variable"))),
        }
    }

    /// Compares the pointer with each function it may mean, and runs the one it is.
    fn call_pointer(&mut self, scope: usize, call: &Call<'_, 't>) -> Result<()> {
        let name = call.callee;
        let pointer = match self.symbol(scope, name) {
            Ok(Symbol::Register(reg)) if reg.file == RegisterFile::D => reg,
            _ => {
                return Err(Error::new(format!(
                    "{name}: not a function of this module, nor a pointer to one"
                )));
            }
        };
        let label =
            call.prototype.ok_or_else(|| Error::new("a call through a pointer without a prototype"))?;
        let candidates = self.candidates(scope, label)?;
        let equal = Compare::find("eq.u64").ok_or_else(|| Error::new("no such comparison"))?;
        let mut ends = Vec::new();
        for function in candidates {
            let address = self.names.function_address(function.name).unwrap_or(0);
            let address = self.constant(RegisterFile::D, Constant::Value(address));
            let is = self.scratch(RegisterFile::Predicate);
            self.class = Class::Control;
            self.emit(Op::Compare(equal, [is.index, pointer.index, address.index]));
            let other = self.jump(Guard(2 * is.index + 1));
            self.call_function(scope, call, function)?;
            ends.push(self.jump(Guard::ALWAYS));
            self.land(other);
        }
        let function = HostFunction::WrongPointer;
        self.host(HostCall { function, arguments: vec![], result: None, pointer: Some(pointer) });
        ends.into_iter().for_each(|end| self.land(end));
        Ok(())
    }

    /// The functions that a pointer with this signature (or this list of targets) may mean.
    fn candidates(&self, scope: usize, label: &str) -> Result<Vec<&'a Function<'t>>> {
        let known = |name: &&'t str| self.names.functions.get(name).copied();
        let free = |function: &&'a Function<'t>| !self.calls.contains(&function.name);
        if let Some((targets, _)) = self.table(scope, label) {
            return Ok(targets.iter().filter_map(known).filter(free).collect());
        }
        let prototype =
            self.prototype(scope, label).ok_or_else(|| Error::new(format!("no prototype {label}")))?;
        let same = |bytes: &[u64], declared: &[crate::isa::parse::Param<'t>]| {
            bytes.len() == declared.len() && bytes.iter().zip(declared).all(|(a, b)| *a == b.bytes)
        };
        let fits =
            |f: &&'a Function<'t>| same(&prototype.results, &f.results) && same(&prototype.params, &f.params);
        Ok(self.names.pointed.iter().filter_map(known).filter(fits).filter(free).collect())
    }

    fn call_host(&mut self, scope: usize, call: &Call<'_, 't>) -> Result<()> {
        let name = call.callee;
        let Some((function, count)) = host_function(name) else {
            return Err(Error::new(format!(
                "the function {name} has no body in this file and is none that is built in"
            )));
        };
        if call.arguments.len() != count || call.results.len() > 1 {
            return Err(Error::new(format!("{name} takes {count} arguments")));
        }
        let arguments = call
            .arguments
            .iter()
            .map(|argument| self.frame_place(scope, name, argument))
            .collect::<Result<Vec<_>>>()?;
        let result = match call.results.first() {
            Some(result) => Some(self.frame_place(scope, name, result)?),
            None => None,
        };
        self.host(HostCall { function, arguments, result, pointer: None });
        Ok(())
    }

    fn host(&mut self, call: HostCall) {
        self.class = Class::Other;
        self.emit(Op::Host(Box::new(call)));
    }
}
