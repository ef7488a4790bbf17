//! Safetensors files with metadata, read with every claim checked and written whole.

use std::collections::BTreeMap;
use std::io::{BufReader, Read};
use std::path::Path;

use anyhow::{Result, bail};
use safetensors::tensor::{Dtype, Metadata};

use crate::files::open_regular;
use crate::nn::{Parameters, StateDict};
use crate::text::excerpt;
use crate::{memory, usage};

/// Values of one element type.
#[derive(Clone, Debug, PartialEq)]
pub enum Values {
    /// IEEE single precision.
    F32(Vec<f32>),
    /// IEEE double precision.
    F64(Vec<f64>),
    /// Signed, 64 bits.
    I64(Vec<i64>),
    /// Signed, 32 bits.
    I32(Vec<i32>),
    /// Unsigned, 32 bits.
    U32(Vec<u32>),
    /// Bytes.
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

    fn len(&self) -> usize {
        match self {
            Values::F32(values) => values.len(),
            Values::F64(values) => values.len(),
            Values::I64(values) => values.len(),
            Values::I32(values) => values.len(),
            Values::U32(values) => values.len(),
            Values::U8(values) => values.len(),
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
    /// Shape and row-major values of each tensor by its name.
    pub tensors: BTreeMap<String, (Vec<usize>, Values)>,
    /// Free text by key.
    pub metadata: BTreeMap<String, String>,
}

impl TensorFile {
    /// Whether it has the same tensors, bit for bit, whatever the metadata.
    pub fn has_bits_of(&self, other: &Self) -> bool {
        let is_same = |(name, (shape, values)): (&String, &(Vec<usize>, Values))| {
            let other = other.tensors.get(name);
            other.is_some_and(|(of, bits)| shape == of && values.to_bytes() == bits.to_bytes())
        };
        self.tensors.len() == other.tensors.len() && self.tensors.iter().all(is_same)
    }

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

    /// The bytes of a safetensors file: the same for the same content, since the header is written in a fixed order.
    ///
    /// # Errors
    /// When a tensor has other values than its shape says.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        // Elements of eight bytes first, so that all are aligned; then by name.
        let mut order: Vec<&String> = self.tensors.keys().collect();
        order.sort_by_key(|name| std::cmp::Reverse(self.tensors[*name].1.dtype().bitsize()));
        let header = self.header(&order)?;
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header);
        for name in order {
            bytes.extend(self.tensors[name].1.to_bytes());
        }
        Ok(bytes)
    }

    /// The JSON header of a file that holds the tensors in `order`. The safetensors crate writes metadata in the order of a hash
    /// map, which differs from call to call.
    fn header(&self, order: &[&String]) -> Result<Vec<u8>> {
        let mut entries = Vec::new();
        if !self.metadata.is_empty() {
            entries.push(format!("\"__metadata__\":{}", serde_json::to_string(&self.metadata)?));
        }
        let mut start = 0;
        for &name in order {
            let (shape, values) = &self.tensors[name];
            let count = shape.iter().try_fold(1, |product: usize, &size| product.checked_mul(size));
            if count != Some(values.len()) {
                bail!("tensor '{name}': {} values for shape {shape:?}", values.len());
            }
            let end = start + values.len() * values.dtype().bitsize() / 8;
            entries.push(format!(
                "{}:{{\"dtype\":\"{:?}\",\"shape\":{},\"data_offsets\":[{start},{end}]}}",
                serde_json::to_string(name)?,
                values.dtype(),
                serde_json::to_string(shape)?,
            ));
            start = end;
        }
        let mut header = format!("{{{}}}", entries.join(",")).into_bytes();
        header.resize(header.len().next_multiple_of(8), b' ');
        Ok(header)
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

    /// Adds every batchnorm's `num_batches_tracked`, which is `batches` for all.
    pub fn add_batch_counters(&mut self, parameters: &Parameters, batches: i64) {
        let counter = Values::I64(vec![batches]);
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
            "{NOT_WHOLE} (its header announces {tensors} bytes of tensors, there are {})",
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
    fn the_bytes_are_a_function_of_the_content() {
        let file = |keys: &[&str]| {
            let mut file = example();
            file.metadata = keys.iter().map(|key| (key.to_string(), format!("{key} \"\\\u{1b}é"))).collect();
            file
        };
        let keys: Vec<String> = (0..20).map(|number| format!("key {number}")).collect();
        let mut keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        let bytes = file(&keys).to_bytes().unwrap();
        keys.reverse();
        assert!((0..10).all(|_| file(&keys).to_bytes().unwrap() == bytes));
        assert_eq!(TensorFile::from_bytes(&bytes).unwrap(), file(&keys));
        // Every tensor is aligned to its element.
        let (size, header) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
        for (name, info) in header.tensors() {
            assert_eq!((8 + size + info.data_offsets.0) % (info.dtype.bitsize() / 8), 0, "{name}");
        }
    }

    #[test]
    fn a_shape_that_does_not_fit_is_no_file() {
        for shape in [vec![3], vec![], vec![usize::MAX, 2]] {
            let mut file = example();
            file.tensors.get_mut("a").unwrap().0 = shape;
            assert!(file.to_bytes().unwrap_err().to_string().contains("tensor 'a'"));
        }
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
