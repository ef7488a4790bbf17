//! Groups of settings that belong to one word of another setting, such as a method's own settings. A registry
//! brings them, and their given values are kept by name, so that the struct of all settings need not know
//! them.

use super::{Declaration, Group, More, Values};

/// A group of settings that belongs to one word of another setting.
pub trait Own: Group {
    /// The defaults, which may depend on the data set.
    fn defaults(_dataset: &str) -> Self {
        Self::default()
    }

    /// The group with its given values, else the defaults.
    fn of(given: &Values, dataset: &str) -> Self {
        let mut own = Self::defaults(dataset);
        for declaration in Self::declarations() {
            if let Some(value) = given.value(declaration.name) {
                own.put(declaration.name, Some(value.clone()));
            }
        }
        own
    }
}

/// An [`Own`] group without its type, for registries.
#[derive(Clone, Copy, Debug)]
pub struct OwnSettings {
    declarations: fn() -> &'static [Declaration],
    written_out: fn(&Values, &str) -> Values,
}

impl OwnSettings {
    /// The group `G`.
    pub const fn of<G: Own>() -> Self {
        Self { declarations: G::declarations, written_out: written_out::<G> }
    }

    /// Its declarations, as settings that are read only where `setting` is `word`; `title` is the word's name
    /// in print.
    pub fn declared(&self, setting: &'static str, word: &'static str, title: &str) -> Vec<Declaration> {
        let mut all = (self.declarations)().to_vec();
        for own in &mut all {
            own.help = format!("{title}: {}", own.help);
            own.more.push(More::Only(setting, word));
        }
        all
    }

    /// All its values for a data set: the given ones, else the defaults.
    pub fn written_out(&self, given: &Values, dataset: &str) -> Values {
        (self.written_out)(given, dataset)
    }
}

fn written_out<G: Own>(given: &Values, dataset: &str) -> Values {
    let (own, mut all) = (G::of(given, dataset), Values::default());
    for declaration in G::declarations() {
        all.set(declaration.name, own.value(declaration.name));
    }
    all
}
