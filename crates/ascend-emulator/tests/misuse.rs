//! Each misuse that hardware would punish is caught, and told.

mod client;

use client::*;
use std::ptr::null_mut;

struct Product {
    client: Client,
    a: Handle,
    tensors: [Handle; 3],
    out: Handle,
}

/// `[1, 2, 3] · [2, 2, 2]`, ready for phases.
fn product(variables: &[(&'static str, &str)]) -> Product {
    let client = Client::new("910B3", variables);
    let (a, b, out) = (
        client.upload(&[1_f32, 2.0, 3.0]),
        client.upload(&[2_f32; 3]),
        client.allocate(12),
    );
    let tensors = [a, b, out].map(|address| client.tensor(&[3], F32, address));
    Product {
        client,
        a,
        tensors,
        out,
    }
}

impl Product {
    fn executor(&self) -> Handle {
        let [a, b, out] = self.tensors;
        self.client.multiply(a, b, out).unwrap()
    }
    fn result(&self) -> Vec<f32> {
        self.client.download(self.out, 3)
    }
}

#[test]
fn work_is_done_when_synchronised_and_not_before() {
    let work = product(&[]);
    assert_eq!(work.client.launch("aclnnMul", work.executor(), work.client.stream), 0);
    assert_eq!(
        work.result()[0].to_bits(),
        0xA5A5_A5A5,
        "poison until the stream is waited for"
    );
    assert_eq!(work.client.synchronise(work.client.stream), 0);
    assert_eq!(work.result(), [2.0, 4.0, 6.0]);
}

#[test]
fn a_missing_event_shows_as_a_wrong_result() {
    for waits in [false, true] {
        let work = product(&[]);
        let client = &work.client;
        let (second, event) = (client.new_stream(), client.new_event());
        assert_eq!(client.launch("aclnnMul", work.executor(), client.stream), 0);
        if waits {
            let pair = [
                ("aclrtRecordEvent", event, client.stream),
                ("aclrtStreamWaitEvent", second, event),
            ];
            for (function, first, other) in pair {
                assert_eq!(
                    client.symbol::<extern "C" fn(Handle, Handle) -> i32>(function)(first, other),
                    0
                );
            }
        }
        let twice = client.allocate(12);
        let executor = client
            .multiply(work.tensors[2], work.tensors[1], client.tensor(&[3], F32, twice))
            .unwrap();
        // Its own workspace would be needed on hardware; the operator does not use its contents.
        assert_eq!(client.launch("aclnnMul", executor, second), 0);
        assert_eq!(client.synchronise(second), 0);
        assert_eq!(client.download::<f32>(twice, 3) == [4.0, 8.0, 12.0], waits);
    }
}

#[test]
fn executors_serve_once_unless_repeatable() {
    let work = product(&[]);
    let client = &work.client;
    let executor = work.executor();
    assert_eq!(client.launch("aclnnMul", executor, client.stream), 0);
    assert_eq!(client.launch("aclnnMul", executor, client.stream), 561101);
    let executor = work.executor();
    assert_eq!(
        client.symbol::<extern "C" fn(Handle) -> i32>("aclSetAclOpExecutorRepeatable")(executor),
        0
    );
    for _ in 0..2 {
        assert_eq!(client.launch("aclnnMul", executor, client.stream), 0);
    }
    assert_eq!(
        client.symbol::<extern "C" fn(Handle) -> i32>("aclDestroyAclOpExecutor")(executor),
        0
    );
    assert_eq!(
        client.launch("aclnnAdd", work.executor(), client.stream),
        561101,
        "an executor of another operator"
    );
}

#[test]
fn a_short_workspace_and_a_destroyed_tensor_stop_the_second_phase() {
    let work = product(&[]);
    let client = &work.client;
    assert_eq!(
        client.launch_with("aclnnMul", work.executor(), client.stream, 1),
        361001
    );
    assert!(client.message().contains("workspace"));
    let executor = work.executor();
    assert_eq!(client.destroy(work.tensors[0]), 0);
    assert_eq!(client.launch("aclnnMul", executor, client.stream), 561103);
    assert_eq!(client.destroy(work.tensors[0]), 561103, "destroyed twice");
}

#[test]
fn first_phases_refuse_what_the_documents_do() {
    let work = product(&[]);
    let client = &work.client;
    let [a, b, out] = work.tensors;
    let unaligned = client.tensor(&[1], F32, work.a.wrapping_byte_add(4));
    let cases = [
        (null_mut(), b, out, 161001, "null"),
        (a, b, client.tensor(&[3], F32, work.a), 161002, "overlaps"),
        (a, b, client.tensor(&[3], BF16, work.out), 161002, "types"),
        (a, client.tensor(&[64], F32, work.a), out, 161002, "allocated"),
        (
            client.tensor(&[3], E4M3, work.a),
            b,
            out,
            161002,
            "does not exist on this chip",
        ),
        (unaligned, b, out, 161002, "aligned"),
        (a, client.tensor(&[2], F32, work.a), out, 161002, "broadcast"),
    ];
    for (left, right, out, code, text) in cases {
        assert_eq!(client.multiply(left, right, out).err(), Some(code), "{text}");
        let message = client.message();
        assert!(
            message.contains(text) && message.contains("aclnnMul") && message.contains("ascend-emulator"),
            "{message}"
        );
    }
}

#[test]
fn memory_is_guarded() {
    let work = product(&[]);
    let client = &work.client;
    assert_eq!(client.try_allocate(0).err(), Some(107000));
    assert_eq!(client.try_allocate(usize::MAX).err(), Some(207001));
    let bytes = [0_u8; 16];
    assert_eq!(client.copy(work.a, 8, bytes.as_ptr().cast(), 16, 1), 107000, "destMax");
    assert_eq!(
        client.copy(work.a, 16, bytes.as_ptr().cast(), 16, 1),
        107000,
        "behind the buffer"
    );
    assert_eq!(client.launch("aclnnMul", work.executor(), client.stream), 0);
    assert_eq!(client.free(work.a), 0);
    assert_eq!(client.free(work.a), 107000, "freed twice");
    assert_eq!(
        client.synchronise(client.stream),
        507015,
        "freed before the operator ran"
    );
    let message = client.message();
    assert!(message.contains("aclnnMul") && message.contains("freed"), "{message}");
}

#[test]
fn a_thread_without_device_and_an_unknown_stream_are_refused() {
    let work = product(&[]);
    let set = work
        .client
        .symbol::<extern "C" fn(*mut Handle) -> i32>("aclrtCreateStream");
    assert_eq!(std::thread::spawn(move || set(&mut null_mut())).join().unwrap(), 107002);
    assert_eq!(work.client.launch("aclnnMul", work.executor(), 7 as Handle), 361001);
    assert_eq!(work.client.synchronise(7 as Handle), 107003);
}

#[test]
fn following_a_device_address_ends_the_process_and_says_why() {
    let work = product(&[]);
    let mut ends = [0; 2];
    // SAFETY: the child touches only the pipe and the forbidden address.
    let (status, text) = unsafe {
        assert_eq!(libc::pipe(ends.as_mut_ptr()), 0);
        let child = libc::fork();
        if child == 0 {
            libc::dup2(ends[1], 2);
            std::ptr::read_volatile(work.a.cast::<u8>());
            libc::_exit(0);
        }
        libc::close(ends[1]);
        let mut status = 0;
        libc::waitpid(child, &mut status, 0);
        let mut text = [0_u8; 200];
        let count = libc::read(ends[0], text.as_mut_ptr().cast(), text.len());
        libc::close(ends[0]);
        (
            status,
            String::from_utf8_lossy(&text[..count.max(0) as usize]).into_owned(),
        )
    };
    assert!(libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == libc::SIGSEGV);
    assert!(text.contains("the host dereferenced a device address"), "{text}");
}

#[test]
fn faults_come_where_told() {
    let work = product(&[
        ("CACHALOT_ASCEND_EMULATOR_FAIL_ALLOCATION", "5"),
        ("CACHALOT_ASCEND_EMULATOR_FAIL_LAUNCH", "2"),
    ]);
    let client = &work.client;
    assert_eq!(
        client.try_allocate(64).err(),
        Some(207001),
        "the fifth: four were made before"
    );
    assert!(client.try_allocate(64).is_ok());
    for expected in [0, 507015, 0] {
        assert_eq!(client.launch("aclnnMul", work.executor(), client.stream), 0);
        assert_eq!(client.synchronise(client.stream), expected);
    }
    drop(work);
    let work = product(&[("CACHALOT_ASCEND_EMULATOR_WITHOUT", "aclnnMul,aclnnTopk")]);
    let [a, b, out] = work.tensors;
    assert_eq!(work.client.multiply(a, b, out).err(), Some(561003));
}

#[test]
fn memory_size_is_a_limit() {
    let client = Client::new("950PR", &[("CACHALOT_ASCEND_EMULATOR_HBM_BYTES", "1048576")]);
    assert_eq!(client.try_allocate(2 << 20).err(), Some(207001));
    assert!(client.try_allocate(1 << 19).is_ok());
}

#[test]
fn graphs_replay_with_new_contents_and_refuse_blocking_calls() {
    let work = product(&[]);
    let client = &work.client;
    let begin = client.symbol::<extern "C" fn(Handle, i32) -> i32>("aclmdlRICaptureBegin");
    let end = client.symbol::<extern "C" fn(Handle, *mut Handle) -> i32>("aclmdlRICaptureEnd");
    let pair = |name: &str, first, second| client.symbol::<extern "C" fn(Handle, Handle) -> i32>(name)(first, second);
    let mut graph = null_mut();
    assert_eq!(begin(client.stream, 0), 0);
    assert_eq!(client.launch("aclnnMul", work.executor(), client.stream), 0);
    assert_eq!(end(client.stream, &mut graph), 0);
    assert_eq!(client.synchronise(client.stream), 0);
    assert_eq!(work.result()[0].to_bits(), 0xA5A5_A5A5, "capture runs nothing");
    for first in [1_f32, 5.0] {
        assert_eq!(client.copy(work.a, 4, (&raw const first).cast(), 4, 1), 0);
        assert_eq!(pair("aclmdlRIExecuteAsync", graph, client.stream), 0);
        assert_eq!(client.synchronise(client.stream), 0);
        assert_eq!(work.result(), [2.0 * first, 4.0, 6.0]);
    }

    assert_eq!(begin(client.stream, 0), 0);
    assert_eq!(client.synchronise(client.stream), 107027);
    assert_eq!(end(client.stream, &mut graph), 507903, "spoiled");
    assert_eq!(begin(client.stream, 0), 0);
    assert_eq!(client.copy(work.a, 4, [0_u8; 4].as_ptr().cast(), 4, 1), 107041);
    assert_eq!(end(client.stream, &mut graph), 507903);
    assert_eq!(end(client.stream, &mut graph), 107029, "not capturing");

    for (joins_back, code) in [(false, 107025), (true, 0)] {
        let (second, fork, join) = (client.new_stream(), client.new_event(), client.new_event());
        assert_eq!(begin(client.stream, 0), 0);
        assert_eq!(pair("aclrtRecordEvent", fork, client.stream), 0);
        assert_eq!(pair("aclrtStreamWaitEvent", second, fork), 0);
        assert_eq!(client.launch("aclnnMul", work.executor(), second), 0);
        assert_eq!(pair("aclrtRecordEvent", join, second), 0);
        if joins_back {
            assert_eq!(pair("aclrtStreamWaitEvent", client.stream, join), 0);
        }
        assert_eq!(end(client.stream, &mut graph), code);
    }
}

#[test]
fn nobody_takes_it_for_hardware() {
    let client = Client::new("910C", &[]);
    let mut text = [0_u8; 128];
    client.symbol::<extern "C" fn(*const u8, *mut u8) -> i32>("aclsysGetVersionStr")(
        c"runtime".as_ptr().cast(),
        text.as_mut_ptr(),
    );
    assert!(String::from_utf8_lossy(&text).contains("emulator"));
}

#[test]
fn it_knows_no_crate_of_this_workspace() {
    let manifest = include_str!("../Cargo.toml");
    assert!(
        !manifest
            .lines()
            .any(|line| line.starts_with("cachalot") || line.contains("path ="))
    );
}

#[test]
fn streams_may_also_run_at_once() {
    for (mode, waiting) in [("eager", 0), ("late", 1)] {
        let work = product(&[("CACHALOT_ASCEND_EMULATOR_STREAMS", mode)]);
        let client = &work.client;
        assert_eq!(client.launch("aclnnMul", work.executor(), client.stream), 0);
        let mut status = -1;
        assert_eq!(
            client.symbol::<extern "C" fn(Handle, *mut i32) -> i32>("aclrtStreamQuery")(client.stream, &mut status),
            0
        );
        assert_eq!(status, waiting);
        assert_eq!(work.result() == [2.0, 4.0, 6.0], waiting == 0);
    }
}
