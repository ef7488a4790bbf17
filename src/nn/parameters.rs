//! Parameters and batchnorm statistics: flat arenas on a device in state_dict order, exported and imported
//! under the reference's names.
//!
//! On the device, convolution weights are `[Cout, kh, kw, Cin]`, the order in which an NHWC convolution reads
//! them; in files they are PyTorch's `[Cout, Cin, kh, kw]`. The weight and bias of a batchnorm are
//! neighbours, and so are those of the classifier.

use std::collections::BTreeMap;
use std::ops::Range;

use anyhow::Result;

use super::Network;
use super::layout::{Initialisation, NetworkLayout, ParameterSpec, RunningSpec};
use crate::autograd::{Add, Tape};
use crate::device::{Buffer, Device, Element, Tensor};
use crate::ops::elementwise::Convert;
use crate::random::philox::{Purpose, Stream};
use crate::{memory, usage};

/// Named f32 tensors in PyTorch's layouts, in any order.
pub type StateDict = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

/// A parameter and its offset in the arena.
#[derive(Clone, Debug)]
struct PlacedParameter {
    spec: ParameterSpec,
    offset: usize,
}

impl PlacedParameter {
    /// Its range in an arena.
    fn range(&self) -> Range<usize> {
        self.offset..self.offset + self.spec.len()
    }

    /// Whether it holds convolution weights, which the device stores in another order.
    fn is_convolution(&self) -> bool {
        self.spec.shape.len() == 4
    }
}

/// A running mean or variance and its offset.
#[derive(Clone, Debug)]
struct PlacedStatistic {
    name: String,
    channels: usize,
    offset: usize,
    initial: f32,
}

/// The network's values on a device.
pub struct Parameters {
    entries: Vec<PlacedParameter>,
    running_entries: Vec<PlacedStatistic>,
    /// All values, f32, in one arena.
    pub values: Buffer,
    /// The gradients of the first forward pass, f32, in the order of `values`.
    pub gradients: Buffer,
    /// Gradients of the further forward passes of a step, which are added to the first.
    pub further_gradients: Vec<Buffer>,
    /// The values rounded for the convolutions, if the device stores activations as bf16.
    pub copy: Option<Buffer>,
    /// Running means and variances.
    pub running: Buffer,
    /// Forward passes in training mode so far: every batchnorm's `num_batches_tracked`.
    pub batches_tracked: i64,
}

impl Parameters {
    /// Allocates the arenas of `network` and initialises them from `seed` as its layout says.
    ///
    /// # Errors
    /// When the device has not enough memory.
    pub fn new(network: &dyn Network, seed: u64, device: &mut dyn Device) -> Result<Self> {
        let (entries, running_entries) = place(network.layout());
        assert_aligned(&entries, device.channel_multiple());
        let len: usize = entries.iter().map(|entry| entry.spec.len()).sum();
        let running_len: usize = running_entries.iter().map(|running| running.channels).sum();
        // Two host arrays while values are written or read; and, on a device in main memory, values,
        // gradients and the optimiser's momentum.
        let copies = if device.in_main_memory() { 5 } else { 2 };
        memory::ensure_room(
            memory::product(&[copies, 4, len]),
            &format!("a network of {len} parameters, with their gradients and momentum"),
            "take a smaller --width or another --arch",
        )?;
        let parameters = Self {
            values: device.allocate(Element::F32, len, "the parameters")?,
            gradients: device.allocate(Element::F32, len, "the gradients")?,
            further_gradients: Vec::new(),
            copy: match device.activations() {
                Element::F32 => None,
                element => Some(device.allocate(element, len, "the rounded parameters")?),
            },
            running: device.allocate(Element::F32, running_len, "the batchnorm statistics")?,
            entries,
            running_entries,
            batches_tracked: 0,
        };
        parameters.initialise(seed, 0, device)?;
        Ok(parameters)
    }

    /// A copy of the current values with fresh running statistics. It has no gradients: that field refers to
    /// the values.
    ///
    /// # Errors
    /// When the device has not enough memory.
    pub fn copied(&self, device: &mut dyn Device) -> Result<Self> {
        let mut allocate = |buffer: Buffer| device.allocate(buffer.element, buffer.len, "copied parameters");
        let (values, running) = (allocate(self.values)?, allocate(self.running)?);
        let copied = Self {
            entries: self.entries.clone(),
            running_entries: self.running_entries.clone(),
            values,
            gradients: values,
            further_gradients: Vec::new(),
            copy: self.copy.map(allocate).transpose()?,
            running,
            batches_tracked: 0,
        };
        let current = device.read_f32(self.values)?;
        copied.write(&current, device)?;
        Ok(copied)
    }

    /// Overwrites all values, given in the order of the arena.
    ///
    /// # Errors
    /// If the device fails.
    pub fn write(&self, values: &[f32], device: &mut dyn Device) -> Result<()> {
        device.write_f32(self.values, values)?;
        self.round(device)
    }

    /// Allocates gradients for `passes` forward passes per step.
    ///
    /// # Errors
    /// When the device has not enough memory.
    pub fn allocate_passes(&mut self, passes: usize, device: &mut dyn Device) -> Result<()> {
        while self.further_gradients.len() + 1 < passes {
            self.further_gradients.push(device.allocate(Element::F32, self.len(), "the gradients")?);
        }
        Ok(())
    }

    /// The arena for the gradients of forward pass `pass` of a step, in the order in which passes are recorded.
    pub fn gradients_of(&self, pass: usize) -> Buffer {
        if pass == 0 { self.gradients } else { self.further_gradients[pass - 1] }
    }

    /// Records the sum of the gradients of all forward passes into the arena of the first.
    pub fn record_sum_of_gradients(&self, tape: &mut Tape) {
        let into = tape.persistent(self.gradients);
        for &further in &self.further_gradients {
            let x = tape.persistent(further);
            tape.push(Add { len: self.len(), x, into });
        }
    }

    /// Draws new values from (`seed`, `stage`) and resets the running statistics.
    ///
    /// # Errors
    /// If the device fails.
    pub fn initialise(&self, seed: u64, stage: u32, device: &mut dyn Device) -> Result<()> {
        let mut values = vec![0.0; self.len()];
        for (number, entry) in self.entries.iter().enumerate() {
            let part = &mut values[entry.range()];
            let mut stream = Stream::new(seed, Purpose::Initialisation, stage, number as u32, 0);
            match entry.spec.initialisation {
                Initialisation::Normal { deviation } => {
                    part.fill_with(|| (deviation * stream.normal()) as f32);
                }
                Initialisation::Uniform { bound } => {
                    part.fill_with(|| stream.uniform(-bound, bound) as f32);
                }
                Initialisation::Constant(value) => part.fill(value),
            }
        }
        device.write_f32(self.values, &values)?;
        self.round(device)?;
        let running: Vec<f32> =
            self.running_entries.iter().flat_map(|r| std::iter::repeat_n(r.initial, r.channels)).collect();
        device.write_f32(self.running, &running)
    }

    /// Updates the rounded copy after the values were written.
    fn round(&self, device: &mut dyn Device) -> Result<()> {
        let Some(copy) = self.copy else { return Ok(()) };
        let convert = Convert { len: self.len(), from: Tensor(0), to: Tensor(1) };
        device.execute(&convert, &[self.values, copy])
    }

    /// Number of trainable values.
    pub fn len(&self) -> usize {
        self.values.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.values.len == 0
    }

    /// Names of the trainable parameters in state_dict order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.iter().map(|entry| entry.spec.name.as_str())
    }

    /// The trainable parameters with their ranges of an arena, then the batchnorm buffers with theirs of the running
    /// statistics.
    pub fn ranges(&self) -> [Vec<(&str, Range<usize>)>; 2] {
        let entries = self.entries.iter().map(|entry| (entry.spec.name.as_str(), entry.range()));
        let running = self.running_entries.iter().map(|r| (r.name.as_str(), r.offset..r.offset + r.channels));
        [entries.collect(), running.collect()]
    }

    /// The range of an arena that holds the `len` values beginning with the parameter `name`.
    ///
    /// # Panics
    /// If the network has no such parameter.
    pub fn part(&self, arena: Buffer, name: &str, len: usize) -> Buffer {
        let entry =
            self.entries.iter().find(|entry| entry.spec.name == name).expect("a parameter of the network");
        arena.part(entry.offset, len)
    }

    /// The running statistics `[mean; var]` of a batchnorm.
    ///
    /// # Panics
    /// If the network has no such batchnorm.
    pub fn running_part(&self, batchnorm: &str) -> Buffer {
        let name = format!("{batchnorm}.running_mean");
        let running =
            self.running_entries.iter().find(|r| r.name == name).expect("a batchnorm of the network");
        self.running.part(running.offset, 2 * running.channels)
    }

    /// The contents of an arena (values, gradients or an optimiser's state) under their names, in PyTorch's
    /// layouts.
    ///
    /// # Errors
    /// If the device fails.
    pub fn export(&self, arena: Buffer, device: &mut dyn Device) -> Result<StateDict> {
        let values = device.read_f32(arena)?;
        let named = self.entries.iter().map(|entry| {
            let ParameterSpec { name, shape, .. } = &entry.spec;
            let part = &values[entry.range()];
            let part = if entry.is_convolution() { to_channels_first(shape, part) } else { part.to_vec() };
            (name.clone(), (shape.clone(), part))
        });
        Ok(named.collect())
    }

    /// The running statistics under their names.
    ///
    /// # Errors
    /// If the device fails.
    pub fn export_running(&self, device: &mut dyn Device) -> Result<StateDict> {
        let values = device.read_f32(self.running)?;
        let named = self
            .running_entries
            .iter()
            .map(|r| (r.name.clone(), (vec![r.channels], values[r.offset..r.offset + r.channels].to_vec())));
        Ok(named.collect())
    }

    /// The first layer, in the network's order, whose running statistics are not finite.
    ///
    /// # Errors
    /// If the device fails.
    pub fn first_layer_not_finite(&self, device: &mut dyn Device) -> Result<Option<String>> {
        let values = device.read_f32(self.running)?;
        let is_finite = |r: &&PlacedStatistic| values[r.offset..][..r.channels].iter().all(|v| v.is_finite());
        let first = self.running_entries.iter().find(|entry| !is_finite(entry));
        Ok(first.map(|entry| entry.name.rsplit_once('.').map_or(&*entry.name, |(layer, _)| layer).into()))
    }

    /// Names of the `num_batches_tracked` counters.
    pub fn counter_names(&self) -> impl Iterator<Item = String> {
        let means =
            self.running_entries.iter().filter_map(|running| running.name.strip_suffix(".running_mean"));
        means.map(|batchnorm| format!("{batchnorm}.num_batches_tracked"))
    }

    /// Copies the parameters that `dict` holds (under `prefix` + name) into `arena`; returns how many it
    /// found.
    ///
    /// # Errors
    /// A usage error for a wrong shape; nothing has been changed in that case.
    pub fn import(
        &self,
        arena: Buffer,
        prefix: &str,
        dict: &StateDict,
        device: &mut dyn Device,
    ) -> Result<usize> {
        let mut values = device.read_f32(arena)?;
        let mut found = 0;
        for entry in &self.entries {
            let ParameterSpec { name, shape: wanted, .. } = &entry.spec;
            let Some((shape, given)) = dict.get(&format!("{prefix}{name}")) else { continue };
            if shape != wanted {
                return Err(usage!("{prefix}{name}: shape {shape:?}, but the network has {wanted:?}"));
            }
            found += 1;
            let part = &mut values[entry.range()];
            if entry.is_convolution() {
                part.copy_from_slice(&to_channels_last(shape, given));
            } else {
                part.copy_from_slice(given);
            }
        }
        device.write_f32(arena, &values)?;
        if arena == self.values {
            self.round(device)?;
        }
        Ok(found)
    }

    /// Copies the running statistics that `dict` holds; returns how many it found.
    ///
    /// # Errors
    /// A usage error for a wrong shape.
    pub fn import_running(&self, dict: &StateDict, device: &mut dyn Device) -> Result<usize> {
        let mut values = device.read_f32(self.running)?;
        let mut found = 0;
        for running in &self.running_entries {
            let Some((shape, given)) = dict.get(&running.name) else { continue };
            if shape[..] != [running.channels] {
                return Err(usage!(
                    "{}: shape {shape:?}, but the network has [{}]",
                    running.name,
                    running.channels
                ));
            }
            found += 1;
            values[running.offset..running.offset + running.channels].copy_from_slice(given);
        }
        device.write_f32(self.running, &values)?;
        Ok(found)
    }

    /// Number of parameters and running statistics: what a complete state_dict holds besides its counters.
    pub fn tensor_count(&self) -> usize {
        self.entries.len() + self.running_entries.len()
    }
}

/// Kernels load `multiple` values of a convolution's and a batchnorm's tensors at once: up to the last convolution
/// each begins at a multiple of that. The tensors behind it, of a fully connected layer, are loaded one by one.
///
/// # Panics
/// For a layout that breaks this: a mistake of the network, which a GPU would answer with a misaligned address.
fn assert_aligned(entries: &[PlacedParameter], multiple: usize) {
    let last = entries.iter().rposition(|entry| entry.spec.shape.len() == 4).map_or(0, |last| last + 1);
    for PlacedParameter { spec, offset } in &entries[..last] {
        assert!(
            offset % multiple == 0,
            "{} begins at element {offset}, no multiple of {multiple}",
            spec.name
        );
    }
}

/// Assigns offsets to the tensors of a layout, one after another.
fn place(layout: NetworkLayout) -> (Vec<PlacedParameter>, Vec<PlacedStatistic>) {
    let mut end = 0;
    let entries = layout.parameters.into_iter().map(|spec| {
        let offset = end;
        end += spec.len();
        PlacedParameter { spec, offset }
    });
    let entries = entries.collect();
    let (mut running, mut end) = (Vec::new(), 0);
    for RunningSpec { name, channels } in layout.running {
        for (statistic, initial) in [("running_mean", 0.0), ("running_var", 1.0)] {
            running.push(PlacedStatistic {
                name: format!("{name}.{statistic}"),
                channels,
                offset: end,
                initial,
            });
            end += channels;
        }
    }
    (entries, running)
}

/// `[Cout, kh, kw, Cin]` to `[Cout, Cin, kh, kw]`; `shape` is the latter.
fn to_channels_first(shape: &[usize], values: &[f32]) -> Vec<f32> {
    let (out, channels, positions) = (shape[0], shape[1], shape[2] * shape[3]);
    let mut result = Vec::with_capacity(values.len());
    for filter in values.chunks_exact(channels * positions).take(out) {
        for channel in 0..channels {
            result.extend((0..positions).map(|position| filter[position * channels + channel]));
        }
    }
    result
}

/// `[Cout, Cin, kh, kw]` to `[Cout, kh, kw, Cin]`; `shape` is the former.
fn to_channels_last(shape: &[usize], values: &[f32]) -> Vec<f32> {
    let (channels, positions) = (shape[1], shape[2] * shape[3]);
    let mut result = Vec::with_capacity(values.len());
    for filter in values.chunks_exact(channels * positions) {
        for position in 0..positions {
            result.extend((0..channels).map(|channel| filter[channel * positions + position]));
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::cpu::CpuDevice;
    use crate::nn::ResNet;
    use crate::nn::registry::find;

    #[test]
    fn layouts_are_inverse() {
        let shape = [2, 3, 2, 2];
        let values: Vec<f32> = (0..24).map(|i| i as f32).collect();
        let last = to_channels_last(&shape, &values);
        assert_eq!(last[..4], [0.0, 4.0, 8.0, 1.0]);
        assert_eq!(to_channels_first(&shape, &last), values);
    }

    #[test]
    fn export_and_import_keep_every_value_and_refuse_wrong_shapes() {
        let mut device = CpuDevice::new(1).unwrap();
        let network = ResNet::resnet18(4, 3);
        let first = Parameters::new(&network, 1, &mut device).unwrap();
        let second = Parameters::new(&network, 2, &mut device).unwrap();
        let mut dict = first.export(first.values, &mut device).unwrap();
        assert_eq!(dict.len(), 62);
        assert_ne!(second.export(second.values, &mut device).unwrap(), dict);
        assert_eq!(second.import(second.values, "", &dict, &mut device).unwrap(), 62);
        assert_eq!(second.export(second.values, &mut device).unwrap(), dict);
        dict.insert("fc.bias".into(), (vec![4], vec![0.0; 4]));
        let error = second.import(second.values, "", &dict, &mut device).unwrap_err();
        assert!(error.to_string().starts_with("fc.bias: shape [4]"), "{error}");
    }

    #[test]
    #[should_panic(expected = "stage.weight begins at element 10, no multiple of 8")]
    fn a_convolution_behind_an_odd_tensor_is_a_mistake() {
        let entry = |name: &str, shape: &[usize], offset| PlacedParameter {
            spec: ParameterSpec {
                name: name.into(),
                shape: shape.to_vec(),
                initialisation: Initialisation::Constant(0.0),
            },
            offset,
        };
        let bias = || entry("stem.bias", &[10], 0);
        assert_aligned(&[bias(), entry("fc.weight", &[5, 10], 10)], 8);
        assert_aligned(&[bias(), entry("stage.weight", &[8, 8, 3, 3], 16)], 8);
        assert_aligned(&[bias(), entry("stage.weight", &[8, 8, 3, 3], 10)], 8);
    }

    /// Section 1 of docs/spec.md: names in state_dict order, and the sizes of the four networks of width 64.
    #[test]
    fn the_networks_have_the_reference_s_tensors() {
        #[rustfmt::skip]
        let table = [
            ("resnet18", [11_173_962, 11_179_092, 11_220_132], 62, 122, 9_620),
            ("resnet34", [21_282_122, 21_287_252, 21_328_292], 110, 218, 17_060),
            ("resnet50", [23_520_842, 23_541_332, 23_705_252], 161, 320, 53_173),
            ("resnet101", [42_512_970, 42_533_460, 42_697_380], 314, 626, 105_448),
        ];
        for (name, sizes, tensors, entries_of_dict, buffer_elements) in table {
            for (classes, size) in [10, 20, 100].into_iter().zip(sizes) {
                let (entries, running) = place(find(name).unwrap()(64, classes).layout());
                assert_eq!(
                    entries.iter().map(|entry| entry.spec.len()).sum::<usize>(),
                    size,
                    "{name}, {classes} classes"
                );
                assert_eq!(entries.len(), tensors, "{name}");
                // Every batchnorm has a mean, a variance and a `num_batches_tracked` of one element.
                let counters = running.len() / 2;
                assert_eq!(entries.len() + running.len() + counters, entries_of_dict, "{name}");
                let statistics: usize = running.iter().map(|running| running.channels).sum();
                assert_eq!(statistics + counters, buffer_elements, "{name}");
            }
        }
    }

    #[test]
    fn a_bottleneck_s_parameters_stand_in_state_dict_order() {
        let (entries, running) = place(ResNet::resnet50(64, 10).layout());
        let found: Vec<(&str, &[usize])> =
            entries[..18].iter().map(|entry| (entry.spec.name.as_str(), &entry.spec.shape[..])).collect();
        #[rustfmt::skip]
        let expected: [(&str, &[usize]); 18] = [
            ("encoder.conv1.weight", &[64, 3, 3, 3]),
            ("encoder.bn1.weight", &[64]),
            ("encoder.bn1.bias", &[64]),
            ("encoder.layer1.0.conv1.weight", &[64, 64, 1, 1]),
            ("encoder.layer1.0.bn1.weight", &[64]),
            ("encoder.layer1.0.bn1.bias", &[64]),
            ("encoder.layer1.0.conv2.weight", &[64, 64, 3, 3]),
            ("encoder.layer1.0.bn2.weight", &[64]),
            ("encoder.layer1.0.bn2.bias", &[64]),
            ("encoder.layer1.0.conv3.weight", &[256, 64, 1, 1]),
            ("encoder.layer1.0.bn3.weight", &[256]),
            ("encoder.layer1.0.bn3.bias", &[256]),
            ("encoder.layer1.0.shortcut.0.weight", &[256, 64, 1, 1]),
            ("encoder.layer1.0.shortcut.1.weight", &[256]),
            ("encoder.layer1.0.shortcut.1.bias", &[256]),
            ("encoder.layer1.1.conv1.weight", &[64, 256, 1, 1]),
            ("encoder.layer1.1.bn1.weight", &[64]),
            ("encoder.layer1.1.bn1.bias", &[64]),
        ];
        assert_eq!(found, expected);
        assert_eq!(entries[entries.len() - 2].spec.shape, [10, 2048]);
        let statistics: Vec<&str> = running[6..12].iter().map(|running| running.name.as_str()).collect();
        let names =
            ["bn3.running_mean", "bn3.running_var", "shortcut.1.running_mean", "shortcut.1.running_var"];
        let mut expected: Vec<String> = names.iter().map(|name| format!("encoder.layer1.0.{name}")).collect();
        expected.push("encoder.layer1.1.bn1.running_mean".into());
        expected.push("encoder.layer1.1.bn1.running_var".into());
        assert_eq!(statistics, expected);
    }

    /// The standard deviation of 36,864 normal values lies within 2 % of the formula, which is five standard
    /// errors.
    #[test]
    fn initialisation_has_the_right_spread() {
        let mut device = CpuDevice::new(1).unwrap();
        let parameters = Parameters::new(&ResNet::resnet18(64, 10), 7, &mut device).unwrap();
        let dict = parameters.export(parameters.values, &mut device).unwrap();
        let values = &dict["encoder.layer1.0.conv1.weight"].1;
        let std = (values.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>() / values.len() as f64).sqrt();
        let expected = (2.0f64 / (64.0 * 9.0)).sqrt();
        assert!((std / expected - 1.0).abs() < 0.02, "{std} {expected}");
        let bound = 1.0 / 512f32.sqrt();
        assert!(dict["fc.weight"].1.iter().all(|v| v.abs() <= bound));
        assert!(dict["fc.weight"].1.iter().any(|v| v.abs() > 0.9 * bound));
    }
}
