//! `libcust_opapi.so`: the custom package's operators under their own names, some of which the mainline libraries have too,
//! with other arguments. Each symbol jumps to the emulator's `custom_…` function, so that both share one state.
#![allow(non_snake_case, reason = "the C interface's names")]

use std::ffi::{CStr, CString, c_char, c_void};
use std::mem::MaybeUninit;

macro_rules! jumps {
    ($($name:ident $slot:ident $target:literal;)*) => {
        $(
            /// The address of the emulator's function, written once when this library is opened.
            static mut $slot: usize = 0;

            /// # Safety
            /// As for the emulator's function, with its arguments.
            #[unsafe(no_mangle)]
            #[unsafe(naked)]
            unsafe extern "C" fn $name() {
                #[cfg(target_arch = "x86_64")]
                std::arch::naked_asm!("jmp qword ptr [rip + {slot}]", slot = sym $slot);
                #[cfg(target_arch = "aarch64")]
                std::arch::naked_asm!("adrp x16, {slot}", "ldr x16, [x16, :lo12:{slot}]", "br x16", slot = sym $slot);
            }
        )*

        unsafe fn fill(emulator: *mut c_void) {
            $(
                // SAFETY: runs once, before anybody can call.
                unsafe { $slot = libc::dlsym(emulator, $target.as_ptr()) as usize };
            )*
        }
    };
}

jumps! {
    aclnnHcPreGetWorkspaceSize HC_PRE_FIRST c"custom_aclnnHcPreGetWorkspaceSize";
    aclnnHcPre HC_PRE c"custom_aclnnHcPre";
    aclnnHcPostGetWorkspaceSize HC_POST_FIRST c"custom_aclnnHcPostGetWorkspaceSize";
    aclnnHcPost HC_POST c"custom_aclnnHcPost";
    aclnnInplacePartialRotaryMulGetWorkspaceSize ROTARY_FIRST c"custom_aclnnInplacePartialRotaryMulGetWorkspaceSize";
    aclnnInplacePartialRotaryMul ROTARY c"custom_aclnnInplacePartialRotaryMul";
    aclnnMoeGatingTopKHashGetWorkspaceSize GATING_FIRST c"custom_aclnnMoeGatingTopKHashGetWorkspaceSize";
    aclnnMoeGatingTopKHash GATING c"custom_aclnnMoeGatingTopKHash";
    aclnnRmsNormDynamicQuantGetWorkspaceSize NORM_FIRST c"custom_aclnnRmsNormDynamicQuantGetWorkspaceSize";
    aclnnRmsNormDynamicQuant NORM c"custom_aclnnRmsNormDynamicQuant";
    aclnnSparseAttnSharedkvGetWorkspaceSize ATTENTION_FIRST c"custom_aclnnSparseAttnSharedkvGetWorkspaceSize";
    aclnnSparseAttnSharedkv ATTENTION c"custom_aclnnSparseAttnSharedkv";
    aclnnSparseAttnSharedkvMetadataGetWorkspaceSize META_FIRST c"custom_aclnnSparseAttnSharedkvMetadataGetWorkspaceSize";
    aclnnSparseAttnSharedkvMetadata META c"custom_aclnnSparseAttnSharedkvMetadata";
}

/// The emulator lies four folders above `vendors/NAME/op_api/lib`, or where the loader searches.
extern "C" fn open() {
    let mut found = MaybeUninit::<libc::Dl_info>::zeroed();
    // SAFETY: plain loader calls; the texts end with 0 and the result of dladdr is checked.
    unsafe {
        let is_known = libc::dladdr(open as *const () as *const c_void, found.as_mut_ptr()) != 0;
        let own = found.assume_init().dli_fname;
        let folder = if is_known && !own.is_null() {
            folder_of(own)
        } else {
            String::new()
        };
        let near = CString::new(format!("{folder}/../../../../libascendcl.so")).unwrap_or_default();
        let mut emulator = libc::dlopen(near.as_ptr(), libc::RTLD_NOW);
        if emulator.is_null() {
            emulator = libc::dlopen(c"libascendcl.so".as_ptr(), libc::RTLD_NOW);
        }
        if emulator.is_null() {
            eprintln!("[ascend-emulator] libcust_opapi.so finds no libascendcl.so: lay both out with ascend-emulator");
            std::process::abort();
        }
        fill(emulator);
    }
}

/// # Safety
/// `path` must be a text that ends with 0.
unsafe fn folder_of(path: *const c_char) -> String {
    // SAFETY: the caller's promise.
    let path = unsafe { CStr::from_ptr(path) }.to_string_lossy().into_owned();
    path.rsplit_once('/')
        .map_or_else(|| ".".to_owned(), |(folder, _)| folder.to_owned())
}

#[used]
#[unsafe(link_section = ".init_array")]
static OPEN: extern "C" fn() = open;
