//! A block's shared memory.

/// Shared memory.
#[derive(Debug, Default)]
pub struct Shared {
    bytes: Vec<u8>,
}

impl Shared {
    /// That many bytes of zeros, and up to the next whole word.
    pub fn reset(&mut self, bytes: usize) {
        self.bytes.clear();
        self.bytes.resize(bytes.next_multiple_of(4), 0);
    }

    /// One byte, if there is one.
    pub fn byte(&self, offset: usize) -> Option<u8> {
        self.bytes.get(offset).copied()
    }

    /// `width` up to 8, aligned and inside.
    #[inline(always)]
    pub fn get(&self, offset: usize, width: u32) -> u64 {
        match width {
            1 => u64::from(self.bytes[offset]),
            2 => u64::from(u16::from_le_bytes([self.bytes[offset], self.bytes[offset + 1]])),
            4 => {
                let mut word = [0; 4];
                word.copy_from_slice(&self.bytes[offset..offset + 4]);
                u64::from(u32::from_le_bytes(word))
            }
            _ => {
                let mut word = [0; 8];
                word.copy_from_slice(&self.bytes[offset..offset + 8]);
                u64::from_le_bytes(word)
            }
        }
    }

    /// The same for stores.
    #[inline(always)]
    pub fn put(&mut self, offset: usize, width: u32, value: u64) {
        let bytes = value.to_le_bytes();
        match width {
            4 => self.bytes[offset..offset + 4].copy_from_slice(&bytes[..4]),
            8 => self.bytes[offset..offset + 8].copy_from_slice(&bytes),
            _ => self.put_all(offset, &bytes[..width as usize]),
        }
    }

    /// Stores any number of bytes.
    #[inline(always)]
    pub fn put_all(&mut self, offset: usize, bytes: &[u8]) {
        self.bytes[offset..offset + bytes.len()].copy_from_slice(bytes);
    }
}
