//! What one place gave of a group of settings, flags or a TOML file: the others stay unset, so that places can be laid over each
//! other.

use std::fmt;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};

use clap::builder::{BoolValueParser, PathBufValueParser, StringValueParser, TypedValueParser, ValueParser};
use clap::{Arg, ArgMatches, Args, Command, FromArgMatches};
use serde::de::{DeserializeSeed, Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::{Declaration, Field, Group, Shape, Value, Values};

/// Some settings of the group `G`: flags through [`clap::Args`], TOML through [`serde::Deserialize`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Given<G> {
    values: Values,
    of: PhantomData<fn() -> G>,
}

impl<G> Given<G> {
    /// Also `value` of the setting `name`; a left-out one takes it away.
    pub fn with(self, name: &'static str, value: impl Field) -> Self {
        Self { values: self.values.with(name, value), ..self }
    }
}

impl<G> Deref for Given<G> {
    type Target = Values;

    fn deref(&self) -> &Values {
        &self.values
    }
}

impl<G> DerefMut for Given<G> {
    fn deref_mut(&mut self) -> &mut Values {
        &mut self.values
    }
}

impl Shape {
    fn is_number(self) -> bool {
        !matches!(self, Shape::Bool | Shape::Text | Shape::Path)
    }

    fn is_list(self) -> bool {
        matches!(self, Shape::Wholes | Shape::Numbers)
    }

    /// The parser of one value; of lists, of one element.
    fn parser(self) -> ValueParser {
        let whole = |text: &str| text.parse().map(Value::Whole).map_err(|error| error.to_string());
        let number = |text: &str| text.parse().map(Value::Number).map_err(|error| error.to_string());
        match self {
            Shape::Bool => BoolValueParser::new().map(Value::Bool).into(),
            Shape::Text => StringValueParser::new().map(Value::Text).into(),
            Shape::Path => PathBufValueParser::new().map(Value::Path).into(),
            Shape::U32 => ValueParser::new(|text: &str| {
                text.parse::<u32>().map(|n| Value::Whole(n.into())).map_err(|error| error.to_string())
            }),
            Shape::U64 | Shape::Usize => ValueParser::new(whole),
            // Blanks around the commas are fine.
            Shape::Wholes => ValueParser::new(move |text: &str| whole(text.trim())),
            Shape::F64 | Shape::Numbers => ValueParser::new(number),
        }
    }
}

impl Declaration {
    /// The flag; what is allowed and the default are left to who knows them.
    fn argument(&self) -> Arg {
        let mut argument = Arg::new(self.name)
            .long(self.name)
            .value_name(self.value_name)
            .help_heading(self.group)
            .help(&self.help)
            .value_parser(self.shape.parser())
            // So that -1 and -inf are told what is allowed instead of being taken for flags.
            .allow_hyphen_values(self.shape.is_number());
        if let Some(letter) = self.short {
            argument = argument.short(letter);
        }
        if let Some(alias) = self.alias {
            argument = argument.visible_alias(alias);
        }
        if self.shape.is_list() {
            argument = argument.value_delimiter(',');
        }
        if self.shape == Shape::Bool {
            let argument = argument.num_args(0..=1).require_equals(true);
            return argument.default_missing_value("true").hide_possible_values(true);
        }
        argument
    }

    fn value_in(&self, matches: &ArgMatches) -> Option<Value> {
        let mut values = matches.get_many::<Value>(self.name)?;
        Some(match self.shape {
            Shape::Wholes => Value::Wholes(values.filter_map(whole).collect()),
            Shape::Numbers => Value::Numbers(values.filter_map(Value::as_number).collect()),
            _ => values.next()?.clone(),
        })
    }
}

fn whole(value: &Value) -> Option<u64> {
    if let Value::Whole(value) = value { Some(*value) } else { None }
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
        let mut given = Self { values: Values::default(), of: PhantomData };
        given.update_from_arg_matches(matches)?;
        Ok(given)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        for declaration in G::declarations() {
            if let Some(value) = declaration.value_in(matches) {
                self.set(declaration.name, Some(value));
            }
        }
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Shape {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Value, D::Error> {
        fn read<'de, T: Field + Deserialize<'de>, D: Deserializer<'de>>(from: D) -> Result<Value, D::Error> {
            T::deserialize(from)?.value().ok_or_else(|| D::Error::custom("a value is missing"))
        }
        match self {
            Shape::Bool => read::<bool, D>(from),
            Shape::U32 => read::<u32, D>(from),
            Shape::U64 => read::<u64, D>(from),
            Shape::Usize => read::<usize, D>(from),
            Shape::F64 => read::<f64, D>(from),
            Shape::Text => read::<String, D>(from),
            Shape::Path => read::<std::path::PathBuf, D>(from),
            Shape::Wholes => read::<Vec<usize>, D>(from),
            Shape::Numbers => read::<Vec<f64>, D>(from),
        }
    }
}

/// A key of the table.
struct Key<G>(PhantomData<fn() -> G>);

impl<'de, G: Group> DeserializeSeed<'de> for Key<G> {
    type Value = &'static Declaration;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        from.deserialize_identifier(self)
    }
}

impl<G: Group> Visitor<'_> for Key<G> {
    type Value = &'static Declaration;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a setting")
    }

    fn visit_str<E: Error>(self, key: &str) -> Result<Self::Value, E> {
        G::declaration(key).ok_or_else(|| E::custom(format_args!("unknown field `{key}`")))
    }
}

/// The table.
struct Table<G>(PhantomData<fn() -> G>);

impl<'de, G: Group> Visitor<'de> for Table<G> {
    type Value = Given<G>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a table of settings")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut table: M) -> Result<Given<G>, M::Error> {
        let mut given = Given { values: Values::default(), of: PhantomData };
        while let Some(declaration) = table.next_key_seed(Key::<G>(PhantomData))? {
            let value = table.next_value_seed(declaration.shape)?;
            given.set(declaration.name, Some(value));
        }
        Ok(given)
    }
}

impl<'de, G: Group> Deserialize<'de> for Given<G> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_map(Table(PhantomData))
    }
}
