//! Static and dynamic shared memory of a block count together against the 48 KiB that a kernel may have
//! without asking.

use records::device::gpu::driver::Driver;
use records::device::gpu::launch::{Arguments, Kernel, Launch};
use records::device::gpu::open_driver;
use records::device::gpu::sources::Source;

const WORDS: usize = 64;

/// Both kinds of shared memory are used up to their ends.
static SOURCE: Source = Source {
    name: "shared.cu",
    text: r#"
extern "C" __global__ void shared_ends(int words, float* out) {
    __shared__ float fixed[64];
    extern __shared__ float given[];
    // An index that the compiler does not know keeps all of it.
    fixed[(words + threadIdx.x) % 64] = 1.0f;
    if (threadIdx.x == 0) given[words - 1] = 2.0f;
    __syncthreads();
    if (threadIdx.x == 1) *out = fixed[(words + 31) % 64] + given[words - 1];
}
"#,
};

fn launch(bytes: usize, out: u64) -> Launch {
    let kernel = Kernel { source: &SOURCE, name: "shared_ends" };
    let arguments = Arguments::new().count(bytes / 4).pointer(out);
    Launch { shared_bytes: bytes as u32, ..Launch::linear(kernel, 1, 32, arguments) }
}

#[test]
fn every_amount_up_to_the_gpu_s_is_had() {
    let name = std::env::var("RECORDS_TEST_DEVICE").unwrap_or_else(|_| "sim".into());
    let mut driver: Box<dyn Driver> = open_driver(name.parse().unwrap()).unwrap();
    let out = driver.allocate(&[4], "a result").unwrap()[0];
    let fixed = 4 * WORDS;
    let most = driver.gpu().shared_bytes - fixed;
    // Around what is had without asking, beyond, and again less.
    for bytes in [4, (48 << 10) - fixed, (48 << 10) - fixed + 4, 48 << 10, (48 << 10) + 4, most, 8] {
        driver.clear(out).unwrap();
        driver.launch(&launch(bytes, out.address)).unwrap_or_else(|error| panic!("{bytes}: {error:#}"));
        let mut value = [0; 4];
        driver.read(out.address, &mut value).unwrap();
        assert_eq!(f32::from_le_bytes(value), 3.0, "{bytes} bytes");
    }
    let refused = driver.launch(&launch(most + 4, out.address));
    assert!(refused.is_err(), "more than the GPU has");
}
