//! Several downloads at once, and downloads that are cancelled.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use cachalot_hub::{Error, Event, Revision, is_model_file};

use crate::fake::{World, content, model, repository};
use crate::server::{End, Reply};

const SHARD: &str = "model-00001-of-00002.safetensors";

#[test]
fn two_downloads_at_once_share_the_work() {
    let files = model();
    let of_server = files.clone();
    let world = World::with(files, move |request, _| {
        let hash = request.target.strip_prefix("/store/")?.split('?').next()?;
        let file = of_server.iter().find(|file| file.hash() == hash)?;
        thread::sleep(Duration::from_millis(150));
        Some(content(file, request))
    });
    let waited = AtomicBool::new(false);
    let (hub, never) = (world.hub(), AtomicBool::new(false));
    let progress = |event: Event<'_>| {
        if matches!(event, Event::Waiting { .. }) {
            waited.store(true, Ordering::Relaxed);
        }
    };
    let download = || {
        hub.download(&repository(), &Revision::default(), &is_model_file, &progress, &never)
            .unwrap()
    };
    thread::scope(|scope| {
        let other = scope.spawn(download);
        let snapshot = download();
        assert_eq!(other.join().unwrap(), snapshot);
        world.assert_complete(&snapshot);
    });
    assert!(waited.into_inner());
    assert_eq!(
        world.server.requests_for("/store/").len(),
        2,
        "every shard is fetched once"
    );
}

/// Cancels as soon as `progress` has seen the first bytes of the shard; gives the time it took to end.
fn cancel_at_first_bytes(world: &World) -> (Error, Duration) {
    let cancel = AtomicBool::new(false);
    let (arrived, arrival) = mpsc::channel();
    let arrived = Mutex::new(arrived);
    let progress = |event: Event<'_>| match event {
        Event::Advanced {
            file,
            bytes_of_file: 1..,
            ..
        } if file.as_str() == SHARD => {
            let _ = arrived.lock().unwrap().send(());
        }
        Event::Retrying { .. } => drop(arrived.lock().unwrap().send(())),
        _ => {}
    };
    let hub = world.hub();
    thread::scope(|scope| {
        let cancel_flag = &cancel;
        let canceller = scope.spawn(move || {
            arrival.recv().unwrap();
            cancel_flag.store(true, Ordering::Relaxed);
            Instant::now()
        });
        let error = hub
            .download(&repository(), &Revision::default(), &is_model_file, &progress, &cancel)
            .unwrap_err();
        (error, canceller.join().unwrap().elapsed())
    })
}

#[test]
fn a_cancelled_download_ends_at_once_and_keeps_what_it_has() {
    let files = model();
    let shard = files.iter().find(|file| file.name == SHARD).unwrap().clone();
    let world = World::with(files, move |request, earlier_count| {
        let is_shard = request.target.starts_with(&format!("/store/{}", shard.hash()));
        (is_shard && earlier_count == 0).then(|| content(&shard, request).cut_after(1000).then(End::Silence))
    });
    let (error, elapsed) = cancel_at_first_bytes(&world);
    assert!(matches!(error, Error::Cancelled), "{error}");
    // The server is silent and the stall limit is 30 s.
    assert!(elapsed < Duration::from_secs(5), "{elapsed:?}");
    assert_eq!(std::fs::metadata(world.partial_blob(SHARD)).unwrap().len(), 1000);
    assert_eq!(world.find_cached(), None);
    world.assert_complete(&world.download().unwrap());
}

#[test]
fn a_pause_can_be_cancelled() {
    let world = World::with(model(), |request, _| {
        request
            .target
            .starts_with("/api/")
            .then(|| Reply::new(503, "").header("Retry-After", "60"))
    });
    let (error, elapsed) = cancel_at_first_bytes(&world);
    assert!(matches!(error, Error::Cancelled), "{error}");
    assert!(elapsed < Duration::from_secs(5), "{elapsed:?}");
}

#[test]
fn a_failure_ends_the_other_connections() {
    let files = model();
    let shard = files.iter().find(|file| file.name == SHARD).unwrap().clone();
    let world = World::with(files, move |request, _| {
        if request.target.starts_with(&format!("/store/{}", shard.hash())) {
            return Some(content(&shard, request).cut_after(1000).then(End::Silence));
        }
        let is_other = request.target.starts_with("/store/");
        is_other.then(|| Reply::new(200, "nonsense"))
    });
    let start = Instant::now();
    let error = world.download().unwrap_err();
    assert!(matches!(error, Error::Length { .. }), "{error}");
    assert!(start.elapsed() < Duration::from_secs(10));
}
