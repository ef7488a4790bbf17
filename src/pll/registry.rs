//! The methods by the words that settings use. Each is a file or folder of `pll/` and a line here.

use std::fmt;

use super::method::Method;
use super::{cavl, cc, corr, exp, lw, mse, pico, proden, solar};
use crate::declaration::{Field, Own, OwnSettings, Shape, Value, Values};

/// All methods, in the order of listings.
#[rustfmt::skip]
pub static METHODS: &[&MethodEntry] = &[
    &corr::ENTRY,
    &proden::ENTRY,
    &lw::ENTRY,
    &cavl::ENTRY,
    &cc::ENTRY,
    &mse::ENTRY,
    &exp::ENTRY,
    &solar::ENTRY,
    &pico::ENTRY,
];

/// The given settings of all methods, and the data set, on which defaults may depend.
#[derive(Clone, Copy, Debug)]
pub struct OwnGiven<'a> {
    /// The settings that were given, by name.
    pub values: &'a Values,
    /// The word of the data set.
    pub dataset: &'a str,
}

/// A scalar of a method's own that changes between epochs, 0 to 1. A replay may give it for each step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scalar {
    /// Its name in a replay's case and output.
    pub name: &'static str,
    /// Its value in a replay that does not give it.
    pub default: f64,
}

/// A method and what is known about it before it is made.
pub struct MethodEntry {
    /// The word that settings use.
    pub word: &'static str,
    /// The name that tables and papers use.
    pub title: &'static str,
    /// A description of one line.
    pub about: &'static str,
    /// Makes the method from its given settings.
    pub make: fn(&OwnGiven<'_>) -> Box<dyn Method>,
    /// Its own settings, if it has any.
    pub own: Option<OwnSettings>,
    /// Those of its own settings that a single step reads, and so a replay accepts.
    pub step_settings: &'static [&'static str],
    /// Whether mixed views are part of the method, so that it mixes by default.
    pub mixes: bool,
    /// The first epoch in which it updates confidence rows, by default.
    pub first_update: usize,
    /// Why the method's disambiguation cannot be debiased, if it cannot.
    pub no_debias: Option<&'static str>,
    /// Why the method cannot be combined with mixup, if it cannot.
    pub no_mixup: Option<&'static str>,
    /// Its own scalars, in the order of [`super::method::EpochControl::own`].
    pub scalars: &'static [Scalar],
}

impl MethodEntry {
    /// A method without settings of its own, compatible with every debias and mixup, that starts to update
    /// confidence rows in epoch 1.
    pub const fn new(
        word: &'static str,
        title: &'static str,
        about: &'static str,
        make: fn(&OwnGiven<'_>) -> Box<dyn Method>,
    ) -> Self {
        Self {
            word,
            title,
            about,
            make,
            own: None,
            step_settings: &[],
            mixes: false,
            first_update: 1,
            no_debias: None,
            no_mixup: None,
            scalars: &[],
        }
    }

    /// The same for a method with settings of its own.
    pub const fn with_settings<G: Own + Method + 'static>(
        word: &'static str,
        title: &'static str,
        about: &'static str,
    ) -> Self {
        let own = Some(OwnSettings::of::<G>());
        Self { own, ..Self::new(word, title, about, |given| Box::new(G::of(given.values, given.dataset))) }
    }
}

/// The words of all methods.
pub fn names() -> Vec<&'static str> {
    METHODS.iter().map(|entry| entry.word).collect()
}

/// The method called `word`, if there is one.
pub fn find(word: &str) -> Option<&'static MethodEntry> {
    METHODS.iter().copied().find(|entry| entry.word == word)
}

/// A method as a setting: its word in TOML, on the command line and in output.
#[derive(Clone, Copy)]
pub struct MethodName(pub &'static MethodEntry);

impl MethodName {
    /// All methods.
    pub fn all() -> impl Iterator<Item = Self> {
        METHODS.iter().copied().map(Self)
    }

    /// The method called `word`, if there is one.
    pub fn from_word(word: &str) -> Option<Self> {
        find(word).map(Self)
    }

    /// Its word.
    pub fn word(self) -> &'static str {
        self.0.word
    }

    /// The name that tables and papers use.
    pub fn title(self) -> &'static str {
        self.0.title
    }

    /// Whether mixed views are part of the method.
    pub fn mixes(self) -> bool {
        self.0.mixes
    }

    /// The first epoch in which it updates confidence rows, by default.
    pub fn first_update(self) -> usize {
        self.0.first_update
    }
}

impl PartialEq for MethodName {
    fn eq(&self, other: &Self) -> bool {
        self.word() == other.word()
    }
}

impl Eq for MethodName {}

impl fmt::Debug for MethodName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl fmt::Display for MethodName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl Field for MethodName {
    const SHAPE: Shape = Shape::Text;

    fn value(&self) -> Option<Value> {
        Some(Value::Text(self.word().into()))
    }

    fn of(value: Option<Value>) -> Option<Self> {
        Self::from_word(&String::of(value)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pll::method::{MOST_STAGES, OWN_SCALARS};

    #[test]
    fn what_the_engine_relies_on_holds_for_every_method() {
        let nothing = OwnGiven { values: &Values::default(), dataset: "cifar10-lt" };
        for (number, entry) in METHODS.iter().enumerate() {
            let word = entry.word;
            assert!(std::ptr::eq(find(word).unwrap(), METHODS[number]), "two methods called {word}");
            assert!(entry.scalars.len() <= OWN_SCALARS, "{word}");
            assert!(!(entry.mixes && entry.no_mixup.is_some()), "{word}");
            let stages = (entry.make)(&nothing).stages(3);
            assert!((1..=MOST_STAGES).contains(&stages.len()), "{word}");
            assert_eq!(stages.last().unwrap().epochs, 3, "{word}");
        }
    }
}
