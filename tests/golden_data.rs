//! The long-tailed subset, candidate sets and random streams against the reference: identical.

mod support;

use rand::Rng;
use records::data::candidates::CandidateSets;
use records::data::longtail::{ImbalanceType, class_counts, draw_subset, shuffle_counts};
use records::data::superclasses::cifar100_superclass_of;
use records::random::numpy::NumpyLegacy;
use records::random::python::PythonRandom;
use records::train::tensor_file::Values;
use support::golden;

fn integers(values: &Values) -> Vec<i64> {
    match values {
        Values::I32(values) => values.iter().map(|&v| i64::from(v)).collect(),
        Values::U32(values) => values.iter().map(|&v| i64::from(v)).collect(),
        Values::U8(values) => values.iter().map(|&v| i64::from(v)).collect(),
        other => panic!("{other:?}"),
    }
}

/// The parameters of a long-tailed subset and its candidate sets.
struct Profile<'a> {
    classes: usize,
    imbalance: ImbalanceType,
    imb_factor: f64,
    reverse: bool,
    /// Seed of the shuffle of class counts.
    shuffle: Option<u64>,
    kind: &'a str,
    q: f64,
}

/// Positions in the balanced set of `targets`, their labels, and the candidate sets packed like NumPy's
/// packbits.
fn draw(profile: &Profile, targets: &[u8]) -> (Vec<i32>, Vec<u8>, Vec<u8>) {
    let Profile { classes, imbalance, imb_factor, reverse, shuffle, kind, q } = *profile;
    let mut counts = class_counts(imbalance, targets.len() / classes, classes, imb_factor, reverse);
    if let Some(seed) = shuffle {
        shuffle_counts(&mut counts, seed);
    }
    let mut rng = NumpyLegacy::new(0);
    let index = draw_subset(targets, &counts, &mut rng);
    let labels: Vec<u8> = index.iter().map(|&i| targets[i as usize]).collect();
    let sets = match kind {
        "uniform" => CandidateSets::uniform(&labels, classes, q, &mut rng),
        "nu" => CandidateSets::non_uniform(&labels, &cifar100_superclass_of(), q, &mut rng),
        "hier" => CandidateSets::hierarchical(&labels, &cifar100_superclass_of(), q, &mut rng),
        other => panic!("kind {other}"),
    };
    sets.check(&labels).unwrap();
    let pack = |bits: &[u8]| bits.iter().enumerate().map(|(i, bit)| bit << (7 - i)).sum::<u8>();
    let packed = sets.rows.chunks_exact(classes).flat_map(|row| row.chunks(8).map(pack)).collect();
    (index, labels, packed)
}

#[test]
fn subsets_and_candidates_are_identical() {
    for (path, file) in golden("longtail_") {
        let text = |key: &str| file.metadata.get(key).map_or("None", String::as_str);
        let imbalance = if text("imb_type") == "None" { "exp" } else { text("imb_type") };
        let profile = Profile {
            classes: text("classes").parse().unwrap(),
            imbalance: ImbalanceType::from_word(imbalance).unwrap(),
            imb_factor: text("imb_factor").parse().unwrap(),
            reverse: text("reverse").eq_ignore_ascii_case("true"),
            shuffle: text("class_shuffle_seed").parse().ok(),
            kind: text("kind"),
            q: text("partial_rate").parse().unwrap(),
        };
        let (index, labels, packed) = draw(&profile, file.u8("targets").unwrap().1);
        assert_eq!(Values::I32(index), file.tensors["index"].1, "{path}: index");
        assert_eq!(Values::U8(labels), file.tensors["label"].1, "{path}: label");
        assert!(packed == file.u8("candidates_packed").unwrap().1, "{path}: candidates");
    }
}

/// The profiles whose golden files are too large to keep here, by the CRC-32C of the golden `index` (i32,
/// little endian) and `candidates_packed`. They were drawn from the same balanced sets as the files kept
/// here.
#[test]
fn subsets_and_candidates_have_the_golden_checksums() {
    use ImbalanceType::{Exp, Step};
    // Kept file of the same balanced set; classes, type, mu, kind, q; checksums.
    type Row = (&'static str, usize, ImbalanceType, f64, &'static str, f64, u32, u32);
    let rows: [Row; 5] = [
        ("longtail_c100nu_0", 100, Exp, 0.01, "uniform", 0.03, 0xccc0_dc72, 0x5893_4610),
        ("longtail_c100nu_1", 100, Exp, 0.01, "uniform", 0.05, 0xbf07_cdd8, 0x16cc_ed41),
        ("longtail_c100nu_1", 100, Exp, 0.02, "hier", 0.5, 0x0353_9d96, 0x5384_ba1b),
        ("longtail_c10_reverse", 10, Exp, 0.02, "uniform", 0.7, 0xac60_ee6e, 0x1268_8916),
        ("longtail_c10_reverse", 10, Step, 0.05, "uniform", 0.5, 0x32a9_0461, 0x9c10_4ed8),
    ];
    for (kept, classes, imbalance, imb_factor, kind, q, index_checksum, candidates_checksum) in rows {
        let (_, file) = golden(kept).swap_remove(0);
        let profile = Profile { classes, imbalance, imb_factor, reverse: false, shuffle: None, kind, q };
        let (index, _, packed) = draw(&profile, file.u8("targets").unwrap().1);
        let bytes: Vec<u8> = index.iter().flat_map(|position| position.to_le_bytes()).collect();
        assert_eq!(crc32c::crc32c(&bytes), index_checksum, "{kept} {imbalance} {kind}: index");
        assert_eq!(crc32c::crc32c(&packed), candidates_checksum, "{kept} {imbalance} {kind}: candidates");
    }
}

#[test]
fn class_counts_are_identical() {
    for (path, file) in golden("profiles_rng_schedules") {
        let mut checked = 0;
        for (name, (_, values)) in file.tensors.iter().filter(|(name, _)| name.starts_with("counts.")) {
            let rest = name.strip_prefix("counts.K").unwrap();
            let (head, imb_factor) = rest.split_once(".imb").unwrap();
            let (classes, kind) = head.split_once('.').unwrap();
            let classes: usize = classes.parse().unwrap();
            let imbalance = kind.split('_').next().and_then(ImbalanceType::from_word).unwrap();
            let n_max = 50_000 / classes;
            let mut counts = class_counts(
                imbalance,
                n_max,
                classes,
                imb_factor.parse().unwrap(),
                kind.ends_with("reverse"),
            );
            if let Some((_, seed)) = kind.split_once("pyseed") {
                shuffle_counts(&mut counts, seed.parse().unwrap());
            }
            let counts: Vec<i64> = counts.iter().map(|&n| n as i64).collect();
            assert_eq!(counts, integers(values), "{path}: {name}");
            checked += 1;
        }
        assert!(checked >= 20, "{path}: {checked} profiles");
    }
}

#[test]
fn streams_are_identical() {
    for (path, file) in golden("profiles_rng_schedules") {
        for seed in [0u32, 1, 101, 102] {
            let tensor = |name: &str| &file.tensors[&format!("np{seed}.{name}")].1;
            let mut rng = NumpyLegacy::new(seed);
            let words: Vec<i64> = (0..8).map(|_| i64::from(rng.next_u32())).collect();
            assert_eq!(words, integers(tensor("u32_first8")), "{path}: np{seed} words");
            let mut rng = NumpyLegacy::new(seed);
            let doubles: Vec<f64> = (0..8).map(|_| rng.double()).collect();
            assert_eq!(&Values::F64(doubles), tensor("double8"), "{path}: np{seed} doubles");
            let mut rng = NumpyLegacy::new(seed);
            let mut order: Vec<i64> = (0..1000).collect();
            rng.shuffle(&mut order);
            assert_eq!(order, integers(tensor("shuffle1000")), "{path}: np{seed} shuffle");
            let mut rng = NumpyLegacy::new(seed);
            let Values::F64(betas) = tensor("beta44_32") else { panic!("beta") };
            for (i, want) in betas.iter().enumerate() {
                // Logarithm and square root come from the C library, so the last bit may differ.
                let got = rng.beta(4.0, 4.0);
                assert!((got - want).abs() <= 1e-15, "{path}: np{seed} beta {i}: {got} {want}");
            }
            let mut rng = PythonRandom::new(u64::from(seed));
            let mut order: Vec<i64> = (0..100).collect();
            rng.shuffle(&mut order);
            assert_eq!(
                order,
                integers(&file.tensors[&format!("py{seed}.shuffle100")].1),
                "{path}: py{seed} shuffle"
            );
            let mut rng = PythonRandom::new(u64::from(seed));
            let doubles: Vec<f64> = (0..8).map(|_| rng.random()).collect();
            assert_eq!(
                Values::F64(doubles),
                file.tensors[&format!("py{seed}.random8")].1,
                "{path}: py{seed} random"
            );
        }
    }
}
