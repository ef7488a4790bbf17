//! The values of a group of settings that one place gives: flags or a TOML file. Others stay unset, so that
//! one place can override another.

use std::fmt;
use std::marker::PhantomData;
use std::path::PathBuf;

use clap::builder::{BoolValueParser, PathBufValueParser, StringValueParser, TypedValueParser, ValueParser};
use clap::{Arg, ArgMatches, Args, Command, FromArgMatches};
use serde::de::{DeserializeSeed, Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::{Declaration, Field, Group, More, Shape, Value, Values};

/// Values of some settings of the group `G`, from flags through [`clap::Args`] or from TOML through
/// [`serde::Deserialize`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Given<G> {
    /// The given values.
    pub values: Values,
    of: PhantomData<fn() -> G>,
}

impl<G> Given<G> {
    /// Sets the setting `name` to `value`, or removes it if `value` is `None`.
    pub fn with(self, name: &'static str, value: impl Field) -> Self {
        Self { values: self.values.with(name, value), ..self }
    }
}

impl Shape {
    /// The parser of a value; for lists, of one element.
    fn parser(self) -> ValueParser {
        fn whole(text: &str) -> Result<Value, std::num::ParseIntError> {
            text.parse().map(Value::Whole)
        }
        match self {
            Shape::Bool => BoolValueParser::new().map(Value::Bool).into(),
            Shape::Text => StringValueParser::new().map(Value::Text).into(),
            Shape::Path => PathBufValueParser::new().map(Value::Path).into(),
            Shape::U32 => clap::value_parser!(u32).map(|n: u32| Value::Whole(n.into())).into(),
            Shape::U64 | Shape::Usize => ValueParser::new(whole),
            // Blanks around commas are allowed.
            Shape::Wholes => ValueParser::new(|text: &str| whole(text.trim())),
            Shape::F64 | Shape::Numbers => ValueParser::new(|text: &str| text.parse().map(Value::Number)),
        }
    }
}

impl Declaration {
    /// The flag. Its help gets the allowed values and the default elsewhere, since commands differ in these.
    fn argument(&self) -> Arg {
        let argument = Arg::new(self.name)
            .long(self.name)
            .value_name(self.value_name)
            .help_heading(self.group)
            .help(&self.help)
            .value_parser(self.shape.parser());
        let argument = self.more.iter().fold(argument, |argument, more| match more {
            More::Short(letter) => argument.short(*letter),
            More::Alias(name) => argument.visible_alias(*name),
            _ => argument,
        });
        match self.shape {
            Shape::Bool => argument
                .num_args(0..=1)
                .require_equals(true)
                .default_missing_value("true")
                .hide_possible_values(true),
            Shape::Text | Shape::Path => argument,
            // -1 and -inf are then refused as values, with what is allowed, and not as unknown flags.
            Shape::Wholes | Shape::Numbers => argument.allow_hyphen_values(true).value_delimiter(','),
            _ => argument.allow_hyphen_values(true),
        }
    }

    fn value_in(&self, matches: &ArgMatches) -> Option<Value> {
        let mut values = matches.get_many::<Value>(self.name)?.cloned();
        match self.shape {
            Shape::Wholes => {
                values.map(|value| u64::of(Some(value))).collect::<Option<_>>().map(Value::Wholes)
            }
            Shape::Numbers => {
                values.map(|value| f64::of(Some(value))).collect::<Option<_>>().map(Value::Numbers)
            }
            _ => values.next(),
        }
    }
}

impl<G: Group> Args for Given<G> {
    fn augment_args(command: Command) -> Command {
        command.args(G::declarations().iter().map(Declaration::argument))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl<G: Group> FromArgMatches for Given<G> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut values = Values::default();
        for declaration in G::declarations() {
            values.set(declaration.name, declaration.value_in(matches));
        }
        Ok(Self { values, of: PhantomData })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        Self::from_arg_matches(matches).map(|given| *self = given)
    }
}

impl<'de> DeserializeSeed<'de> for Shape {
    type Value = Option<Value>;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Option<Value>, D::Error> {
        match self {
            Shape::Bool => bool::deserialize(from).map(|value| value.value()),
            Shape::U32 => u32::deserialize(from).map(|value| value.value()),
            Shape::U64 => u64::deserialize(from).map(|value| value.value()),
            Shape::Usize => usize::deserialize(from).map(|value| value.value()),
            Shape::F64 => f64::deserialize(from).map(|value| value.value()),
            Shape::Text => String::deserialize(from).map(|value| value.value()),
            Shape::Path => PathBuf::deserialize(from).map(|value| value.value()),
            Shape::Wholes => Vec::<usize>::deserialize(from).map(|value| value.value()),
            Shape::Numbers => Vec::<f64>::deserialize(from).map(|value| value.value()),
        }
    }
}

/// A key of a table of settings.
struct Key(&'static [Declaration]);

impl<'de> DeserializeSeed<'de> for Key {
    type Value = &'static Declaration;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        let key = String::deserialize(from)?;
        let known = self.0.iter().find(|declaration| declaration.name == key);
        known.ok_or_else(|| D::Error::custom(format_args!("unknown field `{key}`")))
    }
}

/// A table of settings.
struct SettingsTable(&'static [Declaration]);

impl<'de> Visitor<'de> for SettingsTable {
    type Value = Values;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a table of settings")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut table: M) -> Result<Values, M::Error> {
        let mut values = Values::default();
        while let Some(Declaration { name, shape, .. }) = table.next_key_seed(Key(self.0))? {
            values.set(name, table.next_value_seed(*shape)?);
        }
        Ok(values)
    }
}

impl<'de, G: Group> Deserialize<'de> for Given<G> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Ok(Self { values: from.deserialize_map(SettingsTable(G::declarations()))?, of: PhantomData })
    }
}
