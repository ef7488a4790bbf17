//! `ptx-sim run`.

use std::path::PathBuf;

use ptx_sim::{Description, Gpu, Launch, Machine, Program, Settings};

use super::spec::{self, Spec};
use super::{Failure, file, report};

#[derive(Clone, Copy, clap::ValueEnum)]
enum Output {
    Text,
    Json,
}

#[derive(clap::Args)]
pub struct Run {
    /// PTX as text
    file: PathBuf,
    /// The kernel; may be left out if the file has one
    #[arg(long)]
    entry: Option<String>,
    /// Blocks: X, X,Y or X,Y,Z
    #[arg(long, default_value = "1", value_parser = triple)]
    grid: [u32; 3],
    /// Threads of a block: X, X,Y or X,Y,Z
    #[arg(long, default_value = "32", value_parser = triple)]
    block: [u32; 3],
    /// Bytes of dynamic shared memory
    #[arg(long, default_value_t = 0)]
    shared: u32,
    /// Run all blocks at the same time, so that they may wait for each other
    #[arg(long)]
    cooperative: bool,
    /// An argument, in order: type:length:fill (a buffer, as f32:512:random), type=value (a scalar, as
    /// i32=3), @K (the address of the buffer that is argument K, counted from 0) or hex=00FF (bytes)
    #[arg(long = "arg", value_name = "SPEC")]
    args: Vec<String>,
    /// Write the buffer that is argument K to a file afterwards
    #[arg(long, value_name = "K=FILE")]
    dump: Vec<String>,
    /// Predict the least time on rtx3090, h100 or the GPU a TOML file describes
    #[arg(long, value_name = "NAME|FILE.toml")]
    gpu: Option<String>,
    #[arg(long, value_enum, default_value = "text")]
    format: Output,
    /// 0: warps run until they wait; otherwise in turns of random length. Random buffers follow it too
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Host threads
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Warp instructions after which the launch is given up
    #[arg(long, default_value_t = Settings::default().max_instructions)]
    max_instructions: u64,
    /// Findings shown
    #[arg(long, default_value_t = Settings::default().max_findings)]
    max_findings: usize,
}

fn triple(text: &str) -> Result<[u32; 3], String> {
    let mut sizes = [1; 3];
    let parts: Vec<_> = text.split(',').collect();
    if parts.len() > 3 {
        return Err("at most three numbers".into());
    }
    for (size, part) in sizes.iter_mut().zip(parts) {
        *size = part.trim().parse().map_err(|_| format!("{part:?} is not a number"))?;
    }
    Ok(sizes)
}

/// The description of a GPU has some hundred bytes.
const MOST_GPU_BYTES: u64 = 1 << 20;

fn gpu(word: &str) -> Result<Gpu, Failure> {
    if let Some(gpu) = Gpu::built_in(word) {
        return Ok(gpu);
    }
    if !word.ends_with(".toml") {
        return Err(Failure::usage(format!("--gpu {word}: rtx3090, h100 or a file that ends in .toml")));
    }
    let bytes = file::read(word.as_ref(), MOST_GPU_BYTES)
        .map_err(|error| Failure::usage(format!("--gpu {error}")))?;
    let text = String::from_utf8(bytes).map_err(|_| Failure::usage(format!("--gpu {word}: not text")))?;
    toml::from_str(&text).map_err(|error| {
        let first = error.message().lines().next().unwrap_or("").to_string();
        Failure::usage(format!("--gpu {word}: {first}"))
    })
}

impl Run {
    /// Runs the kernel and prints what came out: the exit code.
    pub fn execute(&self) -> Result<u8, Failure> {
        let gpu = self.gpu.as_deref().map(gpu).transpose()?;
        let specs = self
            .args
            .iter()
            .enumerate()
            .map(|(index, text)| spec::parse(text, index))
            .collect::<Result<Vec<_>, _>>()
            .map_err(Failure::Usage)?;
        let program = super::program(&self.file)?;
        let (entry, kernel) = self.kernel(&program)?;
        if specs.len() != kernel.parameters.len() {
            return Err(Failure::usage(format!(
                "{entry} has {} parameters and {} --arg are given; `ptx-sim list` shows them",
                kernel.parameters.len(),
                specs.len()
            )));
        }
        let settings = Settings {
            threads: self.threads.max(1),
            warp_seed: self.seed,
            max_instructions: self.max_instructions,
            max_findings: self.max_findings,
            most_shared: gpu.as_ref().map_or(Settings::default().most_shared, |gpu| gpu.block_shared_bytes),
        };
        let mut machine = Machine::new(settings);
        let (arguments, buffers) = self.place(&mut machine, &specs, &kernel)?;
        let dumps = self.dumps(&buffers)?;
        let launch = Launch {
            grid: self.grid,
            block: self.block,
            shared_bytes: self.shared,
            cooperative: self.cooperative,
            arguments: &arguments,
        };
        let done = machine.launch(&program, entry, &launch).map_err(Failure::usage)?;
        write_dumps(&machine, &dumps)?;
        let roofline = gpu.map(|gpu| {
            let prediction = gpu.predict(&done.counters);
            (gpu, prediction)
        });
        // In JSON it is a field.
        if matches!(self.format, Output::Text) {
            super::print(&done.printed)?;
        }
        super::print(&match self.format {
            Output::Text => report::text(&done, roofline.as_ref()),
            Output::Json => report::json(entry, &done, roofline.as_ref()),
        })?;
        Ok(if done.findings_total == 0 { 0 } else { 3 })
    }

    /// The kernel to run.
    fn kernel<'p>(&'p self, program: &'p Program) -> Result<(&'p str, Description), Failure> {
        let names: Vec<_> = program.kernels().collect();
        let entry = match (&self.entry, names.as_slice()) {
            (Some(entry), _) => entry.as_str(),
            (None, [only]) => only,
            (None, _) => {
                let names = names.join(", ");
                return Err(Failure::usage(format!("--entry is missing; the file has: {names}")));
            }
        };
        if let Some(error) = program.unsupported(entry) {
            return Err(Failure::usage(format!("{}: {error}", self.file.display())));
        }
        match program.describe(entry) {
            Some(kernel) => Ok((entry, kernel)),
            None => Err(Failure::usage(format!("--entry {entry}: the file has: {}", names.join(", ")))),
        }
    }

    /// Packs the arguments, and allocates and fills the buffers among them: address and bytes of each.
    fn place(
        &self,
        machine: &mut Machine,
        specs: &[Spec],
        kernel: &Description,
    ) -> Result<(Vec<u8>, Vec<Buffer>), Failure> {
        let mut arguments = vec![0; kernel.parameter_bytes as usize];
        let mut buffers: Vec<Buffer> = Vec::new();
        for (index, (spec, parameter)) in specs.iter().zip(&kernel.parameters).enumerate() {
            let mut buffer = None;
            let value = match spec {
                Spec::Scalar(bytes) => bytes.clone(),
                Spec::Address(earlier, offset) => match buffers[*earlier] {
                    Some((address, _)) => (address + offset).to_le_bytes().to_vec(),
                    None => {
                        return Err(Failure::usage(format!(
                            "--arg @{earlier}: argument {earlier} is no buffer"
                        )));
                    }
                },
                Spec::Buffer { format, length, fill } => {
                    let bytes = length * format.bytes();
                    let label = format!("argument {index} ({})", parameter.name);
                    let address = machine.try_allocate(bytes, &label).map_err(Failure::usage)?;
                    let seed = self.seed.wrapping_add((index as u64) << 32);
                    if let Some(contents) = format.contents(*length, fill, seed).map_err(Failure::Usage)? {
                        let written = machine.write(address, &contents);
                        written.map_err(|error| Failure::Other(error.to_string()))?;
                    }
                    buffer = Some((address, bytes));
                    address.to_le_bytes().to_vec()
                }
            };
            buffers.push(buffer);
            if value.len() != parameter.bytes as usize {
                return Err(Failure::usage(format!(
                    "--arg {}: {} bytes; parameter {} ({}) has {}",
                    self.args[index],
                    value.len(),
                    parameter.name,
                    parameter.type_name,
                    parameter.bytes
                )));
            }
            arguments[parameter.offset as usize..][..value.len()].copy_from_slice(&value);
        }
        Ok((arguments, buffers))
    }

    /// Which buffers go into which files afterwards.
    fn dumps(&self, buffers: &[Buffer]) -> Result<Vec<Dump<'_>>, Failure> {
        let mut dumps = Vec::new();
        for text in &self.dump {
            let wrong = || Failure::usage(format!("--dump {text}: K=FILE, where argument K is a buffer"));
            let (number, path) = text.split_once('=').ok_or_else(wrong)?;
            let number: usize = number.parse().map_err(|_| wrong())?;
            let buffer = buffers.get(number).copied().flatten().ok_or_else(wrong)?;
            dumps.push((buffer, path));
        }
        Ok(dumps)
    }
}

/// Address and bytes of an argument, if it is a buffer.
type Buffer = Option<(u64, usize)>;

/// A buffer and the file that it goes into.
type Dump<'a> = ((u64, usize), &'a str);

/// Writes buffers to files.
fn write_dumps(machine: &Machine, dumps: &[Dump<'_>]) -> Result<(), Failure> {
    for ((address, bytes), path) in dumps {
        let mut contents = Vec::new();
        let room = contents.try_reserve_exact(*bytes);
        room.map_err(|_| Failure::Other(format!("{path}: no memory for {bytes} bytes to write")))?;
        contents.resize(*bytes, 0);
        machine.read(*address, &mut contents).map_err(|error| Failure::Other(error.to_string()))?;
        file::write(path.as_ref(), &contents).map_err(Failure::Other)?;
    }
    Ok(())
}
