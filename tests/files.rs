//! Unusual files, through the real program: links, pipes, devices, left-overs, other users' folders.

use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::io::Read;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use tempfile::TempDir;

/// After this time a command counts as waiting forever.
const PATIENCE: Duration = Duration::from_secs(60);

fn command(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_records"));
    command.args(arguments).current_dir(folder).stdin(Stdio::null());
    command
}

fn spawned(mut command: Command) -> Child {
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// The output of a program that has ended.
#[track_caller]
fn ended(child: Child) -> Output {
    let number = child.id().to_string();
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || sender.send(child.wait_with_output().unwrap()));
    receiver.recv_timeout(PATIENCE).unwrap_or_else(|_| {
        Command::new("kill").args(["-9", &number]).status().unwrap();
        panic!("still waiting after {PATIENCE:?}")
    })
}

#[track_caller]
fn records(folder: &Path, arguments: &[&str]) -> Output {
    ended(spawned(command(folder, arguments)))
}

#[track_caller]
fn assert_succeeds(folder: &Path, arguments: &[&str]) {
    let output = records(folder, arguments);
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Asserts a refusal in one line that contains all parts.
#[track_caller]
fn assert_refused(folder: &Path, arguments: &[&str], parts: &[&str]) {
    let output = records(folder, arguments);
    let line = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{arguments:?}: {line}");
    assert_eq!(line.matches('\n').count(), 1, "{line:?}");
    assert!(output.stdout.is_empty(), "{arguments:?}");
    for part in parts {
        assert!(line.contains(part), "{arguments:?}: {part:?} is not in {line:?}");
    }
}

fn pipe(path: &Path) {
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// The commands that write a file of the user's choice, without that last argument, which must end in `.png`.
const WRITERS: [&[&str]; 3] = [
    &["data", "--dataset", "synthetic", "--imb-factor", "1", "--partial-rate", "0.3", "--out"],
    &["augment", "in.png", "--op", "hflip", "--size", "8", "--output"],
    &["table", "cifar10", "--report", "--exp-dir", "none", "--output"],
];

/// A folder with the picture that `augment` reads.
fn prepared() -> TempDir {
    let folder = TempDir::new().unwrap();
    let picture = image::RgbImage::from_fn(8, 8, |x, y| image::Rgb([x as u8, y as u8, 7]));
    picture.save(folder.path().join("in.png")).unwrap();
    folder
}

#[test]
fn every_writer_follows_links_and_keeps_permissions() {
    for writer in WRITERS {
        let folder = prepared();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir(at("sub")).unwrap();
        fs::write(at("sub/real.png"), b"old").unwrap();
        fs::set_permissions(at("sub/real.png"), Permissions::from_mode(0o640)).unwrap();
        symlink("sub/real.png", at("link.png")).unwrap();
        symlink("sub/made.png", at("dangling.png")).unwrap();
        symlink("loop.png", at("loop.png")).unwrap();
        assert_succeeds(folder.path(), &[writer, &["link.png"]].concat());
        assert_succeeds(folder.path(), &[writer, &["dangling.png"]].concat());
        assert_refused(folder.path(), &[writer, &["loop.png"]].concat(), &["loop.png", "links"]);
        let real = fs::symlink_metadata(at("sub/real.png")).unwrap();
        assert!(real.is_file() && real.len() > 3 && real.mode() & 0o777 == 0o640, "{writer:?}");
        assert_eq!(real.len(), fs::symlink_metadata(at("sub/made.png")).unwrap().len());
        assert!(at("link.png").is_symlink() && at("dangling.png").is_symlink());
        assert_eq!(names(&at("sub")), ["made.png", "real.png"], "{writer:?}");
        assert_eq!(names(folder.path()).len(), 5, "{writer:?}: {:?}", names(folder.path()));
    }
}

#[test]
fn every_writer_writes_to_a_pipe_that_is_read_and_refuses_one_that_is_not() {
    for writer in WRITERS {
        let folder = prepared();
        let path = folder.path().join("pipe.png");
        pipe(&path);
        let arguments = [writer, &["pipe.png"]].concat();
        assert_refused(folder.path(), &arguments, &["pipe.png", "nobody reads"]);
        let (reading, opened) = (path.clone(), std::sync::mpsc::channel());
        let reader = std::thread::spawn(move || {
            let mut bytes = Vec::new();
            // Opened for writing too, so that opening does not wait for the program; then only for reading.
            let both = File::options().read(true).write(true).open(&reading).unwrap();
            let mut file = File::open(&reading).unwrap();
            opened.0.send(()).unwrap();
            let mut first = [0];
            file.read_exact(&mut first).unwrap();
            drop(both);
            file.read_to_end(&mut bytes).unwrap();
            1 + bytes.len()
        });
        opened.1.recv().unwrap();
        assert_succeeds(folder.path(), &arguments);
        assert!(fs::symlink_metadata(&path).unwrap().file_type().is_fifo(), "{writer:?}");
        assert_succeeds(folder.path(), &[writer, &["file.png"]].concat());
        assert_eq!(
            reader.join().unwrap() as u64,
            fs::metadata(folder.path().join("file.png")).unwrap().len()
        );
    }
}

#[test]
fn open_descriptors_and_devices_are_written_to() {
    let folder = TempDir::new().unwrap();
    let data = WRITERS[0];
    assert_succeeds(folder.path(), &[data, &["file"]].concat());
    let written = fs::read(folder.path().join("file")).unwrap().len();
    let output = records(folder.path(), &[data, &["/dev/stdout"]].concat());
    let table = |printed: &[u8]| String::from_utf8(printed[written..].to_vec()).unwrap();
    assert!(output.status.success());
    assert!(table(&output.stdout).starts_with("training samples"), "the file, then the table");
    // The shell's > makes standard output a file, which is not replaced by another.
    let mut to_file = command(folder.path(), &[data, &["/dev/stdout"]].concat());
    to_file.stdout(File::create(folder.path().join("all")).unwrap()).stderr(Stdio::piped());
    assert!(ended(to_file.spawn().unwrap()).status.success());
    let all = fs::read(folder.path().join("all")).unwrap();
    assert!(all.len() == output.stdout.len() && table(&all) == table(&output.stdout));
    assert_succeeds(folder.path(), &[data, &["/dev/null"]].concat());
    assert!(fs::symlink_metadata("/dev/null").unwrap().file_type().is_char_device());
    for (path, part) in [("/dev/stdin", "standard input"), (".", "folder"), ("new/", "not a file name")] {
        let output = records(folder.path(), &[data, &[path]].concat());
        let line = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{path}: {line}");
        assert!(line.contains(part), "{path}: {line}");
    }
    assert_eq!(names(folder.path()), ["all", "file"]);
}

#[test]
fn what_a_killed_run_left_is_removed_and_what_another_writes_is_not() {
    let folder = TempDir::new().unwrap();
    let at = |name: &str| folder.path().join(name);
    for name in [".f.records-1-0.tmp", ".f.records-2-0.tmp", ".g.records-1-0.tmp"] {
        fs::write(at(name), b"half").unwrap();
    }
    let busy = File::options().write(true).open(at(".f.records-2-0.tmp")).unwrap();
    busy.lock().unwrap();
    assert_succeeds(folder.path(), &[WRITERS[0], &["f"]].concat());
    assert_eq!(names(folder.path()), [".f.records-2-0.tmp", ".g.records-1-0.tmp", "f"]);
}

#[test]
fn a_pipe_in_the_place_of_an_input_is_refused_at_once() {
    let folder = TempDir::new().unwrap();
    let at = |name: &str| folder.path().join(name);
    for name in ["csv", "classes", "archive", "part"] {
        fs::create_dir(at(name)).unwrap();
    }
    fs::write(at("classes/train.csv"), "path,candidates\na.png,x|y\n").unwrap();
    let (part, archive) = ("part/cifar-10-binary.tar.gz.part", "archive/cifar-10-binary.tar.gz");
    for name in ["settings", "csv/train.csv", "classes/classes.txt", archive, part] {
        pipe(&at(name));
    }
    let here = folder.path();
    assert_refused(here, &["train", "--config", "settings"], &["settings: is a pipe"]);
    assert_refused(here, &["train", "--config", "/dev/zero"], &["/dev/zero", "device"]);
    assert_refused(here, &["data", "--dataset", "csv", "--data-dir", "csv"], &["train.csv: is a pipe"]);
    assert_refused(here, &["data", "--dataset", "csv", "--data-dir", "classes"], &["classes.txt: is a pipe"]);
    if cfg!(feature = "fetch") {
        assert_refused(here, &["data", "fetch", "cifar10", "--data-dir", "archive"], &[archive, "is a pipe"]);
        assert_refused(here, &["data", "fetch", "cifar10", "--data-dir", "part"], &[part, "is a pipe"]);
    }
}

/// A row of `records doctor`.
fn doctor(mut command: Command, row: &str) -> String {
    command.arg("doctor");
    let output = ended(spawned(command));
    let text = String::from_utf8(output.stdout).unwrap();
    let line =
        text.lines().find(|line| line.starts_with(row)).unwrap_or_else(|| panic!("no {row} in {text}"));
    line.to_string()
}

#[test]
fn kernels_are_not_kept_in_the_current_folder() {
    let folder = TempDir::new().unwrap();
    let home = TempDir::new().unwrap();
    let kept = home.path().join(".cache/records/kernels");
    let row = |variables: &[(&str, &OsStr)]| {
        let mut command = command(folder.path(), &[]);
        for name in ["HOME", "XDG_CACHE_HOME", "RECORDS_KERNEL_CACHE"] {
            command.env_remove(name);
        }
        doctor(
            {
                command.envs(variables.iter().copied());
                command
            },
            "kernel cache",
        )
    };
    let home = ("HOME", home.path().as_os_str());
    for relative in ["", ".", "cache"] {
        let found = row(&[home, ("XDG_CACHE_HOME", relative.as_ref())]);
        assert!(found.ends_with(kept.to_str().unwrap()), "{relative:?}: {found}");
        let found = row(&[("HOME", relative.as_ref()), ("XDG_CACHE_HOME", "".as_ref())]);
        assert!(found.contains("none, kernels are compiled every time"), "{found}");
    }
    let found = row(&[home, ("RECORDS_KERNEL_CACHE", "kernels".as_ref())]);
    assert!(found.contains("must be an absolute path"), "{found}");
    fs::create_dir_all(&kept).unwrap();
    fs::set_permissions(&kept, Permissions::from_mode(0o777)).unwrap();
    let found = row(&[home]);
    assert!(found.contains("none") && found.contains("others may write to it"), "{found}");
    assert!(names(folder.path()).is_empty());
}

/// Modules in the current folder are not imported, and a python3 there is not run.
#[test]
fn nothing_of_the_current_folder_is_run() {
    let folder = TempDir::new().unwrap();
    let at = |name: &str| folder.path().join(name);
    for name in ["site.py", "sitecustomize.py", "usercustomize.py", "encodings.py"] {
        fs::write(at(name), format!("open({:?}, 'w')\n", at("imported").display())).unwrap();
    }
    fs::write(at("python3"), format!("#!/bin/sh\ntouch '{}'\n", at("run").display())).unwrap();
    fs::set_permissions(at("python3"), Permissions::from_mode(0o755)).unwrap();
    let before = names(folder.path());
    let path = std::env::var("PATH").unwrap();
    let here = folder.path().to_str().unwrap();
    for (name, value) in [
        ("PYTHONPATH", ":/nowhere"),
        ("PYTHONPATH", here),
        ("PYTHONHOME", here),
        ("PYTHONUSERBASE", "."),
        ("PATH", &format!(":.:{path}")),
        ("CUDA_HOME", "."),
    ] {
        let mut command = command(folder.path(), &[]);
        command.env_remove("RECORDS_NVRTC").env(name, value);
        doctor(command, "NVRTC");
        assert_eq!(names(folder.path()), before, "{name}={value}");
    }
    fs::write(at("libcuda.so.1"), b"").unwrap();
    let mut command = command(folder.path(), &[]);
    command.env("LD_LIBRARY_PATH", "/usr/lib:");
    let found = doctor(command, "NVIDIA driver");
    assert!(found.contains("libcuda.so.1") && found.contains("LD_LIBRARY_PATH"), "{found}");
}
