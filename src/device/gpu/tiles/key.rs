//! What launches are known by, wherever their operands lie and in whatever run.

use crate::device::gpu::launch::Launch;

/// The kernels, grids, blocks, bytes of shared memory and numbers of launches, in their order. Launches of
/// which this is the same take as long on the same GPU: numbers are what kernels count and branch by.
pub fn of(launches: &[Launch]) -> String {
    launches.iter().map(one).collect::<Vec<_>>().join(" + ")
}

fn one(launch: &Launch) -> String {
    let Launch { kernel, grid: [x, y, z], block: [a, b, c], shared_bytes, arguments, .. } = launch;
    let arguments = arguments.without_addresses();
    format!("{} {x}x{y}x{z} of {a}x{b}x{c}, {shared_bytes} B ({arguments})", kernel.name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::gpu::kernels::batch::{ADVANCE_STEP, AdvanceStep};
    use crate::device::gpu::launch::Address;

    #[test]
    fn what_decides_the_time_is_in_the_key_and_addresses_are_not() {
        let launch = |modulus, step: u64, blocks| {
            ADVANCE_STEP.linear(blocks, 64, AdvanceStep { modulus, step: Address::Device(step) })
        };
        let key = of(&[launch(7, 256, 3)]);
        assert_eq!(key, "advance_step 3x1x1 of 64x1x1, 0 B (7 0 *)");
        assert_eq!(of(&[launch(7, 512, 3)]), key);
        for other in [launch(8, 256, 3), launch(7, 0, 3), launch(7, 256, 4)] {
            assert_ne!(of(&[other]), key);
        }
        let shared = Launch { shared_bytes: 1024, ..launch(7, 256, 3) };
        assert_ne!(of(&[shared]), key);
        assert_eq!(of(&[launch(7, 256, 3), launch(7, 0, 3)]).split(" + ").next(), Some(&*key));
    }
}
