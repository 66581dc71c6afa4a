/// How far a long piece of work over bytes has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Bytes done.
    pub bytes_done: u64,
    /// Bytes to do altogether.
    pub bytes_total: u64,
}
