//! The load generator against a server whose answers are known.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use crate::support::{Running, eventually};
use cachalot_server::{
    Error, Protocol,
    load::{self, End, LengthMix, LoadOptions, LoadReport, Pace},
};

fn options(server: &Running) -> LoadOptions {
    LoadOptions {
        url: format!("http://{}", server.address),
        api_key: None,
        model: None,
        protocols: vec![Protocol::ChatCompletions, Protocol::Responses, Protocol::Messages],
        pace: Pace::Arrivals(400.0),
        end: End::Requests(120),
        prompt_lengths: LengthMix::new(vec![(16, 1.0), (200, 1.0)]).unwrap(),
        output_lengths: LengthMix::new(vec![(8, 1.0)]).unwrap(),
        shared_prefix: 0.5,
        disconnect: 0.0,
        malformed: 0.0,
        answer_time_max: Duration::from_secs(20),
        seed: 1,
    }
}

fn run(options: &LoadOptions) -> LoadReport {
    load::run(options, &AtomicBool::new(false), &mut |_| ()).unwrap()
}

#[test]
fn whole_answers_are_counted() {
    let server = Running::with(|_| ());
    let started = Instant::now();
    let report = run(&options(&server));
    assert_eq!(
        (report.sent, report.answered, &report.failed),
        (120, 120, &BTreeMap::new()),
        "{report:?}"
    );
    assert_eq!(
        (report.output_tokens, report.prompt_tokens, report.reused_tokens),
        (240, 120 * 9, 120 * 4)
    );
    assert_eq!(
        (report.first_token.count, report.whole.count, report.model.as_str()),
        (120, 120, "scripted")
    );
    // 120 arrivals at 400 a second take 0.3 s; five standard deviations of their sum are 0.14 s.
    assert!(
        report.seconds > 0.15 && started.elapsed() < Duration::from_secs(20),
        "{}",
        report.seconds
    );
    assert_eq!(report.is_settled, Some(true));
}

#[test]
fn what_misbehaves_is_told_from_what_does_not() {
    let server = Running::with(|_| ());
    let mut options = options(&server);
    options.pace = Pace::Connections(20);
    options.malformed = 0.5;
    let report = run(&options);
    assert!(report.malformed_refused > 30, "{report:?}");
    assert_eq!(report.answered + report.malformed_refused, 120, "{report:?}");

    options.malformed = 0.0;
    options.model = Some("full".to_owned());
    options.end = End::Requests(20);
    assert_eq!(
        run(&options).refused,
        BTreeMap::from([("429 rate_limit_error".to_owned(), 20)])
    );

    options.model = Some("cut".to_owned());
    let report = run(&options);
    assert_eq!(report.failed, BTreeMap::from([("against the protocol".to_owned(), 20)]));
    assert!(
        !report.failures.is_empty() && report.failures.len() <= 3,
        "{:?}",
        report.failures
    );

    options.model = Some("slow".to_owned());
    options.answer_time_max = Duration::from_millis(200);
    assert_eq!(
        run(&options).failed,
        BTreeMap::from([("not over in time".to_owned(), 20)])
    );

    options.disconnect = 1.0;
    let before = server.abandoned.load(Ordering::SeqCst);
    assert_eq!(run(&options).left, 20);
    eventually("abandoned", || server.abandoned.load(Ordering::SeqCst) > before);
}

#[test]
fn servers_that_are_none() {
    let server = Running::with(|_| ());
    for url in ["localhost:8000", "https://localhost", "http://", "http://a b"] {
        let options = LoadOptions {
            url: url.to_owned(),
            ..options(&server)
        };
        let error = load::run(&options, &AtomicBool::new(false), &mut |_| ()).unwrap_err();
        assert!(matches!(error, Error::Url { .. }), "{url}: {error}");
    }
    let closed = format!(
        "http://{}",
        std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
    );
    let options = LoadOptions {
        url: closed,
        ..options(&server)
    };
    let error = load::run(&options, &AtomicBool::new(false), &mut |_| ()).unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error}");
}

#[test]
fn keys_are_sent_and_stopping_ends_a_run() {
    let server = Running::with(|options| options.keys.add("alpha").unwrap());
    let without = load::run(&options(&server), &AtomicBool::new(false), &mut |_| ());
    assert!(matches!(without, Err(Error::Unreachable { .. })));
    let options = LoadOptions {
        api_key: Some("alpha".to_owned()),
        end: End::Time(Duration::from_secs(3600)),
        ..options(&server)
    };
    let stop = AtomicBool::new(false);
    let report = load::run(&options, &stop, &mut |progress| {
        stop.store(progress.over > 10, Ordering::Relaxed)
    })
    .unwrap();
    assert!(report.answered > 10 && report.failed.is_empty(), "{report:?}");
}
