//! Names to numbers: kernels as flat lists of instructions, with called functions copied in where they are
//! called.

mod call;
mod frame;
mod instruction;
mod kinds;
mod matrix;
mod mbarrier;
mod memory;
mod mods;
mod packed;
mod warp;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{Error, Result};
use crate::isa::flow;
use crate::isa::parse::{self, Function, Module, Operand, Space};
use crate::isa::waits;
use crate::isa::{FUNCTION_WINDOW, Kernel, ModuleVariable, Parameter, VariableAddress};
use frame::{Assembled, Builder, Frame};

/// More instructions than any kernel has, calls copied in.
const MOST_STEPS: usize = 4 << 20;
const DEEPEST_CALL: usize = 32;

/// What ptxas allows one kernel to declare.
const MOST_STATIC_SHARED: u32 = 48 << 10;

/// A parsed and decoded PTX module.
#[derive(Debug)]
pub struct Program {
    pub(crate) id: u64,
    /// In the order of the text, each with its kernel or why it cannot be run.
    kernels: Vec<(String, Result<Kernel>)>,
    by_name: HashMap<String, usize>,
    pub(crate) variables: Vec<ModuleVariable>,
}

impl Program {
    /// Parses and decodes PTX text.
    ///
    /// A kernel that uses what is not supported does not keep the others from running: see
    /// [`Program::unsupported`].
    ///
    /// # Errors
    /// The line and what is wrong there, if the text is wrong outside functions.
    pub fn parse(ptx: &str) -> Result<Program> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let module = parse::parse(ptx)?;
        let names = Names::of(&module)?;
        let variables = variables(&module, &names)?;
        let (mut kernels, mut by_name) = (Vec::new(), HashMap::new());
        for function in module.functions.iter().filter(|function| function.entry) {
            let kernel = kernel(&module, &names, function)
                .map_err(|error| Error::new(format!("kernel {}, {error}", function.name)));
            if by_name.insert(function.name.to_string(), kernels.len()).is_some() {
                return Err(Error::at(function.line, format!("kernel {} stands twice", function.name)));
            }
            kernels.push((function.name.to_string(), kernel));
        }
        Ok(Program { id: NEXT.fetch_add(1, Ordering::Relaxed), kernels, by_name, variables })
    }

    /// Names of the kernels, in order, those included that cannot be run.
    pub fn kernels(&self) -> impl Iterator<Item = &str> {
        self.kernels.iter().map(|(name, _)| name.as_str())
    }

    /// What is known of a kernel without running it; None if there is none of that name or it cannot be run.
    pub fn describe(&self, kernel: &str) -> Option<Description> {
        self.kernel(kernel).and_then(|kernel| kernel.as_ref().ok()).map(|kernel| Description {
            parameters: kernel.parameters.clone(),
            parameter_bytes: kernel.parameter_bytes,
            registers: kernel.declared_registers,
            instructions: kernel.steps.len(),
            shared_bytes: kernel.shared_bytes,
            local_bytes: kernel.local_bytes,
            most_threads: kernel.most_threads,
        })
    }

    /// Why a kernel cannot be run: the line and what is not supported there. None if it can, or if there is
    /// no such kernel.
    pub fn unsupported(&self, kernel: &str) -> Option<&Error> {
        self.kernel(kernel).and_then(|kernel| kernel.as_ref().err())
    }

    pub(crate) fn kernel(&self, name: &str) -> Option<&Result<Kernel>> {
        self.by_name.get(name).map(|index| &self.kernels[*index].1)
    }
}

/// What the module's names stand for.
pub struct Names<'a, 't> {
    /// Places in the module's list of variables.
    pub variables: HashMap<&'t str, usize>,
    pub functions: HashMap<&'t str, &'a Function<'t>>,
    /// Functions whose address is taken somewhere, in the order of the text: what a pointer may call.
    pub pointed: Vec<&'t str>,
}

impl<'a, 't> Names<'a, 't> {
    fn of(module: &'a Module<'t>) -> Result<Self> {
        let mut variables = HashMap::new();
        for (index, variable) in module.variables.iter().enumerate() {
            let earlier = variables.insert(variable.name, index).map(|index| &module.variables[index]);
            // `.extern` before the definition.
            if earlier.is_some_and(|earlier| !earlier.external && !variable.external) {
                return Err(Error::at(variable.line, format!("{} is declared twice", variable.name)));
            }
            if let (Some(earlier), true) = (earlier, variable.external) {
                let place = module.variables.iter().position(|other| std::ptr::eq(other, earlier));
                variables.insert(variable.name, place.unwrap_or(index));
            }
        }
        let mut functions: HashMap<&str, &Function> = HashMap::new();
        for function in &module.functions {
            if function.body.is_some() || !functions.contains_key(function.name) {
                functions.insert(function.name, function);
            }
        }
        for (name, meant) in &module.aliases {
            if let Some(function) = functions.get(meant).copied() {
                functions.insert(name, function);
            }
        }
        let mut taken: Vec<&'t str> =
            module.variables.iter().flat_map(|v| &v.addresses).map(|address| address.name).collect();
        let bodies = module.functions.iter().filter_map(|f| f.body.as_ref()?.as_ref().ok());
        for statement in bodies.flat_map(|body| &body.statements) {
            if statement.opcode.starts_with("mov.") || statement.opcode.starts_with("st.") {
                taken.extend(statement.operands.iter().filter_map(|operand| match operand {
                    Operand::Name(name, _) => Some(*name),
                    _ => None,
                }));
            }
        }
        taken.sort_unstable();
        let pointed = module
            .functions
            .iter()
            .filter(|f| f.body.is_some() && !f.entry && taken.binary_search(&f.name).is_ok())
            .map(|f| f.name)
            .collect();
        Ok(Self { variables, functions, pointed })
    }

    /// The address a pointer to a function has.
    pub fn function_address(&self, name: &str) -> Option<u64> {
        let function = self.functions.get(name)?;
        let place = self.pointed.iter().position(|other| *other == function.name)?;
        Some(FUNCTION_WINDOW + 16 * place as u64)
    }
}

/// The module's variables with their initial values. Shared ones keep a place in the list, so that places are
/// those of the parsed module.
fn variables(module: &Module<'_>, names: &Names<'_, '_>) -> Result<Vec<ModuleVariable>> {
    let mut variables = Vec::new();
    for variable in &module.variables {
        let (mut addresses, mut initial) = (Vec::new(), variable.initial.clone());
        for address in &variable.addresses {
            let parse::InitialAddress { offset, bytes, name, addend, mask } = *address;
            if let Some(function) = names.function_address(name) {
                let value = (function.wrapping_add(addend as u64) & mask) >> mask.trailing_zeros();
                initial[offset..offset + bytes].copy_from_slice(&value.to_le_bytes()[..bytes]);
                continue;
            }
            let index = names.variables.get(name);
            let index = index.filter(|index| module.variables[**index].space != Space::Shared);
            let variable = *index.ok_or_else(|| {
                Error::at(variable.line, format!("{}: no address of {name}", variable.name))
            })?;
            addresses.push(VariableAddress { offset, bytes, variable, addend, mask });
        }
        variables.push(ModuleVariable {
            name: variable.name.to_string(),
            bytes: if variable.space == Space::Shared { 0 } else { variable.bytes as usize },
            initial,
            addresses,
        });
    }
    Ok(variables)
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

fn kernel(module: &Module<'_>, names: &Names<'_, '_>, function: &Function<'_>) -> Result<Kernel> {
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
    let body = body.as_ref().map_err(Error::clone)?;
    let mut builder = Builder::new(module, names);
    builder.function(Frame::new(body, places, true))?;
    // A body that runs off its end returns.
    builder.emit_end(function.line);
    let Assembled { mut steps, rows, constants, shared_bytes, shared_gaps, local_bytes, shared_labels } =
        builder.finish()?;
    if shared_bytes > MOST_STATIC_SHARED {
        let message =
            format!("{shared_bytes} bytes of static shared memory; the most is {MOST_STATIC_SHARED}");
        return Err(Error::at(function.line, message));
    }
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
        shared_gaps,
        local_bytes,
        declared_registers: body.registers,
        most_threads: function.most_threads,
        required_threads: function.required_threads,
        shared_labels,
        files: module.files.iter().map(|(index, name)| (*index, (*name).to_string())).collect(),
    })
}
