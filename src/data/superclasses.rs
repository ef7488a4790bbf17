//! The twenty superclasses of CIFAR-100 (SPEC 3), in their official order: which classes a non-uniform
//! candidate set confuses most.

/// Fine class ids of every superclass. A fine id is the alphabetical rank of the class name.
pub const CIFAR100_SUPERCLASSES: [[u8; 5]; 20] = [
    [4, 30, 55, 72, 95],  // aquatic mammals
    [1, 32, 67, 73, 91],  // fish
    [54, 62, 70, 82, 92], // flowers
    [9, 10, 16, 28, 61],  // food containers
    [0, 51, 53, 57, 83],  // fruit and vegetables
    [22, 39, 40, 86, 87], // household electrical devices
    [5, 20, 25, 84, 94],  // household furniture
    [6, 7, 14, 18, 24],   // insects
    [3, 42, 43, 88, 97],  // large carnivores
    [12, 17, 37, 68, 76], // large man-made outdoor things
    [23, 33, 49, 60, 71], // large natural outdoor scenes
    [15, 19, 21, 31, 38], // large omnivores and herbivores
    [34, 63, 64, 66, 75], // medium-sized mammals
    [26, 45, 77, 79, 99], // non-insect invertebrates
    [2, 11, 35, 46, 98],  // people
    [27, 29, 44, 78, 93], // reptiles
    [36, 50, 65, 74, 80], // small mammals
    [47, 52, 56, 59, 96], // trees
    [8, 13, 48, 58, 90],  // vehicles 1
    [41, 69, 81, 85, 89], // vehicles 2
];

/// The superclass of every fine class, `[100]`.
pub const fn cifar100_superclass_of() -> [u8; 100] {
    let mut table = [0; 100];
    let mut superclass = 0;
    while superclass < CIFAR100_SUPERCLASSES.len() {
        let mut member = 0;
        while member < 5 {
            table[CIFAR100_SUPERCLASSES[superclass][member] as usize] = superclass as u8;
            member += 1;
        }
        superclass += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every class once, and the first and last entries of the inverse table.
    #[test]
    fn every_class_has_one_superclass() {
        let mut all: Vec<u8> = CIFAR100_SUPERCLASSES.concat();
        all.sort_unstable();
        assert_eq!(all, (0..100).collect::<Vec<u8>>());
        let table = cifar100_superclass_of();
        assert_eq!(table[..10], [4, 1, 14, 8, 0, 6, 7, 7, 18, 3]);
        assert_eq!(table[90..], [18, 1, 2, 15, 6, 0, 17, 8, 14, 13]);
    }
}
