//! The arena that all sessions on a device take their memory from.
//!
//! By default each session has an arena of its own, and keeps in it the most that its graph ever
//! needed. The graphs of a model run in turn: one arena for all of them keeps the most that any of
//! them needed, instead of the sum.

use std::{
    ffi::CStr,
    ptr,
    sync::{Mutex, PoisonError},
};

use ort::{
    AsPointer, Error, api,
    environment::Environment,
    memory::{AllocationDevice, AllocatorType, MemoryInfo, MemoryType},
};

use super::Provider;

/// The providers whose arena the environment keeps: it refuses a second one for a device.
static KEPT: Mutex<Vec<Provider>> = Mutex::new(Vec::new());

/// What ONNX Runtime calls a provider, and how an arena on its device grows.
struct Arena {
    provider: &'static CStr,
    device: AllocationDevice<'static>,
    /// By what a run wants and no more; by default an arena doubles.
    grows_as_requested: bool,
}

impl Arena {
    /// That of `provider`, if its sessions share one.
    ///
    /// A captured run computes in the arena of its session, which hands that memory out again (see
    /// [`replay`](super::replay)); TensorRT and plugins take memory by themselves.
    fn of(provider: Provider) -> Option<Arena> {
        let (provider, device, grows_as_requested) = match provider {
            Provider::Cpu => (c"CPUExecutionProvider", AllocationDevice::CPU, false),
            Provider::Cuda => (c"CUDAExecutionProvider", AllocationDevice::CUDA, true),
            Provider::CudaGraphs | Provider::TensorRt | Provider::Plugin(_) => return None,
        };
        Some(Arena { provider, device, grows_as_requested })
    }

    /// Has `environment` make and keep it.
    #[allow(unsafe_code)]
    fn register(&self, environment: &Environment) -> Result<(), Error> {
        let memory =
            MemoryInfo::new(self.device.clone(), 0, AllocatorType::Arena, MemoryType::Default)?;
        let keys = [c"arena_extend_strategy".as_ptr()];
        let values = [usize::from(self.grows_as_requested)];
        let mut config = ptr::null_mut();
        // SAFETY: both arrays have as many entries as is said, and the key ends with a zero byte.
        unsafe {
            let made = (api().CreateArenaCfgV2)(
                keys.as_ptr(),
                values.as_ptr(),
                keys.len(),
                &raw mut config,
            );
            Error::result_from_status(made)?;
        }
        // SAFETY: the environment, `memory` and `config` live, and ONNX Runtime, which changes the
        // environment under a lock of its own, copies from the other two; there are no options, so
        // nothing is read from their null pointers. `config` is released once and not used again.
        unsafe {
            let registered = (api().CreateAndRegisterAllocatorV2)(
                environment.ptr().cast_mut(),
                self.provider.as_ptr(),
                memory.ptr(),
                config,
                ptr::null(),
                ptr::null(),
                0,
            );
            (api().ReleaseArenaCfg)(config);
            Error::result_from_status(registered)
        }
    }
}

/// Whether the sessions of `provider` take their memory from the environment's arena.
pub(super) fn is_shared(provider: Provider) -> bool {
    Arena::of(provider).is_some()
}

/// Has `environment`, the one of the process, keep the arena that the sessions of `provider` share,
/// if they share one and it has none yet.
///
/// # Errors
/// ONNX Runtime's words when it refuses.
pub(super) fn share(environment: &Environment, provider: Provider) -> Result<(), String> {
    let Some(arena) = Arena::of(provider) else { return Ok(()) };
    // The lock guards one list: a panic elsewhere leaves it whole.
    let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
    if !kept.contains(&provider) {
        arena.register(environment).map_err(|error| error.message().to_owned())?;
        kept.push(provider);
    }
    Ok(())
}
