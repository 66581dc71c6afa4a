//! The operators, from their documents: each plan checks types and shapes and gives the work of the second phase.

mod attention;
mod cache;
mod compressor;
mod dense;
mod elementwise;
mod experts;
mod gating;
mod norms;
mod rows;
mod streams;

/// All operators, by module.
pub const NAMES: &[&[&str]] = &[
    attention::NAMES,
    cache::NAMES,
    compressor::NAMES,
    dense::NAMES,
    elementwise::NAMES,
    experts::NAMES,
    gating::NAMES,
    norms::NAMES,
    rows::NAMES,
    streams::NAMES,
];

/// The names of all operators, each ended by a line break: a test asks whether each is checked.
#[unsafe(no_mangle)]
extern "C" fn ascendEmulatorOperators() -> *const std::ffi::c_char {
    static LIST: std::sync::OnceLock<std::ffi::CString> = std::sync::OnceLock::new();
    let list = LIST.get_or_init(|| {
        let text: String = NAMES.concat().iter().flat_map(|name| [name, "\n"]).collect();
        std::ffi::CString::new(text).unwrap_or_default()
    });
    list.as_ptr()
}
