//! The table of settings in the documentation.

use super::{Declaration, More};

/// The declarations as Markdown, with a table under each heading; `default` returns the default of a setting
/// in words, empty if there is none.
pub fn tables(declarations: &[Declaration], default: impl Fn(&Declaration) -> String) -> String {
    let mut text = String::new();
    let mut heading = "";
    for declaration in declarations {
        if declaration.group != heading {
            heading = declaration.group;
            text += &format!("\n## {heading}\n\n| setting | default | must be | what it is | read |\n");
            text += "|---|---|---|---|---|\n";
        }
        let code = |text: String| if text.is_empty() { text } else { format!("`{text}`") };
        let (default, allowed) = (code(default(declaration)), declaration.check.allowed());
        let cells = [names(declaration), default, allowed, declaration.help.clone(), read(declaration)];
        text += &format!("| {} |\n", cells.map(|cell| cell.replace('|', "\\|")).join(" | "));
    }
    text
}

fn names(declaration: &Declaration) -> String {
    let mut names = format!("`--{}`", declaration.name);
    for more in &declaration.more {
        match more {
            More::Short(letter) => names += &format!(", `-{letter}`"),
            More::Alias(name) => names += &format!(", `--{name}`"),
            _ => {}
        }
    }
    names
}

/// When a setting is read, and whether a resumed run may change it.
fn read(declaration: &Declaration) -> String {
    let in_words = |more: &More| match more {
        More::Only(setting, word) => Some(format!("only with `--{setting}={word}`")),
        More::Except(setting, word) => Some(format!("not with `--{setting}={word}`")),
        More::Free => Some("may be changed on resuming".into()),
        _ => None,
    };
    let parts: Vec<String> = declaration.more.iter().filter_map(in_words).collect();
    if parts.is_empty() { "always".into() } else { parts.join("; ") }
}
