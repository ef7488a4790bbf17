//! Settings, each declared once. A group of settings is a struct made by
//! [`declare_settings!`](crate::declare_settings), where each setting is one entry: help, name, type,
//! default, allowed values, and when it is read. All else follows from the entry:
//!
//! | file | what |
//! |---|---|
//! | here | the struct, its defaults, checks, values by name |
//! | [`value`] | a value whose type is known at run time, and the types that a field may have |
//! | [`check`] | the allowed values, as a test and in words |
//! | [`given`] | the values of a group that flags or a TOML file give |
//! | [`own`] | groups that belong to one word of another setting, such as those of a method |
//! | [`document`] | the table in the documentation |

pub mod check;
pub mod document;
pub mod given;
pub mod own;
pub mod value;

use std::fmt;

pub use check::{Check, LEAST, MOST, MOST_EPOCHS};
pub use given::Given;
pub use own::{Own, OwnSettings};
pub use value::{Field, Shape, Value, Values};
pub(crate) use value::{number, quoted_where_odd};

/// A setting.
#[derive(Clone, Debug)]
pub struct Declaration {
    /// Its key in TOML and, after `--`, its flag.
    pub name: &'static str,
    /// Its meaning, for help and documentation.
    pub help: String,
    /// The placeholder of its value in the help.
    pub value_name: &'static str,
    /// Heading in the help and in the documentation.
    pub group: &'static str,
    /// The type of its value.
    pub shape: Shape,
    /// The allowed values.
    pub check: Check,
    /// Other properties.
    pub more: Vec<More>,
}

/// A further property of a setting. A setting without `Only` and `Except` is always read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum More {
    /// It has a flag of one letter.
    Short(char),
    /// Its flag has another name.
    Alias(&'static str),
    /// It is read only where the other setting has the word.
    Only(&'static str, &'static str),
    /// It is not read where the other setting has the word.
    Except(&'static str, &'static str),
    /// It does not change what a run computes, so a resumed run may have another value.
    Free,
    /// Earlier versions did not have it: where the files of a run lack it, it has its default.
    Newer,
}

impl Declaration {
    /// Whether it is read, given the values of other settings by `of`. A setting whose value `of` does not
    /// know is no obstacle.
    pub fn is_read(&self, of: impl Fn(&str) -> Option<String>) -> bool {
        self.more.iter().all(|more| match more {
            More::Only(setting, word) => of(setting).is_none_or(|value| value == *word),
            More::Except(setting, word) => of(setting).is_none_or(|value| value != *word),
            _ => true,
        })
    }

    /// The refusal of `value`.
    pub fn bad(&self, value: &str) -> BadSetting {
        let reason = format!("must be {}", self.check.allowed());
        BadSetting { name: self.name, value: quoted_where_odd(value), reason }
    }
}

/// A setting whose value is not allowed.
#[derive(Clone, Debug, PartialEq)]
pub struct BadSetting {
    /// The setting's key in TOML and, after `--`, its flag.
    pub name: &'static str,
    /// The value as a user would write it; empty if the setting is missing.
    pub value: String,
    /// What is wrong, and what is allowed.
    pub reason: String,
}

impl fmt::Display for BadSetting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let BadSetting { name, value, reason } = self;
        if value.is_empty() {
            write!(f, "--{name}: {reason}")
        } else {
            write!(f, "--{name} {value}: {reason}")
        }
    }
}

/// A struct of settings, made by [`declare_settings!`](crate::declare_settings).
pub trait Group: Clone + Default {
    /// The settings, in their order in help, TOML and checks.
    fn declarations() -> &'static [Declaration];

    /// The value of a setting; `None` if it is absent, or not in this group.
    fn value(&self, name: &str) -> Option<Value>;

    /// Sets or, with `None`, removes a value. Returns `false` if the setting cannot have this value, cannot
    /// be absent, or is not in this group.
    fn put(&mut self, name: &str, value: Option<Value>) -> bool;

    /// The setting called `name`.
    fn declaration(name: &str) -> Option<&'static Declaration> {
        Self::declarations().iter().find(|declaration| declaration.name == name)
    }

    /// Overrides the settings with `given`. Only types and words are checked; [`Group::out_of_range`] checks
    /// the rest.
    ///
    /// # Errors
    /// The first value that its setting cannot have, or an unknown setting.
    fn lay(&mut self, given: &Values) -> Result<(), BadSetting> {
        for declaration in Self::declarations() {
            if let Some(value) = given.value(declaration.name)
                && !(declaration.knows(value) && self.put(declaration.name, Some(value.clone())))
            {
                return Err(declaration.bad(&value.to_string()));
            }
        }
        match given.iter().find(|(name, _)| Self::declaration(name).is_none()) {
            None => Ok(()),
            Some((name, value)) => {
                Err(BadSetting { name, value: value.to_string(), reason: "there is no such setting".into() })
            }
        }
    }

    /// The settings whose values are not allowed, whatever the others are, in the order of the declarations.
    fn out_of_range(&self) -> Vec<BadSetting> {
        let fault = |declaration: &Declaration| {
            let shown = declaration.check.fault(&self.value(declaration.name)?)?;
            Some(declaration.bad(&shown))
        };
        Self::declarations().iter().filter_map(fault).collect()
    }
}

/// The declarations of a group and those that are `brought`, each of these at the end of its heading.
#[doc(hidden)]
pub fn together(mut all: Vec<Declaration>, brought: Vec<Declaration>) -> Vec<Declaration> {
    let headings: Vec<&str> = all.iter().map(|known| known.group).collect();
    let place = |group| headings.iter().position(|&known| known == group).unwrap_or(headings.len());
    all.extend(brought);
    all.sort_by_key(|setting| place(setting.group));
    all
}

/// Declares a group of settings: a struct whose fields are declared once, with everything about them.
///
/// An entry is `"name" field: Type = default, "VALUE", check, more...;` below a doc comment, which becomes
/// the setting's help; `check` is a [`Check`], `more` are [`More`]. The type implements [`Field`]; an
/// `Option` is a setting that may be absent.
///
/// After the headings, `brought { field: settings }` adds a field of type [`Values`] for the given values of
/// settings that are declared elsewhere; `settings` is a function that returns their declarations. They come
/// last under their headings.
///
/// ```
/// use records::declaration::{Given, Group};
///
/// records::declare_settings! {
///     /// Settings of a method of one's own.
///     pub struct Sharpening {
///         "Method" {
///             /// Power that sharpens a confidence row.
///             "power" power: f64 = 2.0, "POWER", Number(0.0, 10.0);
///         }
///     }
/// }
/// let given: Given<Sharpening> = toml::from_str("power = 3").unwrap();
/// let mut settings = Sharpening::default();
/// settings.lay(&given.values).unwrap();
/// assert_eq!(settings.power, 3.0);
/// settings.power = 11.0;
/// assert_eq!(settings.out_of_range()[0].to_string(), "--power 11: must be a number from 0 to 10");
/// ```
#[macro_export]
macro_rules! declare_settings {
    (
        $(#[$about:meta])*
        pub struct $group:ident {
            $($heading:literal {
                $(
                    $(#[doc = $help:literal])+
                    $name:literal $field:ident: $kind:ty = $default:expr, $value_name:literal, $check:expr
                    $(, $more:expr)*;
                )+
            })+
        }
        $(brought { $(#[$brought_about:meta])* $brought:ident: $bring:expr })?
    ) => {
        $(#[$about])*
        #[derive(Clone, Debug, PartialEq)]
        pub struct $group {
            $($($(#[doc = $help])+ pub $field: $kind,)+)+
            $($(#[$brought_about])* pub $brought: $crate::declaration::Values,)?
        }

        impl Default for $group {
            fn default() -> Self {
                Self { $($($field: $default,)+)+ $($brought: Default::default(),)? }
            }
        }

        impl $crate::declaration::Group for $group {
            fn declarations() -> &'static [$crate::declaration::Declaration] {
                #[allow(unused_imports, reason = "a group need not use both")]
                use $crate::declaration::{Check::*, More::*};
                use ::std::sync::LazyLock;
                static ALL: LazyLock<Vec<$crate::declaration::Declaration>> = LazyLock::new(|| {
                    let all = vec![$($($crate::declaration::Declaration {
                        name: $name,
                        help: concat!($($help),+).trim().trim_end_matches('.').into(),
                        value_name: $value_name,
                        group: $heading,
                        shape: <$kind as $crate::declaration::Field>::SHAPE,
                        check: $check,
                        more: vec![$($more),*],
                    },)+)+];
                    $(let all = $crate::declaration::together(all, $bring());)?
                    all
                });
                &ALL
            }

            fn value(&self, name: &str) -> Option<$crate::declaration::Value> {
                match name {
                    $($($name => $crate::declaration::Field::value(&self.$field),)+)+
                    $(_ if true => self.$brought.value(name).cloned(),)?
                    _ => None,
                }
            }

            fn put(&mut self, name: &str, value: Option<$crate::declaration::Value>) -> bool {
                match name {
                    $($($name => {
                        $crate::declaration::Field::of(value).map(|value| self.$field = value).is_some()
                    })+)+
                    $(_ if true => {
                        Self::declaration(name).map(|known| self.$brought.set(known.name, value)).is_some()
                    })?
                    _ => false,
                }
            }
        }
    };
}
