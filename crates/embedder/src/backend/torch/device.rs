//! Finds the device to compute on.

use std::error::Error as _;

use libloading::Library;
use tch::{Cuda, Device, Kind, Tensor};

use crate::backend::{DeviceChoice, Error};

/// libtorch's part for CUDA. A program of ours uses no symbol of it, so that the linker leaves it
/// out and one binary runs on hosts with and without CUDA. Loading it makes CUDA known to
/// libtorch.
const CUDA_LIBRARY: &str = "libtorch_cuda.so";

/// Decides where to compute, and says why. Must come before any other call into libtorch.
pub(super) fn choose(choice: DeviceChoice) -> Result<Device, Error> {
    let index = match choice {
        DeviceChoice::Cpu => {
            tracing::info!(device = "cpu", reason = "it was asked for", "device chosen");
            return Ok(Device::Cpu);
        }
        DeviceChoice::Auto => 0,
        DeviceChoice::Cuda { index } => index,
    };
    match (cuda(index), choice) {
        (Ok(()), _) => {
            tracing::info!(device = "cuda", index, reason = "CUDA works", "device chosen");
            Ok(Device::Cuda(index))
        }
        (Err(reason), DeviceChoice::Auto) => {
            tracing::info!(device = "cpu", reason, "device chosen");
            Ok(Device::Cpu)
        }
        (Err(reason), DeviceChoice::Cpu | DeviceChoice::Cuda { .. }) => {
            Err(Error::NoCuda { reason })
        }
    }
}

/// Makes CUDA known and checks that there is a device of this index.
fn cuda(index: usize) -> Result<(), String> {
    load_library().map_err(|error| {
        // What the loader said stands behind what was tried.
        let cause = error.source().map_or_else(|| error.to_string(), ToString::to_string);
        format!("libtorch's CUDA part can't be loaded: {cause}")
    })?;
    if !Cuda::is_available() {
        return Err("no CUDA device or driver was found".to_owned());
    }
    let count = usize::try_from(Cuda::device_count()).unwrap_or(0);
    if index >= count {
        return Err(format!("there is no device {index}, only {count} in all"));
    }
    // A device may be there and yet too old for this libtorch's kernels, or full.
    let computes = || {
        let one = Tensor::f_ones([1], (Kind::Half, Device::Cuda(index)))?;
        one.f_add_scalar(1.0)?.f_to_device(Device::Cpu)
    };
    let computes: Result<_, tch::TchError> = computes();
    computes.map(|_| ()).map_err(|error| format!("device {index} can't compute: {error}"))
}

#[expect(unsafe_code, reason = "a library can be loaded at run time in no other way")]
fn load_library() -> Result<(), libloading::Error> {
    // SAFETY: the library's initialisers only add CUDA to libtorch's tables, which are made before
    // any program starts. No other call into libtorch has been made yet.
    let library = unsafe { Library::new(CUDA_LIBRARY)? };
    // It must stay for as long as libtorch does: to the end of the process.
    std::mem::forget(library);
    Ok(())
}
