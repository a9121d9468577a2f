use super::*;

fn window(max_pictures: usize, max_bytes: u64) -> Window {
    Window::new(Bounds { max_pictures, max_bytes: ByteSize(max_bytes) })
}

fn picture(name: &str, bytes: usize) -> Picture {
    let image = vec![0; bytes];
    Picture { path: name.into(), hash: ContentHash::of(&image), image: image.into() }
}

fn sent(window: &mut Window, now: Instant) -> Vec<String> {
    let mut names = Vec::new();
    while let Some((_, picture)) = window.next_ready(now) {
        names.push(picture.path.display().to_string());
    }
    names
}

#[test]
fn is_bounded_in_pictures_and_bytes() {
    let mut few = window(2, 1_000);
    few.admit(picture("a", 1));
    assert!(few.has_room(), "one of two");
    few.admit(picture("b", 1));
    assert!(!few.has_room(), "two of two");

    let mut small = window(10, 100);
    assert!(small.has_room(), "one always fits");
    small.admit(picture("large", 500));
    assert!(!small.has_room(), "over the bytes");
    let (key, _) = small.next_ready(Instant::now()).expect("to be sent");
    small.settle(key, Ok(IndexOutcome::Created), Instant::now());
    assert!(small.has_room() && small.is_empty(), "room again once it is stored");
}

#[test]
fn what_was_not_acknowledged_is_sent_again_in_order() {
    let now = Instant::now();
    let mut window = window(10, 1_000);
    for name in ["a", "b", "c"] {
        window.admit(picture(name, 1));
    }
    assert_eq!(sent(&mut window, now), ["a", "b", "c"], "in order");
    let settled = window.settle(1, Ok(IndexOutcome::Created), now);
    assert_eq!(settled, Some(Settled::Indexed("b".into())), "acknowledged");
    window.rewind();
    assert!(!window.is_awaiting(), "nothing is under way");
    assert_eq!(sent(&mut window, now), ["a", "c"], "all but the acknowledged");
    let stored_unheard = window.settle(0, Ok(IndexOutcome::Unchanged), now);
    assert_eq!(stored_unheard, Some(Settled::Indexed("a".into())), "stored before the break");
}

#[test]
fn a_busy_mesh_is_left_alone_for_as_long_as_it_asks() {
    let now = Instant::now();
    let mut window = window(10, 1_000);
    window.admit(picture("a", 1));
    let (key, _) = window.next_ready(now).expect("to be sent");
    let delay = Duration::from_secs(3);
    assert_eq!(window.settle(key, Err(code::busy("full", delay)), now), None, "not settled");
    assert!(!window.is_ready(now + Duration::from_secs(2)), "too early");
    assert_eq!(window.wake(), Some(now + delay), "wakes when it may");
    assert!(window.is_ready(now + delay), "now it may");
}

#[test]
fn a_mesh_that_stays_busy_fails_the_picture_at_last() {
    let mut now = Instant::now();
    let mut window = window(10, 1_000);
    window.admit(picture("a", 1));
    let mut attempts = 0;
    let settled = loop {
        let (key, _) = window.next_ready(now).expect("to be sent");
        attempts += 1;
        let status = Status::resource_exhausted("the queue is full");
        if let Some(settled) = window.settle(key, Err(status), now) {
            break settled;
        }
        now = window.wake().expect("it waits");
    };
    assert_eq!(attempts, MAX_ATTEMPTS, "bounded");
    let reason = "the queue is full".to_owned();
    assert_eq!(settled, Settled::Failed("a".into(), reason), "with the reason");
}

#[test]
fn a_bad_picture_is_not_tried_again() {
    let now = Instant::now();
    let mut window = window(10, 1_000);
    window.admit(picture("a.jpg", 1));
    window.admit(picture("b.jpg", 1));
    assert_eq!(sent(&mut window, now).len(), 2, "both are sent");
    let violation =
        code::FieldViolation::new("item.image", code::Reason::NotAnImage, "not an image");
    let settled = window.settle(0, Err(violation.into_status()), now);
    let expected = Settled::Failed("a.jpg".into(), "not an image".to_owned());
    assert_eq!(settled, Some(expected), "the reason without the field");
    let neighbour = window.settle(1, Ok(IndexOutcome::Created), now);
    assert_eq!(neighbour, Some(Settled::Indexed("b.jpg".into())), "its neighbour is stored");
}

#[test]
fn a_message_too_long_costs_the_longest_picture_only() {
    let now = Instant::now();
    let mut window = window(10, 10_000);
    window.admit(picture("small", 1));
    window.admit(picture("large", 900));
    sent(&mut window, now);
    let settled = window.drop_longest(&Status::out_of_range("too long"));
    let expected = Settled::Failed("large".into(), "too long".to_owned());
    assert_eq!(settled, Some(expected), "the longest");
    window.rewind();
    assert_eq!(sent(&mut window, now), ["small"], "the other goes again");
}

#[test]
fn an_acknowledgement_that_nobody_awaits_is_ignored() {
    let now = Instant::now();
    let mut window = window(10, 1_000);
    window.admit(picture("a", 1));
    assert_eq!(window.settle(0, Ok(IndexOutcome::Created), now), None, "it was not sent");
    assert_eq!(window.settle(7, Ok(IndexOutcome::Created), now), None, "there is no such key");
}

#[test]
fn backoff_grows_and_is_bounded() {
    assert_eq!(backoff(0), FIRST_BACKOFF, "first");
    assert_eq!(backoff(1), 2 * FIRST_BACKOFF, "doubled");
    assert_eq!(backoff(40), LONGEST_BACKOFF, "bounded");
}
