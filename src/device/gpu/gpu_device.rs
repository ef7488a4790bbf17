//! The GPU device, written once over a [`Driver`].

use std::rc::Rc;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail, ensure};

use super::branches::Place;
use super::driver::{Activity, Driver, Gpu, Memory};
use super::host::HostCall;
use super::launch::Launch;
use super::lower::Lowering;
use super::tiles::{Decision, Tiles, Times};
use crate::collective::World;
use crate::device::cpu::CpuDevice;
use crate::device::{Buffer, Device, Element, KernelTime, Limits, Operation, Plan, Program, Recording};

/// How a GPU stores activations and the convolutions' weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// bf16 on the tensor cores, sums in f32: for training.
    Bf16,
    /// f16 on the tensor cores, with loss scaling; sums in f32, but on GeForce chips whose tensor cores are twice
    /// as fast with f16 sums in f16 over short runs ([`Gpu::sums_in_f16`]).
    F16,
    /// f32 throughout, without tensor cores: for checking.
    F32,
}

/// A GPU, real or interpreted.
pub struct GpuDevice {
    pub(super) driver: Box<dyn Driver>,
    precision: Precision,
    allocations: Vec<Memory>,
    workspace: Memory,
    recordings: Vec<Prepared>,
    branches: bool,
    /// Where the copies of buffers lie, and whether they are read in their place.
    snapshot: Vec<(Buffer, Memory)>,
    shows_snapshot: bool,
    /// Where operations that other processes take part in run, if the driver has no exchanges.
    host: Option<CpuDevice>,
    /// The processes with whose GPUs the driver has exchanges.
    world: Option<World>,
    /// What convolutions are chosen by.
    pub(super) tiles: Tiles,
    /// What was chosen among, if that is kept.
    pub(super) decisions: Option<Vec<Decision>>,
}

/// A program made ready.
struct Prepared {
    launches: Vec<Launch>,
    parts: Rc<[Part]>,
    /// What holds nothing at the start of a replay.
    temporaries: Vec<Memory>,
}

/// What a replay does one after another.
enum Part {
    /// The driver's number of launches.
    Sequence(usize),
    /// An operation in main memory.
    Call(HostCall),
}

impl GpuDevice {
    /// The GPU that work is cut for.
    pub fn gpu(&self) -> &Gpu {
        self.driver.gpu()
    }

    /// A device over `driver`.
    pub fn new(driver: Box<dyn Driver>, precision: Precision) -> Self {
        let workspace = Memory { address: 0, bytes: 0 };
        let (allocations, recordings) = (Vec::new(), Vec::new());
        Self {
            driver,
            precision,
            allocations,
            workspace,
            recordings,
            branches: true,
            snapshot: Vec::new(),
            shows_snapshot: false,
            host: None,
            world: None,
            tiles: Tiles::Model,
            decisions: None,
        }
    }

    /// With operations that may run aside on a branch of their own ([`Operation::runs_aside`]), as without this
    /// call, or all in one order.
    pub fn with_branches(self, branches: bool) -> Self {
        Self { branches, ..self }
    }

    /// What the driver was asked to do so far.
    pub fn activity(&self) -> Activity {
        self.driver.activity()
    }

    fn take(&mut self, requests: &[(Element, usize)], label: &str) -> Result<Vec<Buffer>> {
        let bytes: Vec<usize> =
            requests.iter().map(|&(element, len)| (element.bytes() * len).max(1)).collect();
        let memory = self.driver.allocate(&bytes, label)?;
        let first = self.allocations.len();
        self.allocations.extend(memory);
        let buffer = |(index, &(element, len))| Buffer { allocation: first + index, offset: 0, len, element };
        Ok(requests.iter().enumerate().map(buffer).collect())
    }

    /// Where a buffer lies in device memory.
    ///
    /// # Errors
    /// For a buffer of another device.
    pub fn address(&self, buffer: Buffer) -> Result<u64> {
        let memory = self.allocations.get(buffer.allocation).context("a buffer of another device")?;
        let (offset, bytes) = (buffer.offset * buffer.element.bytes(), buffer.len * buffer.element.bytes());
        ensure!(offset + bytes <= memory.bytes, "{buffer:?} does not fit its allocation");
        Ok(memory.address + offset as u64)
    }

    fn write(&mut self, buffer: Buffer, element: Element, bytes: &[u8]) -> Result<()> {
        let address = self.room(buffer, element, bytes.len())?;
        self.driver.write(address, bytes)
    }

    fn read(&mut self, buffer: Buffer, bytes: &mut [u8]) -> Result<()> {
        if self.shows_snapshot {
            let copy = self.snapshot.iter().find(|(of, _)| *of == buffer);
            let (_, copy) = copy.with_context(|| format!("{buffer:?} is not in the snapshot"))?;
            return self.driver.read_aside(copy.address, bytes);
        }
        let address = self.address(buffer)?;
        self.driver.read(address, bytes)
    }

    /// Where a buffer lies that holds so many bytes of `element`s.
    fn room(&self, buffer: Buffer, element: Element, bytes: usize) -> Result<u64> {
        ensure!(buffer.element == element, "{element:?} values for a buffer of {:?}", buffer.element);
        let expected = buffer.len * element.bytes();
        ensure!(bytes == expected, "{bytes} bytes for a buffer of {expected}");
        self.address(buffer)
    }

    /// The launches of `operations`, with workspace for them, and their places.
    fn lower(
        &mut self,
        operations: &[&dyn Operation],
        buffers: &[Buffer],
        uses: Vec<Option<usize>>,
    ) -> Result<(Vec<Launch>, Vec<Place>)> {
        let address = |&buffer| if buffer == Buffer::NOWHERE { Ok(0) } else { self.address(buffer) };
        let addresses: Vec<u64> = buffers.iter().map(address).collect::<Result<_>>()?;
        let lowering = Lowering::new(self.driver.gpu(), buffers, &addresses);
        let share = self.world.as_ref().map(World::share);
        let mut lowering = lowering
            .with_uses(uses)
            .with_branches(self.branches)
            .with_share(share)
            .with_times(self.tiles.times())
            .keeping_decisions(self.decisions.is_some());
        lowering.lower(operations)?;
        let (places, decisions) = (lowering.places().to_vec(), lowering.take_decisions());
        let (mut launches, workspace) = lowering.finish();
        self.decisions.iter_mut().for_each(|kept| kept.extend_from_slice(&decisions));
        let start = self.workspace_of(workspace)?;
        launches.iter_mut().for_each(|launch| launch.place_workspace(start));
        Ok((launches, places))
    }

    /// The address of a workspace of at least so many bytes.
    pub(super) fn workspace_of(&mut self, bytes: usize) -> Result<u64> {
        if bytes > self.workspace.bytes {
            // Sequences recorded before keep the smaller workspace they were lowered for: it is never freed.
            self.workspace = self.driver.allocate(&[bytes], "the kernels' workspace")?[0];
        }
        Ok(self.workspace.address)
    }

    /// What computes and how, but for what tiles are chosen by.
    fn computes(&self) -> String {
        let precision = match self.precision {
            Precision::Bf16 => "bf16 with f32 sums",
            Precision::F16 if self.driver.gpu().sums_in_f16() => "f16 with sums in f16 over 32 products",
            Precision::F16 => "f16 with f32 sums",
            Precision::F32 => "f32",
        };
        let branches = if self.branches { "" } else { ", without branches" };
        format!("{}: {}, {precision}{branches}", self.driver.name(), self.driver.gpu().name)
    }
}

impl Device for GpuDevice {
    fn name(&self) -> &'static str {
        self.driver.name()
    }

    fn describe(&self) -> String {
        // Where nothing is ever measured, nothing is to be said.
        match self.driver.measured_on() {
            None if self.tiles == Tiles::Model => self.computes(),
            _ => format!("{}, tiles {}", self.computes(), self.tiles.describe()),
        }
    }

    fn tiles(&self) -> Option<&Tiles> {
        Some(&self.tiles)
    }

    fn choose_tiles_by(&mut self, tiles: Tiles) {
        self.tiles = tiles;
    }

    fn is_measured_by(&self, times: &Times) -> bool {
        self.driver.measured_on().is_some_and(|on| on.is_on_same_gpu(&times.on))
    }

    fn join(&mut self, world: World) -> Result<()> {
        if world.is_alone() {
            return Ok(());
        }
        if self.driver.name() == "sim" {
            return self.host.insert(CpuDevice::new(1)?).join(world);
        }
        self.join_gpus(world)
    }

    fn world(&self) -> World {
        let here = || self.world.clone().unwrap_or_default();
        self.host.as_ref().map_or_else(here, CpuDevice::world)
    }

    fn arithmetic(&self) -> String {
        self.computes()
    }

    fn activations(&self) -> Element {
        match self.precision {
            Precision::Bf16 => Element::Bf16,
            Precision::F16 => Element::F16,
            Precision::F32 => Element::F32,
        }
    }

    fn has_branches(&self) -> bool {
        self.branches
    }

    fn channel_multiple(&self) -> usize {
        // Sixteen bytes, what a thread loads at once.
        16 / self.activations().bytes()
    }

    fn allocate(&mut self, element: Element, len: usize, label: &str) -> Result<Buffer> {
        let buffer = self.take(&[(element, len)], label)?[0];
        self.driver.clear(self.allocations[buffer.allocation])?;
        Ok(buffer)
    }

    fn allocate_all(&mut self, requests: &[(Element, usize)], label: &str) -> Result<Vec<Buffer>> {
        self.take(requests, label)
    }

    fn write_f32(&mut self, buffer: Buffer, values: &[f32]) -> Result<()> {
        match buffer.element {
            Element::Bf16 => {
                let rounded: Vec<u16> =
                    values.iter().map(|&value| half::bf16::from_f32(value).to_bits()).collect();
                self.write(buffer, Element::Bf16, bytemuck::cast_slice(&rounded))
            }
            Element::F16 => {
                let rounded: Vec<u16> =
                    values.iter().map(|&value| half::f16::from_f32(value).to_bits()).collect();
                self.write(buffer, Element::F16, bytemuck::cast_slice(&rounded))
            }
            _ => self.write(buffer, Element::F32, bytemuck::cast_slice(values)),
        }
    }

    fn write_i32(&mut self, buffer: Buffer, values: &[i32]) -> Result<()> {
        self.write(buffer, Element::I32, bytemuck::cast_slice(values))
    }

    fn write_u8(&mut self, buffer: Buffer, values: &[u8]) -> Result<()> {
        self.write(buffer, Element::U8, values)
    }

    fn write_aside(&mut self, buffer: Buffer, values: &[u8]) -> Result<()> {
        let address = self.room(buffer, Element::U8, values.len())?;
        self.driver.write_aside(address, values)
    }

    fn copy_u8(&mut self, from: Buffer, to: Buffer) -> Result<()> {
        let places = [from, to].map(|buffer| self.room(buffer, Element::U8, from.len));
        let [from_address, to_address] = places;
        self.driver.copy(from_address?, to_address?, from.len)
    }

    fn read_f32(&mut self, buffer: Buffer) -> Result<Vec<f32>> {
        match buffer.element {
            Element::F32 => {
                let mut values = vec![0f32; buffer.len];
                self.read(buffer, bytemuck::cast_slice_mut(&mut values))?;
                Ok(values)
            }
            Element::Bf16 => {
                let mut bits = vec![0u16; buffer.len];
                self.read(buffer, bytemuck::cast_slice_mut(&mut bits))?;
                Ok(bits.into_iter().map(|bits| half::bf16::from_bits(bits).to_f32()).collect())
            }
            Element::F16 => {
                let mut bits = vec![0u16; buffer.len];
                self.read(buffer, bytemuck::cast_slice_mut(&mut bits))?;
                Ok(bits.into_iter().map(|bits| half::f16::from_bits(bits).to_f32()).collect())
            }
            other => bail!("reading {other:?} as f32"),
        }
    }

    fn read_i32(&mut self, buffer: Buffer) -> Result<Vec<i32>> {
        ensure!(buffer.element == Element::I32, "reading {:?} as i32", buffer.element);
        let mut values = vec![0i32; buffer.len];
        self.read(buffer, bytemuck::cast_slice_mut(&mut values))?;
        Ok(values)
    }

    fn take_snapshot(&mut self, buffers: &[Buffer]) -> Result<bool> {
        if !self.driver.works_aside() {
            return Ok(false);
        }
        for &buffer in buffers {
            let (from, bytes) = (self.address(buffer)?, buffer.len * buffer.element.bytes());
            let to = match self.snapshot.iter().find(|(of, _)| *of == buffer) {
                Some((_, copy)) => *copy,
                None => {
                    let copy = self.driver.allocate(&[bytes.max(1)], "a copy of the run's state")?[0];
                    self.snapshot.push((buffer, copy));
                    copy
                }
            };
            if bytes > 0 {
                self.driver.copy(from, to.address, bytes)?;
            }
        }
        // Reads beside later work need not wait for the copies any more.
        self.driver.synchronise()?;
        Ok(true)
    }

    fn show_snapshot(&mut self, shown: bool) {
        self.shows_snapshot = shown;
    }

    fn execute(&mut self, operation: &dyn Operation, buffers: &[Buffer]) -> Result<()> {
        let (launches, _) = self.lower(&[operation], buffers, Vec::new())?;
        for launch in &launches {
            self.driver.launch(launch).with_context(|| format!("in the operation '{}'", operation.name()))?;
        }
        Ok(())
    }

    fn limits(&mut self) -> Option<Limits> {
        self.driver.limits(self.precision)
    }

    fn synchronise(&mut self) -> Result<()> {
        self.driver.synchronise()
    }

    fn record(&mut self, program: &Program) -> Result<Recording> {
        let (mut launches, mut parts) = (Vec::new(), Vec::new());
        let has_host = self.host.is_some();
        let in_main_memory = |operation: &Arc<dyn Operation>| has_host && operation.is_exchange();
        for run in program.operations.chunk_by(|a, b| !in_main_memory(a) && !in_main_memory(b)) {
            if let ([call], Some(host)) = (run, &mut self.host)
                && in_main_memory(call)
            {
                let call = HostCall::new(call.clone(), &program.buffers, host)?;
                parts.push(Part::Call(call));
                continue;
            }
            let operations: Vec<&dyn Operation> = run.iter().map(|operation| &**operation).collect();
            let (lowered, places) = self.lower(&operations, &program.buffers, program.uses())?;
            parts.push(Part::Sequence(self.driver.record(&lowered, &places)?));
            launches.extend(lowered);
        }
        let allocations = &program.temporaries.allocations;
        let mut temporaries: Vec<Memory> = allocations.iter().map(|&i| self.allocations[i]).collect();
        temporaries.push(self.workspace);
        temporaries.retain(|memory| memory.bytes > 0);
        self.recordings.push(Prepared { launches, parts: parts.into(), temporaries });
        Ok(Recording(self.recordings.len() - 1))
    }

    fn kernel_times(&mut self, plan: &Plan) -> Result<Vec<KernelTime>> {
        let recording = self.recordings.get(plan.recording().0).context("a plan of another device")?;
        let seconds = self.driver.time(&recording.launches)?;
        let mut time = |(launch, seconds): (&Launch, f64)| -> Result<KernelTime> {
            let resident_blocks = self.driver.residency(launch)?;
            let (file, kernel) = (launch.kernel.source.name, launch.kernel.name);
            Ok(KernelTime { file, kernel, seconds, resident_blocks })
        };
        recording.launches.iter().zip(seconds).map(&mut time).collect()
    }

    fn replay_seconds(&mut self, plan: &Plan, count: usize) -> Result<f64> {
        self.driver.start_clock()?;
        (0..count).try_for_each(|_| self.replay(plan))?;
        Ok(self.driver.stop_clock()? / count as f64)
    }

    fn replay(&mut self, plan: &Plan) -> Result<()> {
        let Prepared { temporaries, parts, .. } =
            self.recordings.get(plan.recording().0).context("a plan of another device")?;
        for &memory in temporaries {
            self.driver.forget(memory)?;
        }
        for part in parts.clone().iter() {
            match part {
                Part::Sequence(sequence) => self.driver.replay(*sequence)?,
                Part::Call(call) => self.call(call)?,
            }
        }
        Ok(())
    }
}

impl GpuDevice {
    /// Takes the GPUs of other processes, even if there is no other: for tests of the exchanges on one GPU.
    ///
    /// # Errors
    /// A usage error if the driver cannot.
    pub fn join_gpus(&mut self, world: World) -> Result<()> {
        self.driver.join(&world)?;
        self.world = Some(world);
        Ok(())
    }

    /// Runs an operation in main memory.
    fn call(&mut self, call: &HostCall) -> Result<()> {
        let mut host = self.host.take().context("a call of other processes, without these")?;
        let result = call.run(self, &mut host);
        self.host = Some(host);
        result
    }
}
