//! The interpreter as a driver: the PTX that NVRTC makes of the kernels runs on the CPU, checked and counted.
//!
//! Every finding (a race, an access out of bounds, memory read before it was written...) is an error of the
//! launch it was found in. Temporaries are forgotten before each replay, so a step that reads what the last
//! one left is found too.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::rc::Rc;
use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};
use ptx_sim::{Counters, GraphLaunch, Machine, Program, Report, Settings};

use super::Precision;
use super::branches::{self, Place, Stretch};
use super::cache::KernelCache;
use super::driver::{Activity, Choice, Driver, Gpu, Memory};
use super::launch::{Kernel, Launch};
use super::nvrtc::Target;
use super::sources::Source;
use crate::device::Limits;

/// The architecture whose PTX is run.
const ARCHITECTURE: u32 = 80;

/// The GPU that stands for all where work is cut by its size and times are predicted.
pub const MODELLED: &str = "rtx3090";

/// Shared memory that a block of it may have, static and dynamic together.
const SHARED_BYTES: u32 = 99 << 10;

/// What the launches of each kernel cost together, filled while the driver runs.
#[derive(Clone, Default)]
pub struct Costs(Rc<RefCell<BTreeMap<Kernel, Counters>>>);

impl Costs {
    /// Takes out what was counted so far.
    pub fn take(&self) -> BTreeMap<Kernel, Counters> {
        self.0.take()
    }
}

/// Every launch with what it cost, in order, filled while the driver runs and somebody looks.
#[derive(Clone, Default)]
pub struct Log(Rc<RefCell<Vec<(Launch, Counters)>>>);

impl Log {
    /// Takes out what was launched since the last call.
    pub fn take(&self) -> Vec<(Launch, Counters)> {
        self.0.take()
    }
}

/// A recorded sequence.
#[derive(Default)]
struct Sequence {
    launches: Vec<Launch>,
    places: Vec<Place>,
    /// Its parts: where launches are ordered, and where not all are.
    stretches: Vec<Stretch>,
}

/// The interpreter behind the driver interface; it stands in for an RTX 3090 where work is cut by the GPU's
/// size.
pub struct SimDriver {
    gpu: Gpu,
    machine: Machine,
    warp_seed: u64,
    cache: KernelCache,
    programs: HashMap<&'static Source, Program>,
    sequences: Vec<Sequence>,
    costs: Costs,
    log: Option<Log>,
    activity: Activity,
    clock: Instant,
}

fn machine(warp_seed: u64, most_shared: u32) -> Machine {
    Machine::new(Settings { warp_seed, most_shared, ..Settings::default() })
}

impl SimDriver {
    /// An interpreter that switches between warps as `warp_seed` says.
    ///
    /// # Errors
    /// A usage error that says what to install when there is no NVRTC.
    pub fn open(warp_seed: u64) -> Result<Self> {
        let gpu = Gpu {
            name: "PTX interpreter, checked, as an RTX 3090".into(),
            architecture: ARCHITECTURE,
            multiprocessors: 82,
            shared_bytes: SHARED_BYTES as usize,
            choice: Choice { rates: Some(MODELLED), tiles: &[] },
        };
        Ok(Self {
            gpu,
            machine: machine(warp_seed, SHARED_BYTES),
            warp_seed,
            cache: KernelCache::open()?,
            programs: HashMap::new(),
            sequences: Vec::new(),
            costs: Costs::default(),
            log: None,
            activity: Activity::default(),
            clock: Instant::now(),
        })
    }

    /// The same, standing for a GPU of so many multiprocessors: work is cut otherwise.
    #[must_use]
    pub fn with_multiprocessors(mut self, multiprocessors: usize) -> Self {
        self.gpu.multiprocessors = multiprocessors;
        self
    }

    /// The same, standing for a GPU of compute capability `architecture` / 10: kernels are chosen as for it.
    /// What is run is the PTX of the oldest that the kernels support.
    #[must_use]
    pub fn with_architecture(mut self, architecture: u32) -> Self {
        self.gpu.architecture = architecture;
        self
    }

    /// The same, whose convolutions take these tiles where they can ([`Choice::tiles`]).
    #[must_use]
    pub fn with_tiles(mut self, tiles: &'static [&'static str]) -> Self {
        self.gpu.choice.tiles = tiles;
        self
    }

    /// The same, of whose shared memory a block may have so many bytes, static and dynamic together. Before
    /// anything is allocated.
    #[must_use]
    pub fn with_shared_bytes(mut self, bytes: u32) -> Self {
        self.gpu.shared_bytes = bytes as usize;
        self.machine = machine(self.warp_seed, bytes);
        self
    }

    /// A handle on what the launches cost.
    pub fn costs(&self) -> Costs {
        self.costs.clone()
    }

    /// A handle on a log of all launches from now on.
    pub fn log(&mut self) -> Log {
        self.log.get_or_insert_default().clone()
    }

    /// Has the launch's kernel ready, and checks its arguments against the kernel's parameters.
    fn load(&mut self, launch: &Launch) -> Result<()> {
        let Kernel { source, name } = launch.kernel;
        if !self.programs.contains_key(source) {
            let file = source.name;
            let ptx = self.cache.compiled(source, Target::Ptx(ARCHITECTURE))?;
            let origin = ptx.origin();
            let text = String::from_utf8(ptx.code).with_context(|| format!("{file}: PTX is text{origin}"))?;
            let program = Program::parse(&text).with_context(|| format!("the PTX of {file}{origin}"))?;
            self.programs.insert(source, program);
        }
        let program = &self.programs[source];
        if let Some(kernel) = program.describe(name) {
            // The interpreter takes the packed block; a GPU's driver one pointer a parameter.
            let offsets: Vec<usize> = kernel.parameters.iter().map(|given| given.offset as usize).collect();
            ensure!(
                offsets == launch.arguments.offsets(),
                "kernel {name}: parameters at {offsets:?}, arguments at {:?}",
                launch.arguments.offsets()
            );
        }
        Ok(())
    }

    fn run(&mut self, launch: &Launch) -> Result<Counters> {
        self.load(launch)?;
        let Kernel { source, name } = launch.kernel;
        let report = self
            .machine
            .launch(&self.programs[source], name, &request(launch))
            .with_context(|| format!("kernel {name}"))?;
        self.check(launch, &report)?;
        Ok(report.counters)
    }

    /// Runs launches of which not all are ordered: what two of these do to the same memory is a race.
    fn run_unordered(&mut self, sequence: &Sequence, stretch: Range<usize>) -> Result<()> {
        let launches = &sequence.launches[stretch.clone()];
        launches.iter().try_for_each(|launch| self.load(launch))?;
        let after = branches::predecessors(&sequence.places, stretch);
        let graph: Vec<GraphLaunch<'_>> = launches
            .iter()
            .zip(&after)
            .map(|(launch, after)| {
                let Kernel { source, name } = launch.kernel;
                GraphLaunch { program: &self.programs[source], kernel: name, launch: request(launch), after }
            })
            .collect();
        let reports = self.machine.launch_graph(&graph).context("launches on branches")?;
        launches.iter().zip(&reports).try_for_each(|(launch, report)| self.check(launch, report))
    }

    /// What was found in a launch is an error; what it cost is kept.
    fn check(&self, launch: &Launch, report: &Report) -> Result<()> {
        if let Some(first) = report.findings.first() {
            let name = launch.kernel.name;
            bail!("kernel {name}: {first} ({} findings in this launch)", report.findings_total);
        }
        *self.costs.0.borrow_mut().entry(launch.kernel).or_default() += &report.counters;
        if let Some(log) = &self.log {
            log.0.borrow_mut().push((launch.clone(), report.counters.clone()));
        }
        Ok(())
    }
}

/// A launch as the interpreter takes it.
fn request(launch: &Launch) -> ptx_sim::Launch<'_> {
    let Launch { grid, block, shared_bytes, cooperative, .. } = *launch;
    ptx_sim::Launch { grid, block, shared_bytes, cooperative, arguments: launch.arguments.bytes() }
}

impl Driver for SimDriver {
    fn name(&self) -> &'static str {
        "sim"
    }

    fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    fn allocate(&mut self, bytes: &[usize], label: &str) -> Result<Vec<Memory>> {
        self.activity.allocations += 1;
        // The interpreter keeps at least a second byte about each.
        let all = bytes.iter().fold(0u64, |all, &bytes| all.saturating_add(bytes as u64)).saturating_mul(2);
        crate::memory::ensure_room(all, label, "take a smaller --batch-size, --width or --image-size")?;
        // Apart from each other, so that running over the end of one is seen.
        let mut one = |&bytes: &usize| -> Result<Memory> {
            Ok(Memory { address: self.machine.try_allocate(bytes, label)?, bytes })
        };
        bytes.iter().map(&mut one).collect()
    }

    fn write(&mut self, address: u64, bytes: &[u8]) -> Result<()> {
        self.activity.copies_to_device += 1;
        Ok(self.machine.write(address, bytes)?)
    }

    fn works_aside(&self) -> bool {
        false
    }

    fn write_aside(&mut self, address: u64, bytes: &[u8]) -> Result<()> {
        self.activity.copies_aside += 1;
        Ok(self.machine.write(address, bytes)?)
    }

    fn read_aside(&mut self, address: u64, bytes: &mut [u8]) -> Result<()> {
        self.read(address, bytes)
    }

    fn copy(&mut self, from: u64, to: u64, bytes: usize) -> Result<()> {
        self.activity.copies_within += 1;
        Ok(self.machine.copy(from, to, bytes)?)
    }

    fn read(&mut self, address: u64, bytes: &mut [u8]) -> Result<()> {
        self.activity.copies_from_device += 1;
        self.activity.synchronisations += 1;
        let missing = self.machine.uninitialised(address, bytes.len());
        if missing > 0 {
            bail!("{missing} of {} bytes read back were never written", bytes.len());
        }
        Ok(self.machine.read(address, bytes)?)
    }

    fn clear(&mut self, memory: Memory) -> Result<()> {
        Ok(self.machine.fill(memory.address, memory.bytes, 0)?)
    }

    fn forget(&mut self, memory: Memory) -> Result<()> {
        Ok(self.machine.forget(memory.address, memory.bytes)?)
    }

    fn launch(&mut self, launch: &Launch) -> Result<()> {
        self.activity.launches += 1;
        self.run(launch).map(|_| ())
    }

    fn record(&mut self, launches: &[Launch], places: &[Place]) -> Result<usize> {
        let stretches = branches::stretches(places);
        let (launches, places) = (launches.to_vec(), places.to_vec());
        self.sequences.push(Sequence { launches, places, stretches });
        Ok(self.sequences.len() - 1)
    }

    fn replay(&mut self, sequence: usize) -> Result<()> {
        self.activity.sequence_launches += 1;
        let recorded = std::mem::take(&mut self.sequences[sequence]);
        let result = recorded.stretches.iter().try_for_each(|stretch| match stretch.clone() {
            Stretch::Ordered(stretch) => {
                recorded.launches[stretch].iter().try_for_each(|launch| self.run(launch).map(|_| ()))
            }
            Stretch::Unordered(stretch) => self.run_unordered(&recorded, stretch),
        });
        self.sequences[sequence] = recorded;
        result
    }

    fn synchronise(&mut self) -> Result<()> {
        self.activity.synchronisations += 1;
        Ok(())
    }

    fn time(&mut self, launches: &[Launch]) -> Result<Vec<f64>> {
        let gpu = ptx_sim::Gpu::built_in(MODELLED).context("the interpreter knows this GPU")?;
        launches.iter().map(|launch| Ok(gpu.predict(&self.run(launch)?).seconds)).collect()
    }

    fn start_clock(&mut self) -> Result<()> {
        self.clock = Instant::now();
        Ok(())
    }

    fn stop_clock(&mut self) -> Result<f64> {
        Ok(self.clock.elapsed().as_secs_f64())
    }

    fn limits(&self, precision: Precision) -> Option<Limits> {
        let gpu = ptx_sim::Gpu::built_in(MODELLED)?;
        let flops = match precision {
            Precision::Bf16 | Precision::F16 => gpu.tensor_flops,
            Precision::F32 => gpu.f32_flops,
        };
        Some(Limits { flops, bytes: gpu.dram_bytes, source: "data sheet of an RTX 3090" })
    }

    fn activity(&self) -> Activity {
        self.activity
    }
}
