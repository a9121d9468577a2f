//! A backend without a model, for tests: its vectors depend on the input alone, and a test decides
//! when a batch is done and how it ends.

use std::collections::VecDeque;
use std::sync::mpsc;

use super::sizes::Sizes;
use super::{Backend, Batch, Description, Error, Output, Place, Staged};
use crate::model::Dtype;

/// Computes nothing, quickly or when it is told to.
#[derive(Debug)]
pub struct Fake {
    dimension: usize,
    gate: Option<mpsc::Receiver<()>>,
    started: Option<mpsc::Sender<usize>>,
    script: VecDeque<Act>,
    /// Largest batch that its memory holds.
    memory: Option<usize>,
    /// Inputs that start with this fail each pass that they are in.
    poison: Option<u32>,
    description: Description,
}

/// How a batch ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    Well,
    Fail,
    OutOfMemory,
    /// As a CUDA error does that every later call repeats.
    Lose,
    /// With values that are no numbers.
    NotANumber,
    /// With other vectors than the inputs'.
    Wrong,
    Panic,
    /// Never.
    Hang,
}

/// The test's end of a fake that waits.
#[derive(Debug)]
pub struct Gate {
    /// Lets one batch finish.
    pub open: mpsc::Sender<()>,
    /// Tells the size of each batch that has started.
    pub started: mpsc::Receiver<usize>,
}

impl Fake {
    /// Answers at once.
    pub fn new(dimension: usize) -> Self {
        let description =
            Description { device: "fake".to_owned(), dtype: Dtype::F32, padding: None, depth: 1 };
        Self {
            dimension,
            gate: None,
            started: None,
            script: VecDeque::new(),
            memory: None,
            poison: None,
            description,
        }
    }

    /// Waits within each batch until the gate is opened for it.
    pub fn gated(dimension: usize) -> (Self, Gate) {
        let (open, gate) = mpsc::channel();
        let (sender, started) = mpsc::channel();
        let fake = Self { gate: Some(gate), started: Some(sender), ..Self::new(dimension) };
        (fake, Gate { open, started })
    }

    /// Ends its first batches as told, and all later ones well.
    #[must_use]
    pub fn script(self, acts: impl IntoIterator<Item = Act>) -> Self {
        Self { script: acts.into_iter().collect(), ..self }
    }

    /// Runs out of memory with batches of more than `inputs`.
    #[must_use]
    pub fn with_memory_for(self, inputs: usize) -> Self {
        Self { memory: Some(inputs), ..self }
    }

    /// Fails on batches with an input that starts with `first`.
    #[must_use]
    pub fn failing_on(self, first: u32) -> Self {
        Self { poison: Some(first), ..self }
    }

    /// Takes the next batch while it computes one, and pads them.
    #[must_use]
    pub fn pipelined(self, max_batch: usize) -> Self {
        let padding = Some(Sizes::up_to(max_batch));
        Self { description: Description { padding, depth: 2, ..self.description }, ..self }
    }

    /// The vector of an input: the first value is what the input starts with, so that a test sees
    /// whose answer it got.
    fn vector(&self, first: u32) -> Vec<f32> {
        let mut vector = vec![1.0; self.dimension];
        vector[0] = first as f32;
        vector
    }
}

impl Backend for Fake {
    fn compute(&mut self, staged: Staged) -> Result<Output, Error> {
        #[cfg_attr(not(feature = "torch"), expect(irrefutable_let_patterns, reason = "one kind"))]
        let Place::Batch(batch) = staged.0 else {
            return Err(Error::Compute("a batch of another backend".to_owned()));
        };
        if let Some(started) = &self.started {
            // A test that is over listens no more.
            let _closed = started.send(batch.len());
        }
        if let Some(gate) = &self.gate {
            gate.recv().map_err(|_closed| Error::Compute("the test is over".to_owned()))?;
        }
        let inputs = firsts(&batch);
        if self.memory.is_some_and(|most| inputs.len() > most) {
            return Err(Error::OutOfMemory);
        }
        if self.poison.is_some_and(|poison| inputs.contains(&poison)) {
            return Err(Error::Compute("an input that a test poisoned".to_owned()));
        }
        let mut vectors: Output = inputs.into_iter().map(|first| self.vector(first)).collect();
        match self.script.pop_front().unwrap_or(Act::Well) {
            Act::Well => {}
            Act::Fail => return Err(Error::Compute("a test asked for this failure".to_owned())),
            Act::OutOfMemory => return Err(Error::OutOfMemory),
            Act::Lose => return Err(Error::Lost("a test asked for this loss".to_owned())),
            Act::NotANumber => vectors.iter_mut().for_each(|vector| vector[0] = f32::NAN),
            Act::Wrong => vectors.iter_mut().for_each(|vector| vector[0] = -1000.0),
            Act::Panic => panic!("a test asked for this panic"),
            Act::Hang => loop {
                std::thread::park();
            },
        }
        Ok(vectors)
    }

    fn description(&self) -> Description {
        self.description.clone()
    }
}

/// What each input starts with.
fn firsts(batch: &Batch) -> Vec<u32> {
    match batch {
        Batch::Pictures(pictures) => pictures.iter().map(|levels| levels[0].into()).collect(),
        Batch::Texts(texts) => texts.iter().map(|tokens| tokens.ids[0]).collect(),
    }
}
