//! `records data`: the long-tailed subset and its candidate sets, as statistics and as a file.

use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, Subcommand};

use super::{fetch, output};
use crate::data::decode::Unreadable;
use crate::data::longtail::ImbalanceType;
use crate::data::recipe::{Recipe, TrainingData, prepare};
use crate::data::registry::{self, default_in_words, one_of};
use crate::data::statistics;
use crate::settings::{Settings, quoted_where_odd};
use crate::train::tensor_file::{TensorFile, Values};
use crate::usage;

/// Arguments of `records data`.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "The file holds `index` i32 [N], `candidates` u8 [N,K] and, where all true classes are known, `label` u8 \
                  [N].",
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    disable_help_subcommand = true
)]
pub struct DataArguments {
    #[command(subcommand)]
    command: Option<DataCommand>,
    #[arg(long, value_name = "NAME", required = true, help = one_of())]
    dataset: Option<String>,
    /// Folder of the data set: the official archives unpacked, class folders under train and test, or
    /// train.csv
    #[arg(long, value_name = "FOLDER")]
    data_dir: Option<PathBuf>,
    #[arg(long, value_name = "F", help = format!(
        "Images of the smallest class as a share of those of the largest (above 0, at most 1; 1 keeps all images) \
         [default: {}]",
        default_in_words(|set| set.imb_factor)
    ))]
    imb_factor: Option<f64>,
    /// Shape of the class counts: exp, step or none (all images are kept)
    #[arg(long, value_name = "TYPE", default_value = "exp")]
    imb_type: String,
    /// Make the last class the largest
    #[arg(long)]
    reverse: bool,
    /// Chance that a wrong class joins a candidate set (at least 0, below 1)
    #[arg(long, value_name = "Q", default_value_t = 0.1)]
    partial_rate: f64,
    /// Seed of the run, which shuffles the class counts of cifar100-lt-nu as in the reference
    #[arg(long, default_value_t = 123)]
    seed: u64,
    /// Seed of subset and candidate sets; the reference always takes 0
    #[arg(long, default_value_t = 0)]
    data_seed: u32,
    #[arg(long, help = format!(
        "Rows and columns of image files after resizing, pixels (1 to 1024) [default: {}]",
        default_in_words(|set| set.image_size)
    ))]
    image_size: Option<usize>,
    /// Leave out image files that cannot be read, and say how many; otherwise they are an error
    #[arg(long)]
    skip_unreadable: bool,
    /// Write the subset and its candidate sets here
    #[arg(long, value_name = "X.safetensors")]
    out: Option<PathBuf>,
}

/// The subcommands of `records data`; without one it shows and writes a subset.
#[derive(Subcommand, Clone, Debug)]
pub enum DataCommand {
    /// Download a data set, check it and unpack it
    Fetch(fetch::FetchArguments),
    /// Show which data sets there are and what each reads
    List,
}

/// The data sets: the word of `--dataset`, what it is, what lies in `--data-dir`.
fn list() -> String {
    let mut rows = vec![["name", "about", "reads"].map(String::from)];
    rows.extend(registry::ALL.iter().map(|set| [set.name, set.about, set.reads].map(String::from)));
    output::table(&rows)
}

/// Runs `records data`.
///
/// # Errors
/// A usage error that names the flag or file at fault; then nothing is written.
pub fn run(arguments: &DataArguments) -> Result<()> {
    match &arguments.command {
        Some(DataCommand::Fetch(arguments)) => return fetch::run(arguments),
        Some(DataCommand::List) => return output::print(&list()),
        None => {}
    }
    let recipe = recipe(arguments)?;
    let data = prepare(&recipe)?;
    if let Some(path) = &arguments.out {
        subset_file(&recipe, &data).write(path)?;
    }
    output::print(&statistics::table(&data))?;
    match &arguments.out {
        Some(path) => output::print(&format!("\nwritten to {}\n", path.display())),
        None => Ok(()),
    }
}

/// The data that the arguments ask for.
fn recipe(arguments: &DataArguments) -> Result<Recipe> {
    let dataset = registry::named(arguments.dataset.as_deref().unwrap_or_default())?;
    let image_size = arguments.image_size.unwrap_or(dataset.image_size);
    if !(1..=1024).contains(&image_size) {
        return Err(usage!("--image-size {image_size}: must be 1 to 1024"));
    }
    let imb_factor = arguments.imb_factor.unwrap_or(dataset.imb_factor);
    let imb_type = ImbalanceType::from_word(&arguments.imb_type).ok_or_else(|| {
        usage!("--imb-type {}: must be exp, step or none", quoted_where_odd(&arguments.imb_type))
    })?;
    let defaults = Settings::default();
    Ok(Recipe {
        dataset,
        data_dir: arguments.data_dir.clone(),
        imb_factor,
        imb_type,
        reverse: arguments.reverse,
        partial_rate: arguments.partial_rate,
        seed: arguments.seed,
        data_seed: arguments.data_seed,
        image_size,
        synthetic_train_per_class: defaults.synthetic_train_per_class,
        synthetic_test_per_class: defaults.synthetic_test_per_class,
        unreadable: if arguments.skip_unreadable { Unreadable::LeftOut } else { Unreadable::Refused },
    })
}

/// The file of `--out`: the subset and its candidate sets, with the recipe as metadata.
fn subset_file(recipe: &Recipe, data: &TrainingData) -> TensorFile {
    let (samples, classes) = (data.train.len(), data.classes.len());
    let mut file = TensorFile::default();
    let mut put = |name: &str, shape: Vec<usize>, values: Values| {
        file.tensors.insert(name.into(), (shape, values));
    };
    put("index", vec![samples], Values::I32(data.index.clone()));
    if let Some(labels) = data.true_labels() {
        put("label", vec![samples], Values::U8(labels));
    }
    put("candidates", vec![samples, classes], Values::U8(data.candidates.rows.clone()));
    for (key, value) in [
        ("dataset", recipe.dataset.name.to_string()),
        ("imb_factor", recipe.imb_factor.to_string()),
        ("imb_type", recipe.imb_type.to_string()),
        ("reverse", recipe.reverse.to_string()),
        ("partial_rate", recipe.partial_rate.to_string()),
        ("seed", recipe.seed.to_string()),
        ("data_seed", recipe.data_seed.to_string()),
    ] {
        file.metadata.insert(key.into(), value);
    }
    if !data.left_out.is_empty() {
        let lines: Vec<String> = data.left_out.iter().map(ToString::to_string).collect();
        file.metadata.insert("left_out".into(), lines.join("\n"));
    }
    file
}
