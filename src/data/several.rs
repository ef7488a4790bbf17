//! Names that are really several names: the result of a candidate set whose classes are not separated by the
//! list's separator.
//!
//! `cat,dog` beside `cat` is not a class. Where that is certain, it is refused; where a name merely contains
//! the words of another ("hot dog" beside "dog"), there is a warning. None of this applies to a data set that
//! declares its classes.

use std::collections::{BTreeMap, HashMap, HashSet};

/// Characters that look like the separator `|`.
const LIKE_BAR: [char; 8] =
    ['\u{a6}', '\u{1c0}', '\u{2016}', '\u{2223}', '\u{2502}', '\u{2758}', '\u{ff5c}', '\u{ffe8}'];
/// Characters that separate the parts of a list anywhere.
const SEPARATORS: [char; 7] = [',', ';', '/', '\\', '\u{3001}', '\u{ff0c}', '\u{ff1b}'];
/// Characters that may be part of a name.
const IN_NAMES: [char; 10] = ['+', '&', ':', '_', '-', '.', '*', '=', '~', '#'];
/// Brackets around lists in many languages.
const BRACKETS: [(char, char); 4] = [('[', ']'), ('(', ')'), ('{', '}'), ('<', '>')];
/// Quotes around the strings of a list.
const QUOTES: [char; 7] = ['\'', '"', '`', '\u{2018}', '\u{2019}', '\u{201c}', '\u{201d}'];
/// The words that programs write for a missing value.
const MISSING: [&str; 8] = ["nan", "null", "na", "n/a", "<na>", "#n/a", "nat", "none"];

/// The names in a list, each with the line of its first occurrence.
pub type Names<'a> = BTreeMap<&'a str, usize>;

/// Checks the names in candidate sets. `known` are names that are certainly single, such as labels;
/// `ambiguous` says whether any set of the list has two names, so that its separator is in use. Returns
/// warnings about doubtful names.
///
/// # Errors
/// The line and the problem of a name that is several.
pub fn check(names: &Names, known: &HashSet<&str>, ambiguous: bool) -> Result<Vec<String>, (usize, String)> {
    let classes: HashSet<String> = names.keys().chain(known).map(|name| name.to_lowercase()).collect();
    let shared = if ambiguous { HashSet::new() } else { shared_parts(names) };
    let mut holding: Vec<(&str, usize, String)> = Vec::new();
    for (&name, &line) in names {
        if let Some(why) = is_several(name, &classes, &shared) {
            return Err((line, format!("class {name:?} {why}")));
        }
        if let Some(inside) =
            words(name).into_iter().find(|word| *word != name && classes.contains(&word.to_lowercase()))
        {
            holding.push((name, line, format!("class {inside:?}")));
        } else if !ambiguous && name.contains(SEPARATORS) {
            holding.push((name, line, "a separator, and no set of the list has two classes".into()));
        }
    }
    let mut lines = Vec::new();
    if let Some((name, line, what)) = holding.first() {
        let more =
            if holding.len() == 1 { String::new() } else { format!(" ({} such names)", holding.len()) };
        lines.push(format!(
            "class {name:?} (line {line}) holds {what}{more}; should it be several classes, separate them with |"
        ));
    }
    if let Some((name, line)) = names.iter().find(|(name, _)| MISSING.contains(&name.to_lowercase().as_str()))
    {
        lines.push(format!(
            "class {name:?} (line {line}) is what programs write for a missing value; should it be one, remove the \
             row"
        ));
    }
    Ok(lines)
}

/// Why a name is several, to follow "class NAME"; `classes` in lower case.
pub fn is_several(name: &str, classes: &HashSet<String>, shared: &HashSet<&str>) -> Option<String> {
    let own = name.to_lowercase();
    let is_class = |part: &str| {
        let part = part.to_lowercase();
        part != own && classes.contains(&part)
    };
    if let Some(bar) = name.chars().find(|c| LIKE_BAR.contains(c)) {
        return Some(format!("holds U+{:04X}, which looks like |; {REMEDY}", u32::from(bar)));
    }
    if is_list(name, &is_class) {
        return Some(format!("is written as a list or string of a program; write names alone; {REMEDY}"));
    }
    for separator in SEPARATORS {
        let parts = split(name, separator);
        if let Some(part) = parts.iter().find(|part| is_class(part)) {
            return Some(format!("holds class {part:?} and {separator:?}; {REMEDY}"));
        }
        if let Some(part) = parts.iter().find(|part| shared.contains(*part)) {
            return Some(format!(
                "shares {part:?} with another class, and no set of the list has two classes; {REMEDY}"
            ));
        }
    }
    for separator in IN_NAMES {
        let parts = split(name, separator);
        if parts.len() > 1 && parts.iter().all(|part| is_class(part)) {
            return Some(format!("is made of classes, {parts:?}; {REMEDY}"));
        }
    }
    let parts = made_of_words(name, &is_class)?;
    Some(format!("is made of classes, {parts:?}; {REMEDY}"))
}

/// The remedy for a name that is several.
const REMEDY: &str = "separate classes with |, or if it is one class list all classes in classes.txt";

/// The parts of a name between separators, without quotes and without empty parts; none if there is no
/// separator.
fn split(name: &str, separator: char) -> Vec<&str> {
    if !name.contains(separator) {
        return Vec::new();
    }
    name.split(separator).map(unquoted).filter(|part| !part.is_empty()).collect()
}

fn unquoted(part: &str) -> &str {
    part.trim().trim_matches(QUOTES).trim()
}

/// Whether a name is a list or a string in the notation of a programming language, or a piece of one.
fn is_list(name: &str, is_class: &impl Fn(&str) -> bool) -> bool {
    let quoted = name.starts_with(QUOTES) && name.ends_with(QUOTES) && name.chars().count() > 1;
    let bracketed =
        BRACKETS.iter().any(|&(open, close)| match (name.strip_prefix(open), name.strip_suffix(close)) {
            (Some(inside), Some(_)) => {
                let inside = inside.strip_suffix(close).unwrap_or_default();
                inside.trim().is_empty()
                    || inside.contains(SEPARATORS)
                    || inside.contains(QUOTES)
                    || is_class(inside.trim())
                    || inside.split_whitespace().any(is_class)
            }
            // A list that was cut at the separator.
            (Some(rest), None) => open != '<' && !rest.contains(close),
            (None, Some(rest)) => open != '<' && !rest.contains(open),
            (None, None) => false,
        });
    // set(), array(['cat']), frozenset({'cat'}); and membership as zeros and ones.
    let called = name.ends_with("()") || ["(['", "([\"", "({", "(('"].iter().any(|part| name.contains(part));
    let members =
        name.split_whitespace().count() > 1 && name.split_whitespace().all(|word| word == "0" || word == "1");
    quoted || bracketed || called || members
}

/// The words of a name: split at blanks, and also at the characters that may be part of a name.
pub fn words(name: &str) -> Vec<&str> {
    let between = |c: char| c.is_whitespace() || IN_NAMES.contains(&c);
    name.split(between).filter(|word| !word.is_empty()).collect()
}

/// The classes that a name consists of, if its words form classes without a rest: "red panda dog" is "red
/// panda" and "dog". "and" and "or" in between are ignored.
fn made_of_words<'a>(name: &'a str, is_class: &impl Fn(&str) -> bool) -> Option<Vec<&'a str>> {
    let starts: Vec<(usize, &str)> =
        name.split_whitespace().map(|word| (word.as_ptr() as usize - name.as_ptr() as usize, word)).collect();
    // Too long to be a list of classes that is worth splitting.
    if !(2..=64).contains(&starts.len()) {
        return None;
    }
    // Entry i: the last part of a split of the first i words into classes; none is needed for 0 words.
    let mut ways: Vec<Option<(usize, Option<&str>)>> = vec![Some((0, None))];
    for end in 1..=starts.len() {
        let (at, word) = starts[end - 1];
        let part_from = |begin: usize| &name[starts[begin].0..at + word.len()];
        let way = (0..end).filter(|&begin| ways[begin].is_some()).find_map(|begin| {
            let part = part_from(begin);
            let joins = end - begin == 1
                && begin > 0
                && end < starts.len()
                && ["and", "or", "&", "+", "oder", "und"].contains(&part);
            if is_class(part) { Some((begin, Some(part))) } else { joins.then_some((begin, None)) }
        });
        ways.push(way);
    }
    let (mut parts, mut end) = (Vec::new(), starts.len());
    while end > 0 {
        let (begin, part) = (*ways.get(end)?)?;
        parts.extend(part);
        end = begin;
    }
    parts.reverse();
    (parts.len() > 1).then_some(parts)
}

/// The parts between separators that occur in two or more names.
fn shared_parts<'a>(names: &Names<'a>) -> HashSet<&'a str> {
    let mut owners: HashMap<&str, &str> = HashMap::new();
    let mut shared = HashSet::new();
    for &name in names.keys() {
        for part in SEPARATORS.iter().flat_map(|&separator| split(name, separator)) {
            if *owners.entry(part).or_insert(name) != name {
                shared.insert(part);
            }
        }
    }
    shared
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a list of sets with these names becomes; a set has two names where `ambiguous` says so.
    fn check_names(names: &[&str], ambiguous: bool) -> Result<Vec<String>, String> {
        let names: Names = names.iter().copied().zip(2..).collect();
        check(&names, &HashSet::new(), ambiguous).map_err(|(line, problem)| format!("{line}: {problem}"))
    }

    #[test]
    fn lists_in_other_languages_are_refused() {
        for name in [
            "cat,dog",
            "cat, dog",
            "cat;dog",
            "cat; dog",
            "cat/dog",
            "cat / dog",
            "cat\\dog",
            "cat\u{ff0c}dog",
            "cat\u{3001}dog",
            "cat,",
            "Cat,dog",
            "['cat', 'dog']",
            "['cat' 'dog']",
            "[\"cat\",\"dog\"]",
            "[cat, dog]",
            "[cat dog]",
            "[cat]",
            "{cat,dog}",
            "{'cat'}",
            "('cat', 'dog')",
            "('cat',)",
            "(cat, dog)",
            "<cat, dog>",
            "[]",
            "{ }",
            "'cat'",
            "\"cat\"",
            "`cat`",
            "\u{201c}cat\u{201d}",
            "[cat",
            "dog]",
            "'cat', 'dog'",
            "cat\u{a6}dog",
            "cat\u{ff5c}dog",
            "cat\u{2502}dog",
            "[0, 1]",
            "0 1 1",
            "set()",
            "array(['cat', 'dog'])",
            "frozenset({'cat'})",
            "{\"cat\": 1}",
        ] {
            for ambiguous in [false, true] {
                let error = check_names(&["bird", name, "cat"], ambiguous).unwrap_err();
                assert!(
                    error.starts_with("3: class ") && error.contains("separate classes with |"),
                    "{name}: {error}"
                );
            }
        }
        // Every part is a class elsewhere.
        for name in [
            "cat dog",
            "cat and dog",
            "cat or dog",
            "dog cat dog",
            "cat+dog",
            "cat & dog",
            "cat&dog",
            "cat:dog",
            "cat_dog",
            "cat-dog",
            "cat  dog",
        ] {
            let error = check_names(&["dog", name, "cat"], true).unwrap_err();
            assert!(
                error.starts_with("3: ")
                    && error.contains("is made of classes")
                    && error.contains("classes.txt"),
                "{name}: {error}"
            );
        }
        assert!(
            check_names(&["red panda", "dog", "red panda dog"], true)
                .unwrap_err()
                .contains("[\"red panda\", \"dog\"]")
        );
        // No name occurs alone, but parts occur repeatedly.
        assert!(check_names(&["cat,dog", "dog,bird", "bird,cat"], false).unwrap_err().contains("shares"));
    }

    #[test]
    fn names_that_hold_another_get_a_line() {
        for (names, parts) in [
            (&["dog", "hot dog"][..], &["\"hot dog\" (line 3) holds class \"dog\""][..]),
            (&["cat", "cat dog"], &["\"cat dog\"", "\"cat\"", "separate them with |"]),
            (&["panda", "red-panda"], &["\"red-panda\"", "\"panda\""]),
            (&["dog", "hot dog", "prairie dog"], &["(2 such names)"]),
            (&["nan", "cat"], &["\"nan\" (line 2)", "missing value"]),
        ] {
            for ambiguous in [false, true] {
                let lines = check_names(names, ambiguous).unwrap();
                assert_eq!(lines.len(), 1, "{names:?}: {lines:?}");
                parts
                    .iter()
                    .for_each(|part| assert!(lines[0].contains(part), "{lines:?} does not say {part}"));
            }
        }
        // Names with commas where the list uses its separator are names; where no set has two classes they
        // may be sets.
        let names = ["tench, Tinca tinca", "goldfish, Carassius auratus"];
        assert_eq!(check_names(&names, true), Ok(vec![]));
        let lines = check_names(&names, false).unwrap();
        assert!(lines.len() == 1 && lines[0].contains("no set of the list has two classes"), "{lines:?}");
    }

    #[test]
    fn ordinary_names_get_none() {
        let names = [
            "cat",
            "dogfish",
            "great white shark",
            "t-shirt",
            "[background]",
            "(other)",
            "<18",
            ">= 65",
            "C++",
            "rock'n'roll",
            "1",
            "10",
            "3.5",
            "a/b",
            "O'Neill",
        ];
        assert_eq!(check_names(&names, true), Ok(vec![]));
    }

    proptest::proptest! {
        #[test]
        fn any_names_are_taken_or_reported(names in proptest::collection::vec("[ab,;/ \\[\\]'\u{e9}|&-]{1,6}|\\PC{0,8}", 0..8), ambiguous: bool) {
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let _ = check_names(&names, ambiguous);
        }
    }
}
