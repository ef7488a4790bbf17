//! Groups that belong to one word of another setting: the settings of a method's own. They are brought by a
//! registry, and what is given of them is kept by name, so that those who hold all settings need not know
//! them.

use super::{Declaration, Group, More, Values};

/// A group of settings that belongs to one word of another setting.
pub trait Own: Group {
    /// The values where nothing is given; they may depend on the data set.
    fn defaults(_dataset: &str) -> Self {
        Self::default()
    }

    /// The group with what is given of it.
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

    /// Its declarations where it belongs to the word `word`, in print `title`, of `setting`.
    pub fn declared(&self, setting: &'static str, word: &'static str, title: &str) -> Vec<Declaration> {
        let mut all = (self.declarations)().to_vec();
        for own in &mut all {
            own.help = format!("{title}: {}", own.help);
            own.more.push(More::Only(setting, word));
        }
        all
    }

    /// All its values for a data set: what is given, else the defaults.
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
