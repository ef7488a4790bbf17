//! Free main memory, which is checked before a large allocation: on Linux an allocation may succeed although
//! there is not enough memory, and the process is killed when it fills it.

use std::fs;
use std::path::Path;

use anyhow::Result;

use crate::usage;

/// Smaller requests are not checked, since the check would cost more.
const SMALL: u64 = 4 << 20;

/// Refuses an allocation that does not fit into main memory. The message begins with `what` it is for and
/// ends with `remedy`.
///
/// # Errors
/// A usage error with the requested and the free memory.
pub fn ensure_room(bytes: u64, what: &str, remedy: &str) -> Result<()> {
    if bytes < SMALL {
        return Ok(());
    }
    match available() {
        Some(left) if bytes > left => Err(usage!(
            "not enough memory: {what}: {} needed, {} free on this machine; {remedy}",
            in_words(bytes),
            in_words(left)
        )),
        _ => Ok(()),
    }
}

/// The product of `factors`; u64::MAX, which no machine has, if it overflows.
pub fn product(factors: &[usize]) -> u64 {
    factors.iter().fold(1u64, |product, &factor| product.saturating_mul(factor as u64))
}

/// `bytes` as MiB or GiB.
fn in_words(bytes: u64) -> String {
    const GIB: u64 = 1 << 30;
    if bytes < GIB { format!("{} MiB", bytes >> 20) } else { format!("{:.1} GiB", bytes as f64 / GIB as f64) }
}

/// Bytes that this process can still use, limited by the machine, its control groups (containers, cluster
/// jobs) and its own address-space limit. `None` if the system does not say.
pub fn available() -> Option<u64> {
    let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| of_machine(&text));
    let groups = fs::read_to_string("/proc/self/cgroup").ok();
    let groups = groups.and_then(|text| of_groups(&text, Path::new("/sys/fs/cgroup")));
    [machine, groups, of_addresses()].into_iter().flatten().min()
}

/// The number after `name` in lines of "name number".
fn number_of(text: &str, name: &str) -> Option<u64> {
    let words = text.lines().map(|line| line.split_ascii_whitespace());
    words.filter_map(|mut words| (words.next()? == name).then(|| words.next()?.parse().ok())?).next()
}

/// Available memory according to /proc/meminfo, swap included.
fn of_machine(meminfo: &str) -> Option<u64> {
    let kib = number_of(meminfo, "MemAvailable:")? + number_of(meminfo, "SwapFree:").unwrap_or(0);
    Some(kib << 10)
}

/// What is left in the tightest of the control groups (version 1 or 2) that /proc/self/cgroup names; `None`
/// if none has a limit.
fn of_groups(cgroup: &str, root: &Path) -> Option<u64> {
    let left_of = |line: &str| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next()?, parts.next()?);
        let (root, limit, used) = match controllers {
            "" => (root.to_path_buf(), "memory.max", "memory.current"),
            _ if controllers.split(',').any(|controller| controller == "memory") => {
                (root.join("memory"), "memory.limit_in_bytes", "memory.usage_in_bytes")
            }
            _ => return None,
        };
        let group = root.join(path.trim_start_matches('/'));
        let groups = group.ancestors().take_while(|folder| folder.starts_with(&root));
        groups.filter_map(|folder| of_group(folder, limit, used)).min()
    };
    cgroup.lines().filter_map(left_of).min()
}

fn of_group(folder: &Path, limit: &str, used: &str) -> Option<u64> {
    let number = |name: &str| fs::read_to_string(folder.join(name)).ok()?.trim().parse::<u64>().ok();
    let (limit, used) = (number(limit)?, number(used)?);
    // Cached files are dropped when memory is needed.
    let stat = fs::read_to_string(folder.join("memory.stat")).unwrap_or_default();
    let cached: u64 = ["inactive_file", "active_file"].iter().filter_map(|name| number_of(&stat, name)).sum();
    Some(limit.saturating_sub(used.saturating_sub(cached)))
}

/// What is left of the process's address-space limit (`ulimit -v`).
fn of_addresses() -> Option<u64> {
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max address space"))?;
    let limit: u64 = line.split_ascii_whitespace().next()?.parse().ok()?;
    let status = fs::read_to_string("/proc/self/status").ok()?;
    Some(limit.saturating_sub(number_of(&status, "VmSize:")? << 10))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::exit_code;

    #[test]
    fn what_no_machine_has_is_refused() {
        let bytes = product(&[usize::MAX, 3]);
        assert_eq!(bytes, u64::MAX);
        let error = ensure_room(bytes, "a test", "take less").unwrap_err();
        assert!(error.to_string().starts_with("not enough memory: a test: "), "{error}");
        assert!(error.to_string().ends_with("; take less"), "{error}");
        assert_eq!(exit_code(&error), 2);
        ensure_room(5 << 20, "a test", "").unwrap();
    }

    #[test]
    fn meminfo_is_read() {
        let text = "MemTotal:  100 kB\nMemAvailable:   40 kB\nSwapFree: 2 kB\n";
        assert_eq!(of_machine(text), Some(42 << 10));
        assert_eq!(of_machine("MemTotal: 100 kB\n"), None);
        assert!(available().is_none_or(|bytes| bytes > 0));
    }

    #[test]
    fn the_tightest_group_counts() {
        let root = tempfile::tempdir().unwrap();
        let put = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        assert_eq!(of_groups("0::/\n", root.path()), None);
        put("a/memory.max", "1000\n");
        put("a/memory.current", "700\n");
        put("a/memory.stat", "anon 5\ninactive_file 100\nactive_file 50\n");
        put("a/b/memory.max", "max\n");
        put("a/b/memory.current", "10\n");
        assert_eq!(of_groups("0::/a/b\n", root.path()), Some(450));
        put("memory/x/memory.limit_in_bytes", "500\n");
        put("memory/x/memory.usage_in_bytes", "600\n");
        assert_eq!(of_groups("3:cpu,memory:/x\n0::/a/b\n", root.path()), Some(0));
        assert_eq!(of_groups("3:cpuset:/x\n", root.path()), None);
    }
}
