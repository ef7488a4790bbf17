//! Rates of GPUs and calibration factors, each with its source: `gpus.toml` for those built in, or a file of
//! the user's own.

use std::path::Path;
use std::sync::LazyLock;

use anyhow::Result;
use toml::{Table, Value};

use crate::device::gpu::driver::Gpu as DriverGpu;
use crate::files::read_whole;
use crate::usage;

/// What a prediction takes of a GPU. Rates are what is reached, not what a data sheet promises.
#[derive(Clone, Debug, PartialEq)]
pub struct Gpu {
    /// As people call it.
    pub name: String,
    /// Compute capability times ten.
    pub architecture: u32,
    /// Streaming multiprocessors.
    pub multiprocessors: usize,
    /// Cycles a second under load.
    pub clock: f64,
    /// Threads and blocks that a multiprocessor holds.
    pub threads: usize,
    /// See `threads`.
    pub blocks: usize,
    /// Bytes of L1 cache and shared memory of a multiprocessor together.
    pub l1_bytes: usize,
    /// Bytes of them that may be set aside as shared memory, rising.
    pub shared_bytes: Vec<usize>,
    /// Largest shared memory of a block, bytes.
    pub block_shared_bytes: usize,
    /// Cycles that a product of 16 x 8 x 16 keeps a sub-core's tensor core busy, with f32 sums.
    pub hmma_cycles: f64,
    /// The same of f16 with f16 sums.
    pub hmma_f16_cycles: f64,
    /// Lanes of f32 arithmetic of a multiprocessor.
    pub f32_lanes: f64,
    /// Bytes a second from and to DRAM.
    pub dram: f64,
    /// Bytes a second from and to L2.
    pub l2: f64,
    /// Bytes of L2.
    pub l2_bytes: f64,
    /// Share of the issue slots that kernels without a pipelined loop of products reach.
    pub issue_efficiency: f64,
    /// Cycles of a load from global memory.
    pub load_latency: f64,
    /// Cycles of a step of a main loop that nothing of the same warp hides.
    pub step_latency: f64,
    /// Cycles that filling the pipeline of a block takes.
    pub block_latency: f64,
    /// Seconds from a kernel to the next.
    pub gap: f64,
    /// Seconds that a kernel takes to start and to drain.
    pub ramp: f64,
    /// Seconds of a barrier over all blocks.
    pub grid_barrier: f64,
    /// Of kernels on the tensor cores.
    pub product: Calibration,
    /// Of all others.
    pub other: Calibration,
}

/// A predicted time over what is expected, and over what it may be at worst.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Calibration {
    /// 1 where the model is right.
    pub expected: f64,
    /// At most that.
    pub pessimistic: f64,
}

const BUILT_IN: &str = include_str!("gpus.toml");

/// The words of the GPUs that are built in.
pub fn names() -> Vec<String> {
    table(BUILT_IN, "gpus.toml").map_or(Vec::new(), |all| all.keys().cloned().collect())
}

impl Gpu {
    /// The GPU that `--gpu` names: a word, or a file that ends in .toml.
    ///
    /// # Errors
    /// A usage error of one line with the key and what it may be.
    pub fn find(word: &str) -> Result<Self> {
        if word.ends_with(".toml") {
            let path = Path::new(word);
            let bytes = read_whole(path, 1 << 20)?;
            let text = String::from_utf8(bytes).map_err(|_| usage!("{word}: is no UTF-8 text"))?;
            return Self::read(&table(&text, word)?, word);
        }
        let all = table(BUILT_IN, "gpus.toml")?;
        match all.get(word) {
            Some(Value::Table(one)) => Self::read(one, word),
            _ => Err(usage!(
                "--gpu {}: must be one of {}, or a file FILE.toml with the keys of one in src/device/gpu/model/gpus.toml",
                crate::settings::quoted_where_odd(word),
                names().join(", ")
            )),
        }
    }

    fn read(table: &Table, place: &str) -> Result<Self> {
        let mut keys = Keys::new(table, place);
        let gpu = Self {
            name: keys.text("name")?,
            architecture: keys.number("compute-capability", 80.0, 200.0)? as u32,
            multiprocessors: keys.number("multiprocessors", 1.0, 1000.0)? as usize,
            clock: 1e9 * keys.number("clock-ghz", 0.1, 10.0)?,
            threads: keys.number("threads", 512.0, 8192.0)? as usize,
            blocks: keys.number("blocks", 1.0, 128.0)? as usize,
            l1_bytes: keys.number("l1-kb", 16.0, 4096.0)? as usize * 1024,
            shared_bytes: keys
                .numbers("shared-kb", 1.0, 4096.0)?
                .iter()
                .map(|&kb| kb as usize * 1024)
                .collect(),
            block_shared_bytes: keys.number("block-shared-kb", 48.0, 4096.0)? as usize * 1024,
            hmma_cycles: keys.number("hmma-cycles", 0.1, 1000.0)?,
            hmma_f16_cycles: keys.number("hmma-f16-cycles", 0.1, 1000.0)?,
            f32_lanes: keys.number("f32-lanes", 1.0, 4096.0)?,
            dram: 1e9 * keys.number("dram-gb-s", 1.0, 1e5)?,
            l2: 1e9 * keys.number("l2-gb-s", 1.0, 1e6)?,
            l2_bytes: 1e6 * keys.number("l2-mb", 0.1, 1e4)?,
            issue_efficiency: keys.number("issue-efficiency", 0.01, 1.0)?,
            load_latency: keys.number("load-latency-cycles", 1.0, 1e5)?,
            step_latency: keys.number("step-latency-cycles", 0.0, 1e5)?,
            block_latency: keys.number("block-latency-cycles", 0.0, 1e6)?,
            gap: 1e-6 * keys.number("gap-us", 0.0, 1e4)?,
            ramp: 1e-6 * keys.number("ramp-us", 0.0, 1e4)?,
            grid_barrier: 1e-6 * keys.number("grid-barrier-us", 0.0, 1e4)?,
            product: keys.calibration("product")?,
            other: keys.calibration("other")?,
        };
        keys.refuse_others()?;
        gpu.check(place)
    }

    /// Refuses what contradicts itself.
    fn check(self, place: &str) -> Result<Self> {
        let most = self.shared_bytes.iter().copied().max().unwrap_or(0);
        if !self.shared_bytes.is_sorted() || most > self.l1_bytes || self.block_shared_bytes > most {
            return Err(usage!(
                "{place}: shared-kb must rise, up to at least block-shared-kb and at most l1-kb"
            ));
        }
        Ok(self)
    }

    /// As a driver describes it.
    pub fn description(&self) -> DriverGpu {
        DriverGpu {
            name: self.name.clone(),
            architecture: self.architecture,
            multiprocessors: self.multiprocessors,
            shared_bytes: self.block_shared_bytes,
            choice: Default::default(),
        }
    }

    /// What is known of a GPU that a driver describes: of those built in, the one of the nearest compute capability,
    /// the same generation first, of these one that it is named after, and of these of the nearest number of
    /// multiprocessors, with as many as there are.
    pub fn nearest(described: &DriverGpu) -> Self {
        let letters = described.name.chars().filter(char::is_ascii_alphanumeric);
        let name: String = letters.map(|letter| letter.to_ascii_lowercase()).collect();
        let distance = |(word, gpu): &(&str, &Self)| {
            let [ours, theirs] = [gpu.architecture, described.architecture];
            let generations = (ours / 10).abs_diff(theirs / 10);
            let multiprocessors = gpu.multiprocessors.abs_diff(described.multiprocessors);
            (generations, ours.abs_diff(theirs), !name.contains(word), multiprocessors)
        };
        let DriverGpu { name, architecture, multiprocessors, shared_bytes, choice } = described.clone();
        if let Some((_, rates)) = ALL.iter().find(|(word, _)| Some(word.as_str()) == choice.rates) {
            return Self { multiprocessors, block_shared_bytes: shared_bytes, ..rates.clone() };
        }
        let all = ALL.iter().map(|(word, gpu)| (word.as_str(), gpu));
        let (_, nearest) = all.min_by_key(distance).expect("GPUs are built in");
        let nearest = nearest.clone();
        Self { name, architecture, multiprocessors, block_shared_bytes: shared_bytes, ..nearest }
    }
}

/// The GPUs that are built in, with their words.
static ALL: LazyLock<Vec<(String, Gpu)>> = LazyLock::new(|| {
    let find = |word: String| {
        let gpu = Gpu::find(&word).expect("gpus.toml is as its tests left it");
        (word, gpu)
    };
    names().into_iter().map(find).collect()
});

/// The TOML of `text`.
pub(crate) fn table(text: &str, place: &str) -> Result<Table> {
    text.parse::<Table>().map_err(|error| {
        let line = error.span().map_or(1, |span| text[..span.start].lines().count().max(1));
        usage!("{place}:{line}: {}", error.message().lines().next().unwrap_or("is no TOML"))
    })
}

/// The keys of a table, each read once.
pub(crate) struct Keys<'a> {
    table: &'a Table,
    /// The file or the word that the table is of.
    place: &'a str,
    read: Vec<String>,
}

impl<'a> Keys<'a> {
    /// Those of a table, of which none is read yet; `place` is the file or the word that it is of.
    pub(crate) fn new(table: &'a Table, place: &'a str) -> Self {
        Self { table, place, read: Vec::new() }
    }

    /// A key's value, without its source.
    fn value(&mut self, key: &str) -> Result<&'a Value> {
        self.read.push(key.into());
        let found = match key.split_once('.') {
            None => self.table.get(key),
            Some((outer, inner)) => {
                self.table.get(outer).and_then(Value::as_table).and_then(|of| of.get(inner))
            }
        };
        match found {
            None => Err(usage!(
                "{}: {key} is missing; copy it from a GPU in src/device/gpu/model/gpus.toml",
                self.place
            )),
            Some(Value::Table(sourced)) => {
                if let Some(other) = sourced.keys().find(|key| !matches!(key.as_str(), "value" | "source")) {
                    return Err(usage!("{}: {key} has a value and a source, no {other}", self.place));
                }
                sourced.get("value").ok_or_else(|| usage!("{}: {key} has no value", self.place))
            }
            Some(value) => Ok(value),
        }
    }

    /// Where a key's value is from; empty where that is not said.
    pub(crate) fn source(&self, key: &str) -> String {
        let sourced = self.table.get(key).and_then(|value| value.get("source"));
        sourced.and_then(Value::as_str).unwrap_or_default().into()
    }

    fn text(&mut self, key: &str) -> Result<String> {
        match self.value(key)?.as_str().map(str::trim).filter(|text| (1..=100).contains(&text.len())) {
            Some(text) => Ok(text.into()),
            None => Err(usage!("{}: {key} must be a text of 1 to 100 bytes", self.place)),
        }
    }

    fn in_range(&self, key: &str, value: &Value, [least, most]: [f64; 2]) -> Result<f64> {
        let number = value.as_float().or_else(|| value.as_integer().map(|number| number as f64));
        number
            .filter(|number| (least..=most).contains(number))
            .ok_or_else(|| usage!("{}: {key} = {value}: must be a number from {least} to {most}", self.place))
    }

    pub(crate) fn number(&mut self, key: &str, least: f64, most: f64) -> Result<f64> {
        let value = self.value(key)?;
        self.in_range(key, value, [least, most])
    }

    fn numbers(&mut self, key: &str, least: f64, most: f64) -> Result<Vec<f64>> {
        match self.value(key)?.as_array().filter(|all| !all.is_empty()) {
            Some(all) => all.iter().map(|value| self.in_range(key, value, [least, most])).collect(),
            None => Err(usage!("{}: {key} must be a list of numbers from {least} to {most}", self.place)),
        }
    }

    fn calibration(&mut self, class: &str) -> Result<Calibration> {
        let expected = self.number(&format!("calibration.{class}-expected"), 0.01, 10.0)?;
        let pessimistic = self.number(&format!("calibration.{class}-pessimistic"), 0.01, 10.0)?;
        if pessimistic > expected {
            return Err(usage!(
                "{}: calibration.{class}-pessimistic {pessimistic}: must be at most {class}-expected, {expected}",
                self.place
            ));
        }
        Ok(Calibration { expected, pessimistic })
    }

    /// Refuses keys that nothing has read: a slip of the pen would go unseen.
    fn refuse_others(&self) -> Result<()> {
        let outer = self.table.keys().filter(|key| *key != "calibration").cloned();
        let inner = self.table.get("calibration").and_then(Value::as_table).into_iter().flat_map(Table::keys);
        let mut all = outer.chain(inner.map(|key| format!("calibration.{key}")));
        match all.find(|key| !self.read.contains(key)) {
            None => Ok(()),
            Some(key) => {
                Err(usage!("{}: {key} is no key of a GPU; see src/device/gpu/model/gpus.toml", self.place))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every GPU built in is its own nearest; another gets the rates of its generation and keeps its size.
    #[test]
    fn an_unknown_gpu_has_the_rates_of_the_nearest() {
        for (_, gpu) in ALL.iter() {
            assert_eq!(Gpu::nearest(&gpu.description()), *gpu);
        }
        let rate = |word: &str| Gpu::find(word).unwrap().hmma_cycles;
        for (architecture, word) in
            [(80, "a100"), (86, "rtx3090"), (89, "rtx3090"), (90, "h100"), (120, "h100")]
        {
            let name = "another".to_string();
            let described = DriverGpu {
                name,
                architecture,
                multiprocessors: 7,
                shared_bytes: 99 << 10,
                choice: Default::default(),
            };
            let Gpu { hmma_cycles, multiprocessors, .. } = Gpu::nearest(&described);
            assert_eq!((hmma_cycles, multiprocessors), (rate(word), 7), "{architecture}");
        }
        // Two of one chip, which drivers tell apart by name alone.
        let of_name = |name: &str| {
            let described = DriverGpu { name: name.into(), ..Gpu::find("h100").unwrap().description() };
            Gpu::nearest(&described).dram
        };
        let rates = ["h100", "h200", "h100"].map(|word| Gpu::find(word).unwrap().dram);
        assert_eq!(["NVIDIA H100 PCIe", "NVIDIA H200", "another"].map(of_name), rates);
    }
}
