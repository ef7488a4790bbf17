//! What every process says of itself when the world forms, and what must be the same for all.

use std::io::Read as _;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use super::World;
use crate::declaration::quoted_where_odd;
use crate::usage;

/// A process of the world.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// This program's version, and a checksum of its file.
    pub program: String,
    /// The name of its machine.
    pub host: String,
    /// Its machine, or the container whose processes it sees.
    pub machine: String,
    /// Its number there.
    pub process: i32,
    /// The processors that it may use, and those of the machine.
    pub processors: [usize; 2],
}

impl Member {
    /// This process.
    pub fn this() -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default().trim().to_string();
        let space = std::fs::read_link("/proc/self/ns/pid").unwrap_or_default();
        // SAFETY: the call only asks.
        let online = unsafe { libc::sysconf(libc::_SC_NPROCESSORS_ONLN) };
        Self {
            program: format!("{} ({:08x})", env!("CARGO_PKG_VERSION"), program_checksum()),
            host: read("/proc/sys/kernel/hostname"),
            machine: format!("{} {}", read("/proc/sys/kernel/random/boot_id"), space.display()),
            process: std::process::id() as i32,
            processors: [std::thread::available_parallelism().map_or(1, usize::from), online.max(1) as usize],
        }
    }

    /// Its name in messages.
    pub fn named(&self, rank: usize) -> String {
        format!("rank {rank} (process {} on {})", self.process, quoted_where_odd(&self.host))
    }

    /// How many threads it takes where nothing is said: those that it may use, divided by the `neighbours` on
    /// its machine, itself included, unless the launcher has divided the processors already.
    pub fn threads(&self, neighbours: usize) -> usize {
        let [allowed, online] = self.processors;
        allowed.min((online / neighbours.max(1)).max(1))
    }
}

/// A checksum of this program: two builds of one version may round differently.
fn program_checksum() -> u32 {
    let Ok(mut file) = std::fs::File::open("/proc/self/exe") else { return 0 };
    let (mut sum, mut block) = (0, vec![0; 1 << 20]);
    while let Ok(read @ 1..) = file.read(&mut block) {
        sum = crc32c::crc32c_append(sum, &block[..read]);
    }
    sum
}

/// Gathers who the processes are.
///
/// # Errors
/// A usage error if they run different programs; if another process does not take part.
pub fn gather(world: &World) -> Result<Vec<Member>> {
    let own = serde_json::to_vec(&Member::this())?;
    let all = world.collective().gather_any(&own)?;
    let member = |bytes: &Vec<u8>| serde_json::from_slice(bytes).context("a process of another program");
    let members: Vec<Member> = all.iter().map(member).collect::<Result<_>>()?;
    let programs: Vec<_> =
        members.iter().map(|m| vec![("the program".to_string(), m.program.clone())]).collect();
    check_same(&programs, &members, "start the same program everywhere")?;
    Ok(members)
}

/// Checks that all processes say the same.
///
/// # Errors
/// A usage error, the same on all, that names the first thing that differs, the values and `remedy`; if
/// another process does not take part.
pub fn agree(world: &World, members: &[Member], own: &[(String, String)], remedy: &str) -> Result<()> {
    if world.is_alone() {
        return Ok(());
    }
    let all = world.collective().gather_any(&serde_json::to_vec(own)?)?;
    let said = |bytes: &Vec<u8>| Ok(serde_json::from_slice(bytes)?);
    let all: Vec<Vec<(String, String)>> = all.iter().map(said).collect::<Result<_>>()?;
    check_same(&all, members, remedy)
}

fn check_same(all: &[Vec<(String, String)>], members: &[Member], remedy: &str) -> Result<()> {
    let value = |said: &[(String, String)], name: &str| {
        let found = said.iter().find(|(other, _)| other == name);
        found.map_or("not given".into(), |(_, value)| quoted_where_odd(value))
    };
    for (rank, said) in all.iter().enumerate() {
        let names = all[0].iter().chain(said).map(|(name, _)| name);
        for name in names {
            let [first, here] = [value(&all[0], name), value(said, name)];
            if first != here {
                let [first_named, named] = [0, rank].map(|rank| members[rank].named(rank));
                return Err(usage!("{name} is {first} on {first_named} and {here} on {named}; {remedy}"));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(process: i32) -> Member {
        Member { process, host: "a".into(), ..Member::this() }
    }

    #[test]
    fn what_differs_is_named() {
        let members = [member(10), member(11), member(12)];
        let say = |lr: &str| vec![("seed".to_string(), "1".to_string()), ("lr".into(), lr.into())];
        assert!(check_same(&[say("0.1"), say("0.1")], &members, "x").is_ok());
        let error = check_same(&[say("0.1"), say("0.1"), say("0.2")], &members, "do better").unwrap_err();
        assert_eq!(
            error.to_string(),
            "lr is 0.1 on rank 0 (process 10 on a) and 0.2 on rank 2 (process 12 on a); do better"
        );
        let error = check_same(&[say("0.1")[..1].to_vec(), say("0.1")], &members, "x").unwrap_err();
        assert!(error.to_string().starts_with("lr is not given on rank 0"), "{error}");
    }

    #[test]
    fn processors_are_divided_once() {
        let with = |processors| Member { processors, ..Member::this() };
        assert_eq!(with([8, 8]).threads(2), 4);
        assert_eq!(with([4, 8]).threads(2), 4);
        assert_eq!(with([1, 2]).threads(4), 1);
        assert_eq!(with([8, 8]).threads(1), 8);
    }
}
