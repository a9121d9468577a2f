//! The batcher around a device that a test controls.

use tokio::task::JoinSet;

use super::*;
use crate::backend::fake::{Fake, Gate};

const BOUNDS: Bounds = Bounds { max_batch: 4, max_inputs: 16, max_bytes: 1000 };

async fn driver(fake: Fake) -> Driver {
    let thread = Thread::start(|| Ok(Box::new(fake))).await.expect("a fake loads");
    start(thread, BOUNDS)
}

async fn gated() -> (Driver, Gate) {
    let (fake, gate) = Fake::gated(2);
    (driver(fake).await, gate)
}

fn text(id: u32) -> Input {
    Input::Text(Tokens { ids: vec![id], pool_at: 0 })
}

fn permit(handle: &Handle) -> Permit {
    handle.admit(&[10]).expect("there is room").remove(0)
}

/// Waits for the size of the next batch that starts.
async fn started(gate: Gate) -> (usize, Gate) {
    let wait = move || (gate.started.recv().expect("a batch starts"), gate);
    tokio::task::spawn_blocking(wait).await.expect("no panic")
}

/// Queues texts with these ids and waits until all stand in their lane.
async fn queue(
    handle: &Handle,
    ids: std::ops::Range<u32>,
) -> JoinSet<(u32, Result<Answer, CallError>)> {
    let mut calls = JoinSet::new();
    let before = handle.shared.lock().waiting();
    let count = ids.len();
    for id in ids {
        let (handle, permit) = (handle.clone(), permit(handle));
        calls.spawn(async move { (id, handle.embed(text(id), None, permit).await) });
    }
    while handle.shared.lock().waiting() < before + count {
        tokio::task::yield_now().await;
    }
    calls
}

#[tokio::test]
async fn an_idle_device_is_never_kept_waiting() {
    let (driver, gate) = gated().await;
    let handle = driver.handle();
    let permit = permit(&handle);
    let call = tokio::spawn(async move { handle.embed(text(7), None, permit).await });
    let (size, gate) = started(gate).await;
    assert_eq!(size, 1, "one input runs at once, alone");
    gate.open.send(()).expect("the device waits");
    let answer = call.await.expect("no panic").expect("an answer");
    assert_eq!(answer.batch_size, 1, "its batch");
    assert!(driver.handle().is_idle(), "and nothing is in hand");
    assert!(driver.stop().await.is_ok(), "an ordered end");
}

#[tokio::test]
async fn what_waits_together_runs_together_and_gets_its_own_answer() {
    let (driver, gate) = gated().await;
    let handle = driver.handle();
    let first = queue_first(&handle, 1);
    let (_, gate) = started(gate).await;
    let mut calls = queue(&handle, 10..16).await;
    for _ in 0..3 {
        gate.open.send(()).expect("the device waits");
    }
    let (second, gate) = started(gate).await;
    let (third, _gate) = started(gate).await;
    assert_eq!((second, third), (4, 2), "six that collected: a full batch and the rest");
    assert!(first.await.expect("no panic").is_ok(), "the first is answered");
    while let Some(call) = calls.join_next().await {
        let (id, answer) = call.expect("no panic");
        let values = answer.expect("an answer").vector.into_values();
        let ratio = values[0] / values[1];
        assert!((ratio - id as f32).abs() < 1e-3, "input {id} got the vector of {ratio}");
    }
}

#[tokio::test]
async fn late_cancel_does_not_cost_compute() {
    let (driver, gate) = gated().await;
    let handle = driver.handle();
    let first = queue_first(&handle, 1);
    let (_, gate) = started(gate).await;
    let mut abandoned = queue(&handle, 10..13).await;
    let _kept = queue(&handle, 20..21).await;
    abandoned.shutdown().await;
    gate.open.send(()).expect("the device waits");
    let (size, _gate) = started(gate).await;
    assert_eq!(size, 1, "three of four callers have gone");
    assert!(first.await.expect("no panic").is_ok(), "the first is answered");
}

#[tokio::test]
async fn an_expired_input_is_answered_without_compute() {
    let (driver, gate) = gated().await;
    let handle = driver.handle();
    let first = queue_first(&handle, 1);
    let (_, gate) = started(gate).await;
    let deadline = Some(Instant::now());
    let late = tokio::spawn({
        let (handle, permit) = (handle.clone(), permit(&handle));
        async move { handle.embed(text(2), deadline, permit).await }
    });
    while handle.shared.lock().waiting() == 0 {
        tokio::task::yield_now().await;
    }
    gate.open.send(()).expect("the device waits");
    let answer = late.await.expect("no panic");
    assert_eq!(answer, Err(CallError::Expired), "its time was up");
    assert!(first.await.expect("no panic").is_ok(), "the first is answered");
    assert!(gate.started.try_recv().is_err(), "no batch was made for it");
}

#[tokio::test]
async fn rejects_when_the_bounds_are_reached_and_recovers() {
    let (driver, _gate) = gated().await;
    let handle = driver.handle();
    let held = handle.admit(&[10; 16]).expect("as many as the bound");
    let refused = handle.admit(&[10]).map(|permits| permits.len());
    assert!(matches!(refused, Err(CallError::Busy { .. })), "one more: {refused:?}");
    drop(held);
    let refused = handle.admit(&[400, 601]).map(|permits| permits.len());
    assert_eq!(refused, Err(CallError::NeverFits), "more bytes than the bound");
    assert!(handle.admit(&[400, 600]).is_ok(), "what was given back can be taken again");
    assert!(handle.is_idle(), "and is given back");
}

#[tokio::test]
async fn room_is_made_by_dropping_what_nobody_waits_for() {
    let (driver, gate) = gated().await;
    let handle = driver.handle();
    let first = queue_first(&handle, 1);
    let (_, gate) = started(gate).await;
    let mut abandoned = queue(&handle, 10..25).await;
    abandoned.shutdown().await;
    assert!(handle.admit(&[10]).is_ok(), "fifteen callers have gone");
    gate.open.send(()).expect("the device waits");
    assert!(first.await.expect("no panic").is_ok(), "the first is answered");
}

#[tokio::test]
async fn a_failed_batch_fails_its_callers_and_no_other() {
    let driver = driver(Fake::new(2).failing()).await;
    let handle = driver.handle();
    for _ in 0..2 {
        let answer = handle.embed(text(1), None, permit(&handle)).await;
        assert!(matches!(answer, Err(CallError::Compute { .. })), "told: {answer:?}");
    }
    assert!(driver.stop().await.is_ok(), "the device is still there");
}

#[tokio::test]
async fn a_dead_device_stops_everything() {
    let mut driver = driver(Fake::new(2).panicking()).await;
    let handle = driver.handle();
    let answer = handle.embed(text(1), None, permit(&handle)).await;
    assert_eq!(answer, Err(CallError::Stopped), "no answer will come");
    driver.died().await;
    let refused = handle.admit(&[10]).map(|permits| permits.len());
    assert_eq!(refused, Err(CallError::Stopped), "nothing new is taken");
    assert!(matches!(driver.stop().await, Err(backend::Error::Died)), "the process must end");
}

#[tokio::test]
async fn stopping_answers_those_who_wait() {
    let (driver, gate) = gated().await;
    let handle = driver.handle();
    let first = queue_first(&handle, 1);
    let (_, gate) = started(gate).await;
    let mut waiting = queue(&handle, 10..12).await;
    gate.open.send(()).expect("the device waits");
    let stopped = tokio::spawn(driver.stop());
    // Whether the two were computed or not, each gets an answer and the thread ends.
    drop(gate);
    while let Some(call) = waiting.join_next().await {
        let (id, answer) = call.expect("no panic");
        assert!(answer.is_err(), "input {id} is told: {answer:?}");
    }
    assert!(first.await.expect("no panic").is_ok(), "what was in flight is finished");
    assert!(stopped.await.expect("no panic").is_ok(), "an ordered end");
}

/// Sends one text, which an idle device starts at once.
fn queue_first(handle: &Handle, id: u32) -> JoinHandle<Result<Answer, CallError>> {
    let (handle, permit) = (handle.clone(), permit(handle));
    tokio::spawn(async move { handle.embed(text(id), None, permit).await })
}
