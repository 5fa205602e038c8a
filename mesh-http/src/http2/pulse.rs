//! Pings: whether the other side is still there, and how long a round trip takes.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use h2::{Ping, PingPong};
use tokio::time::{Instant, Sleep, sleep};

use super::state::State;
use super::window::Window;

/// After this part of an interval it is looked whether bytes came in: if not, after the rest of it again, so that a connection
/// that is at rest is looked at twice.
const PART: u32 = 4;

/// A connection's pings. Polled by the connection's task before the connection itself, which sends them.
pub(crate) struct Pulse {
    pings: PingPong,
    /// The ping that is out: when it was sent, and what had been read until then.
    out: Option<(Instant, usize)>,
    keep_alive: Option<Watch>,
    adaptive: Option<Adaptive>,
}

/// When a connection is pinged, and for how long it may be silent then.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KeepAlive {
    pub(crate) interval: Duration,
    pub(crate) timeout: Duration,
    /// Though no request is in flight.
    pub(crate) while_idle: bool,
}

/// What a pulse asks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Beat {
    /// Windows of so many bytes.
    Window(u32),
    /// An end: nothing was heard for so long after a ping.
    Silent(Duration),
}

#[derive(Debug)]
struct Watch {
    settings: KeepAlive,
    /// While there is something to wait for.
    timer: Option<Pin<Box<Sleep>>>,
    /// What had been read when the timer was set.
    read: usize,
    /// Nothing came in in the first part of the interval.
    quiet: bool,
    /// A ping was sent for want of anything else.
    asked: bool,
}

#[derive(Debug)]
struct Adaptive {
    window: Window,
    /// When the next round trip may be measured.
    next: Instant,
    /// What had been read when the last one was.
    read: usize,
}

impl Pulse {
    pub(crate) fn new(pings: PingPong, keep_alive: Option<KeepAlive>, adaptive: bool) -> Self {
        let keep_alive = keep_alive.map(|settings| Watch {
            settings,
            timer: None,
            read: 0,
            quiet: false,
            asked: false,
        });
        let adaptive = adaptive.then(|| Adaptive {
            window: Window::new(super::ADAPTIVE_WINDOW_BYTES),
            next: Instant::now(),
            read: 0,
        });
        Self {
            pings,
            out: None,
            keep_alive,
            adaptive,
        }
    }

    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, state: &State) -> Poll<Beat> {
        if let Some((sent, read)) = self.out
            && self.pings.poll_pong(cx).is_ready()
        {
            self.out = None;
            if let Some(adaptive) = &mut self.adaptive {
                let now = Instant::now();
                let bytes = state.read.get().wrapping_sub(read);
                let window = adaptive.window.measured(bytes, now - sent);
                adaptive.next = now + adaptive.window.pause();
                adaptive.read = state.read.get();
                if let Some(bytes) = window {
                    return Poll::Ready(Beat::Window(bytes));
                }
            }
        }
        if self.out.is_none()
            && let Some(adaptive) = &self.adaptive
            && adaptive.read != state.read.get()
            && Instant::now() >= adaptive.next
        {
            Self::send(cx, &mut self.pings, &mut self.out, state);
        }
        let Some(keep_alive) = &mut self.keep_alive else {
            return Poll::Pending;
        };
        loop {
            match ready!(keep_alive.poll(cx, state)) {
                Some(silent) => return Poll::Ready(Beat::Silent(silent)),
                None if self.out.is_none() => {
                    Self::send(cx, &mut self.pings, &mut self.out, state);
                }
                None => {}
            }
        }
    }

    fn send(
        cx: &mut Context<'_>,
        pings: &mut PingPong,
        out: &mut Option<(Instant, usize)>,
        state: &State,
    ) {
        // It fails only where the connection is ending.
        if pings.send_ping(Ping::opaque()).is_ok() {
            *out = Some((Instant::now(), state.read.get()));
            // Not there yet; it is to wake this task.
            let _ = pings.poll_pong(cx);
        }
    }
}

impl Watch {
    /// Ready with nothing where a ping is to be sent, and with how long nothing was heard where the connection is to end.
    fn poll(&mut self, cx: &mut Context<'_>, state: &State) -> Poll<Option<Duration>> {
        let KeepAlive {
            interval,
            timeout,
            while_idle,
        } = self.settings;
        loop {
            let rests = !while_idle && state.streams.get() == 0;
            let Some(timer) = &mut self.timer else {
                if rests {
                    return Poll::Pending;
                }
                self.wait(interval / PART, state);
                self.quiet = false;
                continue;
            };
            ready!(timer.as_mut().poll(cx));
            let heard = self.read != state.read.get();
            if self.asked {
                if !heard {
                    return Poll::Ready(Some(timeout));
                }
                self.asked = false;
                self.timer = None;
                continue;
            }
            if rests {
                self.timer = None;
                return Poll::Pending;
            }
            if heard || !self.quiet {
                self.quiet = !heard;
                let part = interval / PART;
                self.wait(if heard { part } else { interval - part }, state);
                continue;
            }
            self.asked = true;
            self.wait(timeout, state);
            return Poll::Ready(None);
        }
    }

    fn wait(&mut self, time: Duration, state: &State) {
        self.read = state.read.get();
        match &mut self.timer {
            Some(timer) => timer.as_mut().reset(Instant::now() + time),
            None => self.timer = Some(Box::pin(sleep(time))),
        }
    }
}
