//! What tch does not offer of CUDA: copies on a stream of their own, and the memory that is left.
//!
//! libtorch computes on the default stream of a device, where a copy would wait for the passes
//! before it. The functions are those of CUDA's runtime, which libtorch brings; see the CUDA
//! Runtime API, "Stream Management" and "Memory Management".

use std::ffi::{c_int, c_uint, c_void};
use std::ptr;

use libloading::Library;
use tch::{Device, Tensor};

use crate::backend::Error;

/// The runtime that libtorch 2.11 is built with.
const LIBRARY: &str = "libcudart.so.13";

/// `cudaSuccess`.
const SUCCESS: c_int = 0;
/// `cudaErrorMemoryAllocation`.
const OUT_OF_MEMORY: c_int = 2;
/// `cudaMemcpyHostToDevice`.
const HOST_TO_DEVICE: c_int = 1;
/// `cudaStreamNonBlocking`: without it, the stream and the default stream wait for each other.
const NON_BLOCKING: c_uint = 1;

type SetDevice = unsafe extern "C" fn(c_int) -> c_int;
type CreateStream = unsafe extern "C" fn(*mut *mut c_void, c_uint) -> c_int;
type CopyAsync =
    unsafe extern "C" fn(*mut c_void, *const c_void, usize, c_int, *mut c_void) -> c_int;
type Synchronize = unsafe extern "C" fn(*mut c_void) -> c_int;
type MemoryInfo = unsafe extern "C" fn(*mut usize, *mut usize) -> c_int;

/// The functions that are used. They stay to the end of the process, as libtorch does.
#[derive(Clone, Copy, Debug)]
struct Runtime {
    set_device: SetDevice,
    create_stream: CreateStream,
    copy: CopyAsync,
    synchronize: Synchronize,
    memory_info: MemoryInfo,
}

/// One device, as the runtime numbers it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cuda {
    runtime: Runtime,
    index: usize,
}

/// Copies to one device while it computes. It is kept to the end of the process.
#[derive(Debug)]
pub(super) struct CopyStream {
    cuda: Cuda,
    stream: *mut c_void,
}

#[expect(unsafe_code, reason = "the stream's handle is a pointer to CUDA's own")]
// SAFETY: CUDA's streams may be used from any thread.
unsafe impl Send for CopyStream {}
#[expect(unsafe_code, reason = "the stream's handle is a pointer to CUDA's own")]
// SAFETY: as above; CUDA serialises the calls on a stream.
unsafe impl Sync for CopyStream {}

// === impl Cuda ===

impl Cuda {
    pub(super) fn new(index: usize) -> Result<Self, Error> {
        let runtime = Runtime::load()
            .map_err(|error| Error::Load(format!("CUDA's runtime can't be used: {error}")))?;
        Ok(Self { runtime, index })
    }

    pub(super) fn device(&self) -> Device {
        Device::Cuda(self.index)
    }

    fn number(&self) -> c_int {
        c_int::try_from(self.index).unwrap_or(c_int::MAX)
    }

    /// Bytes of the device's memory that are taken, by this process or another. `None` where it
    /// can't be asked.
    pub(super) fn memory_taken(&self) -> Option<usize> {
        let (mut free, mut total) = (0, 0);
        // SAFETY: the signatures are those of the runtime's header; both pointers are valid. The
        // device is set because it is the calling thread's.
        #[expect(unsafe_code, reason = "CUDA's runtime is a C library")]
        let asked = unsafe {
            first_failure([
                (self.runtime.set_device)(self.number()),
                (self.runtime.memory_info)(&raw mut free, &raw mut total),
            ])
        };
        (asked == SUCCESS).then(|| total.saturating_sub(free))
    }
}

// === impl CopyStream ===

impl CopyStream {
    pub(super) fn new(cuda: Cuda) -> Result<Self, Error> {
        let mut stream = ptr::null_mut();
        // SAFETY: the signatures are those of the runtime's header; `stream` is where it writes.
        #[expect(unsafe_code, reason = "CUDA's runtime is a C library")]
        let made = unsafe {
            first_failure([
                (cuda.runtime.set_device)(cuda.number()),
                (cuda.runtime.create_stream)(&raw mut stream, NON_BLOCKING),
            ])
        };
        check(made)?;
        Ok(Self { cuda, stream })
    }

    /// Copies the first `bytes` of a pinned tensor to one on the device, and waits until they are
    /// there.
    pub(super) fn copy(&self, from: &Tensor, to: &Tensor, bytes: usize) -> Result<(), Error> {
        let has_room = |tensor: &Tensor| tensor.is_contiguous() && tensor.numel() >= bytes;
        if !has_room(from) || !has_room(to) {
            return Err(Error::Compute(format!("a copy of {bytes} bytes beyond its tensors")));
        }
        let runtime = &self.cuda.runtime;
        // SAFETY: both tensors are contiguous, of one byte per element and at least `bytes` long
        // (see above), live through the call, and nothing else uses them until it returns: the
        // copy has ended by then. The device is set because it is the calling thread's.
        #[expect(unsafe_code, reason = "CUDA's runtime is a C library")]
        let copied = unsafe {
            let (to, from) = (to.data_ptr(), from.data_ptr().cast_const());
            first_failure([
                (runtime.set_device)(self.cuda.number()),
                (runtime.copy)(to, from, bytes, HOST_TO_DEVICE, self.stream),
                (runtime.synchronize)(self.stream),
            ])
        };
        check(copied)
    }
}

// === impl Runtime ===

impl Runtime {
    fn load() -> Result<Self, libloading::Error> {
        // SAFETY: libtorch has loaded it already, so that nothing is initialised here.
        #[expect(unsafe_code, reason = "a library can be loaded at run time in no other way")]
        let library = unsafe { Library::new(LIBRARY)? };
        let runtime = Self {
            set_device: symbol(&library, "cudaSetDevice")?,
            create_stream: symbol(&library, "cudaStreamCreateWithFlags")?,
            copy: symbol(&library, "cudaMemcpyAsync")?,
            synchronize: symbol(&library, "cudaStreamSynchronize")?,
            memory_info: symbol(&library, "cudaMemGetInfo")?,
        };
        // Its functions are used to the end of the process.
        std::mem::forget(library);
        Ok(runtime)
    }
}

#[expect(unsafe_code, reason = "a function of a library has the type that one says it has")]
fn symbol<T: Copy>(library: &Library, name: &str) -> Result<T, libloading::Error> {
    // SAFETY: every type used here is the signature in the runtime's header.
    unsafe { library.get::<T>(name.as_bytes()).map(|symbol| *symbol) }
}

/// The first code that is none of success. All calls were made: after one that fails, the others
/// fail, too, and do nothing.
fn first_failure<const N: usize>(codes: [c_int; N]) -> c_int {
    codes.into_iter().find(|&code| code != SUCCESS).unwrap_or(SUCCESS)
}

fn check(code: c_int) -> Result<(), Error> {
    match code {
        SUCCESS => Ok(()),
        OUT_OF_MEMORY => Err(Error::OutOfMemory),
        code => Err(Error::Lost(format!("CUDA's runtime returned error {code}"))),
    }
}
