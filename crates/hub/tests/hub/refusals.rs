//! What the hub refuses, what is refused of the hub, and what each is called.

use std::fs;
use std::time::Duration;

use cachalot_hub::{Error, Revision};

use crate::fake::{COMMIT, File, TOKEN, World, model, repository};
use crate::server::{Reply, Request};

fn refusing(reply: Reply) -> World {
    World::with(model(), move |request, _| {
        request.target.starts_with("/api/").then(|| reply.clone())
    })
}

#[test]
fn an_unknown_repository_says_whether_a_token_was_sent() {
    for status in [401, 404] {
        let error = refusing(Reply::new(status, "")).download().unwrap_err();
        assert!(matches!(error, Error::RepositoryNotFound { token_sent: false, status: found, .. } if found == status));
        let text = error.to_string();
        assert!(
            text.contains("acme/tiny-model") && text.contains("no token was sent"),
            "{text}"
        );
        assert!(text.contains("HF_TOKEN"), "{text}");

        let error = refusing(Reply::new(status, "")).with_token().download().unwrap_err();
        assert!(matches!(error, Error::RepositoryNotFound { token_sent: true, .. }));
        let text = error.to_string();
        assert!(text.contains("a token was sent") && !text.contains(TOKEN), "{text}");
    }
}

#[test]
fn refusals_of_the_hub_have_names() {
    let coded = |status, code| refusing(Reply::new(status, "").header("X-Error-Code", code)).download();
    assert!(matches!(
        coded(403, "GatedRepo"),
        Err(Error::Gated { token_sent: false, .. })
    ));
    assert!(matches!(coded(401, "GatedRepo"), Err(Error::Gated { .. })));
    assert!(matches!(
        coded(404, "RevisionNotFound"),
        Err(Error::RevisionNotFound { .. })
    ));
    assert!(matches!(
        coded(404, "RepoNotFound"),
        Err(Error::RepositoryNotFound { .. })
    ));
    let error = refusing(Reply::new(403, "")).with_token().download().unwrap_err();
    assert!(matches!(error, Error::Gated { token_sent: true, .. }), "{error}");

    let reply = Reply::new(400, "").header("X-Error-Message", "no\tgood");
    let error = refusing(reply).download().unwrap_err();
    assert!(error.to_string().ends_with("answered HTTP 400 (nogood)"), "{error}");

    let missing = World::with(model(), |request, _| {
        request.target.ends_with("/tokenizer.json").then(|| Reply::new(404, ""))
    });
    let error = missing.download().unwrap_err();
    assert!(
        matches!(&error, Error::FileNotFound { file, .. } if file.as_str() == "tokenizer.json"),
        "{error}"
    );
}

#[test]
fn a_server_that_stays_busy_is_given_up() {
    let always = |reply: Reply| {
        let world = refusing(reply);
        let error = world.download().unwrap_err();
        (error, world.server.requests().len())
    };
    let (error, request_count) = always(Reply::new(500, ""));
    assert!(matches!(error, Error::Status { status: 500, .. }), "{error}");
    assert_eq!(request_count, 3);
    let (error, request_count) = always(Reply::new(429, "").header("Retry-After", "86400"));
    assert!(
        matches!(error, Error::RateLimited { wait, .. } if wait == Duration::from_secs(86400)),
        "{error}"
    );
    assert_eq!(request_count, 1);
}

#[test]
fn nobody_at_the_address() {
    let mut world = World::new(model());
    world.settings.endpoint = {
        let unused = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{}", unused.local_addr().unwrap())
    };
    let error = world.download().unwrap_err();
    assert!(matches!(error, Error::Transport { .. }), "{error}");
    assert!(error.to_string().contains(&world.settings.endpoint), "{error}");
}

#[test]
fn offline_asks_nobody() {
    let mut world = World::new(model());
    world.settings.offline = true;
    let error = world.download().unwrap_err();
    assert!(matches!(error, Error::Offline { .. }), "{error}");
    let error = world.hub().resolve(&repository(), &Revision::default()).unwrap_err();
    assert!(matches!(error, Error::Offline { .. }), "{error}");
    assert!(world.server.requests().is_empty());
}

#[test]
fn answers_that_are_no_listing() {
    for body in [
        "<html>Log in to the network</html>",
        "",
        "{",
        "[]",
        r#"{"sha":"main","siblings":[]}"#,
    ] {
        let world = refusing(Reply::new(200, body));
        let error = world.download().unwrap_err();
        assert!(matches!(error, Error::Answer { .. }), "{body}: {error}");
        assert!(
            !world.settings.cache.exists(),
            "nothing is written before the listing is understood"
        );
    }
    let error = refusing(Reply::new(200, format!(r#"{{"sha":"{COMMIT}","siblings":[]}}"#))).download();
    assert!(matches!(error, Err(Error::NothingSelected { file_count: 0, .. })));
}

#[test]
fn names_that_lead_out_of_the_folder_are_refused() {
    for name in [
        "../../outside.safetensors",
        "/etc/outside.safetensors",
        "..\\\\outside.safetensors",
    ] {
        let siblings = format!(r#"[{{"rfilename":"{name}","size":1,"blobId":"{COMMIT}"}}]"#);
        let world = refusing(Reply::new(
            200,
            format!(r#"{{"sha":"{COMMIT}","siblings":{siblings}}}"#),
        ));
        let error = world.download().unwrap_err();
        assert!(matches!(error, Error::FileName { .. }), "{name}: {error}");
        assert_eq!(world.server.requests().len(), 1);
        assert!(!world.settings.cache.exists());
    }
}

#[test]
fn more_than_fits_is_refused_before_the_first_byte() {
    let listing = |file_count: usize, size_bytes: u64| {
        let sibling = |index| {
            let hash = format!("{index:040x}");
            serde_json::json!({"rfilename": format!("{index}.safetensors"), "size": size_bytes, "blobId": hash})
        };
        let siblings: Vec<_> = (0..file_count).map(sibling).collect();
        Reply::new(
            200,
            serde_json::json!({"sha": COMMIT, "siblings": siblings}).to_string(),
        )
    };
    let world = refusing(listing(60, 1 << 40));
    let error = world.download().unwrap_err();
    assert!(
        matches!(error, Error::DiskFull { bytes_needed, .. } if bytes_needed == 60 << 40),
        "{error}"
    );
    assert!(error.to_string().contains("HF_HUB_CACHE"), "{error}");
    assert_eq!(world.server.requests().len(), 1);

    for (file_count, size_bytes) in [(1, (1 << 40) + 1), (65, 1 << 40)] {
        let error = refusing(listing(file_count, size_bytes)).download().unwrap_err();
        assert!(matches!(error, Error::Answer { .. }), "{error}");
    }
}

#[test]
fn redirects_end() {
    let world = refusing(Reply::new(302, "").header("Location", "/api/models/acme/tiny-model/revision/main"));
    let error = world.download().unwrap_err();
    assert!(
        matches!(&error, Error::Redirect { reason, .. } if reason == "more than 10 times"),
        "{error}"
    );
    assert_eq!(world.server.requests().len(), 11);
    for location in [
        "file:///etc/passwd",
        "ftp://elsewhere/x",
        "http://user:pass@elsewhere/x",
    ] {
        let error = refusing(Reply::new(302, "").header("Location", location))
            .download()
            .unwrap_err();
        assert!(matches!(error, Error::Redirect { .. }), "{location}: {error}");
    }
    let error = refusing(Reply::new(302, "")).download().unwrap_err();
    assert!(matches!(error, Error::Redirect { .. }), "{error}");
}

#[test]
fn a_cache_that_cannot_be_written_is_named() {
    let world = World::new(vec![File::large("model.safetensors", 10)]);
    fs::write(&world.settings.cache, "a file where the folder should be").unwrap();
    let error = world.download().unwrap_err();
    assert!(
        matches!(&error, Error::Io { path, .. } if path.starts_with(&world.settings.cache)),
        "{error}"
    );
}

#[test]
fn signed_links_are_not_told() {
    let is_stored = |request: &Request| request.target.starts_with("/store/");
    let world = World::with(model(), move |request, _| {
        is_stored(request).then(|| Reply::new(403, ""))
    });
    let error = world.download().unwrap_err();
    assert!(matches!(error, Error::Status { status: 403, .. }), "{error}");
    assert!(!format!("{error} {error:?}").contains("Signature"), "{error:?}");
}
