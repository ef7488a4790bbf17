//! MNIST, Fashion-MNIST and Kuzushiji-MNIST in their official files: IDX, plain or compressed by gzip.
//!
//! An IDX file of bytes consists of two zeros, the type 8, the number of dimensions, the sizes as big-endian
//! u32, and the values, the last dimension fastest. Images are `[N, 28, 28]` grey levels, labels `[N]`. The
//! network's first convolution reads three channels, so a grey level is copied to all three, with the same
//! normalisation.

use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::Result;
use flate2::read::MultiGzDecoder;

use super::{DataSet, Images, Opened};
use crate::data::augment::resize::resize;
use crate::data::decode::{decode_all, loading};
use crate::data::progress::WorkProgress;
use crate::data::source::LoadedData;
use crate::data::{ImageSet, Normalisation};
use crate::files::read_whole;
use crate::usage;

/// Rows and columns of an image.
const SIDE: usize = 28;
/// Pixels of an image.
const IMAGE: usize = SIDE * SIDE;
const CLASSES: usize = 10;

/// Handwritten digits (LeCun, Cortes and Burges).
pub static MNIST: DataSet = DataSet {
    name: "mnist",
    aliases: &["mnist-lt"],
    about: "MNIST, the long-tailed subset with drawn candidate sets",
    open: |recipe, folder, _| DIGITS.open(recipe.image_size, folder),
    normalisation: |_| DIGITS.normalisation(),
    recognise,
    ..IDX_SETS
};

/// Articles of clothing (Xiao, Rasul and Vollgraf 2017).
pub static FASHION_MNIST: DataSet = DataSet {
    name: "fashion-mnist",
    aliases: &["fashion-mnist-lt", "fashionmnist", "fmnist"],
    about: "Fashion-MNIST, the long-tailed subset with drawn candidate sets",
    open: |recipe, folder, _| CLOTHES.open(recipe.image_size, folder),
    normalisation: |_| CLOTHES.normalisation(),
    ..IDX_SETS
};

/// Ten hiragana in cursive writing (Clanuwat et al. 2018).
pub static KMNIST: DataSet = DataSet {
    name: "kmnist",
    aliases: &["kmnist-lt", "kuzushiji-mnist"],
    about: "Kuzushiji-MNIST, the long-tailed subset with drawn candidate sets",
    open: |recipe, folder, _| HIRAGANA.open(recipe.image_size, folder),
    normalisation: |_| HIRAGANA.normalisation(),
    ..IDX_SETS
};

const IDX_SETS: DataSet = DataSet {
    reads: "train-images-idx3-ubyte and the three files beside it, .gz or not",
    classes: Some(CLASSES),
    images: |_| Some(Images { classes: CLASSES, train: 60_000, test: 10_000 }),
    image_size: SIDE,
    ..DataSet::USUAL
};

/// One of the data sets with these files.
struct Files {
    title: &'static str,
    /// Folders inside the folder for data to search; torchvision makes the first.
    folders: [&'static str; 2],
    /// Where the files are published.
    home: &'static str,
    classes: [&'static str; CLASSES],
    /// Mean and standard deviation of the grey levels of all training images, in units of 0..1.
    mean_std: [f32; 2],
}

/// Mean and standard deviation as in PyTorch's MNIST example.
const DIGITS: Files = Files {
    title: "MNIST",
    folders: ["MNIST/raw", "mnist"],
    home: "https://ossci-datasets.s3.amazonaws.com/mnist/",
    classes: ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"],
    mean_std: [0.1307, 0.3081],
};

/// Mean and standard deviation of all 60,000 training images, as in most loaders.
#[rustfmt::skip]
const CLOTHES: Files = Files {
    title: "Fashion-MNIST",
    folders: ["FashionMNIST/raw", "fashion-mnist"],
    home: "https://github.com/zalandoresearch/fashion-mnist",
    classes: [
        "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
    ],
    mean_std: [0.2860, 0.3530],
};

/// Mean and standard deviation of the training images; the figures 0.1904 and 0.3475, also in use, include
/// the test images.
const HIRAGANA: Files = Files {
    title: "Kuzushiji-MNIST",
    folders: ["KMNIST/raw", "kmnist"],
    home: "http://codh.rois.ac.jp/kmnist/",
    classes: ["o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"],
    mean_std: [0.1918, 0.3483],
};

/// A file and its contents.
#[derive(Clone, Copy)]
struct File {
    name: &'static str,
    values: IdxItems,
}

/// The expected contents of an IDX file.
#[derive(Clone, Copy, Debug)]
pub struct IdxItems {
    /// Sizes of the dimensions after the first, which are those of an item.
    pub item: &'static [u32],
    /// The most items.
    pub most: u32,
}

/// Images and labels of the training set, images and labels of the test set.
const FILES: [File; 4] = [
    File { name: "train-images-idx3-ubyte", values: IdxItems { item: &[SIDE as u32; 2], most: 60_000 } },
    File { name: "train-labels-idx1-ubyte", values: IdxItems { item: &[], most: 60_000 } },
    File { name: "t10k-images-idx3-ubyte", values: IdxItems { item: &[SIDE as u32; 2], most: 10_000 } },
    File { name: "t10k-labels-idx1-ubyte", values: IdxItems { item: &[], most: 10_000 } },
];

impl File {
    /// Its path in `folder`; a plain file is preferred to a compressed one.
    fn find(self, folder: &Path) -> Option<PathBuf> {
        let names = [self.name.to_string(), format!("{}.gz", self.name)];
        names.map(|name| folder.join(name)).into_iter().find(|path| path.symlink_metadata().is_ok())
    }
}

impl IdxItems {
    /// The values `[items, item...]` of a file with these bytes, plain or gzip according to the first bytes.
    /// The header's claims are checked before memory is allocated, and at most one byte more than they say is
    /// unpacked.
    ///
    /// # Errors
    /// What is wrong with the file, without its name.
    pub fn read(self, bytes: &[u8]) -> Result<Vec<u8>, String> {
        if bytes.starts_with(&[0x1f, 0x8b]) {
            self.unpack(MultiGzDecoder::new(bytes), "is damaged as gzip")
        } else {
            self.unpack(bytes, "cannot be read")
        }
    }

    fn unpack(self, mut from: impl Read, damaged: &str) -> Result<Vec<u8>, String> {
        let mut take = |most: u64| {
            let mut bytes = Vec::new();
            let end = from.by_ref().take(most).read_to_end(&mut bytes);
            end.map(|_| bytes).map_err(|error| format!("{damaged}: {error}"))
        };
        let dimensions = 1 + self.item.len();
        let header = take(4 + 4 * dimensions as u64)?;
        if header.len() < 4 + 4 * dimensions {
            return Err(format!("ends after {} bytes, inside its header", header.len()));
        }
        let mut words =
            header.chunks_exact(4).map(|word| u32::from_be_bytes([word[0], word[1], word[2], word[3]]));
        let (magic, wanted) = (words.next().unwrap_or(0), 0x800 | dimensions as u32);
        if magic != wanted {
            return Err(format!(
                "begins with {magic:08x} instead of {wanted:08x}, so it is not such an IDX file"
            ));
        }
        let count = words.next().unwrap_or(0);
        if !(1..=self.most).contains(&count) {
            return Err(format!("claims {count} items; there are 1 to {}", self.most));
        }
        let item: Vec<u32> = words.collect();
        if item != self.item {
            return Err(format!("claims items of {item:?}; they are {:?}", self.item));
        }
        let length = count as usize * item.iter().product::<u32>() as usize;
        // The extra byte detects further values, and makes the decoder check the checksum at the end.
        let values = take(length as u64 + 1)?;
        match values.len() {
            found if found < length => Err(format!("ends after {found} of {length} values")),
            found if found > length => {
                Err(format!("holds more than the {length} values that its header claims"))
            }
            _ => Ok(values),
        }
    }

    /// The most bytes of a file, compressed or not: incompressible data gets a little longer.
    fn most_bytes(self) -> u64 {
        let values = u64::from(self.most) * self.item.iter().map(|&size| u64::from(size)).product::<u64>();
        values + values / 1000 + (1 << 16)
    }
}

impl Files {
    fn open(&self, size: usize, data_dir: &Path) -> Result<Opened> {
        let folder = self.find(data_dir)?;
        let [train_images, train_labels, test_images, test_labels] = FILES;
        let train = self.gray(&folder, train_images, train_labels)?;
        let test = self.gray(&folder, test_images, test_labels)?;
        for (class, name) in self.classes.iter().enumerate() {
            if !train.1.iter().any(|&label| usize::from(label) == class) {
                let (folder, remedy) = (folder.display(), self.remedy());
                return Err(usage!("{folder}: class {class} ({name}) has no training image; {remedy}"));
            }
        }
        let progress = loading(train.1.len() + test.1.len());
        let normalisation = self.normalisation();
        Ok(Opened::Labelled(Box::new(LoadedData {
            classes: self.classes.map(String::from).to_vec(),
            train: colour(train, size, &*progress)?,
            test: colour(test, size, &*progress)?,
            train_normalisation: normalisation,
            test_normalisation: normalisation,
            positions: Default::default(),
            left_out: Vec::new(),
            notes: Vec::new(),
        })))
    }

    fn normalisation(&self) -> Normalisation {
        let [mean, std] = self.mean_std;
        Normalisation { mean: [mean; 3], std: [std; 3] }
    }

    fn remedy(&self) -> String {
        format!("get the four files of {} again from {}", self.title, self.home)
    }

    /// The folder with the files.
    fn find(&self, data_dir: &Path) -> Result<PathBuf> {
        let mut folders = self.folders.iter().map(|name| data_dir.join(name)).chain([data_dir.to_path_buf()]);
        folders.find(|folder| FILES.iter().any(|file| file.find(folder).is_some())).ok_or_else(|| {
            let ([first, second], place) = (self.folders, data_dir.display());
            let file = FILES[0].name;
            usage!(
                "{place}: holds no {file}, .gz or not, nor does {first} or {second} in it; put the four files of {} there, \
                 from {}",
                self.title,
                self.home
            )
        })
    }

    /// Grey levels `[N, 28, 28]` and labels `[N]`.
    fn gray(&self, folder: &Path, images: File, labels: File) -> Result<(Vec<u8>, Vec<u8>)> {
        let remedy = self.remedy();
        let read = |file: File| {
            let path = file.find(folder).ok_or_else(|| {
                usage!("{}: holds no {}, .gz or not; {remedy}", folder.display(), file.name)
            })?;
            let bytes =
                read_whole(&path, file.values.most_bytes()).map_err(|error| usage!("{error}; {remedy}"))?;
            let values = file
                .values
                .read(&bytes)
                .map_err(|problem| usage!("{}: {problem}; {remedy}", path.display()))?;
            Ok::<_, anyhow::Error>((path, values))
        };
        let (of_images, images) = read(images)?;
        let (of_labels, labels) = read(labels)?;
        let shown = of_labels.display();
        if let Some(at) = labels.iter().position(|&label| usize::from(label) >= CLASSES) {
            return Err(usage!("{shown}: label {at} is {}; labels are 0 to 9; {remedy}", labels[at]));
        }
        let (count, images_there) = (labels.len(), images.len() / IMAGE);
        if images_there != count {
            let images = of_images.display();
            return Err(usage!(
                "{shown}: has {count} labels, but {images} has {images_there} images; {remedy}"
            ));
        }
        Ok((images, labels))
    }
}

/// Grey images as RGB of `size` x `size`, resized with Pillow's bilinear filter if they have another size.
fn colour((gray, labels): (Vec<u8>, Vec<u8>), size: usize, progress: &dyn WorkProgress) -> Result<ImageSet> {
    let images = decode_all(labels.len(), size, progress, |i, out| {
        let image: Vec<u8> = gray[i * IMAGE..][..IMAGE].iter().flat_map(|&level| [level; 3]).collect();
        match size {
            SIDE => out.copy_from_slice(&image),
            _ => out.copy_from_slice(&resize(&image, [SIDE; 2], [size; 2])),
        }
        Ok(())
    })?;
    Ok(ImageSet { images, labels, height: size, width: size })
}

/// The files have the same names in all these data sets, so it is unknown which one it is.
fn recognise(folder: &Path) -> Option<(String, String)> {
    let places = [folder.to_path_buf(), folder.join("raw")];
    let place = places.iter().find(|place| FILES[0].find(place).is_some())?;
    let absent = FILES.iter().find(|file| file.find(place).is_none());
    let wrong = absent.map_or(String::new(), |file| format!("; {} is missing", file.name));
    Some(("MNIST or a data set in its format".into(), wrong))
}
