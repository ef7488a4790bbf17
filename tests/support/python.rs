//! Python with given packages, for checks against other programs.

use std::process::Command;

/// A Python (that RECORDS_PYTHON names, else python3) that can import `modules`; says so and returns `None`
/// where there is none: the check is skipped then.
pub fn python_with(modules: &[&str]) -> Option<Command> {
    let name = std::env::var_os("RECORDS_PYTHON").unwrap_or_else(|| "python3".into());
    let import = format!("import {}", modules.join(", "));
    let found = Command::new(&name).args(["-c", &import]).output();
    if found.is_ok_and(|found| found.status.success()) {
        return Some(Command::new(name));
    }
    // Past the capture of output, so that nobody takes it for passed.
    use std::io::Write;
    let _ = writeln!(
        std::io::stderr(),
        "SKIPPED: a check with {}, which {} does not have; RECORDS_PYTHON may name another Python",
        modules.join(", "),
        name.to_string_lossy()
    );
    None
}
