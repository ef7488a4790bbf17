//! Values whose type is known at run time, and the types that a field of settings may have.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use serde::Serialize;

use crate::text::printable;

/// A value of a setting.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Value {
    /// True or false.
    Bool(bool),
    /// A whole number.
    Whole(u64),
    /// A number.
    Number(f64),
    /// A word or a name.
    Text(String),
    /// A path, which need not be UTF-8.
    Path(PathBuf),
    /// Whole numbers.
    Wholes(Vec<u64>),
    /// Numbers.
    Numbers(Vec<f64>),
}

/// As a user would write it.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Bool(value) => write!(f, "{value}"),
            Value::Whole(value) => write!(f, "{value}"),
            Value::Number(value) => f.write_str(&number(*value)),
            Value::Text(value) => f.write_str(value),
            Value::Path(value) => write!(f, "{}", value.display()),
            Value::Wholes(values) => f.write_str(&list(values.iter().map(u64::to_string))),
            Value::Numbers(values) => f.write_str(&list(values.iter().map(|&x| number(x)))),
        }
    }
}

fn list(values: impl Iterator<Item = String>) -> String {
    values.collect::<Vec<_>>().join(",")
}

/// A number as a user would write it, with an exponent if it is very large or very small.
pub(crate) fn number(value: f64) -> String {
    match value.abs() {
        size if size != 0.0 && size.is_finite() && !(1e-6..1e16).contains(&size) => format!("{value:e}"),
        _ => value.to_string(),
    }
}

/// The value on one line, quoted if it is empty or has blanks or control characters, so that it is visible in
/// a message.
pub(crate) fn quoted_where_odd(value: &str) -> String {
    if value.is_empty() || value.chars().any(|c| c.is_control() || c.is_whitespace()) {
        printable(&format!("{value:?}"))
    } else {
        printable(value)
    }
}

/// The type of a setting's value, which decides how it is read from flags and TOML.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// True or false.
    Bool,
    /// A whole number that fits into 32 bits.
    U32,
    /// A whole number that fits into 64 bits.
    U64,
    /// A whole number that is a size on this machine.
    Usize,
    /// A number.
    F64,
    /// A word or a name.
    Text,
    /// A path.
    Path,
    /// A list of whole numbers.
    Wholes,
    /// A list of numbers.
    Numbers,
}

/// A type that a field of settings may have.
pub trait Field: Sized {
    /// The type of its value.
    const SHAPE: Shape;

    /// The value; `None` if the setting is absent.
    fn value(&self) -> Option<Value>;

    /// The field with a value, or of an absent setting; `None` if the field cannot have this value, or cannot
    /// be absent.
    fn of(value: Option<Value>) -> Option<Self>;
}

/// Implements [`Field`] for types: each with its [`Shape`], its variant of [`Value`], and the ways to and
/// from it.
macro_rules! fields {
    ($($kind:ty: $shape:ident, $variant:ident, $to:expr, $from:expr;)*) => {
        $(impl Field for $kind {
            const SHAPE: Shape = Shape::$shape;

            fn value(&self) -> Option<Value> {
                let to: fn(&Self) -> _ = $to;
                Some(Value::$variant(to(self)))
            }

            fn of(value: Option<Value>) -> Option<Self> {
                let from: fn(_) -> Option<Self> = $from;
                if let Some(Value::$variant(value)) = value { from(value) } else { None }
            }
        })*
    };
}

fields! {
    bool: Bool, Bool, |value| *value, Some;
    u32: U32, Whole, |value| u64::from(*value), |value: u64| value.try_into().ok();
    u64: U64, Whole, |value| *value, Some;
    usize: Usize, Whole, |value| *value as u64, |value: u64| value.try_into().ok();
    f64: F64, Number, |value| *value, Some;
    String: Text, Text, String::clone, Some;
    PathBuf: Path, Path, PathBuf::clone, Some;
    Vec<usize>: Wholes, Wholes, |values| values.iter().map(|&n| n as u64).collect(),
        |values: Vec<u64>| values.into_iter().map(|n| n.try_into().ok()).collect();
    Vec<f64>: Numbers, Numbers, Vec::clone, Some;
    [f64; 2]: Numbers, Numbers, |pair| pair.to_vec(), |pair: Vec<f64>| pair.try_into().ok();
}

impl<T: Field> Field for Option<T> {
    const SHAPE: Shape = T::SHAPE;

    fn value(&self) -> Option<Value> {
        self.as_ref()?.value()
    }

    fn of(value: Option<Value>) -> Option<Self> {
        if value.is_none() { Some(None) } else { T::of(value).map(Some) }
    }
}

/// Values by the names of their settings.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Values(BTreeMap<&'static str, Value>);

impl Values {
    /// Sets the setting `name` to `value`, or removes it if `value` is `None`.
    pub fn with(mut self, name: &'static str, value: impl Field) -> Self {
        self.set(name, value.value());
        self
    }

    /// Sets or, with `None`, removes the value of `name`.
    pub fn set(&mut self, name: &'static str, value: Option<Value>) {
        match value {
            Some(value) => self.0.insert(name, value),
            None => self.0.remove(name),
        };
    }

    /// The value of `name`.
    pub fn value(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }

    /// The value of `name` as a field of type `T`.
    pub fn get<T: Field>(&self, name: &str) -> Option<T> {
        T::of(self.value(name).cloned())
    }

    /// Keeps only the values whose names satisfy `keep`.
    pub fn retain(&mut self, keep: impl Fn(&str) -> bool) {
        self.0.retain(|name, _| keep(name));
    }

    /// Names and values.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &Value)> {
        self.0.iter().map(|(name, value)| (*name, value))
    }
}

/// Declares an enum that is a [`Field`]: each variant has a word, which stands for it in TOML, as a flag's
/// value and in print.
#[macro_export]
macro_rules! declare_words {
    (
        $(#[$about:meta])*
        pub enum $name:ident { $($(#[$variant_about:meta])* $variant:ident = $word:literal,)* }
    ) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name {
            $($(#[$variant_about])* $variant,)*
        }

        impl $name {
            /// All variants.
            pub const ALL: &[Self] = &[$($name::$variant),*];

            /// All words.
            pub fn words() -> Vec<&'static str> {
                vec![$($word),*]
            }

            /// The variant of a word; `None` for an unknown word.
            pub fn from_word(word: &str) -> Option<Self> {
                Self::ALL.iter().find(|variant| variant.word() == word).copied()
            }

            /// The word of the variant.
            pub fn word(self) -> &'static str {
                match self {
                    $($name::$variant => $word,)*
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.word())
            }
        }

        impl $crate::declaration::Field for $name {
            const SHAPE: $crate::declaration::Shape = $crate::declaration::Shape::Text;

            fn value(&self) -> Option<$crate::declaration::Value> {
                Some($crate::declaration::Value::Text(self.word().into()))
            }

            fn of(value: Option<$crate::declaration::Value>) -> Option<Self> {
                Self::from_word(&String::of(value)?)
            }
        }
    };
}
