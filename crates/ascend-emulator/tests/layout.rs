//! Which libraries and symbols there are, and that the custom package's names lead to its own operators.

mod client;

use client::*;
use std::ffi::CString;
use std::path::Path;
use std::process::Command;

fn lay_out(arguments: &[&str]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let done = Command::new(env!("CARGO_BIN_EXE_ascend-emulator"))
        .arg(folder.path())
        .args(arguments)
        .status();
    assert!(done.unwrap().success());
    folder
}

fn open(path: &Path) -> Handle {
    let path = CString::new(path.to_str().unwrap()).unwrap();
    // SAFETY: an emulated library, whose initialiser only looks up names.
    unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) }
}

fn symbol(library: Handle, name: &str) -> Handle {
    let name = CString::new(name).unwrap();
    // SAFETY: an open library.
    unsafe { libc::dlsym(library, name.as_ptr()) }
}

#[test]
fn libraries_and_symbols_may_be_missing() {
    let folder = lay_out(&["--joined", "--without", "libhccl.so", "--without", "aclnnTopk"]);
    for (name, is_there) in [("libopapi.so", true), ("libopapi_nn.so", false), ("libhccl.so", false)] {
        assert_eq!(folder.path().join(name).exists(), is_there, "{name}");
    }
    let library = open(&folder.path().join("libascendcl.so"));
    assert!(!library.is_null());
    assert!(symbol(library, "aclnnTopk").is_null(), "it was to be left out");
    assert!(!symbol(library, "aclnnSort").is_null());
}

#[test]
fn custom_operators_share_the_devices_state() {
    let client = Client::new("910B3", &[]);
    let library = open(&client.directory().join("vendors/emulated/op_api/lib/libcust_opapi.so"));
    assert!(
        !library.is_null(),
        "not built: cargo build -p cachalot-ascend-emulator --examples"
    );
    let jump = symbol(library, "aclnnMoeGatingTopKHash");
    let mainline = client.symbol::<Handle>("aclnnInplacePartialRotaryMul");
    assert!(!jump.is_null() && symbol(library, "aclnnInplacePartialRotaryMul") != mainline);
    // A call without an executor: the answer is the emulator's own, told under the custom name.
    type Second = extern "C" fn(Handle, u64, Handle, Handle) -> i32;
    // SAFETY: the second phase of every operator has this type.
    let second: Second = unsafe { std::mem::transmute(jump) };
    let none = std::ptr::null_mut();
    assert_eq!(second(none, 0, none, client.stream), 161001);
    assert!(client.message().contains("aclnnMoeGatingTopKHash"));
}
