//! The modifiers of an opcode.

use crate::error::{Error, Result};
use crate::isa::Type;

/// The opcode's modifiers, taken one by one; one that is left over is not supported.
pub struct Mods<'t> {
    pub rest: Vec<&'t str>,
}

impl<'t> Mods<'t> {
    /// Those of an opcode.
    pub fn of(opcode: &'t str) -> Self {
        Self { rest: opcode.split('.').skip(1).collect() }
    }

    /// Takes a modifier if it is there.
    pub fn take(&mut self, name: &str) -> bool {
        match self.rest.iter().position(|part| *part == name) {
            Some(at) => {
                self.rest.remove(at);
                true
            }
            None => false,
        }
    }

    /// Takes the first modifier that `find` knows.
    pub fn take_map<T>(&mut self, find: impl Fn(&str) -> Option<T>) -> Option<T> {
        let at = self.rest.iter().position(|part| find(part).is_some())?;
        find(self.rest.remove(at))
    }

    /// All that `find` knows, which stay.
    pub fn all_map<T>(&self, find: impl Fn(&str) -> Option<T>) -> Vec<T> {
        self.rest.iter().filter_map(|part| find(part)).collect()
    }

    /// The first of these that is there.
    pub fn one_of<T: Copy>(&mut self, choices: &[(&str, T)]) -> Option<T> {
        choices.iter().find(|(name, _)| self.take(name)).map(|(_, value)| *value)
    }

    /// The last modifier, which is the type.
    pub fn last_type(&mut self) -> Result<Type> {
        let last = self.rest.pop().unwrap_or("");
        Type::find(last).ok_or_else(|| Error::new(format!("type .{last} is not supported here")))
    }

    /// Drops the modifiers that only advise the caches.
    pub fn drop_hints(&mut self) {
        self.rest.retain(|part| {
            !(matches!(*part, "ca" | "cg" | "cs" | "lu" | "cv" | "wb" | "wt")
                || part.starts_with("L1::")
                || part.starts_with("L2::"))
        });
    }

    /// # Errors
    /// A modifier was not taken.
    pub fn finish(&self) -> Result<()> {
        match self.rest.first() {
            None => Ok(()),
            Some(part) => Err(Error::new(format!("modifier .{part} is not supported"))),
        }
    }

    /// Nothing but these is left.
    pub fn finish_after(mut self, allowed: &[&str]) -> Result<()> {
        for name in allowed {
            self.take(name);
        }
        self.finish()
    }
}
