//! The calls as a program makes them.

use std::ffi::{CString, c_int};
use std::mem::MaybeUninit;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::api::*;
use crate::code::Code;
use crate::state;

/// Four words: a and b into out, which is a + b + plus. And kernels that do something wrong, or want much.
const PTX: &str = "
.version 7.0
.target sm_80
.address_size 64
.visible .entry add(.param .u64 a, .param .u64 b, .param .u64 out, .param .u32 plus) {
    .reg .b32 %r<6>;
    .reg .b64 %p<4>;
    ld.param.u64 %p1, [a];
    ld.param.u64 %p2, [b];
    ld.param.u64 %p3, [out];
    ld.param.u32 %r1, [plus];
    ld.global.u32 %r2, [%p1];
    ld.global.u32 %r3, [%p2];
    add.u32 %r4, %r2, %r3;
    add.u32 %r5, %r4, %r1;
    st.global.u32 [%p3], %r5;
    ret;
}
.visible .entry race(.param .u64 out) {
    .reg .b32 %r<2>;
    .reg .b64 %p<2>;
    ld.param.u64 %p1, [out];
    mov.u32 %r1, %tid.x;
    st.global.u32 [%p1], %r1;
    ret;
}
.visible .entry shares() .maxntid 512, 1, 1 .minnctapersm 2 {
    .shared .align 16 .b8 buffer[8192];
    .reg .b32 %r<2>;
    mov.u32 %r1, %tid.x;
    st.shared.u32 [buffer], %r1;
    ret;
}
";

/// One test at a time: they share the process's one GPU.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

pub fn made<T: Copy + Default>(call: impl FnOnce(Option<&mut MaybeUninit<T>>) -> c_int) -> Result<T, Code> {
    let mut place = MaybeUninit::new(T::default());
    match call(Some(&mut place)) {
        // SAFETY: it was initialised, and may have been written since.
        0 => Ok(unsafe { place.assume_init() }),
        code => Err(Code(code)),
    }
}

pub fn done(code: c_int) -> Result<(), Code> {
    if code == 0 { Ok(()) } else { Err(Code(code)) }
}

/// A context with a stream and the module above.
pub struct Driver {
    pub stream: usize,
    module: usize,
    _alone: MutexGuard<'static, ()>,
}

impl Driver {
    pub fn new() -> Self {
        let alone = alone();
        done(cuInit(0)).unwrap();
        let context = made(|out| cuDevicePrimaryCtxRetain(out, 0)).unwrap();
        done(cuCtxSetCurrent(context)).unwrap();
        let stream = made(|out| cuStreamCreate(out, 1)).unwrap();
        let module = load(PTX).unwrap();
        Self { stream, module, _alone: alone }
    }

    /// A kernel, loaded.
    fn kernel(&self, name: &str) -> usize {
        let function = self.not_loaded(name);
        made(|out| cuFuncGetAttribute(out, 1, function)).unwrap();
        function
    }

    fn not_loaded(&self, name: &str) -> usize {
        let name = CString::new(name).unwrap();
        // SAFETY: a string of C.
        made(|out| unsafe { cuModuleGetFunction(out, self.module, name.as_ptr()) }).unwrap()
    }

    /// A word of memory.
    pub fn word(&self, value: u32) -> u64 {
        let address = made(|out| cuMemAlloc_v2(out, 4)).unwrap();
        let from = &raw const value as usize;
        // SAFETY: four bytes.
        done(unsafe { cuMemcpyHtoDAsync_v2(address, from, 4, self.stream) }).unwrap();
        address
    }

    pub fn read(&self, address: u64) -> u32 {
        let mut value = 0u32;
        let to = &raw mut value as usize;
        // SAFETY: four bytes.
        done(unsafe { cuMemcpyDtoHAsync_v2(to, address, 4, self.stream) }).unwrap();
        done(cuStreamSynchronize(self.stream)).unwrap();
        value
    }

    fn add(&self, stream: usize, addresses: [u64; 3], plus: u32) -> Result<(), Code> {
        self.add_by(self.kernel("add"), stream, addresses, plus)
    }

    fn add_by(&self, add: usize, stream: usize, addresses: [u64; 3], plus: u32) -> Result<(), Code> {
        let mut parameters: Vec<*const u8> = addresses.iter().map(|a| (&raw const *a).cast()).collect();
        parameters.push((&raw const plus).cast());
        launch(add, stream, [1, 1, 0], &parameters)
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        assert_eq!(cuDevicePrimaryCtxRelease_v2(0), 0);
    }
}

fn load(ptx: &str) -> Result<usize, Code> {
    let text = CString::new(ptx).unwrap();
    // SAFETY: a string of C.
    made(|out| unsafe { cuModuleLoadData(out, text.as_ptr()) })
}

/// A launch of so many blocks and threads with so much dynamic shared memory.
fn launch(
    function: usize,
    stream: usize,
    [blocks, threads, dynamic]: [u32; 3],
    parameters: &[*const u8],
) -> Result<(), Code> {
    let (list, none) = (parameters.as_ptr(), std::ptr::null());
    // SAFETY: a pointer a parameter, to as many bytes as it has.
    done(unsafe { cuLaunchKernel(function, blocks, 1, 1, threads, 1, 1, dynamic, stream, list, none) })
}

pub fn begin(stream: usize) {
    done(cuStreamBeginCapture_v2(stream, 1)).unwrap();
}

pub fn end(stream: usize) -> Result<usize, Code> {
    made(|out| cuStreamEndCapture(stream, out))
}

#[test]
fn kernels_compute_and_take_time() {
    let driver = Driver::new();
    let [a, b, out] = [2, 3, 0].map(|value| driver.word(value));
    let events = [0, 0].map(|flags| made(|out| cuEventCreate(out, flags)).unwrap());
    done(cuEventRecord(events[0], driver.stream)).unwrap();
    driver.add(driver.stream, [a, b, out], 10).unwrap();
    done(cuEventRecord(events[1], driver.stream)).unwrap();
    assert_eq!(driver.read(out), 15);
    let milliseconds: f32 = made(|out| cuEventElapsedTime(out, events[0], events[1])).unwrap();
    assert!((0.001..0.1).contains(&milliseconds), "{milliseconds}");
}

#[test]
fn what_the_interpreter_finds_fails_every_later_call() {
    let driver = Driver::new();
    let out = driver.word(0);
    let parameters = [(&raw const out).cast()];
    let race = driver.kernel("race");
    launch(race, driver.stream, [1, 1, 0], &parameters).unwrap();
    assert_eq!(driver.read(out), 0);
    launch(race, driver.stream, [1, 32, 0], &parameters).expect("a launch does not wait for itself");
    assert_eq!(done(cuStreamSynchronize(driver.stream)), Err(Code::LAUNCH_FAILED));
    assert_eq!(made(|out| cuMemAlloc_v2(out, 4)), Err(Code::LAUNCH_FAILED));
    drop(driver);
    let another = Driver::new();
    assert_eq!(another.read(another.word(7)), 7, "a new context is whole");
}

#[test]
fn reading_what_nothing_wrote_is_found() {
    let driver = Driver::new();
    let [a, out] = [1, 0].map(|value| driver.word(value));
    let unwritten = made(|out| cuMemAlloc_v2(out, 4)).unwrap();
    driver.add(driver.stream, [a, unwritten, out], 0).unwrap();
    assert_eq!(done(cuStreamSynchronize(driver.stream)), Err(Code::LAUNCH_FAILED));
}

/// A graph of as much work as a step that is to take time is launched at once; who waits waits for all that were
/// launched in that stream, who asks is told that it is not done, and an event is reached when what stood before it
/// is. A small graph takes no time.
#[test]
fn a_graph_takes_the_time_that_it_is_to_take() {
    let driver = Driver::new();
    done(state::context("", "", |context| {
        context.graph_time = Some(Duration::from_millis(40));
        Ok(())
    }))
    .unwrap();
    let other = made(|out| cuStreamCreate(out, 1)).unwrap();
    let word = driver.word(0);
    let [small, executable] = [1, 16].map(|nodes| {
        begin(driver.stream);
        (0..nodes).for_each(|_| done(cuMemsetD8Async(word, 0, 4, driver.stream)).unwrap());
        let graph = end(driver.stream).unwrap();
        made(|out| cuGraphInstantiateWithFlags(out, graph, 0)).unwrap()
    });
    // SAFETY: it names no host memory.
    done(unsafe { cuGraphLaunch(small, driver.stream) }).unwrap();
    done(cuStreamQuery(driver.stream)).unwrap();
    let event = made(|out| cuEventCreate(out, 2)).unwrap();
    let began = Instant::now();
    // SAFETY: it names no host memory.
    let launch = || done(unsafe { cuGraphLaunch(executable, driver.stream) }).unwrap();
    launch();
    done(cuEventRecord(event, driver.stream)).unwrap();
    launch();
    assert_eq!(done(cuStreamQuery(driver.stream)), Err(Code::NOT_READY));
    done(cuStreamSynchronize(other)).unwrap();
    assert!(began.elapsed() < Duration::from_millis(40), "the other stream has nothing to wait for");
    done(cuEventSynchronize(event)).unwrap();
    assert!(began.elapsed() >= Duration::from_millis(40));
    done(cuEventQuery(event)).unwrap();
    done(cuStreamSynchronize(driver.stream)).unwrap();
    assert!(began.elapsed() >= Duration::from_millis(80));
    done(cuStreamQuery(driver.stream)).unwrap();
}

/// In the stream's order; what nothing wrote is copied as such, and a copy must stay inside its allocations.
#[test]
fn copies_within_the_gpu() {
    let driver = Driver::new();
    let [a, b, out] = [5, 2, 0].map(|value| driver.word(value));
    let copy = |to, from, bytes| done(cuMemcpyDtoDAsync_v2(to, from, bytes, driver.stream));
    driver.add(driver.stream, [a, b, out], 0).unwrap();
    copy(a, out, 4).unwrap();
    driver.add(driver.stream, [a, b, out], 0).unwrap();
    assert_eq!([driver.read(a), driver.read(out)], [7, 9]);
    assert_eq!(copy(a, out, 5), Err(Code::INVALID_VALUE));
    let unwritten = made(|out| cuMemAlloc_v2(out, 4)).unwrap();
    copy(a, unwritten, 4).unwrap();
    driver.add(driver.stream, [a, b, out], 0).unwrap();
    assert_eq!(done(cuStreamSynchronize(driver.stream)), Err(Code::LAUNCH_FAILED));
}

/// x = 1; then y = 2x on one branch and z = 2x + 1 on the other; then out = y + z.
#[test]
fn branches_of_a_graph_join() {
    let driver = Driver::new();
    let add = driver.kernel("add");
    let other = made(|out| cuStreamCreate(out, 1)).unwrap();
    let [forked, joined] = [2, 2].map(|flags| made(|out| cuEventCreate(out, flags)).unwrap());
    let [zero, one, x, y, z, out] = [0, 1, 0, 0, 0, 0].map(|value| driver.word(value));
    begin(driver.stream);
    driver.add_by(add, driver.stream, [zero, one, x], 0).unwrap();
    done(cuEventRecord(forked, driver.stream)).unwrap();
    done(cuStreamWaitEvent(other, forked, 0)).unwrap();
    driver.add_by(add, driver.stream, [x, x, y], 0).unwrap();
    driver.add_by(add, other, [x, x, z], 1).unwrap();
    done(cuEventRecord(joined, other)).unwrap();
    done(cuStreamWaitEvent(driver.stream, joined, 0)).unwrap();
    driver.add_by(add, driver.stream, [y, z, out], 0).unwrap();
    let graph = end(driver.stream).unwrap();
    assert_eq!(driver.read(x), 0, "nothing has run");
    let executable = made(|out| cuGraphInstantiateWithFlags(out, graph, 0)).unwrap();
    done(cuGraphDestroy(graph)).unwrap();
    for _ in 0..2 {
        // SAFETY: it names no host memory.
        done(unsafe { cuGraphLaunch(executable, driver.stream) }).unwrap();
        assert_eq!([x, y, z, out].map(|word| driver.read(word)), [1, 2, 3, 5]);
    }
}

#[test]
fn a_graph_s_order_follows_its_dependencies() {
    let mut graph = crate::graph::Graph::default();
    let work = || crate::work::Work::Fill { at: 0, value: 0, bytes: 0 };
    let first = graph.push(work(), vec![]);
    let left = graph.push(work(), vec![first]);
    let left_end = graph.push(work(), vec![left]);
    let right = graph.push(work(), vec![first]);
    let last = graph.push(work(), vec![left_end, right]);
    assert_eq!(graph.order(false), [first, left, left_end, right, last]);
    assert_eq!(graph.order(true), [first, right, left, left_end, last]);
    assert!(graph.are_before(&[left, right], &[last]));
    assert!(!graph.are_before(&[right], &[left_end]));
}

#[test]
fn work_that_is_not_joined_fails_the_capture() {
    let driver = Driver::new();
    let add = driver.kernel("add");
    let other = made(|out| cuStreamCreate(out, 1)).unwrap();
    let forked = made(|out| cuEventCreate(out, 2)).unwrap();
    let word = driver.word(1);
    begin(driver.stream);
    driver.add_by(add, driver.stream, [word; 3], 0).unwrap();
    done(cuEventRecord(forked, driver.stream)).unwrap();
    done(cuStreamWaitEvent(other, forked, 0)).unwrap();
    driver.add_by(add, other, [word; 3], 0).unwrap();
    assert_eq!(end(driver.stream), Err(Code::STREAM_CAPTURE_UNJOINED));
    assert_eq!(driver.read(word), 1);
}

#[test]
fn what_is_forbidden_while_capturing_ends_the_capture() {
    let driver = Driver::new();
    let word = driver.word(1);
    let uncaptured = made(|out| cuEventCreate(out, 2)).unwrap();
    let other = made(|out| cuStreamCreate(out, 1)).unwrap();
    done(cuEventRecord(uncaptured, other)).unwrap();
    let lazy = driver.not_loaded("add");
    let copy = || {
        let mut value = 0u32;
        let to = &raw mut value as usize;
        // SAFETY: four bytes.
        done(unsafe { cuMemcpyDtoH_v2(to, word, 4) })
    };
    type Call<'a> = &'a dyn Fn() -> Result<(), Code>;
    let cases: [(Call<'_>, Code); 7] = [
        (&|| done(cuStreamSynchronize(driver.stream)), Code::STREAM_CAPTURE_UNSUPPORTED),
        (&|| done(cuCtxSynchronize()), Code::STREAM_CAPTURE_UNSUPPORTED),
        (&|| made(|out| cuMemAlloc_v2(out, 4)).map(|_| ()), Code::STREAM_CAPTURE_UNSUPPORTED),
        (&|| load(PTX).map(|_| ()), Code::STREAM_CAPTURE_UNSUPPORTED),
        (&copy, Code::STREAM_CAPTURE_IMPLICIT),
        (&|| done(cuStreamWaitEvent(driver.stream, uncaptured, 0)), Code::STREAM_CAPTURE_ISOLATION),
        // A kernel that is loaded only when it is launched.
        (&|| driver.add_by(lazy, driver.stream, [word; 3], 0), Code::STREAM_CAPTURE_UNSUPPORTED),
    ];
    for (call, code) in cases {
        begin(driver.stream);
        assert_eq!(call(), Err(code));
        assert_eq!(end(driver.stream), Err(Code::STREAM_CAPTURE_INVALIDATED));
        assert_eq!(driver.read(word), 1, "the context goes on");
    }
    driver.add_by(lazy, driver.stream, [word; 3], 0).expect("loaded outside");
    begin(driver.stream);
    driver.add_by(lazy, driver.stream, [word; 3], 0).unwrap();
    end(driver.stream).unwrap();
}

/// Static and dynamic shared memory count together: 48 KiB without asking, 99 KiB with, on an RTX 3090.
#[test]
fn shared_memory_beyond_48_kib_has_to_be_asked_for() {
    let driver = Driver::new();
    let function = driver.kernel("shares");
    let attribute = |number| made(|out| cuFuncGetAttribute(out, number, function)).unwrap();
    assert_eq!([attribute(0), attribute(1), attribute(8)], [512, 8192, 40960]);
    assert_eq!(attribute(4), 64, "two blocks of 512 threads: 64 registers at most");
    launch(function, driver.stream, [1, 1, 40960], &[]).unwrap();
    assert_eq!(launch(function, driver.stream, [1, 1, 40961], &[]), Err(Code::INVALID_VALUE));
    let most = (99 << 10) - 8192;
    assert_eq!(done(cuFuncSetAttribute(function, 8, most + 1)), Err(Code::INVALID_VALUE));
    done(cuFuncSetAttribute(function, 8, most)).unwrap();
    launch(function, driver.stream, [1, 1, most as u32], &[]).unwrap();
    done(cuStreamSynchronize(driver.stream)).unwrap();
    assert_eq!(launch(function, driver.stream, [1, 513, 0], &[]), Err(Code::LAUNCH_OUT_OF_RESOURCES));
}

#[test]
fn a_cooperative_launch_must_be_resident_as_a_whole() {
    let driver = Driver::new();
    let function = driver.kernel("shares");
    let held: c_int =
        made(|out| cuOccupancyMaxActiveBlocksPerMultiprocessor(out, function, 512, 40960)).unwrap();
    assert_eq!(held, 2, "of 100 KiB, each takes 48 and one that the system keeps");
    let launch = |blocks| {
        let none = std::ptr::null();
        // SAFETY: it has no parameters.
        done(unsafe {
            cuLaunchCooperativeKernel(function, blocks, 1, 1, 1, 1, 1, 40960, driver.stream, none)
        })
    };
    launch(2 * 82).unwrap();
    done(cuStreamSynchronize(driver.stream)).unwrap();
    let none = std::ptr::null();
    // SAFETY: it has no parameters.
    let refused =
        unsafe { cuLaunchCooperativeKernel(function, 165, 1, 1, 512, 1, 1, 40960, driver.stream, none) };
    assert_eq!(Code(refused), Code::COOPERATIVE_LAUNCH_TOO_LARGE);
}

#[test]
fn wrong_arguments_are_refused() {
    let driver = Driver::new();
    let word = driver.word(1);
    let add = driver.kernel("add");
    let missing = [std::ptr::null::<u8>(); 4];
    assert_eq!(launch(add, driver.stream, [1, 1, 0], &missing), Err(Code::INVALID_VALUE));
    assert_eq!(launch(add, driver.stream, [0, 1, 0], &missing), Err(Code::INVALID_VALUE));
    let packed = [0u8; 32];
    for (len, expected) in [(28usize, Ok(())), (32, Err(Code::INVALID_VALUE)), (24, Err(Code::INVALID_VALUE))]
    {
        let extra = [1, packed.as_ptr() as usize, 2, &raw const len as usize, 0];
        let (none, extra) = (std::ptr::null(), extra.as_ptr().cast());
        begin(driver.stream);
        // SAFETY: the list is as CUDA describes it.
        let code = unsafe { cuLaunchKernel(add, 1, 1, 1, 1, 1, 1, 0, driver.stream, none, extra) };
        assert_eq!(done(code), expected, "{len} bytes for a kernel of 28");
        end(driver.stream).unwrap();
    }
    let mut value = [0u8; 8];
    let to = value.as_mut_ptr() as usize;
    // SAFETY: eight bytes.
    let beyond = unsafe { cuMemcpyDtoHAsync_v2(to, word, 8, driver.stream) };
    assert_eq!(Code(beyond), Code::INVALID_VALUE);
    assert_eq!(done(cuMemFree_v2(word + 1)), Err(Code::INVALID_VALUE));
}

#[test]
fn only_ptx_of_this_gpu_and_older_ones_is_taken() {
    let _driver = Driver::new();
    assert_eq!(load("\u{7f}ELF"), Err(Code::NO_BINARY_FOR_GPU));
    assert_eq!(load(&PTX.replace("sm_80", "sm_90")), Err(Code::NO_BINARY_FOR_GPU));
    load(&PTX.replace("sm_80", "sm_86")).unwrap();
    assert_eq!(load("nothing"), Err(Code::INVALID_PTX));
}

#[test]
fn without_a_context_nothing_can_be_done() {
    let driver = Driver::new();
    let other = std::thread::spawn(|| made(|out| cuMemAlloc_v2(out, 4))).join().unwrap();
    assert_eq!(other, Err(Code::INVALID_CONTEXT));
    drop(driver);
    assert_eq!(made(|out| cuMemAlloc_v2(out, 4)), Err(Code::INVALID_CONTEXT));
}
