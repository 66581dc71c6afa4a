//! A server's life: listening, serving, draining.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::net::TcpListener;

use crate::{
    Error, ServerOptions,
    backend::Backend,
    connection,
    gate::Gate,
    health::Health,
    metrics::Metrics,
    routes::{self, App},
};

/// Threads that serve connections; computing has its own.
const IO_THREAD_COUNT: usize = 2;

/// Threads that parse requests and cut texts into tokens.
const PARSING_THREAD_COUNT_MAX: usize = 8;

/// A server that listens but does not serve yet.
#[derive(Debug)]
pub struct Server {
    runtime: tokio::runtime::Runtime,
    listener: TcpListener,
    address: SocketAddr,
    options: ServerOptions,
}

impl Server {
    /// Begins to listen. Clients that connect wait until [`Server::run`].
    ///
    /// # Errors
    /// [`Error::Unprotected`] for an address that others can reach when there are no keys, unless the options say so;
    /// [`Error::Listen`] if the address is taken.
    pub fn listen(options: ServerOptions) -> Result<Self, Error> {
        let address = options.address;
        if !address.ip().is_loopback() && options.keys.is_empty() && !options.open_to_everybody {
            return Err(Error::Unprotected { address });
        }
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(IO_THREAD_COUNT)
            .max_blocking_threads(PARSING_THREAD_COUNT_MAX)
            .thread_name("http")
            .enable_io()
            .enable_time()
            .build()
            .map_err(Error::Threads)?;
        let failed = |source| Error::Listen { address, source };
        let listener = runtime.block_on(TcpListener::bind(address)).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Server {
            runtime,
            listener,
            address,
            options,
        })
    }

    /// Where it listens; with port 0 in the options, the port that was free.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `stop` is done. Then no connection and no request is accepted, those under way may finish until the
    /// drain time is over, and the rest is cancelled. Returns how many answers were cut off.
    pub fn run(self, backend: Arc<dyn Backend>, stop: impl Future<Output = ()>) -> usize {
        let Server {
            runtime,
            listener,
            options,
            ..
        } = self;
        let app = Arc::new(App {
            backend: Arc::clone(&backend),
            gate: Gate::new(&options),
            metrics: Arc::new(Metrics::default()),
            health: Arc::new(Health::new(options.probe_interval)),
        });
        let cut = runtime.block_on(async {
            let probing = tokio::spawn({
                let (health, backend) = (Arc::clone(&app.health), Arc::clone(&backend));
                async move { health.run(backend).await }
            });
            let router = routes::router(Arc::clone(&app));
            let metrics = Arc::clone(&app.metrics);
            let open = connection::serve(listener, router, &options.limits, metrics, stop).await;
            probing.abort();
            app.gate.close();
            let end = Instant::now() + options.drain_time_max;
            let finished = tokio::time::timeout(options.drain_time_max, open.shutdown())
                .await
                .is_ok();
            let left = app.metrics.open_count.load(std::sync::atomic::Ordering::Relaxed) as usize;
            let rest = end.saturating_duration_since(Instant::now());
            let _ =
                tokio::task::spawn_blocking(move || backend.drain(if finished { rest } else { Duration::ZERO })).await;
            if finished { 0 } else { left }
        });
        // What still runs is of no use to anybody.
        runtime.shutdown_timeout(Duration::from_secs(1));
        cut
    }
}

/// Done when the process is asked to end: SIGTERM or Ctrl-C.
pub async fn termination() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let streams = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()));
        if let (Ok(mut terminate), Ok(mut interrupt)) = streams {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            return;
        }
    }
    let _ = tokio::signal::ctrl_c().await;
}
