//! Arithmetic over the 32 lanes of a warp. With all lanes active a loop over whole arrays is what the compiler vectorises.

/// All lanes.
pub const ALL: u32 = u32::MAX;

/// 32 values, one a lane.
pub type Lanes<T> = [T; 32];

#[inline(always)]
fn put<T: Copy>(to: &mut Lanes<T>, values: &Lanes<T>, mask: u32) {
    if mask == ALL {
        *to = *values;
    } else {
        for lane in 0..32 {
            if mask >> lane & 1 != 0 {
                to[lane] = values[lane];
            }
        }
    }
}

#[inline(always)]
pub fn map1<A: Copy, D: Copy + Default>(
    file: &mut [Lanes<D>],
    d: u32,
    a: &Lanes<A>,
    mask: u32,
    f: impl Fn(A) -> D,
) {
    let mut values = [D::default(); 32];
    for lane in 0..32 {
        values[lane] = f(a[lane]);
    }
    put(&mut file[d as usize], &values, mask);
}

#[inline(always)]
pub fn map2<A: Copy, B: Copy, D: Copy + Default>(
    file: &mut [Lanes<D>],
    d: u32,
    a: &Lanes<A>,
    b: &Lanes<B>,
    mask: u32,
    f: impl Fn(A, B) -> D,
) {
    let mut values = [D::default(); 32];
    for lane in 0..32 {
        values[lane] = f(a[lane], b[lane]);
    }
    put(&mut file[d as usize], &values, mask);
}

#[inline(always)]
pub fn map3<A: Copy, B: Copy, C: Copy, D: Copy + Default>(
    file: &mut [Lanes<D>],
    d: u32,
    a: &Lanes<A>,
    b: &Lanes<B>,
    c: &Lanes<C>,
    mask: u32,
    f: impl Fn(A, B, C) -> D,
) {
    let mut values = [D::default(); 32];
    for lane in 0..32 {
        values[lane] = f(a[lane], b[lane], c[lane]);
    }
    put(&mut file[d as usize], &values, mask);
}

/// The lanes for which `f` holds.
#[inline(always)]
pub fn compare2<A: Copy>(a: &Lanes<A>, b: &Lanes<A>, f: impl Fn(A, A) -> bool) -> u32 {
    let mut mask = 0;
    for lane in 0..32 {
        mask |= u32::from(f(a[lane], b[lane])) << lane;
    }
    mask
}
