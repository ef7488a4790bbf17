//! The calls as a program makes them: one process that is alone, and two threads in place of processes.

use std::mem::MaybeUninit;
use std::time::{Duration, Instant};

use super::*;
use crate::api::nccl::*;
use crate::api::{cuEventQuery, cuGraphInstantiateWithFlags, cuGraphLaunch, cuMemAlloc_v2, cuStreamQuery};
use crate::tests::{Driver, begin, done, end as end_capture, made};

/// A communicator of one process.
fn alone() -> usize {
    join(&identifier().unwrap(), 0, 1).unwrap()
}

/// A world of two whose second one this process's other thread is.
fn two(limit: Duration) -> [usize; 2] {
    let id = identifier().unwrap();
    let second = std::thread::spawn(move || join_within(&id, 1, 2, limit).unwrap());
    [join_within(&id, 0, 2, limit).unwrap(), second.join().unwrap()]
}

const FLOAT: c_int = 7;

#[test]
fn a_rank_gathers_and_sends_to_itself_within_a_graph() {
    let driver = Driver::new();
    let [from, to] = [5, 0].map(|value| driver.word(value));
    let communicator = alone();
    begin(driver.stream);
    assert_eq!(ncclAllGather(from, to, 1, FLOAT, communicator, driver.stream), SUCCESS);
    let graph = end_capture(driver.stream).unwrap();
    assert_eq!(driver.read(to), 0, "nothing has run");
    let executable = made(|out| cuGraphInstantiateWithFlags(out, graph, 0)).unwrap();
    // SAFETY: it names no host memory.
    done(unsafe { cuGraphLaunch(executable, driver.stream) }).unwrap();
    assert_eq!(driver.read(to), 5);

    let other = driver.word(0);
    ncclGroupStart();
    assert_eq!(ncclSend(from, 4, 1, 0, communicator, driver.stream), SUCCESS);
    assert_eq!(ncclRecv(other, 4, 1, 0, communicator, driver.stream), SUCCESS);
    assert_eq!(driver.read(other), 0, "a group is done at its end");
    assert_eq!(ncclGroupEnd(), SUCCESS);
    assert_eq!(driver.read(other), 5);
    // In place, and from the only one.
    assert_eq!(ncclAllGather(from, from, 1, FLOAT, communicator, driver.stream), SUCCESS);
    assert_eq!(ncclBroadcast(from, from, 1, FLOAT, 0, communicator, driver.stream), SUCCESS);
    assert_eq!(ncclCommDestroy(communicator), SUCCESS);
    assert_eq!(ncclCommDestroy(communicator), INVALID_ARGUMENT);
}

#[test]
fn wrong_arguments_are_refused() {
    let driver = Driver::new();
    let [from, to] = [5, 0].map(|value| driver.word(value));
    let (communicator, stream) = (alone(), driver.stream);
    type Call<'a> = &'a dyn Fn() -> c_int;
    let cases: [(&str, Call<'_>); 8] = [
        ("no communicator", &|| ncclAllGather(from, to, 1, FLOAT, communicator + 1, stream)),
        ("a stream that is not there", &|| ncclAllGather(from, to, 1, FLOAT, communicator, stream + 1)),
        ("a type that is not there", &|| ncclAllGather(from, to, 1, 77, communicator, stream)),
        ("no values", &|| ncclAllGather(from, to, 0, FLOAT, communicator, stream)),
        ("more than the allocation", &|| ncclAllGather(from, to, 2, FLOAT, communicator, stream)),
        ("memory that overlaps", &|| ncclAllGather(from, from + 1, 3, 1, communicator, stream)),
        ("a rank that is not there", &|| ncclSend(from, 1, FLOAT, 1, communicator, stream)),
        ("a rank below 0", &|| ncclRecv(to, 1, FLOAT, -1, communicator, stream)),
    ];
    for (what, call) in cases {
        assert_eq!(call(), INVALID_ARGUMENT, "{what}");
    }
    // A group fails as a whole.
    ncclGroupStart();
    assert_eq!(ncclSend(from, 1, FLOAT, 0, communicator, stream), SUCCESS);
    assert_eq!(ncclRecv(to, 1, 77, 0, communicator, stream), INVALID_ARGUMENT);
    assert_eq!(ncclGroupEnd(), INVALID_ARGUMENT);
    assert_eq!(ncclGroupEnd(), INVALID_USAGE, "it was not begun");
    // What a rank sends to itself and does not receive, or of another length.
    assert_eq!(ncclSend(from, 1, FLOAT, 0, communicator, stream), INVALID_USAGE);
    ncclGroupStart();
    ncclSend(from, 4, 1, 0, communicator, stream);
    ncclRecv(to, 2, 1, 0, communicator, stream);
    assert_eq!(ncclGroupEnd(), INVALID_USAGE);
    assert_eq!(driver.read(to), 0);
    let id = identifier().unwrap();
    assert_eq!(join(&id, 2, 2), Err(INVALID_ARGUMENT));
    assert_eq!(join(&[0; 128], 0, 1), Err(INVALID_ARGUMENT));
    // Nothing has written what is sent.
    let unwritten: u64 = made(|out| cuMemAlloc_v2(out, 4)).unwrap();
    assert_eq!(ncclAllGather(unwritten, to, 1, FLOAT, communicator, stream), SUCCESS);
    assert_eq!(done(cuStreamQuery(stream)), Err(Code::LAUNCH_FAILED));
}

/// A send that the other does not receive, and a message of another length: the work does not end, which is
/// seen in bounded time, and goes on after the communicator is given up.
#[test]
fn what_the_other_does_not_do_is_seen_in_bounded_time() {
    let driver = Driver::new();
    let [from, to] = [5, 0].map(|value| driver.word(value));
    let error = |communicator| {
        let mut place = MaybeUninit::new(0);
        assert_eq!(ncclCommGetAsyncError(communicator, Some(&mut place)), SUCCESS);
        // SAFETY: it was initialised.
        unsafe { place.assume_init() }
    };
    let [first, second] = two(Duration::from_millis(200));
    let began = Instant::now();
    assert_eq!(ncclSend(from, 1, FLOAT, 1, first, driver.stream), SUCCESS);
    assert!(began.elapsed() < Duration::from_secs(5));
    assert_eq!(done(cuStreamQuery(driver.stream)), Err(Code::NOT_READY));
    assert_eq!(error(first), SUCCESS, "nobody knows why");
    assert_eq!(ncclCommAbort(first), SUCCESS);
    done(cuStreamQuery(driver.stream)).unwrap();
    // The other has gone.
    assert_eq!(ncclRecv(to, 2, FLOAT, 0, second, driver.stream), INVALID_ARGUMENT, "two words of one");
    assert_eq!(ncclRecv(to, 2, 1, 0, second, driver.stream), SUCCESS);
    assert_eq!(done(cuStreamQuery(driver.stream)), Err(Code::NOT_READY));
    assert_eq!(error(second), INVALID_USAGE, "four bytes were sent, and two are wanted");
    ncclCommAbort(second);

    let [first, second] = two(Duration::from_millis(200));
    assert_eq!(ncclCommDestroy(second), SUCCESS);
    assert_eq!(ncclRecv(to, 1, FLOAT, 1, first, driver.stream), SUCCESS);
    assert_eq!(error(first), REMOTE_ERROR);
    ncclCommAbort(first);
    assert_eq!(cuEventQuery(0), Code::INVALID_HANDLE.0);
}
