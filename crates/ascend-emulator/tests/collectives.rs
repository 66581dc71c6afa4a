//! Ranks as processes: this test's program starts itself once for each rank.

mod client;

use client::*;
use std::process::{Child, Command, Stdio};
use std::ptr::null_mut;
use std::time::Instant;

const HCCL_FLOAT: i32 = 4;
const SUM: i32 = 0;
const TEST: &str = "ranks_exchange_and_a_lost_one_is_told";
type Reduce = extern "C" fn(Handle, Handle, u64, i32, i32, Handle, Handle) -> i32;
type Gather = extern "C" fn(Handle, Handle, u64, i32, Handle, Handle) -> i32;
type Init = extern "C" fn(u32, *const u8, u32, *mut Handle) -> i32;

fn join(client: &Client, size: u32, rank: u32, meeting: &std::path::Path) -> Handle {
    let mut root = vec![0_u8; 4108];
    if rank == 0 {
        assert_eq!(
            client.symbol::<extern "C" fn(*mut u8) -> i32>("HcclGetRootInfo")(root.as_mut_ptr()),
            0
        );
        let unfinished = meeting.with_extension("unfinished");
        std::fs::write(&unfinished, &root).unwrap();
        std::fs::rename(unfinished, meeting).unwrap();
    } else {
        while !meeting.exists() {
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
        root = std::fs::read(meeting).unwrap();
    }
    let mut communicator = null_mut();
    let code = client.symbol::<Init>("HcclCommInitRootInfo")(size, root.as_ptr(), rank, &mut communicator);
    assert_eq!(code, 0, "{}", client.message());
    communicator
}

/// What a rank of `mode` does; anything wrong ends its process with a panic.
fn act(mode: &str, size: u32, rank: u32, meeting: &std::path::Path) {
    let client = Client::new("910C", &[]);
    let (communicator, stream) = (join(&client, size, rank, meeting), client.stream);
    let mine: Vec<f32> = (0..size).map(|place| (10 * rank + place) as f32).collect();
    let (from, to) = (client.upload(&mine), client.allocate(4 * (size * size) as usize));
    let reduce = client.symbol::<Reduce>("HcclAllReduce");
    let others: f32 = (0..size).map(|rank| 10.0 * rank as f32).sum();
    if mode == "disagrees" && rank == 1 {
        let gather = client.symbol::<Gather>("HcclAllGather");
        assert_eq!(gather(from, to, 2, HCCL_FLOAT, communicator, stream), 0);
    } else {
        assert_eq!(
            reduce(from, to, u64::from(size), HCCL_FLOAT, SUM, communicator, stream),
            0
        );
    }
    let code = client.synchronise(stream);
    if mode != "works" {
        assert_eq!(code, 507904);
        let (message, expected) = (client.message(), if mode == "lost" { "rank" } else { "ranks disagree" });
        assert!(message.contains("Hccl") && message.contains(expected), "{message}");
        let (mut state, ask) = (
            0,
            client.symbol::<extern "C" fn(Handle, *mut i32) -> i32>("HcclGetCommAsyncError"),
        );
        assert_eq!((ask(communicator, &mut state), state), (0, 21));
        return;
    }
    assert_eq!(code, 0, "{}", client.message());
    let sums: Vec<f32> = (0..size).map(|place| others + (size * place) as f32).collect();
    assert_eq!(client.download::<f32>(to, size as usize), sums);

    let scatter = client.symbol::<Reduce>("HcclReduceScatter");
    assert_eq!(scatter(from, to, 1, HCCL_FLOAT, SUM, communicator, stream), 0);
    assert_eq!(client.synchronise(stream), 0, "{}", client.message());
    assert_eq!(client.download::<f32>(to, 1), [sums[rank as usize]]);

    let gather = client.symbol::<Gather>("HcclAllGather");
    assert_eq!(gather(from, to, u64::from(size), HCCL_FLOAT, communicator, stream), 0);
    assert_eq!(client.synchronise(stream), 0);
    let all: Vec<f32> = (0..size)
        .flat_map(|rank| (0..size).map(move |place| (10 * rank + place) as f32))
        .collect();
    assert_eq!(client.download::<f32>(to, all.len()), all);

    let broadcast = client.symbol::<extern "C" fn(Handle, u64, i32, u32, Handle, Handle) -> i32>("HcclBroadcast");
    let copy = client.upload(&mine);
    assert_eq!(broadcast(copy, u64::from(size), HCCL_FLOAT, 1, communicator, stream), 0);
    assert_eq!(client.synchronise(stream), 0);
    assert_eq!(client.download::<f32>(copy, 2), [10.0, 11.0]);

    // Rank r sends s numbers to rank s: the number that rank s has at place s, over and over.
    type AllToAll =
        extern "C" fn(Handle, *const u64, *const u64, i32, Handle, *const u64, *const u64, i32, Handle, Handle) -> i32;
    let sent: Vec<f32> = (0..size)
        .flat_map(|to| (0..to).map(move |_| (100 * rank + to) as f32))
        .collect();
    let counts: Vec<u64> = (0..u64::from(size)).collect();
    let places: Vec<u64> = counts.iter().map(|&count| (0..count).sum()).collect();
    let (wanted, targets) = (
        vec![u64::from(rank); size as usize],
        counts.iter().map(|n| n * u64::from(rank)).collect::<Vec<_>>(),
    );
    let code = client.symbol::<AllToAll>("HcclAlltoAllV")(
        client.upload(&sent),
        counts.as_ptr(),
        places.as_ptr(),
        HCCL_FLOAT,
        to,
        wanted.as_ptr(),
        targets.as_ptr(),
        HCCL_FLOAT,
        communicator,
        stream,
    );
    assert_eq!((code, client.synchronise(stream)), (0, 0), "{}", client.message());
    let expected: Vec<f32> = (0..size)
        .flat_map(|from| (0..rank).map(move |_| (100 * from + rank) as f32))
        .collect();
    assert_eq!(client.download::<f32>(to, expected.len()), expected);
    assert_eq!(
        client.symbol::<extern "C" fn(Handle) -> i32>("HcclCommDestroy")(communicator),
        0
    );
}

fn start(mode: &str, size: u32, rank: u32, meeting: &std::path::Path) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", TEST, "--nocapture"])
        .env("RANK", format!("{mode} {size} {rank}"))
        .env("MEETING", meeting);
    command
        .env("CACHALOT_ASCEND_EMULATOR_TIMEOUT_S", "20")
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    if mode == "lost" && rank == size - 1 {
        command.env("CACHALOT_ASCEND_EMULATOR_LOSE_RANK_AT", "1");
    }
    command.spawn().unwrap()
}

#[test]
fn ranks_exchange_and_a_lost_one_is_told() {
    if let (Ok(rank), Some(meeting)) = (std::env::var("RANK"), std::env::var_os("MEETING")) {
        let words: Vec<&str> = rank.split(' ').collect();
        return act(
            words[0],
            words[1].parse().unwrap(),
            words[2].parse().unwrap(),
            meeting.as_ref(),
        );
    }
    for (mode, size) in [("works", 2), ("works", 4), ("lost", 3), ("disagrees", 3)] {
        let folder = tempfile::tempdir().unwrap();
        let (meeting, begin) = (folder.path().join("root"), Instant::now());
        let ranks: Vec<Child> = (0..size).map(|rank| start(mode, size, rank, &meeting)).collect();
        for (rank, child) in ranks.into_iter().enumerate() {
            let done = child.wait_with_output().unwrap();
            assert!(
                done.status.success(),
                "{mode}, rank {rank}: {}",
                String::from_utf8_lossy(&done.stderr)
            );
        }
        assert!(
            begin.elapsed().as_secs() < 15,
            "{mode}: a rank waited for its time to end"
        );
    }
}
