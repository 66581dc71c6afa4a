//! Connections that break, servers that lie, contents that are wrong.

use std::fs;
use std::time::{Duration, Instant};

use cachalot_hub::Error;

use crate::fake::{File, World, answer, content, model};
use crate::server::{End, Reply, Request};

const SHARD: &str = "model-00001-of-00002.safetensors";
const SHARD_BYTES: usize = 300_000;

/// A model whose first shard is served by `odd`; it gets the proper reply to change.
fn with_shard(odd: impl Fn(Reply, &Request, usize) -> Option<Reply> + Send + Sync + 'static) -> World {
    let files = model();
    let shard = files.iter().find(|file| file.name == SHARD).unwrap().clone();
    let target = format!("/store/{}", shard.hash());
    World::with(files, move |request, earlier_count| {
        let is_shard = request.target.starts_with(&target);
        if is_shard {
            odd(content(&shard, request), request, earlier_count)
        } else {
            None
        }
    })
}

fn shard_requests(world: &World) -> Vec<Request> {
    world
        .server
        .requests_for(&format!("/store/{}", world.file(SHARD).hash()))
}

#[test]
fn a_cut_connection_continues_where_it_broke() {
    let world = with_shard(|reply, _, earlier_count| (earlier_count == 0).then(|| reply.cut_after(100_000)));
    world.assert_complete(&world.download().unwrap());
    let requests = shard_requests(&world);
    assert_eq!(requests.len(), 2);
    assert_eq!(requests[0].range_start(), None);
    let start = requests[1].range_start().expect("the second request asks for the rest");
    assert!((1..=100_000).contains(&start), "{start}");
}

#[test]
fn a_later_download_continues_what_an_earlier_one_left() {
    let world = with_shard(|reply, request, _| request.range_start().is_none().then(|| reply.cut_after(200_000)));
    let world = world.changing(|settings| settings.retry.attempt_count = 1);
    let error = world.download().unwrap_err();
    assert!(matches!(error, Error::Transport { .. }), "{error}");
    let left = fs::metadata(world.partial_blob(SHARD)).unwrap().len();
    assert!((1..=200_000).contains(&left));
    assert_eq!(world.find_cached(), None);

    let sent_before = world.server.body_bytes_sent();
    world.assert_complete(&world.download().unwrap());
    assert_eq!(
        shard_requests(&world).last().unwrap().range_start(),
        Some(left as usize)
    );
    let sent = world.server.body_bytes_sent() - sent_before;
    let others = 200_001 + 10_000;
    assert!(sent <= SHARD_BYTES as u64 - left + others, "{sent}");
}

#[test]
fn a_download_that_gets_on_may_be_cut_more_often_than_the_limit() {
    let file = File::large("model.safetensors", 9 << 20);
    let of_server = file.clone();
    let world = World::with(vec![file], move |request, _| {
        let is_stored = request.target.starts_with("/store/");
        is_stored.then(|| content(&of_server, request).cut_after((3 << 19) + 12_345))
    });
    assert_eq!(world.settings.retry.attempt_count, 3);
    world.assert_complete(&world.download().unwrap());
    assert!(world.server.requests_for("/store/").len() > 5);
}

#[test]
fn a_download_that_goes_in_circles_ends() {
    let file = File::large("model.safetensors", 5 << 20);
    let of_server = file.clone();
    let world = World::with(vec![file], move |request, _| {
        let is_stored = request.target.starts_with("/store/");
        // Two MiB, and then a refusal to continue them.
        let odd = || match request.range_start() {
            None => content(&of_server, request).cut_after(2 << 20),
            Some(_) => Reply::new(416, ""),
        };
        is_stored.then(odd)
    });
    world.download().unwrap_err();
    assert_eq!(world.server.requests_for("/store/").len(), 3);
}

#[test]
fn a_server_that_ignores_ranges_starts_the_file_again() {
    let world = with_shard(|reply, request, earlier_count| match earlier_count {
        0 => Some(reply.cut_after(100_000)),
        _ => {
            assert!(request.range_start().is_some());
            Some(Reply::new(200, File::large(SHARD, SHARD_BYTES).bytes))
        }
    });
    world.assert_complete(&world.download().unwrap());
    assert_eq!(shard_requests(&world).len(), 2);
}

#[test]
fn a_part_that_fits_nowhere_is_thrown_away() {
    // Longer than the file; then a server that answers another range than asked for; then 416.
    let world = World::new(model());
    fs::create_dir_all(world.folder().join("blobs")).unwrap();
    fs::write(world.partial_blob(SHARD), vec![0; SHARD_BYTES + 1]).unwrap();
    world.assert_complete(&world.download().unwrap());

    for odd in [
        Reply::new(206, vec![0; 10]).header("Content-Range", "bytes 0-9/10"),
        Reply::new(206, vec![0; 10]),
        Reply::new(416, ""),
    ] {
        let world = with_shard(move |_, request, _| request.range_start().map(|_| odd.clone()));
        fs::create_dir_all(world.folder().join("blobs")).unwrap();
        fs::write(world.partial_blob(SHARD), vec![0; 10]).unwrap();
        world.assert_complete(&world.download().unwrap());
    }
}

#[test]
fn a_wrong_content_is_fetched_once_more() {
    let wrong = |earlier_count_max| {
        with_shard(move |mut reply, _, earlier_count| {
            reply.body[77] ^= 1;
            (earlier_count <= earlier_count_max).then_some(reply)
        })
    };
    let world = wrong(0);
    world.assert_complete(&world.download().unwrap());
    assert_eq!(shard_requests(&world).len(), 2);

    let world = wrong(usize::MAX);
    let error = world.download().unwrap_err();
    let Error::Hash { file, expected, found } = &error else {
        panic!("{error}")
    };
    assert_eq!(file.as_str(), SHARD);
    assert_eq!(expected.hexadecimal(), world.file(SHARD).hash());
    assert_ne!(found, expected.hexadecimal());
    assert_eq!(shard_requests(&world).len(), 2);
    assert!(!world.blob(SHARD).exists() && !world.partial_blob(SHARD).exists());
    assert_eq!(world.find_cached(), None);
}

#[test]
fn a_damaged_part_on_disk_is_found_by_the_hash() {
    let world = World::new(model());
    fs::create_dir_all(world.folder().join("blobs")).unwrap();
    fs::write(world.partial_blob(SHARD), vec![0; 5000]).unwrap();
    world.assert_complete(&world.download().unwrap());
    let starts: Vec<_> = shard_requests(&world).iter().map(Request::range_start).collect();
    assert_eq!(starts, [Some(5000), None]);
}

#[test]
fn a_server_that_lies_about_the_length_is_not_believed() {
    type Odd = fn(Reply) -> Reply;
    let cases: [(u64, Odd); 4] = [
        (299_999, |reply| reply.announcing(299_999)),
        (300_001, |mut reply| {
            reply.body.push(0);
            reply
        }),
        (10, |_| chunked(&[7; 10])),
        (300_010, |reply| chunked(&[&reply.body[..], &[7; 10]].concat())),
    ];
    for (bytes, odd) in cases {
        let world = with_shard(move |reply, request, _| request.range_start().is_none().then(|| odd(reply)));
        let world = world.changing(|settings| settings.retry.attempt_count = 1);
        let error = world.download().unwrap_err();
        let Error::Length {
            bytes_expected,
            bytes_found,
            ..
        } = error
        else {
            panic!("{error}")
        };
        assert_eq!((bytes_expected, bytes_found), (300_000, bytes));
        assert!(!world.blob(SHARD).exists());
    }
}

fn chunked(body: &[u8]) -> Reply {
    let mut encoded = format!("{:x}\r\n", body.len()).into_bytes();
    encoded.extend_from_slice(body);
    encoded.extend_from_slice(b"\r\n0\r\n\r\n");
    Reply::new(200, encoded).header("Transfer-Encoding", "chunked")
}

#[test]
fn a_content_that_is_announced_to_be_another_is_refused() {
    for (name, value) in [
        ("X-Repo-Commit", "89abcdef0123456789abcdef0123456789abcdef"),
        ("X-Linked-ETag", "\"ce013625030ba8dba906f756967f9e9ca394464a\""),
        ("Content-Encoding", "gzip"),
    ] {
        let files = model();
        let of_server = files.clone();
        let world = World::with(files, move |request, _| {
            let is_config = request.target.ends_with("/config.json");
            let mut reply = answer(&of_server, request).filter(|_| is_config)?;
            reply.headers.retain(|(found, _)| found != name);
            Some(reply.header(name, value))
        });
        let error = world.download().unwrap_err();
        assert!(
            matches!(&error, Error::Answer { reason, .. } if reason.contains(name)),
            "{error}"
        );
    }
}

#[test]
fn silence_counts_as_a_cut() {
    let world =
        with_shard(|reply, _, earlier_count| (earlier_count == 0).then(|| reply.cut_after(1000).then(End::Silence)));
    let world = world.changing(|settings| settings.stall_timeout = Duration::from_millis(100));
    let start = Instant::now();
    world.assert_complete(&world.download().unwrap());
    assert!(start.elapsed() < Duration::from_secs(10));
    assert_eq!(shard_requests(&world)[1].range_start(), Some(1000));
}

#[test]
fn a_busy_server_gets_the_pause_that_it_asks_for() {
    let files = model();
    let world = World::with(files, |request, earlier_count| match earlier_count {
        0 if request.target.starts_with("/api/") => Some(Reply::new(429, "").header("Retry-After", "1")),
        0 if request.target.ends_with("/tokenizer.json") => Some(Reply::new(503, "")),
        1 if request.target.ends_with("/tokenizer.json") => Some(Reply::new(500, "")),
        _ => None,
    });
    let start = Instant::now();
    world.assert_complete(&world.download().unwrap());
    assert!(start.elapsed() >= Duration::from_secs(1));
    assert_eq!(world.server.requests_for("/tokenizer.json").len(), 3);
}

#[test]
fn an_expired_link_is_asked_for_again() {
    let world = with_shard(|_, _, earlier_count| (earlier_count == 0).then(|| Reply::new(403, "")));
    world.assert_complete(&world.download().unwrap());
    assert_eq!(world.server.requests_for(&format!("/{SHARD}")).len(), 2);
}
