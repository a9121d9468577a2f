//! The batcher around devices that a test controls.

use tokio::task::JoinSet;

use super::*;
use crate::backend::fake::{Act, Fake, Gate};
use crate::backend::thread::Thread;
use crate::canary::Probes;

const BOUNDS: Bounds = Bounds { max_inputs: 16, max_bytes: 1000 };
const MAX_BATCH: usize = 4;
const LANE: Lane = Lane::Interactive;

/// Inputs of the warm-up: one picture, one text.
const WARM_UP: usize = 2;

const EAGER: Duration = Duration::from_millis(1);
const NEVER: Duration = Duration::from_secs(1 << 30);

fn config(interval: Duration) -> CanaryConfig {
    CanaryConfig {
        interval,
        timeout: Duration::from_secs(30),
        give_up_after: Duration::from_secs(120),
    }
}

async fn trained(fake: Fake) -> Trained {
    let thread = Thread::start(|| Ok(Box::new(fake))).await.expect("a fake loads");
    let probes = Probes { picture: vec![1], text: Some(Tokens { ids: vec![3], pool_at: 0 }) };
    Trained::warm_up(thread, &probes, MAX_BATCH).await.expect("a fake warms up")
}

/// One device, whose canary is only asked if there is reason to.
async fn devices(fake: Fake) -> Devices {
    start(vec![trained(fake).await], BOUNDS, &config(NEVER))
}

/// One device, whose canary is asked whenever it has nothing else to do.
async fn eager(fake: Fake) -> Devices {
    start(vec![trained(fake).await], BOUNDS, &config(EAGER))
}

/// A device that ends its batches as told once it is warm.
async fn scripted(acts: impl IntoIterator<Item = Act>) -> Devices {
    devices(Fake::new(2).script([Act::Well; WARM_UP].into_iter().chain(acts))).await
}

async fn gated() -> (Devices, Gate) {
    let (fake, gate) = Fake::gated(2);
    let (devices, gate) = tokio::join!(devices(fake), warm(gate));
    (devices, gate)
}

/// Lets a gated device through its warm-up.
async fn warm(mut gate: Gate) -> Gate {
    for _ in 0..WARM_UP {
        gate.open.send(()).expect("the device waits");
        (_, gate) = started(gate).await;
    }
    gate
}

fn text(id: u32) -> Input {
    Input::Text(Tokens { ids: vec![id], pool_at: 0 })
}

fn permit(handle: &Handle, lane: Lane) -> Permit {
    handle.admit(lane, &[10]).expect("there is room").remove(0)
}

fn waiting(handle: &Handle) -> usize {
    let state = handle.shared.lock();
    Lane::ALL.into_iter().map(|lane| state.waiting(lane)).sum()
}

async fn embed(handle: &Handle, id: u32) -> Result<Answer, CallError> {
    handle.embed(text(id), None, permit(handle, LANE)).await
}

/// Whose vector an answer holds.
fn whose(answer: &Answer) -> f32 {
    let values = answer.vector.clone().into_values();
    (values[0] / values[1]).round()
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
    queue_in(LANE, handle, ids).await
}

async fn queue_in(
    lane: Lane,
    handle: &Handle,
    ids: std::ops::Range<u32>,
) -> JoinSet<(u32, Result<Answer, CallError>)> {
    let mut calls = JoinSet::new();
    let before = waiting(handle);
    let count = ids.len();
    for id in ids {
        let (handle, permit) = (handle.clone(), permit(handle, lane));
        calls.spawn(async move { (id, handle.embed(text(id), None, permit).await) });
    }
    while waiting(handle) < before + count {
        tokio::task::yield_now().await;
    }
    calls
}

#[tokio::test]
async fn an_idle_device_is_never_kept_waiting() {
    let (devices, gate) = gated().await;
    let handle = devices.handle();
    let permit = permit(&handle, LANE);
    let call = tokio::spawn(async move { handle.embed(text(7), None, permit).await });
    let (size, gate) = started(gate).await;
    assert_eq!(size, 1, "one input runs at once, alone");
    gate.open.send(()).expect("the device waits");
    let answer = call.await.expect("no panic").expect("an answer");
    assert_eq!(answer.batch_size, 1, "its batch");
    assert!(devices.handle().is_idle(), "and nothing is in hand");
    assert!(devices.stop().await.is_ok(), "an ordered end");
}

#[tokio::test]
async fn what_waits_together_runs_together_and_gets_its_own_answer() {
    let (devices, gate) = gated().await;
    let handle = devices.handle();
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
        let vector_of = whose(&answer.expect("an answer"));
        assert!((vector_of - id as f32).abs() < 0.5, "input {id} got the vector of {vector_of}");
    }
}

#[tokio::test]
async fn late_cancel_does_not_cost_compute() {
    let (devices, gate) = gated().await;
    let handle = devices.handle();
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
    let (devices, gate) = gated().await;
    let handle = devices.handle();
    let first = queue_first(&handle, 1);
    let (_, gate) = started(gate).await;
    let deadline = Some(Instant::now());
    let late = tokio::spawn({
        let (handle, permit) = (handle.clone(), permit(&handle, LANE));
        async move { handle.embed(text(2), deadline, permit).await }
    });
    while waiting(&handle) == 0 {
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
    let (devices, _gate) = gated().await;
    let handle = devices.handle();
    let held = handle.admit(LANE, &[10; 16]).expect("as many as the bound");
    let refused = handle.admit(LANE, &[10]).map(|permits| permits.len());
    assert!(matches!(refused, Err(CallError::Busy { .. })), "one more: {refused:?}");
    drop(held);
    let refused = handle.admit(LANE, &[400, 601]).map(|permits| permits.len());
    assert_eq!(refused, Err(CallError::NeverFits), "more bytes than the bound");
    assert!(handle.admit(LANE, &[400, 600]).is_ok(), "what was given back can be taken again");
    assert!(handle.is_idle(), "and is given back");
}

#[tokio::test]
async fn room_is_made_by_dropping_what_nobody_waits_for() {
    let (devices, gate) = gated().await;
    let handle = devices.handle();
    let first = queue_first(&handle, 1);
    let (_, gate) = started(gate).await;
    let mut abandoned = queue(&handle, 10..25).await;
    abandoned.shutdown().await;
    assert!(handle.admit(LANE, &[10]).is_ok(), "fifteen callers have gone");
    gate.open.send(()).expect("the device waits");
    assert!(first.await.expect("no panic").is_ok(), "the first is answered");
}

#[tokio::test]
async fn whoever_waits_for_room_gets_it_when_it_is_freed() {
    let (devices, _gate) = gated().await;
    let handle = devices.handle();
    let mut held = handle.admit(LANE, &[10; 16]).expect("as many as the bound");
    let waiting = tokio::spawn({
        let handle = handle.clone();
        async move { handle.admit_in_turn(LANE, 10).await.map(drop) }
    });
    tokio::task::yield_now().await;
    assert!(!waiting.is_finished(), "there is no room");
    drop(held.pop());
    assert_eq!(waiting.await.expect("no panic"), Ok(()), "now there is");
    let never = handle.admit_in_turn(LANE, 1001).await.map(drop);
    assert_eq!(never, Err(CallError::NeverFits), "waiting would not help");
}

#[tokio::test]
async fn people_go_before_jobs() {
    let (devices, gate) = gated().await;
    let handle = devices.handle();
    let first = queue_first(&handle, 1);
    let (_, mut gate) = started(gate).await;
    let job = queue_in(Lane::Bulk, &handle, 10..14).await;
    let people = queue_in(LANE, &handle, 20..22).await;
    let mut sizes = Vec::new();
    for _ in 0..2 {
        gate.open.send(()).expect("the device waits");
        let size;
        (size, gate) = started(gate).await;
        sizes.push(size);
    }
    gate.open.send(()).expect("the device waits");
    assert_eq!(sizes, [2, 4], "two who came last, then the job");
    for mut calls in [people, job] {
        while let Some(call) = calls.join_next().await {
            assert!(call.expect("no panic").1.is_ok(), "all are answered");
        }
    }
    assert!(first.await.expect("no panic").is_ok(), "the first is answered");
}

#[tokio::test]
async fn several_devices_take_from_one_queue() {
    let (one, gate_of_one) = Fake::gated(2);
    let (two, gate_of_two) = Fake::gated(2);
    let (one, two, gate_of_one, gate_of_two) =
        tokio::join!(trained(one), trained(two), warm(gate_of_one), warm(gate_of_two));
    let devices = start(vec![one, two], BOUNDS, &config(NEVER));
    let handle = devices.handle();
    // Of two kinds, so that one device can't take both at once.
    let calls = [text(1), Input::Picture(vec![2])].map(|input| {
        let (handle, permit) = (handle.clone(), permit(&handle, LANE));
        tokio::spawn(async move { handle.embed(input, None, permit).await })
    });
    let ((first, gate_of_one), (second, gate_of_two)) =
        tokio::join!(started(gate_of_one), started(gate_of_two));
    assert_eq!((first, second), (1, 1), "each has one of them");
    for gate in [&gate_of_one, &gate_of_two] {
        gate.open.send(()).expect("the device waits");
    }
    for call in calls {
        assert!(call.await.expect("no panic").is_ok(), "both are answered");
    }
    assert_eq!(devices.stop().await, Ok(()), "both end in order");
}

#[tokio::test]
async fn the_next_full_batch_goes_ahead_while_one_is_computed() {
    let (fake, gate) = Fake::gated(2);
    let fake = fake.pipelined(MAX_BATCH);
    // Sizes 1, 2 and 4 of each kind, and the canary's first song of each.
    for _ in 0..8 {
        gate.open.send(()).expect("the device waits");
    }
    let devices = devices(fake).await;
    let gate = (0..8).fold(gate, |gate, _| {
        gate.started.recv().expect("it was warmed up");
        gate
    });
    let handle = devices.handle();
    let first = queue_first(&handle, 1);
    let (_, gate) = started(gate).await;
    let mut calls = queue(&handle, 10..13).await;
    calls.spawn({
        let handle = handle.clone();
        async move { (13, embed(&handle, 13).await) }
    });
    while waiting(&handle) > 0 {
        tokio::task::yield_now().await;
    }
    assert!(gate.started.try_recv().is_err(), "brought to the device, while it is still busy");
    for _ in 0..2 {
        gate.open.send(()).expect("the device waits");
    }
    while let Some(call) = calls.join_next().await {
        let (id, answer) = call.expect("no panic");
        let answer = answer.expect("an answer");
        assert_eq!((whose(&answer) as u32, answer.batch_size), (id, 4), "its own, of a full batch");
    }
    assert!(first.await.expect("no panic").is_ok(), "the first is answered");
}

#[tokio::test]
async fn out_of_memory_costs_nobody_the_answer() {
    let devices = devices(Fake::new(2).with_memory_for(1)).await;
    let handle = devices.handle();
    let mut calls = JoinSet::new();
    for id in 10..18 {
        let handle = handle.clone();
        calls.spawn(async move { (id, embed(&handle, id).await) });
    }
    while let Some(call) = calls.join_next().await {
        let (id, answer) = call.expect("no panic");
        assert_eq!(whose(&answer.expect("an answer")) as u32, id, "each gets its own");
    }
}

#[tokio::test]
async fn who_does_not_fit_alone_is_told_to_come_back() {
    let devices = scripted([Act::OutOfMemory]).await;
    let handle = devices.handle();
    let answer = embed(&handle, 1).await;
    assert!(matches!(answer, Err(CallError::Busy { .. })), "memory may be free again: {answer:?}");
    assert!(embed(&handle, 1).await.is_ok(), "as it is now");
}

#[tokio::test]
async fn an_input_that_the_device_fails_on_fails_alone() {
    let (fake, gate) = Fake::gated(2);
    let (devices, gate) = tokio::join!(devices(fake.failing_on(12)), warm(gate));
    let handle = devices.handle();
    let first = queue_first(&handle, 1);
    let (_, gate) = started(gate).await;
    let mut calls = queue(&handle, 10..14).await;
    // One, the four, two, two, one, one, and the canary that is asked then.
    for _ in 0..7 {
        gate.open.send(()).expect("the device waits");
    }
    while let Some(call) = calls.join_next().await {
        let (id, answer) = call.expect("no panic");
        match id {
            12 => assert!(matches!(answer, Err(CallError::Compute { .. })), "told: {answer:?}"),
            _ => assert_eq!(whose(&answer.expect("an answer")) as u32, id, "each gets its own"),
        }
    }
    assert!(first.await.expect("no panic").is_ok(), "the first is answered");
}

#[tokio::test]
async fn values_that_are_no_numbers_are_computed_again_and_then_refused() {
    let devices = scripted([Act::NotANumber]).await;
    let answer = embed(&devices.handle(), 7).await;
    assert_eq!(whose(&answer.expect("the second try went well")), 7.0, "its own");
    let devices = scripted([Act::NotANumber; 2]).await;
    let answer = embed(&devices.handle(), 7).await;
    assert!(matches!(answer, Err(CallError::Vector(_))), "twice is enough: {answer:?}");
    assert!(embed(&devices.handle(), 8).await.is_ok(), "and no reason to give up");
}

/// A device that answers one text with no numbers, twice, so that the canary is asked. Its song
/// waits for the gate, and so does another text in its lane.
async fn doubted(songs: impl IntoIterator<Item = Act>) -> (Devices, Gate, JoinHandle<Reply>) {
    let (fake, gate) = Fake::gated(2);
    let acts = [Act::Well; WARM_UP].into_iter().chain([Act::NotANumber; 2]).chain(songs);
    let (devices, mut gate) = tokio::join!(devices(fake.script(acts)), warm(gate));
    let handle = devices.handle();
    let unusable = queue_first(&handle, 7);
    for _ in 0..2 {
        (_, gate) = started(gate).await;
        gate.open.send(()).expect("the device waits");
    }
    let answer = unusable.await.expect("no panic");
    assert!(matches!(answer, Err(CallError::Vector(_))), "no vector: {answer:?}");
    (_, gate) = started(gate).await;
    let next = queue_first(&handle, 8);
    (devices, gate, next)
}

type Reply = Result<Answer, CallError>;

#[tokio::test]
async fn a_device_that_computes_wrong_is_not_used_until_it_computes_right() {
    let (devices, mut gate, next) = doubted([Act::Wrong, Act::Wrong]).await;
    let mut health = devices.health();
    for _ in 0..2 {
        gate.open.send(()).expect("the canary sings wrong");
        (_, gate) = started(gate).await;
        assert_eq!(*health.borrow_and_update(), [false], "nobody should ask it");
        assert!(!next.is_finished(), "and whoever did waits");
    }
    for _ in 0..2 {
        gate.open.send(()).expect("the canary, right, and who waited");
    }
    let answer = next.await.expect("no panic").expect("an answer");
    assert_eq!(whose(&answer), 8.0, "a right one");
    assert_eq!(*health.borrow(), [true], "the device is well again");
}

#[tokio::test]
async fn a_device_that_stays_wrong_is_given_up() {
    let (mut devices, gate, next) = doubted([Act::Wrong; 3]).await;
    for _ in 0..3 {
        gate.open.send(()).expect("the canary sings wrong");
    }
    assert_eq!(next.await.expect("no panic"), Err(CallError::Stopped), "no wrong vector");
    devices.died().await;
    assert_eq!(devices.stop().await, Err(Death::Wrong), "the process must end");
}

#[tokio::test]
async fn the_canary_finds_a_device_that_fails_while_nobody_asks() {
    let (fake, gate) = Fake::gated(2);
    let acts = [Act::Well; WARM_UP].into_iter().chain([Act::Fail]);
    let (devices, gate) = tokio::join!(eager(fake.script(acts)), warm(gate));
    let (_, gate) = started(gate).await;
    gate.open.send(()).expect("the canary can't sing");
    let (_, gate) = started(gate).await;
    let mut health = devices.health();
    assert_eq!(*health.borrow_and_update(), [false], "nobody should ask it");
    gate.open.send(()).expect("the canary can sing again");
    health.wait_for(|devices| devices == &[true]).await.expect("it recovers by itself");
}

#[tokio::test]
async fn a_device_that_hangs_is_reported_and_then_given_up() {
    let mut devices = scripted([Act::Hang]).await;
    tokio::time::pause();
    let handle = devices.handle();
    let mut health = devices.health();
    let before = Instant::now();
    let (answer, _) = tokio::join!(embed(&handle, 7), async {
        health.wait_for(|devices| devices == &[false]).await.expect("the driver lives");
        assert_eq!(before.elapsed().as_secs(), 30, "the service is not healthy");
    });
    assert_eq!(answer, Err(CallError::Stopped), "no answer will come");
    assert_eq!(before.elapsed().as_secs(), 120, "after all patience");
    devices.died().await;
    assert_eq!(devices.stop().await, Err(Death::Hung), "the process must end");
}

#[tokio::test]
async fn a_device_whose_errors_are_final_stops_everything() {
    for (act, death) in [
        (Act::Panic, Death::Panicked),
        (Act::Lose, Death::Lost("a test asked for this loss".to_owned())),
    ] {
        let mut devices = scripted([act]).await;
        let handle = devices.handle();
        assert_eq!(embed(&handle, 1).await, Err(CallError::Stopped), "no answer will come");
        devices.died().await;
        assert_eq!(*devices.health().borrow(), [false], "not healthy");
        let refused = handle.admit(LANE, &[10]).map(|permits| permits.len());
        assert_eq!(refused, Err(CallError::Stopped), "nothing new is taken");
        assert_eq!(devices.stop().await, Err(death), "the process must end");
    }
}

#[tokio::test]
async fn a_device_that_fails_again_and_again_is_given_up() {
    let acts = [Act::Well; WARM_UP].into_iter().chain([Act::Fail; 30]);
    let mut devices = eager(Fake::new(2).script(acts)).await;
    devices.died().await;
    let death = devices.stop().await.expect_err("the canary failed until it was enough");
    assert!(matches!(death, Death::Failing(_)), "{death}");
}

#[tokio::test]
async fn stopping_answers_those_who_wait() {
    let (devices, gate) = gated().await;
    let handle = devices.handle();
    let first = queue_first(&handle, 1);
    let (_, gate) = started(gate).await;
    let mut waiting = queue(&handle, 10..12).await;
    gate.open.send(()).expect("the device waits");
    let stopped = tokio::spawn(devices.stop());
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
    let (handle, permit) = (handle.clone(), permit(handle, LANE));
    tokio::spawn(async move { handle.embed(text(id), None, permit).await })
}
