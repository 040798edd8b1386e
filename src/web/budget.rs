//! Memory for bodies whose signature can't be checked yet. It is bounded, and taken as bytes arrive: whoever sends
//! slowly, or only announces a large body, holds next to nothing of it.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::intake::LARGEST;

/// Bodies up to this size share the small lane, so that large ones can't starve the usual ones.
const SMALL: usize = 1024 * 1024;
/// A permit stands for this many bytes.
const UNIT: usize = 4096;
/// How long a body waits for room, all its waits together: short enough for an answer before GitHub gives up (10 s).
const PATIENCE: Duration = Duration::from_secs(3);

/// Memory that bodies may take at once.
#[derive(Debug)]
pub struct Budget {
    small: Lane,
    large: Lane,
}

#[derive(Debug)]
struct Lane {
    /// Room for all, taken piece by piece.
    room: Arc<Semaphore>,
    /// One permit, which stands for room beside it for one whole body: without it bodies that each hold a part could
    /// wait for each other for ever.
    whole: Arc<Semaphore>,
}

impl Lane {
    fn new(room: usize) -> Self {
        Self { room: Arc::new(Semaphore::new(room / UNIT)), whole: Arc::new(Semaphore::new(1)) }
    }
}

impl Default for Budget {
    fn default() -> Self {
        Self { small: Lane::new(31 * SMALL), large: Lane::new(LARGEST) }
    }
}

impl Budget {
    /// For a body of at most so many bytes, of which none has arrived.
    #[must_use]
    pub fn body(&self, most: usize) -> Held<'_> {
        let lane = if most <= SMALL { &self.small } else { &self.large };
        Held { lane, room: None, whole: None, bytes: 0, most, patience: PATIENCE }
    }
}

/// What one body holds; given back when it is dropped.
#[derive(Debug)]
pub struct Held<'a> {
    lane: &'a Lane,
    room: Option<OwnedSemaphorePermit>,
    whole: Option<OwnedSemaphorePermit>,
    bytes: usize,
    most: usize,
    patience: Duration,
}

/// Others hold all the memory, and went on holding it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Busy;

impl Held<'_> {
    /// Sees to it that a body of so many bytes may be held; answers how many may be now. That is up to twice as many, so
    /// that a long body is moved a few times only.
    ///
    /// # Errors
    /// [`Busy`]: there was no room for some seconds. Whoever asked gives up, and with that what it held.
    pub async fn grow(&mut self, bytes: usize) -> Result<usize, Busy> {
        if bytes <= self.bytes {
            return Ok(self.bytes);
        }
        let wanted = (2 * self.bytes).min(self.most).max(bytes);
        let more = wanted.div_ceil(UNIT) - self.bytes.div_ceil(UNIT);
        if self.whole.is_none() && more > 0 {
            let more = u32::try_from(more).map_err(|_| Busy)?;
            match self.lane.room.clone().try_acquire_many_owned(more) {
                Ok(permit) => self.keep(permit),
                Err(_) => self.wait(more).await?,
            }
        }
        self.bytes = wanted;
        Ok(wanted)
    }

    /// Waits for room, or for the turn to have the whole of it.
    async fn wait(&mut self, more: u32) -> Result<(), Busy> {
        let since = Instant::now();
        let (room, whole) = (self.lane.room.clone(), self.lane.whole.clone());
        let got = tokio::time::timeout(self.patience, async {
            tokio::select! {
                biased;
                room = room.acquire_many_owned(more) => (room.ok(), None),
                whole = whole.acquire_owned() => (None, whole.ok()),
            }
        });
        let got = got.await;
        self.patience = self.patience.saturating_sub(since.elapsed());
        match got {
            Ok((Some(room), _)) => self.keep(room),
            Ok((_, Some(whole))) => {
                // Its part of the shared room is free for others from now on.
                self.room = None;
                self.whole = Some(whole);
            }
            _ => return Err(Busy),
        }
        Ok(())
    }

    fn keep(&mut self, permit: OwnedSemaphorePermit) {
        match &mut self.room {
            Some(room) => room.merge(permit),
            None => self.room = Some(permit),
        }
    }
}
