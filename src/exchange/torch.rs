//! The tensors in a file of `torch.save` (PyTorch 1.6 and later): a zip archive with a pickle of the
//! structure and a file for each tensor's values.

use super::archive::Archive;
use super::pickle::{Id, Pickle, Value};
use crate::nn::StateDict;
use crate::text::excerpt;

/// Where a state_dict may lie in what was saved; the first is the reference's.
const PLACES: [&str; 4] = ["state_dict", "model", "model_state_dict", "net"];

/// Shape and row-major values.
type Tensor = (Vec<usize>, Vec<f32>);

/// A storage of values.
struct Storage<'a> {
    element: Element,
    bytes: &'a [u8],
}

/// The types of values that are read.
#[derive(Clone, Copy)]
enum Element {
    F32,
    F64,
    F16,
    Bf16,
    I64,
    I32,
}

impl Element {
    fn of_storage(global: &str) -> Option<Self> {
        Some(match global {
            "torch FloatStorage" => Self::F32,
            "torch DoubleStorage" => Self::F64,
            "torch HalfStorage" => Self::F16,
            "torch BFloat16Storage" => Self::Bf16,
            "torch LongStorage" => Self::I64,
            "torch IntStorage" => Self::I32,
            _ => return None,
        })
    }

    fn bytes(self) -> usize {
        match self {
            Self::F64 | Self::I64 => 8,
            Self::F32 | Self::I32 => 4,
            Self::F16 | Self::Bf16 => 2,
        }
    }

    /// A value as f32; its bytes are as many as [`Element::bytes`].
    fn value(self, bytes: &[u8]) -> f32 {
        let mut wide = [0; 8];
        wide[..bytes.len()].copy_from_slice(bytes);
        let four = [wide[0], wide[1], wide[2], wide[3]];
        let two = u16::from_le_bytes([wide[0], wide[1]]);
        match self {
            Self::F32 => f32::from_le_bytes(four),
            Self::F64 => f64::from_le_bytes(wide) as f32,
            Self::F16 => half::f16::from_bits(two).to_f32(),
            Self::Bf16 => half::bf16::from_bits(two).to_f32(),
            Self::I64 => i64::from_le_bytes(wide) as f32,
            Self::I32 => i32::from_le_bytes(four) as f32,
        }
    }
}

/// The tensors of a state_dict as f32, without the prefix `module.` that data-parallel training adds. The
/// error says what is wrong with the file.
pub fn state_dict(bytes: &[u8]) -> Result<StateDict, String> {
    if bytes.starts_with(b"\x80\x02\x8a\x0a") {
        return Err("is in the format of PyTorch before 1.6; load and save it once with a later one".into());
    }
    let archive = Archive::open(bytes)?;
    let pickled = archive.names().find_map(|name| name.strip_suffix("data.pkl"));
    let folder = pickled.ok_or("holds no data.pkl, so torch.save has not written it")?.to_string();
    let pickle = Pickle::read(archive.read(&format!("{folder}data.pkl"))?)?;
    let file = TorchFile { archive, folder, pickle };
    let entries = file.entries()?;
    let mut dict = StateDict::new();
    // Several names may share values, as tied weights do, but not so often that memory runs out.
    let mut room = bytes.len();
    for (name, id) in entries {
        let name = name.strip_prefix("module.").unwrap_or(name);
        let found = file.tensor(id, &mut room).map_err(|problem| format!("'{}' {problem}", excerpt(name)))?;
        dict.extend(found.map(|tensor| (name.to_string(), tensor)));
    }
    if dict.is_empty() {
        return Err("holds no tensors by name; save model.state_dict()".into());
    }
    Ok(dict)
}

struct TorchFile<'a> {
    archive: Archive<'a>,
    folder: String,
    pickle: Pickle,
}

impl TorchFile<'_> {
    /// The entries of the state_dict: what was saved, or what lies in it under a usual name.
    fn entries(&self) -> Result<Vec<(&str, Id)>, String> {
        let pickle = &self.pickle;
        let top = pickle.entries(pickle.top()).ok_or("holds no dict; save model.state_dict()")?;
        let inner = PLACES.iter().find_map(|place| top.iter().find(|(key, _)| key == place));
        Ok(inner.and_then(|&(_, id)| pickle.entries(pickle.get(id))).unwrap_or(top))
    }

    /// The tensor with that number; `None` for another value.
    fn tensor(&self, id: Id, room: &mut usize) -> Result<Option<Tensor>, String> {
        let pickle = &self.pickle;
        // A parameter is a tensor that is trained.
        let id = match self.call(id) {
            Some(("torch._utils _rebuild_parameter", [inner, ..])) => *inner,
            _ => id,
        };
        let Some(("torch._utils _rebuild_tensor_v2", [storage, offset, shape, strides, ..])) = self.call(id)
        else {
            return Ok(None);
        };
        let damaged = || "is a damaged tensor".to_string();
        let offset = pickle.size(*offset).ok_or_else(damaged)?;
        let shape = pickle.sizes(*shape).ok_or_else(damaged)?;
        let strides = pickle.sizes(*strides).ok_or_else(damaged)?;
        let storage = self.storage(*storage)?;
        let values = storage.values(offset, &shape, &strides, *room).ok_or_else(damaged)?;
        *room -= values.len();
        Ok(Some((shape, values)))
    }

    /// The function and the arguments of the call with that number.
    fn call(&self, id: Id) -> Option<(&str, &[Id])> {
        let Value::Call(function, arguments) = self.pickle.get(id) else { return None };
        let Value::Global(function) = self.pickle.get(*function) else { return None };
        Some((function.as_str(), self.pickle.sequence(*arguments)?))
    }

    /// The storage that `id` refers to: ("storage", type, key, device, length).
    fn storage(&self, id: Id) -> Result<Storage<'_>, String> {
        let pickle = &self.pickle;
        let damaged = || "has a damaged storage".to_string();
        let Value::Outside(reference) = pickle.get(id) else { return Err(damaged()) };
        let [_, kind, key, ..] = pickle.sequence(*reference).unwrap_or_default() else {
            return Err(damaged());
        };
        let Value::Global(kind) = pickle.get(*kind) else { return Err(damaged()) };
        let element = Element::of_storage(kind)
            .ok_or_else(|| format!("is of the type {}, which is not read", excerpt(kind)))?;
        let key = pickle.text(*key).ok_or_else(damaged)?;
        let bytes = self.archive.read(&format!("{}data/{key}", self.folder))?;
        Ok(Storage { element, bytes })
    }
}

impl Storage<'_> {
    /// The values of a tensor in row-major order; `None` where they do not lie in the storage, or are more
    /// than `room`.
    fn values(&self, offset: usize, shape: &[usize], strides: &[usize], room: usize) -> Option<Vec<f32>> {
        if shape.len() != strides.len() {
            return None;
        }
        let width = self.element.bytes();
        let len = shape.iter().try_fold(1usize, |len, &size| len.checked_mul(size))?;
        if len > room {
            return None;
        }
        let mut values = Vec::with_capacity(len);
        let mut index = vec![0usize; shape.len()];
        for _ in 0..len {
            let mut steps = index.iter().zip(strides);
            let at = steps.try_fold(offset, |at, (&i, &stride)| at.checked_add(i.checked_mul(stride)?))?;
            let start = at.checked_mul(width)?;
            values.push(self.element.value(self.bytes.get(start..start + width)?));
            for (i, &size) in index.iter_mut().zip(shape).rev() {
                *i += 1;
                if *i < size {
                    break;
                }
                *i = 0;
            }
        }
        Some(values)
    }
}
