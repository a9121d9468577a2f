//! Finds the devices to compute on.

use std::error::Error as _;

use libloading::Library;
use tch::{Cuda, Kind, Tensor};

use crate::backend::{Device, DeviceChoice, Error};

/// libtorch's part for CUDA. A program of ours uses no symbol of it, so that the linker leaves it
/// out and one binary runs on hosts with and without CUDA. Loading it makes CUDA known to
/// libtorch.
const CUDA_LIBRARY: &str = "libtorch_cuda.so";

/// Decides where to compute, and says why. Must come before any other call into libtorch.
pub(super) fn choose(choice: DeviceChoice) -> Result<Vec<Device>, Error> {
    let found = match choice {
        DeviceChoice::Cpu => {
            tracing::info!(device = "cpu", reason = "it was asked for", "device chosen");
            return Ok(vec![Device::Cpu]);
        }
        DeviceChoice::Auto | DeviceChoice::Cuda => all(),
        DeviceChoice::CudaDevice { index } => one(index),
    };
    match (found, choice) {
        (Ok(devices), _) => {
            for device in &devices {
                tracing::info!(%device, reason = "CUDA works", "device chosen");
            }
            Ok(devices)
        }
        (Err(reason), DeviceChoice::Auto) => {
            tracing::info!(device = "cpu", reason, "device chosen");
            Ok(vec![Device::Cpu])
        }
        (Err(reason), DeviceChoice::Cpu | DeviceChoice::Cuda | DeviceChoice::CudaDevice { .. }) => {
            Err(Error::NoCuda { reason })
        }
    }
}

/// Every device that computes. One that does not is no reason to do without the others.
fn all() -> Result<Vec<Device>, String> {
    let mut devices = Vec::new();
    let mut reason = String::new();
    for index in 0..count()? {
        match probe(index) {
            Ok(device) => devices.push(device),
            Err(fault) => {
                tracing::warn!(index, fault, "a CUDA device is left out");
                reason = fault;
            }
        }
    }
    if devices.is_empty() { Err(reason) } else { Ok(devices) }
}

fn one(index: usize) -> Result<Vec<Device>, String> {
    let count = count()?;
    if index >= count {
        return Err(format!("there is no device {index}, only {count} in all"));
    }
    Ok(vec![probe(index)?])
}

/// Makes CUDA known and counts its devices, of which there is at least one.
fn count() -> Result<usize, String> {
    load_library().map_err(|error| {
        // What the loader said stands behind what was tried.
        let cause = error.source().map_or_else(|| error.to_string(), ToString::to_string);
        format!("libtorch's CUDA part can't be loaded: {cause}")
    })?;
    if !Cuda::is_available() {
        return Err("no CUDA device or driver was found".to_owned());
    }
    Ok(usize::try_from(Cuda::device_count()).unwrap_or(0))
}

/// A device may be there and yet too old for this libtorch's kernels, or full.
fn probe(index: usize) -> Result<Device, String> {
    let computes = || {
        let one = Tensor::f_ones([1], (Kind::Half, tch::Device::Cuda(index)))?;
        one.f_add_scalar(1.0)?.f_to_device(tch::Device::Cpu)
    };
    let computes: Result<_, tch::TchError> = computes();
    let fault = |error| format!("device {index} can't compute: {error}");
    computes.map(|_| Device::Cuda { index }).map_err(fault)
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
