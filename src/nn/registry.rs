//! The networks by name: the one list of them.

use super::{Network, ResNet, WideResNet};

/// Makes a network with the given width and number of classes.
pub type Constructor = fn(width: usize, classes: usize) -> Box<dyn Network>;

const NETWORKS: [(&str, Constructor); 5] = [
    ("resnet18", |width, classes| Box::new(ResNet::resnet18(width, classes))),
    ("resnet34", |width, classes| Box::new(ResNet::resnet34(width, classes))),
    ("resnet50", |width, classes| Box::new(ResNet::resnet50(width, classes))),
    ("resnet101", |width, classes| Box::new(ResNet::resnet101(width, classes))),
    ("wideresnet28", |width, classes| Box::new(WideResNet::wideresnet28(width, classes))),
];

/// The names of the networks.
pub const NAMES: [&str; NETWORKS.len()] = {
    let mut names = [""; NETWORKS.len()];
    let mut i = 0;
    while i < names.len() {
        names[i] = NETWORKS[i].0;
        i += 1;
    }
    names
};

/// The constructor of the network `name`, if there is one.
pub fn find(name: &str) -> Option<Constructor> {
    NETWORKS.iter().find(|(known, _)| *known == name).map(|&(_, constructor)| constructor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_known_and_others_not() {
        for name in NAMES {
            let network = find(name).unwrap()(8, 10);
            assert_eq!((network.name(), network.classes(), network.channel_multiple()), (name, 10, 8));
        }
        assert!(find("resnet35").is_none());
    }
}
