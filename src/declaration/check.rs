//! What a value may be.

use std::path::Path;

use super::{Declaration, Shape, Value, number};

/// Bounds of numbers whose size has no meaning of its own: devices compute in f32, where products of a few of them must neither
/// vanish nor overflow by themselves.
pub const LEAST: f64 = 1e-30;
/// See [`LEAST`].
pub const MOST: f64 = 1e30;

/// Epochs that a setting may name at most: the longest run.
pub const MOST_EPOCHS: usize = 1_000_000;

/// What a value may be, as a test and in words that follow "must be".
#[derive(Clone, Copy, Debug)]
pub enum Check {
    /// One of the words that the function gives.
    OneOf(fn() -> Vec<&'static str>),
    /// A whole number from the first to the second.
    Whole(usize, usize),
    /// A number from the first to the second.
    Number(f64, f64),
    /// Two numbers from the first to the second, and an example.
    Pair(f64, f64, &'static str),
    /// Whole numbers from 0 to the first, at most so many as the second says, and an example.
    Wholes(usize, usize, &'static str),
    /// In words, and as a test.
    That(&'static str, fn(&Value) -> bool),
}

impl Check {
    /// True or false.
    pub const SWITCH: Check = Check::That("true or false", |_| true);
    /// The path of a folder; whether there is one is not asked.
    pub const FOLDER: Check =
        Check::That("a folder", |value| value.as_path().is_some_and(|path| path != Path::new("")));
    /// A share that is not nothing.
    pub const SHARE: Check = Check::That("above 0 and at most 1", |value| {
        value.as_number().is_some_and(|value| value > 0.0 && value <= 1.0)
    });
    /// A chance that is not certain.
    pub const CHANCE: Check = Check::That("at least 0 and below 1", |value| {
        value.as_number().is_some_and(|value| (0.0..1.0).contains(&value))
    });
    /// At least 0 and below 1 as devices take it: the f64 next to 1 is 1 in f32, and a mean with that momentum never moves.
    pub const MOMENTUM: Check = Check::That("at least 0 and below 1, in f32 too", |value| {
        value.as_number().is_some_and(|value| value >= 0.0 && (value as f32) < 1.0)
    });

    /// What is allowed, to follow "must be".
    pub fn allowed(&self) -> String {
        match self {
            Check::OneOf(words) => format!("one of {}", words().join(", ")),
            Check::Whole(least, most) => format!("a whole number from {least} to {most}"),
            Check::Number(least, most) => format!("a number from {} to {}", number(*least), number(*most)),
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
            (Check::OneOf(words), Value::Text(word)) => words().contains(&word.as_str()),
            (Check::Whole(least, most), Value::Whole(n)) => (*least as u64..=*most as u64).contains(n),
            (Check::Number(least, most), Value::Number(x)) => (*least..=*most).contains(x),
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
    /// Whether `value` is of the setting's type: a word of its list, where there is one.
    pub fn holds(&self, value: &Value) -> bool {
        let of_shape = match self.shape {
            Shape::Bool => matches!(value, Value::Bool(_)),
            Shape::U32 | Shape::U64 | Shape::Usize => matches!(value, Value::Whole(_)),
            Shape::F64 => matches!(value, Value::Number(_)),
            Shape::Text => matches!(value, Value::Text(_)),
            Shape::Path => matches!(value, Value::Path(_)),
            Shape::Wholes => matches!(value, Value::Wholes(_)),
            Shape::Numbers => matches!(value, Value::Numbers(_)),
        };
        of_shape && !(matches!(self.check, Check::OneOf(_)) && self.check.fault(value).is_some())
    }
}
