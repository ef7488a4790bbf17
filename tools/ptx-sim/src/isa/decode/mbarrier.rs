//! Barriers in shared memory: `mbarrier` and `cp.async.mbarrier`.

use super::frame::Builder;
use super::mods::Mods;
use crate::error::{Error, Result};
use crate::isa::parse::{Operand, Statement};
use crate::isa::{Mbarrier, MbarrierKind, Op, RegisterFile, Space};

/// The state space: shared or generic.
fn space(mods: &mut Mods<'_>) -> Space {
    if mods.take("shared") || mods.take("shared::cta") { Space::Shared } else { Space::Generic }
}

impl<'t> Builder<'_, 't> {
    /// `mbarrier`.
    pub fn mbarrier(&mut self, statement: &Statement<'t>) -> Result<()> {
        let mut mods = Mods::of(statement.opcode);
        if mods.take("pending_count") {
            return self.pending_count(statement, mods);
        }
        let kind = mods
            .one_of(&[
                ("init", MbarrierKind::Init),
                ("inval", MbarrierKind::Invalidate),
                ("arrive", MbarrierKind::Arrive),
                ("arrive_drop", MbarrierKind::ArriveDrop),
                ("test_wait", MbarrierKind::Test),
                ("try_wait", MbarrierKind::Test),
                ("expect_tx", MbarrierKind::Expect),
                ("complete_tx", MbarrierKind::CompleteBytes),
            ])
            .ok_or_else(|| Error::new("this form is not supported"))?;
        let kind = match kind {
            MbarrierKind::Arrive if mods.take("noComplete") => MbarrierKind::ArriveNoComplete,
            MbarrierKind::Arrive if mods.take("expect_tx") => MbarrierKind::ArriveExpect,
            MbarrierKind::Test if mods.take("parity") => MbarrierKind::TestParity,
            kind => kind,
        };
        let order = mods.one_of(&[("release", 'r'), ("acquire", 'a'), ("relaxed", '-')]);
        mods.one_of(&[("cta", ()), ("cluster", ())]);
        let space = space(&mut mods);
        if !mods.take("b64") {
            return Err(Error::new("an mbarrier has the type .b64"));
        }
        mods.finish()?;
        let mut it = self.mbarrier_operands(statement, kind, space)?;
        it.acquires = matches!(kind, MbarrierKind::Test | MbarrierKind::TestParity) && order != Some('-');
        it.releases = !matches!(kind, MbarrierKind::Test | MbarrierKind::TestParity) && order != Some('-');
        self.emit(Op::Mbarrier(Box::new(it)));
        Ok(())
    }

    fn mbarrier_operands(
        &mut self,
        statement: &Statement<'t>,
        kind: MbarrierKind,
        space: Space,
    ) -> Result<Mbarrier> {
        use MbarrierKind::{
            Arrive, ArriveDrop, ArriveExpect, ArriveNoComplete, CompleteBytes, Expect, Init, Test, TestParity,
        };
        let scope = statement.scope;
        let mut rest = statement.operands.as_slice();
        let mut result = None;
        if matches!(kind, Arrive | ArriveDrop | ArriveExpect | ArriveNoComplete | Test | TestParity)
            && !matches!(rest.first(), Some(Operand::Memory(..)))
        {
            let waits = matches!(kind, Test | TestParity);
            result = match &rest.first() {
                Some(Operand::Nothing) => None,
                Some(operand) => Some(self.result(
                    scope,
                    operand,
                    if waits { RegisterFile::Predicate } else { RegisterFile::D },
                )?),
                None => return Err(Error::new("an operand is missing")),
            };
            rest = &rest[1..];
        }
        let [address, after @ ..] = rest else {
            return Err(Error::new("an operand is missing"));
        };
        let (address, space) = self.address(scope, address, space)?;
        let file = if kind == Test { RegisterFile::D } else { RegisterFile::W };
        let bits = if kind == Test { 64 } else { 32 };
        let operand = match after.first() {
            Some(operand) => Some(self.value(scope, operand, file, bits)?),
            None => None,
        };
        // Of `try_wait` a second one says how long to wait, which is up to the machine.
        let needed = matches!(
            kind,
            Init | ArriveExpect | ArriveNoComplete | Expect | CompleteBytes | Test | TestParity
        );
        let most = 1 + usize::from(matches!(kind, Test | TestParity));
        if needed && operand.is_none() || after.len() > most {
            return Err(Error::new("not the operands of this instruction"));
        }
        Ok(Mbarrier { kind, space, address, operand, result, acquires: false, releases: false })
    }

    fn pending_count(&mut self, statement: &Statement<'t>, mut mods: Mods<'t>) -> Result<()> {
        Self::count(statement, 2)?;
        if !mods.take("b64") {
            return Err(Error::new("an mbarrier has the type .b64"));
        }
        mods.finish()?;
        let result = self.result(statement.scope, &statement.operands[0], RegisterFile::W)?;
        let state = self.value(statement.scope, &statement.operands[1], RegisterFile::D, 64)?;
        self.emit(Op::PendingCount(result.index, state.index));
        Ok(())
    }

    /// `cp.async.mbarrier.arrive`.
    pub fn copies_arrive(&mut self, statement: &Statement<'t>, mut mods: Mods<'t>) -> Result<()> {
        Self::count(statement, 1)?;
        if !mods.take("arrive") {
            return Err(Error::new("this form is not supported"));
        }
        let kind =
            if mods.take("noinc") { MbarrierKind::CopiesArrive } else { MbarrierKind::CopiesArriveIncrement };
        let space = space(&mut mods);
        if !mods.take("b64") {
            return Err(Error::new("an mbarrier has the type .b64"));
        }
        mods.finish()?;
        let (address, space) = self.address(statement.scope, &statement.operands[0], space)?;
        let (operand, result) = (None, None);
        let it = Mbarrier { kind, space, address, operand, result, acquires: false, releases: true };
        self.emit(Op::Mbarrier(Box::new(it)));
        Ok(())
    }
}
