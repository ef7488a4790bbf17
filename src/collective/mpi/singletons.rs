//! A world of processes that were started without MPI, as torchrun starts them.
//!
//! Open MPI up to version 4 lets processes that began alone, its singletons, connect to each other where its own
//! name server, ompi-server, tells them of the others. The first process starts it, at the port behind
//! MASTER_PORT (torchrun itself listens at that one) and under a fixed number, so that everyone knows its
//! address. One process after another then connects to all before it, in the order of the ranks.

use std::ffi::CString;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream, ToSocketAddrs as _};
#[cfg(target_os = "linux")]
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use mpi::ffi;

use super::calls::check;
use crate::collective::launch::Launched;
use crate::declaration::quoted_where_odd;
use crate::usage;

/// The server's number among the jobs of Open MPI; those that it gives out itself are multiples of 65536.
const JOB: &str = "1234567";
/// The only addresses of a world on one machine.
const LOOPBACK: &str = "127.0.0.0/8";
/// How long a wait is between two looks.
const BETWEEN_LOOKS: Duration = Duration::from_millis(20);

/// Where the processes find each other.
#[derive(Debug, PartialEq)]
struct Place {
    server: SocketAddrV4,
    /// All processes are on this machine.
    is_local: bool,
}

impl Place {
    /// What torchrun says of it.
    fn of(launched: &Launched, variable: &dyn Fn(&str) -> Option<String>) -> Result<Self> {
        let needed = |name: &str| {
            variable(name).ok_or_else(|| {
                usage!(
                    "{name} is not set, but RANK and WORLD_SIZE are; torchrun sets it; without torchrun use \
                     mpirun -n {} records train ...",
                    launched.size
                )
            })
        };
        let number = |name: &str, text: String| {
            let found = text.trim().parse::<u16>().ok().filter(|number| *number > 0);
            found.ok_or_else(|| usage!("{name}={}: must be a port's number", quoted_where_odd(&text)))
        };
        let port = number("MASTER_PORT", needed("MASTER_PORT")?)?;
        let port = port.checked_add(1).unwrap_or(port - 1);
        let is_local =
            variable("LOCAL_WORLD_SIZE").is_some_and(|size| size.trim() == launched.size.to_string());
        if is_local {
            return Ok(Self { server: SocketAddrV4::new(Ipv4Addr::LOCALHOST, port), is_local });
        }
        let host = needed("MASTER_ADDR")?;
        let found =
            (host.trim(), port).to_socket_addrs().into_iter().flatten().find_map(|address| match address {
                SocketAddr::V4(address) => Some(address),
                SocketAddr::V6(_) => None,
            });
        let server = found.ok_or_else(|| {
            usage!("MASTER_ADDR={}: has no IPv4 address that is known here", quoted_where_odd(&host))
        })?;
        Ok(Self { server, is_local })
    }
}

/// What the processes that find each other so need as long as they are a world: on the first, the server.
pub(super) struct Singletons {
    server: Option<Child>,
}

impl Drop for Singletons {
    fn drop(&mut self) {
        if let Some(server) = &mut self.server {
            // It ends with this process in any case.
            let _ = server.kill();
            let _ = server.wait();
        }
    }
}

/// Checks that the library lets these processes find each other.
fn check_library(launched: &Launched) -> Result<()> {
    let library = super::library()?;
    if can_connect(&library) {
        return Ok(());
    }
    let name = library.split([',', '\n', '\0']).next().unwrap_or_default().trim();
    Err(usage!(
        "this is one of {} processes that torchrun has started, without MPI, and {} cannot connect such processes; use \
         mpirun -n {0} records train ...",
        launched.size,
        quoted_where_odd(name)
    ))
}

/// Whether a library has ompi-server, by its description: Open MPI until 4.
fn can_connect(library: &str) -> bool {
    let version = library.strip_prefix("Open MPI v").and_then(|rest| rest.split('.').next());
    version.and_then(|version| version.parse::<u32>().ok()).is_some_and(|version| version <= 4)
}

/// Before MPI starts: starts the server on the first process, waits for it on all, and tells Open MPI where it is.
/// No other thread runs yet.
///
/// # Errors
/// Usage errors: another MPI; a variable, the server or its port is missing; the server is not there within `limit`.
pub(super) fn prepare(launched: &Launched, limit: Duration) -> Result<Singletons> {
    let place = Place::of(launched, &|name| std::env::var(name).ok())?;
    check_library(launched)?;
    for (name, _) in std::env::vars_os().filter(|(name, _)| is_of_launcher(&name.to_string_lossy())) {
        // SAFETY: no other thread runs yet that could read the environment meanwhile.
        unsafe { std::env::remove_var(name) };
    }
    let mut singletons = Singletons { server: None };
    if launched.rank == 0 {
        singletons.server = Some(start_server(&place, launched)?);
    }
    let began = Instant::now();
    while let Err(error) = TcpStream::connect_timeout(&place.server.into(), Duration::from_secs(1)) {
        if let Some(server) = &mut singletons.server
            && let Some(status) = server.try_wait()?
        {
            return Err(usage!(
                "torchrun starts no MPI, and Open MPI's ompi-server has ended at once ({status}); use mpirun -n {} \
                 records train ...",
                launched.size
            ));
        }
        if began.elapsed() > limit {
            return Err(usage!(
                "rank {} of {}: nobody listens at {} within {} s (--world-timeout), where rank 0 starts ompi-server \
                 ({error}): it is missing, or cannot be reached",
                launched.rank,
                launched.size,
                place.server,
                limit.as_secs_f64()
            ));
        }
        thread::sleep(BETWEEN_LOOKS);
    }
    let mut variables = vec![("OMPI_MCA_pmix_server_uri", format!("{JOB}.0;tcp://{}", place.server))];
    if place.is_local {
        variables.push(("OMPI_MCA_oob_tcp_if_include", LOOPBACK.into()));
        variables.push(("OMPI_MCA_btl_tcp_if_include", LOOPBACK.into()));
    }
    for (name, value) in variables {
        // SAFETY: no other thread runs yet that could read the environment meanwhile.
        unsafe { std::env::set_var(name, value) };
    }
    Ok(singletons)
}

/// Whether a variable is of a launcher that has started torchrun itself: Open MPI would take these processes for
/// those of srun.
fn is_of_launcher(name: &str) -> bool {
    name.starts_with("SLURM_") || name.starts_with("PMI")
}

fn start_server(place: &Place, launched: &Launched) -> Result<Child> {
    let port = place.server.port();
    let own = if place.is_local { Ipv4Addr::LOCALHOST } else { Ipv4Addr::UNSPECIFIED };
    // The server's own words for that are not clear, and others would take whoever listens there for it.
    if let Err(error) = TcpListener::bind((own, port)) {
        return Err(usage!(
            "torchrun starts no MPI, and port {port}, behind MASTER_PORT, at which ompi-server is to tell the processes \
             of each other, cannot be had ({error}); choose another with --master-port"
        ));
    }
    let mut command = Command::new("ompi-server");
    command.args(["--no-daemonize", "--report-uri", "/dev/null"]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.env("OMPI_MCA_ess_base_jobid", JOB).env("OMPI_MCA_ess_base_vpid", "0");
    command.env("OMPI_MCA_oob_tcp_static_ipv4_ports", port.to_string());
    if place.is_local {
        command.env("OMPI_MCA_oob_tcp_if_include", LOOPBACK);
    }
    #[cfg(target_os = "linux")]
    // SAFETY: between fork and exec only a call that is safe there is made.
    unsafe {
        command.pre_exec(|| {
            // It does not outlive this process, however that ends.
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            Ok(())
        });
    }
    command.spawn().map_err(|error| {
        let why = if error.kind() == ErrorKind::NotFound { "is not there".into() } else { error.to_string() };
        usage!(
            "torchrun starts no MPI, and Open MPI's ompi-server, by which the processes find each other, {why}; use \
             mpirun -n {} records train ...",
            launched.size
        )
    })
}

/// Once MPI has started, with this process alone: the communicator of all, in the order of the ranks. Waits for them
/// without a limit of its own.
///
/// # Errors
/// The library's.
pub(super) fn connect(launched: &Launched) -> Result<ffi::MPI_Comm> {
    // SAFETY: MPI has started; all handles are valid, texts end with 0, and there is room for a port's name.
    unsafe {
        for of in [ffi::RSMPI_COMM_WORLD, ffi::RSMPI_COMM_SELF] {
            check(ffi::MPI_Comm_set_errhandler(of, ffi::RSMPI_ERRORS_RETURN))?;
        }
        let mut joined = ffi::RSMPI_COMM_SELF;
        for newcomer in launched.rank.max(1)..launched.size {
            let service = CString::new(format!("records-{newcomer}"))?;
            let mut port = vec![0u8; ffi::MPI_MAX_PORT_NAME as usize + 1];
            let name = port.as_mut_ptr().cast();
            let (mut between, mut merged) = (ffi::RSMPI_COMM_NULL, ffi::RSMPI_COMM_NULL);
            let none = ffi::RSMPI_INFO_NULL;
            let is_new = launched.rank == newcomer;
            if is_new {
                let everywhere = with("ompi_lookup_order", "global")?;
                while ffi::MPI_Lookup_name(service.as_ptr(), everywhere, name) != 0 {
                    thread::sleep(BETWEEN_LOOKS);
                }
                check(ffi::MPI_Comm_connect(name, none, 0, joined, &mut between))?;
            } else {
                if launched.rank == 0 {
                    check(ffi::MPI_Open_port(none, name))?;
                    check(ffi::MPI_Publish_name(service.as_ptr(), with("ompi_global_scope", "true")?, name))?;
                }
                check(ffi::MPI_Comm_accept(name, none, 0, joined, &mut between))?;
            }
            check(ffi::MPI_Intercomm_merge(between, i32::from(is_new), &mut merged))?;
            joined = merged;
        }
        if joined == ffi::RSMPI_COMM_SELF {
            bail!("a world of one process");
        }
        Ok(joined)
    }
}

/// A hint for a call, for as long as the process lives.
fn with(key: &str, value: &str) -> Result<ffi::MPI_Info> {
    let [key, value] = [CString::new(key)?, CString::new(value)?];
    // SAFETY: MPI has started, and the texts end with 0.
    unsafe {
        let mut info = ffi::RSMPI_INFO_NULL;
        check(ffi::MPI_Info_create(&mut info))?;
        check(ffi::MPI_Info_set(info, key.as_ptr(), value.as_ptr()))?;
        Ok(info)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collective::launch::Launcher;

    fn place(variables: &[(&str, &str)]) -> Result<Place> {
        let launched = Launched { by: Launcher::Torchrun, rank: 1, size: 2, local_rank: Some(1) };
        let find = |name: &str| {
            let found = variables.iter().find(|(other, _)| *other == name);
            found.map(|(_, value)| value.to_string())
        };
        Place::of(&launched, &find)
    }

    #[test]
    fn the_server_is_behind_the_port_of_torchrun() {
        let local = [("MASTER_PORT", "29500"), ("MASTER_ADDR", "elsewhere"), ("LOCAL_WORLD_SIZE", "2")];
        assert_eq!(
            place(&local).unwrap(),
            Place { server: "127.0.0.1:29501".parse().unwrap(), is_local: true }
        );
        let far = [("MASTER_PORT", "65535"), ("MASTER_ADDR", "192.0.2.7"), ("LOCAL_WORLD_SIZE", "1")];
        assert_eq!(
            place(&far).unwrap(),
            Place { server: "192.0.2.7:65534".parse().unwrap(), is_local: false }
        );
        let error = place(&[("MASTER_ADDR", "a")]).unwrap_err().to_string();
        assert!(error.starts_with("MASTER_PORT is not set") && error.contains("mpirun -n 2 "), "{error}");
        let error = place(&[("MASTER_PORT", "0")]).unwrap_err().to_string();
        assert_eq!(error, "MASTER_PORT=0: must be a port's number");
    }

    #[test]
    fn libraries_with_a_name_server_are_known() {
        assert!(can_connect("Open MPI v4.1.4, package: Debian OpenMPI, ident: 4.1.4"));
        assert!(!can_connect("Open MPI v5.0.3, package: x") && !can_connect("MPICH Version:\t4.0.2"));
    }
}
