//! A block's shared memory: bytes, which of them were written, which a copy is still to fill, and who used them since the
//! last barrier.

/// What is known of a word.
#[derive(Clone, Copy, Debug, Default)]
struct Word {
    write: u32,
    read: u32,
    /// The last read by another warp than `read`.
    other: u32,
    written: u8,
    pending: u8,
}

const ATOMIC: u32 = 1 << 4;
const WARP: u32 = 5;
const PHASE: u32 = 10;

/// Something wrong with an access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Defect {
    Unwritten,
    Pending,
    /// The other warp, and whether it wrote.
    Race {
        warp: u32,
        wrote: bool,
    },
}

/// Shared memory.
#[derive(Debug, Default)]
pub struct Shared {
    pub bytes: Vec<u8>,
    words: Vec<Word>,
    /// Barriers passed, from 1.
    phase: u32,
}

impl Shared {
    pub fn reset(&mut self, bytes: usize) {
        self.bytes.clear();
        self.bytes.resize(bytes.next_multiple_of(4), 0);
        self.words.clear();
        self.words.resize(bytes.div_ceil(4), Word::default());
        self.phase = 1;
    }

    pub fn barrier(&mut self) {
        // 22 bits: what was used four million barriers ago may look new, in the other direction than the counts of `races`.
        self.phase = if self.phase + 1 >= 1 << (32 - PHASE) { 1 } else { self.phase + 1 };
        if self.phase == 1 {
            for word in &mut self.words {
                (word.write, word.read, word.other) = (0, 0, 0);
            }
        }
    }

    #[inline(always)]
    fn me(&self, warp: u32, atomic: bool) -> u32 {
        self.phase << PHASE | (warp & 31) << WARP | if atomic { ATOMIC } else { 0 }
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

    #[inline(always)]
    pub fn put(&mut self, offset: usize, width: u32, value: u64) {
        let bytes = value.to_le_bytes();
        match width {
            4 => self.bytes[offset..offset + 4].copy_from_slice(&bytes[..4]),
            8 => self.bytes[offset..offset + 8].copy_from_slice(&bytes),
            _ => self.bytes[offset..offset + width as usize].copy_from_slice(&bytes[..width as usize]),
        }
    }

    /// Notes a read of `bytes` bytes and says what is wrong with it.
    #[inline(always)]
    pub fn read(&mut self, offset: usize, bytes: u32, warp: u32, atomic: bool) -> Option<Defect> {
        let me = self.me(warp, atomic);
        let mut found = None;
        each_word(offset, bytes, |word, mask| {
            let word = &mut self.words[word];
            found = found.or(word.note_read(me, mask));
        });
        found
    }

    /// Notes a write, which makes the bytes written.
    #[inline(always)]
    pub fn write(&mut self, offset: usize, bytes: u32, warp: u32, atomic: bool) -> Option<Defect> {
        let me = self.me(warp, atomic);
        let mut found = None;
        each_word(offset, bytes, |word, mask| {
            let word = &mut self.words[word];
            found = found.or(word.note_write(me, mask));
            word.written |= mask;
        });
        found
    }

    /// An asynchronous copy into these bytes starts.
    pub fn begin_copy(&mut self, offset: usize, bytes: u32, warp: u32) -> Option<Defect> {
        let me = self.me(warp, false);
        let mut found = None;
        each_word(offset, bytes, |word, mask| {
            let word = &mut self.words[word];
            found = found.or(word.note_write(me, mask));
            word.pending |= mask;
        });
        found
    }

    /// It arrives.
    pub fn end_copy(&mut self, offset: usize, data: &[u8], warp: u32) {
        let me = self.me(warp, false);
        each_word(offset, data.len() as u32, |word, mask| {
            let word = &mut self.words[word];
            word.pending &= !mask;
            word.written |= mask;
            word.note_write(me, mask);
        });
        self.bytes[offset..offset + data.len()].copy_from_slice(data);
    }
}

/// Calls for each word of a range with the mask of its bytes.
#[inline(always)]
fn each_word(offset: usize, bytes: u32, mut f: impl FnMut(usize, u8)) {
    if bytes >= 4 {
        for word in 0..bytes as usize / 4 {
            f(offset / 4 + word, 15);
        }
    } else {
        f(offset / 4, ((1u8 << bytes) - 1) << (offset & 3));
    }
}

impl Word {
    #[inline(always)]
    fn note_read(&mut self, me: u32, mask: u8) -> Option<Defect> {
        let mut found = None;
        if self.pending & mask != 0 {
            found = Some(Defect::Pending);
        } else if self.written & mask != mask {
            found = Some(Defect::Unwritten);
        } else if race(self.write, me, mask) {
            found = Some(Defect::Race { warp: self.write >> WARP & 31, wrote: true });
        }
        let new = me | u32::from(mask);
        if (self.read ^ me) & !15 == 0 {
            self.read |= new;
        } else {
            if (self.read ^ me) >> WARP != 0 {
                self.other = self.read;
            }
            self.read = new;
        }
        found
    }

    #[inline(always)]
    fn note_write(&mut self, me: u32, mask: u8) -> Option<Defect> {
        let mut found = None;
        if self.pending & mask != 0 {
            found = Some(Defect::Pending);
        } else if race(self.write, me, mask) {
            found = Some(Defect::Race { warp: self.write >> WARP & 31, wrote: true });
        } else if race(self.read, me, mask) {
            found = Some(Defect::Race { warp: self.read >> WARP & 31, wrote: false });
        } else if race(self.other, me, mask) {
            found = Some(Defect::Race { warp: self.other >> WARP & 31, wrote: false });
        }
        let new = me | u32::from(mask);
        self.write = if (self.write ^ me) & !15 == 0 { self.write | new } else { new };
        found
    }
}

/// In one phase, by another warp, of the same byte, not both atomic.
#[inline(always)]
fn race(old: u32, me: u32, mask: u8) -> bool {
    old >> PHASE == me >> PHASE
        && (old ^ me) >> WARP & 31 != 0
        && old & u32::from(mask) != 0
        && old & me & ATOMIC == 0
}
