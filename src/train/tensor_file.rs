//! Safetensors files with metadata, read with every claim checked and written whole.

use std::collections::{BTreeMap, HashMap};
use std::io::{BufReader, Read};
use std::path::Path;

use anyhow::Result;
use safetensors::tensor::{Dtype, Metadata, TensorView};

use crate::files::open_regular;
use crate::nn::{Parameters, StateDict};
use crate::text::excerpt;
use crate::{memory, usage};

/// Values of one element type.
#[derive(Clone, Debug, PartialEq)]
pub enum Values {
    F32(Vec<f32>),
    F64(Vec<f64>),
    I64(Vec<i64>),
    I32(Vec<i32>),
    U32(Vec<u32>),
    U8(Vec<u8>),
}

impl Values {
    fn dtype(&self) -> Dtype {
        match self {
            Values::F32(_) => Dtype::F32,
            Values::F64(_) => Dtype::F64,
            Values::I64(_) => Dtype::I64,
            Values::I32(_) => Dtype::I32,
            Values::U32(_) => Dtype::U32,
            Values::U8(_) => Dtype::U8,
        }
    }

    fn to_bytes(&self) -> Vec<u8> {
        match self {
            Values::F32(values) => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
            Values::F64(values) => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
            Values::I64(values) => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
            Values::I32(values) => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
            Values::U32(values) => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
            Values::U8(values) => values.clone(),
        }
    }
}

/// Named tensors and metadata strings.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TensorFile {
    pub tensors: BTreeMap<String, (Vec<usize>, Values)>,
    pub metadata: BTreeMap<String, String>,
}

impl TensorFile {
    /// Reads `path`, a regular file; its memory is taken once, tensor by tensor.
    ///
    /// # Errors
    /// A usage error naming the file if it cannot be read, does not fit into memory, is no safetensors file, or holds a type other
    /// than f32, f64, i64, i32, u32 and u8.
    pub fn read(path: &Path) -> Result<Self> {
        let (file, size) = open_regular(path)?;
        memory::ensure_room(size, &path.display().to_string(), "take a machine with more memory")?;
        Self::from_reader(BufReader::new(file), size).map_err(|reason| usage!("{}: {reason}", path.display()))
    }

    /// Parses the bytes of a safetensors file; the error says what is wrong with them.
    pub fn from_bytes(bytes: &[u8]) -> std::result::Result<Self, String> {
        Self::from_reader(bytes, bytes.len() as u64)
    }

    /// Reads a safetensors file of `size` bytes. What the header claims is held against the size before memory is taken for it.
    fn from_reader(mut reader: impl Read, size: u64) -> std::result::Result<Self, String> {
        let header = read_header(&mut reader, size)?;
        let mut tensors = BTreeMap::new();
        // In order of their places in the file, which follow each other without gaps.
        for name in header.offset_keys() {
            let Some(info) = header.info(&name) else { continue };
            let shown = excerpt(&name);
            if info.shape.len() > MOST_DIMENSIONS {
                let dimensions = info.shape.len();
                return Err(format!(
                    "tensor '{shown}' has {dimensions} dimensions; at most {MOST_DIMENSIONS} are read"
                ));
            }
            let (start, end) = info.data_offsets;
            let values =
                read_values(&mut reader, info.dtype, end - start).map_err(|problem| match problem {
                    None => format!(
                        "tensor '{shown}' is of type {:?}; must be F32, F64, I64, I32, U32 or U8",
                        info.dtype
                    ),
                    Some(error) => format!("{NOT_WHOLE} ({error})"),
                })?;
            tensors.insert(name, (info.shape.clone(), values));
        }
        let metadata = header.metadata().clone().unwrap_or_default().into_iter().collect();
        Ok(Self { tensors, metadata })
    }

    /// The bytes of a safetensors file.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let data: Vec<(&str, &Vec<usize>, Dtype, Vec<u8>)> = self
            .tensors
            .iter()
            .map(|(name, (shape, values))| (name.as_str(), shape, values.dtype(), values.to_bytes()))
            .collect();
        let views = data
            .iter()
            .map(|(name, shape, dtype, bytes)| Ok((*name, TensorView::new(*dtype, (*shape).clone(), bytes)?)))
            .collect::<Result<Vec<_>>>()?;
        let metadata: HashMap<String, String> = self.metadata.clone().into_iter().collect();
        Ok(safetensors::serialize(views, Some(metadata))?)
    }

    /// Writes `path` whole or not at all.
    ///
    /// # Errors
    /// A usage error naming the file.
    pub fn write(&self, path: &Path) -> Result<()> {
        crate::files::write_atomically(path, &self.to_bytes()?)
    }

    /// Adds f32 tensors.
    pub fn extend(&mut self, dict: StateDict) {
        self.tensors
            .extend(dict.into_iter().map(|(name, (shape, values))| (name, (shape, Values::F32(values)))));
    }

    /// All f32 tensors.
    pub fn state_dict(&self) -> StateDict {
        let floats = self.tensors.iter().filter_map(|(name, (shape, values))| match values {
            Values::F32(values) => Some((name.clone(), (shape.clone(), values.clone()))),
            _ => None,
        });
        floats.collect()
    }

    /// The f32 tensor `name` with its shape.
    ///
    /// # Errors
    /// A usage error if it is absent or of another type.
    pub fn f32(&self, name: &str) -> Result<(&[usize], &[f32])> {
        match self.tensors.get(name) {
            Some((shape, Values::F32(values))) => Ok((shape, values)),
            other => Err(missing(name, "F32", other)),
        }
    }

    /// The f64 tensor `name` with its shape.
    ///
    /// # Errors
    /// A usage error if it is absent or of another type.
    pub fn f64(&self, name: &str) -> Result<(&[usize], &[f64])> {
        match self.tensors.get(name) {
            Some((shape, Values::F64(values))) => Ok((shape, values)),
            other => Err(missing(name, "F64", other)),
        }
    }

    /// The u8 tensor `name` with its shape.
    ///
    /// # Errors
    /// A usage error if it is absent or of another type.
    pub fn u8(&self, name: &str) -> Result<(&[usize], &[u8])> {
        match self.tensors.get(name) {
            Some((shape, Values::U8(values))) => Ok((shape, values)),
            other => Err(missing(name, "U8", other)),
        }
    }

    /// The i64 tensor `name` with its shape.
    ///
    /// # Errors
    /// A usage error if it is absent or of another type.
    pub fn i64(&self, name: &str) -> Result<(&[usize], &[i64])> {
        match self.tensors.get(name) {
            Some((shape, Values::I64(values))) => Ok((shape, values)),
            other => Err(missing(name, "I64", other)),
        }
    }

    /// Adds every batchnorm's `num_batches_tracked`.
    pub fn add_batch_counters(&mut self, parameters: &Parameters) {
        let counter = Values::I64(vec![parameters.batches_tracked]);
        self.tensors.extend(parameters.counter_names().map(|name| (name, (vec![], counter.clone()))));
    }

    /// The `num_batches_tracked` of the first batchnorm, which all share; `None` if the file has none.
    ///
    /// # Errors
    /// A usage error if it is not one i64.
    pub fn batch_counter(&self, parameters: &Parameters) -> Result<Option<i64>> {
        let name = parameters.counter_names().next().filter(|name| self.tensors.contains_key(name));
        let Some(name) = name else { return Ok(None) };
        match self.i64(&name)? {
            // No run gets near it, and counting on from it cannot overflow.
            (_, [count]) if (0..=1 << 60).contains(count) => Ok(Some(*count)),
            (_, [count]) => Err(usage!("tensor '{name}': {count}; must be a number of steps")),
            (shape, _) => Err(usage!("tensor '{name}': shape {shape:?}; must be one number")),
        }
    }

    /// CRC-32C over every tensor's name, shape, type and bytes and every metadata string but `except`, in order of name.
    pub fn checksum(&self, except: &str) -> Result<u32> {
        let mut sum = 0;
        let mut add = |bytes: &[u8]| {
            sum = crc32c::crc32c_append(sum, &(bytes.len() as u64).to_le_bytes());
            sum = crc32c::crc32c_append(sum, bytes);
        };
        for (name, (shape, values)) in &self.tensors {
            add(format!("{name} {shape:?} {:?}", values.dtype()).as_bytes());
            add(&values.to_bytes());
        }
        for (key, value) in self.metadata.iter().filter(|(key, _)| *key != except) {
            add(key.as_bytes());
            add(value.as_bytes());
        }
        Ok(sum)
    }
}

/// Begins what is said of a file that is something else or was cut.
const NOT_WHOLE: &str = "not a whole safetensors file";

/// Bytes a header may have at most: those of checkpoints have some 50 KB.
const LARGEST_HEADER: u64 = 16 << 20;

/// Dimensions a tensor may have at most.
const MOST_DIMENSIONS: usize = 8;

/// The header of a safetensors file of `size` bytes: its length, then JSON. What it says of tensors adds up to the rest of the file.
fn read_header(reader: &mut impl Read, size: u64) -> std::result::Result<Metadata, String> {
    let cut = |error: std::io::Error| format!("{NOT_WHOLE} ({error})");
    let mut length = [0; 8];
    reader.read_exact(&mut length).map_err(cut)?;
    let length = u64::from_le_bytes(length);
    if length > size.saturating_sub(8) {
        return Err(format!("{NOT_WHOLE} (a header of {length} bytes in a file of {size})"));
    }
    if length > LARGEST_HEADER {
        return Err(format!("{NOT_WHOLE} (a header of {length} bytes; at most {LARGEST_HEADER} are read)"));
    }
    let mut header = vec![0; length as usize];
    reader.read_exact(&mut header).map_err(cut)?;
    let header: Metadata = serde_json::from_slice(&header)
        .map_err(|error| format!("{NOT_WHOLE} ({})", excerpt(&error.to_string())))?;
    let claimed = (header.data_len() as u64).checked_add(8 + length);
    if claimed != Some(size) {
        let tensors = header.data_len();
        return Err(format!(
            "{NOT_WHOLE} (its header tells of {tensors} bytes of tensors, there are {})",
            size - 8 - length
        ));
    }
    Ok(header)
}

/// `bytes` bytes as values of `dtype`; the error is `None` for a type that is not read.
fn read_values(
    reader: &mut impl Read,
    dtype: Dtype,
    bytes: usize,
) -> std::result::Result<Values, Option<std::io::Error>> {
    Ok(match dtype {
        Dtype::F32 => Values::F32(read_words(reader, bytes, f32::from_le_bytes)?),
        Dtype::F64 => Values::F64(read_words(reader, bytes, f64::from_le_bytes)?),
        Dtype::I64 => Values::I64(read_words(reader, bytes, i64::from_le_bytes)?),
        Dtype::I32 => Values::I32(read_words(reader, bytes, i32::from_le_bytes)?),
        Dtype::U32 => Values::U32(read_words(reader, bytes, u32::from_le_bytes)?),
        Dtype::U8 => Values::U8(read_words(reader, bytes, u8::from_le_bytes)?),
        _ => return Err(None),
    })
}

/// Little-endian words of N bytes, `bytes` bytes in all, a multiple of N.
fn read_words<const N: usize, T>(
    reader: &mut impl Read,
    bytes: usize,
    word: fn([u8; N]) -> T,
) -> std::io::Result<Vec<T>> {
    let mut values = Vec::new();
    values.try_reserve_exact(bytes / N).map_err(std::io::Error::other)?;
    let mut part = [0; 1 << 14];
    let mut rest = bytes;
    while rest > 0 {
        let part = &mut part[..rest.min(1 << 14)];
        reader.read_exact(part)?;
        values.extend(part.as_chunks().0.iter().copied().map(word));
        rest -= part.len();
    }
    Ok(values)
}

fn missing(name: &str, wanted: &str, found: Option<&(Vec<usize>, Values)>) -> anyhow::Error {
    match found {
        None => usage!("tensor '{name}' is missing ({wanted})"),
        Some((_, values)) => usage!("tensor '{name}' is {:?}; must be {wanted}", values.dtype()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn example() -> TensorFile {
        let mut file = TensorFile::default();
        file.tensors.insert("a".into(), (vec![2, 1], Values::F32(vec![1.5, f32::NEG_INFINITY])));
        file.tensors.insert("b".into(), (vec![], Values::I64(vec![-7])));
        file.tensors.insert("c".into(), (vec![3], Values::U8(vec![1, 2, 3])));
        file.metadata.insert("key".into(), "value".into());
        file
    }

    #[test]
    fn bytes_round_trip() {
        let bytes = example().to_bytes().unwrap();
        assert_eq!(TensorFile::from_bytes(&bytes).unwrap(), example());
    }

    #[test]
    fn every_truncation_is_an_error() {
        let bytes = example().to_bytes().unwrap();
        assert!((0..bytes.len()).all(|len| TensorFile::from_bytes(&bytes[..len]).is_err()));
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = TensorFile::from_bytes(&bytes);
        }

        #[test]
        fn damaged_files_never_panic(at in any::<prop::sample::Index>(), bit in 0u8..8) {
            let mut bytes = example().to_bytes().unwrap();
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            let _ = TensorFile::from_bytes(&bytes);
        }
    }
}
