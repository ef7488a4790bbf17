//! What the launcher says, and how the world forms.
//!
//! | launcher | variables |
//! |---|---|
//! | Open MPI's mpirun | OMPI_COMM_WORLD_RANK, _SIZE, _LOCAL_RANK |
//! | MPICH's mpiexec, Intel MPI | PMI_RANK, PMI_SIZE, MPI_LOCALRANKID |
//! | torchrun | RANK, WORLD_SIZE, LOCAL_RANK; MASTER_ADDR, MASTER_PORT, LOCAL_WORLD_SIZE |
//! | srun | SLURM_PROCID, SLURM_STEP_NUM_TASKS, SLURM_LOCALID |

use std::time::Duration;

use anyhow::Result;

use super::World;
use crate::declaration::quoted_where_odd;
use crate::usage;

/// Seconds that a world waits for a process, where nothing is said.
pub const DEFAULT_TIMEOUT: f64 = 300.0;

/// Who has started the processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Launcher {
    /// Open MPI's mpirun.
    OpenMpi,
    /// MPICH's mpiexec, and those of its kin.
    Mpich,
    /// torchrun.
    Torchrun,
    /// SLURM's srun.
    Srun,
}

impl Launcher {
    const ALL: [Self; 4] = [Self::OpenMpi, Self::Mpich, Self::Torchrun, Self::Srun];

    /// Its name.
    pub fn words(self) -> &'static str {
        match self {
            Self::OpenMpi => "mpirun",
            Self::Mpich => "mpiexec",
            Self::Torchrun => "torchrun",
            Self::Srun => "srun",
        }
    }

    /// What to do if MPI does not know of its processes.
    pub fn remedy(self) -> &'static str {
        match self {
            Self::OpenMpi | Self::Mpich => {
                "start it with the mpirun of the MPI that the program was built with (ldd shows which)"
            }
            Self::Torchrun => "start it with mpirun -n N records train ... or srun --mpi=pmix",
            Self::Srun => "say which start-up MPI uses, as in srun --mpi=pmix (srun --mpi=list names them)",
        }
    }

    /// The names of the variables with rank, number of processes, and rank on the machine.
    fn variables(self) -> [&'static str; 3] {
        match self {
            Self::OpenMpi => ["OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK"],
            Self::Mpich => ["PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID"],
            Self::Torchrun => ["RANK", "WORLD_SIZE", "LOCAL_RANK"],
            // A batch script has SLURM_NTASKS as well; only srun says how many tasks a step has.
            Self::Srun => ["SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID"],
        }
    }
}

/// A process as its launcher has started it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Launched {
    /// Who has started it.
    pub by: Launcher,
    /// Its number.
    pub rank: usize,
    /// Processes.
    pub size: usize,
    /// Its number on its machine, if that is said.
    pub local_rank: Option<usize>,
}

/// What the environment says of this process; `None` if no launcher has started it.
///
/// # Errors
/// A usage error for a variable that is no such number.
pub fn launched(variable: &dyn Fn(&str) -> Option<String>) -> Result<Option<Launched>> {
    for by in Launcher::ALL {
        let [rank_name, size_name, local_name] = by.variables();
        let (Some(rank), Some(size)) = (variable(rank_name), variable(size_name)) else { continue };
        let number = |name: &str, text: &str| {
            text.trim().parse::<usize>().map_err(|_| {
                usage!("{name}={}: must be a whole number; {} sets it", quoted_where_odd(text), by.words())
            })
        };
        let (rank, size) = (number(rank_name, &rank)?, number(size_name, &size)?);
        if rank >= size {
            return Err(usage!("{rank_name}={rank}: must be less than {size_name}={size}"));
        }
        let local_rank = variable(local_name).map(|text| number(local_name, &text)).transpose()?;
        let launched = Launched { by, rank, size, local_rank };
        return Ok(Some(if by == Launcher::Mpich { launched.or_srun(variable) } else { launched }));
    }
    Ok(None)
}

impl Launched {
    /// srun --mpi=pmi2 sets mpiexec's variables beside its own. Where both say the same it is srun: mpiexec
    /// itself lets srun start one process a machine, which then starts the others.
    fn or_srun(self, variable: &dyn Fn(&str) -> Option<String>) -> Self {
        let [rank, size, local_rank] = Launcher::Srun.variables().map(|name| variable(name)?.parse().ok());
        if (rank, size) != (Some(self.rank), Some(self.size)) {
            return self;
        }
        Self { by: Launcher::Srun, local_rank: local_rank.or(self.local_rank), ..self }
    }
}

/// The world that the launcher has started this process in; that of one process where there is none.
///
/// # Errors
/// A usage error if this build has no MPI, or the processes are not of one kind; if one does not answer for
/// `limit`.
pub fn form(limit: Duration) -> Result<World> {
    match launched(&|name| std::env::var(name).ok())? {
        Some(launched) if launched.size > 1 => join(&launched, limit),
        _ => Ok(World::default()),
    }
}

#[cfg(not(feature = "mpi"))]
fn join(launched: &Launched, _: Duration) -> Result<World> {
    Err(usage!(
        "this is one of {} processes that {} has started, but this program was built without MPI; build it with \
         cargo build --release --features mpi (docs/several-processes.md), or start one process",
        launched.size,
        launched.by.words()
    ))
}

#[cfg(feature = "mpi")]
fn join(launched: &Launched, limit: Duration) -> Result<World> {
    use std::sync::Arc;

    use super::members;
    use super::mpi::MpiWorld;

    let joined = Arc::new(MpiWorld::join(launched, limit)?);
    let world = World::new(joined.clone());
    let members = members::gather(&world)?;
    joined.know(&members);
    Ok(world.with_members(members).as_launched(launched.local_rank, limit))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(variables: &[(&str, &str)]) -> Result<Option<Launched>> {
        let find = |name: &str| {
            let found = variables.iter().find(|(other, _)| *other == name);
            found.map(|(_, value)| value.to_string())
        };
        launched(&find)
    }

    #[test]
    fn launchers_are_known_by_their_variables() {
        assert_eq!(of(&[]).unwrap(), None);
        // A batch script, in which no srun has started the process.
        assert_eq!(of(&[("SLURM_PROCID", "0"), ("SLURM_NTASKS", "4")]).unwrap(), None);
        let srun = [("SLURM_PROCID", "3"), ("SLURM_STEP_NUM_TASKS", "4"), ("SLURM_LOCALID", "1")];
        let expected = Launched { by: Launcher::Srun, rank: 3, size: 4, local_rank: Some(1) };
        assert_eq!(of(&srun).unwrap(), Some(expected));
        // mpirun inside a step of SLURM.
        let both = [&srun[..], &[("OMPI_COMM_WORLD_RANK", "1"), ("OMPI_COMM_WORLD_SIZE", "2")]].concat();
        let expected = Launched { by: Launcher::OpenMpi, rank: 1, size: 2, local_rank: None };
        assert_eq!(of(&both).unwrap(), Some(expected));
        let torchrun = of(&[("RANK", "0"), ("WORLD_SIZE", "1"), ("LOCAL_RANK", "0")]).unwrap().unwrap();
        assert_eq!((torchrun.by, torchrun.size), (Launcher::Torchrun, 1));
        assert_eq!(of(&[("PMI_RANK", "0"), ("PMI_SIZE", "2")]).unwrap().unwrap().by, Launcher::Mpich);
        // srun --mpi=pmi2, and mpiexec whose two proxies srun has started.
        let pmi2 = [&srun[..], &[("PMI_RANK", "3"), ("PMI_SIZE", "4")]].concat();
        let expected = Launched { by: Launcher::Srun, rank: 3, size: 4, local_rank: Some(1) };
        assert_eq!(of(&pmi2).unwrap(), Some(expected));
        let proxy = [("SLURM_PROCID", "1"), ("SLURM_STEP_NUM_TASKS", "2"), ("SLURM_LOCALID", "0")];
        let hydra = [&proxy[..], &[("PMI_RANK", "3"), ("PMI_SIZE", "4")]].concat();
        let expected = Launched { by: Launcher::Mpich, rank: 3, size: 4, local_rank: None };
        assert_eq!(of(&hydra).unwrap(), Some(expected));
    }

    #[test]
    fn bad_variables_are_named() {
        let error = of(&[("RANK", "one"), ("WORLD_SIZE", "2")]).unwrap_err();
        assert_eq!(error.to_string(), "RANK=one: must be a whole number; torchrun sets it");
        let error = of(&[("RANK", "2"), ("WORLD_SIZE", "2")]).unwrap_err();
        assert_eq!(error.to_string(), "RANK=2: must be less than WORLD_SIZE=2");
    }
}
