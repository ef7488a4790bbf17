//! The zip archive that `torch.save` writes: stored entries, no compression. Every length and position is
//! checked before it is used.

/// The entries of an archive.
pub struct Archive<'a> {
    bytes: &'a [u8],
    entries: Vec<Entry>,
}

/// Where an entry lies.
struct Entry {
    name: String,
    checksum: u32,
    start: usize,
    length: usize,
}

/// The signatures of the parts of an archive.
const END: &[u8] = b"PK\x05\x06";
const DIRECTORY_ENTRY: &[u8] = b"PK\x01\x02";
const LOCAL_ENTRY: &[u8] = b"PK\x03\x04";

/// Bytes of the end without its comment, which has at most 65,535.
const END_BYTES: usize = 22;

/// What stands for a number that is in a field of 64 bits instead.
const ELSEWHERE: u32 = u32::MAX;

/// `size` bytes at `at`, as a number.
fn number(bytes: &[u8], at: usize, size: usize) -> Option<u32> {
    let part = bytes.get(at..at.checked_add(size)?)?;
    Some(part.iter().rev().fold(0, |value, &byte| value << 8 | u32::from(byte)))
}

impl<'a> Archive<'a> {
    /// Reads the directory of an archive; the error says what is wrong with it.
    pub fn open(bytes: &'a [u8]) -> Result<Self, String> {
        let cut = || "is cut short or no archive of torch.save".to_string();
        let last = bytes.len().checked_sub(END_BYTES).ok_or_else(cut)?;
        let first = last.saturating_sub(usize::from(u16::MAX));
        let end = (first..=last).rev().find(|&at| bytes[at..].starts_with(END)).ok_or_else(cut)?;
        let count = number(bytes, end + 10, 2).ok_or_else(cut)?;
        let mut at = number(bytes, end + 16, 4).ok_or_else(cut)?;
        if at == ELSEWHERE {
            return Err("is an archive of over 4 GiB, which is not read; save it as safetensors".into());
        }
        let mut entries = Vec::new();
        for _ in 0..count {
            let (entry, next) = entry(bytes, at as usize)?;
            entries.push(entry);
            at = u32::try_from(next).map_err(|_| cut())?;
        }
        Ok(Self { bytes, entries })
    }

    /// The names of the entries.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.iter().map(|entry| entry.name.as_str())
    }

    /// The contents of the entry `name`, whose checksum is verified.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub fn read(&self, name: &str) -> Result<&'a [u8], String> {
        let entry = self.entries.iter().find(|entry| entry.name == name);
        let entry = entry.ok_or_else(|| format!("has no entry {name}"))?;
        let bytes = &self.bytes[entry.start..entry.start + entry.length];
        let mut sum = flate2::Crc::new();
        sum.update(bytes);
        if sum.sum() != entry.checksum {
            return Err(format!("is damaged: the checksum of {name} does not match"));
        }
        Ok(bytes)
    }
}

/// The entry of the directory at `at`, and where the next begins.
fn entry(bytes: &[u8], at: usize) -> Result<(Entry, usize), String> {
    let cut = || "has a damaged directory".to_string();
    let field = |offset: usize, size: usize| number(bytes, at + offset, size).ok_or_else(cut);
    if !bytes.get(at..).is_some_and(|rest| rest.starts_with(DIRECTORY_ENTRY)) {
        return Err(cut());
    }
    let (method, checksum, packed, length) = (field(10, 2)?, field(16, 4)?, field(20, 4)?, field(24, 4)?);
    let [of_name, of_extra, of_comment] = [field(28, 2)?, field(30, 2)?, field(32, 2)?].map(|n| n as usize);
    let local = field(42, 4)?;
    let name = bytes.get(at + 46..at + 46 + of_name).ok_or_else(cut)?;
    let name = String::from_utf8_lossy(name).into_owned();
    if [packed, length, local].contains(&ELSEWHERE) {
        return Err(format!("holds {name} of over 4 GiB, which is not read; save it as safetensors"));
    }
    if method != 0 || packed != length {
        return Err(format!("holds {name} compressed, which torch.save does not write"));
    }
    let local = local as usize;
    if !bytes.get(local..).is_some_and(|rest| rest.starts_with(LOCAL_ENTRY)) {
        return Err(cut());
    }
    let behind = |offset: usize| number(bytes, local + offset, 2).map(|n| n as usize).ok_or_else(cut);
    let start = local + 30 + behind(26)? + behind(28)?;
    let length = length as usize;
    if start.checked_add(length).is_none_or(|end| end > bytes.len()) {
        return Err(format!("is cut short inside {name}"));
    }
    Ok((Entry { name, checksum, start, length }, at + 46 + of_name + of_extra + of_comment))
}
