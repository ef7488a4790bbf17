//! The table of settings in the documentation.

use std::collections::BTreeMap;

use super::{Condition, Declaration};

/// The declarations as Markdown, a table per heading; `default` gives the default of a setting in print, empty where there is none.
pub fn tables(declarations: &[Declaration], default: impl Fn(&Declaration) -> String) -> String {
    let mut text = String::new();
    let mut heading = "";
    for declaration in declarations {
        if declaration.group != heading {
            heading = declaration.group;
            text += &format!(
                "\n## {heading}\n\n| setting | default | must be | what it is | read |\n|---|---|---|---|---|\n"
            );
        }
        let code = |text: &str| if text.is_empty() { String::new() } else { format!("`{text}`") };
        let cells = [
            names(declaration),
            code(&default(declaration)),
            declaration.check.allowed(),
            declaration.help.clone(),
            read(declaration),
        ];
        text += &format!("| {} |\n", cells.map(|cell| cell.replace('|', "\\|")).join(" | "));
    }
    text
}

fn names(declaration: &Declaration) -> String {
    let short = declaration.short.map(|letter| format!(", `-{letter}`")).unwrap_or_default();
    let alias = declaration.alias.map(|alias| format!(", `--{alias}`")).unwrap_or_default();
    format!("`--{}`{short}{alias}", declaration.name)
}

/// When it is read, and whether a resumed run may change it.
fn read(declaration: &Declaration) -> String {
    let (mut only, mut except) = (Vec::new(), BTreeMap::<_, Vec<_>>::new());
    for condition in &declaration.conditions {
        match condition {
            Condition::Only(setting, word) => only.push(format!("only with `--{setting} {word}`")),
            Condition::Except(setting, word) => except.entry(setting).or_default().push(*word),
        }
    }
    let except =
        except.into_iter().map(|(setting, words)| format!("not with `--{setting} {}`", words.join("`, `")));
    let mut parts: Vec<String> = only.into_iter().chain(except).collect();
    if parts.is_empty() {
        parts.push("always".into());
    }
    if declaration.free {
        parts.push("may be changed on resuming".into());
    }
    parts.join("; ")
}
