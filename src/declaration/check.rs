//! The allowed values of a setting.

use super::{Declaration, Value, number};

/// The smallest value of a positive number that has no natural bounds. Devices compute in f32, where a
/// product of a few such numbers must neither vanish nor overflow.
pub const LEAST: f64 = 1e-30;
/// The largest value of such a number, see [`LEAST`].
pub const MOST: f64 = 1e30;

/// The most epochs that a setting may name: the longest run.
pub const MOST_EPOCHS: usize = 1_000_000;

/// The allowed values, as a test and in words that follow "must be".
#[derive(Clone, Copy, Debug)]
pub enum Check {
    /// True or false.
    Switch,
    /// The path of a folder, which need not exist.
    Folder,
    /// One of the words that the function returns.
    OneOf(fn() -> Vec<&'static str>),
    /// A whole number from the first to the second.
    Whole(usize, usize),
    /// A number from the first to the second.
    Number(f64, f64),
    /// Above 0 and at most 1.
    Share,
    /// At least 0 and below 1.
    Chance,
    /// At least 0 and below 1, also in f32: the f64 next to 1 becomes 1 there, and a mean with momentum 1
    /// never moves.
    Momentum,
    /// Two numbers from the first to the second; then an example.
    Pair(f64, f64, &'static str),
    /// Whole numbers from 0 to the first, at most the second of them; then an example.
    Wholes(usize, usize, &'static str),
    /// Any other test, with its words.
    That(&'static str, fn(&Value) -> bool),
}

impl Check {
    /// The allowed values, in words that follow "must be".
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

    /// The part of `value` that is not allowed, as a user would write it; `None` if all of it is allowed.
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
    /// Whether `value` is among the setting's words; true for a setting without a list of words.
    pub fn knows(&self, value: &Value) -> bool {
        !matches!(self.check, Check::OneOf(_)) || self.check.fault(value).is_none()
    }
}
