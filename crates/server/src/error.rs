use std::{io, net::SocketAddr, path::PathBuf};

/// Why a server does not start, or a load generator does not run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}; choose another --host or --port")]
    Listen {
        /// The address asked for.
        address: SocketAddr,
        /// What the operating system says.
        source: io::Error,
    },
    /// Other machines could use the server without a key.
    #[error(
        "{address} can be reached from other machines and no API key is set; give --api-key or --api-key-file, or \
         --no-auth if everybody who reaches it may use it"
    )]
    Unprotected {
        /// The address asked for.
        address: SocketAddr,
    },
    /// An API key cannot be sent in a header.
    #[error("an API key is empty or has spaces or characters other than printable ASCII; choose another")]
    Key,
    /// A file of API keys is of no use.
    #[error("{path}: {reason}; write one API key a line", path = path.display())]
    KeyFile {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The threads that serve connections cannot be started.
    #[error("cannot start the server's threads: {0}")]
    Threads(#[source] io::Error),
    /// The address of the server to be measured is none.
    #[error("{url} is no address of a server: {reason}; expected something like http://127.0.0.1:8000")]
    Url {
        /// The address given.
        url: String,
        /// What is wrong.
        reason: String,
    },
    /// The server to be measured does not answer.
    #[error("{url} does not answer: {reason}")]
    Unreachable {
        /// The address given.
        url: String,
        /// What happened.
        reason: String,
    },
    /// A description of load cannot be understood.
    #[error("{what} '{value}' is not understood; expected {expected}")]
    Load {
        /// The option.
        what: &'static str,
        /// The value given.
        value: String,
        /// What it may be.
        expected: &'static str,
    },
}
