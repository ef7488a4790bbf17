//! PTX text to a tree of names: what is declared and which instructions stand where. Nothing is interpreted
//! here.

mod body;
mod cursor;
mod instruction;
mod lexer;
mod module;

pub use instruction::{Base, Operand};
pub use module::{
    Body, Function, InitialAddress, Module, Param, Prototype, Space, Statement, Variable, parse, type_bytes,
};
