//! Sums over the processes, in the order of the ranks.

use anyhow::{Result, bail, ensure};

use super::calls::{Communicator, Request};
use crate::collective::Share;

/// A sum, once for every step.
pub(super) struct Sum {
    share: Share,
    communicator: Communicator,
    /// Values.
    len: usize,
    stage: Stage,
}

enum Stage {
    /// Nothing is under way.
    Idle,
    /// Every process receives its part of the values of all.
    Exchanging(Request),
    /// All receive the sums of the parts.
    Gathering(Request),
}

impl Sum {
    pub fn new(rank: usize, size: usize, communicator: Communicator) -> Self {
        let share = Share { rank, size, joint_batchnorm: false };
        Self { share, communicator, len: 0, stage: Stage::Idle }
    }

    /// The bytes of the part that each process adds up.
    fn lengths(&self) -> Vec<usize> {
        (0..self.share.size).map(|rank| 4 * self.share.of_rank(rank, self.len).len()).collect()
    }

    pub fn begin(&mut self, values: &[f32]) -> Result<()> {
        ensure!(matches!(self.stage, Stage::Idle), "a sum is begun that is under way");
        self.len = values.len();
        let own = bytemuck::cast_slice(values).to_vec();
        self.stage = Stage::Exchanging(self.communicator.exchange(own, &self.lengths(), self.share.rank)?);
        Ok(())
    }

    /// Begins the second exchange once the first is done.
    pub fn advance(&mut self) -> Result<()> {
        let Stage::Exchanging(request) = &mut self.stage else { return Ok(()) };
        if !request.test()? {
            return Ok(());
        }
        let Stage::Exchanging(request) = std::mem::replace(&mut self.stage, Stage::Idle) else {
            bail!("a sum without its first exchange")
        };
        let parts = request.into_received();
        let lengths = self.lengths();
        let own = lengths[self.share.rank];
        let mut sum = vec![0f32; own / 4];
        for (rank, part) in parts.chunks_exact(own.max(1)).enumerate() {
            let values = part.as_chunks::<4>().0.iter().map(|&bytes| f32::from_ne_bytes(bytes));
            if rank == 0 {
                sum.iter_mut().zip(values).for_each(|(sum, value)| *sum = value);
            } else {
                sum.iter_mut().zip(values).for_each(|(sum, value)| *sum += value);
            }
        }
        let own = bytemuck::cast_slice(&sum).to_vec();
        self.stage = Stage::Gathering(self.communicator.gather(own, &lengths)?);
        Ok(())
    }

    /// Writes the sum to `values` if it is done; says whether it is.
    pub fn take(&mut self, values: &mut [f32]) -> Result<bool> {
        self.advance()?;
        match &mut self.stage {
            Stage::Idle => bail!("a sum is ended that was not begun"),
            Stage::Exchanging(_) => return Ok(false),
            Stage::Gathering(request) => {
                if !request.test()? {
                    return Ok(false);
                }
            }
        }
        if let Stage::Gathering(request) = std::mem::replace(&mut self.stage, Stage::Idle) {
            let sums = request.into_received();
            ensure!(sums.len() == size_of_val(values), "a sum of {} bytes", sums.len());
            bytemuck::cast_slice_mut::<f32, u8>(values).copy_from_slice(&sums);
        }
        Ok(true)
    }
}
