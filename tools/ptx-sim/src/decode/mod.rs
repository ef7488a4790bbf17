//! Names to numbers: kernels as flat lists of instructions, with called functions copied in where they are called.

mod frame;
mod instruction;
mod memory;
mod warp;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::code::{Kernel, ModuleVariable, Parameter};
use crate::error::{Error, Result};
use crate::flow;
use crate::parse::{self, Function, Module, Space};
use crate::waits;
use frame::{Builder, Frame};

/// More instructions than any kernel has, calls copied in.
const MOST_STEPS: usize = 4 << 20;
const DEEPEST_CALL: usize = 32;

/// A parsed and decoded PTX module.
#[derive(Debug)]
pub struct Program {
    pub(crate) id: u64,
    kernels: Vec<Kernel>,
    by_name: HashMap<String, usize>,
    pub(crate) variables: Vec<ModuleVariable>,
}

impl Program {
    /// Parses and decodes PTX text.
    ///
    /// # Errors
    /// The line and what is wrong there: a syntax error, an unknown name, or an instruction that isn't supported.
    pub fn parse(ptx: &str) -> Result<Program> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let module = parse::parse(ptx)?;
        let mut names = HashMap::new();
        for (index, variable) in module.variables.iter().enumerate() {
            if names.insert(variable.name, index).is_some() {
                return Err(Error::at(variable.line, format!("{} is declared twice", variable.name)));
            }
        }
        // Shared variables keep a place in the list so that indices are those of the parsed module.
        let mut variables = Vec::new();
        for variable in &module.variables {
            let mut addresses = Vec::new();
            for (offset, name, addend) in &variable.addresses {
                let index = names.get(name).filter(|index| module.variables[**index].space != Space::Shared);
                let index = *index.ok_or_else(|| {
                    Error::at(variable.line, format!("{}: no address of {name}", variable.name))
                })?;
                addresses.push((*offset, index, *addend));
            }
            variables.push(ModuleVariable {
                name: variable.name.to_string(),
                bytes: if variable.space == Space::Shared { 0 } else { variable.bytes as usize },
                initial: variable.initial.clone(),
                addresses,
            });
        }
        let mut functions: HashMap<&str, &Function> = HashMap::new();
        for function in &module.functions {
            if function.body.is_some() || !functions.contains_key(function.name) {
                functions.insert(function.name, function);
            }
        }
        let (mut kernels, mut by_name) = (Vec::new(), HashMap::new());
        for function in module.functions.iter().filter(|function| function.entry) {
            let kernel = kernel(&module, &names, &functions, function)
                .map_err(|error| Error::new(format!("kernel {}, {error}", function.name)))?;
            if by_name.insert(kernel.name.clone(), kernels.len()).is_some() {
                return Err(Error::at(function.line, format!("kernel {} stands twice", function.name)));
            }
            kernels.push(kernel);
        }
        Ok(Program { id: NEXT.fetch_add(1, Ordering::Relaxed), kernels, by_name, variables })
    }

    /// Names of the kernels, in order.
    pub fn kernels(&self) -> impl Iterator<Item = &str> {
        self.kernels.iter().map(|kernel| kernel.name.as_str())
    }

    /// What is known of a kernel without running it.
    pub fn describe(&self, kernel: &str) -> Option<Description> {
        self.kernel(kernel).map(|kernel| Description {
            parameters: kernel.parameters.clone(),
            parameter_bytes: kernel.parameter_bytes,
            registers: kernel.declared_registers,
            instructions: kernel.steps.len(),
            shared_bytes: kernel.shared_bytes,
            local_bytes: kernel.local_bytes,
            most_threads: kernel.most_threads,
        })
    }

    pub(crate) fn kernel(&self, name: &str) -> Option<&Kernel> {
        self.by_name.get(name).map(|index| &self.kernels[*index])
    }
}

/// A kernel as `ptx-sim list` shows it.
#[derive(Clone, Debug)]
pub struct Description {
    /// Its parameters, in order.
    pub parameters: Vec<Parameter>,
    /// All of them, packed at their alignment.
    pub parameter_bytes: u32,
    /// Virtual registers declared.
    pub registers: u64,
    /// Instructions, with called functions copied in.
    pub instructions: usize,
    /// Static shared memory.
    pub shared_bytes: u32,
    /// Local memory of one thread.
    pub local_bytes: u32,
    /// From `__launch_bounds__`.
    pub most_threads: Option<u64>,
}

fn kernel(
    module: &Module<'_>,
    names: &HashMap<&str, usize>,
    functions: &HashMap<&str, &Function<'_>>,
    function: &Function<'_>,
) -> Result<Kernel> {
    let mut offset = 0u64;
    let (mut parameters, mut places) = (Vec::new(), HashMap::new());
    for param in &function.params {
        offset = offset.next_multiple_of(param.align);
        places.insert(param.name, offset as u32);
        parameters.push(Parameter {
            name: param.name.to_string(),
            type_name: param.type_name.trim_start_matches('.').to_string(),
            offset: offset as u32,
            bytes: param.bytes as u32,
        });
        offset += param.bytes;
        if offset > 32764 {
            return Err(Error::at(function.line, "more than 32764 bytes of parameters"));
        }
    }
    let body = function.body.as_ref().ok_or_else(|| Error::at(function.line, "an entry without a body"))?;
    let mut builder = Builder::new(module, names, functions);
    builder.function(Frame::new(body, places, true))?;
    // A body that runs off its end returns.
    builder.emit_end(function.line);
    let (mut steps, rows, constants, shared_bytes, local_bytes, shared_labels) = builder.finish()?;
    flow::set_joins(&mut steps);
    waits::mark(&mut steps);
    Ok(Kernel {
        name: function.name.to_string(),
        steps,
        rows,
        constants,
        parameters,
        parameter_bytes: offset as u32,
        shared_bytes,
        local_bytes,
        declared_registers: body.registers,
        most_threads: function.most_threads,
        shared_labels,
        files: module.files.iter().map(|(index, name)| (*index, (*name).to_string())).collect(),
    })
}
