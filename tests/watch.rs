//! Following a run: `records watch`, its page for browsers, and how a run is shown while it goes on.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;

fn records(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_records"));
    command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// `records train` with small epochs in `folder`.
fn train(folder: &Path, more: &[&str]) -> Command {
    let common = [
        "train",
        "--preset=tiny",
        "--synthetic-test-per-class=2",
        "--synthetic-train-per-class=12",
        "--imb-factor=0.3",
        "--width=4",
        "--threads=1",
        "--device=cpu",
        "--name=a",
        "--exp-dir",
        folder.to_str().unwrap(),
    ];
    records(&[&common, more].concat())
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn succeed(output: &Output) -> String {
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout)
}

/// Ends the process when dropped.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn watching_shows_every_epoch_and_ends_with_the_run() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("a");
    let mut training = Ended(train(folder.path(), &["--epochs=4"]).spawn().unwrap());
    while !run.join("config.toml").exists() {
        std::thread::sleep(Duration::from_millis(5));
    }
    let watched = records(&["watch", run.to_str().unwrap(), "--interval=0.1"]).output().unwrap();
    let printed = succeed(&watched);
    assert!(training.0.wait().unwrap().success());
    let mut trained = String::new();
    training.0.stdout.take().unwrap().read_to_string(&mut trained).unwrap();
    // The same rows as the run itself shows.
    let rows = |text: &str| -> Vec<String> {
        let row =
            |line: &&str| line.trim_start().starts_with(|c: char| c.is_ascii_digit()) && line.contains('.');
        text.lines().filter(row).map(String::from).collect()
    };
    assert_eq!(rows(&printed), rows(&trained));
    assert_eq!(rows(&printed).len(), 4, "{printed}");
    assert!(printed.contains("finished; best top-1"), "{printed}");
    let refused = records(&["watch", folder.path().to_str().unwrap()]).output().unwrap();
    assert_eq!(refused.status.code(), Some(2));
    let refused = records(&["watch", run.to_str().unwrap(), "--interval=0"]).output().unwrap();
    assert!(text(&refused.stderr).contains("--interval 0: must be 0.1 to 3600"));
}

/// An HTTP answer: its status line, head and body.
fn ask(address: &str, request: &str) -> (String, String, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    (head.lines().next().unwrap_or_default().to_string(), head.to_string(), body.to_string())
}

#[test]
fn the_report_is_served_to_this_machine_alone() {
    let folder = tempfile::tempdir().unwrap();
    succeed(&train(folder.path(), &["--epochs=1"]).output().unwrap());
    let run = folder.path().join("a");
    let mut server = Ended(records(&["watch", run.to_str().unwrap(), "--serve"]).spawn().unwrap());
    let mut line = String::new();
    BufReader::new(server.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let address = line.strip_prefix("http://").unwrap().split('/').next().unwrap().to_string();
    assert!(address.starts_with("127.0.0.1:"), "{line}");
    let get = |path: &str, host: &str| ask(&address, &format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n"));
    let (status, head, body) = get("/", &address);
    assert_eq!(status, "HTTP/1.1 200 OK");
    assert!(head.contains("default-src 'none'") && body.contains("1 of 1 epochs"), "{head}");
    assert_eq!(get("/report.html", &address.replace("127.0.0.1", "localhost")).0, "HTTP/1.1 200 OK");
    assert_eq!(get("/config.toml", &address).0, "HTTP/1.1 404 Not Found");
    assert_eq!(get("/../../etc/passwd", &address).0, "HTTP/1.1 404 Not Found");
    // A name from elsewhere that leads here.
    assert_eq!(get("/", "evil.example").0, "HTTP/1.1 403 Forbidden");
    assert_eq!(ask(&address, "GET / HTTP/1.1\r\n\r\n").0, "HTTP/1.1 403 Forbidden");
    let posted = ask(&address, &format!("POST / HTTP/1.1\r\nHost: {address}\r\n\r\n"));
    assert_eq!(posted.0, "HTTP/1.1 405 Method Not Allowed");
    // Neither a long request nor nonsense ends it.
    let long = format!("GET / HTTP/1.1\r\nHost: {address}\r\nX: {}\r\n\r\n", "x".repeat(20_000));
    assert_ne!(ask(&address, &long).0, "HTTP/1.1 200 OK");
    assert_eq!(ask(&address, "\r\n\r\n").0, "HTTP/1.1 403 Forbidden");
    // What the run adds is there at the next request.
    succeed(&train(folder.path(), &["--name=b", "--epochs=1"]).output().unwrap());
    std::fs::copy(folder.path().join("b/metrics.jsonl"), run.join("metrics.jsonl")).unwrap();
    assert_eq!(get("/", &address).0, "HTTP/1.1 200 OK");
    let port = address.rsplit(':').next().unwrap();
    let taken = records(&["watch", run.to_str().unwrap(), "--serve", "--port", port]).output().unwrap();
    assert_eq!(taken.status.code(), Some(2));
    assert!(
        text(&taken.stderr).contains(&format!("--port {port}: cannot be taken")),
        "{}",
        text(&taken.stderr)
    );
}

#[test]
fn a_run_is_shown_as_asked() {
    let folder = tempfile::tempdir().unwrap();
    let shown = |name: &str, how: &str| {
        let output =
            train(folder.path(), &["--epochs=2", "--name", name, how]).env("NO_COLOR", "1").output().unwrap();
        let printed = succeed(&output);
        assert!(!printed.contains('\u{1b}') && output.stderr.is_empty(), "{}", text(&output.stderr));
        printed
    };
    assert_eq!(shown("quiet", "--progress=quiet"), "");
    let log = std::fs::read_to_string(folder.path().join("quiet/log.txt")).unwrap();
    let plain = shown("plain", "--progress=plain");
    let without = |text: &str| -> Vec<String> {
        let own = |line: &&str| !line.contains("images/s") && !line.contains("run folder");
        // Without the speed, which ends a row.
        text.lines()
            .filter(own)
            .map(|line| line.rsplit_once("  ").map_or(line, |(row, _)| row.trim_end()).to_string())
            .collect()
    };
    assert_eq!(without(&plain), without(&log));
    assert_eq!(without(&shown("auto", "--progress=auto")), without(&plain));

    let json = shown("json", "--progress=json");
    let lines: Vec<Value> = json.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let epochs: Vec<&Value> = lines.iter().filter(|line| line["event"] == "epoch").collect();
    let metrics = std::fs::read_to_string(folder.path().join("json/metrics.jsonl")).unwrap();
    let expected: Vec<Value> = metrics.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(epochs.iter().map(|line| line["metrics"].clone()).collect::<Vec<_>>(), expected);
    assert_eq!(epochs[1]["seconds_left"], 0.0);
    assert!(epochs[1]["best"]["top1"].is_number());
    assert!(
        lines
            .iter()
            .any(|line| line["event"] == "log" && line["text"].as_str().unwrap().starts_with("device cpu"))
    );
    let refused = train(folder.path(), &["--progress=loud"]).output().unwrap();
    assert_eq!(refused.status.code(), Some(2));
    assert!(text(&refused.stderr).contains("--progress loud: must be one of auto, plain, json, quiet"));
}
