//! What a value may be.

use super::{Declaration, Value, number};

/// Bounds of numbers whose size has no meaning of its own: devices compute in f32, where products of a few of
/// them must neither vanish nor overflow by themselves.
pub const LEAST: f64 = 1e-30;
/// See [`LEAST`].
pub const MOST: f64 = 1e30;

/// Epochs that a setting may name at most: the longest run.
pub const MOST_EPOCHS: usize = 1_000_000;

/// What a value may be, as a test and in words that follow "must be".
#[derive(Clone, Copy, Debug)]
pub enum Check {
    /// True or false.
    Switch,
    /// The path of a folder; whether there is one is not asked.
    Folder,
    /// One of the words that the function gives.
    OneOf(fn() -> Vec<&'static str>),
    /// A whole number from the first to the second.
    Whole(usize, usize),
    /// A number from the first to the second.
    Number(f64, f64),
    /// Above 0 and at most 1.
    Share,
    /// At least 0 and below 1.
    Chance,
    /// At least 0 and below 1 as devices take it: the f64 next to 1 is 1 in f32, and a mean with that
    /// momentum never moves.
    Momentum,
    /// Two numbers from the first to the second, and an example.
    Pair(f64, f64, &'static str),
    /// Whole numbers from 0 to the first, at most so many as the second says, and an example.
    Wholes(usize, usize, &'static str),
    /// In words, and as a test.
    That(&'static str, fn(&Value) -> bool),
}

impl Check {
    /// What is allowed, to follow "must be".
    pub fn allowed(&self) -> String {
        match self {
            Check::Switch => "true or false".into(),
            Check::Folder => "a folder".into(),
            Check::OneOf(words) => format!("one of {}", words().join(", ")),
            Check::Whole(least, most) => format!("a whole number from {least} to {most}"),
            Check::Number(least, most) => format!("a number from {} to {}", number(*least), number(*most)),
            Check::Share => "above 0 and at most 1".into(),
            Check::Chance => "at least 0 and below 1".into(),
            Check::Momentum => "at least 0 and below 1, in f32 too".into(),
            Check::Pair(least, most, example) => {
                format!("two numbers from {} to {}, as in {example}", number(*least), number(*most))
            }
            Check::Wholes(most, len, example) => {
                format!("whole numbers from 0 to {most}, at most {len} of them, as in {example}")
            }
            Check::That(allowed, _) => (*allowed).into(),
        }
    }

    /// What of `value` is not allowed, as a user would write it.
    pub fn fault(&self, value: &Value) -> Option<String> {
        let fine = match (self, value) {
            (Check::Switch, Value::Bool(_)) => true,
            (Check::Folder, Value::Path(path)) => !path.as_os_str().is_empty(),
            (Check::OneOf(words), Value::Text(word)) => words().contains(&word.as_str()),
            (Check::Whole(least, most), Value::Whole(n)) => (*least as u64..=*most as u64).contains(n),
            (Check::Number(least, most), Value::Number(x)) => (*least..=*most).contains(x),
            (Check::Share, Value::Number(x)) => *x > 0.0 && *x <= 1.0,
            (Check::Chance, Value::Number(x)) => (0.0..1.0).contains(x),
            (Check::Momentum, Value::Number(x)) => *x >= 0.0 && (*x as f32) < 1.0,
            (Check::Pair(least, most, _), Value::Numbers(pair)) => {
                pair.len() == 2 && pair.iter().all(|x| (*least..=*most).contains(x))
            }
            (Check::Wholes(_, most, _), Value::Wholes(list)) if list.len() > *most => {
                return Some(format!("({} of them)", list.len()));
            }
            (Check::Wholes(most, ..), Value::Wholes(list)) => {
                return list.iter().find(|&&n| n > *most as u64).map(u64::to_string);
            }
            (Check::That(_, fine), value) => fine(value),
            _ => false,
        };
        (!fine).then(|| value.to_string())
    }
}

impl Declaration {
    /// Whether `value` is a word of the setting's list, where it has one.
    pub fn knows(&self, value: &Value) -> bool {
        !matches!(self.check, Check::OneOf(_)) || self.check.fault(value).is_none()
    }
}
