//! Memory that a thread keeps from one picture to the next.
//!
//! What an allocator gives back to the system, it must ask for again, page by page, under a lock
//! that all threads share: a tenth of the time of a small picture, and more with every core.

use std::cell::RefCell;

/// Buffers that a thread keeps: that of the decoder, and that between the two passes of a resize.
const MAX_BUFFERS: usize = 2;
/// Larger ones are not kept: there, the time goes elsewhere.
const MAX_BYTES: usize = 8 << 20;

thread_local! {
    static KEPT: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// A buffer of `len` bytes, with whatever was left in it.
pub(super) fn take(len: usize) -> Vec<u8> {
    let kept = KEPT.with_borrow_mut(|kept| {
        let fits = |buffer: &Vec<u8>| buffer.capacity() >= len;
        let index = kept.iter().position(fits);
        index.map(|index| kept.swap_remove(index)).or_else(|| kept.pop())
    });
    match kept {
        Some(mut buffer) if buffer.capacity() >= len => {
            buffer.resize(len, 0);
            buffer
        }
        // New memory is zero already.
        Some(_) | None => vec![0; len],
    }
}

/// Keeps a buffer for the next one to take.
pub(super) fn give_back(buffer: Vec<u8>) {
    if buffer.capacity() > MAX_BYTES {
        return;
    }
    KEPT.with_borrow_mut(|kept| {
        if kept.len() < MAX_BUFFERS {
            kept.push(buffer);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_used_again_where_it_fits() {
        let first = take(1000);
        let place = first.as_ptr();
        give_back(first);
        let smaller = take(900);
        assert_eq!((smaller.as_ptr(), smaller.len()), (place, 900), "the same memory");
        give_back(smaller);
        assert_eq!(take(100_000).len(), 100_000, "larger than what was kept");
    }

    #[test]
    fn little_is_kept() {
        for _ in 0..5 {
            give_back(vec![0; 10]);
        }
        give_back(vec![0; MAX_BYTES + 1]);
        KEPT.with_borrow(|kept| {
            assert_eq!(kept.len(), MAX_BUFFERS, "no more of them");
            assert!(kept.iter().all(|buffer| buffer.capacity() <= MAX_BYTES), "none too large");
        });
    }
}
