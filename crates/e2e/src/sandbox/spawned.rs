//! A process of ours: to be watched, held up and ended.

use std::process::{Child, ChildStderr, ChildStdout, Command, ExitStatus, Stdio};

use anyhow::Context as _;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};

use super::scratch;

/// Killed and reaped when it is dropped, or with the process of the tests.
#[derive(Debug)]
pub(super) struct Spawned(Child);

// === impl Spawned ===

impl Spawned {
    pub(super) fn start(command: &mut Command) -> anyhow::Result<Self> {
        let child = command.stdin(Stdio::null()).spawn();
        // Made at once, so that it is reaped should there be nobody to watch it.
        let spawned = Self(child.with_context(|| format!("start {command:?}"))?);
        scratch::watch(spawned.0.id())?;
        Ok(spawned)
    }

    /// Its output, if that is piped and was not taken before.
    pub(super) fn take_output(&mut self) -> Option<(ChildStdout, ChildStderr)> {
        self.0.stdout.take().zip(self.0.stderr.take())
    }

    pub(super) fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        kill_process(self.pid()?, signal).with_context(|| format!("send {signal:?}"))
    }

    /// Stops every thread of it, and waits until the last one has: the signal alone lets calls
    /// through for a moment.
    pub(super) fn hold(&self) -> anyhow::Result<()> {
        self.signal(Signal::STOP)?;
        waitid(WaitId::Pid(self.pid()?), WaitIdOptions::STOPPED).context("wait for it to stop")?;
        Ok(())
    }

    /// `None` while it runs.
    pub(super) fn exit_status(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        self.0.try_wait().context("ask for the exit status")
    }

    fn pid(&self) -> anyhow::Result<Pid> {
        let pid = i32::try_from(self.0.id()).ok().and_then(Pid::from_raw);
        pid.context("a process id is positive")
    }
}

impl Drop for Spawned {
    fn drop(&mut self) {
        // Fails only if it has ended already, and then there is nothing left to do.
        let _already_ended = self.0.kill();
        let _already_reaped = self.0.wait();
        scratch::forget(self.0.id());
    }
}
