//! Brings pictures to where the device reads them, into memory that is used again and again.
//!
//! On a CPU that is all. For CUDA, the host's memory is pinned, and the copy has a stream of its
//! own, so that it runs while the device computes.

use std::fmt;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use tch::{Device, Kind, TchError, Tensor};

use super::cuda::{CopyStream, Cuda};
use super::error;
use crate::backend::sizes::Sizes;
use crate::backend::{Batch, Error, Place, Staged};

/// Bytes of a pixel: red, green, blue.
const CHANNELS: i64 = 3;

/// Brings pictures of one model to one device.
#[derive(Debug)]
pub(super) struct Stager {
    free: Receiver<Slot>,
    home: Sender<Slot>,
    padding: Option<Sizes>,
}

/// Room for the largest batch.
#[derive(Debug)]
struct Slot {
    /// Levels of [picture, row, column, channel], contiguous.
    host: Tensor,
    /// The same on a CUDA device.
    device: Option<(Tensor, Arc<CopyStream>)>,
}

/// Pictures where the device reads them. Their room is used again when they are dropped.
pub(crate) struct Pictures {
    slot: Option<Slot>,
    /// How many there are.
    count: i64,
    /// As many again as the batch is padded to; what follows the pictures is of earlier ones.
    padded: i64,
    home: Sender<Slot>,
}

impl Stager {
    /// For the CPU or a CUDA device, with room for `slots` batches of up to `max_batch` pictures of
    /// `edge` pixels squared.
    pub(super) fn new(
        cuda: Option<Cuda>,
        [max_batch, edge, slots]: [usize; 3],
        padding: Option<Sizes>,
    ) -> Result<Self, Error> {
        let device = cuda.map_or(Device::Cpu, |cuda| cuda.device());
        let stream = cuda.map(CopyStream::new).transpose()?.map(Arc::new);
        let (home, free) = channel();
        let shape = [max_batch as i64, edge as i64, edge as i64, CHANNELS];
        for _ in 0..slots {
            let slot = Slot::new(shape, device, stream.clone()).map_err(|fault| error(&fault))?;
            // The other end is ours.
            drop(home.send(slot));
        }
        Ok(Self { free, home, padding })
    }
}

impl crate::backend::Stager for Stager {
    fn stage(&mut self, batch: Arc<Batch>) -> Result<Staged, Error> {
        let Batch::Pictures(pictures) = &*batch else { return Ok(Staged(Place::Batch(batch))) };
        // Never closed: we hold a sender ourselves.
        let mut slot = self.free.recv().map_err(|_closed| Error::Died)?;
        let filled = slot.fill(pictures);
        let padded = self.padding.as_ref().map_or(pictures.len(), |to| to.padded(pictures.len()));
        // From here on, dropping it frees the slot.
        let staged = Pictures {
            slot: Some(slot),
            count: pictures.len() as i64,
            padded: padded as i64,
            home: self.home.clone(),
        };
        filled.map(|()| Staged(Place::Pictures(staged)))
    }
}

impl Slot {
    fn new(
        shape: [i64; 4],
        device: Device,
        stream: Option<Arc<CopyStream>>,
    ) -> Result<Self, TchError> {
        let host = Tensor::f_zeros(shape, (Kind::Uint8, Device::Cpu))?;
        let Some(stream) = stream else { return Ok(Self { host, device: None }) };
        let host = host.f_pin_memory(device)?;
        let there = Tensor::f_zeros(shape, (Kind::Uint8, device))?;
        Ok(Self { host, device: Some((there, stream)) })
    }

    fn fill(&mut self, pictures: &[Vec<u8>]) -> Result<(), Error> {
        let max_batch = self.host.size()[0] as usize;
        let levels = levels(&mut self.host);
        let bytes = levels.len() / max_batch.max(1);
        if pictures.len() > max_batch || pictures.iter().any(|picture| picture.len() != bytes) {
            let message =
                format!("a batch that is not up to {max_batch} pictures of {bytes} bytes");
            return Err(Error::Compute(message));
        }
        for (place, picture) in levels.chunks_exact_mut(bytes).zip(pictures) {
            place.copy_from_slice(picture);
        }
        match &self.device {
            Some((there, stream)) => stream.copy(&self.host, there, pictures.len() * bytes),
            None => Ok(()),
        }
    }
}

/// The bytes of a tensor of ours.
#[expect(unsafe_code, reason = "tch offers no view of a tensor's bytes that can be written to")]
fn levels(host: &mut Tensor) -> &mut [u8] {
    let len = host.numel();
    // SAFETY: the tensor was made by `Slot::new`: on the host, contiguous, one byte per element, and
    // no other tensor shares its memory while the slot is here. The slice borrows it mutably.
    unsafe { std::slice::from_raw_parts_mut(host.data_ptr().cast::<u8>(), len) }
}

impl Pictures {
    /// Levels of [picture, row, column, channel], padded.
    pub(super) fn levels(&self) -> Result<Tensor, Error> {
        let slot = self.slot.as_ref().ok_or(Error::Died)?;
        let whole = slot.device.as_ref().map_or(&slot.host, |(there, _)| there);
        whole.f_narrow(0, 0, self.padded).map_err(|fault| error(&fault))
    }

    /// How many of them count.
    pub(super) fn count(&self) -> i64 {
        self.count
    }
}

impl Drop for Pictures {
    fn drop(&mut self) {
        if let Some(slot) = self.slot.take() {
            // The stager may have ended, and then nobody needs it.
            drop(self.home.send(slot));
        }
    }
}

impl fmt::Debug for Pictures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pictures").field("count", &self.count).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::Stager as _;

    fn staged(stager: &mut Stager, pictures: Vec<Vec<u8>>) -> Result<Pictures, Error> {
        match stager.stage(Arc::new(Batch::Pictures(pictures)))?.0 {
            Place::Pictures(pictures) => Ok(pictures),
            Place::Batch(batch) => panic!("pictures are brought, not {batch:?}"),
        }
    }

    fn bytes(pictures: &Pictures) -> Vec<u8> {
        let levels = pictures.levels().expect("they are there").flatten(0, -1);
        Vec::<u8>::try_from(&levels).expect("bytes")
    }

    #[test]
    fn pictures_lie_one_behind_the_other_and_their_room_is_used_again() {
        let mut stager = Stager::new(None, [4, 1, 1], None).expect("room for one batch");
        for round in 0..5 {
            let pictures = vec![vec![round; 3], vec![7, 8, round]];
            let there = staged(&mut stager, pictures.clone()).expect("they fit");
            assert_eq!(bytes(&there), pictures.concat(), "round {round}");
            assert_eq!(there.count(), 2, "both count");
        }
    }

    #[test]
    fn a_batch_is_padded_with_what_is_there() {
        let padding = Some(Sizes::up_to(4));
        let mut stager = Stager::new(None, [4, 1, 2], padding).expect("room for two");
        let there = staged(&mut stager, vec![vec![1; 3]; 3]).expect("they fit");
        assert_eq!((bytes(&there).len(), there.count()), (12, 3), "four, three of which count");
    }

    #[test]
    fn what_does_not_fit_is_refused_and_leaves_the_room_free() {
        let mut stager = Stager::new(None, [2, 1, 1], None).expect("room for one batch");
        for wrong in [vec![vec![0; 3]; 3], vec![vec![0; 2]]] {
            let refused = staged(&mut stager, wrong);
            assert!(matches!(refused, Err(Error::Compute(_))), "too many, or of another size");
        }
        assert!(staged(&mut stager, vec![vec![5; 3]]).is_ok(), "the next one finds room");
    }
}
