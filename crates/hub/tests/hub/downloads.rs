//! What a download leaves in the cache, and what it asks for.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::{Condvar, Mutex};
use std::time::Duration;

use cachalot_hub::{Error, Event, HashAlgorithm, Revision, is_model_file};

use crate::fake::{COMMIT, File, TOKEN, World, answer, model, names_in, repository};
use crate::server::Reply;

#[test]
fn a_download_leaves_the_layout_of_the_hugging_face_cache() {
    let world = World::new(model());
    assert_eq!(world.find_cached(), None);
    let snapshot = world.download().unwrap();
    assert_eq!(snapshot, world.folder().join("snapshots").join(COMMIT));
    world.assert_complete(&snapshot);

    assert_eq!(fs::read_to_string(world.folder().join("refs/main")).unwrap(), COMMIT);
    let shard = "model-00001-of-00002.safetensors";
    let target = fs::read_link(snapshot.join(shard)).unwrap();
    assert_eq!(target, Path::new("../../blobs").join(world.file(shard).hash()));
    let locks = world.settings.cache.join(".locks/models--acme--tiny-model");
    assert!(locks.join(format!("{}.lock", world.file(shard).hash())).is_file());
    let folders = names_in(&world.folder());
    assert_eq!(folders, [".cachalot", "blobs", "refs", "snapshots"]);
    let beside = names_in(&world.settings.cache);
    assert_eq!(beside, [".locks", "CACHEDIR.TAG", "models--acme--tiny-model"]);
}

#[test]
fn what_is_there_is_not_fetched_again() {
    let world = World::new(model());
    let snapshot = world.download().unwrap();
    let request_count = world.server.requests().len();
    assert_eq!(world.download().unwrap(), snapshot);
    assert_eq!(world.server.requests().len(), request_count + 1, "only the listing");

    fs::remove_file(world.blob("tokenizer.json")).unwrap();
    fs::remove_file(snapshot.join("config.json")).unwrap();
    fs::remove_file(snapshot.join("README.md")).unwrap();
    symlink("../../blobs/of-another-commit", snapshot.join("README.md")).unwrap();
    assert_eq!(world.find_cached(), None);
    world.assert_complete(&world.download().unwrap());
    assert_eq!(world.server.requests_for("/resolve/").len(), 7, "the missing blob only");
}

#[test]
fn a_file_below_a_folder_and_equal_contents_are_linked() {
    let mut files = model();
    files.push(File::small("copy.json", "{}"));
    let world = World::new(files);
    let all = |_: &_| true;
    let never = AtomicBool::new(false);
    let snapshot = world
        .hub()
        .download(&repository(), &Revision::default(), &all, &|_| {}, &never)
        .unwrap();
    let target = fs::read_link(snapshot.join("inference/config.json")).unwrap();
    assert!(target.starts_with("../../../blobs"), "{target:?}");
    for name in ["inference/config.json", "copy.json", "tokenizer.json"] {
        assert_eq!(fs::read_to_string(snapshot.join(name)).unwrap(), "{}");
    }
    let hash = world.file("copy.json").hash();
    let asked = ["tokenizer.json", "copy.json", "inference/config.json"]
        .map(|name| world.server.requests_for(&format!("/resolve/{COMMIT}/{name}")).len());
    assert_eq!(asked.iter().sum::<usize>(), 1, "{hash} is fetched once");
    assert!(
        world
            .hub()
            .find_cached(&repository(), &Revision::default(), &all)
            .is_some()
    );
}

#[test]
fn files_arrive_over_several_connections() {
    let names = ["a.safetensors", "b.safetensors", "c.safetensors", "d.safetensors"];
    let files: Vec<_> = names.iter().map(|name| File::large(name, 50_000)).collect();
    let (arrived_count, all_arrived) = (Mutex::new(0), Condvar::new());
    let world = World::with(files, move |request, _| {
        if request.target.starts_with("/store/") {
            // The first three wait for each other; were there fewer connections, they would wait in vain.
            let mut count = arrived_count.lock().unwrap();
            *count += 1;
            all_arrived.notify_all();
            let limit = Duration::from_millis(1500);
            drop(
                all_arrived
                    .wait_timeout_while(count, limit, |count| *count < 3)
                    .unwrap(),
            );
        }
        None
    })
    .changing(|settings| settings.connection_count = 3);
    world.assert_complete(&world.download().unwrap());
    assert_eq!(world.server.active_count_max(), 3);
}

#[test]
fn the_token_goes_to_the_hub_and_nowhere_else() {
    let world = World::new(model()).with_token();
    world.assert_complete(&world.download().unwrap());
    let expected = format!("Bearer {TOKEN}");
    for request in world.server.requests() {
        let is_at_hub = request.header("host").unwrap().starts_with("127.0.0.1:");
        assert_eq!(is_at_hub, !request.target.starts_with("/store/"));
        let token = request.header("authorization");
        assert_eq!(token, is_at_hub.then_some(expected.as_str()), "{}", request.target);
    }
}

#[test]
fn a_token_that_left_does_not_come_back() {
    let files = model();
    let of_server = files.clone();
    let world = World::with(files, move |request, _| {
        let host = request.header("host").unwrap().to_owned();
        let reply = answer(&of_server, request)?;
        // Away to the other host, which sends back to the hub.
        if request.target.starts_with("/store/") && host.starts_with("localhost") {
            let back = host.replace("localhost", "127.0.0.1");
            return Some(Reply::new(302, "").header("Location", format!("http://{back}{}", request.target)));
        }
        Some(reply)
    })
    .with_token();
    world.assert_complete(&world.download().unwrap());
    let stored = world.server.requests_for("/store/");
    assert_eq!(stored.len(), 4);
    assert!(stored.iter().all(|request| request.header("authorization").is_none()));
}

#[test]
fn a_hub_that_lists_names_only_is_asked_for_each_file() {
    let files = model();
    let of_server = files.clone();
    let world = World::with(files, move |request, _| {
        let siblings: Vec<_> = of_server
            .iter()
            .map(|file| serde_json::json!({"rfilename": file.name}))
            .collect();
        let listing = serde_json::json!({"sha": COMMIT, "siblings": siblings}).to_string();
        request.target.starts_with("/api/").then(|| Reply::new(200, listing))
    });
    world.assert_complete(&world.download().unwrap());
    let requests = world.server.requests_for("/resolve/");
    assert_eq!(requests.iter().filter(|request| request.method == "HEAD").count(), 6);
    assert_eq!(world.server.requests_for("/store/").len(), 2, "no HEAD leaves the hub");
}

#[test]
fn a_renamed_repository_is_followed() {
    let files = model();
    let world = World::with(files, |request, _| {
        let to = request.target.strip_prefix("/api/models/acme/old")?;
        Some(Reply::new(307, "").header("Location", format!("/api/models/acme/tiny-model{to}")))
    });
    let listing = world
        .hub()
        .resolve(&"acme/old".parse().unwrap(), &Revision::default())
        .unwrap();
    assert_eq!(listing.commit.as_str(), COMMIT);
    assert_eq!(listing.files.len(), 8);
    let content = listing.files[4].content.as_ref().unwrap();
    assert_eq!(
        (content.size_bytes, content.hash.algorithm()),
        (300_000, HashAlgorithm::Sha256)
    );
}

#[test]
fn a_commit_that_is_complete_needs_no_network() {
    let mut world = World::new(model());
    let snapshot = world.download().unwrap();
    let request_count = world.server.requests().len();
    let never = AtomicBool::new(false);
    let download = |world: &World, revision: &str| {
        let revision = revision.parse().unwrap();
        world
            .hub()
            .download(&repository(), &revision, &is_model_file, &|_| {}, &never)
    };
    assert_eq!(download(&world, COMMIT).unwrap(), snapshot);
    world.settings.offline = true;
    assert_eq!(download(&world, "main").unwrap(), snapshot);
    assert!(matches!(download(&world, "other"), Err(Error::Offline { .. })));
    assert_eq!(world.server.requests().len(), request_count);
}

#[test]
fn an_incomplete_snapshot_is_not_found() {
    let world = World::new(model());
    let snapshot = world.download().unwrap();
    // Another filter than the download's: the listing knows what is missing.
    let with_code = |file: &cachalot_hub::FilePath| file.as_str().ends_with("config.json");
    assert_eq!(
        world.hub().find_cached(&repository(), &Revision::default(), &with_code),
        None
    );

    let shard = world.blob("model-00002-of-00002.safetensors");
    fs::write(&shard, "short").unwrap();
    assert_eq!(world.find_cached(), None);
    world.assert_complete(&world.download().unwrap());

    // Without our listing, and then with the one that huggingface_hub writes.
    fs::remove_dir_all(world.folder().join(".cachalot")).unwrap();
    assert_eq!(world.find_cached().as_deref(), Some(&*snapshot));
    let trees = world.folder().join("trees");
    fs::create_dir(&trees).unwrap();
    let tree = |name: &str| format!(r#"{{"format_version":1,"files":{{"{name}":{{"size":2,"blob_id":"x"}}}}}}"#);
    fs::write(trees.join(format!("{COMMIT}.json")), tree("generation_config.json")).unwrap();
    assert_eq!(world.find_cached(), None);
    fs::write(trees.join(format!("{COMMIT}.json")), tree("tokenizer.json")).unwrap();
    assert_eq!(world.find_cached().as_deref(), Some(&*snapshot));
}

#[test]
fn events_add_up() {
    let world = World::new(model());
    fs::create_dir_all(world.folder().join("blobs")).unwrap();
    let shard = "model-00001-of-00002.safetensors";
    fs::write(world.partial_blob(shard), &world.file(shard).bytes[..1000]).unwrap();
    let bytes_wanted: u64 = world
        .files
        .iter()
        .filter(|file| is_model_file(&cachalot_hub::FilePath::parse(file.name).unwrap()))
        .map(|file| file.bytes.len() as u64)
        .sum();

    let planned = Mutex::new(None);
    let (finished, bytes_last) = (Mutex::new(Vec::new()), Mutex::new(0));
    let progress = |event: Event<'_>| match event {
        Event::Planned {
            file_count,
            bytes_total,
            bytes_present,
        } => {
            *planned.lock().unwrap() = Some((file_count, bytes_total, bytes_present));
        }
        Event::Advanced { bytes_present, .. } => {
            let mut last = bytes_last.lock().unwrap();
            *last = bytes_present.max(*last);
        }
        Event::Finished { file } => finished.lock().unwrap().push(file.to_string()),
        _ => {}
    };
    let never = AtomicBool::new(false);
    world
        .hub()
        .download(&repository(), &Revision::default(), &is_model_file, &progress, &never)
        .unwrap();
    assert_eq!(planned.into_inner().unwrap(), Some((6, bytes_wanted, 1000)));
    assert_eq!(bytes_last.into_inner().unwrap(), bytes_wanted);
    let mut finished = finished.into_inner().unwrap();
    finished.sort_unstable();
    assert_eq!(finished, names_in(&world.folder().join("snapshots").join(COMMIT)));
}
