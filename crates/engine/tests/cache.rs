//! The prefix cache: what is reused, why not more, the same answers with and without, on disk too.

mod support;

use std::{fs, path::Path, time::Duration};

use cachalot_chip::Mode;
use cachalot_engine::{CacheOptions, MissReason, Request, SamplingOptions, Service, ServiceOptions};
use support::{Answer, ask, prompt, request, service, small};

fn with_cache(cache: Option<CacheOptions>) -> ServiceOptions {
    ServiceOptions { cache, ..small() }
}

fn on_disk(folder: &Path) -> ServiceOptions {
    with_cache(Some(CacheOptions {
        directory: Some(folder.to_owned()),
        ..CacheOptions::default()
    }))
}

/// Several turns of a conversation with a long beginning: each prompt is the last one, its answer and a little more.
fn converse(services: &mut dyn Iterator<Item = Service>, turn_count: usize) -> Vec<(Vec<u32>, Answer)> {
    let mut text = prompt(1, 2500);
    let mut turns = Vec::new();
    for turn in 0..turn_count {
        let service = services.next().expect("a service for each turn");
        let asked = Request {
            sampling: SamplingOptions {
                seed: turn as u64,
                ..SamplingOptions::default()
            },
            borders: vec![700],
            ..request(text.clone(), 40)
        };
        let answer = ask(&service, asked);
        let before = text.clone();
        text.extend(answer.tokens());
        text.extend(prompt(50 + turn, 60));
        turns.push((before, answer));
    }
    turns
}

#[test]
fn conversations_are_computed_once_and_answered_the_same() {
    for mode in [Mode::Reference, Mode::Fast] {
        let folder = tempfile::tempdir().expect("a folder");
        let mut without = std::iter::repeat_with(|| service(mode, with_cache(None)));
        let expected = converse(&mut without, 3);
        assert!(
            expected
                .iter()
                .all(|(_, answer)| answer.missed == Some(MissReason::Disabled))
        );
        // Each turn by a new process that only has the files.
        let mut restarted = std::iter::repeat_with(|| service(mode, on_disk(folder.path())));
        let turns = converse(&mut restarted, 3);
        for (turn, ((_, expected), (text, found))) in expected.iter().zip(&turns).enumerate() {
            assert_eq!(found.events, expected.events, "{mode}, turn {turn}");
            let old = if turn == 0 {
                0
            } else {
                turns[turn - 1].0.len() + turns[turn - 1].1.events.len()
            };
            assert!(
                100 * found.reused >= 99 * old,
                "{mode}, turn {turn}: {} of {old} of {}",
                found.reused,
                text.len()
            );
            let from = found.missed.and_then(|missed| missed.position());
            assert!(from.is_none_or(|from| from >= found.reused), "{:?}", found.missed);
        }
        assert_eq!(turns[0].1.missed, Some(MissReason::FirstTime { from: 0 }));
    }
}

#[test]
fn every_answer_tells_why_not_more_was_reused() {
    let service = service(Mode::Fast, small());
    let text = prompt(1, 3000);
    let ask = |text: &[u32]| {
        let answer = ask(&service, request(text.to_vec(), 1));
        (answer.reused, answer.missed)
    };
    assert_eq!(ask(&text), (0, Some(MissReason::FirstTime { from: 0 })));
    // Once more: all but the last token, which every answer needs.
    assert_eq!(ask(&text), (2999, None));
    // Longer, and another end that can be rolled back to.
    assert_eq!(
        ask(&[&text[..], &[7, 8, 9]].concat()),
        (3000, Some(MissReason::FirstTime { from: 3000 }))
    );
    assert_eq!(
        ask(&[&text[..2995], &[7, 8, 9]].concat()),
        (2995, Some(MissReason::Diverged { at: 2995 }))
    );
    // In the middle: from the snapshot before.
    assert_eq!(
        ask(&[&text[..2500], &[7; 100]].concat()),
        (2048, Some(MissReason::Diverged { at: 2500 }))
    );
    assert_eq!(ask(&text[..1000]), (0, Some(MissReason::ReplayBound { known: 999 })));
    assert_eq!(ask(&prompt(2, 300)).0, 0);
    let status = service.status();
    assert_eq!(status.reused_token_count, 2999 + 3000 + 2995 + 2048);
    assert!(status.missed_token_counts["diverged"] > 0);
}

#[test]
fn what_was_dropped_for_room_is_told() {
    let tiny = CacheOptions {
        memory_byte_count_max: 6 << 20,
        ..CacheOptions::default()
    };
    let service = service(Mode::Fast, with_cache(Some(tiny)));
    for seed in 0..12 {
        ask(&service, request(prompt(seed, 2100), 1));
        let memory = service.status().memory;
        assert!(
            memory.cached_page_bytes + memory.cached_tail_bytes <= 6 << 20,
            "{memory:?}"
        );
    }
    let answer = ask(&service, request(prompt(0, 2100), 1));
    assert_eq!(
        (answer.reused, answer.missed),
        (0, Some(MissReason::Evicted { known: 0 }))
    );
}

#[test]
fn damaged_files_are_never_used() {
    let folder = tempfile::tempdir().expect("a folder");
    let asked = || request(prompt(4, 1500), 8);
    let expected = ask(&service(Mode::Fast, on_disk(folder.path())), asked()).tokens();
    let files = || -> Vec<_> {
        let own = fs::read_dir(folder.path())
            .expect("readable")
            .next()
            .expect("one model")
            .expect("readable");
        let entries = fs::read_dir(own.path()).expect("readable");
        let mut files: Vec<_> = entries.map(|entry| entry.expect("readable").path()).collect();
        files.sort();
        files
    };
    let file_count = files().len();
    assert!(file_count >= 6, "five pages and a snapshot: {:?}", files());
    for index in 0..file_count {
        // A flipped bit in the middle or the loss of the end.
        let path = &files()[index % files().len()];
        let mut bytes = fs::read(path).expect("readable");
        let middle = bytes.len() / 2;
        if index % 2 == 0 {
            bytes[middle] ^= 16;
        } else {
            bytes.truncate(middle);
        }
        fs::write(path, bytes).expect("writable");
        let answer = ask(&service(Mode::Fast, on_disk(folder.path())), asked());
        assert_eq!(answer.tokens(), expected);
        let again = ask(&service(Mode::Fast, on_disk(folder.path())), asked());
        assert_eq!(
            (again.tokens(), again.reused),
            (expected.clone(), 1499),
            "it was written again"
        );
    }
}

#[test]
fn files_of_another_mode_are_left_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let asked = || request(prompt(4, 600), 3);
    ask(&service(Mode::Fast, on_disk(folder.path())), asked());
    let answer = ask(&service(Mode::Reference, on_disk(folder.path())), asked());
    assert_eq!((answer.reused, answer.missed), (0, Some(MissReason::OtherModel)));
    let answer = ask(&service(Mode::Fast, on_disk(folder.path())), asked());
    assert_eq!(answer.reused, 599);
}

#[test]
fn without_a_usable_folder_the_service_goes_on() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("file");
    fs::write(&file, "not a folder").expect("writable");
    for unusable in [file.join("below"), Path::new("/proc/no-such-place").to_owned()] {
        let service = service(Mode::Fast, on_disk(&unusable));
        let asked = || request(prompt(4, 600), 3);
        ask(&service, asked()).finish();
        assert_eq!(ask(&service, asked()).reused, 599);
        assert!(
            service
                .status()
                .cache_fault
                .is_some_and(|fault| fault.contains(&*unusable.to_string_lossy()))
        );
    }
    // Two at once: the second one does without.
    let first = service(Mode::Fast, on_disk(folder.path()));
    let second = service(Mode::Fast, on_disk(folder.path()));
    ask(&second, request(prompt(4, 600), 3)).finish();
    assert!(
        second
            .status()
            .cache_fault
            .is_some_and(|fault| fault.contains("another process"))
    );
    // The folder vanishes, for good: a file takes its place.
    fs::remove_dir_all(folder.path()).expect("removable");
    fs::write(folder.path(), "").expect("writable");
    for seed in 0..3 {
        ask(&first, request(prompt(seed, 600), 3)).finish();
        std::thread::sleep(Duration::from_millis(100));
    }
    ask(&first, request(prompt(9, 30), 3)).finish();
    assert!(first.status().cache_fault.is_some());
    fs::remove_file(folder.path()).expect("removable");
}

#[test]
fn the_folder_keeps_to_its_size() {
    let folder = tempfile::tempdir().expect("a folder");
    let limit = 3 << 20;
    let options = || {
        with_cache(Some(CacheOptions {
            directory: Some(folder.path().to_owned()),
            disk_byte_count_max: limit,
            ..CacheOptions::default()
        }))
    };
    let service = service(Mode::Fast, options());
    for seed in 0..8 {
        ask(&service, request(prompt(seed, 1500), 3)).finish();
    }
    drop(service);
    let own = fs::read_dir(folder.path())
        .expect("readable")
        .next()
        .expect("one model")
        .expect("readable");
    let entries = fs::read_dir(own.path()).expect("readable");
    let total: u64 = entries
        .map(|entry| entry.expect("readable").metadata().expect("readable").len())
        .sum();
    assert!(total > limit / 4 && total <= limit, "{total} bytes");
}
