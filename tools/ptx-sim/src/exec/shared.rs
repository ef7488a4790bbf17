//! Shared memory of a block: its bytes, which of them were written, who touched what since the last barrier.

/// One granule: the barrier interval it was touched in, its writer (warp + 1), its readers (one bit a warp), its state.
#[derive(Clone, Copy, Debug, Default)]
struct Cell {
    interval: u32,
    readers: u32,
    writer: u8,
    state: State,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Unwritten,
    Written,
    /// An asynchronous copy will write it.
    Pending,
}

/// What stands against an access.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fault {
    Unwritten,
    /// With which warp.
    Race(u32),
    Pending,
}

/// A block's shared memory.
pub struct Shared {
    pub bytes: Vec<u8>,
    cells: Vec<Cell>,
    granule: usize,
    interval: u32,
}

impl Shared {
    pub fn new(bytes: usize, granule: usize) -> Self {
        Self {
            bytes: vec![0; bytes],
            cells: vec![Cell::default(); bytes.div_ceil(granule)],
            granule,
            interval: 1,
        }
    }

    /// A barrier of the whole block: what was touched before it conflicts with nothing after it.
    pub fn barrier(&mut self) {
        self.interval += 1;
    }

    #[inline(always)]
    fn cells(&mut self, at: usize, len: usize) -> impl Iterator<Item = &mut Cell> {
        let interval = self.interval;
        let range = at / self.granule..(at + len).div_ceil(self.granule);
        self.cells[range].iter_mut().map(move |cell| {
            if cell.interval != interval {
                cell.interval = interval;
                cell.readers = 0;
                cell.writer = 0;
            }
            cell
        })
    }

    /// Notes a read by a warp.
    #[inline]
    pub fn read(&mut self, warp: u32, at: usize, len: usize) -> Option<Fault> {
        let mut fault = None;
        for cell in self.cells(at, len) {
            cell.readers |= 1 << warp;
            match cell.state {
                State::Unwritten => fault = Some(Fault::Unwritten),
                State::Pending => fault = Some(Fault::Pending),
                State::Written => {}
            }
            if cell.writer != 0 && u32::from(cell.writer) != warp + 1 {
                fault = Some(Fault::Race(u32::from(cell.writer) - 1));
            }
        }
        fault
    }

    /// Notes a write by a warp; atomics do not conflict with each other.
    #[inline]
    pub fn write(&mut self, warp: u32, at: usize, len: usize, atomic: bool) -> Option<Fault> {
        self.mark(warp, at, len, atomic, State::Written)
    }

    /// An asynchronous copy begins to write.
    pub fn begin_copy(&mut self, warp: u32, at: usize, len: usize) -> Option<Fault> {
        self.mark(warp, at, len, false, State::Pending)
    }

    /// It has written.
    pub fn end_copy(&mut self, warp: u32, at: usize, data: &[u8]) {
        self.bytes[at..at + data.len()].copy_from_slice(data);
        for cell in self.cells(at, data.len()) {
            cell.state = State::Written;
            cell.writer = warp as u8 + 1;
        }
    }

    #[inline(always)]
    fn mark(&mut self, warp: u32, at: usize, len: usize, atomic: bool, state: State) -> Option<Fault> {
        const ATOMIC: u8 = 64;
        let mut fault = None;
        for cell in self.cells(at, len) {
            let other_readers = cell.readers & !(1 << warp);
            if atomic && cell.state == State::Unwritten {
                fault = Some(Fault::Unwritten);
            }
            if cell.state == State::Pending {
                fault = Some(Fault::Pending);
            }
            if atomic {
                if cell.writer != 0 && cell.writer != ATOMIC && u32::from(cell.writer) != warp + 1 {
                    fault = Some(Fault::Race(u32::from(cell.writer) - 1));
                } else if other_readers != 0 {
                    fault = Some(Fault::Race(other_readers.trailing_zeros()));
                }
                cell.writer = ATOMIC;
            } else {
                if cell.writer != 0 && u32::from(cell.writer) != warp + 1 {
                    fault = Some(Fault::Race(u32::from(cell.writer) - 1));
                } else if other_readers != 0 {
                    fault = Some(Fault::Race(other_readers.trailing_zeros()));
                }
                cell.writer = warp as u8 + 1;
            }
            cell.state = state;
        }
        fault
    }
}
