//! Barriers, shuffles, votes and matrix instructions: what a warp or a block does together.

use super::frame::Builder;
use super::mods::Mods;
use crate::error::{Error, Result};
use crate::isa::parse::{Operand, Statement};
use crate::isa::{
    AtomicKind, Barrier, BarrierKind, Match, MatrixMove, Op, Reduce, Reg, RegisterFile, Shuffle, ShuffleMode,
    Space, Vote, VoteMode,
};

impl<'t> Builder<'_, 't> {
    /// `bar` and `barrier`.
    pub fn barrier(&mut self, statement: &Statement<'t>) -> Result<()> {
        let scope = statement.scope;
        let mut mods = Mods::of(statement.opcode);
        if mods.take("warp") {
            if !mods.take("sync") {
                return Err(Error::new("this barrier is not supported"));
            }
            mods.finish()?;
            Self::count(statement, 1)?;
            let members = self.value(scope, &statement.operands[0], RegisterFile::W, 32)?;
            self.emit(Op::WarpBarrier(members.index));
            return Ok(());
        }
        mods.take("cta");
        if statement.mnemonic() == "barrier" {
            mods.take("aligned");
        }
        if mods.take("red") {
            return self.barrier_reduction(statement, mods);
        }
        let operands = &statement.operands;
        let kind = mods
            .one_of(&[("sync", BarrierKind::Wait), ("arrive", BarrierKind::Arrive)])
            .ok_or_else(|| Error::new("this barrier is not supported"))?;
        mods.finish()?;
        if operands.is_empty() || operands.len() > 2 || kind == BarrierKind::Arrive && operands.len() != 2 {
            return Err(Error::new("a barrier's number and, for some, its thread count belong here"));
        }
        let id = self.value(scope, &operands[0], RegisterFile::W, 32)?;
        let threads = match operands.get(1) {
            Some(operand) => Some(self.value(scope, operand, RegisterFile::W, 32)?),
            None => None,
        };
        self.emit(Op::Barrier(Box::new(Barrier { kind, id, threads, result: None, value: None })));
        Ok(())
    }

    /// `bar.red`.
    fn barrier_reduction(&mut self, statement: &Statement<'t>, mut mods: Mods<'t>) -> Result<()> {
        let (scope, operands) = (statement.scope, &statement.operands);
        mods.take("aligned");
        let kind = mods
            .one_of(&[("popc", BarrierKind::Count), ("and", BarrierKind::And), ("or", BarrierKind::Or)])
            .ok_or_else(|| Error::new("no reduction named"))?;
        let file = if kind == BarrierKind::Count { RegisterFile::W } else { RegisterFile::Predicate };
        if !mods.take(if kind == BarrierKind::Count { "u32" } else { "pred" }) {
            return Err(Error::new("not the type of this reduction"));
        }
        mods.finish()?;
        if !(3..=4).contains(&operands.len()) {
            return Err(Error::new("3 or 4 operands belong here"));
        }
        let result = self.result(scope, &operands[0], file)?;
        let id = self.value(scope, &operands[1], RegisterFile::W, 32)?;
        let threads = match operands.len() {
            4 => Some(self.value(scope, &operands[2], RegisterFile::W, 32)?),
            _ => None,
        };
        let value = self.predicate(scope, &operands[operands.len() - 1])?;
        self.emit(Op::Barrier(Box::new(Barrier {
            kind,
            id,
            threads,
            result: Some(result),
            value: Some(value),
        })));
        Ok(())
    }

    /// `d`, `d|p` or `_|p` of shuffles and matches.
    fn result_and_predicate(
        &mut self,
        scope: usize,
        operand: &Operand<'t>,
    ) -> Result<(Option<Reg>, Option<Reg>)> {
        let (d, p) = match operand {
            Operand::Pair(d, p) => (*d, Some(*p)),
            Operand::Name(d, 0) => (*d, None),
            Operand::Nothing => return Ok((None, None)),
            _ => return Err(Error::new("a result that is no register")),
        };
        let d = match d {
            "_" => None,
            name => Some(self.result(scope, &Operand::Name(name, 0), RegisterFile::W)?),
        };
        let p = match p {
            None | Some("_") => None,
            Some(name) => Some(self.result(scope, &Operand::Name(name, 0), RegisterFile::Predicate)?),
        };
        Ok((d, p))
    }

    /// `shfl`.
    pub fn shuffle(&mut self, statement: &Statement<'t>) -> Result<()> {
        let scope = statement.scope;
        let mut mods = Mods::of(statement.opcode);
        let sync = mods.take("sync");
        let mode = mods
            .one_of(&[
                ("up", ShuffleMode::Up),
                ("down", ShuffleMode::Down),
                ("bfly", ShuffleMode::Butterfly),
                ("idx", ShuffleMode::Index),
            ])
            .ok_or_else(|| Error::new("no mode named"))?;
        if !mods.take("b32") {
            return Err(Error::new("only .b32 is supported"));
        }
        mods.finish()?;
        Self::count(statement, if sync { 5 } else { 4 })?;
        let (result, inside) = self.result_and_predicate(scope, &statement.operands[0])?;
        let mut word = |place: usize| self.value(scope, &statement.operands[place], RegisterFile::W, 32);
        let (value, lane, clamp) = (word(1)?, word(2)?, word(3)?);
        let members = if sync { Some(word(4)?) } else { None };
        self.emit(Op::Shuffle(Box::new(Shuffle { mode, result, inside, value, lane, clamp, members })));
        Ok(())
    }

    /// `vote`.
    pub fn vote(&mut self, statement: &Statement<'t>) -> Result<()> {
        let scope = statement.scope;
        let mut mods = Mods::of(statement.opcode);
        let sync = mods.take("sync");
        let mode = mods
            .one_of(&[
                ("all", VoteMode::All),
                ("any", VoteMode::Any),
                ("uni", VoteMode::Uniform),
                ("ballot", VoteMode::Ballot),
            ])
            .ok_or_else(|| Error::new("no mode named"))?;
        let ballot = mode == VoteMode::Ballot;
        if !mods.take(if ballot { "b32" } else { "pred" }) {
            return Err(Error::new("not the type of this vote"));
        }
        mods.finish()?;
        Self::count(statement, if sync { 3 } else { 2 })?;
        let file = if ballot { RegisterFile::W } else { RegisterFile::Predicate };
        let result = match &statement.operands[0] {
            Operand::Nothing => self.scratch(file),
            operand => self.result(scope, operand, file)?,
        };
        let (value, negated) = self.predicate(scope, &statement.operands[1])?;
        let members = match sync {
            true => Some(self.value(scope, &statement.operands[2], RegisterFile::W, 32)?),
            false => None,
        };
        self.emit(Op::Vote(Box::new(Vote { mode, result, value, negated, members })));
        Ok(())
    }

    /// `match`.
    pub fn matching(&mut self, statement: &Statement<'t>) -> Result<()> {
        Self::count(statement, 3)?;
        let scope = statement.scope;
        let mut mods = Mods::of(statement.opcode);
        let wide = mods.last_type()?.bytes() == 8;
        let all = mods.take("all");
        if !all && !mods.take("any") || !mods.take("sync") {
            return Err(Error::new("this match is not supported"));
        }
        mods.finish()?;
        let (result, same) = self.result_and_predicate(scope, &statement.operands[0])?;
        let result = match result {
            Some(result) => result,
            None => self.scratch(RegisterFile::W),
        };
        let (file, bits) = if wide { (RegisterFile::D, 64) } else { (RegisterFile::W, 32) };
        let value = self.value(scope, &statement.operands[1], file, bits)?;
        let members = self.value(scope, &statement.operands[2], RegisterFile::W, 32)?;
        self.emit(Op::Match(Box::new(Match { all, result, same, value, members })));
        Ok(())
    }

    /// `redux`.
    pub fn reduce(&mut self, statement: &Statement<'t>) -> Result<()> {
        Self::count(statement, 3)?;
        let scope = statement.scope;
        let mut mods = Mods::of(statement.opcode);
        let signed = mods.take("s32");
        if !mods.take("sync") || !signed && !mods.take("u32") && !mods.take("b32") {
            return Err(Error::new("this reduction is not supported"));
        }
        let kind = mods
            .one_of(&[
                ("add", AtomicKind::Add),
                ("min", AtomicKind::Min),
                ("max", AtomicKind::Max),
                ("and", AtomicKind::And),
                ("or", AtomicKind::Or),
                ("xor", AtomicKind::Xor),
            ])
            .ok_or_else(|| Error::new("no operation named"))?;
        mods.finish()?;
        let result = self.result(scope, &statement.operands[0], RegisterFile::W)?;
        let value = self.value(scope, &statement.operands[1], RegisterFile::W, 32)?;
        let members = self.value(scope, &statement.operands[2], RegisterFile::W, 32)?;
        self.emit(Op::Reduce(Box::new(Reduce { kind, signed, result, value, members })));
        Ok(())
    }

    /// `elect`.
    pub fn elect(&mut self, statement: &Statement<'t>) -> Result<()> {
        Self::count(statement, 2)?;
        let scope = statement.scope;
        if statement.opcode != "elect.sync" {
            return Err(Error::new("this form is not supported"));
        }
        let (result, elected) = self.result_and_predicate(scope, &statement.operands[0])?;
        let elected = match elected {
            Some(elected) => elected,
            None => self.scratch(RegisterFile::Predicate),
        };
        let members = self.value(scope, &statement.operands[1], RegisterFile::W, 32)?;
        self.emit(Op::Elect(Box::new((result.map(|reg| reg.index), elected.index, members.index))));
        Ok(())
    }

    /// A vector of 32-bit registers.
    pub fn words(
        &mut self,
        scope: usize,
        operand: &Operand<'t>,
        count: usize,
        result: bool,
    ) -> Result<Vec<Reg>> {
        let parts: &[Operand<'t>] = match operand {
            Operand::Vector(parts) => parts,
            single => std::slice::from_ref(single),
        };
        if parts.len() != count {
            return Err(Error::new(format!("{} registers where {count} belong", parts.len())));
        }
        parts
            .iter()
            .map(|part| match (result, part) {
                (true, Operand::Nothing) => Ok(self.scratch(RegisterFile::W)),
                (true, _) => self.result(scope, part, RegisterFile::W),
                (false, _) => self.value(scope, part, RegisterFile::W, 32),
            })
            .collect()
    }

    /// `ldmatrix` and `stmatrix`.
    pub fn matrix_move(&mut self, statement: &Statement<'t>) -> Result<()> {
        Self::count(statement, 2)?;
        let scope = statement.scope;
        let mut mods = Mods::of(statement.opcode);
        let known = mods.take("sync") && mods.take("aligned") && mods.take("m8n8") && mods.take("b16");
        let count = mods.one_of(&[("x1", 1), ("x2", 2), ("x4", 4)]);
        let (Some(count), true) = (count, known) else {
            return Err(Error::new("this form is not supported"));
        };
        let transposed = mods.take("trans");
        let space =
            if mods.take("shared") || mods.take("shared::cta") { Space::Shared } else { Space::Generic };
        mods.finish()?;
        let load = statement.mnemonic() == "ldmatrix";
        let (address, data) = if load { (1, 0) } else { (0, 1) };
        let (address, space) = self.address(scope, &statement.operands[address], space)?;
        let registers = self.words(scope, &statement.operands[data], count, load)?;
        let it = Box::new(MatrixMove { transposed, space, address, registers });
        self.emit(if load { Op::MatrixLoad(it) } else { Op::MatrixStore(it) });
        Ok(())
    }
}
