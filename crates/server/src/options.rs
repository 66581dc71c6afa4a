//! How a server is set up.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use crate::ApiKeys;

/// Settings of a [`Server`](crate::Server).
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// Where to listen. Default `127.0.0.1:8000`.
    pub address: SocketAddr,
    /// Who may ask. Default: everybody that reaches the address.
    pub keys: ApiKeys,
    /// Whether an address that is not loopback may be used without keys. Default no.
    pub open_to_everybody: bool,
    /// Web origins whose pages may call the server from a browser, or `*`. Default none.
    pub cors_origins: Vec<String>,
    /// Names in the Host header, besides IP addresses and `localhost`. Default none.
    pub host_names: Vec<String>,
    /// Bounds.
    pub limits: Limits,
    /// Between two tokens generated only to see that the model works. Default 30 s.
    pub probe_interval: Duration,
    /// How long answers may take to finish after the order to stop. Default 60 s.
    pub drain_time_max: Duration,
}

impl Default for ServerOptions {
    fn default() -> Self {
        ServerOptions {
            address: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8000),
            keys: ApiKeys::default(),
            open_to_everybody: false,
            cors_origins: Vec::new(),
            host_names: Vec::new(),
            limits: Limits::default(),
            probe_interval: Duration::from_secs(30),
            drain_time_max: Duration::from_secs(60),
        }
    }
}

/// Bounds on everything that clients can make grow.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Bytes of a request's body. Default 32 MiB.
    pub body_bytes_max: usize,
    /// Bytes of all bodies that are being read or parsed. Default 256 MiB.
    pub bodies_bytes_max: usize,
    /// Bytes of a request's line and headers. Default 64 KiB.
    pub header_bytes_max: usize,
    /// Headers of a request. Default 100.
    pub header_count_max: usize,
    /// Connections at once; more wait in the operating system's queue. Default 4,096.
    pub connection_count_max: usize,
    /// Requests for answers, waiting or running, at once; more are refused with 429. Default 256.
    pub request_count_max: usize,
    /// The same for each API key. Default 64.
    pub request_count_max_per_key: usize,
    /// Time for a request's headers to arrive. Default 30 s.
    pub header_time_max: Duration,
    /// Time for a request's body to arrive. Default 60 s.
    pub body_time_max: Duration,
    /// Time for a whole answer, waiting included. Default 1 h.
    pub answer_time_max: Duration,
    /// How long a client may leave what was sent unread before its connection is closed. Default 60 s.
    pub stall_time_max: Duration,
    /// Silence in a stream after which a comment keeps the connection alive. Default 5 s.
    pub keep_alive_interval: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            body_bytes_max: 32 << 20,
            bodies_bytes_max: 256 << 20,
            header_bytes_max: 64 << 10,
            header_count_max: 100,
            connection_count_max: 4096,
            request_count_max: 256,
            request_count_max_per_key: 64,
            header_time_max: Duration::from_secs(30),
            body_time_max: Duration::from_secs(60),
            answer_time_max: Duration::from_secs(3600),
            stall_time_max: Duration::from_secs(60),
            keep_alive_interval: Duration::from_secs(5),
        }
    }
}
