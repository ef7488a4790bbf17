//! A real browser: Chromium, which lays pages out and is asked what it sees.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The browser's names.
const NAMES: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];

/// What the script `script`, at the end of the page at `path`, puts into `answer` once the page is laid out,
/// in a window of `width` pixels; and what the browser says on its console. `None`, which is said, where
/// there is no browser: the check is skipped then.
pub fn ask(path: &Path, script: &str, width: u32) -> Option<(String, String)> {
    let Some(name) = NAMES.iter().find(|name| {
        let mut version = Command::new(name);
        version.arg("--version").stdout(Stdio::null()).stderr(Stdio::null());
        version.status().is_ok_and(|status| status.success())
    }) else {
        let _ = writeln!(std::io::stderr(), "SKIPPED: a check in a browser; there is no chromium");
        return None;
    };
    let folder = tempfile::tempdir().unwrap();
    let page = std::fs::read_to_string(path).unwrap().replace("http-equiv=\"refresh\"", "name=\"refresh\"");
    let asking = format!(
        "<pre id=\"answer\"></pre><script>window.onload = () => {{ let answer; try {{ {script} }} catch (e) {{ answer = 'error ' + e }} \
         document.getElementById('answer').textContent = 'ANSWER[' + answer + ']ANSWER' }}</script></body>"
    );
    let copy = folder.path().join("page.html");
    std::fs::write(&copy, page.replace("</body>", &asking)).unwrap();
    let profile = format!("--user-data-dir={}", folder.path().join("profile").display());
    let window = format!("--window-size={width},900");
    let mut browser = Command::new(name);
    browser.args([
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--enable-logging=stderr",
        "--virtual-time-budget=2000",
        "--dump-dom",
        &profile,
        &window,
    ]);
    let out = folder.path().join("out");
    let errors = folder.path().join("errors");
    browser.arg(format!("file://{}", copy.display()));
    browser.stdout(std::fs::File::create(&out).unwrap()).stderr(std::fs::File::create(&errors).unwrap());
    let mut child = browser.spawn().unwrap();
    let started = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if started.elapsed() > Duration::from_secs(90) {
            let _ = child.kill();
            let _ = child.wait();
            panic!("the browser does not end");
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    let dom = std::fs::read_to_string(&out).unwrap();
    let said = String::from_utf8_lossy(&std::fs::read(&errors).unwrap()).into_owned();
    let console: Vec<&str> = said.lines().filter(|line| line.contains("CONSOLE")).collect();
    const BEGIN: &str = "<pre id=\"answer\">ANSWER[";
    let start = dom.find(BEGIN).unwrap_or_else(|| panic!("no answer: {said}")) + BEGIN.len();
    let end = start + dom[start..].find("]ANSWER").unwrap();
    let answer = dom[start..end].replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&");
    Some((answer, console.join("\n")))
}
