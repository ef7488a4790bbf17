//! The lanes of a warp, as bits of a mask and as places of a row.

/// Lanes of a warp.
pub const LANES: usize = 32;
/// Every lane.
pub const FULL: u32 = u32::MAX;

/// The lanes of a mask, lowest first.
#[inline]
pub fn lanes(mask: u32) -> impl Iterator<Item = usize> {
    let mut rest = mask;
    std::iter::from_fn(move || {
        if rest == 0 {
            return None;
        }
        let lane = rest.trailing_zeros() as usize;
        rest &= rest - 1;
        Some(lane)
    })
}

/// The mask of the lanes of which something holds.
pub fn mask_of(holds: impl Fn(usize) -> bool) -> u32 {
    (0..LANES).fold(0, |bits, lane| bits | u32::from(holds(lane)) << lane)
}

/// A row made lane by lane: a plain loop, which the compiler vectorises where it leaves `array::map` alone.
#[inline(always)]
pub fn row<T: Copy + Default>(f: impl Fn(usize) -> T) -> [T; LANES] {
    let mut t = [T::default(); LANES];
    for (lane, value) in t.iter_mut().enumerate() {
        *value = f(lane);
    }
    t
}
