//! What a request may ask for at most.

/// Bounds of one request. The size of the body is the server's to bound, before the bytes get here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Messages, input items or content blocks together. Default 20,000.
    pub message_count: usize,
    /// Depth of arrays and objects of the body, at most 100. Default 64.
    pub nesting_depth: usize,
    /// Bytes of one text: of a message, a tool's description, a prompt. Default 16 MiB.
    pub text_bytes: usize,
    /// Tools that are offered. Default 1,024.
    pub tool_count: usize,
    /// Bytes of one JSON Schema, a tool's or the answer's. Default 256 KiB.
    pub schema_bytes: usize,
    /// Stop strings. Default 16.
    pub stop_count: usize,
    /// Bytes of one stop string. Default 1,024.
    pub stop_bytes: usize,
    /// Entries of `logit_bias`. Default 1,024.
    pub logit_bias_count: usize,
    /// Alternatives whose log-probability can be asked for at each token. Default 20.
    pub top_logprob_count: usize,
    /// Answers to one prompt (`n`). Default 16.
    pub answer_count: usize,
    /// Bytes of short texts: names, ids, `user`. Default 512.
    pub name_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            message_count: 20_000,
            nesting_depth: 64,
            text_bytes: 16 << 20,
            tool_count: 1024,
            schema_bytes: 256 << 10,
            stop_count: 16,
            stop_bytes: 1024,
            logit_bias_count: 1024,
            top_logprob_count: 20,
            answer_count: 16,
            name_bytes: 512,
        }
    }
}
