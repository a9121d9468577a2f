//! A backend without a model, for tests: its vectors depend on the input alone, and a test decides
//! when a batch is done and how it ends.

use std::sync::mpsc;

use super::{Backend, Batch, Description, Error, Output};
use crate::model::Dtype;

/// Computes nothing, quickly or when it is told to.
#[derive(Debug)]
pub struct Fake {
    dimension: usize,
    gate: Option<mpsc::Receiver<()>>,
    started: Option<mpsc::Sender<usize>>,
    panics: bool,
    fails: bool,
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
        Self { dimension, gate: None, started: None, panics: false, fails: false }
    }

    /// Waits within each batch until the gate is opened for it.
    pub fn gated(dimension: usize) -> (Self, Gate) {
        let (open, gate) = mpsc::channel();
        let (sender, started) = mpsc::channel();
        let fake = Self { gate: Some(gate), started: Some(sender), ..Self::new(dimension) };
        (fake, Gate { open, started })
    }

    /// Panics on its first batch.
    #[must_use]
    pub fn panicking(self) -> Self {
        Self { panics: true, ..self }
    }

    /// Fails on every batch.
    #[must_use]
    pub fn failing(self) -> Self {
        Self { fails: true, ..self }
    }

    /// The vector of an input: the first value is what the input starts with, so that a test sees
    /// whose answer it got.
    fn vector(&self, first: f32) -> Vec<f32> {
        let mut vector = vec![1.0; self.dimension];
        vector[0] = first;
        vector
    }
}

impl Backend for Fake {
    fn embed(&mut self, batch: &Batch) -> Result<Output, Error> {
        if let Some(started) = &self.started {
            // A test that is over listens no more.
            let _closed = started.send(batch.len());
        }
        if let Some(gate) = &self.gate {
            gate.recv().map_err(|_closed| Error::Compute("the test is over".to_owned()))?;
        }
        assert!(!self.panics, "a test asked for this panic");
        if self.fails {
            return Err(Error::Compute("a test asked for this failure".to_owned()));
        }
        Ok(match batch {
            Batch::Pictures(pictures) => {
                pictures.iter().map(|levels| self.vector(f32::from(levels[0]))).collect()
            }
            Batch::Texts(texts) => {
                texts.iter().map(|tokens| self.vector(tokens.ids[0] as f32)).collect()
            }
        })
    }

    fn description(&self) -> Description {
        Description { device: "fake".to_owned(), dtype: Dtype::F32 }
    }
}
