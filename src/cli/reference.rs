//! Flags of the reference trainer that have other names here, so that its published commands work (SPEC 10).
//! [`super::parse`] handles underscores and other spellings.

use anyhow::Result;
use clap::Args;

use crate::data::registry;
use crate::declaration::{MOST, number};
use crate::settings::{Debias, GivenSettings, ScheduleChoice, Settings};
use crate::usage;

/// The allowed values of these flags, to follow "must be".
pub const ALLOWED: &[(&str, &str)] = &[
    ("imb-ratio", "a number from 1 to 1e30"),
    ("num-class", "the number of classes of the data set: 10, 20 or 100"),
];

/// Flags of the reference trainer.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Flags of the reference trainer")]
pub struct ReferenceFlags {
    /// Same as --schedule cosine
    #[arg(long)]
    cosine: bool,
    /// Same as --debias records
    #[arg(long)]
    records: bool,
    /// Same as --dataset cifar100-lt-nu; only with CIFAR-100
    #[arg(long)]
    hierarchical: bool,
    /// Imbalance ratio, images of the largest class over those of the smallest: same as --imb-factor 1/RHO
    #[arg(long, value_name = "RHO")]
    imb_ratio: Option<f64>,
    /// Checked against the data set, otherwise without effect
    #[arg(long, value_name = "CLASSES")]
    num_class: Option<usize>,
    /// Only 0: --resume knows where to go on
    #[arg(long, value_name = "EPOCH", hide = true)]
    start_epoch: Option<usize>,
    /// Accepted without effect, as are print-freq, dist-url, dist-backend, world-size, rank, gpu,
    /// multiprocessing-distributed and save-ckpt
    #[arg(short = 'j', long, value_name = "N", allow_hyphen_values = true)]
    workers: Option<String>,
    #[arg(short = 'p', long, hide = true, allow_hyphen_values = true)]
    print_freq: Option<String>,
    #[arg(long, hide = true)]
    dist_url: Option<String>,
    #[arg(long, hide = true)]
    dist_backend: Option<String>,
    #[arg(long, hide = true, allow_hyphen_values = true)]
    world_size: Option<String>,
    #[arg(long, hide = true, allow_hyphen_values = true)]
    rank: Option<String>,
    #[arg(long, hide = true, allow_hyphen_values = true)]
    gpu: Option<String>,
    #[arg(long, hide = true)]
    multiprocessing_distributed: bool,
    #[arg(long, hide = true)]
    save_ckpt: bool,
}

impl ReferenceFlags {
    /// Overrides `settings`, which `given` (the other flags) has already overridden.
    ///
    /// # Errors
    /// A usage error where a flag contradicts another one or does not fit the data set.
    pub fn apply(&self, given: &GivenSettings, settings: &mut Settings) -> Result<()> {
        let other_word = |name, word| given.values.get::<String>(name).filter(|given| given != word);
        if self.cosine {
            agree("--cosine", "schedule", other_word("schedule", ScheduleChoice::Cosine.word()))?;
            settings.schedule = ScheduleChoice::Cosine;
        }
        if self.records {
            agree("--records", "debias", other_word("debias", Debias::Records.word()))?;
            settings.debias = Debias::Records;
        }
        if let Some(ratio) = self.imb_ratio {
            let other = given.values.get::<f64>("imb-factor").map(|factor| factor.to_string());
            agree(&format!("--imb-ratio {ratio}"), "imb-factor", other)?;
            if !(1.0..=MOST).contains(&ratio) {
                return Err(usage!("--imb-ratio {}: must be {}", number(ratio), ALLOWED[0].1));
            }
            settings.imb_factor = 1.0 / ratio;
        }
        if self.hierarchical {
            match settings.dataset.as_str() {
                "cifar100-lt" | "cifar100-lt-nu" => settings.dataset = "cifar100-lt-nu".into(),
                "cifar10-lt" => {
                    return Err(usage!(
                        "--hierarchical: does not go with --dataset cifar10-lt, which has no superclasses (the \
                         reference only shuffles its class counts); leave it out or use --dataset cifar100-lt"
                    ));
                }
                other => {
                    return Err(usage!("--hierarchical: must come with --dataset cifar100-lt, not {other}"));
                }
            }
        }
        if let Some(given) = self.num_class {
            match registry::find(&settings.dataset).and_then(|set| set.classes) {
                Some(classes) if classes == given => {}
                Some(classes) => {
                    return Err(usage!(
                        "--num-class {given}: must be {classes}, the classes of --dataset {}",
                        settings.dataset
                    ));
                }
                None => {
                    return Err(usage!(
                        "--num-class {given}: must be left out, since the number of classes depends on the files of \
                         --dataset {}",
                        settings.dataset
                    ));
                }
            }
        }
        match self.start_epoch {
            None | Some(0) => Ok(()),
            Some(epoch) => {
                Err(usage!("--start-epoch {epoch}: must be 0; to go on with a run use --resume RUN_FOLDER"))
            }
        }
    }

    /// Checks that the processes that the reference's flags ask for are those of the world: a launcher starts
    /// them here, not the program.
    ///
    /// # Errors
    /// A usage error with the way to start them.
    pub fn check_world(&self, rank: usize, size: usize) -> Result<()> {
        let number = |text: &Option<String>| text.as_ref().and_then(|text| text.trim().parse::<i64>().ok());
        if let Some(wanted) = number(&self.world_size)
            && wanted > 1
            && wanted != size as i64
        {
            let are =
                if size == 1 { "there is one process".into() } else { format!("there are {size} processes") };
            return Err(usage!(
                "--world-size {wanted}: {are}; start as many with mpirun -n {wanted} records train ..., or srun"
            ));
        }
        if let Some(wanted) = number(&self.rank)
            && wanted > 0
            && wanted != rank as i64
        {
            return Err(usage!(
                "--rank {wanted}: this is rank {rank}; leave it out, since the launcher says it"
            ));
        }
        Ok(())
    }

    /// The flags that were given and have no effect here.
    pub fn without_effect(&self) -> Vec<&'static str> {
        [
            ("--workers", self.workers.is_some()),
            ("--print-freq", self.print_freq.is_some()),
            ("--dist-url", self.dist_url.is_some()),
            ("--dist-backend", self.dist_backend.is_some()),
            ("--world-size", self.world_size.is_some()),
            ("--rank", self.rank.is_some()),
            ("--gpu", self.gpu.is_some()),
            ("--multiprocessing-distributed", self.multiprocessing_distributed),
            ("--save-ckpt", self.save_ckpt),
        ]
        .into_iter()
        .filter_map(|(flag, given)| given.then_some(flag))
        .collect()
    }
}

fn agree(flag: &str, name: &str, other: Option<String>) -> Result<()> {
    match other {
        None => Ok(()),
        Some(other) => Err(usage!("{flag}: contradicts --{name} {other}; must be one of the two")),
    }
}
