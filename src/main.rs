//! The program: everything is in the library's `cli`.

/// How many heaps the C library may keep. It gives each thread one of its own, up to eight for each core, and what one
/// thread frees (the reader a window, the applier a range) stays in its heap: a fifth of our memory was such remains.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const HEAPS_MAX: std::ffi::c_int = 2;

fn main() -> std::process::ExitCode {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    #[allow(
        unsafe_code,
        reason = "the C library has no safe way to say this, and no thread runs yet that it could race"
    )]
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, HEAPS_MAX);
    }
    twinlite::cli::run()
}
