//! A client that opens the libraries as any program would: by name, from a directory.
#![allow(dead_code, reason = "each test file uses its part")]

use std::ffi::{CStr, CString, c_char, c_void};
use std::ptr::{null, null_mut};
use std::sync::{Mutex, MutexGuard};

pub type Handle = *mut c_void;
type Phase2 = extern "C" fn(Handle, u64, Handle, Handle) -> i32;

pub const F32: i32 = 0;
pub const I8: i32 = 2;
pub const I32: i32 = 3;
pub const I64: i32 = 9;
pub const BF16: i32 = 27;
pub const E4M3: i32 = 36;

/// Both phases of an operator with the given arguments, and the wait.
#[allow(unused_macros, reason = "each test file uses its part")]
macro_rules! run {
    ($client:expr, $operator:literal, $($argument:expr => $kind:ty),*) => {{
        let (mut bytes, mut executor): (u64, Handle) = (0, std::ptr::null_mut());
        type First = extern "C" fn($($kind),*, *mut u64, *mut Handle) -> i32;
        let code = $client.symbol::<First>(concat!($operator, "GetWorkspaceSize"))($($argument),*, &mut bytes, &mut executor);
        assert_eq!(code, 0, "{}", $client.message());
        assert_eq!($client.launch($operator, executor, $client.stream), 0, "{}", $client.message());
        assert_eq!($client.synchronise($client.stream), 0, "{}", $client.message());
    }};
}

/// The bits of a number that bf16 holds exactly.
pub fn bf16(value: f32) -> u16 {
    (value.to_bits() >> 16) as u16
}

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

pub struct Client {
    libraries: Vec<Handle>,
    pub stream: Handle,
    pub workspace: Handle,
    variables: Vec<&'static str>,
    directory: tempfile::TempDir,
    _guard: MutexGuard<'static, ()>,
}

impl Client {
    /// A process with the emulated chip, a stream and a workspace of 4 KiB.
    pub fn new(chip: &str, variables: &[(&'static str, &str)]) -> Self {
        let guard = ONE_AT_A_TIME.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let directory = tempfile::tempdir().unwrap();
        let laid_out = std::process::Command::new(env!("CARGO_BIN_EXE_ascend-emulator"))
            .arg(directory.path())
            .status()
            .unwrap();
        assert!(laid_out.success());
        // SAFETY: tests hold the lock, and no other thread of this process reads variables meanwhile.
        unsafe {
            std::env::set_var("CACHALOT_ASCEND_EMULATOR", chip);
            variables
                .iter()
                .for_each(|(name, value)| std::env::set_var(name, value));
        }
        let names = [
            "libascendcl.so",
            "libnnopbase.so",
            "libopapi_transformer.so",
            "libopapi_nn.so",
            "libopapi_math.so",
        ];
        let open = |name: &str| {
            let path = CString::new(directory.path().join(name).to_str().unwrap()).unwrap();
            // SAFETY: the library has no initialisers.
            let handle = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
            assert!(!handle.is_null(), "{name} does not open");
            handle
        };
        let libraries = names.iter().map(|name| open(name)).collect();
        let variables = variables.iter().map(|&(name, _)| name).collect();
        let none = null_mut();
        let mut client = Self {
            libraries,
            stream: none,
            workspace: none,
            variables,
            directory,
            _guard: guard,
        };
        assert_eq!(
            client.symbol::<extern "C" fn(*const c_char) -> i32>("aclInit")(null()),
            0,
            "{}",
            client.message()
        );
        assert_eq!(client.symbol::<extern "C" fn(i32) -> i32>("aclrtSetDevice")(0), 0);
        client.stream = client.new_stream();
        client.workspace = client.allocate(4096);
        client
    }

    /// Where the libraries lie.
    pub fn directory(&self) -> &std::path::Path {
        self.directory.path()
    }

    pub fn symbol<T: Copy>(&self, name: &str) -> T {
        assert_eq!(size_of::<T>(), size_of::<Handle>());
        let text = CString::new(name).unwrap();
        // SAFETY: open libraries; `T` is the function's type as the interface documents it.
        unsafe {
            let found = libc::dlsym(self.libraries[0], text.as_ptr());
            assert!(!found.is_null(), "{name} is missing");
            std::mem::transmute_copy(&found)
        }
    }

    pub fn message(&self) -> String {
        let text = self.symbol::<extern "C" fn() -> *const c_char>("aclGetRecentErrMsg")();
        if text.is_null() {
            return String::new();
        }
        // SAFETY: a text that lives until the next reading.
        unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
    }

    pub fn new_stream(&self) -> Handle {
        let mut stream = null_mut();
        assert_eq!(
            self.symbol::<extern "C" fn(*mut Handle) -> i32>("aclrtCreateStream")(&mut stream),
            0
        );
        stream
    }

    pub fn new_event(&self) -> Handle {
        let mut event = null_mut();
        assert_eq!(
            self.symbol::<extern "C" fn(*mut Handle, u32) -> i32>("aclrtCreateEventExWithFlag")(&mut event, 1),
            0
        );
        event
    }

    pub fn try_allocate(&self, bytes: usize) -> Result<Handle, i32> {
        let mut address = null_mut();
        let code = self.symbol::<extern "C" fn(*mut Handle, usize, u32) -> i32>("aclrtMalloc")(&mut address, bytes, 0);
        if code == 0 { Ok(address) } else { Err(code) }
    }

    pub fn allocate(&self, bytes: usize) -> Handle {
        self.try_allocate(bytes).unwrap()
    }

    pub fn free(&self, address: Handle) -> i32 {
        self.symbol::<extern "C" fn(Handle) -> i32>("aclrtFree")(address)
    }

    pub fn copy(&self, to: Handle, room: usize, from: *const c_void, bytes: usize, kind: i32) -> i32 {
        self.symbol::<extern "C" fn(Handle, usize, *const c_void, usize, i32) -> i32>("aclrtMemcpy")(
            to, room, from, bytes, kind,
        )
    }

    pub fn upload<T>(&self, values: &[T]) -> Handle {
        let bytes = size_of_val(values);
        let address = self.allocate(bytes);
        assert_eq!(self.copy(address, bytes, values.as_ptr().cast(), bytes, 1), 0);
        address
    }

    pub fn download<T: Default + Clone>(&self, address: Handle, count: usize) -> Vec<T> {
        let mut values = vec![T::default(); count];
        let bytes = size_of_val(&values[..]);
        assert_eq!(
            self.copy(values.as_mut_ptr().cast(), bytes, address, bytes, 2),
            0,
            "{}",
            self.message()
        );
        values
    }

    pub fn tensor(&self, dims: &[i64], dtype: i32, address: Handle) -> Handle {
        type Create = extern "C" fn(*const i64, u64, i32, *const i64, i64, i32, *const i64, u64, Handle) -> Handle;
        let rank = dims.len() as u64;
        let create = self.symbol::<Create>("aclCreateTensor");
        create(dims.as_ptr(), rank, dtype, null(), 0, 2, dims.as_ptr(), rank, address)
    }

    /// A view with strides, and a storage shape of its own.
    pub fn view(
        &self,
        dims: &[i64],
        strides: &[i64],
        dtype: i32,
        format: i32,
        storage: &[i64],
        address: Handle,
    ) -> Handle {
        type Create = extern "C" fn(*const i64, u64, i32, *const i64, i64, i32, *const i64, u64, Handle) -> Handle;
        let create = self.symbol::<Create>("aclCreateTensor");
        create(
            dims.as_ptr(),
            dims.len() as u64,
            dtype,
            strides.as_ptr(),
            0,
            format,
            storage.as_ptr(),
            storage.len() as u64,
            address,
        )
    }

    pub fn destroy(&self, tensor: Handle) -> i32 {
        self.symbol::<extern "C" fn(Handle) -> i32>("aclDestroyTensor")(tensor)
    }

    pub fn launch(&self, operator: &str, executor: Handle, stream: Handle) -> i32 {
        self.launch_with(operator, executor, stream, 4096)
    }

    pub fn launch_with(&self, operator: &str, executor: Handle, stream: Handle, workspace_bytes: u64) -> i32 {
        self.symbol::<Phase2>(operator)(self.workspace, workspace_bytes, executor, stream)
    }

    pub fn synchronise(&self, stream: Handle) -> i32 {
        self.symbol::<extern "C" fn(Handle) -> i32>("aclrtSynchronizeStream")(stream)
    }

    /// The first phase of `aclnnMul`.
    pub fn multiply(&self, left: Handle, right: Handle, out: Handle) -> Result<Handle, i32> {
        type First = extern "C" fn(Handle, Handle, Handle, *mut u64, *mut Handle) -> i32;
        let (mut bytes, mut executor) = (0, null_mut());
        match self.symbol::<First>("aclnnMulGetWorkspaceSize")(left, right, out, &mut bytes, &mut executor) {
            0 if bytes <= 4096 && bytes > 0 => Ok(executor),
            code => Err(code),
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.symbol::<extern "C" fn() -> i32>("aclFinalize")();
        // SAFETY: the lock is still held.
        self.variables
            .iter()
            .for_each(|name| unsafe { std::env::remove_var(name) });
    }
}
