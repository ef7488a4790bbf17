//! Programs that a check runs as processes of their own, so that none that fails, hangs or is killed ends it.

use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::Value;

/// How often a process is looked at.
const LOOK: Duration = Duration::from_millis(20);
/// Lines of its output that are kept.
const LINES: usize = 60;

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// With exit status 0.
    Passed,
    /// With another one or by a signal, or it could not be started.
    Failed,
    /// It was killed when its time was up.
    TimedOut,
}

/// A process that has ended.
pub struct Outcome {
    pub end: End,
    /// Its exit status, unless a signal ended it.
    pub status: Option<i32>,
    pub out: String,
    pub log: String,
    pub seconds: f64,
}

impl Outcome {
    /// Runs a command, for so long at the most. Its output goes through files in `folder`, which therefore holds
    /// what a process that is killed has said.
    ///
    /// # Errors
    /// If these files cannot be made.
    pub fn of(mut command: Command, folder: &Path, most: Duration) -> Result<Self> {
        std::fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
        let paths = ["out", "log"].map(|name| folder.join(name));
        let file = |path: &PathBuf| File::create(path).with_context(|| format!("making {}", path.display()));
        command.stdin(Stdio::null()).stdout(file(&paths[0])?).stderr(file(&paths[1])?);
        // A group of its own, so that what it has started is killed with it.
        let begin = Instant::now();
        let mut child = match command.process_group(0).spawn() {
            Ok(child) => child,
            Err(error) => {
                let log = format!("{}: {error}", command.get_program().display());
                return Ok(Self { end: End::Failed, status: None, out: String::new(), log, seconds: 0.0 });
            }
        };
        let mut end = None;
        let status = loop {
            if let Some(status) = child.try_wait().context("waiting for a process")? {
                break status;
            }
            if begin.elapsed() >= most && end.is_none() {
                end = Some(End::TimedOut);
                if let Some(group) = Pid::from_raw(child.id().cast_signed()) {
                    // It may have ended meanwhile.
                    let _ = kill_process_group(group, Signal::KILL);
                }
            }
            std::thread::sleep(LOOK);
        };
        let end = end.unwrap_or(if status.success() { End::Passed } else { End::Failed });
        let read = |path| std::fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        let [out, log] = paths.map(|path| read(path).unwrap_or_default());
        Ok(Self { end, status: status.code(), out, log, seconds: begin.elapsed().as_secs_f64() })
    }

    /// Whether it ended with exit status 0.
    pub fn passed(&self) -> bool {
        self.end == End::Passed
    }

    /// The last lines of its output, with standard error last.
    pub fn tail(&self) -> Vec<&str> {
        let lines: Vec<&str> = self.out.lines().chain(self.log.lines()).collect();
        lines[lines.len().saturating_sub(LINES)..].to_vec()
    }

    /// Why it did not pass.
    pub fn why(&self) -> String {
        match self.end {
            End::TimedOut => format!("not done after {:.0} s", self.seconds),
            _ => self.tail().join("\n"),
        }
    }
}

/// What tiles are chosen by, as `RECORDS_TILES` has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TilesBy {
    /// The model of times.
    Model,
    /// Measured times, where there are some.
    Tuning,
}

/// This program, with arguments.
///
/// # Errors
/// If it is not known where it lies.
pub fn records<A: AsRef<OsStr>>(tiles: TilesBy, arguments: impl IntoIterator<Item = A>) -> Result<Command> {
    let mut command = Command::new(std::env::current_exe().context("where this program lies")?);
    command.args(arguments).env("RECORDS_TILES", if tiles == TilesBy::Model { "model" } else { "" });
    Ok(command)
}

/// The object that a command prints.
///
/// # Errors
/// If it does not pass, or prints something else.
pub fn object(command: Command, folder: &Path, most: Duration) -> Result<Value> {
    let outcome = Outcome::of(command, folder, most)?;
    if !outcome.passed() {
        bail!("{}", outcome.why());
    }
    serde_json::from_str(&outcome.out).context("what it prints is no JSON")
}

/// Where a tool of the CUDA toolkit is: in the path, or where the toolkit puts it.
pub fn cuda_tool(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let toolkit = std::env::var_os("CUDA_HOME").unwrap_or_else(|| "/usr/local/cuda".into());
    let folders = std::env::split_paths(&path).chain([PathBuf::from(toolkit).join("bin")]);
    folders.map(|folder| folder.join(name)).find(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, most: Duration) -> Outcome {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        Outcome::of(command, folder.path(), most).unwrap()
    }

    #[test]
    fn ends_are_told_apart_and_nothing_said_is_lost() {
        let long = Duration::from_secs(60);
        let passed = shell("echo a; echo b >&2", long);
        assert_eq!((passed.end, passed.status, passed.tail()), (End::Passed, Some(0), vec!["a", "b"]));
        let failed = shell("echo why >&2; exit 7", long);
        assert_eq!((failed.end, failed.status, &*failed.why()), (End::Failed, Some(7), "why"));
        // More than a pipe holds, and a process that outlives the one that started it.
        let hung = shell("yes | head -c 1000000; sleep 600 & wait", Duration::from_secs(2));
        assert_eq!((hung.end, hung.out.len()), (End::TimedOut, 1_000_000));
        assert!(hung.seconds < 30.0 && hung.why().starts_with("not done after"), "{}", hung.why());
    }

    #[test]
    fn a_program_that_is_not_there_has_failed() {
        let folder = tempfile::tempdir().unwrap();
        let outcome = Outcome::of(Command::new("/nowhere/x"), folder.path(), Duration::from_secs(1)).unwrap();
        assert_eq!(outcome.end, End::Failed);
        assert!(outcome.log.starts_with("/nowhere/x: "), "{}", outcome.log);
    }
}
