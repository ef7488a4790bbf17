//! Names of classes, columns and files that look alike but differ in their bytes.
//!
//! Two spellings that look identical (a letter composed in two ways, marks without width, blanks) must be one
//! class spelt in two ways, which is refused. Spellings that look different but may be meant as one class
//! (upper and lower case, full-width forms, letters of another script with the same shape) get a warning.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;

use anyhow::Result;
use unicode_normalization::UnicodeNormalization;
use unicode_security::confusable_detection::skeleton;

use crate::usage;

/// A class with the place where it was found, inside the data's folder: a file with a line, or a folder.
pub struct Named {
    /// Name of the class.
    pub name: String,
    /// The place of the name, for messages.
    pub place: String,
}

/// Whether a character is invisible: Unicode's ignorable characters and the empty braille cell.
fn is_invisible(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180f}'
        | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{2800}' | '\u{3164}'
        | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

/// Whether an invisible character changes the shape of others: joiners of scripts and emoji, and variation
/// selectors.
fn is_joiner(c: char) -> bool {
    matches!(c, '\u{200c}' | '\u{200d}' | '\u{fe00}'..='\u{fe0f}' | '\u{e0100}'..='\u{e01ef}')
}

/// A key that is equal for names that look identical: canonically composed, without invisible characters, one
/// blank between words.
fn visible(name: &str) -> String {
    let shown: String = name.nfd().filter(|&c| !is_invisible(c)).nfc().collect();
    shown.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The name in lower case.
fn folded(text: &str) -> String {
    text.to_uppercase().to_lowercase()
}

/// A key that is equal for names that differ only in case, width or other compatible forms.
fn caseless(name: &str) -> String {
    folded(&visible(name).nfkc().collect::<String>())
}

/// A key that is equal for names whose letters have the same shapes, whatever their scripts.
fn shape(name: &str) -> String {
    let compatible: String = visible(name).nfkc().collect();
    folded(&skeleton(&compatible).collect::<String>())
}

/// Whether two names look alike but differ.
pub fn are_alike(a: &str, b: &str) -> bool {
    let same_shape = || !(a.is_ascii() && b.is_ascii()) && shape(a) == shape(b);
    a != b && (caseless(a) == caseless(b) || same_shape())
}

/// The first of `names` that looks like `name`, and how they differ, to follow the message that `name` is
/// unknown.
pub fn did_you_mean<'a>(name: &str, mut names: impl Iterator<Item = &'a str>) -> Option<String> {
    let alike = names.find(|known| are_alike(name, known))?;
    Some(format!("did you mean {alike:?}? They {}", difference(name, alike)))
}

/// How two names that look alike differ, to follow "they".
fn difference(a: &str, b: &str) -> String {
    if a.to_lowercase() == b.to_lowercase() && visible(a) != visible(b) {
        return "differ only in upper and lower case".into();
    }
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let same = |pairs: &mut dyn Iterator<Item = (&char, &char)>| pairs.take_while(|(a, b)| a == b).count();
    let ahead = same(&mut a.iter().zip(&b));
    let behind = same(&mut a[ahead..].iter().rev().zip(b[ahead..].iter().rev()));
    let [a, b] = [&a[ahead..a.len() - behind], &b[ahead..b.len() - behind]].map(code_points);
    format!("differ only in {a} for {b}")
}

fn code_points(text: &[char]) -> String {
    match text {
        [] => "nothing".into(),
        _ => text.iter().map(|&c| format!("U+{:04X}", u32::from(c))).collect::<Vec<_>>().join(" "),
    }
}

/// Checks the names of the classes of the data in `folder`; `classes` has each name once. Returns a warning
/// about names that may be one class, and one about names with invisible characters.
///
/// # Errors
/// A usage error with both places for two names that look identical.
pub fn check(folder: &Path, classes: &[Named]) -> Result<Vec<String>> {
    let mut seen: HashMap<String, &Named> = HashMap::new();
    for class in classes {
        let Named { name, place } = class;
        if let Some(first) = seen.insert(visible(name), class) {
            return Err(usage!(
                "{}: class {name:?} looks the same as class {:?} ({}), but they {}; write one class in one way",
                folder.join(place).display(),
                first.name,
                first.place,
                difference(name, &first.name)
            ));
        }
    }
    Ok(alike(classes).into_iter().chain(unseen(classes)).collect())
}

/// The warning about names that may be one class.
fn alike(classes: &[Named]) -> Option<String> {
    let mut pairs: BTreeSet<[usize; 2]> = BTreeSet::new();
    for key in [caseless, shape] {
        let mut first: HashMap<String, usize> = HashMap::new();
        for (at, class) in classes.iter().enumerate() {
            let earlier = *first.entry(key(&class.name)).or_insert(at);
            // ASCII letters and digits have similar shapes too, but differ in every font.
            if earlier != at && are_alike(&classes[earlier].name, &class.name) {
                pairs.insert([earlier, at]);
            }
        }
    }
    let in_words = |[a, b]: &[usize; 2]| {
        let (a, b) = (&classes[*a], &classes[*b]);
        format!("{:?} ({}) and {:?} ({}) {}", a.name, a.place, b.name, b.place, difference(&a.name, &b.name))
    };
    let some: Vec<String> = pairs.iter().take(3).map(in_words).collect();
    let more = match pairs.len() - some.len() {
        0 => String::new(),
        more => format!("; and {more} more pairs"),
    };
    (!some.is_empty()).then(|| {
        format!(
            "classes that look alike: {}{more}; if they are one class, write it in one way",
            some.join("; ")
        )
    })
}

/// The warning about names with characters or blanks that cannot be seen.
fn unseen(classes: &[Named]) -> Option<String> {
    let odd = |name: &str| {
        let composed: String = name.nfd().filter(|&c| !is_joiner(c)).nfc().collect();
        composed != visible(name)
    };
    let odd: Vec<&Named> = classes.iter().filter(|class| odd(&class.name)).collect();
    let first = odd.first()?;
    let is_unseen = |c: &char| is_invisible(*c) || (c.is_whitespace() && !c.is_ascii());
    let characters: Vec<char> = first.name.chars().filter(is_unseen).collect();
    let what = match characters[..] {
        [] => "blanks at an end or several together".into(),
        _ => code_points(&characters),
    };
    let number = odd.len();
    let more = match number - 1 {
        0 => String::new(),
        1 => ", as does 1 other name".into(),
        others => format!(", as do {others} other names"),
    };
    Some(format!(
        "class {:?} ({}) has characters that cannot be seen ({what}){more}",
        first.name, first.place
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_names(names: &[&str]) -> Result<Vec<String>, String> {
        let named =
            |(i, name): (usize, &&str)| Named { name: name.to_string(), place: format!("list:{}", i + 1) };
        check(Path::new(""), &names.iter().enumerate().map(named).collect::<Vec<_>>())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn spellings_that_look_the_same_are_refused() {
        for (a, b, codes) in [
            ("caf\u{e9}", "cafe\u{301}", "U+0065 U+0301 for U+00E9"),
            ("cat", "c\u{200b}at", "U+200B for nothing"),
            ("cat", "cat\u{feff}", "U+FEFF for nothing"),
            ("cat", "\u{200e}cat", "U+200E for nothing"),
            ("cat", "ca\u{ad}t", "U+00AD for nothing"),
            ("cat", " cat", "U+0020 for nothing"),
            ("cat", "cat\u{2060}", "U+2060 for nothing"),
            ("red panda", "red  panda", "U+0020 for nothing"),
            ("red panda", "red\u{a0}panda", "U+00A0 for U+0020"),
            ("red panda", "red\u{3000}panda", "U+3000 for U+0020"),
            ("\u{1100}\u{1161}", "\u{ac00}", "U+AC00 for U+1100 U+1161"),
            ("\u{212b}", "\u{c5}", "U+00C5 for U+212B"),
        ] {
            let error = check_names(&["dog", a, b]).unwrap_err();
            assert!(
                error.starts_with("list:3: ") && error.contains("(list:2)") && error.contains(codes),
                "{error}"
            );
            assert!(!error.contains(['\u{200b}', '\u{200e}', '\u{feff}', '\u{2060}']), "{error:?}");
        }
    }

    #[test]
    fn spellings_that_look_alike_get_a_line() {
        for (a, b, how) in [
            ("cat", "Cat", "upper and lower case"),
            ("STRASSE", "stra\u{df}e", "U+00DF"),
            ("cat", "c\u{430}t", "U+0061 for U+0430"),
            ("\u{410}nna", "Anna", "U+0410 for U+0041"),
            ("cat", "\u{ff43}\u{ff41}\u{ff54}", "U+0063 U+0061 U+0074 for U+FF43 U+FF41 U+FF54"),
            ("\u{3c1}", "p", "U+03C1 for U+0070"),
            ("x\u{b2}", "x2", "U+00B2 for U+0032"),
        ] {
            let lines = check_names(&["dog", a, b]).unwrap();
            assert_eq!(lines.len(), 1, "{a} {b}: {lines:?}");
            for part in ["list:2", "list:3", "look alike"] {
                assert!(lines[0].contains(part), "{lines:?}");
            }
            assert!(lines[0].contains(how) || lines[0].contains("upper and lower"), "{lines:?}");
        }
        let many: Vec<String> =
            ('a'..='z').flat_map(|c| [c.to_string(), c.to_uppercase().to_string()]).collect();
        let lines = check_names(&many.iter().map(String::as_str).collect::<Vec<_>>()).unwrap();
        assert!(lines.len() == 1 && lines[0].contains("and 23 more pairs"), "{lines:?}");
    }

    #[test]
    fn different_names_get_none() {
        let names = [
            "cat",
            "dog",
            "hot dog",
            "0",
            "O",
            "1",
            "l",
            "rn",
            "m",
            "cl",
            "d",
            "z\u{fc}rich",
            "zurich",
            "\u{732b}",
            "n\u{e4}h",
            "nah",
        ];
        assert_eq!(check_names(&names), Ok(vec![]));
        // A joiner in Persian, a family, a heart that asks for its colour.
        assert_eq!(
            check_names(&["\u{645}\u{6cc}\u{200c}\u{62e}", "\u{1f468}\u{200d}\u{1f469}", "\u{2764}\u{fe0f}"]),
            Ok(vec![])
        );
        let lines = check_names(&["do\u{200b}g", "cat "]).unwrap();
        assert_eq!(
            lines,
            [
                "class \"do\\u{200b}g\" (list:1) has characters that cannot be seen (U+200B), as does 1 other name"
            ]
        );
    }
}
