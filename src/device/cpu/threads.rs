//! How many threads computing takes: what `--threads` says, else as many as the system lets this process use,
//! that is its processors (`taskset`, cpusets) and, in a container, its quota of processor time.

use std::fs;
use std::path::{Path, PathBuf};

/// Threads for `asked`, where 0 means as many as the system allows. Far more threads than processors are not
/// started: the results would be the same, and the threads would only wait for each other.
pub fn count(asked: usize) -> usize {
    let allowed = allowed();
    if asked == 0 { allowed } else { asked.min((4 * allowed).max(16)) }
}

/// Threads that the system allows: its processors, or the quota, rounded down, where that is less.
pub fn allowed() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Has work outside a device, such as reading images, take no more threads than `--threads` says. Without
/// effect after the first such work, and for 0.
pub fn limit_other_work(asked: usize) {
    if asked > 0 {
        let _ = rayon::ThreadPoolBuilder::new().num_threads(count(asked)).build_global();
    }
}

/// The quota of processor time of this process's control group, in processors, if it has one: the least along
/// the hierarchy.
pub fn quota() -> Option<f64> {
    quota_below(Path::new("/"))
}

/// The same of a system whose files are below `root`.
fn quota_below(root: &Path) -> Option<f64> {
    let groups = fs::read_to_string(root.join("proc/self/cgroup")).ok()?;
    let found = groups.lines().filter_map(|line| {
        let mut fields = line.splitn(3, ':');
        let (_, controllers, group) = (fields.next()?, fields.next()?, fields.next()?);
        let mount = match controllers {
            "" => root.join("sys/fs/cgroup"),
            _ if controllers.split(',').any(|word| word == "cpu") => [controllers, "cpu"]
                .map(|name| root.join("sys/fs/cgroup").join(name))
                .into_iter()
                .find(|path| path.is_dir())?,
            _ => return None,
        };
        // In a container the group may not be visible under its own name; the mount is the group then.
        let group = mount.join(group.trim_start_matches('/'));
        let along = group.ancestors().take_while(|folder| folder.starts_with(&mount));
        along.map(PathBuf::from).filter_map(|folder| quota_of(&folder)).reduce(f64::min)
    });
    found.reduce(f64::min)
}

/// The quota in a group's own files: `cpu.max` of version 2, two files of version 1.
fn quota_of(folder: &Path) -> Option<f64> {
    let read = |name: &str| fs::read_to_string(folder.join(name)).ok();
    let (quota, period) = match read("cpu.max") {
        Some(text) => {
            let (quota, period) = text.trim().split_once(' ')?;
            (quota.to_string(), period.to_string())
        }
        None => (read("cpu.cfs_quota_us")?, read("cpu.cfs_period_us")?),
    };
    let number = |text: &str| text.trim().parse::<f64>().ok().filter(|number| *number > 0.0);
    Some(number(&quota)? / number(&period)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn system(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    #[test]
    fn the_least_quota_along_the_hierarchy_counts() {
        let quota = |files: &[(&str, &str)]| quota_below(system(files).path());
        let own = ("proc/self/cgroup", "0::/a/b\n");
        assert_eq!(quota(&[own]), None);
        assert_eq!(quota(&[own, ("sys/fs/cgroup/a/b/cpu.max", "max 100000\n")]), None);
        let upper = ("sys/fs/cgroup/a/cpu.max", "150000 100000\n");
        assert_eq!(quota(&[own, upper]), Some(1.5));
        assert_eq!(quota(&[own, upper, ("sys/fs/cgroup/a/b/cpu.max", "300000 100000\n")]), Some(1.5));
        assert_eq!(quota(&[own, upper, ("sys/fs/cgroup/a/b/cpu.max", "50000 100000\n")]), Some(0.5));
        // In a container, the path is the host's.
        assert_eq!(quota(&[own, ("sys/fs/cgroup/cpu.max", "200000 100000\n")]), Some(2.0));
    }

    #[test]
    fn version_1_has_two_files() {
        let groups = ("proc/self/cgroup", "5:memory:/x\n4:cpu,cpuacct:/x\n");
        let quota = |value: &str| {
            let folder = "sys/fs/cgroup/cpu,cpuacct/x";
            quota_below(
                system(&[
                    groups,
                    (&format!("{folder}/cpu.cfs_quota_us"), value),
                    (&format!("{folder}/cpu.cfs_period_us"), "100000\n"),
                ])
                .path(),
            )
        };
        assert_eq!((quota("250000\n"), quota("-1\n")), (Some(2.5), None));
    }

    #[test]
    fn threads_asked_for_are_given_within_reason() {
        assert_eq!((count(0), count(1), count(3)), (allowed(), 1, 3));
        assert_eq!(count(100_000), (4 * allowed()).max(16));
    }
}
