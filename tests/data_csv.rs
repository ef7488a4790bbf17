//! A user's own lists of images: the data they give, contradictions refused with file and line, and training
//! without any known true class.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use image::{ImageFormat, Rgb, RgbImage};
use proptest::prelude::*;
use records::data::longtail::ImbalanceType;
use records::data::recipe::{Recipe, TrainingData, open_test, prepare};
use records::data::registry::csv::LISTED_IMAGES;
use records::data::registry::folder::FOLDER;
use records::error::{UsageError, exit_code, one_line};
use records::train::tensor_file::TensorFile;
use tempfile::TempDir;

fn recipe(data_dir: &Path) -> Recipe {
    Recipe {
        dataset: &LISTED_IMAGES,
        data_dir: Some(data_dir.into()),
        imb_factor: 0.01,
        imb_type: ImbalanceType::Exp,
        reverse: false,
        partial_rate: 0.1,
        seed: 123,
        data_seed: 0,
        image_size: 4,
        synthetic_train_per_class: 1,
        synthetic_test_per_class: 1,
        unreadable: Default::default(),
    }
}

/// An image of one colour.
fn plain(path: &Path, width: u32, height: u32, value: u8) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    RgbImage::from_pixel(width, height, Rgb([value; 3])).save_with_format(path, ImageFormat::Png).unwrap();
}

const TRAIN: &str =
    "path,candidates,label\na.png,cat|dog,cat\nsub/b.png,dog|red panda,\nc.png,red panda,red panda\n";
const TEST: &str = "path,label\nt.png,dog\na.png,cat\n";

/// `train.csv`, `test.csv` and their images: a, b, c and t of the values 10, 20, 30 and 40.
fn write_lists(dir: &Path) {
    for (name, value) in [("a.png", 10), ("sub/b.png", 20), ("c.png", 30), ("t.png", 40)] {
        plain(&dir.join(name), 4, 4, value);
    }
    fs::write(dir.join("train.csv"), TRAIN).unwrap();
    fs::write(dir.join("test.csv"), TEST).unwrap();
}

fn lists() -> TempDir {
    let dir = TempDir::new().unwrap();
    write_lists(dir.path());
    dir
}

/// The first byte of every training image.
fn values(data: &TrainingData) -> Vec<u8> {
    (0..data.train.len()).map(|i| data.train.image(i)[0]).collect()
}

#[test]
fn lists_become_images_candidate_sets_and_labels() {
    let dir = lists();
    let data = prepare(&recipe(dir.path())).unwrap();
    assert_eq!(data.classes, ["cat", "dog", "red panda"]);
    assert_eq!(data.candidates.rows, [1, 1, 0, 0, 1, 1, 0, 0, 1]);
    assert_eq!(data.train.labels, [Some(0), None, Some(2)]);
    assert_eq!(data.device_labels(), [0, -1, 2]);
    assert_eq!((data.true_labels(), data.counts()), (None, None));
    assert_eq!(data.index, [0, 1, 2]);
    assert_eq!((data.train.height, data.train.width, values(&data)), (4, 4, vec![10, 20, 30]));
    let test = data.test.unwrap();
    assert_eq!((test.labels.clone(), test.image(0)[0], test.image(1)[0]), (vec![1, 0], 40, 10));
    assert_eq!((data.train_normalisation, data.test_normalisation), (FOLDER, FOLDER));

    // Reading only the test images needs no training image.
    fs::remove_file(dir.path().join("sub/b.png")).unwrap();
    let alone = open_test(&recipe(dir.path())).unwrap();
    assert_eq!((alone.classes, alone.test.unwrap().images), (data.classes, test.images));

    // All labels known: counts.
    let text = TRAIN.replace("sub/b.png,dog|red panda,\n", "t.png,dog|red panda,dog\n");
    fs::write(dir.path().join("train.csv"), text).unwrap();
    let data = prepare(&recipe(dir.path())).unwrap();
    assert_eq!((data.counts(), data.true_labels()), (Some(vec![1; 3]), Some(vec![0, 1, 2])));
}

/// Order of columns, columns of one's own, quotes, blanks, line ends, a byte-order mark: the same data.
#[test]
fn a_list_may_be_written_in_many_ways() {
    let dir = lists();
    let expected = prepare(&recipe(dir.path())).unwrap();
    for text in [
        "path,candidates,label\r\na.png,cat|dog,cat\r\n\r\nsub/b.png,dog|red panda,\r\nc.png,red panda,red panda",
        "\u{feff}\"path\",\"candidates\",\"label\"\n\"a.png\",\"cat|dog\",\"cat\"\nsub/b.png,\"dog|red panda\",\"\"\nc.png,red panda,red panda\n",
        "label,note,candidates,,path\ncat,\"x, \"\"y\"\"\nz\",dog | cat,0,./a.png\n,, red panda|dog ,1,sub//b.png\nred panda,,red panda,2, c.png \n",
    ] {
        fs::write(dir.path().join("train.csv"), text).unwrap();
        let data = prepare(&recipe(dir.path())).unwrap();
        assert_eq!(data.classes, expected.classes, "{text}");
        assert_eq!(data.candidates, expected.candidates, "{text}");
        assert_eq!(data.train.labels, expected.train.labels, "{text}");
        assert_eq!(data.train.images, expected.train.images, "{text}");
    }
    // Without the column no label is known; without test.csv there are no test images.
    fs::write(dir.path().join("train.csv"), "path,candidates\na.png,cat|dog\nc.png,dog\n").unwrap();
    fs::remove_file(dir.path().join("test.csv")).unwrap();
    let data = prepare(&recipe(dir.path())).unwrap();
    assert_eq!((data.train.labels, data.test.is_none()), (vec![None, None], true));
    assert!(open_test(&recipe(dir.path())).unwrap().test.is_none());
}

#[test]
fn the_documented_example_is_read() {
    let text = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/data.md")).unwrap();
    let example = text.split("```csv\n").nth(1).unwrap().split("```").next().unwrap();
    let dir = TempDir::new().unwrap();
    for name in ["photos/0001.jpg", "photos/0002.jpg", "photos/0003.png"] {
        plain(&dir.path().join(name), 2, 2, 1);
    }
    fs::write(dir.path().join("train.csv"), example).unwrap();
    let data = prepare(&recipe(dir.path())).unwrap();
    assert_eq!(data.classes, ["cat", "dog", "red panda", "wolf"]);
    assert_eq!(data.train.labels, [Some(0), None, Some(2)]);
}

#[test]
fn classes_txt_fixes_the_order_of_classes() {
    let dir = lists();
    fs::write(dir.path().join("classes.txt"), "\u{feff}red panda\r\n\r\n dog\ncat\n").unwrap();
    let data = prepare(&recipe(dir.path())).unwrap();
    assert_eq!(data.classes, ["red panda", "dog", "cat"]);
    assert_eq!(data.candidates.rows, [0, 1, 1, 1, 1, 0, 1, 0, 0]);
    assert_eq!((data.train.labels, data.test.unwrap().labels), (vec![Some(2), None, Some(0)], vec![1, 2]));
}

/// The lists are the training set: settings for drawn subsets and candidate sets change nothing.
#[test]
fn no_subset_and_no_candidates_are_drawn() {
    let dir = lists();
    let expected = prepare(&recipe(dir.path())).unwrap();
    let other = prepare(&Recipe {
        imb_factor: 1.0,
        imb_type: ImbalanceType::Step,
        reverse: true,
        partial_rate: 0.9,
        seed: 7,
        data_seed: 8,
        ..recipe(dir.path())
    });
    let other = other.unwrap();
    assert_eq!((other.index, other.train.images), (expected.index, expected.train.images));
    assert_eq!(other.candidates, expected.candidates);
}

/// Labels are bytes, so there can be 256 classes.
#[test]
fn two_to_256_classes() {
    let dir = lists();
    let list = |classes: usize| {
        let names: Vec<String> = (0..classes).map(|class| format!("class {class:03}")).collect();
        fs::write(dir.path().join("train.csv"), format!("path,candidates\na.png,{}\n", names.join("|")))
            .unwrap();
        fs::write(dir.path().join("test.csv"), format!("path,label\nt.png,class {:03}\n", classes - 1))
            .unwrap();
        prepare(&recipe(dir.path()))
    };
    assert_eq!(list(2).unwrap().test.unwrap().labels, [1]);
    assert_eq!(list(256).unwrap().test.unwrap().labels, [255]);
    assert_refused("257 classes", list(257), &["train.csv", "257 classes", "at most 256"]);
    assert_refused("1 class", list(1), &["train.csv", "1 class", "at least 2"]);
}

/// The error is a usage error of one line that contains all of `parts`.
fn assert_refused(case: &str, result: anyhow::Result<TrainingData>, parts: &[&str]) {
    let error = match result {
        Ok(_) => panic!("{case}: was accepted"),
        Err(error) => error,
    };
    assert!(error.is::<UsageError>(), "{case}: {error:?} is no usage error");
    assert_eq!(exit_code(&error), 2, "{case}");
    let text = error.to_string();
    assert_eq!(text, one_line(&error), "{case}: more than one line");
    parts.iter().for_each(|part| assert!(text.contains(part), "{case}: {text:?} does not say {part:?}"));
}

#[test]
fn lists_that_lie_are_refused_by_file_and_line() {
    // The text of train.csv, and parts of the message.
    let texts: &[(&str, &[&str])] = &[
        ("", &["train.csv: is empty", "name the columns"]),
        ("path,candidates\n", &["train.csv: lists no image", "add a row"]),
        ("path,label\na.png,cat\n", &["train.csv:1:", "no column \"candidates\"", "\"label\""]),
        ("file;candidates\na.png;cat\n", &["train.csv:1:", "no column \"path\"", "separated by commas"]),
        ("a.png,cat|dog\n", &["train.csv:1:", "no column \"path\"", "first line"]),
        ("path,candidates,path\na.png,cat,a.png\n", &["train.csv:1:", "two columns", "\"path\""]),
        ("path,candidates\na.png,cat,dog\n", &["train.csv:2:", "3 fields", "names 2", "in quotes"]),
        ("path,candidates\na.png,cat|dog\nc.png\n", &["train.csv:3:", "1 fields"]),
        ("path,candidates\na.png,\"cat|dog\nc.png,dog\n", &["train.csv:2:", "wrong quotes"]),
        ("path,candidates\na.png,cat|\"dog\"\n", &["train.csv:2:", "wrong quotes"]),
        (
            "path,candidates\na.png,cat|dog\nc.png,\n",
            &["train.csv:3:", "candidate set is empty", "name the classes"],
        ),
        ("path,candidates\na.png,cat|dog\nc.png, \n", &["train.csv:3:", "candidate set is empty"]),
        ("path,candidates\na.png,cat||dog\n", &["train.csv:2:", "empty name"]),
        ("path,candidates\na.png,cat|\n", &["train.csv:2:", "empty name"]),
        ("path,candidates\na.png,cat|dog| cat\n", &["train.csv:2:", "\"cat\" occurs twice", "keep one"]),
        (
            "path,candidates,label\na.png,cat|dog,cow\n",
            &["train.csv:2:", "\"cow\" is not in its candidate set", "correct it"],
        ),
        ("path,candidates\na.png,cat|dog\n./a.png,dog\n", &["train.csv:3:", "a.png is listed on line 2"]),
        ("path,candidates\n,cat|dog\n", &["train.csv:2:", "path", "must name an image"]),
        ("path,candidates\n./,cat|dog\n", &["train.csv:2:", "must name an image"]),
        ("path,candidates\n../a.png,cat|dog\n", &["train.csv:2:", "\"../a.png\"", "without .."]),
        ("path,candidates\nsub/../a.png,cat|dog\n", &["train.csv:2:", "without .."]),
        ("path,candidates\n/etc/passwd,cat|dog\n", &["train.csv:2:", "\"/etc/passwd\"", "relative"]),
        (
            "path,candidates\na.png,cat|dog\nnone.png,cat\n",
            &["train.csv:3:", "none.png", "cannot be read", "remove the row"],
        ),
        ("path,candidates\nsub,cat|dog\n", &["train.csv:2:", "is not a file"]),
        ("path,candidates\ntrain.csv,cat|dog\n", &["train.csv:2:", "not a readable image"]),
        ("path,candidates\nout.png,cat|dog\n", &["train.csv:2:", "out.png", "a link leads out"]),
        ("path,candidates\nlinked/x.png,cat|dog\n", &["train.csv:2:", "a link leads out"]),
        ("path,candidates\ncut.png,cat|dog\n", &["train.csv:2:", "cut.png", "not a readable"]),
        ("path,candidates\nwide.png,cat|dog\n", &["train.csv:2:", "wide.png", "imit"]),
        ("path,candidates\nlong.png,cat|dog\n", &["train.csv:2:", "long.png", "16384x1 pixels", "padded"]),
        ("path,candidates\na.png,cat|do\u{7}g\n", &["train.csv:2:", "control character"]),
        ("path,candidates\n\"a\n.png\",cat|dog\n", &["train.csv:2:", "control character"]),
        ("path,candidates\na.png,cat|cat\n", &["train.csv:2:", "occurs twice"]),
    ];
    let outside = TempDir::new().unwrap();
    plain(&outside.path().join("x.png"), 2, 2, 1);
    for (text, parts) in texts {
        let dir = lists_with_traps(outside.path());
        fs::write(dir.path().join("train.csv"), text).unwrap();
        assert_refused(text, prepare(&recipe(dir.path())), parts);
    }

    // A file, its contents, and parts of the message.
    let files: &[(&str, &[u8], &[&str])] = &[
        ("train.csv", b"path,candidates\na.png,cat|\xff\n", &["train.csv:2:", "not UTF-8", "save"]),
        ("test.csv", b"path\nt.png\n", &["test.csv:1:", "no column \"label\""]),
        ("test.csv", b"path,label\nt.png,\n", &["test.csv:2:", "label is missing"]),
        (
            "test.csv",
            b"path,label\nt.png,dog\na.png,cow\n",
            &["test.csv:3:", "\"cow\" is unknown", "train.csv"],
        ),
        ("test.csv", b"path,label\nnone.png,dog\n", &["test.csv:2:", "none.png", "cannot be read"]),
        ("test.csv", b"path,label\n", &["test.csv: lists no image"]),
        ("classes.txt", b"cat\ndog\n", &["train.csv:3:", "\"red panda\" is unknown", "classes.txt"]),
        ("classes.txt", b"cat\ndog\nred panda\ncow\n", &["train.csv", "no candidate set holds", "\"cow\""]),
        ("classes.txt", b"cat\ndog\n\ncat\n", &["classes.txt:4:", "\"cat\" is on line 1"]),
        ("classes.txt", b"cat\ndog|cow\n", &["classes.txt:2:", "dog|cow"]),
        ("classes.txt", b"cat\n\xfe\n", &["classes.txt:2:", "not UTF-8"]),
        ("classes.txt", b"\n", &["classes.txt", "0 class", "at least 2"]),
    ];
    for (name, content, parts) in files {
        let dir = lists_with_traps(outside.path());
        fs::write(dir.path().join(name), content).unwrap();
        assert_refused(
            &format!("{name} {}", String::from_utf8_lossy(content)),
            prepare(&recipe(dir.path())),
            parts,
        );
    }
    let dir = lists();
    fs::remove_file(dir.path().join("train.csv")).unwrap();
    assert_refused("no list", prepare(&recipe(dir.path())), &["train.csv: cannot be read"]);
    assert_refused(
        "no folder",
        prepare(&recipe(Path::new("/nowhere"))),
        &["/nowhere/train.csv: cannot be read"],
    );
    let sized = |image_size| prepare(&Recipe { image_size, ..recipe(dir.path()) });
    write_lists(dir.path());
    assert_refused("size 0", sized(0), &["image size 0"]);
    assert_refused("size", sized(usize::MAX / 2), &["smaller image size"]);
}

/// A set written with another separator is not taken for a class, whatever the language of the list.
#[test]
fn sets_with_another_separator_are_refused_with_line_and_remedy() {
    for set in [
        "\"cat,dog\"",
        "cat;dog",
        "cat/dog",
        "['cat' 'dog']",
        "\"['cat', 'dog']\"",
        "\"{cat,dog}\"",
        "\"[\"\"cat\"\",\"\"dog\"\"]\"",
        "'cat'|'dog'",
        "[cat|dog]",
        "cat\u{ff5c}dog",
        "\"cat, dog\"",
    ] {
        let dir = lists();
        fs::remove_file(dir.path().join("test.csv")).unwrap();
        fs::write(dir.path().join("train.csv"), format!("path,candidates\na.png,{set}\nc.png,cat\n"))
            .unwrap();
        assert_refused(set, prepare(&recipe(dir.path())), &["train.csv:2:", "separate classes with |"]);
    }
    let dir = lists();
    fs::remove_file(dir.path().join("test.csv")).unwrap();
    let list = |text: &str| {
        fs::write(dir.path().join("train.csv"), text).unwrap();
        prepare(&recipe(dir.path()))
    };
    // A name of several words is refused only if all words are classes; if one is, there is a note.
    assert_refused(
        "words",
        list("path,candidates\na.png,cat dog\nc.png,cat\nt.png,dog\n"),
        &["train.csv:2:", "made of classes"],
    );
    for (name, other) in [("cat dog", "cat"), ("hot dog", "dog")] {
        let data = list(&format!("path,candidates\na.png,{name}\nc.png,{other}\n")).unwrap();
        assert_eq!(data.classes.len(), 2);
        assert!(data.remarks(None)[0].contains("separate them with |"), "{:?}", data.remarks(None));
    }
    // Declared names are not questioned.
    fs::write(dir.path().join("classes.txt"), "cat,dog\rcat\r").unwrap();
    let data = list("path,candidates\na.png,\"cat,dog\"\nc.png,cat\n").unwrap();
    assert_eq!(
        (data.classes.clone(), data.remarks(None)),
        (vec!["cat,dog".to_string(), "cat".to_string()], vec![])
    );
    // Nor are names that are labels in this list or the test list.
    fs::remove_file(dir.path().join("classes.txt")).unwrap();
    let labelled = "path,candidates,label\na.png,\"cat,dog\",cat\nc.png,bird,bird\n";
    assert_refused(
        "label",
        list(labelled),
        &["train.csv:2:", "\"cat\" is not in its candidate set", "with |"],
    );
    fs::write(dir.path().join("test.csv"), "path,label\nt.png,cat\n").unwrap();
    assert_refused(
        "test",
        list("path,candidates\na.png,\"cat,dog\"\nc.png,bird\n"),
        &["train.csv:2:", "separate classes with |"],
    );
}

/// Line numbers are those of an editor, whatever the line ends of the list.
#[test]
fn lines_are_counted_for_every_line_end() {
    let dir = lists();
    for ends in ["\n", "\r", "\r\n"] {
        let text = "path,candidates\na.png,cat|dog\n\nc.png,\n".replace('\n', ends);
        fs::write(dir.path().join("train.csv"), &text).unwrap();
        assert_refused(&text, prepare(&recipe(dir.path())), &["train.csv:4:", "candidate set is empty"]);
    }
}

/// Spellings of one class are refused with both places, or reported where they may be two.
#[test]
fn names_that_look_alike_are_told() {
    let dir = lists();
    fs::remove_file(dir.path().join("test.csv")).unwrap();
    let list = |first: &str, second: &str| {
        fs::write(dir.path().join("train.csv"), format!("path,candidates\na.png,{first}\nc.png,{second}\n"))
            .unwrap();
        prepare(&recipe(dir.path()))
    };
    for (first, second) in
        [("caf\u{e9}", "cafe\u{301}"), ("cat", "c\u{200b}at"), ("red panda", "red\u{a0}panda")]
    {
        assert_refused(second, list(first, second), &["train.csv:", "(train.csv:", "looks the same", "U+"]);
    }
    for (first, second) in [("cat", "Cat"), ("cat", "c\u{430}t"), ("cat", "\u{ff43}at")] {
        let remarks = list(first, second).unwrap().remarks(None);
        assert!(
            remarks.len() == 1 && remarks[0].contains("train.csv:2") && remarks[0].contains("train.csv:3"),
            "{remarks:?}"
        );
    }
    fs::write(dir.path().join("test.csv"), "path,label\nt.png,Cat\n").unwrap();
    assert_refused(
        "test",
        list("cat", "dog"),
        &["test.csv:2:", "\"Cat\" is unknown; did you mean \"cat\"? They differ only in upper"],
    );
}

#[test]
fn paths_that_lead_nowhere_come_with_a_hint() {
    for (path, parts) in [
        ("sub\\b.png", &["write / for each backslash: sub/b.png is there"][..]),
        ("sub\\x.png", &["with / for each backslash"]),
        ("C:\\data\\b.png", &["with / for each backslash"]),
        ("https://example.org/a.png", &["download the image"]),
        ("~/a.png", &["~ has no meaning"]),
        ("A.PNG", &["did you mean a.png?"]),
        ("Sub/B.png", &["did you mean sub/b.png?"]),
        ("a", &["did you mean a.png?"]),
        ("a.jpg", &["did you mean a.png?"]),
        ("data/sub/b.png", &["paths begin in the data's folder: sub/b.png is there"]),
        ("none.png", &["put the image there or remove the row"]),
    ] {
        let dir = lists();
        fs::write(
            dir.path().join("train.csv"),
            format!("path,candidates\nc.png,cat|dog\n{path},cat|red panda\n"),
        )
        .unwrap();
        assert_refused(
            path,
            prepare(&recipe(dir.path())),
            &[&["train.csv:3:", "cannot be read"], parts].concat(),
        );
    }
}

/// The lists of [`write_lists`] beside images that must not be read.
fn lists_with_traps(outside: &Path) -> TempDir {
    let dir = lists();
    let at = |name: &str| dir.path().join(name);
    std::os::unix::fs::symlink(outside.join("x.png"), at("out.png")).unwrap();
    std::os::unix::fs::symlink(outside, at("linked")).unwrap();
    let whole = fs::read(at("a.png")).unwrap();
    fs::write(at("cut.png"), &whole[..whole.len() - 20]).unwrap();
    plain(&at("wide.png"), 16_385, 1, 9);
    plain(&at("long.png"), 16_384, 1, 9);
    dir
}

/// A link that stays inside the folder is allowed, and so is a data folder that is itself a link.
#[test]
fn links_inside_are_followed() {
    let dir = lists();
    fs::remove_file(dir.path().join("c.png")).unwrap();
    std::os::unix::fs::symlink("sub/b.png", dir.path().join("c.png")).unwrap();
    let other = TempDir::new().unwrap();
    let link = other.path().join("data");
    std::os::unix::fs::symlink(dir.path(), &link).unwrap();
    assert_eq!(values(&prepare(&recipe(&link)).unwrap()), [10, 20, 20]);
    // A dangling link is not treated as a missing list.
    fs::remove_file(dir.path().join("test.csv")).unwrap();
    std::os::unix::fs::symlink("nowhere", dir.path().join("test.csv")).unwrap();
    assert_refused("broken link", prepare(&recipe(dir.path())), &["test.csv: cannot be read"]);
}

/// Text that resembles a list.
fn nearly_a_list() -> impl Strategy<Value = Vec<u8>> {
    let words: Vec<&[u8]> = vec![
        b"path",
        b"candidates",
        b"label",
        b",",
        b",",
        b"|",
        b"\"",
        b"\"\"",
        b"\n",
        b"\n",
        b"\r\n",
        b"\r",
        b"a.png",
        b"c.png",
        b"sub/",
        b"../",
        b"./",
        b"cat",
        b"dog",
        b" ",
        b"\xef\xbb\xbf",
        b"\xff",
        b"\0",
        b"path,candidates\n",
        b"path,label\n",
        b"path,candidates,label\n",
        b"a.png,cat|dog\n",
        b"c.png,dog,dog\n",
    ];
    let near = proptest::collection::vec(prop::sample::select(words), 0..24).prop_map(|words| words.concat());
    prop_oneof![3 => near, 1 => proptest::collection::vec(any::<u8>(), 0..200)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    /// Any bytes give consistent data or a usage error that names a file.
    #[test]
    fn random_bytes_never_panic_as_lists(
        name in prop::sample::select(vec!["train.csv", "train.csv", "test.csv", "classes.txt"]),
        content in nearly_a_list(),
    ) {
        let dir = lists();
        fs::write(dir.path().join(name), content).unwrap();
        match prepare(&recipe(dir.path())) {
            Ok(data) => {
                let (samples, classes) = (data.train.len(), data.classes.len());
                prop_assert!(samples > 0 && (2..=256).contains(&classes));
                prop_assert_eq!(data.train.images.len(), samples * 48);
                prop_assert_eq!(data.candidates.rows.len(), samples * classes);
                for (row, label) in data.candidates.rows.chunks_exact(classes).zip(&data.train.labels) {
                    prop_assert!(row.contains(&1) && row.iter().all(|&bit| bit <= 1));
                    prop_assert!(label.is_none_or(|label| row[usize::from(label)] == 1));
                }
                let test = data.test.unwrap();
                prop_assert_eq!(test.images.len(), test.labels.len() * 48);
                prop_assert!(test.labels.iter().all(|&label| usize::from(label) < classes));
            }
            Err(error) => {
                prop_assert!(error.is::<UsageError>(), "{:?}", error);
                prop_assert!(error.to_string().starts_with(dir.path().to_str().unwrap()), "{}", error);
                prop_assert_eq!(error.to_string(), one_line(&error));
            }
        }
    }
}

fn records(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_records")).args(arguments).output().unwrap()
}

fn succeed(arguments: &[&str]) -> String {
    let output = records(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Twelve images of three classes that differ in brightness; the sets are ambiguous, `label` writes the label
/// of image `i`.
fn write_brightness(dir: &Path, label: impl Fn(usize) -> String) {
    let names = ["dark", "grey", "light"];
    let (mut train, mut test) = ("path,candidates,label\n".to_string(), "path,label\n".to_string());
    for i in 0..12 {
        plain(&dir.join(format!("{i}.png")), 6 + i as u32, 9, 30 + 80 * (i % 3) as u8);
        train += &format!("{i}.png,{}|{},{}\n", names[i % 3], names[(i + 1) % 3], label(i));
        test += &format!("{i}.png,{}\n", names[i % 3]);
    }
    fs::write(dir.join("train.csv"), train).unwrap();
    fs::write(dir.join("test.csv"), test).unwrap();
}

/// The metrics of the only epoch of a run of `records train`.
fn train(data: &Path, runs: &Path, name: &str) -> (String, serde_json::Value) {
    let printed = succeed(&[
        "train",
        "--dataset",
        "csv",
        "--data-dir",
        data.to_str().unwrap(),
        "--image-size",
        "8",
        "--width",
        "4",
        "--batch-size",
        "5",
        "--epochs",
        "1",
        "--debias",
        "records",
        "--device",
        "cpu",
        "--exp-dir",
        runs.to_str().unwrap(),
        "--name",
        name,
    ]);
    let metrics = fs::read_to_string(runs.join(name).join("metrics.jsonl")).unwrap();
    assert_eq!(metrics.lines().count(), 1, "{metrics}");
    (printed, serde_json::from_str(&metrics).unwrap())
}

#[test]
fn training_without_labels_and_without_test_images_says_what_can_be_known() {
    let (data, runs) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    write_brightness(data.path(), |_| String::new());
    fs::remove_file(data.path().join("test.csv")).unwrap();
    let (printed, metrics) = train(data.path(), runs.path(), "blind");
    for key in ["train_accuracy", "label_accuracy", "prior_distance", "test"] {
        assert!(metrics[key].is_null(), "{key}: {metrics}");
    }
    assert!(metrics["loss"].as_f64().unwrap() > 0.0);
    assert!(metrics["mean_max_confidence"].as_f64().unwrap() >= 0.5, "sets of two classes");
    let prior: f64 = metrics["class_prior"].as_array().unwrap().iter().map(|p| p.as_f64().unwrap()).sum();
    assert!((prior - 1.0).abs() < 1e-5, "{metrics}");
    let row = printed.lines().find(|line| line.trim_start().starts_with("0 ")).unwrap();
    assert_eq!(row.matches(" -").count(), 8, "{row}");
    for part in ["true classes not all known", "no test images", "disambiguated labels | -", "(TV)    | -"] {
        let squeezed = printed.split_whitespace().collect::<Vec<_>>().join(" ");
        let part = part.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(squeezed.contains(&part), "{part:?} is not in {printed}");
    }
    assert!(!printed.contains("test accuracy") && !printed.contains("best top-1"), "{printed}");

    // The last checkpoint is the best one, and resuming it finds nothing to do.
    let run = runs.path().join("blind");
    let best = run.join("best.safetensors");
    let last = run.join("checkpoint-0001.safetensors");
    assert!(TensorFile::read(&best).unwrap().tensors == TensorFile::read(&last).unwrap().tensors);
    succeed(&["train", "--resume", run.to_str().unwrap()]);
    let output = records(&["eval", "--checkpoint", best.to_str().unwrap()]);
    let line = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{line}");
    assert!(line.contains("no test images") && line.contains("test.csv"), "{line}");

    // Test images that are added later can be evaluated; the groups by training counts stay unknown.
    write_brightness(data.path(), |_| String::new());
    let printed = succeed(&["eval", "--checkpoint", best.to_str().unwrap()]);
    assert!(printed.contains("12 test images") && printed.contains("many -  medium -  few -"), "{printed}");
    assert!(printed.contains("dark") && !printed.contains("trained on"), "{printed}");
}

#[test]
fn accuracies_are_over_the_samples_whose_class_is_known() {
    let (data, runs) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    // Every second label is known; with all labels the same run has all metrics.
    let names = ["dark", "grey", "light"];
    write_brightness(data.path(), |i| if i % 2 == 0 { names[i % 3].into() } else { String::new() });
    let (printed, some) = train(data.path(), runs.path(), "some");
    write_brightness(data.path(), |i| names[i % 3].into());
    let (all_printed, all) = train(data.path(), runs.path(), "all");
    assert_eq!(some["loss"], all["loss"]);
    assert_eq!(some["test"]["per_class"], all["test"]["per_class"]);
    assert!(some["test"]["many"].is_null() && some["prior_distance"].is_null(), "{some}");
    assert!(all["test"]["medium"].is_number() && all["prior_distance"].is_number(), "{all}");
    // Classes of equal size are all medium: the other groups are empty, and three classes have no top-5.
    for group in ["many", "few", "top5"] {
        assert!(all["test"][group].is_null(), "{group}: {all}");
    }
    let row = all_printed.lines().find(|line| line.trim_start().starts_with("0 ")).unwrap();
    assert_eq!(row.matches(" -").count(), 3, "{row}");
    let table: Vec<&str> = all_printed.lines().filter(|line| line.ends_with(" - |")).collect();
    assert_eq!(table.len(), 3, "{all_printed}");
    assert!(printed.contains("true classes not all known") && all_printed.contains("largest 4, smallest 4"));
    // Of 6 known samples; of 12; of those among the 10 that two steps of 5 see.
    let whole = |value: &serde_json::Value, samples: f64| {
        let hits = value.as_f64().unwrap() / 100.0 * samples;
        assert!(
            (hits - hits.round()).abs() < 1e-4 && (0.0..=samples).contains(&hits.round()),
            "{hits} of {samples}"
        );
    };
    whole(&some["label_accuracy"], 6.0);
    whole(&all["label_accuracy"], 12.0);
    whole(&all["train_accuracy"], 10.0);
    let among = [4.0, 5.0, 6.0].map(|samples| some["train_accuracy"].as_f64().unwrap() / 100.0 * samples);
    assert!(among.iter().any(|hits| (hits - hits.round()).abs() < 1e-9), "{some}");
}

#[test]
fn statistics_of_unknown_classes_count_candidates() {
    let data = TempDir::new().unwrap();
    let arguments = [
        "data",
        "--dataset",
        "csv",
        "--data-dir",
        data.path().to_str().unwrap(),
        "--image-size",
        "8",
        "--out",
    ];
    let out = data.path().join("out.safetensors");
    let arguments = [&arguments[..], &[out.to_str().unwrap()]].concat();
    write_brightness(data.path(), |i| if i == 0 { "dark".into() } else { String::new() });
    let printed = succeed(&arguments);
    for part in ["known for 1 of 12", "mean 2.0000, 2 to 2", "how often each class is a candidate"] {
        assert!(printed.contains(part), "{part:?} is not in {printed}");
    }
    let last: Vec<&str> =
        printed.lines().find(|line| line.contains("light")).unwrap().split_whitespace().collect();
    assert_eq!(last[..3], ["2", "light", "8"], "{printed}");
    assert!(!printed.contains("rho"), "{printed}");
    let file = TensorFile::read(&out).unwrap();
    assert!(file.tensors.contains_key("candidates") && !file.tensors.contains_key("label"));

    write_brightness(data.path(), |i| ["dark", "grey", "light"][i % 3].into());
    let printed = succeed(&arguments);
    assert!(printed.contains("1.0 (4 to 4)") && !printed.contains("is a candidate"), "{printed}");
    let file = TensorFile::read(&out).unwrap();
    assert_eq!(file.u8("label").unwrap().1, [0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1, 2]);
}
