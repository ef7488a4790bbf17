//! `records predict`: classes and probabilities of images by a trained network.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Args;
use rayon::prelude::*;
use serde_json::{Map, Value, json};

use super::device::DeviceArguments;
use super::output;
use crate::data::decode::{EXTENSIONS, decode_square, has_image_extension, in_words, loading};
use crate::device::Device;
use crate::error::one_line;
use crate::files::write_atomically;
use crate::settings::quoted_where_odd;
use crate::text::printable;
use crate::train::checkpoint::Checkpoint;
use crate::train::predict::{Predictor, ranked};
use crate::usage;

/// Arguments of `records predict`.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Images become what the run's test images were: the same size, the same normalisation. A CSV table has a row \
                  for each image: its path, then class and probability of the likeliest classes."
)]
pub struct PredictArguments {
    /// A checkpoint of `records train`
    #[arg(long, value_name = "FILE.safetensors")]
    checkpoint: PathBuf,
    /// Images, and folders whose images are taken, also from folders in them
    #[arg(value_name = "FILE|FOLDER", required = true)]
    images: Vec<PathBuf>,
    /// How many classes to show for each image, at most as many as there are
    #[arg(long, value_name = "K", default_value_t = 5)]
    top_k: usize,
    /// Show the probability of every class as well
    #[arg(long)]
    all: bool,
    /// Do not subtract the class prior that the run estimated: probabilities as under the training set's long
    /// tail, not as for test images of all classes alike
    #[arg(long)]
    no_debias: bool,
    /// How to write them: csv or json
    #[arg(long, value_name = "WORD", default_value = "csv")]
    format: String,
    /// Write to this file instead of standard output
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Leave out images that cannot be read, and say how many; otherwise they are an error
    #[arg(long)]
    skip_unreadable: bool,
    #[command(flatten)]
    device: DeviceArguments,
}

/// Folders inside each other that are searched.
const DEEPEST: usize = 32;

/// An image and its class probabilities.
struct Prediction {
    path: PathBuf,
    probabilities: Vec<f64>,
}

/// Runs `records predict`.
///
/// # Errors
/// A usage error for a file that is not a complete checkpoint, and for images that cannot be read.
pub fn run(arguments: &PredictArguments) -> Result<()> {
    let write = match arguments.format.as_str() {
        "csv" => csv_table,
        "json" => json_array,
        other => return Err(usage!("--format {}: must be csv or json", quoted_where_odd(other))),
    };
    if arguments.top_k == 0 {
        return Err(usage!("--top-k 0: must be at least 1"));
    }
    let checkpoint = Checkpoint::read(&arguments.checkpoint)?;
    let paths = images(&arguments.images)?;
    let mut device = arguments.device.open()?;
    let predictor = Predictor::new(&checkpoint, &arguments.checkpoint, paths.len(), &mut *device)?;
    let (predictions, unreadable) = predict(&predictor, paths, !arguments.no_debias, &mut *device)?;
    if !unreadable.is_empty() {
        report(&unreadable, arguments.skip_unreadable, predictions.len())?;
    }
    let shown = arguments.top_k.min(predictor.classes.len());
    let text = write(&predictor.classes, &predictions, shown, arguments.all)?;
    match &arguments.output {
        Some(path) => write_atomically(path, text.as_bytes()),
        None => output::print(&text),
    }
}

/// Says which images cannot be read, all in one go.
fn report(unreadable: &[String], skip: bool, readable: usize) -> Result<()> {
    let (count, all, named) = (unreadable.len(), unreadable.len() + readable, in_words(unreadable));
    if !skip {
        return Err(usage!(
            "{count} of {all} images cannot be read (--skip-unreadable goes on without them): {named}"
        ));
    }
    if readable == 0 {
        return Err(usage!("none of {all} images can be read: {named}"));
    }
    output::note(&format!("left out: {count} of {all} images, which cannot be read: {named}"));
    Ok(())
}

/// The images that are named, and those in named folders in the order of their paths. Hidden files and
/// folders and links to folders are not searched.
fn images(named: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for path in named {
        if !path.is_dir() {
            found.push(path.clone());
            continue;
        }
        let before = found.len();
        search(path, DEEPEST, &mut found)?;
        if found.len() == before {
            return Err(usage!(
                "{}: holds no image; name a folder with {EXTENSIONS} files",
                printable(&path.display().to_string())
            ));
        }
    }
    Ok(found)
}

fn search(folder: &Path, depth: usize, found: &mut Vec<PathBuf>) -> Result<()> {
    let shown = printable(&folder.display().to_string());
    let unreadable = |error| usage!("{shown}: cannot be read: {error}");
    let mut entries = Vec::new();
    for entry in fs::read_dir(folder).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        let hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
        let is_folder = entry.file_type().map_err(unreadable)?.is_dir();
        if !hidden && (is_folder || has_image_extension(&entry.path())) {
            entries.push((entry.path(), is_folder));
        }
    }
    entries.sort();
    for (path, is_folder) in entries {
        match (is_folder, depth) {
            (false, _) => found.push(path),
            (true, 0) => return Err(usage!("{shown}: folders in it are nested too deep; name one of them")),
            (true, _) => search(&path, depth - 1, found)?,
        }
    }
    Ok(())
}

/// Reads the images, a batch at a time, and predicts them; also says which cannot be read.
fn predict(
    predictor: &Predictor,
    paths: Vec<PathBuf>,
    debiased: bool,
    device: &mut dyn Device,
) -> Result<(Vec<Prediction>, Vec<String>)> {
    let form = predictor.form;
    let image = form.size * form.size * 3;
    let (mut predictions, mut unreadable) = (Vec::with_capacity(paths.len()), Vec::new());
    let progress = loading(paths.len());
    for some in paths.chunks(predictor.batch) {
        let read = |path: &PathBuf| {
            let mut pixels = vec![0; image];
            let read = decode_square(path, form.size, form.fit, &mut pixels);
            progress.advance(1);
            read.map(|_| pixels)
        };
        let read: Vec<Result<Vec<u8>>> = some.par_iter().map(read).collect();
        let (mut pixels, mut readable) = (Vec::with_capacity(some.len() * image), Vec::new());
        for (path, result) in some.iter().zip(read) {
            match result {
                Ok(of_image) => {
                    pixels.extend(of_image);
                    readable.push(path.clone());
                }
                Err(error) => unreadable.push(one_line(&error)),
            }
        }
        let rows = predictor.probabilities(&pixels, debiased, device)?;
        let rows = readable.into_iter().zip(rows);
        predictions.extend(rows.map(|(path, probabilities)| Prediction { path, probabilities }));
    }
    Ok((predictions, unreadable))
}

/// A table with a header and a row for each image.
fn csv_table(classes: &[String], predictions: &[Prediction], shown: usize, all: bool) -> Result<String> {
    let mut table = csv::Writer::from_writer(Vec::new());
    let mut header = vec!["path".to_string()];
    for rank in 1..=shown {
        header.extend([format!("class_{rank}"), format!("probability_{rank}")]);
    }
    if all {
        header.extend(classes.iter().map(|class| format!("p({class})")));
    }
    table.write_record(&header)?;
    for Prediction { path, probabilities } in predictions {
        let mut row = vec![path.to_string_lossy().into_owned()];
        for class in ranked(probabilities).into_iter().take(shown) {
            row.extend([classes[class].clone(), number(probabilities[class])]);
        }
        if all {
            row.extend(probabilities.iter().map(|&share| number(share)));
        }
        table.write_record(&row)?;
    }
    Ok(String::from_utf8(table.into_inner()?)?)
}

/// A probability with as many digits as an f32 has.
fn number(probability: f64) -> String {
    (probability as f32).to_string()
}

/// An array with an object for each image, each on a line of its own.
fn json_array(classes: &[String], predictions: &[Prediction], shown: usize, all: bool) -> Result<String> {
    let object = |Prediction { path, probabilities }: &Prediction| {
        let rounded = |class: usize| probabilities[class] as f32;
        let order = ranked(probabilities);
        let top = order.iter().take(shown);
        let top = top.map(|&class| json!({ "class": classes[class], "probability": rounded(class) }));
        let mut object = json!({ "path": path.to_string_lossy(), "class": classes[order[0]], "top": top.collect::<Vec<_>>() });
        if all {
            let every = classes.iter().enumerate().map(|(k, class)| (class.clone(), json!(rounded(k))));
            object["probabilities"] = Value::Object(every.collect::<Map<_, _>>());
        }
        object.to_string()
    };
    let rows: Vec<String> = predictions.iter().map(object).collect();
    Ok(format!("[\n{}\n]\n", rows.join(",\n")))
}
