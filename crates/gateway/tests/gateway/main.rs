//! The gateway over real sockets, with small services of the real contracts behind it.

mod fakes;
mod faults;
mod forwarding;
mod health;
mod limits;
mod shutdown;
mod streams;
mod support;
mod trace;
mod web;
